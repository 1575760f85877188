//! `coroutine.resume` and `wrap` that let a wait pass outward, so that a generator inside a task
//! may read a socket.
//!
//! A wait inside a coroutine yields to whoever resumed it; that yields in turn, up to the task's
//! root. When the loop resumes the root, each continuation resumes the coroutine below it.

use std::ffi::c_int;

use mlua::{Lua, Table, ffi as lua};

use super::{Answer, IS_PARKED, IS_ROOT, Raw, errors::push_str, guarded, raise, raise_argument, shared, slot};

/// Resumes `inner` with `values` on its stack and takes over how that ends. Answers the number of
/// values pushed, behind a boolean if `protected`.
unsafe fn drive(state: Raw, inner: Raw, values: c_int, protected: bool, then: super::Continuation) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let world = shared(state);
        let stuck = u32::from(lua::lua_isyieldable(state) == 0);
        let outer_stuck = world.stuck.get();
        if stuck > 0 {
            world.stuck.set(state);
        }
        let outer = world.running.replace(inner);
        world.blocked.set(world.blocked.get() + stuck);
        let mut count = 0;
        let status = lua::lua_resume(inner, state, values, &mut count);
        world.blocked.set(world.blocked.get() - stuck);
        world.stuck.set(outer_stuck);
        world.running.set(outer);
        if status == lua::LUA_YIELD && world.passing.get() {
            *slot(inner) |= IS_PARKED;
            return lua::lua_yieldk(state, 0, inner as lua::lua_KContext, Some(then));
        }
        if status == lua::LUA_OK || status == lua::LUA_YIELD {
            if lua::lua_checkstack(state, count + 1) == 0 {
                lua::lua_settop(inner, -count - 1);
                raise(state, "too many values to pass out of a coroutine");
            }
            if protected {
                lua::lua_pushboolean(state, 1);
            }
            lua::lua_xmove(inner, state, count);
            return count + c_int::from(protected);
        }
        if protected {
            lua::lua_pushboolean(state, 0);
            lua::lua_xmove(inner, state, 1);
            return 2;
        }
        fail_wrapped(state, inner)
    }
}

/// Raises the error of a wrapped coroutine, as `coroutine.wrap` does, and notes where it came from.
unsafe fn fail_wrapped(state: Raw, inner: Raw) -> c_int {
    // SAFETY: rules of this module. The error stays on `inner`'s top until it is moved.
    unsafe {
        lua::luaL_traceback(state, inner, std::ptr::null(), 0);
        let text = super::check_string(state, -1);
        let below = lua::lua_gettop(state);
        // One that could not even be resumed, too deep in calls, is not closed: that would leave no error on it.
        if !matches!(lua::lua_status(inner), lua::LUA_OK | lua::LUA_YIELD) {
            lua::lua_closethread(inner, state);
        }
        lua::lua_xmove(inner, state, 1);
        if lua::lua_type(state, -1) == lua::LUA_TSTRING {
            lua::luaL_where(state, 1);
            lua::lua_rotate(state, -2, 1);
            lua::lua_concat(state, 2);
        }
        let identity = lua::lua_topointer(state, -1) as usize;
        guarded(|| {
            let mut core = shared(state).core.borrow_mut();
            if let Some(task) = core.scheduler.running() {
                let text = String::from_utf8_lossy(&*text);
                let mut trace = format!("in a coroutine:{}", text.trim_start_matches("stack traceback:"));
                let extra = task.extra();
                if let Some((_, cause)) = extra.cause.take() {
                    trace.push('\n');
                    trace.push_str(&cause);
                }
                extra.cause = Some((identity, trace));
            }
            Answer::Nil
        });
        lua::lua_rotate(state, below, -1);
        lua::lua_settop(state, -2);
        lua::lua_error(state)
    }
}

/// The coroutine at `index`; raises for anything else.
unsafe fn check_thread(state: Raw, index: c_int) -> Raw {
    // SAFETY: rules of this module.
    unsafe {
        let inner = lua::lua_tothread(state, index);
        if inner.is_null() {
            raise_argument(state, index, "a coroutine is wanted");
        }
        inner
    }
}

