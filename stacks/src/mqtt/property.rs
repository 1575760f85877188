//! The 27 properties of MQTT 5 (section 2.2.2): names, forms, and where each may stand.

use super::{
    Fault,
    packet::PacketType as P,
    reason, topic,
    wire::{Reader, VARINT_MAX, Writer},
};

/// How a property's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A byte that is 0 or 1, and says no or yes.
    Flag,
    /// A byte that is 0 or 1.
    Bit,
    /// Two Byte Integer.
    Two,
    /// Two Byte Integer, not 0.
    TwoNotZero,
    /// Four Byte Integer.
    Four,
    /// Four Byte Integer, not 0.
    FourNotZero,
    /// Variable Byte Integer, not 0.
    VarintNotZero,
    /// UTF-8 Encoded String.
    Text,
    /// UTF-8 Encoded String that is a topic name.
    Topic,
    /// Binary Data.
    Bytes,
    /// UTF-8 String Pair.
    Pair,
}

/// One row of table 2-4.
#[derive(Debug, PartialEq, Eq)]
pub struct Property {
    /// The identifier on the wire.
    pub id: u8,
    /// The standard's name, in snake_case.
    pub name: &'static str,
    /// How its value is written.
    pub form: Form,
    /// A bit for each [`Home`] it may stand in.
    homes: u32,
}

/// Where properties stand: a packet, or the will within CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// The variable header of this packet.
    Packet(P),
    /// The Will Properties of CONNECT (3.1.3.2).
    Will,
}

impl Home {
    const fn bit(self) -> u32 {
        match self {
            Self::Packet(packet) => 1 << packet as u32,
            Self::Will => 1,
        }
    }

    /// What messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet(packet) => packet.name(),
            Self::Will => "will",
        }
    }
}

const fn homes(packets: &[P]) -> u32 {
    let mut bits = 0;
    let mut index = 0;
    while index < packets.len() {
        bits |= Home::Packet(packets[index]).bit();
        index += 1;
    }
    bits
}

const WILL: u32 = Home::Will.bit();
const MESSAGE: u32 = homes(&[P::Publish]) | WILL;
const CONNECT: u32 = homes(&[P::Connect]);
const CONNACK: u32 = homes(&[P::Connack]);
const AUTHENTICATION: u32 = homes(&[P::Connect, P::Connack, P::Auth]);
const ANSWERS: u32 =
    homes(&[P::Connack, P::Puback, P::Pubrec, P::Pubrel, P::Pubcomp, P::Suback, P::Unsuback, P::Disconnect, P::Auth]);
const EVERYWHERE: u32 = ANSWERS | MESSAGE | CONNECT | homes(&[P::Subscribe, P::Unsubscribe]);

const fn row(id: u8, name: &'static str, form: Form, homes: u32) -> Property {
    Property { id, name, form, homes }
}

/// Table 2-4, in the order of identifiers.
pub static PROPERTIES: [Property; 27] = [
    row(0x01, "payload_format_indicator", Form::Bit, MESSAGE),
    row(0x02, "message_expiry_interval", Form::Four, MESSAGE),
    row(0x03, "content_type", Form::Text, MESSAGE),
    row(0x08, "response_topic", Form::Topic, MESSAGE),
    row(0x09, "correlation_data", Form::Bytes, MESSAGE),
    row(0x0B, "subscription_identifier", Form::VarintNotZero, homes(&[P::Publish, P::Subscribe])),
    row(0x11, "session_expiry_interval", Form::Four, homes(&[P::Connect, P::Connack, P::Disconnect])),
    row(0x12, "assigned_client_identifier", Form::Text, CONNACK),
    row(0x13, "server_keep_alive", Form::Two, CONNACK),
    row(0x15, "authentication_method", Form::Text, AUTHENTICATION),
    row(0x16, "authentication_data", Form::Bytes, AUTHENTICATION),
    row(0x17, "request_problem_information", Form::Flag, CONNECT),
    row(0x18, "will_delay_interval", Form::Four, WILL),
    row(0x19, "request_response_information", Form::Flag, CONNECT),
    row(0x1A, "response_information", Form::Text, CONNACK),
    row(0x1C, "server_reference", Form::Text, homes(&[P::Connack, P::Disconnect])),
    row(0x1F, "reason_string", Form::Text, ANSWERS),
    row(0x21, "receive_maximum", Form::TwoNotZero, CONNECT | CONNACK),
    row(0x22, "topic_alias_maximum", Form::Two, CONNECT | CONNACK),
    row(0x23, "topic_alias", Form::TwoNotZero, homes(&[P::Publish])),
    row(0x24, "maximum_qos", Form::Bit, CONNACK),
    row(0x25, "retain_available", Form::Flag, CONNACK),
    row(0x26, "user_property", Form::Pair, EVERYWHERE),
    row(0x27, "maximum_packet_size", Form::FourNotZero, CONNECT | CONNACK),
    row(0x28, "wildcard_subscription_available", Form::Flag, CONNACK),
    row(0x29, "subscription_identifier_available", Form::Flag, CONNACK),
    row(0x2A, "shared_subscription_available", Form::Flag, CONNACK),
];

