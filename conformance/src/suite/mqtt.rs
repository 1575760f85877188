//! The MQTT stack against real brokers: `conformance/mqtt/*_test.lua`, for each version and transport.
//!
//! A file says at its head what it is run for: `-- run for: version, transport` (the default), `version`,
//! `version, websocket`, or `once`.
//! Where the broker is, it learns from its environment, which `mqtt/broker.lua` reads. With `--with URL` that is a broker
//! of somebody else's: cases that need more than its address are skipped, and nothing is compared with what is expected.

pub(super) mod broker;
mod document;

use std::process::Command;
use std::time::Duration;

use self::broker::Broker;
use super::against::{self, Comparison, Ran, topic_of};
use super::{Context, Elsewhere, Setting, Suite};
use crate::lacks::Lacks;
use crate::outcome::Outcome;
use crate::server;

/// The suite against every broker.
pub const SUITE: Suite = Suite {
    name: "mqtt",
    about: "the MQTT stack against four brokers (or --with URL): versions 5 and 3.1.1, TCP, TLS, WebSocket",
    needs: &[],
    servers: server::KINDS,
    time_max: Duration::from_secs(10 * 60),
    cases,
    run,
};

const FOLDER: &str = "conformance/mqtt";
const VERSIONS: [&str; 2] = ["5", "3.1.1"];
const TRANSPORTS: [&str; 2] = ["tcp", "tls"];
/// Apart: Mosquitto 2.0 lets no more than some 40 KiB a second out of a WebSocket listener.
const WEBSOCKETS: [&str; 2] = ["ws", "wss"];

/// Seconds a single case may take; scripts give up waiting long before.
const CASE_TIME_MAX: &str = "30";
const LIVES: &str = "lives to the end";
/// Connects to a broker elsewhere, once.
const REACH_SCRIPT: &str = "conformance/mqtt/reach.lua";
const REACH_TIME_MAX: Duration = Duration::from_secs(60);

/// One way to run files: "5 tls".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flavour {
    version: Option<&'static str>,
    transport: Option<&'static str>,
}

impl Flavour {
    fn name(self) -> String {
        [self.version, self.transport].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn is_offered_by(self, broker: &Broker) -> bool {
        self.transport.is_none_or(|name| broker.transports.contains(&name))
    }

    /// Whether it is in a sample: each version and each transport once, and what is in one of them only.
    fn is_sampled(self) -> bool {
        !matches!(
            (self.version, self.transport),
            (Some("5"), Some("tls" | "ws")) | (Some("3.1.1"), Some("tcp" | "wss"))
        )
    }
}

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    if setting.elsewhere().is_some() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for kind in setting.kinds() {
        let expected = read_expected(setting, kind)?;
        names.extend(expected.names().map(|name| format!("{}: {name}", kind.name)));
    }
    Ok(names)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let flavours = flavours(context.setting)?;
    if let Some(elsewhere) = context.setting.elsewhere() {
        return run_elsewhere(context, elsewhere, &flavours);
    }
    for kind in context.setting.kinds() {
        let broker = Broker::named(kind.name).ok_or_else(|| format!("{} is no MQTT broker", kind.name))?;
        let expected = read_expected(context.setting, kind)?;
        context.against(kind);
        let flavours: Vec<_> = flavours.iter().filter(|(flavour, _)| flavour.is_offered_by(broker)).collect();
        if !any_wanted(context, &flavours)? {
            continue;
        }
        let (version, mut environment) = match context.server(kind) {
            Ok((server, certificates)) => (server.version.clone(), broker.environment(server, certificates)),
            Err(Outcome::Skipped(reason)) => {
                let names: Vec<_> = expected.names().map(str::to_owned).collect();
                context.skip(&names, &reason);
                continue;
            }
            Err(outcome) => {
                context.report.case("starts", outcome, None);
                continue;
            }
        };
        environment.push(("MOONWIRE_MQTT_LACKS", expected.lacks().names(&version)));
        let (mut results, mut complete) = (Vec::new(), true);
        for (flavour, files) in flavours {
            let (tests, wrong) = run_flavour(context, &environment, *flavour, files)?;
            results.extend(tests.into_iter().map(|test| (case_name(*flavour, &test.file, &test.name), test)));
            if let Some(wrong) = wrong {
                complete = false;
                let name = format!("{} runs to its end", flavour.name());
                context.report.case(name, Outcome::Failed(wrong), None);
            }
        }
        expected.report(context, &version, &results, complete)?;
        if context.setting.accept {
            continue;
        }
        context.case(LIVES, |context| match context.server(kind) {
            Ok((server, _)) => server.lives().into(),
            Err(outcome) => outcome,
        });
    }
    if context.setting.accept {
        let root = &context.setting.root;
        let wrong = |error: std::io::Error| format!("cannot write {}: {error}", document::PATH);
        std::fs::write(root.join(document::PATH), document::text(root)?).map_err(wrong)?;
    }
    Ok(())
}

