//! Tasks as Lua sees them.

use std::{ffi::c_int, ptr};

use mlua::{FromLua, Lua, Table, Value, ffi as lua};
use slotmap::Key;

use super::{
    Answer, Attempt, IS_ROOT, Need, Raw, can_yield, cancelled, check_string, finish, guarded,
    handle::{bury, handle_in, push_handle, to_handle},
    push, raise, raise_argument, raise_not_me, shared, slot,
    turn::{Thread, task_thread},
};
use crate::{
    clock::NEVER,
    scheduler::{Op, State, TaskId},
    shared::Grave,
};

const MAGIC: u64 = u64::from_be_bytes(*b"mw:task!");

/// The task that is the first argument; raises when it is something else.
unsafe fn me(state: Raw) -> TaskId {
    // SAFETY: rules of this module.
    unsafe {
        match to_handle(state, 1, MAGIC) {
            Some(key) => key.into(),
            None => raise_not_me(state, "task"),
        }
    }
}

unsafe extern "C-unwind" fn gc(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { bury(state, MAGIC, |key| Grave::Task(key.into())) }
}

/// `spawn([name,] fn, ...)`: a new task in the caller's group.
unsafe extern "C-unwind" fn spawn(state: Raw) -> c_int {
    // SAFETY: rules of this module. The new coroutine is on the stack until the registry has it.
    unsafe {
        let named = lua::lua_type(state, 1) == lua::LUA_TSTRING;
        let function = 1 + c_int::from(named);
        if lua::lua_type(state, function) != lua::LUA_TFUNCTION {
            raise_argument(state, function, "a function is wanted");
        }
        let name = if named { check_string(state, 1) } else { ptr::slice_from_raw_parts(ptr::null(), 0) };
        start(state, function, name, body)
    }
}

/// `spawn_then(after, fn, object, ...)`: a new task that runs `fn(object, ...)` and then `after(object, ok, err,
/// traceback)`, with nothing but the object on its stack while `fn` runs.
unsafe extern "C-unwind" fn spawn_then(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        for function in 1..=2 {
            if lua::lua_type(state, function) != lua::LUA_TFUNCTION {
                raise_argument(state, function, "a function is wanted");
            }
        }
        // In the order in which `body_then` wants them: after, object, fn, object, ...
        lua::lua_pushvalue(state, 3);
        lua::lua_rotate(state, 2, 1);
        start(state, 1, ptr::slice_from_raw_parts(ptr::null(), 0), body_then)
    }
}

/// Makes a task whose first function is `first`, called with the values from `from` on.
unsafe fn start(state: Raw, from: c_int, name: *const [u8], first: lua::lua_CFunction) -> c_int {
    // SAFETY: rules of this module. The new coroutine is on the stack until the registry has it.
    unsafe {
        let values = lua::lua_gettop(state) - from + 1;
        let thread = lua::lua_newthread(state);
        *slot(thread) |= IS_ROOT;
        if lua::lua_checkstack(thread, values + 3) == 0 {
            raise(state, "too many arguments for a task");
        }
        lua::lua_rotate(state, from, 1);
        lua::lua_pushcfunction(thread, first);
        lua::lua_xmove(state, thread, values);
        lua::lua_pushvalue(state, from);
        let anchor = lua::luaL_ref(state, lua::LUA_REGISTRYINDEX);
        let mut id = TaskId::null();
        let answer = guarded(|| {
            let mut core = shared(state).core.borrow_mut();
            id = core.scheduler.spawn(Thread { state: thread, anchor }, values);
            let task = &mut core.scheduler.tasks[id];
            task.holders = 1;
            if !name.is_null() {
                task.extra().name = Some(String::from_utf8_lossy(&*name).into());
            }
            Answer::True
        });
        if let Answer::Bug = answer {
            return push(state, answer);
        }
        push_handle(state, MAGIC, id.data(), c"moonwire.task");
        1
    }
}

/// A task's first function: calls the script's under a handler that notes the traceback, so that
/// `<close>` variables may wait when an error or a cancellation unwinds them.
unsafe extern "C-unwind" fn body(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let arguments = lua::lua_gettop(state) - 1;
        lua::lua_pushcfunction(state, note_error);
        lua::lua_rotate(state, 1, 1);
        let status = lua::lua_pcallk(state, arguments, lua::LUA_MULTRET, 1, 0, Some(body_k));
        body_k(state, status, 0)
    }
}

