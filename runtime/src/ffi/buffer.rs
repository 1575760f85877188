//! `cosocket.buffer()` as Lua sees it: a userdata that holds a [`Buffer`].

use std::{
    cell::{Cell as Counter, RefCell},
    ffi::c_int,
    mem::{offset_of, size_of},
    ptr,
};

use mlua::{AnyUserData, FromLua, Lua, Table, Value, ffi as lua, state::RawLua};

use super::{Answer, Raw, check_integer, check_string, guarded, opt_integer, push, raise_not_me, raise_value};
use crate::buffer::{Buffer, Order, fits};

const MAGIC: u64 = u64::from_be_bytes(*b"mw:bytes");
const METATABLE: &str = "moonwire.buffer";

#[repr(C)]
struct Cell {
    magic: u64,
    buffer: RefCell<Buffer>,
    /// Counts how often somebody has come to the buffer.
    touches: Counter<u32>,
}

impl Cell {
    fn touch(&self) {
        self.touches.set(self.touches.get().wrapping_add(1));
    }
}

/// A buffer that a script handed to a codec.
///
/// Take it as an argument of a native function; the borrow lasts as long as the closure.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use moonwire_runtime::{BufferRef, Runtime};
///
/// let runtime = Runtime::builder()
///     .module("checksum", |lua| {
///         let sum = lua.create_function(|_, bytes: BufferRef| {
///             Ok(bytes.with(|buffer| buffer.as_slice().iter().map(|&b| u64::from(b)).sum::<u64>()))
///         })?;
///         Ok(mlua::Value::Function(sum))
///     })
///     .build()?;
/// runtime.run_source("sum", "assert(require('checksum')(require('cosocket').buffer('\\1\\2\\3')) == 6)")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BufferRef(AnyUserData);

impl BufferRef {
    /// Lends the buffer to `work`.
    ///
    /// # Panics
    /// When `work` comes back to the same buffer, through Lua or another `BufferRef`.
    pub fn with<R>(&self, work: impl FnOnce(&mut Buffer) -> R) -> R {
        // SAFETY: `from_lua` saw the magic, userdata never moves, and the handle keeps it alive.
        // A finalised one holds an empty buffer.
        let cell = unsafe { &*self.0.to_pointer().cast::<Cell>() };
        cell.touch();
        work(&mut cell.buffer.borrow_mut())
    }
}

impl FromLua for BufferRef {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        let found = value.type_name();
        if let Value::UserData(userdata) = value {
            // SAFETY: only reads the argument on the stack, and leaves one boolean instead of it.
            let is_buffer: bool = unsafe {
                lua.exec_raw(&userdata, |state| {
                    let is_buffer = !to_cell(state, -1).is_null();
                    lua::lua_settop(state, 0);
                    lua::lua_pushboolean(state, is_buffer.into());
                })?
            };
            if is_buffer {
                return Ok(Self(userdata));
            }
        }
        Err(wrong(found))
    }

    /// The same for an argument still on the stack, without a protected call: a codec takes a
    /// buffer with every message.
    unsafe fn from_stack(index: c_int, lua: &RawLua) -> mlua::Result<Self> {
        // SAFETY: mlua hands out an index of that state; `to_cell` only reads.
        unsafe {
            if !to_cell(lua.state(), index).is_null() {
                return AnyUserData::from_stack(index, lua).map(Self);
            }
            Err(wrong(Value::from_stack(index, lua)?.type_name()))
        }
    }
}

fn wrong(found: &'static str) -> mlua::Error {
    mlua::Error::FromLuaConversionError { from: found, to: "cosocket.Buffer".to_owned(), message: None }
}

/// The buffer at `index`, or null.
///
/// # Safety
/// `index` is acceptable in `state`.
pub(crate) unsafe fn to_buffer(state: *mut lua::lua_State, index: c_int) -> *const RefCell<Buffer> {
    // SAFETY: by the contract above.
    let cell = unsafe { to_cell(state, index) };
    if cell.is_null() {
        return ptr::null();
    }
    // SAFETY: `to_cell` saw the magic.
    unsafe {
        (*cell).touch();
        &raw const (*cell).buffer
    }
}

