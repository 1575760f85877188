//! TLS configurations, built once and shared.

use std::{
    collections::HashMap,
    fmt::Write,
    fs,
    sync::{Arc, OnceLock},
};

use data_encoding::BASE64;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::certificate::{dns_names, spki_digest};
use crate::error::{Error, Kind};

/// Configurations kept for the next connection with the same options.
const KEPT_MAX: usize = 64;

/// PEM text, or the path of a file with it.
#[derive(Debug, Clone)]
pub(crate) struct Pem(pub(crate) String);

impl Pem {
    fn is_text(&self) -> bool {
        self.0.contains("-----BEGIN ")
    }

    /// The text, read from the file if it is a path. `option` names the culprit in errors.
    fn read(&self, op: &'static str, option: &str) -> Result<Vec<u8>, Error> {
        if self.is_text() {
            return Ok(self.0.clone().into_bytes());
        }
        fs::read(&self.0).map_err(|error| {
            let cause = Error::from_io(op, &error);
            Error::new(Kind::Tls, op, format!("{option}: cannot read {:?}: {}", self.0, cause.message))
                .with_cause(cause)
        })
    }

    /// What tells this source from others, and a file from what it was before.
    fn fingerprint(&self, into: &mut String) {
        into.push_str(&self.0);
        if !self.is_text()
            && let Ok(meta) = fs::metadata(&self.0)
        {
            let _ = write!(into, "|{}|{:?}", meta.len(), meta.modified().ok());
        }
        into.push('\0');
    }

    fn certificates(&self, op: &'static str, option: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
        let text = self.read(op, option)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match found {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(self.bad(op, option, "no certificate in PEM form")),
            Err(_) => Err(self.bad(op, option, "not a certificate in PEM form")),
        }
    }

    fn key(&self, op: &'static str, option: &str) -> Result<PrivateKeyDer<'static>, Error> {
        let text = self.read(op, option)?;
        PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| self.bad(op, option, "no private key in PEM form (encrypted keys must be decrypted first)"))
    }

    fn bad(&self, op: &'static str, option: &str, what: &str) -> Error {
        let place = if self.is_text() { "the text given" } else { &self.0 };
        Error::new(Kind::Tls, op, format!("{option}: {place} has {what}").replace("has not a", "is not a"))
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// The versions of TLS to speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Versions {
    pub(crate) oldest: Version,
    pub(crate) newest: Version,
}

impl Default for Versions {
    fn default() -> Self {
        Self { oldest: Version::Tls12, newest: Version::Tls13 }
    }
}

impl Versions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        match (self.oldest, self.newest) {
            (_, Version::Tls12) => TLS12,
            (Version::Tls13, _) => TLS13,
            (Version::Tls12, Version::Tls13) => rustls::ALL_VERSIONS,
        }
    }
}

/// A certificate chain and its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: Pem,
    pub(crate) key: Pem,
    /// Names it is chosen for; empty: those in the certificate.
    pub(crate) names: Vec<String>,
}

/// How to be a TLS client.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientOptions {
    pub(crate) ca: Vec<Pem>,
    pub(crate) identity: Option<Identity>,
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Vec<String>,
    pub(crate) pins: Vec<[u8; 32]>,
    pub(crate) versions: Versions,
    pub(crate) insecure: bool,
}

/// How to be a TLS server.
#[derive(Debug, Clone)]
pub(crate) struct ServerOptions {
    /// The first is shown to clients that name no other.
    pub(crate) identities: Vec<Identity>,
    pub(crate) client_ca: Vec<Pem>,
    pub(crate) client_required: bool,
    pub(crate) alpn: Vec<String>,
    pub(crate) versions: Versions,
}

/// SHA-256 of a public key, in hex or base64.
pub(crate) fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let digits = text.strip_prefix("sha256//").or_else(|| text.strip_prefix("sha256/")).unwrap_or(text);
    let hex: String = digits.chars().filter(|c| *c != ':').collect();
    if hex.len() == 64 && hex.is_ascii() {
        let mut pin = [0; 32];
        for (byte, pair) in pin.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        return Some(pin);
    }
    BASE64.decode(digits.as_bytes()).ok()?.try_into().ok()
}

/// Configurations by their options.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    clients: HashMap<String, Arc<ClientConfig>>,
    servers: HashMap<String, Arc<ServerConfig>>,
}

impl Configs {
    pub(crate) fn client(&mut self, op: &'static str, options: &ClientOptions) -> Result<Arc<ClientConfig>, Error> {
        let mut key = format!("{:?}|{:?}|{:?}|{}|", options.alpn, options.pins, options.versions, options.insecure);
        options.ca.iter().for_each(|pem| pem.fingerprint(&mut key));
        if let Some(identity) = &options.identity {
            key.push('\x01');
            identity.certificate.fingerprint(&mut key);
            identity.key.fingerprint(&mut key);
        }
        remember(&mut self.clients, key, || build_client(op, options))
    }

    pub(crate) fn server(&mut self, op: &'static str, options: &ServerOptions) -> Result<Arc<ServerConfig>, Error> {
        let mut key = format!("{:?}|{:?}|{}|", options.alpn, options.versions, options.client_required);
        options.client_ca.iter().for_each(|pem| pem.fingerprint(&mut key));
        for identity in &options.identities {
            let _ = write!(key, "\x01{:?}", identity.names);
            identity.certificate.fingerprint(&mut key);
            identity.key.fingerprint(&mut key);
        }
        remember(&mut self.servers, key, || build_server(op, options))
    }
}

