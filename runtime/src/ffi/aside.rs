//! Functions that run on a stack of their own, so that a coroutine that waits for hours keeps a small one.
//!
//! A coroutine's stack doubles when a call goes too deep for it, and is hardly ever made smaller again. What thousands
//! of idle tasks do now and then, such as taking a message apart, is done on one coroutine that all share; only the
//! wait is on their own.

use std::ffi::c_int;

use mlua::{Lua, Table, ffi as lua};

use super::{Answer, Raw, finish, push, raise, raise_argument, shared, stream::attempt_turn};

/// Values that a step may answer.
const ANSWERS_MAX: c_int = 8;

/// `aside(step)`: a function that takes `step` after `step` until one is the last, as `lua/meta/cosocket.lua` says.
unsafe extern "C-unwind" fn aside(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        if lua::lua_type(state, 1) != lua::LUA_TFUNCTION {
            raise_argument(state, 1, "a function is wanted");
        }
        lua::lua_settop(state, 1);
        lua::lua_pushcclosure(state, begin, 1);
        1
    }
}

/// What `aside` answers: called with an object and an argument.
unsafe extern "C-unwind" fn begin(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        lua::lua_settop(state, 2);
        go_on(state)
    }
}

/// Takes steps until one is the last, or has to wait. What a step is called with is all there is on the stack.
unsafe fn go_on(state: Raw) -> c_int {
    // SAFETY: rules of this module. At most 15 values are on the stack, within LUA_MINSTACK.
    unsafe {
        loop {
            let given = lua::lua_gettop(state);
            lua::lua_pushvalue(state, lua::lua_upvalueindex(1));
            for index in 1..=given {
                lua::lua_pushvalue(state, index);
            }
            let count = run(state, given);
            if count > 0 && lua::lua_type(state, given + 1) == lua::LUA_TFUNCTION {
                // What comes now may need any stack, and may wait.
                lua::lua_callk(state, count - 1, lua::LUA_MULTRET, given as lua::lua_KContext, Some(end));
                return end(state, lua::LUA_OK, given as lua::lua_KContext);
            }
            if count == 0 || lua::lua_toboolean(state, given + 1) == 0 {
                return (count - 1).max(0);
            }
            if count != 5 {
                raise(state, "a step that waits answers true, a stream, two buffers, and until when");
            }
            // To where `turn` has its arguments; the object and the argument behind them.
            lua::lua_pushvalue(state, 1);
            lua::lua_pushvalue(state, 2);
            lua::lua_rotate(state, 1, 6);
            lua::lua_settop(state, 6);
            match attempt_turn(state, false) {
                Answer::Park => return finish(state, Answer::Park, 0, woken),
                answer => wait_is_over(state, answer),
            }
        }
    }
}

/// Makes what the next step is called with: object, argument, what `turn` answered, its `input`, and until when.
unsafe fn wait_is_over(state: Raw, answer: Answer) {
    // SAFETY: rules of this module; the six values of the wait are on the stack.
    unsafe {
        if push(state, answer) == 1 {
            lua::lua_pushnil(state);
        }
        lua::lua_pushvalue(state, 2);
        lua::lua_pushvalue(state, 4);
        lua::lua_rotate(state, 1, -4);
        lua::lua_settop(state, 6);
    }
}

unsafe extern "C-unwind" fn woken(state: Raw, _status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module; the stack is as it was left.
    unsafe {
        match attempt_turn(state, true) {
            Answer::Park => finish(state, Answer::Park, 0, woken),
            answer => {
                wait_is_over(state, answer);
                go_on(state)
            }
        }
    }
}

/// Answers all but the first values, so many as the context says.
unsafe extern "C-unwind" fn end(state: Raw, _status: c_int, context: lua::lua_KContext) -> c_int {
    // SAFETY: only looks at the height of the stack.
    unsafe { lua::lua_gettop(state) - context as c_int }
}

/// Calls the function under the last `arguments` values, and puts what it answers in their place: so many values.
unsafe fn run(state: Raw, arguments: c_int) -> c_int {
    // SAFETY: rules of this module. The shared coroutine runs one function at a time; who comes meanwhile, such as a
    // finaliser, has a stack that is in use anyway.
    unsafe {
        let world = shared(state);
        let base = lua::lua_gettop(state) - arguments - 1;
        if world.aside_is_busy.get() {
            lua::lua_call(state, arguments, lua::LUA_MULTRET);
            return lua::lua_gettop(state) - base;
        }
        if world.aside.get().is_null() {
            let made = lua::lua_newthread(state);
            lua::luaL_ref(state, lua::LUA_REGISTRYINDEX);
            world.aside.set(made);
        }
        let inner = world.aside.get();
        if lua::lua_checkstack(inner, arguments + 1) == 0 {
            raise(state, "too many values for a step");
        }
        lua::lua_xmove(state, inner, arguments + 1);
        let mut count = 0;
        let outer = world.running.replace(inner);
        world.aside_is_busy.set(true);
        // Only whoever called may wait.
        world.blocked.set(world.blocked.get() + 1);
        let status = lua::lua_resume(inner, state, arguments, &mut count);
        world.blocked.set(world.blocked.get() - 1);
        world.aside_is_busy.set(false);
        world.running.set(outer);
        if status == lua::LUA_OK && count <= ANSWERS_MAX {
            lua::lua_xmove(inner, state, count);
            return count;
        }
        let failed = status != lua::LUA_OK && status != lua::LUA_YIELD;
        if failed {
            lua::lua_xmove(inner, state, 1);
        }
        lua::lua_closethread(inner, state);
        lua::lua_settop(inner, 0);
        if !failed {
            raise(state, "a step answers a few values, and does not yield");
        }
        if lua::lua_type(state, -1) == lua::LUA_TSTRING {
            // The step knows nothing of its caller.
            lua::luaL_where(state, 1);
            lua::lua_rotate(state, -2, 1);
            lua::lua_concat(state, 2);
        }
        lua::lua_error(state)
    }
}

/// Adds `aside` to the primitives.
pub(crate) fn install(lua: &Lua, primitives: &Table) -> mlua::Result<()> {
    // SAFETY: the functions keep the rules of this module.
    unsafe { primitives.raw_set("aside", lua.create_c_function(aside)?) }
}
