//! `moonwire test lua/test`: the stacks' own tests, on scripted streams and a virtual clock.

use std::time::Duration;

use super::{Context, Setting, Suite, against};
use crate::process;

/// Every Lua test of the stacks.
pub const SUITE: Suite = Suite {
    name: "lua",
    about: "moonwire test lua/test",
    needs: &[],
    servers: &[],
    time_max: Duration::from_secs(10 * 60),
    cases,
    run,
};

const FOLDER: &str = "lua/test";

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut command = setting.moonwire();
    command.args(["test", "--list", FOLDER]);
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
    let files = context.setting.files(FOLDER, "_test.lua")?;
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
