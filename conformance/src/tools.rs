//! The programs that suites need, what is missing of them, and how it is installed.

pub mod node;

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::process;

/// Where the programs of system services are, which users' `PATH` often leaves out.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Package lists older than this may name versions that the mirror no longer has.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A slow mirror is no reason to fail; a dead one must not hold a machine for ever.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// A program that a suite needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tool {
    /// The program's name.
    pub program: &'static str,
    /// What brings it.
    pub from: Source,
}

/// What brings a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// This Debian or Ubuntu package.
    Package(&'static str),
    /// This component of the Rust toolchain.
    Component(&'static str),
    /// This Python package, `name==version`, in an environment of our own.
    Python(&'static str),
    /// The packages of Node that `tools/node.rs` knows, in an environment of our own.
    Node,
    /// The files of this Debian or Ubuntu package, which is not installed: another one that we need excludes it.
    Unpacked {
        /// The package.
        package: &'static str,
        /// What it needs, which is installed.
        libraries: &'static [&'static str],
    },
}

impl Tool {
    /// A program of a Debian or Ubuntu package.
    pub const fn of_package(program: &'static str, package: &'static str) -> Self {
        Self { program, from: Source::Package(package) }
    }

    /// A program of a component of the Rust toolchain.
    pub const fn of_toolchain(program: &'static str, component: &'static str) -> Self {
        Self { program, from: Source::Component(component) }
    }

    /// A program of a Python package; `python` of one that has none.
    pub const fn of_python(program: &'static str, requirement: &'static str) -> Self {
        Self { program, from: Source::Python(requirement) }
    }

    /// A package of Node.
    pub const fn of_node(package: &'static str) -> Self {
        Self { program: package, from: Source::Node }
    }

    /// A program of a Debian or Ubuntu package that is only unpacked; `program` is its path in the package.
    pub const fn of_unpacked(program: &'static str, package: &'static str, libraries: &'static [&'static str]) -> Self {
        Self { program, from: Source::Unpacked { package, libraries } }
    }

    /// What it is called: of a Python package its own name, since many bring no program.
    fn name(&self) -> &'static str {
        match self.from {
            Source::Python(requirement) => requirement.split("==").next().unwrap_or(self.program),
            _ => self.program,
        }
    }

    /// Whether it is on this machine. A component's program may be a stub that only says it is not installed.
    pub fn is_here(self) -> bool {
        match self.from {
            Source::Package(_) => find(self.program).is_some(),
            Source::Component(_) => {
                Command::new(self.program).arg("--version").output().is_ok_and(|o| o.status.success())
            }
            Source::Python(requirement) => {
                python_program(self.program).is_file() && python_folder().join(requirement).is_file()
            }
            Source::Node => node::is_here(self.program),
            Source::Unpacked { libraries, .. } => {
                unpacked_program(self.program).is_file() && libraries.iter().all(|name| is_installed(name))
            }
        }
    }
}

/// Where a program is: in `PATH`, or where system services are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(program, env::split_paths(&path).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from)))
}

/// Where we put what we need and do not install: beside other things that can be had again.
fn cache_folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map_or_else(env::temp_dir, PathBuf::from).join(".cache");
    cache.unwrap_or_else(home).join("moonwire-conformance")
}

/// Where Python packages are installed.
fn python_folder() -> PathBuf {
    cache_folder().join("python")
}

/// Where Debian packages are unpacked.
fn unpacked_folder() -> PathBuf {
    cache_folder().join("unpacked")
}

/// Where a program of an unpacked package is, or will be.
pub fn unpacked_program(program: &str) -> PathBuf {
    unpacked_folder().join(program)
}

/// Whether a Debian package is installed, which a library without programs does not show otherwise.
fn is_installed(package: &str) -> bool {
    let mut command = Command::new("dpkg-query");
    command.args(["-W", "-f", "${db:Status-Status}", package]);
    command.output().is_ok_and(|output| output.stdout.starts_with(b"installed"))
}

/// Where a program of a Python package is, or will be.
pub fn python_program(program: &str) -> PathBuf {
    python_folder().join("bin").join(program)
}

