//! How politely a thread asks for processor time.
#![expect(unsafe_code, reason = "setpriority has no safe face")]

use std::io;

/// Makes the calling thread nicer: from 0, as threads are, to 19, which yields to almost everybody.
/// Needs no privilege and cannot be taken back without one.
///
/// # Errors
/// The kernel's; never for want of privilege when the thread is not nicer yet.
pub fn be_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only. On Linux PRIO_PROCESS with 0 means the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 19 of a thread's stat, counted behind its name.
    fn nice_of_this_thread() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn one_thread_becomes_nice_and_the_others_stay_as_they_are() {
        let before = nice_of_this_thread();
        std::thread::spawn(|| {
            be_nice(15).unwrap();
            assert_eq!(nice_of_this_thread(), 15);
        })
        .join()
        .unwrap();
        assert_eq!(nice_of_this_thread(), before);
    }
}
