//! The functions that are called for every message, without mlua in between. What they leave, from wrong arguments
//! to rare packets, is answered by the functions beside them.

use moonwire_runtime::{Arguments, FIELDS_MAX, Native, Outcome, Record};

use crate::mqtt::{
    PACKET_MAX, Packet, Version, decode,
    encode::{encode_ack, encode_publish},
    packet::{PacketType, Publish},
    property::{Form, PROPERTIES, Properties, Value},
    topic, wire,
};

/// The words of [`Decode`]: names of fields, then types by number, then names of properties by position.
const WORDS: [&str; TYPES + 16 + PROPERTIES.len()] = {
    let mut words = [""; TYPES + 16 + PROPERTIES.len()];
    words[TYPE] = "type";
    words[TOPIC] = "topic";
    words[PAYLOAD] = "payload";
    words[QOS] = "qos";
    words[RETAIN] = "retain";
    words[DUP] = "dup";
    words[PACKET_ID] = "packet_id";
    words[REASON_CODE] = "reason_code";
    words[PROPERTY_TABLE] = "properties";
    words[TYPES + PacketType::Publish as usize] = "publish";
    words[TYPES + PacketType::Puback as usize] = "puback";
    words[TYPES + PacketType::Pubrec as usize] = "pubrec";
    words[TYPES + PacketType::Pubrel as usize] = "pubrel";
    words[TYPES + PacketType::Pubcomp as usize] = "pubcomp";
    let mut position = 0;
    while position < PROPERTIES.len() {
        words[NAMES + position] = PROPERTIES[position].name;
        position += 1;
    }
    words
};

const TYPE: usize = 0;
const TOPIC: usize = 1;
const PAYLOAD: usize = 2;
const QOS: usize = 3;
const RETAIN: usize = 4;
const DUP: usize = 5;
const PACKET_ID: usize = 6;
const REASON_CODE: usize = 7;
const PROPERTY_TABLE: usize = 8;
const TYPES: usize = 9;
const NAMES: usize = TYPES + 16;

/// The version that an argument names by its level.
fn version(arguments: &Arguments<'_>, position: usize) -> Option<Version> {
    Version::from_level(u8::try_from(arguments.integer(position)?).ok()?)
}

/// The integer that an argument is, or `default` when there is none; `None` for everything else.
fn integer<T: TryFrom<i64>>(arguments: &Arguments<'_>, position: usize, default: T) -> Option<T> {
    if arguments.is_nil(position) {
        return Some(default);
    }
    T::try_from(arguments.integer(position)?).ok()
}

/// The boolean that an argument is, or `false` when there is none.
fn flag(arguments: &Arguments<'_>, position: usize) -> Option<bool> {
    if arguments.is_nil(position) { Some(false) } else { arguments.boolean(position) }
}

/// `decode(buffer, version, packet_max)`
pub(super) struct Decode;

impl Native for Decode {
    const WORDS: &'static [&'static str] = &WORDS;

    fn call(arguments: &Arguments<'_>, record: &mut Record) -> Outcome {
        let (Some(buffer), Some(version), Some(packet_max)) =
            (arguments.buffer(1), version(arguments, 2), integer(arguments, 3, PACKET_MAX))
        else {
            return Outcome::Slow;
        };
        let held = buffer.borrow();
        let bytes = held.as_slice();
        // A fault is found again, and told, by the other.
        let Ok(found) = decode(bytes, Some(version), packet_max) else { return Outcome::Slow };
        let Some((packet, size)) = found else { return Outcome::Nil };
        let described = match &packet {
            Packet::Publish(publish) => describe_publish(record, bytes, publish),
            Packet::Ack(kind, ack) => {
                record.word(TYPE, TYPES + *kind as usize);
                record.integer(PACKET_ID, ack.packet_id.into());
                record.integer(REASON_CODE, ack.reason_code.into());
                describe_properties(record, bytes, ack.properties)
            }
            _ => false,
        };
        if described { Outcome::Take { buffer: 1, count: size } } else { Outcome::Slow }
    }
}

