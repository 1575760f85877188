//! Headers as Lua sees them.

use std::cell::Cell;

use moonwire_runtime::{
    Error,
    mlua::{self, AnyUserData, FromLua, Lua, LuaString, Table, UserData, UserDataMethods, UserDataRef, Value},
};

use crate::{
    http1::{Fault, Headers},
    native::misuse,
};

/// Fields that a script hands in: headers, or a table that becomes some.
#[derive(Debug)]
pub(super) enum Fields {
    None,
    Headers(UserDataRef<Headers>),
    Made(Result<Headers, Fault>),
}

impl FromLua for Fields {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        match value {
            Value::Nil => Ok(Self::None),
            Value::Table(table) => Ok(Self::Made(from_table(lua, &table)?)),
            Value::UserData(userdata) => userdata.borrow().map(Self::Headers).map_err(|_| not_headers(lua, "userdata")),
            other => Err(not_headers(lua, other.type_name())),
        }
    }
}

fn not_headers(lua: &Lua, found: &str) -> mlua::Error {
    misuse(lua, &format!("headers: http.headers or a table wanted, not {found}"))
}

impl Fields {
    fn view(&self) -> Result<Option<&Headers>, Fault> {
        match self {
            Self::None => Ok(None),
            Self::Headers(headers) => Ok(Some(headers)),
            Self::Made(Ok(headers)) => Ok(Some(headers)),
            Self::Made(Err(fault)) => Err(fault.clone()),
        }
    }
}

/// Hands those that are there to `work`.
pub(super) fn with_both(
    op: &'static str,
    one: &Fields,
    two: &Fields,
    work: impl FnOnce(&[&Headers]) -> mlua::Result<Result<bool, Error>>,
) -> mlua::Result<Result<bool, Error>> {
    match (one.view(), two.view()) {
        (Err(fault), _) | (_, Err(fault)) => Ok(Err(fault.with_status(0).into_error(op))),
        (Ok(None), Ok(None)) => work(&[]),
        (Ok(Some(one)), Ok(None)) | (Ok(None), Ok(Some(one))) => work(&[one]),
        (Ok(Some(one)), Ok(Some(two))) => work(&[one, two]),
    }
}

/// Pairs first, in their order; then what has a name, sorted by it.
fn from_table(lua: &Lua, table: &Table) -> mlua::Result<Result<Headers, Fault>> {
    let mut headers = Headers::new();
    for pair in table.sequence_values::<Value>() {
        let pair = match pair? {
            Value::Table(pair) => pair,
            other => {
                let found = other.type_name();
                return Err(misuse(
                    lua,
                    &format!("headers: a list is of pairs such as {{\"Accept\", \"*/*\"}}, not of {found}"),
                ));
            }
        };
        let (name, value) = (pair.raw_get::<Value>(1)?, pair.raw_get::<Value>(2)?);
        let Value::String(name) = name else {
            return Err(misuse(lua, "headers: the name of a pair must be a string"));
        };
        if let Err(fault) = add(lua, &mut headers, &name, value)? {
            return Ok(Err(fault));
        }
    }
    let mut named = Vec::new();
    table.for_each::<Value, Value>(|name, value| match name {
        Value::String(name) => {
            named.push((name.as_bytes().to_vec(), name, value));
            Ok(())
        }
        Value::Integer(_) => Ok(()),
        other => Err(misuse(lua, &format!("headers: a name must be a string, not {}", other.type_name()))),
    })?;
    named.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    for (_, name, value) in named {
        let outcome = match value {
            Value::Table(values) => {
                let mut outcome = Ok(());
                for value in values.sequence_values::<Value>() {
                    outcome = add(lua, &mut headers, &name, value?)?;
                    if outcome.is_err() {
                        break;
                    }
                }
                outcome
            }
            value => add(lua, &mut headers, &name, value)?,
        };
        if let Err(fault) = outcome {
            return Ok(Err(fault));
        }
    }
    Ok(Ok(headers))
}

fn add(lua: &Lua, headers: &mut Headers, name: &LuaString, value: Value) -> mlua::Result<Result<(), Fault>> {
    let value = text(lua, name, value)?;
    Ok(headers.add(&name.as_bytes(), &value.as_bytes()))
}

