//! Tasks: what is ready, what waits for what, and until when.
//!
//! Nothing here calls Lua. A task is a coroutine that `ffi` resumes; this module decides which one
//! is next and with what outcome its wait ends.

use std::collections::VecDeque;

use slotmap::{SlotMap, new_key_type};

use crate::{
    blocking::PromiseId,
    clock::{Clock, NEVER, Nanos, Timers},
    dial::DialId,
    ffi::Thread,
    socket::SocketId,
};

new_key_type! {
    /// Names a task; a task that has ended is not found again under another's name.
    pub(crate) struct TaskId;
    /// Names a group of tasks.
    pub(crate) struct GroupId;
}

/// Successful operations a task may do in one turn before others get theirs.
const BUDGET: u32 = 128;

/// Bytes put onto a script's buffer that count as one operation: 64 KiB are a whole turn, for they may be many
/// messages for others to take, who had better do so before more are made.
const OPERATION_BYTES: usize = 512;

/// Waits that may end at once with the same timeout or cancellation before the task is stopped by
/// force: a loop that ignores the error would otherwise never end.
pub(crate) const IGNORED_MAX: u16 = 1000;

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
    deadline: Nanos,
    /// The group that the code that runs has opened last.
    scope: Option<GroupId>,
    /// The group whose failure interrupts this task's body, if one does.
    interrupted: Option<GroupId>,
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
    timer_at: Nanos,
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
    fn scope(&self) -> GroupId {
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

/// Tasks that end together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Children that have not ended.
    pub(crate) live: u32,
    /// The children, among others that have ended. Not kept of the root group, which never fails.
    children: Vec<TaskId>,
    /// The task that waits for the children, while it does.
    pub(crate) waiter: Option<TaskId>,
    /// The task whose body opened the group; none for the root group.
    pub(crate) owner: Option<TaskId>,
    /// The group around it.
    pub(crate) parent: Option<GroupId>,
    /// The deadline around it, which its children inherit.
    pub(crate) deadline: Nanos,
    /// The task whose error came first. It is kept until the group is left.
    pub(crate) failed: Option<TaskId>,
}

impl Group {
    fn new(owner: Option<TaskId>, parent: Option<GroupId>, deadline: Nanos) -> Self {
        Self { live: 0, children: Vec::new(), waiter: None, owner, parent, deadline, failed: None }
    }

    /// Whether its body has ended while children lived on; the last of them takes it away.
    fn is_abandoned(&self) -> bool {
        self.owner.is_none() && self.parent.is_some()
    }
}

/// Owners of deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerOwner {
    Task(TaskId),
    Dial(DialId),
    /// An accepted stream that is to have shaken hands by then.
    Handshake(SocketId),
    /// A closed stream that is to have sent everything by then.
    Linger(SocketId),
}

/// All tasks.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(crate) clock: Clock,
    pub(crate) timers: Timers<TimerOwner>,
    pub(crate) tasks: SlotMap<TaskId, Task>,
    pub(crate) groups: SlotMap<GroupId, Group>,
    pub(crate) root: GroupId,
    pub(crate) ready: VecDeque<TaskId>,
    pub(crate) current: Option<TaskId>,
    /// Operations left in this turn.
    pub(crate) budget: u32,
    /// Tasks that have not ended.
    pub(crate) live: usize,
    /// Tasks that ended by cancellation in this turn: what they opened is closed at its end.
    pub(crate) reaped: Vec<TaskId>,
    started: u32,
}

impl Scheduler {
    pub(crate) fn new(is_virtual: bool) -> Self {
        let mut groups = SlotMap::with_key();
        let root = groups.insert(Group::new(None, None, NEVER));
        Self {
            clock: Clock::new(is_virtual),
            timers: Timers::new(),
            tasks: SlotMap::with_key(),
            groups,
            root,
            ready: VecDeque::new(),
            current: None,
            budget: 0,
            live: 0,
            reaped: Vec::new(),
            started: 0,
        }
    }

