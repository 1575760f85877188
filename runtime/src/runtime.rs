//! The runtime, its builder and its loop.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value, chunk::ChunkMode};

use crate::{
    clock::{NEVER, Nanos},
    complaint::complain,
    failure::{RunError, TaskFailure, describe_error, syntax_message},
    ffi::{self, TaskRef, Turn},
    handle::Handle,
    os::Signals,
    reactor::Core,
    scheduler::{Outcome, State, TaskId},
    shared::{Grave, Shared},
};

type Loader = Box<dyn Fn(&Lua) -> mlua::Result<Value>>;
type Report = Box<dyn Fn(&TaskFailure)>;

/// Tasks that run before the kernel is asked for events again.
const TURNS_MAX: usize = 1024;
/// How long a stop may take, unless the builder says otherwise.
const GRACE: Duration = Duration::from_secs(5);
/// How long sockets must be silent before a virtual clock jumps.
const QUIET: Duration = Duration::from_millis(50);

/// What native functions may ask of the loop.
pub(crate) struct Control {
    shared: Rc<Shared>,
    stop: Cell<Option<i32>>,
    sources: HashMap<&'static str, &'static str>,
}

impl Control {
    pub(crate) fn request_stop(&self, status: i32) {
        if self.stop.get().is_none() {
            self.stop.set(Some(status));
        }
    }

    pub(crate) fn source(&self, name: &str) -> Option<&'static str> {
        self.sources.get(name).copied()
    }

    /// Ends the process; small writes that wait to be sent are sent first.
    pub(crate) fn exit(&self, lua: &Lua, status: i32) {
        self.shared.core.borrow_mut().flush_all();
        crate::lua::play_tape(lua, &self.shared);
        std::process::exit(status);
    }
}

/// Collects what a [`Runtime`] is made of.
#[derive(Default)]
pub struct Builder {
    modules: Vec<(String, Loader)>,
    sources: HashMap<&'static str, &'static str>,
    arguments: Option<(String, Vec<String>)>,
    search_path: Vec<PathBuf>,
    signals: bool,
    grace: Option<Duration>,
    virtual_clock: bool,
    report: Option<Report>,
    hog_limit: Option<Duration>,
}

impl Builder {
    /// Adds a native module: the first `require(name)` answers what `load` makes.
    pub fn module(mut self, name: &str, load: impl Fn(&Lua) -> mlua::Result<Value> + 'static) -> Self {
        self.modules.push((name.to_owned(), Box::new(load)));
        self
    }

    /// Adds embedded Lua modules, as (name, source) pairs. Script-side files of the same name go first.
    pub fn sources(mut self, sources: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        self.sources.extend(sources);
        self
    }

    /// What the script finds in the global `arg`, and its chunk in `...`.
    pub fn arguments(mut self, script: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        self.arguments = Some((script.to_owned(), arguments.into_iter().collect()));
        self
    }

    /// Adds a folder in which `require` looks for `name.lua` and `name/init.lua`.
    pub fn search_path(mut self, folder: impl Into<PathBuf>) -> Self {
        self.search_path.push(folder.into());
        self
    }

    /// Whether SIGTERM and SIGINT stop the script, a second one ends the process at once, and
    /// SIGUSR1 lists the tasks on standard error. Default: no.
    pub fn signals(mut self, yes: bool) -> Self {
        self.signals = yes;
        self
    }

