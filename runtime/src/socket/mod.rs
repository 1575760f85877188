//! Sockets: what the reactor watches and scripts read and write.

mod address;
mod input;
mod listener;
mod stream;
mod tap;
mod transport;
mod udp;

pub(crate) mod tls;

pub(crate) use address::{Target, check_host, parse_address, parse_literal};
pub(crate) use input::Pool;
pub(crate) use listener::Listener;
pub(crate) use stream::{Goal, Read, Stream, StreamOptions};
pub(crate) use tap::{Heard, Tap, Tape};
pub(crate) use transport::{Plain, Transport, TransportError};
pub(crate) use udp::{Address, Udp, unix_address};

use slotmap::new_key_type;

use crate::dial::DialId;

new_key_type! {
    /// Names a socket; one that has been closed is not found again under another's name.
    pub(crate) struct SocketId;
}

/// Anything with a descriptor.
#[derive(Debug)]
pub(crate) enum Socket {
    Stream(Stream),
    Listener(Listener),
    Udp(Udp),
    /// A connection attempt of a dial.
    Attempt(Plain, DialId),
    /// Nothing: what stands in a slot while its content changes kind.
    Gone,
}

/// What the kernel has said about a descriptor since it last answered "would block".
///
/// Events come once per change (edge-triggered), so this remembers them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other side has stopped sending: read until the end, short reads do not mean "empty".
    pub(crate) hung_up: bool,
}

impl Readiness {
    /// A fresh descriptor may be tried at once.
    pub(crate) const FRESH: Self = Self { readable: true, writable: true, hung_up: false };
}
