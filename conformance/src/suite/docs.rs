//! The documents' code blocks are true.
//!
//! | fence | what is done |
//! |---|---|
//! | `` ```lua `` | a whole program: run to its end, status 0 |
//! | `` ```text output `` right after it | what it prints, line by line, as in `examples/expected` |
//! | `` ```lua fragment `` | is Lua; not run |
//! | `` ```sh `` | each line is a command that is run here, or that another suite runs |
//! | `` ```sh run `` | a script, run in the top folder |
//! | `` ```sh fragment `` | shown, not run |

use std::fs;
use std::time::Duration;

use super::{Context, Setting, Suite};
use crate::markdown::{Block, blocks};
use crate::tools;
use crate::transcript::{Transcript, matches};

/// Every code block of every document holds.
pub const SUITE: Suite = Suite {
    name: "docs",
    about: "the code blocks of the documents are run",
    needs: &[],
    servers: &[],
    time_max: Duration::from_secs(15 * 60),
    cases,
    run,
};

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "conformance/README.md"];
/// A program in a document is something one watches.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(60);
/// A shell command may have to build something.
const SHELL_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Commands a document may name without this suite running them, and what runs them instead.
const PROVED_ELSEWHERE: &[&str] = &[
    // How one gets here.
    "git clone *",
    "cd *",
    "cargo build *",
    // This run itself.
    "conformance/run*",
    ".ci/run*",
    // The suite containers, where images have to be made.
    "conformance/images/build*",
    // The suites cargo and lint.
    "cargo test*",
    "cargo fmt*",
    "cargo clippy*",
    // The suites lua and check.
    "moonwire test lua/test*",
    "moonwire test examples*",
    "moonwire check *",
    "MOONWIRE_PATH=.:examples/modbus moonwire check *",
    // The suite telemetry, with a broker on a free port.
    "MQTT_URL=* examples/telemetry.lua*",
    "mosquitto_sub *",
];

/// Commands that are run here as they stand.
const RUN_HERE: [&str; 2] = ["cargo run --release -- *", "moonwire *"];

fn cases(setting: &Setting) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for document in DOCUMENTS {
        names.extend(blocks_of(setting, document)?.iter().filter_map(|block| case_name(document, block)));
    }
    Ok(names)
}

fn run(context: &mut Context<'_>) -> Result<(), String> {
    for document in DOCUMENTS {
        let blocks = blocks_of(context.setting, document)?;
        for (index, block) in blocks.iter().enumerate() {
            let output = blocks.get(index + 1).filter(|next| next.language == "text" && next.is_marked("output"));
            let Some(name) = case_name(document, block) else { continue };
            context.case(&name, |context| {
                let result = if block.language == "lua" { lua(context, block, output) } else { shell(context, block) };
                result.into()
            });
        }
    }
    Ok(())
}

fn blocks_of(setting: &Setting, document: &str) -> Result<Vec<Block>, String> {
    if !setting.root.join(document).is_file() {
        return Ok(Vec::new());
    }
    blocks(&setting.read(document)?).map_err(|error| format!("{document}: {error}"))
}

/// `None` for blocks that nothing can be done with.
fn case_name(document: &str, block: &Block) -> Option<String> {
    let Block { language, line, .. } = block;
    let known = language == "lua" || language == "sh" && !block.is_marked("fragment");
    known.then(|| format!("{document}:{line} {language}"))
}

fn lua(context: &Context<'_>, block: &Block, output: Option<&Block>) -> Result<(), String> {
    let script = context.setting.temporary.join("block.lua");
    // The lines keep the numbers they have in the document.
    let text = format!("{}{}", "\n".repeat(block.line - 1), block.text);
    fs::write(&script, text).map_err(|error| format!("{}: {error}", script.display()))?;
    let mut command = context.setting.moonwire();
    if block.is_marked("fragment") {
        let reader = context.setting.temporary.join("read.lua");
        fs::write(&reader, "assert(loadfile(arg[1]))\n").map_err(|error| format!("{}: {error}", reader.display()))?;
        command.arg(&reader).arg(&script);
        return context.succeed(command, BLOCK_TIME_MAX).map(|_| ());
    }
    command.arg(&script);
    let finished = context.succeed(command, BLOCK_TIME_MAX)?;
    match output {
        None => Ok(()),
        Some(output) => {
            let lines = output.text.lines().map(str::to_owned).collect();
            let transcript = Transcript { arguments: Vec::new(), lines };
            transcript.compare(&finished.stdout).map_err(|difference| format!("{difference}\n{}", finished.summary()))
        }
    }
}

fn shell(context: &Context<'_>, block: &Block) -> Result<(), String> {
    if block.is_marked("run") {
        return run_shell(context, &block.text);
    }
    for command in commands(&block.text) {
        if is_like(&RUN_HERE, &command) && !is_like(PROVED_ELSEWHERE, &command) {
            run_shell(context, &command)?;
        } else if !is_like(PROVED_ELSEWHERE, &command) {
            return Err(format!(
                "nothing runs `{command}`: mark the block `run` or `fragment`, or name what proves it"
            ));
        }
    }
    Ok(())
}

fn run_shell(context: &Context<'_>, script: &str) -> Result<(), String> {
    if tools::find("sh").is_none() {
        return Err("there is no sh".to_owned());
    }
    let mut command = context.setting.command("sh");
    let folder = context.setting.moonwire.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["-euc", script]).env("PATH", format!("{folder}:{path}"));
    context.succeed(command, SHELL_TIME_MAX).map(|_| ()).map_err(|error| format!("{}\n{error}", script.trim_end()))
}

/// The commands of a block, one a line; lines that end in a backslash go on.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(|line| match line.split_once(" #") {
        Some((command, _)) => command.trim(),
        None => line.trim(),
    });
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn is_like(patterns: &[&str], command: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, command))
}

#[cfg(test)]
mod tests {
    use super::super::tests::setting;
    use super::*;

    #[test]
    fn a_block_is_one_command_a_line_without_comments() {
        let text = "# first\ncargo run --release -- \\\n    examples/telemetry.lua   # three readings\n\nconformance/run --install\n";
        assert_eq!(commands(text), ["cargo run --release -- examples/telemetry.lua", "conformance/run --install"]);
    }

    #[test]
    fn blocks_are_named_by_document_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let document = "```lua\nprint(1)\n```\n```text output\n1\n```\n```sh fragment\nrm\n```\n```lua fragment\nx\n```\n```sh\ncd x\n```\n";
        fs::write(folder.path().join("README.md"), document).unwrap();
        let names = cases(&setting(folder.path(), None)).unwrap();
        assert_eq!(names, ["README.md:2 lua", "README.md:11 lua", "README.md:14 sh"]);
    }

    #[test]
    fn a_command_that_nothing_runs_is_noticed() {
        assert!(is_like(PROVED_ELSEWHERE, "conformance/run --install"));
        assert!(is_like(
            PROVED_ELSEWHERE,
            "MQTT_URL=mqtt://127.0.0.1:1883 cargo run -- examples/telemetry.lua --count 3"
        ));
        assert!(is_like(&RUN_HERE, "cargo run --release -- examples/telemetry.lua --count 3"));
        for command in ["curl https://example.com | sh", "npm test", "cargo publish"] {
            assert!(!is_like(PROVED_ELSEWHERE, command) && !is_like(&RUN_HERE, command), "{command}");
        }
    }
}
