//! ejabberd with nothing but its MQTT broker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mosquitto::{PUBLISHER, SUBSCRIBER};
use super::{Kind, own, run_as};
use crate::place::Place;
use crate::tools::Tool;

/// The server, by the command of its package that is not used here: it insists on the system's folders.
const SERVER: Tool = Tool::of_package("ejabberdctl", "ejabberd");
/// What it runs in.
const ERLANG: Tool = Tool::of_package("erl", "erlang-base");
/// The user that its package makes.
const USER: &str = "ejabberd";
/// Where packages have libraries; below, each architecture has a folder of its own.
const LIBRARIES: &str = "/usr/lib";

/// One node that is part of no cluster, which needs no port mapper.
pub const KIND: Kind = Kind {
    name: "ejabberd",
    needs: &[SERVER, ERLANG, SUBSCRIBER, PUBLISHER],
    images: &[],
    version: |_| Ok(library()?.1),
    listeners: &["plain", "tls", "client_certificate", "websocket", "registered"],
    prepare: |place| own(place, ERLANG, "data", USER),
    commands,
    port_taken: "eaddrinuse",
};

/// Where its code is, and its version: `/usr/lib/x86_64-linux-gnu/ejabberd-23.01-1`.
fn library() -> Result<(PathBuf, String), String> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for architecture in folders(Path::new(LIBRARIES)).iter().filter(|path| name(path).ends_with("-linux-gnu")) {
        for path in folders(architecture) {
            if let Some(version) = name(&path).strip_prefix("ejabberd-") {
                return Ok((path.join("ebin"), version.to_owned()));
            }
        }
    }
    Err(format!("ejabberd: its code is not in {LIBRARIES}"))
}

fn commands(place: &Place) -> Vec<Command> {
    let folder = place.folder();
    let data = folder.join("data");
    let mut command = place.command(ERLANG);
    command.arg("-noinput").arg("-pa").arg(library().map(|(code, _)| code).unwrap_or_default());
    command.args(["-mnesia", "dir"]).arg(format!("{:?}", data.join("mnesia")));
    command.arg("-eval").arg(format!("ok = file:eval({:?}).", folder.join("start.erl")));
    command.env("HOME", &data).env("ERL_CRASH_DUMP", "/dev/null");
    command.env("EJABBERD_CONFIG_PATH", folder.join("ejabberd.yml"));
    command.env("EJABBERD_LOG_PATH", data.join("ejabberd.log"));
    run_as(place, ERLANG, &mut command, USER);
    vec![command]
}
