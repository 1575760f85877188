//! The module `mqtt.codec`: packets as Lua tables. `lua/meta/mqtt_codec.lua` says what each field is.
//!
//! While tables are made the buffer's bytes are held aside, so that a finaliser which a garbage
//! collection runs may touch the buffer.

mod from_lua;
mod hot;
mod to_lua;

use std::mem;

use moonwire_runtime::{
    Buffer, BufferRef, Error,
    mlua::{self, BorrowedBytes, Function, Lua, LuaString, Table, Value},
    native_function,
};

use super::{
    Fault, PACKET_MAX, Version, decode,
    encode::{encode_ack, encode_publish},
    packet::{PacketType, Publish},
    property::{Home, Properties, PropertyList},
    reason, topic, wire,
};
use from_lua::{Refusal, properties};
use to_lua::Names;

/// Makes the module.
pub fn module(lua: &Lua) -> mlua::Result<Value> {
    let exports = slow(lua)?;
    let beside = |name: &str| exports.raw_get::<Function>(name);
    exports.raw_set("decode", native_function::<hot::Decode>(lua, &beside("decode")?)?)?;
    exports.raw_set("encode_publish", native_function::<hot::EncodePublish>(lua, &beside("encode_publish")?)?)?;
    exports.raw_set("encode_ack", native_function::<hot::EncodeAck>(lua, &beside("encode_ack")?)?)?;
    exports.raw_set("take_ack", native_function::<hot::TakeAck>(lua, &beside("take_ack")?)?)?;
    exports.raw_set("matches", native_function::<hot::Matches>(lua, &beside("matches")?)?)?;
    exports.raw_set(
        "encode",
        lua.create_function(|_, (buffer, packet, version, packet_max): (BufferRef, Table, u8, Option<usize>)| {
            let (version, packet_max) = (known(version)?, packet_max.unwrap_or(PACKET_MAX));
            answer(from_lua::encode(&packet, version, |packet| {
                buffer.with(|out| super::encode(out, packet, version, packet_max))
            }))
        })?,
    )?;
    exports.raw_set("valid_topic", lua.create_function(|_, name: LuaString| Ok(is_topic(&name.as_bytes())))?)?;
    exports.raw_set("valid_filter", lua.create_function(|_, filter: LuaString| Ok(is_filter(&filter.as_bytes())))?)?;
    exports.raw_set(
        "reason",
        lua.create_function(|_, (code, version): (u8, Option<u8>)| {
            Ok(match version.map(known).transpose()? {
                Some(Version::V311) if code < 0x80 => reason::connect_return_words(code),
                _ => reason::words(code),
            })
        })?,
    )?;
    Ok(Value::Table(exports))
}

/// The whole of what [`hot`] does the usual part of.
pub(super) fn slow(lua: &Lua) -> mlua::Result<Table> {
    let functions = lua.create_table()?;
    let names = Names::new(lua)?;
    functions.raw_set(
        "decode",
        lua.create_function(move |lua, (buffer, version, packet_max): DecodeArguments| {
            let version = version.map(known).transpose()?;
            decode_one(lua, &names, &buffer, version, packet_max.unwrap_or(PACKET_MAX))
        })?,
    )?;
    functions.raw_set(
        "take_ack",
        lua.create_function(|_, (buffer, version): (BufferRef, u8)| {
            let version = known(version)?;
            Ok(buffer.with(|held: &mut Buffer| {
                let (ack, size) = hot::plain_ack(held.as_slice(), version)?;
                held.skip(size);
                Some(ack)
            }))
        })?,
    )?;
    functions.raw_set("encode_publish", lua.create_function(publish)?)?;
    functions.raw_set("encode_ack", lua.create_function(ack)?)?;
    functions.raw_set(
        "matches",
        lua.create_function(|_, (filter, name): (LuaString, LuaString)| {
            Ok(topic::matches(&filter.as_bytes(), &name.as_bytes()))
        })?,
    )?;
    Ok(functions)
}

type DecodeArguments = (BufferRef, Option<u8>, Option<usize>);

