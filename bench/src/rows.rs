//! The rows: what each starts, on which side, and what is claimed of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::child::{Done, Running, free_port};
use crate::machine::{self, LOAD_CORE, SERVER_CORE};
use crate::stats::median;
use crate::{Result, tls};

/// How long load is put on a server in one run.
const LOAD_TIME: Duration = Duration::from_millis(1500);
/// Connections of the rows that need many.
const MANY: usize = 256;
/// Connections that idle, unless the limit of open files forbids.
const IDLE: usize = 10_000;
/// Lines in flight on each connection of the row `lines`.
const BATCH: usize = 16;
/// Starts whose median is the start time of one run.
const STARTS: usize = 20;
/// Handshakes of one run.
const HANDSHAKES: usize = 2000;
/// Messages of one run of the row `smtp`.
const MESSAGES: usize = 2000;

/// Messages of one run of the row `mqttpub`, for each QoS.
const PUBLISHED: [usize; 3] = [1_000_000, 400_000, 200_000];
/// Messages of one run of the row `mqttsub`, for each QoS.
const FLOOD: [usize; 2] = [1_500_000, 600_000];
/// Clients of the row `mqttidle`, unless the limit of open files forbids.
const IDLE_CLIENTS: usize = 2000;

/// Calls of one run of the rows `wsrpc...`.
const CALLS: usize = 100_000;
/// Calls under way at a time.
const CALLS_UNDER_WAY: usize = 32;

/// GETs of one run with one in flight.
const GETS: usize = 10_000;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `moonwire contestant.lua`.
    Ours,
    /// The same in Rust.
    Reference,
}

impl fmt::Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Side::Ours => "ours",
            Side::Reference => "reference",
        })
    }
}

/// What the project says of a metric.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    /// Ours to the reference, where more is better.
    RatioAtLeast(f64),
    /// Ours alone, where less is better.
    AtMost(f64),
    /// Ours alone, where more is better and the reference does next to nothing.
    AtLeast(f64),
}

impl Claim {
    /// Whether medians bear the claim out.
    pub fn is_met(self, ours: f64, ratio: f64) -> bool {
        match self {
            Claim::RatioAtLeast(bound) => ratio >= bound,
            Claim::AtMost(bound) => ours <= bound,
            Claim::AtLeast(bound) => ours >= bound,
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub struct Metric {
    /// What it is of.
    pub name: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// What is claimed.
    pub claim: Claim,
}

/// What one run tells of a metric.
#[derive(Debug)]
pub struct Measured {
    /// In the metric's unit.
    pub value: f64,
    /// Microseconds on its core that each took a server: what else the machine does hardly shows in it.
    pub cost: Option<f64>,
}

impl From<f64> for Measured {
    fn from(value: f64) -> Self {
        Measured { value, cost: None }
    }
}

/// A row that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Pipelined lines, echoed one by one.
    Lines,
    /// Ping-pong of small messages on many connections.
    Echo,
    /// Memory of connections that do nothing.
    Idle,
    /// Time to start, and peak memory of the smallest script.
    Hello,
    /// Full TLS 1.3 handshakes as a client.
    Tls,
    /// Messages to a mail server.
    Smtp,
    /// Messages to a WebSocket server that echoes them.
    Ws,
    /// JSON-RPC calls over WebSocket, made and served.
    #[value(name = "wsrpc")]
    WsRpc,
    /// The same beside jsonrpsee.
    #[value(name = "wsrpcrust")]
    WsRpcRust,
    /// The same beside Python's websockets.
    #[value(name = "wsrpcpython")]
    WsRpcPython,
    /// GETs, one and many in flight.
    Http,
    /// Messages to an MQTT server that acknowledges them.
    #[value(name = "mqttpub")]
    MqttPub,
    /// Messages from an MQTT server.
    #[value(name = "mqttsub")]
    MqttSub,
    /// Memory of MQTT clients that do nothing.
    #[value(name = "mqttidle")]
    MqttIdle,
    /// A large body, piece by piece.
    #[value(name = "httpstream")]
    HttpStream,
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Row::Lines => "lines",
            Row::Echo => "echo",
            Row::Idle => "idle",
            Row::Hello => "hello",
            Row::Tls => "tls",
            Row::Smtp => "smtp",
            Row::Ws => "ws",
            Row::WsRpc => "wsrpc",
            Row::WsRpcRust => "wsrpcrust",
            Row::WsRpcPython => "wsrpcpython",
            Row::Http => "http",
            Row::MqttPub => "mqttpub",
            Row::MqttSub => "mqttsub",
            Row::MqttIdle => "mqttidle",
            Row::HttpStream => "httpstream",
        })
    }
}

