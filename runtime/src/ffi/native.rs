//! Native functions for codecs whose every nanosecond counts: arguments are read where Lua keeps them, and an
//! answer is described first and made afterwards. The safe side of it is [`Native`].
//!
//! While [`Native::call`] runs, Lua is only looked at, in ways that neither allocate nor raise: destructors may be
//! alive there. While the answer is made, only `Copy` locals are: [`Record`] has no pointers, its bytes are places
//! in a buffer. Making an answer allocates, so a finaliser may run and touch that very buffer; each touch is
//! counted, and the call is tried again when there was one.

use std::{
    cell::RefCell,
    ffi::c_int,
    fmt,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use mlua::{Function, Lua, ffi as lua};

use super::{
    Raw,
    buffer::{to_buffer, touches},
    raise,
};
use crate::buffer::Buffer;

/// Fields that a [`Record`] holds at most.
pub const FIELDS_MAX: usize = 24;

/// How often a finaliser may spoil an answer before the slow function gives it.
const TRIES: u32 = 4;

/// Upvalues in front of the words: the slow function.
const WORDS_FROM: c_int = 2;

/// A function that scripts call for every message.
///
/// It handles the common case, and leaves everything else, a wrong argument or an error of the outside world
/// included, to a slow function made with mlua: [`Outcome::Slow`].
///
/// ```
/// use moonwire_runtime::{Arguments, Native, Outcome, Record, Runtime, mlua::Value, native_function};
///
/// /// Takes a byte and the text after it, as many bytes as it says.
/// struct Text;
///
/// impl Native for Text {
///     const WORDS: &'static [&'static str] = &["length", "text"];
///
///     fn call(arguments: &Arguments<'_>, record: &mut Record) -> Outcome {
///         let Some(buffer) = arguments.buffer(1) else { return Outcome::Slow };
///         let held = buffer.borrow();
///         let Some((&length, rest)) = held.as_slice().split_first() else { return Outcome::Nil };
///         let Some(text) = rest.get(..length.into()) else { return Outcome::Nil };
///         record.integer(0, length.into());
///         record.bytes(1, held.as_slice(), text);
///         Outcome::Take { buffer: 1, count: 1 + text.len() }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::builder()
///     .module("text", |lua| {
///         let slow = lua.create_function(|_, _: Value| Err::<(), _>(mlua::Error::runtime("a buffer is wanted")))?;
///         Ok(Value::Function(native_function::<Text>(lua, &slow)?))
///     })
///     .build()?;
/// runtime.run_source("text", r#"
///     local take, buffer = require "text", require "cosocket".buffer("\3abcd")
///     assert(take(buffer).text == "abc" and #buffer == 1)
///     assert(not pcall(take, "no buffer"))
/// "#)?;
/// # Ok(())
/// # }
/// ```
pub trait Native: 'static {
    /// The strings that answers are made of, names of fields and values; a [`Record`] has their positions.
    const WORDS: &'static [&'static str] = &[];

    /// Looks at the arguments, and answers if it can. What it changes before it answers [`Outcome::Slow`], or
    /// before it panics, stays changed; it is called again when a finaliser has touched the buffer it takes from.
    fn call(arguments: &Arguments<'_>, record: &mut Record) -> Outcome;
}

/// What a [`Native`] function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What the slow function answers to the same arguments.
    Slow,
    /// `nil`.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A table of what the record holds, for `count` bytes that are dropped off the front of a buffer.
    Take {
        /// Which argument that buffer is, the one whose bytes the record names.
        buffer: usize,
        /// How many bytes.
        count: usize,
    },
}

/// The arguments of a call, from 1 on, as Lua holds them. Looking at them changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'a> {
    state: Raw,
    count: c_int,
    call: PhantomData<&'a RefCell<Buffer>>,
}

