//! Random and damaged input. What single heads and bodies mean is in `lua/test/http_codec_test.lua`.

mod corpus;

use moonwire_runtime::{Buffer, Kind};

use super::{
    Chunked, Fault, Headers, Limits,
    chunked::Step,
    encode,
    framing::Length,
    head::{self, Request, Response},
};

const LIMITS: Limits = Limits { head: 2048, fields: 40, start_line: 200 };

/// The seed of a random test: `MOONWIRE_SEED`, or always the same.
fn seed() -> u64 {
    let seed = std::env::var("MOONWIRE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(9112);
    println!("MOONWIRE_SEED={seed}");
    seed
}

/// Random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % n
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// Pieces that heads are made of, right ones and wrong ones.
const PARTS: [&[u8]; 30] = [
    b"GET ",
    b"POST /x",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"HTTP/1.1 200 OK",
    b"\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"Host: h",
    b"Content-Length: ",
    b"5",
    b"99999999999999999999",
    b"Transfer-Encoding: ",
    b"chunked",
    b"gzip, ",
    b",",
    b"Connection: close",
    b"Upgrade: x",
    b"Expect: 100-continue",
    b": ",
    b" ",
    b"\t",
    b"\0",
    b"\xFF",
    b"X-Any: thing",
    b"*",
    b"http://h/",
    b"-",
];

fn patchwork(random: &mut Random) -> Vec<u8> {
    (0..random.below(24)).flat_map(|_| random.pick(&PARTS)).copied().collect()
}

const WHOLE_REQUEST: &[u8] =
    b"POST /a?b HTTP/1.1\r\nHost: example.org\r\nContent-Length: 12\r\nConnection: keep-alive, x\r\nX-Y: z z\r\n\r\n";
const WHOLE_RESPONSE: &[u8] =
    b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nX-Y: z z\r\n\r\n";

/// A right head with a few bytes changed.
fn damaged(random: &mut Random, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = *random.pick(&[&b'\r', &b'\n', &b' ', &b':', &0, &b',', &0xFF, &b'0', &b'\t']),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, *random.pick(&[&b'\r', &b'\n', &b' ', &b':', &0, &b',', &0xFF, &b'9', &b'\t'])),
        }
    }
    bytes
}

/// What no head that is accepted may hold.
fn check_lines(headers: &Headers) {
    for (name, value) in headers.iter() {
        assert!(super::is_token(name), "{name:?}");
        assert!(super::is_field_text(value), "{value:?}");
        assert_eq!(super::trim(value), value);
    }
    let count = |name: &[u8]| headers.all(name).count();
    assert!(count(b"content-length") + count(b"transfer-encoding") <= 1, "{headers:?}");
}

fn check_fault(fault: &Fault) {
    assert!(matches!(fault.kind, Kind::Protocol | Kind::Limit));
    assert!(!fault.message.contains(['\r', '\n', '\0']), "{}", fault.message);
}

/// Whatever the whole says, no cut of it may be taken for a head, nor be refused if the whole is not.
fn check_cuts<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Fault>) {
    let Ok(Some((_, size))) = decode(bytes) else { return };
    for cut in 0..size {
        assert!(matches!(decode(&bytes[..cut]), Ok(None)), "cut at {cut} of {size}: {}", bytes.escape_ascii());
    }
}

fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, Fault> {
    head::request(bytes, &LIMITS)
}

fn response(bytes: &[u8]) -> Result<Option<(Response, usize)>, Fault> {
    head::response(bytes, b"GET", &LIMITS)
}

#[test]
fn a_damaged_or_random_request_is_whole_or_unfinished_or_refused() {
    let mut random = Random::new(seed());
    let mut accepted = 0;
    for round in 0..60_000 {
        let bytes = if round % 2 == 0 { patchwork(&mut random) } else { damaged(&mut random, WHOLE_REQUEST) };
        match request(&bytes) {
            Ok(Some((request, size))) => {
                accepted += 1;
                assert!(size <= bytes.len());
                check_lines(&request.headers);
                assert!(super::is_token(request.method()));
                assert!(!request.target().iter().any(|byte| *byte <= b' '));
                assert!(matches!(request.framing.length, Length::Fixed(_) | Length::Chunked));
            }
            Ok(None) => {}
            Err(fault) => check_fault(&fault),
        }
        check_cuts(&bytes, request);
    }
    assert!(accepted > 1000, "only {accepted}: the test has lost its sense");
}

#[test]
fn a_damaged_or_random_response_is_whole_or_unfinished_or_refused() {
    let mut random = Random::new(seed());
    let mut accepted = 0;
    for round in 0..60_000 {
        let bytes = if round % 2 == 0 { patchwork(&mut random) } else { damaged(&mut random, WHOLE_RESPONSE) };
        match response(&bytes) {
            Ok(Some((response, size))) => {
                accepted += 1;
                assert!(size <= bytes.len());
                check_lines(&response.headers);
                assert!(super::is_field_text(response.reason()));
                assert!((100..1000).contains(&response.status));
            }
            Ok(None) => {}
            Err(fault) => check_fault(&fault),
        }
        check_cuts(&bytes, response);
    }
    assert!(accepted > 1000, "only {accepted}: the test has lost its sense");
}

