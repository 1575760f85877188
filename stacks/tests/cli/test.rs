//! `moonwire test [PATHS]...`

use std::{fs, path::Path, process::Stdio, thread, time::Instant};

use super::{Answer, Folder};

const MIXED: &str = r#"
local test = require("test")
return {
  ["sums are right"] = function() test.equal(1 + 1, 2) end,
  ["tables differ"] = function()
    test.equal({ topic = "a", payload = { 1, 2 } }, { topic = "a", payload = { 1, 3 } })
  end,
  ["the moon is up"] = function() test.skip("it is day") end,
}
"#;

#[test]
fn tests_that_pass_end_with_success() {
    let tests = "return { ['one is one'] = function() assert(1 == 1) end }";
    Folder::new("test_pass").with("a_test.lua", tests).moonwire(&["test", "a_test.lua"]).is(
        0,
        "passed a_test.lua: one is one\n1 passed, 0 failed, 0 skipped\n",
        "",
    );
}

#[test]
fn a_failure_has_its_place_and_a_diff_and_a_skip_its_reason() {
    let folder = Folder::new("test_mixed").with("a_test.lua", MIXED);
    folder.moonwire(&["test", "a_test.lua"]).is(
        1,
        "\
passed a_test.lua: sums are right
failed a_test.lua: tables differ
  a_test.lua:6: not equal at .payload[2]
    expected 3
    actual   2
    - { payload = { 1, 3 }, topic = \"a\" }
    + { payload = { 1, 2 }, topic = \"a\" }
skipped a_test.lua: the moon is up
skipped a_test.lua: the moon is up (it is day)
1 passed, 1 failed, 1 skipped
",
        "",
    );
}

#[test]
fn an_error_in_the_code_under_test_has_its_traceback() {
    let folder = Folder::new("test_traceback")
        .with(
            "code.lua",
            "local M = {}\nfunction M.inner() return nil .. '' end\nfunction M.outer() M.inner() end\nreturn M",
        )
        .with("a_test.lua", "local code = require('code')\nreturn { ['it works'] = function()\n  code.outer()\nend }");
    let answer = folder.moonwire(&["test", "a_test.lua"]);
    answer.says(1, "code.lua:2: attempt to concatenate a nil value\n");
    answer.says(1, "traceback:\n");
    answer.says(1, "code.lua:3: in ");
    answer.says(1, "a_test.lua:3: in ");
    assert!(!answer.out.contains("moonwire test:"), "{}", answer.out);
}

#[test]
fn tests_run_in_the_order_of_the_file_and_groups_name_theirs() {
    let tests = "
local function named() end
return {
  ['z first'] = function() print('ran') end,
  group = {
    ['y second'] = function() end,
    deeper = { ['x third'] = function() end },
  },
  ['a fourth'] = function() end,
  ['the helper comes first of all'] = named,
}";
    let answer = Folder::new("test_order").with("a_test.lua", tests).moonwire(&["test", "--list", "a_test.lua"]);
    answer.is(
        0,
        "\
a_test.lua: the helper comes first of all
a_test.lua: z first
a_test.lua: group: y second
a_test.lua: group: deeper: x third
a_test.lua: a fourth
",
        "",
    );
}

#[test]
fn folders_are_walked_for_test_files() {
    let pass = "return { passes = function() end }";
    let folder = Folder::new("test_walk")
        .with("b/deep/x_test.lua", pass)
        .with("a_test.lua", pass)
        .with("b/helper.lua", "error('not a test')")
        .with(".hidden/y_test.lua", pass);
    let both = "passed a_test.lua: passes\npassed b/deep/x_test.lua: passes\n2 passed, 0 failed, 0 skipped\n";
    folder.moonwire(&["test"]).is(0, both, "");
    folder.moonwire(&["test", "."]).is(0, both, "");
    folder.moonwire(&["test", "b"]).is(0, "passed b/deep/x_test.lua: passes\n1 passed, 0 failed, 0 skipped\n", "");
}

#[test]
fn without_paths_the_tests_of_the_lua_tree_are_meant() {
    let folder = Folder::new("test_default")
        .with("lua/kv.lua", "return { answer = 42 }")
        .with(
            "lua/test/kv_test.lua",
            "return { ['the code is found'] = function() assert(require('kv').answer == 42) end }",
        )
        .with("other_test.lua", "return { ['not meant'] = function() end }");
    folder.moonwire(&["test"]).is(
        0,
        "passed lua/test/kv_test.lua: the code is found\n1 passed, 0 failed, 0 skipped\n",
        "",
    );
}

#[test]
fn modules_of_moonwire_path_are_tested_instead_of_those_that_are_built_in() {
    let folder = Folder::new("test_moonwire_path")
        .with("own/mqtt.lua", "return 'own'")
        .with("cases/a_test.lua", "return { ['own'] = function() assert(require('mqtt') == 'own') end }");
    let answer: Answer =
        folder.command(&["test", "cases/a_test.lua"]).env("MOONWIRE_PATH", "own").output().unwrap().into();
    answer.is(0, "passed cases/a_test.lua: own\n1 passed, 0 failed, 0 skipped\n", "");
}

#[test]
fn a_filter_chooses_by_plain_text() {
    let folder = Folder::new("test_filter").with("a_test.lua", MIXED);
    folder.moonwire(&["test", "--filter", "sums"]).is(
        0,
        "passed a_test.lua: sums are right\n1 passed, 0 failed, 0 skipped\n",
        "",
    );
    folder.moonwire(&["test", "--filter", "s.ms"]).complains(2, "no test is called \"s.ms\"");
    folder.moonwire(&["test", "--filter", "-o-"]).complains(2, "no test is called \"-o-\"");
}

#[test]
fn nothing_to_run_is_an_error() {
    let folder = Folder::new("test_nothing").with("a_test.lua", "return {}").with("empty/readme.txt", "");
    folder.moonwire(&["test", "a_test.lua"]).complains(2, "moonwire test: no test in 1 files");
    folder.moonwire(&["test", "empty"]).is(2, "", "moonwire test: no *_test.lua file in empty\n");
    folder.moonwire(&["test", "none"]).is(2, "", "moonwire test: cannot read none: no such file or directory\n");
}

#[test]
fn a_file_that_cannot_be_loaded_is_a_failure() {
    let folder = Folder::new("test_broken")
        .with("a_test.lua", "return {")
        .with("b_test.lua", "error('no')")
        .with("c_test.lua", "return 5")
        .with("d_test.lua", "return { ['not a test'] = 5 }")
        .with("e_test.lua", "return { function() end }")
        .with("f_test.lua", "return { ['runs all the same'] = function() end }");
    let answer = folder.moonwire(&["test"]);
    answer.says(1, "failed a_test.lua: the file itself\n  a_test.lua:1: unexpected symbol near <eof>\n");
    answer.says(1, "failed b_test.lua: the file itself\n  b_test.lua:1: no\n");
    answer.says(1, "failed c_test.lua: the file itself\n  c_test.lua: a test file returns a table of tests, not 5\n");
    answer.says(1, "failed d_test.lua: the file itself\n  \"not a test\" is a number, not a function or a group\n");
    answer.says(1, "failed e_test.lua: the file itself\n  1 is not a name: tests are called by statements\n");
    assert_eq!(answer.last_line(), "1 passed, 5 failed, 0 skipped");
}

#[test]
fn a_whole_file_may_be_skipped() {
    let folder = Folder::new("test_skip_file").with("a_test.lua", "require('test').skip('no such system')");
    folder.moonwire(&["test"]).is(
        0,
        "skipped a_test.lua: the whole file\nskipped a_test.lua: the whole file (no such system)\n0 passed, 0 failed, 1 skipped\n",
        "",
    );
    folder.moonwire(&["test", "--list"]).is(0, "a_test.lua: the whole file\n", "");
}

#[test]
fn the_first_failure_may_be_the_last() {
    let tests = "return {
  ['one passes'] = function() end,
  ['two fails'] = function() error('boom') end,
  ['three never runs'] = function() print('ran') end,
}";
    let folder = Folder::new("test_fail_fast").with("a_test.lua", tests).with("b_test.lua", tests);
    let answer = folder.moonwire(&["test", "--fail-fast"]);
    assert_eq!(answer.last_line(), "1 passed, 1 failed, 0 skipped");
    assert!(!answer.out.contains("ran"), "{}", answer.out);
    assert_eq!(answer.status, Some(1));
    assert_eq!(folder.moonwire(&["test"]).last_line(), "4 passed, 2 failed, 0 skipped");
}

#[test]
fn a_seed_repeats_random_numbers_and_a_failure_tells_it() {
    let tests = "
local test = require('test')
return { ['numbers'] = function()
  local random = test.random()
  error(('drawn %d %d'):format(random(1000000), random(1000000)), 0)
end }";
    let folder = Folder::new("test_seed").with("a_test.lua", tests);
    let first = folder.moonwire(&["test", "--seed", "7"]);
    first.says(1, "  (repeat with --seed 7)\n");
    assert_eq!(first.out, folder.moonwire(&["test", "--seed", "7"]).out);
    assert_ne!(first.out, folder.moonwire(&["test", "--seed", "8"]).out.replace("--seed 8", "--seed 7"));

    let unseeded = folder.moonwire(&["test"]);
    let (_, seed) = unseeded.out.split_once("--seed ").unwrap();
    let seed = seed.split_once(')').unwrap().0;
    assert_eq!(unseeded.out, folder.moonwire(&["test", "--seed", seed]).out);
    folder.moonwire(&["test", "--seed", "-1"]).complains(2, "--seed");
}

#[test]
fn a_test_that_ends_the_process_fails_and_the_rest_runs() {
    let tests = "return {
  ['one passes'] = function() end,
  ['two exits'] = function() print('parting words') os.exit(3) end,
  ['three passes'] = function() end,
}";
    Folder::new("test_exit").with("a_test.lua", tests).moonwire(&["test"]).is(
        1,
        "\
passed a_test.lua: one passes
parting words
failed a_test.lua: two exits
  ended the whole process (exit status: 3)
passed a_test.lua: three passes
2 passed, 1 failed, 0 skipped
",
        "",
    );
}

