//! WebSocket RPC over real sockets: the specification's examples in both directions, jsonrpsee and Python's JSON-RPC as
//! both ends, bad input, and a thousand peers at once: `conformance/wsrpc/`.
//!
//! jsonrpsee is built here, in a workspace of its own, so that the project's does not grow by it. What others do otherwise
//! than the specification says stands in `expected/wsrpc.txt` with its reason.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::against::Comparison;
use super::websocket::{WEBSOCKETS, outcomes};
use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::lua_tests::LuaTest;
use crate::outcome::Outcome;
use crate::process::Process;
use crate::tools::{self, Tool};

/// Ours and theirs, in both roles.
pub const SUITE: Suite = Suite {
    name: "wsrpc",
    about: "WebSocket RPC: the examples of JSON-RPC 2.0, jsonrpsee and Python's JSON-RPC, bad input, a thousand peers",
    needs: &NEEDS,
    servers: &[],
    time_max: Duration::from_secs(20 * 60),
    cases,
    run,
};

// The packages bring no program: Python itself, which comes with the first of them, stands for each.
const SERVER: Tool = Tool::of_python("python", "jsonrpcserver==5.0.9");
const CLIENT: Tool = Tool::of_python("python", "jsonrpcclient==4.0.3");
const NEEDS: [Tool; 3] = [WEBSOCKETS, SERVER, CLIENT];

const FOLDER: &str = "conformance/wsrpc";
const EXPECTED: &str = "conformance/expected/wsrpc.txt";
/// The version that `expected/` speaks of: that of the packages above and of jsonrpsee's lock file.
const VERSION: &str = "1";

const START_TIME_MAX: Duration = Duration::from_secs(30);
/// The other end drives all its cases.
const PEER_TIME_MAX: Duration = Duration::from_secs(3 * 60);
/// jsonrpsee and what it is made of, on a machine that is busy.
const BUILD_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Peers of the case of many.
const PEERS: u32 = 1000;
/// Seconds that their streams run, unless `MOONWIRE_WSRPC_SECONDS` says otherwise.
const SECONDS: u32 = 10;
/// How often a delay may be measured: another program may have had the machine.
const ATTEMPTS: usize = 3;
/// How much more memory a process may have at the end than after ten seconds, and in a run that takes no longer, than
/// after half of it, while the collector of garbage looks for its pace.
const GROWTH_MAX: f64 = 1.1;
const EARLY_GROWTH_MAX: f64 = 1.25;

