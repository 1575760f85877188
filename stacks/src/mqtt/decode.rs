//! One whole packet off the front of some bytes.

use super::{
    Fault, PACKET_MAX, Version,
    packet::{
        Ack, Acks, Connack, Connect, Filters, Packet, PacketType, Publish, Reason, Subscribe, Subscriptions,
        Unsubscribe, Will,
    },
    property::{Home, Properties},
    reason, topic,
    wire::{Reader, Varint, varint},
};

/// Where a packet lies at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    packet: PacketType,
    flags: u8,
    /// Where the variable header begins.
    start: usize,
    /// Where the packet ends.
    end: usize,
}

/// Decodes the packet at the front of `bytes`: itself and its size, or `None` while not all of
/// it is there. Without a `version`, as a server before CONNECT, only CONNECT is taken. What
/// is larger than `packet_max` or cannot be right is refused as soon as its first bytes say so.
pub fn decode(bytes: &[u8], version: Option<Version>, packet_max: usize) -> Result<Option<(Packet<'_>, usize)>, Fault> {
    let Some(frame) = frame(bytes, version, packet_max)? else { return Ok(None) };
    let Some(body) = bytes.get(frame.start..frame.end) else { return Ok(None) };
    let mut reader = Reader::new(body);
    let packet = match (frame.packet, version) {
        (PacketType::Connect, _) => Packet::Connect(connect(&mut reader)?),
        // [MQTT-3.1.0-1]; `frame` saw to it.
        (_, None) => return Err(not_connect()),
        (PacketType::Publish, Some(version)) => Packet::Publish(publish(&mut reader, frame.flags, version)?),
        (packet, Some(version)) => other(packet, &mut reader, version)?,
    };
    if !reader.is_empty() {
        return Err(Fault::malformed(format!("{}: {} bytes too many", frame.packet.name(), reader.len())));
    }
    Ok(Some((packet, frame.end)))
}

fn not_connect() -> Fault {
    Fault::protocol("the first packet is not CONNECT")
}

/// Reads the fixed header (2.1).
fn frame(bytes: &[u8], version: Option<Version>, packet_max: usize) -> Result<Option<Frame>, Fault> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(packet) = PacketType::from_first(first, version.unwrap_or(Version::V5)) else {
        return Err(Fault::malformed(format!("packet type {} does not exist", first >> 4)));
    };
    if version.is_none() && packet != PacketType::Connect {
        return Err(not_connect());
    }
    let flags = first & 0x0F;
    match packet.flags() {
        // [MQTT-2.1.3-1] (3.1.1: [MQTT-2.2.2-1], [MQTT-2.2.2-2])
        Some(only) if flags != only => {
            return Err(Fault::malformed(format!("{}: a reserved flag is set", packet.name())));
        }
        // [MQTT-3.3.1-4]
        None if flags & 0b0110 == 0b0110 => return Err(Fault::malformed("PUBLISH: QoS 3 does not exist")),
        // [MQTT-3.3.1-2]
        None if flags & 0b1110 == 0b1000 => return Err(Fault::malformed("PUBLISH: DUP with QoS 0")),
        _ => {}
    }
    match varint(rest) {
        Varint::Partial => Ok(None),
        Varint::TooLong => Err(Fault::malformed("remaining length: longer than four bytes")),
        // 3.1.1 does not ask for the shortest form (2.2.3).
        Varint::Whole { minimal: false, .. } if version == Some(Version::V5) => {
            Err(Fault::malformed("remaining length: not in its shortest form"))
        }
        Varint::Whole { value, size, .. } => {
            let start = 1 + size;
            let end = start + value as usize;
            if end > packet_max.min(PACKET_MAX) {
                return Err(Fault::too_large(format!("{}: {end} bytes, at most {packet_max}", packet.name())));
            }
            Ok(Some(Frame { packet, flags, start, end }))
        }
    }
}

