//! `moonwire check`: every Lua file of the project, without running it.

use std::time::Duration;

use super::{Context, Setting, Suite};

/// Every Lua file is one that `moonwire check` accepts.
pub const SUITE: Suite = Suite {
    name: "check",
    about: "moonwire check over lua/, examples/ and conformance/",
    needs: &[],
    servers: &[],
    time_max: Duration::from_secs(5 * 60),
    cases: files,
    run,
};

/// Nobody's file takes this long.
const FILE_TIME_MAX: Duration = Duration::from_secs(30);

fn files(setting: &Setting) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for folder in ["lua", "examples", "conformance"] {
        all.extend(setting.files(folder, ".lua")?);
    }
    Ok(all)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for file in files(context.setting)? {
        context.case(&file, |context| {
            let mut command = context.setting.moonwire_with_suites();
            command.args(["check", &file]);
            context.succeed(command, FILE_TIME_MAX).map(|_| ()).into()
        });
    }
    Ok(())
}
