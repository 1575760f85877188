//! Reading and writing streams.

#![allow(clippy::result_large_err, reason = "an attempt is returned at every wait: boxing it would allocate each time")]

use std::{cell::RefCell, ffi::c_int, ptr};

use mlua::ffi as lua;

use super::{
    Answer, Attempt, Need, Raw,
    buffer::to_buffer,
    can_yield, check_number, check_string, finish, guarded, opt_integer, push, raise_argument, shared,
    socket::{busy, closed, me, parking},
};
use crate::{
    buffer::Buffer,
    clock::{NEVER, nanos},
    error::{Error, Kind},
    reactor::Core,
    scheduler::{Op, TaskId},
    socket::{Goal, Read, Socket, SocketId, TransportError},
};

/// Longest line or text before a pattern, unless the call says otherwise.
const LINE_MAX: i64 = 64 * 1024;
/// Most bytes `read_all` takes, unless the call says otherwise.
const ALL_MAX: i64 = 16 * 1024 * 1024;
/// Most bytes one read may ask for.
const READ_MAX: i64 = 1 << 30;

pub(super) const METHODS: &[(&str, lua::lua_CFunction)] = &[
    ("read", read),
    ("read_line", read_line),
    ("read_until", read_until),
    ("read_all", read_all),
    ("fill", fill),
    ("turn", turn),
    ("wake", wake),
    ("write", write),
    ("try_write", try_write),
    ("try_flush", try_flush),
    ("flush", flush),
    ("handshake", handshake),
];

/// Bytes to send: a string or number on the stack, or a buffer.
#[derive(Clone, Copy)]
pub(super) enum Piece {
    Bytes(*const [u8]),
    Buffer(*const RefCell<Buffer>),
}

impl Piece {
    /// Lends the bytes.
    ///
    /// The argument they belong to is on the stack of the raw function that made the piece, which
    /// is still running: that keeps them alive.
    pub(super) fn with<R>(self, work: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: see above; a buffer is not changed while it is borrowed.
        unsafe {
            match self {
                Piece::Bytes(bytes) => work(&*bytes),
                Piece::Buffer(buffer) => work((*buffer).borrow().as_slice()),
            }
        }
    }
}

/// The argument at `index` as bytes to send; raises when it is something else.
///
/// # Safety
/// Rules of this module.
pub(super) unsafe fn piece(state: Raw, index: c_int) -> Piece {
    // SAFETY: by the contract above.
    unsafe {
        let buffer = to_buffer(state, index);
        if !buffer.is_null() {
            return Piece::Buffer(buffer);
        }
        if lua::lua_isstring(state, index) == 0 {
            raise_argument(state, index, "a string or a buffer is wanted");
        }
        Piece::Bytes(check_string(state, index))
    }
}

/// The buffer at `index`; raises when it is something else.
unsafe fn check_buffer<'a>(state: Raw, index: c_int) -> &'a RefCell<Buffer> {
    // SAFETY: rules of this module; the argument stays on the stack.
    unsafe {
        let buffer = to_buffer(state, index);
        if buffer.is_null() {
            raise_argument(state, index, "a buffer is wanted");
        }
        &*buffer
    }
}

/// A size at `index` from `least` to [`READ_MAX`].
unsafe fn check_size(state: Raw, index: c_int, default: i64, least: i64) -> usize {
    // SAFETY: rules of this module.
    unsafe {
        let size = opt_integer(state, index, default);
        if !(least..=READ_MAX).contains(&size) {
            raise_argument(state, index, "a size from 1 to 1073741824 is wanted");
        }
        size as usize
    }
}

