//! `cargo test --workspace`: unit tests, integration tests and the documentation's examples.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Context, Suite};
use crate::outcome::Outcome;
use crate::process;

/// Every Rust test there is.
pub const SUITE: Suite = Suite {
    name: "cargo",
    about: "cargo test --workspace, documentation examples included",
    needs: &[],
    servers: &[],
    time_max: Duration::from_secs(25 * 60),
    cases: |_| Ok(Vec::new()),
    run,
};

fn run(context: &mut Context<'_>) -> Result<(), String> {
    // Cargo says on standard error which program runs, and the program says its results on standard output: one pipe
    // for both keeps them in order.
    let mut command = context.setting.command("sh");
    command.args(["-c", "exec cargo test \"$@\" 2>&1", "sh", "--workspace", "--no-fail-fast"]);
    command.env("CARGO_TERM_COLOR", "never");
    if let Some(pattern) = context.setting.case.as_deref().filter(|pattern| !pattern.contains(['*', ' ', '['])) {
        // Saves time; what is wanted is decided below.
        command.arg(pattern.rsplit("::").next().unwrap_or(pattern));
    }

    let mut results = Results::default();
    let time_max = context.time_left();
    let report = &*context.report;
    let finished = process::run(command, time_max, |_, line| {
        results.line(line);
        report.progress(line);
    })?;
    for (name, outcome) in results.finish() {
        if context.setting.wants(&name) {
            context.report.case(name, outcome, None);
        }
    }
    let explained = results.failed > 0;
    if finished.succeeded() || explained { Ok(()) } else { Err(finished.summary()) }
}

/// Reads what `cargo test` prints.
#[derive(Debug, Default)]
struct Results {
    /// The program that runs now.
    program: String,
    /// Outcomes of the present program that its summary has not confirmed yet.
    unconfirmed: Vec<(String, Outcome)>,
    /// The name whose output is being shown after `---- NAME stdout ----`, and the output of all failed tests.
    showing: Option<String>,
    shown: BTreeMap<String, String>,
    done: Vec<(String, Outcome)>,
    failed: usize,
}

