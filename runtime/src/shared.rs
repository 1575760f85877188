//! What the loop, the raw functions and the Lua state have in common.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    collector::Collector,
    reactor::Core,
    scheduler::TaskId,
    socket::{SocketId, Tape},
};

/// What a finaliser leaves for the loop to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Grave {
    Socket(SocketId),
    Task(TaskId),
}

/// State shared by the loop and the raw functions of one Lua state.
#[repr(align(16))]
pub(crate) struct Shared {
    pub(crate) core: RefCell<Core>,
    /// What finalisers have left. They may run while `core` is borrowed.
    pub(crate) graveyard: RefCell<Vec<Grave>>,
    /// Text of the error that is being handed to Lua.
    pub(crate) message: RefCell<String>,
    /// A yield that is a wait, not a script's own.
    pub(crate) passing: Cell<bool>,
    /// Coroutines resumed from where Lua cannot yield.
    pub(crate) blocked: Cell<u32>,
    /// The last coroutine that resumed another from where Lua cannot yield, while it does; else null.
    pub(crate) stuck: Cell<*mut mlua::ffi::lua_State>,
    /// The coroutine that runs, for the watch over hogs.
    pub(crate) running: Cell<*mut mlua::ffi::lua_State>,
    /// The coroutine whose stack is shared by what runs aside, once there is one; and whether something does.
    pub(crate) aside: Cell<*mut mlua::ffi::lua_State>,
    pub(crate) aside_is_busy: Cell<bool>,
    /// Counts the turns of tasks.
    pub(crate) turn: Cell<u32>,
    pub(crate) collector: Collector,
    /// What was heard on streams; the core writes it.
    pub(crate) tape: Rc<Tape>,
}

impl Shared {
    pub(crate) fn new(core: Core) -> Self {
        Self {
            tape: core.tape.clone(),
            core: RefCell::new(core),
            graveyard: RefCell::default(),
            message: RefCell::default(),
            passing: Cell::new(false),
            blocked: Cell::new(0),
            stuck: Cell::new(std::ptr::null_mut()),
            running: Cell::new(std::ptr::null_mut()),
            aside: Cell::new(std::ptr::null_mut()),
            aside_is_busy: Cell::new(false),
            turn: Cell::new(0),
            collector: Collector::default(),
        }
    }
}