fn try_read(core: &mut Core, me: Option<TaskId>, id: SocketId, op: Op, goal: Goal<'_>, again: bool) -> Attempt {
    core.with_scratch(|core, scratch| {
        let Some(stream) = core.stream(id) else { return closed(op) };
        if let Some(other) = stream.reader
            && me != Some(other)
        {
            return busy(op, core, other);
        }
        // One whose turn was over in the middle of this read is listed still.
        stream.reader = None;
        stream.owner = me;
        let Core { sockets, pool, .. } = core;
        let Some(Socket::Stream(stream)) = sockets.get_mut(id) else { return closed(op) };
        let answer = match stream.read(op, goal, again, pool, scratch) {
            Read::Bytes(start, len) => {
                stream.settle(pool);
                Attempt::Done(Answer::Bytes(start, len))
            }
            Read::Failed(error) => Attempt::Failed(error),
            Read::Blocked => {
                stream.want(goal);
                Attempt::Wait(Need::Reader(id), NEVER)
            }
            Read::Paused => Attempt::Pause(id),
        };
        core.flush_handshake(id);
        answer
    })
}

unsafe fn attempt_read(state: Raw, op: Op, goal: Goal<'_>, again: bool) -> Answer {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        let yieldable = can_yield(state);
        guarded(|| shared(state).attempt(op, again, yieldable, |core, me| try_read(core, me, id, op, goal, again)))
    }
}

parking!(read, read_k, |state, again| {
    let goal = match lua::lua_isnoneornil(state, 2) {
        0 => Goal::Exact(check_size(state, 2, 0, 0)),
        _ => Goal::Any,
    };
    attempt_read(state, Op::Read, goal, again)
});

parking!(read_line, read_line_k, |state, again| {
    let max = check_size(state, 2, LINE_MAX, 1);
    attempt_read(state, Op::ReadLine, Goal::Line(max), again)
});

parking!(read_until, read_until_k, |state, again| {
    let pattern = &*check_string(state, 2);
    if pattern.is_empty() {
        raise_argument(state, 2, "a pattern of at least one byte is wanted");
    }
    let max = check_size(state, 3, LINE_MAX, 1);
    attempt_read(state, Op::ReadUntil, Goal::Until(pattern, max), again)
});

parking!(read_all, read_all_k, |state, again| {
    let max = check_size(state, 2, ALL_MAX, 1);
    attempt_read(state, Op::ReadAll, Goal::All(max), again)
});

/// Reads into a buffer; `Err` when nothing came.
fn try_fill(
    core: &mut Core,
    me: Option<TaskId>,
    id: SocketId,
    op: Op,
    into: &RefCell<Buffer>,
) -> Result<usize, Attempt> {
    core.with_scratch(|core, scratch| {
        let Some(stream) = core.stream(id) else { return Err(closed(op)) };
        if let Some(other) = stream.reader
            && me != Some(other)
        {
            return Err(busy(op, core, other));
        }
        stream.owner = me;
        let Core { sockets, pool, .. } = core;
        let Some(Socket::Stream(stream)) = sockets.get_mut(id) else { return Err(closed(op)) };
        let result = stream.fill(op, &mut into.borrow_mut(), pool, scratch);
        core.flush_handshake(id);
        core.scheduler.spend(*result.as_ref().unwrap_or(&0));
        result.map_err(|read| match read {
            Read::Failed(error) => Attempt::Failed(error),
            Read::Bytes(..) | Read::Blocked | Read::Paused => {
                if let Some(stream) = core.stream(id) {
                    stream.want(Goal::Any);
                }
                Attempt::Wait(Need::Reader(id), NEVER)
            }
        })
    })
}

parking!(fill, fill_k, |state, again| {
    let id = me(state);
    let into = check_buffer(state, 2);
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Fill, again, yieldable, |core, me| match try_fill(core, me, id, Op::Fill, into) {
            Ok(count) => Attempt::Done(Answer::Integer(count as i64)),
            Err(attempt) => attempt,
        })
    })
});

/// Waits where a reader would, and reads nothing.
fn leave_unread(core: &mut Core, me: Option<TaskId>, id: SocketId, op: Op) -> Attempt {
    let Some(stream) = core.stream(id) else { return closed(op) };
    if let Some(other) = stream.reader
        && me != Some(other)
    {
        return busy(op, core, other);
    }
    stream.owner = me;
    stream.want_nothing();
    Attempt::Wait(Need::Reader(id), NEVER)
}

