//! Work that threads do while tasks wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    thread,
};

use moonwire_runtime::{
    Builder, Error, Kind, Runtime, blocking,
    mlua::{Lua, Value},
};

use super::support::{Ran, run_in};

/// Promises that wait to be kept.
type Held = Arc<Mutex<VecDeque<blocking::Promise>>>;

/// The module `bench`: `hold(text)` waits until another task calls `keep(n)`, whose thread then answers the first n
/// holders with their text.
fn bench(lua: &Lua, held: &Held) -> moonwire_runtime::mlua::Result<Value> {
    let module = lua.create_table()?;
    let holding = held.clone();
    let hold = blocking::function(lua, "bench:hold", move |_, text: String, promise| {
        if text.is_empty() {
            return Ok(Err(Error::new(Kind::Argument, promise.op(), "the text is empty")));
        }
        holding.lock().unwrap().push_back(promise);
        Ok(Ok(text.into()))
    })?;
    module.set("hold", hold)?;
    let keeping = held.clone();
    let keep = lua.create_function(move |_, count: usize| {
        let promises: Vec<_> = keeping.lock().unwrap().drain(..count).collect();
        thread::spawn(move || {
            for (place, promise) in promises.into_iter().enumerate() {
                promise.keep(move |_| Ok((place + 1, "kept")));
            }
        });
        Ok(())
    })?;
    module.set("keep", keep)?;
    let counting = held.clone();
    module.set("count", lua.create_function(move |_, ()| Ok(counting.lock().unwrap().len()))?)?;
    let fail = blocking::function(lua, "bench:fail", |_, kind: String, promise| {
        let kind = if kind == "argument" { Kind::Argument } else { Kind::Io };
        thread::spawn(move || promise.keep(move |_| Ok(Err::<bool, _>(Error::new(kind, "bench:fail", "it failed")))));
        Ok(Ok(Arc::default()))
    })?;
    module.set("fail", fail)?;
    let lose = blocking::function(lua, "bench:lose", |_, (), promise| {
        // The message of the panic would only be noise here.
        thread::spawn(move || {
            let _promise = promise;
            std::panic::resume_unwind(Box::new("lost"));
        });
        Ok(Ok(Arc::default()))
    })?;
    module.set("lose", lose)?;
    Ok(Value::Table(module))
}

fn with_bench(builder: Builder) -> (Builder, Held) {
    let held = Held::default();
    let given = held.clone();
    (builder.module("bench", move |lua| bench(lua, &given)), held)
}

fn ran(builder: Builder, script: &str) -> Ran {
    run_in(with_bench(builder).0, &format!("local cosocket, bench = require('cosocket'), require('bench')\n{script}"))
}

#[track_caller]
fn run(script: &str) {
    let ran = ran(Runtime::builder(), script);
    if let Err(error) = ran.result {
        panic!("{error}");
    }
    assert!(ran.reports.is_empty(), "{}", ran.reports[0]);
}