    /// How long a stop may take before what still runs is dropped. Default: 5 seconds.
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = Some(time);
        self
    }

    /// Whether time stands still while anything can run, and jumps to the next deadline when
    /// nothing can: what tests want. Default: no.
    pub fn virtual_clock(mut self, yes: bool) -> Self {
        self.virtual_clock = yes;
        self
    }

    /// What to do with the error of a task that nobody joins. Default: print it to standard error.
    pub fn on_task_failure(mut self, report: impl Fn(&TaskFailure) + 'static) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    /// Reports on standard error, with its line, a task that computes for so long without waiting.
    /// It counts processor time, on Linux, for one runtime of a process, and the runtime must run on
    /// the thread that builds it. Default: no watch.
    pub fn watch_hogs(mut self, limit: Duration) -> Self {
        self.hog_limit = Some(limit);
        self
    }

    /// Builds the runtime.
    ///
    /// # Errors
    /// When the system has no descriptors or memory left, or a native module cannot be made.
    pub fn build(self) -> mlua::Result<Runtime> {
        // Scripts want the debug library, which mlua calls unsafe.
        #[allow(unsafe_code, reason = "a script can break only its own state with `debug`")]
        let lua = unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) };
        let shared = Rc::new(Shared::new(Core::new(self.virtual_clock).map_err(mlua::Error::external)?));
        shared.collector.begin(&lua);
        lua.set_app_data(shared.clone());
        let control = Rc::new(Control { shared: shared.clone(), stop: Cell::new(None), sources: self.sources });
        let stop = crate::lua::install(&lua, &shared, &control)?;
        let package: Table = lua.globals().get("package")?;
        let preload: Table = package.get("preload")?;
        for (name, load) in self.modules {
            preload.set(name, lua.create_function(move |lua, ()| load(lua))?)?;
        }
        let folders: Vec<String> = self.search_path.iter().map(|folder| folder.display().to_string()).collect();
        let path: Vec<String> = folders.iter().map(|folder| format!("{folder}/?.lua;{folder}/?/init.lua")).collect();
        package.set("path", path.join(";"))?;
        let mut values = MultiValue::new();
        if let Some((script, arguments)) = self.arguments {
            let arg = lua.create_table()?;
            arg.raw_set(0, script)?;
            for text in arguments {
                let text = lua.create_string(text)?;
                arg.raw_push(&text)?;
                values.push_back(Value::String(text));
            }
            lua.globals().set("arg", arg)?;
        }
        let signals = match self.signals {
            true => {
                let signals = Signals::install().map_err(mlua::Error::external)?;
                shared.core.borrow().watch_signals(signals.descriptor()).map_err(mlua::Error::external)?;
                Some(RefCell::new(signals))
            }
            false => None,
        };
        #[cfg(target_os = "linux")]
        let watch = match self.hog_limit {
            Some(limit) => Some(ffi::HogWatch::start(&shared, limit).map_err(mlua::Error::external)?),
            None => None,
        };
        let waker = shared.core.borrow().waker.clone();
        Ok(Runtime {
            #[cfg(target_os = "linux")]
            _watch: watch,
            lua,
            shared,
            control,
            stop,
            arguments: values,
            signals,
            grace: self.grace.unwrap_or(GRACE),
            report: self.report,
            handle: Handle { orders: Arc::default(), waker },
        })
    }
}

/// A Lua state, its loop and its sockets.
pub struct Runtime {
    #[cfg(target_os = "linux")]
    _watch: Option<ffi::HogWatch>,
    lua: Lua,
    shared: Rc<Shared>,
    control: Rc<Control>,
    stop: Function,
    arguments: MultiValue,
    signals: Option<RefCell<Signals>>,
    grace: Duration,
    report: Option<Report>,
    handle: Handle,
}

/// One run: what the loop remembers from its start to its end.
struct Run {
    main: TaskId,
    failure: Option<TaskFailure>,
    status: i32,
    /// When a stop that is under way is cut short.
    stop_until: Nanos,
    stopping: bool,
}

impl Runtime {
    /// Starts a description of a runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The Lua state, to set globals or call functions that do not wait.
    pub fn lua(&self) -> &Lua {
        &self.lua
    }

    /// A handle that stops this runtime from elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs a script given as text until all its tasks have ended; answers the exit status.
    ///
    /// # Errors
    /// [`RunError::Syntax`], [`RunError::Failed`], or a failure of the loop itself.
    pub fn run_source(&self, name: &str, source: impl AsRef<[u8]>) -> Result<i32, RunError> {
        let source = without_shebang(source.as_ref());
        let chunk = self.lua.load(source).set_name(name).set_mode(ChunkMode::Text);
        let function = chunk.into_function().map_err(|error| RunError::Syntax(syntax_message(&error)))?;
        self.run(function)
    }

    /// Runs a script's file; see [`Runtime::run_source`].
    ///
    /// # Errors
    /// [`RunError::Read`] as well.
    pub fn run_file(&self, path: impl AsRef<Path>) -> Result<i32, RunError> {
        let path = path.as_ref();
        let source = fs::read(path).map_err(|error| RunError::Read(path.to_owned(), error))?;
        self.run_source(&format!("@{}", path.display()), source)
    }

    /// Runs a function as the main task until all tasks have ended; answers the exit status.
    ///
    /// # Errors
    /// See [`Runtime::run_source`].
    pub fn run(&self, main: Function) -> Result<i32, RunError> {
        self.control.stop.set(None);
        let mut run = Run {
            main: self.spawn("main", main, self.arguments.clone())?,
            failure: None,
            status: 0,
            stop_until: NEVER,
            stopping: false,
        };
        let result = self.turn_until_done(&mut run);
        self.clean_up();
        self.play_tape();
        // A stop that comes between two runs is for the next one; this one's is used up.
        self.handle.orders.stop.store(false, Ordering::Release);
        result?;
        match run.failure {
            Some(failure) => Err(RunError::Failed(failure)),
            None => Ok(run.status),
        }
    }

