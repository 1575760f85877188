//! What tasks wait for: told to people, and looked at before a virtual clock jumps.

use crate::{
    clock::seconds,
    reactor::Core,
    scheduler::{Op, State, TaskId, Wait},
    socket::Socket,
};

impl Core {
    /// Whether bytes from outside this process may end someone's wait.
    pub(crate) fn waits_for_outside(&self) -> bool {
        let lingers = |socket: &Socket| matches!(socket, Socket::Stream(stream) if stream.closing && !stream.paired);
        if self.resolver.is_busy() || self.lingering > 0 && self.sockets.values().any(lingers) {
            return true;
        }
        self.scheduler.tasks.values().any(|task| match task.wait {
            Wait::Socket(id) => !matches!(self.sockets.get(id), Some(Socket::Stream(stream)) if stream.paired),
            Wait::Dial(_) | Wait::Resolver | Wait::Promise(_) => true,
            Wait::Nothing => task.op == Op::Select && self.is_selecting_outside(),
            Wait::Task(_) | Wait::Group(_) => false,
        })
    }

    /// Whether a thread of this process, which takes real time, will end someone's wait.
    pub(crate) fn waits_for_thread(&self) -> bool {
        self.scheduler.tasks.values().any(|task| matches!(task.wait, Wait::Promise(_)))
    }

    /// Whether a socket whose other end is outside this process is in someone's `select`.
    fn is_selecting_outside(&self) -> bool {
        let is_selecting = |reader: Option<TaskId>| {
            reader.and_then(|id| self.scheduler.tasks.get(id)).is_some_and(|task| task.op == Op::Select)
        };
        self.sockets.values().any(|socket| match socket {
            Socket::Stream(stream) => !stream.paired && is_selecting(stream.reader),
            Socket::Listener(listener) => is_selecting(listener.reader),
            Socket::Udp(udp) => is_selecting(udp.reader),
            Socket::Attempt(..) | Socket::Gone => false,
        })
    }

    /// A line for each live task, for people.
    pub(crate) fn describe_tasks(&self) -> Vec<String> {
        let now = self.scheduler.clock.now();
        let mut lines: Vec<(u32, String)> = self
            .scheduler
            .tasks
            .values()
            .filter(|task| !task.state.has_ended())
            .map(|task| {
                let doing = match task.state {
                    State::Waiting => {
                        let time = seconds(now.saturating_sub(task.since));
                        format!("waits in {}{} for {time:.1} s", task.op.as_str(), self.describe_wait(task.wait))
                    }
                    state => state.as_str().to_owned(),
                };
                (task.number, format!("#{} {}: {doing}", task.number, task.label()))
            })
            .collect();
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Where a wait leads, for people.
    pub(crate) fn describe_wait(&self, wait: Wait) -> String {
        match wait {
            Wait::Socket(id) => match self.sockets.get(id) {
                Some(Socket::Stream(stream)) => {
                    // A socketpair's ends have no names.
                    let peer = stream.transport().plain.peer_address().unwrap_or_default();
                    if peer.is_empty() { peer } else { format!(", peer {peer}") }
                }
                Some(Socket::Listener(listener)) => {
                    listener.local_address().map(|at| format!(", at {at}")).unwrap_or_default()
                }
                Some(Socket::Udp(udp)) => udp.local_address().map(|at| format!(", at {at}")).unwrap_or_default(),
                _ => String::new(),
            },
            Wait::Dial(id) => self.dials.get(id).map(|dial| format!(", to {}", dial.describe())).unwrap_or_default(),
            Wait::Task(id) => {
                self.scheduler.tasks.get(id).map(|task| format!(", for {}", task.label())).unwrap_or_default()
            }
            Wait::Promise(id) => match self.promises.about(id) {
                "" => String::new(),
                about => format!(", {about}"),
            },
            Wait::Nothing | Wait::Resolver | Wait::Group(_) => String::new(),
        }
    }
}
