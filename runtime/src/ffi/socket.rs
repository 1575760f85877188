//! Sockets as Lua sees them: a userdata with a name in it.

use std::ffi::c_int;

use mlua::{FromLua, IntoLua, Lua, Table, Value, ffi as lua};
use slotmap::Key;

use super::{
    Answer, Attempt, Continuation, Need, Raw, can_yield, finish, guarded,
    handle::{bury, handle_in, push_handle, to_handle},
    raise_not_me, shared,
};
use crate::{
    clock::NEVER,
    error::{Error, Kind},
    reactor::Core,
    scheduler::{Op, TaskId},
    shared::Grave,
    socket::{Address, Socket, SocketId},
};

const MAGIC: u64 = u64::from_be_bytes(*b"mw:sockt");

/// Accept calls retried after the process ran out of descriptors, in nanoseconds.
const DESCRIPTORS_RETRY: u64 = 50_000_000;

/// What kind of object a script holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketType {
    Stream,
    Listener,
    Udp,
}

impl SocketType {
    const fn metatable(self) -> &'static std::ffi::CStr {
        match self {
            SocketType::Stream => c"moonwire.stream",
            SocketType::Listener => c"moonwire.listener",
            SocketType::Udp => c"moonwire.udp",
        }
    }
}

/// A socket that a script hands to a native function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketRef(pub(crate) SocketId);

impl FromLua for SocketRef {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        match handle_in(lua, &value, MAGIC)? {
            Some(key) => Ok(Self(key.into())),
            None => Err(mlua::Error::FromLuaConversionError {
                from: value.type_name(),
                to: "socket".to_owned(),
                message: None,
            }),
        }
    }
}

/// A socket on its way to a script.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSocket(pub(crate) SocketType, pub(crate) SocketId);

impl IntoLua for NewSocket {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        // SAFETY: pushes one value.
        unsafe { lua.exec_raw((), |state| push_socket(state, self.1, self.0)) }
    }
}

/// What a value is to this module: "socket", "task" or nothing.
pub(crate) fn kind_of(lua: &Lua, value: &Value) -> Option<&'static str> {
    if SocketRef::from_lua(value.clone(), lua).is_ok() {
        return Some("socket");
    }
    super::TaskRef::from_lua(value.clone(), lua).is_ok().then_some("task")
}

/// Pushes a new object for a socket.
///
/// # Safety
/// `state` has room for two values, and only `Copy` locals are alive.
pub(crate) unsafe fn push_socket(state: Raw, id: SocketId, kind: SocketType) {
    // SAFETY: by the contract above.
    unsafe { push_handle(state, MAGIC, id.data(), kind.metatable()) }
}

/// The socket that is the first argument; raises when it is something else.
///
/// # Safety
/// Rules of this module.
pub(super) unsafe fn me(state: Raw) -> SocketId {
    // SAFETY: by the contract above.
    unsafe {
        match to_handle(state, 1, MAGIC) {
            Some(key) => key.into(),
            None => raise_not_me(state, "socket"),
        }
    }
}

pub(super) fn closed(op: Op) -> Attempt {
    Attempt::Failed(Error::new(Kind::Closed, op.as_str(), "this side has closed the socket"))
}

pub(super) fn busy(op: Op, core: &Core, other: TaskId) -> Attempt {
    let name = core.scheduler.tasks.get(other).map_or_else(String::new, |task| format!(" ({})", task.label()));
    let message = format!("another task{name} is waiting here already; one task reads at a time");
    Attempt::Failed(Error::new(Kind::Io, op.as_str(), message).with_code(crate::error::Code::Name("EBUSY".into())))
}

unsafe extern "C-unwind" fn gc(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { bury(state, MAGIC, |key| Grave::Socket(key.into())) }
}

