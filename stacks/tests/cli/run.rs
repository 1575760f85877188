//! `moonwire SCRIPT [ARGUMENTS]...`

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use super::{Answer, Folder};

#[test]
fn a_script_runs_and_its_end_is_success() {
    Folder::new("a_script_runs").with("a.lua", "print('hello', 1 + 1)").moonwire(&["a.lua"]).is(0, "hello\t2\n", "");
}

#[test]
fn everything_after_the_script_is_its_arguments() {
    let script = "print(arg[0], #arg, ...) for i, v in ipairs(arg) do assert(v == select(i, ...)) end";
    let folder = Folder::new("arguments").with("a.lua", script);
    folder.moonwire(&["a.lua", "--count", "3", "", "--help", "check"]).is(
        0,
        "a.lua\t5\t--count\t3\t\t--help\tcheck\n",
        "",
    );
    folder.moonwire(&["a.lua"]).is(0, "a.lua\t0\n", "");
    folder.moonwire(&["--", "a.lua", "-x"]).is(0, "a.lua\t1\t-x\n", "");
}

#[test]
fn a_folder_to_serve_that_is_not_there_is_told() {
    let script = "require('http').server.new():static('/', 'ww'):static('/it', 'www')";
    let folder = Folder::new("static").with("a.lua", script).with("www/index.html", "it");
    let answer = folder.moonwire(&["a.lua"]);
    answer.complains(0, "WARN  http.server: static: files are not there (yet): ww: No such file or directory");
    assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
}