impl<'a> Arguments<'a> {
    /// # Safety
    /// `state` runs a call that does not return, and whose arguments stay on the stack, while this lives.
    unsafe fn of(state: Raw) -> Self {
        // SAFETY: only reads the height of the stack.
        Self { state, count: unsafe { lua::lua_gettop(state) }, call: PhantomData }
    }

    fn index(&self, position: usize) -> c_int {
        // Beyond the arguments Lua would find values of ours, and beyond its stack anything.
        match c_int::try_from(position) {
            Ok(index) if index >= 1 && index <= self.count => index,
            _ => lua::lua_upvalueindex(256),
        }
    }

    /// Whether it is absent or `nil`.
    pub fn is_nil(&self, position: usize) -> bool {
        // SAFETY: an acceptable index; only reads.
        unsafe { lua::lua_isnoneornil(self.state, self.index(position)) != 0 }
    }

    /// An integer. A float, or a string that says a number, is none here.
    pub fn integer(&self, position: usize) -> Option<i64> {
        let index = self.index(position);
        // SAFETY: an acceptable index; reading an integer converts nothing.
        unsafe { (lua::lua_isinteger(self.state, index) != 0).then(|| lua::lua_tointeger(self.state, index)) }
    }

    /// A boolean.
    pub fn boolean(&self, position: usize) -> Option<bool> {
        let index = self.index(position);
        // SAFETY: an acceptable index; only reads.
        unsafe {
            (lua::lua_type(self.state, index) == lua::LUA_TBOOLEAN).then(|| lua::lua_toboolean(self.state, index) != 0)
        }
    }

    /// The bytes of a string. A number is none here.
    pub fn bytes(&self, position: usize) -> Option<&'a [u8]> {
        let index = self.index(position);
        // SAFETY: an acceptable index; a string is not converted, does not move, and stays on the stack, and so
        // alive, until the call is over.
        unsafe {
            if lua::lua_type(self.state, index) != lua::LUA_TSTRING {
                return None;
            }
            let mut len = 0;
            let start = lua::lua_tolstring(self.state, index, &mut len);
            Some(slice::from_raw_parts(start.cast(), len))
        }
    }

    /// A `cosocket.Buffer`. Borrowing it twice at once panics, which is caught.
    pub fn buffer(&self, position: usize) -> Option<&'a RefCell<Buffer>> {
        // SAFETY: an acceptable index; a userdata does not move and stays on the stack until the call is over.
        unsafe { to_buffer(self.state, self.index(position)).as_ref() }
    }
}

/// A table in the making: fields in the order they are given, those of an inner table behind it.
#[derive(Clone, Copy)]
pub struct Record {
    /// The first `count` are there.
    fields: [MaybeUninit<Field>; FIELDS_MAX],
    count: usize,
    /// How many of them are in the outermost table.
    outer: u8,
    /// How many more that table will get later.
    spare: u8,
    /// How many more inner tables are to get.
    owed: usize,
}

/// A field, or an item of a list, whose name is [`ITEM`].
#[derive(Debug, Clone, Copy)]
struct Field {
    name: u8,
    value: Value,
}

const ITEM: u8 = u8::MAX;

#[derive(Debug, Clone, Copy)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Word(u8),
    /// Where in the buffer.
    Bytes(u32, u32),
    /// A table, and how many of the next fields are in it: named ones, and items.
    Table(u8, u8),
}

