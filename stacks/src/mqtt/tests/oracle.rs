//! Random packets through `mqttbytes`, another implementation, where that is known to be right:
//! it writes again what it read of ours, and we read that.

use bytes::BytesMut;
use mqttbytes::{v4, v5};

use super::{
    samples::{Random, Shape, sample, seed},
    whole,
};
use crate::mqtt::{
    Packet, Version,
    packet::{PacketType, Will},
    property::Properties,
};

/// One of our packets, read and written by the oracle.
fn through_v4(wire: &[u8]) -> BytesMut {
    let mut stream = BytesMut::from(wire);
    let mut out = BytesMut::new();
    match v4::read(&mut stream, wire.len()).unwrap() {
        v4::Packet::Connect(packet) => packet.write(&mut out),
        v4::Packet::ConnAck(packet) => packet.write(&mut out),
        v4::Packet::Publish(packet) => packet.write(&mut out),
        v4::Packet::PubAck(packet) => packet.write(&mut out),
        v4::Packet::PubRec(packet) => packet.write(&mut out),
        v4::Packet::PubRel(packet) => packet.write(&mut out),
        v4::Packet::PubComp(packet) => packet.write(&mut out),
        v4::Packet::Subscribe(packet) => packet.write(&mut out),
        v4::Packet::SubAck(packet) => packet.write(&mut out),
        v4::Packet::Unsubscribe(packet) => packet.write(&mut out),
        v4::Packet::UnsubAck(packet) => packet.write(&mut out),
        v4::Packet::PingReq => v4::PingReq.write(&mut out),
        v4::Packet::PingResp => v4::PingResp.write(&mut out),
        v4::Packet::Disconnect => v4::Disconnect.write(&mut out),
    }
    .unwrap();
    assert!(stream.is_empty());
    out
}

fn through_v5(wire: &[u8]) -> BytesMut {
    let mut stream = BytesMut::from(wire);
    let mut out = BytesMut::new();
    match v5::read(&mut stream, wire.len()).unwrap_or_else(|error| panic!("{error:?}: {wire:02X?}")) {
        v5::Packet::Connect(packet) => packet.write(&mut out),
        v5::Packet::ConnAck(packet) => packet.write(&mut out),
        v5::Packet::Publish(packet) => packet.write(&mut out),
        v5::Packet::PubAck(packet) => packet.write(&mut out),
        v5::Packet::PubRec(packet) => packet.write(&mut out),
        v5::Packet::PubRel(packet) => packet.write(&mut out),
        v5::Packet::PubComp(packet) => packet.write(&mut out),
        v5::Packet::Subscribe(packet) => packet.write(&mut out),
        v5::Packet::SubAck(packet) => packet.write(&mut out),
        v5::Packet::Unsubscribe(packet) => packet.write(&mut out),
        v5::Packet::UnsubAck(packet) => packet.write(&mut out),
        v5::Packet::PingReq => v5::PingReq.write(&mut out),
        v5::Packet::PingResp => v5::PingResp.write(&mut out),
        v5::Packet::Disconnect(packet) => packet.write(&mut out),
    }
    .unwrap();
    assert!(stream.is_empty());
    out
}

/// Whether the oracle can carry `packet`, and in its own order and form.
fn carried(packet: &Packet<'_>) -> bool {
    match packet {
        // Its login is two strings, and its password is one.
        Packet::Connect(connect) => {
            let text = connect.password.is_none_or(|password| std::str::from_utf8(password).is_ok());
            text && connect.username.is_some() == connect.password.is_some()
                && connect.username.is_none_or(|name| !name.is_empty())
                && connect.password.is_none_or(|password| !password.is_empty())
        }
        // It writes one without properties that nobody can read, and counts three and more
        // subscription identifiers wrong.
        Packet::Connack(connack) => !connack.properties.is_empty(),
        Packet::Publish(publish) => {
            publish.properties.iter().filter(|(property, _)| property.name == "subscription_identifier").count() < 3
        }
        // It refuses the short forms.
        Packet::Reason(PacketType::Disconnect, reason) => !reason.properties.is_empty(),
        Packet::Reason(..) => false,
        _ => true,
    }
}

