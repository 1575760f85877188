//! The runtime and its builder.

use mlua::{Lua, LuaOptions, StdLib, Value};

type Loader = Box<dyn Fn(&Lua) -> mlua::Result<Value>>;

/// Collects what a [`Runtime`] is made of.
#[derive(Default)]
pub struct Builder {
    modules: Vec<(String, Loader)>,
    sources: Vec<(&'static str, &'static str)>,
}

impl Builder {
    /// Adds a native module: `require(name)` answers what `load` makes.
    pub fn module(mut self, name: &str, load: impl Fn(&Lua) -> mlua::Result<Value> + 'static) -> Self {
        self.modules.push((name.to_owned(), Box::new(load)));
        self
    }

    /// Adds embedded Lua modules, as (name, source) pairs.
    pub fn sources(mut self, sources: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        self.sources.extend(sources);
        self
    }

    /// Builds the runtime.
    pub fn build(self) -> mlua::Result<Runtime> {
        #[allow(unsafe_code, reason = "scripts want the debug library")]
        let lua = unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) };
        let preload: mlua::Table = lua.globals().get::<mlua::Table>("package")?.get("preload")?;
        for (name, load) in self.modules {
            preload.set(name, lua.create_function(move |lua, ()| load(lua))?)?;
        }
        for (name, source) in self.sources {
            preload.set(name, lua.load(source).set_name(format!("={name}.lua")).into_function()?)?;
        }
        let buffer = crate::ffi::install_buffer(&lua)?;
        let cosocket = lua.create_table()?;
        cosocket.set("buffer", buffer)?;
        lua.register_module("cosocket", cosocket)?;
        Ok(Runtime { lua })
    }
}

/// A Lua state, a loop and its sockets.
pub struct Runtime {
    lua: Lua,
}

impl Runtime {
    /// Starts a description of a runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs a script given as text.
    pub fn run_source(&self, name: &str, source: &str) -> mlua::Result<()> {
        self.lua.load(source).set_name(format!("={name}")).exec()
    }
}
