//! Datagrams.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    rc::Rc,
};

use mlua::{Lua, Table};

use super::{Answer, connect::addresses_of, define, mistake, socket::closed};
use crate::{
    error::{Code, Error, Kind},
    ffi::{NewSocket, SocketRef, SocketType},
    shared::Shared,
    socket::{Socket, Target, Udp, parse_address},
};

pub(super) fn open_udp(shared: &Shared, options: &Table) -> Answer<NewSocket> {
    let op = "udp";
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
