//! Everything that is special to an operating system.

/// The system's name of an error number.
pub(crate) fn errno_name(number: i32) -> Option<&'static str> {
    macro_rules! names {
        ($($name:ident)*) => {
            match number { $(libc::$name => Some(stringify!($name)),)* _ => None }
        };
    }
    names! {
        E2BIG EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBUSY ECONNABORTED
        ECONNREFUSED ECONNRESET EDESTADDRREQ EEXIST EFAULT EHOSTDOWN EHOSTUNREACH EINPROGRESS EINTR
        EINVAL EIO EISCONN EISDIR ELOOP EMFILE EMSGSIZE ENAMETOOLONG ENETDOWN ENETRESET ENETUNREACH
        ENFILE ENOBUFS ENODEV ENOENT ENOMEM ENOPROTOOPT ENOSPC ENOTCONN ENOTDIR ENOTSOCK EPERM EPIPE
        EPROTO EPROTONOSUPPORT EPROTOTYPE EROFS ETIMEDOUT
    }
}
