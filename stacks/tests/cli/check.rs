//! `moonwire check PATHS...`

use super::{Answer, Folder};

#[test]
fn nothing_wrong_is_silence_and_success() {
    let script =
        "#!/usr/bin/env moonwire\nlocal cosocket = require('cosocket')\nprint(cosocket, require('test'), _VERSION)";
    Folder::new("check_good").with("a.lua", script).moonwire(&["check", "a.lua"]).is(0, "", "");
}

#[test]
fn what_is_no_lua_is_told_with_its_place() {
    let folder = Folder::new("check_syntax").with("a.lua", "\n\nx = = 1\n").with("b.lua", "for");
    folder.moonwire(&["check", "a.lua", "b.lua"]).is(
        1,
        "a.lua:3: unexpected symbol near '='\nb.lua:1: <name> expected near <eof>\n",
        "",
    );
}

#[test]
fn nothing_is_run() {
    let folder = Folder::new("check_runs_nothing").with("a.lua", "print('ran') os.exit(9)");
    folder.moonwire(&["check", "a.lua"]).is(0, "", "");
}

#[test]
fn an_unknown_module_is_told_with_the_one_that_was_probably_meant() {
    let folder = Folder::new("check_modules").with("a.lua", "require 'cosockets'\n\nlocal x = require('no.such')");
    folder.moonwire(&["check", "a.lua"]).is(
        1,
        "a.lua:1: there is no module \"cosockets\" (did you mean \"cosocket\"?)\na.lua:3: there is no module \"no.such\"\n",
        "",
    );
}

#[test]
fn modules_are_looked_for_where_the_scripts_would_find_them() {
    let folder = Folder::new("check_roots")
        .with("app/main.lua", "require 'lib.one'\nrequire 'whole'")
        .with("app/lib/one.lua", "require 'lib.two'")
        .with("app/lib/two.lua", "")
        .with("app/whole/init.lua", "")
        .with("app/test/lib_test.lua", "require 'lib.one'");
    folder.moonwire(&["check", "app"]).is(0, "", "");
    folder.moonwire(&["check", "app/main.lua"]).is(0, "", "");
    folder.moonwire(&["check", "app/test/lib_test.lua"]).is(0, "", "");
    folder.moonwire(&["check", "app/lib/one.lua"]).is(1, "app/lib/one.lua:1: there is no module \"lib.two\"\n", "");
}

#[test]
fn what_is_in_the_folder_of_a_module_finds_the_others() {
    let folder = Folder::new("check_rooms")
        .with("app/foo.lua", "require 'foo.session'")
        .with("app/foo/session.lua", "require 'foo.codec'")
        .with("app/foo/codec.lua", "require 'foo'")
        .with("app/trace/foo.lua", "require 'foo.codec'")
        .with("app/bar/codec.lua", "require 'foo.codec'");
    folder.moonwire(&["check", "app/foo/session.lua", "app/trace/foo.lua"]).is(0, "", "");
    let unknown = "app/bar/codec.lua:1: there is no module \"foo.codec\"\n";
    folder.moonwire(&["check", "app/bar/codec.lua"]).is(1, unknown, "");
}

#[test]
fn modules_are_looked_for_in_the_folders_of_moonwire_path_too() {
    let folder = Folder::new("check_path").with("a.lua", "require 'own.one'").with("lib/own/one.lua", "");
    folder.moonwire(&["check", "a.lua"]).is(1, "a.lua:1: there is no module \"own.one\"\n", "");
    let answer: Answer = folder.command(&["check", "a.lua"]).env("MOONWIRE_PATH", "lib").output().unwrap().into();
    answer.is(0, "", "");
}

#[test]
fn a_module_that_may_be_missing_is_not_missed() {
    Folder::new("check_pcall").with("a.lua", "pcall(require, 'luxury')").moonwire(&["check", "a.lua"]).is(0, "", "");
}

#[test]
fn a_global_that_nothing_defines_is_told() {
    let folder = Folder::new("check_globals")
        .with("a.lua", "function shared() end\nlocal function f()\n  prnt(mine)\nend\nmine = f")
        .with("b.lua", "shared()\nif jit then unpack = nil end");
    let missing = "a.lua:3: nothing defines the global \"prnt\" (did you mean \"print\"?)\n";
    folder.moonwire(&["check", "."]).is(1, missing, "");
    folder.moonwire(&["check", "b.lua"]).is(1, "b.lua:1: nothing defines the global \"shared\"\n", "");
}

#[test]
fn folders_are_walked_but_not_hidden_ones_and_caches() {
    let folder = Folder::new("check_walk")
        .with("deep/er/b.lua", "=")
        .with("a.lua", "=")
        .with("not_lua.txt", "=")
        .with(".git/c.lua", "=")
        .with("target/CACHEDIR.TAG", "")
        .with("target/d.lua", "=");
    let answer = folder.moonwire(&["check", "."]);
    answer.is(1, "a.lua:1: unexpected symbol near '='\ndeep/er/b.lua:1: unexpected symbol near '='\n", "");
}

#[test]
fn what_cannot_be_read_is_a_mistake_of_the_command_line() {
    let folder = Folder::new("check_unreadable").with("empty/readme.txt", "");
    folder.moonwire(&["check", "none.lua"]).is(
        2,
        "",
        "moonwire check: cannot read none.lua: no such file or directory\n",
    );
    folder.moonwire(&["check", "empty"]).is(2, "", "moonwire check: no Lua file in empty\n");
    folder.moonwire(&["check"]).complains(2, "<PATHS>");
}
