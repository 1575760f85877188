//! `moonwire test lua/test`: the stacks' own tests, on scripted streams and a virtual clock; and how cases of scripts are
//! judged, on that clock.

use std::time::Duration;

use super::{Context, Setting, Suite, against};
use crate::process;

/// Every Lua test of the stacks and the examples.
pub const SUITE: Suite = Suite {
    name: "lua",
    about: "moonwire test lua/test examples",
    needs: &[],
    servers: &[],
    time_max: Duration::from_secs(10 * 60),
    cases,
    run,
};

const FOLDERS: [&str; 2] = ["lua/test", "examples"];
/// How cases of the scripts of other suites are judged.
const CASES: &str = "conformance/case_test.lua";

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut command = setting.moonwire();
    command.args(["test", "--list"]).args(FOLDERS).arg(CASES);
    let finished = process::run(command, Duration::from_secs(30), |_, _| {})?;
    let listed = finished.stdout.lines().filter(|line| line.contains(".lua: "));
    Ok(listed.map(str::to_owned).collect())
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    let command = || {
        let mut command = context.setting.moonwire();
        command.arg("test");
        command
    };
    let mut files = Vec::new();
    for folder in FOLDERS {
        files.extend(context.setting.files(folder, "_test.lua")?);
    }
    files.push(CASES.to_owned());
    // A case that is named as a whole is in one file, and the others need not be asked for theirs.
    if let Some(of) = files.iter().find(|file| context.setting.case.iter().any(|case| case.starts_with(*file))).cloned()
    {
        files = vec![of];
    }
    let (tests, wrong) = against::run_files(context, &command, files, &case_name, "")?;
    for test in tests {
        let name = case_name(&test.file, &test.name);
        if context.setting.wants(&name) {
            context.report.case(name, test.outcome, Some(test.time));
        }
    }
    wrong.map_or(Ok(()), Err)
}

/// "lua/test/mqtt_codec_test.lua: statement".
fn case_name(file: &str, statement: &str) -> String {
    format!("{file}: {statement}")
}
