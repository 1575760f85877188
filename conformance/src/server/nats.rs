//! NATS with JetStream, which speaks MQTT 3.1.1.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::mosquitto::{PUBLISHER, SUBSCRIBER};
use super::{Kind, own, run_as};
use crate::place::{FromImage, Place};
use crate::process;
use crate::tools::Tool;

/// The server.
pub const SERVER: Tool = Tool::of_package("nats-server", "nats-server");
/// The user that its package makes.
pub const USER: &str = "nats";
/// One process each: a server has one MQTT listener.
const CONFIGURATIONS: [&str; 5] =
    ["nats.conf", "tls.conf", "client_certificate.conf", "expired.conf", "wrong_name.conf"];

/// A server for each way to be let in or refused. Clients of its own protocol have ports that nobody uses.
pub const KIND: Kind = Kind {
    name: "nats",
    needs: &[SERVER, SUBSCRIBER, PUBLISHER],
    images: &[FromImage { service: "nats", programs: &[("nats-server", "nats-server")], health: Some("plain") }],
    version,
    listeners: &[
        "plain",
        "websocket",
        "tls",
        "client_certificate",
        "expired",
        "wrong_name",
        "nats",
        "nats_tls",
        "nats_client_certificate",
        "nats_expired",
        "nats_wrong_name",
    ],
    prepare: |place| own(place, SERVER, "data", USER),
    commands,
    port_taken: "address already in use",
};

/// "nats-server: v2.9.10".
pub fn version(place: &Place) -> Result<String, String> {
    let mut command = place.command(SERVER);
    command.arg("--version");
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    let version = finished.stdout.trim().strip_prefix("nats-server: v");
    version.map(str::to_owned).ok_or_else(|| format!("nats-server does not say its version: {}", finished.summary()))
}

fn commands(place: &Place) -> Vec<Command> {
    CONFIGURATIONS.map(|configuration| command(place, &place.folder().join(configuration))).into()
}

/// A server with this configuration, in the foreground.
pub fn command(place: &Place, configuration: &Path) -> Command {
    let mut command = place.command(SERVER);
    command.arg("--config").arg(configuration);
    run_as(place, SERVER, &mut command, USER);
    command
}
