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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

const PEER: &str = "conformance/mqtt_restart/peer.lua";

/// Messages of each QoS and each way.
const MESSAGES: u32 = 2000;
/// How often the broker is ended, and the publisher.
const STRIKES: u32 = 25;
const KILLS: u32 = 20;

/// Nothing takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);
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
    context.against(&mosquitto::KIND);
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

// What was promised and what came --------------------------------------------

/// A message: topic and number.
type Message = (String, u32);

/// What peers have said.
#[derive(Debug, Default)]
struct Ledger {
    accepted: BTreeSet<Message>,
    /// When it was acknowledged to the end: on which connection of its publisher.
    acknowledged: BTreeMap<Message, u32>,
    /// PUBREC had come when a connection was lost.
    owned: BTreeSet<Message>,
    forgotten: u32,
    /// Identifiers under which the broker sent another message of QoS 2, not marked as sent again: as many were not
    /// new to whoever keeps the promise of QoS 2 [MQTT-4.3.3-10].
    reused: u32,
    /// In the order in which they came, with the connection of the subscriber.
    received: BTreeMap<String, Vec<(u32, u32)>>,
    ended: BTreeSet<String>,
    /// The last connection of each peer.
    connections: BTreeMap<String, u32>,
    subscribed: u32,
    published: u32,
    failed: Vec<String>,
}

impl Ledger {
    /// Takes a line of `peer.lua`.
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u32>().ok());
        let message = || Some(((*words.get(1)?).to_owned(), number(2)?));
        match (words[0], message(), number(3)) {
            ("subscribed", ..) => self.subscribed += 1,
            ("published", ..) => self.published += 1,
            ("connected", Some((name, connection)), _) => drop(self.connections.insert(name, connection)),
            ("accepted", Some(message), _) => drop(self.accepted.insert(message)),
            ("acknowledged", Some(message), Some(connection)) => {
                self.acknowledged.insert(message, connection);
            }
            ("owned", Some(message), _) => drop(self.owned.insert(message)),
            ("forgotten", Some(message), _) => {
                self.owned.insert(message);
                self.forgotten += 1;
            }
            ("received", Some((topic, number)), Some(connection)) => {
                self.received.entry(topic).or_default().push((number, connection));
            }
            ("received", None, _) if words.get(2) == Some(&"end") => {
                self.ended.insert(words[1].to_owned());
            }
            _ => self.failed.push(line.to_owned()),
        }
    }

    /// How far things have got: messages accepted from a publisher that is to be killed, else messages received.
    fn progress(&self, plan: Plan) -> u32 {
        let count = if plan.kills_publisher { self.accepted.len() } else { self.received.values().map(Vec::len).sum() };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Compares what was promised with what came. A broker that was `killed` goes on from an earlier moment: it may have
    /// forgotten what it acknowledged on a connection that was not its publisher's last, deliver again on another
    /// connection what it had delivered, and mistake its own identifiers. Otherwise nothing may be missing, nothing
    /// come twice at QoS 2, nothing out of order.
    fn judge(&self, killed: bool) -> Result<String, String> {
        let mut wrong = self.failed.clone();
        let (mut forgotten, mut again, mut hidden, mut disordered) = (0, 0, 0, 0);
        let came: BTreeSet<Message> = self
            .received
            .iter()
            .flat_map(|(topic, came)| came.iter().map(move |(number, _)| (topic.clone(), *number)))
            .collect();
        for message in self.accepted.difference(&came) {
            let acknowledged = self.acknowledged.get(message).copied();
            let earlier = acknowledged
                .is_some_and(|connection| Some(&connection) < self.connections.get(publisher_of(&message.0)));
            if killed && (earlier || self.owned.contains(message)) {
                forgotten += 1;
            } else if killed && message.0.contains("/qos2/") && hidden < self.reused {
                hidden += 1;
            } else {
                wrong.push(format!("lost: {message:?}, acknowledged on connection {acknowledged:?}"));
            }
        }
        for (topic, came) in &self.received {
            let mut first: BTreeMap<u32, u32> = BTreeMap::new();
            let mut highest = 0;
            for &(number, connection) in came {
                if let Some(&earlier) = first.get(&number) {
                    let other_connection = earlier < connection;
                    if topic.contains("/qos2/") && !(killed && other_connection) {
                        wrong.push(format!("twice: {topic} {number}, on connections {earlier} and {connection}"));
                    }
                    again += u32::from(topic.contains("/qos2/"));
                    continue;
                }
                if number < highest && killed {
                    disordered += 1;
                } else if number < highest {
                    wrong.push(format!("out of order: {topic} {number} after {highest}"));
                }
                highest = highest.max(number);
                first.insert(number, connection);
            }
        }
        let count = wrong.len();
        if count > 0 {
            wrong.truncate(20);
            return Err(format!("{count} broken promises, the first of them:\n{}", wrong.join("\n")));
        }
        let of = |qos: &str| self.accepted.iter().filter(|(topic, _)| topic.contains(qos)).count();
        let mut said = format!("{} of QoS 1 and {} of QoS 2 accepted", of("/qos1/"), of("/qos2/"));
        let repeated: usize =
            self.received.iter().filter(|(topic, _)| topic.contains("/qos1/")).map(|(_, c)| c.len()).sum();
        said.push_str(&format!(", {} distinct received, {repeated} times QoS 1", came.len()));
        if killed {
            said.push_str(&format!(
                "; the broker forgot {forgotten} after acknowledging them (it said so of {}), hid {hidden} behind \
                 identifiers it used twice ({} of them), delivered {again} of QoS 2 again and {disordered} out of order",
                self.forgotten, self.reused
            ));
        }
        Ok(said)
    }
}

