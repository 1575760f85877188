//! A task's turn: the loop resumes its coroutine until it parks or ends.

use std::{ffi::c_int, ptr};

use mlua::{Lua, Value, ffi as lua};

use super::{Raw, push};
use crate::{
    error::{Error, Kind},
    reactor::Core,
    scheduler::{Op, State, TaskId},
    shared::Shared,
};

/// A coroutine, kept alive by a reference in Lua's registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thread {
    pub(super) state: Raw,
    pub(super) anchor: c_int,
}

/// How a turn of a task ended.
pub(crate) enum Turn {
    /// It waits, or is ready again.
    Parked,
    /// It has ended so, with so many values on its stack.
    Ended(State, i32),
}

/// Resumes a task until it parks or ends.
///
/// `state` is the main thread of the task's Lua state; nothing of `shared` is borrowed.
pub(crate) fn run_task(lua: &Lua, shared: &Shared, id: TaskId) -> mlua::Result<Turn> {
    let (thread, values) = {
        let mut core = shared.core.borrow_mut();
        let Some(task) = core.scheduler.tasks.get_mut(id) else { return Ok(Turn::Parked) };
        if task.cancelled && task.values > 0 {
            // It never began.
            return Ok(Turn::Ended(State::Cancelled, 0));
        }
        (task.thread.state, std::mem::take(&mut task.values))
    };
    let (mut status, mut count) = (lua::LUA_OK, 0);
    // SAFETY: no borrow is alive; the coroutine is anchored and was made for this runtime.
    // `lua_resume` protects: errors of the coroutine come back as a status.
    unsafe {
        lua.exec_raw_lua(|raw| {
            shared.running.set(thread);
            shared.turn.set(shared.turn.get().wrapping_add(1));
            status = lua::lua_resume(thread, raw.state(), values, &mut count);
            shared.running.set(ptr::null_mut());
        });
    }
    shared.passing.set(false);
    if status == lua::LUA_YIELD {
        // SAFETY: the coroutine has yielded; what a script's own yield left is dropped.
        unsafe { lua::lua_settop(thread, -count - 1) };
        let mut borrowed = shared.core.borrow_mut();
        let scheduler = &mut borrowed.scheduler;
        let Some(task) = scheduler.tasks.get_mut(id) else { return Ok(Turn::Parked) };
        if task.state == State::Running {
            scheduler.park_ready();
        } else if task.is_doomed() && task.cancelled {
            return Ok(Turn::Ended(State::Cancelled, 0));
        } else if task.is_doomed() {
            let (op, why) = match task.is_interrupted() {
                true => (Op::Group, "the body went on although a child had failed; it was ended by force"),
                false => (Op::Deadline, "the task went on although its deadline had passed; it was ended by force"),
            };
            let kind = if op == Op::Group { Kind::Cancelled } else { Kind::Timeout };
            let place = position(task.thread).map(|at| format!("stack traceback:\n\t{at}"));
            task.extra().traceback = place;
            drop(borrowed);
            end_by_force(lua, shared, thread, Error::new(kind, op.as_str(), why));
            return Ok(Turn::Ended(State::Failed, 1));
        }
        return Ok(Turn::Parked);
    }
    if status == lua::LUA_OK {
        // SAFETY: `body` has left its word and the values on the stack.
        let well = unsafe { lua::lua_toboolean(thread, -count) } != 0;
        if well {
            return Ok(Turn::Ended(State::Done, count - 1));
        }
    }
    let was_asked = shared.core.borrow().scheduler.tasks.get(id).is_some_and(|task| task.cancelled);
    // SAFETY: the error value is on the top of the ended coroutine.
    let is_cancellation = was_asked && unsafe { is_cancellation(thread) };
    Ok(Turn::Ended(if is_cancellation { State::Cancelled } else { State::Failed }, 1))
}

