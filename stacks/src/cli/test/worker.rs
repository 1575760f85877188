//! The process that runs the tests of one file: a runtime, `driver.lua` in it, and the way back to the parent.

use std::{
    cell::RefCell,
    collections::VecDeque,
    env,
    io::{self, Write},
    os::unix::process::parent_id,
    path::PathBuf,
    process::{self, ExitCode},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use moonwire_runtime::{
    Handle, RunError, TaskFailure,
    mlua::{self, Function, Lua, LuaString, Table},
};

use super::{Event, Options};
use crate::cli::{FAILED, USAGE, files::module_roots, refuse, trace::Settings};

const DRIVER: &str = include_str!("driver.lua");

/// Runs the tests of the one file in `options`, from the test numbered `first` on.
pub fn work(options: &Options, first: usize, trace: &Settings) -> ExitCode {
    let running = Arc::new(Running::new());
    match run(options, first, trace, &running) {
        Ok(Ok(_)) => ExitCode::SUCCESS,
        Ok(Err(message)) => {
            refuse(&message);
            ExitCode::from(USAGE)
        }
        Err(error) => {
            running.lose(match error {
                RunError::Deadlock(tasks) => format!("every task waits for another:{}", listed(tasks)),
                error => error.to_string(),
            });
            ExitCode::from(FAILED)
        }
    }
}

/// The inner error is what cannot be traced.
fn run(
    options: &Options,
    first: usize,
    trace: &Settings,
    running: &Arc<Running>,
) -> Result<Result<i32, String>, RunError> {
    let file = options.paths.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let path = search_path(&options.paths);
    let (filter, seed) = (options.filter.clone(), options.seed);
    let (fail_fast, list) = (options.fail_fast, options.list);
    let failures = Failures::default();
    let (reported, to) = (Rc::clone(&failures), Arc::clone(running));
    let runtime = moonwire::builder()
        .virtual_clock(!options.real_clock)
        .on_task_failure(move |failure| failures.borrow_mut().push(failure.clone()))
        .module("test.host", move |lua| {
            let host = host(lua, &to, &reported)?;
            host.set("file", file.as_str())?;
            host.set("path", path.as_str())?;
            host.set("filter", filter.as_str())?;
            host.set("first", first)?;
            host.set("seed", seed)?;
            host.set("fail_fast", fail_fast)?;
            host.set("list", list)?;
            Ok(mlua::Value::Table(host))
        })
        .build()?;
    if trace.is_on() && !list {
        let wire = Arc::clone(running);
        let write = runtime.lua().create_function(move |_, line: LuaString| {
            wire.hear(line.to_string_lossy());
            Ok(())
        })?;
        match trace.start_into(runtime.lua(), write) {
            Ok(tracer) => runtime.lua().set_named_registry_value(TRACER, tracer)?,
            Err(message) => return Ok(Err(message)),
        }
    }
    watch(runtime.handle(), Arc::clone(running), options.timeout);
    runtime.run_source("=moonwire test", DRIVER).map(Ok)
}

/// Where the registry keeps what traces the tests, if anything does.
const TRACER: &str = "moonwire.test.tracer";

/// Lines of what was traced that are kept of a test.
const WIRE_MAX: usize = 200;

/// Tasks that failed and that nobody joined.
type Failures = Rc<RefCell<Vec<TaskFailure>>>;

/// The running test: when it began, which is taken away by whoever ends it first, and what was traced of it.
struct Running {
    since: Mutex<Option<Instant>>,
    wire: Mutex<Wire>,
}

/// The last lines of what was traced, and how many there were in all.
#[derive(Default)]
struct Wire {
    lines: VecDeque<String>,
    count: usize,
}

impl Running {
    /// Loading the file counts as the first test.
    fn new() -> Self {
        Self { since: Mutex::new(Some(Instant::now())), wire: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        *self.wire() = Wire::default();
        *self.lock() = Some(Instant::now());
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a line of what was traced.
    fn hear(&self, line: String) {
        let mut wire = self.wire();
        wire.count += 1;
        wire.lines.push_back(line);
        if wire.lines.len() > WIRE_MAX {
            wire.lines.pop_front();
        }
    }

    /// What was traced, for the failure of the test.
    fn take_wire(&self) -> Vec<String> {
        let wire = std::mem::take(&mut *self.wire());
        let lost = wire.count - wire.lines.len();
        let first = (lost > 0).then(|| format!("... {lost} lines before"));
        first.into_iter().chain(wire.lines).collect()
    }

    /// Tells how the running test ended, if there is one.
    fn end(&self, event: impl FnOnce(f64) -> Event) {
        if let Some(since) = self.lock().take() {
            tell(&event(since.elapsed().as_secs_f64()));
        }
    }

    /// Tells that the running test failed and cannot be followed by another in this process.
    fn lose(&self, message: String) {
        self.end(|seconds| Event::Failed { message, trace: String::new(), wire: self.take_wire(), seconds });
        tell(&Event::Lost);
    }

    fn is_over(&self, limit: Duration) -> bool {
        self.lock().is_some_and(|since| since.elapsed() > limit)
    }
}

/// Ends the process when its parent has gone, and a test that takes too long.
fn watch(handle: Handle, running: Arc<Running>, limit: Duration) {
    let parent = parent_id();
    thread::spawn(move || {
        while parent_id() == parent && !running.is_over(limit) {
            thread::sleep(Duration::from_millis(20));
        }
        let doing = match handle.describe_tasks(Duration::from_secs(1)) {
            Some(tasks) => format!("; its tasks:{}", listed(tasks)),
            None => ", and does not wait for anything".to_owned(),
        };
        running.lose(format!("did not end within {limit:?}{doing}"));
        process::exit(FAILED.into());
    });
}

/// The tasks of a test: all but the driver's.
fn listed(tasks: Vec<String>) -> String {
    tasks.iter().filter(|task| !task.starts_with("#1 main:")).map(|task| format!("\n  {task}")).collect()
}

/// What stands before Lua's own `package.path`: the folders around the tests, then those of MOONWIRE_PATH.
fn search_path(files: &[PathBuf]) -> String {
    let named = env::var_os("MOONWIRE_PATH").unwrap_or_default();
    let roots = files.iter().flat_map(|file| module_roots(file, &[])).chain(env::split_paths(&named));
    roots.map(|root| format!("{0}/?.lua;{0}/?/init.lua;", root.display())).collect()
}

/// The module `test.host`, through which the driver reports. It flushes Lua's own output before.
fn host(lua: &Lua, running: &Arc<Running>, failures: &Failures) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    let to = Arc::clone(running);
    let plan = move |_: &Lua, names: Vec<LuaString>| {
        to.end(|_| Event::Plan { names: names.iter().map(LuaString::to_string_lossy).collect() });
        Ok(())
    };
    host.set("plan", lua.create_function(plan)?)?;
    let to = Arc::clone(running);
    let begin = move |lua: &Lua, number| {
        if let Some(tracer) = lua.named_registry_value::<Option<Table>>(TRACER)? {
            tracer.get::<Function>("reset")?.call::<()>(tracer)?;
        }
        tell(&Event::Begin { number });
        to.begin();
        Ok(())
    };
    host.set("begin", lua.create_function(begin)?)?;
    let to = Arc::clone(running);
    let passed = move |_: &Lua, ()| {
        to.end(|seconds| Event::Passed { seconds });
        Ok(())
    };
    host.set("passed", lua.create_function(passed)?)?;
    let to = Arc::clone(running);
    let skipped = move |_: &Lua, reason: LuaString| {
        to.end(|seconds| Event::Skipped { reason: reason.to_string_lossy(), seconds });
        Ok(())
    };
    host.set("skipped", lua.create_function(skipped)?)?;
    let to = Arc::clone(running);
    let failed = move |_: &Lua, (message, trace): (LuaString, LuaString)| {
        let (message, trace) = (message.to_string_lossy(), trace.to_string_lossy());
        to.end(|seconds| Event::Failed { message, trace, wire: to.take_wire(), seconds });
        Ok(())
    };
    host.set("failed", lua.create_function(failed)?)?;
    let to = Rc::clone(failures);
    let take_failures = move |lua: &Lua, ()| {
        let tables = to.take().into_iter().map(|failure| {
            let table = lua.create_table()?;
            table.set("task", failure.task)?;
            table.set("message", failure.message)?;
            table.set("traceback", failure.traceback)?;
            Ok(table)
        });
        tables.collect::<mlua::Result<Vec<_>>>()
    };
    host.set("failures", lua.create_function(take_failures)?)?;
    let done = |_: &Lua, ()| -> mlua::Result<()> {
        tell(&Event::Done);
        // Tasks that the file itself started may live on; the process does not wait for them.
        process::exit(0)
    };
    host.set("done", lua.create_function(done)?)?;
    Ok(host)
}

/// Sends an event to the parent.
fn tell(event: &Event) {
    let mut out = io::stdout().lock();
    let sent =
        event.to_line().map_err(io::Error::from).and_then(|line| out.write_all(&line)).and_then(|()| out.flush());
    if sent.is_err() {
        // The parent is gone, or has seen enough: nobody wants the rest.
        process::exit(FAILED.into());
    }
}
