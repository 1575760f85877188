//! What the reader of a test run sees.

use std::{
    io::Write,
    mem,
    path::{Path, PathBuf},
};

/// How a test ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Passed,
    /// `wire` is what was traced on connections.
    Failed {
        message: String,
        trace: String,
        wire: Vec<String>,
    },
    Skipped {
        reason: String,
    },
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
    /// Something was printed after which a new line must begin.
    line_is_open: bool,
}

impl Report {
    pub fn new(out: impl Write + 'static, on_terminal: bool) -> Self {
        Self { out: Box::new(out), on_terminal, cases: Vec::new(), file_begins: 0, listed: 0, line_is_open: false }
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
            self.line_is_open = true;
        }
    }

    pub fn add(&mut self, case: Case) {
        let text = if self.on_terminal {
            self.line_is_open = true;
            match case.outcome {
                Outcome::Passed => format!("{GREEN}.{PLAIN}"),
                Outcome::Failed { .. } => format!("{RED}F{PLAIN}"),
                Outcome::Skipped { .. } => format!("{YELLOW}s{PLAIN}"),
            }
        } else {
            self.end_line();
            match &case.outcome {
                Outcome::Passed => format!("passed {}: {}\n", case.file.display(), case.name),
                Outcome::Failed { message, trace, wire } => {
                    format!("failed {}: {}\n{}", case.file.display(), case.name, details(message, trace, wire))
                }
                // The reasons are listed at the end.
                Outcome::Skipped { .. } => format!("skipped {}: {}\n", case.file.display(), case.name),
            }
        };
        self.say(&text);
        self.cases.push(case);
    }

    pub fn end_file(&mut self) {
        if !self.on_terminal {
            return;
        }
        self.end_line();
        let mut text = String::new();
        for case in &self.cases[self.file_begins..] {
            if let Outcome::Failed { message, trace, wire } = &case.outcome {
                text += &format!("{RED}failed {}: {}{PLAIN}\n", case.file.display(), case.name);
                text += &coloured(&details(message, trace, wire));
            }
        }
        self.say(&text);
    }

    /// Prints what was skipped, and the last line. Answers how many tests there were.
    pub fn finish(&mut self) -> usize {
        let mut text = String::new();
        for case in &self.cases {
            if let Outcome::Skipped { reason } = &case.outcome {
                text += &format!("skipped {}: {} ({reason})\n", case.file.display(), case.name);
            }
        }
        let failed = self.failed();
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped { .. }));
        let passed = self.cases.len() - failed - skipped;
        text += &format!("{passed} passed, {failed} failed, {skipped} skipped\n");
        self.say(&text);
        self.cases.len()
    }

    fn count(&self, which: fn(&Outcome) -> bool) -> usize {
        self.cases.iter().filter(|case| which(&case.outcome)).count()
    }

    /// Prints what a test printed.
    pub fn pass_on(&mut self, printed: &[u8]) {
        if printed.is_empty() {
            return;
        }
        self.end_line();
        let _ = self.out.write_all(printed);
        self.line_is_open = !printed.ends_with(b"\n");
    }

    fn end_line(&mut self) {
        if mem::take(&mut self.line_is_open) {
            self.say("\n");
        }
    }

    /// A reader that went away does not stop the tests.
    fn say(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

/// Stands before each line of what was traced on connections.
pub const WIRE: &str = "trace> ";

/// A failure's message, traceback and traffic, set in.
fn details(message: &str, trace: &str, wire: &[String]) -> String {
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
    for line in wire {
        text.push_str("  ");
        text.push_str(WIRE);
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
        if !colour.is_empty() {
            all.push_str(PLAIN);
        }
        all.push('\n');
    }
    all
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io, rc::Rc};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Rc<RefCell<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(on_terminal: bool) -> String {
        let paper = Paper::default();
        let mut report = Report::new(paper.clone(), on_terminal);
        let case = |name: &str, outcome| Case { file: "a_test.lua".into(), name: name.into(), outcome, seconds: 0.0 };
        report.begin_file(Path::new("a_test.lua"));
        report.add(case("one", Outcome::Passed));
        report.add(case("two", Outcome::Skipped { reason: "no server".into() }));
        let message = "a_test.lua:7: not equal\n  expected 1\n  actual   2".into();
        let trace = "a_test.lua:7: in f\nb.lua:8: in g".into();
        let wire = vec!["0.000100 #1 > smtp QUIT".into()];
        report.add(case("three", Outcome::Failed { message, trace, wire }));
        report.end_file();
        assert_eq!(report.finish(), 3);
        String::from_utf8(paper.0.take()).unwrap()
    }

    #[test]
    fn in_a_pipe_every_test_has_its_line() {
        let expected = "\
passed a_test.lua: one
skipped a_test.lua: two
failed a_test.lua: three
  a_test.lua:7: not equal
    expected 1
    actual   2
  traceback:
    a_test.lua:7: in f
    b.lua:8: in g
  trace> 0.000100 #1 > smtp QUIT
skipped a_test.lua: two (no server)
1 passed, 1 failed, 1 skipped
";
        assert_eq!(printed(false), expected);
    }

    #[test]
    fn on_a_terminal_every_file_has_its_line_and_failures_are_coloured() {
        let expected = "\
a_test.lua G.0Ys0RF0
Rfailed a_test.lua: three0
  a_test.lua:7: not equal
G    expected 10
R    actual   20
  traceback:
    a_test.lua:7: in f
    b.lua:8: in g
  trace> 0.000100 #1 > smtp QUIT
skipped a_test.lua: two (no server)
1 passed, 1 failed, 1 skipped
";
        let plain = printed(true).replace(GREEN, "G").replace(RED, "R").replace(YELLOW, "Y").replace(PLAIN, "0");
        assert_eq!(plain, expected);
    }
}
