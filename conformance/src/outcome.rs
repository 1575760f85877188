//! What became of a case.

use std::fmt;
use std::time::Duration;

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not, for this reason (many lines, maybe).
    Failed(String),
    /// It was not tried, for this reason.
    Skipped(String),
}

impl Outcome {
    /// The word that stands for it in files.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped(_) => "skipped",
        }
    }
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Outcome::Failed, |()| Outcome::Passed)
    }
}

/// One case of one suite, and what became of it.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// The suite's name.
    pub suite: &'static str,
    /// The server it ran against, if there was one.
    pub server: Option<String>,
    /// The case's name, unique in its suite against one server.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took, if that is known of the single case.
    pub time: Option<Duration>,
    /// What went over the wire before it failed, a line each.
    pub trace: String,
}

/// How a line of a failure begins that says what went over the wire.
const TRACE: &str = "trace> ";

/// Tells what is wrong from what went over the wire.
pub fn without_trace(why: &str) -> (String, String) {
    let (mut text, mut trace) = (Vec::new(), Vec::new());
    for line in why.lines() {
        match line.trim_start().strip_prefix(TRACE) {
            Some(line) => trace.push(line),
            None => text.push(line),
        }
    }
    (text.join("\n"), trace.join("\n"))
}

impl CaseResult {
    /// "mqtt mosquitto: statement", or without a server "lua: statement".
    pub fn title(&self) -> String {
        match &self.server {
            Some(server) => format!("{} {server}: {}", self.suite, self.name),
            None => format!("{}: {}", self.suite, self.name),
        }
    }
}

/// A server that took part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRun {
    /// Its name, as results carry it.
    pub name: String,
    /// Its version, as numbers with dots; empty when it is not known.
    pub version: String,
    /// How it ran: "native", the engine of containers and the image, or the address of one that somebody else runs.
    pub way: String,
}

/// How many cases came to what end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cases that held.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Cases that were not tried.
    pub skipped: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_over_the_wire_is_told_from_what_is_wrong() {
        let why = "not equal\ntrace> 0.1 > CONNECT\n  at x.lua:3\n  trace> 0.2 < CONNACK\n";
        let (text, trace) = without_trace(why);
        assert_eq!(text, "not equal\n  at x.lua:3");
        assert_eq!(trace, "0.1 > CONNECT\n0.2 < CONNACK");
        assert_eq!(without_trace("no trace> here"), ("no trace> here".to_owned(), String::new()));
    }

    #[test]
    fn the_last_line_has_exactly_this_form() {
        let mut counts = Counts::default();
        counts.add(&Outcome::Passed);
        counts.add(&Outcome::Passed);
        counts.add(&Outcome::Failed("why".into()));
        counts.add(&Outcome::Skipped("why".into()));
        assert_eq!(counts.to_string(), "2 passed, 1 failed, 1 skipped");
    }
}
