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

mod buffer;
mod coroutine;
mod handle;
#[cfg(target_os = "linux")]
mod hog;
mod primitives;
mod socket;
mod stream;
mod task;
mod turn;

pub use buffer::BufferRef;
pub(crate) use buffer::install as install_buffer;
pub(crate) use coroutine::install as install_coroutine;
#[cfg(target_os = "linux")]
pub(crate) use hog::HogWatch;
pub(crate) use primitives::install as install_primitives;
pub(crate) use socket::{NewSocket, SocketRef, SocketType, install as install_sockets, kind_of, push_socket};
pub(crate) use task::{TaskRef, install as install_tasks};
pub(crate) use turn::{Thread, Turn, failure_value, kill, position, release_thread, run_task};

use std::{
    ffi::{c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use mlua::{Lua, ffi as lua};

use crate::{
    clock::{NEVER, Nanos},
    error::{Code, Error, Kind},
    reactor::Core,
    scheduler::{IGNORED_MAX, Op, Outcome, TaskId, Wait},
    shared::Shared,
    socket::SocketId,
};

/// The state a raw function is called with.
pub(crate) type Raw = *mut lua::lua_State;

/// A raw function's continuation after a wait.
pub(crate) type Continuation = unsafe extern "C-unwind" fn(Raw, c_int, lua::lua_KContext) -> c_int;

/// Set in a coroutine's extra space when it is the root of a task.
const IS_ROOT: usize = 1;
/// Set while a wait of its own task passes through a coroutine.
const IS_PARKED: usize = 2;
const MARKS: usize = IS_ROOT | IS_PARKED;

/// An error on its way to Lua: everything but the message is in here, the message is in
/// [`Shared::message`] until it has been copied.
#[derive(Clone, Copy)]
pub(crate) struct Failure {
    kind: &'static str,
    op: &'static str,
    message: *const u8,
    len: usize,
    code: Name,
    number: Option<i64>,
}

/// A short name by value.
#[derive(Clone, Copy)]
pub(crate) struct Name([u8; 63], u8);

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

/// What a try leads to.
pub(crate) enum Attempt {
    Done(Answer),
    Failed(Error),
    /// Not yet. What to wait for, and until when at most.
    Wait(Need, Nanos),
}

/// What a task waits for, and how to have it woken.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    Reader(SocketId),
    Writer(SocketId),
    Both(SocketId),
    Dial(crate::dial::DialId),
    Resolver,
    Join(TaskId),
    Group(crate::scheduler::GroupId),
    /// Someone who knows the task.
    Nothing,
}

/// Runs `work`, which must not call Lua, and catches its panic.
pub(crate) fn guarded(work: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Answer::Bug)
}

impl Shared {
    /// Tries an operation of the running task, and registers its wait when it is not done.
    ///
    /// `again` says that a wait has just ended. Nothing in here calls Lua.
    pub(crate) fn attempt(
        &self,
        op: Op,
        again: bool,
        yieldable: bool,
        work: impl FnOnce(&mut Core, Option<TaskId>) -> Attempt,
    ) -> Answer {
        let mut core = self.core.borrow_mut();
        let me = core.scheduler.current;
        if again {
            let outcome = core.scheduler.running().map_or(Outcome::Go, |task| task.outcome);
            match outcome {
                Outcome::Go => {}
                Outcome::TimedOut => return self.fail(timed_out(op)),
                Outcome::Cancelled => return self.throw(cancelled(op)),
            }
        } else if core.scheduler.budget == 0 && yieldable && me.is_some() {
            let now = core.scheduler.clock.now();
            if op != Op::Group
                && core.scheduler.running().is_some_and(|task| task.is_to_end() || task.deadline() <= now)
            {
                // One that never has to wait would not hear of it otherwise.
                return self.begin_wait(&mut core, op, Need::Nothing, NEVER, yieldable);
            }
            // Others get their turn although this task could go on.
            core.scheduler.park_ready();
            return Answer::Park;
        } else {
            core.scheduler.budget = core.scheduler.budget.saturating_sub(1);
        }
        match work(&mut core, me) {
            Attempt::Done(answer) => answer,
            Attempt::Failed(error) => self.fail(error),
            Attempt::Wait(need, until) => self.begin_wait(&mut core, op, need, until, yieldable),
        }
    }