impl Row {
    /// All rows, in the order of the table.
    pub const ALL: [Row; 15] = [
        Row::Lines,
        Row::Echo,
        Row::Idle,
        Row::Hello,
        Row::Tls,
        Row::Smtp,
        Row::Ws,
        Row::WsRpc,
        Row::WsRpcRust,
        Row::WsRpcPython,
        Row::MqttPub,
        Row::MqttSub,
        Row::MqttIdle,
        Row::Http,
        Row::HttpStream,
    ];

    /// The row's lines of the table.
    pub fn metrics(self) -> &'static [Metric] {
        use Claim::{AtLeast, AtMost, RatioAtLeast};
        match self {
            Row::Lines => &[
                Metric { name: "lines, 1 connection", unit: "lines/s", claim: RatioAtLeast(0.5) },
                Metric { name: "lines, 256 connections", unit: "lines/s", claim: RatioAtLeast(0.5) },
            ],
            Row::Echo => &[Metric { name: "echo", unit: "trips/s", claim: RatioAtLeast(0.93) }],
            Row::Idle => &[
                Metric { name: "idle, plain", unit: "KiB", claim: AtMost(1.6) },
                Metric { name: "idle, TLS", unit: "KiB", claim: AtMost(9.5) },
            ],
            Row::Hello => &[
                Metric { name: "hello, start", unit: "ms", claim: AtMost(4.0) },
                Metric { name: "hello, peak", unit: "MiB", claim: AtMost(4.5) },
            ],
            Row::Tls => &[Metric { name: "tls", unit: "handshakes/s", claim: RatioAtLeast(0.9) }],
            Row::Smtp => &[
                Metric { name: "smtp, one connection", unit: "messages/s", claim: RatioAtLeast(1.0) },
                Metric { name: "smtp, one each", unit: "messages/s", claim: RatioAtLeast(0.85) },
            ],
            Row::MqttPub => &[
                Metric { name: "mqttpub, QoS 0", unit: "messages/s", claim: AtLeast(700_000.0) },
                Metric { name: "mqttpub, QoS 1", unit: "messages/s", claim: AtLeast(250_000.0) },
                Metric { name: "mqttpub, QoS 2", unit: "messages/s", claim: AtLeast(130_000.0) },
                Metric { name: "mqttpub, peak", unit: "MiB", claim: AtMost(8.0) },
            ],
            Row::MqttSub => &[
                Metric { name: "mqttsub, QoS 0", unit: "messages/s", claim: AtLeast(900_000.0) },
                Metric { name: "mqttsub, QoS 1", unit: "messages/s", claim: AtLeast(450_000.0) },
                Metric { name: "mqttsub, peak", unit: "MiB", claim: AtMost(8.0) },
            ],
            Row::MqttIdle => &[Metric { name: "mqttidle", unit: "KiB", claim: AtMost(6.0) }],
            Row::Http => &[
                Metric { name: "http, 1 in flight", unit: "GETs/s", claim: RatioAtLeast(0.85) },
                Metric { name: "http, 64 in flight", unit: "GETs/s", claim: RatioAtLeast(0.38) },
                Metric { name: "https, 1 in flight", unit: "GETs/s", claim: RatioAtLeast(0.85) },
            ],
            Row::HttpStream => &[
                Metric { name: "httpstream, plain", unit: "B/s", claim: RatioAtLeast(0.95) },
                Metric { name: "httpstream, TLS", unit: "B/s", claim: RatioAtLeast(1.0) },
                Metric { name: "httpstream, peak", unit: "MiB", claim: AtMost(8.0) },
            ],
            Row::WsRpc => &[
                Metric { name: "wsrpc, made", unit: "calls/s", claim: AtLeast(60_000.0) },
                Metric { name: "wsrpc, served", unit: "calls/s", claim: AtLeast(60_000.0) },
            ],
            Row::WsRpcRust => &[
                Metric { name: "wsrpc, made, jsonrpsee", unit: "calls/s", claim: RatioAtLeast(1.0) },
                Metric { name: "wsrpc, served, jsonrpsee", unit: "calls/s", claim: RatioAtLeast(1.0) },
            ],
            Row::WsRpcPython => &[
                Metric { name: "wsrpc, made, Python", unit: "calls/s", claim: RatioAtLeast(2.0) },
                Metric { name: "wsrpc, served, Python", unit: "calls/s", claim: RatioAtLeast(2.0) },
            ],
            Row::Ws => &[
                Metric { name: "ws, 32 B", unit: "messages/s", claim: RatioAtLeast(0.75) },
                Metric { name: "ws, 64 KiB", unit: "messages/s", claim: RatioAtLeast(0.75) },
                Metric { name: "ws, idle", unit: "KiB", claim: AtMost(2.2) },
            ],
        }
    }

    /// Runs one side once: a value for each of the row's metrics.
    pub fn measure(self, side: Side, bench: &Bench) -> Result<Vec<Measured>> {
        match self {
            Row::Lines => [1, MANY].map(|many| bench.throughput(side, "lines", many, BATCH)).into_iter().collect(),
            Row::Echo => Ok(vec![bench.throughput(side, "echo", MANY, 1)?]),
            Row::Idle => [false, true].map(|secure| bench.idle(side, "echo", "hold", secure)).into_iter().collect(),
            Row::Hello => Ok(vec![bench.start(side)?, bench.peak(side)?]),
            Row::Tls => Ok(vec![bench.handshakes(side)?]),
            Row::Smtp => ["reuse", "new"].map(|mode| bench.mail(side, mode)).into_iter().collect(),
            Row::MqttPub => bench.mqtt(side, "mqttpub", &PUBLISHED, |qos, count| {
                vec![format!("qos={qos}"), format!("n={count}"), "size=100".to_owned(), "window=20".to_owned()]
            }),
            Row::MqttSub => bench.mqtt(side, "mqttsub", &FLOOD, |qos, count| {
                vec![format!("qos={qos}"), format!("n={count}"), format!("topic=flood/{count}/100/{qos}")]
            }),
            Row::MqttIdle => Ok(vec![bench.idle_clients(side)?]),
            Row::Http => [(1, false), (64, false), (1, true)]
                .map(|(conc, secure)| {
                    let count = if conc == 1 { GETS } else { GETS * 4 };
                    let done = bench.get(side, "http", &[format!("n={count}"), format!("conc={conc}")], secure)?;
                    Ok((done.n / done.secs).into())
                })
                .into_iter()
                .collect(),
            Row::HttpStream => {
                let done = [bench.get(side, "httpstream", &[], false)?, bench.get(side, "httpstream", &[], true)?];
                let peak = done.iter().filter_map(|done| done.peak).fold(0.0, f64::max) / 1024.0;
                Ok(done.iter().map(|done| done.n / done.secs).chain([peak]).map(Measured::from).collect())
            }
            Row::WsRpc | Row::WsRpcRust | Row::WsRpcPython => {
                [false, true].map(|served| bench.calls(self, side, served)).into_iter().collect()
            }
            Row::Ws => [(200_000, 32, "text", 32), (10_000, 65_536, "binary", 2)]
                .map(|case| bench.web(side, case))
                .into_iter()
                .chain([bench.idle(side, "wsecho", "ws-hold", false)])
                .collect(),
        }
    }
}

