//! `url`: the WHATWG URL parser for every scheme scripts meet, percent-encoding, queries.

use std::fmt::Write;

use ::url::{Host, ParseError, Url};
use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};
use moonwire_runtime::{Error, Kind, mlua};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::arguments::{Bytes, misuse};

/// How many bytes a URL has at most.
const LENGTH_MAX: usize = 64 * 1024;

/// How many characters of one a message shows.
const SHOWN_MAX: usize = 200;

/// RFC 3986, 2.3: what never needs encoding.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Ports of schemes that the URL standard does not know (IANA's registry; RFC 8314 for `smtps`).
const DEFAULT_PORTS: &[(&str, u16)] =
    &[("mqtt", 1883), ("mqtts", 8883), ("smtp", 25), ("smtps", 465), ("submission", 587)];

/// The module `url`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let metatable = lua.create_table()?;
    metatable.raw_set("__name", "url.Url")?;
    let to_string = lua.create_function(|_, url: Table| url.raw_get::<Value>("href"))?;
    metatable.raw_set("__tostring", to_string)?;

    let module = lua.create_table()?;
    let parse = lua.create_function(move |lua, (text, base): (LuaString, Option<Value>)| {
        match resolve("url.parse", &text, base_text(lua, base)?) {
            Ok(url) => parts(lua, &url, &metatable).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    })?;
    module.raw_set("parse", parse)?;
    let join = lua.create_function(|lua, (base, relative): (Value, LuaString)| {
        Ok(resolve("url.join", &relative, base_text(lua, Some(base))?).map(String::from))
    })?;
    module.raw_set("join", join)?;
    let encode = lua.create_function(|lua, text: Bytes| {
        lua.create_string(text.with(|text| percent_encode(text, RESERVED).to_string()))
    })?;
    module.raw_set("encode", encode)?;
    let decode = lua.create_function(|lua, text: Bytes| match text.with(|text| unescape(text, false)) {
        Ok(bytes) => lua.create_string(bytes).map(Ok),
        Err(at) => Ok(Err(stray_percent("url.decode", at))),
    })?;
    module.raw_set("decode", decode)?;
    module.raw_set("query", lua.create_function(query)?)?;
    module.raw_set("parse_query", lua.create_function(parse_query)?)?;
    Ok(module)
}

/// A base is text, or what `parse` answered.
fn base_text(lua: &Lua, base: Option<Value>) -> mlua::Result<Option<LuaString>> {
    match base {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Table(url)) => url.raw_get("href").map(Some),
        Some(other) => {
            Err(misuse(lua, &format!("the base must be a string or a parsed URL, not {}", other.type_name())))
        }
    }
}

fn resolve(op: &'static str, text: &LuaString, base: Option<LuaString>) -> Result<Url, Error> {
    let base = base.map(|base| parse_one(op, &base, None)).transpose()?;
    parse_one(op, text, base.as_ref())
}

fn parse_one(op: &'static str, text: &LuaString, base: Option<&Url>) -> Result<Url, Error> {
    let bytes = text.as_bytes();
    if bytes.len() > LENGTH_MAX {
        return Err(Error::new(Kind::Limit, op, format!("{} bytes are more than {LENGTH_MAX}", bytes.len())));
    }
    let broken = |why: &str| Error::new(Kind::Protocol, op, format!("{:?}: {why}", shown(&text.to_string_lossy())));
    let text = str::from_utf8(&bytes).map_err(|_| broken("not UTF-8"))?;
    Url::options().base_url(base).parse(text).map_err(|error| match error {
        ParseError::RelativeUrlWithoutBase => broken("no scheme (such as http: or mqtt:), and no base"),
        other => broken(&other.to_string()),
    })
}

