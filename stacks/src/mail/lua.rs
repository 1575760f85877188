//! The module `smtp.codec`. `lua/meta/smtp_codec.lua` says what each function is for.

use std::cell::RefCell;

use encodify::qp;
use mlua::{Lua, LuaString, Table, UserData, UserDataMethods, Value};
use moonwire_runtime::{BufferRef, Error, Kind, mlua};

use super::dkim::{BodyHash, Key, relaxed_field};
use super::header;
use super::transfer::{self, LINE_BYTES, Place, Scan};
use crate::native::arguments::Bytes;

/// Letters of a wrong name that an error shows.
const NAME_SHOWN: usize = 80;

type Answer<T> = mlua::Result<Result<T, Error>>;

/// Makes the module.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Value> {
    let exports = lua.create_table()?;
    exports.raw_set("text_header", lua.create_function(text_header)?)?;
    exports.raw_set("address_header", lua.create_function(address_header)?)?;
    exports.raw_set("parameter_header", lua.create_function(parameter_header)?)?;
    exports.raw_set("domain_to_ascii", lua.create_function(domain_to_ascii)?)?;
    exports.raw_set(
        "quoted_printable",
        lua.create_function(|lua, text: Bytes| lua.create_string(text.with(|text| qp::BODY.encode(text))))?,
    )?;
    exports.raw_set("base64_lines", lua.create_function(base64_lines)?)?;
    exports.raw_set("base64_size", lua.create_function(|_, size: u64| Ok(transfer::base64_size(size)))?)?;
    exports.raw_set("lines", lua.create_function(lines)?)?;
    exports.raw_set("scanner", lua.create_function(|_, ()| Ok(Scanner(RefCell::default())))?)?;
    exports.raw_set("body_hash", lua.create_function(|_, ()| Ok(Hash(RefCell::new(Some(BodyHash::default())))))?)?;
    exports.raw_set(
        "relaxed_field",
        lua.create_function(|lua, field: LuaString| match relaxed_field(&field.as_bytes()) {
            Some(text) => lua.create_string(text).map(Ok),
            None => Ok(Err(Error::new(Kind::Protocol, "smtp.dkim", "a header field has no colon"))),
        })?,
    )?;
    exports.raw_set(
        "dkim_key",
        lua.create_function(|_, pem: LuaString| Ok(Key::from_pem(&pem.as_bytes()).map(Signer)))?,
    )?;
    Ok(Value::Table(exports))
}

/// The text of a field's value, or why it cannot be one.
fn value(name: &str, text: &LuaString) -> Result<String, Error> {
    let refused = |why: &str| Err(Error::new(Kind::Protocol, "smtp.message", format!("{name}: {why}")));
    let bytes = text.as_bytes();
    match str::from_utf8(&bytes) {
        Err(_) => refused("the value is not UTF-8"),
        Ok(text) if !header::is_safe(text) => refused("CR, LF or NUL cannot be in a header"),
        Ok(text) => Ok(text.to_owned()),
    }
}

fn field_name(name: &LuaString) -> Result<String, Error> {
    let text = name.to_string_lossy();
    if header::is_name(&text) {
        return Ok(text);
    }
    Err(Error::new(Kind::Protocol, "smtp.message", format!("{text:?} is not the name of a header field")))
}

fn text_header(lua: &Lua, (name, text, utf8): (LuaString, LuaString, Option<bool>)) -> Answer<LuaString> {
    let made = field_name(&name)
        .and_then(|name| value(&name, &text).map(|text| header::text(&name, &text, utf8.unwrap_or(false))));
    made.map(|field| lua.create_string(field)).map_or_else(|error| Ok(Err(error)), |made| made.map(Ok))
}

fn address_header(lua: &Lua, (name, list, utf8): (LuaString, Table, Option<bool>)) -> Answer<LuaString> {
    let name = match field_name(&name) {
        Ok(name) => name,
        Err(error) => return Ok(Err(error)),
    };
    let mut mailboxes = Vec::new();
    for mailbox in list.sequence_values::<Table>() {
        let mailbox = mailbox?;
        let display: Option<LuaString> = mailbox.raw_get("name")?;
        let address: LuaString = mailbox.raw_get("address")?;
        let display = display.map(|display| value(&name, &display)).transpose();
        match display.and_then(|display| Ok((display, value(&name, &address)?))) {
            Ok(pair) => mailboxes.push(pair),
            Err(error) => return Ok(Err(error)),
        }
    }
    lua.create_string(header::addresses(&name, &mailboxes, utf8.unwrap_or(false))).map(Ok)
}