/// Moves the front of `output` on its way.
fn send_from(
    core: &mut Core,
    me: Option<TaskId>,
    id: SocketId,
    op: Op,
    output: &RefCell<Buffer>,
) -> Result<usize, Attempt> {
    let Core { sockets, pool, .. } = core;
    let Some(Socket::Stream(stream)) = sockets.get_mut(id) else { return Err(closed(op)) };
    if stream.closing {
        return Err(closed(op));
    }
    if let Some(error) = stream.write_error(op) {
        return Err(Attempt::Failed(error));
    }
    if stream.is_taken(me) {
        return Ok(0);
    }
    let mut output = output.borrow_mut();
    let taken = stream.accept(output.as_slice(), pool);
    output.skip(taken);
    if let Some(error) = stream.write_error(op) {
        return Err(Attempt::Failed(error));
    }
    Ok(taken)
}

/// A try of `turn`, whose arguments are the first values on the stack.
///
/// # Safety
/// Rules of this module.
pub(super) unsafe fn attempt_turn(state: Raw, again: bool) -> Answer {
    // SAFETY: by the contract above.
    unsafe {
        let id = me(state);
        let input = match lua::lua_isnil(state, 2) {
            0 => Some(check_buffer(state, 2)),
            _ => None,
        };
        let output = check_buffer(state, 3);
        if input.is_some_and(|input| ptr::eq(input, output)) {
            raise_argument(state, 3, "another buffer than for input is wanted");
        }
        let until = match lua::lua_isnoneornil(state, 4) {
            0 => nanos(check_number(state, 4)),
            _ => NEVER,
        };
        let yieldable = can_yield(state);
        guarded(|| {
            shared(state).attempt(Op::Turn, again, yieldable, |core, me| try_turn(core, me, id, input, output, until))
        })
    }
}

parking!(turn, turn_k, |state, again| attempt_turn(state, again));

fn try_turn(
    core: &mut Core,
    me: Option<TaskId>,
    id: SocketId,
    input: Option<&RefCell<Buffer>>,
    output: &RefCell<Buffer>,
    until: u64,
) -> Attempt {
    let waiting = output.borrow().len();
    let sent = if waiting > 0 { send_from(core, me, id, Op::Turn, output) } else { Ok(0) };
    let filled = match input {
        Some(input) => try_fill(core, me, id, Op::Turn, input),
        None => Err(leave_unread(core, me, id, Op::Turn)),
    };
    // What can still be read is read before the failure to write is told.
    if filled.is_ok() {
        core.flush_later(id);
        return Attempt::Done(Answer::True);
    }
    if let Err(failed) = sent {
        return failed;
    }
    core.flush_later(id);
    let nudged = core.stream(id).is_some_and(|stream| std::mem::take(&mut stream.nudged));
    let progress = sent.is_ok_and(|sent| sent > 0);
    match filled {
        Ok(_) => Attempt::Done(Answer::True),
        Err(Attempt::Wait(..)) if progress || nudged => Attempt::Done(Answer::True),
        Err(Attempt::Wait(..)) if until <= core.scheduler.clock.now() => Attempt::Failed(super::timed_out(Op::Turn)),
        Err(Attempt::Wait(..)) => {
            // The other side can be at work while this wait is prepared.
            core.flush(id);
            let need = if output.borrow().is_empty() { Need::Reader(id) } else { Need::Both(id) };
            Attempt::Wait(need, until)
        }
        Err(other) => other,
    }
}

unsafe extern "C-unwind" fn wake(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        push(
            state,
            guarded(|| {
                let mut core = shared(state).core.borrow_mut();
                let Some(stream) = core.stream(id) else { return Answer::Nil };
                stream.nudged = true;
                let reader = stream.reader;
                if let Some(reader) = reader
                    && core.scheduler.tasks.get(reader).is_some_and(|task| task.op == Op::Turn)
                {
                    core.wake(reader, crate::scheduler::Outcome::Go);
                }
                Answer::Nil
            }),
        )
    }
}

