//! What the person (or the log) sees: progress while it runs, every failure in full, every skip with its reason,
//! a table, the counts in the last line. With a folder, the same for programs, `results.txt` and `junit.xml`, and for a browser, `index.html`.

mod junit;
mod page;
mod terminal;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::outcome::{CaseResult, Counts, Outcome, ServerRun, without_trace};
use crate::process;
use terminal::Terminal;

/// How many lines of what went over the wire are printed; the report's folder has all of them.
const TRACE_SHOWN: usize = 30;

/// Takes results as they come.
#[derive(Debug)]
pub struct Report {
    terminal: Terminal,
    started: Instant,
    began: OffsetDateTime,
    /// What is under test, in its own words.
    version: String,
    suite: &'static str,
    suite_started: Instant,
    suite_counts: Counts,
    server: Option<String>,
    results: Vec<CaseResult>,
    suites: Vec<SuiteRun>,
    servers: Vec<ServerRun>,
    /// Which suite had which server.
    ways: Vec<(&'static str, ServerRun)>,
}

/// A suite that has run.
#[derive(Debug)]
struct SuiteRun {
    name: &'static str,
    counts: Counts,
    time: Duration,
}

impl Report {
    /// A report on standard output.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            terminal: Terminal::new(),
            started: now,
            began: OffsetDateTime::now_utc(),
            version: String::new(),
            suite: "",
            suite_started: now,
            suite_counts: Counts::default(),
            server: None,
            results: Vec::new(),
            suites: Vec::new(),
            servers: Vec::new(),
            ways: Vec::new(),
        }
    }

    /// A report that nobody sees, of what is a part of something else.
    pub fn unseen() -> Self {
        Self { terminal: Terminal { is_seen: false, is_watched: false }, ..Self::new() }
    }

    /// What has come so far.
    pub fn results(&self) -> &[CaseResult] {
        &self.results
    }

    /// The servers that took part.
    pub fn servers(&self) -> &[ServerRun] {
        &self.servers
    }

    /// Says what is under test.
    pub fn version(&mut self, version: &str) {
        version.clone_into(&mut self.version);
    }

    /// A suite begins; its results are against no server until it says so.
    pub fn begin(&mut self, suite: &'static str) {
        self.suite = suite;
        self.suite_started = Instant::now();
        self.suite_counts = Counts::default();
        self.server = None;
        self.progress("");
    }

    /// Results from here on are against this server.
    pub fn against(&mut self, server: Option<&str>) {
        self.server = server.map(str::to_owned);
    }

    /// The server that results are against at present.
    pub fn server_of_results(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// A server takes part in the present suite. Saying so again changes nothing.
    pub fn server(&mut self, server: ServerRun) {
        if !self.servers.contains(&server) {
            self.servers.push(server.clone());
        }
        let way = (self.suite, server);
        if !self.ways.contains(&way) {
            self.ways.push(way);
        }
    }

    /// What goes on now; seen on a terminal only.
    pub fn progress(&self, what: &str) {
        self.terminal.progress(self.suite, self.server.as_deref(), self.suite_started.elapsed(), what);
    }

    /// A case of the present suite has ended.
    pub fn case(&mut self, name: impl Into<String>, outcome: Outcome, time: Option<Duration>) {
        let (outcome, trace) = match outcome {
            Outcome::Failed(why) => {
                let (why, trace) = without_trace(&why);
                (Outcome::Failed(why), trace)
            }
            other => (other, String::new()),
        };
        let (suite, server) = (self.suite, self.server.clone());
        let result = CaseResult { suite, server, name: name.into(), outcome, time, trace };
        self.suite_counts.add(&result.outcome);
        if let Outcome::Failed(why) = &result.outcome {
            let what = with_trace(why, &result.trace, TRACE_SHOWN);
            self.say(&format!("FAILED     {}\n{}", result.title(), indented(&what)));
        } else {
            self.progress(&result.name);
        }
        self.results.push(result);
    }

    /// Whether nothing has been run at all.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Whether nothing has been run in the present suite.
    pub fn suite_is_empty(&self) -> bool {
        self.suite_counts == Counts::default()
    }

    /// The present suite has ended.
    pub fn end(&mut self) {
        let (name, counts, time) = (self.suite, self.suite_counts, self.suite_started.elapsed());
        self.say(&format!("{name:<10} {counts} ({:.1} s)", time.as_secs_f64()));
        self.suites.push(SuiteRun { name, counts, time });
    }

    /// Prints lines that stay.
    pub fn say(&self, text: &str) {
        self.terminal.say(text);
    }

    /// Names what failed and what was skipped, and ends with the counts.
    pub fn finish(&self) -> Counts {
        let mut counts = Counts::default();
        for result in &self.results {
            counts.add(&result.outcome);
        }
        let skips = terminal::skips(self);
        if !skips.is_empty() {
            self.say(&format!("\nSkipped:\n{}", skips.trim_end()));
        }
        if counts.failed > 0 {
            self.say("\nFailed:");
            for result in self.results.iter().filter(|result| matches!(result.outcome, Outcome::Failed(_))) {
                self.say(&format!("  {}", result.title()));
            }
        }
        self.say(&format!("\n{}", terminal::summary(self)));
        if !self.ways.is_empty() {
            self.say(&terminal::ways(self));
        }
        let (suites, seconds) = (self.suites.len(), self.started.elapsed().as_secs_f64());
        self.say(&format!("{suites} {} in {seconds:.0} s", if suites == 1 { "suite" } else { "suites" }));
        self.say(&counts.to_string());
        counts
    }

    /// Writes `results.txt`, `junit.xml` and `index.html`.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.txt"), self.results_text())?;
        fs::write(folder.join("junit.xml"), junit::text(self))?;
        fs::write(folder.join("index.html"), page::text(self))
    }

    /// When this run began: "2026-05-04 03:02 UTC".
    fn started_at(&self) -> String {
        let (date, time) = (self.began.date(), self.began.time());
        format!("{date} {:02}:{:02} UTC", time.hour(), time.minute())
    }

    fn results_text(&self) -> String {
        let mut text = String::new();
        for CaseResult { suite, server, name, outcome, time, trace } in &self.results {
            let seconds = time.map_or(String::new(), |time| format!("{:.3} s", time.as_secs_f64()));
            let server = server.as_deref().unwrap_or("-");
            let _ = write!(text, "{:<8} {suite:<12} {server:<10} {seconds:>10}  {name}", outcome.word());
            match outcome {
                Outcome::Passed => text.push('\n'),
                Outcome::Skipped(why) => {
                    let _ = writeln!(text, "  ({why})");
                }
                Outcome::Failed(why) => {
                    let _ = writeln!(text, "\n{}", indented(&with_trace(why, trace, usize::MAX)));
                }
            }
        }
        text
    }
}

