//! Messages onto the end of a buffer, as frames.

use moonwire_runtime::Buffer;

use super::{
    Role, Rules,
    deflate::{Deflater, Spares},
    frame::{Header, Opcode, mask},
    incoming::Type,
    utf8::Utf8,
};

/// Masking keys nobody can foretell (10.3): the system is asked for many at once.
#[derive(Debug)]
pub struct Keys {
    bytes: [u8; 512],
    at: usize,
}

impl Default for Keys {
    fn default() -> Self {
        let bytes = [0; 512];
        Self { bytes, at: bytes.len() }
    }
}

impl Keys {
    fn next(&mut self) -> Result<[u8; 4], getrandom::Error> {
        if self.at + 4 > self.bytes.len() {
            getrandom::fill(&mut self.bytes)?;
            self.at = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.bytes[self.at..self.at + 4]);
        self.at += 4;
        Ok(key)
    }
}

/// A message that was begun and not ended, and what later messages refer to.
#[derive(Debug, Default)]
pub struct Outgoing {
    deflater: Option<Deflater>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    compressed: bool,
    /// Of a text.
    utf8: Option<Utf8>,
}

/// What several calls share.
#[derive(Debug, Default)]
pub struct Means {
    /// For clients.
    pub keys: Keys,
    /// Engines nobody uses.
    pub spares: Spares,
}

/// Why nothing was encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// A text that is not UTF-8.
    NotText,
    /// A message where another has not ended, or more of one that has not begun.
    OutOfTurn,
    /// The system has no random numbers.
    NoRandom,
}

/// Appends one frame.
pub fn frame(
    out: &mut Buffer,
    role: Role,
    (opcode, fin, compressed): (Opcode, bool, bool),
    payload: &[u8],
    keys: &mut Keys,
) -> Result<(), Mistake> {
    let key = match role {
        Role::Client => Some(keys.next().map_err(|_| Mistake::NoRandom)?),
        Role::Server => None,
    };
    out.reserve(payload.len() + 14);
    Header { fin, compressed, opcode, key, length: payload.len() as u64 }.put(out);
    let begins = out.len();
    out.extend(payload);
    if let Some(key) = key {
        mask(&mut out.as_mut_slice()[begins..], key);
    }
    Ok(())
}

const fn opcode(kind: Type) -> Opcode {
    match kind {
        Type::Text => Opcode::Text,
        Type::Binary => Opcode::Binary,
    }
}

/// Appends a whole message, compressed when that was agreed on and it is long enough.
pub fn message(
    out: &mut Buffer,
    rules: &Rules,
    kind: Type,
    payload: &[u8],
    state: &mut Option<Box<Outgoing>>,
    means: &mut Means,
) -> Result<(), Mistake> {
    if kind == Type::Text && std::str::from_utf8(payload).is_err() {
        return Err(Mistake::NotText);
    }
    if state.as_ref().is_some_and(|state| state.open.is_some()) {
        return Err(Mistake::OutOfTurn);
    }
    let Some(compression) = rules.deflate.filter(|_| payload.len() >= rules.threshold) else {
        return frame(out, rules.role, (opcode(kind), true, false), payload, &mut means.keys);
    };
    let deflater = state
        .get_or_insert_default()
        .deflater
        .get_or_insert_with(|| Deflater::new(compression, rules.level, &mut means.spares));
    let compressed = deflater.run(payload, true);
    let outcome = frame(out, rules.role, (opcode(kind), true, true), &compressed, &mut means.keys);
    settle(state, rules, &mut means.spares);
    outcome
}

/// Appends part of a message: its first with a `kind`, the others without.
pub fn piece(
    out: &mut Buffer,
    rules: &Rules,
    kind: Option<Type>,
    payload: &[u8],
    last: bool,
    state: &mut Option<Box<Outgoing>>,
    means: &mut Means,
) -> Result<(), Mistake> {
    if kind.is_some() == state.as_ref().is_some_and(|state| state.open.is_some()) {
        return Err(Mistake::OutOfTurn);
    }
    let own = state.get_or_insert_default();
    let open = own.open.get_or_insert_with(|| Open {
        compressed: rules.deflate.is_some(),
        utf8: (kind == Some(Type::Text)).then(Utf8::default),
    });
    if let Some(utf8) = &mut open.utf8
        && (!utf8.feed(payload) || (last && !utf8.is_complete()))
    {
        return Err(Mistake::NotText);
    }
    let opcode = kind.map_or(Opcode::Continuation, opcode);
    let outcome = match rules.deflate.filter(|_| open.compressed) {
        Some(compression) => {
            let spares = &mut means.spares;
            let deflater = own.deflater.get_or_insert_with(|| Deflater::new(compression, rules.level, spares));
            let compressed = deflater.run(payload, last);
            frame(out, rules.role, (opcode, last, kind.is_some()), &compressed, &mut means.keys)
        }
        None => frame(out, rules.role, (opcode, last, false), payload, &mut means.keys),
    };
    if last {
        own.open = None;
        settle(state, rules, &mut means.spares);
    }
    outcome
}

/// Keeps what the next message needs, and nothing else.
fn settle(state: &mut Option<Box<Outgoing>>, rules: &Rules, spares: &mut Spares) {
    if rules.deflate.is_some_and(|rules| rules.takeover) && state.as_ref().is_some_and(|own| own.deflater.is_some()) {
        return;
    }
    if let Some(deflater) = state.take().and_then(|state| state.deflater) {
        deflater.give(spares);
    }
}
