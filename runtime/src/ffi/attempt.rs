//! An operation's try: done, failed, or a wait that is registered.

use super::{Answer, Failure, Name};
use crate::{
    blocking::PromiseId,
    clock::{NEVER, Nanos},
    dial::DialId,
    error::{Code, Error, Kind},
    reactor::Core,
    scheduler::{GroupId, IGNORED_MAX, Op, Outcome, TaskId, Wait},
    shared::Shared,
    socket::SocketId,
};

/// What a try leads to.
pub(crate) enum Attempt {
    Done(Answer),
    Failed(Error),
    /// Not yet. What to wait for, and until when at most.
    Wait(Need, Nanos),
    /// Not yet, but only because others are to have their turn, who do not read from this stream meanwhile. Where the task
    /// cannot wait it goes on at once.
    Pause(SocketId),
}

/// What a task waits for, and how to have it woken.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    Reader(SocketId),
    Writer(SocketId),
    Both(SocketId),
    Dial(DialId),
    Resolver,
    Join(TaskId),
    Group(GroupId),
    Promise(PromiseId),
    /// Someone who knows the task.
    Nothing,
}

impl Shared {
    /// Tries an operation of the running task, and registers its wait when it is not done.
    ///
    /// `again` says that a wait has just ended. Nothing in here calls Lua.
    pub(crate) fn attempt(
        &self,
        op: Op,
        again: bool,
        yieldable: bool,
        mut work: impl FnMut(&mut Core, Option<TaskId>) -> Attempt,
    ) -> Answer {
        let mut core = self.core.borrow_mut();
        let me = core.scheduler.current;
        if again {
            let outcome = core.scheduler.running().map_or(Outcome::Go, |task| task.outcome);
            match outcome {
                Outcome::Go => {}
                Outcome::TimedOut => return self.fail(timed_out(op)),
                Outcome::Cancelled => return self.throw(cancelled(op)),
            }
        } else if core.scheduler.budget == 0 && yieldable && me.is_some() {
            return self.pause(&mut core, op, None);
        } else {
            core.scheduler.budget = core.scheduler.budget.saturating_sub(1);
        }
        loop {
            return match work(&mut core, me) {
                Attempt::Done(answer) => answer,
                Attempt::Failed(error) => self.fail(error),
                Attempt::Wait(need, until) => self.begin_wait(&mut core, op, need, until, yieldable),
                Attempt::Pause(id) if yieldable && me.is_some() => self.pause(&mut core, op, Some(id)),
                Attempt::Pause(_) => continue,
            };
        }
    }

    /// Lets others have their turn although the running task could go on, with what it reads from `stream`.
    fn pause(&self, core: &mut Core, op: Op, stream: Option<SocketId>) -> Answer {
        let now = core.scheduler.clock.now();
        if op != Op::Group && core.scheduler.running().is_some_and(|task| task.is_to_end() || task.deadline() <= now) {
            // One that never has to wait would not hear of it otherwise.
            return self.begin_wait(core, op, Need::Nothing, NEVER, true);
        }
        core.scheduler.park_ready();
        let me = core.scheduler.current;
        if let Some(stream) = stream.and_then(|id| core.stream(id)) {
            stream.reader = me;
        }
        Answer::Park
    }

    /// Registers a wait, or says why there can be none.
    fn begin_wait(&self, core: &mut Core, op: Op, need: Need, until: Nanos, yieldable: bool) -> Answer {
        // A group waits for its children whatever happens: they have been told to end.
        let shielded = matches!(need, Need::Group(_));
        if let Some(refusal) = self.refuse_wait(core, op, yieldable, shielded) {
            return refusal;
        }
        let me = core.scheduler.current.unwrap_or_default();
        let wait = match need {
            Need::Reader(id) | Need::Writer(id) | Need::Both(id) => {
                core.wait_on_socket(id, me, !matches!(need, Need::Writer(_)), !matches!(need, Need::Reader(_)));
                Wait::Socket(id)
            }
            Need::Dial(id) => {
                if let Some(dial) = core.dials.get_mut(id) {
                    dial.task = Some(me);
                }
                Wait::Dial(id)
            }
            Need::Resolver => Wait::Resolver,
            Need::Join(id) => {
                if let Some(task) = core.scheduler.tasks.get_mut(id) {
                    task.extra().joiners.push(me);
                }
                Wait::Task(id)
            }
            Need::Group(id) => {
                if let Some(group) = core.scheduler.groups.get_mut(id) {
                    group.waiter = Some(me);
                }
                Wait::Group(id)
            }
            Need::Promise(id) => {
                core.promises.wait(id, me);
                Wait::Promise(id)
            }
            Need::Nothing => Wait::Nothing,
        };
        core.scheduler.park(op, wait, until);
        Answer::Park
    }

    /// Why the running task may not wait now, if so.
    fn refuse_wait(&self, core: &mut Core, op: Op, yieldable: bool, shielded: bool) -> Option<Answer> {
        let Some(me) = core.scheduler.current else {
            return Some(Answer::Raise("cannot wait here: this code does not run in a task"));
        };
        if !yieldable {
            return Some(Answer::Unyieldable);
        }
        let now = core.scheduler.clock.now();
        if let Some(task) = core.scheduler.tasks.get_mut(me)
            && !shielded
        {
            let (is_to_end, is_late) = (task.is_to_end(), task.deadline() <= now);
            if is_to_end || is_late {
                task.ignored += 1;
                // A timeout is answered first, and raised to those who do not look at answers.
                if task.ignored > if is_to_end { IGNORED_MAX } else { 2 * IGNORED_MAX } {
                    // It catches the error and goes on regardless: the loop ends it by force.
                    task.doom();
                    core.scheduler.park(op, Wait::Nothing, NEVER);
                    return Some(Answer::Park);
                }
            }
            if is_to_end {
                return Some(self.throw(cancelled(op)));
            }
            if is_late {
                return Some(match task.ignored > IGNORED_MAX {
                    true => self.throw(timed_out(op)),
                    false => self.fail(timed_out(op)),
                });
            }
            task.ignored = 0;
        }
        None
    }

    /// Whether the running task may wait now: `true`, or what a wait would answer. To be asked before work is
    /// started that could not be waited for.
    pub(crate) fn may_wait(&self, op: Op, yieldable: bool) -> Answer {
        let mut core = self.core.borrow_mut();
        self.refuse_wait(&mut core, op, yieldable, false).unwrap_or(Answer::True)
    }

    /// An error as an answer.
    pub(crate) fn fail(&self, error: Error) -> Answer {
        Answer::Fail(self.keep(error))
    }

    /// An error to be raised.
    pub(crate) fn throw(&self, error: Error) -> Answer {
        Answer::Throw(self.keep(error))
    }

    fn keep(&self, error: Error) -> Failure {
        let mut message = self.message.borrow_mut();
        message.clear();
        message.push_str(&error.message);
        let (code, number) = match &error.code {
            Some(Code::Name(name)) => (Name::new(name), None),
            Some(Code::Number(number)) => (Name::new(""), Some(*number)),
            None => (Name::new(""), None),
        };
        let cause = error.cause.map(|cause| cause.kind.as_str());
        let (start, len) = (message.as_ptr(), message.len());
        Failure { kind: error.kind.as_str(), op: error.op, message: start, len, code, number, cause }
    }
}

pub(crate) fn timed_out(op: Op) -> Error {
    Error::new(Kind::Timeout, op.as_str(), "the deadline has passed")
}

pub(crate) fn cancelled(op: Op) -> Error {
    Error::new(Kind::Cancelled, op.as_str(), "the task was cancelled")
}
