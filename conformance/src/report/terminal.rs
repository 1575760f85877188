//! What a person (or a log) sees: progress on a terminal only, whatever stays in plain text, a table at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::time::Duration;

use super::Report;
use crate::outcome::{Counts, Outcome, ServerRun};

/// Longest progress line; terminals narrower than this are rare.
const PROGRESS_WIDTH: usize = 100;
/// How many skipped cases of one reason are named on the screen; all of them are in the report's folder.
const SKIPS_NAMED: usize = 8;
/// What stands for the server of cases that have none.
const NO_SERVER: &str = "-";

/// Standard output.
#[derive(Debug)]
pub struct Terminal {
    /// Whether anything is printed.
    pub is_seen: bool,
    /// Whether somebody watches; else it is a pipe or a file.
    pub is_watched: bool,
}

impl Terminal {
    /// Standard output, as it is.
    pub fn new() -> Self {
        Self { is_seen: true, is_watched: stdout().is_terminal() }
    }

    /// What goes on now; replaced by whatever comes next.
    pub fn progress(&self, suite: &str, server: Option<&str>, time: Duration, what: &str) {
        if self.is_watched {
            print!("\r\x1b[2K{}", progress_line(suite, server, time, what));
            let _ = stdout().flush();
        }
    }

    /// Lines that stay.
    pub fn say(&self, text: &str) {
        if !self.is_seen {
            return;
        }
        if self.is_watched {
            print!("\r\x1b[2K");
        }
        println!("{text}");
    }
}

/// The suite, the server, the time since the suite began, and what is done, on one line whatever it contains.
fn progress_line(suite: &str, server: Option<&str>, time: Duration, what: &str) -> String {
    let seconds = time.as_secs_f64();
    let line = format!("{suite:<12} {:<10} {seconds:>6.1} s  {what}", server.unwrap_or_default());
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROGRESS_WIDTH).collect()
}

/// A suite against a server.
struct Row<'a> {
    suite: &'a str,
    server: &'a str,
    counts: Counts,
    /// Of those cases that were timed one by one.
    time: Option<Duration>,
}

/// What each suite came to against each server, in the order they ran.
pub fn summary(report: &Report) -> String {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for result in &report.results {
        let server = result.server.as_deref().unwrap_or(NO_SERVER);
        let known = rows.iter().position(|row| (row.suite, row.server) == (result.suite, server));
        let index = known.unwrap_or_else(|| {
            rows.push(Row { suite: result.suite, server, counts: Counts::default(), time: None });
            rows.len() - 1
        });
        rows[index].counts.add(&result.outcome);
        rows[index].time = rows[index].time.into_iter().chain(result.time).reduce(|sum, time| sum + time);
    }
    let suite_width = rows.iter().map(|row| row.suite.len()).fold(10, usize::max);
    let server_width = rows.iter().map(|row| row.server.len()).fold(10, usize::max);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<suite_width$}  {:<server_width$}  {:>7}  {:>7}  {:>7}  {:>9}",
        "suite", "server", "passed", "failed", "skipped", "time"
    );
    for Row { suite, server, counts: Counts { passed, failed, skipped }, time } in &rows {
        let time = time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let _ = writeln!(
            text,
            "{suite:<suite_width$}  {server:<server_width$}  {passed:>7}  {failed:>7}  {skipped:>7}  {time:>9}"
        );
    }
    text
}

/// Which servers each suite had, in which version, and how they ran.
pub fn ways(report: &Report) -> String {
    let suite_width = report.ways.iter().map(|(suite, _)| suite.len()).fold(10, usize::max);
    let mut text = String::new();
    for (suite, ServerRun { name, version, way }) in &report.ways {
        let server = format!("{name} {version}");
        let _ = writeln!(text, "{suite:<suite_width$}  {}: {way}", server.trim_end());
    }
    text
}

/// The skipped cases by their reasons; empty when there are none.
pub fn skips(report: &Report) -> String {
    let mut text = String::new();
    for ((suite, server, reason), names) in gathered(report) {
        let server = server.map_or(String::new(), |server| format!(" {server}"));
        let _ = writeln!(text, "  {suite}{server} ({}): {reason}", names.len());
        for name in names.iter().take(SKIPS_NAMED) {
            let _ = writeln!(text, "    {name}");
        }
        if names.len() > SKIPS_NAMED {
            let _ = writeln!(text, "    and {} more", names.len() - SKIPS_NAMED);
        }
    }
    text
}

/// Suite, server and reason.
type Skip<'a> = (&'a str, Option<&'a str>, &'a str);

fn gathered(report: &Report) -> BTreeMap<Skip<'_>, Vec<&str>> {
    let mut skips: BTreeMap<Skip<'_>, Vec<&str>> = BTreeMap::new();
    for result in &report.results {
        if let Outcome::Skipped(reason) = &result.outcome {
            skips.entry((result.suite, result.server.as_deref(), reason)).or_default().push(&result.name);
        }
    }
    skips
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn skips_are_gathered_by_reason() {
        let report = report();
        let skips: Vec<_> = gathered(&report).into_iter().collect();
        assert_eq!(skips, [(("mqtt", Some("nats"), "no broker"), vec!["later"])]);
        assert_eq!(super::skips(&report), "  mqtt nats (1): no broker\n    later\n");
    }

    #[test]
    fn progress_is_one_line_that_fits() {
        let line = progress_line("mqtt", Some("nats"), Duration::from_millis(1250), &"a\n\u{1b}[31m".repeat(100));
        assert!(line.starts_with("mqtt         nats          1.2 s  a  [31m"), "{line}");
        assert_eq!(line.chars().count(), PROGRESS_WIDTH);
        assert!(!line.contains(char::is_control));
    }

    #[test]
    fn how_servers_ran_is_said_of_each_suite() {
        let mut report = report();
        report.begin("smtp");
        let way = String::from("podman 4.3.1 with moonwire-postfix");
        report.server(ServerRun { name: "postfix".into(), version: String::new(), way });
        assert_eq!(
            ways(&report),
            "mqtt        nats 2.9: native\nsmtp        postfix: podman 4.3.1 with moonwire-postfix\n"
        );
    }

    #[test]
    fn the_summary_has_a_line_for_each_suite_and_server() {
        let lines: Vec<String> = summary(&report()).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "suite       server       passed   failed  skipped       time");
        assert_eq!(lines[1], "mqtt        -                 1        0        0      1.5 s");
        assert_eq!(lines[2], "mqtt        nats              0        1        1          -");
        assert_eq!(lines.len(), 3);
    }
}
