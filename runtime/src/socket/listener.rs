//! A socket that accepts connections.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpListener, UnixListener},
};
use rustls::ServerConfig;
use socket2::TcpKeepalive;

use super::{Plain, StreamOptions, transport::unix_path};
use crate::{clock::Nanos, scheduler::TaskId};

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, UnixFile),
}

/// The file of a unix socket, known by more than its path: another server may have bound that meanwhile.
#[derive(Debug)]
pub(super) struct UnixFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl UnixFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let identity = identity_of(&path);
        Self { path, identity }
    }

    /// Removes the file, unless another socket has been bound there meanwhile.
    pub(super) fn remove(&self) {
        if identity_of(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    pub(crate) options: StreamOptions,
    nodelay: bool,
    keepalive: Option<TcpKeepalive>,
    /// TLS for every connection, and how long its handshake may take.
    pub(crate) tls: Option<(Arc<ServerConfig>, Nanos)>,
    pub(crate) readable: bool,
    /// A connection that a look has taken and nobody has accepted.
    found: Option<Plain>,
    pub(crate) reader: Option<TaskId>,
    pub(crate) owner: Option<TaskId>,
}

impl Listener {
    pub(crate) fn tcp(
        listener: std::net::TcpListener,
        options: StreamOptions,
        nodelay: bool,
        keepalive: Option<TcpKeepalive>,
    ) -> Self {
        let mut made = Self::new(Kind::Tcp(TcpListener::from_std(listener)), options);
        (made.nodelay, made.keepalive) = (nodelay, keepalive);
        made
    }

    pub(crate) fn unix(listener: std::os::unix::net::UnixListener, path: PathBuf, options: StreamOptions) -> Self {
        Self::new(Kind::Unix(UnixListener::from_std(listener), UnixFile::new(path)), options)
    }

    fn new(kind: Kind, options: StreamOptions) -> Self {
        Self {
            kind,
            options,
            nodelay: false,
            keepalive: None,
            tls: None,
            readable: true,
            found: None,
            reader: None,
            owner: None,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tcp(socket) => socket.register(registry, token, Interest::READABLE),
            Kind::Unix(socket, _) => socket.register(registry, token, Interest::READABLE),
        }
    }

    /// Takes the next connection; `WouldBlock` when nobody waits.
    pub(crate) fn accept(&mut self) -> io::Result<Plain> {
        if let Some(plain) = self.found.take() {
            return Ok(plain);
        }
        if !self.readable {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let result = match &self.kind {
                Kind::Tcp(socket) => socket.accept().map(|(stream, _)| Plain::Tcp(stream)),
                Kind::Unix(socket, _) => socket.accept().map(|(stream, _)| Plain::Unix(stream)),
            };
            match result {
                // A client that went away while it waited is no reason to stop.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// Gives a connection that was accepted what the listener's options say. It works without these, too.
    pub(crate) fn tune(&self, accepted: &Plain) {
        let Some(tcp) = accepted.tcp() else { return };
        if self.nodelay {
            let _ = tcp.set_tcp_nodelay(true);
        }
        if let Some(settings) = &self.keepalive {
            let _ = tcp.set_tcp_keepalive(settings);
        }
    }

    /// Whether `accept` has something to say. There is no way to look but to take.
    pub(crate) fn is_ready(&mut self) -> bool {
        match self.accept() {
            Ok(plain) => {
                self.found = Some(plain);
                true
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<String> {
        match &self.kind {
            Kind::Tcp(socket) => socket.local_addr().map(|address| address.to_string()),
            Kind::Unix(socket, _) => socket.local_addr().map(|address| unix_path(&address)),
        }
    }
}

impl Drop for Listener {
    /// A unix socket's file goes with its listener.
    fn drop(&mut self) {
        if let Kind::Unix(_, file) = &self.kind {
            file.remove();
        }
    }
}
