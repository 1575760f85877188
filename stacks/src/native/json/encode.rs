//! Lua values to text, written straight into one vector; keys are sorted, so that equal values are equal texts.

use std::{ffi::c_void, fmt::Write, str};

use mlua::{Lua, LuaString, Table, Value};
use moonwire_runtime::{Error, Kind, mlua};
use serde_json::ser::{CompactFormatter, Formatter};

use super::Limits;

const OP: &str = "json.encode";
/// How many steps of a path an error tells.
const PATH_SHOWN: usize = 12;
/// How many fields wait at a time; each may hold one of the million handles that Lua's state has.
const FIELDS_MAX: usize = 500_000;

/// How many bytes a text has before its vector grows.
const CAPACITY: usize = 512;

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Spaces per level; 0 puts everything on one line.
    pub(super) indent: usize,
    pub(super) sort_keys: bool,
}

/// The text of `value`, or which part of it has none.
pub(super) fn encode(
    lua: &Lua,
    value: &Value,
    style: Style,
    limits: Limits,
    arrays: &Table,
) -> mlua::Result<Result<LuaString, Error>> {
    let mut encoder = Encoder {
        out: Vec::with_capacity(CAPACITY),
        style,
        limits,
        arrays: arrays.to_pointer(),
        above: Vec::new(),
        fields: Vec::new(),
        waiting: Vec::with_capacity(CAPACITY),
    };
    match encoder.value(value) {
        Ok(()) => lua.create_string(&encoder.out).map(Ok),
        Err(Fault::Data(data)) => Ok(Err(data.into())),
        Err(Fault::Lua(error)) => Err(error),
    }
}

/// A table is walked once, without going into the tables in it: walking is a call in Lua, and those nest
/// less deep than tables may. Fields wait, with what is scalar already encoded, until all are known and sorted.
struct Encoder {
    out: Vec<u8>,
    style: Style,
    limits: Limits,
    /// The metatable that marks arrays.
    arrays: *const c_void,
    /// The tables around the value being written.
    above: Vec<*const c_void>,
    /// Fields of the objects being written, innermost last.
    fields: Vec<Field>,
    /// The text of those fields.
    waiting: Vec<u8>,
}

/// Where `"key":value` waits, or `"key":` and a table.
struct Field {
    start: usize,
    /// End of the key, before its closing quote: so `a` sorts before `a!`.
    key_end: usize,
    end: usize,
    table: Option<Table>,
}

/// What is known of a table while it is walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Nothing: no key has been seen.
    Open,
    Array,
    Object,
}

type Outcome = Result<(), Fault>;

impl Encoder {
    fn value(&mut self, value: &Value) -> Outcome {
        match value {
            Value::Table(table) => self.table(table),
            scalar => write_scalar(&mut self.out, scalar, self.limits.size),
        }
    }

    fn table(&mut self, table: &Table) -> Outcome {
        let own = table.to_pointer();
        if self.above.len() == self.limits.depth {
            return Err(too_deep(self.above.contains(&own), self.limits.depth));
        }
        let marked = table.metatable().is_some_and(|metatable| metatable.to_pointer() == self.arrays);
        let first = self.fields.len();
        let start = self.waiting.len();
        self.above.push(own);
        let mut walk = Walk { shape: if marked { Shape::Array } else { Shape::Open }, count: 0, last: 0, written: 0 };
        if marked {
            self.out.push(b'[');
        }
        let mut fault = None;
        let walked = table.for_each(|key: Value, value: Value| match self.visit(&mut walk, &key, value) {
            Ok(()) => Ok(()),
            Err(found) => {
                fault = Some(found);
                // Any error ends the walk.
                Err(mlua::Error::StackError)
            }
        });
        match fault {
            Some(fault) => return Err(fault),
            None => walked?,
        }
        match walk.shape {
            Shape::Open => self.out.extend(b"{}"),
            Shape::Array => self.array(table, &walk)?,
            Shape::Object => self.object(first)?,
        }
        self.waiting.truncate(start);
        self.fields.truncate(first);
        self.above.pop();
        check_size(&self.out, 0, self.limits.size)
    }

