//! Datagrams.

use std::{fmt, io, mem::MaybeUninit, net::SocketAddr};

use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{UdpSocket, UnixDatagram},
};
use socket2::{SockAddr, SockRef};

use super::{Tap, listener::UnixFile, transport::unix_path};
use crate::scheduler::TaskId;

/// Bytes of a unix socket's path at most, escaped where they are not UTF-8.
const PATH_MAX: usize = 512;

/// Where datagrams come from and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Net(SocketAddr),
    /// A unix socket's path; empty when it has none.
    Unix(String),
}

impl Address {
    /// Reads `address:port` in numbers, `unix:///path` or `/path`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix://") {
            Some(path) => Some(Self::Unix(path.to_owned())),
            None if text.starts_with('/') => Some(Self::Unix(text.to_owned())),
            None => text.parse().ok().map(Self::Net),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// A unix socket's path as the system wants it; `@name` is in the abstract namespace, as systemd writes it.
pub(crate) fn unix_address(path: &str) -> io::Result<SockAddr> {
    match path.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}")),
        None => SockAddr::unix(path),
    }
}

#[derive(Debug)]
enum Wire {
    Net(UdpSocket),
    /// With the file it is bound to.
    Unix(UnixDatagram, Option<UnixFile>),
}

/// A datagram socket, bound or connected: UDP, or unix.
#[derive(Debug)]
pub(crate) struct Udp {
    wire: Wire,
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
        Self::over(Wire::Net(UdpSocket::from_std(socket)), connected)
    }

    /// `path` is where it is bound, if that is a file.
    pub(crate) fn unix(socket: std::os::unix::net::UnixDatagram, path: Option<&str>, connected: bool) -> Self {
        let file = path.map(|path| UnixFile::new(path.into()));
        Self::over(Wire::Unix(UnixDatagram::from_std(socket), file), connected)
    }

    /// Fixes the peer of a unix socket.
    pub(crate) fn connect_unix(&self, path: &str) -> io::Result<()> {
        match &self.wire {
            Wire::Unix(socket, _) => SockRef::from(socket).connect(&unix_address(path)?),
            Wire::Net(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn over(wire: Wire, connected: bool) -> Self {
        Self {
            wire,
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
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut self.wire {
            Wire::Net(socket) => socket.register(registry, token, both),
            Wire::Unix(socket, _) => socket.register(registry, token, both),
        }
    }

    pub(crate) fn receive(&mut self, into: &mut [u8]) -> io::Result<(usize, Address)> {
        if !self.readable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let result = match &self.wire {
                Wire::Net(socket) => socket.recv_from(into).map(|(n, from)| (n, Address::Net(from))),
                Wire::Unix(socket, _) => {
                    // Room for the sender's path stays.
                    let room = into.len().saturating_sub(PATH_MAX);
                    socket.recv_from(&mut into[..room]).map(|(n, from)| {
                        let mut path = unix_path(&from);
                        if path.len() > PATH_MAX {
                            path.clear();
                        }
                        (n, Address::Unix(path))
                    })
                }
            };
            match result {
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
        let peeked = match &self.wire {
            Wire::Net(socket) => socket.peek_from(&mut [0]).map(drop),
            Wire::Unix(socket, _) => SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]).map(drop),
        };
        match peeked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                false
            }
            _ => true,
        }
    }

    /// Sends one datagram, to the fixed peer when `to` is none.
    pub(crate) fn send(&mut self, data: &[u8], to: Option<&Address>) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let result = match (&self.wire, to) {
                (Wire::Net(socket), Some(Address::Net(address))) => socket.send_to(data, *address),
                (Wire::Net(socket), None) => socket.send(data),
                (Wire::Unix(socket, _), Some(Address::Unix(path))) => {
                    unix_address(path).and_then(|address| SockRef::from(socket).send_to(data, &address))
                }
                (Wire::Unix(socket, _), None) => socket.send(data),
                _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            };
            match result {
                Ok(_) => {
                    if let Some(tap) = &self.tap {
                        let to = to.cloned().or_else(|| self.peer_address().ok());
                        tap.sent_to(data, to.map(|address| address.to_string()).unwrap_or_default());
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The system tells when a fixed peer reads again, but not when another does.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && matches!(to, Some(Address::Unix(_))) => {
                    return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn peer_address(&self) -> io::Result<Address> {
        match &self.wire {
            Wire::Net(socket) => socket.peer_addr().map(Address::Net),
            Wire::Unix(socket, _) => socket.peer_addr().map(|address| Address::Unix(unix_path(&address))),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match &self.wire {
            Wire::Net(socket) => socket.local_addr().map(Address::Net),
            Wire::Unix(socket, _) => socket.local_addr().map(|address| Address::Unix(unix_path(&address))),
        }
    }

    /// The socket, if it is one of UDP: only those have multicast groups.
    pub(crate) fn socket(&self) -> Option<&UdpSocket> {
        match &self.wire {
            Wire::Net(socket) => Some(socket),
            Wire::Unix(..) => None,
        }
    }
}

impl Drop for Udp {
    /// A unix socket's file goes with it.
    fn drop(&mut self) {
        if let Wire::Unix(_, Some(file)) = &self.wire {
            file.remove();
        }
    }
}
