//! `moonwire --trace-file`: captures of what was said under TLS to real servers, and of datagrams, as tshark reads them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Context, Suite};
use crate::outcome::Outcome;
use crate::server::{Kind, mosquitto, postfix, web};
use crate::tools::Tool;

/// The suite.
pub const SUITE: Suite = Suite {
    name: "trace",
    about: "what `moonwire --trace-file` writes of talks with Mosquitto, nginx and Postfix, and of datagrams, as tshark reads it",
    needs: &[TSHARK],
    servers: &[&mosquitto::KIND, &web::KIND, &postfix::KIND],
    time_max: Duration::from_secs(5 * 60),
    cases: |_| Ok([DATAGRAMS].into_iter().chain(TALKS.iter().map(|talk| talk.name)).map(str::to_owned).collect()),
    run,
};

const TSHARK: Tool = Tool::of_package("tshark", "tshark");
const SCRIPT: &str = "conformance/trace/talk.lua";
const DATAGRAMS: &str = "datagrams are UDP in the capture, over IPv4 and IPv6";
const DATAGRAMS_SCRIPT: &str = "conformance/trace/datagrams.lua";
/// What must be seen of them: each is heard by both ends.
const DATAGRAMS_SEEN: [(&str, &str, &str); 4] = [
    ("stun.type == 1", "stun.type", "0x0001\n0x0001\n0x0001\n0x0001"),
    ("stun.type == 0x101 && ip.src == 127.0.0.1", "stun.att.software", "moonwire\nmoonwire"),
    ("stun.type == 0x101 && ipv6.src == ::1", "stun.att.software", "moonwire\nmoonwire"),
    ("stun.type == 1 && ipv6", "stun.att.software", DATAGRAM_PASSWORD),
];
const DATAGRAM_PASSWORD: &str = "password=****************************\npassword=****************************";
const TALK_TIME_MAX: Duration = Duration::from_secs(60);

/// A talk with a server, and what must be seen of it.
struct Talk {
    name: &'static str,
    kind: &'static Kind,
    listener: &'static str,
    scheme: &'static str,
    password: &'static str,
    /// Questions to tshark: the packets, the field, and what it answers, a value a line.
    seen: &'static [(&'static str, &'static str, &'static str)],
}

const TALKS: [Talk; 4] = [
    Talk {
        name: "MQTT 5 under TLS is MQTT 5 in the capture",
        kind: &mosquitto::KIND,
        listener: "tls",
        scheme: "mqtts",
        password: mosquitto::PASSWORD,
        seen: &[
            ("mqtt.msgtype == 1", "mqtt.ver", "5"),
            ("mqtt.msgtype == 1", "mqtt.clientid", "traced"),
            ("mqtt.msgtype == 1", "mqtt.passwd", "****************************"),
            ("mqtt.msgtype == 2", "mqtt.connack.reason_code", "0"),
            ("mqtt.msgtype == 8", "mqtt.topic", "moonwire/traced"),
            ("mqtt.msgtype == 3 && tcp.dstport == 1883", "mqtt.msg", "68656c6c6f"),
            ("mqtt.msgtype == 7", "mqtt.msgid", "2"),
            ("mqtt.msgtype == 14", "mqtt.msgtype", "14"),
        ],
    },
    Talk {
        name: "MQTT over WebSocket under TLS is WebSocket in the capture",
        kind: &mosquitto::KIND,
        listener: "websocket_tls",
        scheme: "wss",
        password: mosquitto::PASSWORD,
        seen: &[
            ("http.request", "http.upgrade", "websocket"),
            ("http.response", "http.response.code", "101"),
            ("websocket.opcode == 8 && tcp.dstport == 80", "websocket.payload.close.status_code", "1000"),
        ],
    },
    Talk {
        name: "HTTP under TLS is HTTP in the capture",
        kind: &web::KIND,
        listener: "tls",
        scheme: "https",
        password: web::PASSWORD,
        seen: &[
            (
                "http.request && tcp.stream == 0",
                "http.request.uri",
                "/page.html?access_token=*************\n/page.html",
            ),
            ("http.authorization", "http.authorization", "Basic ********************************"),
            ("http.response", "http.response.code", "200\n200"),
        ],
    },
    Talk {
        name: "SMTP is SMTP in the capture before and after STARTTLS",
        kind: &postfix::KIND,
        listener: "submission",
        scheme: "smtp",
        password: postfix::PASSWORD,
        seen: &[
            ("smtp.req.command && tcp.stream == 0", "smtp.req.command", "EHLO\nSTAR"),
            ("smtp.req.command == \"AUTH\"", "smtp.req.parameter", AUTH),
            ("smtp.response.code == 235", "smtp.response.code", "235"),
            ("smtp.response.code == 354", "tcp.stream", "1"),
            ("smtp.response.code == 221", "tcp.stream", "1"),
        ],
    },
];

/// PLAIN of the user and the password.
const AUTH: &str = "PLAIN ****************************************************";

fn run(context: &mut Context<'_>) -> Result<(), String> {
    context.case(DATAGRAMS, |context| match check_datagrams(context) {
        Ok(()) => Outcome::Passed,
        Err(outcome) => outcome,
    });
    for talk in &TALKS {
        let wanted = context.against(talk.kind);
        if wanted {
            context.case(talk.name, |context| match check(context, talk) {
                Ok(()) => Outcome::Passed,
                Err(outcome) => outcome,
            });
        }
    }
    Ok(())
}

