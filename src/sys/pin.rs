//! Which processors this process may use, and pinning a thread to one.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processors this process may run on, by number, in rising order.
///
/// # Errors
/// The kernel's.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// The kernel's: the processor is not there or not allowed.
pub fn pin_thread(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_kept_on_one_of_the_processors_there_are() {
        let last = *cpus().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin_thread(last).unwrap();
            assert_eq!(cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
        assert!(pin_thread(100_000).is_err());
    }
}
