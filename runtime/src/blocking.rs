//! Work that blocks, done on threads while tasks wait.
//!
//! A native module whose work would stop the loop (a database, a slow device) gives its functions
//! to scripts through [`function`]. Such a function starts the work and hands its thread a
//! [`Promise`]; the calling task parks until the promise is kept, and answers what
//! [`Promise::keep`] makes of it on the loop's thread. Deadlines and cancellations end the wait as
//! they end any other: the work goes on, and nobody hears of its answer.
//!
//! ```
//! use std::{sync::Arc, thread};
//!
//! use moonwire_runtime::{Error, Kind, Runtime, blocking, mlua::Value};
//!
//! let runtime = Runtime::builder()
//!     .module("files", |lua| {
//!         let module = lua.create_table()?;
//!         let size = blocking::function(lua, "files.size", |_, path: String, promise| {
//!             let about: Arc<str> = path.as_str().into();
//!             thread::spawn(move || {
//!                 let answer = std::fs::metadata(path).map(|found| found.len());
//!                 promise.keep(|_| Ok(answer.map_err(|error| Error::from_io("files.size", &error))))
//!             });
//!             Ok(Ok(about))
//!         })?;
//!         module.set("size", size)?;
//!         Ok(Value::Table(module))
//!     })
//!     .build()?;
//! runtime.run_source(
//!     "=demo",
//!     r#"
//!     local size, err = require("files").size("/there/is/no/such/file")
//!     assert(size == nil and err.code == "ENOENT")
//!     "#,
//! )?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On a virtual clock time stands still while a task waits for a thread.

use std::{
    fmt, mem,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use mio::Waker;
use mlua::{FromLuaMulti, Function, IntoLuaMulti, Lua, MultiValue, Table};
use slotmap::{Key, KeyData, SlotMap, new_key_type};

use crate::{
    error::{Error, Kind},
    lua::checked,
    scheduler::TaskId,
    shared::Shared,
};

/// Registry name of the prelude's function that makes a parking function of one that starts work.
const PARKING: &str = "moonwire.blocking";

/// Makes a function for scripts that has its work done on a thread while the calling task waits.
///
/// `op` names it in errors and in `cosocket.tasks()`. `start` gets the script's arguments and the
/// promise to keep; it must not block. It answers what listings say the task waits for besides `op`
/// (a file's name; may be empty), or why the work cannot start. It is called only where the task can
/// wait, and not after the task's deadline or its cancellation.
///
/// An error of [`Kind::Argument`], from `start` or from the promise, is raised, and blames the
/// script's line; any other is the answer `nil, err`.
///
/// # Errors
/// When Lua has no memory left.
pub fn function<A: FromLuaMulti>(
    lua: &Lua,
    op: &'static str,
    start: impl Fn(&Lua, A, Promise) -> mlua::Result<Result<Arc<str>, Error>> + 'static,
) -> mlua::Result<Function> {
    let shared = shared(lua)?;
    let place = {
        let mut core = shared.core.borrow_mut();
        core.promises.functions.push(op);
        core.promises.functions.len() - 1
    };
    let begin = checked(lua, &shared, op, move |lua, shared, arguments: A| {
        let promise = shared.core.borrow_mut().promises.make(op);
        let id = promise.id;
        match start(lua, arguments, promise) {
            Ok(Ok(about)) => {
                shared.core.borrow_mut().promises.describe(id, about);
                Ok(Ok(id.data().as_ffi() as i64))
            }
            Ok(Err(error)) => {
                shared.core.borrow_mut().promises.forget(id);
                Ok(Err(error))
            }
            Err(error) => {
                shared.core.borrow_mut().promises.forget(id);
                Err(error)
            }
        }
    })?;
    lua.named_registry_value::<Function>(PARKING)?.call((place, begin))
}

/// What a thread owes a task. One that is dropped unkept, because its thread panicked, answers an error.
pub struct Promise {
    id: PromiseId,
    op: &'static str,
    mailbox: Option<Arc<Mailbox>>,
}

impl Promise {
    /// The operation that was promised, as errors name it.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// Keeps the promise, from any thread. `answer` makes the values on the loop's thread, where it must
    /// not block; it is not called when the task has given up the wait.
    pub fn keep<R: IntoLuaMulti>(mut self, answer: impl FnOnce(&Lua) -> mlua::Result<R> + Send + 'static) {
        self.post(Box::new(move |lua| answer(lua)?.into_lua_multi(lua)));
    }

    fn post(&mut self, answer: Answer) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(self.id, answer);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let op = self.op;
        self.post(Box::new(move |lua| {
            let message = "the thread that worked on this has ended without an answer";
            Err::<bool, Error>(Error::new(Kind::Io, op, message)).into_lua_multi(lua)
        }));
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("op", &self.op).finish_non_exhaustive()
    }
}

