//! The cases of the Autobahn test suite, with our server and with our client.
//!
//! They run in kosoku, which needs no Python 2. `AUTOBAHN_PYTHON` names a Python 2 that has the original,
//! `autobahntestsuite`; it is then used instead. The thousands of messages of 12.* and 13.* take many minutes, so that a
//! run takes some of them; `AUTOBAHN_FULL=1` takes all.
//!
//! How long all of them take depends on what else the machine does, so nobody asks: our end says when a case is done, and
//! a run goes on for as long as that happens.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{KOSOKU, OUR_CLIENT, OUR_SERVER, START_TIME_MAX, failed, ours, script, start};
use crate::outcome::Outcome;
use crate::ports;
use crate::process::{Finished, Process};
use crate::suite::{Context, Setting};
use crate::tools;

/// What takes a run of every kind of case: all but compression, and of that some of each kind.
const SOME: [&str; 12] =
    ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*.3", "12.*.14", "13.*.5"];
const ALL: [&str; 1] = ["*"];
/// How many cases these are.
const SOME_COUNT: usize = 318;
const ALL_COUNT: usize = 517;
/// Cases in which the fuzzing server asks a client to do without context takeover, if it has offered to.
const ALONE: [&str; 3] = ["13.2.*", "13.5.*", "13.6.*"];
const SOME_ALONE: [&str; 3] = ["13.2.5", "13.5.5", "13.6.5"];

/// How long a run goes on without a case that is done: those that take longest give up by themselves after 480 s.
const CASE_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// What kosoku says of a case whose own program fails: no verdict of Autobahn's.
const BROKEN: &str = "ERROR";
const NOT_JUDGED: &str =
    "kosoku 0.1.0 cannot read a message that is not compressed where others are; the original can (AUTOBAHN_PYTHON)";
/// How a line of our end begins that says that a case is done.
const DONE: &str = "done";
const POLL: Duration = Duration::from_millis(50);

type Cases = Vec<(String, Outcome)>;

fn is_full() -> bool {
    env::var_os("AUTOBAHN_FULL").is_some()
}

fn cases() -> &'static [&'static str] {
    if is_full() { &ALL } else { &SOME }
}

fn count() -> usize {
    if is_full() { ALL_COUNT } else { SOME_COUNT }
}

/// The only case of a part that `--case` names, when it names one as a whole: "Autobahn: our server: 2.2".
fn only<'a>(setting: &'a Setting, part: &str) -> Option<&'a str> {
    setting.case.as_deref()?.strip_prefix(part)?.strip_prefix(": ")
}

/// The cases run in kosoku, unless somebody has the original.
fn need(context: &Context<'_>) -> Result<(), Outcome> {
    if env::var_os("AUTOBAHN_PYTHON").is_some() { Ok(()) } else { context.need(&[KOSOKU]) }
}

/// The command that runs `cases` without `others` in one of its two modes; its report goes to `outdir`.
fn autobahn(
    setting: &Setting,
    mode: &str,
    address: &str,
    outdir: &Path,
    (cases, others): (&[&str], &[&str]),
) -> Result<Command, Outcome> {
    if let Some(python) = env::var_os("AUTOBAHN_PYTHON") {
        let (key, value) = match mode {
            "fuzzingclient" => ("servers", format!("[{{\"agent\": \"moonwire\", \"url\": \"ws://{address}\"}}]")),
            _ => ("url", format!("\"ws://{address}\"")),
        };
        let list = |cases: &[&str]| cases.iter().map(|case| format!("\"{case}\"")).collect::<Vec<_>>().join(", ");
        let (cases, others) = (list(cases), list(others));
        let text = format!(
            "{{\"outdir\": \"{}\", \"{key}\": {value}, \"cases\": [{cases}], \"exclude-cases\": [{others}], \
             \"exclude-agent-cases\": {{}}}}",
            outdir.display()
        );
        let path = setting.temporary.join(format!("{mode}.json"));
        fs::write(&path, text).map_err(failed)?;
        let mut command = setting.command(python);
        // A run that does not go on tells which case it is at.
        command.env("PYTHONUNBUFFERED", "1");
        command.arg(script(setting, "wstest.py")).args(["-m", mode, "-u", "0", "-s"]).arg(path);
        return Ok(command);
    }
    let mut command = setting.command(tools::python_program(KOSOKU.program));
    command.args(["-m", mode, "-o"]).arg(outdir);
    for case in cases {
        command.args(["-i", case]);
    }
    for case in others {
        command.args(["-x", case]);
    }
    command.arg(if mode == "fuzzingclient" { format!("ws://{address}") } else { address.to_owned() });
    Ok(command)
}

