//! What `sqlite.open` is asked for.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc, time::Duration};

use mlua::{Table, Value};
use moonwire_runtime::{Error, mlua};

use super::{super::arguments::suggestion, mistake};

const OP: &str = "sqlite.open";
/// Jobs that may wait for the thread.
const QUEUE_MAX: i64 = 1024;
/// Bytes of one result.
const RESULT_MAX: i64 = 64 * 1024 * 1024;
/// Seconds to wait for another process that holds the file.
const BUSY_TIMEOUT: f64 = 5.0;
/// A database that nobody else may read: it holds what was to be sent, passwords among it.
const MODE: i64 = 0o600;
/// The path of a database that has no file.
pub(super) const IN_MEMORY: &str = ":memory:";

const KNOWN: &[&str] = &[
    "application_id",
    "busy_timeout",
    "check",
    "exclusive",
    "mode",
    "queue_max",
    "read_only",
    "result_max",
    "schema",
    "synchronous",
];

/// A database to open.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) path: PathBuf,
    /// The path as people read it.
    pub(super) shown: Arc<str>,
    pub(super) application_id: Option<i32>,
    /// SQL from each version to the next; its length is the version.
    pub(super) schema: Option<Vec<String>>,
    pub(super) read_only: bool,
    pub(super) synchronous: &'static str,
    pub(super) busy_timeout: Duration,
    pub(super) exclusive: bool,
    pub(super) check: bool,
    pub(super) mode: u32,
    pub(super) queue_max: usize,
    pub(super) result_max: usize,
}

impl Config {
    /// Takes the arguments of `sqlite.open`.
    pub(super) fn read(path: &Value, options: &Value) -> mlua::Result<Result<Self, Error>> {
        let Value::String(path) = path else {
            return Ok(Err(mistake(OP, format!("the path must be a string, not a {}", path.type_name()))));
        };
        let options = match options {
            Value::Nil => None,
            Value::Table(table) => Some(table),
            other => {
                return Ok(Err(mistake(OP, format!("the options must be a table, not a {}", other.type_name()))));
            }
        };
        for pair in options.iter().flat_map(|table| table.pairs::<Value, Value>()) {
            let key = pair?.0;
            let name = key.to_string().unwrap_or_else(|_| key.type_name().to_owned());
            if !matches!(key, Value::String(_)) || !KNOWN.contains(&name.as_str()) {
                return Ok(Err(mistake(OP, format!("unknown option {name:?}{}", suggestion(&name, KNOWN)))));
            }
        }
        let bytes = path.as_bytes();
        Ok(Self::assemble(&bytes, &Given(options)))
    }

    fn assemble(path: &[u8], given: &Given) -> Result<Self, Error> {
        if path.is_empty() || path.contains(&0) {
            return Err(mistake(OP, "the path must not be empty, nor have a zero byte".to_owned()));
        }
        let synchronous = match given.get("synchronous")? {
            Value::Nil => "FULL",
            Value::String(word) => match &*word.as_bytes() {
                b"full" => "FULL",
                b"normal" => "NORMAL",
                b"off" => "OFF",
                _ => return Err(mistake(OP, r#"option "synchronous" must be "full", "normal" or "off""#.to_owned())),
            },
            other => return Err(wrong("synchronous", "a string", &other)),
        };
        if given.boolean("read_only")? && given.boolean("exclusive")? {
            return Err(mistake(OP, "options read_only and exclusive contradict each other".to_owned()));
        }
        let application_id = match given.get("application_id")? {
            Value::Nil => None,
            _ => Some(given.integer("application_id", 1, i32::MAX.into(), 0)? as i32),
        };
        Ok(Self {
            path: PathBuf::from(OsStr::from_bytes(path)),
            shown: String::from_utf8_lossy(path).into(),
            application_id,
            schema: given.schema()?,
            read_only: given.boolean("read_only")?,
            synchronous,
            busy_timeout: given.seconds("busy_timeout", BUSY_TIMEOUT)?,
            exclusive: given.boolean("exclusive")?,
            check: given.boolean("check")?,
            mode: given.integer("mode", 0, 0o777, MODE)? as u32,
            queue_max: given.integer("queue_max", 1, 1_000_000, QUEUE_MAX)? as usize,
            result_max: given.integer("result_max", 1, i64::MAX, RESULT_MAX)? as usize,
        })
    }

    pub(super) fn is_in_memory(&self) -> bool {
        self.path.as_os_str() == IN_MEMORY
    }

    /// The version that the schema makes.
    pub(super) fn version(&self) -> Option<i64> {
        self.schema.as_ref().map(|steps| steps.len() as i64)
    }
}

/// The script's table.
struct Given<'a>(Option<&'a Table>);

impl Given<'_> {
    fn get(&self, name: &str) -> Result<Value, Error> {
        let Some(table) = self.0 else { return Ok(Value::Nil) };
        table.raw_get(name).map_err(|error| mistake(OP, error.to_string()))
    }

    fn boolean(&self, name: &str) -> Result<bool, Error> {
        match self.get(name)? {
            Value::Nil => Ok(false),
            Value::Boolean(value) => Ok(value),
            other => Err(wrong(name, "a boolean", &other)),
        }
    }

    fn integer(&self, name: &str, least: i64, most: i64, default: i64) -> Result<i64, Error> {
        match self.get(name)? {
            Value::Nil => Ok(default),
            Value::Integer(value) if (least..=most).contains(&value) => Ok(value),
            Value::Integer(_) => Err(mistake(OP, format!("option {name:?} must be from {least} to {most}"))),
            other => Err(wrong(name, "an integer", &other)),
        }
    }

    fn seconds(&self, name: &str, default: f64) -> Result<Duration, Error> {
        let value = match self.get(name)? {
            Value::Nil => default,
            Value::Integer(value) => value as f64,
            Value::Number(value) => value,
            other => return Err(wrong(name, "a number of seconds", &other)),
        };
        if !(0.0..=86_400.0).contains(&value) {
            return Err(mistake(OP, format!("option {name:?} must be from 0 to 86400 seconds")));
        }
        Ok(Duration::from_secs_f64(value))
    }

    fn schema(&self) -> Result<Option<Vec<String>>, Error> {
        let list = match self.get("schema")? {
            Value::Nil => return Ok(None),
            Value::Table(list) => list,
            other => return Err(wrong("schema", "a list of SQL texts", &other)),
        };
        let mut steps = Vec::new();
        for step in list.sequence_values::<Value>() {
            match step {
                Ok(Value::String(sql)) => match sql.to_str() {
                    Ok(text) if !text.contains('\0') => steps.push(text.to_owned()),
                    _ => return Err(mistake(OP, r#"option "schema" must be UTF-8 without zero bytes"#.to_owned())),
                },
                Ok(other) => return Err(wrong("schema", "a list of SQL texts", &other)),
                Err(error) => return Err(mistake(OP, error.to_string())),
            }
        }
        if steps.is_empty() {
            return Err(mistake(OP, r#"option "schema" must have the SQL that makes version 1"#.to_owned()));
        }
        Ok(Some(steps))
    }
}

fn wrong(name: &str, want: &str, got: &Value) -> Error {
    mistake(OP, format!("option {name:?} must be {want}, not a {}", got.type_name()))
}