/// Defines a raw function and its continuation from one body.
macro_rules! parking {
    ($(#[$doc:meta])* $name:ident, $then:ident, |$state:ident, $again:ident| $body:expr) => {
        $(#[$doc])*
        unsafe extern "C-unwind" fn $name(state: Raw) -> c_int {
            // SAFETY: rules of this module.
            unsafe {
                let ($state, $again) = (state, false);
                let answer = $body;
                finish(state, answer, 0, $then)
            }
        }

        unsafe extern "C-unwind" fn $then(state: Raw, _status: c_int, _context: lua::lua_KContext) -> c_int {
            // SAFETY: rules of this module; the arguments are still on the stack.
            unsafe {
                let ($state, $again) = (state, true);
                let answer = $body;
                finish(state, answer, 0, $then)
            }
        }
    };
}
pub(super) use parking;

parking!(accept, accept_k, |state, again| {
    let id = me(state);
    let yieldable = can_yield(state);
    guarded(|| {
        if again {
            shared(state).core.borrow_mut().scheduler.retry_if_early();
        }
        shared(state).attempt(Op::Accept, again, yieldable, |core, me| try_accept(core, me, id))
    })
});

fn try_accept(core: &mut Core, me: Option<TaskId>, id: SocketId) -> Attempt {
    let Some(Socket::Listener(listener)) = core.sockets.get_mut(id) else { return closed(Op::Accept) };
    if let Some(other) = listener.reader
        && me != Some(other)
    {
        return busy(Op::Accept, core, other);
    }
    listener.owner = me;
    let accepted = listener.accept();
    let (options, tls) = (listener.options, listener.tls.clone());
    let plain = match accepted {
        Ok(plain) => {
            listener.tune(&plain);
            plain
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Attempt::Wait(Need::Reader(id), NEVER);
        }
        // Out of descriptors: those who wait stay in the kernel's queue until some are free again.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) =>
        {
            return Attempt::Wait(Need::Nothing, core.scheduler.clock.now().saturating_add(DESCRIPTORS_RETRY));
        }
        Err(error) => return Attempt::Failed(Error::from_io(Op::Accept.as_str(), &error)),
    };
    let added = core.add_stream(plain, options);
    let stream = match added {
        Ok(stream) => stream,
        Err(error) => return Attempt::Failed(Error::from_io(Op::Accept.as_str(), &error)),
    };
    if let Some((config, time)) = tls {
        if let Err(error) = core.secure_server(stream, config) {
            core.close(stream);
            return Attempt::Failed(crate::socket::tls::describe(Op::Accept, &error));
        }
        core.limit_handshake(stream, time);
    }
    Attempt::Done(Answer::Stream(stream))
}

parking!(receive, receive_k, |state, again| {
    let id = me(state);
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Receive, again, yieldable, |core, me| {
            core.with_scratch(|core, scratch| {
                let Some(Socket::Udp(udp)) = core.sockets.get_mut(id) else { return closed(Op::Receive) };
                if let Some(other) = udp.reader
                    && me != Some(other)
                {
                    return busy(Op::Receive, core, other);
                }
                udp.owner = me;
                match udp.receive(scratch) {
                    Ok((n, Address::Net(from))) => {
                        Attempt::Done(Answer::Datagram(scratch.as_ptr(), n, super::Name::new(&from.to_string())))
                    }
                    Ok((n, Address::Unix(path))) => {
                        // Behind the datagram, of which no more than the rest of the room was read.
                        let after = &mut scratch[n..][..path.len()];
                        after.copy_from_slice(path.as_bytes());
                        Attempt::Done(Answer::UnixDatagram(scratch.as_ptr(), n, path.len()))
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        Attempt::Wait(Need::Reader(id), NEVER)
                    }
                    Err(error) => Attempt::Failed(Error::from_io(Op::Receive.as_str(), &error)),
                }
            })
        })
    })
});

const NO_ADDRESS: *const [u8] = &raw const *b"";

