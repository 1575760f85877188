//! `moonwire SCRIPT [ARGUMENTS]...`

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use moonwire_runtime::{RunError, Runtime, mlua};

use super::{FAILED, USAGE, files::folder_of, output::complain, refuse, trace::Settings};

/// Runs a script until all its tasks have ended.
pub fn run(script: &OsStr, arguments: &[OsString], trace: &Settings) -> ExitCode {
    let source = match read(script) {
        Ok(source) => source,
        Err(error) => {
            complain(format_args!("moonwire: cannot read {}: {}", script.display(), describe(&error)));
            return ExitCode::from(USAGE);
        }
    };
    let name = if script == "-" { "=stdin".to_owned() } else { format!("@{}", script.display()) };
    let outcome = match build(script, arguments) {
        Ok(runtime) => match trace.start(runtime.lua()) {
            Ok(()) => runtime.run_source(&name, source),
            Err(message) => return refuse(&message),
        },
        Err(error) => Err(RunError::from(error)),
    };
    match outcome {
        // The system keeps eight bits of a status.
        Ok(status) => ExitCode::from((status & 0xff) as u8),
        Err(error) => {
            complain(format_args!("moonwire: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Processor time a task may take without waiting before it is reported, unless MOONWIRE_HOG says otherwise.
const HOG_LIMIT: Duration = Duration::from_secs(1);

/// What MOONWIRE_HOG says; `None` turns the watch off. What is not a number of seconds is as if unset.
fn hog_limit() -> Option<Duration> {
    let asked = env::var("MOONWIRE_HOG").ok().and_then(|text| text.parse::<f64>().ok());
    let limit = asked.map_or(HOG_LIMIT, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(HOG_LIMIT));
    (!limit.is_zero()).then_some(limit)
}

fn build(script: &OsStr, arguments: &[OsString]) -> mlua::Result<Runtime> {
    let mut builder = moonwire::builder();
    if let Some(limit) = hog_limit() {
        builder = builder.watch_hogs(limit);
    }
    builder = builder.search_path(folder_of(Path::new(script)));
    let folders = env::var_os("MOONWIRE_PATH").unwrap_or_default();
    for folder in env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()) {
        builder = builder.search_path(folder);
    }
    builder
        .arguments(&script.to_string_lossy(), arguments.iter().map(|argument| argument.to_string_lossy().into_owned()))
        .signals(true)
        .build()
}

fn read(script: &OsStr) -> io::Result<Vec<u8>> {
    if script == "-" {
        let mut source = Vec::new();
        io::stdin().lock().read_to_end(&mut source)?;
        return Ok(source);
    }
    fs::read(Path::new(script))
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