    /// Takes one pair of a table. Items are written at once as long as they come in order and are no tables.
    fn visit(&mut self, walk: &mut Walk, key: &Value, value: Value) -> Outcome {
        match key {
            Value::Integer(position) if *position >= 1 && walk.shape != Shape::Object => {
                if walk.shape == Shape::Open {
                    walk.shape = Shape::Array;
                    self.out.push(b'[');
                }
                walk.count += 1;
                walk.last = walk.last.max(*position);
                if *position == walk.written + 1 && !value.is_table() {
                    walk.written += 1;
                    self.item(*position, &value)?;
                }
                Ok(())
            }
            Value::String(key) if walk.shape != Shape::Array => {
                walk.shape = Shape::Object;
                self.field(key, value)
            }
            other => Err(unfit(other, walk.shape)),
        }
    }

    fn array(&mut self, table: &Table, walk: &Walk) -> Outcome {
        // Keys differ, so as many of them as the largest one says are all positions up to it.
        if walk.count != walk.last {
            return Err(Fault::data(format!("{} is a key but not all before it are; json.null fills gaps", walk.last)));
        }
        for position in walk.written + 1..=walk.last {
            self.item(position, &table.raw_get(position)?)?;
        }
        self.close(walk.count == 0, b']');
        Ok(())
    }

    fn item(&mut self, position: i64, value: &Value) -> Outcome {
        self.separate(position == 1);
        self.value(value).map_err(|fault| fault.below(|| format!("[{position}]")))
    }

    fn field(&mut self, key: &LuaString, value: Value) -> Outcome {
        if self.fields.len() == FIELDS_MAX {
            return Err(Fault::limit(format!("more than {FIELDS_MAX} fields in one object")));
        }
        let start = self.waiting.len();
        write_string(&mut self.waiting, &key.as_bytes(), "a key", self.limits.size)?;
        let key_end = self.waiting.len() - 1;
        self.waiting.extend(if self.style.indent == 0 { &b":"[..] } else { b": " });
        let table = match value {
            Value::Table(table) => Some(table),
            scalar => {
                let written = write_scalar(&mut self.waiting, &scalar, self.limits.size);
                written.map_err(|fault| fault.below(|| step(&key.to_string_lossy())))?;
                None
            }
        };
        self.fields.push(Field { start, key_end, end: self.waiting.len(), table });
        Ok(())
    }

    /// Writes the fields from `first` on.
    fn object(&mut self, first: usize) -> Outcome {
        if self.style.sort_keys {
            let waiting = &self.waiting;
            let key = |field: &Field| &waiting[field.start..field.key_end];
            self.fields[first..].sort_unstable_by(|one, other| key(one).cmp(key(other)));
        }
        self.out.push(b'{');
        for at in first..self.fields.len() {
            self.separate(at == first);
            let Field { start, key_end, end, ref mut table } = self.fields[at];
            self.out.extend(&self.waiting[start..end]);
            if let Some(table) = table.take() {
                self.table(&table).map_err(|fault| {
                    let key = serde_json::from_slice::<String>(&self.waiting[start..=key_end]);
                    fault.below(|| step(&key.unwrap_or_default()))
                })?;
            }
            check_size(&self.out, 0, self.limits.size)?;
        }
        self.close(false, b'}');
        Ok(())
    }

    /// What stands before an item or a field.
    fn separate(&mut self, first: bool) {
        if !first {
            self.out.push(b',');
        }
        self.new_line(self.above.len());
    }

    fn close(&mut self, empty: bool, bracket: u8) {
        if !empty {
            self.new_line(self.above.len() - 1);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, level: usize) {
        if self.style.indent > 0 {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + level * self.style.indent, b' ');
        }
    }
}

struct Walk {
    shape: Shape,
    /// How many positions there are, and the largest.
    count: i64,
    last: i64,
    /// The positions up to this one are written.
    written: i64,
}

