//! The process that runs the tests of one file: a runtime, `driver.lua` in it, and the way back to the parent.

use std::{
    cell::Cell,
    io::{self, Write},
    os::unix::process::parent_id,
    path::PathBuf,
    process::{self, ExitCode},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use moonwire_runtime::mlua::{self, Lua, LuaString, Table};

use super::{Event, Options};
use crate::cli::{FAILED, files::module_roots, output::complain};

const DRIVER: &str = include_str!("driver.lua");

/// Runs the tests of the one file in `options`, from the test numbered `first` on.
pub fn work(options: &Options, first: usize) -> ExitCode {
    follow_parent();
    let file = options.paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let path = search_path(&options.paths);
    let (filter, seed, fail_fast) = (options.filter.clone(), options.seed, options.fail_fast);
    let runtime = moonwire::builder()
        .module("test.host", move |lua| {
            let host = host(lua)?;
            host.set("file", file.as_str())?;
            host.set("path", path.as_str())?;
            host.set("filter", filter.as_str())?;
            host.set("first", first)?;
            host.set("seed", seed)?;
            host.set("fail_fast", fail_fast)?;
            Ok(mlua::Value::Table(host))
        })
        .build();
    match runtime.and_then(|runtime| runtime.run_source("=moonwire test", DRIVER).map_err(mlua::Error::external)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("moonwire test: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

/// What stands before Lua's own `package.path`.
fn search_path(files: &[PathBuf]) -> String {
    let roots = files.iter().flat_map(|file| module_roots(file, &[]));
    roots.map(|root| format!("{0}/?.lua;{0}/?/init.lua;", root.display())).collect()
}

/// Ends this process when its parent has gone: a test that hangs must not stay behind.
fn follow_parent() {
    let parent = parent_id();
    thread::spawn(move || {
        while parent_id() == parent {
            thread::sleep(Duration::from_millis(500));
        }
        process::exit(FAILED.into());
    });
}

/// The module `test.host`, through which the driver reports. It flushes Lua's own output before.
fn host(lua: &Lua) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    let since = Rc::new(Cell::new(Instant::now()));
    let begun = Rc::clone(&since);
    host.set(
        "begin",
        lua.create_function(move |_, number| {
            begun.set(Instant::now());
            tell(&Event::Begin { number })
        })?,
    )?;
    host.set(
        "plan",
        lua.create_function(|_, names: Vec<LuaString>| {
            tell(&Event::Plan { names: names.iter().map(LuaString::to_string_lossy).collect() })
        })?,
    )?;
    let begun = Rc::clone(&since);
    host.set(
        "passed",
        lua.create_function(move |_, ()| tell(&Event::Passed { seconds: begun.get().elapsed().as_secs_f64() }))?,
    )?;
    let begun = Rc::clone(&since);
    host.set(
        "skipped",
        lua.create_function(move |_, reason: LuaString| {
            tell(&Event::Skipped { reason: reason.to_string_lossy(), seconds: begun.get().elapsed().as_secs_f64() })
        })?,
    )?;
    host.set(
        "failed",
        lua.create_function(move |_, (message, trace): (LuaString, Option<LuaString>)| {
            tell(&Event::Failed {
                message: message.to_string_lossy(),
                trace: trace.map(|trace| trace.to_string_lossy()).unwrap_or_default(),
                seconds: since.get().elapsed().as_secs_f64(),
            })
        })?,
    )?;
    host.set(
        "broken",
        lua.create_function(|_, (message, trace): (LuaString, Option<LuaString>)| {
            tell(&Event::Broken {
                message: message.to_string_lossy(),
                trace: trace.map(|trace| trace.to_string_lossy()).unwrap_or_default(),
            })
        })?,
    )?;
    host.set(
        "done",
        lua.create_function(|_, ()| -> mlua::Result<()> {
            tell(&Event::Done)?;
            // Tasks that the file itself started may live on; the process does not wait for them.
            process::exit(0)
        })?,
    )?;
    Ok(host)
}

fn tell(event: &Event) -> mlua::Result<()> {
    let line = event.to_line().map_err(mlua::Error::external)?;
    let mut out = io::stdout().lock();
    if out.write_all(&line).and_then(|()| out.flush()).is_err() {
        // The parent is gone, or has seen enough: nobody wants the rest.
        process::exit(FAILED.into());
    }
    Ok(())
}
