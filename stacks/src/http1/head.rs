//! One whole head off the front of some bytes.

use httparse::Header;

use super::{
    Fault, Headers, Limits,
    framing::{self, Fields, Framing},
    headers::Span,
    is_field_text, is_token_byte, shown,
};

/// Empty lines before a request that are passed over (2.2).
const EMPTY_LINES_MAX: usize = 4;

/// Field lines that are parsed without a reservation on the heap.
const FEW: usize = 32;

/// The head of a request. Parts of the first line lie in the text of the headers.
#[derive(Debug)]
pub struct Request {
    method: Span,
    target: Span,
    /// 0 or 1: the version is 1.`minor`.
    pub minor: u8,
    /// The field lines.
    pub headers: Headers,
    /// Where the message ends, and what happens then.
    pub framing: Framing,
}

impl Request {
    /// The method; case counts.
    pub fn method(&self) -> &[u8] {
        self.method.get(self.headers.text())
    }

    /// What is asked for, as it was sent.
    pub fn target(&self) -> &[u8] {
        self.target.get(self.headers.text())
    }
}

/// The head of a response.
#[derive(Debug)]
pub struct Response {
    /// Three digits, not below 100.
    pub status: u16,
    reason: Span,
    /// 0 or 1: the version is 1.`minor`.
    pub minor: u8,
    /// The field lines.
    pub headers: Headers,
    /// Where the message ends, and what happens then.
    pub framing: Framing,
}

impl Response {
    /// The reason phrase, often empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.get(self.headers.text())
    }
}

/// The head of a response that is still where it arrived.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Three digits, not below 100.
    pub status: u16,
    /// The reason phrase, often empty.
    pub reason: &'a [u8],
    /// 0 or 1: the version is 1.`minor`.
    pub minor: u8,
    /// Where the message ends, and what happens then.
    pub framing: Framing,
    /// All of it, with the empty line.
    pub head: &'a [u8],
}

/// The head of a request at the front of `bytes` and its size; `None` when it is not all there.
pub fn request(bytes: &[u8], limits: &Limits) -> Result<Option<(Request, usize)>, Fault> {
    let skipped = empty_lines(bytes)?;
    let bytes = &bytes[skipped..];
    if let Some(first) = bytes.first()
        && !is_token_byte(*first)
    {
        return Err(not_http(bytes));
    }
    let Some(head) = whole(bytes, limits, 414)? else { return Ok(None) };
    let (line, rest) = first_line(head);
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(Fault::protocol(format!("{} is not a request line", shown(line))));
    };
    if !super::is_token(method) {
        return Err(Fault::protocol(format!("{} is not a method", shown(method))));
    }
    let minor = version_of(version)?;
    check_target(method, target)?;
    let (headers, fields) = field_lines(head, rest, limits, |lines| Headers::parsed(head, lines))?;
    check_host(&fields, minor)?;
    let framing = framing::of_request(minor, &fields)?;
    let (method, target) = (Span::of(method, head), Span::of(target, head));
    Ok(Some((Request { method, target, minor, headers, framing }, skipped + head.len())))
}

/// The head of a response at the front of `bytes` and its size; `None` when it is not all there. `method` is that of
/// the request it answers.
pub fn response(bytes: &[u8], method: &[u8], limits: &Limits) -> Result<Option<(Response, usize)>, Fault> {
    let Some((answer, headers)) = answer_with(bytes, method, limits, Headers::parsed)? else { return Ok(None) };
    let Answer { status, reason, minor, framing, head } = answer;
    let reason = Span::of(reason, head);
    Ok(Some((Response { status, reason, minor, headers, framing }, head.len())))
}

/// The same without a copy of anything.
pub fn answer<'a>(bytes: &'a [u8], method: &[u8], limits: &Limits) -> Result<Option<Answer<'a>>, Fault> {
    Ok(answer_with(bytes, method, limits, |_, _| ())?.map(|(answer, ())| answer))
}

/// The field lines of a whole head that [`answer`] has found before.
pub fn headers_of(head: &[u8]) -> Result<Headers, Fault> {
    let limits = Limits { head: Limits::HEAD_MAX, fields: usize::MAX, start_line: Limits::HEAD_MAX };
    let (_, rest) = first_line(head);
    Ok(field_lines(head, rest, &limits, |lines| Headers::parsed(head, lines))?.0)
}