fn write_scalar(out: &mut Vec<u8>, value: &Value, size_max: usize) -> Outcome {
    match value {
        Value::Boolean(true) => out.extend(b"true"),
        Value::Boolean(false) => out.extend(b"false"),
        Value::Integer(value) => CompactFormatter.write_i64(out, *value)?,
        Value::Number(value) if value.is_finite() => CompactFormatter.write_f64(out, *value)?,
        Value::String(text) => write_string(out, &text.as_bytes(), "a string", size_max)?,
        null if *null == Value::NULL => out.extend(b"null"),
        other => return Err(no_form(other)),
    }
    check_size(out, 0, size_max)
}

fn write_string(out: &mut Vec<u8>, text: &[u8], what: &str, size_max: usize) -> Outcome {
    check_size(out, text.len(), size_max)?;
    match str::from_utf8(text) {
        Ok(text) => Ok(serde_json::to_writer(out, text)?),
        Err(error) => Err(Fault::data(format!("{what} is not UTF-8 at its byte {}", error.valid_up_to() + 1))),
    }
}

fn check_size(out: &[u8], more: usize, size_max: usize) -> Outcome {
    if out.len() + more <= size_max { Ok(()) } else { Err(too_long(size_max)) }
}

#[cold]
fn too_long(size_max: usize) -> Fault {
    Fault::limit(format!("the text is longer than {size_max} bytes (size_max)"))
}

#[cold]
fn too_deep(in_itself: bool, depth_max: usize) -> Fault {
    if in_itself {
        Fault::data("the table contains itself")
    } else {
        Fault::limit(format!("nested deeper than {depth_max} levels (depth_max)"))
    }
}

#[cold]
fn no_form(value: &Value) -> Fault {
    match value {
        Value::Number(value) if value.is_nan() => Fault::data("NaN has no JSON form"),
        Value::Number(_) => Fault::data("infinity has no JSON form"),
        Value::Nil => Fault::data("nil has no JSON form; json.null is null"),
        other => Fault::data(format!("a {} has no JSON form", other.type_name())),
    }
}

/// A key that does not go with those before it.
#[cold]
fn unfit(key: &Value, shape: Shape) -> Fault {
    Fault::data(match shape {
        Shape::Open => format!("{} is neither a string nor a position", name(key)),
        Shape::Array => format!("an array also has {}", name(key)),
        Shape::Object => format!("an object also has {}", name(key)),
    })
}

/// A key as an error names it.
fn name(key: &Value) -> String {
    match key {
        Value::String(key) => format!("the key {:?}", key.to_string_lossy()),
        Value::Integer(key) => format!("the key {key}"),
        Value::Number(key) => format!("the key {key:?}"),
        Value::Boolean(key) => format!("the key {key}"),
        other => format!("a {} as key", other.type_name()),
    }
}

/// The step of a path into a field, as Lua would write it.
fn step(key: &str) -> String {
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain && !key.starts_with(|first: char| first.is_ascii_digit()) && !key.is_empty() {
        format!(".{key}")
    } else {
        format!("[{key:?}]")
    }
}

enum Fault {
    Data(Box<Data>),
    /// Lua's own failure, such as no memory.
    Lua(mlua::Error),
}

/// What cannot be encoded.
struct Data {
    kind: Kind,
    message: String,
    /// The steps to it, innermost first.
    path: Vec<String>,
}

impl Fault {
    fn data(message: impl Into<String>) -> Self {
        Fault::Data(Box::new(Data { kind: Kind::Protocol, message: message.into(), path: Vec::new() }))
    }

    fn limit(message: String) -> Self {
        Fault::Data(Box::new(Data { kind: Kind::Limit, message, path: Vec::new() }))
    }

    /// The same, seen from one level further out.
    fn below(mut self, step: impl FnOnce() -> String) -> Self {
        if let Fault::Data(data) = &mut self {
            data.path.push(step());
        }
        self
    }
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Fault::Lua(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Fault::data(error.to_string())
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Fault::data(error.to_string())
    }
}

impl From<Box<Data>> for Error {
    fn from(data: Box<Data>) -> Self {
        let mut message = String::new();
        for step in data.path.iter().rev().take(PATH_SHOWN) {
            message.push_str(step);
        }
        if data.path.len() > PATH_SHOWN {
            message.push_str("...");
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        // A String takes everything.
        let _ = write!(message, "{}", data.message);
        Error::new(data.kind, OP, message.trim_start_matches('.').to_owned())
    }
}
