//! The protocol stacks: native codecs and the embedded `lua/` tree.
//!
//! [`builder`] is a [`moonwire_runtime::Builder`] that already knows them all; the `moonwire`
//! command and programs that embed the stacks start from it.

pub mod http1;
pub mod mail;
pub mod mqtt;
mod native;
pub mod websocket;

use moonwire_runtime::{Builder, Runtime};

/// The texts of the embedded `lua/` tree, one after another.
const EMBEDDED: &str = include_str!(concat!(env!("OUT_DIR"), "/embedded.txt"));

/// The embedded `lua/` tree, as (module name, source) pairs.
pub const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// What the `lua/` tree has for browsers, as (path within it, text) pairs.
pub const TEXTS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/texts.rs"));

/// A runtime's builder with every codec and every stack in it.
///
/// A program of one's own adds what only it has, as native modules, and its scripts find everything else:
///
/// ```
/// use moonwire_runtime::mlua::Value;
///
/// let runtime = moonwire::builder()
///     .module("gpio", |lua| {
///         let gpio = lua.create_table()?;
///         gpio.set("read", lua.create_function(|_, pin: u8| Ok(pin == 17))?)?;
///         Ok(Value::Table(gpio))
///     })
///     .build()?;
/// let status = runtime.run_source(
///     "=pins",
///     r#"
///     local gpio, http = require "gpio", require "http"
///     local server = http.server.new { access_log = false }
///     server:get("/pins/:pin", function(request, response)
///       response:json { high = gpio.read(request.params.pin) }
///     end)
///     assert(server:listen("tcp://127.0.0.1:0"))
///     local response = assert(http.get(("http://%s/pins/17"):format(server:address())))
///     assert(response:json().high == true)
///     server:stop()
///     "#,
/// )?;
/// assert_eq!(status, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn builder() -> Builder {
    native::register(Runtime::builder())
        .sources(SOURCES.iter().copied())
        .module("http.codec", http1::lua::module)
        .module("http.file", http1::file::module)
        .module("mqtt.codec", mqtt::lua::module)
        .module("websocket.codec", websocket::lua::module)
        .module("smtp.codec", mail::lua::module)
}
