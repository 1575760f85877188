//! A connected byte stream: what has arrived, what is to be sent, who waits for which.

use std::io::{ErrorKind, IoSlice};

use super::{Pool, Readiness, Transport, TransportError, input::Input, tls};
use crate::{
    buffer::Buffer,
    error::{Error, Kind},
    scheduler::{Op, TaskId},
};

/// Bytes gathered before they are sent although the task has not parked.
const CORKED_MAX: usize = 16 * 1024;

/// Bytes one `fill` or `turn` takes: what was just read is still in the processor's cache when it is looked at.
const TURN_MAX: usize = 64 * 1024;

/// Bytes after which a read that wants more lets other tasks have their turn.
const BURST_MAX: usize = 128 * 1024;

/// What a reader waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal<'a> {
    /// Whatever is there.
    Any,
    /// So many bytes.
    Exact(usize),
    /// A line of at most so many bytes.
    Line(usize),
    /// These bytes, within so many.
    Until(&'a [u8], usize),
    /// The end of the stream, after at most so many bytes.
    All(usize),
}

/// What the reactor checks before it wakes a reader; the reader checks the rest itself.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Nothing,
    Any,
    Exact(u32),
    Line(u32),
    All(u32),
}

/// The answer to a read.
#[derive(Debug)]
pub(crate) enum Read {
    /// These bytes. They stay until the stream is used next.
    Bytes(*const u8, usize),
    Blocked,
    /// There is more to take in, but it is others' turn.
    Paused,
    Failed(Error),
}

/// Options of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamOptions {
    /// Bytes that may wait to be sent.
    pub(crate) queue_max: u32,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { queue_max: 256 * 1024 }
    }
}

/// What a stream has while sending is not just a matter of time, or when it has failed.
#[derive(Debug, Default)]
struct Sending {
    /// The task in the middle of a write that did not fit.
    writing: Option<TaskId>,
    /// Tasks that wait to send, or for everything to be sent.
    writers: Vec<TaskId>,
    /// Why nothing can be sent any more.
    failure: Option<Error>,
    /// Why nothing more can be read, if the other side did not simply end.
    cut: Option<Error>,
}

/// A connected byte stream.
#[derive(Debug)]
pub(crate) struct Stream {
    transport: Transport,
    pub(crate) ready: Readiness,
    input: Input,
    output: Vec<u8>,
    /// Where the unsent bytes begin in `output`.
    sent: u32,
    queue_max: u32,
    /// Bytes that the transport has taken.
    taken: u64,
    /// Offset up to which a waiting reader has searched.
    scanned: u32,
    wanted: Wanted,
    /// The task that reads.
    pub(crate) reader: Option<TaskId>,
    /// Who opened it or reads it: cancelling that task closes the stream.
    pub(crate) owner: Option<TaskId>,
    /// What few streams have.
    sending: Option<Box<Sending>>,
    /// Nothing more can be read.
    ended: bool,
    /// `wake` was called and no turn has seen it.
    pub(crate) nudged: bool,
    /// Whether the reactor's list of streams to flush has it.
    pub(crate) listed: bool,
    /// Closed by the script; unsent bytes still leave.
    pub(crate) closing: bool,
    /// The other end is in this process, so no byte can be on its way.
    pub(crate) paired: bool,
    shut: bool,
}

impl Stream {
    pub(crate) fn new(transport: Transport, options: StreamOptions, owner: Option<TaskId>) -> Self {
        Self {
            transport,
            ready: Readiness::FRESH,
            input: Input::default(),
            output: Vec::new(),
            sent: 0,
            queue_max: options.queue_max,
            taken: 0,
            scanned: 0,
            wanted: Wanted::Any,
            reader: None,
            owner,
            sending: None,
            ended: false,
            nudged: false,
            listed: false,
            closing: false,
            paired: false,
            shut: false,
        }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// Bytes that wait to be sent.
    fn unsent(&self) -> usize {
        self.output.len() - self.sent as usize
    }

    /// Whether everything written has been given to the system.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent() == 0 && !self.transport.wants_flush()
    }

