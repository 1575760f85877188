//! Whether the suites notice: each bug of `conformance/mutations/` is planted in a copy of `lua/`, and the case that it
//! names has to fail there. The same case has to pass in a copy without the bug.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::http_server::CURL;
use super::websocket::KOSOKU;
use super::{Context, SUITES, Setting, Suite, Way};
use crate::mutation::Mutation;
use crate::outcome::{CaseResult, Outcome};
use crate::report::Report;
use crate::server::{exim, mosquitto, postfix, web};

/// The harness tested by bugs.
pub const SUITE: Suite = Suite {
    name: "self_test",
    about: "bugs planted in a copy of lua/ are noticed, each by the case that names it",
    needs: &[KOSOKU, CURL],
    servers: &[&mosquitto::KIND, &postfix::KIND, &exim::KIND, &web::KIND],
    // In containers, images may have to be made first.
    time_max: Duration::from_secs(20 * 60),
    cases: |setting| Ok(mutations(setting)?.iter().map(Planted::name).collect()),
    run,
};

const FOLDER: &str = "conformance/mutations";
const CHECK_TIME_MAX: Duration = Duration::from_secs(30);

/// A mutation and the file it is in.
struct Planted {
    /// The file's name, without its ending.
    file: String,
    mutation: Mutation,
}

impl Planted {
    /// "dup_flag: QoS 1 messages are sent again without DUP".
    fn name(&self) -> String {
        format!("{}: {}", self.file, self.mutation.title)
    }
}

/// The mutations that are wanted: all, or those against one server.
fn mutations(setting: &Setting) -> Result<Vec<Planted>, String> {
    let mut all = Vec::new();
    for path in setting.files(FOLDER, ".diff")? {
        let mutation = Mutation::parse(&setting.read(&path)?).map_err(|error| format!("{path}: {error}"))?;
        let file = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".diff").to_owned();
        if setting.server.is_none() || setting.server == mutation.server {
            all.push(Planted { file, mutation });
        }
    }
    Ok(all)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let all = mutations(context.setting)?;
    let sound = copy(context.setting, "sound")?;
    for planted in &all {
        context.report.against(planted.mutation.server.as_deref());
        context.case(&planted.name(), |context| try_out(context, planted, &sound).unwrap_or_else(Outcome::Failed));
    }
    Ok(())
}

/// Runs the named case with the bug and without it.
fn try_out(context: &mut Context<'_>, planted: &Planted, sound: &Path) -> Result<Outcome, String> {
    let mutation = &planted.mutation;
    let mutated = copy(context.setting, &planted.file)?;
    mutation.plant(&mutated)?;
    for file in mutation.files() {
        let mut command = context.setting.moonwire();
        command.arg("check").arg(mutated.join(file));
        context.succeed(command, CHECK_TIME_MAX).map_err(|error| format!("what is planted is no Lua: {error}"))?;
    }
    let run = |context: &mut Context<'_>, root: &Path, folder: &str| {
        let temporary = context.setting.temporary.join("self_test").join(format!("{}.{folder}", planted.file));
        fs::create_dir_all(&temporary).map_err(|error| format!("{}: {error}", temporary.display()))?;
        outcome_in(context, mutation, root, temporary)
    };
    let outcome = match run(context, sound, "without")? {
        Outcome::Passed => judge(&mutation.case, &run(context, &mutated, "with")?),
        Outcome::Failed(why) => Outcome::Failed(format!("without the bug, too, `{}` fails\n{why}", mutation.case)),
        skipped @ Outcome::Skipped(_) => skipped,
    };
    // Copies are small, but there are many.
    fs::remove_dir_all(&mutated).map_err(|error| format!("{}: {error}", mutated.display()))?;
    Ok(outcome)
}

/// What the bug comes to when its case ended so.
fn judge(case: &str, with: &Outcome) -> Outcome {
    match with {
        Outcome::Failed(_) => Outcome::Passed,
        other => Outcome::Failed(format!("nobody notices the bug: `{case}` {}", other.word())),
    }
}

