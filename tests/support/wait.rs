//! Waiting for what must come, and no longer than that.

use std::time::{Duration, Instant};

/// No wait takes longer; what is waited for comes within a fraction of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something, and fails with the last reason when there never is.
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look)
}

/// As [`until`] with a time of its own, for what a contract bounds.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => {
                assert!(started.elapsed() < patience, "{what}: not within {patience:?}; at last: {last}");
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `Ok` when it holds.
pub(crate) fn holds(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}
