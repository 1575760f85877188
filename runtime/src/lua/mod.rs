//! Every table that Lua can see is built here: the module `cosocket` and what the prelude needs.

mod connect;
mod listen;
mod socket;
mod tap;
mod task;
mod tls;
mod udp;

pub(crate) use tap::play_tape;

use std::rc::Rc;

use mlua::{FromLua as _, Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use crate::{
    blocking,
    error::{self, Error, Kind},
    ffi,
    runtime::Control,
    shared::Shared,
};

/// `nil, err` or a value.
type Answer<T> = mlua::Result<Result<T, Error>>;

/// What is easier said in Lua. Each is called with the primitives, the module, and a table of what they share.
const PRELUDE: [&str; 7] = [
    include_str!("../prelude/errors.lua"),
    include_str!("../prelude/waiting.lua"),
    include_str!("../prelude/select.lua"),
    include_str!("../prelude/sockets.lua"),
    include_str!("../prelude/blocking.lua"),
    include_str!("../prelude/standard.lua"),
    // Its answer is what we keep.
    include_str!("../prelude/tasks.lua"),
];

/// A mistake of the caller, which the prelude raises at the caller's line.
fn mistake(op: &'static str, message: impl Into<String>) -> Error {
    let mut error = Error::new(Kind::Argument, op, message.into());
    error.code = None;
    error
}

/// Builds the module `cosocket`; answers the function that runs when a stop is asked for.
pub(crate) fn install(lua: &Lua, shared: &Rc<Shared>, control: &Rc<Control>) -> mlua::Result<Function> {
    let error_metatable = lua.create_table()?;
    lua.set_named_registry_value(error::METATABLE, &error_metatable)?;
    ffi::attach(lua, shared)?;

    let cosocket = lua.create_table()?;
    cosocket.raw_set("buffer", ffi::install_buffer(lua)?)?;
    let native = ffi::install_primitives(lua)?;
    ffi::install_aside(lua, &native)?;
    ffi::install_tasks(lua, &native)?;
    ffi::install_coroutine(lua, &native)?;
    native.raw_set("error_metatable", error_metatable)?;

    let [(_, stream), (_, listener), (_, udp)] = ffi::install_sockets(lua)?;
    for methods in [&stream, &listener, &udp] {
        socket::add_socket_methods(lua, shared, methods)?;
    }
    socket::add_stream_methods(lua, shared, &stream)?;
    udp::add_udp_methods(lua, shared, &udp)?;
    native.raw_set("stream_methods", stream)?;
    native.raw_set("listener_methods", listener)?;
    native.raw_set("udp_methods", udp)?;

    task::add_task_primitives(lua, shared, &native)?;
    socket::add_primitives(lua, shared, &native)?;
    task::add_control(lua, shared, control, &native)?;
    blocking::install(lua, shared, &native)?;
    tap::install(lua, shared)?;

    lua.register_module("cosocket", &cosocket)?;
    let ours = lua.create_table()?;
    let mut stop = Value::Nil;
    for room in PRELUDE {
        stop = lua.load(room).set_name("=[cosocket]").call((&native, &cosocket, &ours))?;
    }
    blocking::install_parking(lua, &native)?;
    Function::from_lua(stop, lua)
}

/// Adds `name` to `table`, a function that gets the shared state.
///
/// Arguments of a wrong type are answered as a mistake of the caller, for the prelude to raise.
fn define<A, R>(
    lua: &Lua,
    shared: &Rc<Shared>,
    table: &Table,
    name: &'static str,
    function: impl Fn(&Lua, &Shared, A) -> mlua::Result<R> + 'static,
) -> mlua::Result<()>
where
    A: mlua::FromLuaMulti,
    R: mlua::IntoLuaMulti,
{
    table.raw_set(name, checked(lua, shared, name, function)?)
}

/// Such a function by itself.
pub(crate) fn checked<A, R>(
    lua: &Lua,
    shared: &Rc<Shared>,
    name: &'static str,
    function: impl Fn(&Lua, &Shared, A) -> mlua::Result<R> + 'static,
) -> mlua::Result<Function>
where
    A: mlua::FromLuaMulti,
    R: mlua::IntoLuaMulti,
{
    let shared = shared.clone();
    let checked = move |lua: &Lua, arguments: MultiValue| {
        let is_method = matches!(arguments.front(), Some(Value::UserData(_)));
        let result = A::from_lua_args(arguments, 1, Some(name), lua).and_then(|given| function(lua, &shared, given));
        match result {
            Ok(answer) => answer.into_lua_multi(lua),
            Err(error) => match misfit(name, is_method, &error) {
                Some(message) => (Value::Nil, mistake(name, message)).into_lua_multi(lua),
                None => Err(error),
            },
        }
    };
    lua.create_function(checked)
}

/// What is wrong with an argument, if that is what `error` says. In a method call people do not count
/// the object before the colon.
fn misfit(name: &str, is_method: bool, error: &mlua::Error) -> Option<String> {
    match error {
        mlua::Error::BadArgument { pos: 1, cause, .. } if !is_method && is_about_socket(cause) => {
            Some(format!("call this with a colon, on a socket: socket:{name}()"))
        }
        mlua::Error::BadArgument { pos, cause, .. } => {
            let what = misfit(name, false, cause)?;
            Some(format!("bad argument #{} to '{name}': {what}", pos - usize::from(is_method)))
        }
        mlua::Error::FromLuaConversionError { from, to, message } => Some(match message {
            Some(message) => format!("a {from} is no {to}: {message}"),
            None => format!("a {from} is no {to}"),
        }),
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
            misfit(name, is_method, cause)
        }
        _ => None,
    }
}

fn is_about_socket(error: &mlua::Error) -> bool {
    matches!(error, mlua::Error::FromLuaConversionError { to, .. } if to == "socket")
}
