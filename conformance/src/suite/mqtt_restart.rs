//! Nothing is lost when brokers restart or are killed, nor when the publishing process is: real processes, real signals.
//!
//! Peers (`mqtt_restart/peer.lua`) publish numbered messages and say what was promised to them. Meanwhile Mosquitto is
//! ended with SIGTERM or SIGKILL and started again, and the publisher is killed, at moments that a seed chooses among
//! the messages. At the end `mosquitto_pub` publishes a last message to each topic; who has received it has received
//! whatever was going to come before. What was promised is then compared with what came: see [`Ledger::judge`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::chance::{self, Chance};
use super::ledger::{Lapse, Ledger};
use super::peer::{self, PATIENCE, Role, mosquitto_tool, topics};
use super::{Context, Suite};
use crate::outcome::Outcome;
use crate::ports;
use crate::process::{Process, tail};
use crate::server::mosquitto::{self, BROKER, PUBLISHER, SUBSCRIBER};
use crate::tools;

/// What becomes of messages when processes end.
pub const SUITE: Suite = Suite {
    name: "mqtt_restart",
    about: "messages on their way while Mosquitto is restarted and killed, and the publisher is killed",
    needs: &[],
    servers: &[&mosquitto::KIND],
    time_max: Duration::from_secs(30 * 60),
    cases: |_| Ok(all_cases().map(|(name, _)| name).collect()),
    run,
};

/// Messages of each QoS and each way.
const MESSAGES: u32 = 2000;
/// How often the broker is ended, and the publisher.
const STRIKES: u32 = 25;
const KILLS: u32 = 20;

/// Numbers left out when a publisher goes on: it may have had one of them in hand when it was killed.
const GAP: u32 = 3;

/// Mosquitto, which writes down what it knows when it ends, and every second. More in flight than it is told to allow
/// makes 2.0.11 forget with a restart which of them it had PUBREC for.
const CONFIGURATION: &str = "\
user root
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 1
max_queued_messages 0
max_inflight_messages 10000
set_tcp_nodelay true
log_dest stderr
log_type all
listener {port} 127.0.0.1
";

/// How the broker is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGTERM: it forgets nothing.
    Restart,
    /// SIGKILL: it forgets what it had not written down.
    Kill,
}

/// What happens to whom.
#[derive(Debug, Clone, Copy)]
struct Plan {
    version: &'static str,
    blow: Blow,
    /// The publisher has a store and is killed, too; else both peers publish and live.
    kills_publisher: bool,
}