impl fmt::Debug for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Record").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Record {
    const fn new() -> Self {
        Self { fields: [MaybeUninit::uninit(); FIELDS_MAX], count: 0, outer: 0, spare: 0, owed: 0 }
    }

    fn push(&mut self, name: usize, value: Value) {
        self.fields[self.count].write(Field { name: name as u8, value });
        self.count += 1;
        match self.owed.checked_sub(1) {
            Some(owed) => self.owed = owed,
            None => self.outer += 1,
        }
        if let Value::Table(fields, items) = value {
            self.owed += usize::from(fields) + usize::from(items);
        }
    }

    /// How many more fields it has room for. One more is a panic.
    pub fn room(&self) -> usize {
        FIELDS_MAX - self.count
    }

    /// Makes the outermost table large enough for so many more fields, which Lua code will set.
    pub fn reserve(&mut self, fields: usize) {
        self.spare = fields as u8;
    }

    /// The name of the items of a list.
    pub const ITEM: usize = ITEM as usize;

    /// An integer; `name` is a position in [`Native::WORDS`].
    pub fn integer(&mut self, name: usize, value: i64) {
        self.push(name, Value::Integer(value));
    }

    /// A boolean.
    pub fn boolean(&mut self, name: usize, value: bool) {
        self.push(name, Value::Boolean(value));
    }

    /// One of the words.
    pub fn word(&mut self, name: usize, word: usize) {
        self.push(name, Value::Word(word as u8));
    }

    /// A string: the bytes of `part`, which lie in `whole`, the bytes of the buffer that is taken from.
    ///
    /// # Panics
    /// When they lie elsewhere, or beyond 4 GiB.
    pub fn bytes(&mut self, name: usize, whole: &[u8], part: &[u8]) {
        let Range { start, end } = whole.as_ptr_range();
        let found = part.as_ptr_range();
        let inside = part.is_empty() || (start <= found.start && found.end <= end);
        assert!(inside, "the bytes of a record lie in the buffer that is taken from");
        let at = if part.is_empty() { 0 } else { found.start.addr() - start.addr() };
        let (at, len) = (u32::try_from(at), u32::try_from(part.len()));
        self.push(name, Value::Bytes(at.expect("below 4 GiB"), len.expect("below 4 GiB")));
    }

    /// A table within. The next `fields` go into it by name, and the `items` behind them as a list.
    pub fn table(&mut self, name: usize, fields: usize, items: usize) {
        self.push(name, Value::Table(fields as u8, items as u8));
    }
}

/// Makes `N` a function, beside the `slow` one that answers what it leaves.
pub fn native_function<N: Native>(lua: &Lua, slow: &Function) -> mlua::Result<Function> {
    let words = N::WORDS.len();
    assert!(words < ITEM.into(), "more words than a function has upvalues");
    // SAFETY: pushes one closure. Its words are the strings that `push_value` expects, its first upvalue is callable.
    unsafe {
        lua.exec_raw(slow, |state| {
            lua::luaL_checkstack(state, words as c_int + 1, ptr::null());
            for word in N::WORDS {
                lua::lua_pushlstring(state, word.as_ptr().cast(), word.len());
            }
            lua::lua_pushcclosure(state, run::<N>, words as c_int + 1);
        })
    }
}

unsafe extern "C-unwind" fn run<N: Native>(state: Raw) -> c_int {
    // SAFETY: rules of this module; the locals are `Copy`.
    unsafe {
        let arguments = Arguments::of(state);
        for _ in 0..TRIES {
            let mut record = Record::new();
            match catch_unwind(AssertUnwindSafe(|| N::call(&arguments, &mut record))).ok() {
                None => raise(state, "a bug in this runtime: a native function panicked; please report it"),
                Some(Outcome::Slow) => break,
                Some(Outcome::Nil) => lua::lua_pushnil(state),
                Some(Outcome::Boolean(value)) => lua::lua_pushboolean(state, value.into()),
                Some(Outcome::Integer(value)) => lua::lua_pushinteger(state, value),
                Some(Outcome::Take { buffer, count }) => {
                    let buffer = to_buffer(state, arguments.index(buffer));
                    if buffer.is_null() {
                        raise(state, "a bug in this runtime: an answer from no buffer; please report it");
                    }
                    let table = Value::Table(record.outer, 0);
                    let seen = touches(buffer);
                    let mut making =
                        Making { buffer, touches: seen, next: 0, spare: record.spare.into(), spoilt: false };
                    making.push_value(state, &record, table);
                    // The table is whole, and nothing allocates from here on.
                    if making.spoilt || touches(buffer) != making.touches || !take(buffer, count) {
                        lua::lua_settop(state, arguments.count);
                        continue;
                    }
                }
            }
            return 1;
        }
        lua::lua_pushvalue(state, lua::lua_upvalueindex(1));
        lua::lua_rotate(state, 1, 1);
        lua::lua_call(state, arguments.count, lua::LUA_MULTRET);
        lua::lua_gettop(state)
    }
}

