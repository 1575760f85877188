//! Real servers: started on free ports of the loopback interface in a folder of their own, ready when they accept
//! connections, ended with the run.

pub mod ejabberd;
pub mod exim;
pub mod mosquitto;
pub mod nats;
pub mod postfix;
pub mod rabbitmq;
pub mod tus;
pub mod web;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::container::{Containers, Engine, Images};
use crate::place::{FromImage, Place, image_of};
use crate::ports;
use crate::process::{self, Process, tail};
use crate::tools::{Tool, is_root};

/// Every broker that the MQTT suite knows. A suite of another protocol names its own servers.
pub const KINDS: &[&Kind] = &[&mosquitto::KIND, &rabbitmq::KIND, &nats::KIND, &ejabberd::KIND];

/// How long a server may take until it accepts connections; RabbitMQ takes half a minute on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(90);
/// Between the moment a port is found free and the moment the server takes it, somebody else may.
const ATTEMPTS: usize = 3;

/// What is known of a server before it runs. `servers/NAME/` holds its configuration.
#[derive(Debug)]
pub struct Kind {
    /// Its name, as `--server` takes it; also the name of its folder and of its expected results.
    pub name: &'static str,
    /// The programs it needs.
    pub needs: &'static [Tool],
    /// The images that have some of them, for runs in containers. The other programs run on this machine even then.
    pub images: &'static [FromImage],
    /// The version that runs, as numbers with dots.
    pub version: fn(&Place) -> Result<String, String>,
    /// Its listeners: each gets a port, and its name is filled into the configuration.
    pub listeners: &'static [&'static str],
    /// What has to be done once its configuration is in its folder.
    pub prepare: fn(&Place) -> Result<(), String>,
    /// The commands that run it in the foreground; most servers are one program.
    pub commands: fn(&Place) -> Vec<Command>,
    /// Lines of its log that say a port was taken before it could be.
    pub port_taken: &'static str,
}

impl Kind {
    /// The programs that this machine has to have; images bring theirs.
    pub fn needs(&self, in_containers: bool) -> Vec<Tool> {
        let brought = |tool: &&Tool| in_containers && image_of(self.images, **tool).is_some();
        self.needs.iter().filter(|tool| !brought(tool)).copied().collect()
    }
}

/// What servers run in that run in containers.
#[derive(Debug)]
pub struct Harbour {
    /// Podman or Docker.
    pub engine: Engine,
    /// Where images come from.
    pub images: Images,
}

impl Harbour {
    /// Finds the engine, and reads which images there are.
    ///
    /// # Errors
    /// In words, with what to install.
    pub fn find(root: &Path) -> Result<Self, String> {
        Ok(Self { engine: Engine::find(root)?, images: Images::read(root)? })
    }

    /// The containers of one server of `kind`, none yet; `None` when it has no images.
    fn containers(&mut self, kind: &Kind, folders: &[&Path]) -> Result<Option<Containers>, String> {
        let mut images = BTreeMap::new();
        for image in kind.images {
            images.insert(image.service, self.images.get(&self.engine, image.service)?);
        }
        let folders = folders.iter().map(|folder| (*folder).to_owned()).collect();
        Ok((!images.is_empty()).then(|| Containers::new(self.engine.clone(), images, folders)))
    }
}

/// A server that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    /// What it is.
    pub kind: &'static Kind,
    /// The version that runs.
    pub version: String,
    // In this order they are ended: processes are asked to, containers are not.
    processes: Vec<Process>,
    place: Place,
    ports: BTreeMap<&'static str, u16>,
}

