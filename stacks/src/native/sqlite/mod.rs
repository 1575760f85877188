//! `sqlite`: an embedded database, one file each, whose work is done on a thread of its own.
//!
//! [`open`](open::open) says how a file is opened and what is refused, [`worker`] how jobs are done and share a
//! commit, [`value`] how Lua's values and SQLite's become each other, [`options`] what a script may ask for,
//! [`error`] what it reads when something fails.

mod error;
mod open;
mod options;
mod value;
mod worker;

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
};

use mlua::{
    Function, Lua, LuaString, MetaMethod, MultiValue, Table, UserDataFields, UserDataMethods, UserDataRef, Value,
};
use moonwire_runtime::{Error, Kind, blocking, mlua};

use options::Config;
use worker::{Job, Shape, Statement};

/// Statements of one transaction.
const STATEMENTS_MAX: usize = 1_000_000;
/// Stack of a database's thread. SQLite bounds the depth of what it parses.
const STACK_SIZE: usize = 512 * 1024;

/// The module `sqlite`.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let exec =
        blocking::function(lua, "sqlite:exec", |lua, (db, sql, values): (Handle, Value, MultiValue), promise| {
            Ok(statement(lua, promise.op(), &sql, values)
                .and_then(|statement| db.send(vec![statement], Shape::Exec, promise)))
        })?;
    let query =
        blocking::function(lua, "sqlite:query", |lua, (db, sql, values): (Handle, Value, MultiValue), promise| {
            Ok(statement(lua, promise.op(), &sql, values)
                .and_then(|statement| db.send(vec![statement], Shape::Query, promise)))
        })?;
    let transaction = blocking::function(lua, "sqlite:transaction", |lua, (db, list): (Handle, Table), promise| {
        let list = statements(lua, promise.op(), &list)?;
        Ok(list.and_then(|list| db.send(list, Shape::Transaction, promise)))
    })?;
    let close = blocking::function(lua, "sqlite:close", |_, db: Handle, promise| Ok(Ok(db.close(Some(promise)))))?;
    let let_go = lua.create_function(|_, db: Handle| Ok(db.close(None).len()))?;
    let leave: Function = lua.load(LEAVE).set_name("=[sqlite]").call((&close, let_go))?;
    lua.register_userdata_type::<Database>(|registry| {
        registry.add_field("exec", exec);
        registry.add_field("query", query);
        registry.add_field("transaction", transaction);
        registry.add_field("close", close);
        registry.add_meta_field(MetaMethod::Type, "sqlite.Database");
        registry.add_meta_field(MetaMethod::Close, leave);
        registry.add_meta_method(MetaMethod::ToString, |lua, this, ()| {
            let closed = if this.sender.borrow().is_some() { "" } else { ", closed" };
            lua.create_string(format!("sqlite.Database ({}{closed})", this.path))
        });
    })?;

    let module = lua.create_table()?;
    let open = blocking::function(lua, "sqlite.open", |_, (path, options): (Value, Value), promise| {
        let config = match Config::read(&path, &options)? {
            Ok(config) => config,
            Err(error) => return Ok(Err(error)),
        };
        let about = config.shown.clone();
        let (sender, jobs) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let database = Database {
            sender: RefCell::new(Some(sender)),
            waiting: waiting.clone(),
            queue_max: config.queue_max,
            path: config.shown.clone(),
        };
        let work = move || match open::open(&config) {
            Err(error) => promise.keep(move |_| Ok(Err::<bool, _>(error))),
            Ok(connection) => {
                promise.keep(move |lua| lua.create_any_userdata(database).map(Ok::<_, Error>));
                worker::run(connection, &config, &jobs, &waiting);
            }
        };
        match thread::Builder::new().name("sqlite".to_owned()).stack_size(STACK_SIZE).spawn(work) {
            Ok(_) => Ok(Ok(about)),
            Err(error) => Ok(Err(Error::from_io("sqlite.open", &error))),
        }
    })?;
    module.raw_set("open", open)?;
    Ok(module)
}

/// What leaving a block does: closes, and waits for that where waiting is possible.
const LEAVE: &str = "
local close, let_go = ...
return function(db)
  pcall(close, db)
  let_go(db)
end
";

/// A database as a script holds it. Dropping it has its thread do what is queued, and close the file.
struct Database {
    sender: RefCell<Option<Sender<Job>>>,
    /// Jobs that the thread has not taken.
    waiting: Arc<AtomicUsize>,
    queue_max: usize,
    path: Arc<str>,
}

