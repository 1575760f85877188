//! The packets of both versions, as views of bytes that have been checked.

use super::{Fault, Version, property::Properties, topic, wire::Reader};

/// The packets, by the number in their first byte (2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what the standard calls it")]
pub enum PacketType {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
}

impl PacketType {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type in a first byte. AUTH came with MQTT 5.
    pub fn from_first(first: u8, version: Version) -> Option<Self> {
        let found = *Self::ALL.get(usize::from(first >> 4).checked_sub(1)?)?;
        (found != Self::Auth || version == Version::V5).then_some(found)
    }

    /// The flags of its first byte; `None` for PUBLISH, whose flags say something (2.1.3).
    pub const fn flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }

    /// The standard's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

/// Quality of service: 0, 1 or 2.
pub type Qos = u8;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a connection (3.1).
    Connect(Connect<'a>),
    /// The server's answer (3.2).
    Connack(Connack<'a>),
    /// A message (3.3).
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7), by the type.
    Ack(PacketType, Ack<'a>),
    /// A client asks for messages (3.8).
    Subscribe(Subscribe<'a>),
    /// SUBACK or UNSUBACK (3.9, 3.11), by the type: a reason code for each filter.
    Acks(PacketType, Acks<'a>),
    /// A client no longer wants messages (3.10).
    Unsubscribe(Unsubscribe<'a>),
    /// Is anyone there (3.12).
    Pingreq,
    /// Yes (3.13).
    Pingresp,
    /// DISCONNECT or AUTH (3.14, 3.15), by the type.
    Reason(PacketType, Reason<'a>),
}

impl Packet<'_> {
    /// Which packet this is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Ack(kind, _) | Self::Acks(kind, _) | Self::Reason(kind, _) => *kind,
        }
    }
}

/// CONNECT (3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Which standard the connection will speak.
    pub version: Version,
    /// Forget what was; 3.1.1 calls it Clean Session.
    pub clean_start: bool,
    /// Seconds within which the client says something; 0 turns it off.
    pub keep_alive: u16,
    /// Properties of the connection.
    pub properties: Properties<'a>,
    /// May be empty: the server then assigns one.
    pub client_id: &'a str,
    /// What is published when the client is lost.
    pub will: Option<Will<'a>>,
    /// Who.
    pub username: Option<&'a str>,
    /// Any bytes, not only text.
    pub password: Option<&'a [u8]>,
}

/// The will in a CONNECT (3.1.2.5, 3.1.3.2 to 3.1.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where it is published.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// At which quality of service.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: bool,
    /// Its own properties.
    pub properties: Properties<'a>,
}

/// CONNACK (3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connack<'a> {
    /// The server remembers this client.
    pub session_present: bool,
    /// 0 is yes; in 3.1.1 a Connect Return code.
    pub reason_code: u8,
    /// What the server can and cannot.
    pub properties: Properties<'a>,
}

/// PUBLISH (3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Empty only with a topic alias.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: Qos,
    /// Kept by the server, or sent because it was kept.
    pub retain: bool,
    /// Perhaps sent before.
    pub dup: bool,
    /// With quality of service 1 and 2, never 0; with 0 there is none, and this is 0.
    pub packet_id: u16,
    /// Of the message.
    pub properties: Properties<'a>,
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which PUBLISH it is about.
    pub packet_id: u16,
    /// 0 in 3.1.1.
    pub reason_code: u8,
    /// More about the reason.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE (3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Repeated in the SUBACK.
    pub packet_id: u16,
    /// Of the whole packet.
    pub properties: Properties<'a>,
    /// One or more.
    pub subscriptions: Subscriptions<'a>,
}

/// One filter of a SUBSCRIBE and its options (3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Which topics.
    pub filter: &'a str,
    /// At most at this quality of service.
    pub qos: Qos,
    /// Not those this client published itself.
    pub no_local: bool,
    /// Keep RETAIN as the publisher set it.
    pub retain_as_published: bool,
    /// Retained messages: 0 send them, 1 if the subscription is new, 2 do not.
    pub retain_handling: u8,
}

