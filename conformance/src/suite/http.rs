//! The HTTP client against nginx, Apache httpd, proxies, and servers in Python that are odd, strict or about to die:
//! `conformance/http/*_test.lua`. Where they are, the files learn from their environment, which `http/web.lua` reads.

use std::time::Duration;

use super::{Context, Setting, Suite};
use crate::certificates::Certificates;
use crate::expected::Expected;
use crate::lua_tests::{LuaTest, Reader};
use crate::outcome::Outcome;
use crate::process;
use crate::server::{Server, web};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "http",
    about: "the HTTP client against nginx, Apache, proxies and servers that are odd, strict or die",
    needs: web::KIND.needs,
    time_max: Duration::from_secs(15 * 60),
    cases,
    run,
};

const FOLDER: &str = "conformance/http";
const EXPECTED: &str = "conformance/expected/web.txt";
/// Seconds a single case may take; a gigabyte takes its time on a machine that is busy.
const CASE_TIME_MAX: &str = "240";
const LIVES: &str = "the servers live to the end";

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let expected = read_expected(setting)?;
    Ok(expected.names().chain([LIVES]).map(str::to_owned).collect())
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let expected = read_expected(context.setting)?;
    let environment = match context.server(&web::KIND) {
        Ok((server, certificates)) => environment(server, certificates),
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
    let version = (web::KIND.version)()?;
    let (tests, wrong) = run_files(context, &environment)?;
    let complete = wrong.is_none();
    if let Some(wrong) = wrong {
        context.report.case("the files run to their end", Outcome::Failed(wrong), None);
    }
    let results: Vec<_> = tests.into_iter().map(|test| (case_name(&test.file, &test.name), test)).collect();
    if context.setting.accept {
        accept(context, &expected, &results)?;
    } else {
        for (name, test) in &results {
            if context.setting.wants(name) {
                let outcome = expected.judge(&version, name, test.outcome.clone());
                context.report.case(name.clone(), outcome, Some(test.time));
            }
        }
        for name in expected.names().filter(|name| complete && !results.iter().any(|(seen, _)| seen == name)) {
            if context.setting.wants(name) {
                let why = "known, but no longer there: write that down with --accept";
                context.report.case(name, Outcome::Failed(why.to_owned()), None);
            }
        }
    }
    context.case(LIVES, |context| match context.server(&web::KIND) {
        Ok((server, _)) => server.lives().into(),
        Err(outcome) => outcome,
    });
    Ok(())
}

/// "login: statement".
fn case_name(file: &str, statement: &str) -> String {
    let topic = file.rsplit('/').next().unwrap_or_default().trim_end_matches("_test.lua");
    format!("{topic}: {statement}")
}

/// Runs the files; with `--case`, only those that hold a case that is wanted.
fn run_files(
    context: &Context<'_>,
    environment: &[(&'static str, String)],
) -> Result<(Vec<LuaTest>, Option<String>), String> {
    let command = || {
        let mut command = context.setting.moonwire();
        command.args(["test", "--real-clock", "--timeout", CASE_TIME_MAX]).envs(environment.iter().cloned());
        command
    };
    let mut files = context.setting.files(FOLDER, "_test.lua")?;
    if context.setting.case.is_some() {
        let mut list = command();
        list.arg("--list").args(&files);
        let listed = context.run(list, context.time_left())?;
        let names: Vec<_> = listed.stdout.lines().filter_map(|line| line.split_once(": ")).collect();
        files.retain(|file| names.iter().any(|(of, name)| of == file && context.setting.wants(&case_name(file, name))));
        if files.is_empty() {
            return Ok((Vec::new(), None));
        }
    }
    let mut command = command();
    command.args(files);
    let mut reader = Reader::new();
    let report = &*context.report;
    let finished = process::run(command, context.time_left(), |source, line| {
        if let Some(name) = reader.line(source, line) {
            report.progress(&name);
        }
    })?;
    Ok(reader.finish(&finished))
}

/// Where the Lua files find the servers and the certificates.
fn environment(server: &Server, certificates: &Certificates) -> Vec<(&'static str, String)> {
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

fn read_expected(setting: &Setting) -> Result<Expected, String> {
    Expected::parse(&setting.read(EXPECTED)?, !setting.accept).map_err(|error| format!("{EXPECTED}: {error}"))
}

fn accept(context: &mut Context<'_>, expected: &Expected, results: &[(String, LuaTest)]) -> Result<(), String> {
    if context.setting.case.is_some() {
        return Err("--accept takes all cases: leave --case out".to_owned());
    }
    let text = expected.accept(results.iter().map(|(name, test)| (name.as_str(), &test.outcome)));
    let path = context.setting.root.join(EXPECTED);
    std::fs::write(path, text).map_err(|error| format!("cannot write {EXPECTED}: {error}"))?;
    context.report.say(&format!("{EXPECTED} is written anew: look at what changed"));
    for (name, test) in results {
        context.report.case(name.clone(), test.outcome.clone(), Some(test.time));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_named_by_its_file_and_statement() {
        assert_eq!(case_name("conformance/http/odd_test.lua", "[RFC 9112 6.3] x"), "odd: [RFC 9112 6.3] x");
    }
}
