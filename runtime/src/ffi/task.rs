//! Tasks: coroutines that the loop resumes, and the primitives the prelude builds on.

use std::{ffi::c_int, mem::size_of, ptr};

use mlua::{FromLua, Lua, Table, Value, ffi as lua};
use slotmap::{Key, KeyData};

use super::{
    Answer, Attempt, IS_ROOT, Need, Raw, can_yield, cancelled, check_integer, check_number, check_string, finish,
    guarded, push, raise, raise_argument, shared, slot, socket::parking, timed_out,
};
use crate::{
    clock::{NEVER, nanos},
    error::{Error, Kind},
    scheduler::{Op, Outcome, State, TaskId},
    shared::{Grave, Shared},
};

const MAGIC: u64 = u64::from_be_bytes(*b"mw:task!");

/// A coroutine, kept alive by a reference in Lua's registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thread {
    state: Raw,
    anchor: c_int,
}

#[repr(C)]
struct Cell {
    magic: u64,
    id: u64,
}

/// How a turn of a task ended.
pub(crate) enum Turn {
    /// It waits, or is ready again.
    Parked,
    /// It has ended so, with so many values on its stack.
    Ended(State, i32),
}

unsafe fn to_cell(state: Raw, index: c_int) -> *const Cell {
    // SAFETY: reads a type, a length, and the magic only when the length has room for it.
    unsafe {
        let block = lua::lua_touserdata(state, index).cast::<Cell>().cast_const();
        let ours = !block.is_null()
            && lua::lua_type(state, index) == lua::LUA_TUSERDATA
            && lua::lua_rawlen(state, index) as usize == size_of::<Cell>()
            && (*block).magic == MAGIC;
        if ours { block } else { ptr::null() }
    }
}

/// The task that is the first argument; raises when it is something else.
unsafe fn me(state: Raw) -> TaskId {
    // SAFETY: rules of this module.
    unsafe {
        let cell = to_cell(state, 1);
        if cell.is_null() {
            raise(state, "call this with a colon, on a task: task:join()");
        }
        KeyData::from_ffi((*cell).id).into()
    }
}

/// Pushes the object of a task.
unsafe fn push_task(state: Raw, id: TaskId) {
    // SAFETY: contract of `push`; the block is written whole before its metatable is set.
    unsafe {
        let cell = lua::lua_newuserdatauv(state, size_of::<Cell>(), 0).cast::<Cell>();
        cell.write(Cell { magic: MAGIC, id: id.data().as_ffi() });
        lua::luaL_setmetatable(state, c"moonwire.task".as_ptr());
    }
}

unsafe extern "C-unwind" fn gc(state: Raw) -> c_int {
    // SAFETY: only enqueues.
    unsafe {
        let cell = to_cell(state, 1);
        if !cell.is_null() {
            let id = KeyData::from_ffi((*cell).id).into();
            guarded(|| {
                shared(state).graveyard.borrow_mut().push(Grave::Task(id));
                Answer::Nil
            });
        }
        0
    }
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
        let arguments = lua::lua_gettop(state) - function;
        let thread = lua::lua_newthread(state);
        *slot(thread) |= IS_ROOT;
        if lua::lua_checkstack(thread, arguments + 4) == 0 {
            raise(state, "too many arguments for a task");
        }
        lua::lua_rotate(state, function, 1);
        lua::lua_pushcfunction(thread, body);
        lua::lua_xmove(state, thread, arguments + 1);
        lua::lua_pushvalue(state, function);
        let anchor = lua::luaL_ref(state, lua::LUA_REGISTRYINDEX);
        let mut id = TaskId::null();
        let answer = guarded(|| {
            let mut core = shared(state).core.borrow_mut();
            id = core.scheduler.spawn(Thread { state: thread, anchor }, arguments + 1);
            let task = &mut core.scheduler.tasks[id];
            task.holders = 1;
            if named {
                task.extra().name = Some(String::from_utf8_lossy(&*name).into());
            }
            Answer::True
        });
        if let Answer::Bug = answer {
            return push(state, answer);
        }
        push_task(state, id);
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
    // SAFETY: as above. The answer is nil and the error, of which the error stays.
    unsafe {
        lua.exec_raw_lua(|_| push(thread, answer));
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

/// The coroutine of a task that is known to be there.
fn task_thread(core: &crate::reactor::Core, id: TaskId) -> Raw {
    core.scheduler.tasks.get(id).map_or(ptr::null_mut(), |task| task.thread.state)
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

// Primitives

/// `sleep(seconds)`.
unsafe fn sleep_step(state: Raw, until: u64, again: bool) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let yieldable = can_yield(state);
        let answer = guarded(|| {
            let shared = shared(state);
            let over = {
                let mut core = shared.core.borrow_mut();
                let asked_to_end =
                    core.scheduler.running().is_some_and(|task| again && task.outcome == Outcome::Cancelled);
                again && !asked_to_end && core.scheduler.clock.now() >= until
            };
            match over {
                true => Answer::True,
                false => shared.attempt(Op::Sleep, again, yieldable, |_, _| Attempt::Wait(Need::Nothing, until)),
            }
        });
        finish(state, answer, until as lua::lua_KContext, sleep_k)
    }
}

unsafe extern "C-unwind" fn sleep(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let time = check_number(state, 1);
        if time.is_nan() || time < 0.0 {
            raise_argument(state, 1, "a number of seconds, 0 or more, is wanted");
        }
        let mut until = 0;
        guarded(|| {
            until = shared(state).core.borrow_mut().scheduler.clock.refresh().saturating_add(nanos(time));
            Answer::Nil
        });
        sleep_step(state, until, false)
    }
}

