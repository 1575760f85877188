//! Which globals a compiled chunk uses, and what it requires.
//!
//! The compiler has settled what is local and what is not, so its output is the right place to look.
//! Lua 5.4's precompiled chunks are read as `luac` writes them (lundump.c, lopcodes.h); only chunks that this
//! very program compiled come here.

/// How a chunk uses a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// Reads a global and needs it.
    Global(String),
    /// Gives a global a value.
    Definition(String),
    /// `require "name"`.
    Require(String),
}

/// Every use with its line, in order of the code; `None` if this is not a chunk of Lua 5.4.
pub fn uses(chunk: &[u8]) -> Option<Vec<(u32, Use)>> {
    let mut reader = Reader { rest: chunk };
    // Signature, version 5.4, official format.
    if reader.bytes(6)? != b"\x1bLua\x54\0" {
        return None;
    }
    // LUAC_DATA, three sizes, an integer and a number by which foreign machines are told; a count of upvalues.
    reader.bytes(6 + 3 + 8 + 8 + 1)?;
    let main = reader.function()?;
    let mut found = Vec::new();
    main.collect(&[true], &mut found);
    Some(found)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    /// Seven bits a byte, the highest first; the last byte is marked.
    fn size(&mut self) -> Option<usize> {
        let mut size: usize = 0;
        loop {
            let byte = self.byte()?;
            size = size.checked_mul(128)? | usize::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                return Some(size);
            }
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let size = self.size()?;
        self.bytes(size.saturating_sub(1))
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.size()?).map(|_| item(self)).collect()
    }

    fn function(&mut self) -> Option<Function> {
        self.string()?; // source
        let line_defined = self.size()?;
        self.size()?; // its last line
        self.bytes(3)?; // parameters, vararg, registers
        let code = self.list(|it| it.bytes(4)?.try_into().ok().map(u32::from_ne_bytes))?;
        let constants = self.list(|it| match it.byte()? {
            0x00 => Some(Constant::Nil),
            0x04 | 0x14 => Some(Constant::String(String::from_utf8_lossy(it.string()?).into_owned())),
            0x03 | 0x13 => it.bytes(8).map(|_| Constant::Other),
            _ => Some(Constant::Other),
        })?;
        let upvalues = self.list(|it| {
            let upvalue = Upvalue { is_local_outside: it.byte()? != 0, index: it.byte()?.into() };
            it.byte()?; // its kind
            Some(upvalue)
        })?;
        let functions = self.list(Self::function)?;
        let steps = self.list(|it| it.byte().map(u8::cast_signed))?;
        let jumps = self.list(|it| Some((it.size()?, it.size()?)))?;
        self.list(|it| Some((it.string()?, it.size()?, it.size()?)))?; // local variables
        self.list(Self::string)?; // names of upvalues
        Some(Function { code, constants, upvalues, functions, lines: lines(line_defined, &steps, &jumps) })
    }
}

/// The line of each instruction: a difference to the one before, or where that says so, an absolute number.
fn lines(line_defined: usize, steps: &[i8], jumps: &[(usize, usize)]) -> Vec<u32> {
    const IS_ABSOLUTE: i8 = -128;
    let mut line = line_defined;
    let mut jumps = jumps.iter();
    let of_step = |step: &i8| {
        line = match *step {
            IS_ABSOLUTE => jumps.next().map_or(line, |(_, line)| *line),
            step => line.saturating_add_signed(step.into()),
        };
        u32::try_from(line).unwrap_or(u32::MAX)
    };
    steps.iter().map(of_step).collect()
}

#[derive(PartialEq)]
enum Constant {
    Nil,
    String(String),
    Other,
}

struct Upvalue {
    is_local_outside: bool,
    index: usize,
}

struct Function {
    code: Vec<u32>,
    constants: Vec<Constant>,
    upvalues: Vec<Upvalue>,
    functions: Vec<Function>,
    lines: Vec<u32>,
}

/// An instruction's fields (lopcodes.h, iABC and iABx).
#[derive(Clone, Copy)]
struct Instruction {
    code: u32,
    a: usize,
    b: usize,
    c: usize,
    bx: usize,
}

mod op {
    pub const LOADK: u32 = 3;
    pub const GETUPVAL: u32 = 9;
    pub const GETTABUP: u32 = 11;
    pub const GETTABLE: u32 = 12;
    pub const SETTABUP: u32 = 15;
    pub const SETTABLE: u32 = 16;
    pub const SETFIELD: u32 = 18;
    pub const NOT: u32 = 51;
    pub const JMP: u32 = 56;
    pub const EQK: u32 = 60;
    pub const TEST: u32 = 66;
    pub const TESTSET: u32 = 67;
    pub const CALL: u32 = 68;
    pub const TAILCALL: u32 = 69;
}

