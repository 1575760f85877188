//! The HTTP client against nginx, Apache httpd, proxies, servers in Python that are odd, strict or about to die, and
//! servers for uploads: `conformance/http/*_test.lua`. Where they are, the files learn from their environment, which
//! `http/web.lua` reads.

use std::process::Command;
use std::time::Duration;

use super::against::{self, Comparison, topic_of};
use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::server::{Kind, Server, tus, web};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "http",
    about: "the HTTP client against nginx, Apache, proxies, tus and servers that are odd, strict or die",
    needs: &[],
    servers: &[&web::KIND, &tus::KIND],
    time_max: Duration::from_secs(15 * 60),
    cases,
    run,
};

const FOLDER: &str = "conformance/http";
/// Seconds a single case may take; a gigabyte takes its time on a machine that is busy.
const CASE_TIME_MAX: &str = "240";
/// Files about servers of our own only: not in a sample.
const OF_OUR_OWN: [&str; 2] = ["odd_test.lua", "endurance_test.lua"];
/// What is proved against servers for uploads, and not against the others.
const UPLOAD: &str = "upload_test.lua";
const LIVES: &str = "the servers live to the end";

/// The results that are expected of a server.
fn expected(setting: &Setting, kind: &Kind) -> Result<Comparison, String> {
    Comparison::read(setting, format!("conformance/expected/{}.txt", kind.name))
}

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for kind in SUITE.servers.iter().filter(|kind| setting.wants_server(kind)) {
        all.extend(cases_of(setting, kind)?);
    }
    Ok(all)
}

fn cases_of(setting: &Setting, kind: &Kind) -> Result<Vec<String>, String> {
    let expected = expected(setting, kind)?;
    Ok(expected.names().chain([LIVES]).map(str::to_owned).collect())
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let files = context.setting.files(FOLDER, "_test.lua")?;
    let (upload, mut web): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.ends_with(UPLOAD));
    if context.setting.sample {
        web.retain(|file| !OF_OUR_OWN.iter().any(|name| file.ends_with(name)));
        return run_against(context, &web::KIND, web);
    }
    run_against(context, &web::KIND, web)?;
    run_against(context, &tus::KIND, upload)
}

fn run_against(context: &mut Context<'_>, kind: &'static Kind, files: Vec<String>) -> Result<(), String> {
    if !context.against(kind) {
        return Ok(());
    }
    let expected = expected(context.setting, kind)?;
    let nowhere = || command(context, &[]);
    if !context.setting.wants(LIVES) && !against::any_wanted(context, &nowhere, &files, &case_name)? {
        return Ok(());
    }
    let (version, environment) = match context.server(kind) {
        Ok((server, certificates)) => (server.version.clone(), environment(server, certificates)),
        Err(Outcome::Skipped(reason)) => {
            let names = cases_of(context.setting, kind)?;
            context.skip(&names, &reason);
            return Ok(());
        }
        Err(outcome) => {
            context.report.case("the servers start", outcome, None);
            return Ok(());
        }
    };
    let command = || command(context, &environment);
    let (tests, wrong) = against::run_files(context, &command, files, &case_name, "")?;
    let complete = wrong.is_none();
    if let Some(wrong) = wrong {
        context.report.case("the files run to their end", Outcome::Failed(wrong), None);
    }
    let results: Vec<_> = tests.into_iter().map(|test| (case_name(&test.file, &test.name), test)).collect();
    expected.report(context, &version, &results, complete)?;
    context.case(LIVES, |context| match context.server(kind) {
        Ok((server, _)) => server.lives().into(),
        Err(outcome) => outcome,
    });
    Ok(())
}

/// `moonwire test`, with all but the files.
fn command(context: &Context<'_>, environment: &[(&'static str, String)]) -> Command {
    let mut command = context.setting.moonwire_with_suites();
    command.args(["test", "--real-clock", "--timeout", CASE_TIME_MAX]).envs(environment.iter().cloned());
    command
}

/// "login: statement".
fn case_name(file: &str, statement: &str) -> String {
    format!("{}: {statement}", topic_of(file))
}

/// Where the Lua files find the servers and the certificates.
pub(super) fn environment(server: &Server, certificates: &Certificates) -> Vec<(&'static str, String)> {
    let listeners = server.kind.listeners.iter();
    let ports: Vec<String> =
        listeners.filter_map(|listener| Some(format!("{listener}={}", server.port(listener)?))).collect();
    let folder = server.folder().display().to_string();
    vec![
        ("MOONWIRE_HTTP_PORTS", ports.join(" ")),
        ("MOONWIRE_HTTP_FOLDER", folder),
        ("MOONWIRE_HTTP_CERTIFICATES", certificates.folder().display().to_string()),
        ("MOONWIRE_HTTP_USER", web::USER.to_owned()),
        ("MOONWIRE_HTTP_PASSWORD", web::PASSWORD.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_named_by_its_file_and_statement() {
        assert_eq!(case_name("conformance/http/odd_test.lua", "[RFC 9112 6.3] x"), "odd: [RFC 9112 6.3] x");
    }
}
