//! The module `websocket.codec`. `lua/meta/websocket_codec.lua` says what each function does.
//!
//! While strings are made the buffer's bytes are held aside, so that a finaliser which a garbage collection runs may
//! touch the buffer.

use std::{cell::RefCell, mem, rc::Rc};

use moonwire_runtime::{
    Buffer, BufferRef, Error, Kind,
    mlua::{self, AnyUserData, IntoLuaMulti, Lua, LuaString, MultiValue, Table, UserData, UserDataRef, Value},
};
use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{
    Compression, Role, Rules, code, deflate,
    frame::{CONTROL_MAX, Opcode},
    incoming::{Event, Incoming, Type, decode},
    outgoing::{self, Means, Mistake, Outgoing},
};

impl UserData for Rules {}

/// A message on its way in.
struct Reading(Option<Box<Incoming>>);
impl UserData for Reading {}

/// A message on its way out.
struct Writing(Option<Box<Outgoing>>);
impl UserData for Writing {}

/// What a script is told something is.
struct Names {
    text: LuaString,
    binary: LuaString,
    ping: LuaString,
    pong: LuaString,
    close: LuaString,
}

impl Names {
    fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Self {
            text: lua.create_string("text")?,
            binary: lua.create_string("binary")?,
            ping: lua.create_string("ping")?,
            pong: lua.create_string("pong")?,
            close: lua.create_string("close")?,
        })
    }

    fn of(&self, kind: Type) -> LuaString {
        match kind {
            Type::Text => self.text.clone(),
            Type::Binary => self.binary.clone(),
        }
    }
}

/// Makes the module.
pub fn module(lua: &Lua) -> mlua::Result<Value> {
    let names = Names::new(lua)?;
    let means = Rc::new(RefCell::new(Means::default()));
    let exports = lua.create_table()?;
    exports.raw_set("rules", lua.create_function(|_, options: Table| rules(&options))?)?;

    exports.raw_set(
        "drop",
        lua.create_function(|_, (reading, writing): (Option<AnyUserData>, Option<AnyUserData>)| {
            if let Some(reading) = reading {
                reading.borrow_mut::<Reading>()?.0 = None;
            }
            if let Some(writing) = writing {
                writing.borrow_mut::<Writing>()?.0 = None;
            }
            Ok(true)
        })?,
    )?;

    let shared = Rc::clone(&means);
    exports.raw_set(
        "decode",
        lua.create_function(
            move |lua,
                  (buffer, rules, reading, pieces): (
                BufferRef,
                UserDataRef<Rules>,
                Option<AnyUserData>,
                Option<bool>,
            )| { decode_one(lua, &names, &shared, &buffer, &rules, reading, pieces.unwrap_or(false)) },
        )?,
    )?;

    let shared = Rc::clone(&means);
    exports.raw_set(
        "encode",
        lua.create_function(
            move |lua,
                  (buffer, rules, kind, payload, writing): (
                BufferRef,
                UserDataRef<Rules>,
                LuaString,
                LuaString,
                Option<AnyUserData>,
            )| {
                let payload = payload.as_bytes();
                match &*kind.as_bytes() {
                    b"text" | b"binary" => {
                        let kind = data_type(&kind)?;
                        with_state(lua, writing, |state| {
                            let means = &mut shared.borrow_mut();
                            buffer.with(|out| outgoing::message(out, &rules, kind, &payload, state, means))
                        })
                    }
                    name @ (b"ping" | b"pong") => {
                        if payload.len() as u64 > CONTROL_MAX {
                            return Err(mlua::Error::runtime("a ping or pong carries at most 125 bytes"));
                        }
                        let opcode = if name == b"ping" { Opcode::Ping } else { Opcode::Pong };
                        control(&buffer, &rules, opcode, &payload, &shared)?;
                        Ok(Encoded::Done(writing))
                    }
                    _ => Err(mlua::Error::runtime("kind: \"text\", \"binary\", \"ping\" or \"pong\"")),
                }
            },
        )?,
    )?;

    let shared = Rc::clone(&means);
    exports.raw_set(
        "encode_piece",
        lua.create_function(
            move |lua,
                  (buffer, rules, kind, payload, last, writing): (
                BufferRef,
                UserDataRef<Rules>,
                Option<LuaString>,
                LuaString,
                bool,
                Option<AnyUserData>,
            )| {
                let kind = kind.as_ref().map(data_type).transpose()?;
                let payload = payload.as_bytes();
                with_state(lua, writing, |state| {
                    let means = &mut shared.borrow_mut();
                    buffer.with(|out| outgoing::piece(out, &rules, kind, &payload, last, state, means))
                })
            },
        )?,
    )?;

    exports.raw_set(
        "encode_close",
        lua.create_function(
            move |_, (buffer, rules, code, reason): (BufferRef, UserDataRef<Rules>, Option<u16>, Option<LuaString>)| {
                let payload = close_payload(code, reason.as_ref())?;
                control(&buffer, &rules, Opcode::Close, &payload, &means)?;
                Ok(true)
            },
        )?,
    )?;

    exports.raw_set("valid_code", lua.create_function(|_, code: i64| Ok(sendable(code)))?)?;
    exports.raw_set("generate_key", lua.create_function(|_, ()| Ok(generate_key()))?)?;
    exports.raw_set("accept_key", lua.create_function(|_, key: LuaString| Ok(derive_accept_key(&key.as_bytes())))?)?;
    Ok(Value::Table(exports))
}

