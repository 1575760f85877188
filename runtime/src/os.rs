//! Everything that is special to an operating system.

use std::{
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The system's name of an error number.
pub(crate) fn errno_name(number: i32) -> Option<&'static str> {
    macro_rules! names {
        ($($name:ident)*) => {
            match number { $(libc::$name => Some(stringify!($name)),)* _ => None }
        };
    }
    names! {
        E2BIG EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBUSY ECONNABORTED
        ECONNREFUSED ECONNRESET EDESTADDRREQ EDQUOT EEXIST EFAULT EFBIG EHOSTDOWN EHOSTUNREACH EINPROGRESS
        EINTR EINVAL EIO EISCONN EISDIR ELOOP EMFILE EMSGSIZE ENAMETOOLONG ENETDOWN ENETRESET ENETUNREACH
        ENFILE ENOBUFS ENODEV ENOENT ENOMEM ENOPROTOOPT ENOSPC ENOTCONN ENOTDIR ENOTEMPTY ENOTSOCK ENXIO
        EPERM EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE EROFS ESPIPE ETIMEDOUT ETXTBSY EXDEV
    }
}

/// Signals that end a script or list its tasks.
const SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1];

/// Signals as a descriptor that becomes readable.
#[derive(Debug)]
pub(crate) struct Signals {
    pipe: UnixStream,
    arrived: Vec<(i32, Arc<AtomicBool>)>,
    registered: Vec<signal_hook::SigId>,
}

impl Signals {
    /// Takes the signals over from their default action.
    pub(crate) fn install() -> io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let mut made = Self { pipe, arrived: Vec::new(), registered: Vec::new() };
        for signal in SIGNALS {
            let flag = Arc::new(AtomicBool::new(false));
            if signal == libc::SIGINT {
                // A script that never waits does not hear of the first: the second need not go by the loop.
                let status = 128 + signal;
                made.registered.push(signal_hook::flag::register_conditional_shutdown(signal, status, flag.clone())?);
            }
            made.registered.push(signal_hook::flag::register(signal, flag.clone())?);
            made.registered.push(signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?);
            made.arrived.push((signal, flag));
        }
        Ok(made)
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// The signals that have arrived since the last time.
    pub(crate) fn take(&mut self) -> Vec<i32> {
        let mut bytes = [0; 64];
        while matches!(self.pipe.read(&mut bytes), Ok(n) if n > 0) {}
        self.arrived.iter().filter(|(_, flag)| flag.swap(false, Ordering::AcqRel)).map(|(signal, _)| *signal).collect()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
