//! What tungstenite makes of our frames, and we of its.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use tungstenite::{
    Message, WebSocket,
    handshake::{client::generate_key, derive_accept_key},
    protocol::{self, CloseFrame, frame::coding::CloseCode},
};

use super::*;

/// A pipe that hands out a few bytes at a time.
#[derive(Debug, Default)]
struct Pipe {
    to_read: VecDeque<u8>,
    written: Vec<u8>,
    step: usize,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.to_read.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = into.len().min(self.step).min(self.to_read.len());
        for (room, byte) in into.iter_mut().zip(self.to_read.drain(..count)) {
            *room = byte;
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(role: Role, step: usize) -> WebSocket<Pipe> {
    let role = if role == Role::Client { protocol::Role::Client } else { protocol::Role::Server };
    WebSocket::from_raw_socket(Pipe { step, ..Pipe::default() }, role, None)
}

#[test]
fn tungstenite_reads_what_we_send() {
    let mut random = Random::new(seed());
    for role in [Role::Client, Role::Server] {
        let mut sender = Sender::new(Rules::new(role));
        let mut peer = tungstenite(other(role), 1000);
        for _ in 0..200 {
            let (kind, payload) = random.message(70_000);
            let wire = match random.below(2) {
                0 => sender.message(kind, &payload),
                _ => {
                    let (first, second) = payload.split_at(random.below(payload.len() + 1));
                    sender.fragments(kind, &[first, second])
                }
            };
            peer.get_mut().to_read.extend(wire);
            let got = loop {
                match peer.read().unwrap() {
                    Message::Ping(_) => {}
                    message => break message,
                }
            };
            assert_eq!(got.is_text(), kind == Type::Text);
            assert!(got.into_data()[..] == payload);
        }
    }
}

#[test]
fn we_read_what_tungstenite_sends() {
    let mut random = Random::new(seed());
    for role in [Role::Client, Role::Server] {
        let mut peer = tungstenite(role, 1000);
        let mut receiver = Receiver::new(Rules::new(other(role)));
        for _ in 0..200 {
            let (kind, payload) = random.message(70_000);
            peer.send(match kind {
                Type::Text => Message::text(String::from_utf8(payload.clone()).unwrap()),
                Type::Binary => Message::binary(payload.clone()),
            })
            .unwrap();
            peer.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
            let wire = std::mem::take(&mut peer.get_mut().written);
            let seen: Vec<Seen> = wire.chunks(777).flat_map(|part| receiver.feed(part).unwrap()).collect();
            assert!(seen == [Seen::Message(kind, payload), Seen::Ping(vec![1, 2, 3])]);
        }
        let farewell = CloseFrame { code: CloseCode::Away, reason: "so long".into() };
        peer.close(Some(farewell)).unwrap();
        let wire = std::mem::take(&mut peer.get_mut().written);
        assert_eq!(receiver.feed(&wire).unwrap(), [Seen::Close(Some(1001), "so long".into())]);
    }
}

#[test]
fn tungstenite_refuses_what_we_refuse() {
    // Uncompressed frames without a payload that matters; where tungstenite is laxer, the standard is cited.
    let mut compared = 0;
    for first in 0..=u8::MAX {
        for payload in [&b""[..], b"x", b"\x03\xE8ok", b"\xFF"] {
            let wire = frame(Role::Client, first, payload);
            let ours = Receiver::new(Rules::new(Role::Server)).feed(&wire);
            let mut peer = tungstenite(Role::Server, 1000);
            peer.get_mut().to_read.extend(wire);
            let theirs = peer.read();
            let waits =
                matches!(&theirs, Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock);
            // A code that may not be sent is answered by tungstenite rather than refused (7.4.2).
            if first == 0x88 && payload.len() == 2 {
                continue;
            }
            assert_eq!(ours.is_ok(), theirs.is_ok() || waits, "{first:X} {payload:X?}: {ours:?} {theirs:?}");
            compared += 1;
        }
    }
    assert!(compared > 1000);
}

#[test]
fn the_key_of_section_1_3_is_answered_as_it_says() {
    assert_eq!(derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(generate_key().len(), 24);
    assert_ne!(generate_key(), generate_key());
}
