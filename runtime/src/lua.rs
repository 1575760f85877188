//! Every table that Lua can see is built here: the module `cosocket` and what the prelude needs.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    rc::Rc,
};

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Value};
use rustls::pki_types::ServerName;
use slotmap::{Key, KeyData};

use crate::{
    clock::{NEVER, nanos, seconds},
    error::{self, Code, Error, Kind},
    ffi::{self, NewSocket, SocketRef, SocketType, TaskRef},
    resolve::{Lookup, interleave},
    runtime::Control,
    scheduler::{Op, State, TaskId},
    shared::{Grave, Shared},
    socket::{
        Listener, Plain, Socket, SocketId, StreamOptions, Target, Udp, check_host, parse_address, parse_literal,
        tls::{self, ClientOptions, Identity, Pem, ServerOptions, Version, parse_pin},
    },
};

/// `nil, err` or a value.
type Answer<T> = mlua::Result<Result<T, Error>>;

const PRELUDE: &str = include_str!("prelude.lua");
/// Backlog of a listener, unless it says otherwise. The kernel may cap it.
const BACKLOG: i32 = 4096;
/// Seconds a TLS client may take for its handshake, unless the listener says otherwise.
const HANDSHAKE_TIMEOUT: f64 = 10.0;

/// A mistake of the caller, which the prelude raises at the caller's line.
fn mistake(op: &'static str, message: impl Into<String>) -> Error {
    let mut error = Error::new(Kind::Argument, op, message.into());
    error.code = None;
    error
}

/// Builds the module `cosocket`; answers the function that runs when a stop is asked for.
pub(crate) fn install(lua: &Lua, shared: &Rc<Shared>, control: &Rc<Control>) -> mlua::Result<Function> {
    let error_metatable = lua.create_table()?;
    lua.set_named_registry_value(error::METATABLE, &error_metatable)?;
    ffi::attach(lua, shared)?;

    let cosocket = lua.create_table()?;
    cosocket.raw_set("buffer", ffi::install_buffer(lua)?)?;
    let native = ffi::install_tasks(lua)?;
    ffi::install_coroutine(lua, &native)?;
    native.raw_set("error_metatable", error_metatable)?;

    let [(_, stream), (_, listener), (_, udp)] = ffi::install_sockets(lua)?;
    for methods in [&stream, &listener, &udp] {
        add_socket_methods(lua, shared, methods)?;
    }
    add_stream_methods(lua, shared, &stream)?;
    add_udp_methods(lua, shared, &udp)?;
    native.raw_set("stream_methods", stream)?;
    native.raw_set("listener_methods", listener)?;
    native.raw_set("udp_methods", udp)?;

    add_task_primitives(lua, shared, &native)?;
    add_socket_primitives(lua, shared, &native)?;
    add_control(lua, shared, control, &native)?;

    lua.register_module("cosocket", &cosocket)?;
    lua.load(PRELUDE).set_name("=[cosocket]").call((native, cosocket))
}

/// Adds `name` to `table`, a function that gets the shared state.
///
/// Arguments of a wrong type are answered as a mistake of the caller, for the prelude to raise.
fn define<A, R>(
    lua: &Lua,
    shared: &Rc<Shared>,
    table: &Table,
    name: &'static str,
    function: impl Fn(&Lua, &Shared, A) -> mlua::Result<R> + 'static,
) -> mlua::Result<()>
where
    A: mlua::FromLuaMulti,
    R: mlua::IntoLuaMulti,
{
    let shared = shared.clone();
    let checked = move |lua: &Lua, arguments: MultiValue| {
        let is_method = matches!(arguments.front(), Some(Value::UserData(_)));
        let result = A::from_lua_args(arguments, 1, Some(name), lua).and_then(|given| function(lua, &shared, given));
        match result {
            Ok(answer) => answer.into_lua_multi(lua),
            Err(error) => match misfit(name, is_method, &error) {
                Some(message) => (Value::Nil, mistake(name, message)).into_lua_multi(lua),
                None => Err(error),
            },
        }
    };
    table.raw_set(name, lua.create_function(checked)?)
}

