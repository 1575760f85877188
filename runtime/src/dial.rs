//! One connection out of many addresses (RFC 8305, "Happy Eyeballs").

use std::{collections::VecDeque, io, net::SocketAddr};

use mio::net::TcpStream;
use slotmap::new_key_type;

use crate::{
    clock::Nanos,
    error::{Error, Kind},
    reactor::Core,
    scheduler::{Op, Outcome, TaskId, TimerOwner},
    socket::{Plain, Socket, SocketId, Stream, StreamOptions},
};

new_key_type! {
    /// Names a dial.
    pub(crate) struct DialId;
}

/// How long an attempt has before the next address is tried beside it (RFC 8305, section 5).
const STAGGER: Nanos = 250_000_000;

/// Addresses that are being tried.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) waiting: VecDeque<SocketAddr>,
    pub(crate) attempts: Vec<(SocketId, SocketAddr)>,
    failures: Vec<(SocketAddr, io::Error)>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) winner: Option<SocketId>,
    pub(crate) task: Option<TaskId>,
    /// When the next address is tried; its timer pops then.
    pub(crate) next_at: Nanos,
}

impl Dial {
    pub(crate) fn new(addresses: Vec<SocketAddr>, local: Option<SocketAddr>) -> Self {
        Self {
            waiting: addresses.into(),
            attempts: Vec::new(),
            failures: Vec::new(),
            local,
            winner: None,
            task: None,
            next_at: 0,
        }
    }

    pub(crate) fn failed(&mut self, address: SocketAddr, error: io::Error) {
        self.failures.push((address, error));
    }

    /// Whether nothing is left to hope for.
    pub(crate) fn is_over(&self) -> bool {
        self.winner.is_some() || (self.waiting.is_empty() && self.attempts.is_empty())
    }

    /// Why no address could be reached.
    pub(crate) fn error(&self) -> Error {
        let op = Op::Connect.as_str();
        let Some((_, last)) = self.failures.last() else {
            return Error::new(Kind::Connect, op, "no address to connect to");
        };
        let mut error = Error::from_io(op, last);
        let tried: Vec<String> = self
            .failures
            .iter()
            .map(|(address, error)| format!("{address}: {}", Error::from_io(op, error).message))
            .collect();
        error.kind = Kind::Connect;
        error.message = format!("cannot connect to {}", tried.join(", ")).into();
        error
    }

    /// Where it is trying to get to.
    pub(crate) fn describe(&self) -> String {
        let tried: Vec<String> = self.attempts.iter().map(|(_, address)| address.to_string()).collect();
        tried.join(", ")
    }
}

impl Core {
    /// Starts connecting to one of several addresses.
    pub(crate) fn start_dial(&mut self, addresses: Vec<SocketAddr>, local: Option<SocketAddr>) -> DialId {
        let id = self.dials.insert(Dial::new(addresses, local));
        self.dial_next(id);
        id
    }

    /// Tries the next address, and the one after it when that fails at once.
    pub(crate) fn dial_next(&mut self, id: DialId) {
        loop {
            let Some(dial) = self.dials.get_mut(id) else { return };
            if dial.winner.is_some() {
                return;
            }
            let Some(address) = dial.waiting.pop_front() else { return };
            let local = dial.local;
            let attempt =
                begin_connect(address, local).and_then(|stream| self.add(Socket::Attempt(Plain::Tcp(stream), id)));
            let Some(dial) = self.dials.get_mut(id) else { return };
            match attempt {
                Ok(socket) => {
                    dial.attempts.push((socket, address));
                    if !dial.waiting.is_empty() {
                        dial.next_at = self.scheduler.clock.now().saturating_add(STAGGER);
                        self.scheduler.timers.push(dial.next_at, TimerOwner::Dial(id));
                    }
                    // On the loopback the connection often stands already.
                    self.attempt_ready(socket, id, false);
                    return;
                }
                Err(error) => dial.failed(address, error),
            }
        }
    }

    /// Looks how a connection attempt stands. `told`: the kernel has said that something happened.
    pub(crate) fn attempt_ready(&mut self, socket: SocketId, id: DialId, told: bool) {
        let Some(Socket::Attempt(plain, _)) = self.sockets.get(socket) else { return };
        let outcome = match plain.take_error() {
            Ok(None) => plain.peer_address().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        let Some(dial) = self.dials.get_mut(id) else { return };
        match outcome {
            Ok(()) => {
                dial.winner = Some(socket);
                let losers: Vec<SocketId> =
                    dial.attempts.drain(..).map(|(attempt, _)| attempt).filter(|attempt| *attempt != socket).collect();
                let task = dial.task.take();
                for loser in losers {
                    self.sockets.remove(loser);
                }
                task.into_iter().for_each(|task| self.wake(task, Outcome::Go));
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected || (!told && is_pending(&error)) => {}
            Err(error) => {
                self.sockets.remove(socket);
                if let Some(at) = dial.attempts.iter().position(|(attempt, _)| *attempt == socket) {
                    let (_, address) = dial.attempts.swap_remove(at);
                    dial.failed(address, error);
                }
                self.dial_next(id);
                let Some(dial) = self.dials.get_mut(id) else { return };
                if dial.is_over() {
                    dial.task.take().into_iter().for_each(|task| self.wake(task, Outcome::Go));
                }
            }
        }
    }

    /// What a finished dial came to; `None` while it goes on.
    pub(crate) fn finish_dial(&mut self, id: DialId) -> Option<Result<SocketId, Error>> {
        let Some(dial) = self.dials.get(id) else {
            return Some(Err(Error::new(Kind::Connect, Op::Connect.as_str(), "the connection was given up")));
        };
        if !dial.is_over() {
            return None;
        }
        let dial = self.dials.remove(id)?;
        Some(dial.winner.ok_or_else(|| dial.error()))
    }

    /// Makes a won attempt a stream.
    pub(crate) fn promote(&mut self, id: SocketId, options: StreamOptions) -> bool {
        let owner = self.scheduler.current;
        let Some(slot) = self.sockets.get_mut(id) else { return false };
        // A moment's placeholder, so that the attempt can be taken out of the slot.
        let listed = std::mem::replace(slot, Socket::Gone);
        match listed {
            Socket::Attempt(plain, _) => {
                *slot = Socket::Stream(Stream::new(plain.into(), options, owner));
                if self.tape.streams.get() {
                    self.tap(id);
                }
                true
            }
            other => {
                *slot = other;
                false
            }
        }
    }

    pub(crate) fn drop_dial(&mut self, id: DialId) {
        if let Some(dial) = self.dials.remove(id) {
            for socket in dial.attempts.into_iter().map(|(attempt, _)| attempt).chain(dial.winner) {
                self.sockets.remove(socket);
            }
        }
    }
}

fn is_pending(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Starts a connection that an event will report on.
fn begin_connect(address: SocketAddr, local: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        Some(socket2::Protocol::TCP),
    )?;
    if let Some(local) = local {
        // A port of one's own is to be had again although the last connection from it has just ended.
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if !is_pending(&error) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