#[test]
fn a_test_that_never_ends_fails_and_the_rest_runs() {
    let tests = "return {
  ['one never ends'] = function() while true do end end,
  ['two passes'] = function() end,
}";
    let began = Instant::now();
    let answer = Folder::new("test_busy").with("a_test.lua", tests).moonwire(&["test", "--timeout", "0.5"]);
    answer.says(1, "failed a_test.lua: one never ends\n  did not end within 500ms, and does not wait for anything\n");
    answer.says(1, "passed a_test.lua: two passes\n");
    assert_eq!(answer.last_line(), "1 passed, 1 failed, 0 skipped");
    assert!(began.elapsed().as_secs() < 30, "the limit of a test is not kept");
}

#[test]
fn a_limit_that_is_no_time_is_refused() {
    let folder = Folder::new("test_bad_limit");
    for limit in ["0", "-1", "soon", "nan", "inf", "1e300"] {
        folder.moonwire(&["test", "--timeout", limit]).complains(2, "not a number of seconds above 0");
    }
}

#[test]
fn a_check_that_failed_unseen_fails_the_test() {
    let tests = "local test = require('test')
return { ['nobody looks'] = function() pcall(test.equal, 1, 2) end }";
    let answer = Folder::new("test_unseen").with("a_test.lua", tests).moonwire(&["test"]);
    answer.says(1, "a_test.lua:2: not equal\n    expected 2\n    actual   1\n");
    answer.says(1, "(the error was caught before it could end the test)");
}