    /// How many bytes of what was written the other side's system has acknowledged, and how many it has not.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let under_way = self.transport.unacknowledged() as u64;
        (self.taken.saturating_sub(under_way), self.unsent() as u64 + under_way)
    }

    pub(crate) fn set_queue_max(&mut self, bytes: u32) {
        self.queue_max = bytes;
    }

    // Reading

    /// Reads towards `goal`. `again`: the same call goes on after a wait.
    pub(crate) fn read(&mut self, op: Op, goal: Goal<'_>, again: bool, pool: &mut Pool, scratch: &mut [u8]) -> Read {
        if !again {
            self.scanned = 0;
        }
        if let (Goal::Any, true) = (goal, self.input.is_empty()) {
            return self.read_through(op, scratch);
        }
        let mut count = 0;
        loop {
            if let Some(answer) = self.look(op, goal) {
                return answer;
            }
            if count >= BURST_MAX {
                return Read::Paused;
            }
            match self.input.fill(pool, &mut self.transport, &mut self.ready, wanted_len(goal), BURST_MAX - count) {
                Ok(0) => self.ended = true,
                Ok(n) => count += n,
                Err(TransportError::Blocked) => {
                    self.input.settle(pool);
                    return Read::Blocked;
                }
                Err(error) => return self.read_failed(op, error),
            }
        }
    }

    /// Reads without keeping anything: the bytes go from the shared buffer straight to the script.
    fn read_through(&mut self, op: Op, scratch: &mut [u8]) -> Read {
        if self.ended {
            return Read::Failed(self.end_error(op, 0));
        }
        match self.transport.read(&mut self.ready, scratch) {
            Ok(0) => {
                self.ended = true;
                Read::Failed(self.end_error(op, 0))
            }
            Ok(n) => Read::Bytes(scratch.as_ptr(), n),
            Err(TransportError::Blocked) => Read::Blocked,
            Err(error) => self.read_failed(op, error),
        }
    }

    /// Whether what has arrived answers the read.
    fn look(&mut self, op: Op, goal: Goal<'_>) -> Option<Read> {
        let held = self.input.as_slice();
        let len = held.len();
        match goal {
            Goal::Any if len > 0 => return Some(self.hand_out(len, len)),
            Goal::Any => {}
            Goal::Exact(n) if len >= n => return Some(self.hand_out(n, n)),
            Goal::Exact(_) => {}
            Goal::Line(max) => {
                let from = (self.scanned as usize).min(len);
                if let Some(at) = memchr::memchr(b'\n', &held[from..]) {
                    let end = from + at;
                    let text = if end > 0 && held[end - 1] == b'\r' { end - 1 } else { end };
                    if text > max {
                        return Some(Read::Failed(too_long(op, "line", max)));
                    }
                    return Some(self.hand_out(text, end + 1));
                }
                self.scanned = len as u32;
                // One more byte than the limit may still be the CR before the LF.
                if len > max + 1 || (len == max + 1 && held[max] != b'\r') {
                    return Some(Read::Failed(too_long(op, "line", max)));
                }
            }
            Goal::Until(pattern, max) => {
                let from = (self.scanned as usize).min(len);
                if let Some(at) = memchr::memmem::find(&held[from..], pattern) {
                    let end = from + at + pattern.len();
                    if end > max {
                        return Some(Read::Failed(too_long(op, "text before the pattern", max)));
                    }
                    return Some(self.hand_out(end, end));
                }
                self.scanned = len.saturating_sub(pattern.len().saturating_sub(1)) as u32;
                if len >= max {
                    return Some(Read::Failed(too_long(op, "text before the pattern", max)));
                }
            }
            Goal::All(max) if len > max => return Some(Read::Failed(too_long(op, "stream", max))),
            Goal::All(_) if self.ended && self.cut().is_none() => return Some(self.hand_out(len, len)),
            Goal::All(_) => {}
        }
        self.ended.then(|| Read::Failed(self.end_error(op, len)))
    }

    fn hand_out(&mut self, give: usize, drop: usize) -> Read {
        let bytes = Read::Bytes(self.input.as_slice().as_ptr(), give);
        self.input.consume(drop);
        self.scanned = 0;
        bytes
    }

    /// Gives the read buffer back once a read has been answered from it and nothing is left.
    pub(crate) fn settle(&mut self, pool: &mut Pool) {
        if self.input.is_empty() {
            self.input.settle(pool);
        }
    }

    fn read_failed(&mut self, op: Op, error: TransportError) -> Read {
        let error = error.into_error(op);
        self.end_with(error.clone());
        Read::Failed(error)
    }

    /// Nothing more can be read, and every read from now on says why.
    fn end_with(&mut self, error: Error) {
        self.ended = true;
        self.sending().cut.get_or_insert(error);
    }

    fn cut(&self) -> Option<&Error> {
        self.sending.as_ref().and_then(|sending| sending.cut.as_ref())
    }

    fn end_error(&self, op: Op, unread: usize) -> Error {
        if let Some(cut) = self.cut() {
            return Error { op: op.as_str(), ..cut.clone() };
        }
        match unread {
            0 => Error::new(Kind::Closed, op.as_str(), "the other side has closed the connection"),
            1 => Error::new(Kind::Closed, op.as_str(), "the stream ended too early; 1 byte is left to read"),
            n => {
                Error::new(Kind::Closed, op.as_str(), format!("the stream ended too early; {n} bytes are left to read"))
            }
        }
    }

    fn sending(&mut self) -> &mut Sending {
        self.sending.get_or_insert_default()
    }

    fn has_failed(&self) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.failure.is_some())
    }

    /// Adds a task to those who wait to send.
    pub(crate) fn wait_to_write(&mut self, task: TaskId) {
        let writers = &mut self.sending().writers;
        if !writers.contains(&task) {
            writers.push(task);
        }
    }

    /// Whether those who wait to send have something to find out.
    fn can_write(&self) -> bool {
        self.has_failed() || self.is_flushed() || self.room() >= self.queue_max as usize / 2
    }

    /// Takes those who wait to send, when it is worth waking them.
    pub(crate) fn take_writers(&mut self) -> Vec<TaskId> {
        let anyone = self.sending.as_ref().is_some_and(|sending| !sending.writers.is_empty());
        if anyone && self.can_write() { self.take_all_writers() } else { Vec::new() }
    }

    /// Takes all who wait to send.
    pub(crate) fn take_all_writers(&mut self) -> Vec<TaskId> {
        self.sending.as_mut().map_or_else(Vec::new, |sending| std::mem::take(&mut sending.writers))
    }

    /// Remembers what the reader waits for.
    pub(crate) fn want(&mut self, goal: Goal<'_>) {
        self.wanted = match goal {
            Goal::Any | Goal::Until(..) => Wanted::Any,
            // Sizes are at most 1 GiB.
            Goal::Exact(n) => Wanted::Exact(n as u32),
            Goal::Line(max) => Wanted::Line(max as u32),
            Goal::All(max) => Wanted::All(max as u32),
        };
    }

    /// Remembers that the reader's task waits for something else and leaves alone what comes.
    pub(crate) fn want_nothing(&mut self) {
        self.wanted = Wanted::Nothing;
    }

    /// After a readable event: takes what has arrived, and tells whether the reader's wait is over.
    pub(crate) fn advance(&mut self, pool: &mut Pool) -> bool {
        let wanted = match self.wanted {
            Wanted::Any => return true,
            Wanted::Nothing => return false,
            Wanted::Exact(n) | Wanted::Line(n) | Wanted::All(n) => n as usize,
        };
        let mut count = 0;
        loop {
            let len = self.input.len();
            let met = match self.wanted {
                Wanted::Any | Wanted::Nothing => true,
                Wanted::Exact(_) => len >= wanted,
                Wanted::All(_) => len > wanted,
                Wanted::Line(_) => {
                    let from = (self.scanned as usize).min(len);
                    let found = memchr::memchr(b'\n', &self.input.as_slice()[from..]).is_some();
                    if !found {
                        self.scanned = len as u32;
                    }
                    found || len > wanted
                }
            };
            // After a burst the reader itself goes on, in its turn.
            if met || self.ended || count >= BURST_MAX {
                // Many streams may have become ready at once, and each is read before the first task runs:
                // none keeps a large buffer meanwhile.
                self.input.settle(pool);
                return true;
            }
            match self.input.fill(pool, &mut self.transport, &mut self.ready, wanted, BURST_MAX - count) {
                Ok(0) => self.ended = true,
                Ok(n) => count += n,
                Err(TransportError::Blocked) => {
                    self.input.settle(pool);
                    return false;
                }
                // The reader meets the same error when it reads.
                Err(TransportError::Tls(_)) => return true,
                Err(TransportError::Io(error)) => {
                    self.end_with(Error::from_io(Op::Read.as_str(), &error));
                    return true;
                }
            }
        }
    }

    /// Reads what has arrived onto the end of `into`.
    pub(crate) fn fill(
        &mut self,
        op: Op,
        into: &mut Buffer,
        pool: &mut Pool,
        scratch: &mut [u8],
    ) -> Result<usize, Read> {
        let mut count = self.input.len();
        if count > 0 {
            into.extend(self.input.as_slice());
            self.input.consume(count);
            self.input.settle(pool);
        }
        while count < TURN_MAX {
            match self.read_through(op, scratch) {
                Read::Bytes(_, n) => {
                    into.extend(&scratch[..n]);
                    count += n;
                }
                _ if count > 0 => break,
                answer => return Err(answer),
            }
        }
        Ok(count)
    }

    /// Whether a read would be answered at once, as far as one can tell without reading.
    pub(crate) fn is_readable(&mut self, pool: &mut Pool) -> bool {
        if !self.input.is_empty() || self.ended {
            return true;
        }
        match self.input.fill(pool, &mut self.transport, &mut self.ready, 1, BURST_MAX) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(TransportError::Blocked) => {
                self.input.settle(pool);
                return false;
            }
            Err(TransportError::Io(error)) => self.end_with(Error::from_io(Op::Read.as_str(), &error)),
            Err(TransportError::Tls(error)) => self.fail(tls::describe(Op::Read, &error)),
        }
        true
    }

    pub(crate) fn has_unread(&self) -> bool {
        !self.input.is_empty()
    }

    // Writing

    /// Why the stream has failed, if it has.
    pub(crate) fn failure(&self, op: Op) -> Option<Error> {
        let failure = self.sending.as_ref()?.failure.as_ref()?;
        Some(Error { op: op.as_str(), ..failure.clone() })
    }

    /// Why nothing can be written.
    pub(crate) fn write_error(&self, op: Op) -> Option<Error> {
        if self.has_failed() {
            return self.failure(op);
        }
        self.shut.then(|| Error::new(Kind::Closed, op.as_str(), "this direction was shut down"))
    }

    /// Makes both directions fail from now on.
    pub(crate) fn fail(&mut self, error: Error) {
        self.end_with(error.clone());
        self.stop_writing(error);
    }

    /// After a failure to send. What the other side said before it closed can still be read.
    fn write_failed(&mut self, error: TransportError) {
        // It may have come since the events were last looked at.
        self.ready.readable = true;
        let concerns_both = matches!(error, TransportError::Tls(_));
        // The system tells of a reset once, and this was it: a read would take what follows for a clean end.
        let was_reset = matches!(&error, TransportError::Io(error) if error.kind() == ErrorKind::ConnectionReset);
        let error = error.into_error(Op::Write);
        if was_reset {
            self.sending().cut.get_or_insert_with(|| error.clone());
        }
        if concerns_both { self.fail(error) } else { self.stop_writing(error) }
    }

    fn stop_writing(&mut self, error: Error) {
        self.output = Vec::new();
        self.sent = 0;
        self.sending().failure.get_or_insert(error);
    }

    /// Whether another task is in the middle of a write, so that `me` must wait for its turn.
    pub(crate) fn is_taken(&self, me: Option<TaskId>) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.writing.is_some() && sending.writing != me)
    }

    /// Room for bytes before a writer must park.
    pub(crate) fn room(&self) -> usize {
        (self.queue_max as usize).saturating_sub(self.unsent())
    }

    /// Takes bytes on their way, as many as may wait; answers how many.
    pub(crate) fn accept(&mut self, bytes: &[u8], pool: &mut Pool) -> usize {
        let mut taken = 0;
        // Large pieces go to the system as they are, behind what waits; small ones are gathered.
        if bytes.len() >= CORKED_MAX && !self.transport.wants_flush() {
            while taken < bytes.len() {
                let waiting = self.unsent();
                let parts = [IoSlice::new(&self.output[self.sent as usize..]), IoSlice::new(&bytes[taken..])];
                let parts = if waiting == 0 { &parts[1..] } else { &parts[..] };
                match self.transport.write(&mut self.ready, parts) {
                    Ok(n) => {
                        self.taken += n as u64;
                        let queued = n.min(waiting);
                        self.mark_sent(queued, pool);
                        taken += n - queued;
                    }
                    Err(TransportError::Blocked) => break,
                    Err(error) => {
                        self.write_failed(error);
                        return bytes.len();
                    }
                }
            }
        }
        loop {
            let rest = &bytes[taken..];
            let fits = rest.len().min(self.room());
            if fits > 0 {
                if self.output.capacity() == 0 {
                    self.output = pool.output();
                }
                self.output.extend_from_slice(&rest[..fits]);
                taken += fits;
            }
            // A writer that parks is woken by an event, and one comes only after the system took no more.
            if self.unsent() >= CORKED_MAX || taken < bytes.len() {
                self.flush(pool);
            }
            if taken == bytes.len() || self.failure(Op::Write).is_some() || self.room() == 0 {
                return taken;
            }
        }
    }

    fn mark_sent(&mut self, n: usize, pool: &mut Pool) {
        self.sent += n as u32;
        if self.sent as usize == self.output.len() {
            if self.output.capacity() > 0 {
                pool.give_output(std::mem::take(&mut self.output));
            }
            self.sent = 0;
        } else if self.sent as usize >= CORKED_MAX && self.sent as usize >= self.output.len() / 2 {
            self.output.drain(..self.sent as usize);
            self.sent = 0;
        }
    }

    /// Sends what the system takes.
    pub(crate) fn flush(&mut self, pool: &mut Pool) {
        while self.unsent() > 0 {
            let bytes = IoSlice::new(&self.output[self.sent as usize..]);
            match self.transport.write(&mut self.ready, &[bytes]) {
                // TLS takes nothing more until its own bytes have left.
                Ok(0) => break,
                Ok(n) => {
                    self.taken += n as u64;
                    self.mark_sent(n, pool);
                }
                Err(TransportError::Blocked) => return,
                Err(error) => return self.write_failed(error),
            }
        }
        match self.transport.flush(&mut self.ready) {
            Ok(()) | Err(TransportError::Blocked) => {}
            Err(error) => self.write_failed(error),
        }
    }

    /// Marks `me` as in the middle of a write (`Some`), or the write as done.
    pub(crate) fn set_writing(&mut self, me: Option<TaskId>) {
        self.sending().writing = me;
    }

    /// Takes a woken task off the lists of those who wait.
    pub(crate) fn release(&mut self, task: TaskId) {
        if self.reader == Some(task) {
            self.reader = None;
        }
        if let Some(sending) = &mut self.sending {
            sending.writers.retain(|other| *other != task);
        }
    }

    /// The same for a task that gave up. A write that was cut in the middle spoils the stream.
    pub(crate) fn forget(&mut self, task: TaskId) {
        self.release(task);
        if let Some(sending) = &mut self.sending
            && sending.writing == Some(task)
        {
            sending.writing = None;
            let message = "an earlier write was cut short by a timeout or a cancellation; close the stream";
            sending.failure.get_or_insert_with(|| Error::new(Kind::Closed, Op::Write.as_str(), message));
        }
    }

    /// Ends the sending direction; what was written has been flushed before. `false` while the goodbye of TLS has to be
    /// flushed, too.
    pub(crate) fn shutdown_write(&mut self) -> std::io::Result<bool> {
        let again = std::mem::replace(&mut self.shut, true);
        if !again {
            self.transport.say_goodbye(&mut self.ready);
        }
        if self.transport.wants_flush() {
            return Ok(false);
        }
        match self.transport.plain.shutdown_write() {
            // Meanwhile the other side has gone, too.
            Err(error) if again && error.kind() == ErrorKind::NotConnected => Ok(true),
            result => result.map(|()| true),
        }
    }

    /// Sends what is left of a stream that has been closed, and then tells a TLS peer that nothing more comes. `true` when
    /// that is done, or nobody listens.
    pub(crate) fn finish(&mut self, pool: &mut Pool) -> bool {
        self.flush(pool);
        if self.unsent() == 0 && !self.shut {
            self.transport.say_goodbye(&mut self.ready);
        }
        self.is_flushed() || self.has_failed()
    }

    pub(crate) fn handshake(&mut self) -> Result<(), TransportError> {
        self.transport.handshake(&mut self.ready)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.transport.is_handshaking()
    }
}

/// How many bytes in all a read waits for.
fn wanted_len(goal: Goal<'_>) -> usize {
    match goal {
        Goal::Any => 1,
        Goal::Exact(n) | Goal::Line(n) | Goal::Until(_, n) | Goal::All(n) => n,
    }
}

fn too_long(op: Op, what: &str, max: usize) -> Error {
    Error::new(Kind::Limit, op.as_str(), format!("the {what} is longer than {max} bytes"))
}
