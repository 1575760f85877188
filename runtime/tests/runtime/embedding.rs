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
