//! Addresses as scripts write them.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::error::{Error, Kind};

/// Where to connect to or listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Host { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

/// Reads `tcp://host:port`, `tls://host:port`, `unix:///path` or `host:port`.
pub(crate) fn parse_address(op: &'static str, text: &str) -> Result<Target, Error> {
    let bad = |what: &str| {
        let shape = match op {
            "connect" | "listen" => "write tcp://host:port, tls://host:port or unix:///path",
            _ => "write host:port, and [host]:port around IPv6",
        };
        Error::new(Kind::Connect, op, format!("bad address {text:?}: {what}; {shape}"))
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "unix" if rest.is_empty() => Err(bad("no path")),
        "unix" if rest.contains('\0') => Err(bad("a NUL in the path")),
        "unix" => Ok(Target::Unix(rest.into())),
        "tcp" | "tls" => {
            let (host, port) = split_host_port(rest).ok_or_else(|| match rest.matches(':').count() {
                0 | 1 => bad("no port"),
                _ => bad("no port, or no [brackets] around IPv6"),
            })?;
            let port = port.parse().map_err(|_| bad("the port is not a number from 0 to 65535"))?;
            check_host(host).map_err(bad)?;
            Ok(Target::Host { host: host.to_owned(), port, tls: scheme == "tls" })
        }
        "udp" => Err(bad("datagrams are sent and received by cosocket.udp")),
        "http" | "https" | "ws" | "wss" | "mqtt" | "mqtts" | "smtp" | "smtps" => {
            Err(bad("a protocol's own module speaks it, such as http or mqtt"))
        }
        _ => Err(bad("unknown scheme")),
    }
}

/// What a host may not be, before anyone is asked to resolve it.
pub(crate) fn check_host(host: &str) -> Result<(), &'static str> {
    match host {
        "" => Err("no host"),
        _ if host.len() > 253 => Err("the host is longer than 253 bytes"),
        _ if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) => {
            Err("the host has a character that no host has")
        }
        _ => Ok(()),
    }
}

/// `host:port` or `[v6]:port`.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')?));
    }
    let (host, port) = text.rsplit_once(':')?;
    // More colons without brackets: an IPv6 address that forgot its port.
    (!host.contains(':')).then_some((host, port))
}

/// An address given in numbers, which needs no resolver.
pub(crate) fn parse_literal(host: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port));
    }
    // An IPv6 address with a zone: `fe80::1%2`.
    let text = format!("[{host}]:{port}");
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<(String, u16, bool)> {
        match parse_address("connect", text) {
            Ok(Target::Host { host, port, tls }) => Some((host, port, tls)),
            _ => None,
        }
    }

    #[test]
    fn each_scheme_is_understood() {
        assert_eq!(host("tcp://a.example:80"), Some(("a.example".into(), 80, false)));
        assert_eq!(host("tls://[::1]:8883"), Some(("::1".into(), 8883, true)));
        assert_eq!(host("127.0.0.1:1"), Some(("127.0.0.1".into(), 1, false)));
        assert_eq!(parse_address("connect", "unix:///run/x"), Ok(Target::Unix("/run/x".into())));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_with_what_to_write() {
        let message = |op, text| parse_address(op, text).expect_err(text).message;
        assert!(message("send_to", "127.0.0.1").ends_with("write host:port, and [host]:port around IPv6"));
        assert!(message("connect", "127.0.0.1").contains("no port; write tcp://host:port"));
        assert!(message("connect", "tcp://::1:80").contains("no [brackets] around IPv6"));
        assert!(message("listen", "udp://0.0.0.0:53").contains("cosocket.udp"));
        assert!(message("connect", "http://a.example").contains("such as http or mqtt"));
    }

    #[test]
    fn a_bad_address_is_refused_with_its_text_and_the_reason() {
        for text in [
            "",
            "a",
            "tcp://a",
            "tcp://a:99999",
            "tcp://a:-1",
            "tcp://:1",
            "tcp://::1:1",
            "tcp://a b:1",
            "http://a:1",
            "unix://",
            "tcp://[::1]",
            "tcp://[::1:80",
            "tcp://a:80/x",
        ] {
            let error = parse_address("connect", text).expect_err(text);
            assert!(error.message.contains(&format!("{text:?}")), "{error}");
        }
    }
}