#[test]
fn a_task_waits_for_a_thread_while_others_run_and_gets_every_value() {
    run(r#"
        local log = {}
        local waiting = cosocket.spawn(function()
          local place, word = bench.hold("a")
          equal(place, 1)
          equal(word, "kept")
          log[#log + 1] = "answered"
        end)
        cosocket.sleep(0.005)
        log[#log + 1] = "others run"
        bench.keep(1)
        waiting:join()
        equal(table.concat(log, ", "), "others run, answered")
    "#);
}

#[test]
fn one_wake_up_brings_the_answers_of_many() {
    run(r#"
        local sum = 0
        cosocket.group(function()
          for i = 1, 500 do
            cosocket.spawn(function()
              local place = bench.hold("task " .. i)
              sum = sum + place
            end)
          end
          cosocket.sleep(0)
          bench.keep(500)
        end)
        equal(sum, 500 * 501 // 2)
        for i = 1, 300 do
          local task = cosocket.spawn(bench.hold, "again")
          cosocket.sleep(0)
          bench.keep(1)
          equal(task:join(), 1)
        end
    "#);
}

#[test]
fn a_listing_says_which_function_a_task_waits_in_and_for_what() {
    run(r#"
        local task = cosocket.spawn("keeper", bench.hold, "the shop")
        cosocket.sleep(0)
        local found
        for _, entry in ipairs(cosocket.tasks()) do
          if entry.name == "keeper" then found = entry end
        end
        equal(found.waits_for, "bench:hold, the shop")
        equal(found.status, "waiting")
        bench.keep(1)
        task:join()
    "#);
}

#[test]
fn a_deadline_ends_the_wait_and_the_answer_that_comes_later_is_nobodys() {
    run(r#"
        local value, err = cosocket.deadline(0.005, bench.hold, "late")
        fails("timeout", value, err)
        equal(err.op, "bench:hold")
        equal(bench.count(), 1, "the work goes on")
        bench.keep(1)
        local task = cosocket.spawn(bench.hold, "next")
        cosocket.sleep(0.005)
        equal(task:status(), "waiting", "the answer to another question is not its answer")
        bench.keep(1)
        equal(task:join(), 1)
    "#);
}

#[test]
fn cancelling_raises_at_the_wait_and_a_cancelled_task_starts_no_work() {
    run(r#"
        local again, why
        local task = cosocket.spawn(function()
          local mark <close> = setmetatable({}, { __close = function()
            again, why = pcall(bench.hold, "while unwinding")
          end })
          bench.hold("first")
        end)
        cosocket.sleep(0)
        task:cancel()
        cosocket.sleep(0)
        equal(task:status(), "cancelled")
        equal(again, false)
        fails("cancelled", nil, why)
        equal(bench.count(), 1)
        -- A passed deadline starts none, either.
        cosocket.deadline(0.001, function()
          cosocket.sleep(1)
          local value, err = bench.hold("too late")
          fails("timeout", value, err)
        end)
        equal(bench.count(), 1)
    "#);
}

#[test]
fn a_stop_ends_the_wait_at_once() {
    let ran = ran(
        Runtime::builder(),
        r#"
        cosocket.spawn(function()
          cosocket.sleep(0.005)
          cosocket.stop(4)
        end)
        bench.hold("for ever")
        "#,
    );
    assert_eq!(ran.result.unwrap(), 4);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn answers_that_come_after_the_run_harm_nobody() {
    let (builder, held) = with_bench(Runtime::builder());
    let script = "local c = require('cosocket') c.deadline(0.001, require('bench').hold, 'x')";
    assert_eq!(run_in(builder, script).result.unwrap(), 0);
    let promise = held.lock().unwrap().pop_front().unwrap();
    promise.keep(|_| Ok(1));
}

#[test]
fn a_thread_that_panics_is_an_error_and_no_task_hangs() {
    run(r#"
        local value, err = bench.lose()
        fails("io", value, err)
        matches(err.message, "ended without an answer")
        equal(err.op, "bench:lose")
    "#);
}

#[test]
fn mistakes_are_raised_at_the_caller_and_other_errors_are_answered() {
    run(r#"
        matches(mistaken(function()
          bench.hold("")
        end), "^script:%d+: the text is empty$")
        equal(bench.count(), 0)
        matches(mistaken(bench.hold, {}), "bad argument #1 to 'bench:hold'")
        local message = mistaken(function()
          local _ = bench.fail("argument")
        end)
        equal(message, "script:9: it failed")
        fails("io", bench.fail("io"))
    "#);
}

#[test]
fn where_nothing_can_wait_no_work_is_started() {
    run(r#"
        local ok, err = pcall(table.sort, { 2, 1 }, function() bench.hold("sorting") end)
        equal(ok, false)
        matches(tostring(err), "cannot wait inside table.sort")
        equal(bench.count(), 0)
    "#);
}

#[test]
fn a_generator_may_wait_for_a_thread() {
    run(r#"
        local generate = coroutine.wrap(function()
          for i = 1, 3 do
            coroutine.yield(i .. select(2, bench.hold("step " .. i)))
          end
        end)
        local seen = {}
        cosocket.group(function()
          cosocket.spawn(function()
            for text in generate do seen[#seen + 1] = text end
          end)
          for _ = 1, 3 do
            while bench.count() == 0 do cosocket.sleep(0.001) end
            bench.keep(1)
          end
        end)
        equal(table.concat(seen, " "), "1kept 2kept 3kept")
    "#);
}

#[test]
fn virtual_time_stands_still_while_a_thread_works() {
    let (builder, held) = with_bench(Runtime::builder().virtual_clock(true));
    let slow = thread::spawn(move || {
        // Until the task waits; then longer than the other task's virtual sleep.
        while held.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        thread::sleep(std::time::Duration::from_millis(10));
        held.lock().unwrap().pop_front().unwrap().keep(|_| Ok("done"));
    });
    let ran = run_in(
        builder,
        r#"
        local cosocket, bench = require("cosocket"), require("bench")
        local woke
        cosocket.spawn(function()
          cosocket.sleep(0.001)
          woke = cosocket.now()
        end)
        local before = cosocket.now()
        equal(bench.hold("slow"), "done")
        equal(cosocket.now(), before)
        equal(woke, nil)
        cosocket.sleep(1)
        equal(woke, before + 0.001)
        "#,
    );
    slow.join().unwrap();
    assert_eq!(ran.result.unwrap(), 0);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn tasks_that_wait_for_each_other_are_still_found_out_after_a_thread_has_answered() {
    let ran = ran(
        Runtime::builder().virtual_clock(true),
        r#"
        local task = cosocket.spawn(bench.hold, "a")
        cosocket.sleep(0)
        bench.keep(1)
        task:join()
        cosocket.queue():get()
        "#,
    );
    let error = ran.result.unwrap_err().to_string();
    assert!(error.contains("every task waits for another") && error.contains("queue:get"), "{error}");
}