/// What is wrong, and below it what went over the wire: the last `lines_max` lines of it.
fn with_trace(why: &str, trace: &str, lines_max: usize) -> String {
    let lines = trace.lines().count();
    let which = match lines {
        0 => return why.to_owned(),
        _ if lines > lines_max => format!(" (the last {lines_max} of {lines} lines)"),
        _ => String::new(),
    };
    format!("{why}\non the wire{which}:\n{}", indented(&process::tail(trace, lines_max)))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A suite that has run, with one case of each outcome, two of them against a server.
    pub fn report() -> Report {
        let mut report = Report::new();
        report.terminal.is_watched = false;
        report.begin("mqtt");
        report.case("holds", Outcome::Passed, Some(Duration::from_millis(1500)));
        report.against(Some("nats"));
        let server = ServerRun { name: "nats".into(), version: "2.9".into(), way: "native".into() };
        report.server(server.clone());
        report.server(server);
        report.case(
            "a < b",
            Outcome::Failed("1 & 2\n\u{1b}[0m\ntrace> 0.1 > CONNECT\ntrace> 0.2 < CONNACK".into()),
            None,
        );
        report.case("later", Outcome::Skipped("no broker".into()), None);
        report.end();
        report
    }

    #[test]
    fn every_case_is_counted_once() {
        assert_eq!(report().finish().to_string(), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn of_a_long_trace_the_end_is_printed() {
        assert_eq!(with_trace("why", "", 2), "why");
        assert_eq!(with_trace("why", "a\nb", 2), "why\non the wire:\n    a\n    b");
        assert_eq!(with_trace("why", "a\nb\nc", 2), "why\non the wire (the last 2 of 3 lines):\n    b\n    c");
    }

    #[test]
    fn a_server_takes_part_once() {
        assert_eq!(report().servers.len(), 1);
    }

    #[test]
    fn a_new_suite_is_against_no_server() {
        let mut report = report();
        report.begin("lua");
        assert_eq!(report.server_of_results(), None);
    }

    #[test]
    fn results_are_lines_with_their_suite_and_server() {
        let folder = tempfile::tempdir().unwrap();
        let deeper = folder.path().join("a/b");
        report().write(&deeper).unwrap();
        assert!(deeper.join("junit.xml").is_file() && deeper.join("index.html").is_file());
        let results = fs::read_to_string(deeper.join("results.txt")).unwrap();
        let lines: Vec<&str> = results.lines().collect();
        assert_eq!(lines[0], "passed   mqtt         -             1.500 s  holds");
        assert_eq!(lines[1], "failed   mqtt         nats                   a < b");
        assert_eq!(
            lines[2..7],
            ["    1 & 2", "    \u{1b}[0m", "    on the wire:", "        0.1 > CONNECT", "        0.2 < CONNACK"]
        );
        assert_eq!(lines.last(), Some(&"skipped  mqtt         nats                   later  (no broker)"));
    }
}
