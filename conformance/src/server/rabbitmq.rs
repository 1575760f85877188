//! RabbitMQ with its MQTT plugins.

use std::process::Command;
use std::time::Duration;

use super::mosquitto::{PUBLISHER, SUBSCRIBER};
use super::{Kind, own, run_as};
use crate::place::{FromImage, Place};
use crate::process;
use crate::tools::Tool;

/// The broker, as its package's users call it.
const BROKER: Tool = Tool::of_package("rabbitmq-server", "rabbitmq-server");
/// What tells Erlang nodes where others are: no node starts without.
const PORT_MAPPER: Tool = Tool::of_package("epmd", "erlang-base");
/// The user that its package makes.
const USER: &str = "rabbitmq";
/// What has its version in its name: in Debian's package, or in the image of its makers.
const VERSIONED: &str = "ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-* /opt/rabbitmq/plugins/rabbit-[0-9]* 2>/dev/null";

/// One node; Debian 12 has 3.10, which speaks MQTT 3.1.1, the image 4.0, which speaks MQTT 5.
pub const KIND: Kind = Kind {
    name: "rabbitmq",
    needs: &[BROKER, PORT_MAPPER, SUBSCRIBER, PUBLISHER],
    // Its own test of its health asks a node of another name.
    images: &[FromImage {
        service: "rabbitmq",
        programs: &[("rabbitmq-server", "rabbitmq-server"), ("epmd", "epmd")],
        health: None,
    }],
    version,
    listeners: &["plain", "tls", "websocket", "port_mapper", "distribution"],
    prepare: |place| own(place, BROKER, "data", USER),
    commands,
    port_taken: "eaddrinuse",
};

/// From the name of its folder: asking the program takes seconds.
fn version(place: &Place) -> Result<String, String> {
    let mut command = place.beside(BROKER, "sh");
    command.args(["-c", VERSIONED]);
    let finished = process::run(command, Duration::from_secs(60), |_, _| {})?;
    let version = finished.stdout.lines().find_map(|path| path.rsplit_once('-')).map(|(_, version)| version.to_owned());
    version.ok_or_else(|| format!("rabbitmq: nothing says its version: {}", finished.summary()))
}

/// Its package's own command insists on the system's folders; the script runs what that command runs.
fn commands(place: &Place) -> Vec<Command> {
    let mut command = place.beside(BROKER, "sh");
    command.arg(place.folder().join("start.sh"));
    run_as(place, BROKER, &mut command, USER);
    vec![command]
}