impl Results {
    fn line(&mut self, line: &str) {
        let trimmed = line.trim();
        if let Some(program) = trimmed.strip_prefix("Running ").filter(|rest| rest.contains('(')) {
            self.begin(&program_name(program));
        } else if let Some(name) = trimmed.strip_prefix("Doc-tests ") {
            self.begin(&format!("{name} documentation"));
        } else if let Some(summary) = line.strip_prefix("test result: ") {
            self.summary(summary);
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.showing = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("test ") {
            self.showing = None;
            self.test(rest);
        } else if line == "failures:" {
            self.showing = None;
        } else if let Some(name) = &self.showing {
            let text = self.shown.entry(name.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }

    fn begin(&mut self, program: &str) {
        self.abandon();
        program.clone_into(&mut self.program);
    }

    fn test(&mut self, rest: &str) {
        let Some((name, result)) = rest.rsplit_once(" ... ") else { return };
        let outcome = match result.split([' ', ',']).next().unwrap_or_default() {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed(String::new()),
            "ignored" => Outcome::Skipped(result.strip_prefix("ignored, ").unwrap_or("marked #[ignore]").to_owned()),
            _ => return,
        };
        self.unconfirmed.push((name.trim_end_matches(" - should panic").to_owned(), outcome));
    }

    /// A program's last line: it counts, whatever was understood of the lines before.
    fn summary(&mut self, summary: &str) {
        let count = |word: &str| {
            let before = summary.split(word).next().unwrap_or_default().trim_end();
            before.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0)
        };
        let mut left = [" passed", " failed", " ignored"].map(count);
        for (name, outcome) in std::mem::take(&mut self.unconfirmed) {
            let index = match outcome {
                Outcome::Passed => 0,
                Outcome::Failed(_) => 1,
                Outcome::Skipped(_) => 2,
            };
            if left[index] > 0 {
                left[index] -= 1;
                self.push(name, outcome);
            }
        }
        // Tests whose lines were torn by what they printed themselves.
        for (index, outcome) in
            [Outcome::Passed, Outcome::Failed(String::new()), Outcome::Skipped("marked #[ignore]".into())]
                .into_iter()
                .enumerate()
        {
            for number in 1..=left[index] {
                self.push(format!("(unnamed, {} {number})", outcome.word()), outcome.clone());
            }
        }
        self.shown.clear();
        self.showing = None;
    }

    fn push(&mut self, name: String, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Failed(_) => {
                self.failed += 1;
                let shown = self.shown.remove(&name).unwrap_or_default();
                Outcome::Failed(process::tail(&shown, 40))
            }
            other => other,
        };
        self.done.push((format!("{}: {name}", self.program), outcome));
    }

    /// A program that ended without a summary crashed in the middle of a test.
    fn abandon(&mut self) {
        if !self.unconfirmed.is_empty() {
            let finished = self.unconfirmed.len();
            self.unconfirmed.clear();
            self.failed += 1;
            let why = format!("the program ended after {finished} tests, without a result");
            self.done.push((format!("{}: runs to its end", self.program), Outcome::Failed(why)));
        }
    }

    fn finish(&mut self) -> Vec<(String, Outcome)> {
        self.abandon();
        std::mem::take(&mut self.done)
    }
}

/// "unittests src/lib.rs (target/debug/deps/moonwire_runtime-0123456789abcdef)" is "moonwire_runtime src/lib.rs".
fn program_name(running: &str) -> String {
    let (source, path) = running.split_once(" (").unwrap_or((running, ""));
    let file = path.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    let program = file.rsplit_once('-').map_or(file, |(name, _)| name);
    format!("{program} {}", source.trim_start_matches("unittests "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "   Compiling moonwire v0.1.0 (/somewhere)
     Running unittests src/lib.rs (target/debug/deps/moonwire_runtime-9a2f5f1b6c1d2e3f)

running 4 tests
test buffer::tests::bytes_leave_in_order ... ok
test clock::tests::slow ... ignored, needs an hour
test tasks::tests::a_panic_is_caught - should panic ... ok
test tasks::tests::none_is_lost ... FAILED

failures:

---- tasks::tests::none_is_lost stdout ----

thread 'tasks::tests::none_is_lost' panicked at runtime/src/tasks.rs:1:1:
assertion failed

failures:
    tasks::tests::none_is_lost

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p moonwire-runtime --lib`
   Doc-tests moonwire_runtime

running 1 test
test runtime/src/lib.rs - Runtime (line 12) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.40s
";

    fn results(output: &str) -> Vec<(String, Outcome)> {
        let mut results = Results::default();
        output.lines().for_each(|line| results.line(line));
        results.finish()
    }

    #[test]
    fn every_test_of_every_program_is_a_case() {
        let results = results(OUTPUT);
        let seen: Vec<_> = results.iter().map(|(name, outcome)| (name.as_str(), outcome.word())).collect();
        assert_eq!(
            seen,
            [
                ("moonwire_runtime src/lib.rs: buffer::tests::bytes_leave_in_order", "passed"),
                ("moonwire_runtime src/lib.rs: clock::tests::slow", "skipped"),
                ("moonwire_runtime src/lib.rs: tasks::tests::a_panic_is_caught", "passed"),
                ("moonwire_runtime src/lib.rs: tasks::tests::none_is_lost", "failed"),
                ("moonwire_runtime documentation: runtime/src/lib.rs - Runtime (line 12)", "passed"),
            ]
        );
        assert_eq!(results[1].1, Outcome::Skipped("needs an hour".into()));
        let Outcome::Failed(why) = &results[3].1 else { panic!("not failed") };
        assert!(why.contains("panicked at runtime/src/tasks.rs:1:1:\nassertion failed"), "{why}");
    }

    #[test]
    fn the_summary_counts_even_when_a_line_was_torn() {
        let torn =
            OUTPUT.replace("test buffer::tests::bytes_leave_in_order ... ok", "test buffer::tests::byt noise ok");
        let results = results(&torn);
        assert_eq!(results.len(), 5);
        assert!(results.iter().any(|(name, outcome)| {
            name == "moonwire_runtime src/lib.rs: (unnamed, passed 1)" && *outcome == Outcome::Passed
        }));
    }

    #[test]
    fn a_program_that_crashes_is_a_failed_case() {
        let end = OUTPUT.find("test tasks::tests::none_is_lost").unwrap();
        let results = results(&OUTPUT[..end]);
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].0, "moonwire_runtime src/lib.rs: runs to its end");
        assert!(matches!(results[0].1, Outcome::Failed(_)));
    }
}
