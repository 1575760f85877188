//! Servers in containers: the suites that have servers, in part, against the same servers in containers; each service of
//! compose.yaml brought up by hand; and that nothing is left behind. All of it is `conformance/run SUITE --with container`.
//!
//! A machine that cannot run containers skips this, with the reason.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Context, Setting, Suite, Way, http, mqtt, smtp};
use crate::container::{self, COMPOSE_TOOL, Images, Project};
use crate::outcome::{Outcome, ServerRun};
use crate::ports;
use crate::process::{Ending, Process};
use crate::server::{mosquitto, nats, postfix, rabbitmq, web};
use crate::tools::{self, Tool, is_root};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "containers",
    about: "parts of mqtt, http and smtp against servers in containers; compose.yaml by hand; nothing is left behind",
    needs: NEEDS,
    servers: &[&mosquitto::KIND, &rabbitmq::KIND, &nats::KIND, &web::KIND, &postfix::KIND],
    time_max: Duration::from_secs(30 * 60),
    cases: |setting| {
        Ok(Images::read(&setting.root)?.services().keys().map(|name| by_hand(name)).chain(own()).collect())
    },
    run,
};

const NEEDS: &[Tool] = &{
    let mut all = [COMPOSE_TOOL; container::NEEDS.len() + 1];
    let mut i = 0;
    while i < container::NEEDS.len() {
        all[i] = container::NEEDS[i];
        i += 1;
    }
    all
};

/// What runs in part.
const PARTS: [&Suite; 3] = [&mqtt::SUITE, &http::SUITE, &smtp::SUITE];
/// A part that is run by a whole harness, and interrupted.
const INTERRUPTED: &[&str] = &["mqtt", "--with", "container", "--server", "mosquitto"];
const LEAVES_NOTHING: &str = "a run that is interrupted leaves no container and no file";

const ASK_SCRIPT: &str = "conformance/compose/ask.lua";
const ASK_TIME_MAX: Duration = Duration::from_secs(40);
/// How long a service may take to be healthy, by hand; RabbitMQ, on a machine that is busy, needs half of it.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(90);
/// How long a run may take to start its first container, and to end them all.
const START_TIME_MAX: Duration = Duration::from_secs(120);
const END_TIME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// What a service is for, and how it is then asked.
const SCHEMES: [(&str, &str); 4] = [("mqtt", "mqtt"), ("http", "http"), ("smtp", "smtp"), ("websocket", "ws")];

/// The names of cases of our own, when there are no others.
fn own() -> impl Iterator<Item = String> {
    PARTS.iter().map(|suite| part_name(suite)).chain([LEAVES_NOTHING.to_owned()])
}

/// All cases of a part by one name.
fn part_name(suite: &Suite) -> String {
    format!("{} against servers in containers", suite.name)
}

fn by_hand(service: &str) -> String {
    format!("compose.yaml by hand: {service} is healthy, does what it is for, and goes without a trace")
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let names = (SUITE.cases)(context.setting)?;
    if context.setting.elsewhere().is_some() {
        context.skip(&names, "it starts its own servers, and --with names one that runs already");
        return Ok(());
    }
    match able(context) {
        Ok(()) => {}
        Err(Outcome::Skipped(reason)) => {
            context.skip(&names, &reason);
            return Ok(());
        }
        Err(outcome) => {
            context.report.case("there is an image, and it runs", outcome, None);
            return Ok(());
        }
    }
    let setting = Setting { way: Way::Containers, sample: true, ..context.setting.clone() };
    for suite in PARTS.into_iter().filter(|suite| suite.servers.iter().any(|kind| setting.wants_server(kind))) {
        context.report.against(None);
        let whole = setting.wants(&part_name(suite));
        let setting = Setting { case: setting.case.clone().filter(|_| !whole), ..setting.clone() };
        (suite.run)(&mut context.part(suite, &setting))?;
    }
    let services: Vec<String> = context.harbour()?.images.services().keys().cloned().collect();
    let server = context.setting.server.clone();
    let wanted = |service: &str| server.as_deref().is_none_or(|name| name == service);
    for service in services.into_iter().filter(|service| wanted(service)) {
        context.report.against(Some(&service));
        context.case(&by_hand(&service), |context| serves_by_hand(context, &service).unwrap_or_else(Outcome::Failed));
    }
    context.report.against(None);
    if !wanted(mosquitto::KIND.name) {
        return Ok(());
    }
    context.case(LEAVES_NOTHING, |context| leaves_nothing(context).into());
    Ok(())
}

