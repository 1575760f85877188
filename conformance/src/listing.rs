//! What `--list` says: the suites, their servers in the versions that are here and the ways they can run, what is
//! missing, and how it is installed. Nothing is started.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::container::Engine;
use crate::place::Place;
use crate::server::Kind;
use crate::suite::{Setting, Suite, Way};
use crate::tools::{self, Tool};

/// Where the second column begins.
const INDENT: usize = 14;

/// The engine of containers, as it says itself, or why there is none.
pub type Containers = Result<String, String>;

/// Asks for the engine of containers.
pub fn containers(setting: &Setting) -> Containers {
    Engine::find(&setting.root).map(|engine| engine.version)
}

/// What would run. `missing` are the programs that the suites miss, all together; `with_cases` names each case, too.
///
/// # Errors
/// In words, when the cases of a suite cannot be told.
pub fn text(
    suites: &[&Suite],
    setting: &Setting,
    containers: &Containers,
    missing: &[Tool],
    with_cases: bool,
) -> Result<String, String> {
    let mut text = String::new();
    let (mut here, mut absent) = (BTreeSet::new(), BTreeSet::new());
    for suite in suites {
        let _ = writeln!(text, "{:<INDENT$}{}", suite.name, suite.about);
        let lacking = tools::missing(suite.needs.iter().copied());
        if !lacking.is_empty() {
            let _ = writeln!(text, "{:<INDENT$}{}", "", tools::sentence(&lacking));
        }
        match setting.elsewhere() {
            Some(elsewhere) if suite.name == "mqtt" => {
                let _ = writeln!(text, "{:<INDENT$}{}: runs already", "", elsewhere.server().way);
            }
            _ => {
                for kind in suite.servers.iter().filter(|kind| setting.wants_server(kind)) {
                    let (is_here, line) = server(kind, setting, containers);
                    let _ = writeln!(text, "{:<INDENT$}{line}", "");
                    if is_here {
                        here.insert(kind.name)
                    } else {
                        absent.insert(kind.name)
                    };
                }
            }
        }
        if with_cases {
            let names = (suite.cases)(setting).map_err(|error| format!("{}: {error}", suite.name))?;
            for name in names.iter().filter(|name| setting.wants(name)) {
                let _ = writeln!(text, "{:<INDENT$}  {name}", "");
            }
        }
    }
    if let Err(why) = containers {
        let _ = writeln!(text, "\nServers cannot run in containers: {why}");
    }
    if !missing.is_empty() {
        let _ = writeln!(text, "\nWhat is missing is installed by `conformance/run --install`, or by");
        let _ = writeln!(text, "  {}", tools::install_command(missing, tools::is_root()));
    }
    let suites = if suites.len() == 1 { "1 suite".to_owned() } else { format!("{} suites", suites.len()) };
    let _ = writeln!(text, "\n{suites}; of their servers {} are here, {} are missing", here.len(), absent.len());
    Ok(text)
}

/// Whether a server can run in the way that was asked for, and what is known of it.
fn server(kind: &Kind, setting: &Setting, containers: &Containers) -> (bool, String) {
    let wants_container = matches!(setting.way, Way::Containers);
    let native = tools::missing(kind.needs.iter().copied());
    let contained = tools::missing(kind.needs(true));
    let in_container = !kind.images.is_empty() && contained.is_empty() && containers.is_ok();
    let lacking = if wants_container { &contained } else { &native };
    let is_here = lacking.is_empty() && (!wants_container || containers.is_ok());
    let natively = native.is_empty() && !(wants_container && in_container);
    let mut ways = Vec::new();
    if natively {
        ways.push("native".to_owned());
    }
    if let Ok(engine) = containers
        && in_container
    {
        let only = if wants_container || native.is_empty() { "" } else { "with `--with container` " };
        ways.push(format!("{only}in a container ({engine})"));
    }
    if !lacking.is_empty() {
        ways.insert(0, tools::sentence(lacking));
    }
    let ways = if ways.is_empty() { "neither natively nor in a container".to_owned() } else { ways.join(", ") };
    let version = if natively { version(kind, setting) } else { String::new() };
    (is_here, format!("{}{version}: {ways}", kind.name))
}