fn parameter_header(
    lua: &Lua,
    (name, first, list, utf8): (LuaString, LuaString, Table, Option<bool>),
) -> Answer<LuaString> {
    let head = field_name(&name).and_then(|name| value(&name, &first).map(|first| (name, first)));
    let (name, first) = match head {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    let mut parameters = Vec::new();
    for pair in list.sequence_values::<Table>() {
        let pair = pair?;
        let (key, text): (LuaString, LuaString) = (pair.raw_get(1)?, pair.raw_get(2)?);
        match field_name(&key).and_then(|key| value(&name, &text).map(|text| (key, text))) {
            Ok(pair) => parameters.push(pair),
            Err(error) => return Ok(Err(error)),
        }
    }
    lua.create_string(header::parameters(&name, &first, &parameters, utf8.unwrap_or(false))).map(Ok)
}

/// A domain as the DNS knows it (RFC 5891), in small letters.
fn domain_to_ascii(_: &Lua, domain: LuaString) -> Answer<String> {
    let refused = |why: &str| {
        let shown: String = domain.to_string_lossy().chars().take(NAME_SHOWN).collect();
        Ok(Err(Error::new(Kind::Protocol, "smtp.address", format!("{shown:?}: {why}"))))
    };
    let bytes = domain.as_bytes();
    match idna::domain_to_ascii_cow(&bytes, idna::AsciiDenyList::STD3) {
        // RFC 1035, 2.3.4
        Ok(name) if name.is_empty() || name.len() > 253 => refused("a domain has 1 to 253 letters"),
        Ok(name) if name.split('.').any(|label| label.is_empty() || label.len() > 63) => {
            refused("a label of a domain has 1 to 63 letters")
        }
        Ok(name) if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) => {
            refused("a label of a domain neither begins nor ends with a hyphen")
        }
        Ok(name) => Ok(Ok(name.into_owned())),
        Err(_) => refused("not the name of a domain"),
    }
}

/// `base64_lines(out, data, last)`: moves whole lines from `data`, or all of it.
fn base64_lines(_: &Lua, (out, data, last): (BufferRef, BufferRef, Option<bool>)) -> mlua::Result<()> {
    let encoded = data.with(|data| {
        let whole = data.len() / LINE_BYTES * LINE_BYTES;
        let count = if last.unwrap_or(false) { data.len() } else { whole };
        let mut encoded = Vec::with_capacity(usize::try_from(transfer::base64_size(count as u64)).unwrap_or(0));
        transfer::base64(&mut encoded, &data.as_slice()[..count]);
        data.skip(count);
        encoded
    });
    out.with(|out| out.extend(&encoded));
    Ok(())
}

/// `lines(out, data, place, dots)` answers the new place; at the end, whatever is not 0 needs a CRLF or has had it.
fn lines(_: &Lua, (out, data, place, dots): (BufferRef, Bytes, u8, bool)) -> mlua::Result<u8> {
    let place = match place {
        0 => Place::LineStart,
        1 => Place::Line,
        _ => Place::AfterCr,
    };
    let mut text = Vec::new();
    let place = data.with(|data| {
        text.reserve(data.len() + data.len() / 32 + 2);
        transfer::lines(&mut text, data, place, dots)
    });
    out.with(|out| out.extend(&text));
    Ok(match place {
        Place::LineStart => 0,
        Place::Line => 1,
        Place::AfterCr => 2,
    })
}

struct Scanner(RefCell<Scan>);

impl UserData for Scanner {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("update", |_, scanner, data: Bytes| {
            data.with(|data| scanner.0.borrow_mut().update(data));
            Ok(())
        });
        methods.add_method("finish", |lua, scanner, ()| {
            let mut scan = scanner.0.borrow_mut();
            scan.finish();
            let table = lua.create_table()?;
            table.raw_set("size", scan.size)?;
            table.raw_set("line_max", scan.line_max)?;
            table.raw_set("eight_bit", scan.eight_bit)?;
            table.raw_set("nul", scan.nul)?;
            table.raw_set("bare", scan.bare)?;
            Ok(table)
        });
    }
}

struct Hash(RefCell<Option<BodyHash>>);

impl UserData for Hash {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("update", |_, hash, data: Bytes| {
            if let Some(hash) = hash.0.borrow_mut().as_mut() {
                data.with(|data| hash.update(data));
            }
            Ok(())
        });
        methods.add_method("finish", |lua, hash, ()| match hash.0.borrow_mut().take() {
            Some(hash) => lua.create_string(hash.finish()),
            None => Err(mlua::Error::runtime("finish: this hash is finished")),
        });
    }
}

struct Signer(Key);

impl UserData for Signer {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("algorithm", |_, key, ()| Ok(key.0.algorithm()));
        methods.add_method("sign", |lua, key, data: Bytes| match data.with(|data| key.0.sign(data)) {
            Ok(signature) => lua.create_string(signature).map(Ok),
            Err(error) => Ok(Err(error)),
        });
    }
}
