//! What scripts do with sockets that they have.

use std::{io, rc::Rc, time::Duration};

use mlua::{IntoLuaMulti, Lua, Table, Value};
use slotmap::KeyData;
use socket2::{SockRef, TcpKeepalive};

use super::{
    Answer, connect, define,
    listen::listen,
    mistake,
    tls::{check_tls, start_tls},
    udp::open_udp,
};
use crate::{
    error::{Code, Error, Kind},
    ffi::{NewSocket, SocketRef, SocketType},
    reactor::Core,
    scheduler::TaskId,
    shared::Shared,
    socket::{Goal, Plain, Socket, SocketId, StreamOptions, tls},
};

/// Idle seconds of TCP keep-alive where it is just turned on.
const KEEPALIVE_IDLE: f64 = 60.0;
/// Unanswered probes of TCP keep-alive that end a connection, where nothing else is said.
const KEEPALIVE_COUNT: i64 = 3;
/// Seconds between such probes at most, where nothing else is said.
const KEEPALIVE_INTERVAL_MAX: f64 = 75.0;

pub(super) fn closed(op: &'static str) -> Error {
    Error::new(Kind::Closed, op, "this side has closed the socket")
}

pub(super) fn add_socket_methods(lua: &Lua, shared: &Rc<Shared>, methods: &Table) -> mlua::Result<()> {
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

pub(super) fn add_stream_methods(lua: &Lua, shared: &Rc<Shared>, methods: &Table) -> mlua::Result<()> {
    define(lua, shared, methods, "peer_address", |_, shared, socket: SocketRef| -> Answer<String> {
        match shared.core.borrow_mut().stream(socket.0) {
            Some(stream) => {
                let address = stream.transport().plain.peer_address();
                Ok(address.map_err(|error| Error::from_io("peer_address", &error)))
            }
            None => Ok(Err(closed("peer_address"))),
        }
    })?;
    define(lua, shared, methods, "progress", |lua, shared, socket: SocketRef| {
        let progress = shared.core.borrow_mut().stream(socket.0).map(|stream| stream.progress());
        match progress {
            Some(both) => both.into_lua_multi(lua),
            None => (Value::Nil, closed("progress")).into_lua_multi(lua),
        }
    })?;
    define(lua, shared, methods, "reset", |_, shared, socket: SocketRef| {
        shared.core.borrow_mut().reset(socket.0);
        Ok(true)
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

/// Adds what the prelude does with sockets.
pub(super) fn add_primitives(lua: &Lua, shared: &Rc<Shared>, native: &Table) -> mlua::Result<()> {
    connect::add_primitives(lua, shared, native)?;
    define(lua, shared, native, "set_option", |_, shared, (socket, name, value): (SocketRef, String, Value)| {
        set_option(shared, socket.0, &name, &value)
    })?;
    define(lua, shared, native, "shutdown", |_, shared, socket: SocketRef| -> Answer<bool> {
        Ok(match shared.core.borrow_mut().stream(socket.0) {
            Some(stream) => stream.shutdown_write().map_err(|error| Error::from_io("shutdown", &error)),
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
    define(lua, shared, native, "check_tls", |_, _, (side, options): (String, Table)| check_tls(&side, &options))?;
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
        let Core { sockets, pool, .. } = &mut *core;
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
                stream.want(Goal::Any);
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

pub(super) fn stream_options(options: &Table) -> mlua::Result<StreamOptions> {
    let mut made = StreamOptions::default();
    if let Some(bytes) = options.get::<Option<i64>>("queue_max")? {
        made.queue_max = bytes.clamp(1, u32::MAX.into()) as u32;
    }
    Ok(made)
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_i64().map(|whole| whole as f64))
}

/// Whole seconds as the system takes them.
fn keepalive_seconds(seconds: f64) -> Duration {
    Duration::from_secs(seconds.clamp(1.0, 32_767.0) as u64)
}

/// Probes as the system takes them.
fn keepalive_count(count: i64) -> u32 {
    count.clamp(1, 127) as u32
}

/// The system's keep-alive settings that options say; `None` to leave it off.
pub(super) fn keepalive_options(options: &Table) -> mlua::Result<Option<TcpKeepalive>> {
    let (interval, count) = (options.get("keepalive_interval")?, options.get("keepalive_count")?);
    Ok(keepalive(&options.get("keepalive")?, interval, count))
}

/// The system's keep-alive settings for `true`, or for the idle seconds given. What is not said of the probes follows from
/// these, so that a dead peer is noticed after some twice the idle time, and never by the system's own numbers.
fn keepalive(value: &Value, interval: Option<f64>, count: Option<i64>) -> Option<TcpKeepalive> {
    let idle = match value {
        Value::Boolean(true) => KEEPALIVE_IDLE,
        Value::Boolean(false) => return None,
        value => number(value)?,
    };
    let interval = interval.unwrap_or((idle / KEEPALIVE_COUNT as f64).min(KEEPALIVE_INTERVAL_MAX));
    Some(
        TcpKeepalive::new()
            .with_time(keepalive_seconds(idle))
            .with_interval(keepalive_seconds(interval))
            .with_retries(keepalive_count(count.unwrap_or(KEEPALIVE_COUNT))),
    )
}

/// Changes what probes are like; whether there are any stays as it is.
fn tune_keepalive(tcp: &SockRef<'_>, probes: &TcpKeepalive) -> io::Result<()> {
    let on = tcp.keepalive()?;
    tcp.set_tcp_keepalive(probes)?;
    if on { Ok(()) } else { tcp.set_keepalive(false) }
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
            (value, Some(tcp)) => match keepalive(value, None, None) {
                Some(idle) => tcp.set_tcp_keepalive(&idle),
                None => return wrong("a boolean or the idle time in seconds"),
            },
        },
        "keepalive_interval" => match (number(value), plain.tcp()) {
            (None, _) => return wrong("seconds"),
            (Some(seconds), Some(tcp)) => {
                tune_keepalive(&tcp, &TcpKeepalive::new().with_interval(keepalive_seconds(seconds)))
            }
            (Some(_), None) => Ok(()),
        },
        "keepalive_count" => match (value.as_integer(), plain.tcp()) {
            (None, _) => return wrong("a number of probes"),
            (Some(count), Some(tcp)) => tune_keepalive(&tcp, &TcpKeepalive::new().with_retries(keepalive_count(count))),
            (Some(_), None) => Ok(()),
        },
        _ => {
            let known =
                "nodelay, keepalive, keepalive_interval, keepalive_count, queue_max, receive_buffer, send_buffer";
            return Ok(Err(mistake(op, format!("unknown option {name:?}; there are {known}"))));
        }
    };
    Ok(result.map(|()| true).map_err(|error| Error::from_io(op, &error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;

    /// What the system says of a stream's keep-alive: whether it is on, idle seconds, seconds between probes, probes.
    fn settings(lua: &Lua, socket: SocketRef) -> mlua::Result<(bool, u64, u64, u32)> {
        let shared = lua.app_data_ref::<Rc<Shared>>().unwrap().clone();
        let mut core = shared.core.borrow_mut();
        let tcp = core.stream(socket.0).unwrap().transport().plain.tcp().unwrap();
        Ok((
            tcp.keepalive()?,
            tcp.tcp_keepalive_time()?.as_secs(),
            tcp.tcp_keepalive_interval()?.as_secs(),
            tcp.tcp_keepalive_retries()?,
        ))
    }

    #[test]
    fn keep_alive_is_what_the_options_of_either_side_say_and_the_rest_follows_from_the_idle_time() {
        let runtime = Runtime::builder().build().unwrap();
        let lua = runtime.lua();
        lua.globals().set("settings", lua.create_function(settings).unwrap()).unwrap();
        let status = runtime.run_source(
            "test",
            r#"
            local cosocket = require("cosocket")
            local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
            local address = "tcp://" .. listener:local_address()
            local function is(stream, what, ...)
              local got, wanted = table.pack(settings(stream)), table.pack(...)
              for i = 1, wanted.n do
                if got[i] ~= wanted[i] then
                  error(("%s: %s, not %s (%d)"):format(what, got[i], wanted[i], i), 2)
                end
              end
            end
            for _, case in ipairs({
              { "idle seconds", { keepalive = 30 }, true, 30, 10, 3 },
              { "a short idle time", { keepalive = 2 }, true, 2, 1, 3 },
              { "a long idle time", { keepalive = 7200 }, true, 7200, 75, 3 },
              { "just on", { keepalive = true }, true, 60, 20, 3 },
              { "an interval", { keepalive = 30, keepalive_interval = 7 }, true, 30, 7, 3 },
              { "a count", { keepalive = 30, keepalive_count = 9 }, true, 30, 10, 9 },
              { "all", { keepalive = true, keepalive_interval = 5.0, keepalive_count = 2 }, true, 60, 5, 2 },
              { "less than the system takes", { keepalive = 0, keepalive_interval = 0, keepalive_count = 0 }, true, 1, 1, 1 },
              { "more", { keepalive = 1e9, keepalive_interval = 1e9, keepalive_count = 1000 }, true, 32767, 32767, 127 },
              { "nothing", {}, false },
              { "off", { keepalive = false }, false },
            }) do
              is(assert(cosocket.connect(address, case[2])), case[1], table.unpack(case, 3))
              -- The same of those that come to a listener, whatever the client has.
              local other <close> = assert(cosocket.listen("tcp://127.0.0.1:0", case[2]))
              for _, way in ipairs({ "accepted", "found by select, and accepted" }) do
                local client = assert(cosocket.connect("tcp://" .. other:local_address()))
                if way ~= "accepted" then assert(cosocket.select(other) == other) end
                is(assert(other:accept()), ("%s, %s"):format(case[1], way), table.unpack(case, 3))
                is(client, "the client", false)
              end
            end

            local stream = assert(cosocket.connect(address))
            local function set(name, value)
              assert(stream:set_option(name, value))
            end
            set("keepalive_interval", 4)
            set("keepalive_count", 8)
            local _, idle = settings(stream)
            is(stream, "probes alone turn nothing on", false, idle, 4, 8)
            set("keepalive", 90)
            is(stream, "turned on", true, 90, 30, 3)
            set("keepalive_interval", 11)
            set("keepalive_count", 6)
            is(stream, "other probes", true, 90, 11, 6)
            set("keepalive", false)
            is(stream, "turned off", false, 90, 11, 6)
            "#,
        );
        assert_eq!(status.unwrap(), 0);
    }
}
