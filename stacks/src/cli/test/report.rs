//! What the reader of a test run sees.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// How a test ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Passed,
    Failed { message: String, trace: String },
    Skipped { reason: String },
}

/// One test that ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub file: PathBuf,
    pub name: String,
    pub outcome: Outcome,
    pub seconds: f64,
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// Collects results and prints them: a line a test in a pipe; a line a file, in colour, on a terminal.
pub struct Report {
    out: Box<dyn Write>,
    on_terminal: bool,
    cases: Vec<Case>,
    file_begins: usize,
    listed: usize,
}

impl Report {
    pub fn new(out: impl Write + 'static, on_terminal: bool) -> Self {
        Self { out: Box::new(out), on_terminal, cases: Vec::new(), file_begins: 0, listed: 0 }
    }

    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed { .. }))
    }

    /// How many names were listed.
    pub fn listed(&self) -> usize {
        self.listed
    }

    pub fn list(&mut self, file: &Path, names: &[String]) {
        for name in names {
            self.say(&format!("{}: {name}\n", file.display()));
        }
        self.listed += names.len();
    }

    pub fn begin_file(&mut self, file: &Path) {
        self.file_begins = self.cases.len();
        if self.on_terminal {
            self.say(&format!("{} ", file.display()));
        }
    }

    pub fn add(&mut self, case: Case) {
        let (word, sign, colour) = match case.outcome {
            Outcome::Passed => ("passed", ".", GREEN),
            Outcome::Failed { .. } => ("failed", "F", RED),
            Outcome::Skipped { .. } => ("skipped", "s", YELLOW),
        };
        if self.on_terminal {
            self.say(&format!("{colour}{sign}{PLAIN}"));
        } else {
            self.say(&format!("{word} {}: {}\n", case.file.display(), case.name));
            if let Outcome::Failed { message, trace } = &case.outcome {
                self.say(&details(message, trace));
            }
        }
        self.cases.push(case);
    }

    pub fn end_file(&mut self) {
        if !self.on_terminal {
            return;
        }
        self.say("\n");
        for case in self.cases[self.file_begins..].to_vec() {
            if let Outcome::Failed { message, trace } = &case.outcome {
                self.say(&format!("{RED}failed {}: {}{PLAIN}\n", case.file.display(), case.name));
                self.say(&coloured(&details(message, trace)));
            }
        }
    }

    /// Prints what was skipped, and the last line. Answers how many tests there were.
    pub fn finish(&mut self) -> usize {
        for case in self.cases.clone() {
            if let Outcome::Skipped { reason } = &case.outcome {
                self.say(&format!("skipped {}: {} ({reason})\n", case.file.display(), case.name));
            }
        }
        let failed = self.failed();
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped { .. }));
        let passed = self.cases.len() - failed - skipped;
        self.say(&format!("{passed} passed, {failed} failed, {skipped} skipped\n"));
        self.cases.len()
    }

    fn count(&self, which: fn(&Outcome) -> bool) -> usize {
        self.cases.iter().filter(|case| which(&case.outcome)).count()
    }

    /// A reader that went away does not stop the tests.
    fn say(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

/// A failure's message and traceback, set in.
fn details(message: &str, trace: &str) -> String {
    let mut text = String::new();
    for line in message.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    for (at, line) in trace.lines().enumerate() {
        text.push_str(if at == 0 { "  traceback:\n    " } else { "    " });
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Colours the lines of a diff: green is expected, red is not.
fn coloured(text: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let colour = match line.trim_start().as_bytes() {
            [b'-', b' ', ..] => GREEN,
            [b'+', b' ', ..] => RED,
            text if text.starts_with(b"expected ") => GREEN,
            text if text.starts_with(b"actual ") => RED,
            _ => "",
        };
        all.push_str(colour);
        all.push_str(line);
        all.push_str(if colour.is_empty() { "\n" } else { "\x1b[0m\n" });
    }
    all
}