fn answer_with<'a, R>(
    bytes: &'a [u8],
    method: &[u8],
    limits: &Limits,
    make: impl FnOnce(&'a [u8], &[Header<'a>]) -> R,
) -> Result<Option<(Answer<'a>, R)>, Fault> {
    const BEGIN: &[u8] = b"HTTP/";
    let known = bytes.len().min(BEGIN.len());
    if bytes[..known] != BEGIN[..known] {
        return Err(not_http(bytes));
    }
    let Some(head) = whole(bytes, limits, 0)? else { return Ok(None) };
    let (line, rest) = first_line(head);
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let minor = version_of(words.next().unwrap_or_default())?;
    let status = match words.next() {
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(Fault::protocol(format!("{} is not a status line", shown(line)))),
    };
    // The space before an absent phrase is often absent, too; everybody takes that.
    let reason = words.next().unwrap_or(&line[line.len()..]);
    if !is_field_text(reason) {
        return Err(Fault::protocol("the reason phrase has a control character"));
    }
    let (made, fields) = field_lines(head, rest, limits, |lines| make(head, lines))?;
    let framing = framing::of_response(minor, status, method, &fields)?;
    Ok(Some((Answer { status, reason, minor, framing, head }, made)))
}

/// The trailers of a chunked body at the front of `bytes`, with the empty line after them, and their size.
pub fn trailers(bytes: &[u8], limits: &Limits) -> Result<Option<(Headers, usize)>, Fault> {
    let Some(end) = end_of_lines(bytes, limits)? else { return Ok(None) };
    let head = &bytes[..end];
    let (headers, _) = field_lines(head, 0, limits, |lines| Headers::parsed(head, lines))?;
    Ok(Some((headers, end)))
}

/// How many bytes of empty lines there are before a request line.
fn empty_lines(bytes: &[u8]) -> Result<usize, Fault> {
    let count = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count();
    if count > EMPTY_LINES_MAX {
        return Err(Fault::protocol("nothing but empty lines where a request was awaited"));
    }
    // A CR alone is the beginning of one more.
    let lone = usize::from(bytes[count * 2..] == *b"\r");
    if lone == 1 && count == EMPTY_LINES_MAX {
        return Err(Fault::protocol("nothing but empty lines where a request was awaited"));
    }
    Ok(count * 2 + lone)
}

/// The bytes up to and with the empty line, if they are all there.
fn whole<'a>(bytes: &'a [u8], limits: &Limits, status: u16) -> Result<Option<&'a [u8]>, Fault> {
    let line = bytes.get(..limits.start_line + 2).unwrap_or(bytes);
    if line.len() == limits.start_line + 2 && memchr::memchr(b'\n', line).is_none() {
        let message = format!("the first line is longer than {} bytes", limits.start_line);
        return Err(Fault::limit(status, message));
    }
    end_of_lines(bytes, limits).map(|end| end.map(|end| &bytes[..end])).map_err(|fault| match status {
        0 => fault.with_status(0),
        _ => fault,
    })
}

/// Where the empty line that ends a head ends. Every line must end with CR LF: a bare LF (2.2 allows taking it) is
/// what others may see as no end at all.
fn end_of_lines(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Fault> {
    let seen = &bytes[..bytes.len().min(limits.head)];
    let mut start = 0;
    for at in memchr::memchr2_iter(b'\r', b'\n', seen) {
        if seen[at] == b'\r' {
            if seen.get(at + 1).is_some_and(|next| *next != b'\n') {
                return Err(Fault::protocol("a CR stands without its LF"));
            }
            continue;
        }
        if at == start || seen[at - 1] != b'\r' {
            return Err(Fault::protocol("a line ends with LF without CR"));
        }
        if at - 1 == start {
            return Ok(Some(at + 1));
        }
        start = at + 1;
    }
    if bytes.len() >= limits.head {
        return Err(Fault::limit(431, format!("the head is longer than {} bytes", limits.head)));
    }
    Ok(None)
}

/// The first line without its end, and where the rest begins.
fn first_line(head: &[u8]) -> (&[u8], usize) {
    let end = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    (head.get(..end.saturating_sub(2)).unwrap_or_default(), end)
}

/// The minor version of "HTTP/1.x".
fn version_of(word: &[u8]) -> Result<u8, Fault> {
    match word {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        // A higher minor version is read as the highest one knows (RFC 9110, 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(1),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Fault::protocol(format!("{} is not spoken here, HTTP/1.1 is", word.escape_ascii())).with_status(505))
        }
        _ => Err(Fault::protocol(format!("{} is not a version of HTTP", shown(word)))),
    }
}

