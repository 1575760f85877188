//! The byte pipe under a stream: TCP, unix, or TLS over one of them.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};

use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpStream, UnixStream},
};

use super::{Readiness, Tap, tls::Tls};
use crate::{
    error::{Error, Kind},
    ffi::unacknowledged,
    scheduler::Op,
};

/// Why no bytes moved.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// Not now: an event will say when.
    Blocked,
    Io(io::Error),
    Tls(rustls::Error),
}

impl TransportError {
    /// The error a script gets from `op`.
    pub(crate) fn into_error(self, op: Op) -> Error {
        match self {
            TransportError::Blocked => Error::new(Kind::Io, op.as_str(), "would block"),
            TransportError::Io(error) => Error::from_io(op.as_str(), &error),
            TransportError::Tls(error) => super::tls::describe(op, &error),
        }
    }
}

impl TransportError {
    /// The error of a handshake: whatever ended it, nobody got to talk. Its cause says when that was the connection, and
    /// not TLS: then another try may end better.
    pub(crate) fn into_handshake_error(self) -> Error {
        let ended = match &self {
            TransportError::Io(error) => error.kind(),
            TransportError::Blocked | TransportError::Tls(_) => {
                return Error { kind: Kind::Tls, ..self.into_error(Op::Handshake) };
            }
        };
        let cause = self.into_error(Op::Handshake);
        let mut error = Error { kind: Kind::Tls, ..cause.clone() };
        match ended {
            io::ErrorKind::UnexpectedEof => {
                error.message = "the other side closed the connection during the handshake".into();
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                error.message = "the other side reset the connection during the handshake".into();
            }
            _ => {}
        }
        error.with_cause(cause)
    }
}

/// A connected socket without TLS.
#[derive(Debug)]
pub(crate) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! either {
    ($plain:expr, $socket:ident => $work:expr) => {
        match $plain {
            Plain::Tcp($socket) => $work,
            Plain::Unix($socket) => $work,
        }
    };
}

impl Plain {
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        either!(self, socket => socket.register(registry, token, Interest::READABLE | Interest::WRITABLE))
    }

    pub(crate) fn read(&mut self, ready: &mut Readiness, into: &mut [u8]) -> Result<usize, TransportError> {
        if !ready.readable {
            return Err(TransportError::Blocked);
        }
        loop {
            match either!(self, socket => socket.read(into)) {
                Ok(n) => {
                    // A short read has emptied the kernel's buffer: the next segment is a new event.
                    if n < into.len() && !ready.hung_up {
                        ready.readable = n == 0;
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.readable = false;
                    return Err(TransportError::Blocked);
                }
                Err(error) => return Err(TransportError::Io(error)),
            }
        }
    }

    pub(crate) fn write(&mut self, ready: &mut Readiness, parts: &[IoSlice<'_>]) -> Result<usize, TransportError> {
        if !ready.writable {
            return Err(TransportError::Blocked);
        }
        loop {
            let result = match parts {
                [one] => either!(self, socket => socket.write(one)),
                _ => either!(self, socket => socket.write_vectored(parts)),
            };
            match result {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.writable = false;
                    return Err(TransportError::Blocked);
                }
                Err(error) => return Err(TransportError::Io(error)),
            }
        }
    }

    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        either!(self, socket => socket.shutdown(Shutdown::Write))
    }

    /// Bytes that the system has taken and the other side's system has not acknowledged, as far as ours tells. Of a unix
    /// socket it tells the memory they take, which is something else: there, what it has taken has arrived.
    fn unacknowledged(&self) -> usize {
        match self {
            Plain::Tcp(socket) => unacknowledged(socket),
            Plain::Unix(_) => 0,
        }
    }

    /// The error of a connection attempt, if it has failed.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        either!(self, socket => socket.take_error())
    }

    /// The other side's address; an error while not connected.
    pub(crate) fn peer_address(&self) -> io::Result<String> {
        match self {
            Plain::Tcp(socket) => socket.peer_addr().map(|address| address.to_string()),
            Plain::Unix(socket) => socket.peer_addr().map(|address| unix_path(&address)),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<String> {
        match self {
            Plain::Tcp(socket) => socket.local_addr().map(|address| address.to_string()),
            Plain::Unix(socket) => socket.local_addr().map(|address| unix_path(&address)),
        }
    }

    /// Runs `work` on the descriptor with socket2's options; a mistake for a unix socket where TCP is meant.
    pub(crate) fn tcp(&self) -> Option<socket2::SockRef<'_>> {
        match self {
            Plain::Tcp(socket) => Some(socket2::SockRef::from(socket)),
            Plain::Unix(_) => None,
        }
    }

    pub(crate) fn socket(&self) -> socket2::SockRef<'_> {
        either!(self, socket => socket2::SockRef::from(socket))
    }
}

