//! Names to addresses, off the loop.
//!
//! getaddrinfo blocks, and honours the hosts file, nsswitch and search lists for free; so it runs
//! on a few threads that start when first needed. Equal questions share one look-up, and answers
//! are kept for a short time.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
};

use mio::Waker;

use crate::{
    clock::Nanos,
    error::{Code, Error, Kind},
    scheduler::{Op, TaskId},
};

/// Threads that may look up names at once.
const THREADS_MAX: usize = 4;
/// How long an answer is kept, in nanoseconds. The system's own cache, if any, knows the real time to live.
const KEPT_FOR: Nanos = 10_000_000_000;
/// How long a failure is kept.
const FAILURE_KEPT_FOR: Nanos = 1_000_000_000;
/// Names remembered or asked for at once.
const NAMES_MAX: usize = 1024;

type Answer = Result<Vec<IpAddr>, Arc<Failure>>;
/// A name and what it leads to, on its way from a thread to the loop.
type Answered = (Arc<str>, Answer);

/// Why a name has no address.
#[derive(Debug)]
struct Failure {
    message: String,
    code: Option<i32>,
}

#[derive(Debug)]
enum Entry {
    Asked(Vec<TaskId>),
    Known(Answer, Nanos),
}

#[derive(Debug, Default)]
struct Queue {
    names: VecDeque<Arc<str>>,
    idle: usize,
    closed: bool,
}

/// The resolver and its threads.
#[derive(Debug)]
pub(crate) struct Resolver {
    entries: HashMap<Arc<str>, Entry>,
    queue: Arc<(Mutex<Queue>, Condvar)>,
    threads: usize,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    waker: Arc<Waker>,
}

/// What asking for a name leads to.
pub(crate) enum Lookup {
    Known(Result<Vec<IpAddr>, Error>),
    /// An answer will come; the task is woken then.
    Asked,
}

impl Resolver {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self { entries: HashMap::new(), queue: Arc::default(), threads: 0, answers: mpsc::channel(), waker }
    }

    /// The addresses of `host`, or a promise to wake `task`.
    pub(crate) fn look_up(&mut self, host: &str, task: TaskId, now: Nanos) -> Lookup {
        match self.entries.get_mut(host) {
            Some(Entry::Known(answer, until)) if now <= *until => {
                return Lookup::Known(answer.clone().map_err(|failure| to_error(host, &failure)));
            }
            Some(Entry::Asked(waiting)) => {
                waiting.push(task);
                return Lookup::Asked;
            }
            _ => {}
        }
        if self.entries.len() >= NAMES_MAX {
            self.entries.retain(|_, entry| matches!(entry, Entry::Asked(_)));
            if self.entries.len() >= NAMES_MAX {
                let message = format!("more than {NAMES_MAX} names are being looked up");
                return Lookup::Known(Err(Error::new(Kind::Limit, Op::Resolve.as_str(), message)));
            }
        }
        let name: Arc<str> = host.into();
        self.entries.insert(name.clone(), Entry::Asked(vec![task]));
        self.ask(name);
        Lookup::Asked
    }

    fn ask(&mut self, name: Arc<str>) {
        let (lock, condition) = &*self.queue;
        let mut queue = lock.lock().unwrap_or_else(PoisonError::into_inner);
        queue.names.push_back(name);
        if queue.idle >= queue.names.len() || self.threads == THREADS_MAX {
            condition.notify_one();
            return;
        }
        drop(queue);
        let (queue, answers, waker) = (self.queue.clone(), self.answers.0.clone(), self.waker.clone());
        let started = thread::Builder::new().name("resolver".to_owned()).spawn(move || work(&queue, &answers, &waker));
        match started {
            Ok(_) => self.threads += 1,
            // With no thread to be had, one of the others gets to it; with none at all the wait is bounded by its deadline.
            Err(_) => condition.notify_one(),
        }
    }

    /// A task no longer waits. A name that nobody waits for is not looked up, if no thread has begun to: or a few that
    /// nobody answers would stand in the way of all that come after them.
    pub(crate) fn forget(&mut self, task: TaskId) {
        let (lock, _) = &*self.queue;
        self.entries.retain(|name, entry| {
            let Entry::Asked(waiting) = entry else { return true };
            let count = waiting.len();
            waiting.retain(|other| *other != task);
            if waiting.len() == count || !waiting.is_empty() {
                return true;
            }
            let mut queue = lock.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.names.iter().position(|queued| queued == name) {
                Some(place) => {
                    queue.names.remove(place);
                    false
                }
                None => true,
            }
        });
    }

    /// Takes answers that have come; gives the tasks to wake.
    pub(crate) fn collect(&mut self, now: Nanos) -> Vec<TaskId> {
        let mut woken = Vec::new();
        while let Ok((name, answer)) = self.answers.1.try_recv() {
            let kept = if answer.is_ok() { KEPT_FOR } else { FAILURE_KEPT_FOR };
            if let Some(Entry::Asked(waiting)) =
                self.entries.insert(name, Entry::Known(answer, now.saturating_add(kept)))
            {
                woken.extend(waiting);
            }
        }
        woken
    }

    /// Whether an answer is still to come.
    pub(crate) fn is_busy(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry, Entry::Asked(_)))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let (lock, condition) = &*self.queue;
        lock.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        condition.notify_all();
    }
}