impl Plan {
    /// How far things have got: messages accepted from a publisher that is to be killed, else messages received.
    fn progress(self, ledger: &Ledger) -> u32 {
        let count = if self.kills_publisher { ledger.accepted.len() } else { ledger.received_count() };
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn all_cases() -> impl Iterator<Item = (String, Plan)> {
    ["5", "3.1.1"].into_iter().flat_map(|version| {
        [
            (
                "while the broker restarts QoS 1 arrives, QoS 2 arrives once, in order",
                Plan { version, blow: Blow::Restart, kills_publisher: false },
            ),
            (
                "when the broker is killed nothing is lost but what it had acknowledged and forgot",
                Plan { version, blow: Blow::Kill, kills_publisher: false },
            ),
            (
                "a publisher that is killed loses nothing of its store, while the broker restarts",
                Plan { version, blow: Blow::Restart, kills_publisher: true },
            ),
        ]
        .map(|(name, plan)| (format!("{version}: {name}"), plan))
    })
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let names: Vec<String> = all_cases().map(|(name, _)| name).collect();
    if context.setting.elsewhere().is_some() {
        context.skip(&names, "it has to end the broker, which is somebody else's");
        return Ok(());
    }
    if let Err(Outcome::Skipped(reason)) = context.need(mosquitto::KIND.needs) {
        context.skip(&names, &reason);
        return Ok(());
    }
    context.against_own(&mosquitto::KIND)?;
    for (name, plan) in all_cases() {
        context.case(&name, |context| match play(context, plan, &name) {
            Ok(said) => {
                context.report.say(&format!("           {name}: {said}"));
                Outcome::Passed
            }
            Err(why) => Outcome::Failed(why),
        });
    }
    Ok(())
}

/// How often a broker's log says that it sent a message of QoS 2 under an identifier that the subscriber had got from
/// it before its last start, and not as a message that is sent again.
fn reused_identifiers(log: &str) -> u32 {
    let mut used: BTreeMap<(String, String), u32> = BTreeMap::new();
    let (mut start, mut reused) = (0, 0);
    for line in log.lines() {
        if line.ends_with(" starting") {
            start += 1;
        }
        let Some((to, about)) =
            line.split_once("Sending PUBLISH to ").and_then(|(_, rest)| rest.split_once(" (d0, q2, "))
        else {
            continue;
        };
        let identifier = about.split(", ").nth(1).unwrap_or_default();
        let before = used.insert((to.to_owned(), identifier.to_owned()), start);
        reused += u32::from(before.is_some_and(|before| before < start));
    }
    reused
}

// Processes ------------------------------------------------------------------

/// A broker that is ended and started again.
struct Broker {
    folder: PathBuf,
    port: u16,
    process: Process,
}

impl Broker {
    fn start(folder: &Path) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("mosquitto: {error}");
        fs::create_dir_all(folder).map_err(io)?;
        let port = ports::free(1).map_err(io)?[0];
        let text =
            CONFIGURATION.replace("{folder}", &folder.display().to_string()).replace("{port}", &port.to_string());
        fs::write(folder.join("mosquitto.conf"), text).map_err(io)?;
        let process = Self::spawn(folder)?;
        let mut broker = Self { folder: folder.to_owned(), port, process };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    fn spawn(folder: &Path) -> Result<Process, String> {
        let io = |error: std::io::Error| format!("mosquitto: {error}");
        let log = File::options().create(true).append(true).open(folder.join("log")).map_err(io)?;
        let mut command = Command::new(tools::find(BROKER.program).unwrap_or_else(|| BROKER.program.into()));
        command.arg("-c").arg(folder.join("mosquitto.conf")).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(io)?).stderr(log);
        Process::spawn(command).map_err(io)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !ports::answers(self.port) {
            if self.process.ended().is_some() || Instant::now() > deadline {
                let log = fs::read(self.folder.join("log")).unwrap_or_default();
                return Err(format!("mosquitto does not start\n{}", tail(&String::from_utf8_lossy(&log), 20)));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it one way or the other, and starts it again at the same place.
    fn strike(&mut self, blow: Blow) -> Result<(), String> {
        match blow {
            Blow::Restart => self.process.end(),
            Blow::Kill => drop(self.process.kill()),
        }
        self.process = Self::spawn(&self.folder)?;
        self.wait_until_ready()
    }
}

/// A running `peer.lua`, and how to start it again.
struct Peer {
    name: &'static str,
    publishes: bool,
    subscribes: bool,
    store: Option<PathBuf>,
    process: Process,
}

impl Peer {
    fn start(
        context: &Context<'_>,
        (name, hears): (&'static str, Option<&'static str>),
        plan: Plan,
        port: u16,
        numbers: Option<(u32, u32)>,
        store: Option<PathBuf>,
    ) -> Result<Self, String> {
        let role = Role { name, numbers, hears, store: store.as_deref(), ..Role::default() };
        let process = peer::start(context, &[format!("mqtt://127.0.0.1:{port}")], plan.version, &role)?;
        Ok(Self { name, publishes: numbers.is_some(), subscribes: hears.is_some(), store, process })
    }
}

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Broker,
    Publisher,
}

/// The victims in an order that chance decides.
fn victims(chance: &mut Chance, brokers: u32, publishers: u32) -> Vec<Victim> {
    let mut left = (brokers, publishers);
    let mut order = Vec::new();
    while left.0 + left.1 > 0 {
        let is_broker = chance.up_to(left.0 + left.1) <= left.0;
        if is_broker {
            left.0 -= 1
        } else {
            left.1 -= 1
        }
        order.push(if is_broker { Victim::Broker } else { Victim::Publisher });
    }
    order
}

/// One whole run. Answers in words what was seen.
fn play(context: &mut Context<'_>, plan: Plan, name: &str) -> Result<String, String> {
    let seed = chance::seed(context.setting);
    let in_words = |error: String| {
        format!(
            "{error}
to see it again: --seed {seed}"
        )
    };
    let mut chance = Chance::new(seed);
    let order = victims(&mut chance, STRIKES, if plan.kills_publisher { KILLS } else { 0 });
    let folder =
        context.setting.temporary.join(format!("restart-{}", name.replace(|c: char| !c.is_alphanumeric(), "_")));
    let mut broker = Broker::start(&folder)?;

    // The sessions are there, and written down, before anything is promised to anybody.
    let pairs: &[(&str, Option<&str>)] =
        if plan.kills_publisher { &[("a", None), ("b", Some("a"))] } else { &[("a", Some("b")), ("b", Some("a"))] };
    let version = if plan.version == "5" { "5" } else { "311" };
    for (name, other) in pairs {
        let Some(other) = other else { continue };
        let filter = format!("{other}/#");
        let arguments = ["-V", version, "-i", *name, "-c", "-q", "2", "-t", filter.as_str(), "-E"];
        mosquitto_tool(context, SUBSCRIBER.program, broker.port, &arguments)?;
    }
    broker.strike(Blow::Restart)?;

    let mut peers = Vec::new();
    for pair in pairs {
        let publishes = !plan.kills_publisher || pair.1.is_none();
        let store = (plan.kills_publisher && publishes).then(|| folder.join("store"));
        peers.push(Peer::start(context, *pair, plan, broker.port, publishes.then_some((1, MESSAGES)), store)?);
    }
    let publishers = u32::try_from(peers.iter().filter(|peer| peer.publishes).count()).unwrap_or(0);
    let total = 2 * MESSAGES * publishers;

    let began = Instant::now();
    let mut ledger = Ledger::default();
    let (mut struck, mut due, mut last_progress) = (0, chance.up_to(2 * total / (STRIKES + KILLS)), Instant::now());
    loop {
        let before = plan.progress(&ledger);
        for peer in &mut peers {
            for line in peer.process.take_lines(Duration::from_millis(1)) {
                ledger.take(&line);
            }
            // One that only publishes ends once it is done; its last lines may still be on their way.
            if peer.process.ended().is_some_and(|status| peer.subscribes || !status.success()) {
                return Err(in_words(format!("peer {} has ended\n{}", peer.name, peer.process.printed())));
            }
        }
        let progress = plan.progress(&ledger);
        if progress > before {
            last_progress = Instant::now();
        }
        if last_progress.elapsed() > PATIENCE || context.time_left().is_zero() {
            let ends: Vec<String> = peers.iter().map(|peer| peer.process.printed()).collect();
            return Err(in_words(format!("nothing gets on after {progress} messages\n{}", ends.join("\n"))));
        }
        let done = ledger.published >= publishers;
        if struck == order.len() {
            if done {
                break;
            }
            continue;
        }
        if progress < due && !done {
            continue;
        }
        match order[struck] {
            Victim::Broker => broker.strike(plan.blow).map_err(in_words)?,
            Victim::Publisher if !done => {
                for line in peers[0].process.kill() {
                    ledger.take(&line);
                }
                let accepted = |qos: u32| {
                    ledger.accepted.iter().filter(|(topic, _)| topic.contains(&format!("/qos{qos}/"))).count()
                };
                let fewest = u32::try_from(accepted(1).min(accepted(2))).unwrap_or(u32::MAX);
                let first = ledger.accepted.iter().map(|(_, number)| *number).max().unwrap_or(0) + GAP;
                let numbers = (first, first + MESSAGES.saturating_sub(fewest));
                let store = peers[0].store.clone();
                peers[0] = Peer::start(context, pairs[0], plan, broker.port, Some(numbers), store).map_err(in_words)?;
            }
            Victim::Publisher => {
                return Err(in_words("the publisher was done before it was killed often enough".to_owned()));
            }
        }
        struck += 1;
        let left = total.saturating_sub(progress);
        let strikes_left = u32::try_from(order.len() - struck).unwrap_or(0);
        due = progress + chance.up_to(2 * left / (strikes_left + 2));
        last_progress = Instant::now();
    }
    let under_way = began.elapsed();

    // Whatever was going to come has come before this.
    let expected: BTreeSet<String> =
        peers.iter().filter(|peer| peer.publishes).flat_map(|peer| topics(peer.name)).collect();
    for topic in &expected {
        let arguments = ["-V", version, "-q", "1", "-t", topic.as_str(), "-m", "end"];
        mosquitto_tool(context, PUBLISHER.program, broker.port, &arguments).map_err(in_words)?;
    }
    let deadline = Instant::now() + PATIENCE;
    while ledger.ended != expected {
        for peer in &mut peers {
            for line in peer.process.take_lines(Duration::from_millis(1)) {
                ledger.take(&line);
            }
        }
        if Instant::now() > deadline {
            let missing: Vec<_> = expected.difference(&ledger.ended).collect();
            return Err(in_words(format!("the last message never came: {missing:?}\n{}", peers[1].process.printed())));
        }
    }
    let log = fs::read(folder.join("log")).unwrap_or_default();
    ledger.reused = reused_identifiers(&String::from_utf8_lossy(&log));
    let said = ledger.judge(if plan.blow == Blow::Kill { Lapse::Memory } else { Lapse::None }).map_err(in_words)?;
    let seconds = under_way.as_secs_f64();
    let brokers = order.iter().filter(|victim| **victim == Victim::Broker).count();
    let how = if plan.blow == Blow::Kill { "kills" } else { "restarts" };
    let publishers = order.len() - brokers;
    Ok(format!(
        "{brokers} {how} of the broker, {publishers} kills of the publisher in {seconds:.1} s (seed {seed}): {said}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_hide_behind_an_identifier_that_a_killed_broker_used_twice() {
        let log = "1: mosquitto version 2.0.11 starting\n\
            1: Sending PUBLISH to b (d0, q2, r0, m7, 'a/qos2/1', ... (1 bytes))\n\
            1: Sending PUBLISH to a (d0, q2, r0, m7, 'b/qos2/1', ... (1 bytes))\n\
            1: mosquitto version 2.0.11 starting\n\
            1: Sending PUBLISH to b (d1, q2, r0, m7, 'a/qos2/1', ... (1 bytes))\n\
            1: Sending PUBLISH to b (d0, q1, r0, m7, 'a/qos2/1', ... (1 bytes))\n";
        assert_eq!(reused_identifiers(log), 0, "sent again, of QoS 1, or to another");
        let log = format!("{log}1: Sending PUBLISH to b (d0, q2, r0, m7, 'a/qos2/1', ... (1 bytes))\n");
        assert_eq!(reused_identifiers(&log), 1);
        let lines = ["accepted a/qos2/1 1", "acknowledged a/qos2/1 1 2", "accepted a/qos1/1 1"];
        let mut ledger = Ledger::default();
        lines[..2].iter().chain(&["received a/qos1/1 1 1"]).for_each(|line| ledger.take(line));
        assert!(ledger.judge(Lapse::Memory).is_err());
        ledger.reused = 1;
        assert!(ledger.judge(Lapse::Memory).unwrap().contains("hid 1 "));
        assert!(ledger.judge(Lapse::None).is_err());
        ledger.take(lines[2]);
        ledger.received.clear();
        assert!(ledger.judge(Lapse::Memory).is_err(), "QoS 1 has no such excuse");
    }

    #[test]
    fn chance_is_the_same_for_the_same_seed_and_strikes_everybody() {
        let order = victims(&mut Chance::new(7), 5, 4);
        assert_eq!(order, victims(&mut Chance::new(7), 5, 4));
        assert_ne!(order, victims(&mut Chance::new(8), 5, 4));
        assert_eq!(order.iter().filter(|victim| **victim == Victim::Broker).count(), 5);
        assert_eq!(order.len(), 9);
    }
}
