//! How long to wait before the next attempt to connect.

use std::time::Duration;

use crate::time::MonoNs;

/// Longest wait after the first failure; the shortest is half of it.
const FIRST: Duration = Duration::from_secs(2);

/// Longest wait after any failure.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a connection must last and be heard before failures are forgotten. An exchange that
/// accepts, answers and hangs up at once must not be dialled every second.
const HEALTHY: Duration = Duration::from_secs(60);

/// Jittered exponential backoff of one connection: 1 to 2 s after the first failure, twice as much
/// after each further one, at most 30 to 60 s.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    open_since: Option<MonoNs>,
}

impl Backoff {
    /// Without failures.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection is open.
    pub fn opened(&mut self, now: MonoNs) {
        self.open_since = Some(now);
    }

    /// A frame was heard on it. After a healthy minute the failures are forgotten; whether it had one.
    pub fn heard(&mut self, now: MonoNs) -> bool {
        let healthy = self.open_since.is_some_and(|since| now.since(since) >= HEALTHY);
        if healthy {
            self.failures = 0;
        }
        healthy
    }

    /// The connection or the attempt has failed: how long to wait before the next one. `random` is
    /// uniform over all its values.
    pub fn failed(&mut self, random: u64) -> Duration {
        self.open_since = None;
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let shortest = longest / 2;
        let range_ns = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        shortest + Duration::from_nanos(random % range_ns)
    }

    /// Failures since the last healthy minute.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> MonoNs {
        MonoNs(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let mut backoff = Backoff::new();
        let shortest: Vec<_> = (0..8).map(|_| backoff.failed(0).as_secs()).collect();
        assert_eq!(shortest, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(Backoff::new().failed(1_000_000_000), Duration::from_secs(2));
    }

    #[test]
    fn only_a_healthy_minute_forgets_failures() {
        let mut backoff = Backoff::new();
        backoff.failed(0);
        backoff.failed(0);
        backoff.opened(seconds(100));
        assert!(!backoff.heard(seconds(159)));
        assert_eq!(backoff.failures(), 2);
        assert_eq!(backoff.failed(0), Duration::from_secs(4));
        backoff.heard(seconds(500));
        assert_eq!(backoff.failures(), 3, "nothing is open");
        backoff.opened(seconds(500));
        assert!(backoff.heard(seconds(560)));
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.failed(0), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn every_wait_is_within_its_bounds(failures in 0_u32..200, random: u64) {
            let mut backoff = Backoff::new();
            for _ in 0..failures {
                backoff.failed(random);
            }
            let wait = backoff.failed(random);
            prop_assert!((Duration::from_secs(1)..=LONGEST).contains(&wait));
        }
    }
}
