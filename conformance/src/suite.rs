//! Suites: named groups of cases. Each is one line of [`SUITES`] and one file below `suite/`.

mod against;
mod browser;
mod cargo;
mod chance;
mod check;
mod containers;
mod docs;
mod examples;
mod faults;
mod http;
mod http_server;
mod ledger;
mod lint;
mod lua;
mod mqtt;
mod mqtt_cluster;
mod mqtt_restart;
mod peer;
mod protocol;
mod self_test;
mod smtp;
mod telemetry;
mod trace;
mod websocket;
mod wsrpc;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::outcome::{Outcome, ServerRun};
use crate::place::Place;
use crate::process::{self, Finished};
use crate::report::Report;
use crate::server::{self, Harbour, Server};
use crate::tools::{self, Tool};
use crate::transcript::matches;

/// A named group of cases.
pub struct Suite {
    /// Its name, as the command line takes it.
    pub name: &'static str,
    /// What it proves, in a few words.
    pub about: &'static str,
    /// The programs it needs, besides what its servers need.
    pub needs: &'static [Tool],
    /// The servers that the harness starts for it.
    pub servers: &'static [&'static server::Kind],
    /// The most it may take; whatever it runs then is ended, and the case fails.
    pub time_max: Duration,
    /// The names of its cases, as far as they are known without running it.
    pub cases: fn(&Setting) -> Result<Vec<String>, String>,
    /// Runs it. An error is a failure of the suite itself, and counts as a failed case.
    pub run: fn(&mut Context<'_>) -> Result<(), String>,
}

impl Suite {
    /// Every program it needs.
    pub fn tools(&self) -> impl Iterator<Item = Tool> + '_ {
        self.needs.iter().chain(self.servers.iter().flat_map(|kind| kind.needs)).copied()
    }
}

/// Every suite there is, in the order they run.
pub const SUITES: &[Suite] = &[
    lua::SUITE,
    check::SUITE,
    examples::SUITE,
    docs::SUITE,
    telemetry::SUITE,
    mqtt::SUITE,
    mqtt_restart::SUITE,
    mqtt_cluster::SUITE,
    smtp::SUITE,
    websocket::SUITE,
    wsrpc::SUITE,
    browser::SUITE,
    http::SUITE,
    http_server::SUITE,
    protocol::SUITE,
    trace::SUITE,
    faults::SUITE,
    self_test::SUITE,
    containers::SUITE,
    lint::SUITE,
    cargo::SUITE,
];

/// The suite that tests the others.
pub const SELF_TEST: &str = self_test::SUITE.name;

/// The suite that runs against a broker at an address, too.
pub const AT_ADDRESS: &str = mqtt::SUITE.name;

/// Variables that must not reach what we run from the environment of whoever runs us.
const FOREIGN_VARIABLES: [&str; 2] = ["MOONWIRE_", "MQTT_"];

/// A broker that somebody else runs.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Where it is.
    pub url: String,
    /// The authority that signed its certificate.
    pub ca: Option<PathBuf>,
}

impl Elsewhere {
    /// What the report says of it: its host, and its address without the user's name and password.
    pub fn server(&self) -> ServerRun {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let address = match authority.rsplit_once('@') {
            Some((_, address)) => address,
            // A password may hold any of them.
            None if rest.contains('@') => "elsewhere",
            None => authority,
        };
        ServerRun { name: address.to_owned(), version: String::new(), way: format!("{scheme}://{address}") }
    }
}

/// Where servers run.
#[derive(Debug, Clone)]
pub enum Way {
    /// On this machine, started by us.
    Native,
    /// In containers, as far as there are images of them.
    Containers,
    /// Somewhere, already: a broker for the suite `mqtt`.
    Elsewhere(Elsewhere),
}

/// What the person asked for, and where things are.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The top folder of the project.
    pub root: PathBuf,
    /// The `moonwire` command under test.
    pub moonwire: PathBuf,
    /// The stacks to run instead of those inside the command.
    pub lua: Option<PathBuf>,
    /// Only cases like this.
    pub case: Option<String>,
    /// Only this server.
    pub server: Option<String>,
    /// Where servers run.
    pub way: Way,
    /// Only servers that have images, and of suites that repeat themselves over transports only a part.
    pub sample: bool,
    /// Where what is left to chance begins.
    pub seed: Option<u64>,
    /// Write down what comes out as what is expected from now on.
    pub accept: bool,
    /// Where everything temporary goes.
    pub temporary: PathBuf,
    /// Where pictures and the like go that somebody may want to look at afterwards.
    pub artefacts: PathBuf,
}

