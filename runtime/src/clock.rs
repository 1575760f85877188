//! Time: a real or a virtual clock, and the deadlines that wait on it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

/// Nanoseconds since the runtime was built.
pub(crate) type Nanos = u64;

/// A time that does not come.
pub(crate) const NEVER: Nanos = Nanos::MAX;

/// Seconds from a script as nanoseconds; what is too large to count is [`NEVER`].
pub(crate) fn nanos(seconds: f64) -> Nanos {
    // A float-to-integer cast saturates, and makes 0 of negative numbers and NaN.
    let at = (seconds * 1e9).ceil() as Nanos;
    // Upward: who computes a time in seconds and waits for it must not be woken before it.
    if self::seconds(at) < seconds { at.saturating_add(1) } else { at }
}

/// Nanoseconds as a script's seconds.
pub(crate) fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

/// The time, read once a turn of the loop.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    now: Nanos,
    is_virtual: bool,
}

impl Clock {
    /// A clock that starts at 0; a virtual one moves only when it is told to.
    pub(crate) fn new(is_virtual: bool) -> Self {
        Self { origin: Instant::now(), now: 0, is_virtual }
    }

    /// The time as last read.
    pub(crate) fn now(&self) -> Nanos {
        self.now
    }

    /// Reads the time.
    pub(crate) fn refresh(&mut self) -> Nanos {
        if !self.is_virtual {
            self.now = self.origin.elapsed().as_nanos() as Nanos;
        }
        self.now
    }

    pub(crate) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// Moves a virtual clock forward.
    pub(crate) fn jump(&mut self, to: Nanos) {
        debug_assert!(self.is_virtual);
        self.now = self.now.max(to);
    }

    /// How long until `at`, for the poll; `None` waits without end.
    pub(crate) fn until(&self, at: Nanos) -> Option<Duration> {
        (at != NEVER).then(|| Duration::from_nanos(at.saturating_sub(self.now)))
    }
}

/// Deadlines in order. An owner keeps at most one live entry and remembers its time, so moving
/// a deadline to later costs nothing: the entry pops early and is pushed again.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Nanos, K)>>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    pub(crate) fn push(&mut self, at: Nanos, owner: K) {
        self.heap.push(Reverse((at, owner)));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the next entry pops.
    pub(crate) fn next(&self) -> Nanos {
        self.heap.peek().map_or(NEVER, |Reverse((at, _))| *at)
    }

    /// Takes the next entry that is due.
    pub(crate) fn pop(&mut self, now: Nanos) -> Option<(Nanos, K)> {
        (self.next() <= now).then(|| self.heap.pop())?.map(|Reverse(entry)| entry)
    }

    /// Drops the entries that `is_live` denies once they outnumber `live` owners by far, so that
    /// short-lived owners with long deadlines do not pile up.
    pub(crate) fn compact(&mut self, live: usize, is_live: impl Fn(Nanos, K) -> bool) {
        if self.heap.len() > 1024 + 4 * live {
            self.heap.retain(|Reverse((at, owner))| is_live(*at, *owner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_that_no_clock_reaches_are_never() {
        assert_eq!(nanos(f64::INFINITY), NEVER);
        assert_eq!(nanos(1e300), NEVER);
        assert_eq!(nanos(-1.0), 0);
        assert_eq!(nanos(f64::NAN), 0);
        assert_eq!(nanos(1.5), 1_500_000_000);
    }

    #[test]
    fn a_time_in_nanoseconds_is_not_before_the_same_in_seconds() {
        for step in [0.001_001, 0.05, 1.1, 3.3e-9] {
            let mut at = 0.0;
            for _ in 0..20_000 {
                at += step;
                assert!(seconds(nanos(at)) >= at, "{at}");
            }
        }
    }

    #[test]
    fn entries_pop_in_order_and_only_when_due() {
        let mut timers = Timers::new();
        for (at, owner) in [(30, 'c'), (10, 'a'), (20, 'b')] {
            timers.push(at, owner);
        }
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(25), Some((10, 'a')));
        assert_eq!(timers.pop(25), Some((20, 'b')));
        assert_eq!(timers.pop(25), None);
        assert_eq!(timers.next(), 30);
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let mut timers = Timers::new();
        for owner in 0..5000 {
            timers.push(1000, owner);
            timers.compact(1, |_, owner| owner == 4999);
        }
        assert!(timers.heap.len() <= 1029, "{}", timers.heap.len());
    }
}
