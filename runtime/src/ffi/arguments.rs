//! Arguments of raw functions, each with the error that names it.

use std::{ffi::c_int, ptr};

use mlua::ffi as lua;

use super::{Raw, raise_argument};

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