/// What is wrong with an argument, if that is what `error` says. In a method call people do not count
/// the object before the colon.
fn misfit(name: &str, is_method: bool, error: &mlua::Error) -> Option<String> {
    match error {
        mlua::Error::BadArgument { pos: 1, cause, .. } if !is_method && is_about_socket(cause) => {
            Some(format!("call this with a colon, on a socket: socket:{name}()"))
        }
        mlua::Error::BadArgument { pos, cause, .. } => {
            let what = misfit(name, false, cause)?;
            Some(format!("bad argument #{} to '{name}': {what}", pos - usize::from(is_method)))
        }
        mlua::Error::FromLuaConversionError { from, to, message } => Some(match message {
            Some(message) => format!("a {from} is no {to}: {message}"),
            None => format!("a {from} is no {to}"),
        }),
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
            misfit(name, is_method, cause)
        }
        _ => None,
    }
}

fn is_about_socket(error: &mlua::Error) -> bool {
    matches!(error, mlua::Error::FromLuaConversionError { to, .. } if to == "socket")
}

// Tasks

fn add_task_primitives(lua: &Lua, shared: &Rc<Shared>, native: &Table) -> mlua::Result<()> {
    define(lua, shared, native, "tasks", |lua, shared, ()| list_tasks(lua, shared))?;
    define(lua, shared, native, "group_enter", |_, shared, ()| {
        Ok(shared.core.borrow_mut().scheduler.enter_group().map(|id| id.data().as_ffi() as i64))
    })?;
    define(lua, shared, native, "group_leave", |_, shared, token: i64| {
        let id = KeyData::from_ffi(token as u64).into();
        Ok(shared.core.borrow_mut().scheduler.leave_group(id).map(|id| id.data().as_ffi() as i64))
    })?;
    define(lua, shared, native, "group_cancel", |_, shared, token: i64| {
        let mut core = shared.core.borrow_mut();
        let children = core.scheduler.children(KeyData::from_ffi(token as u64).into());
        children.into_iter().for_each(|child| core.cancel(child));
        Ok(())
    })?;
    define(lua, shared, native, "cancel_others", |_, shared, ()| {
        let mut core = shared.core.borrow_mut();
        let me = core.scheduler.current;
        let others: Vec<TaskId> = core.scheduler.tasks.keys().filter(|id| Some(*id) != me).collect();
        others.into_iter().for_each(|task| core.cancel(task));
        Ok(())
    })?;
    define(lua, shared, native, "release", |_, shared, token: i64| {
        shared.graveyard.borrow_mut().push(Grave::Task(KeyData::from_ffi(token as u64).into()));
        Ok(())
    })?;
    define(lua, shared, native, "set_deadline", |_, shared, (at, exactly): (Option<f64>, bool)| {
        let mut core = shared.core.borrow_mut();
        let at = at.map_or(NEVER, nanos);
        let Some(task) = core.scheduler.running() else { return Ok(None) };
        let previous = task.deadline();
        task.set_deadline(if exactly { at } else { at.min(previous) });
        task.ignored = 0;
        Ok((previous != NEVER).then(|| seconds(previous)))
    })?;
    define(lua, shared, native, "note", |_, shared, (error, trace): (Value, String)| {
        if let Some(task) = shared.core.borrow_mut().scheduler.running() {
            let mut text = trace.trim_start_matches("stack traceback:\n").to_owned();
            let extra = task.extra();
            if let Some((_, cause)) = extra.cause.take() {
                text = format!("{text}\n{cause}");
            }
            extra.cause = Some((error.to_pointer() as usize, text));
        }
        Ok(())
    })?;
    define(lua, shared, native, "watch_task", |_, shared, (task, _): (TaskRef, Value)| {
        let mut core = shared.core.borrow_mut();
        let me = core.scheduler.current;
        if let (Some(task), Some(me)) = (core.scheduler.tasks.get_mut(task.0), me) {
            task.extra().joiners.push(me);
        }
        Ok(())
    })?;
    define(lua, shared, native, "unwatch_task", |_, shared, (task, token): (TaskRef, Option<i64>)| {
        let mut core = shared.core.borrow_mut();
        let me = token.map(|token| TaskId::from(KeyData::from_ffi(token as u64)));
        if let Some(task) = core.scheduler.tasks.get_mut(task.0) {
            task.extra().joiners.retain(|joiner| Some(*joiner) != me);
        }
        Ok(())
    })
}