/// Identifier to position in [`PROPERTIES`]; 255 is nothing.
const POSITIONS: [u8; 64] = {
    let mut positions = [255; 64];
    let mut index = 0;
    while index < PROPERTIES.len() {
        positions[PROPERTIES[index].id as usize] = index as u8;
        index += 1;
    }
    positions
};

impl Property {
    /// The property with identifier `id`.
    pub fn by_id(id: u32) -> Option<&'static Self> {
        let position = *POSITIONS.get(id as usize)?;
        PROPERTIES.get(usize::from(position))
    }

    /// The property called `name`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        PROPERTIES.iter().find(|property| property.name == name)
    }

    /// Its place in [`PROPERTIES`].
    pub fn position(&self) -> usize {
        usize::from(POSITIONS[usize::from(self.id)])
    }

    /// Whether it may stand in `home`.
    pub const fn allowed_in(&self, home: Home) -> bool {
        self.homes & home.bit() != 0
    }

    /// Whether it may stand more than once in `home`: user properties anywhere, subscription
    /// identifiers in a PUBLISH that several subscriptions matched (3.3.2.3.8).
    pub fn repeats_in(&self, home: Home) -> bool {
        self.form == Form::Pair || (self.form == Form::VarintNotZero && home == Home::Packet(P::Publish))
    }

    /// Reads a value, and refuses one out of its range.
    fn read<'a>(&self, reader: &mut Reader<'a>) -> Result<Value<'a>, Fault> {
        let value = match self.form {
            Form::Flag | Form::Bit => Value::Number(reader.u8(self.name)?.into()),
            Form::Two | Form::TwoNotZero => Value::Number(reader.u16(self.name)?.into()),
            Form::Four | Form::FourNotZero => Value::Number(reader.u32(self.name)?),
            Form::VarintNotZero => Value::Number(reader.varint(self.name)?),
            Form::Text | Form::Topic => Value::Text(reader.text(self.name)?),
            Form::Bytes => Value::Bytes(reader.bytes(self.name)?),
            // [MQTT-1.5.7-1]
            Form::Pair => Value::Pair(reader.text(self.name)?, reader.text(self.name)?),
        };
        match (self.form, value) {
            (Form::Flag | Form::Bit, Value::Number(2..)) => {
                Err(Fault::protocol(format!("{}: neither 0 nor 1", self.name)))
            }
            (Form::TwoNotZero | Form::FourNotZero | Form::VarintNotZero, Value::Number(0)) => {
                let fault = Fault::protocol(format!("{}: must not be 0", self.name));
                // [MQTT-3.3.2-8]
                Err(if self.id == 0x23 { fault.with_code(reason::TOPIC_ALIAS_INVALID) } else { fault })
            }
            // [MQTT-3.3.2-14]
            (Form::Topic, Value::Text(name)) => topic::check_name(name, self.name).map(|()| value),
            _ => Ok(value),
        }
    }

    /// Writes a value in this property's form. That it is in range, and where it may be, is seen
    /// when the whole packet is looked at again.
    fn write(&self, value: Value<'_>, writer: &mut Writer<'_>) -> Result<(), Fault> {
        let too_large = |number: u32, most: u32| Fault::too_large(format!("{}: {number}, at most {most}", self.name));
        match (self.form, value) {
            (Form::Flag | Form::Bit, Value::Number(number)) => match u8::try_from(number) {
                Ok(byte) => writer.u8(byte),
                Err(_) => return Err(too_large(number, 1)),
            },
            (Form::Two | Form::TwoNotZero, Value::Number(number)) => match u16::try_from(number) {
                Ok(number) => writer.u16(number),
                Err(_) => return Err(too_large(number, u16::MAX.into())),
            },
            (Form::Four | Form::FourNotZero, Value::Number(number)) => writer.u32(number),
            (Form::VarintNotZero, Value::Number(number)) => writer.varint(number as usize, self.name)?,
            (Form::Text | Form::Topic, Value::Text(text)) => writer.text(text, self.name)?,
            (Form::Bytes, Value::Bytes(bytes)) => writer.bytes(bytes, self.name)?,
            (Form::Pair, Value::Pair(name, value)) => {
                writer.text(name, self.name)?;
                writer.text(value, self.name)?;
            }
            _ => return Err(Fault::malformed(format!("{}: not that kind of value", self.name))),
        }
        Ok(())
    }
}

