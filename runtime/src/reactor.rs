//! Descriptors, their events, and whom they wake.
//!
//! [`Core`] is everything the loop owns but the Lua state: the scheduler, the sockets and the
//! timers. Nothing here calls Lua.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use slotmap::{Key, KeyData, SlotMap};

use crate::{
    blocking::Promises,
    clock::{NEVER, Nanos},
    dial::{Dial, DialId},
    error::{Error, Kind},
    resolve::Resolver,
    scheduler::{Op, Outcome, Scheduler, TaskId, TimerOwner, Wait},
    socket::{Address, Plain, Pool, Socket, SocketId, Stream, StreamOptions, Tap, Tape, tls},
};

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;
/// Token of wake-ups from other threads.
const WAKER: Token = Token(usize::MAX);
/// Token of the descriptor that signals arrive on.
const SIGNALS: Token = Token(usize::MAX - 1);
/// How long a closed stream may take to send what was written before.
const LINGER: Nanos = 30_000_000_000;

/// The loop's state.
pub(crate) struct Core {
    pub(crate) scheduler: Scheduler,
    poll: Poll,
    events: Events,
    pub(crate) sockets: SlotMap<SocketId, Socket>,
    pub(crate) dials: SlotMap<DialId, Dial>,
    pub(crate) pool: Pool,
    /// What reads go through when nothing has to be kept.
    pub(crate) scratch: Box<[u8]>,
    /// Streams with small writes that have not been sent.
    unflushed: Vec<SocketId>,
    pub(crate) configs: tls::Configs,
    pub(crate) resolver: Resolver,
    pub(crate) promises: Promises,
    pub(crate) waker: Arc<Waker>,
    /// Closed streams that still send.
    pub(crate) lingering: usize,
    /// Signals have arrived.
    pub(crate) signalled: bool,
    /// What is heard on streams.
    pub(crate) tape: Rc<Tape>,
}

