//! Protocols that are written in Lua alone, as examples are, against an independent end: `conformance/protocol/NAME/`.
//!
//! | file | does |
//! |---|---|
//! | `peer.py server` | is a server; says `listening on ADDRESS` |
//! | `peer.py client ADDRESS` | drives a server of ours; says `passed NAME` or `failed NAME: why` for each case |
//! | `client.lua address=ADDRESS` | drives theirs, and says the same |
//! | `server.lua` | is a server of ours |
//!
//! A protocol that is a client only has no `server.lua`, and no `peer.py client`.

use std::process::Command;
use std::time::{Duration, Instant};

use super::against::Comparison;
use super::websocket::outcomes;
use super::{Context, Setting, Suite};
use crate::lua_tests::LuaTest;
use crate::outcome::Outcome;
use crate::process::Process;
use crate::tools::{self, Source, Tool};

/// Protocols in Lua and their peers.
pub const SUITE: Suite = Suite {
    name: "protocol",
    about: "protocols of the examples against independent ends: Modbus against pymodbus",
    needs: &[PROTOCOLS[0].peer],
    servers: &[],
    time_max: Duration::from_secs(5 * 60),
    cases,
    run,
};

const FOLDER: &str = "conformance/protocol";
const START_TIME_MAX: Duration = Duration::from_secs(30);
const PEER_TIME_MAX: Duration = Duration::from_secs(2 * 60);

/// A protocol and its peer.
struct Protocol {
    name: &'static str,
    /// Where its modules are.
    modules: &'static str,
    /// The package that `peer.py` is made with.
    peer: Tool,
}

const PROTOCOLS: [Protocol; 1] = [Protocol {
    name: "modbus",
    modules: "examples/modbus",
    // The package brings no program that we use: Python itself stands for it.
    peer: Tool::of_python("python", "pymodbus==3.16.1"),
}];

/// The folders of their modules.
pub fn modules() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().map(|protocol| protocol.modules)
}

impl Protocol {
    fn expected(&self, setting: &Setting) -> Result<Comparison, String> {
        Comparison::read(setting, format!("conformance/expected/{}.txt", self.name))
    }

    /// The version that the expected results speak of.
    fn version(&self) -> &'static str {
        match self.peer.from {
            Source::Python(package) => package.split("==").nth(1).unwrap_or_default(),
            _ => "",
        }
    }

    fn moonwire(&self, setting: &Setting, script: &str) -> Command {
        let mut command = setting.moonwire_with_suites();
        command.arg(setting.root.join(FOLDER).join(self.name).join(script));
        command
    }

    fn peer(&self, setting: &Setting, role: &str) -> Command {
        let mut command = setting.command(tools::python_program("python"));
        command.arg("-B").arg(setting.root.join(FOLDER).join(self.name).join("peer.py")).arg(role);
        command
    }

    /// Our client against their server, or their client against ours: every case, and what became of it.
    fn run(&self, context: &Context<'_>, ours_is_client: bool) -> Result<Vec<(String, Outcome)>, Outcome> {
        let setting = context.setting;
        let server = if ours_is_client { self.peer(setting, "server") } else { self.moonwire(setting, "server.lua") };
        let mut server = Process::start(server).map_err(Outcome::Failed)?;
        let line = server.wait_for_line(START_TIME_MAX, |line| line.starts_with("listening on "));
        let line = line.map_err(Outcome::Failed)?;
        let address = line.trim_start_matches("listening on ");
        let mut client =
            if ours_is_client { self.moonwire(setting, "client.lua") } else { self.peer(setting, "client") };
        client.arg(if ours_is_client { format!("address={address}") } else { address.to_owned() });
        outcomes(&context.run(client, PEER_TIME_MAX).map_err(Outcome::Failed)?)
    }
}

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for protocol in &PROTOCOLS {
        names.extend(protocol.expected(setting)?.names().map(str::to_owned));
    }
    Ok(names)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for protocol in &PROTOCOLS {
        let expected = protocol.expected(context.setting)?;
        if let Err(Outcome::Skipped(reason)) = context.need(&[protocol.peer]) {
            let names: Vec<_> = expected.names().map(str::to_owned).collect();
            context.skip(&names, &reason);
            continue;
        }
        let (mut results, mut complete) = (Vec::new(), true);
        let has_server = context.setting.root.join(FOLDER).join(protocol.name).join("server.lua").is_file();
        for ours_is_client in [true, false] {
            if !ours_is_client && !has_server {
                continue;
            }
            let roles = if ours_is_client { "our client, their server" } else { "their client, our server" };
            let part = format!("{}: {roles}", protocol.name);
            context.report.progress(&part);
            let begun = Instant::now();
            match protocol.run(context, ours_is_client) {
                Ok(cases) => {
                    let time = begun.elapsed() / u32::try_from(cases.len()).unwrap_or(1).max(1);
                    results.extend(cases.into_iter().map(|(case, outcome)| {
                        let name = format!("{part}: {case}");
                        (name.clone(), LuaTest { file: FOLDER.to_owned(), name, outcome, time })
                    }));
                }
                Err(outcome) => {
                    complete = false;
                    context.report.case(part, outcome, Some(begun.elapsed()));
                }
            }
        }
        expected.report(context, protocol.version(), &results, complete)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_ends_and_the_suite_needs_its_peer() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for protocol in &PROTOCOLS {
            for file in ["peer.py", "client.lua"] {
                assert!(root.join(FOLDER).join(protocol.name).join(file).is_file(), "{}: {file}", protocol.name);
            }
            assert!(root.join(protocol.modules).join(format!("{}.lua", protocol.name)).is_file());
            assert!(SUITE.needs.contains(&protocol.peer), "{}", protocol.name);
            assert!(!protocol.version().is_empty(), "{}", protocol.name);
        }
    }
}