/// Properties in the order of identifiers: the oracle has an order of its own.
fn sorted(properties: Properties<'_>) -> Vec<String> {
    let mut list: Vec<_> = properties.iter().map(|(property, value)| (property.id, format!("{value:?}"))).collect();
    list.sort_by_key(|(id, _)| *id);
    list.into_iter().map(|(id, value)| format!("{id}: {value}")).collect()
}

/// A packet as text, without regard to the order of properties.
fn shown(packet: &Packet<'_>) -> String {
    let none = Properties::default();
    let bare = |properties: Properties<'_>, packet: Packet<'_>| format!("{:?} {packet:?}", sorted(properties));
    match *packet {
        Packet::Connect(mut connect) => {
            let properties = std::mem::replace(&mut connect.properties, none);
            let will = connect.will.map(|will| sorted(will.properties));
            connect.will = connect.will.map(|will| Will { properties: none, ..will });
            format!("{will:?} {}", bare(properties, Packet::Connect(connect)))
        }
        Packet::Connack(mut inner) => bare(std::mem::replace(&mut inner.properties, none), Packet::Connack(inner)),
        Packet::Publish(mut inner) => bare(std::mem::replace(&mut inner.properties, none), Packet::Publish(inner)),
        Packet::Ack(kind, mut inner) => bare(std::mem::replace(&mut inner.properties, none), Packet::Ack(kind, inner)),
        Packet::Subscribe(mut inner) => bare(std::mem::replace(&mut inner.properties, none), Packet::Subscribe(inner)),
        Packet::Unsubscribe(mut inner) => {
            bare(std::mem::replace(&mut inner.properties, none), Packet::Unsubscribe(inner))
        }
        Packet::Acks(kind, mut inner) => {
            bare(std::mem::replace(&mut inner.properties, none), Packet::Acks(kind, inner))
        }
        Packet::Reason(kind, mut inner) => {
            bare(std::mem::replace(&mut inner.properties, none), Packet::Reason(kind, inner))
        }
        Packet::Pingreq | Packet::Pingresp => format!("{packet:?}"),
    }
}

#[test]
fn packets_of_3_1_1_are_the_same_bytes_in_another_implementation() {
    let mut random = Random::new(seed());
    let mut compared = 0;
    for round in 0..3000 {
        let kind = PacketType::ALL[round % 14];
        let wire = sample(&mut random, kind, Version::V311, Shape { properties: 0, repeats: 1 });
        if carried_v4(&whole(&wire, Version::V311).unwrap()) {
            assert_eq!(through_v4(&wire), wire, "{kind:?}");
            compared += 1;
        }
    }
    assert!(compared > 2000, "{compared}");
}

/// 3.1.1 has no properties to be missed.
fn carried_v4(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(_) => carried(packet),
        _ => true,
    }
}

#[test]
fn packets_of_mqtt_5_mean_the_same_in_another_implementation() {
    let mut random = Random::new(seed());
    let mut compared = [0; 16];
    for round in 0..6000 {
        let kind = PacketType::ALL[round % 14];
        if kind == PacketType::Unsubscribe {
            // It prints to standard error whenever it reads one.
            continue;
        }
        let wire = sample(&mut random, kind, Version::V5, Shape { properties: 5, repeats: 2 });
        let packet = whole(&wire, Version::V5).unwrap();
        if !carried(&packet) {
            continue;
        }
        let theirs = through_v5(&wire);
        let again = whole(&theirs, Version::V5).unwrap_or_else(|fault| panic!("{fault}: {packet:?} {theirs:02X?}"));
        assert_eq!(shown(&again), shown(&packet), "{kind:?}");
        compared[kind as usize] += 1;
    }
    for kind in PacketType::ALL {
        if kind != PacketType::Auth && kind != PacketType::Unsubscribe {
            assert!(compared[kind as usize] > 30, "{kind:?}: {}", compared[kind as usize]);
        }
    }
}
