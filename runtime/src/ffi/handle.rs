//! Objects that are a name: a userdata with the mark of its kind and the key of a slot.

use std::{
    ffi::{CStr, c_int},
    mem::size_of,
};

use mlua::{Lua, Value, ffi as lua};
use slotmap::KeyData;

use super::{Answer, Raw, guarded, shared};
use crate::shared::Grave;

#[repr(C)]
struct Handle {
    mark: u64,
    key: u64,
}

/// Pushes a new object of the kind `mark`.
///
/// # Safety
/// `state` has room for two values, and only `Copy` locals are alive.
pub(super) unsafe fn push_handle(state: Raw, mark: u64, key: KeyData, metatable: &CStr) {
    // SAFETY: by the contract above; the block is written whole before its metatable is set.
    unsafe {
        let handle = lua::lua_newuserdatauv(state, size_of::<Handle>(), 0).cast::<Handle>();
        handle.write(Handle { mark, key: key.as_ffi() });
        lua::luaL_setmetatable(state, metatable.as_ptr());
    }
}

/// The key of the object at `index`, if it is of the kind `mark`.
///
/// # Safety
/// `index` is acceptable in `state`.
pub(super) unsafe fn to_handle(state: Raw, index: c_int, mark: u64) -> Option<KeyData> {
    // SAFETY: reads a type, a length, and the mark only when the length has room for it.
    unsafe {
        let block = lua::lua_touserdata(state, index).cast::<Handle>();
        let ours = !block.is_null()
            && lua::lua_type(state, index) == lua::LUA_TUSERDATA
            && lua::lua_rawlen(state, index) as usize == size_of::<Handle>()
            && (*block).mark == mark;
        ours.then(|| KeyData::from_ffi((*block).key))
    }
}

/// The key of an object that a script handed to a native function, if it is of the kind `mark`.
pub(super) fn handle_in(lua: &Lua, value: &Value, mark: u64) -> mlua::Result<Option<KeyData>> {
    let Value::UserData(userdata) = value else { return Ok(None) };
    // SAFETY: only reads the argument on the stack, and leaves one value instead of it.
    let key: Option<i64> = unsafe {
        lua.exec_raw(userdata, |state| {
            let key = to_handle(state, -1, mark);
            lua::lua_settop(state, 0);
            match key {
                Some(key) => lua::lua_pushinteger(state, key.as_ffi() as i64),
                None => lua::lua_pushnil(state),
            }
        })?
    };
    Ok(key.map(|key| KeyData::from_ffi(key as u64)))
}

/// A finaliser's work: leaves the object's slot for the loop to see to.
///
/// # Safety
/// Rules of this module.
pub(super) unsafe fn bury(state: Raw, mark: u64, grave: impl FnOnce(KeyData) -> Grave) -> c_int {
    // SAFETY: only enqueues; the queue's borrow is never held across a call into Lua.
    unsafe {
        if let Some(key) = to_handle(state, 1, mark) {
            guarded(|| {
                shared(state).graveyard.borrow_mut().push(grave(key));
                Answer::Nil
            });
        }
        0
    }
}
