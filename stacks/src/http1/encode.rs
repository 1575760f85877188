//! Heads onto the end of a buffer. Nothing that a script hands in can begin another line.

use moonwire_runtime::Buffer;

use super::{Fault, Headers, framing::Length, is_field_text, is_token, shown};

/// Fields that must not stand in trailers (RFC 9110, 6.5.1): they say what a message is, where it ends or whither it
/// goes, and nobody reads them there.
const NOT_TRAILERS: [&[u8]; 14] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"trailer",
    b"te",
    b"upgrade",
    b"content-encoding",
    b"content-type",
    b"content-range",
    b"authorization",
    b"set-cookie",
    b"cookie",
    b"expect",
];

/// Appends the head of a request. `length` adds the field that says it; without, the fields say what they say.
pub fn request(
    out: &mut Buffer,
    method: &[u8],
    target: &[u8],
    length: Option<Length>,
    fields: &[&Headers],
) -> Result<(), Fault> {
    if !is_token(method) {
        return Err(Fault::protocol(format!("{} is not a method", shown(method))));
    }
    if target.is_empty() || !target.iter().all(|byte| (b'!'..=b'~').contains(byte) && *byte != b'#') {
        let message = format!("the target {} has a character that must be percent-encoded", shown(target));
        return Err(Fault::protocol(message));
    }
    check_lengths(length, fields)?;
    out.reserve(64 + method.len() + target.len());
    out.extend(method);
    out.extend(b" ");
    out.extend(target);
    out.extend(b" HTTP/1.1\r\n");
    lines(out, length, fields);
    Ok(())
}

/// Appends the head of a response. Without a reason the standard's phrase is used.
pub fn response(
    out: &mut Buffer,
    status: u16,
    reason: Option<&[u8]>,
    length: Option<Length>,
    fields: &[&Headers],
) -> Result<(), Fault> {
    if !(100..1000).contains(&status) {
        return Err(Fault::protocol(format!("{status} is not a status code")));
    }
    let reason = reason.unwrap_or_else(|| phrase(status).as_bytes());
    if !is_field_text(reason) {
        return Err(Fault::protocol("the reason phrase has a line break or another control character"));
    }
    check_lengths(length, fields)?;
    out.extend(b"HTTP/1.1 ");
    out.extend(&[b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8, b' ']);
    out.extend(reason);
    out.extend(b"\r\n");
    lines(out, length, fields);
    Ok(())
}

/// Appends the last chunk, trailers, and the end of a chunked body.
pub fn last_chunk(out: &mut Buffer, trailers: Option<&Headers>) -> Result<(), Fault> {
    let forbidden = trailers
        .into_iter()
        .flat_map(Headers::iter)
        .map(|(name, _)| name)
        .find(|name| NOT_TRAILERS.iter().any(|other| other.eq_ignore_ascii_case(name)));
    if let Some(name) = forbidden {
        return Err(Fault::protocol(format!("{} cannot be a trailer (RFC 9110, 6.5.1)", shown(name))));
    }
    out.extend(b"0\r\n");
    lines(out, None, trailers.as_slice());
    Ok(())
}

/// One length, told once.
fn check_lengths(length: Option<Length>, fields: &[&Headers]) -> Result<(), Fault> {
    let mut told = usize::from(matches!(length, Some(Length::Fixed(_) | Length::Chunked)));
    for (name, _) in fields.iter().flat_map(|headers| headers.iter()) {
        let is_length = match name.len() {
            14 => name.eq_ignore_ascii_case(b"content-length"),
            17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
            _ => false,
        };
        told += usize::from(is_length);
    }
    if told > 1 {
        let message = "the length would be told twice: leave Content-Length and Transfer-Encoding to the body";
        return Err(Fault::protocol(message));
    }
    Ok(())
}

fn lines(out: &mut Buffer, length: Option<Length>, fields: &[&Headers]) {
    for (name, value) in fields.iter().flat_map(|headers| headers.iter()) {
        out.extend(name);
        out.extend(b": ");
        out.extend(value);
        out.extend(b"\r\n");
    }
    match length {
        Some(Length::Fixed(length)) => {
            out.extend(b"Content-Length: ");
            decimal(out, length);
            out.extend(b"\r\n");
        }
        Some(Length::Chunked) => out.extend(b"Transfer-Encoding: chunked\r\n"),
        Some(Length::UntilClose | Length::Tunnel) | None => {}
    }
    out.extend(b"\r\n");
}

fn decimal(out: &mut Buffer, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(&digits[at..]);
}

/// The phrase of a status code (RFC 9110, 15, and the registry); empty for those unknown.
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}