#[test]
fn a_test_that_reads_standard_input_finds_its_end() {
    let tests = "return { ['reads'] = function() assert(io.read('l') == nil) end }";
    let folder = Folder::new("test_stdin").with("a_test.lua", tests);
    assert_eq!(folder.moonwire_reading("a line\n", &["test"]).last_line(), "1 passed, 0 failed, 0 skipped");
}

#[test]
fn results_are_written_as_junit_xml() {
    let folder = Folder::new("test_junit").with("a_test.lua", MIXED);
    assert_eq!(folder.moonwire(&["test", "--junit", "results.xml"]).status, Some(1));
    let xml = fs::read_to_string(folder.0.join("results.xml")).unwrap();
    assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"moonwire test\""), "{xml}");
    assert!(xml.contains("<testsuite name=\"a_test.lua\" tests=\"3\" failures=\"1\" skipped=\"1\""), "{xml}");
    assert!(xml.contains("<failure message=\"a_test.lua:6: not equal at .payload[2]\">"), "{xml}");
    assert!(xml.contains("<skipped message=\"it is day\"/>"), "{xml}");
    folder.moonwire(&["test", "--junit", "none/results.xml"]).complains(2, "cannot write none/results.xml");
}

#[test]
fn what_tests_print_comes_out() {
    let tests = "return { ['prints'] = function() print('from the test') io.stderr:write('and this\\n') end }";
    let answer = Folder::new("test_print").with("a_test.lua", tests).moonwire(&["test"]);
    answer.is(0, "from the test\npassed a_test.lua: prints\n1 passed, 0 failed, 0 skipped\n", "and this\n");
}

