//! Vectors of the standards, every cut, every limit, random and damaged input, and another implementation as an
//! oracle.

mod compression;
mod corpus;
mod oracle;
mod random;
mod refusals;
mod vectors;

use std::borrow::Cow;

use moonwire_runtime::Buffer;

use super::{
    Compression, Fault, Role, Rules,
    deflate::Spares,
    frame::{Header, Opcode, mask},
    incoming::{Event, Incoming, Type, decode},
    outgoing::{self, Means, Outgoing},
};

/// The seed of a random test: `MOONWIRE_SEED`, or always the same.
fn seed() -> u64 {
    let seed = std::env::var("MOONWIRE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(64_557_692);
    println!("MOONWIRE_SEED={seed}");
    seed
}

/// Random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Text of about `n` bytes that compresses, with characters of every length.
    fn text(&mut self, n: usize) -> String {
        let mut text = String::new();
        while text.len() < n {
            text.push(['a', 'b', ' ', 'ß', '€', '\u{1F600}'][self.below(6)]);
        }
        text
    }

    fn message(&mut self, most: usize) -> (Type, Vec<u8>) {
        let size = match self.below(4) {
            0 => self.below(4),
            1 => 120 + self.below(12),
            _ => self.below(most),
        };
        match self.below(2) {
            0 => (Type::Text, self.text(size).into_bytes()),
            _ => (Type::Binary, self.bytes(size)),
        }
    }
}

/// What has come, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(Type, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// One side that takes bytes as they come.
struct Receiver {
    rules: Rules,
    state: Option<Box<Incoming>>,
    spares: Spares,
    input: Buffer,
}

impl Receiver {
    fn new(rules: Rules) -> Self {
        Self { rules, state: None, spares: Spares::default(), input: Buffer::new() }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, Fault> {
        self.input.extend(bytes);
        let mut seen = Vec::new();
        loop {
            let (used, event) =
                decode(self.input.as_mut_slice(), &self.rules, &mut self.state, &mut self.spares, false)?;
            let done = event.is_none();
            match event {
                Some(Event::Message(kind, payload)) => seen.push(Seen::Message(kind, payload.into_owned())),
                Some(Event::Ping(payload)) => seen.push(Seen::Ping(payload.to_vec())),
                Some(Event::Pong(payload)) => seen.push(Seen::Pong(payload.to_vec())),
                Some(Event::Close(code, reason)) => seen.push(Seen::Close(code, reason.to_owned())),
                Some(Event::Piece(..)) => panic!("a piece that nobody asked for"),
                None => {}
            }
            self.input.skip(used);
            if done {
                return Ok(seen);
            }
        }
    }

    /// The messages of `bytes` in pieces of at most `step`, put together again.
    fn feed_pieces(&mut self, bytes: &[u8], step: usize) -> Result<Vec<Seen>, Fault> {
        let (mut seen, mut whole) = (Vec::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            self.input.extend(chunk);
            loop {
                let (used, event) =
                    decode(self.input.as_mut_slice(), &self.rules, &mut self.state, &mut self.spares, true)?;
                let done = event.is_none();
                match event {
                    Some(Event::Piece(kind, piece, last)) => {
                        assert!(last || !piece.is_empty(), "an empty piece that is not the last");
                        assert!(kind == Type::Binary || std::str::from_utf8(&piece).is_ok(), "a character was cut");
                        whole.extend_from_slice(&piece);
                        if last {
                            seen.push(Seen::Message(kind, std::mem::take(&mut whole)));
                        }
                    }
                    Some(Event::Ping(payload)) => seen.push(Seen::Ping(payload.to_vec())),
                    Some(other) => panic!("{other:?} where pieces were asked for"),
                    None => {}
                }
                self.input.skip(used);
                if done {
                    break;
                }
            }
        }
        Ok(seen)
    }
}

/// One side that sends.
struct Sender {
    rules: Rules,
    state: Option<Box<Outgoing>>,
    means: Means,
}

impl Sender {
    fn new(rules: Rules) -> Self {
        Self { rules, state: None, means: Means::default() }
    }

    fn message(&mut self, kind: Type, payload: &[u8]) -> Vec<u8> {
        let mut out = Buffer::new();
        outgoing::message(&mut out, &self.rules, kind, payload, &mut self.state, &mut self.means).unwrap();
        out.as_slice().to_vec()
    }

    /// The message in fragments, with a Ping behind each but the last.
    fn fragments(&mut self, kind: Type, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Buffer::new();
        for (at, part) in parts.iter().enumerate() {
            let (kind, last) = ((at == 0).then_some(kind), at + 1 == parts.len());
            outgoing::piece(&mut out, &self.rules, kind, part, last, &mut self.state, &mut self.means).unwrap();
            if !last {
                let what = (Opcode::Ping, true, false);
                outgoing::frame(&mut out, self.rules.role, what, b"?", &mut self.means.keys).unwrap();
            }
        }
        out.as_slice().to_vec()
    }
}

/// One frame as it stands on the wire; the client's key is always the same.
fn frame(from: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let key = (from == Role::Client).then_some([0x37, 0xFA, 0x21, 0x3D]);
    let mut out = Buffer::new();
    Header { fin: true, compressed: false, opcode: Opcode::Binary, key, length: payload.len() as u64 }.put(&mut out);
    let begins = out.len();
    out.extend(payload);
    mask(&mut out.as_mut_slice()[begins..], key.unwrap_or_default());
    let mut bytes = out.as_slice().to_vec();
    bytes[0] = first;
    bytes
}

fn other(role: Role) -> Role {
    if role == Role::Client { Role::Server } else { Role::Client }
}

/// Rules of both sides of a connection compressed so, as (client, server).
fn compressed(takeover: bool, window_bits: u8) -> (Rules, Rules) {
    let both = Some(Compression { window_bits, takeover });
    let rules = |role| Rules { inflate: both, deflate: both, threshold: 0, ..Rules::new(role) };
    (rules(Role::Client), rules(Role::Server))
}

fn text(payload: &[u8]) -> Event<'_> {
    Event::Message(Type::Text, Cow::Borrowed(payload))
}