/// Whether the value on the top is a `cancelled` error.
unsafe fn is_cancellation(state: Raw) -> bool {
    // SAFETY: only looks, without metamethods, and leaves the stack as it was.
    unsafe {
        if lua::lua_type(state, -1) != lua::LUA_TTABLE || lua::lua_checkstack(state, 2) == 0 {
            return false;
        }
        lua::lua_pushlstring(state, c"kind".as_ptr(), 4);
        lua::lua_rawget(state, -2);
        let mut len = 0;
        let text = lua::lua_tolstring(state, -1, &mut len);
        let found = !text.is_null() && std::slice::from_raw_parts(text.cast::<u8>(), len) == b"cancelled";
        lua::lua_settop(state, -2);
        found
    }
}

/// The line a suspended task stands at, as `file:line`.
pub(crate) fn position(thread: Thread) -> Option<String> {
    // SAFETY: only looks at the calls of a coroutine that is anchored and does not run.
    unsafe {
        let mut activation: lua::lua_Debug = std::mem::zeroed();
        let mut level = 0;
        while lua::lua_getstack(thread.state, level, &mut activation) != 0 {
            lua::lua_getinfo(thread.state, c"Sl".as_ptr(), &mut activation);
            if activation.currentline > 0 {
                let source = std::ffi::CStr::from_ptr(activation.short_src.as_ptr()).to_string_lossy();
                return Some(format!("{source}:{}", activation.currentline));
            }
            level += 1;
        }
        None
    }
}

/// Ends a coroutine by force; its `<close>` variables run, but cannot wait.
pub(crate) fn kill(lua: &Lua, shared: &Shared, thread: Thread) {
    // SAFETY: no borrow is alive; the coroutine is suspended and anchored.
    unsafe {
        lua.exec_raw_lua(|raw| {
            shared.blocked.set(shared.blocked.get() + 1);
            lua::lua_closethread(thread.state, raw.state());
            shared.blocked.set(shared.blocked.get() - 1);
        });
    }
}

/// Ends a coroutine as [`kill`] does, and leaves `error` on its stack.
fn end_by_force(lua: &Lua, shared: &Shared, thread: Raw, error: Error) {
    // SAFETY: no borrow is alive; the coroutine is suspended and anchored, and its stack is empty once it is closed.
    unsafe {
        lua.exec_raw_lua(|raw| {
            shared.blocked.set(shared.blocked.get() + 1);
            lua::lua_closethread(thread, raw.state());
            shared.blocked.set(shared.blocked.get() - 1);
            lua::lua_settop(thread, 0);
        });
    }
    let answer = shared.fail(error);
    // SAFETY: as above. The answer is nil and the error, of which the error stays; without memory that is the only value,
    // and the protected call has it end there.
    unsafe {
        let _ = lua.exec_raw::<()>((), |_| {
            push(thread, answer);
        });
        lua::lua_rotate(thread, 1, -1);
        lua::lua_settop(thread, 1);
    }
}

/// Lets the collector have an ended coroutine.
pub(crate) fn release_thread(lua: &Lua, thread: Thread) {
    // SAFETY: the reference was made by `spawn` and is given back once; this allocates nothing.
    unsafe {
        lua.exec_raw_lua(|raw| lua::luaL_unref(raw.state(), lua::LUA_REGISTRYINDEX, thread.anchor));
    }
}

/// The error value that ended a task; it stays where it is.
pub(crate) fn failure_value(lua: &Lua, thread: Thread) -> mlua::Result<Value> {
    // SAFETY: the coroutine has ended and holds the value on its top.
    unsafe {
        lua.exec_raw((), |state| {
            lua::lua_pushvalue(thread.state, -1);
            lua::lua_xmove(thread.state, state, 1);
        })
    }
}

/// The coroutine of a task that is known to be there.
pub(super) fn task_thread(core: &Core, id: TaskId) -> Raw {
    core.scheduler.tasks.get(id).map_or(ptr::null_mut(), |task| task.thread.state)
}