    /// Registers a wait, or says why there can be none.
    fn begin_wait(&self, core: &mut Core, op: Op, need: Need, until: Nanos, yieldable: bool) -> Answer {
        let Some(me) = core.scheduler.current else {
            return Answer::Raise("cannot wait here: this code does not run in a task");
        };
        if !yieldable {
            return Answer::Unyieldable;
        }
        let now = core.scheduler.clock.now();
        // A group waits for its children whatever happens: they have been told to end.
        let shielded = matches!(need, Need::Group(_));
        if let Some(task) = core.scheduler.tasks.get_mut(me)
            && !shielded
        {
            let (is_to_end, is_late) = (task.is_to_end(), task.deadline() <= now);
            if is_to_end || is_late {
                task.ignored += 1;
                // A timeout is answered first, and raised to those who do not look at answers.
                if task.ignored > if is_to_end { IGNORED_MAX } else { 2 * IGNORED_MAX } {
                    // It catches the error and goes on regardless: the loop ends it by force.
                    task.doom();
                    core.scheduler.park(op, Wait::Nothing, NEVER);
                    return Answer::Park;
                }
            }
            if is_to_end {
                return self.throw(cancelled(op));
            }
            if is_late {
                return match task.ignored > IGNORED_MAX {
                    true => self.throw(timed_out(op)),
                    false => self.fail(timed_out(op)),
                };
            }
            task.ignored = 0;
        }
        let wait = match need {
            Need::Reader(id) | Need::Writer(id) | Need::Both(id) => {
                core.wait_on_socket(id, me, !matches!(need, Need::Writer(_)), !matches!(need, Need::Reader(_)));
                Wait::Socket(id)
            }
            Need::Dial(id) => {
                if let Some(dial) = core.dials.get_mut(id) {
                    dial.task = Some(me);
                }
                Wait::Dial(id)
            }
            Need::Resolver => Wait::Resolver,
            Need::Join(id) => {
                if let Some(task) = core.scheduler.tasks.get_mut(id) {
                    task.extra().joiners.push(me);
                }
                Wait::Task(id)
            }
            Need::Group(id) => {
                if let Some(group) = core.scheduler.groups.get_mut(id) {
                    group.waiter = Some(me);
                }
                Wait::Group(id)
            }
            Need::Nothing => Wait::Nothing,
        };
        core.scheduler.park(op, wait, until);
        Answer::Park
    }

    /// An error as an answer.
    pub(crate) fn fail(&self, error: Error) -> Answer {
        Answer::Fail(self.keep(error))
    }

    /// An error to be raised.
    pub(crate) fn throw(&self, error: Error) -> Answer {
        Answer::Throw(self.keep(error))
    }

    fn keep(&self, error: Error) -> Failure {
        let mut message = self.message.borrow_mut();
        message.clear();
        message.push_str(&error.message);
        let (code, number) = match &error.code {
            Some(Code::Name(name)) => (Name::new(name), None),
            Some(Code::Number(number)) => (Name::new(""), Some(*number)),
            None => (Name::new(""), None),
        };
        Failure { kind: error.kind.as_str(), op: error.op, message: message.as_ptr(), len: message.len(), code, number }
    }
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        let mut bytes = [0; 63];
        let len = text.len().min(bytes.len());
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self(bytes, len as u8)
    }
}

pub(crate) fn timed_out(op: Op) -> Error {
    Error::new(Kind::Timeout, op.as_str(), "the deadline has passed")
}