    fn spawn(&self, name: &str, function: Function, arguments: MultiValue) -> mlua::Result<TaskId> {
        let spawn: Function = self.lua.load("return require('cosocket').spawn").set_name("=[runtime]").call(())?;
        let mut values = arguments;
        values.push_front(Value::Function(function));
        values.push_front(Value::String(self.lua.create_string(name)?));
        Ok(spawn.call::<TaskRef>(values)?.0)
    }

    fn turn_until_done(&self, run: &mut Run) -> Result<(), RunError> {
        loop {
            self.bury();
            self.play_tape();
            self.run_ready(run)?;
            self.take_orders(run)?;
            self.shared.collector.adapt(&self.lua);
            let mut core = self.shared.core.borrow_mut();
            core.reap();
            // What closed streams have not sent yet still leaves, in a stop within its grace.
            if core.scheduler.live == 0 && !core.is_lingering() {
                return Ok(());
            }
            if run.stop_until <= core.scheduler.clock.now() {
                return Ok(());
            }
            self.wait(&mut core, run)?;
        }
    }

    /// Runs the tasks that are ready now; those that become so meanwhile have their turn after the
    /// next look at the kernel.
    fn run_ready(&self, run: &mut Run) -> Result<(), RunError> {
        let count = self.shared.core.borrow().scheduler.ready.len().min(TURNS_MAX);
        for _ in 0..count {
            let next = self.shared.core.borrow_mut().scheduler.next_ready();
            let Some(id) = next else { break };
            let turn = ffi::run_task(&self.lua, &self.shared, id)?;
            let mut core = self.shared.core.borrow_mut();
            core.flush_all();
            core.scheduler.current = None;
            drop(core);
            self.play_tape();
            if let Turn::Ended(state, values) = turn {
                self.task_ended(run, id, state, values)?;
            }
        }
        Ok(())
    }

    fn task_ended(&self, run: &mut Run, id: TaskId, state: State, values: i32) -> Result<(), RunError> {
        let thread = self.shared.core.borrow().scheduler.tasks.get(id).map(|task| task.thread);
        let Some(thread) = thread else { return Ok(()) };
        if state == State::Cancelled && values == 0 {
            ffi::kill(&self.lua, &self.shared, thread);
        }
        let mut core = self.shared.core.borrow_mut();
        let waiters = core.scheduler.end(id, state, values);
        if state == State::Failed {
            match core.scheduler.fail_group(id) {
                Some((siblings, owner)) => {
                    siblings.into_iter().for_each(|task| core.cancel(task));
                    owner.into_iter().for_each(|task| core.interrupt(task));
                }
                None if id == run.main || !waiters.iter().any(|waiter| core.scheduler.is_joining(*waiter)) => {
                    drop(core);
                    self.top_level_failure(run, id, thread)?;
                    core = self.shared.core.borrow_mut();
                }
                None => {}
            }
        }
        waiters.into_iter().for_each(|task| core.wake(task, Outcome::Go));
        drop(core);
        self.let_go(id, 0);
        Ok(())
    }

    /// The error of a task that no group and no joiner takes.
    fn top_level_failure(&self, run: &mut Run, id: TaskId, thread: ffi::Thread) -> Result<(), RunError> {
        let value = ffi::failure_value(&self.lua, thread)?;
        let message = describe_error(&value);
        let failure = {
            let core = self.shared.core.borrow();
            let Some(task) = core.scheduler.tasks.get(id) else { return Ok(()) };
            let traceback = task.extra.as_ref().and_then(|extra| extra.traceback.clone()).unwrap_or_default();
            TaskFailure { task: task.label(), message, traceback }
        };
        run.status = 1;
        if id == run.main {
            run.failure = Some(failure);
            self.control.request_stop(1);
        } else if let Some(report) = &self.report {
            report(&failure);
        } else {
            complain(format_args!("{}: {failure}", failure.task));
        }
        Ok(())
    }

    /// One holder of a task fewer (`holders` of them); the last one takes an ended task away.
    fn let_go(&self, id: TaskId, holders: u8) {
        let mut core = self.shared.core.borrow_mut();
        let Some(task) = core.scheduler.tasks.get_mut(id) else { return };
        task.holders = task.holders.saturating_sub(holders);
        if task.holders > 0 || !task.state.has_ended() {
            return;
        }
        let thread = task.thread;
        core.scheduler.tasks.remove(id);
        drop(core);
        ffi::release_thread(&self.lua, thread);
    }

    /// Tells whoever listens what was heard on streams.
    fn play_tape(&self) {
        if self.shared.tape.is_waiting() {
            crate::lua::play_tape(&self.lua, &self.shared);
        }
    }