unsafe extern "C-unwind" fn sleep_k(state: Raw, _status: c_int, context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module.
    unsafe { sleep_step(state, context as u64, true) }
}

/// `park(operation[, until])`: waits until `wake` is called with this task's token.
unsafe fn park_step(state: Raw, again: bool) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let op = check_string(state, 1);
        let until = match lua::lua_isnoneornil(state, 2) {
            0 => nanos(check_number(state, 2)),
            _ => NEVER,
        };
        let yieldable = can_yield(state);
        let answer = guarded(|| {
            let op = Op::from_name(&*op);
            let shared = shared(state);
            let answer = shared.attempt(op, again, yieldable, |core, _| {
                if again {
                    Attempt::Done(Answer::True)
                } else if until <= core.scheduler.clock.now() {
                    Attempt::Failed(timed_out(op))
                } else {
                    Attempt::Wait(Need::Nothing, until)
                }
            });
            // The prelude takes itself off the lists of those who wait before it raises.
            match answer {
                Answer::Throw(failure) => Answer::Fail(failure),
                answer => answer,
            }
        });
        finish(state, answer, 0, park_k)
    }
}

unsafe extern "C-unwind" fn park(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { park_step(state, false) }
}

unsafe extern "C-unwind" fn park_k(state: Raw, _status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module.
    unsafe { park_step(state, true) }
}

/// `wake(token)`: ends a `park`; `true` when there was one to end.
unsafe extern "C-unwind" fn wake(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id: TaskId = KeyData::from_ffi(check_integer(state, 1) as u64).into();
        push(
            state,
            guarded(|| {
                let mut core = shared(state).core.borrow_mut();
                let waits = core.scheduler.tasks.get(id).is_some_and(|task| task.state == State::Waiting);
                core.wake(id, Outcome::Go);
                Answer::Boolean(waits)
            }),
        )
    }
}

/// `current()`: the running task's token, or nil.
unsafe extern "C-unwind" fn current(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        push(
            state,
            guarded(|| match shared(state).core.borrow().scheduler.current {
                Some(id) => Answer::Integer(id.data().as_ffi() as i64),
                None => Answer::Nil,
            }),
        )
    }
}

/// `token(task)`: what `wake` takes.
unsafe extern "C-unwind" fn token(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        push(state, Answer::Integer(id.data().as_ffi() as i64))
    }
}

unsafe extern "C-unwind" fn now(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let mut at = 0;
        guarded(|| {
            at = shared(state).core.borrow_mut().scheduler.clock.refresh();
            Answer::Nil
        });
        lua::lua_pushnumber(state, crate::clock::seconds(at));
        1
    }
}

parking!(group_wait, group_wait_k, |state, again| {
    let group = KeyData::from_ffi(check_integer(state, 1) as u64).into();
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Group, again, yieldable, |core, _| {
            match core.scheduler.groups.get(group).is_some_and(|group| group.live > 0) {
                true => Attempt::Wait(Need::Group(group), NEVER),
                false => Attempt::Done(Answer::True),
            }
        })
    })
});

/// `check()`: raises when the running task has been asked to end, as a wait does.
unsafe extern "C-unwind" fn check(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        push(
            state,
            guarded(|| {
                let shared = shared(state);
                let mut core = shared.core.borrow_mut();
                match core.scheduler.running() {
                    Some(task) if task.is_to_end() => shared.throw(cancelled(Op::Group)),
                    _ => Answer::True,
                }
            }),
        )
    }
}