/// How often somebody has come to a buffer, if only to look. Nobody changes one without coming to it first.
///
/// # Safety
/// `buffer` is one that [`to_buffer`] answered, and alive.
pub(super) unsafe fn touches(buffer: *const RefCell<Buffer>) -> u32 {
    // SAFETY: by the contract above it stands in a `Cell`.
    unsafe { (*buffer.byte_sub(offset_of!(Cell, buffer)).cast::<Cell>()).touches.get() }
}

unsafe fn to_cell(state: *mut lua::lua_State, index: c_int) -> *const Cell {
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

/// The buffer that is the first argument; raises when it is something else.
unsafe fn me<'a>(state: *mut lua::lua_State) -> &'a RefCell<Buffer> {
    // SAFETY: the argument stays on the stack, and so alive, until the raw function returns.
    unsafe {
        let buffer = to_buffer(state, 1);
        if buffer.is_null() {
            raise_not_me(state, "buffer");
        }
        &*buffer
    }
}

unsafe extern "C-unwind" fn new(state: Raw) -> c_int {
    // SAFETY: only `Copy` locals; the block is written whole before its metatable is set.
    unsafe {
        let text = match lua::lua_isnoneornil(state, 1) {
            0 => check_string(state, 1),
            _ => &raw const *b"",
        };
        let cell = lua::lua_newuserdatauv(state, size_of::<Cell>(), 0).cast::<Cell>();
        cell.write(Cell { magic: MAGIC, buffer: RefCell::new(Buffer::new()), touches: Counter::new(0) });
        lua::luaL_setmetatable(state, c"moonwire.buffer".as_ptr());
        let answer = guarded(|| {
            (*cell).buffer.borrow_mut().extend(&*text);
            Answer::Nil
        });
        if let Answer::Bug = answer {
            push(state, answer);
        }
        1
    }
}

unsafe extern "C-unwind" fn gc(state: Raw) -> c_int {
    // SAFETY: Lua finalises once; what is left is an empty buffer, should another finaliser look.
    unsafe {
        let cell = to_buffer(state, 1);
        if !cell.is_null() {
            guarded(|| {
                if let Ok(mut buffer) = (*cell).try_borrow_mut() {
                    *buffer = Buffer::new();
                }
                Answer::Nil
            });
        }
        0
    }
}

unsafe extern "C-unwind" fn len(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        push(state, guarded(|| Answer::Integer(buffer.borrow().len() as i64)))
    }
}

unsafe extern "C-unwind" fn append(state: Raw) -> c_int {
    // SAFETY: rules of this module; each argument stays on the stack while its bytes are copied.
    unsafe {
        let buffer = me(state);
        for index in 2..=lua::lua_gettop(state) {
            let other = to_buffer(state, index);
            let answer = if other.is_null() {
                let bytes = check_string(state, index);
                guarded(|| {
                    buffer.borrow_mut().extend(&*bytes);
                    Answer::Me
                })
            } else {
                guarded(|| {
                    // A buffer may be appended to itself.
                    let copy = (*other).borrow().as_slice().to_vec();
                    buffer.borrow_mut().extend(&copy);
                    Answer::Me
                })
            };
            if let Answer::Bug = answer {
                return push(state, answer);
            }
        }
        push(state, Answer::Me)
    }
}

/// An optional count or offset: absent is `default`, negative raises.
unsafe fn opt_size(state: Raw, index: c_int, default: usize) -> usize {
    // SAFETY: rules of this module.
    unsafe {
        let value = opt_integer(state, index, default.min(i64::MAX as usize) as i64);
        match usize::try_from(value) {
            Ok(size) => size,
            Err(_) => raise_value(state, index, "must not be negative"),
        }
    }
}

