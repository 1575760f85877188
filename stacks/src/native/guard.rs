//! Wrong arguments of native modules, told as everywhere else: an error of kind `argument`, blamed on the line that
//! called, where mlua's own would be a userdata with a traceback in it.

use mlua::{Error, Function, Lua, Table, Value, chunk::ChunkMode};
use moonwire_runtime::mlua;

/// Puts a guard around every function of a module, which scripts know by `name`.
pub(crate) fn guard(lua: &Lua, name: &str, module: Table) -> mlua::Result<Table> {
    let wrap = wrapper(lua)?;
    for pair in module.pairs::<String, Value>().collect::<mlua::Result<Vec<_>>>()? {
        if let (key, Value::Function(native)) = pair {
            let guarded: Function = wrap.call((&module, format!("{name}.{key}"), native))?;
            module.raw_set(key, guarded)?;
        }
    }
    Ok(module)
}

/// The function of `guard.lua`, one for each Lua state.
fn wrapper(lua: &Lua) -> mlua::Result<Function> {
    const NAME: &str = "moonwire.guard";
    if let Some(made) = lua.named_registry_value::<Option<Function>>(NAME)? {
        return Ok(made);
    }
    let words = lua.create_function(|_, (name, error): (String, Value)| {
        let Value::Error(error) = error else { return Ok(None) };
        Ok(words_of(&name, &error))
    })?;
    let chunk = lua.load(include_str!("guard.lua")).set_name("=[cosocket]").set_mode(ChunkMode::Text);
    let made: Function = chunk.call(words)?;
    lua.set_named_registry_value(NAME, &made)?;
    Ok(made)
}

/// What is wrong with a call of the function `name`; `None` if that is not the caller's mistake.
fn words_of(name: &str, error: &Error) -> Option<String> {
    match error {
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => words_of(name, cause),
        Error::BadArgument { pos, cause, .. } => {
            Some(format!("bad argument #{pos} to '{name}': {}", words_of(name, cause)?))
        }
        Error::FromLuaConversionError { from, to, message } => {
            let wanted = match to.as_str() {
                "i64" | "u64" | "u32" | "u16" | "u8" | "usize" => "an integer",
                "f64" => "a number",
                other => &format!("a {other}"),
            };
            let why = message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
            Some(format!("{wanted} is wanted, got {from}{why}"))
        }
        Error::RuntimeError(message) => Some(message.clone()),
        _ => None,
    }
}