/// CONNECT, which says itself which version it is.
fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, Fault> {
    let unsupported = |what| Fault::protocol(what).with_code(reason::UNSUPPORTED_PROTOCOL_VERSION);
    // [MQTT-3.1.2-1], [MQTT-3.1.2-2]
    let name = reader.bytes("protocol name")?;
    if name != b"MQTT" {
        return Err(unsupported("CONNECT: the protocol name is not MQTT"));
    }
    let level = reader.u8("protocol version")?;
    let Some(version) = Version::from_level(level) else {
        return Err(unsupported("CONNECT: neither MQTT 3.1.1 nor 5"));
    };
    let flags = reader.u8("connect flags")?;
    let flag = |bit: u8| flags & 1 << bit != 0;
    // [MQTT-3.1.2-3]
    if flag(0) {
        return Err(Fault::malformed("connect flags: the reserved flag is set"));
    }
    let (has_will, will_qos, will_retain) = (flag(2), flags >> 3 & 0b11, flag(5));
    let (has_password, has_username) = (flag(6), flag(7));
    // [MQTT-3.1.2-14]
    if will_qos > 2 {
        return Err(Fault::malformed("connect flags: will QoS 3 does not exist"));
    }
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-15]
    if !has_will && (will_qos != 0 || will_retain) {
        return Err(Fault::malformed("connect flags: will QoS or will retain without a will"));
    }
    // MQTT 5 allows a password alone (3.1.2.9); 3.1.1 does not: [MQTT-3.1.2-22] there.
    if has_password && !has_username && version == Version::V311 {
        return Err(Fault::malformed("connect flags: a password without a user name"));
    }
    let keep_alive = reader.u16("keep alive")?;
    let properties = properties(reader, version, PacketType::Connect)?;
    if properties.get("authentication_data").is_some() && properties.get("authentication_method").is_none() {
        // 3.1.2.11.10
        return Err(Fault::protocol("CONNECT: authentication_data without authentication_method"));
    }
    // [MQTT-3.1.3-1], [MQTT-3.1.3-3], [MQTT-3.1.3-4]
    let client_id = reader.text("client_id")?;
    let will = if has_will {
        let properties = match version {
            Version::V5 => Properties::read(reader, Home::Will)?,
            Version::V311 => Properties::default(),
        };
        let topic = reader.text("will topic")?;
        topic::check_name(topic, "will topic")?;
        Some(Will { topic, payload: reader.bytes("will payload")?, qos: will_qos, retain: will_retain, properties })
    } else {
        None
    };
    let username = if has_username { Some(reader.text("username")?) } else { None };
    let password = if has_password { Some(reader.bytes("password")?) } else { None };
    Ok(Connect { version, clean_start: flag(1), keep_alive, properties, client_id, will, username, password })
}

fn publish<'a>(reader: &mut Reader<'a>, flags: u8, version: Version) -> Result<Publish<'a>, Fault> {
    let topic = reader.text("topic")?;
    let qos = flags >> 1 & 0b11;
    // [MQTT-2.2.1-2] (3.1.1: [MQTT-2.3.1-5])
    let packet_id = if qos > 0 { packet_id(reader)? } else { 0 };
    let properties = properties(reader, version, PacketType::Publish)?;
    if !topic.is_empty() {
        topic::check_name(topic, "topic")?;
    } else if properties.get("topic_alias").is_none() {
        // 3.3.2.1; 3.1.1: [MQTT-4.7.3-1]
        return Err(Fault::protocol("PUBLISH: neither a topic nor a topic alias"));
    }
    let payload = reader.rest();
    Ok(Publish { topic, payload, qos, retain: flags & 1 != 0, dup: flags & 0b1000 != 0, packet_id, properties })
}

fn other<'a>(packet: PacketType, reader: &mut Reader<'a>, version: Version) -> Result<Packet<'a>, Fault> {
    use PacketType as P;
    Ok(match packet {
        P::Connack => Packet::Connack(connack(reader, version)?),
        P::Puback | P::Pubrec | P::Pubrel | P::Pubcomp => {
            let packet_id = packet_id(reader)?;
            let Reason { reason_code, properties } = reason(packet, reader, version)?;
            Packet::Ack(packet, Ack { packet_id, reason_code, properties })
        }
        P::Subscribe => Packet::Subscribe(Subscribe {
            packet_id: packet_id(reader)?,
            properties: properties(reader, version, packet)?,
            subscriptions: Subscriptions::read(reader, version)?,
        }),
        P::Unsubscribe => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(reader)?,
            properties: properties(reader, version, packet)?,
            filters: Filters::read(reader, version)?,
        }),
        P::Suback | P::Unsuback => {
            let packet_id = packet_id(reader)?;
            let properties = properties(reader, version, packet)?;
            // 3.1.1's UNSUBACK has no payload (3.11.3 there); what is left over is refused.
            let has_codes = packet == P::Suback || version == Version::V5;
            let reason_codes = if has_codes { reader.rest() } else { &[] };
            if has_codes && reason_codes.is_empty() {
                return Err(Fault::malformed(format!("{}: no reason code", packet.name())));
            }
            for &code in reason_codes {
                check_code(packet, version, code)?;
            }
            Packet::Acks(packet, Acks { packet_id, properties, reason_codes })
        }
        P::Pingreq => Packet::Pingreq,
        P::Pingresp => Packet::Pingresp,
        // 3.1.1's DISCONNECT is its first two bytes.
        P::Disconnect if version == Version::V311 => {
            Packet::Reason(packet, Reason { reason_code: 0, properties: Properties::default() })
        }
        P::Disconnect => Packet::Reason(packet, reason(packet, reader, version)?),
        P::Auth => Packet::Reason(packet, auth(reader, version)?),
        P::Connect | P::Publish => return Err(not_connect()),
    })
}

