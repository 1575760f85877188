//! The fuzzer's first inputs: a file for each sample, behind a byte that says what it is and one that says where it is
//! cut.

use std::{fs, path::PathBuf};

use moonwire_runtime::Buffer;

use super::LIMITS;
use crate::http1::{Chunked, chunked::Step, head};

const REQUEST: u8 = 0;
const CHUNKED: u8 = 1;
const GET: u8 = 2;
const HEAD: u8 = 3;
const CONNECT: u8 = 4;

const SAMPLES: &[(&str, u8, &str)] = &[
    ("get", REQUEST, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
    ("get-absolute", REQUEST, "GET http://h:8080/a?b=c%20d HTTP/1.1\r\nHost: h:8080\r\nAccept: */*\r\n\r\n"),
    ("get-old", REQUEST, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    ("get-after-empty-lines", REQUEST, "\r\n\r\nGET /x HTTP/1.1\r\nhost: [::1]:80\r\n\r\n"),
    ("post", REQUEST, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"),
    (
        "put-chunked",
        REQUEST,
        "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: A, B\r\n\r\n0\r\n\r\n",
    ),
    ("options", REQUEST, "OPTIONS * HTTP/1.1\r\nHost: \r\nConnection: close, x\r\n\r\n"),
    ("connect", REQUEST, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
    ("upgrade", REQUEST, "GET /w HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ("ok", GET, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"),
    ("ok-old", GET, "HTTP/1.0 200 \r\nServer:\r\n\r\nall"),
    ("ok-chunked", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n"),
    ("ok-gzip", GET, "HTTP/1.1 206\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n"),
    ("continue", GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ("not-modified", GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n"),
    ("repeated", GET, "HTTP/1.1 302 Found\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nLocation: /x\r\n\r\n"),
    ("head", HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"),
    ("tunnel", CONNECT, "HTTP/1.1 200 Connection established\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("no-tunnel", CONNECT, "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"),
    ("chunks", CHUNKED, "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    ("chunks-extended", CHUNKED, "5;name=value\r\nhello\r\nA ; b=\"c d\"\r\n0123456789\r\n0\r\n\r\n"),
    ("chunks-trailers", CHUNKED, "0005\r\nhello\r\n0\r\nDigest: x\r\nServer-Timing: y\r\n\r\nHTTP"),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/http")
}

/// Whether it is a whole message, as far as the fuzzer looks.
fn is_whole(kind: u8, wire: &[u8]) -> bool {
    match kind {
        REQUEST => matches!(head::request(wire, &LIMITS), Ok(Some(_))),
        CHUNKED => {
            let (mut decoder, mut buffer) = (Chunked::new(LIMITS), Buffer::new());
            buffer.extend(wire);
            loop {
                match decoder.step(&mut buffer, 1 << 16) {
                    Ok(Step::Piece { used, .. }) => buffer.skip(used),
                    other => return matches!(other, Ok(Step::End(..))),
                }
            }
        }
        method => {
            let method: &[u8] = [&b"GET"[..], b"HEAD", b"CONNECT"][usize::from(method - GET)];
            matches!(head::answer(wire, method, &LIMITS), Ok(Some(_)))
        }
    }
}

#[test]
fn every_file_of_the_fuzzers_corpus_is_a_message_and_every_sample_is_there() {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        assert!(is_whole(bytes[0], &bytes[2..]), "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    for (name, ..) in SAMPLES {
        assert!(names.iter().any(|other| other == name), "{name} is not there");
    }
}

#[test]
#[ignore = "writes the fuzzer's corpus anew"]
fn write_the_fuzzers_corpus() {
    fs::create_dir_all(folder()).unwrap();
    for (count, (name, kind, wire)) in SAMPLES.iter().enumerate() {
        fs::write(folder().join(name), [&[*kind, count as u8 * 11], wire.as_bytes()].concat()).unwrap();
    }
}
