//! Child processes: started on a core, waited for until they are ready, ended with their owner.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Result;
use crate::machine::{LOAD_CORE, SERVER_CORE, stay_on};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client or load generator prints as a line of JSON when it is through.
#[derive(Debug, Deserialize)]
pub struct Done {
    /// How many of what the row counts.
    pub n: f64,
    /// In how many seconds.
    pub secs: f64,
    /// How many there were besides, before and after the clock ran, included; only load generators tell.
    pub all: Option<f64>,
    /// The most memory it had, in KiB; only the role `peak` tells.
    pub peak: Option<f64>,
}

/// A running program that is killed when this is dropped.
pub struct Running {
    child: Child,
    lines: Option<Receiver<String>>,
}

impl Running {
    /// Starts a program on a core; with `listen`, what it prints can be awaited.
    fn start(command: &mut Command, core: usize, listen: bool) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(if listen { Stdio::piped() } else { Stdio::null() });
        // A child inherits the core of the thread that starts it.
        stay_on(core);
        let started = command.spawn();
        stay_on(LOAD_CORE);
        let mut child = started.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let lines = child.stdout.take().map(|output| {
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
            receiver
        });
        Ok(Running { child, lines })
    }

    /// Starts a client or load generator on the load's core.
    pub fn client(command: &mut Command) -> Result<Self> {
        Running::start(command, LOAD_CORE, true)
    }

    /// Starts a program on the servers' core that prints one line of JSON.
    pub fn beside_load(command: &mut Command) -> Result<Self> {
        Running::start(command, SERVER_CORE, true)
    }

    /// Starts a server on its core and comes back when it takes connections on the port.
    pub fn server(command: &mut Command, port: u16) -> Result<Self> {
        let mut server = Running::start(command, SERVER_CORE, false)?;
        let (address, patient) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Instant::now());
        while let Err(error) = TcpStream::connect(address) {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended before it took a connection: {status}").into());
            }
            if patient.elapsed() > PATIENCE {
                return Err(format!("the server takes no connection: {error}").into());
            }
            // Gives the server the time it needs, should both share a core.
            thread::yield_now();
        }
        Ok(server)
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to go on, which it reads as a line.
    pub fn go_on(&mut self) -> Result<()> {
        Ok(self.child.stdin.as_mut().ok_or("nothing can be told to this program")?.write_all(b"\n")?)
    }

    /// Waits for a line of JSON.
    pub fn done(&mut self) -> Result<Done> {
        let lines = self.lines.as_ref().ok_or("nothing is heard of this program")?;
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(serde_json::from_str(&line).map_err(|error| format!("it printed {line:?}: {error}"))?),
            Err(RecvTimeoutError::Timeout) => Err("it hangs".into()),
            Err(RecvTimeoutError::Disconnected) => Err(format!("it ended early: {}", self.child.wait()?).into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
