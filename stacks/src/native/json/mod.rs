//! `json` (RFC 8259): exact 64-bit integers, `json.null`, arrays and objects kept apart.
//!
//! Text goes straight into Lua tables and back; there is no tree in between. What a peer can make
//! grow is bounded by `size_max` and `depth_max`.

mod decode;
mod encode;

use mlua::{Lua, LuaString, Table, Value};
use moonwire_runtime::mlua;

use super::arguments::{Bytes, Options, misuse};

/// How deep arrays and objects nest, unless the options say otherwise.
const DEPTH_MAX: i64 = 128;
/// The most that `depth_max` can ask for: each level takes native stack.
const DEPTH_CEILING: i64 = 256;
/// How many bytes a text has, unless the options say otherwise.
const SIZE_MAX: i64 = 16 * 1024 * 1024;
const INDENT_MAX: i64 = 16;
/// The options of `json.encode`, among which are those of `json.decode`.
const OF_ENCODE: [&str; 4] = ["indent", "sort_keys", "depth_max", "size_max"];

/// Bounds on one text.
#[derive(Debug, Clone, Copy)]
struct Limits {
    depth: usize,
    size: usize,
}

impl Limits {
    fn new(options: &Options) -> mlua::Result<Self> {
        let depth = options.integer("depth_max", 1..=DEPTH_CEILING, DEPTH_MAX)?;
        let size = options.integer("size_max", 1..=i64::from(u32::MAX), SIZE_MAX)?;
        Ok(Self { depth: depth as usize, size: size as usize })
    }
}

/// The module `json`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let mark = array_mark(lua)?;
    let module = lua.create_table()?;
    module.raw_set("null", Value::NULL)?;
    let arrays = mark.clone();
    let decode = lua.create_function(move |lua, (text, options): (Bytes, Option<Table>)| {
        let options = Options::new(lua, "json.decode", options, &["depth_max", "size_max"])?;
        let limits = Limits::new(&options)?;
        match &text {
            Bytes::Text(text) => decode::decode(lua, &text.as_bytes(), limits, &arrays),
            // Decoding allocates in Lua, which may finalise what looks at this buffer.
            Bytes::Buffer(_) => decode::decode(lua, &text.to_vec(), limits, &arrays),
        }
    })?;
    module.raw_set("decode", decode)?;
    let arrays = mark.clone();
    let encode = lua.create_function(move |lua, (value, options): (Value, Option<Table>)| {
        let options = Options::new(lua, "json.encode", options, &OF_ENCODE)?;
        encode::encode(lua, &value, style(&options)?, Limits::new(&options)?, &arrays)
    })?;
    module.raw_set("encode", encode)?;
    module.raw_set("codec", lua.create_function(codec(&mark))?)?;
    let arrays = mark.clone();
    let array = lua.create_function(move |lua, table: Option<Table>| {
        let table = table.map_or_else(|| lua.create_table(), Ok)?;
        if table.metatable().is_some_and(|own| own.to_pointer() != arrays.to_pointer()) {
            return Err(misuse(lua, "json.array: the table has a metatable of its own"));
        }
        table.set_metatable(Some(arrays.clone()))?;
        Ok(table)
    })?;
    module.raw_set("array", array)?;
    let is_array = lua.create_function(move |_, value: Value| {
        let own = value.as_table().and_then(Table::metatable);
        Ok(own.is_some_and(|own| own.to_pointer() == mark.to_pointer()))
    })?;
    module.raw_set("is_array", is_array)?;
    Ok(module)
}

fn style(options: &Options) -> mlua::Result<encode::Style> {
    Ok(encode::Style {
        indent: options.integer("indent", 0..=INDENT_MAX, 0)? as usize,
        sort_keys: options.boolean("sort_keys", true)?,
    })
}

/// Both directions with options that are looked at once: for every message of a connection that takes most of the time.
fn codec(mark: &Table) -> impl Fn(&Lua, Option<Table>) -> mlua::Result<Table> + 'static {
    let mark = mark.clone();
    move |lua, options| {
        let options = Options::new(lua, "json.codec", options, &OF_ENCODE)?;
        let (limits, style) = (Limits::new(&options)?, style(&options)?);
        let codec = lua.create_table()?;
        let arrays = mark.clone();
        let decode =
            lua.create_function(move |lua, text: LuaString| decode::decode(lua, &text.as_bytes(), limits, &arrays))?;
        codec.raw_set("decode", decode)?;
        let arrays = mark.clone();
        let encode =
            lua.create_function(move |lua, value: Value| encode::encode(lua, &value, style, limits, &arrays))?;
        codec.raw_set("encode", encode)?;
        Ok(codec)
    }
}

/// The text of `value` on one line, in at most `size` bytes; `None` when it has none.
pub(super) fn one_line(lua: &Lua, value: &Value, size: usize) -> mlua::Result<Option<LuaString>> {
    let style = encode::Style { indent: 0, sort_keys: true };
    let limits = Limits { depth: DEPTH_MAX as usize, size };
    Ok(encode::encode(lua, value, style, limits, &array_mark(lua)?)?.ok())
}

/// The metatable of arrays. It does nothing: being there is what tells `[]` from `{}`.
fn array_mark(lua: &Lua) -> mlua::Result<Table> {
    const NAME: &str = "moonwire.json.array";
    if let Some(mark) = lua.named_registry_value::<Option<Table>>(NAME)? {
        return Ok(mark);
    }
    let mark = lua.create_table()?;
    mark.raw_set("__name", "json.array")?;
    lua.set_named_registry_value(NAME, &mark)?;
    Ok(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_nesting_fits_the_stack_of_a_thread() {
        let script = r#"
            local arrays, objects = ("["):rep(256) .. ("]"):rep(256), ('{"a":'):rep(255) .. "{}" .. ("}"):rep(255)
            for _, text in ipairs { arrays, objects } do
              local value = assert(json.decode(text, { depth_max = 256 }))
              assert(json.encode(value, { depth_max = 256 }) == text)
            end
        "#;
        let work = move || {
            let lua = Lua::new();
            lua.globals().set("json", module(&lua).expect("the module")).expect("a global");
            lua.load(script).exec().expect("256 levels");
        };
        let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).expect("a thread");
        thread.join().expect("no overflow");
    }
}
