//! Where the error of a task goes.

use moonwire_runtime::{RunError, Runtime};

use super::support::{Ran, run, run_in};

fn failing(script: &str) -> Ran {
    run_in(Runtime::builder(), script)
}

#[test]
fn the_error_of_a_top_level_task_is_reported_once_and_the_others_live_on() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local function inner() error("it broke") end
        cosocket.spawn("worker", function()
          cosocket.sleep(0.001)
          inner()
        end)
        local lived = 0
        local other = cosocket.spawn(function()
          for _ = 1, 5 do
            cosocket.sleep(0.002)
            lived = lived + 1
          end
        end)
        other:join()
        equal(lived, 5)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 1, "the exit status tells");
    let [report] = &ran.reports[..] else { panic!("{:?}", ran.reports) };
    assert_eq!(report.task, "worker");
    assert_eq!(report.message, "script:3: it broke");
    assert!(report.traceback.contains("script:3: in upvalue 'inner'"), "{}", report.traceback);
    assert!(report.traceback.contains("script:6: in function"), "{}", report.traceback);
}

#[test]
fn a_traceback_crosses_coroutines_tasks_and_groups() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local function deepest() error({ code = 7 }) end
        cosocket.spawn("outer", function()
          cosocket.group(function()
            cosocket.spawn("inner", function()
              local generate = coroutine.wrap(function()
                cosocket.sleep(0.001)
                deepest()
              end)
              generate()
            end)
          end)
        end)
        "#,
    );
    let [report] = &ran.reports[..] else { panic!("{:?}", ran.reports) };
    assert_eq!(report.task, "outer");
    for part in ["script:3: in upvalue 'deepest'", "in a coroutine:", "in inner:", "script:11:"] {
        assert!(report.traceback.contains(part), "no {part:?} in {}", report.traceback);
    }
}

#[test]
fn the_error_of_a_joined_task_goes_to_the_one_who_joins() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local task = cosocket.spawn("child", function()
          cosocket.sleep(0.001)
          error("mine")
        end)
        local ok, err = pcall(task.join, task)
        equal(ok, false)
        matches(err, "mine")
        ok, err = pcall(task.join, task)
        matches(err, "mine")
        equal(task:status(), "failed")
        "#,
    );
    assert_eq!(ran.result.unwrap(), 0);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn an_error_that_is_joined_and_not_caught_ends_the_joiner_with_both_tracebacks() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local task = cosocket.spawn("child", function()
          cosocket.sleep(0.001)
          error("mine")
        end)
        task:join()
        "#,
    );
    let Err(RunError::Failed(failure)) = ran.result else { panic!("{:?}", ran.result) };
    assert_eq!(failure.task, "main");
    assert_eq!(failure.message, "script:5: mine");
    assert!(failure.traceback.contains("in child:"), "{}", failure.traceback);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn the_error_of_a_task_that_is_only_watched_is_reported() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local task = cosocket.spawn("watched", function()
          cosocket.sleep(0.001)
          error("seen by nobody")
        end)
        local ready = cosocket.select(task, 10)
        equal(ready, task)
        "#,
    );
    let [report] = &ran.reports[..] else { panic!("{:?}", ran.reports) };
    assert_eq!((report.task.as_str(), report.message.as_str()), ("watched", "script:5: seen by nobody"));
}

