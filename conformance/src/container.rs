//! Containers: the engine of this machine, the images, and every container of this run, which ends with it.
//!
//! A container is in the host's network, so that a server listens on the same loopback ports as it would natively, and
//! sees this run's folders under their own names, so that the same configuration fits.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::compose::{self, Service};
use crate::process;
use crate::tools::{Tool, python_program};

/// What runs containers, and makes images where no registry answers. Docker, where it is, needs none of it.
pub const NEEDS: &[Tool] = &[
    Tool::of_package("podman", "podman"),
    Tool::of_package("runc", "runc"),
    Tool::of_package("/usr/lib/podman/netavark", "netavark"),
    Tool::of_package("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
    Tool::of_package("iptables", "iptables"),
    Tool::of_package("debootstrap", "debootstrap"),
];

/// Brings services of a compose file up and down where the engine is Podman; Docker has its own.
pub const COMPOSE_TOOL: Tool = Tool::of_python("podman-compose", "podman-compose==1.5.0");

/// Says how containers are run here.
const ENGINE: &str = "conformance/images/engine";
/// Makes images of the distribution's own packages.
const BUILD: &str = "conformance/images/build";
const COMPOSE: &str = "conformance/compose.yaml";

/// How long the engine may take to answer.
const ENGINE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long an image may take to come, or to be made.
const PULL_TIME_MAX: Duration = Duration::from_secs(10 * 60);
const BUILD_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// How engines say that a registry cannot be reached, rather than that it has no such image.
const SILENCE: [&str; 5] = ["dial tcp", "no such host", "timeout", "connection refused", "unreachable"];

/// The containers that may live now, for [`end_all`], and the command that ends them.
static LIVING: Mutex<BTreeMap<String, Engine>> = Mutex::new(BTreeMap::new());
/// The projects that may be up now, for [`end_all`]: the words of the command that takes each down.
static UP: Mutex<BTreeMap<String, Vec<OsString>>> = Mutex::new(BTreeMap::new());
/// How many were named.
static NAMED: AtomicUsize = AtomicUsize::new(0);

/// Podman or Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    words: Vec<String>,
    /// As it says itself: "podman 4.3.1".
    pub version: String,
}

impl Engine {
    /// The engine of this machine.
    ///
    /// # Errors
    /// In words, with what to install.
    pub fn find(root: &Path) -> Result<Self, String> {
        let finished = process::run(Command::new(root.join(ENGINE)), ENGINE_TIME_MAX, |_, _| {})?;
        let words: Vec<String> = finished.stdout.lines().map(str::to_owned).collect();
        if !finished.succeeded() || words.is_empty() {
            let missing = crate::tools::missing(NEEDS.iter().copied());
            if missing.is_empty() {
                return Err(finished.stderr.trim().trim_start_matches("conformance/images/engine: ").to_owned());
            }
            let help = crate::tools::install_command(&missing, crate::tools::is_root());
            return Err(format!("neither Podman nor Docker answers: {help}"));
        }
        let mut engine = Self { words, version: String::new() };
        let name = engine.words.last().cloned().unwrap_or_default();
        let mut command = engine.command();
        command.arg("--version");
        let said = process::run(command, ENGINE_TIME_MAX, |_, _| {})?.stdout;
        engine.version = format!("{name} {}", version_in(&said).unwrap_or("of a version it does not say"));
        Ok(engine)
    }

    fn is_podman(&self) -> bool {
        self.words.last().is_some_and(|word| word == "podman")
    }

    /// Why services of a compose file cannot be brought up here; nothing when they can.
    pub fn lacks_compose(&self) -> Option<String> {
        if self.is_podman() {
            let missing = crate::tools::missing([COMPOSE_TOOL]);
            let help = || crate::tools::install_command(&missing, crate::tools::is_root());
            return (!missing.is_empty()).then(|| format!("{}: {}", crate::tools::sentence(&missing), help()));
        }
        let mut command = self.compose();
        command.arg("version");
        let finished = process::run(command, ENGINE_TIME_MAX, |_, _| {});
        let is_there = finished.is_ok_and(|finished| finished.succeeded());
        (!is_there).then(|| "Docker lacks its plugin compose: https://docs.docker.com/compose/install".to_owned())
    }

    /// The command, to which arguments are added.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }

    /// The command that brings services of a compose file up and down.
    fn compose(&self) -> Command {
        if !self.is_podman() {
            let mut command = self.command();
            command.arg("compose");
            return command;
        }
        let mut command = Command::new("env");
        command.args(self.words.iter().filter(|word| word.contains('='))).arg(python_program(COMPOSE_TOOL.program));
        command
    }

