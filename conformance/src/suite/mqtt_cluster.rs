//! Nothing is lost when a cluster of brokers loses nodes: three NATS servers keep each message on all three, clients
//! have all of them in their server lists, one server is killed and started again, and then another is cut off.
//!
//! Publishers and workers are peers as in the suite `mqtt_restart`. No broker here has both a cluster and shared
//! subscriptions (NATS, RabbitMQ and ejabberd lack these, Mosquitto that), so each worker has a session and a filter of
//! its own: the work is parted by topics. A server that is cut off is stopped by SIGSTOP: its connections stay open, and
//! nobody answers on them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::chance::{self, Chance};
use super::ledger::{Lapse, Ledger};
use super::peer::{self, PATIENCE, Role, mosquitto_tool, topics};
use super::{Context, Suite};
use crate::outcome::Outcome;
use crate::place::Place;
use crate::ports;
use crate::process::{Process, tail};
use crate::server::mosquitto::{PUBLISHER, SUBSCRIBER};
use crate::server::{nats, open_to_all, own};

/// What becomes of messages when nodes of a cluster go.
pub const SUITE: Suite = Suite {
    name: "mqtt_cluster",
    about: "messages on their way while a cluster of three NATS servers loses one by SIGKILL and one by silence",
    needs: &[],
    servers: &[&nats::KIND],
    time_max: Duration::from_secs(5 * 60),
    cases: |_| Ok(vec![CASE.to_owned()]),
    run,
};

const CASE: &str = "3.1.1: with one node killed and another cut off, what was acknowledged arrives";

const NODES: usize = 3;
const VERSION: &str = "3.1.1";
/// A publisher and the worker that hears it, which begin at different nodes.
const PAIRS: [(&str, &str); NODES] = [("p1", "w1"), ("p2", "w2"), ("p3", "w3")];
/// Messages of each publisher.
const MESSAGES: u32 = 3000;
/// Seconds after which a client gives a silent server up.
const SECONDS: u32 = 2;
/// How long a server is gone at least: longer than a client takes to notice, try it once more, and go on by another.
const ABSENCE: Duration = Duration::from_secs(8);

/// After this long without a message, workers come anew: NATS 2.9 now and then stops serving a session of which a server
/// was struck until its client comes again.
const STALLED: Duration = Duration::from_secs(6);