/// `cosocket.tasks()`.
fn list_tasks(lua: &Lua, shared: &Shared) -> mlua::Result<Table> {
    struct Line {
        number: u32,
        name: String,
        status: &'static str,
        wait: Option<(String, f64)>,
        position: Option<String>,
    }
    let mut lines: Vec<Line> = {
        let mut core = shared.core.borrow_mut();
        core.scheduler.clock.refresh();
        let now = core.scheduler.clock.now();
        let tasks = core.scheduler.tasks.values().filter(|task| !task.state.has_ended());
        tasks
            .map(|task| {
                let waits = task.state == State::Waiting;
                Line {
                    number: task.number,
                    name: task.label(),
                    status: task.state.as_str(),
                    wait: waits.then(|| {
                        let what = format!("{}{}", task.op.as_str(), core.describe_wait(task.wait));
                        (what, seconds(now.saturating_sub(task.since)))
                    }),
                    position: waits.then(|| ffi::position(task.thread)).flatten(),
                }
            })
            .collect()
    };
    lines.sort_by_key(|line| line.number);
    let list = lua.create_table_with_capacity(lines.len(), 0)?;
    for line in lines {
        let entry = lua.create_table()?;
        entry.raw_set("id", line.number)?;
        entry.raw_set("name", line.name)?;
        entry.raw_set("status", line.status)?;
        if let Some((what, since)) = line.wait {
            entry.raw_set("waits_for", what)?;
            entry.raw_set("since", since)?;
        }
        entry.raw_set("line", line.position)?;
        list.raw_push(entry)?;
    }
    Ok(list)
}

fn add_control(lua: &Lua, shared: &Rc<Shared>, control: &Rc<Control>, native: &Table) -> mlua::Result<()> {
    let of_stop = control.clone();
    define(lua, shared, native, "stop", move |_, _, status: Option<i32>| {
        of_stop.request_stop(status.unwrap_or(0));
        Ok(())
    })?;
    let of_embedded = control.clone();
    native.raw_set("embedded", lua.create_function(move |_, name: String| Ok(of_embedded.source(&name)))?)?;
    let of_exit = control.clone();
    define(lua, shared, native, "exit", move |_, _, status: i32| {
        of_exit.exit(status);
        Ok(())
    })?;
    native.raw_set("kind", lua.create_function(|lua, value: Value| Ok(ffi::kind_of(lua, &value)))?)
}

// All sockets

fn closed(op: &'static str) -> Error {
    Error::new(Kind::Closed, op, "this side has closed the socket")
}

fn add_socket_methods(lua: &Lua, shared: &Rc<Shared>, methods: &Table) -> mlua::Result<()> {
    let metatable: Table = methods.raw_get("__metatable")?;
    methods.raw_set("__metatable", Value::Nil)?;
    define(lua, shared, methods, "close", |_, shared, socket: SocketRef| {
        shared.core.borrow_mut().close(socket.0);
        Ok(true)
    })?;
    define(lua, shared, &metatable, "__close", |_, shared, (socket, _): (SocketRef, Value)| {
        shared.core.borrow_mut().close(socket.0);
        Ok(())
    })?;
    define(lua, shared, methods, "local_address", |_, shared, socket: SocketRef| -> Answer<String> {
        let core = shared.core.borrow();
        let address = match core.sockets.get(socket.0) {
            Some(Socket::Stream(stream)) if !stream.closing => stream.transport().plain.local_address(),
            Some(Socket::Listener(listener)) => listener.local_address(),
            Some(Socket::Udp(udp)) => udp.local_address().map(|address| address.to_string()),
            _ => return Ok(Err(closed("local_address"))),
        };
        Ok(address.map_err(|error| Error::from_io("local_address", &error)))
    })?;
    define(lua, shared, &metatable, "__tostring", |_, shared, socket: SocketRef| {
        let core = shared.core.borrow();
        Ok(match core.sockets.get(socket.0) {
            Some(Socket::Stream(stream)) if !stream.closing => {
                let peer = stream.transport().plain.peer_address().unwrap_or_default();
                format!("stream ({}{peer})", if stream.transport().tls.is_some() { "TLS, " } else { "" })
            }
            Some(Socket::Listener(listener)) => format!("listener ({})", listener.local_address().unwrap_or_default()),
            Some(Socket::Udp(udp)) => {
                format!("udp ({})", udp.local_address().map(|at| at.to_string()).unwrap_or_default())
            }
            _ => "socket (closed)".to_owned(),
        })
    })
}

// Streams

