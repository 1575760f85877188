//! Frames off the front of some bytes, joined to messages (5.4, 5.5, 8.1).

use std::{borrow::Cow, mem};

use super::{
    Fault, Role, Rules, code,
    deflate::{Inflater, Spares, TAIL},
    frame::{Header, Opcode, mask, rotated},
    utf8::Utf8,
};

/// A longer frame of data is taken apart as it comes; a shorter one stays where it is until it is whole.
const SMALL: usize = 4096;
/// A piece of a compressed message is about this long at most.
const PIECE_MAX: usize = 64 * 1024;
/// What is unmasked at once, before it is decompressed.
const CHUNK: usize = 4096;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message(Type, Cow<'a, [u8]>),
    /// Part of a message, which cuts no character of a text; whether it is the last, which may be empty.
    Piece(Type, Vec<u8>, bool),
    /// To be answered with a Pong.
    Ping(&'a [u8]),
    /// An answer to a Ping, or not.
    Pong(&'a [u8]),
    /// The other side sends no more: its code, if it said one, and its reason.
    Close(Option<u16>, &'a str),
}

/// The data frame whose payload comes.
#[derive(Debug)]
struct Frame {
    remaining: u64,
    key: [u8; 4],
    fin: bool,
}

/// A message that has begun and is not whole, and what later messages refer to.
#[derive(Debug, Default)]
pub struct Incoming {
    message: Option<Type>,
    compressed: bool,
    frame: Option<Frame>,
    bytes: Vec<u8>,
    utf8: Utf8,
    inflater: Option<Inflater>,
    /// How much of [`TAIL`] has been decompressed.
    tail: usize,
}

/// Takes frames off the front of `bytes` until one makes an event, and answers how many bytes were taken.
///
/// `state` is what one call leaves for the next on the same connection: `None` at first, and whenever no message has
/// begun and none before is needed. `pieces`: data is handed over as it comes, and its length knows no limit.
pub fn decode<'a>(
    bytes: &'a mut [u8],
    rules: &Rules,
    state: &mut Option<Box<Incoming>>,
    spares: &mut Spares,
    pieces: bool,
) -> Result<(usize, Option<Event<'a>>), Fault> {
    let mut at = 0;
    loop {
        if let Some(open) = state.as_mut().filter(|open| open.frame.is_some()) {
            at += open.feed(&mut bytes[at..], rules, spares, pieces)?;
            let event = open.advance(rules, pieces)?;
            if open.message.is_none() {
                settle(state, rules, spares);
            }
            match event {
                Some(event) => return Ok((at, Some(event))),
                None if state.as_ref().is_some_and(|open| open.frame.is_some()) => return Ok((at, None)),
                None => continue,
            }
        }
        let sender = if rules.role == Role::Client { Role::Server } else { Role::Client };
        let Some((header, size)) = Header::parse(&bytes[at..], sender, rules.inflate.is_some())? else {
            return Ok((at, None));
        };
        let begins = at + size;
        let here = header.length.min((bytes.len() - begins) as u64) as usize;
        let whole = here as u64 == header.length;
        if header.opcode.is_control() {
            if !whole {
                return Ok((at, None));
            }
            let payload = &mut bytes[begins..begins + here];
            mask(payload, header.key.unwrap_or_default());
            return Ok((begins + here, Some(control(header.opcode, payload)?)));
        }
        let message = state.as_ref().and_then(|open| open.message);
        let kind = match (header.opcode, message) {
            (Opcode::Continuation, Some(kind)) => kind,
            (Opcode::Continuation, None) => {
                return Err(Fault::protocol("a continuation comes where no message has begun"));
            }
            (_, Some(_)) => return Err(Fault::protocol("a message begins before the last one has ended")),
            (Opcode::Text, None) => Type::Text,
            (_, None) => Type::Binary,
        };
        check_length(&header, state.as_deref(), rules, pieces)?;
        if message.is_none() && header.fin && !header.compressed && !pieces {
            let key = header.key.unwrap_or_default();
            if whole {
                let payload = &mut bytes[begins..begins + here];
                mask(payload, key);
                if kind == Type::Text && std::str::from_utf8(payload).is_err() {
                    return Err(not_text());
                }
                let event = Event::Message(kind, Cow::Borrowed(&bytes[begins..begins + here]));
                return Ok((begins + here, Some(event)));
            }
            if header.length <= SMALL as u64 {
                if kind == Type::Text && !may_be_text(&bytes[begins..], key) {
                    return Err(not_text());
                }
                return Ok((at, None));
            }
        }
        let open = state.get_or_insert_default();
        if message.is_none() {
            open.message = Some(kind);
            open.compressed = header.compressed;
        }
        let Header { fin, key, length, .. } = header;
        open.frame = Some(Frame { remaining: length, key: key.unwrap_or_default(), fin });
        at = begins;
    }
}

/// Keeps what the next message needs, and nothing else.
fn settle(state: &mut Option<Box<Incoming>>, rules: &Rules, spares: &mut Spares) {
    if rules.inflate.is_some_and(|rules| rules.takeover) && state.as_ref().is_some_and(|state| state.inflater.is_some())
    {
        return;
    }
    if let Some(inflater) = state.take().and_then(|state| state.inflater) {
        inflater.give(spares);
    }
}

fn not_text() -> Fault {
    Fault::invalid("a text message is not UTF-8")
}

fn message_too_big(rules: &Rules) -> Fault {
    Fault::too_big(format!("a message is longer than message_max, {} bytes", rules.message_max))
}

/// Refuses what is too long before any of it is taken.
fn check_length(header: &Header, state: Option<&Incoming>, rules: &Rules, pieces: bool) -> Result<(), Fault> {
    if pieces {
        return Ok(());
    }
    if header.length > rules.frame_max {
        let message = format!("a frame of {} bytes is longer than frame_max, {}", header.length, rules.frame_max);
        return Err(Fault::too_big(message));
    }
    let (before, compressed) = state.map_or((0, false), |state| (state.bytes.len(), state.compressed));
    if !header.compressed && !compressed && header.length > rules.message_max.saturating_sub(before) as u64 {
        return Err(message_too_big(rules));
    }
    Ok(())
}

/// Whether the masked beginning of a small frame can be that of a text.
fn may_be_text(masked: &[u8], key: [u8; 4]) -> bool {
    let mut clear = [0; SMALL];
    let Some(clear) = clear.get_mut(..masked.len()) else { return true };
    clear.copy_from_slice(masked);
    mask(clear, key);
    Utf8::default().feed(clear)
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Fault> {
    match opcode {
        Opcode::Ping => return Ok(Event::Ping(payload)),
        Opcode::Pong => return Ok(Event::Pong(payload)),
        _ => {}
    }
    let (code, reason) = match payload {
        [] => (None, payload),
        [_] => return Err(Fault::protocol("a Close frame has half a code")),
        [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
    };
    if let Some(code) = code.filter(|code| !code::is_sendable(*code)) {
        return Err(Fault::protocol(format!("a Close frame has the code {code}, which no one may send")));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Fault::invalid("the reason of a Close frame is not UTF-8"))?;
    Ok(Event::Close(code, reason))
}

impl Incoming {
    /// Takes payload of the frame that has begun. Answers how much.
    fn feed(&mut self, input: &mut [u8], rules: &Rules, spares: &mut Spares, pieces: bool) -> Result<usize, Fault> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let here = frame.remaining.min(input.len() as u64) as usize;
        let checked = self.bytes.len();
        let mut used = 0;
        if !self.compressed {
            let input = &mut input[..here];
            mask(input, frame.key);
            // Room for the rest of the frame, too, when that is little beside what has come.
            self.bytes.reserve_exact(here.max(frame.remaining.min(2 * here as u64) as usize));
            self.bytes.extend_from_slice(input);
            frame.key = rotated(frame.key, here);
            used = here;
        } else if let Some(rules_of_peer) = rules.inflate {
            let most = if pieces { PIECE_MAX } else { rules.message_max.saturating_add(1) };
            let inflater = self.inflater.get_or_insert_with(|| Inflater::new(rules_of_peer, spares));
            while self.bytes.len() < most && (used < here || inflater.is_pending()) {
                let chunk = &mut input[used..here.min(used + CHUNK)];
                mask(chunk, frame.key);
                let taken = inflater.run(chunk, &mut self.bytes, most)?;
                frame.key = rotated(frame.key, taken);
                // What was not taken is left as it came.
                mask(&mut chunk[taken..], frame.key);
                used += taken;
            }
            if frame.remaining == used as u64 && frame.fin {
                while self.bytes.len() < most && (self.tail < TAIL.len() || inflater.is_pending()) {
                    self.tail += inflater.run(&TAIL[self.tail..], &mut self.bytes, most)?;
                }
            }
            if !pieces && self.bytes.len() > rules.message_max {
                return Err(message_too_big(rules));
            }
        }
        frame.remaining -= used as u64;
        if self.message == Some(Type::Text) && !self.utf8.feed(&self.bytes[checked..]) {
            return Err(not_text());
        }
        Ok(used)
    }

    /// Whether everything that has been taken has come out of the decompressor.
    fn is_through(&self, fin: bool) -> bool {
        let Some(inflater) = self.inflater.as_ref().filter(|_| self.compressed) else { return true };
        !inflater.is_pending() && (!fin || self.tail == TAIL.len())
    }

    /// Ends the frame, and the message, when all of it has come; what there is to tell.
    fn advance(&mut self, rules: &Rules, pieces: bool) -> Result<Option<Event<'static>>, Fault> {
        let Some(kind) = self.message else { return Ok(None) };
        let mut last = false;
        if let Some(Frame { remaining: 0, fin, .. }) = self.frame
            && self.is_through(fin)
        {
            self.frame = None;
            last = fin;
        }
        if last {
            if !self.utf8.is_complete() {
                return Err(not_text());
            }
            debug_assert!(pieces || self.bytes.len() <= rules.message_max);
            let bytes = mem::take(&mut self.bytes);
            if let Some(inflater) = &mut self.inflater {
                inflater.finish();
            }
            (self.message, self.tail) = (None, 0);
            return Ok(Some(match pieces {
                true => Event::Piece(kind, bytes, true),
                false => Event::Message(kind, Cow::Owned(bytes)),
            }));
        }
        let ready = self.bytes.len() - self.utf8.held();
        if !pieces || ready == 0 {
            return Ok(None);
        }
        let rest = self.bytes.split_off(ready);
        Ok(Some(Event::Piece(kind, mem::replace(&mut self.bytes, rest), false)))
    }
}

#[cfg(test)]
impl Incoming {
    /// Memory held for a message that is not whole.
    pub(super) fn bytes_capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
