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
//! 5. Before a wait is registered, it is made sure that the coroutine can yield.
#![allow(unsafe_code, reason = "raw Lua functions are what this module is for; its rules stand above")]

mod arguments;
mod aside;
mod attempt;
mod buffer;
mod coroutine;
mod errors;
mod handle;
#[cfg(target_os = "linux")]
mod hog;
mod native;
mod primitives;
mod socket;
mod stream;
mod task;
mod turn;
mod unsent;

pub(crate) use aside::install as install_aside;
pub use buffer::BufferRef;
pub(crate) use buffer::install as install_buffer;
pub(crate) use coroutine::install as install_coroutine;
#[cfg(target_os = "linux")]
pub(crate) use hog::HogWatch;
pub use native::{Arguments, FIELDS_MAX, Native, Outcome, Record, native_function};
pub(crate) use primitives::install as install_primitives;
pub(crate) use socket::{NewSocket, SocketRef, SocketType, install as install_sockets, kind_of, push_socket};
pub(crate) use task::{TaskRef, install as install_tasks};
pub(crate) use turn::{Thread, Turn, failure_value, kill, position, release_thread, run_task};
pub(crate) use unsent::unacknowledged;

use arguments::{check_integer, check_number, check_string, opt_integer};
use attempt::{Attempt, Need, cancelled, timed_out};
use errors::{Failure, Name, push_failure, raise, raise_argument, raise_not_me, raise_unyieldable, raise_value};

use std::{
    ffi::c_int,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use mlua::{Lua, ffi as lua};

use crate::{shared::Shared, socket::SocketId};

/// The state a raw function is called with.
pub(crate) type Raw = *mut lua::lua_State;

/// A raw function's continuation after a wait.
pub(crate) type Continuation = unsafe extern "C-unwind" fn(Raw, c_int, lua::lua_KContext) -> c_int;

/// Set in a coroutine's extra space when it is the root of a task.
const IS_ROOT: usize = 1;
/// Set while a wait of its own task passes through a coroutine.
const IS_PARKED: usize = 2;
const MARKS: usize = IS_ROOT | IS_PARKED;

/// What a raw function answers. `Copy`, so that nothing is lost when Lua jumps.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Nil,
    True,
    Boolean(bool),
    Integer(i64),
    /// Bytes that stay where they are until the next call into this module.
    Bytes(*const u8, usize),
    /// Such bytes, and where they came from.
    Datagram(*const u8, usize, Name),
    /// Such bytes, and behind them the path of the unix socket that they came from: of how many bytes each.
    UnixDatagram(*const u8, usize, usize),
    /// The first argument itself.
    Me,
    /// A new stream.
    Stream(SocketId),
    /// An error of the outside world: `nil, err`.
    Fail(Failure),
    /// An error raised although it is not the caller's mistake: a cancellation.
    Throw(Failure),
    /// A mistake of the caller; raised with the caller's position.
    Raise(&'static str),
    /// A wait where Lua cannot yield.
    Unyieldable,
    /// The wait has been registered: yield.
    Park,
    /// A panic of ours, caught.
    Bug,
}

/// Runs `work`, which must not call Lua, and catches its panic.
pub(crate) fn guarded(work: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Answer::Bug)
}

/// Ties a Lua state to its runtime: every coroutine made from now on knows it.
pub(crate) fn attach(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    // SAFETY: the slot of the main thread is ours (neither Lua nor mlua uses it); `Shared` lives
    // in the state's app data and so outlives it.
    unsafe {
        lua.exec_raw((), |state| {
            lua::lua_rawgeti(state, lua::LUA_REGISTRYINDEX, lua::LUA_RIDX_MAINTHREAD);
            let main = lua::lua_tothread(state, -1);
            lua::lua_settop(state, 0);
            slot(main).write(ptr::from_ref(shared) as usize);
            if main != state {
                slot(state).write(ptr::from_ref(shared) as usize);
            }
        })
    }
}

/// A coroutine's own word: the address of [`Shared`] and its marks.
unsafe fn slot(state: Raw) -> *mut usize {
    // SAFETY: Lua reserves a pointer's room in front of every state.
    unsafe { lua::lua_getextraspace(state).cast() }
}

/// The runtime a state belongs to.
///
/// # Safety
/// `state` is a state, or a coroutine of one, that [`attach`] has seen.
pub(crate) unsafe fn shared<'a>(state: Raw) -> &'a Shared {
    // SAFETY: `attach` wrote the address before any coroutine was made, and new ones copy it;
    // `Shared` is aligned to more than `MARKS` and outlives the state.
    unsafe { &*((slot(state).read() & !MARKS) as *const Shared) }
}

/// Whether the running code may yield, through every coroutine up to its task's root. One that a native function of the
/// embedder's has resumed may not: its wait would end there.
///
/// # Safety
/// As for [`shared`].
pub(crate) unsafe fn can_yield(state: Raw) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        let shared = shared(state);
        lua::lua_isyieldable(state) != 0 && shared.blocked.get() == 0 && shared.running.get() == state
    }
}

/// Pushes `answer` as the results of a raw function that does not park.
///
/// # Safety
/// `state` is the state the raw function was called with, and its caller holds only `Copy` locals.
pub(crate) unsafe fn push(state: Raw, answer: Answer) -> c_int {
    // SAFETY: by the contract above; each arm pushes what it announces, within LUA_MINSTACK.
    unsafe {
        match answer {
            Answer::Nil => lua::lua_pushnil(state),
            Answer::True => lua::lua_pushboolean(state, 1),
            Answer::Boolean(value) => lua::lua_pushboolean(state, value.into()),
            Answer::Integer(value) => lua::lua_pushinteger(state, value),
            Answer::Bytes(start, len) => {
                lua::lua_pushlstring(state, start.cast(), len);
            }
            Answer::Datagram(start, len, from) => {
                lua::lua_pushlstring(state, start.cast(), len);
                let from = from.as_slice();
                lua::lua_pushlstring(state, from.as_ptr().cast(), from.len());
                return 2;
            }
            Answer::UnixDatagram(start, len, path) => {
                lua::lua_pushlstring(state, start.cast(), len);
                lua::lua_pushlstring(state, start.add(len).cast(), path);
                return 2;
            }
            Answer::Me => lua::lua_pushvalue(state, 1),
            Answer::Stream(id) => push_socket(state, id, SocketType::Stream),
            Answer::Fail(failure) => {
                push_failure(state, failure);
                lua::lua_pushnil(state);
                lua::lua_rotate(state, -2, 1);
                return 2;
            }
            Answer::Throw(failure) => {
                push_failure(state, failure);
                lua::lua_error(state);
            }
            Answer::Raise(message) => raise(state, message),
            Answer::Unyieldable => raise_unyieldable(state),
            Answer::Park => raise(state, "a bug in this runtime: a wait without a continuation"),
            Answer::Bug => raise(state, "a bug in this runtime: a native function panicked; please report it"),
        }
    }
    1
}

/// Pushes `answer`, or yields until the wait is over.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn finish(state: Raw, answer: Answer, context: lua::lua_KContext, then: Continuation) -> c_int {
    // SAFETY: by the contract above; the wait has been registered only if the state can yield.
    unsafe {
        match answer {
            Answer::Park => {
                shared(state).passing.set(true);
                lua::lua_yieldk(state, 0, context, Some(then))
            }
            answer => push(state, answer),
        }
    }
}