impl Function {
    fn at(&self, index: usize) -> Option<Instruction> {
        let word = *self.code.get(index)?;
        let byte = |shift: u32| (word >> shift & 0xff) as usize;
        Some(Instruction { code: word & 0x7f, a: byte(7), b: byte(16), c: byte(24), bx: (word >> 15) as usize })
    }

    fn name(&self, constant: usize) -> Option<&str> {
        match self.constants.get(constant)? {
            Constant::String(name) => Some(name),
            _ => None,
        }
    }

    /// `is_globals` tells which upvalues are the table of globals, and not another `_ENV` of the script's.
    fn collect(&self, is_globals: &[bool], found: &mut Vec<(u32, Use)>) {
        let is_globals_at = |index: usize| is_globals.get(index).copied().unwrap_or(false);
        let mut mentions_table_of_globals = false;
        for index in 0..self.code.len() {
            let Some(it) = self.at(index) else { break };
            let line = self.lines.get(index).copied().unwrap_or(0);
            match it.code {
                op::GETTABUP if is_globals_at(it.b) => {
                    let Some(name) = self.name(it.c) else { continue };
                    mentions_table_of_globals |= name == "_G";
                    self.read(name, it.a, index, line, found);
                }
                op::SETTABUP if is_globals_at(it.a) => {
                    found.extend(self.name(it.b).map(|name| (line, Use::Definition(name.to_owned()))));
                }
                // A function with very many constants: the table and the name come into registers first.
                op::GETUPVAL if is_globals_at(it.b) => {
                    let (Some(load), Some(access)) = (self.at(index + 1), self.at(index + 2)) else { continue };
                    let Some(name) = self.name(load.bx).filter(|_| load.code == op::LOADK) else { continue };
                    if access.code == op::GETTABLE && (access.b, access.c) == (it.a, load.a) {
                        self.read(name, access.a, index + 2, line, found);
                    } else if let Some(line) = self.long_definition(it.a, load.a, index + 2) {
                        found.push((line, Use::Definition(name.to_owned())));
                    }
                }
                // `_G.name = value` somewhere after `_G` was read: taken for a definition, rightly nearly always.
                op::SETFIELD if mentions_table_of_globals => {
                    found.extend(self.name(it.b).map(|name| (line, Use::Definition(name.to_owned()))));
                }
                _ => {}
            }
        }
        for function in &self.functions {
            let inner: Vec<bool> = function
                .upvalues
                .iter()
                .map(|upvalue| !upvalue.is_local_outside && is_globals_at(upvalue.index))
                .collect();
            function.collect(&inner, found);
        }
    }

    /// Notes a global that was read into `register` at `index`.
    fn read(&self, name: &str, register: usize, index: usize, line: u32, found: &mut Vec<(u32, Use)>) {
        if name == "require"
            && let (Some(load), Some(call)) = (self.at(index + 1), self.at(index + 2))
            && (load.code, load.a) == (op::LOADK, register + 1)
            && matches!(call.code, op::CALL | op::TAILCALL)
            && (call.a, call.b) == (register, 2)
            && let Some(module) = self.name(load.bx)
        {
            found.push((line, Use::Require(module.to_owned())));
        }
        if !self.is_asked_for(register, index) {
            found.push((line, Use::Global(name.to_owned())));
        }
    }

    /// Whether the script only asks if a global is there: `if jit then`, `bit32 == nil`, `unpack or ...`, `... or unpack`.
    fn is_asked_for(&self, register: usize, index: usize) -> bool {
        let asks = self.at(index + 1).is_some_and(|next| match next.code {
            op::TEST => next.a == register,
            op::TESTSET | op::NOT => next.b == register,
            op::EQK => next.a == register && self.constants.get(next.b) == Some(&Constant::Nil),
            _ => false,
        });
        // A jump over nothing but this read: the right side of `and` and `or`.
        const JUMP_OVER_ONE: u32 = 1 + ((1 << 24) - 1);
        let is_right_side = index >= 2
            && self.at(index - 2).is_some_and(|test| matches!(test.code, op::TEST | op::TESTSET))
            && self.code[index - 1] & 0x7f == op::JMP
            && self.code[index - 1] >> 7 == JUMP_OVER_ONE;
        asks || is_right_side
    }