/// Our server, asked by a fuzzing client.
pub fn server(context: &mut Context<'_>) -> Result<Cases, Outcome> {
    need(context)?;
    let outdir = context.setting.temporary.join("autobahn-server");
    let (mut server, address) = start(ours(context.setting, "server.lua"))?;
    let only = only(context.setting, OUR_SERVER);
    let cases = only.as_ref().map_or(cases(), std::slice::from_ref);
    let progress = Progress { part: OUR_SERVER, done: 0, count: only.map_or(count(), |_| 1) };
    let command = autobahn(context.setting, "fuzzingclient", &address, &outdir, (cases, &[]))?;
    let runner = Process::start(command).map_err(failed)?;
    let finished = progress.follow(context, runner, Some(&mut server))?;
    let verdicts = verdicts(&outdir, &finished)?;
    if only.is_some() { Ok(verdicts) } else { all_of(count(), verdicts) }
}

/// Our client, asked by a fuzzing server.
pub fn client(context: &mut Context<'_>) -> Result<Cases, Outcome> {
    need(context)?;
    if let Some(case) = only(context.setting, OUR_CLIENT).map(str::to_owned) {
        let alone = ALONE.iter().any(|alone| case.starts_with(alone.trim_end_matches('*')));
        let progress = Progress { part: OUR_CLIENT, done: 0, count: 1 };
        return client_cases(context, progress, "autobahn-client", (&[&case], &[]), alone);
    }
    let progress = Progress { part: OUR_CLIENT, done: 0, count: count() };
    let mut all = client_cases(context, progress, "autobahn-client", (cases(), &ALONE), false)?;
    let alone: &[&str] = if is_full() { &ALONE } else { &SOME_ALONE };
    let progress = Progress { part: OUR_CLIENT, done: all.len(), count: count() };
    all.extend(client_cases(context, progress, "autobahn-client-alone", (alone, &[]), true)?);
    all_of(count(), all)
}

/// Runs these cases with our client; `alone`: it offers to do without context takeover.
fn client_cases(
    context: &mut Context<'_>,
    progress: Progress,
    name: &str,
    cases: (&[&str], &[&str]),
    alone: bool,
) -> Result<Cases, Outcome> {
    let outdir = context.setting.temporary.join(name);
    let port = ports::free(1).map_err(failed)?[0];
    let address = format!("127.0.0.1:{port}");
    let command = autobahn(context.setting, "fuzzingserver", &address, &outdir, cases)?;
    let mut server = Process::start(command).map_err(failed)?;
    wait_until(&mut server, START_TIME_MAX, "does not listen", || ports::answers(port))?;
    let mut command = ours(context.setting, "client.lua");
    command.args([format!("url=ws://{address}"), "agent=moonwire".into(), format!("alone={}", u8::from(alone))]);
    let runner = Process::start(command).map_err(failed)?;
    let finished = progress.follow(context, runner, None)?;
    if !finished.succeeded() {
        return Err(failed(format!("our client: {}", finished.summary())));
    }
    // It writes the report after it has said goodbye.
    wait_until(&mut server, CASE_TIME_MAX, "writes no report", || verdicts(&outdir, &finished).is_ok())?;
    verdicts(&outdir, &finished)
}