new_key_type! {
    /// Names a promise; one that was kept or given up is not found again under another's name.
    pub(crate) struct PromiseId;
}

type Answer = Box<dyn FnOnce(&Lua) -> mlua::Result<MultiValue> + Send>;

/// Where threads leave their answers.
struct Mailbox {
    answers: Mutex<Vec<(PromiseId, Answer)>>,
    waker: Arc<Waker>,
}

impl Mailbox {
    fn post(&self, id: PromiseId, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((id, answer));
        // Whoever made the box non-empty has woken the loop, which takes all.
        if answers.len() == 1 {
            drop(answers);
            // The loop is woken or has ended; there is nothing else to do with a failure.
            let _ = self.waker.wake();
        }
    }
}

struct Slot {
    about: Arc<str>,
    /// Who waits, while someone does.
    task: Option<TaskId>,
    answer: Option<Answer>,
}

/// The promises that tasks wait for, or are about to.
pub(crate) struct Promises {
    slots: SlotMap<PromiseId, Slot>,
    mailbox: Arc<Mailbox>,
    /// Names of the functions that were made, by place.
    functions: Vec<&'static str>,
}

impl Promises {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let mailbox = Arc::new(Mailbox { answers: Mutex::default(), waker });
        Self { slots: SlotMap::with_key(), mailbox, functions: Vec::new() }
    }

    /// The name of the function at a place.
    pub(crate) fn op(&self, place: i64) -> &'static str {
        usize::try_from(place).ok().and_then(|place| self.functions.get(place)).copied().unwrap_or("wait")
    }

    fn make(&mut self, op: &'static str) -> Promise {
        let id = self.slots.insert(Slot { about: Arc::default(), task: None, answer: None });
        Promise { id, op, mailbox: Some(self.mailbox.clone()) }
    }

    fn describe(&mut self, id: PromiseId, about: Arc<str>) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.about = about;
        }
    }

    /// Has `task` woken when the promise is kept.
    pub(crate) fn wait(&mut self, id: PromiseId, task: TaskId) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.task = Some(task);
        }
    }

    /// Whether there is nothing to wait for any more.
    pub(crate) fn is_settled(&self, id: PromiseId) -> bool {
        self.slots.get(id).is_none_or(|slot| slot.answer.is_some())
    }

    /// Nobody waits for this one any more: its answer will be dropped.
    pub(crate) fn forget(&mut self, id: PromiseId) {
        self.slots.remove(id);
    }

    pub(crate) fn forget_all(&mut self) {
        self.slots.clear();
    }

    /// What people read about a promise.
    pub(crate) fn about(&self, id: PromiseId) -> &str {
        self.slots.get(id).map_or("", |slot| &slot.about)
    }

    /// Takes answers that have come; gives the tasks to wake.
    pub(crate) fn collect(&mut self) -> Vec<TaskId> {
        let answers = mem::take(&mut *self.mailbox.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut woken = Vec::new();
        for (id, answer) in answers {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.answer = Some(answer);
                woken.extend(slot.task.take());
            }
        }
        woken
    }
}

/// Adds what the prelude needs.
pub(crate) fn install(lua: &Lua, shared: &Rc<Shared>, native: &Table) -> mlua::Result<()> {
    let take = shared.clone();
    let take = lua.create_function(move |lua, ticket: i64| {
        let slot = take.core.borrow_mut().promises.slots.remove(KeyData::from_ffi(ticket as u64).into());
        match slot.and_then(|slot| slot.answer) {
            Some(answer) => answer(lua),
            None => Err(mlua::Error::runtime("a bug in this runtime: an answer was taken that had not come")),
        }
    })?;
    native.raw_set("promise_take", take)
}

/// Keeps what the prelude made for [`function`].
pub(crate) fn install_parking(lua: &Lua, native: &Table) -> mlua::Result<()> {
    lua.set_named_registry_value(PARKING, native.raw_get::<Function>("blocking")?)
}

fn shared(lua: &Lua) -> mlua::Result<Rc<Shared>> {
    let found = lua.app_data_ref::<Rc<Shared>>().map(|shared| shared.clone());
    found.ok_or_else(|| mlua::Error::runtime("this Lua state belongs to no runtime"))
}
