//! The stacks through a network that fails: `conformance/faults/*_test.lua`, one file a stack, to real servers behind the
//! fault proxy (`faults/proxy.lua`); and in network namespaces ([`network`]), where the system itself drops, refuses
//! and resets.
//!
//! A file that says `-- clock: virtual` at its head needs no server, and time jumps in it. What each case comes to is
//! written in `expected/faults/`, one file each.

mod network;

use std::time::Duration;

use super::against::{self, Comparison};
use super::mqtt::broker::BROKERS;
use super::{Context, Setting, Suite, http, smtp, websocket};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::process::Process;
use crate::server::{Kind, Server, mosquitto, postfix, web};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "faults",
    about: "every stack through latency, slices, stalls, losses, cuts and resets, by a proxy and by the system",
    needs: &[websocket::WEBSOCKETS, network::UNSHARE, network::IP, network::IPTABLES],
    servers: &[&mosquitto::KIND, &postfix::KIND, &web::KIND],
    time_max: Duration::from_secs(5 * 60),
    cases: |setting| {
        let mut names = Vec::new();
        for part in PARTS {
            names.extend(expected(setting, part.topic)?.names().map(str::to_owned));
        }
        Ok(names)
    },
    run,
};

const FOLDER: &str = "conformance/faults";
/// Seconds a single case may take; scripts give up waiting long before.
const CASE_TIME_MAX: &str = "60";
const VIRTUAL_CLOCK: &str = "-- clock: virtual";

/// What the Lua files find in their environment.
type Environment = Vec<(&'static str, String)>;

/// What a file runs with, for as long as it runs.
#[derive(Default)]
struct Ground {
    version: String,
    environment: Environment,
    /// What the command is put behind, to run somewhere else.
    within: Vec<String>,
    /// What ends with it.
    _processes: Vec<Process>,
}

/// A file and what it needs.
struct Part {
    topic: &'static str,
    ground: fn(&mut Context<'_>) -> Result<Ground, Outcome>,
}

const PARTS: &[Part] = &[
    Part { topic: "proxy", ground: |_| Ok(Ground::default()) },
    Part { topic: "http", ground: |context| beside(context, &web::KIND, http::environment) },
    Part { topic: "mqtt", ground: |context| beside(context, &mosquitto::KIND, mosquitto_environment) },
    Part { topic: "smtp", ground: |context| beside(context, &postfix::KIND, smtp::postfix_environment) },
    Part { topic: "websocket", ground: beside_websockets },
    Part { topic: "wsrpc", ground: |_| Ok(Ground::default()) },
    Part { topic: "network", ground: network::ground },
];

fn run(context: &mut Context<'_>) -> Result<(), String> {
    PARTS.iter().try_for_each(|part| run_part(context, part))
}

fn expected(setting: &Setting, topic: &str) -> Result<Comparison, String> {
    Comparison::read(setting, format!("conformance/expected/faults/{topic}.txt"))
}

fn run_part(context: &mut Context<'_>, part: &Part) -> Result<(), String> {
    let expected = expected(context.setting, part.topic)?;
    let file = format!("{FOLDER}/{}_test.lua", part.topic);
    let whole = |_: &str, statement: &str| format!("{}: {statement}", part.topic);
    let known = expected.names().any(|name| context.setting.wants(name));
    let list = || {
        let mut command = context.setting.moonwire_with_suites();
        command.arg("test").envs(smtp::no_postfix());
        command
    };
    // Servers and namespaces are made for cases that are wanted, and nothing else.
    if !known && !against::any_wanted(context, &list, std::slice::from_ref(&file), &whole)? {
        return Ok(());
    }
    context.report.against(None);
    let ground = match (part.ground)(context) {
        Ok(ground) => ground,
        Err(Outcome::Skipped(reason)) => {
            let names: Vec<_> = expected.names().map(str::to_owned).collect();
            context.skip(&names, &reason);
            return Ok(());
        }
        Err(outcome) => {
            context.report.case(format!("{}: what it needs starts", part.topic), outcome, None);
            return Ok(());
        }
    };
    let real_clock = !context.setting.read(&file)?.lines().any(|line| line == VIRTUAL_CLOCK);
    let command = || {
        let mut command = context.setting.moonwire_with_suites();
        if let [program, arguments @ ..] = ground.within.as_slice() {
            let inner = command;
            command = context.setting.command(program);
            command.args(arguments).arg(inner.get_program());
            command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        }
        command.args(["test", "--timeout", CASE_TIME_MAX]).envs(ground.environment.iter().cloned());
        command.args(real_clock.then_some("--real-clock"));
        command.args(context.setting.seed.map(|seed| format!("--seed={seed}")));
        command
    };
    let (tests, wrong) = against::run_files(context, &command, vec![file], &whole, "")?;
    let complete = wrong.is_none();
    if let Some(wrong) = wrong {
        context.report.case(format!("{}: the file runs to its end", part.topic), Outcome::Failed(wrong), None);
    }
    let results: Vec<_> = tests.into_iter().map(|test| (whole(&test.file, &test.name), test)).collect();
    expected.report(context, &ground.version, &results, complete)
}

/// A server that other suites use as well.
fn beside(
    context: &mut Context<'_>,
    kind: &'static Kind,
    environment: fn(&Server, &Certificates) -> Environment,
) -> Result<Ground, Outcome> {
    let (server, certificates) = context.server(kind)?;
    Ok(Ground { version: server.version.clone(), environment: environment(server, certificates), ..Ground::default() })
}

fn mosquitto_environment(server: &Server, certificates: &Certificates) -> Environment {
    let mosquitto = BROKERS.iter().find(|broker| broker.kind.name == server.kind.name);
    mosquitto.map(|broker| broker.environment(server, certificates)).unwrap_or_default()
}

/// Python's websockets, which says everything back.
fn beside_websockets(context: &mut Context<'_>) -> Result<Ground, Outcome> {
    context.need(&[websocket::WEBSOCKETS])?;
    let mut command = websocket::peer(context.setting);
    command.arg("server");
    let (server, address) = websocket::start(command)?;
    Ok(Ground {
        environment: vec![("MOONWIRE_WEBSOCKET_URL", format!("ws://{address}"))],
        _processes: vec![server],
        ..Ground::default()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::suite::tests::setting;

    #[test]
    fn every_file_is_a_part_and_has_what_is_expected() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let setting = setting(root, None);
        let mut files = setting.files(FOLDER, "_test.lua").unwrap();
        let mut known: Vec<_> = PARTS.iter().map(|part| format!("{FOLDER}/{}_test.lua", part.topic)).collect();
        files.sort();
        known.sort();
        assert_eq!(files, known);
        for part in PARTS {
            assert!(expected(&setting, part.topic).unwrap().names().count() > 0, "{}", part.topic);
        }
    }
}
