//! The module `http.codec`. `lua/meta/http_codec.lua` says what each function answers.
//!
//! Heads are answered as several values rather than a table, so that whoever reads one makes the only table there is.
//! No buffer is borrowed while Lua allocates: a garbage collection may run a finaliser that touches it.

mod answer;
mod headers;

use std::mem;

use moonwire_runtime::{
    Buffer, BufferRef, Error,
    mlua::{self, IntoLua, Lua, LuaString, UserData, UserDataMethods, Value},
    native_function,
};

use super::{
    Chunked, Fault, Headers, Limits,
    chunked::Step,
    encode,
    framing::{Framing, Length},
    head,
};
use crate::native::misuse;
use headers::Fields;

/// Lengths that are no number of bytes.
const CHUNKED: i64 = -1;
const UNTIL_CLOSE: i64 = -2;
const TUNNEL: i64 = -3;

/// Bits of the flags.
const KEEP_ALIVE: i64 = 1;
const EXPECT_CONTINUE: i64 = 2;
const UPGRADE: i64 = 4;
const ENCODED: i64 = 8;
const MORE: i64 = 16;

/// Most bytes of a chunked body that are answered at once.
const PIECE_MAX: usize = 64 * 1024;

/// Bytes and lines of trailers, unless the call says otherwise.
const TRAILERS: Limits = Limits { head: 8 * 1024, fields: 64, start_line: 8 * 1024 };

/// Makes the module.
pub fn module(lua: &Lua) -> mlua::Result<Value> {
    let exports = lua.create_table()?;
    exports.raw_set("KEEP_ALIVE", KEEP_ALIVE)?;
    exports.raw_set("EXPECT_CONTINUE", EXPECT_CONTINUE)?;
    exports.raw_set("UPGRADE", UPGRADE)?;
    exports.raw_set("ENCODED", ENCODED)?;
    exports.raw_set("MORE", MORE)?;
    exports.raw_set("CHUNKED", CHUNKED)?;
    exports.raw_set("UNTIL_CLOSE", UNTIL_CLOSE)?;
    exports.raw_set("TUNNEL", TUNNEL)?;
    exports.raw_set("decode_request", lua.create_function(decode_request)?)?;
    exports.raw_set("decode_response", lua.create_function(decode_response)?)?;
    let slow = lua.create_function(answer::slow)?;
    exports.raw_set("decode_answer", native_function::<answer::DecodeAnswer>(lua, &slow)?)?;
    exports.raw_set("headers_of", lua.create_function(headers_of)?)?;
    exports.raw_set("encode_request", lua.create_function(encode_request)?)?;
    exports.raw_set("encode_response", lua.create_function(encode_response)?)?;
    exports.raw_set("encode_last_chunk", lua.create_function(encode_last_chunk)?)?;
    exports.raw_set("headers", lua.create_function(headers::new)?)?;
    exports.raw_set(
        "chunked",
        lua.create_function(|_, (head, fields): (Option<usize>, Option<usize>)| {
            let limits = Limits {
                head: head.unwrap_or(TRAILERS.head).min(Limits::HEAD_MAX),
                fields: fields.unwrap_or(TRAILERS.fields),
                ..TRAILERS
            };
            Ok(Chunked::new(limits))
        })?,
    )?;
    exports.raw_set("phrase", lua.create_function(|_, status: u16| Ok(encode::phrase(status)))?)?;
    Ok(Value::Table(exports))
}

fn limits(head: Option<usize>, fields: Option<usize>, start_line: Option<usize>) -> Limits {
    let usual = Limits::default();
    Limits {
        head: head.unwrap_or(usual.head).min(Limits::HEAD_MAX),
        fields: fields.unwrap_or(usual.fields),
        start_line: start_line.unwrap_or(usual.start_line).min(Limits::HEAD_MAX),
    }
}