fn add_stream_methods(lua: &Lua, shared: &Rc<Shared>, methods: &Table) -> mlua::Result<()> {
    define(lua, shared, methods, "peer_address", |_, shared, socket: SocketRef| -> Answer<String> {
        match shared.core.borrow_mut().stream(socket.0) {
            Some(stream) => {
                let address = stream.transport().plain.peer_address();
                Ok(address.map_err(|error| Error::from_io("peer_address", &error)))
            }
            None => Ok(Err(closed("peer_address"))),
        }
    })?;
    define(lua, shared, methods, "tls_info", |lua, shared, socket: SocketRef| {
        let info = match shared.core.borrow_mut().stream(socket.0) {
            Some(stream) => stream.transport().tls.as_ref().and_then(|tls| tls.info()),
            None => None,
        };
        info.map(|info| info_table(lua, info)).transpose()
    })
}

/// What `tls_info` answers, as a table.
fn info_table(lua: &Lua, info: tls::Info) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("version", info.version)?;
    table.raw_set("cipher", info.cipher)?;
    table.raw_set("alpn", info.alpn.map(|name| lua.create_string(name)).transpose()?)?;
    table.raw_set("server_name", info.server_name)?;
    table.raw_set("resumed", info.resumed)?;
    if let Some(peer) = info.peer {
        let certificate = lua.create_table()?;
        certificate.raw_set("subject", peer.subject)?;
        certificate.raw_set("issuer", peer.issuer)?;
        certificate.raw_set("names", peer.names)?;
        certificate.raw_set("not_before", peer.not_before)?;
        certificate.raw_set("not_after", peer.not_after)?;
        certificate.raw_set("sha256", peer.sha256)?;
        certificate.raw_set("spki_sha256", peer.spki_sha256)?;
        table.raw_set("peer_certificate", certificate)?;
    }
    Ok(table)
}

