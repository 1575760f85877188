//! Errors on their way to Lua: returned, raised, and blamed on the right line.

use std::{
    ffi::{CStr, c_char, c_int},
    mem,
};

use mlua::ffi as lua;

use super::{Raw, check_string, shared};

/// An error on its way to Lua: everything but the message is in here, the message is in
/// [`Shared::message`] until it has been copied.
#[derive(Clone, Copy)]
pub(crate) struct Failure {
    pub(super) kind: &'static str,
    pub(super) op: &'static str,
    pub(super) message: *const u8,
    pub(super) len: usize,
    pub(super) code: Name,
    pub(super) number: Option<i64>,
    /// The kind of the error below, whose words are the same.
    pub(super) cause: Option<&'static str>,
}

/// A short name by value.
#[derive(Clone, Copy)]
pub(crate) struct Name([u8; 63], u8);

impl Name {
    /// The name's bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0[..self.1.into()]
    }

    pub(crate) fn new(text: &str) -> Self {
        let mut bytes = [0; 63];
        let len = text.len().min(bytes.len());
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self(bytes, len as u8)
    }
}

/// Pushes an error table.
pub(super) unsafe fn push_failure(state: Raw, failure: Failure) {
    // SAFETY: contract of `push`. The message is copied before anything else can run.
    unsafe {
        lua::lua_pushlstring(state, failure.message.cast(), failure.len);
        if let Some(kind) = failure.cause {
            lua::lua_pushvalue(state, -1);
            push_error(state, kind, &failure);
            lua::lua_rotate(state, -2, 1);
        }
        push_error(state, failure.kind, &failure);
        if failure.cause.is_some() {
            lua::lua_rotate(state, -2, 1);
            lua::lua_setfield(state, -2, c"cause".as_ptr());
        }
    }
}

/// Makes an error of the message on the top of the stack, and puts it in its place.
unsafe fn push_error(state: Raw, kind: &str, failure: &Failure) {
    // SAFETY: contract of `push`.
    unsafe {
        lua::lua_createtable(state, 0, 4);
        lua::lua_rotate(state, -2, 1);
        lua::lua_setfield(state, -2, c"message".as_ptr());
        push_str(state, kind);
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

pub(super) unsafe fn push_str(state: Raw, text: &str) {
    // SAFETY: contract of `push`.
    unsafe {
        lua::lua_pushlstring(state, text.as_ptr().cast::<c_char>(), text.len());
    }
}

/// Raises an `argument` error whose text is on the top of the stack, behind the caller's position.
pub(super) unsafe fn raise_top(state: Raw) -> ! {
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
pub(super) unsafe fn push_place(state: Raw) {
    // SAFETY: contract of `push`; Lua fills what it is asked for.
    unsafe {
        let mut activation: lua::lua_Debug = mem::zeroed();
        let mut level = 1;
        while lua::lua_getstack(state, level, &mut activation) != 0
            && lua::lua_getinfo(state, c"S".as_ptr(), &mut activation) != 0
            && CStr::from_ptr(activation.short_src.as_ptr()).to_bytes() == b"[cosocket]"
        {
            level += 1;
        }
        lua::luaL_where(state, level);
    }
}

/// Pushes the name of the raw function that runs, or "?".
pub(super) unsafe fn push_caller(state: Raw) {
    // SAFETY: contract of `push`; Lua fills what it is asked for.
    unsafe {
        let mut activation: lua::lua_Debug = mem::zeroed();
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
        // Asked before anything is pushed, which would be found where an argument is missing.
        let kind = lua::lua_type(state, index);
        push_bad_argument(state, index);
        push_str(state, wanted);
        push_str(state, ", got ");
        if kind == lua::LUA_TNUMBER {
            // Of a number its value is more often wrong than its type.
            lua::lua_pushvalue(state, index);
        } else {
            lua::lua_pushstring(state, lua::lua_typename(state, kind));
        }
        lua::lua_concat(state, 4);
        raise_top(state)
    }
}

/// Says that a method was called with a dot, or on something else than `object`.
///
/// # Safety
/// As for [`push`].
pub(super) unsafe fn raise_not_me(state: Raw, object: &'static str) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        push_str(state, "call this with a colon, on a ");
        push_str(state, object);
        push_str(state, ": ");
        push_str(state, object);
        push_str(state, ":");
        push_caller(state);
        push_str(state, "()");
        lua::lua_concat(state, 7);
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
pub(super) unsafe fn push_bad_argument(state: Raw, index: c_int) {
    // SAFETY: contract of `push`; Lua fills what it is asked for.
    unsafe {
        let mut activation: lua::lua_Debug = mem::zeroed();
        let known = lua::lua_getstack(state, 0, &mut activation) != 0
            && lua::lua_getinfo(state, c"n".as_ptr(), &mut activation) != 0;
        // In a method call people do not count the object before the colon.
        let is_method =
            known && !activation.namewhat.is_null() && CStr::from_ptr(activation.namewhat).to_bytes() == b"method";
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
pub(super) unsafe fn raise_unyieldable(state: Raw) -> ! {
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
pub(super) unsafe fn push_barrier(state: Raw, of: Raw) -> bool {
    // SAFETY: contract of `push`; `of` is `state` or a coroutine that has, further out, resumed it.
    unsafe {
        let mut activation: lua::lua_Debug = mem::zeroed();
        let mut level = 1;
        while lua::lua_getstack(of, level, &mut activation) != 0 {
            level += 1;
            lua::lua_getinfo(of, c"nS".as_ptr(), &mut activation);
            let is_native = !activation.what.is_null() && *activation.what == b'C' as c_char;
            let is_finaliser = !activation.name.is_null() && CStr::from_ptr(activation.name).to_bytes() == b"__gc";
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
pub(super) unsafe fn push_function_name(state: Raw, of: Raw, activation: &mut lua::lua_Debug) {
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
