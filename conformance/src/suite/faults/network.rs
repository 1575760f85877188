//! Two network namespaces with a cable between them: in one `moonwire` runs, in the other its servers, behind the
//! firewall rules that the cases set.
//!
//! A namespace belongs to the process that holds it (`unshare --net sleep`), and nothing else refers to it: whatever ends
//! the run, it is gone with its holder, its cable and its rules, and the machine's own network was never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Ground;
use crate::outcome::Outcome;
use crate::process::{self, Process};
use crate::server::{mosquitto, web};
use crate::suite::{Context, Setting};
use crate::tools::{self, Tool};

pub const UNSHARE: Tool = Tool::of_package("unshare", "util-linux");
pub const IP: Tool = Tool::of_package("ip", "iproute2");
pub const IPTABLES: Tool = Tool::of_package("iptables", "iptables");

/// Seconds after which a namespace is let go of, whatever has become of us.
const HELD_MAX: &str = "600";
const TIME_MAX: Duration = Duration::from_secs(20);

/// Where client and server are on the cable.
const CLIENT: &str = "10.77.0.1";
const SERVER: &str = "10.77.0.2";
const MQTT_PORT: u16 = 1883;
const HTTP_PORT: u16 = 8080;

/// Makes the namespaces and starts the servers.
pub fn ground(context: &mut Context<'_>) -> Result<Ground, Outcome> {
    if !tools::is_root() {
        return Err(Outcome::Skipped("network namespaces: only root may make them".to_owned()));
    }
    context.need(&[UNSHARE, IP, IPTABLES])?;
    context.need(mosquitto::KIND.needs)?;
    context.need(web::KIND.needs)?;
    let setting = context.setting;
    let [near, far] = [hold(setting)?, hold(setting)?];
    let inside = |process: &Process| vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", process.id())];
    let (near_side, far_side) = (inside(&near), inside(&far));
    let lay = [
        (&near_side, "ip link add cable type veth peer name cable_end".to_owned()),
        (&near_side, format!("ip link set cable_end netns {}", far.id())),
        (&near_side, format!("ip addr add {CLIENT}/24 dev cable")),
        (&near_side, "ip link set cable up".to_owned()),
        (&near_side, "ip link set lo up".to_owned()),
        (&far_side, format!("ip addr add {SERVER}/24 dev cable_end")),
        (&far_side, "ip link set cable_end up".to_owned()),
        (&far_side, "ip link set lo up".to_owned()),
        (&far_side, "iptables -w -L -n".to_owned()),
    ];
    for (side, words) in &lay {
        let finished = process::run(put(setting, side, words), TIME_MAX, |_, _| {}).map_err(Outcome::Failed)?;
        if !finished.succeeded() {
            // A container may call itself root and still not be allowed to.
            return Err(Outcome::Skipped(format!("network namespaces: `{words}`: {}", finished.stderr.trim())));
        }
    }
    let folder = setting.temporary.join("network");
    let (mosquitto, nginx) = write(&folder).map_err(|error| Outcome::Failed(format!("network: {error}")))?;
    let mut processes = vec![near];
    for words in [format!("mosquitto -c {mosquitto}"), format!("nginx -c {nginx} -p {}", folder.display())] {
        processes.push(Process::start(put(setting, &far_side, &words)).map_err(Outcome::Failed)?);
    }
    wait_for_listeners(&far, &[MQTT_PORT, HTTP_PORT])?;
    processes.push(far);
    Ok(Ground {
        environment: vec![
            ("MOONWIRE_NETWORK_MQTT_URL", format!("mqtt://{SERVER}:{MQTT_PORT}")),
            ("MOONWIRE_NETWORK_HTTP_URL", format!("http://{SERVER}:{HTTP_PORT}")),
            ("MOONWIRE_NETWORK_IPTABLES", format!("{} {}", far_side.join(" "), path_of(IPTABLES.program).display())),
            ("MOONWIRE_NETWORK_TC", format!("{} {}", far_side.join(" "), path_of("tc").display())),
        ],
        within: near_side,
        _processes: processes,
        ..Ground::default()
    })
}

/// A process with a namespace of its own.
fn hold(setting: &Setting) -> Result<Process, Outcome> {
    let mut command = setting.command("unshare");
    command.args(["--net", "sh", "-c", "echo held && exec sleep \"$0\"", HELD_MAX]);
    let mut process = Process::start(command).map_err(Outcome::Failed)?;
    process
        .wait_for_line(TIME_MAX, |line| line == "held")
        .map_err(|error| Outcome::Skipped(format!("network namespaces: {error}")))?;
    Ok(process)
}

/// A command on one side of the cable.
fn put(setting: &Setting, side: &[String], words: &str) -> Command {
    let mut command = setting.command(&side[0]);
    let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
    command.args(&side[1..]).arg(path_of(program)).args(arguments.split(' '));
    command
}

/// Where a program is: administrators' folders may not be searched.
fn path_of(program: &str) -> PathBuf {
    tools::find(program).unwrap_or_else(|| program.into())
}

/// Writes the servers' configurations; answers where they are.
fn write(folder: &Path) -> std::io::Result<(String, String)> {
    fs::create_dir_all(folder.join("www"))?;
    fs::write(folder.join("www/page.txt"), "a line of some length\n".repeat(20_000))?;
    fs::write(folder.join("www/small.txt"), "small\n")?;
    let paths = ["mosquitto.conf", "nginx.conf"].map(|name| folder.join(name).display().to_string());
    let place = folder.display();
    fs::write(&paths[0], format!("listener {MQTT_PORT} {SERVER}\nallow_anonymous true\nset_tcp_nodelay true\n"))?;
    fs::write(
        &paths[1],
        format!(
            "user root; daemon off; worker_processes 1; error_log {place}/nginx.log; pid {place}/nginx.pid;\n\
             events {{ }}\n\
             http {{ access_log off; root {place}/www; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
             server {{ listen {SERVER}:{HTTP_PORT}; }} }}\n"
        ),
    )?;
    let [mosquitto, nginx] = paths;
    Ok((mosquitto, nginx))
}

/// Waits until the kernel lists them: the namespace's own list can be read from here, and no rule is in its way.
fn wait_for_listeners(holder: &Process, ports: &[u16]) -> Result<(), Outcome> {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", holder.id())).unwrap_or_default();
        let listening = listeners(&table);
        if ports.iter().all(|port| listening.contains(port)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Outcome::Failed(format!("network: of {ports:?} only {listening:?} are listened at")));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The ports that a table of TCP sockets shows as listened at.
fn listeners(table: &str) -> Vec<u16> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, _, state) = (words.next()?, words.next()?, words.next()?);
            let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
            (state == LISTEN).then_some(port)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_the_sockets_in_that_state() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 02004D0A:075B 00000000:0000 0A 00000000\n   \
                     1: 02004D0A:1F90 01004D0A:C000 01 00000000\n   2: nonsense\n";
        assert_eq!(listeners(table), [1883]);
    }
}