/// " 2.0.11", as far as the version can be known without starting the server.
fn version(kind: &Kind, setting: &Setting) -> String {
    let place = Place::new(&setting.temporary, kind.images, None);
    (kind.version)(&place).map_or(String::new(), |version| format!(" {version}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::place::FromImage;
    use crate::suite::tests::setting;

    const ABSENT: Tool = Tool::of_package("moonwire-no-such-program", "nothing");

    /// A server that is here: its only program is everywhere.
    static HERE: Kind = Kind {
        name: "here",
        needs: &[Tool::of_package("sh", "dash")],
        images: &[],
        version: |_| Ok("1.2".to_owned()),
        listeners: &[],
        prepare: |_| Ok(()),
        commands: |_| Vec::new(),
        port_taken: "",
    };

    /// A server that is only in an image.
    static IMAGE: Kind = Kind {
        name: "image",
        needs: &[ABSENT],
        images: &[FromImage { service: "image", programs: &[("moonwire-no-such-program", "program")], health: None }],
        ..HERE
    };

    const SUITE: Suite = Suite {
        name: "mqtt",
        about: "proves something",
        needs: &[],
        servers: &[&HERE, &IMAGE],
        time_max: Duration::from_secs(1),
        cases: |_| Ok(vec!["first".to_owned(), "second".to_owned()]),
        run: |_| Ok(()),
    };

    fn listed(change: impl FnOnce(&mut Setting), containers: &Containers, with_cases: bool) -> Vec<String> {
        let mut setting = setting(Path::new("."), None);
        change(&mut setting);
        let text = text(&[&SUITE], &setting, containers, &[ABSENT], with_cases).unwrap();
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn each_server_has_its_version_and_its_ways_and_what_it_misses() {
        let lines = listed(|_| {}, &Ok("podman 4".to_owned()), false);
        assert_eq!(
            lines[..3],
            [
                "mqtt          proves something",
                "here 1.2: native",
                "image: moonwire-no-such-program is not installed, with `--with container` in a container (podman 4)",
            ]
        );
        assert!(lines[4].ends_with("apt-get install --no-install-recommends nothing"), "{lines:?}");
        assert_eq!(lines[5], "1 suite; of their servers 1 are here, 1 are missing");
    }

    #[test]
    fn in_containers_an_image_is_enough_and_a_server_without_one_runs_natively() {
        let containers = |setting: &mut Setting| setting.way = Way::Containers;
        let lines = listed(containers, &Ok("podman 4".to_owned()), false);
        assert_eq!(lines[1..3], ["here 1.2: native", "image: in a container (podman 4)"]);
        assert_eq!(lines.last().unwrap(), "1 suite; of their servers 2 are here, 0 are missing");
        let lines = listed(containers, &Err("neither Podman nor Docker answers: try this".to_owned()), false);
        assert_eq!(lines[2], "image: neither natively nor in a container");
        assert_eq!(lines[3], "Servers cannot run in containers: neither Podman nor Docker answers: try this");
    }

    #[test]
    fn only_the_server_and_the_cases_that_are_wanted_are_listed() {
        let change = |setting: &mut Setting| {
            setting.server = Some("here".to_owned());
            setting.case = Some("second".to_owned());
        };
        let lines = listed(change, &Ok("podman 4".to_owned()), true);
        assert_eq!(lines[1..3], ["here 1.2: native", "second"]);
    }

    #[test]
    fn a_broker_elsewhere_is_all_there_is_and_its_password_is_not_told() {
        let elsewhere = crate::suite::Elsewhere { url: "mqtts://ann:secret@h.example".to_owned(), ca: None };
        let lines = listed(|setting| setting.way = Way::Elsewhere(elsewhere), &Ok("podman 4".to_owned()), false);
        assert_eq!(lines[1], "mqtts://h.example: runs already");
        assert!(!lines.iter().any(|line| line.contains("secret") || line.contains("here 1.2")), "{lines:?}");
    }
}
