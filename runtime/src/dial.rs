//! One connection out of many addresses (RFC 8305, "Happy Eyeballs").

use std::{collections::VecDeque, io, net::SocketAddr};

use slotmap::new_key_type;

use crate::{
    clock::Nanos,
    error::{Error, Kind},
    scheduler::{Op, TaskId},
    socket::SocketId,
};

new_key_type! {
    /// Names a dial.
    pub(crate) struct DialId;
}

/// How long an attempt has before the next address is tried beside it (RFC 8305, section 5).
pub(crate) const STAGGER: Nanos = 250_000_000;

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