fn describe_publish(record: &mut Record, bytes: &[u8], publish: &Publish<'_>) -> bool {
    record.word(TYPE, TYPES + PacketType::Publish as usize);
    record.bytes(TOPIC, bytes, publish.topic.as_bytes());
    record.bytes(PAYLOAD, bytes, publish.payload);
    record.integer(QOS, publish.qos.into());
    if publish.qos > 0 {
        record.integer(PACKET_ID, publish.packet_id.into());
    }
    if publish.retain {
        record.boolean(RETAIN, true);
    }
    if publish.dup {
        record.boolean(DUP, true);
    }
    describe_properties(record, bytes, publish.properties)
}

/// Adds `properties`, when there are any. `false` when there are too many for a record.
fn describe_properties(record: &mut Record, bytes: &[u8], properties: Properties<'_>) -> bool {
    if properties.is_empty() {
        return true;
    }
    // Those that repeat are one list each.
    let (mut names, mut fields) = (0u64, 1);
    let (mut numbers, mut pairs) = (0, 0);
    for (property, _) in properties.iter() {
        let bit = 1 << property.id;
        fields += if names & bit == 0 { 1 } else { 0 };
        names |= bit;
        match property.form {
            Form::Pair => pairs += 1,
            Form::VarintNotZero => numbers += 1,
            _ => {}
        }
        if fields + numbers + 3 * pairs > FIELDS_MAX {
            return false;
        }
    }
    if fields + numbers + 3 * pairs > record.room() {
        return false;
    }
    record.table(PROPERTY_TABLE, fields - 1, 0);
    let mut listed = 0u64;
    for (property, value) in properties.iter() {
        let name = NAMES + property.position();
        match (property.form, value) {
            (Form::Pair | Form::VarintNotZero, _) if listed & 1 << property.id == 0 => {
                listed |= 1 << property.id;
                describe_list(
                    record,
                    bytes,
                    properties,
                    property.id,
                    if property.form == Form::Pair { pairs } else { numbers },
                );
            }
            (Form::Pair | Form::VarintNotZero, _) => {}
            (Form::Flag, Value::Number(number)) => record.boolean(name, number != 0),
            (_, Value::Number(number)) => record.integer(name, number.into()),
            (_, Value::Text(text)) => record.bytes(name, bytes, text.as_bytes()),
            (_, Value::Bytes(data)) => record.bytes(name, bytes, data),
            (_, Value::Pair(..)) => {}
        }
    }
    true
}

/// Adds a property that may repeat, as a list.
fn describe_list(record: &mut Record, bytes: &[u8], properties: Properties<'_>, id: u8, count: usize) {
    for (at, (property, value)) in properties.iter().filter(|(property, _)| property.id == id).enumerate() {
        if at == 0 {
            record.table(NAMES + property.position(), 0, count);
        }
        match value {
            Value::Pair(key, value) => {
                record.table(Record::ITEM, 0, 2);
                record.bytes(Record::ITEM, bytes, key.as_bytes());
                record.bytes(Record::ITEM, bytes, value.as_bytes());
            }
            Value::Number(number) => record.integer(Record::ITEM, number.into()),
            Value::Text(_) | Value::Bytes(_) => {}
        }
    }
}

/// `encode_publish(buffer, version, topic, payload, qos, retain, dup, packet_id, properties, packet_max)`
pub(super) struct EncodePublish;

