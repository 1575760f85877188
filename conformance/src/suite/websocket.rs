//! The WebSocket stack against the Autobahn test suite's cases, as server and as client, and against Python websockets.
//!
//! The cases run in kosoku, which needs no Python 2. `AUTOBAHN_PYTHON` names a Python 2 that has the original,
//! `autobahntestsuite`; it is then used instead. The thousands of messages of 12.* and 13.* take many minutes, so that a
//! run takes some of them; `AUTOBAHN_FULL=1` takes all.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::ports;
use crate::process::{Finished, Process};
use crate::tools::{self, Tool};

/// Both ends of ours, against both ends of others.
pub const SUITE: Suite = Suite {
    name: "websocket",
    about: "the WebSocket stack against the Autobahn cases and Python websockets, both as client and as server",
    needs: &[KOSOKU, WEBSOCKETS],
    servers: &[],
    time_max: Duration::from_secs(40 * 60),
    cases: |_| Ok(PARTS.iter().map(|(name, _)| (*name).to_owned()).collect()),
    run,
};

pub(super) const KOSOKU: Tool = Tool::of_python("kosoku", "kosoku==0.1.0");
/// An independent end.
pub(super) const WEBSOCKETS: Tool = Tool::of_python("websockets", "websockets==17.4");

/// What takes a run of every kind of case: all but compression, and of that some of each kind.
const SOME: [&str; 12] =
    ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*.3", "12.*.14", "13.*.5"];
const ALL: [&str; 1] = ["*"];
/// Cases in which the fuzzing server asks a client to do without context takeover, if it has offered to.
const ALONE: [&str; 3] = ["13.2.*", "13.5.*", "13.6.*"];
const SOME_ALONE: [&str; 3] = ["13.2.5", "13.5.5", "13.6.5"];

const START_TIME_MAX: Duration = Duration::from_secs(20);
const PEER_TIME_MAX: Duration = Duration::from_secs(4 * 60);

/// One of the other ends, and our answer to it.
type Part = fn(&mut Context<'_>) -> Result<Vec<(String, Outcome)>, Outcome>;

const OUR_SERVER: &str = "Autobahn: our server";
const OUR_CLIENT: &str = "Autobahn: our client";

const PARTS: &[(&str, Part)] = &[
    (OUR_SERVER, autobahn_server),
    (OUR_CLIENT, autobahn_client),
    ("Python websockets: our server", |context| peer_client(context, false)),
    ("Python websockets: our server with TLS", |context| peer_client(context, true)),
    ("Python websockets: our client", |context| peer_server(context, false)),
    ("Python websockets: our client with TLS", |context| peer_server(context, true)),
];

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for (name, part) in PARTS {
        // A part is started when any of its cases may be wanted; which those are is known afterwards.
        let wanted = context.setting.case.as_deref().is_none_or(|case| name.contains(case) || case.contains(name));
        if !wanted {
            continue;
        }
        context.report.progress(name);
        match part(context) {
            Ok(cases) => {
                for (case, outcome) in cases {
                    context.report.case(format!("{name}: {case}"), outcome, None);
                }
            }
            Err(outcome) => context.report.case(*name, outcome, None),
        }
    }
    Ok(())
}

/// A failure in words.
fn failed(error: impl ToString) -> Outcome {
    Outcome::Failed(error.to_string())
}

fn script(setting: &Setting, name: &str) -> PathBuf {
    setting.root.join("conformance/websocket").join(name)
}

/// One of our scripts, as a command.
fn ours(setting: &Setting, name: &str) -> Command {
    let mut command = setting.moonwire_with_suites();
    command.arg(script(setting, name));
    command
}

/// Starts a server, and answers where it says it listens.
pub(super) fn start(command: Command) -> Result<(Process, String), Outcome> {
    let mut server = Process::start(command).map_err(failed)?;
    let line = server.wait_for_line(START_TIME_MAX, |line| line.starts_with("listening on ")).map_err(failed)?;
    Ok((server, line.trim_start_matches("listening on ").to_owned()))
}

// Autobahn

fn is_full() -> bool {
    env::var_os("AUTOBAHN_FULL").is_some()
}

fn cases() -> &'static [&'static str] {
    if is_full() { &ALL } else { &SOME }
}

fn autobahn_time_max() -> Duration {
    Duration::from_secs(if is_full() { 30 * 60 } else { 3 * 60 })
}