/// A property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Any of the integers; flags are 0 and 1.
    Number(u32),
    /// A string.
    Text(&'a str),
    /// Binary data.
    Bytes(&'a [u8]),
    /// Name and value of a user property.
    Pair(&'a str, &'a str),
}

/// The properties of one packet: their bytes, seen to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    wire: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Properties that [`PropertyList`] wrote; looked at again with the packet they go into.
    pub(super) const fn unchecked(wire: &'a [u8]) -> Self {
        Self { wire }
    }

    /// Takes a property length and that many bytes of properties, and checks them all.
    pub fn read(reader: &mut Reader<'a>, home: Home) -> Result<Self, Fault> {
        let length = reader.varint("property length")?;
        let wire = reader.take(length as usize, "properties")?;
        if !wire.is_empty() {
            check(wire, home)?;
        }
        Ok(Self { wire })
    }

    /// Looks again at properties that [`PropertyList`] wrote.
    pub(super) fn check(&self, packet: P) -> Result<(), Fault> {
        if self.wire.len() > VARINT_MAX as usize {
            return Err(Fault::too_large(format!("properties: {} bytes, at most {VARINT_MAX}", self.wire.len())));
        }
        check(self.wire, Home::Packet(packet))
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// As on the wire, without their length.
    pub const fn as_wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Each with its value, in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Property, Value<'a>)> + use<'a> {
        let mut rest = Reader::new(self.wire);
        std::iter::from_fn(move || {
            // A fault would be made of words that nobody reads.
            if rest.is_empty() {
                return None;
            }
            let property = Property::by_id(rest.varint("").ok()?)?;
            Some((property, property.read(&mut rest).ok()?))
        })
    }

    /// The value of the first property called `name`.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter().find(|(property, _)| property.name == name).map(|(_, value)| value)
    }
}

/// Checks properties one by one, and together.
fn check(wire: &[u8], home: Home) -> Result<(), Fault> {
    let mut seen = 0u64;
    let mut rest = Reader::new(wire);
    while !rest.is_empty() {
        // An identifier is a Variable Byte Integer, though all known ones have one byte (2.2.2.2).
        let id = rest.varint("property identifier")?;
        let Some(property) = Property::by_id(id) else {
            return Err(Fault::malformed(format!("{}: property 0x{id:02X} does not exist", home.name())));
        };
        if !property.allowed_in(home) {
            return Err(Fault::malformed(format!("{}: may not carry {}", home.name(), property.name)));
        }
        property.read(&mut rest)?;
        let bit = 1u64 << property.id;
        if seen & bit != 0 && !property.repeats_in(home) {
            return Err(Fault::protocol(format!("{}: carries {} twice", home.name(), property.name)));
        }
        seen |= bit;
    }
    Ok(())
}

/// Properties in the making.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PropertyList {
    wire: Vec<u8>,
}

