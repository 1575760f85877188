//! The SMTP stack against Postfix, Dovecot and aiosmtpd, and against Exim: `conformance/smtp/*_test.lua`; and the outbox, while its server
//! is restarted and its own process killed.
//!
//! Where the servers are, the files learn from their environment, which `smtp/server.lua` reads.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::against::{self, Comparison, topic_of};
use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::place::Place;
use crate::process::{self, Process};
use crate::server::{Kind, Server, exim, postfix};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "smtp",
    about: "the SMTP stack against Postfix with Dovecot, Exim and aiosmtpd, seen by Python's email package; the outbox",
    needs: &[],
    servers: &[&postfix::KIND, &exim::KIND],
    time_max: Duration::from_secs(15 * 60),
    cases,
    run,
};

const FOLDER: &str = "conformance/smtp";
/// A mail server that the files run against.
struct Side {
    kind: &'static Kind,
    /// Its name, as the files are told.
    name: &'static str,
    expected: &'static str,
    /// Whether the cases that are not of a file run here, too.
    has_own: bool,
    /// Files that need no such server, and are run only once.
    without: &'static [&'static str],
}

const SIDES: [Side; 2] = [
    Side {
        kind: &postfix::KIND,
        name: "Postfix",
        expected: "conformance/expected/postfix.txt",
        has_own: true,
        without: &[],
    },
    Side {
        kind: &exim::KIND,
        name: "Exim",
        expected: "conformance/expected/exim.txt",
        has_own: false,
        without: &["hostile_test.lua"],
    },
];
/// The file about servers of our own only: not in a sample.
const OF_OUR_OWN: &str = "hostile_test.lua";
/// Seconds a single case may take; scripts give up waiting long before.
const CASE_TIME_MAX: &str = "60";

const OUTBOX: &str = "an outbox delivers everything while its server restarts and its process is killed";
const LIVES: &str = "the servers live to the end";
const ATTACHMENT: &str = "an attachment of 25 MiB takes at most 10 MiB of memory in all";
const ATTACHMENT_SCRIPT: &str = "conformance/smtp/attachment.lua";
const ATTACHMENT_BYTES: u64 = 25 * 1024 * 1024;
/// The most memory the script may ever have, in KiB.
const PEAK_MAX: u64 = 10 * 1024;
const OUTBOX_SCRIPT: &str = "conformance/smtp/outbox.lua";
/// How long the outbox may take to deliver what is left once nobody disturbs it any more.
const OUTBOX_TIME_MAX: Duration = Duration::from_secs(300);
/// Connections of the script's outbox.
const CONNECTIONS: u32 = 2;
/// `MOONWIRE_SMTP_OUTBOX=500,20,10` says how many messages, restarts and kills; this is what is done without it.
const OUTBOX_DEFAULT: Trouble = Trouble { messages: 100, restarts: 5, kills: 4 };
/// And in a sample.
const OUTBOX_SAMPLE: Trouble = Trouble { messages: 30, restarts: 2, kills: 1 };

/// Which listener is which variable.
const VARIABLES: [(&str, &str, &str); 8] = [
    ("MOONWIRE_SMTP_SINK_URL", "smtp://127.0.0.1", "sink"),
    ("MOONWIRE_SMTP_PLAIN_URL", "smtp://127.0.0.1", "plain"),
    ("MOONWIRE_SMTP_BARE_URL", "smtp://127.0.0.1", "bare"),
    ("MOONWIRE_SMTP_SMALL_URL", "smtp://127.0.0.1", "small"),
    ("MOONWIRE_SMTP_SUBMISSION_URL", "smtp://localhost", "submission"),
    ("MOONWIRE_SMTP_SMTPS_URL", "smtps://localhost", "smtps"),
    ("MOONWIRE_SMTP_EXPIRED_URL", "smtps://localhost", "expired"),
    ("MOONWIRE_SMTP_WRONG_NAME_URL", "smtp://localhost", "wrong_name"),
];

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for side in SIDES.iter().filter(|side| setting.wants_server(side.kind)) {
        names.extend(side_cases(setting, side)?.iter().map(|name| format!("{}: {name}", side.kind.name)));
    }
    Ok(names)
}

fn side_cases(setting: &Setting, side: &Side) -> Result<Vec<String>, String> {
    let expected = Comparison::read(setting, side.expected)?;
    let mut names: Vec<String> = expected.names().map(str::to_owned).collect();
    if side.has_own {
        names.extend([ATTACHMENT, OUTBOX].map(str::to_owned));
    }
    names.push(LIVES.to_owned());
    Ok(names)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    SIDES.iter().try_for_each(|side| if context.against(side.kind) { run_side(context, side) } else { Ok(()) })
}

