//! The codec of WebSocket (RFC 6455) with permessage-deflate (RFC 7692): bytes to messages and back. It knows no
//! socket and no clock.
//!
//! | room | knows |
//! |---|---|
//! | [`frame`] | the header of a frame, read and written; masking |
//! | [`utf8`] | whether bytes that come in pieces are UTF-8 |
//! | [`deflate`] | compressing and decompressing messages |
//! | [`incoming`] | frames off the front of some bytes, joined to messages |
//! | [`outgoing`] | messages onto the end of a buffer, as frames |
//! | [`lua`] | the module `websocket.codec` |
//!
//! A connection without a message under way needs no memory here: whole frames are read where they lie, and what
//! outlasts a call ([`incoming::Incoming`], [`outgoing::Outgoing`]) is made when it is needed and dropped when it is
//! not. Clauses are those of RFC 6455 where nothing else is said.

pub mod deflate;
pub mod frame;
pub mod incoming;
pub mod lua;
pub mod outgoing;
pub mod utf8;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use moonwire_runtime::{Code, Error, Kind};

/// The largest message that is taken, unless the rules say otherwise.
pub const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// Status codes of a Close frame (7.4.1).
pub mod code {
    /// Protocol error.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Data that is not what its type says: text that is not UTF-8.
    pub const INVALID_DATA: u16 = 1007;
    /// A message too big to process.
    pub const TOO_BIG: u16 = 1009;

    /// Whether a Close frame may carry this code (7.4): those the standard or its registry defines, and those of
    /// libraries and applications. 1004, 1005, 1006 and 1015 are never sent.
    pub const fn is_sendable(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Masks what it sends (5.1).
    Client,
    /// Takes nothing that is not masked (5.1).
    Server,
}

/// How one direction of a connection is compressed (RFC 7692, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// The LZ77 window is 2 to this power.
    pub window_bits: u8,
    /// Whether a message may refer to those before it: the window outlives the message.
    pub takeover: bool,
}

/// What both sides agreed on, and our limits: the same for all connections of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Our side.
    pub role: Role,
    /// The longest payload of one frame we take.
    pub frame_max: u64,
    /// The longest message we take, decompressed.
    pub message_max: usize,
    /// How the other side may compress.
    pub inflate: Option<Compression>,
    /// How we may compress.
    pub deflate: Option<Compression>,
    /// Compression level, 1 to 9.
    pub level: u32,
    /// Shorter messages are not compressed.
    pub threshold: usize,
}

impl Rules {
    /// Rules without compression and with the usual limits.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            frame_max: MESSAGE_MAX as u64,
            message_max: MESSAGE_MAX,
            inflate: None,
            deflate: None,
            level: 6,
            threshold: 64,
        }
    }
}

/// Why what came is refused, or what was to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `Protocol`, or `Limit` for what is too large.
    pub kind: Kind,
    /// The status code that says it to the other side.
    pub code: u16,
    /// What is wrong, in words.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// The other side broke the protocol.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Protocol, code: code::PROTOCOL_ERROR, message: message.into() }
    }

    /// The data is not what it is said to be.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Protocol, code: code::INVALID_DATA, message: message.into() }
    }

    /// More than we take.
    pub fn too_big(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Limit, code: code::TOO_BIG, message: message.into() }
    }

    /// The error of the outside world that `op` answers.
    pub fn into_error(self, op: &'static str) -> Error {
        Error::new(self.kind, op, self.message).with_code(Code::Number(self.code.into()))
    }
}