/// A value: a string or a number.
fn text(lua: &Lua, name: &LuaString, value: Value) -> mlua::Result<LuaString> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(_) | Value::Number(_) => {
            let text = lua.coerce_string(value)?;
            text.ok_or_else(|| misuse(lua, "headers: a number without a text"))
        }
        other => {
            let (name, found) = (name.to_string_lossy(), other.type_name());
            Err(misuse(lua, &format!("headers: the value of {name:?} must be a string or a number, not {found}")))
        }
    }
}

/// `http.headers(init)`
pub(super) fn new(lua: &Lua, init: Fields) -> mlua::Result<Headers> {
    match init {
        Fields::None => Ok(Headers::new()),
        Fields::Headers(other) => Ok(other.clone()),
        Fields::Made(made) => made.map_err(|fault| misuse(lua, &format!("headers: {}", fault.message))),
    }
}

/// All values of a name as one: members of one list (RFC 9110, 5.3). Cookies are no list.
fn joined(lua: &Lua, headers: &Headers, name: &[u8]) -> mlua::Result<Option<LuaString>> {
    let mut values = headers.all(name);
    let Some(first) = values.next() else { return Ok(None) };
    match values.next() {
        Some(second) if !name.eq_ignore_ascii_case(b"set-cookie") => {
            let mut all = [first, b", ", second].concat();
            for value in values {
                all.extend_from_slice(b", ");
                all.extend_from_slice(value);
            }
            lua.create_string(all).map(Some)
        }
        _ => lua.create_string(first).map(Some),
    }
}

fn change(lua: &Lua, outcome: Result<(), Fault>) -> mlua::Result<()> {
    outcome.map_err(|fault| misuse(lua, &format!("headers: {}", fault.message)))
}

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, name: LuaString| joined(lua, this, &name.as_bytes()));
        methods.add_method("get_all", |lua, this, name: LuaString| {
            let name = name.as_bytes();
            let list = lua.create_table()?;
            for value in this.all(&name) {
                list.raw_push(lua.create_string(value)?)?;
            }
            Ok(list)
        });
        methods.add_method("at", |lua, this, index: i64| {
            let Some((name, value)) = usize::try_from(index).ok().and_then(|index| this.at(index.checked_sub(1)?))
            else {
                return Ok((None, None));
            };
            Ok((Some(lua.create_string(name)?), Some(lua.create_string(value)?)))
        });
        methods.add_method_mut("set", |lua, this, (name, value): (LuaString, Value)| {
            let value = text(lua, &name, value)?;
            change(lua, this.set(&name.as_bytes(), &value.as_bytes()))
        });
        methods.add_method_mut("add", |lua, this, (name, value): (LuaString, Value)| {
            let value = text(lua, &name, value)?;
            change(lua, this.add(&name.as_bytes(), &value.as_bytes()))
        });
        methods.add_method_mut("del", |_, this, name: LuaString| Ok(this.del(&name.as_bytes())));
        methods.add_meta_method("__len", |_, this, ()| Ok(this.len()));
        methods.add_meta_method("__index", |lua, this, name: Value| match name {
            Value::String(name) => joined(lua, this, &name.as_bytes()),
            _ => Ok(None),
        });
        methods.add_meta_method_mut("__newindex", |lua, this, (name, value): (LuaString, Value)| {
            if value.is_nil() {
                this.del(&name.as_bytes());
                return Ok(());
            }
            let value = text(lua, &name, value)?;
            change(lua, this.set(&name.as_bytes(), &value.as_bytes()))
        });
        methods.add_meta_function("__pairs", |lua, this: AnyUserData| {
            let index = Cell::new(0);
            lua.create_function(move |lua, ()| {
                let headers = this.borrow::<Headers>()?;
                let Some((name, value)) = headers.at(index.get()) else { return Ok((None, None)) };
                index.set(index.get() + 1);
                Ok((Some(lua.create_string(name)?), Some(lua.create_string(value)?)))
            })
        });
        // Values may be secrets, and what is shown ends in logs.
        methods.add_meta_method("__tostring", |_, this, ()| Ok(format!("http.Headers ({})", this.len())));
    }
}
