//! From an address to a stream.

use std::{net::SocketAddr, rc::Rc};

use mlua::{Lua, Table};
use slotmap::Key;

use super::{
    Answer, define, mistake,
    socket::{keepalive_options, stream_options},
};
use crate::{
    error::{Error, Kind},
    ffi::{NewSocket, SocketRef, SocketType},
    resolve::{Lookup, interleave},
    scheduler::{Op, TaskId},
    shared::Shared,
    socket::{Plain, Target, check_host, parse_address, parse_literal},
};

/// Adds what leads from an address to a stream.
pub(super) fn add_primitives(lua: &Lua, shared: &Rc<Shared>, native: &Table) -> mlua::Result<()> {
    define(lua, shared, native, "parse", |lua, _, (op, text): (String, String)| -> Answer<Table> {
        match parse_address(op_name(&op), &text) {
            Ok(target) => target_table(lua, target).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    })?;
    define(lua, shared, native, "host_port", |lua, _, (op, host, port): (String, String, f64)| -> Answer<Table> {
        let op = op_name(&op);
        if let Err(what) = check_host(&host) {
            return Ok(Err(Error::new(Kind::Connect, op, format!("bad address {host:?}: {what}"))));
        }
        if port.fract() != 0.0 || !(0.0..=65535.0).contains(&port) {
            let message = format!("bad port {port}: a whole number from 0 to 65535 is wanted");
            return Ok(Err(Error::new(Kind::Connect, op, message)));
        }
        target_table(lua, Target::Host { host, port: port as u16, tls: false }).map(Ok)
    })?;
    define(lua, shared, native, "addresses", |_, shared, host: String| -> Answer<Vec<String>> {
        Ok(addresses_of(shared, &host, 0).map(|list| list.iter().map(|address| address.ip().to_string()).collect()))
    })?;
    native.raw_set(
        "join_address",
        lua.create_function(|_, (ip, port): (String, u16)| Ok(parse_literal(&ip, port).map(|at| at.to_string())))?,
    )?;
    define(lua, shared, native, "start_dial", |_, shared, (host, port, local): (String, u16, Option<String>)| {
        let local = match local.as_deref().map(parse_local) {
            Some(None) => {
                let text = local.unwrap_or_default();
                return Ok(Err(mistake("connect", format!("local_address {text:?} is not an address in numbers"))));
            }
            other => other.flatten(),
        };
        let addresses = match addresses_of(shared, &host, port) {
            Ok(list) => list,
            Err(error) => return Ok(Err(error)),
        };
        let id = shared.core.borrow_mut().start_dial(addresses, local);
        Ok(Ok(id.data().as_ffi() as i64))
    })?;
    define(lua, shared, native, "connect_unix", |_, shared, (path, options): (String, Table)| -> Answer<NewSocket> {
        let describe = |error: std::io::Error| {
            let mut made = Error::from_io("connect", &error);
            made.message = format!("cannot connect to {path}: {}", made.message).into();
            made.kind = Kind::Connect;
            made
        };
        let stream = match mio::net::UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(describe(error))),
        };
        let added = shared.core.borrow_mut().add_stream(Plain::Unix(stream), stream_options(&options)?);
        Ok(added.map(|id| NewSocket(SocketType::Stream, id)).map_err(describe))
    })?;
    define(lua, shared, native, "tune", |_, shared, (socket, options): (SocketRef, Table)| {
        let nodelay = options.get::<Option<bool>>("nodelay")?.unwrap_or(true);
        let settings = keepalive_options(&options)?;
        let mut core = shared.core.borrow_mut();
        let Some(stream) = core.stream(socket.0) else { return Ok(()) };
        if let Some(tcp) = stream.transport().plain.tcp() {
            // A connection works without these; the options that may fail have `set_option`.
            let _ = tcp.set_tcp_nodelay(nodelay);
            if let Some(settings) = settings {
                let _ = tcp.set_tcp_keepalive(&settings);
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// The operation's own name, whose text lives for ever.
fn op_name(op: &str) -> &'static str {
    match op {
        "connect" => "connect",
        "listen" => "listen",
        "udp" => "udp",
        "send_to" => "send_to",
        _ => "resolve",
    }
}

fn target_table(lua: &Lua, target: Target) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    match target {
        Target::Host { host, port, tls } => {
            table.raw_set("numeric", parse_literal(&host, port).is_some())?;
            table.raw_set("host", host)?;
            table.raw_set("port", port)?;
            table.raw_set("tls", tls)?;
        }
        Target::Unix(path) => table.raw_set("path", path.display().to_string())?,
    }
    Ok(table)
}

/// The addresses of a host, which the resolver has been asked for.
pub(super) fn addresses_of(shared: &Shared, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = parse_literal(host, port) {
        return Ok(vec![address]);
    }
    let mut core = shared.core.borrow_mut();
    let now = core.scheduler.clock.now();
    match core.resolver.look_up(host, TaskId::null(), now) {
        Lookup::Known(answer) => answer.map(|list| interleave(list, port)),
        Lookup::Asked => Err(Error::new(Kind::Resolve, Op::Resolve.as_str(), format!("{host:?} was not resolved"))),
    }
}

/// `address` or `address:port`, in numbers.
fn parse_local(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| parse_literal(text, 0))
}
