//! The hot path: raw Lua functions that try, and else park. The only unsafe code.
//!
//! Lua raises errors and yields with `longjmp`, which skips Rust destructors, and any call into
//! Lua that allocates may run a finaliser, which may come back here. Hence the rules:
//!
//! 1. A function that calls Lua holds only `Copy` locals across the call. Work that owns anything
//!    happens inside [`guarded`], which returns a `Copy` answer and never touches Lua.
//! 2. No borrow of shared state is alive across a call into Lua. State sits in `RefCell`s, so a
//!    broken rule is a panic that [`guarded`] catches, never undefined behaviour.
//! 3. A finaliser (`__gc`) only enqueues or drops plain memory.
//! 4. Every panic is caught inside [`guarded`] and becomes a Lua error.
#![allow(unsafe_code, reason = "raw Lua functions are what this module is for; its rules stand above")]

mod buffer;

pub use buffer::BufferRef;
pub(crate) use buffer::install as install_buffer;

use std::{
    ffi::{c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

use mlua::ffi as lua;

/// The state a raw function is called with.
pub(crate) type Raw = *mut lua::lua_State;

/// What a raw function answers. `Copy`, so that nothing is lost when Lua jumps.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Nil,
    True,
    Integer(i64),
    /// Bytes that stay where they are until the next call into this module.
    Bytes(*const u8, usize),
    /// The first argument itself.
    Me,
    /// A mistake of the caller; raised with the caller's position.
    Raise(&'static str),
    /// A panic of ours, caught.
    Bug,
}

/// Runs `work`, which must not call Lua, and catches its panic.
pub(crate) fn guarded(work: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Answer::Bug)
}

/// Pushes `answer` as the results of a raw function.
///
/// # Safety
/// `state` is the state the raw function was called with, and its caller holds only `Copy` locals.
pub(crate) unsafe fn push(state: *mut lua::lua_State, answer: Answer) -> c_int {
    // SAFETY: by the contract above; each arm pushes what it announces, within LUA_MINSTACK.
    unsafe {
        match answer {
            Answer::Nil => lua::lua_pushnil(state),
            Answer::True => lua::lua_pushboolean(state, 1),
            Answer::Integer(value) => lua::lua_pushinteger(state, value),
            Answer::Bytes(start, len) => {
                lua::lua_pushlstring(state, start.cast(), len);
            }
            Answer::Me => lua::lua_pushvalue(state, 1),
            Answer::Raise(message) => raise(state, message),
            Answer::Bug => raise(state, "a bug in this runtime: a native function panicked; please report it"),
        }
    }
    1
}

/// Raises `message` with the position of the Lua code that called.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn raise(state: *mut lua::lua_State, message: &'static str) -> ! {
    // SAFETY: by the contract above; only `Copy` locals are alive.
    unsafe {
        lua::luaL_where(state, 1);
        lua::lua_pushlstring(state, message.as_ptr().cast::<c_char>(), message.len());
        lua::lua_concat(state, 2);
        lua::lua_error(state)
    }
}

/// The string (or number, as a string) at `index`; raises for anything else.
///
/// # Safety
/// As for [`push`]. The bytes stay while the argument is on the stack.
pub(crate) unsafe fn check_string(state: Raw, index: c_int) -> *const [u8] {
    // SAFETY: by the contract above; Lua hands out the length with the pointer.
    unsafe {
        let mut len = 0;
        let start = lua::luaL_checklstring(state, index, &mut len);
        std::ptr::slice_from_raw_parts(start.cast::<u8>(), len)
    }
}

/// The integer at `index`, or `default` when there is none; raises for anything else.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn opt_integer(state: Raw, index: c_int, default: i64) -> i64 {
    // SAFETY: by the contract above.
    unsafe {
        match lua::lua_isnoneornil(state, index) {
            0 => lua::luaL_checkinteger(state, index),
            _ => default,
        }
    }
}
