//! What SQLite says, as an error that says what to do.

use moonwire_runtime::{Code, Error, Kind};
use rusqlite::ffi;

/// The primary result codes (<https://www.sqlite.org/rescode.html>).
const NAMES: &[(i32, &str)] = &[
    (ffi::SQLITE_ERROR, "SQLITE_ERROR"),
    (ffi::SQLITE_INTERNAL, "SQLITE_INTERNAL"),
    (ffi::SQLITE_PERM, "SQLITE_PERM"),
    (ffi::SQLITE_ABORT, "SQLITE_ABORT"),
    (ffi::SQLITE_BUSY, "SQLITE_BUSY"),
    (ffi::SQLITE_LOCKED, "SQLITE_LOCKED"),
    (ffi::SQLITE_NOMEM, "SQLITE_NOMEM"),
    (ffi::SQLITE_READONLY, "SQLITE_READONLY"),
    (ffi::SQLITE_INTERRUPT, "SQLITE_INTERRUPT"),
    (ffi::SQLITE_IOERR, "SQLITE_IOERR"),
    (ffi::SQLITE_CORRUPT, "SQLITE_CORRUPT"),
    (ffi::SQLITE_NOTFOUND, "SQLITE_NOTFOUND"),
    (ffi::SQLITE_FULL, "SQLITE_FULL"),
    (ffi::SQLITE_CANTOPEN, "SQLITE_CANTOPEN"),
    (ffi::SQLITE_PROTOCOL, "SQLITE_PROTOCOL"),
    (ffi::SQLITE_SCHEMA, "SQLITE_SCHEMA"),
    (ffi::SQLITE_TOOBIG, "SQLITE_TOOBIG"),
    (ffi::SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT"),
    (ffi::SQLITE_MISMATCH, "SQLITE_MISMATCH"),
    (ffi::SQLITE_MISUSE, "SQLITE_MISUSE"),
    (ffi::SQLITE_NOLFS, "SQLITE_NOLFS"),
    (ffi::SQLITE_AUTH, "SQLITE_AUTH"),
    (ffi::SQLITE_RANGE, "SQLITE_RANGE"),
    (ffi::SQLITE_NOTADB, "SQLITE_NOTADB"),
];

/// The error of `op` on the database `path`.
pub(super) fn explain(op: &'static str, path: &str, error: &rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            from_code(op, path, failure.extended_code, message.as_deref().unwrap_or("it gave no reason"))
        }
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            let place = if *offset > 0 { format!(", at byte {} of the SQL", offset + 1) } else { String::new() };
            from_code(op, path, error.extended_code, &format!("{msg}{place}"))
        }
        rusqlite::Error::InvalidParameterCount(given, wanted) => {
            let message = format!("the SQL has room for {wanted} values, and {given} were given");
            Error::new(Kind::Argument, op, message)
        }
        rusqlite::Error::MultipleStatement => {
            let message = "values go to one statement; give each of several its own in a transaction";
            Error::new(Kind::Argument, op, message)
        }
        rusqlite::Error::NulError(_) => Error::new(Kind::Argument, op, "the SQL has a zero byte"),
        other => Error::new(Kind::Io, op, format!("{path}: {other}")),
    }
}

/// The error for one of SQLite's extended result codes.
fn from_code(op: &'static str, path: &str, extended: i32, said: &str) -> Error {
    let primary = extended & 0xff;
    let message = match primary {
        ffi::SQLITE_FULL => format!("no room to write {path}: {said}; nothing of this was stored, free some space"),
        ffi::SQLITE_READONLY => {
            format!("{path} may only be read: {said}; allow writing the file and its folder, or open it read_only")
        }
        ffi::SQLITE_CORRUPT => {
            format!("{path} is damaged: {said}; restore it from a copy, or move it away to begin a new one")
        }
        ffi::SQLITE_NOTADB => format!("{path} is not a database: {said}; it was left as it is, choose another path"),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => {
            format!("{path} is in use: {said}; another process, or this one, has it open, close it there")
        }
        ffi::SQLITE_CANTOPEN => {
            format!("cannot open {path}: {said}; see that its folder is there and may be written")
        }
        ffi::SQLITE_IOERR => {
            format!("the system could not read or write {path}: {said} (extended code {extended})")
        }
        ffi::SQLITE_AUTH => {
            let message = "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are not for statements: tasks share the connection; \
                           use db:transaction";
            return Error::new(Kind::Argument, op, message);
        }
        _ => said.to_owned(),
    };
    coded(op, name(primary), message)
}

/// An error with one of SQLite's names, or one of ours.
pub(super) fn coded(op: &'static str, code: &'static str, message: String) -> Error {
    Error::new(Kind::Io, op, message).with_code(Code::Name(code.into()))
}

fn name(primary: i32) -> &'static str {
    NAMES.iter().find(|(code, _)| *code == primary).map_or("SQLITE_ERROR", |(_, name)| name)
}