/// Runs one case of a suite with the `lua/` of `root`.
fn outcome_in(
    context: &mut Context<'_>,
    mutation: &Mutation,
    root: &Path,
    temporary: PathBuf,
) -> Result<Outcome, String> {
    let suite = SUITES.iter().find(|suite| suite.name == mutation.suite);
    let suite = suite.ok_or_else(|| format!("there is no suite `{}`", mutation.suite))?;
    let setting = Setting {
        root: root.to_owned(),
        lua: Some(root.join("lua")),
        case: Some(mutation.case.clone()),
        server: mutation.server.clone(),
        way: if context.setting.elsewhere().is_some() { Way::Native } else { context.setting.way.clone() },
        accept: false,
        temporary,
        ..context.setting.clone()
    };
    let mut report = Report::unseen();
    report.begin(suite.name);
    let ended = (suite.run)(&mut context.within(suite, &setting, &mut report));
    report.end();
    report.servers().iter().for_each(|server| context.report.server(server.clone()));
    // What went wrong elsewhere does not name the bug. What is skipped may be so as a part of the suite.
    let is_it = |result: &&CaseResult| match result.outcome {
        Outcome::Skipped(_) => mutation.case.starts_with(&result.name),
        _ => result.name == mutation.case,
    };
    let found = report.results().iter().find(is_it);
    match (found, ended) {
        (Some(result), _) => Ok(result.outcome.clone()),
        (None, Err(error)) => Err(format!("`{}` has not run: {error}", mutation.case)),
        (None, Ok(())) => {
            let others: Vec<_> = report.results().iter().map(|result| format!("  {}", result.title())).collect();
            Err(format!("`{}` has not run; what has:\n{}", mutation.case, others.join("\n")))
        }
    }
}

/// A copy of the project in which `lua/` may be changed; all else is only linked to.
fn copy(setting: &Setting, name: &str) -> Result<PathBuf, String> {
    let to = setting.temporary.join("self_test").join(name);
    let wrong = |error: std::io::Error| format!("{}: {error}", to.display());
    copy_folder(&setting.root.join("lua"), &to.join("lua")).map_err(wrong)?;
    for entry in setting.root.read_dir().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if entry.file_name() != "lua" && entry.file_name() != "target" {
            symlink(entry.path(), to.join(entry.file_name())).map_err(wrong)?;
        }
    }
    Ok(to)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?
        } else {
            fs::copy(entry.path(), to).map(|_| ())?
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::setting;
    use super::*;

    fn project() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
    }

    #[test]
    fn a_bug_that_its_case_does_not_notice_is_a_failure() {
        assert_eq!(judge("c", &Outcome::Failed("why".into())), Outcome::Passed);
        assert_eq!(judge("c", &Outcome::Passed), Outcome::Failed("nobody notices the bug: `c` passed".into()));
        assert!(matches!(judge("c", &Outcome::Skipped("why".into())), Outcome::Failed(_)));
    }

    #[test]
    fn every_mutation_fits_the_code_and_names_a_suite_and_a_server_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let setting = Setting { temporary: folder.path().to_owned(), ..setting(&project(), None) };
        let all = mutations(&setting).unwrap();
        assert!(!all.is_empty());
        for Planted { file, mutation } in &all {
            let copy = copy(&setting, file).unwrap();
            mutation.plant(&copy).unwrap_or_else(|error| panic!("{file}: {error}"));
            let suite = SUITES.iter().find(|suite| suite.name == mutation.suite).expect(file);
            if let Some(server) = &mutation.server {
                let is_it = |kind: &&&crate::server::Kind| kind.name == server;
                assert!(suite.servers.iter().any(|kind| is_it(&kind)), "{file}: {server}");
                assert!(SUITE.servers.iter().any(|kind| is_it(&kind)), "{file}: the self-test has no {server}");
            }
        }
    }

    #[test]
    fn a_copy_shares_nothing_that_a_bug_changes() {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("lua/net")).unwrap();
        fs::write(from.path().join("lua/net/a.lua"), "sound").unwrap();
        fs::write(from.path().join("README.md"), "same").unwrap();
        let setting = Setting { temporary: to.path().to_owned(), ..setting(from.path(), None) };
        let copy = copy(&setting, "bug").unwrap();
        fs::write(copy.join("lua/net/a.lua"), "bug").unwrap();
        assert_eq!(fs::read_to_string(from.path().join("lua/net/a.lua")).unwrap(), "sound");
        assert_eq!(fs::read_to_string(copy.join("README.md")).unwrap(), "same");
    }
}