    /// The line of the instruction that stores under the name in register `key` of the table in register `table`.
    fn long_definition(&self, table: usize, key: usize, from: usize) -> Option<u32> {
        let stores =
            |index: &usize| self.at(*index).is_some_and(|it| it.code == op::SETTABLE && (it.a, it.b) == (table, key));
        (from..self.code.len()).find(stores).and_then(|index| self.lines.get(index).copied())
    }
}

#[cfg(test)]
mod tests {
    use moonwire_runtime::mlua::Lua;

    use super::*;

    fn uses_of(source: &str) -> Vec<(u32, Use)> {
        let lua = Lua::new();
        let mut found = uses(&lua.load(source).into_function().unwrap().dump(false)).unwrap();
        found.sort_by_key(|(line, _)| *line);
        found
    }

    fn globals_of(source: &str) -> Vec<String> {
        let name = |(_, found)| match found {
            Use::Global(name) => Some(name),
            _ => None,
        };
        uses_of(source).into_iter().filter_map(name).collect()
    }

    fn requires_of(source: &str) -> Vec<(u32, String)> {
        let name = |(line, found)| match found {
            Use::Require(name) => Some((line, name)),
            _ => None,
        };
        uses_of(source).into_iter().filter_map(name).collect()
    }

    #[test]
    fn globals_are_told_from_locals_upvalues_and_fields() {
        let source = "local a, b = 1, {}\nfunction c() return a, b.d, e end\nfor f in g do h = f end";
        assert_eq!(globals_of(source), ["e", "g"]);
        let definitions = uses_of(source).into_iter().filter(|(_, found)| matches!(found, Use::Definition(_)));
        assert_eq!(
            definitions.collect::<Vec<_>>(),
            [(2, Use::Definition("c".into())), (3, Use::Definition("h".into()))]
        );
    }

    #[test]
    fn another_environment_has_no_globals() {
        assert_eq!(globals_of("local _ENV = {}\nx = y\nfunction z() return w end"), [""; 0]);
        assert_eq!(globals_of("function z(_ENV) return w, function() return v end end return u"), ["u"]);
    }

    #[test]
    fn asking_whether_a_global_is_there_is_not_using_it() {
        assert_eq!(globals_of("if jit then return 1 end"), [""; 0]);
        assert_eq!(globals_of("local u = unpack or 1"), [""; 0]);
        assert_eq!(globals_of("local u = table.unpack or unpack"), ["table"]);
        assert_eq!(globals_of("return bit32 == nil, not jit"), [""; 0]);
        assert_eq!(globals_of("return bit32 == 1"), ["bit32"]);
        assert_eq!(globals_of("local x = a.b or c.d"), ["a", "c"]);
    }

    #[test]
    fn constant_requires_are_found_in_every_way_they_are_written() {
        assert_eq!(
            requires_of("local a = require 'x'\nlocal b = require(\"y.z\").w"),
            [(1, "x".into()), (2, "y.z".into())]
        );
        assert_eq!(requires_of("return require('x')"), [(1, "x".into())]);
        assert_eq!(requires_of("local function f()\n\nrequire 'x' end"), [(3, "x".into())]);
    }

    #[test]
    fn requires_that_may_fail_or_are_computed_are_left_alone() {
        assert_eq!(requires_of("local ok, a = pcall(require, 'x') require(y) require('a' .. b) s.require 'c'"), []);
    }

    #[test]
    fn a_function_with_very_many_constants_is_read_too() {
        let mut source = String::from("local t = {}\n");
        for number in 0..400 {
            source.push_str(&format!("t.x = 'constant {number}'\n"));
        }
        source.push_str("require 'late'\nlate_definition = late_read\n");
        assert_eq!(requires_of(&source), [(402, "late".into())]);
        assert!(globals_of(&source).contains(&"late_read".into()));
        assert!(uses_of(&source).contains(&(403, Use::Definition("late_definition".into()))));
    }

    #[test]
    fn lines_far_apart_are_right() {
        let source = format!("local a = 1{}\nprint(a)", "\n".repeat(1000));
        assert_eq!(uses_of(&source), [(1002, Use::Global("print".into()))]);
    }

    #[test]
    fn a_chunk_cut_at_any_byte_is_refused() {
        let lua = Lua::new();
        let chunk = lua.load("local a = require 'x' return function() return a, b end").into_function().unwrap();
        let chunk = chunk.dump(false);
        assert!(uses(&chunk).is_some());
        for cut in 0..chunk.len() {
            assert_eq!(uses(&chunk[..cut]), None, "cut after {cut} bytes");
        }
    }
}