#[test]
fn a_module_of_the_project_does_not_get_in_the_way_of_the_test_support() {
    let folder = Folder::new("test_shadow")
        .with("test/run.lua", "error('not mine to load')")
        .with("test.lua", "error('not mine to load')")
        .with("a_test.lua", "return { ['passes'] = function() require('test').equal(1, 1) end }");
    assert_eq!(folder.moonwire(&["test", "a_test.lua"]).last_line(), "1 passed, 0 failed, 0 skipped");
}

#[test]
fn a_test_that_hangs_does_not_outlive_the_command() {
    let tests = "return { ['hangs'] = function()
  local id = io.open('/proc/self/stat'):read('n')
  local file = io.open('started', 'w')
  file:write(id)
  file:close()
  os.rename('started', 'id')
  while true do end
end }";
    let folder = Folder::new("test_orphan").with("a_test.lua", tests);
    let mut command = folder.command(&["test"]).stdout(Stdio::null()).spawn().unwrap();
    let id = wait_for(|| fs::read_to_string(folder.0.join("id")).ok());
    command.kill().unwrap();
    command.wait().unwrap();
    wait_for(|| (!Path::new("/proc").join(&id).exists()).then_some(()));
}

/// Looks again and again; what does not come in a minute is a failure.
fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed().as_secs() < 60, "it did not come");
        thread::yield_now();
    }
}

#[test]
fn the_example_at_the_head_of_the_test_support_runs() {
    let head = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../lua/test.lua")).unwrap();
    let example: Vec<&str> = head
        .lines()
        .take_while(|line| line.starts_with("---"))
        .filter_map(|line| line.strip_prefix("---     ").or((line == "---").then_some("")))
        .collect();
    let folder = Folder::new("test_example").with("head_test.lua", example.join("\n"));
    folder.moonwire(&["test"]).is(
        0,
        "\
passed head_test.lua: a line split at any byte is one line
passed head_test.lua: a greeting that comes byte by byte is answered
2 passed, 0 failed, 0 skipped
",
        "",
    );
}

