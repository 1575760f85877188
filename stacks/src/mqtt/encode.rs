//! One packet onto the end of a buffer, in its one canonical form.
//!
//! What an encoder writes is decoded again before it counts: we send nothing that we would
//! refuse. On any fault the buffer is as it was.

use moonwire_runtime::Buffer;

use super::{
    Fault, PACKET_MAX, Version, decode,
    packet::{Ack, Connect, Packet, PacketType, Publish, Reason},
    property::Properties,
    reason, topic,
    wire::{self, Writer, varint_bytes},
};

/// Appends `packet` to `out`. A packet larger than `packet_max` is refused.
pub fn encode(out: &mut Buffer, packet: &Packet<'_>, version: Version, packet_max: usize) -> Result<(), Fault> {
    if let Packet::Publish(publish) = packet {
        return encode_publish(out, publish, version, packet_max);
    }
    let mut body = Vec::new();
    write(&mut Writer::new(&mut body), packet, version)?;
    let kind = packet.packet_type();
    let first = (kind as u8) << 4 | kind.flags().unwrap_or_default();
    let before = out.len();
    header(out, kind, first, body.len(), packet_max)?;
    out.extend(&body);
    match decode(&out.as_slice()[before..], Some(version), PACKET_MAX) {
        Ok(Some((again, size))) if again.packet_type() == kind && size == out.len() - before => Ok(()),
        Ok(_) => {
            out.truncate(before);
            Err(Fault::malformed(format!("{}: cannot be said in this version", kind.name())))
        }
        Err(fault) => {
            out.truncate(before);
            Err(fault)
        }
    }
}

/// Appends a PUBLISH to `out`: the hot path, with nothing in between.
pub fn encode_publish(
    out: &mut Buffer,
    publish: &Publish<'_>,
    version: Version,
    packet_max: usize,
) -> Result<(), Fault> {
    let Publish { topic, payload, qos, retain, dup, packet_id, properties } = *publish;
    wire::no_null(topic.as_bytes(), "topic")?;
    if topic.len() > wire::LENGTH_MAX {
        return Err(Fault::too_large(format!("topic: {} bytes, at most {}", topic.len(), wire::LENGTH_MAX)));
    }
    if qos > 2 {
        return Err(Fault::malformed("PUBLISH: QoS 3 does not exist"));
    }
    if dup && qos == 0 {
        return Err(Fault::malformed("PUBLISH: DUP with QoS 0"));
    }
    // [MQTT-2.2.1-2], [MQTT-2.2.1-3]
    if (qos > 0) != (packet_id > 0) {
        return Err(Fault::protocol("PUBLISH: a packet identifier with QoS 1 and 2, and none with QoS 0"));
    }
    let properties = checked(properties, version)?;
    if !topic.is_empty() {
        topic::check_name(topic, "topic")?;
    } else if properties.is_none_or(|properties| properties.get("topic_alias").is_none()) {
        return Err(Fault::protocol("PUBLISH: neither a topic nor a topic alias"));
    }
    let (length, length_size) = match properties {
        Some(properties) => varint_bytes(properties.as_wire().len() as u32),
        None => ([0; 4], 0),
    };
    let property_wire = properties.map_or(&[][..], |properties| properties.as_wire());
    let id_size = if qos > 0 { 2 } else { 0 };
    let size = 2 + topic.len() + id_size + length_size + property_wire.len() + payload.len();
    let first = (PacketType::Publish as u8) << 4 | u8::from(dup) << 3 | qos << 1 | u8::from(retain);
    header(out, PacketType::Publish, first, size, packet_max)?;
    out.extend(&(topic.len() as u16).to_be_bytes());
    out.extend(topic.as_bytes());
    // Few large pieces are appended sooner than many small ones.
    let [high, low] = packet_id.to_be_bytes();
    let [a, b, c, d] = length;
    let middle = [high, low, a, b, c, d];
    out.extend(&middle[2 - id_size..2 + length_size]);
    if !property_wire.is_empty() {
        out.extend(property_wire);
    }
    out.extend(payload);
    Ok(())
}