/// What all rows need.
pub struct Bench {
    moonwire: PathBuf,
    myself: PathBuf,
    contestant: PathBuf,
    identity: TempDir,
    idle: usize,
}

impl Bench {
    /// Finds the programs, makes a certificate, and prepares this process.
    pub fn new(moonwire: Option<PathBuf>) -> Result<Self> {
        let myself = std::env::current_exe()?;
        let moonwire = moonwire.unwrap_or_else(|| myself.with_file_name("moonwire"));
        if !moonwire.is_file() {
            let hint = "build it with `cargo build --release -p moonwire`, or name one by --moonwire";
            return Err(format!("{} is not there: {hint}", moonwire.display()).into());
        }
        // Ends on the load's core, where this process stays.
        if ![SERVER_CORE, LOAD_CORE].into_iter().all(machine::stay_on) {
            eprintln!("moonwire-bench: servers and load have no core each: expect ratios nearer to 1");
        }
        let contestant = Path::new(env!("CARGO_MANIFEST_DIR")).join("contestant.lua");
        let identity = TempDir::new()?;
        tls::write_identity(identity.path())?;
        // The rest is for what a program has open besides its connections.
        let idle = IDLE.min(usize::try_from(machine::raise_open_files()?)?.saturating_sub(64));
        if idle < IDLE {
            eprintln!("moonwire-bench: the limit of open files allows only {idle} idle connections");
        }
        Ok(Bench { moonwire, myself, contestant, identity, idle })
    }