    /// Whether containers run here, which an engine that answers does not promise.
    ///
    /// # Errors
    /// In words.
    pub fn try_out(&self, image: &Image) -> Result<(), String> {
        let mut command = self.command();
        command.args(["run", "--rm", "--network", "host", "--pull", "never", "--entrypoint", "true", &image.name]);
        let finished = process::run(command, ENGINE_TIME_MAX, |_, _| {})?;
        if finished.succeeded() { Ok(()) } else { Err(finished.summary()) }
    }

    /// The names of the containers that are there, living or not, whose names begin like this.
    ///
    /// # Errors
    /// In words.
    pub fn containers(&self, beginning: &str) -> Result<Vec<String>, String> {
        let mut command = self.command();
        command.args(["ps", "--all", "--format", "{{.Names}}"]);
        let finished = process::run(command, ENGINE_TIME_MAX, |_, _| {})?;
        if !finished.succeeded() {
            return Err(finished.summary());
        }
        Ok(finished.stdout.lines().filter(|name| name.starts_with(beginning)).map(str::to_owned).collect())
    }

    fn has(&self, image: &str) -> bool {
        let mut command = self.command();
        command.args(["image", "inspect", image]);
        process::run(command, ENGINE_TIME_MAX, |_, _| {}).is_ok_and(|finished| finished.succeeded())
    }

    fn pull(&self, image: &str) -> Result<(), String> {
        let mut command = self.command();
        command.args(["pull", "--quiet", image]);
        let finished = process::run(command, PULL_TIME_MAX, |_, _| {})?;
        if finished.succeeded() { Ok(()) } else { Err(process::tail(&finished.stderr, 1)) }
    }

    /// The command that ends containers at once; what is gone already is no error.
    fn removal<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command();
        command.args(["rm", "--force", "--volumes"]);
        if self.is_podman() {
            // Docker does both unasked: one that is gone keeps none from being removed, and nobody gets time to end.
            command.args(["--ignore", "--time", "0"]);
        }
        command.args(names);
        command
    }
}

/// The first word that begins with a digit: "podman version 4.3.1", "Docker version 28.1.1, build ...".
fn version_in(said: &str) -> Option<&str> {
    let mut words = said.split_whitespace().map(|word| word.trim_end_matches(','));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

/// An image that is here, and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name, as the engine takes it.
    pub name: String,
    /// Why [`BUILD`] made it, if it did.
    pub built: Option<String>,
    /// The command, run inside, that ends with status 0 once it serves; empty when nobody knows one.
    pub health: Vec<String>,
}

impl Image {
    /// Its name, and why it was built here, if it was.
    pub fn described(&self) -> String {
        let built = self.built.as_ref().map_or(String::new(), |why| format!(" (built here: {why})"));
        format!("{}{built}", self.name)
    }
}

/// Where images of this run come from.
#[derive(Debug)]
pub struct Images {
    root: PathBuf,
    services: BTreeMap<String, Service>,
    found: BTreeMap<String, Image>,
    /// Registries that did not answer: they are not asked again for each image.
    silent: BTreeSet<String>,
}

/// The variable that names another image for a service of compose.yaml.
pub fn variable_of(service: &str) -> String {
    format!("MOONWIRE_IMAGE_{}", service.to_uppercase().replace('-', "_"))
}

impl Images {
    /// Reads which images there are.
    ///
    /// # Errors
    /// In words.
    pub fn read(root: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(root.join(COMPOSE)).map_err(|error| format!("{COMPOSE}: {error}"))?;
        let services =
            compose::parse(&text, &|name| env::var(name).ok()).map_err(|error| format!("{COMPOSE}: {error}"))?;
        Ok(Self { root: root.to_owned(), services, found: BTreeMap::new(), silent: BTreeSet::new() })
    }

    /// The services of compose.yaml.
    pub fn services(&self) -> &BTreeMap<String, Service> {
        &self.services
    }

    /// Whether an image of this service can be made here.
    pub fn can_build(&self, service: &str) -> bool {
        self.root.join("conformance/images").join(service).join("Containerfile").is_file()
    }

    /// The image of a service: here already, or pulled, or made here when no registry answers. One that a variable
    /// names is taken as it is or not at all.
    ///
    /// # Errors
    /// In words.
    pub fn get(&mut self, engine: &Engine, service: &str) -> Result<Image, String> {
        if let Some(image) = self.found.get(service) {
            return Ok(image.clone());
        }
        let known = self.services.get(service).ok_or_else(|| format!("{COMPOSE} has no service {service}"))?.clone();
        let variable = variable_of(service);
        let chosen = env::var(&variable).is_ok_and(|image| !image.is_empty());
        let mut image = Image { name: known.image.clone(), built: None, health: known.health };
        if !engine.has(&known.image)
            && let Err(why) = self.pull(engine, &known.image)
        {
            if chosen {
                return Err(format!("{variable}={}: {why}", known.image));
            }
            image.name = self.build(service).map_err(|error| format!("{}: {why}; {error}", known.image))?;
            image.built = Some(why);
        }
        self.found.insert(service.to_owned(), image.clone());
        Ok(image)
    }

