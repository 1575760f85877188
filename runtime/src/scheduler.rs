//! Tasks: what is ready, what waits for what, and until when.
//!
//! Nothing here calls Lua. A task is a coroutine that `ffi` resumes; this module decides which one
//! is next and with what outcome its wait ends.

mod task;

pub(crate) use task::{Op, Outcome, State, Task, Wait};

use std::collections::VecDeque;

use slotmap::{SlotMap, new_key_type};

use crate::{
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