    /// A part of this executable.
    fn role(&self, part: &str) -> Command {
        let mut command = Command::new(&self.myself);
        command.args(["role", part]);
        command
    }

    /// The command of one side; both take the same words.
    fn side(&self, side: Side, part: &str) -> Command {
        match side {
            Side::Reference => self.role(part),
            Side::Ours => {
                let mut command = Command::new(&self.moonwire);
                command.arg(&self.contestant).arg(part);
                command
            }
        }
    }

    /// The words that name a server's certificate.
    fn identity(&self) -> [String; 2] {
        ["cert", "key"]
            .map(|name| format!("{name}={}", self.identity.path().join(name).with_extension("pem").display()))
    }

    /// Messages or lines a second that a server echoes.
    fn throughput(&self, side: Side, part: &str, connections: usize, batch: usize) -> Result<Measured> {
        let port = free_port()?;
        let server = Running::server(self.side(side, part).arg(format!("port={port}")), port)?;
        let before = machine::seconds_on_core(server.id());
        let mut load = self.role("load");
        load.args([format!("port={port}"), format!("conns={connections}"), format!("batch={batch}")]);
        let done = Running::client(load.arg(format!("secs={}", LOAD_TIME.as_secs_f64())))?.done()?;
        let spent = machine::seconds_on_core(server.id()).zip(before).map(|(after, before)| after - before);
        let cost = spent.zip(done.all).map(|(spent, all)| spent * 1e6 / all);
        Ok(Measured { value: done.n / done.secs, cost })
    }

    /// KiB of resident memory that a connection costs its server, after one ping.
    fn idle(&self, side: Side, part: &str, holder: &str, secure: bool) -> Result<Measured> {
        let port = free_port()?;
        let mut command = self.side(side, part);
        command.arg(format!("port={port}"));
        let mut hold = self.role(holder);
        hold.args([format!("port={port}"), format!("conns={}", self.idle)]);
        if secure {
            command.args(self.identity());
            hold.arg("tls=yes");
        }
        let server = Running::server(&mut command, port)?;
        let before = machine::resident_kib(server.id())?;
        let mut holder = Running::client(&mut hold)?;
        let done = holder.done()?;
        let after = machine::resident_kib(server.id())?;
        Ok(((after - before) / done.n).into())
    }

