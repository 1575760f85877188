//! A certificate authority that lives for one run, and the certificates it signed: good ones, and ones to be refused.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// How far into both directions of time a certificate of this run reaches. Clocks of virtual machines drift.
const VALIDITY: Duration = Duration::days(1);

/// The files of a run's certificates: `NAME.pem` and `NAME.key` for each name.
///
/// | name | what it is |
/// |---|---|
/// | `ca` | the authority that clients trust (its key is kept nowhere) |
/// | `other_ca` | an authority that nobody trusts |
/// | `server` | for localhost, 127.0.0.1 and ::1 |
/// | `wrong_name` | for elsewhere.example only |
/// | `expired` | for localhost, valid until the day before yesterday |
/// | `client` | a client, signed by `ca` |
/// | `other_client` | a client, signed by `other_ca` |
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes all of them in `folder`.
    ///
    /// # Errors
    /// In words.
    pub fn make(folder: &Path) -> Result<Self, String> {
        let made = Self { folder: folder.to_owned() };
        made.write_all().map_err(|error| format!("cannot make certificates in {}: {error}", folder.display()))?;
        Ok(made)
    }

    /// Where they all are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a certificate is.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// Where its private key is.
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn write_all(&self) -> Result<(), Box<dyn std::error::Error>> {
        fs::create_dir_all(&self.folder)?;
        let now = OffsetDateTime::now_utc();
        let valid = (now - VALIDITY, now + VALIDITY);
        let expired = (now - VALIDITY * 30, now - VALIDITY * 2);
        let here = [
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        let elsewhere = [SanType::DnsName("elsewhere.example".try_into()?)];

        let (certificate, ca) = authority("Moonwire conformance, this run")?;
        let (other_certificate, other_ca) = authority("Moonwire conformance, somebody else")?;
        fs::write(self.certificate("ca"), certificate.pem())?;
        fs::write(self.certificate("other_ca"), other_certificate.pem())?;
        self.sign("server", server(&here, valid), &ca)?;
        self.sign("wrong_name", server(&elsewhere, valid), &ca)?;
        self.sign("expired", server(&here, expired), &ca)?;
        self.sign("client", client("moonwire-client", valid), &ca)?;
        self.sign("other_client", client("moonwire-client", valid), &other_ca)
    }

    fn sign(
        &self,
        name: &str,
        params: CertificateParams,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let key = KeyPair::generate()?;
        fs::write(self.certificate(name), params.signed_by(&key, issuer)?.pem())?;
        fs::write(self.key(name), key.serialize_pem())?;
        Ok(())
    }
}

fn authority(name: &str) -> Result<(Certificate, Issuer<'static, KeyPair>), rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    // It was valid when the expired certificate was: only that certificate's own date is wrong.
    let mut params = named(name, (now - VALIDITY * 60, now + VALIDITY));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate, Issuer::new(params, key)))
}

fn server(names: &[SanType], valid: (OffsetDateTime, OffsetDateTime)) -> CertificateParams {
    let mut params = named("Moonwire conformance server", valid);
    params.subject_alt_names = names.to_vec();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn client(name: &str, valid: (OffsetDateTime, OffsetDateTime)) -> CertificateParams {
    let mut params = named(name, valid);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named(name: &str, (not_before, not_after): (OffsetDateTime, OffsetDateTime)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = not_before;
    params.not_after = not_after;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_has_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let made = Certificates::make(&folder.path().join("certificates")).unwrap();
        for name in ["server", "wrong_name", "expired", "client", "other_client"] {
            assert!(fs::read_to_string(made.certificate(name)).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
            assert!(fs::read_to_string(made.key(name)).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
        }
        assert!(!made.key("ca").exists(), "nobody can sign more");
    }

    #[test]
    fn no_two_runs_share_an_authority() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| Certificates::make(&folder.path().join(name)).unwrap());
        let read = |made: &Certificates| fs::read(made.certificate("ca")).unwrap();
        assert_ne!(read(&one), read(&two));
    }
}
