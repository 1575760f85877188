//! TLS options, and TLS on a stream.

use std::net::SocketAddr;

use mlua::{Table, Value};
use rustls::pki_types::ServerName;

use super::{Answer, mistake, socket::closed};
use crate::{
    error::{Error, Kind},
    scheduler::Op,
    shared::Shared,
    socket::{
        SocketId,
        tls::{self, ClientOptions, Identity, Pem, ServerOptions, Version, Versions, parse_pin},
    },
};

fn pem_list(value: &Value, option: &str) -> Result<Vec<Pem>, Error> {
    let wrong = || mistake("tls", format!("{option} must be PEM text, a path, or a list of them"));
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Pem(text.to_str().map_err(|_| wrong())?.to_owned())]),
        Value::Table(list) => {
            let list: Result<Vec<String>, _> = list.sequence_values::<String>().collect();
            let list = list.map_err(|_| wrong())?;
            if list.is_empty() { Err(wrong()) } else { Ok(list.into_iter().map(Pem).collect()) }
        }
        _ => Err(wrong()),
    }
}

fn text(table: &Table, name: &str) -> Result<Option<String>, Error> {
    table.get::<Option<String>>(name).map_err(|_| mistake("tls", format!("{name} must be text")))
}

fn identity(table: &Table, place: &str) -> Result<Option<Identity>, Error> {
    let unfit = |_| mistake("tls", format!("{place}.names must be a list of names"));
    let names = table.get::<Option<Vec<String>>>("names").map_err(unfit)?.unwrap_or_default();
    match (text(table, "certificate")?, text(table, "key")?) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate: Pem(certificate), key: Pem(key), names })),
        (Some(_), None) => Err(mistake("tls", format!("{place}.certificate needs {place}.key"))),
        (None, Some(_)) => Err(mistake("tls", format!("{place}.key needs {place}.certificate"))),
    }
}

fn alpn(table: &Table) -> Result<Vec<String>, Error> {
    let wrong = || mistake("tls", "alpn must be a list of protocol names of 1 to 255 bytes");
    let list = table.get::<Option<Vec<String>>>("alpn").map_err(|_| wrong())?.unwrap_or_default();
    match list.iter().all(|name| (1..=255).contains(&name.len())) {
        true => Ok(list),
        false => Err(wrong()),
    }
}

fn versions(table: &Table) -> Result<Versions, Error> {
    let version = |name: &str| match text(table, name)?.as_deref() {
        None => Ok(None),
        Some("1.2") => Ok(Some(Version::Tls12)),
        Some("1.3") => Ok(Some(Version::Tls13)),
        Some(other) => Err(mistake("tls", format!("{name} is \"1.2\" or \"1.3\", not {other:?}"))),
    };
    let every = Versions::default();
    let oldest = version("min_version")?.unwrap_or(every.oldest);
    let newest = version("max_version")?.unwrap_or(every.newest);
    if oldest > newest {
        return Err(mistake("tls", "min_version is above max_version"));
    }
    Ok(Versions { oldest, newest })
}

fn client_options(value: &Value) -> Result<ClientOptions, Error> {
    let Value::Table(table) = value else { return Ok(ClientOptions::default()) };
    let get = |name: &str| table.get::<Value>(name).unwrap_or(Value::Nil);
    let unfit = || mistake("tls", "pin_sha256 must be a SHA-256 in hex or base64, or a list of them");
    let pins = match get("pin_sha256") {
        Value::Nil => Vec::new(),
        Value::String(one) => vec![one.to_string_lossy()],
        // A pin that is passed over in silence would be no pin.
        Value::Table(list) => {
            let list: mlua::Result<Vec<String>> = list.sequence_values::<String>().collect();
            list.ok().filter(|list| !list.is_empty()).ok_or_else(unfit)?
        }
        _ => return Err(unfit()),
    };
    let mut parsed = Vec::new();
    for pin in &pins {
        let wrong = || mistake("tls", format!("pin_sha256 {pin:?} is not a SHA-256 in hex or base64"));
        parsed.push(parse_pin(pin).ok_or_else(wrong)?);
    }
    Ok(ClientOptions {
        ca: pem_list(&get("ca"), "ca")?,
        identity: identity(table, "tls")?,
        server_name: text(table, "server_name")?,
        alpn: alpn(table)?,
        pins: parsed,
        versions: versions(table)?,
        insecure: matches!(get("insecure"), Value::Boolean(true)),
    })
}

