//! The harness as a command: what it prints, what it writes, how it ends. What it tests is a script of ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A project of two Lua files, and a `moonwire` that accepts every file but one.
fn project() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lua")).unwrap();
    for name in ["good", "bad"] {
        fs::write(folder.path().join(format!("lua/{name}.lua")), "").unwrap();
    }
    let moonwire = folder.path().join("moonwire");
    let script =
        "#!/bin/sh\ncase \"$*\" in --version) echo moonwire 7.8.9 ;; *bad*) echo '</script> is bad'; exit 1 ;; esac\n";
    fs::write(&moonwire, script).unwrap();
    fs::set_permissions(&moonwire, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn run(project: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moonwire-conformance"));
    command.arg("--root").arg(project).arg("--moonwire").arg(project.join("moonwire"));
    command.args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_run_says_what_failed_and_ends_with_the_counts() {
    let project = project();
    let output = run(project.path(), &["check"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("FAILED     check: lua/bad.lua\n"), "{said}");
    assert!(said.contains("</script> is bad"), "{said}");
    assert!(said.contains("\ncheck       -                 1        1        0  "), "{said}");
    assert_eq!(said.lines().last(), Some("1 passed, 1 failed, 0 skipped"));
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "plain text in a pipe: {said:?}");
}

#[test]
fn a_case_that_is_named_runs_alone() {
    let project = project();
    let output = run(project.path(), &["check", "--case", "good"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(said(&output).lines().last(), Some("1 passed, 0 failed, 0 skipped"));
    let output = run(project.path(), &["check", "--case", "lua/*.lua"]);
    assert_eq!(said(&output).lines().last(), Some("1 passed, 1 failed, 0 skipped"));
}

#[test]
fn a_pattern_that_no_case_is_like_is_a_failure() {
    let project = project();
    let output = run(project.path(), &["check", "--case", "goood"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no case is like `goood`"));
}

#[test]
fn a_report_is_text_xml_and_a_page() {
    let project = project();
    let report = project.path().join("deep/report");
    run(project.path(), &["check", "--report", report.to_str().unwrap()]);
    let read = |name: &str| fs::read_to_string(report.join(name)).unwrap();
    assert!(read("results.txt").starts_with("failed   check "));
    assert!(read("junit.xml").contains("<testcase classname=\"check\" name=\"lua/good.lua\""));
    let page = read("index.html");
    assert!(page.contains("moonwire 7.8.9") && page.contains("lua/good.lua"));
    assert!(!page.contains("</script> is bad"), "what a program prints is not a part of the page");
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    let project = project();
    let output = run(project.path(), &["check", "--case", "good", "--report", "/dev/null/report"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("FAILED     report: written to /dev/null/report"));
}

#[test]
fn a_list_runs_nothing() {
    let project = project();
    let output = run(project.path(), &["--list", "check"]);
    assert_eq!(output.status.code(), Some(0));
    let said = said(&output);
    assert!(
        said.contains("lua/bad.lua") && said.contains("1 suite; of their servers 0 are here, 0 are missing"),
        "{said}"
    );
    assert!(!said.contains("failed"), "{said}");
}

#[test]
fn a_command_line_that_cannot_be_followed_is_told_and_runs_nothing() {
    let project = project();
    for (arguments, why) in [
        (&["chekc"][..], "there is no suite `chekc`"),
        (&["--server", "mosquito"], "there is no server `mosquito`"),
        (&["--with", "podman"], "--with podman: "),
        (&["--self-test", "check"], "cannot be used with"),
    ] {
        let output = run(project.path(), arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(why) && output.stdout.is_empty(), "{told}");
    }
}

#[test]
fn every_option_that_the_readme_names_is_there() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let help = said(&run(project().path(), &["--help"]));
    let calls = readme.lines().filter_map(|line| line.split_once("conformance/run ")).map(|(_, rest)| rest);
    let words = calls.flat_map(|call| call.split(['#', '`']).next().unwrap_or_default().split_whitespace());
    let options: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
    assert!(options.len() > 5, "{options:?}");
    for option in options {
        let is_there = |line: &str| line.split_whitespace().next() == Some(option);
        assert!(help.lines().any(is_there), "{option}");
    }
}

#[test]
fn the_case_that_the_readme_shows_is_one_that_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let (_, shown) = readme.split_once("return broker.cases({\n").unwrap();
    let (case, _) = shown.split_once("})\n```").unwrap();
    let files = folder.join("mqtt").read_dir().unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    assert!(case.contains("function()") && files.into_iter().any(|file| file.contains(case)), "{case}");
}