fn remember<T>(
    kept: &mut HashMap<String, Arc<T>>,
    key: String,
    build: impl FnOnce() -> Result<T, Error>,
) -> Result<Arc<T>, Error> {
    if let Some(config) = kept.get(&key) {
        return Ok(config.clone());
    }
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    let config = Arc::new(build()?);
    kept.insert(key, config.clone());
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        #[cfg(feature = "aws-lc-rs")]
        return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        #[cfg(not(feature = "aws-lc-rs"))]
        return Arc::new(rustls::crypto::ring::default_provider());
    };
    PROVIDER.get_or_init(make).clone()
}

fn platform_roots(op: &'static str) -> Result<Arc<RootCertStore>, Error> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    if roots.is_empty() {
        let message =
            "this machine has no trusted certificates; install ca-certificates, or name an authority in tls.ca";
        return Err(Error::new(Kind::Tls, op, message));
    }
    Ok(roots.clone())
}

fn roots_of(op: &'static str, option: &str, list: &[Pem]) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    for pem in list {
        for certificate in pem.certificates(op, option)? {
            store
                .add(certificate)
                .map_err(|error| Error::new(Kind::Tls, op, format!("{option}: not a usable certificate: {error}")))?;
        }
    }
    Ok(Arc::new(store))
}

fn misfit(op: &'static str, error: &rustls::Error) -> Error {
    let message = match error {
        rustls::Error::InconsistentKeys(_) => "tls.key does not belong to tls.certificate".to_owned(),
        other => format!("certificate and key: {other}"),
    };
    Error::new(Kind::Tls, op, message)
}

fn build_client(op: &'static str, options: &ClientOptions) -> Result<ClientConfig, Error> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(options.versions.list())
        .map_err(|error| misfit(op, &error))?;
    let chain = if options.insecure {
        None
    } else {
        let roots = if options.ca.is_empty() { platform_roots(op)? } else { roots_of(op, "tls.ca", &options.ca)? };
        let built = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
        Some(built.map_err(|error| Error::new(Kind::Tls, op, format!("tls.ca: {error}")))?)
    };
    let verifier = Arc::new(Verifier { chain, pins: options.pins.clone(), provider });
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &options.identity {
        Some(identity) => {
            let chain = identity.certificate.certificates(op, "tls.certificate")?;
            let key = identity.key.key(op, "tls.key")?;
            builder.with_client_auth_cert(chain, key).map_err(|error| misfit(op, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(config)
}

fn build_server(op: &'static str, options: &ServerOptions) -> Result<ServerConfig, Error> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(options.versions.list())
        .map_err(|error| misfit(op, &error))?;
    let builder = if options.client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = roots_of(op, "tls.client_ca", &options.client_ca)?;
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        if !options.client_required {
            verifier = verifier.allow_unauthenticated();
        }
        let built = verifier.build();
        builder.with_client_cert_verifier(
            built.map_err(|error| Error::new(Kind::Tls, op, format!("tls.client_ca: {error}")))?,
        )
    };
    let mut shown = Vec::new();
    for identity in &options.identities {
        let chain = identity.certificate.certificates(op, "tls.certificate")?;
        let key = identity.key.key(op, "tls.key")?;
        let names = if identity.names.is_empty() { dns_names(&chain[0]) } else { identity.names.clone() };
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| misfit(op, &error))?;
        shown.push((names, Arc::new(certified)));
    }
    let mut config = builder.with_cert_resolver(Arc::new(ByName(shown)));
    config.alpn_protocols = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    #[cfg(not(feature = "aws-lc-rs"))]
    let ticketer = rustls::crypto::ring::Ticketer::new();
    #[cfg(feature = "aws-lc-rs")]
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new();
    // Tickets keep resumption state at the client: the server's memory does not grow with its clients.
    config.ticketer = ticketer.map_err(|error| misfit(op, &error))?;
    Ok(config)
}

/// Chooses a certificate by the name the client asked for.
#[derive(Debug)]
struct ByName(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello
            .server_name()
            .and_then(|asked| self.0.iter().find(|(names, _)| names.iter().any(|name| covers(name, asked))));
        named.or(self.0.first()).map(|(_, key)| key.clone())
    }
}

/// Whether a certificate's name is `asked`, or a wildcard for it (RFC 6125, 6.4.3: one label, the leftmost).
fn covers(name: &str, asked: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => asked.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(asked),
    }
}

/// Checks chain and name, unless told not to, and pins besides.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        }
        let pinned = || spki_digest(end_entity).is_some_and(|digest| self.pins.contains(&digest));
        if self.pins.is_empty() || pinned() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_hex_or_base64() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(parse_pin(hex), parse_pin(base64));
        assert!(parse_pin(hex).is_some());
        assert_eq!(parse_pin("sha256/47DEQpj8"), None);
        assert_eq!(parse_pin(""), None);
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(covers("*.example.org", "a.example.org"));
        assert!(!covers("*.example.org", "a.b.example.org"));
        assert!(!covers("*.example.org", "example.org"));
        assert!(covers("Example.org", "example.ORG"));
    }
}
