//! The watch over hogs: a script that computes on and on without waiting is reported with its line.
//!
//! Nothing runs while all is well. A timer counts the processor time of the loop's thread; when it
//! goes off twice within one turn of a task, its signal's handler sets a hook on the coroutine that
//! runs, as Lua's own interpreter does for an interrupt; the hook says where it is and goes away.

use std::{
    ffi::{CStr, c_int},
    io, mem, ptr,
    rc::Rc,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
    time::Duration,
};

use mlua::ffi as lua;

use super::Raw;
use crate::{complaint::complain, shared::Shared};

/// The signal: ignored by default, so one that comes late does no harm.
const SIGNAL: c_int = libc::SIGURG;

/// What the handler looks at. One runtime of a process is watched.
static WATCHED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());
/// The turn in which the timer went off last.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// How often it has gone off in that turn.
static TIMES: AtomicU32 = AtomicU32::new(0);
/// Half the processor time a turn may take, in milliseconds.
static PERIOD: AtomicU32 = AtomicU32::new(0);

/// The watch over one runtime; it ends when this is dropped.
pub(crate) struct HogWatch {
    timer: libc::timer_t,
    /// Keeps what the handler looks at.
    _shared: Rc<Shared>,
}

impl HogWatch {
    /// Starts to watch the runtime of this thread. `limit` is the processor time a turn may take.
    pub(crate) fn start(shared: &Rc<Shared>, limit: Duration) -> io::Result<Self> {
        let free = WATCHED.compare_exchange(
            ptr::null_mut(),
            Rc::as_ptr(shared).cast_mut(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if free.is_err() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another runtime of this process is watched"));
        }
        match arm(limit / 2) {
            Ok(timer) => {
                PERIOD.store((limit.as_millis() / 2).min(u128::from(u32::MAX)) as u32, Ordering::Relaxed);
                Ok(Self { timer, _shared: shared.clone() })
            }
            Err(error) => {
                WATCHED.store(ptr::null_mut(), Ordering::Release);
                Err(error)
            }
        }
    }
}

impl Drop for HogWatch {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `arm` and is deleted once.
        unsafe { libc::timer_delete(self.timer) };
        WATCHED.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Has the signal sent to this thread after each `period` of its processor time.
fn arm(period: Duration) -> io::Result<libc::timer_t> {
    let check = |result: c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: all-zero is a valid value of these plain C structures, and each call gets pointers
    // to live ones.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        check(libc::sigaction(SIGNAL, &action, ptr::null_mut()))?;
        let mut event: libc::sigevent = mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = mem::zeroed();
        check(libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &mut event, &mut timer))?;
        let interval =
            libc::timespec { tv_sec: period.as_secs() as libc::time_t, tv_nsec: period.subsec_nanos().max(1).into() };
        let setting = libc::itimerspec { it_interval: interval, it_value: interval };
        let started = check(libc::timer_settime(timer, 0, &setting, ptr::null_mut()));
        if started.is_err() {
            libc::timer_delete(timer);
        }
        started.map(|()| timer)
    }
}

/// The handler. It runs on the loop's own thread, between any two instructions.
extern "C" fn on_signal(_signal: c_int) {
    let watched = WATCHED.load(Ordering::Acquire);
    if watched.is_null() {
        return;
    }
    // SAFETY: `HogWatch` keeps it alive while it is watched; the cells hold plain words.
    let (running, turn) = unsafe { ((*watched).running.get(), (*watched).turn.get()) };
    if SEEN.swap(turn, Ordering::Relaxed) != turn {
        TIMES.store(1, Ordering::Relaxed);
        return;
    }
    let times = TIMES.fetch_add(1, Ordering::Relaxed) + 1;
    // Said again each time it has taken twice as long.
    if !running.is_null() && times.is_power_of_two() {
        // SAFETY: Lua says that this one function may be called from a signal's handler.
        unsafe { lua::lua_sethook(running, Some(report), lua::LUA_MASKCOUNT, 1) };
    }
}

/// The hook: says where the script is, and goes away.
unsafe extern "C-unwind" fn report(state: Raw, _activation: *mut lua::lua_Debug) {
    // SAFETY: only looks at the calls of the running coroutine, and allocates nothing in Lua.
    unsafe {
        lua::lua_sethook(state, None, 0, 0);
        let mut activation: lua::lua_Debug = mem::zeroed();
        let mut level = 0;
        while lua::lua_getstack(state, level, &mut activation) != 0 {
            lua::lua_getinfo(state, c"Sl".as_ptr(), &mut activation);
            if activation.currentline > 0 {
                break;
            }
            level += 1;
        }
        let source = CStr::from_ptr(activation.short_src.as_ptr()).to_string_lossy();
        let time = f64::from(TIMES.load(Ordering::Relaxed)) * f64::from(PERIOD.load(Ordering::Relaxed)) / 1000.0;
        let name = match super::shared(state).core.try_borrow() {
            Ok(core) => core.scheduler.current.and_then(|id| core.scheduler.tasks.get(id)).map(|task| task.label()),
            Err(_) => None,
        };
        let name = name.unwrap_or_else(|| "a task".to_owned());
        let line = activation.currentline;
        complain(format_args!("{name} has kept the others waiting for {time} s, at {source}:{line}"));
    }
}
