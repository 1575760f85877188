//! Eclipse Mosquitto 2.

use std::process::Command;
use std::time::Duration;

use super::Kind;
use crate::place::{FromImage, Place};
use crate::process;
use crate::tools::Tool;

/// The broker.
pub const BROKER: Tool = Tool::of_package("mosquitto", "mosquitto");
/// Makes its password file; comes with the broker.
const PASSWORDS: Tool = Tool::of_package("mosquitto_passwd", "mosquitto");
/// Independent witnesses of what a broker received and delivers.
pub const SUBSCRIBER: Tool = Tool::of_package("mosquitto_sub", "mosquitto-clients");
/// Says to a broker what is to be delivered to us.
pub const PUBLISHER: Tool = Tool::of_package("mosquitto_pub", "mosquitto-clients");

/// The user that the password listener knows.
pub const USER: &str = "moonwire";
/// That user's password.
pub const PASSWORD: &str = "correct horse battery staple";

/// Mosquitto, with one listener for each way to be let in or refused.
pub const KIND: Kind = Kind {
    name: "mosquitto",
    needs: &[BROKER, PASSWORDS, SUBSCRIBER, PUBLISHER],
    images: &[FromImage {
        service: "mosquitto",
        programs: &[("mosquitto", "mosquitto"), ("mosquitto_passwd", "mosquitto_passwd")],
        health: Some("plain"),
    }],
    version,
    listeners: &[
        "plain",
        "password",
        "tls",
        "client_certificate",
        "expired",
        "wrong_name",
        "limits",
        "websocket",
        "websocket_tls",
    ],
    prepare,
    commands,
    port_taken: "Address already in use",
};

/// From the first line of its help: "mosquitto version 2.0.11".
fn version(place: &Place) -> Result<String, String> {
    let mut command = place.command(BROKER);
    command.arg("-h");
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    let said = finished.stdout.lines().chain(finished.stderr.lines());
    let version = said.filter_map(|line| line.strip_prefix("mosquitto version ")).next();
    version.map(str::to_owned).ok_or_else(|| format!("mosquitto does not say its version: {}", finished.summary()))
}

fn prepare(place: &Place) -> Result<(), String> {
    let mut command = place.command(PASSWORDS);
    command.args(["-b", "-c"]).arg(place.folder().join("passwords")).args([USER, PASSWORD]);
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    if finished.succeeded() { Ok(()) } else { Err(format!("mosquitto_passwd: {}", finished.summary())) }
}

/// Three brokers: who is let in, and most of what is announced, is a setting of the whole, because `per_listener_settings` makes Mosquitto 2.0.21 forget
/// the messages of clients that are away (its ChangeLog, 2.0.23). Started as root, they become the user `mosquitto`.
fn commands(place: &Place) -> Vec<Command> {
    let start = |configuration: &str| {
        let mut command = place.command(BROKER);
        command.arg("-c").arg(place.folder().join(configuration));
        command
    };
    vec![start("mosquitto.conf"), start("password.conf"), start("limits.conf")]
}
