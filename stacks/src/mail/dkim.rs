//! DKIM (RFC 6376, 8463): relaxed canonicalisation and the signature itself. Which fields are signed is for Lua to say.

use moonwire_runtime::{Error, Kind};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// The hash of a body in relaxed canonicalisation (RFC 6376, 3.4.4), of pieces of any size whose lines end in CRLF.
#[derive(Debug, Default)]
pub struct BodyHash {
    hasher: Sha256,
    /// Line ends that belong to the body only if something follows them.
    ends: u64,
    /// White space of a line of which it is not known whether anything follows.
    space: bool,
    /// Bytes on their way to the hasher.
    ready: Vec<u8>,
    written: bool,
}

impl BodyHash {
    /// Takes the next piece.
    pub fn update(&mut self, data: &[u8]) {
        for &byte in data {
            match byte {
                b'\n' => {
                    self.ends += 1;
                    self.space = false;
                }
                // Only before an LF: what is hashed has been through `transfer::lines`.
                b'\r' => {}
                b' ' | b'\t' => self.space = true,
                other => {
                    for _ in 0..std::mem::take(&mut self.ends) {
                        self.ready.extend_from_slice(b"\r\n");
                    }
                    if std::mem::take(&mut self.space) {
                        self.ready.push(b' ');
                    }
                    self.ready.push(other);
                    self.written = true;
                }
            }
        }
        self.hasher.update(&self.ready);
        self.ready.clear();
    }

    /// The hash. An empty body has no line at all.
    pub fn finish(mut self) -> [u8; 32] {
        if self.written {
            self.hasher.update(b"\r\n");
        }
        self.hasher.finalize().into()
    }
}

/// A header field in relaxed canonicalisation (RFC 6376, 3.4.2), without the CRLF at its end; `None` when it has no
/// colon.
pub fn relaxed_field(field: &[u8]) -> Option<Vec<u8>> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    let mut out: Vec<u8> = field[..colon].trim_ascii_end().to_ascii_lowercase();
    out.push(b':');
    let start = out.len();
    let mut space = false;
    for &byte in &field[colon + 1..] {
        match byte {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => space = true,
            other => {
                if std::mem::take(&mut space) && out.len() > start {
                    out.push(b' ');
                }
                out.push(other);
            }
        }
    }
    Some(out)
}

/// A private key that signs.
pub enum Key {
    /// rsa-sha256.
    Rsa(Box<RsaKeyPair>),
    /// ed25519-sha256.
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// Reads PEM: PKCS#8 (`PRIVATE KEY`) of either kind, or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// `Protocol`, in words that hold nothing of the key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let broken = |why: &'static str| Error::new(Kind::Protocol, "smtp.dkim", why);
        let rsa = |key: Result<RsaKeyPair, ring::error::KeyRejected>| {
            key.map(|key| Key::Rsa(Box::new(key)))
                .map_err(|_| broken("the key is neither an RSA key of 2048 to 8192 bits nor an Ed25519 key"))
        };
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| broken("the key is not PEM of a private key"))? {
            PrivateKeyDer::Pkcs8(der) => match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()) {
                Ok(key) => Ok(Key::Ed25519(key)),
                Err(_) => rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())),
            },
            PrivateKeyDer::Pkcs1(der) => rsa(RsaKeyPair::from_der(der.secret_pkcs1_der())),
            _ => Err(broken("the key is of a kind that DKIM does not know: RSA or Ed25519 is wanted")),
        }
    }

    /// The algorithm's name in the `a=` tag.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Key::Rsa(_) => "rsa-sha256",
            Key::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// Signs what has been canonicalised.
    ///
    /// # Errors
    /// `Io`, when the system has no random bytes.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature)
                    .map_err(|_| Error::new(Kind::Io, "smtp.dkim", "the signature could not be made"))?;
                Ok(signature)
            }
            // RFC 8463, 3: what is signed is the SHA-256 of the data.
            Key::Ed25519(key) => Ok(key.sign(&Sha256::digest(data)).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;

    fn hash(pieces: &[&[u8]]) -> String {
        let mut body = BodyHash::default();
        for piece in pieces {
            body.update(piece);
        }
        BASE64.encode(&body.finish())
    }

    fn sha256(data: &[u8]) -> String {
        BASE64.encode(&Sha256::digest(data))
    }

    #[test]
    fn the_example_of_the_standard_is_canonical() {
        // RFC 6376, 3.4.5
        assert_eq!(relaxed_field(b"A: X\r\n").unwrap(), b"a:X");
        assert_eq!(relaxed_field(b"B : Y\t\r\n\tZ  \r\n").unwrap(), b"b:Y Z");
        assert_eq!(relaxed_field(b"no field"), None);
        assert_eq!(hash(&[b" C \r\nD \t E\r\n\r\n\r\n"]), sha256(b" C\r\nD E\r\n"));
    }

    #[test]
    fn an_empty_body_is_nothing_and_a_missing_line_end_is_made() {
        // RFC 6376, 3.4.4
        assert_eq!(hash(&[]), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(hash(&[b"\r\n \r\n\t\r\n"]), sha256(b""));
        assert_eq!(hash(&[b"a"]), sha256(b"a\r\n"));
        assert_eq!(hash(&[b"\r\n\r\na\r\n"]), sha256(b"\r\n\r\na\r\n"));
    }

    #[test]
    fn a_body_cut_anywhere_has_one_hash() {
        let text = b"a  b \t\r\n \r\n\r\n  c\r\n\r\n";
        let whole = sha256(b"a b\r\n\r\n\r\n c\r\n");
        for cut in 0..=text.len() {
            assert_eq!(hash(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for text in ["", "secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"] {
            let Err(error) = Key::from_pem(text.as_bytes()) else { panic!("taken: {text:?}") };
            assert!(!error.to_string().contains("c2Vj"), "{error}");
        }
    }
}
