//! The main job: `examples/telemetry.lua` publishes readings, by itself and through a real broker, seen by an
//! independent subscriber; and it does not talk to a broker that cannot prove who it is.

use std::process::Command;
use std::time::Duration;

use super::{Context, Suite};
use crate::outcome::Outcome;
use crate::process::{Finished, Process};
use crate::server::mosquitto::{self, PUBLISHER, SUBSCRIBER};
use crate::tools::{self, Tool};
use crate::transcript::matches;

/// The main job, every way it can go.
pub const SUITE: Suite = Suite {
    name: "telemetry",
    about: "examples/telemetry.lua by itself and through Mosquitto, seen by mosquitto_sub",
    needs: &[],
    servers: &[&mosquitto::KIND],
    time_max: Duration::from_secs(5 * 60),
    cases: |_| Ok(CASES.iter().map(|(name, _)| (*name).to_owned()).collect()),
    run,
};

const SCRIPT: &str = "examples/telemetry.lua";
/// Makes `mosquitto_sub` say at once what it sees.
const LINE_BY_LINE: Tool = Tool::of_package("stdbuf", "coreutils");
/// Three readings, a second apart, and a machine that is busy.
const RUN_TIME_MAX: Duration = Duration::from_secs(30);
const COUNT: usize = 3;

