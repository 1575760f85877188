//! Listening.

use std::{net::SocketAddr, path::Path};

use mlua::Table;

use super::{
    Answer,
    connect::addresses_of,
    socket::{keepalive_options, stream_options},
    tls::server_options,
};
use crate::{
    clock::nanos,
    error::Error,
    ffi::{NewSocket, SocketType},
    shared::Shared,
    socket::{Listener, Socket, unix_address},
};

/// Backlog of a listener, unless it says otherwise. The kernel may cap it.
const BACKLOG: i32 = 4096;
/// Seconds a TLS client may take for its handshake, unless the listener says otherwise.
const HANDSHAKE_TIMEOUT: f64 = 10.0;

pub(super) fn listen(shared: &Shared, target: &Table, options: &Table) -> Answer<NewSocket> {
    let op = "listen";
    let stream_options = stream_options(options)?;
    let backlog = options.get::<Option<i32>>("backlog")?.unwrap_or(BACKLOG).max(1);
    // Looked at before the core is borrowed: a script's metamethods and finalisers may come back here.
    let tls = match options.get::<Option<Table>>("tls")? {
        Some(table) => {
            let time = table.get::<Option<f64>>("handshake_timeout")?.unwrap_or(HANDSHAKE_TIMEOUT);
            match server_options(&table) {
                Ok(tls) => Some((tls, nanos(time))),
                Err(error) => return Ok(Err(Error { op, ..error })),
            }
        }
        None => None,
    };
    let path: Option<String> = target.get("path")?;
    let place;
    let opened = if let Some(path) = path {
        place = path.clone();
        listen_unix(&path, backlog, options.get("mode")?)
            .map(|socket| Listener::unix(socket, path.into(), stream_options))
    } else {
        let (host, port): (String, u16) = (target.get("host")?, target.get("port")?);
        place = format!("{host}:{port}");
        let addresses = match addresses_of(shared, &host, port) {
            Ok(list) => list,
            Err(error) => return Ok(Err(Error { op, ..error })),
        };
        let nodelay = options.get::<Option<bool>>("nodelay")?.unwrap_or(true);
        let reuse_port = options.get::<Option<bool>>("reuse_port")?.unwrap_or(false);
        let keepalive = keepalive_options(options)?;
        listen_tcp(&addresses, backlog, reuse_port)
            .map(|socket| Listener::tcp(socket, stream_options, nodelay, keepalive))
    };
    let in_place = |error: std::io::Error| {
        let mut made = Error::from_io(op, &error);
        made.message = format!("cannot listen at {place}: {}", made.message).into();
        made
    };
    let mut listener = match opened {
        Ok(listener) => listener,
        Err(error) => return Ok(Err(in_place(error))),
    };
    let mut core = shared.core.borrow_mut();
    if let Some((tls, time)) = tls {
        match core.configs.server(op, &tls) {
            Ok(config) => listener.tls = Some((config, time)),
            Err(error) => return Ok(Err(Error { op, ..error })),
        }
    }
    listener.owner = core.scheduler.current;
    let added = core.add(Socket::Listener(listener));
    Ok(added.map(|id| NewSocket(SocketType::Listener, id)).map_err(in_place))
}

fn listen_tcp(addresses: &[SocketAddr], backlog: i32, reuse_port: bool) -> std::io::Result<std::net::TcpListener> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let opened = (|| {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(*address),
                socket2::Type::STREAM.nonblocking(),
                Some(socket2::Protocol::TCP),
            )?;
            // A server that restarts may have its port back at once.
            socket.set_reuse_address(true)?;
            if reuse_port {
                socket.set_reuse_port(true)?;
            }
            socket.bind(&(*address).into())?;
            socket.listen(backlog)?;
            Ok(socket.into())
        })();
        match opened {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Listens at a path. A file that a dead server has left there is replaced; a live one's is not.
fn listen_unix(path: &str, backlog: i32, mode: Option<u32>) -> std::io::Result<std::os::unix::net::UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking(), None)?;
    bind_unix(&socket, path, mode, || mio::net::UnixStream::connect(path).map(drop))?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Binds a socket to a path, where `knock` is refused if nobody lives there any more.
pub(super) fn bind_unix(
    socket: &socket2::Socket,
    path: &str,
    mode: Option<u32>,
    knock: impl Fn() -> std::io::Result<()>,
) -> std::io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let address = unix_address(path)?;
    let mut bound = socket.bind(&address);
    if let Err(error) = &bound
        && error.kind() == std::io::ErrorKind::AddrInUse
        && std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && knock().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
        bound = socket.bind(&address);
    }
    bound?;
    if let Some(mode) = mode {
        std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