    fn pull(&mut self, engine: &Engine, image: &str) -> Result<(), String> {
        let registry = image.split('/').next().unwrap_or_default();
        if self.silent.contains(registry) {
            return Err(format!("{registry} does not answer"));
        }
        engine.pull(image).map_err(|why| {
            if SILENCE.iter().any(|words| why.contains(words)) {
                self.silent.insert(registry.to_owned());
                return format!("{registry} does not answer");
            }
            why
        })
    }

    fn build(&self, service: &str) -> Result<String, String> {
        if !self.can_build(service) {
            return Err(format!("{BUILD} makes no {service}"));
        }
        let mut command = Command::new(self.root.join(BUILD));
        command.arg(service);
        let finished = process::run(command, BUILD_TIME_MAX, |_, _| {})?;
        if finished.succeeded() { Ok(format!("localhost/moonwire-{service}")) } else { Err(finished.summary()) }
    }
}

/// The containers of one server. Dropping it ends them.
#[derive(Debug)]
pub struct Containers {
    engine: Engine,
    images: BTreeMap<&'static str, Image>,
    /// Folders that they see under their own names.
    folders: Vec<PathBuf>,
    /// Each with the service it is of, in the order in which they were named.
    names: Mutex<Vec<(&'static str, String)>>,
}

impl Containers {
    /// None yet.
    pub fn new(engine: Engine, images: BTreeMap<&'static str, Image>, folders: Vec<PathBuf>) -> Self {
        Self { engine, images, folders, names: Mutex::new(Vec::new()) }
    }

    /// The engine, as it says itself.
    pub fn engine(&self) -> &str {
        &self.engine.version
    }

    /// The images, by their services.
    pub fn images(&self) -> &BTreeMap<&'static str, Image> {
        &self.images
    }

    /// The command that runs `program` in a container of its own, in the foreground; arguments are added to it.
    pub fn run(&self, service: &'static str, program: &str, environment: &[(&str, &OsStr)]) -> Command {
        let name = format!("moonwire-{}-{}-{service}", std::process::id(), NAMED.fetch_add(1, Ordering::Relaxed));
        lock(&LIVING).insert(name.clone(), self.engine.clone());
        let mut command = self.engine.command();
        command.args(["run", "--rm", "--name", &name, "--network", "host", "--pull", "never"]);
        // Where SELinux labels files, containers could not read ours; and nobody reads logs twice.
        command.args(["--security-opt", "label=disable", "--log-driver", "none"]);
        for folder in &self.folders {
            let folder = folder.display();
            command.arg("--volume").arg(format!("{folder}:{folder}"));
        }
        if let Some(folder) = self.folders.first() {
            command.arg("--workdir").arg(folder);
        }
        // Values go by the engine's own environment, which other users cannot read.
        for (variable, value) in environment {
            command.args(["--env", variable]).env(variable, value);
        }
        command.args(["--entrypoint", program]);
        command.arg(self.images.get(service).map_or(service, |image| &image.name));
        lock(&self.names).push((service, name));
        command
    }

    /// Containers named from now on are the server's own; those before prepared it, and are gone.
    pub fn begin(&self) {
        for (_, name) in lock(&self.names).drain(..) {
            lock(&LIVING).remove(&name);
        }
    }

    /// The command that runs `program` in the first container of `service`.
    pub fn exec(&self, service: &str, program: &str, environment: &[(&str, &OsStr)]) -> Command {
        let names = lock(&self.names);
        let name = names.iter().find(|(of, _)| *of == service).map_or("", |(_, name)| name);
        let mut command = self.engine.command();
        command.arg("exec");
        for (variable, value) in environment {
            command.args(["--env", variable]).env(variable, value);
        }
        command.args([name, program]);
        command
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let names: BTreeSet<String> = lock(&self.names).drain(..).map(|(_, name)| name).collect();
        if !names.is_empty() {
            let command = self.engine.removal(names.iter().map(String::as_str));
            let _ = process::run(command, ENGINE_TIME_MAX, |_, _| {});
        }
        lock(&LIVING).retain(|name, _| !names.contains(name));
    }
}

/// A service of compose.yaml, brought up as a person does it, with the configuration in `compose/`. Dropping it takes
/// it down.
#[derive(Debug)]
pub struct Project {
    words: Vec<OsString>,
    /// Its name: those of its containers and networks begin with it.
    pub name: String,
    service: String,
}

