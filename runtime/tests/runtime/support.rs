//! Certificates, and a way to run a script that cannot hang.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use moonwire_runtime::{
    Builder, RunError, Runtime, TaskFailure,
    mlua::{Lua, Table},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// After so long a script hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Status of a script that was stopped because it hung.
const HUNG: i32 = 99;

/// Functions that every script has.
const PRELUDE: &str = include_str!("support.lua");

/// PEM texts of a certificate and its key.
struct Pair {
    name: &'static str,
    certificate: String,
    key: String,
}

static CERTIFICATES: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let (ca, issuer) = authority("ca");
    let (other_ca, other_issuer) = authority("other_ca");
    let here = ["localhost", "127.0.0.1", "::1"];
    let now = (2020, 2120);
    vec![
        ca,
        other_ca,
        signed("server", &here, now, Some(&issuer)),
        signed("elsewhere", &["elsewhere.example"], now, Some(&issuer)),
        signed("wildcard", &["*.wild.example"], now, Some(&issuer)),
        signed("expired", &here, (2001, 2002), Some(&issuer)),
        signed("future", &here, (2110, 2120), Some(&issuer)),
        signed("self_signed", &here, now, None),
        signed("client", &["client.example"], now, Some(&issuer)),
        signed("other_client", &["client.example"], now, Some(&other_issuer)),
    ]
});

fn params(name: &str, (from, to): (i32, i32)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

fn authority(name: &'static str) -> (Pair, Issuer<'static, KeyPair>) {
    let mut params = params(name, (2000, 2130));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let pair = Pair { name, certificate: certificate.pem(), key: key.serialize_pem() };
    (pair, Issuer::new(params, key))
}

fn signed(name: &'static str, names: &[&str], valid: (i32, i32), issuer: Option<&Issuer<'_, KeyPair>>) -> Pair {
    let mut params = params(name, valid);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    params.subject_alt_names = CertificateParams::new(names).unwrap().subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    Pair { name, certificate: certificate.unwrap().pem(), key: key.serialize_pem() }
}

/// `certs.NAME` is `{certificate = PEM, key = PEM}`.
fn certificates(lua: &Lua) -> Table {
    let certs = lua.create_table().unwrap();
    for pair in CERTIFICATES.iter() {
        let entry = lua.create_table().unwrap();
        entry.set("certificate", pair.certificate.as_str()).unwrap();
        entry.set("key", pair.key.as_str()).unwrap();
        certs.set(pair.name, entry).unwrap();
    }
    certs
}

/// How a run ended, and what tasks reported.
pub struct Ran {
    pub result: Result<i32, RunError>,
    pub reports: Vec<TaskFailure>,
}

/// Runs a script in a runtime made from `builder`; stops it when it takes too long.
pub fn run_in(builder: Builder, script: &str) -> Ran {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let noted = reports.clone();
    let runtime: Runtime =
        builder.on_task_failure(move |failure| noted.borrow_mut().push(failure.clone())).build().unwrap();
    runtime.lua().globals().set("certs", certificates(runtime.lua())).unwrap();
    runtime.lua().load(PRELUDE).set_name("=support").exec().unwrap();
    let (done, finished) = mpsc::channel::<()>();
    let handle = runtime.handle();
    let watch = thread::spawn(move || {
        if finished.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            handle.stop(HUNG);
        }
    });
    let result = runtime.run_source("=script", script);
    drop(done);
    watch.join().unwrap();
    assert!(!matches!(result, Ok(HUNG)), "the script hung");
    drop(runtime);
    Ran { result, reports: reports.take() }
}

/// Runs a script that must end well, without a task that fails.
#[track_caller]
pub fn run(script: &str) {
    let ran = run_in(Runtime::builder(), script);
    if let Err(error) = ran.result {
        panic!("{error}");
    }
    assert!(ran.reports.is_empty(), "{}", ran.reports[0]);
}