#[test]
fn an_hour_on_the_clock_takes_no_time_unless_the_real_clock_is_asked_for() {
    let tests = "
local cosocket = require('cosocket')
local test = require('test')
return {
  ['an hour passes'] = function()
    local began = cosocket.now()
    cosocket.sleep(3600)
    test.near(cosocket.now() - began, 3600, 0.001)
  end,
}";
    let folder = Folder::new("test_clock").with("a_test.lua", tests);
    let began = Instant::now();
    assert_eq!(folder.moonwire(&["test"]).last_line(), "1 passed, 0 failed, 0 skipped");
    assert!(began.elapsed().as_secs() < 60, "the virtual clock waits");
    let real = folder.moonwire(&["test", "--real-clock", "--timeout", "0.5"]);
    real.says(1, "an hour passes\n  did not end within 500ms");
}

const HANGS: &str = "
local cosocket = require('cosocket')
return {
  ['nobody writes'] = function()
    local stream, other = cosocket.pair()
    cosocket.spawn('the reader', function() stream:read() end)
    if listen then listen() end
    cosocket.event():wait()
    other:close()
  end,
  ['the next one runs'] = function() end,
}";

#[test]
fn tasks_that_wait_for_each_other_fail_their_test_at_once() {
    let began = Instant::now();
    let answer = Folder::new("test_deadlock").with("a_test.lua", HANGS).moonwire(&["test"]);
    answer.says(1, "failed a_test.lua: nobody writes\n  every task waits for another:\n");
    answer.says(1, " the reader: waits in read");
    answer.says(1, " nobody writes: waits in event:wait");
    answer.says(1, "passed a_test.lua: the next one runs\n");
    assert_eq!(answer.last_line(), "1 passed, 1 failed, 0 skipped");
    assert!(began.elapsed().as_secs() < 30, "the limit was waited for");
}

#[test]
fn a_test_that_waits_for_the_outside_fails_with_its_tasks_when_its_time_is_up() {
    let listens = "function listen()
  local listener = require('cosocket').listen('tcp://127.0.0.1:0')
  require('cosocket').spawn('the server', function() listener:accept() end)
end";
    let folder = Folder::new("test_hang").with("a_test.lua", format!("{listens}\n{HANGS}"));
    for clock in [&["test", "--timeout", "0.5"][..], &["test", "--timeout", "0.5", "--real-clock"]] {
        let answer = folder.moonwire(clock);
        answer.says(1, "failed a_test.lua: nobody writes\n  did not end within 500ms; its tasks:\n");
        answer.says(1, " the reader: waits in read");
        answer.says(1, " the server: waits in accept");
        answer.says(1, "passed a_test.lua: the next one runs\n");
        assert_eq!(answer.last_line(), "1 passed, 1 failed, 0 skipped");
    }
}

#[test]
fn tasks_that_a_test_leaves_behind_are_cancelled() {
    let tests = "
local cosocket = require('cosocket')
local closed = 0
return {
  ['one leaves tasks behind'] = function()
    for _ = 1, 3 do
      cosocket.spawn(function()
        local mark <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
        cosocket.event():wait()
      end)
    end
    cosocket.sleep(0)
  end,
  ['two finds them gone'] = function()
    assert(closed == 3, closed)
    assert(#cosocket.tasks() <= 2, #cosocket.tasks())
  end,
}";
    let answer = Folder::new("test_left_over").with("a_test.lua", tests).moonwire(&["test"]);
    assert_eq!(answer.last_line(), "2 passed, 0 failed, 0 skipped", "{answer:?}");
}

#[test]
fn an_error_in_a_task_of_the_test_fails_it_with_the_way_through_the_tasks() {
    let tests = "
local cosocket = require('cosocket')
return {
  ['a child fails'] = function()
    cosocket.spawn('child', function()
      local function deep() error('boom') end
      deep()
    end)
    cosocket.event():wait()
  end,
}";
    let answer = Folder::new("test_child").with("a_test.lua", tests).moonwire(&["test"]);
    answer.says(1, "failed a_test.lua: a child fails\n  a_test.lua:6: boom\n");
    answer.says(1, "traceback:\n");
    answer.says(1, "in child:");
    answer.says(1, "a_test.lua:7: in ");
}
