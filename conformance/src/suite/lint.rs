//! `cargo fmt --check` and `cargo clippy`: what CONTRIBUTING.md asks of every change.

use std::time::Duration;

use super::{Context, Suite};
use crate::tools::Tool;

const FMT: Tool = Tool::of_toolchain("cargo-fmt", "rustfmt");
const CLIPPY: Tool = Tool::of_toolchain("cargo-clippy", "clippy");

/// The Rust code is as it should be.
pub const SUITE: Suite = Suite {
    name: "lint",
    about: "cargo fmt --check, and cargo clippy with every warning an error",
    needs: &[FMT, CLIPPY],
    servers: &[],
    time_max: Duration::from_secs(15 * 60),
    cases: |_| Ok(COMMANDS.iter().map(|(_, arguments)| format!("cargo {}", arguments.join(" "))).collect()),
    run,
};

const COMMANDS: [(Tool, &[&str]); 2] = [
    (FMT, &["fmt", "--all", "--check"]),
    (CLIPPY, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
];

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for (tool, arguments) in COMMANDS {
        context.case(&format!("cargo {}", arguments.join(" ")), |context| {
            if let Err(skipped) = context.need(&[tool]) {
                return skipped;
            }
            let mut command = context.setting.command("cargo");
            command.args(arguments).env("CARGO_TERM_COLOR", "never");
            context.succeed(command, context.time_left()).map(|_| ()).into()
        });
    }
    Ok(())
}
