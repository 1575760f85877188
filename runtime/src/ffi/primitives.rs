//! The primitives the prelude builds on: waits, wake-ups, time.

use std::{ffi::c_int, ptr};

use mlua::{Lua, Table, ffi as lua};
use slotmap::{Key, KeyData};

use super::{
    Answer, Attempt, Need, Raw, can_yield, cancelled, check_integer, check_number, check_string, finish, guarded, push,
    raise_argument, shared, socket::parking, timed_out, turn::task_thread,
};
use crate::{
    blocking::PromiseId,
    clock::{NEVER, nanos},
    scheduler::{Op, Outcome, State, TaskId},
    shared::Grave,
};

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

/// `set_deadline(at or nil, exactly)`: gives the running task another deadline, no later than the one it has unless
/// `exactly`. Answers that one, if there was one. Here, because most operations have a deadline of their own.
unsafe extern "C-unwind" fn set_deadline(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let at = if lua::lua_isnoneornil(state, 1) != 0 { NEVER } else { nanos(check_number(state, 1)) };
        let exactly = lua::lua_toboolean(state, 2) != 0;
        let mut previous = NEVER;
        guarded(|| {
            if let Some(task) = shared(state).core.borrow_mut().scheduler.running() {
                previous = task.deadline();
                task.set_deadline(if exactly { at } else { at.min(previous) });
                task.ignored = 0;
            }
            Answer::Nil
        });
        if previous == NEVER {
            lua::lua_pushnil(state);
        } else {
            lua::lua_pushnumber(state, crate::clock::seconds(previous));
        }
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

/// `may_wait(place)`: whether the function at `place` may wait now; ends as its wait would if not.
unsafe extern "C-unwind" fn may_wait(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let place = check_integer(state, 1);
        let yieldable = can_yield(state);
        let answer = guarded(|| {
            let shared = shared(state);
            let op = Op::Native(shared.core.borrow().promises.op(place));
            shared.may_wait(op, yieldable)
        });
        // It parks only to be ended by force.
        finish(state, answer, 0, promise_wait_k)
    }
}

parking!(promise_wait, promise_wait_k, |state, again| {
    let place = check_integer(state, 1);
    let id: PromiseId = KeyData::from_ffi(check_integer(state, 2) as u64).into();
    let yieldable = can_yield(state);
    guarded(|| {
        let shared = shared(state);
        let op = Op::Native(shared.core.borrow().promises.op(place));
        let answer = shared.attempt(op, again, yieldable, |core, _| match core.promises.is_settled(id) {
            true => Attempt::Done(Answer::True),
            false => Attempt::Wait(Need::Promise(id), NEVER),
        });
        if !matches!(answer, Answer::True | Answer::Park) {
            shared.core.borrow_mut().promises.forget(id);
        }
        answer
    })
});

/// Answers the table of primitives.
pub(crate) fn install(lua: &Lua) -> mlua::Result<Table> {
    let functions: [(&str, lua::lua_CFunction); 13] = [
        ("sleep", sleep),
        ("park", park),
        ("wake", wake),
        ("current", current),
        ("now", now),
        ("set_deadline", set_deadline),
        ("group_wait", group_wait),
        ("check", check),
        ("raise_failure", raise_failure),
        ("dial", dial),
        ("resolve", resolve),
        ("may_wait", may_wait),
        ("promise_wait", promise_wait),
    ];
    let primitives = lua.create_table()?;
    for (name, function) in functions {
        // SAFETY: every function keeps the rules of this module.
        primitives.raw_set(name, unsafe { lua.create_c_function(function)? })?;
    }
    Ok(primitives)
}