type Cases = Vec<(String, Outcome)>;
type Part = fn(&mut Context<'_>) -> Result<Cases, Outcome>;

const PARTS: &[(&str, Part)] = &[
    ("our server, the examples", |context| examples(context, false)),
    ("our server with TLS, the examples", |context| examples(context, true)),
    ("our client and server with TLS", |context| {
        let certificates = certificates(context)?;
        let (_server, url) = our_server(context.setting, Some(&certificates))?;
        let words =
            [format!("url={url}"), format!("ca={}", certificates.certificate("ca").display()), "count=yes".into()];
        drive(context, moonwire(context.setting, "client.lua", &words))
    }),
    ("our client, the examples", |context| {
        let (_server, address) = start(python(context.setting, "vectors.py", &["serve"]))?;
        drive(context, moonwire(context.setting, "vectors.lua", &[format!("url=ws://{address}")]))
    }),
    ("our server, bad input", |context| {
        let (_server, listeners) = start(moonwire(context.setting, "server.lua", &[]))?;
        let words: Vec<&str> = listeners.split(' ').collect();
        drive(context, python(context.setting, "hostile.py", &words))
    }),
    ("jsonrpsee to our server", |context| {
        let program = jsonrpsee(context)?;
        let (_server, url) = our_server(context.setting, None)?;
        let mut command = context.setting.command(program);
        command.args(["client", &url]);
        drive(context, command)
    }),
    ("our client to jsonrpsee", |context| {
        let (_server, address) = jsonrpsee_server(context)?;
        let words = [format!("url=ws://{address}"), "count=yes".to_owned()];
        drive(context, moonwire(context.setting, "client.lua", &words))
    }),
    ("jsonrpsee, the examples", |context| {
        let (_server, address) = jsonrpsee_server(context)?;
        drive(context, python(context.setting, "vectors.py", &["ask", &format!("ws://{address}")]))
    }),
    ("jsonrpcclient to our server", |context| {
        let (_server, url) = our_server(context.setting, None)?;
        drive(context, python(context.setting, "peer.py", &["client", &url]))
    }),
    ("our client to jsonrpcserver", |context| {
        let (_server, address) = start(python(context.setting, "peer.py", &["server"]))?;
        drive(context, moonwire(context.setting, "client.lua", &[format!("url=ws://{address}")]))
    }),
    ("jsonrpcserver, the examples", |context| {
        let (_server, address) = start(python(context.setting, "peer.py", &["server"]))?;
        drive(context, python(context.setting, "vectors.py", &["ask", &format!("ws://{address}")]))
    }),
];

/// The cases of many peers, which no server's version decides.
const MANY: [Many; 2] = [
    Many { name: "a thousand peers with a stream each", apart: true, delay_max: 50.0 },
    // Both sides' work is on one core, and their coroutines in one heap.
    Many { name: "a thousand peers with a stream each, in one process", apart: false, delay_max: 100.0 },
];

/// Many peers at once.
struct Many {
    name: &'static str,
    /// Whether server and clients are two processes.
    apart: bool,
    /// Milliseconds in which 99 of 100 values have to come.
    delay_max: f64,
}

impl Many {
    fn cases(&self) -> [String; 3] {
        let in_time = format!("99 of 100 values come within {} ms", self.delay_max);
        [NOTHING_LOST, &in_time, FLAT].map(|case| format!("{}: {case}", self.name))
    }
}

const NOTHING_LOST: &str = "nothing is lost, and all is in order";
const FLAT: &str = "memory stays as it is";

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let expected = Comparison::read(setting, EXPECTED)?;
    let many = MANY.iter().flat_map(Many::cases);
    Ok(expected.names().map(str::to_owned).chain(many).collect())
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let expected = Comparison::read(context.setting, EXPECTED)?;
    if let Err(Outcome::Skipped(reason)) = context.need(&NEEDS) {
        let names = cases(context.setting)?;
        context.skip(&names, &reason);
        return Ok(());
    }
    let (mut results, mut complete) = (Vec::new(), true);
    for (name, part) in PARTS {
        // A part is started when any of its cases may be wanted; which those are is known afterwards.
        let begins = format!("{name}: ");
        let mut known = expected.names().filter(|case| case.starts_with(&begins));
        let wanted = context.setting.case.is_none() || known.any(|case| context.setting.wants(case));
        complete &= wanted;
        if !wanted {
            continue;
        }
        context.report.progress(name);
        let begun = Instant::now();
        match part(context) {
            Ok(cases) => {
                let time = begun.elapsed() / u32::try_from(cases.len()).unwrap_or(1).max(1);
                results.extend(cases.into_iter().map(|(case, outcome)| {
                    let name = format!("{begins}{case}");
                    (name.clone(), LuaTest { file: FOLDER.to_owned(), name, outcome, time })
                }));
            }
            Err(outcome) => {
                complete = false;
                context.report.case(*name, outcome, Some(begun.elapsed()));
            }
        }
    }
    expected.report(context, VERSION, &results, complete)?;
    for many in MANY {
        let names = many.cases();
        if !names.iter().any(|case| context.setting.wants(case)) {
            continue;
        }
        context.report.progress(many.name);
        match run_many(context, &many) {
            Ok(outcomes) => {
                for (case, outcome) in names.iter().zip(outcomes) {
                    context.report.case(case, outcome, None);
                }
            }
            Err(outcome) => context.report.case(many.name, outcome, None),
        }
    }
    Ok(())
}

/// A failure in words.
fn failed(error: impl ToString) -> Outcome {
    Outcome::Failed(error.to_string())
}

fn script(setting: &Setting, name: &str) -> PathBuf {
    setting.root.join(FOLDER).join(name)
}

fn moonwire(setting: &Setting, name: &str, words: &[String]) -> Command {
    let mut command = setting.moonwire_with_suites();
    command.arg(script(setting, name)).args(words);
    command
}

fn python(setting: &Setting, name: &str, words: &[&str]) -> Command {
    let mut command = setting.command(tools::python_program("python"));
    command.arg("-B").arg(script(setting, name)).args(words);
    command
}

/// Starts a server, and answers where it says it listens.
fn start(command: Command) -> Result<(Process, String), Outcome> {
    let mut server = Process::start(command).map_err(failed)?;
    let line = server.wait_for_line(START_TIME_MAX, |line| line.starts_with("listening on ")).map_err(failed)?;
    Ok((server, line.trim_start_matches("listening on ").to_owned()))
}

