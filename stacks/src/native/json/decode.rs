//! Text to Lua values: serde_json parses, and each value is set where it belongs as it comes.

use std::{borrow::Cow, cell::RefCell, fmt, str};

use mlua::{IntoLua, Lua, Table, Value};
use moonwire_runtime::{Error, Kind, mlua};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Limits;

const OP: &str = "json.decode";
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The value of `text`, or what is wrong with it and where.
pub(super) fn decode(lua: &Lua, text: &[u8], limits: Limits, arrays: &Table) -> mlua::Result<Result<Value, Error>> {
    if text.len() > limits.size {
        let message = format!("{} bytes are more than {} (size_max)", text.len(), limits.size);
        return Ok(Err(Error::new(Kind::Limit, OP, message)));
    }
    // Checked once and whole, which is faster than string by string.
    let text = match str::from_utf8(text) {
        Ok(text) => text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text),
        Err(error) => return Ok(Err(not_utf8(text, error.valid_up_to()))),
    };
    let decoder = Decoder { lua, arrays, depth_max: limits.depth, stopped: RefCell::new(None) };
    let mut value = Value::Nil;
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let seed = Seed { decoder: &decoder, place: Place::Root(&mut value), depth: 0 };
    let parsed = seed.deserialize(&mut parser).and_then(|()| parser.end());
    match (parsed, decoder.stopped.into_inner()) {
        (Ok(()), _) => Ok(Ok(value)),
        (Err(_), Some(Stop::Lua(error))) => Err(error),
        (Err(error), Some(Stop::Depth)) => {
            let message = format!("nested deeper than {} levels (depth_max)", limits.depth);
            Ok(Err(positioned(Kind::Limit, &error, &message)))
        }
        (Err(error), None) => Ok(Err(positioned(Kind::Protocol, &error, &words(&error)))),
    }
}

fn not_utf8(text: &[u8], at: usize) -> Error {
    let before = &text[..at];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|&&byte| byte != b'\n').count();
    Error::new(Kind::Protocol, OP, format!("line {line}, column {column}: not UTF-8"))
}

fn positioned(kind: Kind, error: &serde_json::Error, message: &str) -> Error {
    Error::new(kind, OP, format!("line {}, column {}: {message}", error.line(), error.column()))
}

/// serde_json's words without the position that it puts after them.
fn words(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    match text.strip_prefix("EOF while parsing ") {
        Some(what) => format!("the text ends inside {what}"),
        None => text,
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    arrays: &'a Table,
    depth_max: usize,
    stopped: RefCell<Option<Stop>>,
}

/// Why parsing ended, when it was not the text's fault.
enum Stop {
    Depth,
    Lua(mlua::Error),
}

impl Decoder<'_> {
    fn stop<E: de::Error>(&self, why: Stop) -> E {
        *self.stopped.borrow_mut() = Some(why);
        E::custom("stopped")
    }

    fn lua<T, E: de::Error>(&self, result: mlua::Result<T>) -> Result<T, E> {
        result.map_err(|error| self.stop(Stop::Lua(error)))
    }

    /// One level further in.
    fn deeper<E: de::Error>(&self, depth: usize) -> Result<usize, E> {
        if depth < self.depth_max { Ok(depth + 1) } else { Err(self.stop(Stop::Depth)) }
    }
}

/// Where a value goes. Set in place, it needs no handle of its own.
enum Place<'a> {
    Root(&'a mut Value),
    Item(&'a Table, i64),
    Field(&'a Table, &'a str),
}

struct Seed<'a> {
    decoder: &'a Decoder<'a>,
    place: Place<'a>,
    depth: usize,
}

impl Seed<'_> {
    fn put<E: de::Error>(self, value: impl IntoLua) -> Result<(), E> {
        let done = match self.place {
            Place::Root(root) => value.into_lua(self.decoder.lua).map(|value| *root = value),
            Place::Item(table, index) => table.raw_set(index, value),
            Place::Field(table, key) => table.raw_set(key, value),
        };
        self.decoder.lua(done)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.put(Value::NULL)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.put(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.put(value),
            Err(_) => self.put(value as f64),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.put(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { decoder, place, depth } = self;
        let depth = decoder.deeper(depth)?;
        let table = decoder.lua(decoder.lua.create_table())?;
        let mut index = 1;
        while items.next_element_seed(Seed { decoder, place: Place::Item(&table, index), depth })?.is_some() {
            index += 1;
        }
        decoder.lua(table.set_metatable(Some(decoder.arrays.clone())))?;
        Seed { decoder, place, depth }.put(table)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self { decoder, place, depth } = self;
        let depth = decoder.deeper(depth)?;
        let table = decoder.lua(decoder.lua.create_table())?;
        while let Some(key) = fields.next_key_seed(Key)? {
            fields.next_value_seed(Seed { decoder, place: Place::Field(&table, &key), depth })?;
        }
        Seed { decoder, place, depth }.put(table)
    }
}

/// A key of an object, borrowed from the text unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
