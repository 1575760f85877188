//! Datagrams.

use std::{io, net::SocketAddr};

use mio::{Interest, Registry, Token, event::Source, net::UdpSocket};

use super::Tap;
use crate::scheduler::TaskId;

/// A UDP socket, bound or connected.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: UdpSocket,
    pub(crate) connected: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) reader: Option<TaskId>,
    pub(crate) writers: Vec<TaskId>,
    pub(crate) owner: Option<TaskId>,
    /// Who hears what is sent and received.
    pub(crate) tap: Option<Box<Tap>>,
}

impl Udp {
    pub(crate) fn new(socket: std::net::UdpSocket, connected: bool) -> Self {
        Self {
            socket: UdpSocket::from_std(socket),
            connected,
            readable: true,
            writable: true,
            reader: None,
            writers: Vec::new(),
            owner: None,
            tap: None,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(crate) fn receive(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if !self.readable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            match self.socket.recv_from(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Err(error);
                }
                Ok((n, from)) => {
                    if let Some(tap) = &self.tap {
                        tap.received_from(&into[..n], from.to_string());
                    }
                    return Ok((n, from));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether `receive` has something to say.
    pub(crate) fn is_ready(&mut self) -> bool {
        if !self.readable {
            return false;
        }
        match self.socket.peek_from(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                false
            }
            _ => true,
        }
    }

    /// Sends one datagram, to the fixed peer when `to` is none.
    pub(crate) fn send(&mut self, data: &[u8], to: Option<SocketAddr>) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let result = match to {
                Some(address) => self.socket.send_to(data, address),
                None => self.socket.send(data),
            };
            match result {
                Ok(_) => {
                    if let Some(tap) = &self.tap {
                        let to = to.map_or_else(|| self.socket.peer_addr(), Ok);
                        tap.sent_to(data, to.map(|address| address.to_string()).unwrap_or_default());
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}
