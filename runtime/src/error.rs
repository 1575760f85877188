//! Errors of the outside world, and how Lua sees them.

use std::{borrow::Cow, fmt, io};

use mlua::{IntoLua, Lua, Table, Value};

/// What went wrong, in a few words that scripts branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The other side ended the connection, or this side did.
    Closed,
    /// The other side said no.
    Refused,
    /// The other side broke its protocol.
    Protocol,
    /// A deadline of ours passed.
    Timeout,
    /// The task was cancelled.
    Cancelled,
    /// A limit of ours was reached.
    Limit,
    /// The name has no address.
    Resolve,
    /// No address could be reached.
    Connect,
    /// The handshake or the certificate failed.
    Tls,
    /// The system said no.
    Io,
    /// The caller made a mistake. Such an error is raised, never returned.
    Argument,
}

impl Kind {
    /// The word scripts compare with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Closed => "closed",
            Kind::Refused => "refused",
            Kind::Protocol => "protocol",
            Kind::Timeout => "timeout",
            Kind::Cancelled => "cancelled",
            Kind::Limit => "limit",
            Kind::Resolve => "resolve",
            Kind::Connect => "connect",
            Kind::Tls => "tls",
            Kind::Io => "io",
            Kind::Argument => "argument",
        }
    }
}

/// The system's or the protocol's own code of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A name, such as `ECONNREFUSED`.
    Name(Cow<'static, str>),
    /// A number, such as MQTT's reason code.
    Number(i64),
}

/// An error of the outside world. Lua gets it as the second value after `nil`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What scripts branch on.
    pub kind: Kind,
    /// The operation that failed, as the script named it.
    pub op: &'static str,
    /// What happened, in words, and what to do.
    pub message: Cow<'static, str>,
    /// The system's or the protocol's code.
    pub code: Option<Code>,
    /// The error below this one.
    pub cause: Option<Box<Error>>,
}

impl Error {
    /// An error without code or cause.
    pub fn new(kind: Kind, op: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, op, message: message.into(), code: None, cause: None }
    }

    /// The same with a code.
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    /// The same with the error below it.
    pub fn with_cause(mut self, cause: Error) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// An error of the system during `op`: resets and broken pipes are `closed`, the rest `io`.
    pub fn from_io(op: &'static str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => Kind::Closed,
            io::ErrorKind::TimedOut => Kind::Timeout,
            _ => Kind::Io,
        };
        let message = match error.kind() {
            io::ErrorKind::ConnectionReset => Cow::Borrowed("the other side reset the connection"),
            io::ErrorKind::BrokenPipe => Cow::Borrowed("the other side no longer reads"),
            io::ErrorKind::UnexpectedEof => Cow::Borrowed("the stream ended in the middle"),
            _ => Cow::Owned(describe(error)),
        };
        let mut made = Self::new(kind, op, message);
        made.code = error.raw_os_error().map(|number| match crate::os::errno_name(number) {
            Some(name) => Code::Name(Cow::Borrowed(name)),
            None => Code::Number(number.into()),
        });
        made
    }
}

/// The system's words without Rust's "(os error 111)", which `code` says better.
fn describe(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error ") {
        text.truncate(at);
    }
    if let Some(first) = text.get(..1) {
        let lower = first.to_lowercase();
        text.replace_range(..1, &lower);
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}", self.op, self.message, self.kind.as_str())?;
        match &self.code {
            Some(Code::Name(name)) => write!(f, ", {name})"),
            Some(Code::Number(number)) => write!(f, ", {number})"),
            None => write!(f, ")"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// Registry name of the metatable that every error table carries.
pub(crate) const METATABLE: &str = "moonwire.error";

impl IntoLua for Error {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let table = lua.create_table_with_capacity(0, 5)?;
        table.raw_set("kind", self.kind.as_str())?;
        table.raw_set("op", self.op)?;
        table.raw_set("message", self.message.as_ref())?;
        match self.code {
            Some(Code::Name(name)) => table.raw_set("code", name.as_ref())?,
            Some(Code::Number(number)) => table.raw_set("code", number)?,
            None => {}
        }
        if let Some(cause) = self.cause {
            table.raw_set("cause", *cause)?;
        }
        table.set_metatable(lua.named_registry_value::<Option<Table>>(METATABLE)?)?;
        Ok(Value::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_where_and_which_code() {
        let error = Error::from_io("connect", &io::Error::from_raw_os_error(111));
        assert_eq!(error.to_string(), "connect: connection refused (io, ECONNREFUSED)");
    }
}