pub(crate) fn cancelled(op: Op) -> Error {
    Error::new(Kind::Cancelled, op.as_str(), "the task was cancelled")
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

/// Whether the running code may yield, through every coroutine up to its task's root.
///
/// # Safety
/// As for [`shared`].
pub(crate) unsafe fn can_yield(state: Raw) -> bool {
    // SAFETY: by the contract above.
    unsafe { lua::lua_isyieldable(state) != 0 && shared(state).blocked.get() == 0 }
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
                lua::lua_pushlstring(state, from.0.as_ptr().cast(), from.1.into());
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

/// Pushes an error table.
unsafe fn push_failure(state: Raw, failure: Failure) {
    // SAFETY: contract of `push`. The message is copied before anything else can run.
    unsafe {
        lua::lua_pushlstring(state, failure.message.cast(), failure.len);
        lua::lua_createtable(state, 0, 4);
        lua::lua_rotate(state, -2, 1);
        lua::lua_setfield(state, -2, c"message".as_ptr());
        push_str(state, failure.kind);
        lua::lua_setfield(state, -2, c"kind".as_ptr());
        push_str(state, failure.op);
        lua::lua_setfield(state, -2, c"op".as_ptr());
        if let Some(number) = failure.number {
            lua::lua_pushinteger(state, number);
            lua::lua_setfield(state, -2, c"code".as_ptr());
        } else if failure.code.1 > 0 {
            lua::lua_pushlstring(state, failure.code.0.as_ptr().cast(), failure.code.1.into());
            lua::lua_setfield(state, -2, c"code".as_ptr());
        }
        lua::luaL_setmetatable(state, c"moonwire.error".as_ptr());
    }
}

unsafe fn push_str(state: Raw, text: &str) {
    // SAFETY: contract of `push`.
    unsafe {
        lua::lua_pushlstring(state, text.as_ptr().cast::<c_char>(), text.len());
    }
}

/// Raises an `argument` error whose text is on the top of the stack, behind the caller's position.
unsafe fn raise_top(state: Raw) -> ! {
    // SAFETY: contract of `push`; `lua_error` does not return.
    unsafe {
        push_place(state);
        lua::lua_rotate(state, -2, 1);
        lua::lua_concat(state, 2);
        lua::lua_createtable(state, 0, 3);
        lua::lua_rotate(state, -2, 1);
        lua::lua_setfield(state, -2, c"message".as_ptr());
        push_str(state, "argument");
        lua::lua_setfield(state, -2, c"kind".as_ptr());
        push_caller(state);
        lua::lua_setfield(state, -2, c"op".as_ptr());
        lua::luaL_setmetatable(state, c"moonwire.error".as_ptr());
        lua::lua_error(state)
    }
}

/// Pushes the line that called, as `file:line: `. The prelude's own lines are not meant.
unsafe fn push_place(state: Raw) {
    // SAFETY: contract of `push`; Lua fills what it is asked for.
    unsafe {
        let mut activation: lua::lua_Debug = std::mem::zeroed();
        let mut level = 1;
        while lua::lua_getstack(state, level, &mut activation) != 0
            && lua::lua_getinfo(state, c"S".as_ptr(), &mut activation) != 0
            && std::ffi::CStr::from_ptr(activation.short_src.as_ptr()).to_bytes() == b"[cosocket]"
        {
            level += 1;
        }
        lua::luaL_where(state, level);
    }
}

/// Pushes the name of the raw function that runs, or "?".
unsafe fn push_caller(state: Raw) {
    // SAFETY: contract of `push`; Lua fills what it is asked for.
    unsafe {
        let mut activation: lua::lua_Debug = std::mem::zeroed();
        let named = lua::lua_getstack(state, 0, &mut activation) != 0
            && lua::lua_getinfo(state, c"n".as_ptr(), &mut activation) != 0
            && !activation.name.is_null();
        lua::lua_pushstring(state, if named { activation.name } else { c"?".as_ptr() });
    }
}

/// Raises `message` with the position of the Lua code that called.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn raise(state: Raw, message: &'static str) -> ! {
    // SAFETY: by the contract above; only `Copy` locals are alive.
    unsafe {
        push_str(state, message);
        raise_top(state)
    }
}

/// Says that an argument is not what it should be.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn raise_argument(state: Raw, index: c_int, wanted: &'static str) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        push_bad_argument(state, index);
        push_str(state, wanted);
        push_str(state, ", got ");
        lua::lua_pushstring(state, lua::luaL_typename(state, index));
        lua::lua_concat(state, 4);
        raise_top(state)
    }
}

/// Says what is wrong with an argument that has the right type.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn raise_value(state: Raw, index: c_int, what: &'static str) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        push_bad_argument(state, index);
        push_str(state, what);
        lua::lua_concat(state, 2);
        raise_top(state)
    }
}

/// Pushes which argument is wrong.
unsafe fn push_bad_argument(state: Raw, index: c_int) {
    // SAFETY: contract of `push`; Lua fills what it is asked for.
    unsafe {
        let mut activation: lua::lua_Debug = std::mem::zeroed();
        let known = lua::lua_getstack(state, 0, &mut activation) != 0
            && lua::lua_getinfo(state, c"n".as_ptr(), &mut activation) != 0;
        // In a method call people do not count the object before the colon.
        let is_method = known
            && !activation.namewhat.is_null()
            && std::ffi::CStr::from_ptr(activation.namewhat).to_bytes() == b"method";
        let shown = index - c_int::from(is_method);
        push_str(state, "bad argument #");
        lua::lua_pushinteger(state, shown.into());
        push_str(state, " to '");
        push_caller(state);
        push_str(state, "': ");
        lua::lua_concat(state, 5);
    }
}

