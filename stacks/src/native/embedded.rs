//! `embedded`: the files of the `lua/` tree that are no Lua, such as the client that is sent to browsers.

use moonwire_runtime::mlua::{self, Lua, Table};

use crate::TEXTS;

/// The module `embedded`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let text = lua.create_function(|lua, name: mlua::LuaString| {
        let found = TEXTS.iter().find(|(known, _)| name.as_bytes() == known.as_bytes());
        found.map(|(_, text)| lua.create_string(text)).transpose()
    })?;
    module.raw_set("text", text)?;
    Ok(module)
}