fn find_in(program: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The tools among `needed` that are missing, each once.
pub fn missing(needed: impl IntoIterator<Item = Tool>) -> Vec<Tool> {
    let needed: BTreeSet<Tool> = needed.into_iter().collect();
    needed.into_iter().filter(|tool| !tool.is_here()).collect()
}

/// "mosquitto and mosquitto_sub are not installed".
pub fn sentence(missing: &[Tool]) -> String {
    let names: Vec<&str> = missing.iter().map(Tool::name).collect();
    match names.as_slice() {
        [] => String::from("nothing is missing"),
        [one] => format!("{one} is not installed"),
        [first @ .., last] => format!("{} and {last} are not installed", first.join(", ")),
    }
}

/// The command that installs `missing`, as one types it.
pub fn install_command(missing: &[Tool], root: bool) -> String {
    let sudo = if root { "" } else { "sudo " };
    let packages = packages(missing);
    let components = components(missing);
    let mut commands = Vec::new();
    if !packages.is_empty() {
        commands.push(format!("{sudo}apt-get install --no-install-recommends {}", packages.join(" ")));
    }
    if !components.is_empty() {
        commands.push(format!("rustup component add {}", components.join(" ")));
    }
    let requirements = requirements(missing);
    if !requirements.is_empty() {
        let folder = python_folder();
        let folder = folder.display();
        commands.push(format!("python3 -m venv {folder} && {folder}/bin/pip install {}", requirements.join(" ")));
    }
    if missing.iter().any(|tool| tool.from == Source::Node) {
        commands.push(node::install_command());
    }
    let unpacked = unpacked(missing);
    if !unpacked.is_empty() {
        let folder = unpacked_folder();
        let folder = folder.display();
        let names = unpacked.join(" ");
        commands.push(format!(
            "mkdir -p {folder} && cd {folder} && apt-get download {names} && for f in *.deb; do dpkg -x $f .; done"
        ));
    }
    commands.join(" && ")
}

/// Whether we may install packages.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs `missing`; `say` hears what is done.
///
/// # Errors
/// In words, when something could not be installed.
pub fn install(missing: &[Tool], mut say: impl FnMut(&str)) -> Result<(), String> {
    let packages = packages(missing);
    if !packages.is_empty() {
        if !is_root() {
            return Err(format!("only root may install packages; run: {}", install_command(missing, false)));
        }
        let fresh = lists_are_fresh(Path::new("/var/lib/apt/lists"), SystemTime::now());
        if !fresh {
            say("apt-get update");
            apt(&["update"])?;
        }
        say(&install_command(missing, true));
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(&packages);
        if let Err(error) = apt(&arguments) {
            if !fresh {
                return Err(error);
            }
            // Lists may be stale before their time; ask once more with new ones.
            say("apt-get update");
            apt(&["update"])?;
            apt(&arguments)?;
        }
    }
    let components = components(missing);
    if !components.is_empty() {
        let mut command = Command::new("rustup");
        command.args(["component", "add"]).args(&components);
        say(&format!("rustup component add {}", components.join(" ")));
        succeed(command)?;
    }
    let requirements = requirements(missing);
    if !requirements.is_empty() {
        install_python(&requirements, &mut say)?;
    }
    if missing.iter().any(|tool| tool.from == Source::Node) {
        node::install(&mut say)?;
    }
    for package in unpacked(missing) {
        unpack(package, &mut say)?;
    }
    match self::missing(missing.iter().copied()).as_slice() {
        [] => Ok(()),
        still => Err(format!("after installing, {}", sentence(still))),
    }
}

/// Installs Python packages into our own environment, and notes which.
fn install_python(requirements: &[&str], say: &mut impl FnMut(&str)) -> Result<(), String> {
    let folder = python_folder();
    let make = || {
        let mut command = Command::new("python3");
        command.args(["-m", "venv"]).arg(&folder);
        succeed(command)
    };
    if !python_program("pip").is_file() {
        say(&format!("python3 -m venv {}", folder.display()));
        // Debian has Python without what makes environments.
        if make().is_err() && is_root() {
            apt(&["install", "-y", "--no-install-recommends", "python3", "python3-venv"])?;
        }
        make()?;
    }
    say(&format!("pip install {}", requirements.join(" ")));
    let mut command = Command::new(python_program("pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check"]).args(requirements);
    succeed(command)?;
    for requirement in requirements {
        std::fs::write(folder.join(requirement), "").map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(())
}

/// Fetches a package and unpacks its files; none of its scripts runs, and the system does not know it.
fn unpack(package: &str, say: &mut impl FnMut(&str)) -> Result<(), String> {
    let folder = unpacked_folder();
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(wrong)?;
    let download = tempfile::tempdir().map_err(wrong)?;
    say(&format!("apt-get download {package} && dpkg -x {package}_*.deb {}", folder.display()));
    let mut command = Command::new("apt-get");
    // The user that apt would become must not write into our folder.
    command.args(["-o", "APT::Sandbox::User=", "download", package]).current_dir(download.path());
    succeed(command)?;
    for entry in download.path().read_dir().map_err(wrong)? {
        let mut command = Command::new("dpkg");
        command.arg("-x").arg(entry.map_err(wrong)?.path()).arg(&folder);
        succeed(command)?;
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    // In run level 1 a package's own scripts start no service.
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    succeed(command)
}

fn succeed(command: Command) -> Result<(), String> {
    let finished = process::run(command, INSTALL_TIME_MAX, |_, _| {})?;
    if finished.succeeded() { Ok(()) } else { Err(finished.summary()) }
}

/// What is installed with `apt-get`: packages, and what unpacked ones need.
fn packages(tools: &[Tool]) -> Vec<&'static str> {
    let names = tools.iter().flat_map(|tool| match &tool.from {
        Source::Package(name) => std::slice::from_ref(name),
        Source::Unpacked { libraries, .. } => libraries,
        Source::Component(_) | Source::Python(_) | Source::Node => &[],
    });
    names.copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn components(tools: &[Tool]) -> Vec<&'static str> {
    names(tools, |from| if let Source::Component(name) = from { Some(name) } else { None })
}

fn requirements(tools: &[Tool]) -> Vec<&'static str> {
    names(tools, |from| if let Source::Python(requirement) = from { Some(requirement) } else { None })
}

fn unpacked(tools: &[Tool]) -> Vec<&'static str> {
    names(tools, |from| if let Source::Unpacked { package, .. } = from { Some(package) } else { None })
}

