//! Native modules that scripts reach by `require`: data formats, digests, URLs, the log, the database.
//!
//! Each file has one function `module` that builds the table Lua sees; what is below it knows no Lua
//! where that is possible. `sqlite` alone parks.

pub(crate) mod arguments;
mod compress;
mod crypto;
mod embedded;
mod encoding;
mod guard;
mod json;
mod log;
mod public_suffix;
mod sqlite;
mod url;

pub(crate) use arguments::misuse;
use guard::guard;
use moonwire_runtime::{
    Builder,
    mlua::{Lua, Result, Table, Value},
};

/// `builder` with the native modules added.
pub(crate) fn register(builder: Builder) -> Builder {
    type Load = fn(&Lua) -> Result<Table>;
    let modules: [(&str, Load); 9] = [
        ("json", json::module),
        ("base64", encoding::base64),
        ("hex", encoding::hex),
        ("crypto", crypto::module),
        ("embedded", embedded::module),
        ("url", url::module),
        ("log", log::module),
        ("compress", compress::module),
        ("public_suffix", public_suffix::module),
    ];
    modules
        .into_iter()
        .fold(builder, |builder, (name, load)| {
            builder.module(name, move |lua| guard(lua, name, load(lua)?).map(Value::Table))
        })
        // Its functions park, and blame by themselves.
        .module("sqlite", |lua| sqlite::module(lua).map(Value::Table))
}