/// Runs the end that has the cases.
fn drive(context: &Context<'_>, command: Command) -> Result<Cases, Outcome> {
    outcomes(&context.run(command, PEER_TIME_MAX).map_err(failed)?)
}

/// Our server, and the URL of its service.
fn our_server(setting: &Setting, certificates: Option<&Certificates>) -> Result<(Process, String), Outcome> {
    let words = certificates.map_or_else(Vec::new, |certificates| {
        let (certificate, key) = (certificates.certificate("server"), certificates.key("server"));
        vec![format!("cert={}", certificate.display()), format!("key={}", key.display())]
    });
    let (server, listeners) = start(moonwire(setting, "server.lua", &words))?;
    let address = listeners.split(' ').find_map(|word| word.strip_prefix("main=")).unwrap_or_default().to_owned();
    let port = address.rsplit(':').next().unwrap_or_default();
    let secure = certificates.is_some();
    Ok((server, if secure { format!("wss://localhost:{port}/rpc") } else { format!("ws://{address}/rpc") }))
}

fn certificates(context: &Context<'_>) -> Result<Certificates, Outcome> {
    Certificates::make(&context.setting.temporary.join("wsrpc-certificates")).map_err(failed)
}

fn examples(context: &mut Context<'_>, tls: bool) -> Result<Cases, Outcome> {
    let certificates = if tls { Some(certificates(context)?) } else { None };
    let (_server, url) = our_server(context.setting, certificates.as_ref())?;
    let authority = certificates.map(|certificates| certificates.certificate("ca").display().to_string());
    let words: Vec<&str> = ["ask", &url].into_iter().chain(authority.as_deref()).collect();
    drive(context, python(context.setting, "vectors.py", &words))
}

/// Builds jsonrpsee's end, if it is not built: its program.
fn jsonrpsee(context: &Context<'_>) -> Result<PathBuf, Outcome> {
    let root = &context.setting.root;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
    let target = target.join("wsrpc-jsonrpsee");
    let mut command = context.setting.command("cargo");
    command
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(script(context.setting, "jsonrpsee/Cargo.toml"));
    command.arg("--target-dir").arg(&target);
    context.succeed(command, BUILD_TIME_MAX).map_err(failed)?;
    Ok(target.join("debug/wsrpc-jsonrpsee"))
}

fn jsonrpsee_server(context: &Context<'_>) -> Result<(Process, String), Outcome> {
    let mut command = context.setting.command(jsonrpsee(context)?);
    command.arg("server");
    start(command)
}

// A thousand peers

/// What `thousand.lua` tells.
#[derive(Debug, Deserialize)]
struct Told {
    peers: u32,
    seconds: u32,
    expected: u64,
    received: u64,
    out_of_order: u64,
    delay_ms: Delays,
    /// After a sixth of the time, after half of it, and at its end.
    server_kib: [f64; 3],
    client_kib: [f64; 3],
}

#[derive(Debug, Deserialize)]
struct Delays {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Told {
    fn loss(&self) -> Outcome {
        let all = (self.expected, PEERS, 0);
        match (self.received, self.peers, self.out_of_order) == all && self.expected > 0 {
            true => Outcome::Passed,
            false => failed(format!("{self:?}")),
        }
    }

    fn delay(&self, max: f64) -> Outcome {
        if self.delay_ms.p99 < max { Outcome::Passed } else { failed(format!("{self:?}")) }
    }

    fn memory(&self) -> Outcome {
        let (before, growth_max) = if self.seconds >= 60 { (0, GROWTH_MAX) } else { (1, EARLY_GROWTH_MAX) };
        let flat = |kib: [f64; 3]| kib[2] <= kib[before] * growth_max;
        if flat(self.server_kib) && flat(self.client_kib) { Outcome::Passed } else { failed(format!("{self:?}")) }
    }