/// The properties of a PUBLISH, looked at again; `None` before MQTT 5, which has none.
fn checked(properties: Properties<'_>, version: Version) -> Result<Option<Properties<'_>>, Fault> {
    match version {
        Version::V311 => no_properties(properties).map(|()| None),
        Version::V5 if properties.is_empty() => Ok(Some(properties)),
        Version::V5 => properties.check(PacketType::Publish).map(|()| Some(properties)),
    }
}

/// Appends a fixed header, after a look at what it announces.
fn header(out: &mut Buffer, kind: PacketType, first: u8, remaining: usize, packet_max: usize) -> Result<(), Fault> {
    let packet_max = packet_max.min(PACKET_MAX);
    let (length, length_size) = match u32::try_from(remaining) {
        Ok(remaining) if remaining <= wire::VARINT_MAX => varint_bytes(remaining),
        _ => return Err(Fault::too_large(format!("{}: {remaining} bytes, at most {packet_max}", kind.name()))),
    };
    let size = 1 + length_size + remaining;
    if size > packet_max {
        return Err(Fault::too_large(format!("{}: {size} bytes, at most {packet_max}", kind.name())));
    }
    out.reserve(size);
    let [a, b, c, d] = length;
    out.extend(&[first, a, b, c, d][..1 + length_size]);
    Ok(())
}

/// Writes variable header and payload.
fn write(writer: &mut Writer<'_>, packet: &Packet<'_>, version: Version) -> Result<(), Fault> {
    match packet {
        Packet::Connect(packet) => connect(writer, packet),
        Packet::Connack(packet) => {
            writer.u8(packet.session_present.into());
            writer.u8(packet.reason_code);
            properties(writer, packet.properties, version)
        }
        Packet::Publish(_) | Packet::Pingreq | Packet::Pingresp => Ok(()),
        Packet::Ack(_, Ack { packet_id, reason_code, properties }) => {
            writer.u16(*packet_id);
            reason_and_properties(writer, &Reason { reason_code: *reason_code, properties: *properties }, version)
        }
        Packet::Subscribe(packet) => {
            writer.u16(packet.packet_id);
            properties(writer, packet.properties, version)?;
            writer.raw(packet.subscriptions.as_wire());
            Ok(())
        }
        Packet::Unsubscribe(packet) => {
            writer.u16(packet.packet_id);
            properties(writer, packet.properties, version)?;
            writer.raw(packet.filters.as_wire());
            Ok(())
        }
        Packet::Acks(_, packet) => {
            writer.u16(packet.packet_id);
            properties(writer, packet.properties, version)?;
            writer.raw(packet.reason_codes);
            Ok(())
        }
        Packet::Reason(PacketType::Auth, packet) if packet.reason_code != 0 && packet.properties.is_empty() => {
            Err(Fault::protocol("AUTH: no authentication_method"))
        }
        Packet::Reason(_, packet) => reason_and_properties(writer, packet, version),
    }
}

fn connect(writer: &mut Writer<'_>, packet: &Connect<'_>) -> Result<(), Fault> {
    let Connect { version, clean_start, keep_alive, client_id, will, username, password, .. } = packet;
    let mut flags = u8::from(*clean_start) << 1;
    if let Some(will) = will {
        if will.qos > 2 {
            return Err(Fault::malformed("will: QoS 3 does not exist"));
        }
        flags |= 1 << 2 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(password.is_some()) << 6 | u8::from(username.is_some()) << 7;
    writer.text("MQTT", "protocol name")?;
    writer.u8(*version as u8);
    writer.u8(flags);
    writer.u16(*keep_alive);
    properties(writer, packet.properties, *version)?;
    writer.text(client_id, "client_id")?;
    if let Some(will) = will {
        properties(writer, will.properties, *version)?;
        writer.text(will.topic, "will topic")?;
        writer.bytes(will.payload, "will payload")?;
    }
    if let Some(username) = username {
        writer.text(username, "username")?;
    }
    if let Some(password) = password {
        writer.bytes(password, "password")?;
    }
    Ok(())
}

/// A reason code and properties in their shortest form (3.4.2.1, 3.14.2.1, 3.15.2.1).
fn reason_and_properties(writer: &mut Writer<'_>, packet: &Reason<'_>, version: Version) -> Result<(), Fault> {
    if version == Version::V311 {
        // It has no way to say a reason.
        if packet.reason_code != 0 {
            return Err(Fault::protocol("a reason code needs MQTT 5"));
        }
        return no_properties(packet.properties);
    }
    if packet.reason_code != 0 || !packet.properties.is_empty() {
        writer.u8(packet.reason_code);
    }
    if !packet.properties.is_empty() {
        properties(writer, packet.properties, version)?;
    }
    Ok(())
}

/// The length of the properties and they themselves [MQTT-2.2.2-1]; nothing before MQTT 5.
fn properties(writer: &mut Writer<'_>, properties: Properties<'_>, version: Version) -> Result<(), Fault> {
    match version {
        Version::V311 => no_properties(properties),
        Version::V5 => {
            writer.varint(properties.as_wire().len(), "properties")?;
            writer.raw(properties.as_wire());
            Ok(())
        }
    }
}

fn no_properties(properties: Properties<'_>) -> Result<(), Fault> {
    if properties.is_empty() { Ok(()) } else { Err(Fault::protocol("properties need MQTT 5")) }
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties: a hot path too.
pub fn encode_ack(
    out: &mut Buffer,
    kind: PacketType,
    packet_id: u16,
    reason_code: u8,
    version: Version,
) -> Result<(), Fault> {
    if packet_id == 0 {
        return Err(Fault::protocol("packet identifier: must not be 0"));
    }
    if !reason::allowed(kind, version, reason_code) {
        return Err(Fault::protocol(format!("{}: may not carry reason code 0x{reason_code:02X}", kind.name())));
    }
    let first = (kind as u8) << 4 | kind.flags().unwrap_or_default();
    let [high, low] = packet_id.to_be_bytes();
    match reason_code {
        0 => out.extend(&[first, 2, high, low]),
        code => out.extend(&[first, 3, high, low, code]),
    }
    Ok(())
}