unsafe extern "C-unwind" fn body_k(state: Raw, status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module. The handler's slot takes the word whether all went well.
    unsafe {
        let well = status == lua::LUA_OK || status == lua::LUA_YIELD;
        lua::lua_pushboolean(state, well.into());
        lua::lua_replace(state, 1);
        lua::lua_gettop(state)
    }
}

/// The same for `spawn_then`: (after, object, fn, object, ...).
unsafe extern "C-unwind" fn body_then(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let arguments = lua::lua_gettop(state) - 3;
        lua::lua_pushcfunction(state, note_error);
        lua::lua_rotate(state, 3, 1);
        let status = lua::lua_pcallk(state, arguments, lua::LUA_MULTRET, 3, 0, Some(body_then_k));
        body_then_k(state, status, 0)
    }
}

unsafe extern "C-unwind" fn body_then_k(state: Raw, status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module. Below what the function has answered are after, object and handler.
    unsafe {
        let well = status == lua::LUA_OK || status == lua::LUA_YIELD;
        lua::lua_settop(state, 4);
        lua::lua_pushvalue(state, 3);
        lua::lua_rotate(state, 1, 1);
        lua::lua_pushboolean(state, well.into());
        lua::lua_replace(state, 4);
        // Handler, after, object, whether all went well, the error.
        if well {
            lua::lua_settop(state, 4);
        } else {
            let answer = guarded(|| {
                let world = shared(state);
                let mut core = world.core.borrow_mut();
                let mut text = world.message.borrow_mut();
                text.clear();
                if let Some(task) = core.scheduler.running()
                    && let Some(traceback) = task.extra().traceback.take()
                {
                    text.push_str(&traceback);
                }
                Answer::Bytes(text.as_ptr(), text.len())
            });
            push(state, answer);
        }
        let arguments = lua::lua_gettop(state) - 2;
        let status = lua::lua_pcallk(state, arguments, 0, 1, 0, Some(body_k));
        body_k(state, status, 0)
    }
}

/// A traceback without the lines that every task has: those of the prelude and of what called the task.
fn without_plumbing(traceback: &str) -> String {
    let ours =
        |line: &&str| line.starts_with("\t[cosocket]:") || line.ends_with("'raise_failure'") || *line == "\t[C]: in ?";
    let lines: Vec<&str> = traceback.lines().filter(|line| !ours(line)).collect();
    if lines.len() > 1 { lines.join("\n") } else { String::new() }
}

/// Message handler of a task: notes where an error was raised.
unsafe extern "C-unwind" fn note_error(state: Raw) -> c_int {
    // SAFETY: rules of this module; the text stays on the stack while it is copied.
    unsafe {
        let identity = lua::lua_topointer(state, 1) as usize;
        lua::luaL_traceback(state, state, ptr::null(), 1);
        let text = check_string(state, -1);
        guarded(|| {
            let mut core = shared(state).core.borrow_mut();
            if let Some(task) = core.scheduler.running() {
                let mut traceback = without_plumbing(&String::from_utf8_lossy(&*text));
                let extra = task.extra();
                if let Some((from, cause)) = extra.cause.take()
                    && from == identity
                {
                    if !traceback.is_empty() {
                        traceback.push('\n');
                    }
                    traceback.push_str(&cause);
                }
                extra.traceback = Some(traceback);
            }
            Answer::Nil
        });
        lua::lua_settop(state, 1);
        1
    }
}

// Waiting for tasks

unsafe fn join_step(state: Raw, again: bool) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        let yieldable = can_yield(state);
        let mut source: Option<(Thread, i32, State)> = None;
        let answer = guarded(|| {
            let shared = shared(state);
            shared.attempt(Op::Join, again, yieldable, |core, me| {
                let Some(task) = core.scheduler.tasks.get(id) else {
                    return Attempt::Failed(cancelled(Op::Join));
                };
                if me == Some(id) {
                    return Attempt::Done(Answer::Raise("a task cannot wait for itself"));
                }
                match task.state {
                    State::Cancelled => Attempt::Failed(cancelled(Op::Join)),
                    ended @ (State::Done | State::Failed) => {
                        source = Some((task.thread, task.values, ended));
                        if ended == State::Failed {
                            // The joiner's own traceback is to go on with the task's.
                            let text = core.scheduler.traceback_of(id);
                            let identity = lua::lua_topointer(task_thread(core, id), -1) as usize;
                            if let Some(me) = core.scheduler.running() {
                                me.extra().cause = Some((identity, text));
                            }
                        }
                        Attempt::Done(Answer::True)
                    }
                    _ => Attempt::Wait(Need::Join(id), NEVER),
                }
            })
        });
        let Some((thread, values, ended)) = source else { return finish(state, answer, 0, join_k) };
        if lua::lua_checkstack(state, values + 1) == 0 || lua::lua_checkstack(thread.state, values) == 0 {
            raise(state, "the task returned too many values");
        }
        let first = lua::lua_gettop(thread.state) - values;
        for index in 1..=values {
            lua::lua_pushvalue(thread.state, first + index);
        }
        lua::lua_xmove(thread.state, state, values);
        if ended == State::Failed {
            lua::lua_error(state);
        }
        values
    }
}

