//! What native functions take: bytes, and tables of options whose unknown keys are refused by name.

use std::ops::RangeInclusive;

use mlua::{FromLua, Lua, LuaString, Table, Value};
use moonwire_runtime::{BufferRef, mlua};

/// How many characters of an unknown name are compared.
const NAME_SHOWN: usize = 64;

/// Bytes a script hands over: a string or a `cosocket.Buffer`. Numbers are not strings here.
#[derive(Debug)]
pub(crate) enum Bytes {
    Text(LuaString),
    Buffer(BufferRef),
}

impl Bytes {
    /// Lends the bytes to `work`, which must neither call Lua nor look at other arguments: a buffer
    /// is borrowed meanwhile, and may be two arguments at once.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Bytes::Text(text) => work(&text.as_bytes()),
            Bytes::Buffer(buffer) => buffer.with(|buffer| work(buffer.as_slice())),
        }
    }

    /// A copy of the bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.with(<[u8]>::to_vec)
    }
}

impl FromLua for Bytes {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        match value {
            Value::String(text) => Ok(Bytes::Text(text)),
            Value::UserData(_) => BufferRef::from_lua(value, lua).map(Bytes::Buffer).map_err(|_| mismatch("userdata")),
            other => Err(mismatch(other.type_name())),
        }
    }
}

fn mismatch(from: &'static str) -> mlua::Error {
    mlua::Error::FromLuaConversionError { from, to: "string or cosocket.Buffer".to_owned(), message: None }
}

/// A mistake of the caller, raised with the position of the Lua line that called.
pub(crate) fn misuse(lua: &Lua, message: &str) -> mlua::Error {
    let position = lua.inspect_stack(1, |caller| {
        let source = caller.source().short_src.map(|name| name.into_owned()).unwrap_or_default();
        caller.current_line().map(|line| format!("{source}:{line}: "))
    });
    mlua::Error::RuntimeError(format!("{}{message}", position.flatten().unwrap_or_default()))
}

/// The last argument of a function: a table of options, all optional.
pub(crate) struct Options<'lua> {
    lua: &'lua Lua,
    op: &'static str,
    table: Option<Table>,
}

impl<'lua> Options<'lua> {
    /// Options of the function `op`, which knows those in `known` and raises for any other.
    pub(crate) fn new(lua: &'lua Lua, op: &'static str, table: Option<Table>, known: &[&str]) -> mlua::Result<Self> {
        for pair in table.iter().flat_map(|table| table.pairs::<Value, Value>()) {
            let (key, _) = pair?;
            let name = match &key {
                Value::String(name) => name.to_string_lossy(),
                other => format!("[{}]", other.to_string()?),
            };
            if !known.contains(&name.as_str()) {
                return Err(misuse(lua, &format!("{op}: unknown option {name:?}{}", suggestion(&name, known))));
            }
        }
        Ok(Self { lua, op, table })
    }

    /// The boolean `key`.
    pub(crate) fn boolean(&self, key: &str, default: bool) -> mlua::Result<bool> {
        match self.get(key)? {
            Value::Nil => Ok(default),
            Value::Boolean(value) => Ok(value),
            other => Err(self.wrong(key, "a boolean", other.type_name())),
        }
    }

    /// The integer `key`, which must lie in `range`.
    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<i64>, default: i64) -> mlua::Result<i64> {
        let value = match self.get(key)? {
            Value::Nil => return Ok(default),
            Value::Integer(value) => value,
            Value::Number(value) if value.fract() == 0.0 && value.abs() < 9e15 => value as i64,
            other => return Err(self.wrong(key, "an integer", other.type_name())),
        };
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.wrong(key, &format!("from {} to {}", range.start(), range.end()), &value.to_string()))
    }

    fn get(&self, key: &str) -> mlua::Result<Value> {
        self.table.as_ref().map_or(Ok(Value::Nil), |table| table.raw_get(key))
    }

    fn wrong(&self, key: &str, want: &str, got: &str) -> mlua::Error {
        misuse(self.lua, &format!("{}: option {key:?} must be {want}, not {got}", self.op))
    }
}

/// The words that point to the nearest of `known`, or to all of them.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    // The distance takes the product of both lengths.
    let name: String = name.chars().take(NAME_SHOWN).collect();
    let nearest = known.iter().map(|word| (strsim::osa_distance(&name, word), word)).min();
    match nearest {
        Some((steps, word)) if steps <= 1 + word.len() / 4 => format!("; did you mean {word:?}?"),
        _ => format!("; known: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_option_is_named_and_a_far_one_is_not() {
        let known = ["indent", "depth_max"];
        assert_eq!(suggestion("indnet", &known), "; did you mean \"indent\"?");
        assert_eq!(suggestion("max_depth", &known), "; known: indent, depth_max");
    }
}
