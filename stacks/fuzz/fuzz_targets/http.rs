//! HTTP/1: what is decoded can be said again, a part of a head is never a whole one, and a chunked body is the same
//! however it is cut.
//!
//! The first byte of an input says what the rest is, and a second where it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonwire::http1::{
    Chunked, Headers, Limits,
    chunked::Step,
    encode,
    head::{self, Answer, Request, Response},
};
use moonwire_runtime::Buffer;

/// Small enough for the fuzzer to meet them.
const LIMITS: Limits = Limits { head: 2048, fields: 40, start_line: 512 };
const METHODS: [&[u8]; 3] = [b"GET", b"HEAD", b"CONNECT"];

fuzz_target!(|input: &[u8]| {
    let [kind, cut, wire @ ..] = input else { return };
    match kind % 5 {
        0 => request(wire, usize::from(*cut)),
        1 => chunked(wire, usize::from(*cut)),
        method => response(wire, usize::from(*cut), METHODS[usize::from(method) - 2]),
    }
});

fn lines(headers: &Headers) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// The front of a head, `cut` bytes before its end, is no head.
fn is_whole(size: usize, cut: usize, decode: impl Fn(usize) -> bool) {
    assert!(!decode(size - 1 - cut % size), "a part of a head was taken for a whole one");
}

fn request(wire: &[u8], cut: usize) {
    let Ok(Some((request, size))) = head::request(wire, &LIMITS) else { return };
    assert!(size <= wire.len() && size <= LIMITS.head + 8);
    is_whole(size, cut, |end| matches!(head::request(&wire[..end], &LIMITS), Ok(Some(_))));
    let mut out = Buffer::new();
    // Targets with bytes from 0x80 on are taken, and not said.
    if encode::request(&mut out, request.method(), request.target(), None, &[&request.headers]).is_err() {
        assert!(request.target().iter().any(|byte| *byte > b'~'));
        return;
    }
    let again: Request = match head::request(out.as_slice(), &Limits { head: 4096, ..LIMITS }) {
        Ok(Some((again, size))) if size == out.len() => again,
        // What 1.0 may leave away, or says without meaning it, 1.1 may not.
        _ if request.minor == 0 => return,
        other => panic!("{other:?}"),
    };
    assert_eq!((again.method(), again.target()), (request.method(), request.target()));
    assert_eq!(lines(&again.headers), lines(&request.headers));
    if request.minor == 1 {
        assert_eq!(again.framing, request.framing);
    }
}

fn response(wire: &[u8], cut: usize, method: &[u8]) {
    let found = head::response(wire, method, &LIMITS);
    let (response, size): (Response, usize) = match (head::answer(wire, method, &LIMITS), found) {
        (Ok(Some(answer)), Ok(Some((response, size)))) => {
            let Answer { status, reason, minor, framing, head } = answer;
            assert_eq!(
                (status, reason, minor, framing),
                (response.status, response.reason(), response.minor, response.framing)
            );
            assert_eq!((head, lines(&head::headers_of(head).unwrap())), (&wire[..size], lines(&response.headers)));
            (response, size)
        }
        (Ok(None), Ok(None)) => return,
        (Err(one), Err(other)) => return assert_eq!(one, other),
        other => panic!("{other:?}"),
    };
    is_whole(size, cut, |end| matches!(head::response(&wire[..end], method, &LIMITS), Ok(Some(_))));
    let mut out = Buffer::new();
    encode::response(&mut out, response.status, Some(response.reason()), None, &[&response.headers])
        .or_else(|fault| match response.framing.length {
            // Lengths that mean nothing are not looked at.
            _ if response.status == 101 || method == b"CONNECT" => Ok(()),
            _ => Err(fault),
        })
        .expect("what was decoded can be said");
    if response.minor == 1 && !out.is_empty() {
        let (again, _) = head::response(out.as_slice(), method, &Limits { head: 4096, ..LIMITS }).unwrap().unwrap();
        assert_eq!(
            (again.status, again.reason(), again.framing),
            (response.status, response.reason(), response.framing)
        );
        assert_eq!(lines(&again.headers), lines(&response.headers));
    }
}

/// What a body comes to: its bytes, and its end or why there is none.
fn read(wire: &[u8], step: usize, piece_max: usize) -> (Vec<u8>, String) {
    let mut decoder = Chunked::new(LIMITS);
    let (mut buffer, mut body) = (Buffer::new(), Vec::new());
    for part in wire.chunks(step) {
        buffer.extend(part);
        loop {
            match decoder.step(&mut buffer, piece_max) {
                Ok(Step::Piece { piece, used }) => {
                    assert!(piece.len() <= piece_max && piece.end <= used && used <= buffer.len());
                    body.extend_from_slice(&buffer.as_slice()[piece]);
                    buffer.skip(used);
                }
                Ok(Step::More(used)) => {
                    buffer.skip(used);
                    break;
                }
                Ok(Step::End(trailers, used)) => {
                    assert!(decoder.is_done() && used <= buffer.len());
                    return (body, format!("{:?}", lines(&trailers)));
                }
                Err(fault) => return (body, fault.message.into_owned()),
            }
        }
    }
    assert!(body.len() <= wire.len());
    (body, "more".to_owned())
}

fn chunked(wire: &[u8], cut: usize) {
    let (body, end) = read(wire, wire.len().max(1), 1 + cut);
    let (other, other_end) = read(wire, 1 + cut % 7, 64 * 1024);
    // What is wrong is said as soon as it is seen: what came before it may have been handed out by then, or not.
    let is_wrong = |end: &str| end != "more" && !end.starts_with('[');
    if is_wrong(&end) {
        assert!(is_wrong(&other_end), "{end:?} or {other_end:?}");
    } else {
        assert_eq!((end, body), (other_end, other));
    }
}
