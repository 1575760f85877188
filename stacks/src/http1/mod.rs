//! The codec of HTTP/1.1: heads of requests and responses, chunked bodies, and the rules that say where a message
//! ends. It knows no socket and no clock.
//!
//! | room | knows |
//! |---|---|
//! | [`headers`] | field lines in their order, found by name whatever its case |
//! | [`head`] | one whole head off the front of some bytes |
//! | [`framing`] | how long the body is, and whether the connection goes on (RFC 9112, 6 and 9) |
//! | [`chunked`] | a chunked body, piece by piece (RFC 9112, 7.1) |
//! | [`encode`] | heads onto the end of a buffer |
//! | [`lua`] | the module `http.codec` |
//! | [`mod@file`] | the module `http.file`: what a server reads its pages with |
//!
//! httparse finds the field lines. What it forgives is refused here before: a bare LF, a head without end, a start
//! line that is not exactly what the grammar says. Clauses without a number of their own are those of RFC 9112.

pub mod chunked;
pub mod encode;
pub mod file;
pub mod framing;
pub mod head;
pub mod headers;
pub mod lua;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use moonwire_runtime::{Code, Error, Kind};

pub use chunked::Chunked;
pub use headers::Headers;

/// What a head may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, with its empty line.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the first line.
    pub start_line: usize,
}

impl Limits {
    /// The largest head that can be asked for: offsets are kept in 32 bits.
    pub const HEAD_MAX: usize = 16 * 1024 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 64 * 1024, fields: 128, start_line: 8 * 1024 }
    }
}

/// Why a message was refused, on its way in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `Protocol`, or `Limit` for what is too large.
    pub kind: Kind,
    /// The status a server answers with; 0 where there is nobody to answer.
    pub status: u16,
    /// What is wrong, in words.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// The bytes are not what the standard says: 400.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Protocol, status: 400, message: message.into() }
    }

    /// Larger than we take.
    pub fn limit(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Limit, status, message: message.into() }
    }

    /// The same with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The error of the outside world that `op` answers.
    pub fn into_error(self, op: &'static str) -> Error {
        let error = Error::new(self.kind, op, self.message);
        if self.status == 0 { error } else { error.with_code(Code::Number(self.status.into())) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.status)
    }
}

/// Whether `byte` may stand in a token (RFC 9110, 5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

/// Whether this is a token: a method or the name of a field.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether these bytes may stand in the value of a field or in a reason phrase: no control character but TAB
/// (RFC 9110, 5.5).
pub(crate) fn is_field_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F))
}

/// Without spaces and tabs at both ends.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(*byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// Bytes as a message may show them: what others sent must not break a line of a log.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let cut = if bytes.len() > SHOWN { "..." } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}