#[test]
fn no_head_beyond_the_limits_is_awaited() {
    let mut random = Random::new(seed());
    for _ in 0..2000 {
        let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
        while bytes.len() < LIMITS.head {
            bytes.extend_from_slice(random.pick(&[&b"a: b\r\n"[..], b"abc: d", b"e", b"\r\n f: g"]));
        }
        assert!(request(&bytes).is_err());
    }
    assert!(request(&vec![b'G'; LIMITS.start_line + 2]).is_err());
    assert!(matches!(request(&vec![b'G'; LIMITS.start_line + 1]), Ok(None)));
}

/// All of a body from pieces of `sizes`; `None` while more is needed.
fn body(wire: &[u8], mut next: impl FnMut() -> usize) -> Result<Option<Vec<u8>>, Fault> {
    let mut decoder = Chunked::new(LIMITS);
    let (mut buffer, mut out, mut at) = (Buffer::new(), Vec::new(), 0);
    loop {
        let size = next().min(wire.len() - at);
        buffer.extend(&wire[at..at + size]);
        at += size;
        loop {
            let used = match decoder.step(&mut buffer, 50)? {
                Step::Piece { piece, used } => {
                    assert!(piece.len() <= 50 && piece.end <= used && used <= buffer.len());
                    out.extend_from_slice(&buffer.as_slice()[piece]);
                    used
                }
                Step::End(..) => return Ok(Some(out)),
                Step::More(used) => {
                    buffer.skip(used);
                    break;
                }
            };
            buffer.skip(used);
        }
        if at == wire.len() {
            return Ok(None);
        }
    }
}

#[test]
fn a_chunked_body_means_the_same_however_it_is_cut() {
    let mut random = Random::new(seed());
    let parts: [&[u8]; 16] = [
        b"1\r\nx\r\n",
        b"a\r\n0123456789\r\n",
        b"0A;x=y\r\n0123456789\r\n",
        b"0\r\n",
        b"\r\n",
        b"X: y\r\n",
        b"3\r\nab",
        b"c\r\n",
        b"\n",
        b"\r",
        b"g",
        b"2 ;\"\r\nzz\r\n",
        b"ffffffffffffffff\r\n",
        b"7fffffffffffffff\r\n",
        b" ",
        b"\0",
    ];
    let (mut ended, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let mut wire: Vec<u8> = (0..random.below(8)).flat_map(|_| random.pick(&parts)).copied().collect();
        if random.below(2) == 0 {
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        let whole = body(&wire, || usize::MAX);
        let single = body(&wire, || 1);
        let some = body(&wire, || 1 + random.below(7));
        // How far it was understood may change what is said of it, never what it is.
        let verdict = |outcome: &Result<Option<Vec<u8>>, Fault>| outcome.clone().map_err(|fault| fault.kind);
        assert_eq!(verdict(&whole), verdict(&single), "{}", wire.escape_ascii());
        assert_eq!(verdict(&whole), verdict(&some), "{}", wire.escape_ascii());
        match whole {
            Ok(Some(bytes)) => {
                assert!(bytes.len() < wire.len());
                ended += 1;
            }
            Ok(None) => {}
            Err(fault) => {
                check_fault(&fault);
                refused += 1;
            }
        }
    }
    assert!(ended > 1000 && refused > 1000, "{ended} {refused}: the test has lost its sense");
}

#[test]
fn whatever_is_encoded_holds_no_line_but_its_own() {
    let mut random = Random::new(seed());
    for _ in 0..30_000 {
        let word = |random: &mut Random| -> Vec<u8> {
            (0..random.below(6))
                .map(|_| *random.pick(&[&b'a', &b' ', &b'\r', &b'\n', &0, &b':', &0xE4, &b'B']))
                .collect()
        };
        let (method, target, reason) = (word(&mut random), word(&mut random), word(&mut random));
        let mut headers = Headers::new();
        let mut lines = 0;
        for _ in 0..random.below(4) {
            if headers.add(&word(&mut random), &word(&mut random)).is_ok() {
                lines += 1;
            }
        }
        let mut out = Buffer::new();
        let written = match random.below(2) {
            0 => encode::request(&mut out, &method, &target, Some(Length::Chunked), &[&headers]),
            _ => encode::response(&mut out, 200, Some(&reason), Some(Length::Fixed(7)), &[&headers]),
        };
        if written.is_ok() {
            let text = out.as_slice();
            assert_eq!(text.windows(2).filter(|pair| *pair == b"\r\n").count(), lines + 3);
            assert_eq!(text.iter().filter(|byte| matches!(**byte, b'\r' | b'\n' | 0)).count(), 2 * (lines + 3));
        }
    }
}