/// Raises the error of a wait inside a function that Lua cannot leave and come back to.
unsafe fn raise_unyieldable(state: Raw) -> ! {
    // SAFETY: contract of `push`; the stacks are only looked at.
    unsafe {
        push_str(state, "cannot wait inside ");
        let resumer = shared(state).stuck.get();
        if !push_barrier(state, state) && (resumer.is_null() || !push_barrier(state, resumer)) {
            push_str(state, "a native function");
        }
        push_str(state, ": Lua cannot leave that call and come back; wait before or after it");
        lua::lua_concat(state, 3);
        raise_top(state)
    }
}

/// Pushes the name of the innermost call in `of` that Lua cannot come back to; `false` when there is none.
unsafe fn push_barrier(state: Raw, of: Raw) -> bool {
    // SAFETY: contract of `push`; `of` is `state` or a coroutine that has, further out, resumed it.
    unsafe {
        let mut activation: lua::lua_Debug = std::mem::zeroed();
        let mut level = 1;
        while lua::lua_getstack(of, level, &mut activation) != 0 {
            level += 1;
            lua::lua_getinfo(of, c"nS".as_ptr(), &mut activation);
            let is_native = !activation.what.is_null() && *activation.what == b'C' as c_char;
            let is_finaliser =
                !activation.name.is_null() && std::ffi::CStr::from_ptr(activation.name).to_bytes() == b"__gc";
            if !is_native && !is_finaliser {
                continue;
            }
            push_function_name(state, of, &mut activation);
            let name = &*check_string(state, -1);
            // These know how to be left.
            let can_be_left = [&b"_G.pcall"[..], b"_G.xpcall", b"coroutine.resume", b"coroutine.wrap"].contains(&name);
            if !can_be_left {
                return true;
            }
            lua::lua_settop(state, -2);
        }
        false
    }
}

/// Pushes the name of a function: `table.sort` if a library has it, else what the call named it.
unsafe fn push_function_name(state: Raw, of: Raw, activation: &mut lua::lua_Debug) {
    // SAFETY: contract of `push`; `activation` belongs to a live call of `of`.
    unsafe {
        if lua::lua_checkstack(of, 1) == 0 {
            return push_str(state, "a native function");
        }
        lua::lua_getinfo(of, c"f".as_ptr(), activation);
        if of != state {
            lua::lua_xmove(of, state, 1);
        }
        let function = lua::lua_gettop(state);
        lua::lua_getfield(state, lua::LUA_REGISTRYINDEX, c"_LOADED".as_ptr());
        lua::lua_pushnil(state);
        while lua::lua_next(state, function + 1) != 0 {
            if lua::lua_type(state, -1) == lua::LUA_TTABLE && lua::lua_type(state, -2) == lua::LUA_TSTRING {
                lua::lua_pushnil(state);
                while lua::lua_next(state, -2) != 0 {
                    if lua::lua_rawequal(state, -1, function) != 0 && lua::lua_type(state, -2) == lua::LUA_TSTRING {
                        // _LOADED, module, its table, name, function.
                        lua::lua_pushvalue(state, -4);
                        push_str(state, ".");
                        lua::lua_pushvalue(state, -4);
                        lua::lua_concat(state, 3);
                        lua::lua_copy(state, -1, function);
                        lua::lua_settop(state, function);
                        return;
                    }
                    lua::lua_settop(state, -2);
                }
            }
            lua::lua_settop(state, -2);
        }
        lua::lua_settop(state, function - 1);
        match activation.name.is_null() {
            true => push_str(state, "a native function"),
            false => {
                lua::lua_pushstring(state, activation.name);
            }
        }
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
        let start = lua::lua_tolstring(state, index, &mut len);
        if start.is_null() {
            raise_argument(state, index, "a string is wanted");
        }
        ptr::slice_from_raw_parts(start.cast::<u8>(), len)
    }
}

/// The integer at `index`; raises for anything else.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn check_integer(state: Raw, index: c_int) -> i64 {
    // SAFETY: by the contract above.
    unsafe {
        let mut is_integer = 0;
        let value = lua::lua_tointegerx(state, index, &mut is_integer);
        if is_integer == 0 {
            raise_argument(state, index, "an integer is wanted");
        }
        value
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
            0 => check_integer(state, index),
            _ => default,
        }
    }
}

/// The number at `index`; raises for anything else.
///
/// # Safety
/// As for [`push`].
pub(crate) unsafe fn check_number(state: Raw, index: c_int) -> f64 {
    // SAFETY: by the contract above.
    unsafe {
        let mut is_number = 0;
        let value = lua::lua_tonumberx(state, index, &mut is_number);
        if is_number == 0 {
            raise_argument(state, index, "a number is wanted");
        }
        value
    }
}