    /// Adds a task whose coroutine holds its function and `values` arguments.
    pub(crate) fn spawn(&mut self, thread: Thread, values: i32) -> TaskId {
        let scope = self.current.and_then(|id| self.tasks.get(id)).map(Task::scope);
        // A group that was left in a hurry, while it could not wait, hands its children to the root.
        let group = scope.filter(|&scope| self.groups.contains_key(scope)).unwrap_or(self.root);
        let deadline = self.groups[group].deadline;
        self.started = self.started.wrapping_add(1);
        let id = self.tasks.insert(Task {
            thread,
            number: self.started,
            values,
            state: State::Ready,
            op: Op::Wait,
            outcome: Outcome::Go,
            wait: Wait::Nothing,
            since: self.clock.now(),
            wake_at: NEVER,
            timer_at: NEVER,
            group,
            cancelled: false,
            holders: 0,
            ignored: 0,
            extra: None,
        });
        self.tasks[id].set_deadline(deadline);
        self.live += 1;
        let (is_root, group) = (group == self.root, &mut self.groups[group]);
        group.live += 1;
        if !is_root {
            // Those who have ended go when they are many.
            if group.children.len() >= 8 + 2 * group.live as usize {
                group.children.retain(|child| self.tasks.get(*child).is_some_and(|task| !task.state.has_ended()));
            }
            group.children.push(id);
        }
        self.ready.push_back(id);
        id
    }

    /// Counts what the running task has been given.
    pub(crate) fn spend(&mut self, bytes: usize) {
        let operations = u32::try_from(bytes / OPERATION_BYTES).unwrap_or(u32::MAX);
        self.budget = self.budget.saturating_sub(operations);
    }

    /// The task that runs.
    pub(crate) fn running(&mut self) -> Option<&mut Task> {
        self.tasks.get_mut(self.current?)
    }

    /// Takes the next ready task and makes it the running one.
    pub(crate) fn next_ready(&mut self) -> Option<TaskId> {
        loop {
            let id = self.ready.pop_front()?;
            if let Some(task) = self.tasks.get_mut(id)
                && task.state == State::Ready
            {
                task.state = State::Running;
                self.current = Some(id);
                self.budget = BUDGET;
                return Some(id);
            }
        }
    }

    /// Parks the running task; the caller has made sure that something will wake it. A group's wait
    /// for its children is not ended by a deadline: they have it too.
    pub(crate) fn park(&mut self, op: Op, wait: Wait, until: Nanos) {
        let now = self.clock.now();
        let Some(id) = self.current else { return };
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.state = State::Waiting;
        task.op = op;
        task.wait = wait;
        task.since = now;
        task.outcome = Outcome::Go;
        task.wake_at = if matches!(wait, Wait::Group(_)) { until } else { until.min(task.deadline()) };
        if task.wake_at < task.timer_at {
            task.timer_at = task.wake_at;
            self.timers.push(task.wake_at, TimerOwner::Task(id));
        }
    }

    /// Where a failed task's error was raised, as text that says whose it is.
    pub(crate) fn traceback_of(&self, id: TaskId) -> String {
        let Some(task) = self.tasks.get(id) else { return String::new() };
        let trace = task.extra.as_ref().and_then(|extra| extra.traceback.as_deref()).unwrap_or_default();
        format!("in {}:{}", task.label(), trace.trim_start_matches("stack traceback:"))
    }

    /// Puts the running task behind the other ready ones.
    pub(crate) fn park_ready(&mut self) {
        let Some(id) = self.current else { return };
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.state = State::Ready;
        task.op = Op::Yield;
        task.wait = Wait::Nothing;
        task.outcome = Outcome::Go;
        self.ready.push_back(id);
    }

    /// Ends a task's wait. Answers whom to tell that the task no longer waits; `None` when it did not wait.
    pub(crate) fn wake(&mut self, id: TaskId, outcome: Outcome) -> Option<Wait> {
        let task = self.tasks.get_mut(id)?;
        if task.state != State::Waiting {
            return None;
        }
        task.state = State::Ready;
        task.outcome = outcome;
        task.wake_at = NEVER;
        self.ready.push_back(id);
        Some(std::mem::replace(&mut task.wait, Wait::Nothing))
    }

    /// Whether the task's timer, popped at `at`, ends its wait now; sets the timer again when it popped early.
    pub(crate) fn timer_popped(&mut self, id: TaskId, at: Nanos) -> bool {
        let Some(task) = self.tasks.get_mut(id) else { return false };
        if task.timer_at != at {
            return false;
        }
        task.timer_at = NEVER;
        if task.state != State::Waiting || task.wake_at == NEVER {
            return false;
        }
        if task.wake_at <= self.clock.now() {
            return true;
        }
        task.timer_at = task.wake_at;
        self.timers.push(task.wake_at, TimerOwner::Task(id));
        false
    }