unsafe extern "C-unwind" fn join(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { join_step(state, false) }
}

unsafe extern "C-unwind" fn join_k(state: Raw, _status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module.
    unsafe { join_step(state, true) }
}

unsafe extern "C-unwind" fn cancel(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        push(
            state,
            guarded(|| {
                shared(state).core.borrow_mut().cancel(id);
                Answer::True
            }),
        )
    }
}

/// `task:status()`.
unsafe extern "C-unwind" fn status(state: Raw) -> c_int {
    // SAFETY: rules of this module; the words are static.
    unsafe {
        let id = me(state);
        push(
            state,
            guarded(|| {
                let core = shared(state).core.borrow();
                let word = core.scheduler.tasks.get(id).map_or(State::Done, |task| task.state).as_str();
                Answer::Bytes(word.as_ptr(), word.len())
            }),
        )
    }
}

/// `task:name([new])`.
unsafe extern "C-unwind" fn name(state: Raw) -> c_int {
    // SAFETY: rules of this module; the text is copied before anything else can run.
    unsafe {
        let id = me(state);
        let new = match lua::lua_isnoneornil(state, 2) {
            0 => check_string(state, 2),
            _ => ptr::slice_from_raw_parts(ptr::null(), 0),
        };
        push(
            state,
            guarded(|| {
                let shared = shared(state);
                let mut core = shared.core.borrow_mut();
                let mut text = shared.message.borrow_mut();
                text.clear();
                if let Some(task) = core.scheduler.tasks.get_mut(id) {
                    if !new.is_null() && new.len() > 0 {
                        task.extra().name = Some(String::from_utf8_lossy(&*new).into());
                    }
                    text.push_str(&task.label());
                }
                Answer::Bytes(text.as_ptr(), text.len())
            }),
        )
    }
}

/// Whether a task has ended; for `select`.
unsafe extern "C-unwind" fn has_ended(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        push(
            state,
            guarded(|| {
                let core = shared(state).core.borrow();
                Answer::Boolean(core.scheduler.tasks.get(id).is_none_or(|task| task.state.has_ended()))
            }),
        )
    }
}

/// A task that a script hands to a native function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskRef(pub(crate) TaskId);

impl FromLua for TaskRef {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        match handle_in(lua, &value, MAGIC)? {
            Some(key) => Ok(Self(key.into())),
            None => Err(mlua::Error::FromLuaConversionError {
                from: value.type_name(),
                to: "task".to_owned(),
                message: None,
            }),
        }
    }
}

/// Registers the metatable of tasks and adds `spawn` to the primitives.
pub(crate) fn install(lua: &Lua, primitives: &Table) -> mlua::Result<()> {
    let methods = lua.create_table()?;
    let metatable = lua.create_table()?;
    let on_tasks: [(&str, lua::lua_CFunction); 4] =
        [("join", join), ("cancel", cancel), ("status", status), ("name", name)];
    // SAFETY: every function keeps the rules of this module.
    unsafe {
        for (name, function) in on_tasks {
            methods.raw_set(name, lua.create_c_function(function)?)?;
        }
        primitives.raw_set("spawn", lua.create_c_function(spawn)?)?;
        primitives.raw_set("spawn_then", lua.create_c_function(spawn_then)?)?;
        primitives.raw_set("has_ended", lua.create_c_function(has_ended)?)?;
        metatable.raw_set("__gc", lua.create_c_function(gc)?)?;
    }
    metatable.raw_set("__index", methods)?;
    metatable.raw_set("__name", "cosocket.Task")?;
    metatable.raw_set("__metatable", false)?;
    lua.set_named_registry_value("moonwire.task", metatable)
}
