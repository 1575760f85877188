//! The parts this executable plays when it starts itself: references, servers and load generators.
//!
//! References take the words that `contestant.lua` takes, so that a row starts both sides alike.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::{http, load, machine, mail, mqtt, rpc, servers, tls, web};

/// The `name=value` words of a command line.
struct Words(HashMap<String, String>);

impl Words {
    fn text(&self, name: &str) -> Result<&str> {
        Ok(self.0.get(name).ok_or_else(|| format!("{name}=... is missing"))?)
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        Ok(text.parse().map_err(|_| format!("{name}={text} is not a number that fits"))?)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Plays the part that the first word names.
pub fn play(mut words: impl Iterator<Item = String>) -> Result<()> {
    let part = words.next().ok_or("role: of which name?")?;
    match part.as_str() {
        "hello" => {
            println!("hello");
            return Ok(());
        }
        "peak" => return peak(words),
        _ => {}
    }
    let words = Words(words.filter_map(|word| word.split_once('=').map(|(a, b)| (a.into(), b.into()))).collect());
    let port = words.number("port")?;
    match part.as_str() {
        "echo" if words.has("cert") => servers::tls_echo(port, tls::server(words.text("cert")?, words.text("key")?)?),
        "echo" => servers::echo(port),
        "lines" => servers::lines(port),
        "tls-server" => servers::handshakes(port, tls::server(words.text("cert")?, words.text("key")?)?),
        "mail-server" => mail::serve(port),
        "smtp" => mail::send(port, words.number("n")?, words.text("mode")? == "reuse", words.number("size")?),
        "http-server" if words.has("cert") => {
            http::serve(port, Some(tls::server(words.text("cert")?, words.text("key")?)?))
        }
        "http-server" => http::serve(port, None),
        "http" => http::ask(port, words.number("n")?, words.number("conc")?, words.has("tls")),
        "httpstream" => http::fetch(port, words.has("tls")),
        "ws-server" => web::serve(port),
        "wsecho" => web::keep(port),
        "ws-hold" => web::hold(port, words.number("conns")?),
        "ws" => {
            let (count, size, window) = (words.number("n")?, words.number("size")?, words.number("window")?);
            web::send(port, count, size, words.text("kind")? == "text", window)
        }
        "wsrpcserve" => rpc::serve(port),
        "wsrpc" => rpc::call(port, words.number("n")?, words.number("window")?),
        "mqtt-sink" => mqtt::serve(port),
        "mqttpub" => {
            let (count, size, window) = (words.number("n")?, words.number("size")?, words.number("window")?);
            mqtt::publish(port, words.number("qos")?, count, size, window)
        }
        "mqttsub" => mqtt::receive(port, words.number("qos")?, words.number("n")?, words.text("topic")?),
        "mqttidle" => mqtt::hold(port, words.number("n")?),
        "tlshs" => load::handshakes(port, words.number("n")?),
        "load" => {
            let seconds = Duration::from_secs_f64(words.number("secs")?);
            load::rounds(port, words.number("conns")?, words.number("batch")?, seconds)
        }
        "hold" => load::hold(port, words.number("conns")?, words.has("tls")),
        _ => Err(format!("role: {part:?} is not known").into()),
    }
}

/// Runs a program to its end and prints the line of JSON that it printed with the most memory it had, in KiB.
///
/// In a process of its own, because a child's peak is told only as that of all children there were.
fn peak(mut words: impl Iterator<Item = String>) -> Result<()> {
    let program = words.next().ok_or("role peak: of which program?")?;
    let output = Command::new(program).args(words).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("it ended with {}", output.status).into());
    }
    let mut told = match output.stdout.as_slice() {
        b"hello\n" => json!({ "n": 1, "secs": 0 }),
        line => serde_json::from_slice(line)?,
    };
    told["peak"] = machine::peak_of_children_kib()?.into();
    println!("{told}");
    Ok(())
}