fn add_socket_primitives(lua: &Lua, shared: &Rc<Shared>, native: &Table) -> mlua::Result<()> {
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
        let mut core = shared.core.borrow_mut();
        let Some(stream) = core.stream(socket.0) else { return Ok(()) };
        if let Some(tcp) = stream.transport().plain.tcp() {
            // A connection works without these; the options that may fail have `set_option`.
            let _ = tcp.set_tcp_nodelay(options.get::<Option<bool>>("nodelay")?.unwrap_or(true));
            if let Some(idle) = keepalive(&options.get("keepalive")?) {
                let _ = tcp.set_tcp_keepalive(&idle);
            }
        }
        Ok(())
    })?;
    define(lua, shared, native, "set_option", |_, shared, (socket, name, value): (SocketRef, String, Value)| {
        set_option(shared, socket.0, &name, &value)
    })?;
    define(lua, shared, native, "shutdown", |_, shared, socket: SocketRef| -> Answer<bool> {
        Ok(match shared.core.borrow_mut().stream(socket.0) {
            Some(stream) => stream.shutdown_write().map(|()| true).map_err(|error| Error::from_io("shutdown", &error)),
            None => Err(closed("shutdown")),
        })
    })?;
    define(
        lua,
        shared,
        native,
        "start_tls",
        |_, shared, (socket, side, options, host): (SocketRef, String, Value, Option<String>)| {
            start_tls(shared, socket.0, &side, &options, host)
        },
    )?;
    define(lua, shared, native, "listen", |_, shared, (target, options): (Table, Table)| {
        listen(shared, &target, &options)
    })?;
    define(lua, shared, native, "udp", |_, shared, options: Table| open_udp(shared, &options))?;
    define(lua, shared, native, "pair", |lua, shared, ()| {
        let made = mio::net::UnixStream::pair().and_then(|(one, other)| {
            let mut core = shared.core.borrow_mut();
            let one = core.add_stream(Plain::Unix(one), StreamOptions::default())?;
            let other = core.add_stream(Plain::Unix(other), StreamOptions::default())?;
            for id in [one, other] {
                if let Some(stream) = core.stream(id) {
                    stream.paired = true;
                }
            }
            Ok((NewSocket(SocketType::Stream, one), NewSocket(SocketType::Stream, other)))
        });
        match made {
            Ok(both) => both.into_lua_multi(lua),
            Err(error) => (Value::Nil, Error::from_io("pair", &error)).into_lua_multi(lua),
        }
    })?;
    define(lua, shared, native, "is_readable", |_, shared, socket: SocketRef| {
        let mut core = shared.core.borrow_mut();
        let crate::reactor::Core { sockets, pool, .. } = &mut *core;
        Ok(match sockets.get_mut(socket.0) {
            Some(Socket::Stream(stream)) => stream.closing || stream.is_readable(pool),
            Some(Socket::Listener(listener)) => listener.is_ready(),
            Some(Socket::Udp(udp)) => udp.is_ready(),
            _ => true,
        })
    })?;
    define(lua, shared, native, "watch_socket", |_, shared, (socket, _): (SocketRef, Value)| -> Answer<bool> {
        let mut core = shared.core.borrow_mut();
        let Some(me) = core.scheduler.current else { return Ok(Ok(true)) };
        let reader = match core.sockets.get_mut(socket.0) {
            Some(Socket::Stream(stream)) => {
                stream.want(crate::socket::Goal::Any);
                &mut stream.reader
            }
            Some(Socket::Listener(listener)) => &mut listener.reader,
            Some(Socket::Udp(udp)) => &mut udp.reader,
            _ => return Ok(Ok(true)),
        };
        if reader.is_some_and(|other| other != me) {
            let message = "another task is waiting here already; one task reads at a time";
            return Ok(Err(Error::new(Kind::Io, "select", message).with_code(Code::Name("EBUSY".into()))));
        }
        *reader = Some(me);
        Ok(Ok(true))
    })?;
    define(lua, shared, native, "unwatch_socket", |_, shared, (socket, token): (SocketRef, Option<i64>)| {
        let mut core = shared.core.borrow_mut();
        // The task may have been ended by force: then it is not the one that runs.
        let me = token.map(|token| TaskId::from(KeyData::from_ffi(token as u64)));
        let reader = match core.sockets.get_mut(socket.0) {
            Some(Socket::Stream(stream)) => &mut stream.reader,
            Some(Socket::Listener(listener)) => &mut listener.reader,
            Some(Socket::Udp(udp)) => &mut udp.reader,
            _ => return Ok(()),
        };
        if *reader == me {
            *reader = None;
        }
        Ok(())
    })
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
fn addresses_of(shared: &Shared, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
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

fn stream_options(options: &Table) -> mlua::Result<StreamOptions> {
    let mut made = StreamOptions::default();
    if let Some(bytes) = options.get::<Option<i64>>("queue_max")? {
        made.queue_max = bytes.clamp(1, u32::MAX.into()) as u32;
    }
    Ok(made)
}

/// The system's keep-alive setting for `true`, or for the idle seconds given.
fn keepalive(value: &Value) -> Option<socket2::TcpKeepalive> {
    let idle = match value {
        Value::Boolean(true) => 60.0,
        Value::Integer(number) => *number as f64,
        Value::Number(number) => *number,
        _ => return None,
    };
    let seconds = idle.clamp(1.0, 32_767.0) as u64;
    Some(socket2::TcpKeepalive::new().with_time(std::time::Duration::from_secs(seconds)))
}

fn set_option(shared: &Shared, id: SocketId, name: &str, value: &Value) -> Answer<bool> {
    let op = "set_option";
    let mut core = shared.core.borrow_mut();
    let Some(stream) = core.stream(id) else { return Ok(Err(closed(op))) };
    let size = || value.as_i64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=1 << 30).contains(n));
    let wrong = |wanted: &str| Ok(Err(mistake(op, format!("set_option: {name} wants {wanted}"))));
    let plain = &stream.transport().plain;
    let result = match name {
        "queue_max" => match size() {
            Some(bytes) => {
                stream.set_queue_max(bytes as u32);
                Ok(())
            }
            None => return wrong("a number of bytes"),
        },
        "receive_buffer" | "send_buffer" => match size() {
            Some(bytes) if name == "send_buffer" => plain.socket().set_send_buffer_size(bytes),
            Some(bytes) => plain.socket().set_recv_buffer_size(bytes),
            None => return wrong("a number of bytes"),
        },
        "nodelay" => match (value.as_boolean(), plain.tcp()) {
            (None, _) => return wrong("a boolean"),
            (Some(on), Some(tcp)) => tcp.set_tcp_nodelay(on),
            (Some(_), None) => Ok(()),
        },
        "keepalive" => match (value, plain.tcp()) {
            (_, None) => Ok(()),
            (Value::Boolean(false), Some(tcp)) => tcp.set_keepalive(false),
            (value, Some(tcp)) => match keepalive(value) {
                Some(idle) => tcp.set_tcp_keepalive(&idle),
                None => return wrong("a boolean or the idle time in seconds"),
            },
        },
        _ => {
            let known = "nodelay, keepalive, queue_max, receive_buffer, send_buffer";
            return Ok(Err(mistake(op, format!("unknown option {name:?}; there are {known}"))));
        }
    };
    Ok(result.map(|()| true).map_err(|error| Error::from_io(op, &error)))
}

