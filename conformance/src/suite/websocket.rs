//! The WebSocket stack against the Autobahn test suite's cases, as server and as client, and against Python websockets.

mod autobahn;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::process::{Finished, Process};
use crate::tools::{self, Tool};

/// Both ends of ours, against both ends of others.
pub const SUITE: Suite = Suite {
    name: "websocket",
    about: "the WebSocket stack against the Autobahn cases and Python websockets, both as client and as server",
    needs: &[KOSOKU, WEBSOCKETS],
    servers: &[],
    // Besides Autobahn, which may go on for as long as cases are done.
    time_max: Duration::from_secs(20 * 60),
    cases: |_| Ok(PARTS.iter().map(|(name, _)| (*name).to_owned()).collect()),
    run,
};

pub(super) const KOSOKU: Tool = Tool::of_python("kosoku", "kosoku==0.1.0");
/// An independent end.
pub(super) const WEBSOCKETS: Tool = Tool::of_python("websockets", "websockets==17.4");

const START_TIME_MAX: Duration = Duration::from_secs(20);
const PEER_TIME_MAX: Duration = Duration::from_secs(4 * 60);

/// One of the other ends, and our answer to it.
type Part = fn(&mut Context<'_>) -> Result<Vec<(String, Outcome)>, Outcome>;

const OUR_SERVER: &str = "Autobahn: our server";
const OUR_CLIENT: &str = "Autobahn: our client";

const PARTS: &[(&str, Part)] = &[
    (OUR_SERVER, autobahn::server),
    (OUR_CLIENT, autobahn::client),
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
}