fn connack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Connack<'a>, Fault> {
    let flags = reader.u8("connect acknowledge flags")?;
    let reason_code = reader.u8("reason code")?;
    // A server that knows only 3.1.1 refuses MQTT 5 in its own words (3.1.1: [MQTT-3.1.2-2]).
    if (version, flags, reason_code, reader.is_empty()) == (Version::V5, 0, 1, true) {
        let reason_code = reason::UNSUPPORTED_PROTOCOL_VERSION;
        return Ok(Connack { session_present: false, reason_code, properties: Properties::default() });
    }
    // [MQTT-3.2.2-1]
    if flags > 1 {
        return Err(Fault::malformed("connect acknowledge flags: a reserved flag is set"));
    }
    check_code(PacketType::Connack, version, reason_code)?;
    // [MQTT-3.2.2-6] (3.1.1: [MQTT-3.2.2-4])
    if flags == 1 && reason_code != 0 {
        return Err(Fault::protocol("CONNACK: a session is present although the connection is refused"));
    }
    Ok(Connack {
        session_present: flags == 1,
        reason_code,
        properties: properties(reader, version, PacketType::Connack)?,
    })
}

/// AUTH is empty, or has both its fields (3.15.2.1).
fn auth<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Reason<'a>, Fault> {
    if reader.is_empty() {
        return Ok(Reason { reason_code: 0, properties: Properties::default() });
    }
    let reason_code = reader.u8("reason code")?;
    check_code(PacketType::Auth, version, reason_code)?;
    let properties = properties(reader, version, PacketType::Auth)?;
    // 3.15.2.2.2
    if properties.get("authentication_method").is_none() {
        return Err(Fault::protocol("AUTH: no authentication_method"));
    }
    Ok(Reason { reason_code, properties })
}

/// A reason code, and properties, which MQTT 5 lets end early (3.4.2.1, 3.14.2.1).
fn reason<'a>(packet: PacketType, reader: &mut Reader<'a>, version: Version) -> Result<Reason<'a>, Fault> {
    let none = Properties::default();
    if version == Version::V311 || reader.is_empty() {
        return Ok(Reason { reason_code: 0, properties: none });
    }
    let reason_code = reader.u8("reason code")?;
    check_code(packet, version, reason_code)?;
    let properties = if reader.is_empty() { none } else { properties(reader, version, packet)? };
    Ok(Reason { reason_code, properties })
}

fn check_code(packet: PacketType, version: Version, code: u8) -> Result<(), Fault> {
    if reason::allowed(packet, version, code) {
        return Ok(());
    }
    Err(Fault::protocol(format!("{}: may not carry reason code 0x{code:02X}", packet.name())))
}

/// A packet identifier, never 0 [MQTT-2.2.1-3] (3.1.1: [MQTT-2.3.1-1]).
fn packet_id(reader: &mut Reader<'_>) -> Result<u16, Fault> {
    match reader.u16("packet identifier")? {
        0 => Err(Fault::protocol("packet identifier: must not be 0")),
        id => Ok(id),
    }
}

/// The properties of a packet; none before MQTT 5.
fn properties<'a>(reader: &mut Reader<'a>, version: Version, packet: PacketType) -> Result<Properties<'a>, Fault> {
    match version {
        Version::V5 => Properties::read(reader, Home::Packet(packet)),
        Version::V311 => Ok(Properties::default()),
    }
}