// TLS

fn pem_list(value: &Value, option: &str) -> Result<Vec<Pem>, Error> {
    let wrong = || mistake("tls", format!("{option} must be PEM text, a path, or a list of them"));
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Pem(text.to_str().map_err(|_| wrong())?.to_owned())]),
        Value::Table(list) => {
            let list: Result<Vec<String>, _> = list.sequence_values::<String>().collect();
            let list = list.map_err(|_| wrong())?;
            if list.is_empty() { Err(wrong()) } else { Ok(list.into_iter().map(Pem).collect()) }
        }
        _ => Err(wrong()),
    }
}

fn text(table: &Table, name: &str) -> Result<Option<String>, Error> {
    table.get::<Option<String>>(name).map_err(|_| mistake("tls", format!("{name} must be text")))
}

fn identity(table: &Table, place: &str) -> Result<Option<Identity>, Error> {
    let names = table.get::<Option<Vec<String>>>("names").ok().flatten().unwrap_or_default();
    match (text(table, "certificate")?, text(table, "key")?) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate: Pem(certificate), key: Pem(key), names })),
        (Some(_), None) => Err(mistake("tls", format!("{place}.certificate needs {place}.key"))),
        (None, Some(_)) => Err(mistake("tls", format!("{place}.key needs {place}.certificate"))),
    }
}

fn alpn(table: &Table) -> Result<Vec<String>, Error> {
    let wrong = || mistake("tls", "alpn must be a list of protocol names of 1 to 255 bytes");
    let list = table.get::<Option<Vec<String>>>("alpn").map_err(|_| wrong())?.unwrap_or_default();
    match list.iter().all(|name| (1..=255).contains(&name.len())) {
        true => Ok(list),
        false => Err(wrong()),
    }
}

fn min_version(table: &Table) -> Result<Version, Error> {
    match text(table, "min_version")?.as_deref() {
        None | Some("1.2") => Ok(Version::Tls12),
        Some("1.3") => Ok(Version::Tls13),
        Some(other) => Err(mistake("tls", format!("min_version is \"1.2\" or \"1.3\", not {other:?}"))),
    }
}

fn client_options(value: &Value) -> Result<ClientOptions, Error> {
    let Value::Table(table) = value else { return Ok(ClientOptions::default()) };
    let get = |name: &str| table.get::<Value>(name).unwrap_or(Value::Nil);
    let pins = match get("pin_sha256") {
        Value::Nil => Vec::new(),
        Value::String(one) => vec![one.to_string_lossy()],
        Value::Table(list) => list.sequence_values::<String>().filter_map(Result::ok).collect(),
        _ => Vec::new(),
    };
    let mut parsed = Vec::new();
    for pin in &pins {
        let wrong = || mistake("tls", format!("pin_sha256 {pin:?} is not a SHA-256 in hex or base64"));
        parsed.push(parse_pin(pin).ok_or_else(wrong)?);
    }
    Ok(ClientOptions {
        ca: pem_list(&get("ca"), "ca")?,
        identity: identity(table, "tls")?,
        server_name: text(table, "server_name")?,
        alpn: alpn(table)?,
        pins: parsed,
        min_version: min_version(table)?,
        insecure: matches!(get("insecure"), Value::Boolean(true)),
    })
}

fn server_options(table: &Table) -> Result<ServerOptions, Error> {
    let get = |name: &str| table.get::<Value>(name).unwrap_or(Value::Nil);
    let mut identities: Vec<Identity> = identity(table, "tls")?.into_iter().collect();
    if let Value::Table(more) = get("certificates") {
        for (at, entry) in more.sequence_values::<Table>().enumerate() {
            let place = format!("tls.certificates[{}]", at + 1);
            let entry = entry.map_err(|_| mistake("tls", format!("{place} must be a table")))?;
            let found = identity(&entry, &place)?;
            identities.push(found.ok_or_else(|| mistake("tls", format!("{place} needs certificate and key")))?);
        }
    }
    if identities.is_empty() {
        return Err(mistake("tls", "a TLS server needs certificate and key"));
    }
    let client_required = match text(table, "client_certificate")?.as_deref() {
        None | Some("require") => true,
        Some("optional") => false,
        Some(other) => {
            return Err(mistake("tls", format!("client_certificate is \"require\" or \"optional\", not {other:?}")));
        }
    };
    let client_ca = pem_list(&get("client_ca"), "client_ca")?;
    if client_ca.is_empty() && !matches!(get("client_certificate"), Value::Nil) {
        return Err(mistake("tls", "client_certificate needs client_ca, the authorities to accept"));
    }
    Ok(ServerOptions { identities, client_ca, client_required, alpn: alpn(table)?, min_version: min_version(table)? })
}