unsafe extern "C-unwind" fn peek(state: Raw) -> c_int {
    // SAFETY: rules of this module; the bytes are copied before anything else can run.
    unsafe {
        let buffer = me(state);
        let (n, offset) = (opt_size(state, 2, usize::MAX), opt_size(state, 3, 0));
        push(
            state,
            guarded(|| {
                let held = buffer.borrow();
                let rest = held.as_slice().get(offset..).unwrap_or_default();
                let part = &rest[..n.min(rest.len())];
                Answer::Bytes(part.as_ptr(), part.len())
            }),
        )
    }
}

unsafe extern "C-unwind" fn take(state: Raw) -> c_int {
    // SAFETY: rules of this module; the bytes are copied into Lua before they are dropped.
    unsafe {
        let buffer = me(state);
        let wanted = opt_size(state, 2, usize::MAX);
        let all = lua::lua_isnoneornil(state, 2) != 0;
        let answer = guarded(|| {
            let held = buffer.borrow();
            let n = if all { held.len() } else { wanted };
            match held.as_slice().get(..n) {
                Some(part) => Answer::Bytes(part.as_ptr(), n),
                None => Answer::Nil,
            }
        });
        let count = push(state, answer);
        if let Answer::Bytes(_, n) = answer {
            guarded(|| {
                buffer.borrow_mut().skip(n);
                Answer::Nil
            });
        }
        count
    }
}

unsafe extern "C-unwind" fn skip(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        let n = opt_size(state, 2, usize::MAX);
        push(
            state,
            guarded(|| {
                buffer.borrow_mut().skip(n);
                Answer::Me
            }),
        )
    }
}

unsafe extern "C-unwind" fn clear(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        push(
            state,
            guarded(|| {
                buffer.borrow_mut().clear();
                Answer::Me
            }),
        )
    }
}

unsafe extern "C-unwind" fn find(state: Raw) -> c_int {
    // SAFETY: rules of this module; the needle stays on the stack.
    unsafe {
        let buffer = me(state);
        let needle = check_string(state, 2);
        let offset = opt_size(state, 3, 0);
        push(
            state,
            guarded(|| match buffer.borrow().find(&*needle, offset) {
                Some(at) => Answer::Integer(at as i64),
                None => Answer::Nil,
            }),
        )
    }
}

unsafe extern "C-unwind" fn line(state: Raw) -> c_int {
    // SAFETY: rules of this module; the bytes are copied into Lua before they are dropped.
    unsafe {
        let buffer = me(state);
        let mut whole = 0;
        let answer = guarded(|| {
            let held = buffer.borrow();
            match held.line() {
                Some((text, with_end)) => {
                    whole = with_end;
                    Answer::Bytes(held.as_slice().as_ptr(), text)
                }
                None => Answer::Nil,
            }
        });
        let count = push(state, answer);
        guarded(|| {
            buffer.borrow_mut().skip(whole);
            Answer::Nil
        });
        count
    }
}

/// The size of an integer at `index`: 1 to 8.
unsafe fn check_width(state: Raw, index: c_int) -> usize {
    // SAFETY: rules of this module.
    unsafe {
        let size = check_integer(state, index);
        if !(1..=8).contains(&size) {
            raise_value(state, index, "an integer has 1 to 8 bytes");
        }
        size as usize
    }
}

unsafe fn opt_order(state: Raw, index: c_int) -> Order {
    // SAFETY: rules of this module.
    unsafe {
        if lua::lua_isnoneornil(state, index) != 0 {
            return Order::Big;
        }
        match &*check_string(state, index) {
            b"big" => Order::Big,
            b"little" => Order::Little,
            _ => raise_value(state, index, "the order is \"big\" or \"little\""),
        }
    }
}