/// Whether this machine can run containers at all.
fn able(context: &mut Context<'_>) -> Result<(), Outcome> {
    let missing = tools::missing(container::NEEDS.iter().copied());
    let harbour = context.harbour().map_err(Outcome::Skipped)?;
    let image = harbour.images.get(&harbour.engine, "mosquitto").map_err(|error| {
        // It was asked to be able to make images, by --install, or it cannot.
        let asked = is_root() && missing.is_empty();
        if asked { Outcome::Failed(error) } else { Outcome::Skipped(format!("there is no image: {error}")) }
    })?;
    harbour.engine.try_out(&image).map_err(|error| Outcome::Skipped(format!("containers do not run here: {error}")))
}

/// Brings a service up, waits until it is healthy, asks it, takes it down, and looks whether anything is left.
fn serves_by_hand(context: &mut Context<'_>, service: &str) -> Result<Outcome, String> {
    let harbour = context.harbour()?;
    let (engine, can_build) = (harbour.engine.clone(), harbour.images.can_build(service));
    let image = match harbour.images.get(&engine, service) {
        Ok(image) => image,
        Err(error) if can_build => return Err(error),
        Err(error) => return Ok(Outcome::Skipped(format!("there is no image: {error}"))),
    };
    if let Some(reason) = engine.lacks_compose() {
        return Ok(Outcome::Skipped(reason));
    }
    let profiles = &context.harbour()?.images.services()[service].profiles;
    let scheme = SCHEMES.iter().find(|(what, _)| profiles.iter().any(|profile| profile == what));
    let (_, scheme) = scheme.ok_or_else(|| format!("nobody knows what {service} is for"))?;
    let port = ports::free(1).map_err(|error| error.to_string())?[0];
    let project = Project::up(&context.setting.root, &engine, &image, service, port)?;
    let name = project.name.clone();
    let way = format!("compose.yaml by hand, {} with {}", engine.version, image.described());
    context.report.server(ServerRun { name: service.to_owned(), version: String::new(), way });
    healthy(context, &project, &image.health)?;
    let mut command = context.setting.moonwire();
    command.arg(ASK_SCRIPT).arg(format!("{scheme}://127.0.0.1:{port}"));
    context.succeed(command, ASK_TIME_MAX)?;
    project.down()?;
    let left = engine.containers(&name)?;
    if left.is_empty() { Ok(Outcome::Passed) } else { Err(format!("left behind: {left:?}")) }
}

/// Waits until its own test says that it is; without systemd, Podman does not run it by itself.
fn healthy(context: &Context<'_>, project: &Project, test: &[String]) -> Result<(), String> {
    let deadline = Instant::now() + HEALTH_TIME_MAX;
    while !test.is_empty() {
        let finished = context.run(project.exec(test), HEALTH_TIME_MAX)?;
        if finished.succeeded() {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("it is not healthy: {}", finished.summary()));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Interrupts a run of the harness while its servers run in containers.
fn leaves_nothing(context: &mut Context<'_>) -> Result<(), String> {
    let engine = context.harbour()?.engine.clone();
    let temporary = context.setting.temporary.join("interrupted");
    let wrong = |error: std::io::Error| format!("{}: {error}", temporary.display());
    fs::create_dir_all(&temporary).map_err(wrong)?;
    let mut command = Command::new(std::env::current_exe().map_err(wrong)?);
    command.arg("--root").arg(&context.setting.root).arg("--moonwire").arg(&context.setting.moonwire);
    command.args(INTERRUPTED).env("TMPDIR", &temporary);
    let mut run = Process::start(command)?;
    let beginning = format!("moonwire-{}-", run.id());
    let deadline = Instant::now() + START_TIME_MAX;
    while !engine.containers(&beginning)?.iter().any(|name| name.ends_with("-mosquitto")) {
        if run.ended().is_some() || Instant::now() > deadline {
            return Err(format!("it starts no container\n{}", run.printed()));
        }
        thread::sleep(POLL);
    }
    run.interrupt();
    let finished = run.finish(END_TIME_MAX, |_, _| {})?;
    // 128 and the number of SIGINT.
    if finished.ending != Ending::Status(130) {
        return Err(format!("it does not end as one that is interrupted: {}", finished.summary()));
    }
    let left = engine.containers(&beginning)?;
    if !left.is_empty() {
        return Err(format!("left behind: {left:?}"));
    }
    let files: Vec<_> = temporary.read_dir().map_err(wrong)?.flatten().map(|entry| entry.path()).collect();
    if files.is_empty() { Ok(()) } else { Err(format!("left behind: {files:?}")) }
}