fn names(tools: &[Tool], name: impl Fn(Source) -> Option<&'static str>) -> Vec<&'static str> {
    tools.iter().filter_map(|tool| name(tool.from)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether `folder` holds package lists, the newest of them young enough.
fn lists_are_fresh(folder: &Path, now: SystemTime) -> bool {
    let Ok(entries) = folder.read_dir() else { return false };
    let newest = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    // A list keeps the date the mirror gave it; the folder's own date is when lists last came or went.
    let checked = folder.metadata().and_then(|data| data.modified()).ok();
    match (newest, checked) {
        (Some(newest), Some(checked)) => {
            let latest = newest.max(checked);
            now.duration_since(latest).map_or(true, |age| age < LISTS_AGE_MAX)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const BROKER: Tool = Tool::of_package("mosquitto", "mosquitto");
    const SUBSCRIBER: Tool = Tool::of_package("mosquitto_sub", "mosquitto-clients");
    const PUBLISHER: Tool = Tool::of_package("mosquitto_pub", "mosquitto-clients");
    const CLIPPY: Tool = Tool::of_toolchain("cargo-clippy", "clippy");

    #[test]
    fn missing_tools_are_listed_once() {
        let nowhere = Tool::of_package("moonwire-no-such-program", "nothing");
        let shell = Tool::of_package("sh", "dash");
        assert_eq!(missing([nowhere, shell, nowhere]), [nowhere]);
    }

    #[test]
    fn the_command_names_each_package_once() {
        let tools = [BROKER, SUBSCRIBER, PUBLISHER, CLIPPY];
        assert_eq!(
            install_command(&tools, false),
            "sudo apt-get install --no-install-recommends mosquitto mosquitto-clients && rustup component add clippy"
        );
        assert_eq!(install_command(&[BROKER], true), "apt-get install --no-install-recommends mosquitto");
        assert_eq!(install_command(&[CLIPPY], false), "rustup component add clippy");
    }

    #[test]
    fn python_packages_have_an_environment_of_their_own() {
        let tool = Tool::of_python("moonwire-no-such-program", "nothing==1.0");
        assert!(!tool.is_here());
        let command = install_command(&[tool, BROKER], true);
        assert!(
            command.contains("apt-get install --no-install-recommends mosquitto && python3 -m venv /"),
            "{command}"
        );
        assert!(command.ends_with("/moonwire-conformance/python/bin/pip install nothing==1.0"), "{command}");
    }

    #[test]
    fn an_unpacked_package_is_not_installed_but_what_it_needs_is() {
        let tool = Tool::of_unpacked("usr/sbin/moonwire-no-such-program", "nothing", &["libc6"]);
        assert!(!tool.is_here());
        let command = install_command(&[tool], true);
        assert!(command.starts_with("apt-get install --no-install-recommends libc6 && mkdir -p /"), "{command}");
        assert!(command.contains("/moonwire-conformance/unpacked && apt-get download nothing && "), "{command}");
    }

    #[test]
    fn what_is_missing_is_said_in_words() {
        assert_eq!(sentence(&[BROKER]), "mosquitto is not installed");
        assert_eq!(
            sentence(&[BROKER, SUBSCRIBER, PUBLISHER]),
            "mosquitto, mosquitto_sub and mosquitto_pub are not installed"
        );
    }

    #[test]
    fn a_program_is_found_in_the_first_folder_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::create_dir_all(two.join("mosquitto_sub")).unwrap();
        fs::create_dir(&one).unwrap();
        fs::write(two.join("mosquitto"), "").unwrap();
        let folders = [one.clone(), two.clone()];
        assert_eq!(find_in("mosquitto", folders.iter().cloned()), Some(two.join("mosquitto")));
        assert_eq!(find_in("mosquitto_sub", folders.iter().cloned()), None, "a folder is not a program");
    }

    #[test]
    fn package_lists_are_fresh_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        assert!(!lists_are_fresh(&folder.path().join("none"), now));
        assert!(!lists_are_fresh(folder.path(), now), "an image without lists");
        fs::write(folder.path().join("mirror.example_debian_dists_bookworm_main_binary-amd64_Packages.lz4"), "")
            .unwrap();
        assert!(lists_are_fresh(folder.path(), now));
        assert!(!lists_are_fresh(folder.path(), now + LISTS_AGE_MAX + Duration::from_secs(60)));
    }
}
