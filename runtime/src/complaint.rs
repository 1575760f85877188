//! What is told to people on standard error.

use std::{
    fmt,
    io::{self, Write},
};

/// Prints a line. That nobody reads it any more (`moonwire script.lua 2>&1 | head`) is no reason to panic.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