/// Waits until something is so of the fuzzing server.
fn wait_until(
    server: &mut Process,
    patience: Duration,
    otherwise: &str,
    is_so: impl Fn() -> bool,
) -> Result<(), Outcome> {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > deadline || server.ended().is_some() {
            // What it said last may tell why.
            server.take_lines(POLL);
            return Err(failed(format!("the fuzzing server {otherwise}\n{}", server.printed())));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// How far a part has come.
struct Progress {
    part: &'static str,
    /// Cases that were done before.
    done: usize,
    /// Cases there are.
    count: usize,
}

impl Progress {
    /// Follows `runner` to its end, for as long as cases are done, and shows how many are. That time is not the suite's.
    fn follow(
        self,
        context: &mut Context<'_>,
        runner: Process,
        server: Option<&mut Process>,
    ) -> Result<Finished, Outcome> {
        let began = Instant::now();
        let report = &*context.report;
        let finished = follow(runner, server, CASE_TIME_MAX, |done| {
            report.progress(&format!("{}: {} of {} cases", self.part, self.done + done, self.count));
        });
        context.prolong(began.elapsed());
        finished.map_err(failed)
    }
}

/// Waits for the end of `runner` while cases are done, at most `patience` from one to the next. Our end says which are: a
/// `server`, or else the runner.
fn follow(
    mut runner: Process,
    mut server: Option<&mut Process>,
    patience: Duration,
    mut on_done: impl FnMut(usize),
) -> Result<Finished, String> {
    let (mut done, mut last) = (0, Instant::now());
    while runner.ended().is_none() {
        let began = Instant::now();
        let said = match &mut server {
            Some(server) => server.take_lines(POLL),
            None => runner.take_lines(POLL),
        };
        let more = said.iter().filter(|line| line.starts_with(DONE)).count();
        if more > 0 {
            done += more;
            last = Instant::now();
            on_done(done);
        }
        if let Some(server) = &mut server
            && let Some(status) = server.ended()
        {
            return Err(format!("our server ended after {done} cases with {status}\n{}", server.printed()));
        }
        if last.elapsed() > patience {
            // Which case it is at is what it said last.
            runner.take_lines(POLL);
            let patience = patience.as_secs();
            return Err(format!("no case was done for {patience} s, after {done} of them\n{}", runner.printed()));
        }
        // Outputs that are closed are no wait.
        thread::sleep(POLL.saturating_sub(began.elapsed()));
    }
    runner.finish(START_TIME_MAX, |_, _| {})
}

/// What the report says of each case. Only what the standard asks for passes: a case that is merely tolerated
/// (`NON-STRICT`) fails here.
fn verdicts(outdir: &Path, finished: &Finished) -> Result<Cases, Outcome> {
    let text = fs::read_to_string(outdir.join("index.json"))
        .map_err(|error| failed(format!("no report: {error}\n{}", finished.summary())))?;
    let report: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_str(&text).map_err(failed)?;
    let mut cases = Vec::new();
    for (case, verdict) in report.into_values().flatten() {
        let word = |key: &str| verdict.get(key).and_then(|word| word.as_str()).unwrap_or("missing").to_owned();
        let (behavior, close) = (word("behavior"), word("behaviorClose"));
        let fine = |word: &str| matches!(word, "OK" | "INFORMATIONAL");
        let outcome = if fine(&behavior) && fine(&close) {
            Outcome::Passed
        } else if behavior == BROKEN && is_too_short(&case) {
            Outcome::Skipped(NOT_JUDGED.to_owned())
        } else {
            Outcome::Failed(format!("{behavior}; its close: {close}"))
        };
        cases.push((case, outcome));
    }
    cases.sort_by_key(|(case, _)| case.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>());
    Ok(cases)
}

/// Whether a case has messages of 16 bytes, which we do not compress.
fn is_too_short(case: &str) -> bool {
    matches!(case.split('.').collect::<Vec<_>>().as_slice(), ["12" | "13", _, "1"])
}

/// The cases, if there are as many as there should be.
fn all_of(count: usize, cases: Cases) -> Result<Cases, Outcome> {
    if cases.len() == count {
        Ok(cases)
    } else {
        Err(failed(format!("the report has {} cases, and there are {count}", cases.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ending;
    use crate::suite::tests::setting;

    fn finished(stdout: &str) -> Finished {
        Finished { ending: Ending::Status(0), stdout: stdout.to_owned(), stderr: String::new() }
    }

    fn sh(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command).unwrap()
    }

    #[test]
    fn one_case_can_run_alone() {
        let setting = |case| setting(Path::new("."), Some(case));
        assert_eq!(only(&setting("Autobahn: our server: 2.2"), OUR_SERVER), Some("2.2"));
        for case in ["Autobahn: our client: 2.2", "Autobahn: our server", "2.2"] {
            assert_eq!(only(&setting(case), OUR_SERVER), None, "{case}");
        }
    }

    #[test]
    fn a_report_with_too_few_cases_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        assert!(verdicts(folder.path(), &finished("")).is_err());
        let write = |count: usize, word: &str| {
            let cases: Vec<_> = (0..count)
                .map(|case| format!("\"1.{case}\": {{\"behavior\": \"{word}\", \"behaviorClose\": \"OK\"}}"))
                .collect();
            fs::write(folder.path().join("index.json"), format!("{{\"us\": {{{}}}}}", cases.join(","))).unwrap();
        };
        write(10, "OK");
        assert!(all_of(600, verdicts(folder.path(), &finished("")).unwrap()).is_err());
        write(600, "OK");
        let cases = all_of(600, verdicts(folder.path(), &finished("")).unwrap()).unwrap();
        assert_eq!((cases.len(), cases[1].0.as_str()), (600, "1.1"));
        write(600, "NON-STRICT");
        let cases = verdicts(folder.path(), &finished("")).unwrap();
        assert!(cases.iter().all(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
    }

    #[test]
    fn what_kosoku_cannot_judge_is_skipped_and_nothing_else() {
        let outcome = |case: &str, behavior: &str| {
            let folder = tempfile::tempdir().unwrap();
            let verdict = format!("{{\"behavior\": \"{behavior}\", \"behaviorClose\": \"FAILED\"}}");
            fs::write(folder.path().join("index.json"), format!("{{\"us\": {{\"{case}\": {verdict}}}}}")).unwrap();
            verdicts(folder.path(), &finished("")).unwrap().remove(0).1
        };
        assert!(matches!(outcome("12.3.1", "ERROR"), Outcome::Skipped(_)));
        assert!(matches!(outcome("13.7.1", "ERROR"), Outcome::Skipped(_)));
        for (case, behavior) in [("12.3.1", "FAILED"), ("12.3.11", "ERROR"), ("12.3.2", "ERROR"), ("1.1.1", "ERROR")] {
            assert!(matches!(outcome(case, behavior), Outcome::Failed(_)), "{case} {behavior}");
        }
    }

    #[test]
    fn a_run_goes_on_for_as_long_as_cases_are_done() {
        let mut counts = Vec::new();
        // Ten cases of a tenth of a second or more: longer in all than the patience for one.
        let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; echo done $i; done; echo the end";
        let finished = follow(sh(script), None, Duration::from_millis(900), |done| counts.push(done)).unwrap();
        assert_eq!(finished.ending, Ending::Status(0));
        assert!(finished.stdout.ends_with("the end\n"), "{}", finished.stdout);
        assert_eq!(counts.last(), Some(&10));
    }

    #[test]
    fn a_run_ends_that_does_not_go_on_and_says_where_it_was() {
        let script = "echo running 1; echo done; echo running 2; sleep 1000";
        let error = follow(sh(script), None, Duration::from_millis(900), |_| {}).unwrap_err();
        assert_eq!(error, "no case was done for 0 s, after 1 of them\nrunning 1\ndone\nrunning 2");
    }

    #[test]
    fn a_server_of_ours_counts_and_its_end_is_the_end() {
        let mut server = sh("echo done; echo done; echo in trouble; exit 3");
        let mut counts = 0;
        let error = follow(sh("sleep 1000"), Some(&mut server), CASE_TIME_MAX, |done| counts = done).unwrap_err();
        assert_eq!(counts, 2);
        let expected = "our server ended after 2 cases with exit status: 3\ndone\ndone\nin trouble";
        assert_eq!(error, expected);
    }
}
