//! Other programs: run to their end or beside us, never for longer than allowed, never left behind.
//!
//! Every program gets a process group of its own, so that what it starts ends with it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// What one program may print before it is ended: a loop that prints must not fill the memory.
const OUTPUT_MAX: usize = 64 * 1024 * 1024;
/// How long a program may take to end when asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often a silent program is asked whether it still lives.
const POLL: Duration = Duration::from_millis(20);

/// The groups that live now, for [`end_all`].
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Whether [`end_all`] has begun.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Which of a program's two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status, or why it has none.
    pub ending: Ending,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Status(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// We ended it after this long.
    TimedOut(Duration),
    /// We ended it because it printed more than [`OUTPUT_MAX`].
    Flooded,
}

impl Finished {
    /// Whether it ended by itself with status 0.
    pub fn succeeded(&self) -> bool {
        self.ending == Ending::Status(0)
    }

    /// How it ended and the last lines it printed: what a failed case shows.
    pub fn summary(&self) -> String {
        let mut text = self.ending.to_string();
        for (name, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let tail = tail(output, 25);
            if !tail.is_empty() {
                text.push_str(&format!("\n--- {name}\n{tail}"));
            }
        }
        text
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Status(status) => write!(f, "exit status {status}"),
            Ending::Signal(signal) => write!(f, "ended by signal {signal}"),
            Ending::TimedOut(after) => write!(f, "not ended after {} s", after.as_secs()),
            Ending::Flooded => write!(f, "printed more than {} MiB", OUTPUT_MAX / 1024 / 1024),
        }
    }
}

/// The last `count` lines of `text`.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Runs `command` to its end, for at most `time_max`; `on_line` sees each line as it comes.
///
/// # Errors
/// In words, when the program cannot be started.
pub fn run(command: Command, time_max: Duration, on_line: impl FnMut(Source, &str)) -> Result<Finished, String> {
    Process::start(command)?.finish(time_max, on_line)
}

/// A program that runs beside us. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    events: Receiver<Event>,
    open: usize,
    stdout: String,
    stderr: String,
    ended: Option<ExitStatus>,
}

#[derive(Debug)]
enum Event {
    Line(Source, String),
    End,
}