/// Drops what was taken. `false` when somebody holds the buffer, who should not.
fn take(buffer: *const RefCell<Buffer>, count: usize) -> bool {
    // SAFETY: the buffer is an argument of the running call.
    let buffer = unsafe { &*buffer };
    catch_unwind(AssertUnwindSafe(|| buffer.borrow_mut().skip(count))).is_ok()
}

/// An answer in the making.
#[derive(Clone, Copy)]
struct Making {
    buffer: *const RefCell<Buffer>,
    /// As counted when the record was made.
    touches: u32,
    /// The next field.
    next: usize,
    /// Room for more fields in the next table.
    spare: c_int,
    /// The record no longer says what the buffer holds: a finaliser has touched it.
    spoilt: bool,
}

impl Making {
    /// Pushes a value, with all the fields that follow in it.
    ///
    /// # Safety
    /// Rules of this module; `state` runs a closure of [`native_function`].
    unsafe fn push_value(&mut self, state: Raw, record: &Record, value: Value) {
        // SAFETY: by the contract above. A record is `FIELDS_MAX` long and the depth of its tables less, so that
        // three values for each level are within what is checked here.
        unsafe {
            match value {
                Value::Boolean(value) => lua::lua_pushboolean(state, value.into()),
                Value::Integer(value) => lua::lua_pushinteger(state, value),
                Value::Word(word) => lua::lua_pushvalue(state, lua::lua_upvalueindex(WORDS_FROM + c_int::from(word))),
                Value::Bytes(at, len) => {
                    let (start, len) = self.bytes(at as usize, len as usize);
                    // The bytes are copied before a finaliser can run.
                    lua::lua_pushlstring(state, start.cast(), len);
                }
                Value::Table(fields, items) => {
                    lua::luaL_checkstack(state, 4, ptr::null());
                    let spare = std::mem::take(&mut self.spare);
                    lua::lua_createtable(state, items.into(), c_int::from(fields) + spare);
                    for _ in 0..fields {
                        let Some(field) = self.following(record) else { return };
                        lua::lua_pushvalue(state, lua::lua_upvalueindex(WORDS_FROM + c_int::from(field.name)));
                        self.push_value(state, record, field.value);
                        lua::lua_rawset(state, -3);
                    }
                    for item in 1..=items {
                        let Some(field) = self.following(record) else { return };
                        self.push_value(state, record, field.value);
                        lua::lua_rawseti(state, -2, item.into());
                    }
                }
            }
        }
    }

    fn following(&mut self, record: &Record) -> Option<Field> {
        // SAFETY: the first `count` have been written.
        let field = (self.next < record.count).then(|| unsafe { record.fields[self.next].assume_init() });
        self.next += 1;
        field
    }

