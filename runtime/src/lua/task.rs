//! Tasks, groups and the program as a whole.

use std::{
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use mlua::{Lua, Table, Value};
use slotmap::{Key, KeyData};

use super::define;
use crate::{
    clock::seconds,
    ffi::{self, TaskRef},
    os,
    runtime::Control,
    scheduler::{State, TaskId},
    shared::{Grave, Shared},
};

pub(super) fn add_task_primitives(lua: &Lua, shared: &Rc<Shared>, native: &Table) -> mlua::Result<()> {
    define(lua, shared, native, "tasks", |lua, shared, ()| list_tasks(lua, shared))?;
    native.raw_set("time", lua.create_function(wall_clock)?)?;
    define(lua, shared, native, "group_enter", |_, shared, ()| {
        Ok(shared.core.borrow_mut().scheduler.enter_group().map(|id| id.data().as_ffi() as i64))
    })?;
    define(lua, shared, native, "group_leave", |_, shared, token: i64| {
        let id = KeyData::from_ffi(token as u64).into();
        Ok(shared.core.borrow_mut().scheduler.leave_group(id).map(|id| id.data().as_ffi() as i64))
    })?;
    define(lua, shared, native, "group_cancel", |_, shared, token: i64| {
        let mut core = shared.core.borrow_mut();
        let children = core.scheduler.children(KeyData::from_ffi(token as u64).into());
        children.into_iter().for_each(|child| core.cancel(child));
        Ok(())
    })?;
    define(lua, shared, native, "cancel_others", |_, shared, ()| {
        let mut core = shared.core.borrow_mut();
        let me = core.scheduler.current;
        let others: Vec<TaskId> = core.scheduler.tasks.keys().filter(|id| Some(*id) != me).collect();
        others.into_iter().for_each(|task| core.cancel(task));
        Ok(())
    })?;
    define(lua, shared, native, "release", |_, shared, token: i64| {
        shared.graveyard.borrow_mut().push(Grave::Task(KeyData::from_ffi(token as u64).into()));
        Ok(())
    })?;
    define(lua, shared, native, "note", |_, shared, (error, trace): (Value, String)| {
        if let Some(task) = shared.core.borrow_mut().scheduler.running() {
            let mut text = trace.trim_start_matches("stack traceback:\n").to_owned();
            let extra = task.extra();
            if let Some((_, cause)) = extra.cause.take() {
                text = format!("{text}\n{cause}");
            }
            extra.cause = Some((error.to_pointer() as usize, text));
        }
        Ok(())
    })?;
    define(lua, shared, native, "watch_task", |_, shared, (task, _): (TaskRef, Value)| {
        let mut core = shared.core.borrow_mut();
        let me = core.scheduler.current;
        if let (Some(task), Some(me)) = (core.scheduler.tasks.get_mut(task.0), me) {
            task.extra().joiners.push(me);
        }
        Ok(())
    })?;
    define(lua, shared, native, "unwatch_task", |_, shared, (task, token): (TaskRef, Option<i64>)| {
        let mut core = shared.core.borrow_mut();
        let me = token.map(|token| TaskId::from(KeyData::from_ffi(token as u64)));
        if let Some(task) = core.scheduler.tasks.get_mut(task.0) {
            task.extra().joiners.retain(|joiner| Some(*joiner) != me);
        }
        Ok(())
    })
}

/// `cosocket.time()`.
pub(super) fn wall_clock(_: &Lua, (): ()) -> mlua::Result<f64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.map_or(0.0, |since| since.as_secs_f64()))
}

/// `cosocket.tasks()`.
fn list_tasks(lua: &Lua, shared: &Shared) -> mlua::Result<Table> {
    struct Line {
        number: u32,
        name: String,
        status: &'static str,
        wait: Option<(String, f64)>,
        position: Option<String>,
    }
    let mut lines: Vec<Line> = {
        let mut core = shared.core.borrow_mut();
        core.scheduler.clock.refresh();
        let now = core.scheduler.clock.now();
        let tasks = core.scheduler.tasks.values().filter(|task| !task.state.has_ended());
        tasks
            .map(|task| {
                let waits = task.state == State::Waiting;
                Line {
                    number: task.number,
                    name: task.label(),
                    status: task.state.as_str(),
                    wait: waits.then(|| {
                        let what = format!("{}{}", task.op.as_str(), core.describe_wait(task.wait));
                        (what, seconds(now.saturating_sub(task.since)))
                    }),
                    position: waits.then(|| ffi::position(task.thread)).flatten(),
                }
            })
            .collect()
    };
    lines.sort_by_key(|line| line.number);
    let list = lua.create_table_with_capacity(lines.len(), 0)?;
    for line in lines {
        let entry = lua.create_table()?;
        entry.raw_set("id", line.number)?;
        entry.raw_set("name", line.name)?;
        entry.raw_set("status", line.status)?;
        if let Some((what, since)) = line.wait {
            entry.raw_set("waits_for", what)?;
            entry.raw_set("since", since)?;
        }
        entry.raw_set("line", line.position)?;
        list.raw_push(entry)?;
    }
    Ok(list)
}

pub(super) fn add_control(lua: &Lua, shared: &Rc<Shared>, control: &Rc<Control>, native: &Table) -> mlua::Result<()> {
    let of_stop = control.clone();
    define(lua, shared, native, "stop", move |_, _, status: Option<i32>| {
        of_stop.request_stop(status.unwrap_or(0));
        Ok(())
    })?;
    let of_embedded = control.clone();
    native.raw_set("embedded", lua.create_function(move |_, name: String| Ok(of_embedded.source(&name)))?)?;
    let of_exit = control.clone();
    define(lua, shared, native, "exit", move |lua, _, status: i32| {
        of_exit.exit(lua, status);
        Ok(())
    })?;
    define(lua, shared, native, "leave_collector", |_, shared, ()| {
        shared.collector.leave();
        Ok(())
    })?;
    define(lua, shared, native, "errno_name", |_, _, number: i32| Ok(os::errno_name(number)))?;
    native.raw_set("kind", lua.create_function(|lua, value: Value| Ok(ffi::kind_of(lua, &value)))?)
}
