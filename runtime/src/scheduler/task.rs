//! One task: what it does, how far it is, and what it waits for.

use super::{GroupId, TaskId};
use crate::{
    blocking::PromiseId,
    clock::{NEVER, Nanos},
    dial::DialId,
    ffi::Thread,
    socket::SocketId,
};

/// What a task is in the middle of, for listings and errors.
macro_rules! operations {
    ($($name:ident $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Op {
            $($name,)*
            /// A native module's function that has its work done on a thread.
            Native(&'static str),
        }

        impl Op {
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Op::$name => $text,)*
                    Op::Native(name) => name,
                }
            }

            /// The operation that prelude code calls `name`.
            pub(crate) fn from_name(name: &[u8]) -> Op {
                $(if name == $text.as_bytes() { return Op::$name; })*
                Op::Wait
            }
        }
    };
}

operations! {
    Wait "wait",
    Yield "yield",
    Sleep "sleep",
    Read "read",
    ReadLine "read_line",
    ReadUntil "read_until",
    ReadAll "read_all",
    Fill "fill",
    Turn "turn",
    Write "write",
    TryWrite "try_write",
    Flush "flush",
    Shutdown "shutdown",
    Handshake "handshake",
    StartTls "start_tls",
    Accept "accept",
    Receive "receive",
    Send "send",
    SendTo "send_to",
    Resolve "resolve",
    Connect "connect",
    Join "join",
    Group "group",
    Deadline "deadline",
    QueueGet "queue:get",
    QueuePut "queue:put",
    Acquire "semaphore:acquire",
    EventWait "event:wait",
    Select "select",
    Require "require",
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Running,
    Waiting,
    Done,
    Failed,
    Cancelled,
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Running => "running",
            State::Waiting => "waiting",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    pub(crate) const fn has_ended(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Cancelled)
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Try again: what was waited for may be there.
    Go,
    TimedOut,
    Cancelled,
}

/// Who holds a reference to a waiting task, and must forget it when the wait ends otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nobody, or code that looks the task up when it wakes it.
    Nothing,
    Socket(SocketId),
    Dial(DialId),
    /// The resolver, which finds out by itself.
    Resolver,
    Task(TaskId),
    Group(GroupId),
    /// A thread, by way of what it has promised.
    Promise(PromiseId),
}

/// What few tasks have.
#[derive(Debug)]
pub(crate) struct Extra {
    /// The innermost deadline of the code that runs.
    pub(super) deadline: Nanos,
    /// The group that the code that runs has opened last.
    pub(super) scope: Option<GroupId>,
    /// The group whose failure interrupts this task's body, if one does.
    pub(super) interrupted: Option<GroupId>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) joiners: Vec<TaskId>,
    /// Where the error that ended the task was raised.
    pub(crate) traceback: Option<String>,
    /// Traceback of an error that was taken over from another task: its identity and the text.
    pub(crate) cause: Option<(usize, String)>,
}

/// A coroutine and what it waits for.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) thread: Thread,
    /// Counts tasks from 1, for people.
    pub(crate) number: u32,
    /// Values on the coroutine's stack: arguments before the first turn, results after the last.
    pub(crate) values: i32,
    pub(crate) state: State,
    pub(crate) op: Op,
    pub(crate) outcome: Outcome,
    pub(crate) wait: Wait,
    pub(crate) since: Nanos,
    /// When the wait ends by time.
    pub(crate) wake_at: Nanos,
    /// When this task's only entry among the timers pops.
    pub(super) timer_at: Nanos,
    /// The group it is a child of.
    pub(crate) group: GroupId,
    pub(crate) cancelled: bool,
    /// Who still wants to know how the task ended: the script's object, a group it made fail.
    pub(crate) holders: u8,
    /// Waits refused in a row because of a deadline or a cancellation that was ignored.
    pub(crate) ignored: u16,
    pub(crate) extra: Option<Box<Extra>>,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            deadline: NEVER,
            scope: None,
            interrupted: None,
            name: None,
            joiners: Vec::new(),
            traceback: None,
            cause: None,
        }
    }
}

impl Task {
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The innermost deadline of the code that runs.
    pub(crate) fn deadline(&self) -> Nanos {
        self.extra.as_ref().map_or(NEVER, |extra| extra.deadline)
    }

    pub(crate) fn set_deadline(&mut self, at: Nanos) {
        if at != self.deadline() {
            self.extra().deadline = at;
        }
    }

    /// The group its own children join.
    pub(super) fn scope(&self) -> GroupId {
        self.extra.as_ref().and_then(|extra| extra.scope).unwrap_or(self.group)
    }

    /// Whether it was asked to end, or the group whose body it runs was.
    pub(crate) fn is_to_end(&self) -> bool {
        self.cancelled || self.is_interrupted()
    }

    /// Has the loop end it by force.
    pub(crate) fn doom(&mut self) {
        self.ignored = u16::MAX;
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.ignored == u16::MAX
    }

    /// Whether the group whose body it runs was asked to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.interrupted.is_some())
    }

    pub(crate) fn label(&self) -> String {
        match self.extra.as_ref().and_then(|extra| extra.name.as_deref()) {
            Some(name) => name.to_owned(),
            None => format!("task {}", self.number),
        }
    }
}