/// A thread's life: one name after the other.
fn work(queue: &(Mutex<Queue>, Condvar), answers: &mpsc::Sender<Answered>, waker: &Waker) {
    let (lock, condition) = queue;
    loop {
        let mut queue = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let name = loop {
            if queue.closed {
                return;
            }
            if let Some(name) = queue.names.pop_front() {
                break name;
            }
            queue.idle += 1;
            queue = condition.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        };
        drop(queue);
        let answer = resolve(&name);
        if answers.send((name, answer)).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

fn resolve(name: &str) -> Answer {
    match (name, 0).to_socket_addrs() {
        Ok(found) => {
            let mut list: Vec<IpAddr> = Vec::new();
            for address in found.map(|address| address.ip()) {
                if !list.contains(&address) {
                    list.push(address);
                }
            }
            if list.is_empty() { Err(failure("it has no address", None)) } else { Ok(list) }
        }
        Err(error) => Err(failure(&words(&error), error.raw_os_error())),
    }
}

fn failure(message: &str, code: Option<i32>) -> Arc<Failure> {
    Arc::new(Failure { message: message.to_owned(), code })
}

/// The resolver's words without the standard library's preamble.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(": ").map_or(text.as_str(), |(_, rest)| rest);
    text.to_lowercase()
}

fn to_error(host: &str, failure: &Failure) -> Error {
    let error =
        Error::new(Kind::Resolve, Op::Resolve.as_str(), format!("cannot resolve {host:?}: {}", failure.message));
    match failure.code.and_then(crate::os::errno_name) {
        Some(name) => error.with_code(Code::Name(name.into())),
        None => error,
    }
}

/// Orders addresses as they are to be tried: families take turns, beginning with the resolver's
/// first choice (RFC 8305, section 4).
pub(crate) fn interleave(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut order = Vec::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        order.extend(first.pop_front().map(|address| SocketAddr::new(address, port)));
        order.extend(second.pop_front().map(|address| SocketAddr::new(address, port)));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_from_the_first_choice_on() {
        let list: Vec<IpAddr> = ["::1", "::2", "::3", "1.1.1.1"].iter().filter_map(|text| text.parse().ok()).collect();
        let order: Vec<String> = interleave(list, 1).iter().map(|address| address.ip().to_string()).collect();
        assert_eq!(order, ["::1", "1.1.1.1", "::2", "::3"]);
    }

    #[test]
    fn a_name_that_nobody_waits_for_any_more_makes_room_for_others() {
        let poll = mio::Poll::new().unwrap();
        let mut resolver = Resolver::new(Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap()));
        // As if all were busy with names that nobody answers.
        resolver.threads = THREADS_MAX;
        let mut tasks = slotmap::SlotMap::<TaskId, ()>::with_key();
        let (one, other) = (tasks.insert(()), tasks.insert(()));
        for name in 0..NAMES_MAX {
            assert!(matches!(resolver.look_up(&name.to_string(), one, 0), Lookup::Asked));
        }
        assert!(matches!(resolver.look_up("7", other, 0), Lookup::Asked));
        assert!(matches!(resolver.look_up("more", other, 0), Lookup::Known(Err(_))));
        resolver.forget(one);
        assert_eq!(resolver.queue.0.lock().unwrap().names.iter().map(|name| &**name).collect::<Vec<_>>(), ["7"]);
        assert!(matches!(resolver.look_up("more", other, 0), Lookup::Asked));
        resolver.forget(other);
        assert!(!resolver.is_busy());
    }

    #[test]
    fn localhost_resolves() {
        assert!(resolve("localhost").is_ok_and(|list| list.iter().all(IpAddr::is_loopback)));
    }
}