unsafe fn send_datagram(state: Raw, op: Op, again: bool, then: Continuation) -> c_int {
    // SAFETY: rules of this module; data and address stay on the stack.
    unsafe {
        let id = me(state);
        let data = super::stream::piece(state, 2);
        let to = if op == Op::SendTo { super::check_string(state, 3) } else { NO_ADDRESS };
        let yieldable = can_yield(state);
        let answer = guarded(|| {
            shared(state).attempt(op, again, yieldable, |core, _| {
                let Some(Socket::Udp(udp)) = core.sockets.get_mut(id) else { return closed(op) };
                let to = match std::str::from_utf8(&*to) {
                    Ok("") => None,
                    Ok(text) => match Address::parse(text) {
                        Some(address) => Some(address),
                        None => {
                            let message =
                                format!("bad address {text:?}; write address:port in numbers, or resolve the name");
                            return Attempt::Failed(Error::new(Kind::Connect, op.as_str(), message));
                        }
                    },
                    Err(_) => {
                        return Attempt::Failed(Error::new(Kind::Connect, op.as_str(), "the address is not text"));
                    }
                };
                if to.is_none() && !udp.connected {
                    let message =
                        "this socket has no fixed peer; use send_to(data, address), or udp{connect = address}";
                    return Attempt::Failed(Error::new(Kind::Io, op.as_str(), message));
                }
                match data.with(|bytes| udp.send(bytes, to.as_ref())) {
                    Ok(()) => Attempt::Done(Answer::True),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        Attempt::Wait(Need::Writer(id), NEVER)
                    }
                    Err(error) => Attempt::Failed(Error::from_io(op.as_str(), &error)),
                }
            })
        });
        finish(state, answer, 0, then)
    }
}

unsafe extern "C-unwind" fn send(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { send_datagram(state, Op::Send, false, send_k) }
}

unsafe extern "C-unwind" fn send_k(state: Raw, _status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module.
    unsafe { send_datagram(state, Op::Send, true, send_k) }
}

unsafe extern "C-unwind" fn send_to(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe { send_datagram(state, Op::SendTo, false, send_to_k) }
}

unsafe extern "C-unwind" fn send_to_k(state: Raw, _status: c_int, _context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module.
    unsafe { send_datagram(state, Op::SendTo, true, send_to_k) }
}

/// Registers the metatables. The answers are the method tables, for `lua` to add to.
pub(crate) fn install(lua: &Lua) -> mlua::Result<[(SocketType, Table); 3]> {
    let made = [SocketType::Stream, SocketType::Listener, SocketType::Udp].map(|kind| -> mlua::Result<_> {
        let raw: &[(&str, lua::lua_CFunction)] = match kind {
            SocketType::Stream => super::stream::METHODS,
            SocketType::Listener => &[("accept", accept)],
            SocketType::Udp => &[("receive", receive), ("send", send), ("send_to", send_to)],
        };
        let methods = lua.create_table()?;
        let metatable = lua.create_table()?;
        // SAFETY: every function keeps the rules of this module.
        unsafe {
            for (name, function) in raw {
                methods.raw_set(*name, lua.create_c_function(*function)?)?;
            }
            metatable.raw_set("__gc", lua.create_c_function(gc)?)?;
        }
        metatable.raw_set("__index", &methods)?;
        metatable.raw_set("__metatable", false)?;
        metatable.raw_set(
            "__name",
            match kind {
                SocketType::Stream => "cosocket.Stream",
                SocketType::Listener => "cosocket.Listener",
                SocketType::Udp => "cosocket.Udp",
            },
        )?;
        lua.set_named_registry_value(&kind.metatable().to_string_lossy(), &metatable)?;
        Ok((kind, methods, metatable))
    });
    let [stream, listener, udp] = made;
    let ((a, stream, first), (b, listener, second), (c, udp, third)) = (stream?, listener?, udp?);
    for (methods, metatable) in [(&stream, first), (&listener, second), (&udp, third)] {
        methods.raw_set("__metatable", metatable)?;
    }
    Ok([(a, stream), (b, listener), (c, udp)])
}