impl Core {
    pub(crate) fn new(virtual_clock: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            scheduler: Scheduler::new(virtual_clock),
            events: Events::with_capacity(EVENTS_MAX),
            poll,
            sockets: SlotMap::with_key(),
            dials: SlotMap::with_key(),
            pool: Pool::default(),
            scratch: Box::default(),
            unflushed: Vec::new(),
            configs: tls::Configs::default(),
            resolver: Resolver::new(waker.clone()),
            promises: Promises::new(waker.clone()),
            waker,
            lingering: 0,
            signalled: false,
            tape: Rc::default(),
        })
    }

    /// Watches the descriptor that signals arrive on.
    pub(crate) fn watch_signals(&self, descriptor: std::os::fd::RawFd) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&descriptor), SIGNALS, Interest::READABLE)
    }

    /// The shared read buffer, made when first needed.
    pub(crate) fn with_scratch<R>(&mut self, work: impl FnOnce(&mut Self, &mut [u8]) -> R) -> R {
        let mut scratch = std::mem::take(&mut self.scratch);
        if scratch.is_empty() {
            scratch = self.pool.chunk();
        }
        let result = work(self, &mut scratch);
        self.scratch = scratch;
        result
    }

    // Sockets

    /// Adds a connected stream.
    pub(crate) fn add_stream(&mut self, plain: Plain, options: StreamOptions) -> io::Result<SocketId> {
        let owner = self.scheduler.current;
        let id = self.sockets.insert(Socket::Stream(Stream::new(plain.into(), options, owner)));
        let id = self.register(id)?;
        if self.tape.streams.get() {
            self.tap(id);
        }
        Ok(id)
    }

    /// Has a stream or a socket of datagrams heard; one that is heard already goes on being so.
    pub(crate) fn tap(&mut self, id: SocketId) -> Option<&Tap> {
        let tape = self.tape.clone();
        let text = |address: io::Result<Address>| address.map(|at| at.to_string()).unwrap_or_default();
        match self.sockets.get_mut(id)? {
            Socket::Stream(stream) if !stream.closing => {
                let transport = stream.transport_mut();
                if transport.tap.is_none() {
                    let local = transport.plain.local_address().unwrap_or_default();
                    let peer = transport.plain.peer_address().unwrap_or_default();
                    transport.tap = Some(Box::new(Tap::new(&tape, local, peer)));
                    transport.tell_secured();
                }
                transport.tap.as_deref()
            }
            Socket::Udp(udp) => {
                if udp.tap.is_none() {
                    let (local, peer) = (text(udp.local_address()), text(udp.peer_address()));
                    udp.tap = Some(Box::new(Tap::new(&tape, local, peer)));
                }
                udp.tap.as_deref()
            }
            _ => None,
        }
    }

    /// Adds any socket and has its events reported.
    pub(crate) fn add(&mut self, socket: Socket) -> io::Result<SocketId> {
        let is_heard = self.tape.datagrams.get() && matches!(socket, Socket::Udp(_));
        let id = self.sockets.insert(socket);
        let id = self.register(id)?;
        if is_heard {
            self.tap(id);
        }
        Ok(id)
    }

    fn register(&mut self, id: SocketId) -> io::Result<SocketId> {
        let token = Token(id.data().as_ffi() as usize);
        let registry = self.poll.registry();
        let result = match &mut self.sockets[id] {
            Socket::Stream(stream) => stream.transport_mut().plain.register(registry, token),
            Socket::Attempt(plain, _) => plain.register(registry, token),
            Socket::Listener(listener) => listener.register(registry, token),
            Socket::Udp(udp) => udp.register(registry, token),
            Socket::Gone => Ok(()),
        };
        match result {
            Ok(()) => Ok(id),
            Err(error) => {
                self.sockets.remove(id);
                Err(error)
            }
        }
    }

    /// A stream that has not been closed.
    pub(crate) fn stream(&mut self, id: SocketId) -> Option<&mut Stream> {
        match self.sockets.get_mut(id) {
            Some(Socket::Stream(stream)) if !stream.closing => Some(stream),
            _ => None,
        }
    }

    /// Wraps an accepted stream in TLS.
    pub(crate) fn secure_server(
        &mut self,
        id: SocketId,
        config: Arc<rustls::ServerConfig>,
    ) -> Result<(), rustls::Error> {
        let session = tls::Tls::server(config)?;
        if let Some(stream) = self.stream(id) {
            stream.transport_mut().tls = Some(Box::new(session));
        }
        Ok(())
    }

    /// Has a task woken by a socket's events.
    pub(crate) fn wait_on_socket(&mut self, id: SocketId, task: TaskId, to_read: bool, to_write: bool) {
        match self.sockets.get_mut(id) {
            Some(Socket::Stream(stream)) => {
                if to_read {
                    stream.reader = Some(task);
                }
                if to_write {
                    stream.wait_to_write(task);
                }
            }
            Some(Socket::Listener(listener)) => listener.reader = Some(task),
            Some(Socket::Udp(udp)) if to_read => udp.reader = Some(task),
            Some(Socket::Udp(udp)) => udp.writers.push(task),
            Some(Socket::Attempt(..) | Socket::Gone) | None => {}
        }
    }

    /// A write that had to wait is done: others may write.
    pub(crate) fn write_done(&mut self, id: SocketId) {
        let me = self.scheduler.current;
        let Some(stream) = self.stream(id) else { return };
        if !stream.is_taken(None) {
            return;
        }
        if !stream.is_taken(me) {
            stream.set_writing(None);
            let next = stream.take_all_writers();
            next.into_iter().for_each(|task| self.wake(task, Outcome::Go));
        }
    }

    /// A read may have made handshake records that wait to leave.
    pub(crate) fn flush_handshake(&mut self, id: SocketId) {
        if let Some(Socket::Stream(stream)) = self.sockets.get(id)
            && stream.transport().wants_flush()
        {
            self.flush_later(id);
        }
    }

    /// Notes that a stream has small writes to send when the task parks.
    pub(crate) fn flush_later(&mut self, id: SocketId) {
        if let Some(Socket::Stream(stream)) = self.sockets.get_mut(id)
            && !stream.listed
            && !stream.is_flushed()
        {
            stream.listed = true;
            self.unflushed.push(id);
        }
    }

    /// Sends the small writes of a stream.
    pub(crate) fn flush(&mut self, id: SocketId) {
        if let Some(Socket::Stream(stream)) = self.sockets.get_mut(id) {
            stream.flush(&mut self.pool);
        }
    }

    /// Sends the small writes of the task that has parked.
    pub(crate) fn flush_all(&mut self) {
        self.pool.part();
        while let Some(id) = self.unflushed.pop() {
            if let Some(Socket::Stream(stream)) = self.sockets.get_mut(id) {
                stream.listed = false;
                stream.flush(&mut self.pool);
            }
        }
    }

    /// Closes a socket. A stream's unsent bytes leave first, if the other side takes them in time.
    pub(crate) fn close(&mut self, id: SocketId) {
        let waiting = match self.sockets.get_mut(id) {
            Some(Socket::Stream(stream)) if !stream.closing => {
                let mut waiting: Vec<TaskId> = stream.reader.take().into_iter().collect();
                waiting.extend(stream.take_all_writers());
                if stream.finish(&mut self.pool) {
                    self.sockets.remove(id);
                } else {
                    stream.closing = true;
                    self.lingering += 1;
                    let until = self.scheduler.clock.now().saturating_add(LINGER);
                    self.scheduler.timers.push(until, TimerOwner::Linger(id));
                }
                waiting
            }
            Some(Socket::Stream(_)) | None => return,
            Some(_) => match self.sockets.remove(id) {
                Some(Socket::Listener(listener)) => listener.reader.into_iter().collect(),
                Some(Socket::Udp(mut udp)) => udp.reader.into_iter().chain(std::mem::take(&mut udp.writers)).collect(),
                _ => Vec::new(),
            },
        };
        for task in waiting {
            self.wake(task, Outcome::Go);
        }
    }

    /// Ends a TCP connection by RST. What it has not sent is dropped, and so is what the other side has not read yet; TLS
    /// says no goodbye. A stream that cannot be reset (unix) ends at once.
    pub(crate) fn reset(&mut self, id: SocketId) {
        let Some(Socket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        if let Some(tcp) = stream.transport().plain.tcp() {
            // Refused by no TCP socket; if it were, the end would only be a gentler one.
            let _ = tcp.set_linger(Some(std::time::Duration::ZERO));
        }
        let mut waiting: Vec<TaskId> = stream.reader.take().into_iter().collect();
        waiting.extend(stream.take_all_writers());
        if stream.closing {
            self.lingering -= 1;
        }
        self.sockets.remove(id);
        for task in waiting {
            self.wake(task, Outcome::Go);
        }
    }

    /// Drops a stream at once, with what it has not sent.
    fn drop_lingering(&mut self, id: SocketId) {
        if let Some(Socket::Stream(stream)) = self.sockets.get(id)
            && stream.closing
        {
            self.sockets.remove(id);
            self.lingering -= 1;
        }
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.lingering > 0
    }

    /// Closes what cancelled tasks had opened and still read.
    pub(crate) fn reap(&mut self) {
        if self.scheduler.reaped.is_empty() {
            return;
        }
        let mut dead = std::mem::take(&mut self.scheduler.reaped);
        dead.sort_unstable();
        let is_dead = |owner: Option<TaskId>| owner.is_some_and(|owner| dead.binary_search(&owner).is_ok());
        let orphans: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| match socket {
                Socket::Stream(stream) => !stream.closing && is_dead(stream.owner),
                Socket::Listener(listener) => is_dead(listener.owner),
                Socket::Udp(udp) => is_dead(udp.owner),
                Socket::Attempt(..) | Socket::Gone => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in orphans {
            self.close(id);
        }
    }

    // Tasks

    /// Ends a task's wait; whoever was to wake it forgets it.
    pub(crate) fn wake(&mut self, task: TaskId, outcome: Outcome) {
        let Some(wait) = self.scheduler.wake(task, outcome) else { return };
        let gave_up = outcome != Outcome::Go;
        match wait {
            Wait::Resolver if gave_up => self.resolver.forget(task),
            Wait::Nothing | Wait::Resolver => {}
            Wait::Socket(id) => match self.sockets.get_mut(id) {
                Some(Socket::Stream(stream)) if gave_up => {
                    stream.forget(task);
                    // Others may have waited for the end of the write that was given up.
                    for other in stream.take_writers() {
                        self.wake(other, Outcome::Go);
                    }
                }
                Some(Socket::Stream(stream)) => stream.release(task),
                Some(Socket::Listener(listener)) if listener.reader == Some(task) => listener.reader = None,
                Some(Socket::Udp(udp)) => {
                    udp.reader = udp.reader.filter(|reader| *reader != task);
                    udp.writers.retain(|writer| *writer != task);
                }
                _ => {}
            },
            Wait::Dial(id) if gave_up => self.drop_dial(id),
            Wait::Dial(_) => {}
            Wait::Promise(id) if gave_up => self.promises.forget(id),
            Wait::Promise(_) => {}
            Wait::Task(id) => {
                if let Some(extra) = self.scheduler.tasks.get_mut(id).and_then(|task| task.extra.as_mut()) {
                    extra.joiners.retain(|joiner| *joiner != task);
                }
            }
            Wait::Group(id) => {
                if let Some(group) = self.scheduler.groups.get_mut(id) {
                    group.waiter = None;
                }
            }
        }
    }

    /// Asks a task to end: its wait is given up and the next one raises.
    pub(crate) fn cancel(&mut self, id: TaskId) {
        let Some(task) = self.scheduler.tasks.get_mut(id) else { return };
        if task.state.has_ended() || task.cancelled {
            return;
        }
        task.cancelled = true;
        self.interrupt(id);
    }

    /// Ends a task's wait. One that waits for a group's children goes on doing so; they are cancelled.
    pub(crate) fn interrupt(&mut self, id: TaskId) {
        match self.scheduler.tasks.get(id).map(|task| task.wait) {
            Some(Wait::Group(group)) => {
                self.scheduler.children(group).into_iter().for_each(|child| self.cancel(child));
            }
            _ => self.wake(id, Outcome::Cancelled),
        }
    }

    // The loop's turn

    /// Ends the waits whose time has come.
    pub(crate) fn fire_timers(&mut self) {
        let now = self.scheduler.clock.refresh();
        while let Some((at, owner)) = self.scheduler.timers.pop(now) {
            match owner {
                TimerOwner::Task(id) => {
                    if self.scheduler.timer_popped(id, at) {
                        self.wake(id, Outcome::TimedOut);
                    }
                }
                TimerOwner::Dial(id) => {
                    if self.dials.get(id).is_some_and(|dial| dial.next_at == at) {
                        self.dial_next(id);
                    }
                }
                TimerOwner::Handshake(id) => self.handshake_expired(id),
                TimerOwner::Linger(id) => self.drop_lingering(id),
            }
        }
        let Self { scheduler, sockets, dials, .. } = self;
        let stream = |id| match sockets.get(id) {
            Some(Socket::Stream(stream)) => Some(stream),
            _ => None,
        };
        scheduler.compact_timers(sockets.len() + dials.len(), |at, owner| match owner {
            // The scheduler knows these.
            TimerOwner::Task(_) => true,
            TimerOwner::Dial(id) => dials.get(id).is_some_and(|dial| dial.next_at == at),
            TimerOwner::Handshake(id) => stream(id).is_some_and(|stream| !stream.closing && stream.is_handshaking()),
            TimerOwner::Linger(id) => stream(id).is_some_and(|stream| stream.closing),
        });
    }

    /// An accepted stream has had its time to shake hands.
    fn handshake_expired(&mut self, id: SocketId) {
        let Some(stream) = self.stream(id) else { return };
        if stream.is_handshaking() {
            stream.fail(Error::new(Kind::Tls, Op::Handshake.as_str(), "the client took too long to shake hands"));
            let mut waiting: Vec<TaskId> = stream.reader.take().into_iter().collect();
            waiting.extend(stream.take_writers());
            waiting.into_iter().for_each(|task| self.wake(task, Outcome::Go));
        }
    }

    /// Gives an accepted TLS stream so long to shake hands.
    pub(crate) fn limit_handshake(&mut self, id: SocketId, time: Nanos) {
        let until = self.scheduler.clock.now().saturating_add(time);
        if until != NEVER {
            self.scheduler.timers.push(until, TimerOwner::Handshake(id));
        }
    }

    /// Waits for events, for at most `limit`, and tells whom they concern.
    pub(crate) fn poll(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let result = self.poll.poll(&mut events, limit);
        self.scheduler.clock.refresh();
        let mut count = 0;
        for event in &events {
            count += 1;
            match event.token() {
                WAKER => {
                    let now = self.scheduler.clock.now();
                    for task in self.resolver.collect(now) {
                        if self.scheduler.tasks.get(task).is_some_and(|task| task.wait == Wait::Resolver) {
                            self.wake(task, Outcome::Go);
                        }
                    }
                    for task in self.promises.collect() {
                        self.wake(task, Outcome::Go);
                    }
                }
                SIGNALS => self.signalled = true,
                Token(token) => self.dispatch(KeyData::from_ffi(token as u64).into(), event),
            }
        }
        self.events = events;
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(count),
        }
    }

    fn dispatch(&mut self, id: SocketId, event: &mio::event::Event) {
        // Errors show themselves in the next read or write.
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let writable = event.is_writable() || event.is_write_closed() || event.is_error();
        let hung_up = event.is_read_closed() || event.is_error();
        match self.sockets.get_mut(id) {
            Some(Socket::Stream(stream)) => {
                stream.ready.readable |= readable;
                stream.ready.writable |= writable;
                stream.ready.hung_up |= hung_up;
                if stream.closing {
                    // It may have to read, too: the handshake comes before what was written.
                    if stream.finish(&mut self.pool) {
                        self.drop_lingering(id);
                    }
                    return;
                }
                if writable && !stream.is_flushed() {
                    stream.flush(&mut self.pool);
                }
                let writers = if writable { stream.take_writers() } else { Vec::new() };
                let reader = stream.reader.filter(|_| readable);
                let reader = reader.filter(|_| stream.advance(&mut self.pool));
                for task in writers.into_iter().chain(reader) {
                    self.wake(task, Outcome::Go);
                }
            }
            Some(Socket::Attempt(_, dial)) => {
                let dial = *dial;
                self.attempt_ready(id, dial, true);
            }
            Some(Socket::Listener(listener)) => {
                listener.readable = true;
                listener.reader.take().into_iter().for_each(|task| self.wake(task, Outcome::Go));
            }
            Some(Socket::Udp(udp)) => {
                udp.readable |= readable;
                udp.writable |= writable;
                let mut woken = if readable { udp.reader.take() } else { None }.into_iter().collect::<Vec<_>>();
                if writable {
                    woken.append(&mut udp.writers);
                }
                woken.into_iter().for_each(|task| self.wake(task, Outcome::Go));
            }
            Some(Socket::Gone) | None => {}
        }
    }

    /// The time after which the loop has something to do by itself.
    pub(crate) fn next_timer(&self) -> Nanos {
        self.scheduler.timers.next()
    }

    /// Stops waiting for bytes of closed streams.
    pub(crate) fn give_up_lingering(&mut self) {
        let lingering: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| matches!(socket, Socket::Stream(stream) if stream.closing))
            .map(|(id, _)| id)
            .collect();
        lingering.into_iter().for_each(|id| self.drop_lingering(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_of_handshakes_that_are_over_do_not_pile_up() {
        let mut core = Core::new(false).unwrap();
        for _ in 0..5000 {
            let (one, _) = mio::net::UnixStream::pair().unwrap();
            let id = core.add_stream(Plain::Unix(one), StreamOptions::default()).unwrap();
            core.limit_handshake(id, 3_600_000_000_000);
            core.limit_handshake(id, NEVER);
            core.close(id);
            core.fire_timers();
        }
        assert!(core.scheduler.timers.len() < 1100, "{}", core.scheduler.timers.len());
    }
}