/// The only case of a part that `--case` names, when it names one as a whole: "Autobahn: our server: 2.2".
fn only<'a>(setting: &'a Setting, part: &str) -> Option<&'a str> {
    setting.case.as_deref()?.strip_prefix(part)?.strip_prefix(": ")
}

/// The cases run in kosoku, unless somebody has the original.
fn need_autobahn(context: &Context<'_>) -> Result<(), Outcome> {
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

fn autobahn_server(context: &mut Context<'_>) -> Result<Vec<(String, Outcome)>, Outcome> {
    need_autobahn(context)?;
    let outdir = context.setting.temporary.join("autobahn-server");
    let (_server, address) = start(ours(context.setting, "server.lua"))?;
    let only = only(context.setting, OUR_SERVER);
    let cases = only.as_ref().map_or(cases(), std::slice::from_ref);
    let command = autobahn(context.setting, "fuzzingclient", &address, &outdir, (cases, &[]))?;
    let finished = context.run(command, autobahn_time_max()).map_err(failed)?;
    let verdicts = verdicts(&outdir, &finished)?;
    if only.is_some() { Ok(verdicts) } else { enough(verdicts) }
}

fn autobahn_client(context: &mut Context<'_>) -> Result<Vec<(String, Outcome)>, Outcome> {
    need_autobahn(context)?;
    if let Some(case) = only(context.setting, OUR_CLIENT).map(str::to_owned) {
        let alone = ALONE.iter().any(|alone| case.starts_with(alone.trim_end_matches('*')));
        return client_cases(context, "autobahn-client", (&[&case], &[]), alone);
    }
    let mut all = client_cases(context, "autobahn-client", (cases(), &ALONE), false)?;
    let alone: &[&str] = if is_full() { &ALONE } else { &SOME_ALONE };
    all.extend(client_cases(context, "autobahn-client-alone", (alone, &[]), true)?);
    enough(all)
}

/// Runs these cases with our client; `alone`: it offers to do without context takeover.
fn client_cases(
    context: &mut Context<'_>,
    name: &str,
    cases: (&[&str], &[&str]),
    alone: bool,
) -> Result<Vec<(String, Outcome)>, Outcome> {
    let outdir = context.setting.temporary.join(name);
    let port = ports::free(1).map_err(failed)?[0];
    let address = format!("127.0.0.1:{port}");
    let command = autobahn(context.setting, "fuzzingserver", &address, &outdir, cases)?;
    let _server = Process::start(command).map_err(failed)?;
    wait_until("the fuzzing server does not listen", || ports::answers(port))?;
    let mut command = ours(context.setting, "client.lua");
    command.args([format!("url=ws://{address}"), "agent=moonwire".into(), format!("alone={}", u8::from(alone))]);
    let finished = context.run(command, autobahn_time_max()).map_err(failed)?;
    // It writes the report after it has said goodbye.
    wait_until("the fuzzing server writes no report", || verdicts(&outdir, &finished).is_ok())?;
    verdicts(&outdir, &finished)
}

/// Waits until something is so.
fn wait_until(otherwise: &str, is_so: impl Fn() -> bool) -> Result<(), Outcome> {
    let deadline = Instant::now() + START_TIME_MAX;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(failed(otherwise));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What the report says of each case. Only what the standard asks for passes: a case that is merely tolerated
/// (`NON-STRICT`) fails here.
fn verdicts(outdir: &Path, finished: &Finished) -> Result<Vec<(String, Outcome)>, Outcome> {
    let text = fs::read_to_string(outdir.join("index.json"))
        .map_err(|error| failed(format!("no report: {error}\n{}", finished.summary())))?;
    let report: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_str(&text).map_err(failed)?;
    let mut cases = Vec::new();
    for (case, verdict) in report.into_values().flatten() {
        let word = |key: &str| verdict.get(key).and_then(|word| word.as_str()).unwrap_or("missing").to_owned();
        let (behavior, close) = (word("behavior"), word("behaviorClose"));
        let fine = |word: &str| matches!(word, "OK" | "INFORMATIONAL");
        let outcome = match fine(&behavior) && fine(&close) {
            true => Outcome::Passed,
            false => Outcome::Failed(format!("{behavior}; its close: {close}")),
        };
        cases.push((case, outcome));
    }
    cases.sort_by_key(|(case, _)| case.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>());
    Ok(cases)
}

/// The cases, if there are as many as there should be.
fn enough(cases: Vec<(String, Outcome)>) -> Result<Vec<(String, Outcome)>, Outcome> {
    let least = if is_full() { 500 } else { 310 };
    if cases.len() < least { Err(failed(format!("only {} cases were run", cases.len()))) } else { Ok(cases) }
}

// Python websockets

/// The program of the other end.
pub(super) fn peer(setting: &Setting) -> Command {
    let mut command = setting.command(tools::python_program("python"));
    command.arg(script(setting, "peer.py"));
    command
}

/// What a line of a peer says of a case: `passed NAME`, or `failed NAME: why`.
pub fn outcome_of(line: &str) -> Option<(String, Outcome)> {
    if let Some(name) = line.strip_prefix("passed ") {
        return Some((name.to_owned(), Outcome::Passed));
    }
    let (name, why) = line.strip_prefix("failed ")?.split_once(": ")?;
    Some((name.to_owned(), Outcome::Failed(why.to_owned())))
}

/// What it printed of its cases.
pub(super) fn outcomes(finished: &Finished) -> Result<Vec<(String, Outcome)>, Outcome> {
    let cases: Vec<_> = finished.stdout.lines().filter_map(outcome_of).collect();
    if cases.is_empty() || !finished.succeeded() {
        return Err(Outcome::Failed(finished.summary()));
    }
    Ok(cases)
}

fn certificates(context: &Context<'_>) -> Result<Certificates, Outcome> {
    Certificates::make(&context.setting.temporary.join("websocket-certificates")).map_err(failed)
}

fn peer_client(context: &mut Context<'_>, tls: bool) -> Result<Vec<(String, Outcome)>, Outcome> {
    context.need(&[WEBSOCKETS])?;
    let mut server = ours(context.setting, "server.lua");
    let mut client = peer(context.setting);
    let mut authority = None;
    if tls {
        let certificates = certificates(context)?;
        server.arg(format!("cert={}", certificates.certificate("server").display()));
        server.arg(format!("key={}", certificates.key("server").display()));
        authority = Some(certificates.certificate("ca"));
    }
    let (_server, address) = start(server)?;
    let port = address.rsplit(':').next().unwrap_or_default();
    client.arg("client").arg(if tls { format!("wss://localhost:{port}") } else { format!("ws://{address}") });
    client.args(authority);
    let finished = context.run(client, PEER_TIME_MAX).map_err(failed)?;
    outcomes(&finished)
}

fn peer_server(context: &mut Context<'_>, tls: bool) -> Result<Vec<(String, Outcome)>, Outcome> {
    context.need(&[WEBSOCKETS])?;
    let mut server = peer(context.setting);
    server.arg("server");
    let mut client = ours(context.setting, "peer_client.lua");
    let mut authority = None;
    if tls {
        let certificates = certificates(context)?;
        server.args([certificates.certificate("server"), certificates.key("server")]);
        authority = Some(format!("ca={}", certificates.certificate("ca").display()));
    }
    let (_server, address) = start(server)?;
    let port = address.rsplit(':').next().unwrap_or_default();
    client.arg(if tls { format!("url=wss://localhost:{port}") } else { format!("url=ws://{address}") });
    client.args(authority);
    let finished = context.run(client, PEER_TIME_MAX).map_err(failed)?;
    outcomes(&finished)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ending;

    fn finished(stdout: &str) -> Finished {
        Finished { ending: Ending::Status(0), stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn each_line_of_a_peer_is_a_case() {
        let cases = outcomes(&finished("passed one thing\nnoise\nfailed another: AssertionError 5\n")).unwrap();
        assert_eq!(cases[0], ("one thing".to_owned(), Outcome::Passed));
        assert_eq!(cases[1], ("another".to_owned(), Outcome::Failed("AssertionError 5".to_owned())));
        assert!(outcomes(&finished("")).is_err());
    }

    #[test]
    fn one_case_of_autobahn_can_run_alone() {
        let setting = |case| super::super::tests::setting(Path::new("."), Some(case));
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
        assert!(enough(verdicts(folder.path(), &finished("")).unwrap()).is_err());
        write(600, "OK");
        let cases = verdicts(folder.path(), &finished("")).unwrap();
        assert_eq!((cases.len(), cases[1].0.as_str()), (600, "1.1"));
        write(600, "NON-STRICT");
        let cases = verdicts(folder.path(), &finished("")).unwrap();
        assert!(cases.iter().all(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
    }
}
