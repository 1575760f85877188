//! Where a message ends (RFC 9112, 6.3), and whether another may follow it (9.3).

use httparse::Header;

use super::{Fault, shown, trim};

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; often 0.
    Fixed(u64),
    /// In chunks, the last of which says so.
    Chunked,
    /// Everything until the connection ends.
    UntilClose,
    /// There is no body and no next message: what follows belongs to another protocol.
    Tunnel,
}

/// What a head says of the message and of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// How long the body is.
    pub length: Length,
    /// Whether the connection may carry another message after this one.
    pub keep_alive: bool,
    /// The client waits for 100 before it sends the body (RFC 9110, 10.1.1).
    pub expect_continue: bool,
    /// The other side offers, or changes to, another protocol (RFC 9110, 7.8).
    pub upgrade: bool,
    /// The body is in a content coding (RFC 9110, 8.4).
    pub encoded: bool,
}

/// The fields that say how a message goes on, as they were found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Fields<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) host_count: usize,
    content_length: Option<u64>,
    transfer_encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    expect_continue: bool,
    expect_other: bool,
    encoded: bool,
}

impl<'a> Fields<'a> {
    /// Looks at each line once. Lengths that contradict each other or are none are refused here.
    pub(super) fn of(lines: &[Header<'a>]) -> Result<Self, Fault> {
        let mut found = Self::default();
        for line in lines {
            let is = |name: &str| line.name.eq_ignore_ascii_case(name);
            // The length tells most of them apart.
            match line.name.len() {
                4 if is("host") => {
                    found.host = Some(line.value);
                    found.host_count += 1;
                }
                6 if is("expect") => {
                    for member in members(line.value) {
                        match member.eq_ignore_ascii_case(b"100-continue") {
                            true => found.expect_continue = true,
                            false => found.expect_other = true,
                        }
                    }
                }
                7 if is("upgrade") => found.upgrade = true,
                10 if is("connection") => {
                    for member in members(line.value) {
                        found.close |= member.eq_ignore_ascii_case(b"close");
                        found.keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
                        found.connection_upgrade |= member.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                14 if is("content-length") => {
                    if found.content_length.is_some() {
                        // 6.3 allows taking equal ones; whoever sent two had them from two sources.
                        return Err(Fault::protocol("there is more than one Content-Length field"));
                    }
                    found.content_length = Some(content_length(line.value)?);
                }
                16 if is("content-encoding") => found.encoded = true,
                17 if is("transfer-encoding") => {
                    if found.transfer_encoding.is_some() {
                        return Err(Fault::protocol("there is more than one Transfer-Encoding field"));
                    }
                    found.transfer_encoding = Some(line.value);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// What the fields say of the length, for requests and responses alike.
    fn length(&self, minor: u8) -> Result<Option<Length>, Fault> {
        let Some(coding) = self.transfer_encoding else { return Ok(self.content_length.map(Length::Fixed)) };
        if self.content_length.is_some() {
            return Err(Fault::protocol("there are both Content-Length and Transfer-Encoding"));
        }
        if minor == 0 {
            return Err(Fault::protocol("HTTP/1.0 knows no Transfer-Encoding"));
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            return Ok(Some(Length::Chunked));
        }
        // We never offer another coding (TE), so that none may be used with us (RFC 9110, 10.1.4).
        let last = members(coding).last().unwrap_or_default();
        let others = members(coding).filter(|member| !member.eq_ignore_ascii_case(b"chunked"));
        let count = others.clone().count();
        let known = count > 0 && { others }.all(is_known_coding) && count + 1 == members(coding).count();
        let message = format!("the Transfer-Encoding {} is not spoken here, \"chunked\" is", shown(coding));
        let status = if known && last.eq_ignore_ascii_case(b"chunked") { 501 } else { 400 };
        Err(Fault::protocol(message).with_status(status))
    }

    /// 9.3
    fn persists(&self, minor: u8) -> bool {
        !self.close && (minor >= 1 || self.keep_alive)
    }
}

/// Registered transfer codings (7.2) besides chunked.
fn is_known_coding(member: &[u8]) -> bool {
    [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"]
        .iter()
        .any(|known| member.eq_ignore_ascii_case(known))
}

/// 1*DIGIT, and nothing that another reader might take for less or more: no sign, no list, no overflow.
fn content_length(value: &[u8]) -> Result<u64, Fault> {
    let refuse = || Fault::protocol(format!("{} is not a Content-Length", shown(value)));
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(refuse());
    }
    let length = value.iter().fold(0u64, |length, digit| length * 10 + u64::from(digit - b'0'));
    if length > i64::MAX as u64 { Err(refuse()) } else { Ok(length) }
}

/// The members of a list, without empty ones (RFC 9110, 5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// 6.3 for a request.
pub(super) fn of_request(minor: u8, fields: &Fields<'_>) -> Result<Framing, Fault> {
    let length = fields.length(minor)?.unwrap_or(Length::Fixed(0));
    // A server ignores what 1.0 expects (RFC 9110, 10.1.1).
    if minor >= 1 && fields.expect_other {
        return Err(Fault::protocol("the request expects something else than 100-continue").with_status(417));
    }
    Ok(Framing {
        length,
        keep_alive: fields.persists(minor),
        expect_continue: minor >= 1 && fields.expect_continue && length != Length::Fixed(0),
        upgrade: minor >= 1 && fields.connection_upgrade && fields.upgrade,
        encoded: fields.encoded,
    })
}

/// 6.3 for a response to a request of `method`.
pub(super) fn of_response(minor: u8, status: u16, method: &[u8], fields: &Fields<'_>) -> Result<Framing, Fault> {
    let upgrade = fields.connection_upgrade && fields.upgrade;
    let mut framing = Framing {
        length: Length::Fixed(0),
        keep_alive: fields.persists(minor),
        expect_continue: false,
        upgrade,
        encoded: fields.encoded,
    };
    if method == b"CONNECT" && (200..300).contains(&status) || status == 101 {
        // Whatever lengths are there are ignored.
        framing.length = Length::Tunnel;
        return Ok(framing);
    }
    let told = fields.length(minor).map_err(|fault| fault.with_status(0))?;
    if method != b"HEAD" && status >= 200 && status != 204 && status != 304 {
        framing.length = told.unwrap_or(Length::UntilClose);
    }
    framing.keep_alive &= framing.length != Length::UntilClose;
    Ok(framing)
}