impl PropertyList {
    /// No properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, property: &Property, value: Value<'_>) -> Result<(), Fault> {
        let mut writer = Writer::new(&mut self.wire);
        writer.u8(property.id);
        property.write(value, &mut writer)
    }

    /// For a packet.
    pub fn view(&self) -> Properties<'_> {
        Properties::unchecked(&self.wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], home: Home) -> Result<Properties<'_>, Fault> {
        Properties::read(&mut Reader::new(wire), home)
    }

    const PUBLISH: Home = Home::Packet(P::Publish);

    #[test]
    fn the_table_is_in_the_order_of_identifiers_and_found_both_ways() {
        assert!(PROPERTIES.windows(2).all(|pair| pair[0].id < pair[1].id));
        for (position, property) in PROPERTIES.iter().enumerate() {
            assert_eq!(Property::by_id(property.id.into()), Some(property));
            assert_eq!(Property::by_name(property.name), Some(property));
            assert_eq!(property.position(), position);
        }
        assert_eq!(Property::by_id(0), None);
        assert_eq!(Property::by_id(0x2B), None);
        assert_eq!(Property::by_id(u32::MAX), None);
    }

    #[test]
    fn each_packet_may_carry_as_many_properties_as_its_section_lists() {
        let sections = [
            (Home::Packet(P::Connect), 9),
            (Home::Will, 7),
            (Home::Packet(P::Connack), 17),
            (PUBLISH, 8),
            (Home::Packet(P::Puback), 2),
            (Home::Packet(P::Pubrec), 2),
            (Home::Packet(P::Pubrel), 2),
            (Home::Packet(P::Pubcomp), 2),
            (Home::Packet(P::Subscribe), 2),
            (Home::Packet(P::Suback), 2),
            (Home::Packet(P::Unsubscribe), 1),
            (Home::Packet(P::Unsuback), 2),
            (Home::Packet(P::Pingreq), 0),
            (Home::Packet(P::Pingresp), 0),
            (Home::Packet(P::Disconnect), 4),
            (Home::Packet(P::Auth), 4),
        ];
        for (home, count) in sections {
            assert_eq!(PROPERTIES.iter().filter(|property| property.allowed_in(home)).count(), count, "{home:?}");
        }
    }

    #[test]
    fn a_property_stands_once_unless_it_may_repeat() {
        let fault = read(&[4, 0x23, 0, 1, 0x23], PUBLISH).unwrap_err();
        assert_eq!(fault.code, 0x81, "cut short");
        let fault = read(&[6, 0x23, 0, 1, 0x23, 0, 2], PUBLISH).unwrap_err();
        assert_eq!((fault.code, &*fault.message), (0x82, "PUBLISH: carries topic_alias twice"));
        // Three and more subscription identifiers, and user properties in order with repeats.
        let wire = [20, 0x0B, 1, 0x0B, 2, 0x26, 0, 1, b'k', 0, 1, b'1', 0x0B, 3, 0x26, 0, 1, b'k', 0, 0];
        let ids = |value| matches!(value, Value::Number(_));
        assert!(read(&wire, PUBLISH).is_err(), "the length is one too many");
        let wire = [&[19], &wire[1..]].concat();
        let all: Vec<_> = read(&wire, PUBLISH).unwrap().iter().map(|(_, value)| value).collect();
        assert_eq!(all.iter().filter(|value| ids(**value)).count(), 3);
        assert_eq!(all[2], Value::Pair("k", "1"));
        assert_eq!(all[4], Value::Pair("k", ""));
        // In SUBSCRIBE it stands once (3.8.2.1.2).
        assert_eq!(read(&[4, 0x0B, 1, 0x0B, 2], Home::Packet(P::Subscribe)).unwrap_err().code, 0x82);
    }

    #[test]
    fn a_property_out_of_place_is_malformed() {
        assert_eq!(
            read(&[5, 0x11, 0, 0, 0, 1], PUBLISH).unwrap_err().message,
            "PUBLISH: may not carry session_expiry_interval"
        );
        assert_eq!(read(&[5, 0x18, 0, 0, 0, 1], Home::Packet(P::Connect)).unwrap_err().code, 0x81);
        assert_eq!(read(&[2, 0x7E, 0], PUBLISH).unwrap_err().code, 0x81);
        assert_eq!(read(&[3, 0x8B, 0x00, 1], PUBLISH).unwrap_err().code, 0x81, "identifier not in its shortest form");
    }

    #[test]
    fn values_out_of_range_are_protocol_errors() {
        let cases: [(&[u8], Home, u8); 8] = [
            (&[2, 0x01, 2], PUBLISH, 0x82),
            (&[2, 0x0B, 0], PUBLISH, 0x82),
            (&[3, 0x23, 0, 0], PUBLISH, 0x94),
            (&[3, 0x21, 0, 0], Home::Packet(P::Connect), 0x82),
            (&[5, 0x27, 0, 0, 0, 0], Home::Packet(P::Connect), 0x82),
            (&[2, 0x17, 2], Home::Packet(P::Connect), 0x82),
            (&[2, 0x24, 2], Home::Packet(P::Connack), 0x82),
            (&[2, 0x25, 9], Home::Packet(P::Connack), 0x82),
        ];
        for (wire, home, code) in cases {
            assert_eq!(read(wire, home).unwrap_err().code, code, "{wire:02X?}");
        }
        // [MQTT-3.3.2-14]
        assert_eq!(read(&[6, 0x08, 0, 3, b'a', b'/', b'+'], PUBLISH).unwrap_err().code, 0x81);
    }

    #[test]
    fn a_property_length_longer_than_the_packet_is_refused_and_a_shorter_one_cuts_a_value() {
        assert!(read(&[200, 0x23, 0, 1], PUBLISH).is_err());
        assert!(read(&[2, 0x23, 0, 1], PUBLISH).is_err());
        assert!(read(&[], PUBLISH).is_err(), "the length itself is missing");
        assert!(read(&[0], PUBLISH).unwrap().is_empty());
    }
}