pub(super) fn server_options(table: &Table) -> Result<ServerOptions, Error> {
    let get = |name: &str| table.get::<Value>(name).unwrap_or(Value::Nil);
    let mut identities: Vec<Identity> = identity(table, "tls")?.into_iter().collect();
    if let Value::Table(more) = get("certificates") {
        for (at, entry) in more.sequence_values::<Table>().enumerate() {
            let place = format!("tls.certificates[{}]", at + 1);
            let entry = entry.map_err(|_| mistake("tls", format!("{place} must be a table")))?;
            let found = identity(&entry, &place)?;
            identities.push(found.ok_or_else(|| mistake("tls", format!("{place} needs certificate and key")))?);
        }
    }
    if identities.is_empty() {
        return Err(mistake("tls", "a TLS server needs certificate and key"));
    }
    let client_required = match text(table, "client_certificate")?.as_deref() {
        None | Some("require") => true,
        Some("optional") => false,
        Some(other) => {
            return Err(mistake("tls", format!("client_certificate is \"require\" or \"optional\", not {other:?}")));
        }
    };
    let client_ca = pem_list(&get("client_ca"), "client_ca")?;
    if client_ca.is_empty() && !matches!(get("client_certificate"), Value::Nil) {
        return Err(mistake("tls", "client_certificate needs client_ca, the authorities to accept"));
    }
    Ok(ServerOptions { identities, client_ca, client_required, alpn: alpn(table)?, versions: versions(table)? })
}

/// Says what is wrong with options, of a client or a server, before anything is done with them.
pub(super) fn check_tls(side: &str, options: &Table) -> Answer<bool> {
    Ok(match side {
        "server" => server_options(options).map(|_| true),
        _ => client_options(&Value::Table(options.clone())).and_then(|options| match options.server_name {
            Some(name) => server_name(&name).map(|_| true),
            None => Ok(true),
        }),
    })
}

/// Which side of TLS a stream is to be, and how.
enum Side {
    Client(ClientOptions),
    Server(ServerOptions),
}

/// Puts TLS on a stream; the handshake is waited for by the caller.
pub(super) fn start_tls(
    shared: &Shared,
    id: SocketId,
    side: &str,
    options: &Value,
    host: Option<String>,
) -> Answer<bool> {
    let op = if host.is_some() { "connect" } else { "start_tls" };
    let in_op = |error: Error| Error { op, ..error };
    // Looked at before the core is borrowed: a script's metamethods and finalisers may come back here.
    let options = match (side, options) {
        ("server", Value::Table(table)) => server_options(table).map(Side::Server),
        ("server", _) => Err(mistake(op, "a TLS server needs options")),
        _ => client_options(options).map(Side::Client),
    };
    let mut core = shared.core.borrow_mut();
    let Some(stream) = core.stream(id) else { return Ok(Err(closed(op))) };
    if stream.transport().tls.is_some() {
        return Ok(Err(Error::new(Kind::Tls, op, "the stream has TLS already")));
    }
    if stream.has_unread() {
        let message = "bytes have arrived before TLS began; they cannot be trusted, close the stream";
        return Ok(Err(Error::new(Kind::Protocol, op, message)));
    }
    let peer = stream.transport().plain.peer_address().unwrap_or_default();
    let session = match options {
        Ok(Side::Server(options)) => core.configs.server(op, &options).map(tls::Tls::server),
        Ok(Side::Client(options)) => {
            let name = options.server_name.clone().or(host).unwrap_or_else(|| ip_of(&peer));
            server_name(&name).and_then(|name| Ok(tls::Tls::client(core.configs.client(op, &options)?, name)))
        }
        Err(error) => Err(error),
    };
    let session = match session {
        Ok(session) => session,
        Err(error) => return Ok(Err(in_op(error))),
    };
    match session {
        Ok(session) => {
            if let Some(stream) = core.stream(id) {
                stream.transport_mut().tls = Some(Box::new(session));
            }
            Ok(Ok(true))
        }
        Err(error) => Ok(Err(in_op(tls::describe(Op::StartTls, &error)))),
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| mistake("tls", format!("{name:?} is no name to verify; set tls.server_name")))
}

/// The address of `address:port`.
fn ip_of(peer: &str) -> String {
    peer.parse::<SocketAddr>().map_or_else(|_| peer.to_owned(), |address| address.ip().to_string())
}