fn check_datagrams(context: &mut Context<'_>) -> Result<(), Outcome> {
    context.need(&[TSHARK])?;
    let folder = context.setting.temporary.join("trace");
    std::fs::create_dir_all(&folder).map_err(|error| Outcome::Failed(format!("{}: {error}", folder.display())))?;
    let (capture, text) = (folder.join("udp.pcapng"), folder.join("udp.txt"));
    for file in [&capture, &text] {
        let mut command = context.setting.moonwire();
        command.arg("--trace-file").arg(file).arg(DATAGRAMS_SCRIPT).env("TALK_PASSWORD", mosquitto::PASSWORD);
        context.succeed(command, TALK_TIME_MAX).map_err(Outcome::Failed)?;
        without_secret(file, mosquitto::PASSWORD).map_err(Outcome::Failed)?;
    }
    see(context, &capture, &DATAGRAMS_SEEN)?;
    let odd = ask(context, &capture, &["-o", "udp.check_checksum:TRUE", "-Y", "_ws.malformed || udp.checksum.bad"])?;
    if odd.is_empty() { Ok(()) } else { Err(Outcome::Failed(format!("tshark finds fault with the capture:\n{odd}"))) }
}

fn check(context: &mut Context<'_>, talk: &Talk) -> Result<(), Outcome> {
    context.need(&[TSHARK])?;
    let (server, certificates) = context.server(talk.kind)?;
    let port = server.port(talk.listener).ok_or_else(|| Outcome::Failed(format!("no listener {}", talk.listener)))?;
    let ca = certificates.certificate("ca");
    let url = format!("{}://localhost:{port}{}", talk.scheme, if talk.scheme == "https" { "/page.html" } else { "" });
    let folder = context.setting.temporary.join("trace");
    std::fs::create_dir_all(&folder).map_err(|error| Outcome::Failed(format!("{}: {error}", folder.display())))?;
    let capture = folder.join(format!("{}.pcapng", talk.scheme));
    let text = folder.join(format!("{}.txt", talk.scheme));
    for file in [&capture, &text] {
        let mut command = context.setting.moonwire();
        command.arg("--trace-file").arg(file).arg(SCRIPT).arg(&url).arg(&ca).env("TALK_PASSWORD", talk.password);
        context.succeed(command, TALK_TIME_MAX).map_err(Outcome::Failed)?;
        without_secret(file, talk.password).map_err(Outcome::Failed)?;
    }
    see(context, &capture, talk.seen)?;
    let hidden: String = talk.password.bytes().map(|byte| format!("{byte:02x}")).collect();
    if ask(context, &capture, &["-T", "fields", "-e", "data.data"])?.contains(&hidden) {
        return Err(Outcome::Failed("the password is in what tshark does not decode".to_owned()));
    }
    let odd = ask(context, &capture, &["-Y", "_ws.malformed || tcp.analysis.flags"])?;
    if odd.is_empty() { Ok(()) } else { Err(Outcome::Failed(format!("tshark finds fault with the capture:\n{odd}"))) }
}

/// Whether tshark finds what must be seen.
fn see(context: &Context<'_>, capture: &Path, seen: &[(&str, &str, &str)]) -> Result<(), Outcome> {
    for (filter, field, expected) in seen {
        let answer = ask(context, capture, &["-Y", filter, "-T", "fields", "-e", field])?;
        if answer.trim_end() != *expected {
            let message = format!("{field} of `{filter}` is not as expected\nexpected {expected}\nactual   {answer}");
            return Err(Outcome::Failed(message));
        }
    }
    Ok(())
}

/// What tshark says of a capture.
fn ask(context: &Context<'_>, capture: &Path, arguments: &[&str]) -> Result<String, Outcome> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(arguments);
    context.succeed(command, TALK_TIME_MAX).map(|finished| finished.stdout).map_err(Outcome::Failed)
}

/// Neither the password nor its usual disguises may be in the file.
fn without_secret(file: &PathBuf, password: &str) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let all = String::from_utf8_lossy(&bytes);
    // Behind `moonwire:`, and behind `\0moonwire\0`: base64 goes by threes.
    for secret in [password, &password.replace(' ', "+"), &encoded(password), &encoded(&password[2..])] {
        if all.contains(secret) {
            return Err(format!("{secret:?} is in {}", file.display()));
        }
    }
    // In a capture of WebSocket, what is masked is hidden under the mask of RFC 6455, 5.3.
    let is_text = file.extension().is_some_and(|ending| ending == "txt");
    if !is_text || all.contains("***") { Ok(()) } else { Err(format!("nothing is masked in {}", file.display())) }
}

/// Text in base64, as far as it does not depend on what follows.
fn encoded(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = text.as_bytes();
    let groups = bytes[..bytes.len() - bytes.len() % 3].chunks(3);
    let digits = groups.flat_map(|group| {
        let word = group.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[word >> shift & 63]))
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_talk_has_a_listener_of_its_server() {
        for talk in &TALKS {
            assert!(talk.kind.listeners.contains(&talk.listener), "{}", talk.name);
        }
    }

    #[test]
    fn a_password_is_known_in_its_disguise() {
        assert_eq!(encoded("correct horse battery staple"), "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBs");
    }
}