fn run_side(context: &mut Context<'_>, side: &Side) -> Result<(), String> {
    let expected = Comparison::read(context.setting, side.expected)?;
    let sample = context.setting.sample;
    let mut files = context.setting.files(FOLDER, "_test.lua")?;
    files.retain(|file| !side.without.iter().any(|name| file.ends_with(name)));
    files.retain(|file| !sample || !file.ends_with(OF_OUR_OWN));
    let own: &[&str] = match (side.has_own, sample) {
        (true, false) => &[ATTACHMENT, OUTBOX, LIVES],
        (true, true) => &[OUTBOX, LIVES],
        (false, _) => &[LIVES],
    };
    let nowhere = nowhere(side);
    let list = || command(context, &nowhere);
    if !own.iter().any(|name| context.setting.wants(name)) && !against::any_wanted(context, &list, &files, &case_name)?
    {
        return Ok(());
    }
    let (version, environment) = match context.server(side.kind) {
        Ok((server, certificates)) => (server.version.clone(), environment(side, server, certificates)),
        Err(Outcome::Skipped(reason)) => {
            let names = side_cases(context.setting, side)?;
            context.skip(&names, &reason);
            return Ok(());
        }
        Err(outcome) => {
            context.report.case("the servers start", outcome, None);
            return Ok(());
        }
    };
    let command = || command(context, &environment);
    let (tests, wrong) = against::run_files(context, &command, files, &case_name, "")?;
    let complete = wrong.is_none();
    if let Some(wrong) = wrong {
        context.report.case("the files run to their end", Outcome::Failed(wrong), None);
    }
    let results: Vec<_> = tests.into_iter().map(|test| (case_name(&test.file, &test.name), test)).collect();
    expected.report(context, &version, &results, complete)?;
    if side.has_own {
        if !sample {
            context.case(ATTACHMENT, |context| attachment(context, &environment).into());
        }
        context.case(OUTBOX, |context| outbox(context, &environment).into());
    }
    context.case(LIVES, |context| match context.server(side.kind) {
        Ok((server, _)) => server.lives().into(),
        Err(outcome) => outcome,
    });
    Ok(())
}

/// `moonwire test`, with all but the files.
fn command(context: &Context<'_>, environment: &[(&'static str, String)]) -> Command {
    let mut command = context.setting.moonwire();
    command.args(["test", "--real-clock", "--timeout", CASE_TIME_MAX]).envs(environment.iter().cloned());
    command
}

/// "login: statement".
fn case_name(file: &str, statement: &str) -> String {
    format!("{}: {statement}", topic_of(file))
}

/// Where the Lua files find Postfix and what belongs to it.
pub(super) fn postfix_environment(server: &Server, certificates: &Certificates) -> Vec<(&'static str, String)> {
    environment(&SIDES[0], server, certificates)
}

/// What files that talk to Postfix need to say which cases they have.
pub(super) fn no_postfix() -> Vec<(&'static str, String)> {
    nowhere(&SIDES[0])
}

/// Where the Lua files find the servers, the certificates and the keys.
fn environment(side: &Side, server: &Server, certificates: &Certificates) -> Vec<(&'static str, String)> {
    let file = |path: PathBuf| path.display().to_string();
    let mut environment = names_of(side, |listener| server.port(listener));
    environment.extend([
        ("MOONWIRE_SMTP_FOLDER", file(server.folder().to_owned())),
        ("MOONWIRE_SMTP_CA", file(certificates.certificate("ca"))),
        ("MOONWIRE_SMTP_CERTIFICATE", file(certificates.certificate("server"))),
        ("MOONWIRE_SMTP_KEY", file(certificates.key("server"))),
    ]);
    environment
}

/// The same for files that only say which cases they have, which they do before there is a server.
fn nowhere(side: &Side) -> Vec<(&'static str, String)> {
    let mut environment = names_of(side, |_| Some(1));
    let files = ["MOONWIRE_SMTP_FOLDER", "MOONWIRE_SMTP_CA", "MOONWIRE_SMTP_CERTIFICATE", "MOONWIRE_SMTP_KEY"];
    environment.extend(files.map(|name| (name, String::from("/nowhere"))));
    environment
}