impl Server {
    /// Starts a server with the configuration in `configuration`; everything it writes goes below `folder`. With a
    /// `harbour`, what it has images of runs in containers.
    ///
    /// # Errors
    /// In words, with the end of the server's log.
    pub fn start(
        kind: &'static Kind,
        configuration: &Path,
        folder: &Path,
        certificates: &Certificates,
        mut harbour: Option<&mut Harbour>,
    ) -> Result<Self, String> {
        let mut last = String::new();
        for attempt in 1..=ATTEMPTS {
            let folder = folder.join(format!("{}-{attempt}", kind.name));
            let containers = match &mut harbour {
                Some(harbour) => harbour.containers(kind, &[&folder, certificates.folder()])?,
                None => None,
            };
            let place = Place::new(&folder, kind.images, containers);
            match Self::try_start(kind, configuration, place, certificates) {
                Err(error) if error.contains(kind.port_taken) => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    fn try_start(
        kind: &'static Kind,
        configuration: &Path,
        place: Place,
        certificates: &Certificates,
    ) -> Result<Self, String> {
        let folder = place.folder();
        let io = |what: &str| {
            let what = format!("{}: {what}", kind.name);
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let ports = ports::free(kind.listeners.len()).map_err(io("no free ports"))?;
        let ports: BTreeMap<_, _> = kind.listeners.iter().copied().zip(ports).collect();
        let mut names: BTreeMap<String, String> =
            ports.iter().map(|(name, port)| ((*name).to_owned(), port.to_string())).collect();
        names.insert("folder".to_owned(), folder.display().to_string());
        names.insert("certificates".to_owned(), certificates.folder().display().to_string());

        fs::create_dir_all(folder).map_err(io("no folder"))?;
        for entry in configuration.read_dir().map_err(io("no configuration"))? {
            let path = entry.map_err(io("no configuration"))?.path();
            let template = fs::read_to_string(&path).map_err(io("configuration"))?;
            let text = fill(&template, &names).map_err(|error| format!("{}: {error}", path.display()))?;
            let to = folder.join(path.file_name().unwrap_or_default());
            fs::write(to, text).map_err(io("configuration"))?;
        }
        open_to_all(folder).map_err(io("permissions"))?;
        (kind.prepare)(&place)?;
        open_to_all(folder).map_err(io("permissions"))?;
        let version = (kind.version)(&place)?;

        place.begin();
        let log = File::create(folder.join("log")).map_err(io("no log"))?;
        let mut server = Self { kind, version, processes: Vec::new(), place, ports };
        for mut command in (kind.commands)(&server.place) {
            command.current_dir(server.place.folder()).stdin(Stdio::null());
            command.stdout(log.try_clone().map_err(io("no log"))?).stderr(log.try_clone().map_err(io("no log"))?);
            server.processes.push(Process::spawn(command).map_err(io("cannot start"))?);
        }
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The port of a listener.
    pub fn port(&self, listener: &str) -> Option<u16> {
        self.ports.get(listener).copied()
    }

    /// Whether it still runs: nothing a client sends may end it unnoticed.
    ///
    /// # Errors
    /// In words, with the end of its log.
    pub fn lives(&mut self) -> Result<(), String> {
        match self.processes.iter_mut().find_map(Process::ended) {
            None => Ok(()),
            Some(status) => Err(format!("{} ended with {status}\n{}", self.kind.name, self.log_tail())),
        }
    }

    /// Where everything of it is.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Where its programs run.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// The end of its log, for failures.
    fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        tail(&String::from_utf8_lossy(&log), 20)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIME_MAX;
        let mut waiting: Vec<u16> = self.ports.values().copied().collect();
        loop {
            self.lives()?;
            waiting.retain(|port| !ports::answers(*port));
            if waiting.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let name = self.kind.name;
                return Err(format!("{name} does not accept on {waiting:?}\n{}", self.log_tail()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        for (listener, test) in self.place.health_tests() {
            let port = self.port(listener).unwrap_or_default();
            loop {
                let finished = process::run(test(port), START_TIME_MAX, |_, _| {})?;
                if finished.succeeded() {
                    break;
                }
                if Instant::now() > deadline {
                    let name = self.kind.name;
                    return Err(format!("{name} is not healthy: {}\n{}", finished.summary(), self.log_tail()));
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

/// The ports that a server's `ports.txt` names, for commands that are told them.
pub fn listed_ports(place: &Place) -> BTreeMap<String, String> {
    let text = fs::read_to_string(place.folder().join("ports.txt")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, port)| (name.to_owned(), port.to_owned())).collect()
}

/// A command that runs `program`, and starts it again when it dies; arguments are added to it.
pub fn again_and_again(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap 'kill $!; exit' TERM; while :; do \"$@\" & wait $!; done", "sh"]);
    command.arg(program);
    command
}

/// Replaces each `{{name}}` of a template.
fn fill(template: &str, names: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        let value = names.get(name).ok_or_else(|| format!("nothing is called {{{{{name}}}}}"))?;
        text.push_str(before);
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// Lets a server that drops its rights read its folder. Keys in it live for one run and open nothing else.
pub fn open_to_all(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            open_to_all(&path)?;
        } else {
            let program = fs::metadata(&path)?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(path, fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

/// The numbers of a system's user and group.
fn user_numbers(passwords: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwords.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The numbers of the user as whom a server runs that root starts, and of its group.
fn unprivileged(user: &str) -> Option<(u32, u32)> {
    if is_root() { user_numbers(&fs::read_to_string("/etc/passwd").ok()?, user) } else { None }
}

/// Makes a folder in that of the server which belongs to this user, where root starts `tool` on this machine.
///
/// # Errors
/// In words.
pub fn own(place: &Place, tool: Tool, name: &str, user: &str) -> Result<(), String> {
    let path = place.folder().join(name);
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(&path).map_err(wrong)?;
    match unprivileged(user) {
        Some((uid, gid)) if !place.is_contained(tool) => chown(&path, Some(uid), Some(gid)).map_err(wrong),
        _ => Ok(()),
    }
}

/// Has a command that runs `tool` run it as this user, where root starts it on this machine. A container is a fence of
/// its own.
pub fn run_as(place: &Place, tool: Tool, command: &mut Command, user: &str) {
    if let Some((uid, gid)) = unprivileged(user).filter(|_| !place.is_contained(tool)) {
        command.uid(uid).gid(gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::SUITES;

    #[test]
    fn a_template_is_filled_in() {
        let names =
            BTreeMap::from([("plain".to_owned(), "1883".to_owned()), ("folder".to_owned(), "/tmp/x".to_owned())]);
        assert_eq!(fill("listener {{plain}} # {{folder}}/p {x}", &names).unwrap(), "listener 1883 # /tmp/x/p {x}");
        assert_eq!(fill("{{tls}}", &names).unwrap_err(), "nothing is called {{tls}}");
        assert_eq!(fill("{{plain", &names).unwrap_err(), "`{{` without `}}`");
    }

    #[test]
    fn every_kind_that_a_suite_names_has_its_configuration_with_its_listeners() {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
        let mut kinds = BTreeMap::new();
        for kind in SUITES.iter().flat_map(|suite| suite.servers) {
            kinds.insert(kind.name, kind.listeners);
        }
        for (name, listeners) in &kinds {
            let mut all = String::new();
            for entry in servers.join(name).read_dir().unwrap() {
                all.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
            }
            for listener in *listeners {
                assert!(all.contains(&format!("{{{{{listener}}}}}")), "{name}: no listener {listener}");
            }
        }
        for entry in servers.read_dir().unwrap() {
            let folder = entry.unwrap().file_name();
            assert!(kinds.contains_key(folder.to_str().unwrap()), "no suite names {folder:?}");
        }
    }

    #[test]
    fn a_user_has_the_numbers_of_the_line_that_begins_with_its_name() {
        let passwords = "root:x:0:0:root:/root:/bin/sh\nnats:x:108:112::/nonexistent:/usr/sbin/nologin\nodd:x\n";
        assert_eq!(user_numbers(passwords, "nats"), Some((108, 112)));
        assert_eq!(user_numbers(passwords, "nat"), None);
        assert_eq!(user_numbers(passwords, "odd"), None);
    }

    /// Reads its (empty) standard input and ends.
    static ENDS_AT_ONCE: Kind = Kind {
        name: "sh",
        needs: &[],
        images: &[],
        version: |_| Ok(String::from("1.0")),
        listeners: &["one"],
        prepare: |_| Ok(()),
        commands: |_| vec![Command::new("sh")],
        port_taken: "Address already in use",
    };

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_status() {
        let folder = tempfile::tempdir().unwrap();
        let [configuration, certificates] = ["configuration", "certificates"].map(|name| folder.path().join(name));
        fs::create_dir(&configuration).unwrap();
        fs::write(configuration.join("file"), "port {{one}}\n").unwrap();
        let certificates = Certificates::make(&certificates).unwrap();
        let error = Server::start(&ENDS_AT_ONCE, &configuration, folder.path(), &certificates, None).unwrap_err();
        assert!(error.starts_with("sh ended with exit status: 0"), "{error}");
        let written = fs::read_to_string(folder.path().join("sh-1/file")).unwrap();
        assert!(written.starts_with("port ") && !written.contains('{'), "{written}");
    }
}