impl Process {
    /// Starts `command` with no standard input. Outputs that the command has not sent elsewhere are read here.
    ///
    /// # Errors
    /// In words, when the program cannot be started.
    pub fn start(command: Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut command = command;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command).map_err(|error| format!("cannot start {name}: {error}"))
    }

    /// Starts `command`, whose standard input and outputs are already decided: for servers, which log to a file.
    ///
    /// # Errors
    /// What the system said.
    pub fn spawn(mut command: Command) -> std::io::Result<Self> {
        let mut groups = lock_groups();
        while ENDING.load(Ordering::SeqCst) {
            // Everything is about to be gone, this thread with it: nothing starts any more that nobody would end.
            drop(groups);
            thread::park();
            groups = lock_groups();
        }
        let mut child = command.process_group(0).spawn()?;
        groups.insert(group_of(&child));
        drop(groups);
        let (sender, events) = mpsc::channel();
        let mut open = 0;
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, Source::Stdout, sender.clone());
            open += 1;
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, Source::Stderr, sender);
            open += 1;
        }
        Ok(Self { child, events, open, stdout: String::new(), stderr: String::new(), ended: None })
    }

    /// Waits until it prints a line for which `wanted` is true, and answers that line.
    ///
    /// # Errors
    /// In words, when it ends or `time_max` passes without such a line.
    pub fn wait_for_line(&mut self, time_max: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let deadline = Instant::now() + time_max;
        loop {
            match self.next_line(deadline) {
                Some((_, line)) if wanted(&line) => return Ok(line),
                Some(_) => {}
                None if self.open == 0 => return Err(format!("ended early\n{}", self.printed())),
                None => return Err(format!("nothing after {} s\n{}", time_max.as_secs(), self.printed())),
            }
        }
    }

    /// Waits for its end, at most `time_max`, then ends it; `on_line` sees each line as it comes.
    ///
    /// # Errors
    /// In words, when the system loses track of it.
    pub fn finish(mut self, time_max: Duration, mut on_line: impl FnMut(Source, &str)) -> Result<Finished, String> {
        let deadline = Instant::now() + time_max;
        let ending = loop {
            if let Some((source, line)) = self.next_line(deadline) {
                on_line(source, &line);
                if self.stdout.len() + self.stderr.len() > OUTPUT_MAX {
                    break Ending::Flooded;
                }
            } else if self.open == 0 {
                // Both outputs are closed; the status follows at once, or the program closed them to go on in silence.
                break match self.wait(deadline)? {
                    Some(status) => ending_of(status),
                    None => Ending::TimedOut(time_max),
                };
            } else {
                break Ending::TimedOut(time_max);
            }
        };
        self.end();
        let stdout = std::mem::take(&mut self.stdout);
        let stderr = std::mem::take(&mut self.stderr);
        Ok(Finished { ending, stdout, stderr })
    }

    /// The lines of its standard output since it was asked last; waits for the first one, at most `patience`.
    pub fn take_lines(&mut self, patience: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        let mut deadline = Instant::now() + patience;
        while let Some((source, line)) = self.next_line(deadline) {
            if source == Source::Stdout {
                lines.push(line);
            }
            // The rest has to be there already.
            deadline = Instant::now() + Duration::from_micros(100);
        }
        lines
    }

    /// Kills it and whatever it started: it gets no say. Answers once it is gone, with the last lines of its standard
    /// output.
    pub fn kill(&mut self) -> Vec<String> {
        let group = group_of(&self.child);
        signal_group(group, Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
        lock_groups().remove(&group);
        let mut lines = Vec::new();
        while let Some((source, line)) = self.next_line(Instant::now() + GRACE) {
            if source == Source::Stdout {
                lines.push(line);
            }
        }
        lines
    }

    /// Stops it and whatever it started, without a word to anybody, until [`Process::thaw`].
    pub fn freeze(&self) {
        signal_group(group_of(&self.child), Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal_group(group_of(&self.child), Signal::CONT);
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Interrupts it as Ctrl-C does, and does not wait.
    pub fn interrupt(&self) {
        signal_group(group_of(&self.child), Signal::INT);
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Ends it and whatever it started: politely first. Answers once it is gone.
    pub fn end(&mut self) {
        let group = group_of(&self.child);
        if self.ended().is_none() {
            signal_group(group, Signal::TERM);
            if !matches!(self.wait(Instant::now() + GRACE), Ok(Some(_))) {
                signal_group(group, Signal::KILL);
                self.ended = self.child.wait().ok();
            }
        }
        // What it started may outlive it; an empty group is not an error worth hearing of.
        signal_group(group, Signal::KILL);
        lock_groups().remove(&group);
    }

    /// Everything it printed so far, for a failed case.
    pub fn printed(&self) -> String {
        tail(&format!("{}{}", self.stdout, self.stderr), 25)
    }

    /// The next line of either output; `None` when the outputs are closed, or the deadline has passed.
    fn next_line(&mut self, deadline: Instant) -> Option<(Source, String)> {
        // Children of the program may hold the outputs open after its end: then they have this long to finish.
        let mut after_end = None;
        while self.open > 0 {
            let now = Instant::now();
            let until = after_end.unwrap_or(deadline).min(deadline);
            if now >= until {
                if after_end.is_some() {
                    self.open = 0;
                }
                return None;
            }
            match self.events.recv_timeout((until - now).min(POLL)) {
                Ok(Event::Line(source, line)) => {
                    let kept = if source == Source::Stdout { &mut self.stdout } else { &mut self.stderr };
                    kept.push_str(&line);
                    kept.push('\n');
                    return Some((source, line));
                }
                Ok(Event::End) => self.open -= 1,
                Err(RecvTimeoutError::Disconnected) => self.open = 0,
                Err(RecvTimeoutError::Timeout) => {
                    if after_end.is_none() && self.ended().is_some() {
                        after_end = Some(Instant::now() + Duration::from_secs(1));
                    }
                }
            }
        }
        None
    }

    fn wait(&mut self, deadline: Instant) -> Result<Option<ExitStatus>, String> {
        loop {
            if let Some(status) = self.ended() {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(POLL / 4);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends every program started here, at once, and lets none start any more: for an interrupted harness.
pub fn end_all() {
    let groups = lock_groups();
    ENDING.store(true, Ordering::SeqCst);
    for signal in [Signal::TERM, Signal::KILL] {
        for &group in groups.iter() {
            signal_group(group, signal);
        }
    }
}

fn read_lines(output: impl Read + Send + 'static, source: Source, sender: Sender<Event>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(OUTPUT_MAX as u64).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    if sender.send(Event::Line(source, text.trim_end_matches(['\n', '\r']).to_owned())).is_err() {
                        break;
                    }
                }
            }
        }
        let _ = sender.send(Event::End);
    });
}

fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Status(code),
        (None, signal) => Ending::Signal(signal.unwrap_or(0)),
    }
}

