//! `log` as a program's user sees it: on stderr, quiet in a pipe, as `MOONWIRE_LOG` says.

use std::{
    io::Write,
    process::{Command, Stdio},
};

const SCRIPT: &str = r#"
    local log = require("log")
    log.info("an info")
    log.warn("a warning", { n = 1 })
    log.new("mqtt").debug("a detail")
    print("a result")
"#;

/// What the script writes to stdout, and to stderr without times.
fn run(settings: Option<&str>) -> (String, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moonwire"));
    command.arg("-").env_remove("MOONWIRE_LOG").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(settings) = settings {
        command.env("MOONWIRE_LOG", settings);
    }
    let mut child = command.spawn().expect("the command starts");
    child.stdin.take().expect("a pipe").write_all(SCRIPT.as_bytes()).expect("the script is read");
    let output = child.wait_with_output().expect("the command ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let lines = stderr.lines().map(|line| line.split_once(' ').expect("a time and more").1.to_owned());
    (String::from_utf8(output.stdout).expect("UTF-8"), lines.collect())
}

#[test]
fn in_a_pipe_only_warnings_and_errors_are_written_and_plain() {
    let (stdout, stderr) = run(None);
    assert_eq!(stdout, "a result\n");
    assert_eq!(stderr, ["WARN  a warning n=1"]);
}

#[test]
fn the_environment_opens_and_closes_names() {
    assert_eq!(run(Some("mqtt=debug")).1, ["WARN  a warning n=1", "DEBUG mqtt: a detail"]);
    assert_eq!(run(Some("info")).1, ["INFO  an info", "WARN  a warning n=1"]);
    assert_eq!(run(Some("off")).1, Vec::<String>::new());
}