impl<'a> Subscription<'a> {
    /// The Subscription Options byte.
    pub const fn options(&self) -> u8 {
        self.qos | (self.no_local as u8) << 2 | (self.retain_as_published as u8) << 3 | self.retain_handling << 4
    }

    const fn of(filter: &'a str, options: u8) -> Self {
        Self {
            filter,
            qos: options & 0b11,
            no_local: options & 0b100 != 0,
            retain_as_published: options & 0b1000 != 0,
            retain_handling: options >> 4 & 0b11,
        }
    }
}

/// The filters of a SUBSCRIBE: their bytes, seen to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriptions<'a> {
    wire: &'a [u8],
}

impl<'a> Subscriptions<'a> {
    /// Bytes that an encoder wrote; looked at again with the packet they go into.
    pub(super) const fn unchecked(wire: &'a [u8]) -> Self {
        Self { wire }
    }

    /// Checks what is left of a SUBSCRIBE.
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, Fault> {
        let wire = reader.rest();
        let mut rest = Reader::new(wire);
        // [MQTT-3.8.3-2] (3.1.1: [MQTT-3.8.3-3])
        if rest.is_empty() {
            return Err(Fault::protocol("SUBSCRIBE: no topic filter"));
        }
        while !rest.is_empty() {
            let filter = rest.text("topic filter")?;
            let options = rest.u8("subscription options")?;
            topic::check_filter(filter, version)?;
            // [MQTT-3.8.3-5] (3.1.1: [MQTT-3-8.3-4])
            let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
            if options & reserved != 0 {
                return Err(Fault::malformed("subscription options: a reserved bit is set"));
            }
            let subscription = Subscription::of(filter, options);
            if subscription.qos > 2 {
                return Err(Fault::malformed("subscription options: QoS 3 does not exist"));
            }
            if subscription.retain_handling > 2 {
                return Err(Fault::protocol("subscription options: retain handling 3 does not exist"));
            }
            // [MQTT-3.8.3-4]
            if subscription.no_local && topic::shared(filter).is_some() {
                return Err(Fault::protocol("subscription options: no local on a shared subscription"));
            }
        }
        Ok(Self { wire })
    }

    /// As on the wire.
    pub const fn as_wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let mut rest = Reader::new(self.wire);
        std::iter::from_fn(move || match rest.is_empty() {
            true => None,
            false => Some(Subscription::of(rest.text("").ok()?, rest.u8("").ok()?)),
        })
    }
}

/// SUBACK and UNSUBACK (3.9, 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acks<'a> {
    /// Of the packet this answers.
    pub packet_id: u16,
    /// More about the reasons.
    pub properties: Properties<'a>,
    /// One for each filter, in order; none in 3.1.1's UNSUBACK.
    pub reason_codes: &'a [u8],
}

/// UNSUBSCRIBE (3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Repeated in the UNSUBACK.
    pub packet_id: u16,
    /// User properties.
    pub properties: Properties<'a>,
    /// One or more.
    pub filters: Filters<'a>,
}

/// The filters of an UNSUBSCRIBE: their bytes, seen to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    wire: &'a [u8],
}

impl<'a> Filters<'a> {
    /// Bytes that an encoder wrote; looked at again with the packet they go into.
    pub(super) const fn unchecked(wire: &'a [u8]) -> Self {
        Self { wire }
    }

    /// Checks what is left of an UNSUBSCRIBE.
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, Fault> {
        let wire = reader.rest();
        let mut rest = Reader::new(wire);
        // [MQTT-3.10.3-2]
        if rest.is_empty() {
            return Err(Fault::protocol("UNSUBSCRIBE: no topic filter"));
        }
        while !rest.is_empty() {
            topic::check_filter(rest.text("topic filter")?, version)?;
        }
        Ok(Self { wire })
    }

    /// As on the wire.
    pub const fn as_wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = Reader::new(self.wire);
        std::iter::from_fn(move || if rest.is_empty() { None } else { rest.text("").ok() })
    }
}

/// DISCONNECT and AUTH (3.14, 3.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason<'a> {
    /// 0 is normal disconnection, or success.
    pub reason_code: u8,
    /// More about the reason.
    pub properties: Properties<'a>,
}