fn group_of(child: &Child) -> i32 {
    child.id().cast_signed()
}

fn signal_group(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group) {
        let _ = kill_process_group(pid, signal);
    }
}

fn lock_groups() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_and_the_status_are_kept_apart() {
        let mut lines = Vec::new();
        let finished = run(sh("echo one; echo two >&2; exit 3"), Duration::from_secs(10), |source, line| {
            lines.push((source, line.to_owned()));
        })
        .unwrap();
        assert_eq!(finished.ending, Ending::Status(3));
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("one\n", "two\n"));
        assert!(lines.contains(&(Source::Stderr, "two".to_owned())));
        assert!(!finished.succeeded());
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_what_it_started() {
        let begun = Instant::now();
        let finished = run(sh("sleep 1000 & echo $!; wait"), Duration::from_millis(300), |_, _| {}).unwrap();
        assert_eq!(finished.ending, Ending::TimedOut(Duration::from_millis(300)));
        assert!(begun.elapsed() < GRACE, "it went at the first word");
        let child = finished.stdout.trim();
        // It has its signal; on a busy machine it may not have got to dying of it.
        let state = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let lives = |state: &str| !state.is_empty() && !state.contains(") Z ");
        while lives(&state()) && begun.elapsed() < Duration::from_secs(30) {
            std::thread::yield_now();
        }
        assert!(!lives(&state()), "the child lives: {}", state());
    }

    #[test]
    fn a_child_that_holds_the_output_open_does_not_hold_us() {
        let begun = Instant::now();
        let finished = run(sh("sleep 1000 & echo started"), Duration::from_secs(60), |_, _| {}).unwrap();
        assert_eq!((finished.ending, finished.stdout.as_str()), (Ending::Status(0), "started\n"));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let mut process = Process::start(sh("echo ready; exec sleep 1000")).unwrap();
        assert_eq!(process.wait_for_line(Duration::from_secs(10), |line| line == "ready").unwrap(), "ready");
        let pid = process.child.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_killed_program_has_no_say_and_leaves_its_lines() {
        let script = "trap 'echo polite; exit' TERM; echo one; echo two; echo three; while :; do sleep 0.01; done";
        let mut process = Process::start(sh(script)).unwrap();
        assert_eq!(process.wait_for_line(Duration::from_secs(10), |line| line == "one").unwrap(), "one");
        let mut lines = Vec::new();
        while lines.is_empty() {
            lines.extend(process.take_lines(Duration::from_secs(10)));
        }
        lines.extend(process.kill());
        assert_eq!(lines, ["two", "three"]);
        assert_eq!(process.ended().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_frozen_program_says_nothing_until_it_thaws() {
        let mut process = Process::start(sh("while :; do echo tick; sleep 0.01; done")).unwrap();
        process.wait_for_line(Duration::from_secs(10), |line| line == "tick").unwrap();
        process.freeze();
        let state = format!("/proc/{}/stat", process.child.id());
        // `D`: it waits for a child that was stopped before it became `sleep`.
        let stands = |stat: String| [") T ", ") D "].iter().any(|state| stat.contains(state));
        while !stands(std::fs::read_to_string(&state).unwrap()) {
            thread::yield_now();
        }
        process.take_lines(Duration::ZERO);
        assert!(process.ended().is_none());
        process.thaw();
        process.wait_for_line(Duration::from_secs(10), |line| line == "tick").unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(Command::new("moonwire-no-such-program"), GRACE, |_, _| {}).unwrap_err();
        assert!(error.starts_with("cannot start moonwire-no-such-program: "), "{error}");
    }

    #[test]
    fn waiting_for_a_line_ends_with_the_program() {
        let mut process = Process::start(sh("echo something else")).unwrap();
        let error = process.wait_for_line(Duration::from_secs(30), |line| line == "ready").unwrap_err();
        assert_eq!(error, "ended early\nsomething else");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }
}