    /// The bytes at a place in the buffer; none when it is no longer the buffer that the record was made of.
    fn bytes(&mut self, at: usize, len: usize) -> (*const u8, usize) {
        // SAFETY: the buffer is an argument of the running call.
        let buffer = unsafe { &*self.buffer };
        if !self.spoilt
            && unsafe { touches(self.buffer) } == self.touches
            && let Ok(held) = buffer.try_borrow()
            && let Some(bytes) = held.as_slice().get(at..at + len)
        {
            return (bytes.as_ptr(), len);
        }
        self.spoilt = true;
        (ptr::NonNull::<u8>::dangling().as_ptr().cast_const(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `length`, a byte, and that many bytes: `{text, flag, list = {..}, inner = {..}}`.
    struct Text;

    impl Native for Text {
        const WORDS: &'static [&'static str] = &["text", "kind", "list", "inner", "whole", "short"];

        fn call(arguments: &Arguments<'_>, record: &mut Record) -> Outcome {
            let Some(buffer) = arguments.buffer(1) else { return Outcome::Slow };
            let held = buffer.borrow();
            let whole = held.as_slice();
            let Some((&length, rest)) = whole.split_first() else { return Outcome::Nil };
            let Some(text) = rest.get(..length.into()) else { return Outcome::Nil };
            let (first, last) = text.split_at(text.len() / 2);
            record.word(1, 5 - usize::from(text.len() > 3));
            record.table(2, 0, 3);
            record.bytes(Record::ITEM, whole, first);
            record.table(Record::ITEM, 1, 1);
            record.integer(1, length.into());
            record.boolean(Record::ITEM, true);
            record.bytes(Record::ITEM, whole, last);
            record.bytes(0, whole, text);
            Outcome::Take { buffer: 1, count: 1 + text.len() }
        }
    }

    /// Answers what its first argument says.
    struct Echo;

    impl Native for Echo {
        fn call(arguments: &Arguments<'_>, record: &mut Record) -> Outcome {
            match arguments.bytes(1) {
                Some(b"panic") => panic!("on purpose"),
                Some(b"too many") => (0..=FIELDS_MAX).for_each(|_| record.integer(0, 0)),
                Some(b"elsewhere") => record.bytes(0, b"here", b"there"),
                Some(b"count") => {
                    let seen = [
                        arguments.integer(2).is_some(),
                        arguments.boolean(2).is_some(),
                        arguments.bytes(2).is_some(),
                        arguments.buffer(2).is_some(),
                        arguments.is_nil(2),
                    ];
                    return Outcome::Integer(seen.iter().fold(0, |sum, seen| sum << 1 | i64::from(*seen)));
                }
                Some(b"far") => {
                    let far = [0, 5, 300, usize::MAX].map(|position| arguments.is_nil(position));
                    return Outcome::Boolean(far == [true; 4]);
                }
                Some(b"nothing") => return Outcome::Take { buffer: 2, count: 0 },
                _ => {}
            }
            Outcome::Slow
        }
    }

    /// A state with `buffer`, `text` and `echo`; the slow functions answer how many arguments came, and them.
    fn state() -> Lua {
        let lua = Lua::new();
        lua.set_named_registry_value(crate::error::METATABLE, lua.create_table().unwrap()).unwrap();
        let globals = lua.globals();
        globals.set("buffer", super::super::install_buffer(&lua).unwrap()).unwrap();
        let slow = lua.load("return function(...) return 'slow', select('#', ...), ... end").eval().unwrap();
        globals.set("text", native_function::<Text>(&lua, &slow).unwrap()).unwrap();
        globals.set("echo", native_function::<Echo>(&lua, &slow).unwrap()).unwrap();
        lua
    }

    fn run(script: &str) {
        state().load(script).exec().unwrap();
    }

    #[test]
    fn an_answer_is_made_of_words_integers_bytes_and_tables_within() {
        run(r#"
            local b = buffer("\5hello\2ab\200")
            local one, two = text(b), text(b)
            assert(one.kind == "whole" and one.text == "hello" and one.inner == nil)
            assert(#one.list == 3 and one.list[1] == "he" and one.list[3] == "llo")
            assert(one.list[2].kind == 5 and one.list[2][1] == true)
            assert(two.kind == "short" and two.text == "ab" and #b == 1)
            assert(text(b) == nil and #b == 1)
            assert(select('#', text(b)) == 1)
        "#);
    }

    #[test]
    fn empty_bytes_are_the_empty_string() {
        run(r#"local b = buffer("\0\0"); assert(text(b).text == "" and text(b).list[1] == "" and #b == 0)"#);
    }

    #[test]
    fn what_it_leaves_is_answered_by_the_slow_function_with_all_arguments_and_results() {
        run(r#"
            local values = table.pack(text("no buffer", nil, 3))
            assert(values.n == 5 and values[1] == "slow" and values[2] == 3 and values[3] == "no buffer" and values[5] == 3)
            assert(select('#', text()) == 2)
            local many = table.pack(text(table.unpack({}, 1, 200)))
            assert(many.n == 202 and many[2] == 200)
        "#);
    }

    #[test]
    fn arguments_are_told_apart_and_nothing_is_converted() {
        run(r#"
            assert(echo("count", 7) == 16 and echo("count", 7.0) == 0 and echo("count", "7") == 4)
            assert(echo("count", false) == 8 and echo("count", nil) == 1 and echo("count") == 1)
            assert(echo("count", buffer()) == 2 and echo("count", io.stdout) == 0 and echo("count", {}) == 0)
            assert(echo(12) == "slow" and echo("far", 1, 2, 3))
        "#);
    }

    #[test]
    fn a_panic_is_an_error_and_takes_nothing() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        run(r#"
            for _, what in ipairs { "panic", "too many", "elsewhere" } do
              local ok, err = pcall(echo, what)
              assert(not ok and err.message:find("a native function panicked"), what)
            end
            local ok, err = pcall(echo, "nothing", "no buffer")
            assert(not ok and err.message:find("an answer from no buffer"))
        "#);
        std::panic::set_hook(hook);
    }

    #[test]
    fn a_finaliser_that_takes_from_the_same_buffer_at_any_allocation_leaves_each_message_whole() {
        run(r#"
            collectgarbage("incremental", 1, 1000, 1)
            local b, told, spoilt, busy = buffer(), {}, 0, false
            for i = 1, 3000 do
              local line = ("%06d"):format(i) .. ("x"):rep(i % 90)
              b:append(string.char(#line), line)
            end
            local function note(message) told[#told + 1] = tonumber(message.text:sub(1, 6)) end
            local function litter()
              setmetatable({}, { __gc = function()
                if busy then spoilt = spoilt + 1 end
                local kind = #told % 4
                local message = kind == 0 and text(b)
                if message then note(message) end
                if kind == 1 then b:append("") end
                if kind == 2 then
                  -- What stands there moves.
                  local all = b:take()
                  if all then b:append(("y"):rep(1000)) b:skip(1000) b:append(all) end
                end
              end })
            end
            while true do
              for _ = 1, 3 do litter() end
              busy = true
              local message = text(b)
              busy = false
              if message == nil and #b == 0 then break end
              if message == "slow" then message = { text = b:take(b:take_uint(1)) } end
              note(message)
            end
            assert(#told == 3000, #told)
            for i = 1, 3000 do assert(told[i] == i, i) end
            assert(spoilt > 100, "no finaliser ran while an answer was made: this tests nothing")
        "#);
    }

    #[test]
    fn an_answer_for_which_there_is_no_memory_takes_nothing() {
        let lua = state();
        lua.load(r#"one = buffer("\40" .. ("z"):rep(40) .. "\1q") take = function() return text(one) end"#)
            .exec()
            .unwrap();
        let take: Function = lua.globals().get("take").unwrap();
        lua.gc_collect().unwrap();
        let mut failed = 0;
        for spare in (0..).step_by(16) {
            lua.set_memory_limit(lua.used_memory() + spare).unwrap();
            let answer = take.call::<mlua::Table>(());
            lua.set_memory_limit(0).unwrap();
            match answer {
                Ok(table) => {
                    assert_eq!(table.get::<String>("text").unwrap(), "z".repeat(40));
                    break;
                }
                Err(error) => assert!(error.to_string().contains("not enough memory"), "{error}"),
            }
            failed += 1;
            lua.load("assert(#one == 43)").exec().unwrap();
            lua.gc_collect().unwrap();
        }
        assert!(failed > 5, "{failed}");
        lua.load("assert(#one == 2)").exec().unwrap();
    }
}