/// The path of a unix address; unnamed sockets have an empty one.
pub(crate) fn unix_path(address: &std::os::unix::net::SocketAddr) -> String {
    address.as_pathname().map(|path| path.display().to_string()).unwrap_or_default()
}

/// A connected socket, with or without TLS.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) plain: Plain,
    pub(crate) tls: Option<Box<Tls>>,
    /// Who hears what passes here, under TLS before and after it is encrypted.
    pub(crate) tap: Option<Box<Tap>>,
}

impl From<Plain> for Transport {
    fn from(plain: Plain) -> Self {
        Self { plain, tls: None, tap: None }
    }
}

impl Transport {
    /// Reads what is there; 0 is the end.
    pub(crate) fn read(&mut self, ready: &mut Readiness, into: &mut [u8]) -> Result<usize, TransportError> {
        let result = match &mut self.tls {
            None => self.plain.read(ready, into),
            Some(tls) => tls.read(&mut self.plain, ready, into),
        };
        if self.tap.is_some() {
            self.tell_secured();
            self.tap.as_mut().into_iter().for_each(|tap| tap.read(&result, into));
        }
        result
    }

    /// Takes as many bytes as may be on their way; under TLS they may still have to be flushed.
    pub(crate) fn write(&mut self, ready: &mut Readiness, parts: &[IoSlice<'_>]) -> Result<usize, TransportError> {
        let result = match &mut self.tls {
            None => self.plain.write(ready, parts),
            Some(tls) => tls.write(&mut self.plain, ready, parts),
        };
        if let Some(tap) = &mut self.tap {
            match &result {
                Ok(n) => {
                    let mut left = *n;
                    for part in parts {
                        let heard = left.min(part.len());
                        tap.sent(&part[..heard]);
                        left -= heard;
                    }
                }
                Err(error) => tap.failed(error),
            }
        }
        result
    }

    /// Moves a TLS handshake on; `Ok` when it is done, or when there is none.
    pub(crate) fn handshake(&mut self, ready: &mut Readiness) -> Result<(), TransportError> {
        let result = match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.handshake(&mut self.plain, ready),
        };
        if self.tap.is_some() {
            self.tell_secured();
            if let (Some(tap), Err(error)) = (&mut self.tap, &result) {
                tap.failed(error);
            }
        }
        result
    }

    /// Tells the tap of TLS that is established.
    pub(crate) fn tell_secured(&mut self) {
        if let (Some(tap), Some(tls)) = (&mut self.tap, &self.tls) {
            tap.secured(|| tls.established().map(|(version, cipher)| format!("TLS {version}, {cipher}")));
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Sends what TLS holds back; `Ok` when nothing is.
    pub(crate) fn flush(&mut self, ready: &mut Readiness) -> Result<(), TransportError> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&mut self.plain, ready),
        }
    }

    /// Bytes taken that the other side's system has not acknowledged, as far as ours tells.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.held()) + self.plain.unacknowledged()
    }

    /// Whether `flush` has something to do.
    pub(crate) fn wants_flush(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_flush())
    }

    /// Says goodbye in TLS, as far as the socket takes it.
    pub(crate) fn say_goodbye(&mut self, ready: &mut Readiness) {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye(&mut self.plain, ready);
        }
    }
}
