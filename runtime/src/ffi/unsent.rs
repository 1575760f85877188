//! How much of what the system has taken the other side's system has not acknowledged.

use std::{ffi::c_int, os::fd::AsRawFd};

/// Bytes in a TCP socket's queue for sending, sent and not acknowledged ones included; 0 where the system does not tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn unacknowledged(socket: &impl AsRawFd) -> usize {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and this request writes one int (tcp(7), SIOCOUTQ,
    // which is another name of it).
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// The same by SO_NWRITE.
#[cfg(target_vendor = "apple")]
pub(crate) fn unacknowledged(socket: &impl AsRawFd) -> usize {
    let mut bytes: c_int = 0;
    let mut size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the option is one int, whose size is said.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NWRITE, (&raw mut bytes).cast(), &raw mut size)
    };
    if answer == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Nothing is known of it here.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) fn unacknowledged(_: &impl AsRawFd) -> usize {
    0
}
