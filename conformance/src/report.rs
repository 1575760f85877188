//! What the person (or the log) sees: progress while it runs, every failure in full, every skip with its reason,
//! the counts in the last line. With a folder, the same for programs: `results.txt` and `junit.xml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write as _, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::outcome::{CaseResult, Counts, Outcome};

/// Longest progress line; terminals narrower than this are rare.
const PROGRESS_WIDTH: usize = 100;
/// How many skipped cases of one reason are named on the screen; all of them are in the report's folder.
const SKIPS_NAMED: usize = 8;

/// Takes results as they come.
#[derive(Debug)]
pub struct Report {
    terminal: bool,
    started: Instant,
    suite: &'static str,
    suite_started: Instant,
    suite_counts: Counts,
    results: Vec<CaseResult>,
    /// Time each suite took, in the order they ran.
    suites: Vec<(&'static str, Counts, Duration)>,
}

impl Report {
    /// A report on standard output.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            terminal: stdout().is_terminal(),
            started: now,
            suite: "",
            suite_started: now,
            suite_counts: Counts::default(),
            results: Vec::new(),
            suites: Vec::new(),
        }
    }

    /// A suite begins.
    pub fn begin(&mut self, suite: &'static str) {
        self.suite = suite;
        self.suite_started = Instant::now();
        self.suite_counts = Counts::default();
        self.progress("");
    }

    /// What goes on now; seen on a terminal only.
    pub fn progress(&self, what: &str) {
        if self.terminal {
            let line = format!("{:<10} {:>6.1} s  {what}", self.suite, self.suite_started.elapsed().as_secs_f64());
            let line: String = line.chars().take(PROGRESS_WIDTH).collect();
            print!("\r\x1b[2K{line}");
            let _ = stdout().flush();
        }
    }

    /// A case of the present suite has ended.
    pub fn case(&mut self, name: impl Into<String>, outcome: Outcome, time: Option<Duration>) {
        let name = name.into();
        self.suite_counts.add(&outcome);
        if let Outcome::Failed(why) = &outcome {
            self.say(&format!("FAILED     {}: {name}\n{}", self.suite, indented(why)));
        } else {
            self.progress(&name);
        }
        self.results.push(CaseResult { suite: self.suite, name, outcome, time });
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
        let time = self.suite_started.elapsed();
        self.say(&format!("{:<10} {} ({:.1} s)", self.suite, self.suite_counts, time.as_secs_f64()));
        self.suites.push((self.suite, self.suite_counts, time));
    }

    /// Prints lines that stay.
    pub fn say(&self, text: &str) {
        if self.terminal {
            print!("\r\x1b[2K");
        }
        println!("{text}");
    }

    /// Names what failed and what was skipped, and ends with the counts.
    pub fn finish(&self) -> Counts {
        let mut counts = Counts::default();
        for result in &self.results {
            counts.add(&result.outcome);
        }
        let skips = self.skips();
        if !skips.is_empty() {
            self.say("\nSkipped:");
            for ((suite, reason), names) in skips {
                self.say(&format!("  {suite} ({}): {reason}", names.len()));
                for name in names.iter().take(SKIPS_NAMED) {
                    self.say(&format!("    {name}"));
                }
                if names.len() > SKIPS_NAMED {
                    self.say(&format!("    and {} more", names.len() - SKIPS_NAMED));
                }
            }
        }
        if counts.failed > 0 {
            self.say("\nFailed:");
            for result in self.results.iter().filter(|result| matches!(result.outcome, Outcome::Failed(_))) {
                self.say(&format!("  {}: {}", result.suite, result.name));
            }
        }
        self.say(&format!("\n{} suites in {:.0} s", self.suites.len(), self.started.elapsed().as_secs_f64()));
        self.say(&counts.to_string());
        counts
    }

    /// Writes `results.txt` and `junit.xml`.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.txt"), self.results_text())?;
        fs::write(folder.join("junit.xml"), self.junit())
    }

    fn skips(&self) -> BTreeMap<(&str, &str), Vec<&str>> {
        let mut skips: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for result in &self.results {
            if let Outcome::Skipped(reason) = &result.outcome {
                skips.entry((result.suite, reason)).or_default().push(&result.name);
            }
        }
        skips
    }

    fn results_text(&self) -> String {
        let mut text = String::new();
        for CaseResult { suite, name, outcome, time } in &self.results {
            let seconds = time.map_or(String::new(), |time| format!("{:.3} s", time.as_secs_f64()));
            let _ = write!(text, "{:<8} {suite:<10} {seconds:>10}  {name}", outcome.word());
            match outcome {
                Outcome::Passed => text.push('\n'),
                Outcome::Skipped(why) => {
                    let _ = writeln!(text, "  ({why})");
                }
                Outcome::Failed(why) => {
                    let _ = writeln!(text, "\n{}", indented(why));
                }
            }
        }
        text
    }

    fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for (suite, counts, time) in &self.suites {
            let total = counts.passed + counts.failed + counts.skipped;
            let _ = writeln!(
                text,
                "  <testsuite name=\"{suite}\" tests=\"{total}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
                counts.failed,
                counts.skipped,
                time.as_secs_f64()
            );
            for result in self.results.iter().filter(|result| result.suite == *suite) {
                let seconds = result.time.unwrap_or_default().as_secs_f64();
                let name = escaped(&result.name);
                let _ = write!(text, "    <testcase classname=\"{suite}\" name=\"{name}\" time=\"{seconds:.3}\"");
                let _ = match &result.outcome {
                    Outcome::Passed => writeln!(text, "/>"),
                    Outcome::Skipped(why) => writeln!(text, "><skipped message=\"{}\"/></testcase>", escaped(why)),
                    Outcome::Failed(why) => writeln!(text, "><failure>{}</failure></testcase>", escaped(why)),
                };
            }
            text.push_str("  </testsuite>\n");
        }
        text.push_str("</testsuites>\n");
        text
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Text as it may stand in an XML attribute or element. XML 1.0 has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new();
        report.terminal = false;
        report.begin("mqtt");
        report.case("holds", Outcome::Passed, Some(Duration::from_millis(1500)));
        report.case("a < b", Outcome::Failed("1 & 2\n\u{1b}[0m".into()), None);
        report.case("later", Outcome::Skipped("no broker".into()), None);
        report.end();
        report
    }

    #[test]
    fn every_case_is_counted_once() {
        assert_eq!(report().finish().to_string(), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn skips_are_gathered_by_reason() {
        let report = report();
        let skips: Vec<_> = report.skips().into_iter().collect();
        assert_eq!(skips, [(("mqtt", "no broker"), vec!["later"])]);
    }

    #[test]
    fn a_report_for_programs_is_well_formed() {
        let folder = tempfile::tempdir().unwrap();
        let deeper = folder.path().join("a/b");
        report().write(&deeper).unwrap();
        let junit = fs::read_to_string(deeper.join("junit.xml")).unwrap();
        assert!(junit.contains("<testsuite name=\"mqtt\" tests=\"3\" failures=\"1\" skipped=\"1\""), "{junit}");
        assert!(junit.contains("name=\"a &lt; b\" time=\"0.000\"><failure>1 &amp; 2&#10;\u{fffd}[0m</failure>"));
        assert!(junit.contains("name=\"holds\" time=\"1.500\"/>"));
        assert!(junit.contains("<skipped message=\"no broker\"/></testcase>"));
        let results = fs::read_to_string(deeper.join("results.txt")).unwrap();
        assert_eq!(results.lines().next(), Some("passed   mqtt          1.500 s  holds"));
    }
}
