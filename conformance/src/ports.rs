//! Free ports of the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// `count` ports that nobody listens on now. They are held together until all are known, so no two are the same.
///
/// # Errors
/// What the system said.
pub fn free(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Whether somebody accepts connections on `port`.
pub fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // A connection from a port to itself succeeds when nobody listens and the system picks that very port to leave by.
    TcpStream::connect_timeout(&address, Duration::from_millis(500))
        .is_ok_and(|stream| stream.local_addr().is_ok_and(|own| own != address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_free_ports_are_the_same() {
        // Whether they can still be taken is up to everybody else on this machine: servers are tried again.
        let ports = free(50).unwrap();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!((different.len(), ports.contains(&0)), (50, false));
    }

    #[test]
    fn a_port_answers_while_somebody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(answers(port));
        drop(listener);
        assert!(!answers(port));
    }
}
