//! What is asked of the operating system: cores, limits, memory and CPU time of processes.

use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::Pid;

use crate::Result;

/// The core servers run on, and programs that are timed as a whole.
pub const SERVER_CORE: usize = 0;
/// The core load generators, clients and this program itself run on.
pub const LOAD_CORE: usize = 1;

/// Keeps this thread, and what it starts from now on, on one core. False if the machine does not have or give it.
pub fn stay_on(core: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(core).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

/// Allows this process and its children as many open files as may be; tells how many.
pub fn raise_open_files() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Resident memory of a running process, in KiB.
pub fn resident_kib(process: u32) -> Result<f64> {
    // `status` would be off by what each CPU has not yet added to the sum.
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix("kB"));
    Ok(kib.ok_or("no Rss in smaps_rollup")?.trim().parse()?)
}

/// Seconds a single-threaded process has been on a core, if the kernel counts them.
pub fn seconds_on_core(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// The largest resident memory any ended child of this process had, in KiB.
///
/// A child counts from before it became its own program: the answer is never below this process's own peak.
pub fn peak_of_children_kib() -> Result<f64> {
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() as f64)
}
