//! `moonwire test [PATHS]...`
//!
//! Each file runs in a process of its own: a test that hangs, crashes or exits ends only that process, and the
//! rest of the file runs in the next one.

mod event;
mod junit;
mod report;
mod worker;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, IsTerminal},
    mem,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use event::Event;
use report::{Case, Outcome, Report};

use super::{FAILED, USAGE, files::lua_files, output::complain, run::describe, trace::Settings};

/// Run Lua tests: every function in the table that a file returns is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A test runs in a task of its own, on a clock that jumps over waiting. The module `test` has checks, random
numbers and scripted streams; `lua/test.lua` says how they are used.

Exit status: 0 when every test passed or was skipped, 1 when one failed, 2 when there was none.")]
pub struct Options {
    /// Test files, and folders of `*_test.lua` files [default: lua/test when there is one, else .]
    paths: Vec<PathBuf>,
    /// Run only tests whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    filter: String,
    /// Print the names of the tests, and run none
    #[arg(long)]
    list: bool,
    /// Repeat what `test.random` gave in an earlier run
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<u32>,
    /// Let time pass as it does outside
    #[arg(long)]
    real_clock: bool,
    /// Seconds after which a test that has not ended has failed
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, allow_hyphen_values = true)]
    timeout: Duration,
    /// Write the results to FILE, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Run the tests of one file from this one on, for a parent process
    #[arg(long, value_name = "FIRST", hide = true)]
    worker: Option<usize>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "not a number of seconds above 0".to_owned())
}

/// Runs the tests.
pub fn test(options: &Options, trace: &Settings) -> ExitCode {
    if let Some(first) = options.worker {
        return worker::work(options, first, trace);
    }
    let files = match test_files(&options.paths) {
        Ok(files) => files,
        Err(message) => {
            complain(format_args!("moonwire test: {message}"));
            return ExitCode::from(USAGE);
        }
    };
    let seed = options.seed.unwrap_or_else(new_seed);
    let mut report = Report::new(io::stdout(), io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none());
    for file in &files {
        if let Err(error) = run_file(options, trace, seed, file, &mut report) {
            complain(format_args!("moonwire test: cannot run {}: {}", file.display(), describe(&error)));
            return ExitCode::from(USAGE);
        }
        if options.fail_fast && report.failed() > 0 {
            break;
        }
    }
    let cases = if options.list { report.listed() } else { report.finish() };
    if cases == 0 {
        let why = if options.filter.is_empty() { String::new() } else { format!(" is called {:?}", options.filter) };
        complain(format_args!("moonwire test: no test{why} in {} files", files.len()));
        return ExitCode::from(USAGE);
    }
    if let Some(path) = &options.junit
        && let Err(error) = fs::write(path, junit::document(report.cases()))
    {
        complain(format_args!("moonwire test: cannot write {}: {}", path.display(), describe(&error)));
        return ExitCode::from(USAGE);
    }
    ExitCode::from(if report.failed() > 0 { FAILED } else { 0 })
}

fn test_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let default = [PathBuf::from(if Path::new("lua/test").is_dir() { "lua/test" } else { "." })];
    let paths = if paths.is_empty() { &default } else { paths };
    let mut files = Vec::new();
    for path in paths {
        let found = lua_files(path, |name| name.ends_with("_test.lua"))
            .map_err(|error| format!("cannot read {}: {}", path.display(), describe(&error)))?;
        if found.is_empty() {
            return Err(format!("no *_test.lua file in {}", path.display()));
        }
        files.extend(found);
    }
    Ok(files)
}

fn new_seed() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos() ^ since.as_secs() as u32)
}

/// Runs one file, in as many processes as it takes.
fn run_file(options: &Options, trace: &Settings, seed: u32, file: &Path, report: &mut Report) -> io::Result<()> {
    let mut first = 1;
    report.begin_file(file);
    loop {
        let mut worker = Worker::start(options, trace, seed, file, first)?;
        match worker.run(options, file, report) {
            Some(lost) => first = lost + 1,
            None => break,
        }
        if options.fail_fast && report.failed() > 0 {
            break;
        }
    }
    report.end_file();
    Ok(())
}

/// A process that runs the tests of one file.
struct Worker {
    process: Child,
    output: Receiver<Vec<u8>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    fn start(options: &Options, trace: &Settings, seed: u32, file: &Path, first: usize) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("test").arg("--worker").arg(first.to_string()).arg("--seed").arg(seed.to_string());
        command.arg(format!("--filter={}", options.filter));
        command.arg(format!("--timeout={}", options.timeout.as_secs_f64()));
        if options.real_clock {
            command.arg("--real-clock");
        }
        if options.fail_fast {
            command.arg("--fail-fast");
        }
        if options.list {
            command.arg("--list");
        }
        trace.pass_on(&mut command);
        command.arg("--").arg(file).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let (lines, output) = mpsc::channel();
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stdout);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                    if lines.send(mem::take(&mut line)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { process, output })
    }

    /// Follows the process to its end. Answers the number of the test that took it along, if one did.
    fn run(&mut self, options: &Options, file: &Path, report: &mut Report) -> Option<usize> {
        let mut names = Vec::new();
        let mut last: Option<usize> = None;
        let mut is_running = true;
        let mut since = Instant::now();
        let case = |names: &[String], last: Option<usize>, outcome, seconds| Case {
            file: file.to_owned(),
            name: last.and_then(|number| names.get(number - 1)).map_or("the file itself", String::as_str).to_owned(),
            outcome,
            seconds,
        };
        // The worker itself ends a test that takes too long, unless it cannot.
        let limit = options.timeout.saturating_add(Duration::from_secs(5));
        let why = loop {
            let line = match self.output.recv_timeout(limit.saturating_sub(since.elapsed())) {
                Ok(line) => line,
                Err(why) => break why,
            };
            let (printed, event) = Event::split(&line);
            report.pass_on(printed);
            let (outcome, seconds) = match event {
                None => continue,
                Some(Event::Plan { names: planned }) => {
                    if options.list {
                        report.list(file, &planned);
                    }
                    names = planned;
                    continue;
                }
                Some(Event::Begin { number }) => {
                    last = Some(number);
                    is_running = true;
                    since = Instant::now();
                    continue;
                }
                Some(Event::Passed { seconds }) => (Outcome::Passed, seconds),
                Some(Event::Skipped { reason, seconds }) => (Outcome::Skipped { reason }, seconds),
                Some(Event::Failed { message, trace, wire, seconds }) => {
                    (Outcome::Failed { message, trace, wire }, seconds)
                }
                Some(Event::Done) => return None,
                Some(Event::Lost) => return last,
            };
            report.add(case(&names, last, outcome, seconds));
            is_running = false;
            since = Instant::now();
        };
        let message = match why {
            RecvTimeoutError::Timeout => format!("did not end within {:?}", options.timeout),
            RecvTimeoutError::Disconnected => self.last_words(),
        };
        let last = last.filter(|_| is_running);
        let outcome = Outcome::Failed { message, trace: String::new(), wire: Vec::new() };
        report.add(case(&names, last, outcome, since.elapsed().as_secs_f64()));
        last
    }

    /// How a process ended that said nothing.
    fn last_words(&mut self) -> String {
        match self.process.wait() {
            Ok(status) => format!("ended the whole process ({status})"),
            Err(error) => format!("ended the whole process ({error})"),
        }
    }
}
