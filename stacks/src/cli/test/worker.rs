//! The process that runs the tests of one file: a runtime, `driver.lua` in it, and the way back to the parent.

use std::{
    cell::{Cell, RefCell},
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    process::{self, ExitCode},
    rc::Rc,
    time::Instant,
};

use moonwire_runtime::mlua::{self, Lua, Table};

use super::{Event, Options};
use crate::cli::{FAILED, USAGE, output::complain};

const DRIVER: &str = include_str!("driver.lua");

/// Runs the tests of the one file in `options`, from the test numbered `first` on.
pub fn work(options: &Options, first: usize) -> ExitCode {
    let Ok(parent) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::from(USAGE);
    };
    let file = options.paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let (filter, seed, list) = (options.filter.clone(), options.seed, options.list);
    let link = Rc::new(Link { parent: RefCell::new(parent), since: Cell::new(Instant::now()) });
    let runtime = moonwire::builder()
        .module("test.host", move |lua| {
            let host = host(lua, &link)?;
            host.set("file", file.as_str())?;
            host.set("filter", filter.as_str())?;
            host.set("first", first)?;
            host.set("seed", seed)?;
            host.set("list", list)?;
            Ok(mlua::Value::Table(host))
        })
        .build();
    match runtime.and_then(|runtime| runtime.run_source("moonwire test", DRIVER)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("moonwire test: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

/// The way to the parent, and when the running test began.
struct Link {
    parent: RefCell<UnixStream>,
    since: Cell<Instant>,
}

impl Link {
    fn tell(&self, event: &Event) -> mlua::Result<()> {
        let mut line = serde_json::to_vec(event).map_err(mlua::Error::external)?;
        line.push(b'\n');
        if self.parent.borrow_mut().write_all(&line).is_err() {
            // The parent is gone, or has seen enough: nobody wants the rest.
            process::exit(FAILED.into());
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.since.get().elapsed().as_secs_f64()
    }
}

/// The module `test.host`, through which the driver reports.
fn host(lua: &Lua, link: &Rc<Link>) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    let to = Rc::clone(link);
    host.set(
        "plan",
        lua.create_function(move |_, names: Vec<mlua::LuaString>| {
            to.tell(&Event::Plan { names: names.iter().map(mlua::LuaString::to_string_lossy).collect() })
        })?,
    )?;
    let to = Rc::clone(link);
    host.set(
        "begin",
        lua.create_function(move |_, number| {
            to.since.set(Instant::now());
            to.tell(&Event::Begin { number })
        })?,
    )?;
    let to = Rc::clone(link);
    host.set("passed", lua.create_function(move |_, ()| to.tell(&Event::Passed { seconds: to.seconds() }))?)?;
    let to = Rc::clone(link);
    host.set(
        "skipped",
        lua.create_function(move |_, reason: mlua::LuaString| {
            to.tell(&Event::Skipped { reason: reason.to_string_lossy(), seconds: to.seconds() })
        })?,
    )?;
    let to = Rc::clone(link);
    host.set(
        "failed",
        lua.create_function(move |_, (message, trace): (mlua::LuaString, Option<mlua::LuaString>)| {
            to.tell(&Event::Failed {
                message: message.to_string_lossy(),
                trace: trace.map(|trace| trace.to_string_lossy()).unwrap_or_default(),
                seconds: to.seconds(),
            })
        })?,
    )?;
    let to = Rc::clone(link);
    host.set(
        "broken",
        lua.create_function(move |_, (message, trace): (mlua::LuaString, Option<mlua::LuaString>)| {
            to.tell(&Event::Broken {
                message: message.to_string_lossy(),
                trace: trace.map(|trace| trace.to_string_lossy()).unwrap_or_default(),
            })
        })?,
    )?;
    let to = Rc::clone(link);
    host.set(
        "done",
        lua.create_function(move |_, ()| -> mlua::Result<()> {
            to.tell(&Event::Done)?;
            // Tasks that the file itself started may live on; the process does not wait for them.
            process::exit(0)
        })?,
    )?;
    Ok(host)
}
