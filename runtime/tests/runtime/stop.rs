//! How a run is asked to end, and how long that may take.

use std::{
    io,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use moonwire_runtime::Runtime;

use super::support::run_in;

#[test]
fn another_thread_may_stop_a_run() {
    let runtime = Runtime::builder().build().unwrap();
    let handle = runtime.handle();
    let stopper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        handle.stop(7);
    });
    let status = runtime.run_source("=script", "require('cosocket').sleep(3600)").unwrap();
    stopper.join().unwrap();
    assert_eq!(status, 7);
}

#[test]
fn a_stop_that_comes_before_the_run_is_not_lost_and_serves_one_run() {
    let runtime = Runtime::builder().build().unwrap();
    runtime.handle().stop(3);
    assert_eq!(runtime.run_source("=script", "require('cosocket').sleep(3600)").unwrap(), 3);
    assert_eq!(runtime.run_source("=script", "require('cosocket').sleep(0.001)").unwrap(), 0);
}

#[test]
fn handlers_say_goodbye_before_tasks_are_cancelled() {
    let ran = run_in(
        Runtime::builder(),
        r#"
        local cosocket = require("cosocket")
        local log = {}
        local function note(text) log[#log + 1] = text end
        cosocket.on_stop(function()
          note("handler")
          cosocket.sleep(0.005)
          note("handler ends")
        end)
        cosocket.on_stop(function() note("taken back") end)()
        cosocket.spawn(function()
          local mark <close> = setmetatable({}, { __close = function()
            note("cancelled")
            equal(table.concat(log, ", "), "handler, handler ends, cancelled")
            complete = true
          end })
          cosocket.sleep(1000)
        end)
        cosocket.sleep(0.001)
        cosocket.stop(5)
        equal(#log, 0, "the caller goes on until it waits")
        local ok, err = pcall(cosocket.sleep, 1000)
        fails("cancelled", nil, err)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 5);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn a_handler_that_fails_is_reported_and_the_stop_goes_on() {
    let ran = run_in(
        Runtime::builder(),
        r#"
        local cosocket = require("cosocket")
        cosocket.on_stop(function() error("no goodbye") end)
        cosocket.stop()
        cosocket.sleep(1000)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 1);
    let [report] = &ran.reports[..] else { panic!("{:?}", ran.reports) };
    assert_eq!(report.message, "script:3: no goodbye");
}

#[test]
fn what_does_not_end_in_time_is_dropped() {
    for script in [
        "cosocket.on_stop(function() cosocket.sleep(1000) end) cosocket.stop(2) cosocket.sleep(1000)",
        "cosocket.stop(2) while true do pcall(coroutine.yield) end",
        "cosocket.stop(2) cosocket.on_stop(function() while true do pcall(cosocket.sleep, 0.001) end end) cosocket.sleep(1000)",
    ] {
        let began = Instant::now();
        let script = format!("local cosocket = require('cosocket') {script}");
        let ran = run_in(Runtime::builder().grace(Duration::from_millis(100)), &script);
        assert_eq!(ran.result.unwrap(), 2, "{script}");
        assert!(began.elapsed() < Duration::from_secs(5), "{script}");
    }
}

#[test]
fn a_stop_runs_every_close_and_sends_what_was_written() {
    let ran = run_in(
        Runtime::builder(),
        r#"
        local cosocket = require("cosocket")
        local one, other = cosocket.pair()
        local closed = 0
        for _ = 1, 3 do
          cosocket.spawn(function()
            local mark <close> = setmetatable({}, { __close = function()
              closed = closed + 1
              one:write("bye\n")
            end })
            cosocket.group(function()
              cosocket.spawn(function() cosocket.queue():get() end)
            end)
          end)
        end
        cosocket.sleep(0.001)
        cosocket.on_stop(function() cosocket.spawn(function()
          -- Not a task that is cancelled: it begins when the others are.
          local text = ""
          local ok, err = pcall(function() while true do text = text .. other:read(1) end end)
          assert(cosocket.is_error(err, "cancelled") or text == "bye\nbye\nbye\n", text)
        end) end)
        cosocket.stop()
        pcall(cosocket.sleep, 1000)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 0);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn a_run_waits_for_every_task_and_for_closed_streams_to_send() {
    let ran = run_in(
        Runtime::builder(),
        r#"
        local cosocket = require("cosocket")
        local listener = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local address = listener:local_address()
        local size = 8000000
        cosocket.spawn(function()
          local stream = assert(listener:accept())
          listener:close()
          cosocket.sleep(0.05)
          equal(#assert(stream:read(size)), size)
          seen = true
        end)
        local stream = assert(cosocket.connect("tcp://" .. address, { queue_max = size }))
        assert(stream:write(("x"):rep(size)))
        stream:close()
        "#,
    );
    assert_eq!(ran.result.unwrap(), 0);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn a_runtime_runs_one_script_after_the_other() {
    let runtime = Runtime::builder().build().unwrap();
    for round in 1..=3 {
        let status = runtime.run_source(
            "=script",
            r#"
            local cosocket = require("cosocket")
            kept = (kept or 0) + 1
            local one, other = cosocket.pair()
            cosocket.spawn(function() one:write("hello") one:close() end)
            assert(other:read_all() == "hello")
            assert(#cosocket.tasks() <= 2)
            "#,
        );
        assert_eq!(status.unwrap(), 0);
        assert_eq!(runtime.lua().globals().get::<i32>("kept").unwrap(), round);
    }
}

#[test]
fn what_was_written_before_a_stop_arrives_whole() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let reader = thread::spawn(move || io::copy(&mut server.accept().unwrap().0, &mut io::sink()).unwrap());
    let script = format!(
        r#"
        local cosocket = require("cosocket")
        local size = 32 * 1024 * 1024
        local stream = assert(cosocket.connect("tcp://{address}", {{ queue_max = size }}))
        stream:write(("x"):rep(size))
        stream:close()
        cosocket.stop(4)
        "#
    );
    let runtime = Runtime::builder().build().unwrap();
    assert_eq!(runtime.run_source("=script", script).unwrap(), 4);
    assert_eq!(reader.join().unwrap(), 32 * 1024 * 1024);
}