fn sendable(code: i64) -> bool {
    u16::try_from(code).is_ok_and(code::is_sendable)
}

/// What `encode` and `encode_piece` answer.
enum Encoded {
    /// Done; what to keep.
    Done(Option<AnyUserData>),
    /// The caller's mistake, which the session raises where its own caller made it.
    Failed(Error),
}

impl IntoLuaMulti for Encoded {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<MultiValue> {
        match self {
            Self::Done(kept) => (true, kept).into_lua_multi(lua),
            Self::Failed(error) => (Value::Nil, error).into_lua_multi(lua),
        }
    }
}

/// Runs `work` with the state a script has kept, and answers the one it is to keep.
fn with_state(
    lua: &Lua,
    writing: Option<AnyUserData>,
    work: impl FnOnce(&mut Option<Box<Outgoing>>) -> Result<(), Mistake>,
) -> mlua::Result<Encoded> {
    let mut state = match &writing {
        Some(kept) => kept.borrow_mut::<Writing>()?.0.take(),
        None => None,
    };
    let outcome = work(&mut state);
    let kept = match (state, writing) {
        (None, _) => None,
        (state, Some(kept)) => {
            kept.borrow_mut::<Writing>()?.0 = state;
            Some(kept)
        }
        (state, None) => Some(lua.create_userdata(Writing(state))?),
    };
    Ok(match outcome {
        Ok(()) => Encoded::Done(kept),
        Err(Mistake::NotText) => Encoded::Failed(Error::new(
            Kind::Argument,
            "websocket.send",
            "a text message must be UTF-8; send_binary takes any bytes",
        )),
        Err(mistake) => raised(Err(mistake)).map(|()| Encoded::Done(None))?,
    })
}

fn raised(outcome: Result<(), Mistake>) -> mlua::Result<()> {
    outcome.map_err(|mistake| {
        mlua::Error::runtime(match mistake {
            Mistake::NotText => "a text message must be UTF-8",
            Mistake::OutOfTurn => "one message must end before the next begins",
            Mistake::NoRandom => "the system has no random numbers",
        })
    })
}

fn data_type(name: &LuaString) -> mlua::Result<Type> {
    match &*name.as_bytes() {
        b"text" => Ok(Type::Text),
        b"binary" => Ok(Type::Binary),
        _ => Err(mlua::Error::runtime("kind: \"text\" or \"binary\"")),
    }
}

fn control(
    buffer: &BufferRef,
    rules: &Rules,
    opcode: Opcode,
    payload: &[u8],
    means: &RefCell<Means>,
) -> mlua::Result<()> {
    let what = (opcode, true, false);
    let means = &mut means.borrow_mut();
    raised(buffer.with(|out| outgoing::frame(out, rules.role, what, payload, &mut means.keys)))
}

fn close_payload(code: Option<u16>, reason: Option<&LuaString>) -> mlua::Result<Vec<u8>> {
    let Some(code) = code else {
        return match reason {
            Some(_) => Err(mlua::Error::runtime("a reason for closing needs a code")),
            None => Ok(Vec::new()),
        };
    };
    if !code::is_sendable(code) {
        return Err(mlua::Error::runtime(format!("{code} is not a code to close with: 1000, 1001, 3000 to 4999, ...")));
    }
    let mut payload = code.to_be_bytes().to_vec();
    if let Some(reason) = reason {
        let reason = reason.as_bytes();
        if reason.len() as u64 > CONTROL_MAX - 2 || std::str::from_utf8(&reason).is_err() {
            return Err(mlua::Error::runtime("the reason for closing must be at most 123 bytes of UTF-8"));
        }
        payload.extend_from_slice(&reason);
    }
    Ok(payload)
}

