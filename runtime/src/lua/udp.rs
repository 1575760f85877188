//! Datagrams.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    rc::Rc,
};

use mlua::{Lua, Table};

use super::{Answer, connect::addresses_of, define, listen::bind_unix, mistake, socket::closed};
use crate::{
    error::{Code, Error, Kind},
    ffi::{NewSocket, SocketRef, SocketType},
    shared::Shared,
    socket::{Socket, Target, Udp, parse_address},
};

/// Options that have a meaning for UDP alone.
const OF_UDP: [&str; 5] = ["broadcast", "reuse_address", "ttl", "multicast_ttl", "multicast_loop"];

pub(super) fn open_udp(shared: &Shared, options: &Table) -> Answer<NewSocket> {
    let op = "udp";
    let path = |name: &str| -> mlua::Result<Option<String>> {
        let text = options.get::<Option<String>>(name)?;
        Ok(text.and_then(|text| text.strip_prefix("unix://").map(str::to_owned)))
    };
    let (bind_path, connect_path) = (path("bind")?, path("connect")?);
    if bind_path.is_some() || connect_path.is_some() {
        for (name, path) in [("bind", &bind_path), ("connect", &connect_path)] {
            if path.is_none() && options.contains_key(name)? {
                return Ok(Err(mistake(op, "bind and connect are both unix:///path, or both address:port")));
            }
        }
        for name in OF_UDP {
            if options.contains_key(name)? {
                return Ok(Err(mistake(op, format!("{name} goes with address:port, not with unix:///path"))));
            }
        }
        return open_unix(shared, bind_path.as_deref(), connect_path.as_deref(), options.get("mode")?);
    }
    if options.contains_key("mode")? {
        return Ok(Err(mistake(op, "mode goes with bind = \"unix:///path\"")));
    }
    let addresses = |name: &str| -> mlua::Result<Option<Result<Vec<SocketAddr>, Error>>> {
        let Some(text) = options.get::<Option<String>>(name)? else { return Ok(None) };
        Ok(Some(match parse_address(op, &text) {
            Ok(Target::Host { host, port, .. }) => addresses_of(shared, &host, port),
            Ok(Target::Unix(_)) => Err(mistake(op, format!("{name} wants address:port"))),
            Err(error) => Err(error),
        }))
    };
    let (bind, connect) = match (addresses("bind")?.transpose(), addresses("connect")?.transpose()) {
        (Ok(bind), Ok(connect)) => (bind, connect),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(Error { op, ..error })),
    };
    let bind = bind.and_then(|list| list.first().copied());
    // A name may have addresses of a family that the bound socket does not speak.
    let is_spoken = |address: &&SocketAddr| bind.is_none_or(|bind| bind.is_ipv4() == address.is_ipv4());
    let connect = connect.and_then(|list| list.iter().find(is_spoken).or(list.first()).copied());
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

/// A unix datagram socket, such as those of a system's log or of systemd.
fn open_unix(shared: &Shared, bind: Option<&str>, connect: Option<&str>, mode: Option<u32>) -> Answer<NewSocket> {
    let op = "udp";
    let at = |path: &str, error: std::io::Error| {
        let mut made = Error::from_io(op, &error);
        made.message = format!("cannot open a datagram socket at {path}: {}", made.message).into();
        Err(made)
    };
    let socket = match socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM.nonblocking(), None) {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(Error::from_io(op, &error))),
    };
    if let Some(path) = bind {
        let knock = || std::os::unix::net::UnixDatagram::unbound()?.connect(path);
        // The system would give a name of its own for an empty one.
        let bound = match path {
            "" | "@" => Err(std::io::ErrorKind::InvalidInput.into()),
            path => bind_unix(&socket, path, mode, knock),
        };
        if let Err(error) = bound {
            return Ok(at(path, error));
        }
    }
    let file = bind.filter(|path| !path.starts_with('@'));
    let mut udp = Udp::unix(socket.into(), file, connect.is_some());
    if let Some(path) = connect
        && let Err(error) = udp.connect_unix(path)
    {
        return Ok(at(path, error));
    }
    let mut core = shared.core.borrow_mut();
    udp.owner = core.scheduler.current;
    let added = core.add(Socket::Udp(udp));
    Ok(added.map(|id| NewSocket(SocketType::Udp, id)).map_err(|error| Error::from_io(op, &error)))
}

pub(super) fn add_udp_methods(lua: &Lua, shared: &Rc<Shared>, methods: &Table) -> mlua::Result<()> {
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
                let Some(socket) = udp.socket() else {
                    return Ok(Err(Error::new(Kind::Io, name, "a unix socket has no multicast groups")
                        .with_code(Code::Name("EINVAL".into()))));
                };
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
