//! Exim 4, beside Postfix: its package and Postfix' exclude each other, so it runs from the package's files, by a user
//! with no rights; and a sink behind it that tells what arrived.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Kind, postfix};
use crate::place::Place;
use crate::process;
use crate::tools::{Tool, is_root, unpacked_program};

/// The mail server, and the libraries that it and its start need.
const EXIM: Tool = Tool::of_unpacked(
    "usr/sbin/exim4",
    "exim4-daemon-light",
    &[
        "libdb5.3",
        "libgnutls-dane0",
        "libgnutls30",
        "libidn12",
        "libidn2-0",
        "libnsl2",
        "libnss-wrapper",
        "libpcre2-8-0",
    ],
);
/// The user that Debian's Exim looks for when it starts.
const EXIM_USER: &str = "Debian-exim";
/// The user that it really is when root starts it: nobody.
const NOBODY: u32 = 65534;

/// Two Exims, one of them without extensions, with the listeners of Postfix, and the sink.
pub const KIND: Kind = Kind {
    name: "exim",
    needs: &[EXIM, postfix::SINK, postfix::DKIM, postfix::KEYS],
    images: &[],
    version,
    listeners: postfix::KIND.listeners,
    prepare,
    commands,
    port_taken: "Address already in use",
};

/// "Exim version 4.96 #2 built ...".
fn version(_: &Place) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("exim: {error}"))?;
    write_users(folder.path(), user())?;
    let mut command = Command::new(unpacked_program(EXIM.program));
    with_users(&mut command, folder.path()).args(["-C", "/dev/null", "-bV"]);
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    let version = finished.stdout.strip_prefix("Exim version ").and_then(|rest| rest.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| format!("exim does not say its version: {}", finished.summary()))
}

fn user() -> (u32, u32) {
    if is_root() {
        (NOBODY, NOBODY)
    } else {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }
}

/// Who there is, as Exim is to see it: this machine need not know its user.
fn write_users(folder: &Path, (uid, gid): (u32, u32)) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("exim: {}: {error}", folder.display());
    let users = format!("root:x:0:0::/:/bin/false\n{EXIM_USER}:x:{uid}:{gid}::/:/bin/false\n");
    fs::write(folder.join("passwd"), users).map_err(wrong)?;
    fs::write(folder.join("group"), format!("root:x:0:\n{EXIM_USER}:x:{gid}:\n")).map_err(wrong)
}

fn with_users<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env("LD_PRELOAD", "libnss_wrapper.so");
    command.env("NSS_WRAPPER_PASSWD", folder.join("passwd")).env("NSS_WRAPPER_GROUP", folder.join("group"))
}

fn prepare(place: &Place) -> Result<(), String> {
    let folder = place.folder();
    let wrong = |error: std::io::Error| format!("exim: {}: {error}", folder.display());
    let (uid, gid) = user();
    write_users(folder, (uid, gid))?;
    fs::write(folder.join("user"), postfix::USER).map_err(wrong)?;
    fs::write(folder.join("password"), postfix::PASSWORD).map_err(wrong)?;
    fs::write(folder.join("sink.py"), postfix::SINK_SCRIPT).map_err(wrong)?;
    // Our cache may be in a folder that others cannot enter.
    fs::create_dir_all(folder.join("bin")).map_err(wrong)?;
    fs::copy(unpacked_program(EXIM.program), folder.join("bin/exim4")).map_err(wrong)?;
    for name in ["spool", "spool-bare"] {
        fs::create_dir_all(folder.join(name)).map_err(wrong)?;
        chown(folder.join(name), Some(uid), Some(gid)).map_err(wrong)?;
    }
    Ok(())
}

fn commands(place: &Place) -> Vec<Command> {
    let folder = place.folder();
    let exim = |configuration: &str| {
        let mut exim = Command::new(folder.join("bin/exim4"));
        with_users(&mut exim, folder).arg("-C").arg(folder.join(configuration)).args(["-bdf", "-q1s"]);
        if is_root() {
            let (uid, gid) = user();
            exim.uid(uid).gid(gid);
        }
        exim
    };
    vec![postfix::sink(folder), exim("exim.conf"), exim("bare.conf")]
}
