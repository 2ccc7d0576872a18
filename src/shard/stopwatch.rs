//! How long requests took, without a look at the clock for each.
//!
//! A turn's requests count from the turn's own instant. The clock is read for the first answer of a turn
//! and for every eighth after it, so a latency is short by at most what seven answers take.

use crate::time::MonoNs;

/// Answers between two looks at the clock.
const LOOK_EVERY: u8 = 8;

/// Tells latencies.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    /// None in tests whose time is scripted: there everything happens at once.
    clock: Option<fn() -> MonoNs>,
    turn: MonoNs,
    read: MonoNs,
    /// Answers until the next look.
    left: u8,
    /// When the request was received that is answered now; of the turn unless it has waited.
    received: Option<MonoNs>,
}

impl Stopwatch {
    pub(super) fn set_clock(&mut self, clock: fn() -> MonoNs) {
        self.clock = Some(clock);
    }

    /// The next answer is to a request of that instant, or of the turn.
    #[inline]
    pub(super) fn received(&mut self, at: Option<MonoNs>) {
        self.received = at;
    }

    /// Nanoseconds from receiving the request to now, in a turn that began at `turn`.
    #[inline]
    pub(super) fn latency_ns(&mut self, turn: MonoNs) -> u32 {
        if self.left == 0 || self.turn != turn {
            self.read = self.clock.map_or(turn, |clock| clock());
            (self.turn, self.left) = (turn, LOOK_EVERY);
        }
        self.left -= 1;
        let taken = self.read.0.saturating_sub(self.received.unwrap_or(turn).0);
        u32::try_from(taken).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_clock_is_read_once_a_turn_and_for_every_eighth_answer() {
        static HANDS: AtomicU64 = AtomicU64::new(1_000);
        let mut watch = Stopwatch::default();
        assert_eq!(watch.latency_ns(MonoNs(7)), 0);
        watch.set_clock(|| MonoNs(HANDS.fetch_add(100, Ordering::Relaxed)));
        let taken: Vec<u32> = (0..10).map(|_| watch.latency_ns(MonoNs(900))).collect();
        assert_eq!(taken, [100, 100, 100, 100, 100, 100, 100, 100, 200, 200]);
        assert_eq!(watch.latency_ns(MonoNs(1_000)), 200);
        watch.received(Some(MonoNs(50)));
        assert_eq!(watch.latency_ns(MonoNs(1_000)), 1_150);
        watch.received(Some(MonoNs(9_000)));
        assert_eq!(watch.latency_ns(MonoNs(1_000)), 0);
    }
}
