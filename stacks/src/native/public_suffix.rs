//! `public_suffix`: below which names anybody can register (`com`, `co.uk`, `github.io`), by the Public Suffix List.

use mlua::{Lua, LuaString, Table};
use moonwire_runtime::mlua;
use psl::Psl;

/// The module `public_suffix`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let of = lua.create_function(|lua, name: LuaString| {
        let name = name.as_bytes();
        match psl::List.suffix(&name) {
            Some(suffix) => lua.create_string(suffix.as_bytes()).map(Some),
            None => Ok(None),
        }
    })?;
    module.raw_set("of", of)?;
    let registrable = lua.create_function(|lua, name: LuaString| {
        let name = name.as_bytes();
        match psl::List.domain(&name) {
            Some(domain) => lua.create_string(domain.as_bytes()).map(Some),
            None => Ok(None),
        }
    })?;
    module.raw_set("registrable", registrable)?;
    Ok(module)
}
