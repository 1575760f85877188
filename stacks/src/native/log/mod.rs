//! `log`: records for people, one line each, on stderr.
//!
//! A logger has a name, or none; its level is its own, or that of the name before the last dot, or
//! the common one. What is off costs one call and one comparison.

mod level;
mod record;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    env,
    io::{IsTerminal, Write, stderr},
    rc::Rc,
};

use mlua::{Lua, LuaString, Table, Value};
use moonwire_runtime::mlua;
use time::OffsetDateTime;

use self::{
    level::{Level, Setting, parse_settings},
    record::{Look, Record},
};
use super::{
    arguments::{misuse, suggestion},
    guard::guard,
};

/// The module `log`, as the environment wants it.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let terminal = stderr().is_terminal();
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    let log = Log::new(Setup {
        level: if terminal { Level::Info } else { Level::Warn },
        settings: &env::var_os("MOONWIRE_LOG").unwrap_or_default().to_string_lossy(),
        look: Look { colour: terminal && !dumb && !set("NO_COLOR"), lines: terminal },
        now: OffsetDateTime::now_utc,
        // Whoever closed stderr does not want to hear about it.
        sink: Box::new(|line| drop(stderr().write_all(line))),
    });
    let table = logger(lua, Rc::new(log), None)?;
    table.raw_set("is_terminal", lua.create_function(move |_, ()| Ok(terminal))?)?;
    Ok(table)
}

/// Takes one line, its end included.
type Sink = Box<dyn Fn(&[u8])>;

/// What a [`Log`] is made of.
struct Setup<'a> {
    level: Level,
    /// The text of `MOONWIRE_LOG`.
    settings: &'a str,
    look: Look,
    now: fn() -> OffsetDateTime,
    sink: Sink,
}

/// What all loggers of one Lua state share.
struct Log {
    root: Rc<Node>,
    named: RefCell<BTreeMap<String, Rc<Node>>>,
    look: Look,
    now: fn() -> OffsetDateTime,
    sink: Sink,
}

/// The level of a name.
struct Node {
    own: Cell<Option<Level>>,
    parent: Option<Rc<Node>>,
}

impl Node {
    fn level(&self) -> Level {
        match (self.own.get(), &self.parent) {
            (Some(level), _) => level,
            (None, Some(parent)) => parent.level(),
            (None, None) => Level::Warn,
        }
    }
}

impl Log {
    fn new(setup: Setup) -> Self {
        let root = Rc::new(Node { own: Cell::new(Some(setup.level)), parent: None });
        let log = Self { root, named: RefCell::default(), look: setup.look, now: setup.now, sink: setup.sink };
        for setting in parse_settings(setup.settings) {
            match setting {
                Setting::Common(level) => log.root.own.set(Some(level)),
                Setting::Named(name, level) => log.node(name).own.set(Some(level)),
                Setting::Unknown(word) => {
                    let hint = suggestion(word, &Level::NAMES);
                    let mut record = Record::new((log.now)(), Level::Warn, Some("log"), log.look);
                    record.text(format!("MOONWIRE_LOG: unknown level {word:?}{hint}").as_bytes());
                    (log.sink)(&record.finish());
                }
            }
        }
        log
    }

    /// The node of `name`, below the one of what stands before its last dot.
    fn node(&self, name: &str) -> Rc<Node> {
        if let Some(node) = self.named.borrow().get(name) {
            return Rc::clone(node);
        }
        let parent = name.rsplit_once('.').map_or_else(|| Rc::clone(&self.root), |(before, _)| self.node(before));
        let node = Rc::new(Node { own: Cell::new(None), parent: Some(parent) });
        self.named.borrow_mut().insert(name.to_owned(), Rc::clone(&node));
        node
    }
}

/// The table of functions that log under `name`.
fn logger(lua: &Lua, log: Rc<Log>, name: Option<Rc<str>>) -> mlua::Result<Table> {
    let node = name.as_deref().map_or_else(|| Rc::clone(&log.root), |name| log.node(name));
    let table = lua.create_table()?;
    for level in Level::SPOKEN {
        let (log, node, name) = (Rc::clone(&log), Rc::clone(&node), name.clone());
        let say = lua.create_function(move |lua, (text, fields): (Value, Option<Table>)| {
            if level > node.level() {
                return Ok(());
            }
            let mut record = Record::new((log.now)(), level, name.as_deref(), log.look);
            record.text(&record::words(lua, &text)?);
            if let Some(fields) = fields {
                record.fields(lua, &fields)?;
            }
            (log.sink)(&record.finish());
            Ok(())
        })?;
        table.raw_set(level.name(), say)?;
    }
    let own = Rc::clone(&node);
    let level = lua.create_function(move |lua, new: Option<LuaString>| {
        if let Some(new) = new {
            own.own.set(Some(named(lua, "log.level", &new)?));
        }
        Ok(own.level().name())
    })?;
    table.raw_set("level", level)?;
    let enabled =
        lua.create_function(move |lua, level: LuaString| Ok(named(lua, "log.enabled", &level)? <= node.level()))?;
    table.raw_set("enabled", enabled)?;
    let new = lua.create_function(move |lua, name: LuaString| {
        guard(lua, "log", logger(lua, Rc::clone(&log), Some(Rc::from(name.to_string_lossy())))?)
    })?;
    table.raw_set("new", new)?;
    Ok(table)
}

fn named(lua: &Lua, op: &str, name: &LuaString) -> mlua::Result<Level> {
    let name = name.to_string_lossy();
    Level::named(&name)
        .ok_or_else(|| misuse(lua, &format!("{op}: unknown level {name:?}{}", suggestion(&name, &Level::NAMES))))
}

#[cfg(test)]
mod tests;
