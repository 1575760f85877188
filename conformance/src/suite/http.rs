//! The HTTP client against nginx, Apache httpd, proxies, and servers in Python that are odd, strict or about to die:
//! `conformance/http/*_test.lua`. Where they are, the files learn from their environment, which `http/web.lua` reads.

use std::process::Command;
use std::time::Duration;

use super::against::{self, Comparison, topic_of};
use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::outcome::Outcome;
use crate::server::{Server, web};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "http",
    about: "the HTTP client against nginx, Apache, proxies and servers that are odd, strict or die",
    needs: &[],
    servers: &[&web::KIND],
    time_max: Duration::from_secs(15 * 60),
    cases,
    run,
};

const FOLDER: &str = "conformance/http";
const EXPECTED: &str = "conformance/expected/web.txt";
/// Seconds a single case may take; a gigabyte takes its time on a machine that is busy.
const CASE_TIME_MAX: &str = "240";
/// Files about servers of our own only: not in a sample.
const OF_OUR_OWN: [&str; 2] = ["odd_test.lua", "endurance_test.lua"];
const LIVES: &str = "the servers live to the end";

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let expected = Comparison::read(setting, EXPECTED)?;
    Ok(expected.names().chain([LIVES]).map(str::to_owned).collect())
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let expected = Comparison::read(context.setting, EXPECTED)?;
    context.against(&web::KIND);
    let mut files = context.setting.files(FOLDER, "_test.lua")?;
    if context.setting.sample {
        files.retain(|file| !OF_OUR_OWN.iter().any(|name| file.ends_with(name)));
    }
    let nowhere = || command(context, &[]);
    if !context.setting.wants(LIVES) && !against::any_wanted(context, &nowhere, &files, &case_name)? {
        return Ok(());
    }
    let (version, environment) = match context.server(&web::KIND) {
        Ok((server, certificates)) => (server.version.clone(), environment(server, certificates)),
        Err(Outcome::Skipped(reason)) => {
            let names = cases(context.setting)?;
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
    context.case(LIVES, |context| match context.server(&web::KIND) {
        Ok((server, _)) => server.lives().into(),
        Err(outcome) => outcome,
    });
    Ok(())
}

/// `moonwire test`, with all but the files.
fn command(context: &Context<'_>, environment: &[(&'static str, String)]) -> Command {
    let mut command = context.setting.moonwire();
    command.args(["test", "--real-clock", "--timeout", CASE_TIME_MAX]).envs(environment.iter().cloned());
    command
}

/// "login: statement".
fn case_name(file: &str, statement: &str) -> String {
    format!("{}: {statement}", topic_of(file))
}

/// Where the Lua files find the servers and the certificates.
pub(super) fn environment(server: &Server, certificates: &Certificates) -> Vec<(&'static str, String)> {
    let ports: Vec<String> = web::KIND
        .listeners
        .iter()
        .filter_map(|listener| Some(format!("{listener}={}", server.port(listener)?)))
        .collect();
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