impl EncodePublish {
    /// `None` for what is not as it mostly is.
    fn try_call(arguments: &Arguments<'_>) -> Option<()> {
        let buffer = arguments.buffer(1)?;
        let version = version(arguments, 2)?;
        let topic = wire::text(arguments.bytes(3)?, "topic").ok()?;
        let payload = if arguments.is_nil(4) { &[] } else { arguments.bytes(4)? };
        if !arguments.is_nil(9) {
            return None;
        }
        let publish = Publish {
            topic,
            payload,
            qos: integer(arguments, 5, 0)?,
            retain: flag(arguments, 6)?,
            dup: flag(arguments, 7)?,
            packet_id: integer(arguments, 8, 0)?,
            properties: Properties::default(),
        };
        let packet_max = integer(arguments, 10, PACKET_MAX)?;
        // On a fault the buffer is as it was, and the other finds the same.
        encode_publish(&mut buffer.borrow_mut(), &publish, version, packet_max).ok()
    }
}

impl Native for EncodePublish {
    fn call(arguments: &Arguments<'_>, _: &mut Record) -> Outcome {
        Self::try_call(arguments).map_or(Outcome::Slow, |()| Outcome::Boolean(true))
    }
}

/// `encode_ack(buffer, version, type, packet_id, reason_code)`
pub(super) struct EncodeAck;

impl EncodeAck {
    fn try_call(arguments: &Arguments<'_>) -> Option<()> {
        let buffer = arguments.buffer(1)?;
        let version = version(arguments, 2)?;
        let kind = ack_type(arguments.bytes(3)?)?;
        let (packet_id, reason_code) = (u16::try_from(arguments.integer(4)?).ok()?, integer(arguments, 5, 0)?);
        encode_ack(&mut buffer.borrow_mut(), kind, packet_id, reason_code, version).ok()
    }
}

impl Native for EncodeAck {
    fn call(arguments: &Arguments<'_>, _: &mut Record) -> Outcome {
        Self::try_call(arguments).map_or(Outcome::Slow, |()| Outcome::Boolean(true))
    }
}

/// `take_ack(buffer, version)`
pub(super) struct TakeAck;

impl Native for TakeAck {
    fn call(arguments: &Arguments<'_>, _: &mut Record) -> Outcome {
        let (Some(buffer), Some(version)) = (arguments.buffer(1), version(arguments, 2)) else {
            return Outcome::Slow;
        };
        let mut held = buffer.borrow_mut();
        let Some((ack, size)) = plain_ack(held.as_slice(), version) else { return Outcome::Nil };
        held.skip(size);
        Outcome::Integer(ack)
    }
}

/// The answer to a message that says no more than that all is well, if some bytes begin with one: its type and its packet
/// identifier in one number, and its length.
pub(super) fn plain_ack(bytes: &[u8], version: Version) -> Option<(i64, usize)> {
    // What something else is, is for the other to find out.
    let kind = *bytes.first()? >> 4;
    if ![PacketType::Puback, PacketType::Pubrec, PacketType::Pubcomp].iter().any(|ack| *ack as u8 == kind) {
        return None;
    }
    match decode(bytes, Some(version), PACKET_MAX) {
        Ok(Some((Packet::Ack(kind, ack), size))) if ack.reason_code == 0 && ack.properties.is_empty() => {
            Some(((kind as i64) << 16 | i64::from(ack.packet_id), size))
        }
        _ => None,
    }
}

/// The acknowledgement of that name.
pub(super) fn ack_type(name: &[u8]) -> Option<PacketType> {
    match name {
        b"puback" => Some(PacketType::Puback),
        b"pubrec" => Some(PacketType::Pubrec),
        b"pubrel" => Some(PacketType::Pubrel),
        b"pubcomp" => Some(PacketType::Pubcomp),
        _ => None,
    }
}

/// `matches(filter, topic)`
pub(super) struct Matches;

impl Native for Matches {
    fn call(arguments: &Arguments<'_>, _: &mut Record) -> Outcome {
        match (arguments.bytes(1), arguments.bytes(2)) {
            (Some(filter), Some(name)) => Outcome::Boolean(topic::matches(filter, name)),
            _ => Outcome::Slow,
        }
    }
}