fn length_number(length: Length) -> i64 {
    match length {
        // The parser refuses what does not fit.
        Length::Fixed(length) => i64::try_from(length).unwrap_or(i64::MAX),
        Length::Chunked => CHUNKED,
        Length::UntilClose => UNTIL_CLOSE,
        Length::Tunnel => TUNNEL,
    }
}

fn flags(framing: &Framing) -> i64 {
    let mut flags = 0;
    for (is_set, flag) in
        [(framing.keep_alive, KEEP_ALIVE), (framing.expect_continue, EXPECT_CONTINUE), (framing.upgrade, UPGRADE)]
    {
        if is_set {
            flags |= flag;
        }
    }
    flags
}

/// First word of the line (method or status), its last (target or reason), minor version, headers, length, flags. All
/// are absent when not all of the head is here; an error stands in the second place.
type Head<T> = (Option<T>, Value, Option<u8>, Option<Headers>, Option<i64>, Option<i64>);

/// No head, and why there will never be one if there is an error.
fn no_head<T>(lua: &Lua, error: Option<Error>) -> mlua::Result<Head<T>> {
    Ok((None, error.into_lua(lua)?, None, None, None, None))
}

fn decode_request(
    lua: &Lua,
    (buffer, head, fields, start_line): (BufferRef, Option<usize>, Option<usize>, Option<usize>),
) -> mlua::Result<Head<LuaString>> {
    let limits = limits(head, fields, start_line);
    let found = buffer.with(|buffer| take(buffer, |bytes| head::request(bytes, &limits)));
    let request = match found {
        Ok(None) => return no_head(lua, None),
        Ok(Some(request)) => request,
        Err(fault) => return no_head(lua, Some(fault.into_error("http.decode_request"))),
    };
    let method = lua.create_string(request.method())?;
    let target = lua.create_string(request.target())?;
    let (length, flags) = (length_number(request.framing.length), flags(&request.framing));
    Ok((Some(method), Value::String(target), Some(request.minor), Some(request.headers), Some(length), Some(flags)))
}

type ResponseArguments = (BufferRef, Option<LuaString>, Option<usize>, Option<usize>, Option<usize>);

fn decode_response(
    lua: &Lua,
    (buffer, method, head, fields, start_line): ResponseArguments,
) -> mlua::Result<Head<u16>> {
    let limits = limits(head, fields, start_line);
    let found = {
        let method = method.as_ref().map(LuaString::as_bytes);
        let method = method.as_deref().unwrap_or(b"GET");
        buffer.with(|buffer| take(buffer, |bytes| head::response(bytes, method, &limits)))
    };
    let response = match found {
        Ok(None) => return no_head(lua, None),
        Ok(Some(response)) => response,
        Err(fault) => return no_head(lua, Some(fault.with_status(0).into_error("http.decode_response"))),
    };
    let reason = lua.create_string(response.reason())?;
    let (length, flags) = (length_number(response.framing.length), flags(&response.framing));
    let (status, minor, headers) = (response.status, response.minor, response.headers);
    Ok((Some(status), Value::String(reason), Some(minor), Some(headers), Some(length), Some(flags)))
}

/// `headers_of(head)`: of a head that `decode_answer` has checked.
fn headers_of(lua: &Lua, head: LuaString) -> mlua::Result<Headers> {
    head::headers_of(&head.as_bytes()).map_err(|fault| misuse(lua, &format!("headers_of: {}", fault.message)))
}

/// Drops the bytes of what was found.
fn take<T>(
    buffer: &mut Buffer,
    find: impl FnOnce(&[u8]) -> Result<Option<(T, usize)>, Fault>,
) -> Result<Option<T>, Fault> {
    let Some((found, size)) = find(buffer.as_slice())? else { return Ok(None) };
    buffer.skip(size);
    Ok(Some(found))
}

/// What a script gets: `true`, or `nil` and an error; the buffer is then as it was.
fn written(
    op: &'static str,
    buffer: &BufferRef,
    write: impl FnOnce(&mut Buffer) -> Result<(), Fault>,
) -> mlua::Result<Result<bool, Error>> {
    let outcome = buffer.with(|buffer| {
        let before = buffer.len();
        write(buffer).inspect_err(|_| buffer.truncate(before))
    });
    Ok(match outcome {
        Ok(()) => Ok(true),
        Err(fault) => Err(fault.with_status(0).into_error(op)),
    })
}

