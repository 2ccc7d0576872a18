//! Processor time of the generator's own threads.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What the calling thread has used so far; zero where the kernel does not tell.
pub(crate) fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