impl Project {
    /// Brings a service up.
    ///
    /// # Errors
    /// In words.
    pub fn up(root: &Path, engine: &Engine, image: &Image, service: &str, port: u16) -> Result<Self, String> {
        let name = format!("moonwire-{}-{}", std::process::id(), NAMED.fetch_add(1, Ordering::Relaxed));
        let compose = engine.compose();
        let upper = service.to_uppercase().replace('-', "_");
        let mut words: Vec<OsString> = vec!["env".into()];
        words.push(format!("{}={}", variable_of(service), image.name).into());
        words.push(format!("MOONWIRE_PORT_{upper}={port}").into());
        words.push(compose.get_program().to_owned());
        words.extend(compose.get_args().map(OsStr::to_owned));
        words.extend(["--project-name", &name, "--file"].map(OsString::from));
        words.push(root.join(COMPOSE).into());
        words.extend(["--profile", service].map(OsString::from));
        let project = Self { words, name: name.clone(), service: service.to_owned() };
        let mut down = project.words.clone();
        // Nobody has to be asked nicely: what it knew was for this once.
        down.extend(["down", "--volumes", "--timeout", "1"].map(OsString::from));
        lock(&UP).insert(name, down);
        let finished = process::run(project.command(&["up", "--detach"]), PULL_TIME_MAX, |_, _| {})?;
        if finished.succeeded() { Ok(project) } else { Err(finished.summary()) }
    }

    /// The command that runs a program beside the service.
    pub fn exec(&self, program: &[String]) -> Command {
        let mut command = self.command(&["exec", "-T", &self.service]);
        command.args(program);
        command
    }

    /// Takes it down.
    ///
    /// # Errors
    /// In words.
    pub fn down(self) -> Result<(), String> {
        let words = lock(&UP).remove(&self.name);
        words.map_or(Ok(()), |words| take_down(&words))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command_of(&self.words);
        command.args(arguments);
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if let Some(words) = lock(&UP).remove(&self.name) {
            let _ = take_down(&words);
        }
    }
}

fn command_of(words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn take_down(words: &[OsString]) -> Result<(), String> {
    let finished = process::run(command_of(words), ENGINE_TIME_MAX, |_, _| {})?;
    if finished.succeeded() { Ok(()) } else { Err(finished.summary()) }
}

/// Ends every container started here, at once: for an interrupted harness, which starts no other program any more.
pub fn end_all() {
    let down = std::mem::take(&mut *lock(&UP));
    let living = std::mem::take(&mut *lock(&LIVING));
    let removal = living.values().next().map(|engine| engine.removal(living.keys().map(String::as_str)));
    for mut command in down.values().map(|words| command_of(words)).chain(removal) {
        let _ = command.stdin(Stdio::null()).output();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers() -> Containers {
        let engine = Engine { words: vec!["env".into(), "A=b".into(), "true".into()], version: "podman 4.3.1".into() };
        let image = Image { name: "example/broker:1".into(), built: None, health: Vec::new() };
        Containers::new(engine, BTreeMap::from([("broker", image)]), vec!["/tmp/x".into(), "/tmp/y".into()])
    }

    fn words(command: &Command) -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_engine_says_its_version_in_its_own_way() {
        assert_eq!(version_in("podman version 4.3.1\n"), Some("4.3.1"));
        assert_eq!(version_in("Docker version 28.1.1, build 4eba377\n"), Some("28.1.1"));
        assert_eq!(version_in("no\n"), None);
    }

    #[test]
    fn a_container_sees_this_runs_folders_and_the_hosts_network() {
        let containers = containers();
        let command = containers.run("broker", "brokerd", &[("SECRET", OsStr::new("word"))]);
        let words = words(&command);
        let line = words.join(" ");
        assert!(line.starts_with("env A=b true run --rm --name moonwire-"), "{line}");
        assert!(line.contains(" --network host ") && line.contains(" --volume /tmp/x:/tmp/x --volume /tmp/y:/tmp/y "));
        assert!(line.ends_with(" --env SECRET --entrypoint brokerd example/broker:1"), "{line}");
        assert!(command.get_envs().any(|(name, value)| name == "SECRET" && value == Some(OsStr::new("word"))));
    }

    #[test]
    fn a_command_goes_to_the_servers_first_container_and_all_are_forgotten_with_the_server() {
        let containers = containers();
        let run = || words(&containers.run("broker", "brokerd", &[]))[6].clone();
        let before = run();
        containers.begin();
        let [first, second] = [run(), run()];
        assert_eq!(words(&containers.exec("broker", "sh", &[])), ["env", "A=b", "true", "exec", &first, "sh"]);
        let live = |name: &String| lock(&LIVING).contains_key(name);
        assert_eq!([live(&before), live(&first), live(&second)], [false, true, true]);
        drop(containers);
        assert_eq!([live(&first), live(&second)], [false, false]);
    }

    #[test]
    fn a_service_has_its_variable() {
        assert_eq!(variable_of("hivemq-ce"), "MOONWIRE_IMAGE_HIVEMQ_CE");
    }
}