/// The servers' name and addresses, and who may log in.
fn names_of(side: &Side, port: impl Fn(&str) -> Option<u16>) -> Vec<(&'static str, String)> {
    let mut environment = Vec::new();
    for (variable, address, listener) in VARIABLES {
        if let Some(port) = port(listener) {
            environment.push((variable, format!("{address}:{port}")));
        }
    }
    environment.extend([
        ("MOONWIRE_SMTP_SERVER", side.name.to_owned()),
        ("MOONWIRE_SMTP_REPORT", format!("127.0.0.1:{}", port("report").unwrap_or_default())),
        ("MOONWIRE_SMTP_USER", postfix::USER.to_owned()),
        ("MOONWIRE_SMTP_PASSWORD", postfix::PASSWORD.to_owned()),
    ]);
    environment
}

/// Sends a large file from a script that does nothing else, over TLS, and asks how much memory that took.
fn attachment(context: &mut Context<'_>, environment: &[(&'static str, String)]) -> Result<(), String> {
    let path = context.setting.temporary.join("attachment.bin");
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::create(&path).map_err(wrong)?;
    file.set_len(ATTACHMENT_BYTES).map_err(wrong)?;
    for way in ["SUBMISSION", "PLAIN"] {
        let mut command = context.setting.moonwire();
        command.arg(ATTACHMENT_SCRIPT).arg(way).arg(&path).envs(environment.iter().cloned());
        let finished = context.succeed(command, Duration::from_secs(120))?;
        let peak: u64 = finished.stdout.trim().parse().map_err(|_| finished.summary())?;
        context.report.say(&format!("25 MiB to {}: a peak of {peak} KiB", way.to_lowercase()));
        if peak > PEAK_MAX {
            return Err(format!("a peak of {peak} KiB to {}", way.to_lowercase()));
        }
    }
    Ok(())
}

// The outbox ------------------------------------------------------------------

/// What an outbox has to get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    messages: u32,
    restarts: u32,
    kills: u32,
}

impl Trouble {
    fn wanted(sample: bool) -> Result<Self, String> {
        match env::var("MOONWIRE_SMTP_OUTBOX") {
            Ok(text) => {
                Self::parse(&text).ok_or_else(|| format!("MOONWIRE_SMTP_OUTBOX: {text:?} is not like 500,20,10"))
            }
            Err(_) => Ok(if sample { OUTBOX_SAMPLE } else { OUTBOX_DEFAULT }),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u32> = text.split(',').map(|word| word.trim().parse().ok()).collect::<Option<_>>()?;
        let &[messages, restarts, kills] = numbers.as_slice() else { return None };
        Some(Self { messages, restarts, kills })
    }
}

/// Starts the script that puts messages and delivers them, kills it, restarts Postfix; then counts what arrived.
fn outbox(context: &mut Context<'_>, environment: &[(&'static str, String)]) -> Result<(), String> {
    let trouble = Trouble::wanted(context.setting.sample)?;
    // Of this server: an outbox knows what it has delivered, and would not send it to another one.
    let store = running(context)?.folder().join("outbox.db");
    let start = |context: &Context<'_>| {
        let mut command = context.setting.moonwire();
        command.arg(OUTBOX_SCRIPT).arg(&store).arg(trouble.messages.to_string()).envs(environment.iter().cloned());
        Process::start(command)
    };
    let mut script = start(context)?;
    let (mut restarts, mut kills) = (0, 0);
    let pause = Duration::from_millis(300);
    while restarts < trouble.restarts || kills < trouble.kills {
        thread::sleep(pause);
        // Spread evenly, whichever there are more of.
        if restarts * trouble.kills <= kills * trouble.restarts && restarts < trouble.restarts || kills >= trouble.kills
        {
            postfix::restart(running(context)?.place(), restarts % 2 == 0)?;
            restarts += 1;
        } else {
            // Dropping it ends it by a signal that it could obey; this one it cannot.
            script.kill();
            script = start(context)?;
            kills += 1;
        }
    }
    let finished = script.finish(OUTBOX_TIME_MAX.min(context.time_left()), |_, _| {})?;
    if !finished.succeeded() {
        return Err(format!("the script: {}", finished.summary()));
    }
    let seen = settled(running(context)?, trouble.messages)?;
    let missing: Vec<u32> = (1..=trouble.messages).filter(|n| !seen.contains_key(n)).collect();
    // Postfix, too, sends again what it cannot know to have arrived when it is stopped at once.
    let twice: u32 = seen.values().map(|copies| copies.queued - 1).sum();
    let handed_on_twice: u32 = seen.values().map(|copies| copies.arrived - copies.queued).sum();
    context.report.say(&format!(
        "{} messages, {restarts} restarts, {kills} kills: {} delivered, {twice} of them twice by the outbox, \
         {handed_on_twice} by Postfix",
        trouble.messages,
        seen.len(),
    ));
    // A message is sent again only when its last answer was lost, or the note of it: at most one for each connection.
    let most = (restarts + kills) * CONNECTIONS;
    if !missing.is_empty() {
        Err(format!("{} messages are lost: {missing:?}", missing.len()))
    } else if twice > most {
        Err(format!("{twice} duplicates, of at most {most} in {restarts} restarts and {kills} kills"))
    } else {
        Ok(())
    }
}