/// The first level of its topics.
fn publisher_of(topic: &str) -> &str {
    topic.split('/').next().unwrap_or_default()
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

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    /// A number from 1 to `most`.
    fn up_to(&mut self, most: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let high = (mixed ^ (mixed >> 31)) >> 32;
        1 + u32::try_from(high % u64::from(most.max(1))).unwrap_or(0)
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
        (name, other): (&'static str, Option<&'static str>),
        plan: Plan,
        port: u16,
        numbers: Option<(u32, u32)>,
        store: Option<PathBuf>,
    ) -> Result<Self, String> {
        let mut command = context.setting.moonwire();
        command.args([PEER, &format!("mqtt://127.0.0.1:{port}"), plan.version, name]).args(&store);
        command.env("MOONWIRE_LOG", "error");
        if let Some((first, last)) = numbers {
            command.env("PEER_PUBLISH", name);
            command.env("PEER_FIRST", first.to_string()).env("PEER_COUNT", last.to_string());
        }
        if let Some(other) = other {
            command.env("PEER_SUBSCRIBE", format!("{other}/#"));
        }
        let process = Process::start(command)?;
        Ok(Self { name, publishes: numbers.is_some(), subscribes: other.is_some(), store, process })
    }
}

/// The topics of a peer.
fn topics(name: &str) -> impl Iterator<Item = String> {
    [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().map(move |(qos, half)| format!("{name}/qos{qos}/{half}"))
}

/// Runs a tool of Mosquitto to its end.
fn mosquitto_tool(context: &Context<'_>, program: &str, port: u16, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(tools::find(program).unwrap_or_else(|| program.into()));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    context.succeed(command, PATIENCE).map(drop).map_err(|error| format!("{program}: {error}"))
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
    let seed = context.setting.seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| u64::from(since.subsec_nanos()) + since.as_secs())
    });
    let in_words = |error: String| {
        format!(
            "{error}
to see it again: --seed {seed}"
        )
    };
    let mut chance = Chance(seed);
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
        let before = ledger.progress(plan);
        for peer in &mut peers {
            for line in peer.process.take_lines(Duration::from_millis(1)) {
                ledger.take(&line);
            }
            if peer.process.ended().is_some() && (peer.subscribes || ledger.published < publishers) {
                return Err(in_words(format!("peer {} has ended\n{}", peer.name, peer.process.printed())));
            }
        }
        let progress = ledger.progress(plan);
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
    let said = ledger.judge(plan.blow == Blow::Kill).map_err(in_words)?;
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

    fn ledger(lines: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        lines.iter().for_each(|line| ledger.take(line));
        ledger
    }

    #[test]
    fn what_was_accepted_and_came_in_order_is_well() {
        let lines = [
            "accepted a/qos1/1 1",
            "accepted a/qos1/1 2",
            "accepted a/qos2/1 1",
            "acknowledged a/qos1/1 1 1",
            "received a/qos1/1 1 1",
            "received a/qos1/1 2 1",
            "received a/qos1/1 1 2",
            "received a/qos1/1 2 2",
            "received a/qos2/1 1 1",
            "received a/qos2/1 2 1",
            "received a/qos2/1 end 1",
            "published",
            "subscribed",
        ];
        let ledger = ledger(&lines);
        assert!(ledger.judge(false).is_ok(), "QoS 1 comes twice, and one came that was not said to be accepted");
        let plan = Plan { version: "5", blow: Blow::Restart, kills_publisher: false };
        assert_eq!((ledger.progress(plan), ledger.published, ledger.subscribed, ledger.ended.len()), (6, 1, 1, 1));
    }

    #[test]
    fn a_loss_is_excused_only_where_a_killed_broker_had_acknowledged() {
        for (line, excused) in [
            ("acknowledged a/qos1/1 1 1", true),
            ("acknowledged a/qos1/1 1 2", false),
            ("owned a/qos1/1 1 1", true),
            ("forgotten a/qos1/1 1", true),
            ("subscribed", false),
        ] {
            let ledger = ledger(&["connected a 2", "accepted a/qos1/1 1", line]);
            assert!(ledger.judge(false).unwrap_err().contains("lost"), "{line}");
            assert_eq!(ledger.judge(true).is_ok(), excused, "{line}");
        }
    }

    #[test]
    fn qos_2_comes_twice_only_where_a_killed_broker_forgot_and_only_on_another_connection() {
        let twice = |second| ledger(&["accepted a/qos2/1 1", "received a/qos2/1 1 1", second]);
        let other = twice("received a/qos2/1 1 2");
        assert!(other.judge(false).unwrap_err().contains("twice"));
        assert!(other.judge(true).unwrap().contains("1 of QoS 2 again"));
        assert!(twice("received a/qos2/1 1 1").judge(true).is_err());
    }

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
        let mut ledger = ledger(&[&lines[..2], &["received a/qos1/1 1 1"]].concat());
        assert!(ledger.judge(true).is_err());
        ledger.reused = 1;
        assert!(ledger.judge(true).unwrap().contains("hid 1 "));
        assert!(ledger.judge(false).is_err());
        ledger.take(lines[2]);
        ledger.received.clear();
        assert!(ledger.judge(true).is_err(), "QoS 1 has no such excuse");
    }

    #[test]
    fn order_is_of_each_topic_and_of_what_comes_for_the_first_time() {
        let mixed = ledger(&[
            "received a/qos1/1 2 1",
            "received a/qos1/2 1 1",
            "received a/qos1/1 3 1",
            "received a/qos1/1 2 2",
        ]);
        assert!(mixed.judge(false).is_ok());
        let wrong = ledger(&["received a/qos1/1 2 1", "received a/qos1/1 1 1"]);
        assert!(wrong.judge(false).unwrap_err().contains("out of order"));
        assert!(wrong.judge(true).unwrap().contains("1 out of order"));
    }

    #[test]
    fn what_a_peer_says_that_nobody_understands_is_a_failure() {
        assert!(ledger(&["failed a/qos1/1 1 limit"]).judge(false).is_err());
        assert!(ledger(&["moonwire: error"]).judge(true).is_err());
    }

    #[test]
    fn chance_is_the_same_for_the_same_seed_and_strikes_everybody() {
        let order = victims(&mut Chance(7), 5, 4);
        assert_eq!(order, victims(&mut Chance(7), 5, 4));
        assert_ne!(order, victims(&mut Chance(8), 5, 4));
        assert_eq!(order.iter().filter(|victim| **victim == Victim::Broker).count(), 5);
        assert_eq!(order.len(), 9);
        assert!((0..1000).all(|_| (1..=6).contains(&Chance(3).up_to(6))));
    }
}
