//! Lua's values and SQLite's.
//!
//! | Lua | SQLite | and back |
//! |---|---|---|
//! | `nil` | NULL | absent |
//! | boolean | INTEGER 0, 1 | integer |
//! | integer, float | INTEGER, REAL | the same |
//! | string of UTF-8 without zero bytes | TEXT | string |
//! | any other string, `cosocket.Buffer` | BLOB | string |
//!
//! What a string becomes depends on its bytes alone, so that equal strings are equal in SQL, too.

use mlua::{FromLua as _, IntoLua, Lua, LuaString, Table, Value};
use moonwire_runtime::{BufferRef, Error, mlua};
use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};

use super::mistake;

/// Values that a statement may have (SQLITE_MAX_VARIABLE_NUMBER).
pub(super) const PARAMETERS_MAX: i64 = 32_766;

/// A value on its way between a script and a database's thread.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    Null,
    Integer(i64),
    Float(f64),
    /// TEXT or BLOB, whichever the bytes are.
    Bytes(Box<[u8]>),
    Blob(Box<[u8]>),
}

/// The rows of a result: its columns' names, and all cells in one list.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) columns: Vec<Box<str>>,
    pub(super) cells: Vec<Datum>,
}

/// Takes the value at `place` of a statement's values.
pub(super) fn take(lua: &Lua, op: &'static str, place: usize, value: &Value) -> Result<Datum, Error> {
    Ok(match value {
        Value::Nil => Datum::Null,
        Value::Boolean(value) => Datum::Integer((*value).into()),
        Value::Integer(value) => Datum::Integer(*value),
        Value::Number(value) if value.is_nan() => {
            return Err(mistake(op, format!("value {place} is NaN, which SQLite would store as NULL")));
        }
        Value::Number(value) => Datum::Float(*value),
        Value::String(text) => Datum::Bytes((&*text.as_bytes()).into()),
        Value::UserData(_) => match BufferRef::from_lua(value.clone(), lua) {
            Ok(buffer) => Datum::Blob(buffer.with(|buffer| buffer.as_slice().into())),
            Err(_) => return Err(mistake(op, format!("value {place} is an object, which SQLite cannot store"))),
        },
        other => {
            return Err(mistake(op, format!("value {place} is a {}, which SQLite cannot store", other.type_name())));
        }
    })
}

impl Datum {
    /// A copy of what SQLite answered.
    pub(super) fn copy(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Datum::Null,
            ValueRef::Integer(value) => Datum::Integer(value),
            ValueRef::Real(value) => Datum::Float(value),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Datum::Bytes(bytes.into()),
        }
    }

    /// About how much memory it takes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Datum::Bytes(bytes) | Datum::Blob(bytes) => bytes.len(),
                Datum::Null | Datum::Integer(_) | Datum::Float(_) => 0,
            }
    }
}

impl ToSql for Datum {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Datum::Null => ValueRef::Null,
            Datum::Integer(value) => ValueRef::Integer(*value),
            Datum::Float(value) => ValueRef::Real(*value),
            Datum::Bytes(bytes) if is_text(bytes) => ValueRef::Text(bytes),
            Datum::Bytes(bytes) | Datum::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Whether SQLite's functions for text understand the bytes: they stop at a zero.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

impl IntoLua for Datum {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        match self {
            Datum::Null => Ok(Value::Nil),
            Datum::Integer(value) => Ok(Value::Integer(value)),
            Datum::Float(value) => Ok(Value::Number(value)),
            Datum::Bytes(bytes) | Datum::Blob(bytes) => lua.create_string(bytes).map(Value::String),
        }
    }
}

impl Rows {
    /// A list of tables by column name.
    pub(super) fn into_table(self, lua: &Lua) -> mlua::Result<Table> {
        let width = self.columns.len().max(1);
        let names: Vec<LuaString> =
            self.columns.iter().map(|name| lua.create_string(name.as_bytes())).collect::<mlua::Result<_>>()?;
        let list = lua.create_table_with_capacity(self.cells.len() / width, 0)?;
        let mut cells = self.cells.into_iter();
        for place in 1..=cells.len() / width {
            let row = lua.create_table_with_capacity(0, width)?;
            for (name, cell) in names.iter().zip(cells.by_ref()) {
                if cell != Datum::Null {
                    row.raw_set(name, cell)?;
                }
            }
            list.raw_set(place, row)?;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf_8_without_zero_bytes_is_text() {
        let kind = |bytes: &[u8]| match Datum::Bytes(bytes.into()).to_sql() {
            Ok(ToSqlOutput::Borrowed(value)) => value.data_type().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(kind(b"caf\xc3\xa9"), "Text");
        assert_eq!(kind(b""), "Text");
        assert_eq!(kind(b"a\0b"), "Blob");
        assert_eq!(kind(b"\xc3"), "Blob");
        assert_eq!(kind(b"\xed\xa0\x80"), "Blob");
    }
}