/// Position of a write that has parked: the argument and the offset in it.
fn context(index: c_int, offset: usize) -> lua::lua_KContext {
    ((index as i64) << 40 | offset as i64) as lua::lua_KContext
}

/// Sends the arguments from `index` and `offset` on.
unsafe fn send_all(state: Raw, index: c_int, offset: usize, again: bool) -> c_int {
    // SAFETY: rules of this module; the arguments stay on the stack throughout the wait.
    unsafe {
        let id = me(state);
        let last = lua::lua_gettop(state);
        let (mut index, mut offset) = (index, offset);
        let mut again = again;
        if last < 2 {
            return push(state, Answer::True);
        }
        loop {
            let part = piece(state, index);
            let yieldable = can_yield(state);
            let mut taken = 0;
            let answer = guarded(|| {
                if index > 2 && !again {
                    // Nobody may write between the parts of one write.
                    let mut core = shared(state).core.borrow_mut();
                    core.scheduler.budget = core.scheduler.budget.max(1);
                }
                shared(state).attempt(Op::Write, again, yieldable, |core, me| {
                    part.with(|bytes| {
                        let rest = bytes.get(offset..).unwrap_or_default();
                        try_send(core, me, id, rest, index == 2 && offset == 0, &mut taken)
                    })
                })
            });
            match answer {
                Answer::True if index < last => {
                    index += 1;
                    offset = 0;
                    again = false;
                }
                Answer::True => {
                    let answer = guarded(|| {
                        let mut core = shared(state).core.borrow_mut();
                        core.write_done(id);
                        Answer::True
                    });
                    return push(state, answer);
                }
                answer => return finish(state, answer, context(index, offset + taken), write_k),
            }
        }
    }
}

/// Sends `bytes`; `taken` is how many were, should it have to wait. `fresh`: nothing of this write has been taken.
fn try_send(
    core: &mut Core,
    me: Option<TaskId>,
    id: SocketId,
    bytes: &[u8],
    fresh: bool,
    taken: &mut usize,
) -> Attempt {
    let Core { sockets, pool, .. } = core;
    let Some(Socket::Stream(stream)) = sockets.get_mut(id) else { return closed(Op::Write) };
    if stream.closing {
        return closed(Op::Write);
    }
    if let Some(error) = stream.write_error(Op::Write) {
        return Attempt::Failed(error);
    }
    if stream.is_taken(me) {
        return Attempt::Wait(Need::Writer(id), NEVER);
    }
    *taken = stream.accept(bytes, pool);
    if let Some(error) = stream.write_error(Op::Write) {
        return Attempt::Failed(error);
    }
    if *taken == bytes.len() {
        core.flush_later(id);
        return Attempt::Done(Answer::True);
    }
    if !fresh || *taken > 0 {
        stream.set_writing(me);
    }
    Attempt::Wait(Need::Writer(id), NEVER)
}

unsafe extern "C-unwind" fn write(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        // All arguments are looked at before the first is sent: a wrong one sends nothing.
        for index in 3..=lua::lua_gettop(state) {
            piece(state, index);
        }
        send_all(state, 2, 0, false)
    }
}

unsafe extern "C-unwind" fn write_k(state: Raw, _status: c_int, context: lua::lua_KContext) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let context = context as i64;
        send_all(state, (context >> 40) as c_int, (context & ((1 << 40) - 1)) as usize, true)
    }
}

