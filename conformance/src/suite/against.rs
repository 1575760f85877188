//! Lua files that run against a server: which of their cases are wanted, what became of them, and whether that is what
//! `expected/` says.

use std::fs;
use std::process::Command;

use super::{Context, Setting};
use crate::expected::Expected;
use crate::lacks::Lacks;
use crate::lua_tests::{LuaTest, Reader};
use crate::outcome::Outcome;
use crate::process;

/// The protocols of which failures tell what went over the wire; `all` would show the bytes of everything else, too.
const TRACED: &str = "mqtt,http,websocket,wsrpc,smtp,socks5";

/// What files came to, and what went wrong besides their tests.
pub type Ran = (Vec<LuaTest>, Option<String>);

/// The topic that a file is about: `publish` of `conformance/mqtt/publish_test.lua`.
pub fn topic_of(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or_default().trim_end_matches("_test.lua")
}

/// Runs `moonwire test` to its end; `before` comes before the names in the progress.
///
/// # Errors
/// In words, when it cannot be run.
pub fn run(context: &Context<'_>, command: Command, before: &str) -> Result<Ran, String> {
    let mut reader = Reader::new();
    let report = &*context.report;
    let finished = process::run(command, context.time_left(), |source, line| {
        if let Some(name) = reader.line(source, line) {
            report.progress(&format!("{before}{name}"));
        }
    })?;
    Ok(reader.finish(&finished))
}

/// Runs files; with `--case`, only those that hold a case that is wanted, or that case alone. `command` is `moonwire test` with all but the
/// files, and `whole` the name of a case of a file.
///
/// # Errors
/// As of [`run`].
pub fn run_files(
    context: &Context<'_>,
    command: &dyn Fn() -> Command,
    mut files: Vec<String>,
    whole: &dyn Fn(&str, &str) -> String,
    before: &str,
) -> Result<Ran, String> {
    let mut only = Vec::new();
    if let Some(wanted) = wanted(context, command, &files, whole)? {
        files.retain(|file| wanted.iter().any(|(of, _)| of == file));
        // One case alone need not wait for the others of its file.
        if let [(_, name)] = wanted.as_slice() {
            only = vec!["--filter".to_owned(), name.clone()];
        }
    }
    if files.is_empty() {
        return Ok((Vec::new(), None));
    }
    let (traced, untraced): (Vec<String>, Vec<String>) =
        files.into_iter().partition(|file| context.setting.read(file).is_ok_and(|source| is_traced(file, &source)));
    let mut ran: Ran = (Vec::new(), None);
    for (files, names) in [(traced, TRACED), (untraced, "")] {
        if files.is_empty() {
            continue;
        }
        let mut command = command();
        command.args(&only).args(files);
        if !names.is_empty() {
            command.env("MOONWIRE_TRACE", names);
        }
        let (tests, wrong) = run(context, command, before)?;
        ran.0.extend(tests);
        ran.1 = ran.1.or(wrong);
    }
    Ok(ran)
}

/// Whether any case of these files is to run. Servers are started for such files, and for no others. Files that cannot be
/// listed before there is a server may have one.
///
/// # Errors
/// As of [`run`].
pub fn any_wanted(
    context: &Context<'_>,
    command: &dyn Fn() -> Command,
    files: &[String],
    whole: &dyn Fn(&str, &str) -> String,
) -> Result<bool, String> {
    Ok(wanted(context, command, files, whole)?.is_none_or(|wanted| !wanted.is_empty()))
}

/// The cases that `--case` chooses, each with its file; `None` when it is not there, or when a file cannot be listed:
/// that one fails when it runs.
fn wanted(
    context: &Context<'_>,
    command: &dyn Fn() -> Command,
    files: &[String],
    whole: &dyn Fn(&str, &str) -> String,
) -> Result<Option<Vec<(String, String)>>, String> {
    if context.setting.case.is_none() {
        return Ok(None);
    }
    let mut list = command();
    list.arg("--list").args(files);
    let listed = context.run(list, context.time_left())?;
    if !listed.succeeded() {
        return Ok(None);
    }
    let names = listed.stdout.lines().filter_map(|line| line.split_once(": "));
    let wanted = names.filter(|(file, name)| context.setting.wants(&whole(file, name)));
    Ok(Some(wanted.map(|(file, name)| (file.to_owned(), name.to_owned())).collect()))
}