/// A NATS server that keeps what MQTT clients entrust to it on all three, and sends again what a client does not
/// acknowledge.
const CONFIGURATION: &str = "\
server_name: \"{name}\"
listen: \"127.0.0.1:{client}\"
jetstream { store_dir: \"{folder}/data/{name}\" }
cluster { name: \"three\", listen: \"127.0.0.1:{route}\", routes: [ {routes} ] }
mqtt {
  listen: \"127.0.0.1:{mqtt}\"
  stream_replicas: 3
  consumer_replicas: 3
  ack_wait: \"2s\"
  max_ack_pending: 1000
}
";

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let names = [CASE.to_owned()];
    if context.setting.elsewhere().is_some() {
        context.skip(&names, "it has to end brokers, which are somebody else's");
        return Ok(());
    }
    if let Err(Outcome::Skipped(reason)) = context.need(nats::KIND.needs) {
        context.skip(&names, &reason);
        return Ok(());
    }
    context.against_own(&nats::KIND)?;
    context.case(CASE, |context| match play(context) {
        Ok(said) => {
            context.report.say(&format!("           {CASE}: {said}"));
            Outcome::Passed
        }
        Err(why) => Outcome::Failed(why),
    });
    Ok(())
}

/// Three servers, each of which may be gone.
struct Cluster {
    place: Place,
    /// Where MQTT clients come in.
    ports: Vec<u16>,
    /// The same, and where other clients and other servers come in.
    all_ports: Vec<[u16; 3]>,
    processes: Vec<Process>,
}

impl Cluster {
    fn start(folder: &Path) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("nats: {error}");
        fs::create_dir_all(folder).map_err(io)?;
        let place = Place::new(folder, &[], None);
        let all = ports::free(3 * NODES).map_err(io)?;
        let (client, rest) = all.split_at(NODES);
        let (route, mqtt) = rest.split_at(NODES);
        let routes: Vec<String> = route.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        for node in 0..NODES {
            let text = CONFIGURATION
                .replace("{folder}", &folder.display().to_string())
                .replace("{name}", &name_of(node))
                .replace("{client}", &client[node].to_string())
                .replace("{route}", &route[node].to_string())
                .replace("{mqtt}", &mqtt[node].to_string())
                .replace("{routes}", &routes.join(", "));
            fs::write(folder.join(format!("{}.conf", name_of(node))), text).map_err(io)?;
        }
        open_to_all(folder).map_err(io)?;
        own(&place, nats::SERVER, "data", nats::USER)?;
        let all_ports = (0..NODES).map(|node| [client[node], route[node], mqtt[node]]).collect();
        let mut cluster = Self { place, ports: mqtt.to_vec(), all_ports, processes: Vec::new() };
        for node in 0..NODES {
            let process = cluster.spawn(node)?;
            cluster.processes.push(process);
        }
        for node in 0..NODES {
            cluster.wait_until_ready(node)?;
        }
        Ok(cluster)
    }

    fn log(&self, node: usize) -> PathBuf {
        self.place.folder().join(format!("{}.log", name_of(node)))
    }

    fn spawn(&self, node: usize) -> Result<Process, String> {
        let io = |error: std::io::Error| format!("nats: {error}");
        let log = File::options().create(true).append(true).open(self.log(node)).map_err(io)?;
        let mut command = nats::command(&self.place, &self.place.folder().join(format!("{}.conf", name_of(node))));
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io)?).stderr(log);
        Process::spawn(command).map_err(io)
    }

    /// Waits until a server accepts on all its ports. Where it was gone somebody else may have taken one for a moment:
    /// then it is started once more.
    fn wait_until_ready(&mut self, node: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.all_ports[node].iter().all(|port| ports::answers(*port)) {
            let ended = self.processes[node].ended().is_some();
            if Instant::now() > deadline {
                let log = fs::read(self.log(node)).unwrap_or_default();
                let log = tail(&String::from_utf8_lossy(&log), 20);
                return Err(format!("{} does not start\n{log}", name_of(node)));
            }
            thread::sleep(Duration::from_millis(if ended { 200 } else { 5 }));
            if ended {
                self.processes[node] = self.spawn(node)?;
            }
        }
        Ok(())
    }

    /// Whether every server runs but the one that was killed.
    fn lives(&mut self, killed: Option<usize>) -> Result<(), String> {
        for node in (0..NODES).filter(|node| Some(*node) != killed) {
            if let Some(status) = self.processes[node].ended() {
                let log = fs::read(self.log(node)).unwrap_or_default();
                let log = tail(&String::from_utf8_lossy(&log), 20);
                return Err(format!("{} ended by itself: {status}\n{log}", name_of(node)));
            }
        }
        Ok(())
    }

    /// Starts a server again that was killed.
    fn revive(&mut self, node: usize) -> Result<(), String> {
        self.processes[node] = self.spawn(node)?;
        self.wait_until_ready(node)
    }

    /// The addresses of all nodes, beginning with this one.
    fn urls_from(&self, node: usize) -> Vec<String> {
        (0..NODES).map(|step| format!("mqtt://127.0.0.1:{}", self.ports[(node + step) % NODES])).collect()
    }
}

fn name_of(node: usize) -> String {
    format!("node{}", node + 1)
}

/// Where a run is: who is gone, and since when.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Before,
    Killed(Instant),
    Between,
    CutOff(Instant),
    After,
}

/// When things happen, counted in messages that were received, and to whom.
#[derive(Debug)]
struct Plan {
    killed: usize,
    cut_off: usize,
    kill_at: usize,
    cut_at: usize,
}

impl Plan {
    fn new(chance: &mut Chance, total: usize) -> Self {
        let mut up_to = |most: usize| usize::try_from(chance.up_to(u32::try_from(most).unwrap_or(1))).unwrap_or(1);
        let killed = up_to(NODES) - 1;
        let cut_off = (killed + up_to(NODES - 1)) % NODES;
        let (kill_at, cut_at) = (up_to(total / 5), total * 2 / 5 + up_to(total / 5));
        Self { killed, cut_off, kill_at, cut_at }
    }
}

