//! The conformance harness: runs every test there is, in named suites, the real servers among them.
//!
//! `conformance/run` builds it and starts it. A [`suite::Suite`] is a name and a function that runs cases; a
//! [`server::Kind`] is what is known of a real server before it runs. Adding either is a line in a table and a file.
//! What a case needs and does not find is a skip with its reason; what a person asked for and does not get is a failure.

mod certificates;
mod compose;
mod container;
mod expected;
mod lacks;
mod listing;
mod lua_tests;
mod markdown;
mod mutation;
mod outcome;
mod place;
mod ports;
mod process;
mod report;
mod server;
mod suite;
mod tools;
mod transcript;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::outcome::Outcome;
use crate::report::Report;
use crate::suite::{Context, Elsewhere, SUITES, Servers, Setting, Suite, Way};
use crate::tools::Tool;

/// Exit status when a case failed.
const FAILED: u8 = 1;
/// Exit status when the command line cannot be followed.
const USAGE: u8 = 2;
/// How long `moonwire --version` may take.
const VERSION_TIME_MAX: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
Examples:
  conformance/run --install                  everything, and install what is missing
  conformance/run --list                     the suites, their servers here, and what is missing
  conformance/run --list smtp                the cases of one suite
  conformance/run mqtt telemetry             two suites
  conformance/run mqtt --case MQTT-3.3       the cases of one clause
  conformance/run smtp --server exim         against one of a suite's servers
  conformance/run http --with container      with servers in containers
  conformance/run mqtt --with mqtt://h:1883 --report report
                                             against your own broker; report/index.html says what held
  conformance/run --self-test                whether the suites notice bugs that are planted

Suites run in the order of --list. Failures are printed in full as they come; at the end stand what was skipped
and why, a table of suites and servers, how each server ran, and `N passed, N failed, N skipped`.
conformance/README.md says how to read the report, and how to add a case, a server, a suite, or a mutation.

Exit status:
  0  nothing failed; skipped cases are named with their reasons
  1  a case failed
  2  the command line cannot be followed";

/// Headings of --help.
const CHOICE: &str = "What runs";
const SERVERS: &str = "Against what";
const RESULTS: &str = "What comes of it";

