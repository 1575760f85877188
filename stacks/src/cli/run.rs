//! `moonwire SCRIPT [ARGUMENTS]...`

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
    process::ExitCode,
};

use super::{FAILED, USAGE, output::complain};

/// Runs a script until all its tasks have ended.
pub fn run(script: &OsStr, arguments: &[OsString]) -> ExitCode {
    let source = match read(script) {
        Ok(source) => source,
        Err(error) => {
            complain(format_args!("moonwire: cannot read {}: {}", script.display(), describe(&error)));
            return ExitCode::from(USAGE);
        }
    };
    let name = if script == "-" { "=stdin".to_owned() } else { format!("@{}", script.display()) };
    let folder = match Path::new(script).parent() {
        Some(folder) if script != "-" && !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let built = moonwire::builder()
        .arguments(&script.to_string_lossy(), arguments.iter().map(|text| text.to_string_lossy().into_owned()))
        .search_path(folder)
        .signals(true)
        .build();
    let outcome = match built {
        Ok(runtime) => runtime.run_source(&name, without_shebang(&source)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(status) => ExitCode::from(status.clamp(0, 255) as u8),
        Err(error) => {
            complain(format_args!("moonwire: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn read(script: &OsStr) -> io::Result<Vec<u8>> {
    if script == "-" {
        let mut source = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut source)?;
        return Ok(source);
    }
    fs::read(Path::new(script))
}

/// A script's text without a byte order mark and a first line for the shell; line numbers stay.
pub fn without_shebang(source: &[u8]) -> &[u8] {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    match source {
        [b'#', ..] => &source[source.iter().position(|byte| *byte == b'\n').unwrap_or(source.len())..],
        _ => source,
    }
}

/// The system's words as they read in the middle of a line.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match text.chars().next() {
        Some(first) => first.to_lowercase().chain(text.chars().skip(1)).collect(),
        None => text.to_owned(),
    }
}