/// Runs a tool of Mosquitto until it succeeds: while servers look for each other and a leader, nobody is let in.
fn insist(context: &Context<'_>, program: &str, port: u16, arguments: &[&str]) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = mosquitto_tool(context, program, port, arguments) {
        if Instant::now() > deadline {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The workers' sessions are on all three nodes before anything is promised to anybody.
fn make_sessions(context: &Context<'_>, cluster: &Cluster) -> Result<(), String> {
    for (index, (publisher, worker)) in PAIRS.iter().enumerate() {
        let filter = format!("{publisher}/#");
        let arguments = ["-V", "311", "-i", *worker, "-c", "-q", "1", "-t", filter.as_str(), "-E"];
        insist(context, SUBSCRIBER.program, cluster.ports[index], &arguments)?;
    }
    Ok(())
}

/// Starts the worker of a pair, at the node after that of its publisher.
fn start_worker(context: &Context<'_>, cluster: &Cluster, index: usize) -> Result<Process, String> {
    let (publisher, name) = PAIRS[index];
    let role = Role { name, hears: Some(publisher), seconds: Some(SECONDS), ..Role::default() };
    peer::start(context, &cluster.urls_from(index + 1), VERSION, &role)
}

/// One whole run. Answers in words what was seen.
fn play(context: &mut Context<'_>) -> Result<String, String> {
    let seed = chance::seed(context.setting);
    let total = usize::try_from(MESSAGES).unwrap_or_default() * NODES;
    let plan = Plan::new(&mut Chance::new(seed), total);
    let mut cluster = Cluster::start(&context.setting.temporary.join("cluster"))?;
    make_sessions(context, &cluster)?;

    let mut peers = Vec::new();
    for (index, (publisher, worker)) in PAIRS.into_iter().enumerate() {
        peers.push((worker, start_worker(context, &cluster, index)?));
        let name = publisher;
        let saying =
            Role { name, numbers: Some((1, MESSAGES)), qos_1_only: true, seconds: Some(SECONDS), ..Role::default() };
        peers.push((publisher, peer::start(context, &cluster.urls_from(index), VERSION, &saying)?));
    }
    let began = Instant::now();
    let (ledger, stalled) = watch(context, &mut cluster, &mut peers, &plan, total)
        .map_err(|error| format!("{error}\nto see it again: --seed {seed}"))?;
    let seconds = began.elapsed().as_secs_f64();
    let said = ledger.judge(Lapse::Order).map_err(|error| format!("{error}\nto see it again: --seed {seed}"))?;
    let connections: u32 = ledger.connections.values().sum();
    Ok(format!(
        "{} killed and {} cut off in {seconds:.1} s (seed {seed}), {} clients with {connections} connections, {stalled} workers that \
         had to come again: {said}",
        name_of(plan.killed),
        name_of(plan.cut_off),
        peers.len()
    ))
}

/// The peers whose last connection is to this port, with the port and how many connections they have had.
fn connected_to(ledger: &Ledger, port: u16) -> Vec<(String, u32, usize)> {
    let port = u32::from(port);
    let here = ledger.ports.iter().filter(|(_, ports)| ports.last() == Some(&port));
    here.map(|(name, ports)| (name.clone(), port, ports.len())).collect()
}

/// Strikes the nodes while messages are on their way, and answers what peers have said once everything has come, or
/// nothing more comes.
fn watch(
    context: &Context<'_>,
    cluster: &mut Cluster,
    peers: &mut [(&str, Process)],
    plan: &Plan,
    total: usize,
) -> Result<(Ledger, usize), String> {
    let mut ledger = Ledger::default();
    let mut stage = Stage::Before;
    let mut last_progress = Instant::now();
    let expected: BTreeSet<String> =
        PAIRS.iter().flat_map(|(name, _)| topics(name)).filter(|topic| topic.contains("/qos1/")).collect();
    let (mut last_sent, mut stalled) = (false, 0);
    let mut struck = Vec::new();
    loop {
        let before = ledger.received_count() + ledger.ended.len();
        for (name, process) in peers.iter_mut() {
            for line in process.take_lines(Duration::from_millis(1)) {
                ledger.take(&line);
            }
            // A publisher ends once it is done; its last lines may still be on their way.
            let is_worker = PAIRS.iter().any(|(_, worker)| worker == name);
            if process.ended().is_some_and(|status| is_worker || !status.success()) {
                return Err(format!("peer {name} has ended\n{}", process.printed()));
            }
        }
        cluster.lives(matches!(stage, Stage::Killed(_)).then_some(plan.killed))?;
        let progress = ledger.received_count();
        if progress + ledger.ended.len() > before {
            last_progress = Instant::now();
        }
        let stuck = last_progress.elapsed() > PATIENCE || context.time_left().is_zero();
        let published = usize::try_from(ledger.published).unwrap_or_default() == NODES;
        stage = match stage {
            Stage::Before if progress >= plan.kill_at => {
                struck.extend(connected_to(&ledger, cluster.ports[plan.killed]));
                cluster.processes[plan.killed].kill();
                Stage::Killed(Instant::now())
            }
            Stage::Killed(since) if since.elapsed() > ABSENCE => {
                cluster.revive(plan.killed)?;
                Stage::Between
            }
            Stage::Between if progress >= plan.cut_at => {
                struck.extend(connected_to(&ledger, cluster.ports[plan.cut_off]));
                cluster.processes[plan.cut_off].freeze();
                Stage::CutOff(Instant::now())
            }
            Stage::CutOff(since) if since.elapsed() > ABSENCE => {
                cluster.processes[plan.cut_off].thaw();
                Stage::After
            }
            Stage::Before | Stage::Between if published => {
                return Err("everything was published before both nodes were struck".to_owned());
            }
            same => same,
        };
        if published && matches!(stage, Stage::After) && !last_sent {
            for topic in &expected {
                let arguments = ["-V", "311", "-q", "1", "-t", topic.as_str(), "-m", "end"];
                insist(context, PUBLISHER.program, cluster.ports[plan.killed], &arguments)?;
            }
            last_sent = true;
        }
        // What a server had sent and heard nothing of comes again later than what is new.
        if last_sent && ledger.ended == expected && (ledger.is_complete() || stuck) {
            break;
        }
        if last_sent && last_progress.elapsed() > STALLED && stalled == 0 {
            for (index, (publisher, worker)) in PAIRS.iter().enumerate() {
                if ledger.is_complete_of(publisher) {
                    continue;
                }
                let Some((_, process)) = peers.iter_mut().find(|(name, _)| name == worker) else { continue };
                process.kill().iter().for_each(|line| ledger.take(line));
                *process = start_worker(context, cluster, index)?;
                stalled += 1;
            }
            last_progress = Instant::now();
        }
        if stuck {
            let ends: Vec<String> =
                peers.iter().map(|(name, process)| format!("{name}: {}", process.printed())).collect();
            return Err(format!(
                "nothing gets on in stage {stage:?} after {progress} of {total} messages\n{}",
                ends.join("\n")
            ));
        }
    }
    for (name, port, connections) in &struck {
        if ledger.ports[name][*connections..].iter().all(|other| other == port)
            && !ledger.was_done_by(name, *connections)
        {
            return Err(format!("{name} lost its server on port {port} and did not go on by another"));
        }
    }
    Ok((ledger, stalled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_struck_where_it_is_connected_now() {
        let mut ledger = Ledger::default();
        for line in [
            "connected a 1 1883",
            "connected b 1 1883",
            "connected a 2 1884",
            "connected b 2 1884",
            "connected b 3 1883",
        ] {
            ledger.take(line);
        }
        assert_eq!(connected_to(&ledger, 1883), [("b".to_owned(), 1883, 3)]);
        assert_eq!(connected_to(&ledger, 1884), [("a".to_owned(), 1884, 2)]);
    }

    #[test]
    fn two_different_nodes_are_struck_one_after_the_other_under_load() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let plan = Plan::new(&mut Chance::new(seed), 1000);
            assert_ne!(plan.killed, plan.cut_off);
            assert!(plan.killed < NODES && plan.cut_off < NODES);
            assert!((1..=200).contains(&plan.kill_at) && (401..=600).contains(&plan.cut_at), "{plan:?}");
            seen.insert((plan.killed, plan.cut_off));
        }
        assert_eq!(seen.len(), NODES * (NODES - 1), "each node in each part");
    }
}