/// The rules that a table describes.
fn rules(options: &Table) -> mlua::Result<Rules> {
    let role = options.get::<LuaString>("role")?;
    let role = match &*role.as_bytes() {
        b"client" => Role::Client,
        b"server" => Role::Server,
        _ => return Err(mlua::Error::runtime("role: \"client\" or \"server\"")),
    };
    let usual = Rules::new(role);
    let message_max = options.get::<Option<usize>>("message_max")?.unwrap_or(usual.message_max);
    Ok(Rules {
        frame_max: options.get::<Option<u64>>("frame_max")?.unwrap_or(message_max as u64),
        message_max,
        inflate: compression(options.get("inflate")?)?,
        deflate: compression(options.get("deflate")?)?,
        level: options.get::<Option<u32>>("level")?.unwrap_or(usual.level).clamp(1, 9),
        threshold: options.get::<Option<usize>>("threshold")?.unwrap_or(usual.threshold),
        ..usual
    })
}

fn compression(table: Option<Table>) -> mlua::Result<Option<Compression>> {
    let Some(table) = table else { return Ok(None) };
    let window_bits = table.get::<Option<u8>>("window_bits")?.unwrap_or(15);
    if !(deflate::WINDOW_BITS_MIN..=15).contains(&window_bits) {
        return Err(mlua::Error::runtime("window_bits: from 9 to 15"));
    }
    Ok(Some(Compression { window_bits, takeover: table.get::<Option<bool>>("takeover")?.unwrap_or(true) }))
}

/// What `decode` answers.
enum Decoded {
    /// Bytes, what they are, what to keep, and a code or whether a piece is the last.
    Event(LuaString, LuaString, Option<AnyUserData>, Option<Value>),
    /// More has to come; what to keep.
    NotYet(Option<AnyUserData>),
    Failed(Error),
}

impl IntoLuaMulti for Decoded {
    fn into_lua_multi(self, lua: &Lua) -> mlua::Result<MultiValue> {
        match self {
            Self::Event(payload, name, kept, extra) => (payload, name, kept, extra).into_lua_multi(lua),
            Self::NotYet(kept) => (Value::Nil, Value::Nil, kept).into_lua_multi(lua),
            Self::Failed(error) => (Value::Nil, error).into_lua_multi(lua),
        }
    }
}

fn decode_one(
    lua: &Lua,
    names: &Names,
    means: &RefCell<Means>,
    buffer: &BufferRef,
    rules: &Rules,
    reading: Option<AnyUserData>,
    pieces: bool,
) -> mlua::Result<Decoded> {
    let mut state = match &reading {
        Some(kept) => kept.borrow_mut::<Reading>()?.0.take(),
        None => None,
    };
    let mut held = buffer.with(mem::take);
    let decoded = decode(held.as_mut_slice(), rules, &mut state, &mut means.borrow_mut().spares, pieces);
    let outcome = match decoded {
        Ok((used, event)) => event.map(|event| to_lua(lua, names, event)).transpose().map(|event| Ok((used, event))),
        Err(fault) => Ok(Err(fault.into_error("websocket"))),
    };
    if let Ok(Ok((used, _))) = &outcome {
        held.skip(*used);
    }
    buffer.with(|now: &mut Buffer| {
        held.extend(now.as_slice());
        *now = held;
    });
    let (_, event) = match outcome? {
        Ok(found) => found,
        Err(error) => return Ok(Decoded::Failed(error)),
    };
    let kept = match (state, reading) {
        (None, _) => None,
        (state, Some(kept)) => {
            kept.borrow_mut::<Reading>()?.0 = state;
            Some(kept)
        }
        (state, None) => Some(lua.create_userdata(Reading(state))?),
    };
    Ok(match event {
        Some((payload, name, extra)) => Decoded::Event(payload, name, kept, extra),
        None => Decoded::NotYet(kept),
    })
}

fn to_lua(lua: &Lua, names: &Names, event: Event<'_>) -> mlua::Result<(LuaString, LuaString, Option<Value>)> {
    Ok(match event {
        Event::Message(kind, payload) => (lua.create_string(&payload)?, names.of(kind), None),
        Event::Piece(kind, payload, last) => (lua.create_string(payload)?, names.of(kind), Some(Value::Boolean(last))),
        Event::Ping(payload) => (lua.create_string(payload)?, names.ping.clone(), None),
        Event::Pong(payload) => (lua.create_string(payload)?, names.pong.clone(), None),
        Event::Close(code, reason) => {
            let code = code.map(|code| Value::Integer(code.into()));
            (lua.create_string(reason)?, names.close.clone(), code)
        }
    })
}