/// The Postfix of this run.
fn running<'a>(context: &'a mut Context<'_>) -> Result<&'a Server, String> {
    context.server(&postfix::KIND).map(|(server, _)| &*server).map_err(|_| "the servers do not run".to_owned())
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copies {
    /// How often it was put into Postfix' queue: by the outbox.
    queued: u32,
    /// How often it came out of it.
    arrived: u32,
}

/// How often each message has arrived, once Postfix has handed on what it has.
fn settled(server: &Server, messages: u32) -> Result<BTreeMap<u32, Copies>, String> {
    let report = server.port("report").unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = counts(report)?;
    while Instant::now() < deadline && (seen.len() < messages as usize || !queue_is_empty(server.place())) {
        thread::sleep(Duration::from_millis(200));
        seen = counts(report)?;
    }
    Ok(seen)
}

fn queue_is_empty(place: &Place) -> bool {
    let mut command = place.inside(postfix::POSTFIX, "postqueue", &[]);
    command.arg("-c").arg(place.folder()).arg("-j");
    process::run(command, Duration::from_secs(30), |_, _| {}).is_ok_and(|finished| finished.stdout.trim().is_empty())
}

/// Asks the sink; the messages of the outbox are named `outbox-N@...`.
fn counts(report: u16) -> Result<BTreeMap<u32, Copies>, String> {
    let wrong = |error: std::io::Error| format!("the sink does not answer: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, report)).map_err(wrong)?;
    stream.write_all(b"{\"ids\": true}\n").map_err(wrong)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(wrong)?;
    Ok(parse_counts(&line))
}

/// Reads `{"outbox-7@moonwire.test": [1, 2], ...}`, of which names and numbers are simple.
fn parse_counts(line: &str) -> BTreeMap<u32, Copies> {
    let pairs = line.trim().trim_matches(['{', '}']).split("], ");
    pairs
        .filter_map(|pair| {
            let (name, numbers) = pair.split_once(": [")?;
            let number = name.strip_prefix("\"outbox-")?.split('@').next()?;
            let (queued, arrived) = numbers.trim_end_matches(']').split_once(", ")?;
            Some((number.parse().ok()?, Copies { queued: queued.parse().ok()?, arrived: arrived.parse().ok()? }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_named_by_its_file_and_statement() {
        assert_eq!(case_name("conformance/smtp/login_test.lua", "[RFC 4954, 4] x"), "login: [RFC 4954, 4] x");
    }

    #[test]
    fn every_listener_has_a_variable() {
        for listener in postfix::KIND.listeners.iter().filter(|name| **name != "report") {
            assert!(VARIABLES.iter().any(|(_, _, of)| of == listener), "no script can reach {listener}");
        }
    }

    #[test]
    fn trouble_is_three_numbers() {
        assert_eq!(Trouble::parse("500, 20,10"), Some(Trouble { messages: 500, restarts: 20, kills: 10 }));
        for text in ["", "500", "1,2", "1,2,3,4", "a,b,c", "-1,2,3"] {
            assert_eq!(Trouble::parse(text), None, "{text}");
        }
    }

    #[test]
    fn copies_are_counted_by_the_number_in_their_name() {
        let line = "{\"outbox-7@moonwire.test\": [1, 1], \"abc@moonwire.test\": [3, 3], \"outbox-12@moonwire.test\": [1, 2]}\n";
        let copies = |queued, arrived| Copies { queued, arrived };
        assert_eq!(parse_counts(line), BTreeMap::from([(7, copies(1, 1)), (12, copies(1, 2))]));
        assert_eq!(parse_counts("{}\n"), BTreeMap::new());
    }
}