#[test]
fn the_error_of_main_cancels_what_still_runs() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        cosocket.spawn(function()
          local mark <close> = setmetatable({}, { __close = function() closed = true end })
          cosocket.sleep(1000)
        end)
        cosocket.sleep(0.001)
        cosocket.on_stop(function() assert(closed == nil) goodbye = true end)
        error("main failed")
        "#,
    );
    let Err(RunError::Failed(failure)) = ran.result else { panic!("{:?}", ran.result) };
    assert_eq!(failure.message, "script:9: main failed");
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn an_error_may_be_any_value() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        for _, value in ipairs({ {}, 5, true, print, io.stdout, coroutine.create(print) }) do
          cosocket.spawn(error, value)
        end
        cosocket.spawn(error)
        cosocket.spawn(error, setmetatable({}, { __tostring = function() return "in its own words" end }))
        cosocket.spawn(error, setmetatable({}, { __tostring = function() error("even that") end }))
        cosocket.spawn(error, setmetatable({}, { __tostring = function() cosocket.sleep(1) end }))
        cosocket.spawn(error, cosocket.error("io", "op", "typed"))
        cosocket.spawn(function() error(("\xff"):rep(10), 0) end)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 1);
    assert_eq!(ran.reports.len(), 12, "{:?}", ran.reports);
    let all: Vec<&str> = ran.reports.iter().map(|report| report.message.as_str()).collect();
    assert!(all.contains(&"in its own words") && all.contains(&"op: typed (io)") && all.contains(&"5"), "{all:?}");
}

#[test]
fn a_task_that_catches_every_timeout_is_ended_by_force_and_reported() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local one, other = cosocket.pair()
        local task = cosocket.spawn("stubborn", function()
          local mark <close> = setmetatable({}, { __close = function() closed = true end })
          cosocket.deadline(0.001, function()
            while true do pcall(one.read, one) end
          end)
        end)
        cosocket.select(task)
        equal(task:status(), "failed")
        equal(closed, true)
        local ok, err = pcall(task.join, task)
        fails("timeout", nil, err)
        assert(other)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 1);
    let [report] = &ran.reports[..] else { panic!("{:?}", ran.reports) };
    assert_eq!(report.task, "stubborn");
    assert!(report.message.contains("went on although its deadline had passed"), "{}", report.message);
    assert!(report.traceback.contains("script:7"), "{}", report.traceback);
}

#[test]
fn a_body_that_catches_its_interruption_is_ended_by_force_and_reported() {
    let ran = failing(
        r#"
        local cosocket = require("cosocket")
        local task = cosocket.spawn("stubborn", function()
          cosocket.group(function()
            cosocket.spawn(error, "first")
            while true do pcall(cosocket.sleep, 1) end
          end)
        end)
        cosocket.select(task)
        equal(task:status(), "failed")
        "#,
    );
    let [report] = &ran.reports[..] else { panic!("{:?}", ran.reports) };
    assert!(report.message.contains("went on although a child had failed"), "{}", report.message);
}

#[test]
fn a_group_in_a_task_takes_the_error_and_its_siblings_end() {
    run(r#"
        local cosocket = require("cosocket")
        local task = cosocket.spawn(function()
          local ok, err = pcall(cosocket.group, function()
            cosocket.spawn(function()
              local mark <close> = setmetatable({}, { __close = function() sibling_closed = true end })
              cosocket.sleep(1000)
            end)
            cosocket.spawn(error, "child")
          end)
          return ok, err
        end)
        local ok, err = task:join()
        equal(ok, false)
        equal(err, "child")
        equal(sibling_closed, true)
    "#);
}

#[test]
fn what_the_other_side_said_before_it_reset_the_connection_is_read_although_writing_fails_first() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rounds = 300;
    // In a thread of its own: the end has to come between two looks of the loop at its events.
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for round in 0..rounds {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..round % 30 {
                let _ = stream.read(&mut [0; 65536]).unwrap();
            }
            stream.write_all(b"enough").unwrap();
            // Closed with bytes unread: that is a reset.
        }
    });
    run(&format!(
        r#"
        local cosocket = require("cosocket")
        for round = 1, {rounds} do
          local stream <close> = assert(cosocket.connect("tcp://{address}"))
          local input, output, ok = cosocket.buffer(), cosocket.buffer(), nil
          local piece = ("x"):rep(65536)
          repeat
            if #output < 65536 then output:append(piece) end
            ok = stream:turn(input, output)
          until not ok
          equal(input:peek(), "enough", "round " .. round)
        end
        "#
    ));
    server.join().unwrap();
}
