//! TLS over a plain socket, by rustls.

mod certificate;
mod config;

pub(crate) use certificate::Certificate;
pub(crate) use config::{ClientOptions, Configs, Identity, Pem, ServerOptions, Version, Versions, parse_pin};

use std::{
    borrow::Cow,
    io::{self, IoSlice, Read, Write},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, HandshakeKind, OtherError, ProtocolVersion,
    ServerConfig, ServerConnection, pki_types::ServerName,
};

use super::{Plain, Readiness, TransportError};
use crate::{
    error::{Code, Error, Kind},
    scheduler::Op,
};

/// A TLS session. The socket below it is handed to each call.
pub(crate) struct Tls {
    session: Connection,
    /// The name asked for, as a client.
    server_name: Option<Box<str>>,
    /// Bytes of records that wait for the socket.
    held: usize,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// What `tls_info` answers.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) version: &'static str,
    pub(crate) cipher: String,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) server_name: Option<String>,
    pub(crate) resumed: bool,
    pub(crate) peer: Option<Certificate>,
}

/// A plain socket as rustls wants to see it.
struct Pipe<'a> {
    plain: &'a mut Plain,
    ready: &'a mut Readiness,
    /// What is left of what was to be written last.
    held: &'a mut usize,
}

fn to_io(error: TransportError) -> io::Error {
    match error {
        TransportError::Blocked => io::ErrorKind::WouldBlock.into(),
        TransportError::Io(error) => error,
        TransportError::Tls(error) => io::Error::other(error),
    }
}

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.plain.read(self.ready, into).map_err(to_io)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = self.plain.write(self.ready, parts);
        // rustls offers all it has, and tells nobody how much that is.
        let offered: usize = parts.iter().map(|part| part.len()).sum();
        *self.held = offered - result.as_ref().map_or(0, |sent| *sent);
        result.map_err(to_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn from_io(error: io::Error) -> TransportError {
    match error.kind() {
        io::ErrorKind::WouldBlock => TransportError::Blocked,
        _ => TransportError::Io(error),
    }
}

impl Tls {
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        let server_name = Some(name.to_str().into());
        Ok(Self { session: ClientConnection::new(config, name)?.into(), server_name, held: 0 })
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { session: ServerConnection::new(config)?.into(), server_name: None, held: 0 })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Takes records off the socket and looks into them. `false`: the socket has ended.
    fn receive(&mut self, plain: &mut Plain, ready: &mut Readiness) -> Result<bool, TransportError> {
        let n = self.session.read_tls(&mut Pipe { plain, ready, held: &mut self.held }).map_err(from_io)?;
        if let Err(error) = self.session.process_new_packets() {
            // The alert that says why leaves as far as the socket takes it.
            let _ = self.flush(plain, ready);
            return Err(TransportError::Tls(error));
        }
        // Handshake messages and key updates that this has caused.
        match self.flush(plain, ready) {
            Ok(()) | Err(TransportError::Blocked) => Ok(n > 0),
            // Its last words may still be readable although it no longer listens.
            Err(TransportError::Io(_)) if n > 0 => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Moves the handshake on; `Ok` when it is done.
    pub(crate) fn handshake(&mut self, plain: &mut Plain, ready: &mut Readiness) -> Result<(), TransportError> {
        while self.session.is_handshaking() {
            if self.session.wants_write() {
                self.flush(plain, ready)?;
            } else if !self.receive(plain, ready)? {
                return Err(TransportError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.flush(plain, ready)
    }

    pub(crate) fn read(
        &mut self,
        plain: &mut Plain,
        ready: &mut Readiness,
        into: &mut [u8],
    ) -> Result<usize, TransportError> {
        if self.session.is_handshaking() {
            self.handshake(plain, ready)?;
        }
        loop {
            match self.session.reader().read(into) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // At the end of the socket the next look says whether TLS had ended before.
                    self.receive(plain, ready)?;
                }
                Err(error) => return Err(TransportError::Io(error)),
            }
        }
    }

    pub(crate) fn write(
        &mut self,
        plain: &mut Plain,
        ready: &mut Readiness,
        parts: &[IoSlice<'_>],
    ) -> Result<usize, TransportError> {
        if self.session.is_handshaking() {
            self.handshake(plain, ready)?;
        }
        let wanted = parts.iter().any(|part| !part.is_empty());
        loop {
            let n = self.session.writer().write_vectored(parts).map_err(TransportError::Io)?;
            match self.flush(plain, ready) {
                Err(TransportError::Blocked) if n > 0 => return Ok(n),
                Err(error) => return Err(error),
                // There was no room for plain text before the records left. The socket takes more, so no event
                // would say that there is now.
                Ok(()) if n == 0 && wanted => {}
                Ok(()) => return Ok(n),
            }
        }
    }

    pub(crate) fn wants_flush(&self) -> bool {
        self.session.wants_write()
    }

    /// Bytes of records that the socket had no room for when they were last offered.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn flush(&mut self, plain: &mut Plain, ready: &mut Readiness) -> Result<(), TransportError> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Pipe { plain, ready, held: &mut self.held }).map_err(from_io)?;
        }
        Ok(())
    }

    /// Queues close_notify and sends what the socket takes.
    pub(crate) fn say_goodbye(&mut self, plain: &mut Plain, ready: &mut Readiness) {
        self.session.send_close_notify();
        let _ = self.flush(plain, ready);
    }

    /// Version and cipher, once both sides have agreed.
    pub(crate) fn established(&self) -> Option<(&'static str, String)> {
        if self.session.is_handshaking() {
            return None;
        }
        let version = match self.session.protocol_version()? {
            ProtocolVersion::TLSv1_3 => "1.3",
            ProtocolVersion::TLSv1_2 => "1.2",
            _ => return None,
        };
        let cipher = self.session.negotiated_cipher_suite()?.suite().as_str();
        Some((version, cipher.map_or_else(|| "unknown".to_owned(), |name| name.replacen("TLS13_", "TLS_", 1))))
    }

    /// What was agreed; `None` while shaking hands.
    pub(crate) fn info(&self) -> Option<Info> {
        let (version, cipher) = self.established()?;
        let asked = match &self.session {
            Connection::Server(session) => session.server_name(),
            Connection::Client(_) => self.server_name.as_deref(),
        };
        Some(Info {
            version,
            cipher,
            alpn: self.session.alpn_protocol().map(<[u8]>::to_vec),
            server_name: asked.map(str::to_owned),
            resumed: self.session.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: self
                .session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(|leaf| Certificate::parse(leaf)),
        })
    }
}

/// Says in words why TLS failed and what to do about it.
pub(crate) fn describe(op: Op, error: &rustls::Error) -> Error {
    let (message, code): (Cow<'static, str>, Cow<'static, str>) = match error {
        rustls::Error::InvalidCertificate(reason) => describe_certificate(reason),
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
            ("the two sides have no ALPN protocol in common".into(), "NoApplicationProtocol".into())
        }
        rustls::Error::AlertReceived(alert) => {
            (format!("the other side refused: {}", spaced(&format!("{alert:?}"))).into(), format!("{alert:?}").into())
        }
        rustls::Error::InvalidMessage(_) => {
            ("what the other side sent is not TLS; does it expect a plain connection?".into(), "InvalidMessage".into())
        }
        rustls::Error::NoCertificatesPresented => {
            ("the other side showed no certificate".into(), "NoCertificatesPresented".into())
        }
        rustls::Error::PeerIncompatible(reason) => (
            format!("the two sides have nothing in common: {}", spaced(&format!("{reason:?}"))).into(),
            "PeerIncompatible".into(),
        ),
        other => (other.to_string().into(), variant(other)),
    };
    Error::new(Kind::Tls, op.as_str(), message).with_code(Code::Name(code))
}

fn describe_certificate(reason: &CertificateError) -> (Cow<'static, str>, Cow<'static, str>) {
    match reason {
        CertificateError::UnknownIssuer => (
            "the certificate is not signed by an authority trusted here; name its authority in tls.ca, or in \
             tls.client_ca if it is a client's"
                .into(),
            "UnknownIssuer".into(),
        ),
        CertificateError::NotValidForName => {
            ("the certificate is for another name; see tls.server_name".into(), "NotValidForName".into())
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            let holds = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            (
                format!("the certificate is for {holds}, not for {}; see tls.server_name", expected.to_str()).into(),
                "NotValidForName".into(),
            )
        }
        CertificateError::Expired => ("the certificate has expired".into(), "Expired".into()),
        CertificateError::ExpiredContext { time, not_after } => (
            format!(
                "the certificate expired {} ago (or this machine's clock is wrong)",
                span(time.as_secs().saturating_sub(not_after.as_secs()))
            )
            .into(),
            "Expired".into(),
        ),
        CertificateError::NotValidYet => ("the certificate is not valid yet".into(), "NotValidYet".into()),
        CertificateError::NotValidYetContext { time, not_before } => (
            format!(
                "the certificate becomes valid in {} (or this machine's clock is wrong)",
                span(not_before.as_secs().saturating_sub(time.as_secs()))
            )
            .into(),
            "NotValidYet".into(),
        ),
        CertificateError::Revoked => ("the certificate has been revoked".into(), "Revoked".into()),
        CertificateError::ApplicationVerificationFailure => {
            ("the certificate's key is none of those in tls.pin_sha256".into(), "PinMismatch".into())
        }
        // The verifier's own words, which rustls has no name for.
        CertificateError::Other(OtherError(inner)) if format!("{inner:?}") == "CaUsedAsEndEntity" => (
            "the certificate is that of an authority (CA:TRUE), and may not be shown by a server or a client itself; \
             have it sign one for them, or make it without: openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE"
                .into(),
            "CaUsedAsEndEntity".into(),
        ),
        other => (format!("the certificate is not acceptable: {other}").into(), variant(other)),
    }
}

/// `DnsName("a.example")` as `a.example`, `IpAddress(::1)` as `::1`.
fn plain_name(presented: &str) -> &str {
    if let Some(address) = presented.strip_prefix("IpAddress(") {
        return address.trim_end_matches(')');
    }
    presented.split_once('"').and_then(|(_, rest)| rest.split_once('"')).map_or(presented, |(name, _)| name)
}

/// A duration in its largest unit.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

/// The name of an error's variant.
fn variant(error: &impl std::fmt::Debug) -> Cow<'static, str> {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned().into()
}

/// `UnknownCA` as `unknown CA`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && after_lower {
            text.push(' ');
        }
        after_lower = c.is_lowercase();
        text.push(c);
    }
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let acronym = word.chars().all(char::is_uppercase);
        words.push(if acronym { word.to_owned() } else { word.to_lowercase() });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_read_as_words() {
        assert_eq!(spaced("UnknownCA"), "unknown CA");
        assert_eq!(spaced("CertificateRequired"), "certificate required");
        assert_eq!(plain_name("DnsName(\"a.example\")"), "a.example");
        assert_eq!(plain_name("IpAddress(::1)"), "::1");
        assert_eq!(span(3 * 86_400), "3 days");
    }
}
