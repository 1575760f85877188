//! `examples/dashboard` in real, headless Chromium: `conformance/browser/dashboard.py` drives it with Playwright and has
//! the cases. Pictures of the page are left in the report's folder.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::websocket::outcome_of;
use super::{Context, Setting, Suite};
use crate::outcome::Outcome;
use crate::process::{self, Source};
use crate::server::mosquitto::{self, PUBLISHER, SUBSCRIBER};
use crate::tools::{self, Tool};

/// The page of a device.
pub const SUITE: Suite = Suite {
    name: "browser",
    about: "examples/dashboard in headless Chromium: pages, two at once, restarts, keyboard, phone, themes, axe, MQTT",
    needs: &[CHROMIUM, PLAYWRIGHT, AXE, LINE_BY_LINE],
    servers: &[&mosquitto::KIND],
    time_max: Duration::from_secs(5 * 60),
    cases: names,
    run,
};

const CHROMIUM: Tool = Tool::of_package("chromium", "chromium");
const PLAYWRIGHT: Tool = Tool::of_python("playwright", "playwright==1.65.2");
/// Rules for pages that everybody can use, as a script that runs in them.
const AXE: Tool = Tool::of_python("python", "axe-playwright-python==0.1.8");
/// Makes `mosquitto_sub` say at once what it sees.
const LINE_BY_LINE: Tool = Tool::of_package("stdbuf", "coreutils");

const SCRIPT: &str = "conformance/browser/dashboard.py";
/// How the names of cases begin that need a broker.
const WITH_BROKER: &str = "through Mosquitto";

/// The cases of the script, in its order.
fn names(setting: &Setting) -> Result<Vec<String>, String> {
    let script = setting.read(SCRIPT)?;
    let name = |line: &str| Some(line.strip_prefix("@case(\"")?.strip_suffix("\")")?.to_owned());
    Ok(script.lines().filter_map(name).collect())
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let wanted = names(context.setting)?.into_iter().filter(|name| context.setting.wants(name));
    let (with_broker, alone): (Vec<_>, Vec<_>) = wanted.partition(|name| name.starts_with(WITH_BROKER));
    drive(context, &alone, None);
    if with_broker.is_empty() {
        return Ok(());
    }
    let broker = context.need(&[SUBSCRIBER, PUBLISHER]).and_then(|()| {
        let (server, _) = context.server(&mosquitto::KIND)?;
        let port = server.port("plain").ok_or_else(|| Outcome::Failed("no port".into()))?;
        Ok(format!("127.0.0.1:{port}"))
    });
    match broker {
        Ok(address) => drive(context, &with_broker, Some(&address)),
        Err(outcome) => all(context, &with_broker, &outcome),
    }
    Ok(())
}

/// The same of all these cases.
fn all(context: &mut Context<'_>, names: &[String], outcome: &Outcome) {
    for name in names {
        context.report.case(name.as_str(), outcome.clone(), None);
    }
}

/// Runs these cases, in one browser.
fn drive(context: &mut Context<'_>, names: &[String], broker: Option<&str>) {
    if names.is_empty() {
        return;
    }
    let needed = context.need(SUITE.needs).and_then(|()| command(context.setting, names, broker));
    let command = match needed {
        Ok(command) => command,
        Err(outcome) => return all(context, names, &outcome),
    };
    let mut left = names.to_vec();
    let mut began = Instant::now();
    let time_left = context.time_left();
    let report = &mut *context.report;
    report.progress(&left[0]);
    let finished = process::run(command, time_left, |source, line| {
        let Some((name, outcome)) = (source == Source::Stdout).then(|| outcome_of(line)).flatten() else { return };
        left.retain(|one| *one != name);
        report.case(name, outcome, Some(began.elapsed()));
        began = Instant::now();
        report.progress(left.first().map_or("", String::as_str));
    });
    let why = finished.map_or_else(|error| error, |finished| finished.summary());
    all(context, &left, &Outcome::Failed(format!("it was not run: {why}")));
}

fn command(setting: &Setting, names: &[String], broker: Option<&str>) -> Result<Command, Outcome> {
    let missing = || Outcome::Failed(format!("where is {}?", CHROMIUM.program));
    let chromium: PathBuf = tools::find(CHROMIUM.program).ok_or_else(missing)?;
    let mut command = setting.command(tools::python_program("python"));
    command.arg(SCRIPT).arg("--root").arg(&setting.root).arg("--moonwire").arg(&setting.moonwire);
    command.arg("--chromium").arg(chromium).arg("--artefacts").arg(setting.artefacts.join("browser"));
    if let Some(address) = broker {
        command.args(["--broker", address]);
    }
    command.envs(setting.lua.iter().map(|folder| ("MOONWIRE_PATH", folder)));
    command.args(names);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::super::tests::setting;
    use super::*;
    use std::path::Path;

    #[test]
    fn the_cases_are_those_of_the_script() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let names = names(&setting(&root, None)).unwrap();
        assert!(names.len() > 10, "{names:?}");
        assert_eq!(names.iter().filter(|name| name.starts_with(WITH_BROKER)).count(), 1);
    }
}