unsafe extern "C-unwind" fn try_write(state: Raw) -> c_int {
    // SAFETY: rules of this module; the arguments stay on the stack.
    unsafe {
        let id = me(state);
        let last = lua::lua_gettop(state);
        let mut total = 0;
        for index in 2..=last {
            let part = piece(state, index);
            guarded(|| {
                total += part.with(<[u8]>::len);
                Answer::Nil
            });
        }
        let answer = guarded(|| {
            let shared = shared(state);
            let mut core = shared.core.borrow_mut();
            let Some(stream) = core.stream(id) else {
                return shared.fail(Error::new(Kind::Closed, Op::TryWrite.as_str(), "this side has closed the socket"));
            };
            if let Some(error) = stream.write_error(Op::TryWrite) {
                return shared.fail(error);
            }
            if stream.is_taken(None) || stream.room() < total {
                let room = if stream.is_taken(None) { 0 } else { stream.room() };
                let message = format!("{total} bytes do not fit; {room} of queue_max are free");
                return shared.fail(Error::new(Kind::Limit, Op::TryWrite.as_str(), message));
            }
            Answer::True
        });
        if !matches!(answer, Answer::True) {
            return push(state, answer);
        }
        for index in 2..=last {
            let part = piece(state, index);
            let answer = guarded(|| {
                let mut core = shared(state).core.borrow_mut();
                let Core { sockets, pool, .. } = &mut *core;
                if let Some(Socket::Stream(stream)) = sockets.get_mut(id) {
                    part.with(|bytes| stream.accept(bytes, pool));
                }
                core.flush_later(id);
                Answer::True
            });
            if let Answer::Bug = answer {
                return push(state, answer);
            }
        }
        push(state, Answer::True)
    }
}

unsafe extern "C-unwind" fn try_flush(state: Raw) -> c_int {
    // SAFETY: rules of this module.
    unsafe {
        let id = me(state);
        let output = check_buffer(state, 2);
        push(
            state,
            guarded(|| {
                let shared = shared(state);
                let mut core = shared.core.borrow_mut();
                let me = core.scheduler.current;
                match send_from(&mut core, me, id, Op::Flush, output) {
                    Ok(_) => {
                        core.flush_later(id);
                        Answer::True
                    }
                    Err(Attempt::Failed(error)) => shared.fail(error),
                    Err(Attempt::Done(answer)) => answer,
                    Err(Attempt::Wait(..) | Attempt::Pause(_)) => Answer::True,
                }
            }),
        )
    }
}

parking!(flush, flush_k, |state, again| {
    let id = me(state);
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Flush, again, yieldable, |core, me| {
            let Core { sockets, pool, .. } = core;
            let Some(Socket::Stream(stream)) = sockets.get_mut(id) else { return closed(Op::Flush) };
            if stream.closing {
                return closed(Op::Flush);
            }
            if !stream.is_taken(me) {
                stream.flush(pool);
            }
            match stream.failure(Op::Flush) {
                Some(error) => Attempt::Failed(error),
                None if stream.is_flushed() && !stream.is_taken(me) => Attempt::Done(Answer::True),
                None => Attempt::Wait(Need::Writer(id), NEVER),
            }
        })
    })
});

parking!(handshake, handshake_k, |state, again| {
    let id = me(state);
    let yieldable = can_yield(state);
    guarded(|| {
        shared(state).attempt(Op::Handshake, again, yieldable, |core, me| {
            let Some(stream) = core.stream(id) else { return closed(Op::Handshake) };
            if let Some(other) = stream.reader
                && me != Some(other)
            {
                return busy(Op::Handshake, core, other);
            }
            stream.owner = me;
            if let Some(error) = stream.write_error(Op::Handshake) {
                return Attempt::Failed(error);
            }
            match stream.handshake() {
                Ok(()) => Attempt::Done(Answer::True),
                Err(TransportError::Blocked) => {
                    stream.want(Goal::Any);
                    // A fresh socket reports that it may be written to: no news while nothing has to leave.
                    let need = if stream.is_flushed() { Need::Reader(id) } else { Need::Both(id) };
                    Attempt::Wait(need, NEVER)
                }
                Err(error) => {
                    let error = error.into_handshake_error();
                    stream.fail(error.clone());
                    Attempt::Failed(error)
                }
            }
        })
    })
});
