//! Postfix 3, with Dovecot 2 to check logins, and a sink behind it that tells what arrived.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Kind;
use crate::place::{FromImage, Place};
use crate::process;
use crate::tools::Tool;

/// The mail server.
pub const POSTFIX: Tool = Tool::of_package("postfix", "postfix");
/// Checks logins.
const DOVECOT: Tool = Tool::of_package("dovecot", "dovecot-core");
/// The library that the sink is made of, and of Debian's own Python.
pub const SINK: Tool = Tool::of_package("aiosmtpd", "python3-aiosmtpd");
/// Verifies signatures.
pub const DKIM: Tool = Tool::of_package("dkimverify", "python3-dkim");
/// Makes the keys that sign.
pub const KEYS: Tool = Tool::of_package("openssl", "openssl");

/// The sink itself, for other servers.
pub const SINK_SCRIPT: &str = include_str!("../../servers/postfix/sink.py");

/// The user that listeners with a login know.
pub const USER: &str = "moonwire";
/// That user's password.
pub const PASSWORD: &str = "correct horse battery staple";

/// Postfix, with one listener for each way to be let in or refused, and the sink's two ports.
pub const KIND: Kind = Kind {
    name: "postfix",
    needs: &[POSTFIX, DOVECOT, SINK, DKIM, KEYS],
    images: &[FromImage { service: "postfix", programs: &[("postfix", "postfix")], health: Some("plain") }],
    version,
    listeners: &["sink", "report", "plain", "bare", "small", "submission", "smtps", "expired", "wrong_name"],
    prepare,
    commands,
    port_taken: "Address already in use",
};

fn version(place: &Place) -> Result<String, String> {
    let mut command = place.beside(POSTFIX, "postconf");
    command.args(["-h", "-d", "mail_version"]);
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    Ok(finished.stdout.trim().to_owned())
}

fn prepare(place: &Place) -> Result<(), String> {
    let folder = place.folder();
    let wrong = |error: std::io::Error| format!("postfix: {}: {error}", folder.display());
    fs::write(folder.join("users"), format!("{USER}:{{PLAIN}}{PASSWORD}::::::\n")).map_err(wrong)?;
    for name in ["spool", "data"] {
        fs::create_dir_all(folder.join(name)).map_err(wrong)?;
    }
    // Its user may have another number in a container.
    let mut command = place.beside(POSTFIX, "chown");
    command.arg("postfix").arg(folder.join("data"));
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    if finished.succeeded() { Ok(()) } else { Err(format!("chown: {}", finished.summary())) }
}

/// The sink in `folder`. Debian's Python has its libraries; another one first in `PATH` may not.
pub fn sink(folder: &Path) -> Command {
    let mut sink = Command::new("/usr/bin/python3");
    let ports = fs::read_to_string(folder.join("ports.txt")).unwrap_or_default();
    sink.arg(folder.join("sink.py")).args(ports.split_whitespace()).arg(folder);
    sink
}

fn commands(place: &Place) -> Vec<Command> {
    let mut dovecot = place.command(DOVECOT);
    dovecot.arg("-F").arg("-c").arg(place.folder().join("dovecot.conf"));
    vec![sink(place.folder()), dovecot, postfix(place)]
}

/// Postfix in the foreground; whenever it is stopped it starts again, so that a case may restart it. Its master is in a
/// session of its own, which no signal to us reaches: it is told.
fn postfix(place: &Place) -> Command {
    let mut postfix = place.beside(POSTFIX, "sh");
    postfix.args([
        "-c",
        "trap '\"$0\" -c \"$1\" abort; exit' TERM; while :; do \"$0\" -c \"$1\" start-fg & wait $!; done",
    ]);
    postfix.arg(place.program(POSTFIX)).arg(place.folder());
    postfix
}

/// How long a Postfix that was stopped may take until it can be stopped again.
const RESTART_TIME_MAX: Duration = Duration::from_secs(20);

/// Stops the Postfix in `place`, at once or after what it is at; it starts again by itself.
///
/// # Errors
/// In words.
pub fn restart(place: &Place, at_once: bool) -> Result<(), String> {
    let deadline = Instant::now() + RESTART_TIME_MAX;
    loop {
        let mut command = place.inside(POSTFIX, "postfix", &[]);
        command.arg("-c").arg(place.folder()).arg(if at_once { "abort" } else { "stop" });
        let finished = process::run(command, Duration::from_secs(60), |_, _| {})?;
        if finished.succeeded() {
            return Ok(());
        }
        // It may not have come up again since it was last stopped.
        if Instant::now() > deadline {
            return Err(format!("postfix stop: {}", finished.summary()));
        }
        thread::sleep(Duration::from_millis(100));
    }
}