    /// Drops timers that nobody waits for, when they have piled up. `is_live` knows those of the `others`.
    pub(crate) fn compact_timers(&mut self, others: usize, is_live: impl Fn(Nanos, TimerOwner) -> bool) {
        let tasks = &self.tasks;
        self.timers.compact(self.live + others, |at, owner| match owner {
            TimerOwner::Task(id) => tasks.get(id).is_some_and(|task| task.timer_at == at),
            other => is_live(at, other),
        });
    }

    /// Records how a task ended, and answers who waits for that.
    pub(crate) fn end(&mut self, id: TaskId, state: State, values: i32) -> Vec<TaskId> {
        let Some(task) = self.tasks.get_mut(id) else { return Vec::new() };
        task.state = state;
        task.values = values;
        task.wait = Wait::Nothing;
        self.live -= 1;
        let group = task.group;
        let mut waiters = match task.extra.as_mut() {
            Some(extra) => std::mem::take(&mut extra.joiners),
            None => Vec::new(),
        };
        if state == State::Cancelled {
            self.reaped.push(id);
        }
        if let Some(group) = self.groups.get_mut(group) {
            group.live -= 1;
            if group.live == 0 {
                waiters.extend(group.waiter.take());
                if group.is_abandoned() {
                    self.groups.remove(self.tasks[id].group);
                }
            }
        }
        waiters
    }

    /// After a wait that had a limit of its own: when it ended by that, and not by the task's deadline, it
    /// has ended well.
    pub(crate) fn retry_if_early(&mut self) {
        let now = self.clock.now();
        if let Some(task) = self.running()
            && task.outcome == Outcome::TimedOut
            && task.deadline() > now
        {
            task.outcome = Outcome::Go;
        }
    }

    /// Whether a task waits in a `join`, and so takes the error of whom it waits for.
    pub(crate) fn is_joining(&self, id: TaskId) -> bool {
        self.tasks.get(id).is_some_and(|task| task.op == Op::Join && task.state == State::Waiting)
    }

    /// Opens a group around what the running task does next.
    pub(crate) fn enter_group(&mut self) -> Option<GroupId> {
        let owner = self.current?;
        let (parent, deadline) = self.tasks.get(owner).map(|task| (task.scope(), task.deadline()))?;
        let id = self.groups.insert(Group::new(Some(owner), Some(parent), deadline));
        self.tasks[owner].extra().scope = Some(id);
        Some(id)
    }

    /// Leaves a group; answers the child whose error it died of.
    pub(crate) fn leave_group(&mut self, id: GroupId) -> Option<TaskId> {
        let group = self.groups.get_mut(id)?;
        let failed = group.failed.take();
        let (owner, parent) = (group.owner.take(), group.parent);
        if group.live == 0 {
            self.groups.remove(id);
        }
        if let (Some(task), Some(parent)) = (owner.and_then(|owner| self.tasks.get_mut(owner)), parent) {
            let extra = task.extra();
            extra.scope = Some(parent);
            // A group further out may have failed meanwhile: its interruption still stands.
            let mut outer = Some(parent);
            extra.interrupted = None;
            while let Some(group) = outer.and_then(|outer| self.groups.get(outer)) {
                if group.failed.is_some() && group.owner == owner {
                    extra.interrupted = outer;
                }
                outer = group.parent;
            }
        }
        failed
    }

    /// Notes that a child's error ends its group. Answers whom to cancel and whom to interrupt;
    /// `None` when it is the root group, where tasks live on.
    pub(crate) fn fail_group(&mut self, child: TaskId) -> Option<(Vec<TaskId>, Option<TaskId>)> {
        let id = self.tasks.get(child)?.group;
        if id == self.root {
            return None;
        }
        let group = self.groups.get_mut(id)?;
        let owner = group.owner?;
        if group.failed.is_none() {
            group.failed = Some(child);
            if let Some(task) = self.tasks.get_mut(child) {
                task.holders += 1;
            }
        }
        let siblings = self.children(id);
        let body = self.tasks.get_mut(owner)?;
        body.extra().interrupted = Some(id);
        Some((siblings, Some(owner)))
    }

    /// Live children of a group that is not the root.
    pub(crate) fn children(&self, group: GroupId) -> Vec<TaskId> {
        let is_live = |child: &TaskId| self.tasks.get(*child).is_some_and(|task| !task.state.has_ended());
        let Some(group) = self.groups.get(group) else { return Vec::new() };
        group.children.iter().copied().filter(is_live).collect()
    }
}