impl Setting {
    /// The broker that runs already, if it is to be that one only.
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        if let Way::Elsewhere(elsewhere) = &self.way { Some(elsewhere) } else { None }
    }

    /// Whether a case of this name is to run: `--case` is a part of its name, or a pattern with stars for all of it.
    pub fn wants(&self, name: &str) -> bool {
        match &self.case {
            None => true,
            Some(pattern) => name.contains(pattern) || matches(pattern, name),
        }
    }

    /// The kinds of server that are to run.
    pub fn kinds(&self) -> impl Iterator<Item = &'static server::Kind> + '_ {
        server::KINDS.iter().copied().filter(|kind| self.wants_server(kind))
    }

    /// Whether cases against this kind of server are to run.
    pub fn wants_server(&self, kind: &server::Kind) -> bool {
        let sampled = !self.sample || !kind.images.is_empty();
        sampled && self.server.as_deref().is_none_or(|name| name == kind.name)
    }

    /// Files below the folder `path` of the project that end in `ending`, sorted; as paths from the top folder on.
    ///
    /// # Errors
    /// In words, when a folder cannot be read; a folder that does not exist has no files.
    pub fn files(&self, path: &str, ending: &str) -> Result<Vec<String>, String> {
        let mut files = Vec::new();
        walk(&self.root, Path::new(path), ending, &mut files)?;
        files.sort();
        Ok(files)
    }

    /// Reads a file of the project.
    ///
    /// # Errors
    /// In words.
    pub fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(self.root.join(path)).map_err(|error| format!("cannot read {path}: {error}"))
    }

    /// The command under test, in the top folder, with no variables that could change what it does.
    pub fn moonwire(&self) -> Command {
        let mut command = self.command(&self.moonwire);
        command.envs(self.lua.iter().map(|folder| ("MOONWIRE_PATH", folder)));
        command
    }

    /// The same, for Lua files that name modules of the suites from the top folder on, `conformance.faults.proxy`, or of
    /// protocols among the examples: `modbus`.
    pub fn moonwire_with_suites(&self) -> Command {
        let mut command = self.moonwire();
        let protocols = protocol::modules().map(|folder| self.root.join(folder));
        let folders = self.lua.iter().cloned().chain([self.root.clone()]).chain(protocols);
        // A folder whose name has a colon cannot be named; then there is the top folder alone.
        command.env("MOONWIRE_PATH", std::env::join_paths(folders).unwrap_or_else(|_| self.root.clone().into()));
        command
    }

    /// Any command, in the top folder, with no variables that could change what it does.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_foreign(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command
    }
}

/// What a running suite works with.
pub struct Context<'a> {
    /// What was asked for.
    pub setting: &'a Setting,
    /// Where results go.
    pub report: &'a mut Report,
    deadline: Instant,
    time_max: Duration,
    servers: &'a mut Servers,
}

impl<'a> Context<'a> {
    /// What a suite that begins now works with.
    pub fn new(suite: &Suite, setting: &'a Setting, report: &'a mut Report, servers: &'a mut Servers) -> Self {
        let time_max = suite.time_max;
        Self { setting, report, deadline: Instant::now() + time_max, time_max, servers }
    }