/// Runs what needs no more than a broker's address, by the transport that the address names.
fn run_elsewhere(
    context: &mut Context<'_>,
    elsewhere: &Elsewhere,
    flavours: &[(Flavour, Vec<String>)],
) -> Result<(), String> {
    let transport = transport_of(&elsewhere.url)?;
    let run = elsewhere.server();
    context.report.against(Some(&run.name));
    context.report.server(run);
    let mut environment = vec![(variable_of(transport), elsewhere.url.clone())];
    if let Some(ca) = &elsewhere.ca {
        let ca = std::path::absolute(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
        environment.push(("MOONWIRE_MQTT_CA", ca.display().to_string()));
    }
    // One reason, and not one for each case.
    let mut reach = context.setting.moonwire_with_suites();
    reach.arg(REACH_SCRIPT).envs(environment.iter().cloned()).env("MOONWIRE_MQTT_TRANSPORT", transport);
    let reached = context.run(reach, REACH_TIME_MAX)?;
    if !reached.succeeded() {
        let why = if reached.stderr.is_empty() { reached.summary() } else { reached.stderr };
        context.report.case("the broker lets us in", Outcome::Failed(why), None);
        return Ok(());
    }
    for (flavour, files) in flavours {
        // Files for any transport go by this one.
        let transport = match flavour.transport {
            Some("tcp") => Some(transport),
            Some("tls") => continue,
            Some(other) if other != transport => continue,
            same => same,
        };
        let flavour = Flavour { transport, ..*flavour };
        let (tests, wrong) = run_flavour(context, &environment, flavour, files)?;
        for test in tests {
            let name = case_name(flavour, &test.file, &test.name);
            if context.setting.wants(&name) {
                context.report.case(name, test.outcome, Some(test.time));
            }
        }
        if let Some(wrong) = wrong {
            let name = format!("{} runs to its end", flavour.name());
            context.report.case(name, Outcome::Failed(wrong), None);
        }
    }
    Ok(())
}

/// The transport that an address names.
fn transport_of(url: &str) -> Result<&'static str, String> {
    match url.split("://").next().unwrap_or_default() {
        "mqtt" => Ok("tcp"),
        "mqtts" => Ok("tls"),
        "ws" => Ok("ws"),
        "wss" => Ok("wss"),
        other => Err(format!("`{other}` is not mqtt, mqtts, ws or wss: --with wants the address of a broker")),
    }
}

/// The variable that has the address for a transport.
fn variable_of(transport: &str) -> &'static str {
    match transport {
        "tls" => "MOONWIRE_MQTT_TLS_URL",
        "ws" => "MOONWIRE_MQTT_WS_URL",
        "wss" => "MOONWIRE_MQTT_WSS_URL",
        _ => "MOONWIRE_MQTT_TCP_URL",
    }
}

/// "5 tcp  publish: [MQTT-3.3.4-1] statement".
fn case_name(flavour: Flavour, file: &str, statement: &str) -> String {
    format!("{:<9} {}: {statement}", flavour.name(), topic_of(file))
}

