//! What uploads that go on where they broke off are proved against: the reference server of tus, on Node, and one in
//! Python that verifies checksums.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Kind, again_and_again, listed_ports};
use crate::place::Place;
use crate::process;
use crate::tools::{Tool, node, python_program};

const NODE: Tool = Tool::of_package("node", "nodejs");
const NPM: Tool = Tool::of_package("npm", "npm");
const SERVER: Tool = Tool::of_node("@tus/server");
const STORE: Tool = Tool::of_node("@tus/file-store");
const CHECKED: Tool = Tool::of_python("python", "resumable-upload==0.3.0");

/// Both of them, as one.
pub const KIND: Kind = Kind {
    name: "tus",
    needs: &[NODE, NPM, SERVER, STORE, CHECKED],
    images: &[],
    version,
    listeners: &["tus", "checked"],
    prepare,
    commands,
    port_taken: "EADDRINUSE",
};

/// That of the package `@tus/server`.
fn version(place: &Place) -> Result<String, String> {
    let mut command = place.command_with(NODE, &[("NODE_PATH", node::modules().as_os_str())]);
    command.args(["-p", "require('@tus/server/package.json').version"]);
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    if finished.succeeded() { Ok(finished.stdout.trim().to_owned()) } else { Err(finished.summary()) }
}

fn prepare(place: &Place) -> Result<(), String> {
    let state = place.folder().join("state");
    fs::create_dir_all(&state).map_err(|error| format!("tus: {}: {error}", state.display()))
}

fn commands(place: &Place) -> Vec<Command> {
    let (folder, ports) = (place.folder(), listed_ports(place));
    let serve = |program: &OsStr, script: &str, name: &str| {
        let mut command = again_and_again(program);
        command.arg(folder.join(script)).arg(ports.get(name).map_or("0", String::as_str)).arg(folder.join("state"));
        command
    };
    let mut reference = serve(NODE.program.as_ref(), "server.js", "tus");
    reference.env("NODE_PATH", node::modules());
    vec![reference, serve(python_program("python").as_os_str(), "checked.py", "checked")]
}