/// A length as scripts say it.
fn length_of(length: Option<i64>) -> mlua::Result<Option<Length>> {
    match length {
        None => Ok(None),
        Some(CHUNKED) => Ok(Some(Length::Chunked)),
        Some(UNTIL_CLOSE) => Ok(Some(Length::UntilClose)),
        Some(TUNNEL) => Ok(Some(Length::Tunnel)),
        Some(length) => match u64::try_from(length) {
            Ok(length) => Ok(Some(Length::Fixed(length))),
            Err(_) => Err(mlua::Error::runtime(format!("length: a number of bytes or a constant, not {length}"))),
        },
    }
}

/// `encode_request(buffer, method, target, length, headers, more)`
fn encode_request(
    _: &Lua,
    (buffer, method, target, length, one, two): (BufferRef, LuaString, LuaString, Option<i64>, Fields, Fields),
) -> mlua::Result<Result<bool, Error>> {
    const OP: &str = "http.encode_request";
    let length = length_of(length)?;
    headers::with_both(OP, &one, &two, |fields| {
        let (method, target) = (method.as_bytes(), target.as_bytes());
        written(OP, &buffer, |out| encode::request(out, &method, &target, length, fields))
    })
}

/// `encode_response(buffer, status, reason, length, headers, more)`
fn encode_response(
    _: &Lua,
    (buffer, status, reason, length, one, two): (BufferRef, u16, Option<LuaString>, Option<i64>, Fields, Fields),
) -> mlua::Result<Result<bool, Error>> {
    const OP: &str = "http.encode_response";
    let length = length_of(length)?;
    headers::with_both(OP, &one, &two, |fields| {
        let reason = reason.as_ref().map(LuaString::as_bytes);
        written(OP, &buffer, |out| encode::response(out, status, reason.as_deref(), length, fields))
    })
}

/// `encode_last_chunk(buffer, trailers)`
fn encode_last_chunk(_: &Lua, (buffer, trailers): (BufferRef, Fields)) -> mlua::Result<Result<bool, Error>> {
    const OP: &str = "http.encode_last_chunk";
    headers::with_both(OP, &trailers, &Fields::None, |fields| {
        written(OP, &buffer, |out| encode::last_chunk(out, fields.first().copied()))
    })
}

impl UserData for Chunked {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method_mut("decode", |lua, this, buffer: BufferRef| {
            let mut held = buffer.with(mem::take);
            let outcome = this.step(&mut held, PIECE_MAX);
            let (answer, used) = match outcome {
                Ok(Step::Piece { piece, used }) => {
                    let piece = lua.create_string(held.as_slice().get(piece).unwrap_or_default());
                    (piece.map(|piece| (Value::String(piece), Value::Nil)), used)
                }
                Ok(Step::More(used)) => (Ok((Value::Nil, Value::Nil)), used),
                Ok(Step::End(trailers, used)) => {
                    (trailers.into_lua(lua).map(|trailers| (Value::Boolean(false), trailers)), used)
                }
                Err(fault) => {
                    let error = fault.into_error("http.decode_chunk");
                    (error.into_lua(lua).map(|error| (Value::Nil, error)), 0)
                }
            };
            held.skip(used);
            buffer.with(|now: &mut Buffer| {
                if !now.is_empty() {
                    held.extend(now.as_slice());
                }
                *now = held;
            });
            answer
        });
        methods.add_method("left", |_, this, ()| Ok(this.left()));
        methods.add_method_mut("pass", |_, this, count: u64| {
            if count > this.left() {
                return Err(mlua::Error::runtime("pass: the chunk is not that long"));
            }
            this.pass(count);
            Ok(())
        });
        methods.add_method("is_done", |_, this, ()| Ok(this.is_done()));
    }
}
