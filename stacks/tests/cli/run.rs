//! `moonwire SCRIPT [ARGUMENTS]...`

use super::Folder;

#[test]
fn a_script_runs_and_its_end_is_success() {
    Folder::new("a_script_runs").with("a.lua", "print('hello', 1 + 1)").moonwire(&["a.lua"]).is(0, "hello\t2\n", "");
}

#[test]
fn a_first_line_for_the_shell_is_skipped_and_lines_are_counted_with_it() {
    let folder = Folder::new("shebang")
        .with("a.lua", "#!/usr/bin/env moonwire\nprint('ran')")
        .with("b.lua", "#!/usr/bin/env moonwire\n\nerror('boom')")
        .with("bom.lua", b"\xef\xbb\xbfprint('ran')");
    folder.moonwire(&["a.lua"]).is(0, "ran\n", "");
    folder.moonwire(&["b.lua"]).complains(1, "b.lua:3: boom");
    folder.moonwire(&["bom.lua"]).is(0, "ran\n", "");
}

#[test]
fn an_uncaught_error_ends_with_its_traceback_and_status_1() {
    let script = "local function inner() error('boom') end\nlocal function outer() inner() end\nouter()";
    let answer = Folder::new("uncaught").with("a.lua", script).moonwire(&["a.lua"]);
    answer.complains(1, "a.lua:1: boom\n");
    answer.complains(1, "stack traceback:");
    answer.complains(1, "a.lua:2: in ");
    answer.complains(1, "a.lua:3: in main chunk");
    assert_eq!(answer.out, "");
}

#[test]
fn an_error_that_is_not_a_string_is_shown_too() {
    let folder = Folder::new("error_values")
        .with("a.lua", "error(setmetatable({}, { __tostring = function() return 'read: gone (closed)' end }))")
        .with("b.lua", "error()");
    folder.moonwire(&["a.lua"]).complains(1, "read: gone (closed)");
    folder.moonwire(&["b.lua"]).complains(1, "nil");
}

#[test]
fn a_script_that_is_no_lua_is_an_error_with_its_place() {
    Folder::new("no_lua")
        .with("a.lua", "x = = 1")
        .moonwire(&["a.lua"])
        .complains(1, "a.lua:1: unexpected symbol near '='");
}

#[test]
fn a_script_that_cannot_be_read_is_one_clear_line() {
    let folder = Folder::new("unreadable").with("folder/a.lua", "");
    folder.moonwire(&["none.lua"]).is(2, "", "moonwire: cannot read none.lua: no such file or directory\n");
    folder.moonwire(&["folder"]).is(2, "", "moonwire: cannot read folder: is a directory\n");
}

#[test]
fn the_scripts_exit_status_is_the_commands() {
    Folder::new("exit").with("a.lua", "os.exit(7)").moonwire(&["a.lua"]).is(7, "", "");
}

#[test]
fn a_script_called_like_a_sub_command_runs_by_its_path() {
    Folder::new("called_check").with("check", "print('mine')").moonwire(&["./check"]).is(0, "mine\n", "");
}

#[test]
fn help_tells_about_sub_commands_environment_and_exit_statuses() {
    let folder = Folder::new("help");
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        let answer = folder.moonwire(arguments);
        for text in ["moonwire SCRIPT [ARGUMENTS]", "moonwire check", "moonwire test", "MOONWIRE_LOG", "Exit status:"] {
            answer.says(0, text);
        }
    }
    folder.moonwire(&["test", "--help"]).says(0, "--fail-fast");
    folder.moonwire(&["help", "check"]).says(0, "Exit status:");
}

#[test]
fn without_arguments_the_command_explains_itself() {
    Folder::new("no_arguments").moonwire(&[]).complains(2, "moonwire SCRIPT [ARGUMENTS]");
}

#[test]
fn the_version_is_told() {
    let line = concat!("moonwire ", env!("CARGO_PKG_VERSION"), "\n");
    Folder::new("version").moonwire(&["--version"]).is(0, line, "");
    Folder::new("version_short").moonwire(&["-V"]).is(0, line, "");
}

#[test]
fn unknown_options_are_refused() {
    let folder = Folder::new("unknown_options").with("a.lua", "");
    folder.moonwire(&["--nonsense", "a.lua"]).complains(2, "--nonsense");
    folder.moonwire(&["test", "--nonsense"]).complains(2, "--nonsense");
    folder.moonwire(&["check", "--nonsense"]).complains(2, "--nonsense");
}