    /// Does what finalisers have left to do.
    fn bury(&self) {
        if self.shared.graveyard.borrow().is_empty() {
            return;
        }
        let graves = self.shared.graveyard.take();
        for grave in graves {
            match grave {
                Grave::Socket(id) => self.shared.core.borrow_mut().close(id),
                Grave::Task(id) => self.let_go(id, 1),
            }
        }
    }

    /// Looks for signals and requests to stop.
    fn take_orders(&self, run: &mut Run) -> Result<(), RunError> {
        let signalled = std::mem::take(&mut self.shared.core.borrow_mut().signalled);
        if signalled && let Some(signals) = &self.signals {
            for signal in signals.borrow_mut().take() {
                if signal == libc::SIGUSR1 {
                    let core = self.shared.core.borrow();
                    core.describe_tasks().iter().for_each(|line| complain(format_args!("{line}")));
                } else if run.stopping {
                    self.control.exit(&self.lua, 128 + signal);
                } else {
                    self.control.request_stop(if signal == libc::SIGINT { 128 + signal } else { 0 });
                }
            }
        }
        let orders = &self.handle.orders;
        if let Some(sender) = orders.list.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Who asked may have given up meanwhile.
            let _ = sender.try_send(self.shared.core.borrow().describe_tasks());
        }
        if orders.stop.swap(false, Ordering::Acquire) {
            self.control.request_stop(orders.status.load(Ordering::Relaxed));
        }
        if let (Some(status), false) = (self.control.stop.get(), run.stopping) {
            run.stopping = true;
            run.status = run.status.max(status);
            let grace = self.grace.as_nanos().min(u128::from(u64::MAX)) as Nanos;
            run.stop_until = self.shared.core.borrow_mut().scheduler.clock.refresh().saturating_add(grace);
            self.spawn("stop", self.stop.clone(), MultiValue::new())?;
        }
        Ok(())
    }

    /// Waits for the kernel or the next deadline.
    fn wait(&self, core: &mut Core, run: &Run) -> Result<(), RunError> {
        let failed = |error: io::Error| RunError::Loop(format!("cannot wait for events: {error}"));
        let next = core.next_timer().min(run.stop_until);
        if !core.scheduler.ready.is_empty() || !self.shared.graveyard.borrow().is_empty() {
            core.poll(Some(Duration::ZERO)).map_err(failed)?;
        } else if !core.scheduler.clock.is_virtual() {
            let limit = core.scheduler.clock.until(next);
            core.poll(limit).map_err(failed)?;
        } else if core.poll(Some(Duration::ZERO)).map_err(failed)? == 0 && core.scheduler.ready.is_empty() {
            // Bytes from outside take real time, and so do threads; nothing else does.
            if core.waits_for_thread() {
                // Its answer will come: no time passes meanwhile.
                core.poll(None).map_err(failed)?;
                core.fire_timers();
                return Ok(());
            }
            let outside = core.waits_for_outside();
            if next == NEVER && !outside {
                return Err(RunError::Deadlock(core.describe_tasks()));
            }
            // The other end is mostly in this process, too: a while of silence says that nothing is on its way.
            let until = core.scheduler.clock.until(next);
            let limit = if core.resolver.is_busy() { until } else { until.map(|until| until.min(QUIET)) };
            if !outside || core.poll(limit).map_err(failed)? == 0 {
                core.scheduler.clock.jump(next);
            }
        }
        core.fire_timers();
        Ok(())
    }

    /// Ends what is left of a run: tasks that did not stop in time, sockets that still send.
    fn clean_up(&self) {
        {
            let mut core = self.shared.core.borrow_mut();
            core.give_up_lingering();
            core.promises.forget_all();
        }
        // What runs when a task is ended may spawn others, which have not begun: they end without a word.
        while self.shared.core.borrow().scheduler.live > 0 {
            let left: Vec<TaskId> = {
                let mut core = self.shared.core.borrow_mut();
                core.scheduler.ready.clear();
                core.scheduler.tasks.iter().filter(|(_, task)| !task.state.has_ended()).map(|(id, _)| id).collect()
            };
            for id in left {
                let thread = self.shared.core.borrow().scheduler.tasks.get(id).map(|task| task.thread);
                if let Some(thread) = thread {
                    ffi::kill(&self.lua, &self.shared, thread);
                    self.shared.core.borrow_mut().scheduler.end(id, State::Cancelled, 0);
                    self.let_go(id, 0);
                }
            }
        }
        self.shared.core.borrow_mut().reap();
        self.bury();
    }
}

/// A script without a byte order mark and its `#!` line; the line stays, so that line numbers are right.
fn without_shebang(source: &[u8]) -> &[u8] {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    if !source.starts_with(b"#") {
        return source;
    }
    let end = memchr::memchr(b'\n', source).unwrap_or(source.len());
    &source[end..]
}