/// The four forms of a target (3.2).
fn check_target(method: &[u8], target: &[u8]) -> Result<(), Fault> {
    let refuse = |why: &str| Err(Fault::protocol(format!("the target {} {why}", shown(target))));
    // Bytes from 0x80 on are no URI, and yet many send them unencoded.
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7F || *byte == b'#') {
        return refuse("has a character that must be encoded");
    }
    let is_fine = match target {
        _ if method == b"CONNECT" => is_authority(target) && target.contains(&b':'),
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => {
            let scheme = target.iter().position(|byte| *byte == b':').unwrap_or(0);
            target[..scheme].first().is_some_and(u8::is_ascii_alphabetic) && target[scheme..].starts_with(b"://")
        }
    };
    if is_fine { Ok(()) } else { refuse("is in none of the forms of RFC 9112, 3.2") }
}

/// A request of 1.1 names its host, and none names two (3.2).
fn check_host(fields: &Fields<'_>, minor: u8) -> Result<(), Fault> {
    match fields.host {
        None if minor == 0 => Ok(()),
        None => Err(Fault::protocol("there is no Host field")),
        Some(_) if fields.host_count > 1 => Err(Fault::protocol("there is more than one Host field")),
        Some(host) if host.is_empty() || is_authority(host) => Ok(()),
        Some(host) => Err(Fault::protocol(format!("{} is not a host", shown(host)))),
    }
}

/// Whether this could be a host with a port or without (RFC 3986, 3.2.2): nothing that begins or ends another part.
fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| {
            matches!(*byte,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';'
                | b'=' | b':' | b'[' | b']' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
        })
}

/// What `make` makes of the field lines of `head`, which begin at `start`, and those that say how the message goes on.
fn field_lines<'a, R>(
    head: &'a [u8],
    start: usize,
    limits: &Limits,
    make: impl FnOnce(&[Header<'a>]) -> R,
) -> Result<(R, Fields<'a>), Fault> {
    let rest = &head[start..];
    let mut few = [httparse::EMPTY_HEADER; FEW];
    match httparse::parse_headers(rest, &mut few[..limits.fields.min(FEW)]) {
        Err(httparse::Error::TooManyHeaders) if limits.fields > FEW => {
            // Each line has at least four bytes, so the room is bounded by what has arrived.
            let mut many = vec![httparse::EMPTY_HEADER; limits.fields.min(rest.len() / 4)];
            finish(httparse::parse_headers(rest, &mut many), limits, make)
        }
        outcome => finish(outcome, limits, make),
    }
}

fn finish<'a, R>(
    outcome: Result<httparse::Status<(usize, &[Header<'a>])>, httparse::Error>,
    limits: &Limits,
    make: impl FnOnce(&[Header<'a>]) -> R,
) -> Result<(R, Fields<'a>), Fault> {
    use httparse::Error;
    match outcome {
        Ok(httparse::Status::Complete((_, lines))) => {
            let fields = Fields::of(lines)?;
            Ok((make(lines), fields))
        }
        Ok(httparse::Status::Partial) => Err(Fault::protocol("the head is cut in the middle of a field")),
        Err(Error::TooManyHeaders) => {
            Err(Fault::limit(431, format!("there are more than {} header fields", limits.fields)))
        }
        Err(Error::HeaderName) => Err(Fault::protocol(
            "a header field has no valid name: a space before the colon, a folded line, or a character that is none of \
             a token's",
        )),
        Err(Error::NewLine) => Err(Fault::protocol("a CR stands without its LF")),
        Err(_) => Err(Fault::protocol("the value of a header field has a CR or another control character")),
    }
}

/// What to say of bytes that are not HTTP at all.
fn not_http(bytes: &[u8]) -> Fault {
    Fault::protocol(match bytes {
        [0x16, ..] | [0x15, 0x03, ..] => "this is TLS, not HTTP: one side speaks https, the other http".to_owned(),
        _ => format!("{} is not HTTP/1", shown(bytes)),
    })
}
