//! What a program that embeds the runtime may do to it.

use moonwire_runtime::{
    Runtime,
    mlua::{Function, Thread, Value},
};

use super::support::run_in;

#[test]
fn a_wait_in_a_coroutine_that_a_native_function_resumes_is_refused() {
    let builder = Runtime::builder().module("native", |lua| {
        let resume = |lua: &moonwire_runtime::mlua::Lua, work: Function| {
            let thread: Thread = lua.create_thread(work)?;
            thread.resume::<Value>(())
        };
        Ok(Value::Function(lua.create_function(resume)?))
    });
    let ran = run_in(
        builder,
        r#"
        local cosocket = require("cosocket")
        local resume = require("native")
        equal(resume(function() return 1 end), 1)
        local ok, err = pcall(resume, function() cosocket.sleep(0.001) end)
        equal(ok, false)
        matches(tostring(err), "cannot wait inside a native function")
        -- Where it does know how to wait, it does.
        equal(coroutine.wrap(function() cosocket.sleep(0.001) return 2 end)(), 2)
        "#,
    );
    assert_eq!(ran.result.unwrap(), 0);
    assert!(ran.reports.is_empty(), "{:?}", ran.reports);
}

#[test]
fn a_run_leaves_no_task_to_the_next_one() {
    let runtime = Runtime::builder().grace(std::time::Duration::from_millis(20)).build().unwrap();
    let script = r#"
        local cosocket = require("cosocket")
        local function again()
          local mark <close> = setmetatable({}, { __close = function() cosocket.spawn(again) end })
          while true do pcall(coroutine.yield) end
        end
        cosocket.spawn(again)
        cosocket.stop(3)
        while true do pcall(coroutine.yield) end
    "#;
    assert_eq!(runtime.run_source("=first", script).unwrap(), 3);
    let script = "assert(#require('cosocket').tasks() == 1)";
    assert_eq!(runtime.run_source("=second", script).unwrap(), 0);
}

#[test]
fn a_state_without_memory_ends_its_script_and_nothing_else() {
    let script = r#"
        local cosocket = require("cosocket")
        local listener <close> = assert(cosocket.listen("tcp://127.0.0.1:0"))
        local held = {}
        local function talk(i)
          local one, other = cosocket.pair()
          local near <close> = one
          local task = cosocket.spawn("reader " .. i, function()
            local far <close> = other
            return far:read_line(), coroutine.wrap(function() return far:read(3) end)()
          end)
          one:write("line ", i, "\n", "end")
          held[#held + 1] = { task:join() }
          pcall(cosocket.deadline, 0.0001, cosocket.sleep, 1)
          pcall(cosocket.group, function()
            cosocket.spawn(function() error({ "thrown", i }) end)
            cosocket.sleep(1)
          end)
          local stubborn = cosocket.spawn(cosocket.deadline, 0, function() while true do pcall(cosocket.sleep, 1) end end)
          pcall(stubborn.join, stubborn)
          cosocket.buffer("text"):append(("x"):rep(i)):take(2)
        end
        for i = 1, rounds do talk(i) end
        for i = 1, rounds do pcall(talk, i) end
    "#;
    let (mut failed, mut ended) = (0, 0);
    for spare in (0..80).map(|step| step * 2048) {
        let runtime = Runtime::builder().on_task_failure(|_| ()).build().unwrap();
        runtime.lua().globals().set("rounds", 4).unwrap();
        runtime.lua().gc_collect().unwrap();
        runtime.lua().set_memory_limit(runtime.lua().used_memory() + spare).unwrap();
        match runtime.run_source("=script", script) {
            Ok(_) => ended += 1,
            Err(_) => failed += 1,
        }
        runtime.lua().set_memory_limit(0).unwrap();
        assert_eq!(runtime.run_source("=next", "assert(#require('cosocket').tasks() == 1)").unwrap(), 0, "{spare}");
    }
    assert!(failed > 9 && ended > 9, "{failed} {ended}");
}