/// Puts TLS on a stream; the handshake is waited for by the caller.
fn start_tls(shared: &Shared, id: SocketId, side: &str, options: &Value, host: Option<String>) -> Answer<bool> {
    let op = if host.is_some() { "connect" } else { "start_tls" };
    let in_op = |error: Error| Error { op, ..error };
    let mut core = shared.core.borrow_mut();
    let Some(stream) = core.stream(id) else { return Ok(Err(closed(op))) };
    if stream.transport().tls.is_some() {
        return Ok(Err(Error::new(Kind::Tls, op, "the stream has TLS already")));
    }
    if stream.has_unread() {
        let message = "bytes have arrived before TLS began; they cannot be trusted, close the stream";
        return Ok(Err(Error::new(Kind::Protocol, op, message)));
    }
    let peer = stream.transport().plain.peer_address().unwrap_or_default();
    let session = if side == "server" {
        let Value::Table(table) = options else { return Ok(Err(mistake(op, "a TLS server needs options"))) };
        let built = server_options(table).and_then(|options| core.configs.server(op, &options));
        match built {
            Ok(config) => tls::Tls::server(config),
            Err(error) => return Ok(Err(in_op(error))),
        }
    } else {
        let options = match client_options(options) {
            Ok(options) => options,
            Err(error) => return Ok(Err(in_op(error))),
        };
        let name = options.server_name.clone().or(host).unwrap_or_else(|| ip_of(&peer));
        let Ok(server_name) = ServerName::try_from(name.clone()) else {
            let message = format!("{name:?} is no name to verify; set tls.server_name");
            return Ok(Err(mistake(op, message)));
        };
        match core.configs.client(op, &options) {
            Ok(config) => tls::Tls::client(config, server_name),
            Err(error) => return Ok(Err(in_op(error))),
        }
    };
    match session {
        Ok(session) => {
            if let Some(stream) = core.stream(id) {
                stream.transport_mut().tls = Some(Box::new(session));
            }
            Ok(Ok(true))
        }
        Err(error) => Ok(Err(in_op(tls::describe(Op::StartTls, &error)))),
    }
}

/// The address of `address:port`.
fn ip_of(peer: &str) -> String {
    peer.parse::<SocketAddr>().map_or_else(|_| peer.to_owned(), |address| address.ip().to_string())
}

// Listening

fn listen(shared: &Shared, target: &Table, options: &Table) -> Answer<NewSocket> {
    let op = "listen";
    let stream_options = stream_options(options)?;
    let backlog = options.get::<Option<i32>>("backlog")?.unwrap_or(BACKLOG).max(1);
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
        listen_tcp(&addresses, backlog, reuse_port).map(|socket| Listener::tcp(socket, stream_options, nodelay))
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
    if let Some(table) = options.get::<Option<Table>>("tls")? {
        let config = match server_options(&table).and_then(|options| core.configs.server(op, &options)) {
            Ok(config) => config,
            Err(error) => return Ok(Err(Error { op, ..error })),
        };
        let time = table.get::<Option<f64>>("handshake_timeout")?.unwrap_or(HANDSHAKE_TIMEOUT);
        listener.tls = Some((config, nanos(time)));
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
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking(), None)?;
    let address = socket2::SockAddr::unix(path)?;
    let mut bound = socket.bind(&address);
    if let Err(error) = &bound
        && error.kind() == std::io::ErrorKind::AddrInUse
        && std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
        bound = socket.bind(&address);
    }
    bound?;
    if let Some(mode) = mode {
        std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    Ok(socket.into())
}

// Datagrams

