//! `decode_answer`: what a client takes for every response. It makes one table, and headers only when somebody asks
//! for them.

use moonwire_runtime::{
    Arguments, BufferRef, Error, Native, Outcome, Record,
    mlua::{self, Lua, LuaString, Table},
};

use super::{ENCODED, MORE, flags, length_number, limits};
use crate::http1::{
    Fault,
    framing::Length,
    head::{self, Answer},
};

const WORDS: [&str; 7] = ["status", "reason", "ok", "length", "flags", "head", "body"];
const STATUS: usize = 0;
const REASON: usize = 1;
const OK: usize = 2;
const LENGTH: usize = 3;
const FLAGS: usize = 4;
const HEAD: usize = 5;
const BODY: usize = 6;

/// Fields that the client sets in the table.
const MORE_FIELDS: usize = 5;

/// An answer with its body, if that is short, plain and here.
struct Found<'a> {
    answer: Answer<'a>,
    body: Option<&'a [u8]>,
    flags: i64,
    /// Bytes of both.
    size: usize,
}

impl<'a> Found<'a> {
    /// Without a `body_max`, no body is wanted.
    fn of(bytes: &'a [u8], answer: Answer<'a>, body_max: Option<u64>) -> Self {
        let rest = &bytes[answer.head.len()..];
        let framing = &answer.framing;
        let body = match framing.length {
            Length::Fixed(length)
                if answer.status >= 200 && !framing.encoded && body_max.is_some_and(|max| length <= max) =>
            {
                usize::try_from(length).ok().and_then(|length| rest.get(..length))
            }
            _ => None,
        };
        let size = answer.head.len() + body.map_or(0, <[u8]>::len);
        let mut flags = flags(framing);
        if framing.encoded {
            flags |= ENCODED;
        }
        if size < bytes.len() {
            flags |= MORE;
        }
        Self { answer, body, flags, size }
    }
}

/// `decode_answer(buffer, method, head_max, fields_max, body_max)`
pub(super) struct DecodeAnswer;

impl Native for DecodeAnswer {
    const WORDS: &'static [&'static str] = &WORDS;

    fn call(arguments: &Arguments<'_>, record: &mut Record) -> Outcome {
        let (Some(buffer), Some(method), Some(head_max), Some(fields_max), Some(body_max)) =
            (arguments.buffer(1), arguments.bytes(2), arguments.integer(3), arguments.integer(4), arguments.integer(5))
        else {
            return Outcome::Slow;
        };
        let (Ok(head_max), Ok(fields_max)) = (usize::try_from(head_max), usize::try_from(fields_max)) else {
            return Outcome::Slow;
        };
        let held = buffer.borrow();
        let bytes = held.as_slice();
        if bytes.is_empty() {
            return Outcome::Nil;
        }
        let answer = match head::answer(bytes, method, &limits(Some(head_max), Some(fields_max), None)) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Outcome::Nil,
            Err(_) => return Outcome::Slow,
        };
        let found = Found::of(bytes, answer, u64::try_from(body_max).ok());
        record.reserve(MORE_FIELDS);
        record.integer(STATUS, found.answer.status.into());
        record.bytes(REASON, bytes, found.answer.reason);
        record.boolean(OK, (200..300).contains(&found.answer.status));
        record.integer(LENGTH, length_number(found.answer.framing.length));
        record.integer(FLAGS, found.flags);
        record.bytes(HEAD, bytes, found.answer.head);
        if let Some(body) = found.body {
            record.bytes(BODY, bytes, body);
        }
        Outcome::Take { buffer: 1, count: found.size }
    }
}

/// What the function beside it answers: errors, and buffers that change meanwhile.
pub(super) fn slow(
    lua: &Lua,
    (buffer, method, head_max, fields_max, body_max): (BufferRef, LuaString, usize, usize, i64),
) -> mlua::Result<Result<Option<Table>, Error>> {
    // No buffer is borrowed while Lua allocates: what stands there is copied.
    let taken = buffer.with(|buffer| {
        let bytes = buffer.as_slice();
        if bytes.is_empty() {
            return Ok(None);
        }
        let limits = limits(Some(head_max), Some(fields_max), None);
        let Some(answer) = head::answer(bytes, &method.as_bytes(), &limits)? else { return Ok(None) };
        let Found { answer, body, flags, size } = Found::of(bytes, answer, u64::try_from(body_max).ok());
        let (head, reason) = (answer.head.to_vec(), answer.reason.to_vec());
        let length = length_number(answer.framing.length);
        let taken = (answer.status, reason, length, flags, head, body.map(<[u8]>::to_vec));
        buffer.skip(size);
        Ok(Some(taken))
    });
    let (status, reason, length, flags, head, body) = match taken {
        Ok(Some(taken)) => taken,
        Ok(None) => return Ok(Ok(None)),
        Err(fault) => return Ok(Err(Fault::with_status(fault, 0).into_error("http.decode_answer"))),
    };
    let table = lua.create_table_with_capacity(0, WORDS.len() + MORE_FIELDS)?;
    table.raw_set(WORDS[STATUS], status)?;
    table.raw_set(WORDS[REASON], lua.create_string(reason)?)?;
    table.raw_set(WORDS[OK], (200..300).contains(&status))?;
    table.raw_set(WORDS[LENGTH], length)?;
    table.raw_set(WORDS[FLAGS], flags)?;
    table.raw_set(WORDS[HEAD], lua.create_string(head)?)?;
    if let Some(body) = body {
        table.raw_set(WORDS[BODY], lua.create_string(body)?)?;
    }
    Ok(Ok(Some(table)))
}