/// A URL as a message may show it: not all of a long one, and nobody's password.
fn shown(text: &str) -> String {
    let start = text.find("//").map_or(0, |at| at + 2);
    let rest = &text[start..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (mask, rest) = match authority.rfind('@') {
        Some(at) => ("***@", &rest[at + 1..]),
        None => ("", rest),
    };
    let whole = format!("{}{mask}{rest}", &text[..start]);
    match whole.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

/// The table that a script sees. Absent parts are absent.
fn parts(lua: &Lua, url: &Url, metatable: &Table) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("href", url.as_str())?;
    table.raw_set("scheme", url.scheme())?;
    if !url.username().is_empty() {
        table.raw_set("username", unescaped(lua, url.username())?)?;
    }
    if let Some(password) = url.password() {
        table.raw_set("password", unescaped(lua, password)?)?;
    }
    let host = match url.host() {
        None => None,
        Some(Host::Domain("")) => None,
        // Schemes that the standard does not know keep such a name as it is, which nobody resolves.
        Some(Host::Domain(name)) if name.contains('%') => {
            Some(Host::parse(name).map_or_else(|_| name.to_owned(), |host| host.to_string()))
        }
        Some(Host::Domain(name)) => Some(name.to_owned()),
        Some(Host::Ipv4(address)) => Some(address.to_string()),
        Some(Host::Ipv6(address)) => Some(address.to_string()),
    };
    if let (Some(host), Some(written)) = (host, url.host_str()) {
        table.raw_set("host", host)?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        table.raw_set("authority", format!("{written}{port}"))?;
    }
    table.raw_set("port", url.port())?;
    table.raw_set("port_or_default", url.port_or_known_default().or_else(|| default_port(url.scheme())))?;
    table.raw_set("path", url.path())?;
    table.raw_set("query", url.query())?;
    table.raw_set("fragment", url.fragment())?;
    if !url.cannot_be_a_base() {
        let path = if url.path().is_empty() { "/" } else { url.path() };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        table.raw_set("target", format!("{path}{query}"))?;
    }
    table.set_metatable(Some(metatable.clone()))?;
    Ok(table)
}

fn default_port(scheme: &str) -> Option<u16> {
    DEFAULT_PORTS.iter().find(|(name, _)| *name == scheme).map(|&(_, port)| port)
}

/// Credentials as they were meant. The parser lets a stray `%` through, which then means itself.
fn unescaped(lua: &Lua, text: &str) -> mlua::Result<LuaString> {
    lua.create_string(percent_decode_str(text).collect::<Vec<u8>>())
}

/// Undoes percent-encoding; the error is where a `%` lacks its two hex digits. In forms, `+` is a space.
fn unescape(text: &[u8], form: bool) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match byte {
            b'%' => (after.get(..2).and_then(hex_pair).ok_or(text.len() - rest.len())?, &after[2..]),
            b'+' if form => (b' ', after),
            other => (other, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(bytes)
}

fn stray_percent(op: &'static str, at: usize) -> Error {
    Error::new(Kind::Protocol, op, format!("the % at position {} is not followed by two hex digits", at + 1))
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Builds a query: of `{ { "name", "value" }, ... }` in that order, or of `{ name = value }` sorted by
/// name, where a value may be a list.
fn query(lua: &Lua, fields: Table) -> mlua::Result<String> {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    if fields.raw_len() > 0 {
        for pair in fields.sequence_values::<Table>() {
            let pair = pair?;
            pairs.push((scalar(lua, pair.raw_get(1)?)?, scalar(lua, pair.raw_get(2)?)?));
        }
    } else {
        for field in fields.pairs::<LuaString, Value>() {
            let (name, value) = field?;
            let name = name.as_bytes().to_vec();
            match value {
                Value::Table(values) => {
                    for value in values.sequence_values::<Value>() {
                        pairs.push((name.clone(), scalar(lua, value?)?));
                    }
                }
                value => pairs.push((name, scalar(lua, value)?)),
            }
        }
        // Stable: the values of one name stay in their order.
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
    }
    let mut text = String::new();
    for (name, value) in pairs {
        let separator = if text.is_empty() { "" } else { "&" };
        // A String takes everything.
        let _ = write!(text, "{separator}{}={}", form(&name), form(&value));
    }
    Ok(text)
}

fn form(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string().replace("%20", "+")
}

fn scalar(lua: &Lua, value: Value) -> mlua::Result<Vec<u8>> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(_) | Value::Number(_) | Value::Boolean(_) => Ok(value.to_string()?.into_bytes()),
        other => {
            let found = other.type_name();
            Err(misuse(lua, &format!("url.query: names and values are strings, numbers or booleans, not {found}")))
        }
    }
}

/// Takes a query apart: the pairs in their order, and the first value of each name.
fn parse_query(lua: &Lua, text: Bytes) -> mlua::Result<MultiValue> {
    let text = text.to_vec();
    let (pairs, first) = (lua.create_table()?, lua.create_table()?);
    let mut start = usize::from(text.first() == Some(&b'?'));
    let mut count = 0;
    while start < text.len() {
        let len = text[start..].iter().position(|&byte| byte == b'&').unwrap_or(text.len() - start);
        let field = &text[start..start + len];
        let equals = field.iter().position(|&byte| byte == b'=');
        let name = unescape(&field[..equals.unwrap_or(len)], true).map_err(|at| start + at);
        let value_at = equals.map_or(len, |equals| equals + 1);
        let value = unescape(&field[value_at..], true).map_err(|at| start + value_at + at);
        let (name, value) = match (name, value) {
            (Ok(name), Ok(value)) => (lua.create_string(name)?, lua.create_string(value)?),
            (Err(at), _) | (_, Err(at)) => {
                return (Value::Nil, stray_percent("url.parse_query", at)).into_lua_multi(lua);
            }
        };
        start += len + 1;
        if len == 0 {
            continue;
        }
        count += 1;
        pairs.raw_set(count, lua.create_sequence_from([&name, &value])?)?;
        if !first.contains_key(&name)? {
            first.raw_set(name, value)?;
        }
    }
    (pairs, first).into_lua_multi(lua)
}
