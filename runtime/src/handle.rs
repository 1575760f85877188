//! What other threads may ask of a runtime.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
        mpsc::{self, SyncSender},
    },
    time::Duration,
};

use mio::Waker;

/// Stops a runtime from another thread or a signal handler's thread.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) orders: Arc<Orders>,
    pub(crate) waker: Arc<Waker>,
}

/// What other threads want of the loop.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) stop: AtomicBool,
    pub(crate) status: AtomicI32,
    /// Who wants to know what the tasks do.
    pub(crate) list: Mutex<Option<SyncSender<Vec<String>>>>,
}

impl Handle {
    /// Asks the running script to end, as SIGTERM does; [`run_source`](crate::Runtime::run_source) then answers `status`.
    pub fn stop(&self, status: i32) {
        self.orders.status.store(status, Ordering::Relaxed);
        self.orders.stop.store(true, Ordering::Release);
        // The loop is woken or has ended; there is nothing else to do with a failure.
        let _ = self.waker.wake();
    }

    /// A line for each live task: its name, and what it waits for. `None` when the loop does not
    /// answer within `time`: a script hogs it, or it has ended.
    pub fn describe_tasks(&self, time: Duration) -> Option<Vec<String>> {
        let (sender, answer) = mpsc::sync_channel(1);
        *self.orders.list.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.waker.wake().ok()?;
        answer.recv_timeout(time).ok()
    }
}
