//! How a script fails, as the embedder is told.

use std::{fmt, io, path::PathBuf};

use mlua::Value;

/// An error that ended a task.
#[derive(Debug, Clone)]
pub struct TaskFailure {
    /// The task's name.
    pub task: String,
    /// The error as text.
    pub message: String,
    /// Where it was raised, through every task and coroutine it crossed.
    pub traceback: String,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if self.traceback.is_empty() { Ok(()) } else { write!(f, "\n{}", self.traceback) }
    }
}

/// Why a script did not run to its end.
#[derive(Debug)]
pub enum RunError {
    /// The file could not be read.
    Read(PathBuf, io::Error),
    /// The text is not a Lua program; file, line and reason are in the message.
    Syntax(String),
    /// The main task raised an error that nobody caught.
    Failed(TaskFailure),
    /// Under a virtual clock: every task waits for another. The lines say who waits for what.
    Deadlock(Vec<String>),
    /// The loop itself failed.
    Loop(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            RunError::Syntax(message) | RunError::Loop(message) => f.write_str(message),
            RunError::Failed(failure) => failure.fmt(f),
            RunError::Deadlock(tasks) => {
                write!(f, "every task waits for another:")?;
                tasks.iter().try_for_each(|task| write!(f, "\n  {task}"))
            }
        }
    }
}

impl std::error::Error for RunError {}

impl From<mlua::Error> for RunError {
    fn from(error: mlua::Error) -> Self {
        RunError::Loop(error.to_string())
    }
}

/// Lua's message without mlua's preamble.
pub(crate) fn syntax_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// An error value as text. A table that does not say how it wants to be shown is shown by its fields.
pub(crate) fn describe_error(value: &Value) -> String {
    let plain = || value.to_string().unwrap_or_else(|_| format!("an error that is a {}", value.type_name()));
    let Value::Table(table) = value else { return plain() };
    if table.metatable().is_some_and(|meta| meta.contains_key("__tostring").unwrap_or(false)) {
        return plain();
    }
    let show = |value: &Value| match value {
        Value::String(text) => format!("{:?}", text.to_string_lossy()),
        other => other.to_string().unwrap_or_else(|_| other.type_name().to_owned()),
    };
    let mut fields: Vec<String> = table
        .pairs::<Value, Value>()
        .filter_map(Result::ok)
        .map(|(key, value)| match &key {
            Value::String(name) => format!("{} = {}", name.to_string_lossy(), show(&value)),
            other => format!("[{}] = {}", show(other), show(&value)),
        })
        .collect();
    fields.sort();
    format!("{{{}}}", fields.join(", "))
}