    /// Milliseconds from the start of the program to its end: the median of some starts.
    fn start(&self, side: Side) -> Result<Measured> {
        let mut times = Vec::with_capacity(STARTS);
        for _ in 0..=STARTS {
            let mut command = self.side(side, "hello");
            command.stdin(Stdio::null()).stdout(Stdio::null());
            machine::stay_on(SERVER_CORE);
            let begun = Instant::now();
            let started = command.spawn();
            machine::stay_on(LOAD_CORE);
            let status = started?.wait()?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            if !status.success() {
                return Err(format!("it ended with {status}").into());
            }
        }
        // The first reads the program from disk.
        Ok(median(&times[1..]).ok_or("it was not started")?.into())
    }

    /// MiB of resident memory at the program's peak.
    fn peak(&self, side: Side) -> Result<Measured> {
        let done = Running::beside_load(&mut self.peak_of(&self.side(side, "hello")))?.done()?;
        Ok((done.peak.ok_or("its memory was not told")? / 1024.0).into())
    }

    /// The command that runs another and tells its peak.
    fn peak_of(&self, said: &Command) -> Command {
        let mut command = self.role("peak");
        command.arg(said.get_program()).args(said.get_args());
        command
    }

    /// Messages a second, as a client of a mail server.
    fn mail(&self, side: Side, mode: &str) -> Result<Measured> {
        let port = free_port()?;
        let mut server = self.role("mail-server");
        let _server = Running::server(server.arg(format!("port={port}")), port)?;
        let mut client = self.side(side, "smtp");
        let words = [format!("port={port}"), format!("n={MESSAGES}"), format!("mode={mode}"), "size=1000".to_owned()];
        let done = Running::client(client.args(words))?.done()?;
        Ok((done.n / done.secs).into())
    }

    /// Messages a second that go to a WebSocket server and back: how many, of how many bytes, of which kind, and how
    /// many under way.
    fn web(&self, side: Side, (count, size, kind, window): (usize, usize, &str, usize)) -> Result<Measured> {
        let port = free_port()?;
        let mut server = self.role("ws-server");
        let _server = Running::server(server.arg(format!("port={port}")), port)?;
        let mut client = self.side(side, "ws");
        client.args([format!("port={port}"), format!("n={count}"), format!("size={size}")]);
        let done = Running::client(client.args([format!("kind={kind}"), format!("window={window}")]))?.done()?;
        Ok((done.n / done.secs).into())
    }

    /// Calls a second over one connection: of a client to the reference's server, or of the reference's client to a
    /// server (`served`).
    fn calls(&self, row: Row, side: Side, served: bool) -> Result<Measured> {
        let port = free_port()?;
        let (count, window) = (CALLS.to_string(), CALLS_UNDER_WAY.to_string());
        let end = |part: &str| match (row, side) {
            (Row::WsRpcRust, Side::Reference) => {
                let mut command = Command::new(self.jsonrpsee());
                match part {
                    "wsrpcserve" => command.args(["server", &port.to_string()]),
                    _ => command.args(["load", &format!("ws://127.0.0.1:{port}/rpc"), &count, &window]),
                };
                command
            }
            (Row::WsRpcPython, Side::Reference) => {
                let mut command = Command::new(python());
                command.arg("-B").arg(self.contestant.with_file_name("rpc_peer.py"));
                match part {
                    "wsrpcserve" => command.args(["serve", &port.to_string()]),
                    _ => command.args(["call", &format!("ws://127.0.0.1:{port}/rpc"), &count, &window]),
                };
                command
            }
            _ => with_words(self.side(side, part), port, &count, &window),
        };
        let other = |part: &str| with_words(self.role(part), port, &count, &window);
        let (mut server, mut client) =
            if served { (end("wsrpcserve"), other("wsrpc")) } else { (other("wsrpcserve"), end("wsrpc")) };
        let server = Running::server(&mut server, port)?;
        let before = machine::seconds_on_core(server.id());
        let done = Running::client(&mut client)?.done()?;
        let spent = machine::seconds_on_core(server.id()).zip(before).map(|(after, before)| after - before);
        let cost = spent.filter(|_| served).map(|spent| spent * 1e6 / done.n);
        Ok(Measured { value: done.n / done.secs, cost })
    }