/// `raise_failure(task token[, place of the group])`: raises the error that a child of a group died of.
unsafe extern "C-unwind" fn raise_failure(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id: TaskId = KeyData::from_ffi(check_integer(state, 1) as u64).into();
        let place = match lua::lua_isnoneornil(state, 2) {
            0 => check_string(state, 2),
            _ => ptr::slice_from_raw_parts(ptr::null(), 0),
        };
        let mut thread: Raw = ptr::null_mut();
        guarded(|| {
            let mut core = shared(state).core.borrow_mut();
            thread = task_thread(&core, id);
            if !thread.is_null() {
                let mut text = core.scheduler.traceback_of(id);
                if !place.is_null() {
                    text = format!("{text}\nof the group at {}", String::from_utf8_lossy(&*place));
                }
                let identity = lua::lua_topointer(thread, -1) as usize;
                if let Some(me) = core.scheduler.running() {
                    me.extra().cause = Some((identity, text));
                }
            }
            Answer::Nil
        });
        if thread.is_null() {
            return 0;
        }
        lua::lua_pushvalue(thread, -1);
        lua::lua_xmove(thread, state, 1);
        guarded(|| {
            shared(state).graveyard.borrow_mut().push(Grave::Task(id));
            Answer::Nil
        });
        lua::lua_error(state)
    }
}

parking!(dial, dial_k, |state, again| {
    let id = KeyData::from_ffi(check_integer(state, 1) as u64).into();
    let queue_max = super::opt_integer(state, 2, 0);
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Connect, again, yieldable, |core, _| match core.finish_dial(id) {
            None => Attempt::Wait(Need::Dial(id), NEVER),
            Some(Ok(socket)) => {
                let mut options = crate::socket::StreamOptions::default();
                if queue_max > 0 {
                    options.queue_max = queue_max.min(u32::MAX.into()) as u32;
                }
                core.promote(socket, options);
                Attempt::Done(Answer::Stream(socket))
            }
            Some(Err(error)) => Attempt::Failed(error),
        })
    })
});

parking!(resolve, resolve_k, |state, again| {
    let host = check_string(state, 1);
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Resolve, again, yieldable, |core, me| {
            let Ok(host) = std::str::from_utf8(&*host) else {
                let message = "the host is not text";
                return Attempt::Failed(crate::error::Error::new(crate::error::Kind::Resolve, "resolve", message));
            };
            let now = core.scheduler.clock.now();
            match core.resolver.look_up(host, me.unwrap_or_default(), now) {
                crate::resolve::Lookup::Known(Ok(_)) => Attempt::Done(Answer::True),
                crate::resolve::Lookup::Known(Err(error)) => Attempt::Failed(error),
                crate::resolve::Lookup::Asked => Attempt::Wait(Need::Resolver, NEVER),
            }
        })
    })
});

/// A task that a script hands to a native function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskRef(pub(crate) TaskId);

impl FromLua for TaskRef {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        let found = value.type_name();
        if let Value::UserData(userdata) = value {
            // SAFETY: only reads the argument on the stack, and leaves one value instead of it.
            let id = unsafe {
                lua.exec_raw::<Option<i64>>(&userdata, |state| {
                    let cell = to_cell(state, -1);
                    lua::lua_settop(state, 0);
                    if cell.is_null() {
                        lua::lua_pushnil(state);
                    } else {
                        lua::lua_pushinteger(state, (*cell).id as i64);
                    }
                })?
            };
            if let Some(id) = id {
                return Ok(Self(KeyData::from_ffi(id as u64).into()));
            }
        }
        Err(mlua::Error::FromLuaConversionError { from: found, to: "task".to_owned(), message: None })
    }
}

/// Registers the metatable of tasks and answers the table of primitives.
pub(crate) fn install(lua: &Lua) -> mlua::Result<Table> {
    let methods = lua.create_table()?;
    let metatable = lua.create_table()?;
    let primitives = lua.create_table()?;
    let on_tasks: [(&str, lua::lua_CFunction); 4] =
        [("join", join), ("cancel", cancel), ("status", status), ("name", name)];
    let others: [(&str, lua::lua_CFunction); 13] = [
        ("spawn", spawn),
        ("sleep", sleep),
        ("park", park),
        ("wake", wake),
        ("current", current),
        ("token", token),
        ("now", now),
        ("has_ended", has_ended),
        ("group_wait", group_wait),
        ("check", check),
        ("raise_failure", raise_failure),
        ("dial", dial),
        ("resolve", resolve),
    ];
    // SAFETY: every function keeps the rules of this module.
    unsafe {
        for (name, function) in on_tasks {
            methods.raw_set(name, lua.create_c_function(function)?)?;
        }
        for (name, function) in others {
            primitives.raw_set(name, lua.create_c_function(function)?)?;
        }
        metatable.raw_set("__gc", lua.create_c_function(gc)?)?;
    }
    metatable.raw_set("__index", methods)?;
    metatable.raw_set("__name", "cosocket.Task")?;
    metatable.raw_set("__metatable", false)?;
    lua.set_named_registry_value("moonwire.task", metatable)?;
    Ok(primitives)
}
