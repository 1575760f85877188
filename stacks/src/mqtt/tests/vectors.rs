//! Bytes written out by hand, after the figures and rules of the standards.

use super::{encoded, whole};
use crate::mqtt::{
    PACKET_MAX, Packet, Version, decode,
    packet::{Ack, Connack, Connect, PacketType, Publish, Reason, Subscription},
    property::{Properties, Value},
};
use moonwire_runtime::Kind;

const V311: Version = Version::V311;
const V5: Version = Version::V5;

/// The reason code `wire` is refused with.
fn refused(wire: &[u8], version: Version) -> u8 {
    match decode(wire, Some(version), PACKET_MAX) {
        Err(fault) => {
            assert_eq!(fault.kind, Kind::Protocol, "{fault}");
            fault.code
        }
        taken => panic!("{version:?} took {wire:02X?}: {taken:?}"),
    }
}

#[test]
fn connect_of_mqtt_5_as_figure_3_6() {
    // Protocol name, version 5, user name, password, will QoS 1, will, clean start; keep alive 10; session expiry 10.
    let mut wire = b"\x10\x2E\x00\x04MQTT\x05\xCE\x00\x0A\x05\x11\x00\x00\x00\x0A\x00\x02id".to_vec();
    wire.extend(b"\x05\x18\x00\x00\x00\x07\x00\x02wt\x00\x03bye\x00\x04user\x00\x03\x00\xFF!");
    let Ok(Packet::Connect(connect)) = whole(&wire, V5) else { panic!("{:?}", whole(&wire, V5)) };
    assert_eq!((connect.version, connect.clean_start, connect.keep_alive, connect.client_id), (V5, true, 10, "id"));
    assert_eq!(connect.properties.get("session_expiry_interval"), Some(Value::Number(10)));
    let will = connect.will.unwrap();
    assert_eq!((will.topic, will.payload, will.qos, will.retain), ("wt", &b"bye"[..], 1, false));
    assert_eq!(will.properties.get("will_delay_interval"), Some(Value::Number(7)));
    assert_eq!((connect.username, connect.password), (Some("user"), Some(&b"\0\xFF!"[..])));
    assert_eq!(encoded(&Packet::Connect(connect), V5).unwrap(), wire);
}