fn open_udp(shared: &Shared, options: &Table) -> Answer<NewSocket> {
    let op = "udp";
    let address = |name: &str| -> mlua::Result<Option<Result<SocketAddr, Error>>> {
        let Some(text) = options.get::<Option<String>>(name)? else { return Ok(None) };
        Ok(Some(match parse_address(op, &text) {
            Ok(Target::Host { host, port, .. }) => addresses_of(shared, &host, port).map(|list| list[0]),
            Ok(Target::Unix(_)) => Err(mistake(op, format!("{name} wants address:port"))),
            Err(error) => Err(error),
        }))
    };
    let (bind, connect) = match (address("bind")?.transpose(), address("connect")?.transpose()) {
        (Ok(bind), Ok(connect)) => (bind, connect),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(Error { op, ..error })),
    };
    let any: SocketAddr = match connect {
        Some(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let bind = bind.unwrap_or(any);
    let flag = |name: &str| options.get::<Option<bool>>(name);
    let number = |name: &str| options.get::<Option<u32>>(name);
    let (broadcast, reuse, multicast_loop) = (flag("broadcast")?, flag("reuse_address")?, flag("multicast_loop")?);
    let (ttl, multicast_ttl) = (number("ttl")?, number("multicast_ttl")?);
    let opened = (|| -> std::io::Result<UdpSocket> {
        let domain = socket2::Domain::for_address(bind);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM.nonblocking(), Some(socket2::Protocol::UDP))?;
        if reuse == Some(true) {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&bind.into())?;
        if let Some(peer) = connect {
            socket.connect(&peer.into())?;
        }
        socket.set_broadcast(broadcast.unwrap_or(false))?;
        if let Some(hops) = ttl {
            if bind.is_ipv4() { socket.set_ttl_v4(hops)? } else { socket.set_unicast_hops_v6(hops)? }
        }
        if let Some(hops) = multicast_ttl {
            if bind.is_ipv4() { socket.set_multicast_ttl_v4(hops)? } else { socket.set_multicast_hops_v6(hops)? }
        }
        if let Some(on) = multicast_loop {
            if bind.is_ipv4() { socket.set_multicast_loop_v4(on)? } else { socket.set_multicast_loop_v6(on)? }
        }
        Ok(socket.into())
    })();
    let in_place = |error: std::io::Error| {
        let mut made = Error::from_io(op, &error);
        made.message = format!("cannot open a datagram socket at {bind}: {}", made.message).into();
        made
    };
    let mut udp = match opened {
        Ok(socket) => Udp::new(socket, connect.is_some()),
        Err(error) => return Ok(Err(in_place(error))),
    };
    let mut core = shared.core.borrow_mut();
    udp.owner = core.scheduler.current;
    let added = core.add(Socket::Udp(udp));
    Ok(added.map(|id| NewSocket(SocketType::Udp, id)).map_err(in_place))
}

fn add_udp_methods(lua: &Lua, shared: &Rc<Shared>, methods: &Table) -> mlua::Result<()> {
    for (name, joins) in [("join", true), ("leave", false)] {
        define(
            lua,
            shared,
            methods,
            name,
            move |_, shared, (socket, group, interface): (SocketRef, String, Option<String>)| -> Answer<bool> {
                let core = shared.core.borrow();
                let Some(Socket::Udp(udp)) = core.sockets.get(socket.0) else { return Ok(Err(closed(name))) };
                let bad = |what: &str, text: &str| {
                    Ok(Err(Error::new(Kind::Io, name, format!("{text:?} is not {what}"))
                        .with_code(Code::Name("EINVAL".into()))))
                };
                let socket = udp.socket();
                let result = match group.parse() {
                    Ok(std::net::IpAddr::V4(group)) => {
                        let Ok(interface) = interface.as_deref().unwrap_or("0.0.0.0").parse() else {
                            return bad("the IPv4 address of an interface", interface.as_deref().unwrap_or_default());
                        };
                        if joins {
                            socket.join_multicast_v4(&group, &interface)
                        } else {
                            socket.leave_multicast_v4(&group, &interface)
                        }
                    }
                    Ok(std::net::IpAddr::V6(group)) => {
                        let Ok(interface) = interface.as_deref().unwrap_or("0").parse() else {
                            return bad("the index of an interface", interface.as_deref().unwrap_or_default());
                        };
                        if joins {
                            socket.join_multicast_v6(&group, interface)
                        } else {
                            socket.leave_multicast_v6(&group, interface)
                        }
                    }
                    Err(_) => return bad("the address of a multicast group", &group),
                };
                Ok(result.map(|()| true).map_err(|error| Error::from_io(name, &error)))
            },
        )?;
    }
    Ok(())
}