/// The version a script named by its level.
fn known(level: u8) -> mlua::Result<Version> {
    Version::from_level(level).ok_or_else(|| mlua::Error::runtime(format!("version: 4 (MQTT 3.1.1) or 5, not {level}")))
}

/// What a script gets: `true`, `nil` and an error, or a mistake of its own raised.
fn answer(outcome: Result<(), Refusal>) -> mlua::Result<Result<bool, Error>> {
    match outcome {
        Ok(()) => Ok(Ok(true)),
        Err(Refusal::Fault(fault)) => Ok(Err(fault.into_error("mqtt.encode"))),
        Err(Refusal::Raise(mistake)) => Err(mistake),
    }
}

fn decode_one(
    lua: &Lua,
    names: &Names,
    buffer: &BufferRef,
    version: Option<Version>,
    packet_max: usize,
) -> mlua::Result<Result<Option<Table>, Error>> {
    let mut held = buffer.with(mem::take);
    let outcome = match decode(held.as_slice(), version, packet_max) {
        Ok(None) => Ok(Ok(None)),
        Ok(Some((packet, size))) => to_lua::packet(lua, names, &packet).map(|table| Ok(Some((table, size)))),
        Err(fault) => Ok(Err(fault.into_error("mqtt.decode"))),
    };
    if let Ok(Ok(Some((_, size)))) = &outcome {
        held.skip(*size);
    }
    buffer.with(|now: &mut Buffer| {
        held.extend(now.as_slice());
        *now = held;
    });
    outcome.map(|answer| answer.map(|found| found.map(|(table, _)| table)))
}

type PublishArguments = (
    BufferRef,
    u8,
    LuaString,
    Option<LuaString>,
    Option<u8>,
    Option<bool>,
    Option<bool>,
    Option<u16>,
    Option<Table>,
    Option<usize>,
);

/// `encode_publish(buffer, version, topic, payload, qos, retain, dup, packet_id, properties, packet_max)`
fn publish(
    _: &Lua,
    (buffer, version, topic, payload, qos, retain, dup, packet_id, table, packet_max): PublishArguments,
) -> mlua::Result<Result<bool, Error>> {
    let version = known(version)?;
    let topic = topic.as_bytes();
    let payload = payload.as_ref().map(LuaString::as_bytes);
    answer((|| {
        let list = match &table {
            Some(table) => properties(table, Home::Packet(PacketType::Publish))?,
            None => PropertyList::new(),
        };
        let packet = Publish {
            topic: wire::text(&topic, "topic")?,
            payload: payload.as_deref().unwrap_or_default(),
            qos: qos.unwrap_or(0),
            retain: retain.unwrap_or(false),
            dup: dup.unwrap_or(false),
            packet_id: packet_id.unwrap_or(0),
            properties: if table.is_some() { list.view() } else { Properties::default() },
        };
        buffer.with(|out| encode_publish(out, &packet, version, packet_max.unwrap_or(PACKET_MAX)))?;
        Ok(())
    })())
}

/// `encode_ack(buffer, version, type, packet_id, reason_code)`
fn ack(
    _: &Lua,
    (buffer, version, kind, packet_id, reason_code): (BufferRef, u8, LuaString, u16, Option<u8>),
) -> mlua::Result<Result<bool, Error>> {
    let Some(kind) = hot::ack_type(&kind.as_bytes()) else {
        return Err(mlua::Error::runtime("type: \"puback\", \"pubrec\", \"pubrel\" or \"pubcomp\""));
    };
    let version = known(version)?;
    let outcome = buffer.with(|out| encode_ack(out, kind, packet_id, reason_code.unwrap_or(0), version));
    answer(outcome.map_err(Refusal::Fault))
}

fn string(bytes: &BorrowedBytes) -> Option<&str> {
    (bytes.len() <= wire::LENGTH_MAX).then(|| wire::text(bytes, "topic").ok())?
}

fn is_topic(name: &BorrowedBytes) -> bool {
    string(name).is_some_and(|name| topic::check_name(name, "topic").is_ok())
}

fn is_filter(filter: &BorrowedBytes) -> bool {
    string(filter).is_some_and(|filter| topic::check_filter(filter, Version::V5).is_ok())
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
