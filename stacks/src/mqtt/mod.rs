//! The codec of MQTT 3.1.1 and 5: bytes to packets and back. It knows no socket and no clock.
//!
//! | room | knows |
//! |---|---|
//! | [`packet`] | the packets, as views of validated bytes |
//! | [`property`] | the 27 properties of MQTT 5: names, forms, where each may stand |
//! | [`reason`] | which reason codes each packet may carry, and their words |
//! | [`topic`] | topic names, topic filters, matching |
//! | [`wire`] | integers, strings and lengths, read and written |
//! | [`mod@decode`] | one whole packet off the front of some bytes |
//! | [`mod@encode`] | one packet onto the end of a buffer, in its one canonical form |
//! | [`lua`] | the module `mqtt.codec` |
//!
//! Both versions share everything: 3.1.1 is what is left without properties and reason codes.
//! Decoding borrows from the input and allocates nothing. Clauses are cited by the numbers of
//! the OASIS standards: those of MQTT 5 where nothing else is said.

pub mod decode;
pub mod encode;
pub mod lua;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use moonwire_runtime::{Code, Error, Kind};

pub use decode::decode;
pub use encode::encode;
pub use packet::Packet;

/// The largest packet the protocol can say: a fixed header of five bytes and 268,435,455 more (2.1.4).
pub const PACKET_MAX: usize = 5 + wire::VARINT_MAX as usize;

/// Which standard a connection speaks, by the level byte of its CONNECT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, level 4.
    V311 = 4,
    /// MQTT 5, level 5.
    V5 = 5,
}

impl Version {
    /// The version a level byte stands for.
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            4 => Some(Self::V311),
            5 => Some(Self::V5),
            _ => None,
        }
    }
}

/// Why a packet was refused, on its way in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `Protocol`, or `Limit` for what is too large.
    pub kind: Kind,
    /// The reason code that says it to the other side (MQTT 5, 4.13).
    pub code: u8,
    /// What is wrong, in words.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// The bytes are not what the standard says: Malformed Packet.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Protocol, code: reason::MALFORMED_PACKET, message: message.into() }
    }

    /// The bytes are well formed and yet not allowed: Protocol Error.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Protocol, code: reason::PROTOCOL_ERROR, message: message.into() }
    }

    /// Too large for the one who would take it: Packet too large.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Limit, code: reason::PACKET_TOO_LARGE, message: message.into() }
    }

    /// The same with another reason code.
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The error of the outside world that `op` answers.
    pub fn into_error(self, op: &'static str) -> Error {
        Error::new(self.kind, op, self.message).with_code(Code::Number(self.code.into()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.message, self.code)
    }
}
