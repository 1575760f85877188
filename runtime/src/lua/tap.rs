//! `cosocket.tap`: hearing what passes on streams.

use std::rc::Rc;

use mlua::{Function, Lua, Value};

use super::{Answer, checked, define, socket::closed, task::wall_clock};
use crate::{complaint::complain, ffi::SocketRef, shared::Shared, socket::Heard};

/// Where the registry keeps the function that listens.
const LISTENER: &str = "moonwire.tap";

/// Makes the module `cosocket.tap`.
pub(super) fn install(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<()> {
    let module = lua.create_table()?;
    define(lua, shared, &module, "listen", |lua, _, listener: Option<Function>| {
        lua.set_named_registry_value(LISTENER, listener)
    })?;
    define(lua, shared, &module, "everything", |_, shared, (streams, datagrams): (bool, bool)| {
        shared.tape.streams.set(streams);
        shared.tape.datagrams.set(datagrams);
        Ok(())
    })?;
    module.raw_set("clock", lua.create_function(wall_clock)?)?;
    let attach = checked(
        lua,
        shared,
        "attach",
        |_, shared, (socket, protocol, side): (SocketRef, String, Option<String>)| -> Answer<bool> {
            let mut core = shared.core.borrow_mut();
            Ok(match core.tap(socket.0) {
                Some(tap) => {
                    tap.spoken(protocol, side.unwrap_or_default());
                    Ok(true)
                }
                None => Err(closed("attach")),
            })
        },
    )?;
    module.raw_set("attach", attach)?;
    lua.register_module("cosocket.tap", module)
}

/// Hands what was heard to the function that listens. One that raises an error is told so, and listens no more.
#[cold]
pub(crate) fn play_tape(lua: &Lua, shared: &Shared) {
    let records = shared.tape.take();
    let Ok(Some(listener)) = lua.named_registry_value::<Option<Function>>(LISTENER) else { return };
    let played = records.into_iter().try_for_each(|(tap, heard)| play(lua, &listener, tap, heard));
    if let Err(error) = played.and_then(|()| listener.call::<()>((0, "played"))) {
        complain(format_args!("cosocket.tap: {error}"));
        // Only a state without memory refuses this, and then nothing is heard either.
        let _ = lua.set_named_registry_value(LISTENER, Value::Nil);
    }
}

fn play(lua: &Lua, listener: &Function, tap: u32, heard: Heard) -> mlua::Result<()> {
    match heard {
        Heard::Opened(local, peer) => listener.call((tap, "opened", local, peer)),
        Heard::Spoken(protocol, side) => listener.call((tap, "spoken", protocol, side)),
        Heard::Secured(what) => listener.call((tap, "secured", what)),
        Heard::Sent(bytes) => listener.call((tap, "sent", lua.create_string(bytes)?)),
        Heard::Received(bytes) => listener.call((tap, "received", lua.create_string(bytes)?)),
        Heard::SentTo(bytes, to) => listener.call((tap, "sent", lua.create_string(bytes)?, to)),
        Heard::ReceivedFrom(bytes, from) => listener.call((tap, "received", lua.create_string(bytes)?, from)),
        Heard::Ended => listener.call((tap, "ended")),
        Heard::Failed(why) => listener.call((tap, "failed", why)),
        Heard::Closed => listener.call((tap, "closed")),
    }
}