    /// What another suite works with that is run as a part of this one, with the same servers and until the same time.
    pub fn within<'b>(&'b mut self, suite: &Suite, setting: &'b Setting, report: &'b mut Report) -> Context<'b> {
        let time_max = suite.time_max.min(self.time_left());
        Context { setting, report, deadline: Instant::now() + time_max, time_max, servers: self.servers }
    }

    /// The same with the same report: what the suite comes to are results of this one.
    pub fn part<'b>(&'b mut self, suite: &Suite, setting: &'b Setting) -> Context<'b> {
        let time_max = suite.time_max.min(self.time_left());
        Context { setting, report: self.report, deadline: Instant::now() + time_max, time_max, servers: self.servers }
    }

    /// Results from here on are against this kind of server; false when cases against it are not to run.
    pub fn against(&mut self, kind: &server::Kind) -> bool {
        self.report.against(Some(kind.name));
        self.setting.wants_server(kind)
    }

    /// Runs one case, if it is wanted.
    pub fn case(&mut self, name: &str, case: impl FnOnce(&mut Self) -> Outcome) {
        if self.setting.wants(name) {
            self.report.progress(name);
            let (started, against) = (Instant::now(), self.report.server_of_results().map(str::to_owned));
            let outcome = case(self);
            self.report.case(name, outcome, Some(started.elapsed()));
            self.report.against(against.as_deref());
        }
    }

    /// Skips all these cases, if they are wanted.
    pub fn skip(&mut self, names: &[String], reason: &str) {
        for name in names.iter().filter(|name| self.setting.wants(name)) {
            self.report.case(name.as_str(), Outcome::Skipped(reason.to_owned()), None);
        }
    }

    /// Runs a command for at most `time_max`, or as long as the suite has left.
    ///
    /// # Errors
    /// In words, when it cannot be started.
    pub fn run(&self, command: Command, time_max: Duration) -> Result<Finished, String> {
        process::run(command, time_max.min(self.time_left()), |_, _| {})
    }

    /// As `run`; a status other than 0 is an error, too.
    ///
    /// # Errors
    /// In words, with the end of what it printed.
    pub fn succeed(&self, command: Command, time_max: Duration) -> Result<Finished, String> {
        let finished = self.run(command, time_max)?;
        if finished.succeeded() { Ok(finished) } else { Err(finished.summary()) }
    }

    /// Gives the suite this much more time: for what is judged by whether it goes on, and not by the clock.
    pub fn prolong(&mut self, time: Duration) {
        self.deadline += time;
    }

    /// How long this suite may still take.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(self.time_max)
    }

    /// The suite goes on against this kind of server, which it starts by itself, and on this machine: it sends signals.
    ///
    /// # Errors
    /// In words, when the server does not say its version.
    pub fn against_own(&mut self, kind: &server::Kind) -> Result<(), String> {
        self.against(kind);
        let place = Place::new(&self.setting.temporary, &[], None);
        let version = (kind.version)(&place)?;
        self.report.server(ServerRun { name: kind.name.to_owned(), version, way: place.way() });
        Ok(())
    }

    /// A server of this kind, started when it is first asked for. A case that asks for one is a case against it, unless
    /// its suite has said before [which](Self::against) it is.
    ///
    /// # Errors
    /// `Skipped` when programs are missing, `Failed` when it does not start.
    pub fn server(&mut self, kind: &'static server::Kind) -> Result<(&mut Server, &Certificates), Outcome> {
        if self.report.server_of_results().is_none() {
            self.report.against(Some(kind.name));
        }
        let (server, certificates) = self.servers.get(self.setting, kind)?;
        let (version, way) = (server.version.clone(), server.place().way());
        self.report.server(ServerRun { name: kind.name.to_owned(), version, way });
        Ok((server, certificates))
    }

    /// What runs containers, and where images come from.
    ///
    /// # Errors
    /// In words, with what to install.
    pub fn harbour(&mut self) -> Result<&mut Harbour, String> {
        self.servers.harbour(self.setting)
    }

    /// The present outcome when tools are missing.
    ///
    /// # Errors
    /// `Skipped`, with the command that would install them.
    pub fn need(&self, needed: &[Tool]) -> Result<(), Outcome> {
        need(needed)
    }
}

/// The servers of this run, started when first needed, ended with it.
#[derive(Debug, Default)]
pub struct Servers {
    certificates: Option<Certificates>,
    harbour: Option<Harbour>,
    /// By their names and whether they run in containers: one kind may run in both ways.
    running: BTreeMap<(&'static str, bool), Server>,
}

impl Servers {
    fn harbour(&mut self, setting: &Setting) -> Result<&mut Harbour, String> {
        match &mut self.harbour {
            Some(harbour) => Ok(harbour),
            none => Ok(none.insert(Harbour::find(&setting.root)?)),
        }
    }

    fn get(&mut self, setting: &Setting, kind: &'static server::Kind) -> Result<(&mut Server, &Certificates), Outcome> {
        let in_containers = matches!(setting.way, Way::Containers);
        need(&kind.needs(in_containers))?;
        if in_containers {
            self.harbour(setting).map_err(Outcome::Failed)?;
        }
        if self.certificates.is_none() {
            let folder = setting.temporary.join("certificates");
            let made = Certificates::make(&folder).map_err(Outcome::Failed)?;
            server::open_to_all(&folder).map_err(|error| Outcome::Failed(format!("certificates: {error}")))?;
            self.certificates = Some(made);
        }
        let Some(certificates) = &self.certificates else { return Err(Outcome::Failed("no certificates".into())) };
        let server = match self.running.entry((kind.name, in_containers)) {
            Entry::Occupied(running) => running.into_mut(),
            Entry::Vacant(place) => {
                let configuration = setting.root.join("conformance/servers").join(kind.name);
                let harbour = self.harbour.as_mut().filter(|_| in_containers);
                let folder = setting.temporary.join(if in_containers { "containers" } else { "native" });
                let server = Server::start(kind, &configuration, &folder, certificates, harbour);
                place.insert(server.map_err(Outcome::Failed)?)
            }
        };
        Ok((server, certificates))
    }