/// The integer at `index`, which must fit `size` bytes.
unsafe fn check_fitting(state: Raw, index: c_int, size: usize, signed: bool) -> u64 {
    // SAFETY: rules of this module.
    unsafe {
        let value = check_integer(state, index);
        if !fits(value, size, signed) {
            raise_value(state, index, "does not fit that many bytes");
        }
        value as u64
    }
}

unsafe fn append_integer(state: Raw, signed: bool) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        let size = check_width(state, 3);
        let value = check_fitting(state, 2, size, signed);
        let order = opt_order(state, 4);
        push(
            state,
            guarded(|| {
                buffer.borrow_mut().put_uint(value, size, order);
                Answer::Me
            }),
        )
    }
}

unsafe extern "C-unwind" fn append_uint(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { append_integer(state, false) }
}

unsafe extern "C-unwind" fn append_int(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { append_integer(state, true) }
}

fn integer(buffer: &Buffer, size: usize, offset: usize, order: Order, signed: bool) -> Answer {
    let value = match signed {
        true => buffer.int(size, offset, order),
        false => buffer.uint(size, offset, order).map(|value| value as i64),
    };
    value.map_or(Answer::Nil, Answer::Integer)
}

unsafe fn peek_integer(state: Raw, signed: bool) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        let (size, offset, order) = (check_width(state, 2), opt_size(state, 3, 0), opt_order(state, 4));
        push(state, guarded(|| integer(&buffer.borrow(), size, offset, order, signed)))
    }
}

unsafe extern "C-unwind" fn peek_uint(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { peek_integer(state, false) }
}

unsafe extern "C-unwind" fn peek_int(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { peek_integer(state, true) }
}

unsafe fn take_integer(state: Raw, signed: bool) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        let (size, order) = (check_width(state, 2), opt_order(state, 3));
        push(
            state,
            guarded(|| {
                let mut held = buffer.borrow_mut();
                let answer = integer(&held, size, 0, order, signed);
                if let Answer::Integer(_) = answer {
                    held.skip(size);
                }
                answer
            }),
        )
    }
}

unsafe extern "C-unwind" fn take_uint(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { take_integer(state, false) }
}

unsafe extern "C-unwind" fn take_int(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { take_integer(state, true) }
}

unsafe extern "C-unwind" fn set_uint(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let buffer = me(state);
        let offset = opt_size(state, 2, 0);
        let size = check_width(state, 4);
        let value = check_fitting(state, 3, size, false);
        let order = opt_order(state, 5);
        push(
            state,
            guarded(|| match buffer.borrow_mut().set_uint(offset, value, size, order) {
                true => Answer::Me,
                false => Answer::Raise("set_uint: the buffer ends before that"),
            }),
        )
    }
}

/// Registers the metatable and answers `cosocket.buffer`.
pub(crate) fn install(lua: &Lua) -> mlua::Result<mlua::Function> {
    let methods: [(&str, lua::lua_CFunction); 15] = [
        ("append", append),
        ("peek", peek),
        ("take", take),
        ("skip", skip),
        ("clear", clear),
        ("find", find),
        ("line", line),
        ("append_uint", append_uint),
        ("append_int", append_int),
        ("peek_uint", peek_uint),
        ("peek_int", peek_int),
        ("take_uint", take_uint),
        ("take_int", take_int),
        ("set_uint", set_uint),
        ("len", len),
    ];
    let metatable: Table = lua.create_table()?;
    let index = lua.create_table()?;
    // SAFETY: every function keeps the rules of this module.
    unsafe {
        for (name, function) in methods {
            index.raw_set(name, lua.create_c_function(function)?)?;
        }
        metatable.raw_set("__index", index)?;
        metatable.raw_set("__len", lua.create_c_function(len)?)?;
        metatable.raw_set("__gc", lua.create_c_function(gc)?)?;
        metatable.raw_set("__name", "cosocket.Buffer")?;
        metatable.raw_set("__metatable", false)?;
        lua.set_named_registry_value(METATABLE, metatable)?;
        lua.create_c_function(new)
    }
}