#[test]
fn a_script_comes_from_standard_input() {
    let folder = Folder::new("stdin");
    folder.moonwire_reading("print(arg[0], ...)", &["-", "x"]).is(0, "-\tx\n", "");
    folder.moonwire_reading("\n\nerror('boom')", &["-"]).complains(1, "stdin:3: boom");
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
fn modules_come_from_the_scripts_folder_then_from_moonwire_path_then_from_the_program() {
    let folder = Folder::new("moonwire_path")
        .with("script/a.lua", "print(require('one'), require('two'), require('mqtt'), require('json').null ~= nil)")
        .with("script/one.lua", "return 'own'")
        .with("first/one.lua", "return 'hidden'")
        .with("first/two.lua", "return 'first'")
        .with("second/two.lua", "return 'hidden'")
        .with("second/mqtt.lua", "return 'second'");
    let answer: Answer =
        folder.command(&["script/a.lua"]).env("MOONWIRE_PATH", "first:second").output().unwrap().into();
    answer.is(0, "own\tfirst\tsecond\ttrue\n", "");
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
fn modules_beside_the_script_are_found_from_anywhere_and_before_embedded_ones() {
    let folder = Folder::new("modules")
        .with("app/main.lua", "print(require('helper'), require('deep.er'), require('package_').name)")
        .with("app/helper.lua", "return 'helper'")
        .with("app/deep/er.lua", "return ...")
        .with("app/package_/init.lua", "return { name = ... }")
        .with("app/own.lua", "print((require('test')))")
        .with("app/test.lua", "return 'my own test'");
    folder.moonwire(&["app/main.lua"]).is(0, "helper\tdeep.er\tpackage_\n", "");
    folder.moonwire(&["app/own.lua"]).is(0, "my own test\n", "");
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
        for text in [
            "moonwire SCRIPT [ARGUMENTS]",
            "moonwire check",
            "moonwire test",
            "MOONWIRE_LOG",
            "--trace LIST",
            "Exit status:",
        ] {
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

#[test]
fn an_error_has_its_way_through_the_tasks() {
    let script = "local cosocket = require('cosocket')
cosocket.group(function()
  cosocket.spawn('child', function()
    local function deep() error('boom') end
    deep()
  end)
  cosocket.sleep(60)
end)";
    let answer = Folder::new("through_tasks").with("a.lua", script).moonwire(&["a.lua"]);
    for text in ["moonwire: a.lua:4: boom\n", "in child:\n", "a.lua:4: in local 'deep'\n", "a.lua:5: in function"] {
        answer.complains(1, text);
    }
}

#[test]
fn an_error_of_another_task_is_told_and_the_script_goes_on() {
    let script = "local cosocket = require('cosocket')
cosocket.spawn('other', function() error('lost') end)
cosocket.sleep(0)
print('goes on')";
    let answer = Folder::new("other_task").with("a.lua", script).moonwire(&["a.lua"]);
    answer.complains(1, "other: a.lua:2: lost\n");
    assert_eq!(answer.out, "goes on\n");
}

const WAITS: &str = "local cosocket = require('cosocket')
cosocket.on_stop(function() print('goodbye') end)
cosocket.spawn('sleeper', function()
  local mark <close> = setmetatable({}, { __close = function() print('closed') end })
  cosocket.sleep(3600)
end)
cosocket.sleep(0)
print('ready')
io.stdout:flush()
cosocket.event():wait()";

/// Runs [`WAITS`] and sends it the signals, one after the other. Answers status, output and errors.
fn signalled(name: &str, signals: &[&str]) -> (Option<i32>, String, String) {
    let folder = Folder::new(name).with("a.lua", WAITS);
    let mut process = folder.command(&["a.lua"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut err = BufReader::new(process.stderr.take().unwrap());
    let (mut said, mut complained) = (String::new(), String::new());
    out.read_line(&mut said).unwrap();
    for signal in signals {
        let kill = format!("kill -{signal} {}", process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        if *signal == "USR1" {
            err.read_line(&mut complained).unwrap();
            err.read_line(&mut complained).unwrap();
        }
    }
    out.read_to_string(&mut said).unwrap();
    err.read_to_string(&mut complained).unwrap();
    (process.wait().unwrap().code(), said, complained)
}

#[test]
fn a_script_that_is_asked_to_stop_says_goodbye() {
    let said = "ready\ngoodbye\nclosed\n".to_owned();
    assert_eq!(signalled("sigterm", &["TERM"]), (Some(0), said.clone(), String::new()));
    assert_eq!(signalled("sigint", &["INT"]), (Some(130), said, String::new()));
}

#[test]
fn a_running_script_lists_its_tasks_and_goes_on() {
    let (status, said, complained) = signalled("sigusr1", &["USR1", "TERM"]);
    assert_eq!((status, said.as_str()), (Some(0), "ready\ngoodbye\nclosed\n"));
    assert!(complained.contains(" main: waits in event:wait"), "{complained}");
    assert!(complained.contains(" sleeper: waits in sleep"), "{complained}");
}

#[test]
fn a_script_that_never_waits_is_ended_by_the_second_interrupt() {
    let folder = Folder::new("sigint_hog").with("a.lua", "print('ready') io.stdout:flush() while true do end");
    let mut command = folder.command(&["a.lua"]);
    let mut process = command.env("MOONWIRE_HOG", "0").stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let interrupt = format!("kill -INT {}", process.id());
    // Two that come at once may be told as one.
    while process.try_wait().unwrap().is_none() {
        let _ = Command::new("sh").args(["-c", &interrupt]).stderr(Stdio::null()).status().unwrap();
    }
    assert_eq!(process.wait().unwrap().code(), Some(130));
}

#[test]
fn a_script_goes_on_although_nobody_reads_what_it_complains_of() {
    let script = "local cosocket = require('cosocket')
io.read()
cosocket.spawn(function() error('unheard') end)
cosocket.sleep(0)
print('goes on')";
    let folder = Folder::new("unread_errors").with("a.lua", script);
    let mut command = folder.command(&["a.lua"]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stderr.take());
    drop(process.stdin.take());
    let output = process.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"goes on\n"[..]));
}

#[test]
fn a_task_that_keeps_the_others_waiting_is_reported_with_its_line() {
    let script = "require('cosocket').spawn('cruncher', function()\n  local t = os.clock()\n  local co = coroutine.wrap(function()\n    while os.clock() - t < 0.4 do end\n  end)\n  co()\nend)";
    let folder = Folder::new("hog").with("a.lua", script);
    let run = |limit: &str| -> super::Answer {
        folder.command(&["a.lua"]).env("MOONWIRE_HOG", limit).output().unwrap().into()
    };
    let answer = run("0.02");
    answer.complains(0, "cruncher has kept the others waiting for ");
    answer.complains(0, "a.lua:4");
    run("0").is(0, "", "");
}
