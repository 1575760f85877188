//! Running `mqtt_restart/peer.lua`, and the tools of Mosquitto beside it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Context;
use crate::process::Process;
use crate::tools;

const PEER: &str = "conformance/mqtt_restart/peer.lua";

/// Nothing takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a peer does.
#[derive(Debug, Default)]
pub struct Role<'a> {
    /// Its client identifier, and the first level of its topics.
    pub name: &'a str,
    /// It publishes messages of each QoS with these numbers, the first and the last.
    pub numbers: Option<(u32, u32)>,
    /// It receives what this one publishes.
    pub hears: Option<&'a str>,
    /// Where it keeps what is not acknowledged.
    pub store: Option<&'a Path>,
    /// It publishes QoS 1 only.
    pub qos_1_only: bool,
    /// Seconds, for keep alive and for a connection to come about.
    pub seconds: Option<u32>,
}

/// Starts a peer that connects to the first of `urls`, and to the next when it loses that.
///
/// # Errors
/// In words.
pub fn start(context: &Context<'_>, urls: &[String], version: &str, role: &Role<'_>) -> Result<Process, String> {
    let mut command = context.setting.moonwire();
    command.args([PEER, &urls.join(","), version, role.name]).args(role.store);
    command.env("MOONWIRE_LOG", "error");
    if let Some((first, last)) = role.numbers {
        command.env("PEER_PUBLISH", role.name);
        command.env("PEER_FIRST", first.to_string()).env("PEER_COUNT", last.to_string());
    }
    if let Some(other) = role.hears {
        command.env("PEER_SUBSCRIBE", format!("{other}/#"));
    }
    if role.qos_1_only {
        command.env("PEER_QOS", "1");
    }
    if let Some(seconds) = role.seconds {
        command.env("PEER_SECONDS", seconds.to_string());
    }
    Process::start(command)
}

/// The topics of a peer.
pub fn topics(name: &str) -> impl Iterator<Item = String> {
    [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().map(move |(qos, half)| format!("{name}/qos{qos}/{half}"))
}

/// Runs a tool of Mosquitto to its end.
///
/// # Errors
/// In words.
pub fn mosquitto_tool(context: &Context<'_>, program: &str, port: u16, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(tools::find(program).unwrap_or_else(|| program.into()));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    context.succeed(command, PATIENCE).map(drop).map_err(|error| format!("{program}: {error}"))
}