/// Whether any case against a broker is to run: its files in these ways, or the last one.
fn any_wanted(context: &Context<'_>, flavours: &[&(Flavour, Vec<String>)]) -> Result<bool, String> {
    if context.setting.wants(LIVES) {
        return Ok(true);
    }
    for (flavour, files) in flavours {
        let whole = |file: &str, name: &str| case_name(*flavour, file, name);
        if against::any_wanted(context, &|| command(context, &[], *flavour), files, &whole)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs files in one way; with `--case`, only those that hold a case that is wanted.
fn run_flavour(
    context: &Context<'_>,
    environment: &[(&'static str, String)],
    flavour: Flavour,
    files: &[String],
) -> Result<Ran, String> {
    let whole = |file: &str, name: &str| case_name(flavour, file, name);
    let command = || command(context, environment, flavour);
    against::run_files(context, &command, files.to_vec(), &whole, &format!("{}: ", flavour.name()))
}

/// `moonwire test` in one way, with all but the files.
fn command(context: &Context<'_>, environment: &[(&'static str, String)], flavour: Flavour) -> Command {
    let mut command = context.setting.moonwire_with_suites();
    command.args(["test", "--real-clock", "--timeout", CASE_TIME_MAX]).envs(environment.iter().cloned());
    if let Some(version) = flavour.version {
        command.env("MOONWIRE_MQTT_VERSION", version);
    }
    if let Some(transport) = flavour.transport {
        command.env("MOONWIRE_MQTT_TRANSPORT", transport);
    }
    command
}

/// Which files run in which way.
fn flavours(setting: &Setting) -> Result<Vec<(Flavour, Vec<String>)>, String> {
    let mut flavours: Vec<(Flavour, Vec<String>)> = Vec::new();
    for file in setting.files(FOLDER, "_test.lua")? {
        let all = run_for(&setting.read(&file)?).map_err(|error| format!("{file}: {error}"))?;
        for flavour in all.into_iter().filter(|flavour| !setting.sample || flavour.is_sampled()) {
            match flavours.iter_mut().find(|(known, _)| *known == flavour) {
                Some((_, files)) => files.push(file.clone()),
                None => flavours.push((flavour, vec![file.clone()])),
            }
        }
    }
    Ok(flavours)
}

/// What the head of a file says it is run for.
fn run_for(source: &str) -> Result<Vec<Flavour>, String> {
    let head = source.lines().take_while(|line| line.starts_with("--"));
    let said = head.filter_map(|line| line.strip_prefix("-- run for:")).next().unwrap_or("version, transport");
    let (mut versions, mut transports) = (vec![None], vec![None]);
    for word in said.split(',').map(str::trim) {
        match word {
            "once" => {}
            "version" => versions = VERSIONS.map(Some).to_vec(),
            "transport" => transports = TRANSPORTS.map(Some).to_vec(),
            "websocket" => transports = WEBSOCKETS.map(Some).to_vec(),
            other => return Err(format!("it cannot be run for `{other}`: version, transport, websocket, or once")),
        }
    }
    let of_version = |version| transports.iter().map(move |&transport| Flavour { version, transport });
    Ok(versions.iter().copied().flat_map(of_version).collect())
}

fn read_expected(setting: &Setting, kind: &server::Kind) -> Result<Comparison, String> {
    let lacks = Lacks::read(&setting.root.join("conformance/servers").join(kind.name))?;
    Ok(Comparison::read(setting, format!("conformance/expected/{}.txt", kind.name))?.with_lacks(lacks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        run_for(source).unwrap().into_iter().map(Flavour::name).collect()
    }

    #[test]
    fn a_file_is_run_for_what_its_head_says() {
        assert_eq!(names("-- Publishing.\nreturn {}\n"), ["5 tcp", "5 tls", "3.1.1 tcp", "3.1.1 tls"]);
        assert_eq!(names("-- TLS.\n-- run for: version\nreturn {}\n"), ["5", "3.1.1"]);
        assert_eq!(names("-- run for: once\n"), [""]);
        assert_eq!(names("-- run for: transport\n"), ["tcp", "tls"]);
        assert_eq!(names("-- run for: version, websocket\n"), ["5 ws", "5 wss", "3.1.1 ws", "3.1.1 wss"]);
        assert_eq!(names("local x\n-- run for: once\n").len(), 4, "not at the head");
        assert!(run_for("-- run for: fun\n").unwrap_err().contains("`fun`"));
    }

    #[test]
    fn a_sample_has_each_version_and_each_transport() {
        let sampled = |source| -> Vec<String> {
            run_for(source).unwrap().into_iter().filter(|flavour| flavour.is_sampled()).map(Flavour::name).collect()
        };
        assert_eq!(sampled(""), ["5 tcp", "3.1.1 tls"]);
        assert_eq!(sampled("-- run for: version, websocket\n"), ["5 wss", "3.1.1 ws"]);
        assert_eq!(sampled("-- run for: transport\n"), ["tcp", "tls"]);
        assert_eq!(sampled("-- run for: version\n"), ["5", "3.1.1"]);
        assert_eq!(sampled("-- run for: once\n"), [""]);
    }

    #[test]
    fn a_case_is_named_by_version_transport_topic_and_statement() {
        let flavour = Flavour { version: Some("5"), transport: Some("tls") };
        assert_eq!(
            case_name(flavour, "conformance/mqtt/publish_test.lua", "[MQTT-3.3.4-1] acknowledged"),
            "5 tls     publish: [MQTT-3.3.4-1] acknowledged"
        );
    }

    #[test]
    fn an_address_names_its_transport() {
        assert_eq!(transport_of("mqtt://user:word@host:1884"), Ok("tcp"));
        assert_eq!(transport_of("mqtts://host"), Ok("tls"));
        assert_eq!(transport_of("ws://host/mqtt"), Ok("ws"));
        assert!(transport_of("http://host").unwrap_err().contains("`http`"));
    }
}