/// Why a script may not resume `inner`, if it may not.
unsafe fn refusal(state: Raw, inner: Raw) -> Option<&'static str> {
    // SAFETY: rules of this module.
    unsafe {
        let marks = *slot(inner);
        if marks & IS_PARKED != 0 {
            return Some("cannot resume a coroutine that waits for the network");
        }
        if marks & IS_ROOT != 0 {
            return Some("cannot resume a task; the loop does that");
        }
        match lua::lua_status(inner) {
            lua::LUA_YIELD => None,
            lua::LUA_OK if inner == state => Some("cannot resume non-suspended coroutine"),
            lua::LUA_OK => {
                let mut activation: lua::lua_Debug = std::mem::zeroed();
                if lua::lua_getstack(inner, 0, &mut activation) != 0 {
                    return Some("cannot resume non-suspended coroutine");
                }
                (lua::lua_gettop(inner) == 0).then_some("cannot resume dead coroutine")
            }
            _ => Some("cannot resume dead coroutine"),
        }
    }
}

unsafe extern "C-unwind" fn resume(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let inner = check_thread(state, 1);
        let values = lua::lua_gettop(state) - 1;
        let refused = match refusal(state, inner) {
            None if lua::lua_checkstack(inner, values) == 0 => Some("too many arguments to resume"),
            other => other,
        };
        if let Some(message) = refused {
            lua::lua_pushboolean(state, 0);
            lua::lua_pushlstring(state, message.as_ptr().cast(), message.len());
            return 2;
        }
        lua::lua_xmove(state, inner, values);
        drive(state, inner, values, true, resume_k)
    }
}

unsafe extern "C-unwind" fn resume_k(state: Raw, _status: c_int, context: lua::lua_KContext) -> c_int {
    // SAFETY: the context is the coroutine, which the first argument keeps alive.
    unsafe {
        let inner = context as Raw;
        *slot(inner) &= !IS_PARKED;
        drive(state, inner, 0, true, resume_k)
    }
}

unsafe extern "C-unwind" fn wrap(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        if lua::lua_type(state, 1) != lua::LUA_TFUNCTION {
            raise_argument(state, 1, "a function is wanted");
        }
        let inner = lua::lua_newthread(state);
        lua::lua_pushvalue(state, 1);
        lua::lua_xmove(state, inner, 1);
        lua::lua_pushcclosure(state, wrapped, 1);
        1
    }
}

unsafe extern "C-unwind" fn wrapped(state: Raw) -> c_int {
    // SAFETY: rules of this module; the upvalue is the coroutine.
    unsafe {
        let inner = lua::lua_tothread(state, lua::lua_upvalueindex(1));
        let values = lua::lua_gettop(state);
        let refused = match refusal(state, inner) {
            None if lua::lua_checkstack(inner, values) == 0 => Some("too many arguments to resume"),
            other => other,
        };
        if let Some(message) = refused {
            // As a string, which is what generators raise everywhere.
            lua::luaL_where(state, 1);
            push_str(state, message);
            lua::lua_concat(state, 2);
            lua::lua_error(state);
        }
        lua::lua_xmove(state, inner, values);
        drive(state, inner, values, false, wrapped_k)
    }
}

unsafe extern "C-unwind" fn wrapped_k(state: Raw, _status: c_int, context: lua::lua_KContext) -> c_int {
    // SAFETY: the context is the coroutine, which the upvalue keeps alive.
    unsafe {
        let inner = context as Raw;
        *slot(inner) &= !IS_PARKED;
        drive(state, inner, 0, false, wrapped_k)
    }
}

/// `is_busy(coroutine)`: whether it waits for the network or belongs to the loop.
unsafe extern "C-unwind" fn is_busy(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let inner = check_thread(state, 1);
        let busy = *slot(inner) & (IS_PARKED | IS_ROOT) != 0 && inner != state;
        lua::lua_pushboolean(state, busy.into());
        1
    }
}

/// Puts the functions in place of the stock ones and adds `is_busy` to the primitives.
pub(crate) fn install(lua: &Lua, primitives: &Table) -> mlua::Result<()> {
    let library: Table = lua.globals().get("coroutine")?;
    // SAFETY: every function keeps the rules of this module.
    unsafe {
        library.raw_set("resume", lua.create_c_function(resume)?)?;
        library.raw_set("wrap", lua.create_c_function(wrap)?)?;
        primitives.raw_set("is_busy", lua.create_c_function(is_busy)?)
    }
}