/// Whether a case of a file that fails is to say what went over the wire: every one against a server, unless the file's
/// head says `-- trace: none`, because too much goes over it.
fn is_traced(file: &str, source: &str) -> bool {
    let mut head = source.lines().take_while(|line| line.starts_with("--"));
    file.starts_with("conformance/") && !head.any(|line| line.trim_end() == "-- trace: none")
}

/// Results that are compared with a file of `expected/`.
pub struct Comparison {
    path: String,
    expected: Expected,
    lacks: Lacks,
}

impl Comparison {
    /// Reads what is expected.
    ///
    /// # Errors
    /// In words, when the file cannot be read or understood.
    pub fn read(setting: &Setting, path: impl Into<String>) -> Result<Self, String> {
        let path = path.into();
        let expected =
            Expected::parse(&setting.read(&path)?, !setting.accept).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { path, expected, lacks: Lacks::default() })
    }

    /// The same, for a server that does not offer everything.
    pub fn with_lacks(self, lacks: Lacks) -> Self {
        Self { lacks, ..self }
    }

    /// What the server does not offer.
    pub fn lacks(&self) -> &Lacks {
        &self.lacks
    }

    /// The names of the cases that are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.expected.names()
    }

    /// Reports each result, judged by what is expected of the server's `version`, and when everything has run
    /// (`complete`) each case that is known and did not. With `--accept`, writes down what has come out.
    ///
    /// # Errors
    /// In words, when the file cannot be written, or should not.
    pub fn report(
        &self,
        context: &mut Context<'_>,
        version: &str,
        results: &[(String, LuaTest)],
        complete: bool,
    ) -> Result<(), String> {
        if context.setting.accept {
            return self.accept(context, results);
        }
        for (name, test) in results.iter().filter(|(name, _)| context.setting.wants(name)) {
            let outcome = self.expected.judge(version, &self.lacks, name, test.outcome.clone());
            context.report.case(name, outcome, Some(test.time));
        }
        let complete = complete && !context.setting.sample;
        for name in self.names().filter(|name| complete && context.setting.wants(name)) {
            if !results.iter().any(|(seen, _)| seen == name) {
                let why = "known, but no longer there: write that down with --accept";
                context.report.case(name, Outcome::Failed(why.to_owned()), None);
            }
        }
        Ok(())
    }

    fn accept(&self, context: &mut Context<'_>, results: &[(String, LuaTest)]) -> Result<(), String> {
        if context.setting.case.is_some() {
            return Err("--accept takes all cases: leave --case out".to_owned());
        }
        let path = &self.path;
        let text = self.expected.accept(&self.lacks, results.iter().map(|(name, test)| (name.as_str(), &test.outcome)));
        fs::write(context.setting.root.join(path), text).map_err(|error| format!("cannot write {path}: {error}"))?;
        context.report.say(&format!("{path} is written anew: look at what changed"));
        for (name, test) in results {
            context.report.case(name, test.outcome.clone(), Some(test.time));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::suite::{Servers, lua, tests::setting};

    #[test]
    fn servers_are_started_for_cases_that_are_chosen() {
        let any = |case, list: &str| {
            let (setting, mut report, mut servers) = (setting(".".as_ref(), case), Report::new(), Servers::default());
            let context = Context::new(&lua::SUITE, &setting, &mut report, &mut servers);
            let command = || {
                let mut command = Command::new("sh");
                command.args(["-c", list]);
                command
            };
            any_wanted(&context, &command, &["a_test.lua".to_owned()], &|_, name| format!("a: {name}")).unwrap()
        };
        let list = "echo 'a_test.lua: one'; echo 'a_test.lua: two: more'";
        assert!(any(Some("a: two: more"), list));
        assert!(!any(Some("a: three"), list));
        assert!(any(Some("a: three"), "exit 1"), "what cannot be listed may have it");
        assert!(any(None, list));
    }

    #[test]
    fn cases_against_servers_are_traced_unless_their_file_says_otherwise() {
        assert!(is_traced("conformance/http/odd_test.lua", "-- Odd.\nreturn {}\n"));
        assert!(!is_traced("conformance/http/endurance_test.lua", "-- Gigabytes.\n-- trace: none\nreturn {}\n"));
        assert!(is_traced("conformance/http/odd_test.lua", "return {}\n-- trace: none\n"), "not at its head");
        assert!(!is_traced("lua/test/url_test.lua", "return {}\n"));
    }
}