impl Database {
    fn send(&self, statements: Vec<Statement>, shape: Shape, promise: blocking::Promise) -> Result<Arc<str>, Error> {
        let op = promise.op();
        let sender = self.sender.borrow();
        let Some(sender) = &*sender else {
            return Err(Error::new(Kind::Closed, op, format!("{} has been closed by this side", self.path)));
        };
        if self.waiting.load(Ordering::Relaxed) >= self.queue_max {
            let message = format!("{} jobs are waiting; wait for some of them, or raise queue_max", self.queue_max);
            return Err(Error::new(Kind::Limit, op, message));
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        match sender.send(Job::Run { statements, shape, promise }) {
            Ok(()) => Ok(self.path.clone()),
            Err(_) => Err(Error::new(Kind::Io, op, "the thread of the database has ended; open it again")),
        }
    }

    /// Lets the thread end once it has done what is queued; answers the path.
    fn close(&self, promise: Option<blocking::Promise>) -> Arc<str> {
        match (self.sender.borrow_mut().take(), promise) {
            (Some(sender), Some(promise)) => {
                // A thread that has ended drops the promise, which answers so.
                let _ = sender.send(Job::Close(promise));
            }
            (None, Some(promise)) => promise.keep(|_| Ok(true)),
            (_, None) => {}
        }
        self.path.clone()
    }
}

/// A database that is an argument.
struct Handle(UserDataRef<Database>);

impl std::ops::Deref for Handle {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.0
    }
}

impl mlua::FromLua for Handle {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        let from = value.type_name();
        UserDataRef::from_lua(value, lua).map(Handle).map_err(|_| mlua::Error::FromLuaConversionError {
            from,
            to: "database".to_owned(),
            message: Some("call this with a colon: db:exec(sql)".to_owned()),
        })
    }
}

/// A statement and its values.
fn statement(lua: &Lua, op: &'static str, sql: &Value, values: MultiValue) -> Result<Statement, Error> {
    let Value::String(sql) = sql else {
        return Err(mistake(op, format!("the SQL must be a string, not a {}", sql.type_name())));
    };
    let mut taken = Vec::with_capacity(values.len());
    for (place, value) in values.iter().enumerate() {
        taken.push(value::take(lua, op, place + 1, value)?);
    }
    Ok(Statement { sql: text(op, sql)?, values: taken, exact: true })
}

/// A list of `{sql, values...}`.
fn statements(lua: &Lua, op: &'static str, list: &Table) -> mlua::Result<Result<Vec<Statement>, Error>> {
    let count = list.raw_len();
    if count > STATEMENTS_MAX {
        let message = format!("{count} statements are too many for one transaction; {STATEMENTS_MAX} may be");
        return Ok(Err(Error::new(Kind::Limit, op, message)));
    }
    let mut taken: Vec<Statement> = Vec::with_capacity(count);
    // Equal strings in a row are one.
    let mut last: Option<(*const std::ffi::c_void, Arc<str>)> = None;
    for place in 1..=count {
        let entry = match list.raw_get::<Value>(place)? {
            Value::Table(entry) => entry,
            Value::String(sql) => match text(op, &sql) {
                Ok(sql) => {
                    taken.push(Statement { sql, values: Vec::new(), exact: true });
                    continue;
                }
                Err(error) => return Ok(Err(error)),
            },
            other => {
                let message = format!("statement {place} must be {{sql, values...}}, not a {}", other.type_name());
                return Ok(Err(mistake(op, message)));
            }
        };
        let Value::String(sql) = entry.raw_get::<Value>(1)? else {
            return Ok(Err(mistake(op, format!("statement {place} has no SQL text in its first place"))));
        };
        let sql = match &last {
            Some((pointer, text)) if *pointer == sql.to_pointer() => text.clone(),
            _ => match text(op, &sql) {
                Ok(text) => {
                    last = Some((sql.to_pointer(), text.clone()));
                    text
                }
                Err(error) => return Ok(Err(error)),
            },
        };
        match values_of(lua, op, &entry)? {
            // A table does not keep a nil at its end.
            Ok(values) => taken.push(Statement { sql, values, exact: false }),
            Err(error) => {
                let message = format!("statement {place}: {}", error.message);
                return Ok(Err(Error { message: message.into(), ..error }));
            }
        }
    }
    Ok(Ok(taken))
}

/// The values behind the SQL of an entry, with its gaps.
fn values_of(lua: &Lua, op: &'static str, entry: &Table) -> mlua::Result<Result<Vec<value::Datum>, Error>> {
    let mut last = entry.raw_len();
    for pair in entry.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(place) if (1..=value::PARAMETERS_MAX + 1).contains(&place) => {
                last = last.max(place as usize)
            }
            key => {
                let shown = key.to_string().unwrap_or_else(|_| key.type_name().to_owned());
                return Ok(Err(mistake(op, format!("unknown field {shown}; {{sql, value, value}} is wanted"))));
            }
        }
    }
    let mut values = Vec::with_capacity(last.saturating_sub(1));
    for place in 2..=last {
        match value::take(lua, op, place - 1, &entry.raw_get(place)?) {
            Ok(value) => values.push(value),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(values))
}

fn text(op: &'static str, sql: &LuaString) -> Result<Arc<str>, Error> {
    let text = sql.to_str().map_err(|_| mistake(op, "the SQL is not UTF-8".to_owned()))?;
    // SQLite would stop there.
    if text.contains('\0') { Err(mistake(op, "the SQL has a zero byte".to_owned())) } else { Ok(Arc::from(&*text)) }
}

/// A mistake of the caller.
fn mistake(op: &'static str, message: String) -> Error {
    Error::new(Kind::Argument, op, message)
}