/// Runs every test there is, real servers included.
#[derive(Debug, Parser)]
#[command(name = "conformance/run", bin_name = "conformance/run", after_help = AFTER_HELP)]
struct Options {
    /// The suites to run; all of them when none is named
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
    /// Only cases whose names contain PATTERN, or match all of it; `*` is anything
    #[arg(long, value_name = "PATTERN", help_heading = CHOICE)]
    case: Option<String>,
    /// Only the suite self_test: plant bugs in copies of the stacks, and see them noticed
    #[arg(long, conflicts_with_all = ["suites", "accept"], help_heading = CHOICE)]
    self_test: bool,
    /// Run nothing: say what would run, how, and what is missing
    #[arg(long, help_heading = CHOICE)]
    list: bool,
    /// Install what is missing: apt-get (as root), rustup, pip and npm in folders of their own
    #[arg(long, help_heading = CHOICE)]
    install: bool,
    /// Where what is left to chance begins; a case that fails names its own
    #[arg(long, value_name = "NUMBER", help_heading = CHOICE)]
    seed: Option<u64>,
    /// Only against this server, of those that --list names
    #[arg(long, value_name = "NAME", help_heading = SERVERS)]
    server: Option<String>,
    /// Servers run `native` (the default), in a `container`, or, for mqtt, at a URL
    #[arg(
        long,
        value_name = "native|container|URL",
        default_value = "native",
        hide_default_value = true,
        help_heading = SERVERS
    )]
    with: String,
    /// The authority that signed the certificate of the broker at a URL
    #[arg(long, value_name = "FILE", help_heading = SERVERS)]
    ca: Option<PathBuf>,
    /// Write index.html (for a browser), junit.xml, results.txt and the servers' logs
    #[arg(long, value_name = "DIR", help_heading = RESULTS)]
    report: Option<PathBuf>,
    /// Write what comes out to conformance/expected, to be looked at and committed
    #[arg(long, help_heading = RESULTS)]
    accept: bool,
    /// The top folder of the project
    #[arg(long, value_name = "DIR", hide = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    root: PathBuf,
    /// The command under test
    #[arg(long, value_name = "PATH", hide = true)]
    moonwire: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let suites = match chosen(&options) {
        Ok(suites) => suites,
        Err(error) => {
            eprintln!("conformance/run: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let temporary = match tempfile::Builder::new().prefix("moonwire-conformance-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("conformance/run: no temporary folder: {error}");
            return ExitCode::from(USAGE);
        }
    };
    end_with_signals(temporary.path());
    // Servers that drop their rights have to reach what is theirs.
    if let Err(error) = server::open_to_all(temporary.path()) {
        eprintln!("conformance/run: {}: {error}", temporary.path().display());
        return ExitCode::from(USAGE);
    }
    let setting = match setting(&options, temporary.path()) {
        Ok(setting) => setting,
        Err(error) => {
            eprintln!("conformance/run: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let with_cases = !options.suites.is_empty() || options.self_test || options.case.is_some();
    if options.list { list(&suites, &setting, with_cases) } else { run(&options, &suites, &setting) }
}

fn run(options: &Options, suites: &[&Suite], setting: &Setting) -> ExitCode {
    let mut report = Report::new();
    if options.install {
        install(suites, setting, &mut report);
    }
    if matches!(setting.way, Way::Containers)
        && let Err(error) = container::Engine::find(&setting.root)
    {
        report.begin("container");
        report.case("an engine answers", Outcome::Failed(error), None);
        report.end();
        report.finish();
        return ExitCode::from(FAILED);
    }
    report.version(&version(setting));
    let mut servers = Servers::default();
    for suite in suites {
        report.begin(suite.name);
        let mut context = Context::new(suite, setting, &mut report, &mut servers);
        if let Err(error) = (suite.run)(&mut context) {
            report.case("the suite runs", Outcome::Failed(error), None);
        } else if report.suite_is_empty() && options.case.is_none() {
            // A suite that has lost its files must not look like one that is well.
            report.case("has cases", Outcome::Failed("nothing was run".to_owned()), None);
        }
        report.end();
    }
    if let Some(pattern) = options.case.as_deref().filter(|_| report.is_empty()) {
        report.begin("case");
        report.case("is there", Outcome::Failed(format!("no case is like `{pattern}`")), None);
        report.end();
    }
    if let Some(folder) = &options.report
        && let Err(error) = report.write(folder).and_then(|()| servers.keep_logs(folder))
    {
        report.begin("report");
        report.case(format!("written to {}", folder.display()), Outcome::Failed(error.to_string()), None);
        report.end();
    }
    drop(servers);
    let counts = report.finish();
    if counts.failed > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

/// What the command under test says of itself; empty when it does not even do that, which its suites will notice.
fn version(setting: &Setting) -> String {
    let mut command = setting.moonwire();
    command.arg("--version");
    let said = process::run(command, VERSION_TIME_MAX, |_, _| {});
    said.map(|finished| finished.stdout.lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// Installs what the suites miss. It was asked for, so not being able to is a failure, not a skip.
fn install(suites: &[&Suite], setting: &Setting, report: &mut Report) {
    let missing = missing(suites, setting);
    if missing.is_empty() {
        return;
    }
    report.begin("install");
    let result = tools::install(&missing, |what| report.say(&format!("install    {what}")));
    report.case(tools::install_command(&missing, true), result.into(), None);
    report.end();
}

/// The programs that suites miss. Where Docker or Podman answers, nothing that makes containers is missing but what
/// makes images.
fn missing(suites: &[&Suite], setting: &Setting) -> Vec<Tool> {
    let containers = if matches!(setting.way, Way::Containers) { container::NEEDS } else { &[] };
    let missing = tools::missing(suites.iter().flat_map(|suite| suite.tools()).chain(containers.iter().copied()));
    let of_engine = |tool: &Tool| container::NEEDS.contains(tool);
    if missing.iter().any(of_engine) && container::Engine::find(&setting.root).is_ok() {
        return missing.into_iter().filter(|tool| !of_engine(tool) || tool.program == "debootstrap").collect();
    }
    missing
}

fn list(suites: &[&Suite], setting: &Setting, with_cases: bool) -> ExitCode {
    let missing = missing(suites, setting);
    match listing::text(suites, setting, &listing::containers(setting), &missing, with_cases) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("conformance/run: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Where servers are to run.
fn way(options: &Options) -> Result<Way, String> {
    let way = match options.with.as_str() {
        "native" => Way::Native,
        "container" => Way::Containers,
        url if url.contains("://") => Way::Elsewhere(Elsewhere { url: url.to_owned(), ca: options.ca.clone() }),
        other => return Err(format!("--with {other}: servers run `native`, in a `container`, or at an address")),
    };
    if !matches!(way, Way::Elsewhere(_)) {
        return if options.ca.is_none() { Ok(way) } else { Err("--ca is for a broker at an address".to_owned()) };
    }
    match (options.server.is_some(), options.accept) {
        (true, _) => Err("--server is for servers that are started; the one at an address runs already".to_owned()),
        (_, true) => Err("--accept is for servers that are started: what others give is not expected".to_owned()),
        _ => Ok(way),
    }
}

fn setting(options: &Options, temporary: &Path) -> Result<Setting, String> {
    let root = options.root.canonicalize().unwrap_or_else(|_| options.root.clone());
    let moonwire = options.moonwire.clone().unwrap_or_else(|| root.join("target/release/moonwire"));
    let artefacts = options.report.clone().unwrap_or_else(|| temporary.join("artefacts"));
    Ok(Setting {
        moonwire: std::path::absolute(&moonwire).unwrap_or(moonwire),
        root,
        lua: None,
        case: options.case.clone(),
        server: options.server.clone(),
        way: way(options)?,
        sample: false,
        seed: options.seed,
        accept: options.accept,
        temporary: temporary.to_owned(),
        artefacts: std::path::absolute(&artefacts).unwrap_or(artefacts),
    })
}

/// The suites that were named, in the order of the table; an unknown name is an error with the known ones.
fn chosen(options: &Options) -> Result<Vec<&'static Suite>, String> {
    for name in &options.suites {
        if !SUITES.iter().any(|suite| suite.name == name) {
            let known: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
            return Err(format!("there is no suite `{name}`; there are {}", known.join(", ")));
        }
    }
    let named = |suite: &&Suite| match options.self_test {
        true => suite.name == suite::SELF_TEST,
        false => options.suites.is_empty() || options.suites.iter().any(|name| name == suite.name),
    };
    let suites: Vec<&Suite> = SUITES.iter().filter(named).collect();
    if options.with.contains("://") && !suites.iter().any(|suite| suite.name == suite::AT_ADDRESS) {
        return Err(format!("--with an address is for the suite {}, which was not named", suite::AT_ADDRESS));
    }
    let Some(server) = &options.server else { return Ok(suites) };
    let known: BTreeSet<&str> = suites.iter().flat_map(|suite| suite.servers).map(|kind| kind.name).collect();
    if !known.contains(server.as_str()) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let which = if options.suites.is_empty() { "there is" } else { "these suites have" };
        return Err(match known.as_str() {
            "" => format!("{which} no server `{server}`, nor any other"),
            known => format!("{which} no server `{server}`; there are {known}"),
        });
    }
    Ok(suites.into_iter().filter(|suite| suite.servers.iter().any(|kind| kind.name == server)).collect())
}

/// An interrupted run leaves no server and no folder behind.
fn end_with_signals(temporary: &Path) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let temporary = temporary.to_owned();
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::end_all();
            container::end_all();
            let _ = std::fs::remove_dir_all(&temporary);
            eprintln!("\nconformance/run: ended by signal {signal}");
            std::process::exit(128 + signal);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from([&["conformance/run"], arguments].concat())
    }

    fn names(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
        chosen(&options(arguments)).map(|suites| suites.iter().map(|suite| suite.name).collect())
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn suites_run_in_the_tables_order_whatever_order_they_are_named_in() {
        assert_eq!(names(&["mqtt", "lua"]).unwrap(), ["lua", "mqtt"]);
        assert_eq!(names(&[]).unwrap().len(), SUITES.len());
    }

    #[test]
    fn the_self_test_is_a_suite_among_the_others_and_alone() {
        assert_eq!(names(&["--self-test"]).unwrap(), ["self_test"]);
        assert_eq!(names(&["self_test"]).unwrap(), ["self_test"]);
        assert!(names(&[]).unwrap().contains(&"self_test"));
        assert!(Options::try_parse_from(["conformance/run", "--self-test", "mqtt"]).is_err());
    }

    #[test]
    fn only_suites_against_a_server_run_when_it_is_named() {
        assert_eq!(names(&["--server", "exim"]).unwrap(), ["smtp", "self_test"]);
        assert_eq!(names(&["mqtt", "lua", "--server", "mosquitto"]).unwrap(), ["mqtt"]);
    }

    #[test]
    fn a_broker_at_an_address_is_for_the_suite_that_asks_it() {
        assert_eq!(names(&["mqtt", "--with", "mqtt://h"]).unwrap(), ["mqtt"]);
        let error = names(&["http", "--with", "mqtt://h"]).unwrap_err();
        assert_eq!(error, "--with an address is for the suite mqtt, which was not named");
    }

    #[test]
    fn an_unknown_suite_or_server_is_named_with_the_known_ones() {
        let error = names(&["mqt"]).unwrap_err();
        assert!(error.contains("`mqt`") && error.contains("mqtt, "), "{error}");
        let error = names(&["--server", "mosquito"]).unwrap_err();
        assert!(error.contains("`mosquito`") && error.contains("mosquitto"), "{error}");
        let error = names(&["smtp", "--server", "mosquitto"]).unwrap_err();
        assert_eq!(error, "these suites have no server `mosquitto`; there are exim, postfix");
        assert_eq!(
            names(&["lua", "--server", "exim"]).unwrap_err(),
            "these suites have no server `exim`, nor any other"
        );
    }
}
