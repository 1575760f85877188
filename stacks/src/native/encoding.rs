//! `base64` and `hex` (RFC 4648), strict: one text for one value, no line breaks, no stray bits.

use data_encoding::{
    BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, DecodeError, DecodeKind, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE,
};
use mlua::{Lua, Table};
use moonwire_runtime::{Error, Kind, mlua};

use super::arguments::{Bytes, Options};

const BASE64_OPTIONS: &[&str] = &["url", "padding"];

/// The module `base64`.
pub(crate) fn base64(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let encode = lua.create_function(|lua, (data, options): (Bytes, Option<Table>)| {
        let alphabet = alphabet(&Options::new(lua, "base64.encode", options, BASE64_OPTIONS)?)?;
        lua.create_string(data.with(|data| alphabet.encode(data)))
    })?;
    let decode = lua.create_function(|lua, (text, options): (Bytes, Option<Table>)| {
        let alphabet = alphabet(&Options::new(lua, "base64.decode", options, BASE64_OPTIONS)?)?;
        decoded(lua, "base64.decode", &alphabet, &text)
    })?;
    module.raw_set("encode", encode)?;
    module.raw_set("decode", decode)?;
    Ok(module)
}

/// The module `hex`: small letters out, either case in.
pub(crate) fn hex(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let encode = lua.create_function(|lua, data: Bytes| lua.create_string(data.with(|data| HEXLOWER.encode(data))))?;
    let decode = lua.create_function(|lua, text: Bytes| decoded(lua, "hex.decode", &HEXLOWER_PERMISSIVE, &text))?;
    module.raw_set("encode", encode)?;
    module.raw_set("decode", decode)?;
    Ok(module)
}

/// The alphabet that the options choose: with padding unless they say `url`, or `padding` itself.
fn alphabet(options: &Options) -> mlua::Result<Encoding> {
    let url = options.boolean("url", false)?;
    let padding = options.boolean("padding", !url)?;
    Ok(match (url, padding) {
        (false, true) => BASE64,
        (false, false) => BASE64_NOPAD,
        (true, true) => BASE64URL,
        (true, false) => BASE64URL_NOPAD,
    })
}

type Decoded = Result<mlua::LuaString, Error>;

fn decoded(lua: &Lua, op: &'static str, encoding: &Encoding, text: &Bytes) -> mlua::Result<Decoded> {
    match text.with(|text| decode(encoding, text)) {
        Ok(data) => lua.create_string(data).map(Ok),
        Err(message) => Ok(Err(Error::new(Kind::Protocol, op, message))),
    }
}

fn decode(encoding: &Encoding, text: &[u8]) -> Result<Vec<u8>, String> {
    let data = encoding.decode(text).map_err(|error| describe(error, text))?;
    // The codec takes several padded texts in a row for one.
    let padding = text.iter().position(|&byte| byte == b'=').unwrap_or(text.len());
    match text[padding..].iter().any(|&byte| byte != b'=') {
        true => Err(format!("padding at position {} is not at the end", padding + 1)),
        false => Ok(data),
    }
}

/// What is wrong, and at which position, counted from one as Lua does.
fn describe(error: DecodeError, text: &[u8]) -> String {
    let position = error.position + 1;
    match error.kind {
        DecodeKind::Length => format!("{} bytes are not a whole number of groups", text.len()),
        DecodeKind::Symbol => match text.get(error.position) {
            Some(&byte) => format!("\"{}\" at position {position} is not in the alphabet", byte.escape_ascii()),
            None => format!("position {position} is not in the alphabet"),
        },
        DecodeKind::Trailing => format!("the digit at position {position} has bits that belong to no byte"),
        DecodeKind::Padding => format!("wrong padding at position {position}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_broken_text_is_named_with_its_position() {
        let words = |encoding: &Encoding, text: &[u8]| decode(encoding, text).unwrap_err();
        assert_eq!(words(&BASE64, b"Zg="), "3 bytes are not a whole number of groups");
        assert_eq!(words(&BASE64, b"Zm9v\nZg"), "7 bytes are not a whole number of groups");
        assert_eq!(words(&BASE64, b"Zm9\n"), "\"\\n\" at position 4 is not in the alphabet");
        assert_eq!(words(&BASE64, b"Zh=="), "the digit at position 2 has bits that belong to no byte");
        assert_eq!(words(&BASE64, b"Z==="), "wrong padding at position 2");
        assert_eq!(words(&BASE64, b"Zg==Zg=="), "padding at position 3 is not at the end");
        assert_eq!(words(&HEXLOWER_PERMISSIVE, b"0g"), "\"g\" at position 2 is not in the alphabet");
    }
}