    /// jsonrpsee's end, which is built by its own command.
    fn jsonrpsee(&self) -> PathBuf {
        let target = self.myself.ancestors().nth(2).unwrap_or(Path::new("target"));
        target.join("wsrpc-jsonrpsee/release/wsrpc-jsonrpsee")
    }

    /// All rows but those whose reference is not installed; says which are left out.
    pub fn possible_rows(&self) -> Vec<Row> {
        let mut rows = Row::ALL.to_vec();
        for (row, program) in [(Row::WsRpcRust, self.jsonrpsee()), (Row::WsRpcPython, python())] {
            if !program.is_file() {
                eprintln!(
                    "moonwire-bench: without {}, the row {row} is left out: see bench/README.md",
                    program.display()
                );
                rows.retain(|one| *one != row);
            }
        }
        rows
    }

    /// Messages a second for each QoS, and the peak of the client's resident memory in MiB, whichever QoS it is of.
    fn mqtt(
        &self,
        side: Side,
        part: &str,
        counts: &[usize],
        words: impl Fn(usize, usize) -> Vec<String>,
    ) -> Result<Vec<Measured>> {
        let port = free_port()?;
        let _sink = Running::server(self.role("mqtt-sink").arg(format!("port={port}")), port)?;
        let (mut values, mut peak) = (Vec::with_capacity(counts.len() + 1), 0.0);
        for (qos, &count) in counts.iter().enumerate() {
            let mut client = self.side(side, part);
            client.arg(format!("port={port}")).args(words(qos, count));
            let done = Running::client(&mut self.peak_of(&client))?.done()?;
            values.push((done.n / done.secs).into());
            peak = f64::max(peak, done.peak.ok_or("its memory was not told")?);
        }
        values.push((peak / 1024.0).into());
        Ok(values)
    }

    /// KiB of resident memory that an MQTT client costs its process, once it is connected.
    fn idle_clients(&self, side: Side) -> Result<Measured> {
        let port = free_port()?;
        let _sink = Running::server(self.role("mqtt-sink").arg(format!("port={port}")), port)?;
        let mut command = self.side(side, "mqttidle");
        command.args([format!("port={port}"), format!("n={}", IDLE_CLIENTS.min(self.idle))]);
        let mut holder = Running::client(&mut command)?;
        // The first client's modules are not what each costs.
        holder.done()?;
        let before = machine::resident_kib(holder.id())?;
        holder.go_on()?;
        let done = holder.done()?;
        Ok(((machine::resident_kib(holder.id())? - before) / done.n).into())
    }

    /// What an HTTP client gets done, in what time, with what memory.
    fn get(&self, side: Side, part: &str, words: &[String], secure: bool) -> Result<Done> {
        let port = free_port()?;
        let mut server = self.role("http-server");
        server.arg(format!("port={port}"));
        let mut client = self.side(side, part);
        client.arg(format!("port={port}")).args(words);
        if secure {
            server.args(self.identity());
            client.arg("tls=yes");
        }
        let _server = Running::server(&mut server, port)?;
        Running::client(&mut self.peak_of(&client))?.done()
    }

    /// Full handshakes a second, as a client.
    fn handshakes(&self, side: Side) -> Result<Measured> {
        let port = free_port()?;
        let mut server = self.role("tls-server");
        let _server = Running::server(server.arg(format!("port={port}")).args(self.identity()), port)?;
        let mut client = self.side(side, "tlshs");
        client.args([format!("port={port}"), format!("n={HANDSHAKES}"), "ver=1.3".to_owned()]);
        let done = Running::client(&mut client)?.done()?;
        Ok((done.n / done.secs).into())
    }
}

/// The words that both ends of the rows `wsrpc...` take.
fn with_words(mut command: Command, port: u16, count: &str, window: &str) -> Command {
    command.args([format!("port={port}"), format!("n={count}"), format!("window={window}")]);
    command
}

/// Python with `websockets`, as `conformance/run --install` makes it.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from).join(".cache");
    cache.unwrap_or_else(home).join("moonwire-conformance/python/bin/python")
}