/// A run of the script.
type Case = fn(&mut Context<'_>) -> Result<(), Outcome>;

const CASES: &[(&str, Case)] = &[
    ("without a broker it starts one, and prints three readings", |context| {
        let finished = run_script(context, &[])?;
        readings(&finished)
    }),
    ("through Mosquitto, seen by mosquitto_sub", |context| seen_by_subscriber(context, Door::plain())),
    ("through Mosquitto with TLS and the private authority, seen by mosquitto_sub", |context| {
        seen_by_subscriber(context, Door::tls("tls"))
    }),
    ("a command that mosquitto_pub sends is obeyed and answered", obeys),
    ("without the authority it refuses, and says that nobody it trusts signed", |context| {
        let door = Door { trusted: None, ..Door::tls("tls") };
        refuses(context, door, UNTRUSTED)
    }),
    ("with another authority it refuses, and says that nobody it trusts signed", |context| {
        let door = Door { trusted: Some("other_ca"), ..Door::tls("tls") };
        refuses(context, door, UNTRUSTED)
    }),
    ("with a certificate for another name it refuses, and says which name", |context| {
        refuses(context, Door::tls("wrong_name"), &["elsewhere.example"])
    }),
    ("with an expired certificate it refuses, and says so", |context| {
        refuses(context, Door::tls("expired"), &["expired"])
    }),
    ("when nobody listens it says so", |context| {
        let port = crate::ports::free(1).map_err(|error| Outcome::Failed(error.to_string()))?[0];
        let finished = run_script(context, &[("MQTT_URL", format!("mqtt://127.0.0.1:{port}"))])?;
        refused(&finished, &["refused", "ECONNREFUSED"])
    }),
];

/// How it is said that a certificate's authority is unknown.
const UNTRUSTED: &[&str] = &["authority"];

/// A way into the broker.
#[derive(Debug, Clone, Copy)]
struct Door {
    scheme: &'static str,
    listener: &'static str,
    trusted: Option<&'static str>,
}

impl Door {
    fn plain() -> Self {
        Self { scheme: "mqtt", listener: "plain", trusted: None }
    }

    fn tls(listener: &'static str) -> Self {
        Self { scheme: "mqtts", listener, trusted: Some("ca") }
    }
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for (name, case) in CASES {
        context.case(name, |context| match case(context) {
            Ok(()) => Outcome::Passed,
            Err(outcome) => outcome,
        });
    }
    Ok(())
}

/// The environment that leads the script through a door.
fn environment(context: &mut Context<'_>, door: Door) -> Result<Vec<(&'static str, String)>, Outcome> {
    let (server, certificates) = context.server(&mosquitto::KIND)?;
    let port = port(server.port(door.listener))?;
    let mut environment = vec![("MQTT_URL", format!("{}://localhost:{port}", door.scheme))];
    if let Some(name) = door.trusted {
        environment.push(("MQTT_CA", certificates.certificate(name).display().to_string()));
    }
    Ok(environment)
}

fn run_script(context: &Context<'_>, environment: &[(&str, String)]) -> Result<Finished, Outcome> {
    let mut command = context.setting.moonwire();
    command.args([SCRIPT, "--count", &COUNT.to_string()]).envs(environment.iter().cloned());
    context.run(command, RUN_TIME_MAX).map_err(Outcome::Failed)
}

/// It ended well and printed as many readings as it was asked for.
fn readings(finished: &Finished) -> Result<(), Outcome> {
    if !finished.succeeded() {
        return Err(Outcome::Failed(finished.summary()));
    }
    let readings = finished.stdout.lines().filter(|line| matches("reading *: load *, memory *", line)).count();
    if readings == COUNT {
        return Ok(());
    }
    Err(Outcome::Failed(format!("{readings} readings, {COUNT} expected\n{}", finished.summary())))
}

fn seen_by_subscriber(context: &mut Context<'_>, door: Door) -> Result<(), Outcome> {
    let environment = environment(context, door)?;
    let mut witness = Witness::start(context)?;
    let finished = run_script(context, &environment)?;
    readings(&finished)?;
    for number in 1..=COUNT {
        let is_reading = |line: &str| line.contains("/telemetry {") && line.contains(&format!("\"sequence\":{number}"));
        witness.sees(&format!("reading {number}"), is_reading)?;
    }
    Ok(())
}

/// While it runs, somebody else sends it a command, and sees the answer.
fn obeys(context: &mut Context<'_>) -> Result<(), Outcome> {
    let environment = environment(context, Door::plain())?;
    let mut witness = Witness::start(context)?;
    let mut command = context.setting.moonwire();
    command.args([SCRIPT, "--count", &COUNT.to_string()]).envs(environment.iter().cloned());
    let mut script = Process::start(command).map_err(Outcome::Failed)?;
    let mut printed = |wanted: &str| {
        let line = script.wait_for_line(RUN_TIME_MAX, |line| line.contains(wanted));
        line.map_err(|error| Outcome::Failed(format!("it does not print `{wanted}`: {error}")))
    };
    let connected = printed("connected to ")?;
    let device = connected.rsplit(' ').next().unwrap_or_default().to_owned();
    // It subscribes before it publishes.
    printed("reading 1:")?;
    let mut publisher = Command::new(tools::find(PUBLISHER.program).unwrap_or_else(|| PUBLISHER.program.into()));
    publisher.args(["-h", "127.0.0.1", "-p", &witness.port.to_string(), "-q", "1"]);
    publisher.args(["-t", &format!("{device}/command"), "-m", r#"{"command":"ping"}"#]);
    context.succeed(publisher, RUN_TIME_MAX).map_err(|error| Outcome::Failed(format!("mosquitto_pub: {error}")))?;
    let answer = format!("{device}/response {{");
    witness.sees("the answer", |line| {
        line.starts_with(&answer) && line.contains(r#""command":"ping""#) && line.contains(r#""ok":true"#)
    })?;
    readings(&script.finish(RUN_TIME_MAX, |_, _| {}).map_err(Outcome::Failed)?)
}

/// A `mosquitto_sub` that prints everything the broker publishes. It comes in by the plain door: it is to see what
/// the broker got, not to prove TLS itself.
struct Witness {
    process: Process,
    port: u16,
}

impl Witness {
    fn start(context: &mut Context<'_>) -> Result<Self, Outcome> {
        context.need(&[SUBSCRIBER, PUBLISHER, LINE_BY_LINE])?;
        let (server, _) = context.server(&mosquitto::KIND)?;
        let port = port(server.port("plain"))?;
        let mut command = Command::new(LINE_BY_LINE.program);
        command.args(["-oL", SUBSCRIBER.program, "-d", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", "#", "-v"]);
        let process = Process::start(command).map_err(Outcome::Failed)?;
        let mut witness = Self { process, port };
        witness.sees("its own subscription", |line| line.starts_with("Subscribed"))?;
        Ok(witness)
    }

    fn sees(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<(), Outcome> {
        let line = self.process.wait_for_line(RUN_TIME_MAX, wanted);
        line.map(|_| ()).map_err(|error| Outcome::Failed(format!("mosquitto_sub does not see {what}: {error}")))
    }
}

fn refuses(context: &mut Context<'_>, door: Door, reasons: &[&str]) -> Result<(), Outcome> {
    let environment = environment(context, door)?;
    refused(&run_script(context, &environment)?, reasons)
}

/// It failed by itself, published nothing, and said one of the reasons.
fn refused(finished: &Finished, reasons: &[&str]) -> Result<(), Outcome> {
    if finished.ending != crate::process::Ending::Status(1) {
        return Err(Outcome::Failed(format!("it should fail with status 1\n{}", finished.summary())));
    }
    let said = format!("{}{}", finished.stdout, finished.stderr);
    if reasons.iter().any(|reason| said.contains(reason)) {
        return Ok(());
    }
    Err(Outcome::Failed(format!("none of {reasons:?} is said\n{}", finished.summary())))
}

fn port(port: Option<u16>) -> Result<u16, Outcome> {
    port.ok_or_else(|| Outcome::Failed("the broker has no such listener".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ending;

    fn finished(status: i32, stdout: &str, stderr: &str) -> Finished {
        Finished { ending: Ending::Status(status), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn exactly_as_many_readings_as_asked_for() {
        let line = "reading 1: load 0.10, memory 1 of 2 MiB used, up 3 s\n";
        assert_eq!(readings(&finished(0, &line.repeat(3), "")), Ok(()));
        for (status, count) in [(0, 2), (0, 4), (1, 3)] {
            assert!(readings(&finished(status, &line.repeat(count), "")).is_err());
        }
    }

    #[test]
    fn a_refusal_says_why_and_has_status_1() {
        let why = "tls: the certificate expired";
        assert_eq!(refused(&finished(1, "", why), &["expired"]), Ok(()));
        assert!(refused(&finished(0, "", why), &["expired"]).is_err());
        assert!(refused(&finished(1, "", "tls: failed"), &["expired"]).is_err());
    }
}