    /// The figures in a line.
    fn line(&self) -> String {
        let Told { peers, seconds, expected, received, delay_ms: delay, server_kib, client_kib, .. } = self;
        let mib = |kib: &[f64; 3]| kib.map(|kib| format!("{:.1}", kib / 1024.0)).join(", ");
        format!(
            "{peers} peers, {seconds} s: {received} of {expected} values; delay p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} \
             ms; MiB after a sixth, a half and all of it: server {}; clients {}",
            delay.p50,
            delay.p99,
            delay.p999,
            delay.max,
            mib(server_kib),
            mib(client_kib)
        )
    }
}

/// How many programs want the machine's cores, as an average of a minute; nobody's fault here.
fn busy() -> Option<String> {
    let load: f64 = std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()?;
    let cores = std::thread::available_parallelism().ok()?.get();
    (load > 2.0 * cores as f64)
        .then(|| format!("the machine is too busy to measure: a load of {load} on {cores} cores"))
}

/// What becomes of the cases: loss, delay and memory.
fn run_many(context: &mut Context<'_>, many: &Many) -> Result<[Outcome; 3], Outcome> {
    let seconds = match env::var("MOONWIRE_WSRPC_SECONDS") {
        Ok(text) => text.parse().map_err(|_| failed("MOONWIRE_WSRPC_SECONDS wants a number"))?,
        Err(_) => SECONDS,
    };
    // Whoever is busy now may not be in a minute, and what this starts counts as well.
    let busy = busy();
    for attempt in 1.. {
        let (server, words) = if many.apart {
            let (server, address) = start(moonwire(context.setting, "thousand.lua", &["serve".to_owned()]))?;
            (Some(server), vec!["watch".to_owned(), format!("url=ws://{address}/rpc")])
        } else {
            (None, vec!["both".to_owned()])
        };
        let mut command = moonwire(context.setting, "thousand.lua", &words);
        command.args([format!("peers={PEERS}"), format!("seconds={seconds}")]);
        let time_max = PEER_TIME_MAX + Duration::from_secs(u64::from(seconds));
        let finished = context.succeed(command, time_max).map_err(failed)?;
        drop(server);
        let told: Told = serde_json::from_str(finished.stdout.trim())
            .map_err(|error| failed(format!("{error}\n{}", finished.summary())))?;
        context.report.say(&format!("wsrpc      {}", told.line()));
        // Values that wait because the machine is elsewhere take their time, and memory.
        let fair = |outcome| match (outcome, &busy) {
            (Outcome::Failed(_), Some(busy)) => Outcome::Skipped(busy.clone()),
            (outcome, _) => outcome,
        };
        let (in_time, flat) = (fair(told.delay(many.delay_max)), fair(told.memory()));
        // What is lost is never a matter of who else has the machine.
        let certain = told.loss() != Outcome::Passed;
        if !matches!(in_time, Outcome::Failed(_)) || certain || attempt == ATTEMPTS {
            return Ok([told.loss(), in_time, flat]);
        }
    }
    Err(failed("there is no attempt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl Fn(&mut Told)) -> Told {
        let mut told: Told = serde_json::from_str(
            r#"{"peers": 1000, "seconds": 10, "expected": 100000, "received": 100000, "out_of_order": 0,
                "delay_ms": {"p50": 1, "p99": 12.5, "p999": 20, "max": 30},
                "server_kib": [30000, 33000, 33500], "client_kib": [39000, 40000, 39000]}"#,
        )
        .unwrap();
        change(&mut told);
        told
    }

    #[test]
    fn each_figure_is_judged() {
        let fine = told(|_| {});
        assert_eq!((fine.loss(), fine.delay(50.0), fine.memory()), (Outcome::Passed, Outcome::Passed, Outcome::Passed));
        let is_failed = |outcome| matches!(outcome, Outcome::Failed(_));
        assert!(is_failed(told(|told| told.received -= 1).loss()));
        assert!(is_failed(told(|told| told.peers -= 1).loss()));
        assert!(is_failed(told(|told| told.out_of_order = 1).loss()));
        assert!(is_failed(told(|told| (told.expected, told.received) = (0, 0)).loss()));
        assert!(is_failed(told(|told| told.delay_ms.p99 = 50.0).delay(50.0)));
        assert!(is_failed(told(|told| told.server_kib[2] = 42000.0).memory()));
        assert!(is_failed(told(|told| (told.seconds, told.server_kib[0]) = (60, 25000.0)).memory()));
        assert!(is_failed(told(|told| told.client_kib[2] = 51000.0).memory()));
    }

    #[test]
    fn every_part_has_a_name_of_its_own_that_begins_no_other() {
        for (index, (name, _)) in PARTS.iter().enumerate() {
            assert!(PARTS[..index].iter().all(|(other, _)| other != name), "{name} is there twice");
        }
    }
}