    /// Copies the log of each server to `folder`, as `NAME.log`.
    ///
    /// # Errors
    /// What the system said.
    pub fn keep_logs(&self, folder: &Path) -> std::io::Result<()> {
        for ((name, in_containers), server) in &self.running {
            let way = if *in_containers { "-container" } else { "" };
            fs::copy(server.log(), folder.join(format!("{name}{way}.log")))?;
        }
        Ok(())
    }
}

/// Whether a variable would change what we run.
fn is_foreign(name: &str) -> bool {
    FOREIGN_VARIABLES.iter().any(|prefix| name.starts_with(prefix))
}

fn need(needed: &[Tool]) -> Result<(), Outcome> {
    match tools::missing(needed.iter().copied()).as_slice() {
        [] => Ok(()),
        missing => {
            let command = tools::install_command(missing, tools::is_root());
            Err(Outcome::Skipped(format!("{}: {command}", tools::sentence(missing))))
        }
    }
}

fn walk(root: &Path, path: &Path, ending: &str, files: &mut Vec<String>) -> Result<(), String> {
    let folder = root.join(path);
    if !folder.is_dir() {
        return Ok(());
    }
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    for entry in folder.read_dir().map_err(wrong)? {
        let path = path.join(entry.map_err(wrong)?.file_name());
        if root.join(&path).is_dir() {
            walk(root, &path, ending, files)?;
        } else if path.to_string_lossy().ends_with(ending) {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A setting for tests of suites; the project is whatever is in `root`.
    pub fn setting(root: &Path, case: Option<&str>) -> Setting {
        Setting {
            root: root.to_owned(),
            moonwire: "moonwire".into(),
            lua: None,
            case: case.map(str::to_owned),
            server: None,
            way: Way::Native,
            sample: false,
            seed: None,
            accept: false,
            temporary: root.to_owned(),
            artefacts: root.to_owned(),
        }
    }

    #[test]
    fn a_case_is_chosen_by_a_part_of_its_name_or_by_a_pattern() {
        let wants = |case, name| setting(Path::new("."), case).wants(name);
        assert!(wants(None, "anything"));
        assert!(wants(Some("QoS 1"), "a QoS 1 message is acknowledged"));
        assert!(wants(Some("a*acknowledged"), "a QoS 1 message is acknowledged"));
        assert!(!wants(Some("QoS 2"), "a QoS 1 message is acknowledged"));
        assert!(!wants(Some("QoS*1"), "a QoS 1 message is acknowledged"));
        assert!(wants(Some("[MQTT-3.1.2-24]"), "[MQTT-3.1.2-24] statement"));
    }

    #[test]
    fn files_are_found_in_all_depths_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("lua/net")).unwrap();
        for name in ["lua/z.lua", "lua/net/a.lua", "lua/readme.md"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let setting = setting(folder.path(), None);
        assert_eq!(setting.files("lua", ".lua").unwrap(), ["lua/net/a.lua", "lua/z.lua"]);
        assert_eq!(setting.files("examples", ".lua").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_report_names_a_server_elsewhere_without_its_password() {
        for (url, name, way) in [
            ("mqtts://ann:secret@h.example:8883", "h.example:8883", "mqtts://h.example:8883"),
            ("mqtts://ann:se/cret@h.example:8883", "elsewhere", "mqtts://elsewhere"),
            ("wss://h.example/mqtt?token=secret", "h.example", "wss://h.example"),
            ("mqtt://[::1]:1883/", "[::1]:1883", "mqtt://[::1]:1883"),
        ] {
            let server = Elsewhere { url: url.to_owned(), ca: None }.server();
            assert_eq!((server.name.as_str(), server.way.as_str()), (name, way));
        }
    }

    #[test]
    fn suites_have_names_of_their_own_and_limits() {
        for (index, suite) in SUITES.iter().enumerate() {
            assert!(suite.time_max > Duration::ZERO);
            assert!(SUITES[..index].iter().all(|other| other.name != suite.name), "{} is there twice", suite.name);
        }
    }

    #[test]
    fn what_is_missing_is_a_reason_with_the_command_that_helps() {
        let tool = Tool::of_package("moonwire-no-such-program", "nothing");
        let Err(Outcome::Skipped(reason)) = need(&[tool]) else { panic!("not skipped") };
        assert!(reason.starts_with("moonwire-no-such-program is not installed: "), "{reason}");
        assert!(reason.ends_with("apt-get install --no-install-recommends nothing"), "{reason}");
    }

    #[test]
    fn variables_of_the_person_do_not_reach_what_is_run() {
        assert!(is_foreign("MQTT_URL") && is_foreign("MOONWIRE_LOG"));
        assert!(!is_foreign("PATH") && !is_foreign("CARGO_TARGET_DIR"));
    }
}
