//! Processor time of another process, from /proc.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Processor time a process has used so far.
#[derive(Clone, Debug)]
pub struct CpuTime {
    /// All threads, also those that have ended; exact.
    pub process: Duration,
    /// Living threads by number.
    pub threads: BTreeMap<u32, ThreadTime>,
}

/// Processor time of one thread.
#[derive(Clone, Debug)]
pub struct ThreadTime {
    /// Its name.
    pub name: String,
    /// What the scheduler counts, behind by a tick at most.
    pub total: Duration,
    /// Ticks in user mode, sampled. Only the ratio to `system_ticks` means something.
    pub user_ticks: u64,
    /// Ticks in the kernel, sampled.
    pub system_ticks: u64,
}

/// What a process used between two readings.
#[derive(Clone, Debug)]
pub struct CpuUse {
    /// All threads.
    pub process: Duration,
    /// The thread that used most.
    pub busiest: Duration,
    /// Its name.
    pub busiest_name: String,
    /// Part of the busiest thread's time spent in user mode, 0 to 1; by sampled ticks.
    pub user_share: f64,
}

impl CpuTime {
    /// Reads it now.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
        let process = Duration::from(clock_gettime(clock)?);
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()) else {
                continue;
            };
            // A thread may end between the listing and here.
            let (Ok(schedstat), Ok(stat)) =
                (std::fs::read_to_string(path.join("schedstat")), std::fs::read_to_string(path.join("stat")))
            else {
                continue;
            };
            let total_ns = schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            // After "number (name) ", whose name may hold anything: state is field 3, utime 14.
            let (head, tail) = stat.rsplit_once(") ").unwrap_or(("", ""));
            let field = |n: usize| tail.split(' ').nth(n - 3).and_then(|v| v.parse().ok()).unwrap_or(0);
            threads.insert(
                id,
                ThreadTime {
                    name: head.split_once('(').map_or("", |(_, name)| name).to_owned(),
                    total: Duration::from_nanos(total_ns),
                    user_ticks: field(14),
                    system_ticks: field(15),
                },
            );
        }
        Ok(Self { process, threads })
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> CpuUse {
        let used = |id: &u32, now: &ThreadTime| {
            let before = earlier.threads.get(id);
            (
                now.total - before.map_or(Duration::ZERO, |b| b.total.min(now.total)),
                now.user_ticks.saturating_sub(before.map_or(0, |b| b.user_ticks)),
                now.system_ticks.saturating_sub(before.map_or(0, |b| b.system_ticks)),
                now.name.clone(),
            )
        };
        let busiest = self.threads.iter().map(|(id, now)| used(id, now)).max_by_key(|(total, ..)| *total);
        let (busiest, user, system, busiest_name) = busiest.unwrap_or_default();
        let ticks = user + system;
        CpuUse {
            process: self.process.saturating_sub(earlier.process),
            busiest,
            busiest_name,
            user_share: if ticks == 0 { 0.0 } else { user as f64 / ticks as f64 },
        }
    }
}
