//! Reads what `moonwire test` prints in a pipe.
//!
//! ```text
//! passed lua/test/mqtt_test.lua: a reply split at any byte is one reply
//! failed lua/test/mqtt_test.lua: a second statement
//!   not equal
//!   traceback:
//! skipped lua/test/mqtt_test.lua: a third statement
//! skipped lua/test/mqtt_test.lua: a third statement (its reason)
//! 1 passed, 1 failed, 1 skipped
//! ```

use std::time::{Duration, Instant};

use crate::outcome::{Counts, Outcome};
use crate::process::{Finished, Source};

/// One Lua test and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LuaTest {
    /// The file, as `moonwire test` names it.
    pub file: String,
    /// The statement.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Time since the test before it ended.
    pub time: Duration,
}

/// Reads results line by line.
#[derive(Debug)]
pub struct Reader {
    tests: Vec<LuaTest>,
    since: Instant,
    totals: Option<String>,
}

impl Reader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self { tests: Vec::new(), since: Instant::now(), totals: None }
    }

    /// Reads a line; answers the name of the test that it says has ended.
    pub fn line(&mut self, source: Source, line: &str) -> Option<String> {
        if source == Source::Stderr {
            return None;
        }
        if let Some(detail) = line.strip_prefix("  ") {
            if let Some(LuaTest { outcome: Outcome::Failed(why), .. }) = self.tests.last_mut() {
                why.push_str(detail);
                why.push('\n');
            }
            return None;
        }
        let (word, rest) = line.split_once(' ')?;
        let outcome = match word {
            "passed" => Outcome::Passed,
            "failed" => Outcome::Failed(String::new()),
            "skipped" => Outcome::Skipped(String::new()),
            _ => {
                self.totals = Some(line.to_owned());
                return None;
            }
        };
        let (file, name) = rest.split_once(".lua: ")?;
        let file = format!("{file}.lua");
        if word == "skipped" && self.reason(&file, name) {
            return None;
        }
        let now = Instant::now();
        let time = now - self.since;
        self.since = now;
        self.tests.push(LuaTest { file, name: name.to_owned(), outcome, time });
        Some(name.to_owned())
    }

    /// All tests, once the command has ended, and in words what is wrong with the whole: it ended early, or its own
    /// counts are others than what was read.
    pub fn finish(self, finished: &Finished) -> (Vec<LuaTest>, Option<String>) {
        let mut counts = Counts::default();
        for test in &self.tests {
            counts.add(&test.outcome);
        }
        let totals = self.totals.unwrap_or_default();
        let wrong = if totals != counts.to_string() {
            Some(format!("its last line is `{totals}`, seen were {counts}\n{}", finished.summary()))
        } else if !finished.succeeded() && counts.failed == 0 {
            Some(format!("it fails, but no test does\n{}", finished.summary()))
        } else {
            None
        };
        (self.tests, wrong)
    }

    /// Takes the reason of a skipped test from the list at the end; false when this line is not such.
    fn reason(&mut self, file: &str, name_and_reason: &str) -> bool {
        for test in self.tests.iter_mut().filter(|test| test.file == file) {
            let Outcome::Skipped(reason) = &mut test.outcome else { continue };
            let rest = name_and_reason.strip_prefix(test.name.as_str());
            if let Some(found) = rest.and_then(|rest| rest.strip_prefix(" (")).and_then(|rest| rest.strip_suffix(')')) {
                found.clone_into(reason);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ending;

    const OUTPUT: &str = "passed lua/test/a_test.lua: topics: a/# matches (its parent) ... too
failed lua/test/a_test.lua: second
  not equal
    expected 1
  traceback:
    lua/test/a_test.lua:3: in function
skipped lua/test/b_test.lua: third
passed lua/test/b_test.lua: fourth
skipped lua/test/b_test.lua: third (no second address)
2 passed, 1 failed, 1 skipped
";

    fn read(output: &str, status: i32) -> (Vec<LuaTest>, Option<String>) {
        let mut reader = Reader::new();
        for line in output.lines() {
            reader.line(Source::Stdout, line);
            reader.line(Source::Stderr, "passed x.lua: not a result");
        }
        let (stdout, stderr) = (output.to_owned(), String::new());
        reader.finish(&Finished { ending: Ending::Status(status), stdout, stderr })
    }

    #[test]
    fn every_test_has_its_file_its_name_and_what_became_of_it() {
        let (tests, wrong) = read(OUTPUT, 1);
        let seen: Vec<_> = tests.iter().map(|t| (t.file.as_str(), t.name.as_str(), t.outcome.clone())).collect();
        let why = "not equal\n  expected 1\ntraceback:\n  lua/test/a_test.lua:3: in function\n";
        assert_eq!(
            seen,
            [
                ("lua/test/a_test.lua", "topics: a/# matches (its parent) ... too", Outcome::Passed),
                ("lua/test/a_test.lua", "second", Outcome::Failed(why.into())),
                ("lua/test/b_test.lua", "third", Outcome::Skipped("no second address".into())),
                ("lua/test/b_test.lua", "fourth", Outcome::Passed),
            ]
        );
        assert_eq!(wrong, None);
    }

    #[test]
    fn an_end_before_the_last_line_is_noticed_and_what_was_seen_is_kept() {
        let (tests, wrong) = read(&OUTPUT[..OUTPUT.find("skipped").unwrap()], 0);
        assert_eq!(tests.len(), 2);
        assert!(wrong.unwrap().contains("last line is ``, seen were 1 passed, 1 failed, 0 skipped"));
        assert!(read("", 0).1.is_some());
    }

    #[test]
    fn a_status_that_contradicts_the_results_is_noticed() {
        let all_well = "passed a_test.lua: one\n1 passed, 0 failed, 0 skipped\n";
        assert_eq!(read(all_well, 0).1, None);
        assert!(read(all_well, 1).1.unwrap().contains("no test does"));
    }
}