#[test]
fn the_smallest_connect_of_each_version() {
    let smallest = |version| Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        properties: Properties::default(),
        client_id: "",
        will: None,
        username: None,
        password: None,
    };
    let packet = Packet::Connect(smallest(V311));
    assert_eq!(encoded(&packet, V311).unwrap(), b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x3C\x00\x00");
    let packet = Packet::Connect(smallest(V5));
    assert_eq!(encoded(&packet, V5).unwrap(), b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x00");
}

#[test]
fn a_server_takes_nothing_but_connect_at_first() {
    // [MQTT-3.1.0-1]: refused from the first byte on.
    assert_eq!(decode(&[0xC0], None, PACKET_MAX).unwrap_err().code, 0x82);
    assert_eq!(decode(&[0x30], None, PACKET_MAX).unwrap_err().code, 0x82);
    assert_eq!(decode(b"GET / HTTP/1.1", None, PACKET_MAX).unwrap_err().code, 0x82);
    assert!(decode(b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x3C\x00\x00", None, PACKET_MAX).unwrap().is_some());
}

#[test]
fn connect_of_another_protocol_or_version_is_told_which_to_use() {
    // [MQTT-3.1.2-1], [MQTT-3.1.2-2]
    for wire in [
        &b"\x10\x0E\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x00"[..],
        b"\x10\x0C\x00\x04mqtt\x04\x02\x00\x3C\x00\x00",
        b"\x10\x0C\x00\x04MQTT\x03\x02\x00\x3C\x00\x00",
        b"\x10\x0C\x00\x04MQTT\x06\x02\x00\x3C\x00\x00",
    ] {
        assert_eq!(refused(wire, V5), 0x84);
    }
}

#[test]
fn connect_flags_must_agree_with_each_other() {
    let connect = |version: u8, flags: u8, rest: &[u8]| {
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        let body = [b"\x00\x04MQTT", &[version, flags, 0, 60][..], properties, b"\x00\x01c", rest].concat();
        [&[0x10, body.len() as u8], &body[..]].concat()
    };
    let will5: &[u8] = b"\x00\x00\x01t\x00\x00";
    assert!(whole(&connect(5, 0b0000_0110, will5), V5).is_ok());
    assert_eq!(refused(&connect(5, 0b0000_0011, &[]), V5), 0x81, "[MQTT-3.1.2-3] reserved flag");
    assert_eq!(refused(&connect(5, 0b0000_1010, &[]), V5), 0x81, "[MQTT-3.1.2-13] will QoS without a will");
    assert_eq!(refused(&connect(5, 0b0010_0010, &[]), V5), 0x81, "[MQTT-3.1.2-15] will retain without a will");
    assert_eq!(refused(&connect(5, 0b0001_1110, will5), V5), 0x81, "[MQTT-3.1.2-14] will QoS 3");
    assert_eq!(refused(&connect(5, 0b1000_0010, &[]), V5), 0x81, "[MQTT-3.1.2-19] user name missing");
    assert_eq!(refused(&connect(5, 0b0000_0010, b"\x00\x01u"), V5), 0x81, "[MQTT-3.1.2-18] user name without its flag");
    assert_eq!(refused(&connect(5, 0b0000_0110, b"\x00\x00\x01+\x00\x00"), V5), 0x81, "a will topic with a wildcard");
    assert!(whole(&connect(5, 0b0100_0010, b"\x00\x01p"), V5).is_ok(), "MQTT 5 has passwords alone");
    assert_eq!(refused(&connect(4, 0b0100_0010, b"\x00\x01p"), V311), 0x81, "3.1.1: [MQTT-3.1.2-22]");
}

#[test]
fn authentication_data_needs_a_method() {
    // 3.1.2.11.10
    assert_eq!(refused(b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3C\x04\x16\x00\x01d\x00\x00", V5), 0x82);
}

#[test]
fn connack_tells_yes_and_no() {
    let yes = Connack { session_present: true, reason_code: 0, properties: Properties::default() };
    assert_eq!(whole(b"\x20\x02\x01\x00", V311), Ok(Packet::Connack(yes)));
    assert_eq!(whole(b"\x20\x03\x01\x00\x00", V5), Ok(Packet::Connack(yes)));
    assert_eq!(encoded(&Packet::Connack(yes), V5).unwrap(), b"\x20\x03\x01\x00\x00");
    assert_eq!(refused(b"\x20\x02\x01\x00", V5), 0x81, "the property length is missing");
    assert_eq!(refused(b"\x20\x03\x02\x00\x00", V5), 0x81, "[MQTT-3.2.2-1]");
    assert_eq!(refused(b"\x20\x03\x01\x87\x00", V5), 0x82, "[MQTT-3.2.2-6]");
    assert_eq!(refused(b"\x20\x02\x01\x05", V311), 0x82, "3.1.1: [MQTT-3.2.2-4]");
    assert_eq!(refused(b"\x20\x03\x00\x05\x00", V5), 0x82, "[MQTT-3.2.2-8]");
    assert_eq!(refused(b"\x20\x02\x00\x06", V311), 0x82);
}

#[test]
fn a_server_of_3_1_1_refusing_mqtt_5_is_understood() {
    let Ok(Packet::Connack(connack)) = whole(b"\x20\x02\x00\x01", V5) else { panic!() };
    assert_eq!(connack.reason_code, 0x84);
}

#[test]
fn publish_as_the_examples_of_figure_3_11_and_3_9() {
    // Topic "a/b", packet identifier 10, no properties.
    let wire = b"\x32\x0A\x00\x03a/b\x00\x0A\x00hi";
    let packet = Publish {
        topic: "a/b",
        payload: b"hi",
        qos: 1,
        retain: false,
        dup: false,
        packet_id: 10,
        properties: Properties::default(),
    };
    assert_eq!(whole(wire, V5), Ok(Packet::Publish(packet)));
    assert_eq!(encoded(&Packet::Publish(packet), V5).unwrap(), wire);
    assert_eq!(encoded(&Packet::Publish(packet), V311).unwrap(), b"\x32\x09\x00\x03a/b\x00\x0Ahi");
    let packet = Publish { qos: 0, packet_id: 0, payload: b"", retain: true, ..packet };
    assert_eq!(encoded(&Packet::Publish(packet), V311).unwrap(), b"\x31\x05\x00\x03a/b");
}

#[test]
fn publish_with_what_no_publish_may_have_is_refused() {
    assert_eq!(refused(&[0x36], V5), 0x81, "[MQTT-3.3.1-4] QoS 3, from the first byte on");
    assert_eq!(refused(&[0x38], V311), 0x81, "[MQTT-3.3.1-2] DUP with QoS 0");
    assert_eq!(refused(b"\x32\x06\x00\x01t\x00\x00\x00", V5), 0x82, "[MQTT-2.2.1-3] packet identifier 0");
    assert_eq!(refused(b"\x30\x04\x00\x01#\x00", V5), 0x81, "[MQTT-3.3.2-2]");
    assert_eq!(refused(b"\x30\x03\x00\x01+", V311), 0x81, "[MQTT-3.3.2-2]");
    assert_eq!(refused(b"\x30\x03\x00\x01\x00", V311), 0x81, "[MQTT-1.5.3-2]");
    assert_eq!(refused(b"\x30\x05\x00\x03\xED\xA0\x80", V311), 0x81, "[MQTT-1.5.3-1]");
    assert_eq!(refused(b"\x30\x02\x00\x00", V311), 0x82, "[MQTT-4.7.3-1]");
    assert_eq!(refused(b"\x30\x03\x00\x00\x00", V5), 0x82, "neither topic nor alias");
    assert!(whole(b"\x30\x06\x00\x00\x03\x23\x00\x01", V5).is_ok(), "an alias instead of a topic");
    assert_eq!(refused(b"\x30\x06\x00\x00\x03\x23\x00\x00", V5), 0x94, "[MQTT-3.3.2-8]");
}

#[test]
fn three_subscription_identifiers_leave_the_payload_whole() {
    let wire = b"\x30\x0D\x00\x01t\x06\x0B\x01\x0B\x02\x0B\x03abc";
    let Ok(Packet::Publish(publish)) = whole(wire, V5) else { panic!() };
    assert_eq!(publish.payload, b"abc");
    let ids: Vec<_> = publish.properties.iter().map(|(_, value)| value).collect();
    assert_eq!(ids, [Value::Number(1), Value::Number(2), Value::Number(3)]);
}

#[test]
fn an_acknowledgement_may_end_early() {
    // 3.4.2.1: two bytes, three, or four and more.
    let ack = |reason_code| Ack { packet_id: 5, reason_code, properties: Properties::default() };
    assert_eq!(whole(b"\x40\x02\x00\x05", V5), Ok(Packet::Ack(PacketType::Puback, ack(0))));
    assert_eq!(whole(b"\x40\x03\x00\x05\x10", V5), Ok(Packet::Ack(PacketType::Puback, ack(0x10))));
    assert_eq!(whole(b"\x40\x04\x00\x05\x10\x00", V5), Ok(Packet::Ack(PacketType::Puback, ack(0x10))));
    assert_eq!(encoded(&Packet::Ack(PacketType::Puback, ack(0)), V5).unwrap(), b"\x40\x02\x00\x05");
    assert_eq!(encoded(&Packet::Ack(PacketType::Pubrel, ack(0x92)), V5).unwrap(), b"\x62\x03\x00\x05\x92");
    assert!(encoded(&Packet::Ack(PacketType::Puback, ack(0x80)), V311).is_err(), "3.1.1 has no reasons");
    assert_eq!(refused(b"\x40\x03\x00\x05\x00", V311), 0x81);
    assert_eq!(refused(b"\x40\x02\x00\x00", V5), 0x82, "packet identifier 0");
    assert_eq!(refused(b"\x40\x03\x00\x05\x92", V5), 0x82, "[MQTT-3.4.2-1]");
}

#[test]
fn reserved_flags_are_refused_from_the_first_byte_on() {
    // [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]
    for version in [V311, V5] {
        for first in 0..=255u8 {
            let exists = (1..=if version == V5 { 15 } else { 14 }).contains(&(first >> 4));
            let flags = match first >> 4 {
                3 => first & 6 != 6 && first & 0x0E != 8,
                6 | 8 | 10 => first & 15 == 2,
                _ => first & 15 == 0,
            };
            let taken = decode(&[first], Some(version), PACKET_MAX).is_ok();
            assert_eq!(taken, exists && flags, "0x{first:02X} {version:?}");
        }
    }
}

#[test]
fn subscribe_keeps_each_option_by_itself() {
    // 3.8.3.1. Retain handling does not depend on retain as published.
    let wire = b"\x82\x15\x00\x0A\x00\x00\x01a\x10\x00\x01b\x2D\x00\x01c\x06\x00\x01d\x08".to_vec();
    let wire = [&[0x82, (wire.len() - 2) as u8], &wire[2..]].concat();
    let Ok(Packet::Subscribe(subscribe)) = whole(&wire, V5) else { panic!("{:?}", whole(&wire, V5)) };
    let list: Vec<_> = subscribe.subscriptions.iter().collect();
    let plain = Subscription { filter: "a", qos: 0, no_local: false, retain_as_published: false, retain_handling: 0 };
    assert_eq!(list[0], Subscription { retain_handling: 1, ..plain });
    let all = Subscription { filter: "b", qos: 1, no_local: true, retain_as_published: true, retain_handling: 2 };
    assert_eq!(list[1], all);
    assert_eq!(list[2], Subscription { filter: "c", qos: 2, no_local: true, ..plain });
    assert_eq!(list[3], Subscription { filter: "d", retain_as_published: true, ..plain });
    assert_eq!(list.iter().map(Subscription::options).collect::<Vec<_>>(), [0x10, 0x2D, 0x06, 0x08]);
    assert_eq!(encoded(&Packet::Subscribe(subscribe), V5).unwrap(), wire);
}

#[test]
fn subscribe_with_what_none_may_have_is_refused() {
    assert_eq!(refused(b"\x82\x03\x00\x0A\x00", V5), 0x82, "[MQTT-3.8.3-2]");
    assert_eq!(refused(b"\x82\x02\x00\x0A", V311), 0x82, "3.1.1: [MQTT-3.8.3-3]");
    assert_eq!(refused(b"\x82\x07\x00\x0A\x00\x00\x01a\x03", V5), 0x81, "QoS 3");
    assert_eq!(refused(b"\x82\x07\x00\x0A\x00\x00\x01a\x40", V5), 0x81, "[MQTT-3.8.3-5]");
    assert_eq!(refused(b"\x82\x07\x00\x0A\x00\x00\x01a\x30", V5), 0x82, "retain handling 3");
    assert_eq!(refused(b"\x82\x06\x00\x0A\x00\x01a\x04", V311), 0x81, "3.1.1: [MQTT-3-8.3-4]");
    assert_eq!(refused(b"\x82\x10\x00\x0A\x00\x00\x0A$share/g/a\x04", V5), 0x82, "[MQTT-3.8.3-4]");
    assert_eq!(refused(b"\x82\x08\x00\x0A\x00\x00\x02a#\x00", V5), 0x81, "[MQTT-4.7.1-1]");
    assert_eq!(refused(b"\x82\x06\x00\x0A\x00\x00\x01a", V5), 0x81, "options missing");
    assert_eq!(refused(b"\xA2\x03\x00\x0A\x00", V5), 0x82, "[MQTT-3.10.3-2]");
}

#[test]
fn suback_and_unsuback_answer_each_filter() {
    let Ok(Packet::Acks(PacketType::Suback, ack)) = whole(b"\x90\x06\x00\x0A\x00\x00\x02\x80", V5) else { panic!() };
    assert_eq!(ack.reason_codes, [0, 2, 0x80]);
    assert_eq!(refused(b"\x90\x03\x00\x0A\x00", V5), 0x81, "no reason code");
    assert_eq!(refused(b"\x90\x03\x00\x0A\x03", V311), 0x82, "3.1.1: [MQTT-3.9.3-2]");
    assert!(whole(b"\xB0\x02\x00\x0A", V311).is_ok());
    assert_eq!(refused(b"\xB0\x03\x00\x0A\x00", V311), 0x81, "3.1.1 has no reasons here");
    assert_eq!(refused(b"\xB0\x03\x00\x0A\x00", V5), 0x81, "MQTT 5 has one for each filter");
    assert!(whole(b"\xB0\x04\x00\x0A\x00\x11", V5).is_ok());
}

#[test]
fn disconnect_of_two_three_and_more_bytes() {
    let reason = |reason_code| Reason { reason_code, properties: Properties::default() };
    assert_eq!(whole(b"\xE0\x00", V5), Ok(Packet::Reason(PacketType::Disconnect, reason(0))));
    assert_eq!(whole(b"\xE0\x01\x8B", V5), Ok(Packet::Reason(PacketType::Disconnect, reason(0x8B))));
    assert_eq!(whole(b"\xE0\x02\x04\x00", V5), Ok(Packet::Reason(PacketType::Disconnect, reason(4))));
    assert_eq!(whole(b"\xE0\x00", V311), Ok(Packet::Reason(PacketType::Disconnect, reason(0))));
    assert_eq!(refused(b"\xE0\x01\x00", V311), 0x81);
    assert_eq!(encoded(&Packet::Reason(PacketType::Disconnect, reason(0)), V5).unwrap(), b"\xE0\x00");
    assert_eq!(encoded(&Packet::Reason(PacketType::Disconnect, reason(0x8B)), V5).unwrap(), b"\xE0\x01\x8B");
}

#[test]
fn auth_is_empty_or_has_a_method() {
    assert!(whole(b"\xF0\x00", V5).is_ok());
    assert_eq!(refused(b"\xF0\x01\x18", V5), 0x81, "the property length is missing");
    assert_eq!(refused(b"\xF0\x02\x18\x00", V5), 0x82, "3.15.2.2.2");
    let wire = b"\xF0\x0D\x18\x0B\x15\x00\x05SCRAM\x16\x00\x00";
    let Ok(Packet::Reason(PacketType::Auth, auth)) = whole(wire, V5) else { panic!() };
    assert_eq!(auth.properties.get("authentication_data"), Some(Value::Bytes(b"")));
    assert_eq!(encoded(&Packet::Reason(PacketType::Auth, auth), V5).unwrap(), wire);
    assert!(decode(&[0xF0, 0], Some(V311), PACKET_MAX).is_err(), "3.1.1 has no AUTH");
}

#[test]
fn lengths_in_their_longer_form_are_refused_by_mqtt_5_alone() {
    // [MQTT-1.5.5-1]; 3.1.1 says nothing (2.2.3).
    assert_eq!(refused(&[0xD0, 0x80, 0x00], V5), 0x81);
    assert!(whole(&[0xD0, 0x80, 0x00], V311).is_ok());
    assert_eq!(refused(&[0x30, 0x80, 0x80, 0x80, 0x80], V311), 0x81, "five bytes");
}

#[test]
fn pings_have_no_body() {
    assert_eq!(whole(b"\xC0\x00", V311), Ok(Packet::Pingreq));
    assert_eq!(whole(b"\xD0\x00", V5), Ok(Packet::Pingresp));
    assert_eq!(refused(b"\xC0\x01\x00", V311), 0x81);
}
