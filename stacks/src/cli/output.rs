//! What the command prints. A reader that went away (`moonwire test | head`) is no reason to panic.

use std::{
    fmt,
    io::{self, Write},
};

/// Prints a line on standard output.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a line on standard error.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
