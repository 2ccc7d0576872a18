//! What became of a stretch of load.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::wire::ErrorCode;

/// Counts and latencies of one stretch. Over a whole run,
/// `sent = matched + refused + late + lost + still under way`.
#[derive(Clone)]
pub struct Tally {
    /// How long the stretch took.
    pub elapsed: Duration,
    /// How much of it the generator found nothing to do.
    pub idle: Duration,
    /// Requests the kernel took.
    pub sent: u64,
    /// Right answers in time.
    pub matched: u64,
    /// Refusals in time, by the number of their code less one.
    pub refused_by_code: [u64; ErrorCode::ALL.len()],
    /// Requests given up because no answer came in time.
    pub overdue: u64,
    /// Answers to requests that had been given up.
    pub late: u64,
    /// Further answers to answered requests.
    pub duplicate: u64,
    /// Datagrams that answer nothing that was asked.
    pub wrong: u64,
    /// Requests of the schedule that were not sent, because too many were under way.
    pub held_back: u64,
    /// Requests the kernel refused.
    pub send_failed: u64,
    /// Answers the kernel dropped because a socket of the generator was full.
    pub dropped: u64,
    /// Payload bytes of right answers.
    pub answer_bytes: u64,
    /// Nanoseconds from when a request should have left to its answer in time.
    pub latency_ns: Histogram<u64>,
}

impl Tally {
    /// Longest latency that is told apart, in nanoseconds.
    const LATENCY_NS_MAX: u64 = 60_000_000_000;

    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            idle: Duration::ZERO,
            sent: 0,
            matched: 0,
            refused_by_code: [0; ErrorCode::ALL.len()],
            overdue: 0,
            late: 0,
            duplicate: 0,
            wrong: 0,
            held_back: 0,
            send_failed: 0,
            dropped: 0,
            answer_bytes: 0,
            // The bounds are right by their constants: 1 ≤ low, 2 × low ≤ high, 0..=5 digits.
            latency_ns: Histogram::new_with_bounds(1, Self::LATENCY_NS_MAX, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds")),
        }
    }

    /// Requests given up to which no answer has come since.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.overdue.saturating_sub(self.late)
    }

    /// Right answers a second.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.matched as f64 / seconds } else { 0.0 }
    }

    /// Part of the time the generator was at work, 0 to 1.
    #[must_use]
    pub fn busy(&self) -> f64 {
        let elapsed = self.elapsed.as_secs_f64();
        if elapsed > 0.0 { 1.0 - self.idle.as_secs_f64() / elapsed } else { 0.0 }
    }

    /// Adds another stretch to this one.
    pub fn add(&mut self, other: &Self) {
        self.elapsed += other.elapsed;
        self.idle += other.idle;
        self.sent += other.sent;
        self.matched += other.matched;
        for (to, from) in self.refused_by_code.iter_mut().zip(other.refused_by_code) {
            *to += from;
        }
        self.overdue += other.overdue;
        self.late += other.late;
        self.duplicate += other.duplicate;
        self.wrong += other.wrong;
        self.held_back += other.held_back;
        self.send_failed += other.send_failed;
        self.dropped += other.dropped;
        self.answer_bytes += other.answer_bytes;
        // Same bounds on both sides, so nothing can be out of range.
        self.latency_ns.add(&other.latency_ns).unwrap_or_else(|_| unreachable!("same bounds"));
    }

    /// Refusals in time.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_by_code.iter().sum()
    }

    pub(crate) fn record_refused(&mut self, code: ErrorCode) {
        if let Some(count) = self.refused_by_code.get_mut(usize::from(code.number() - 1)) {
            *count += 1;
        }
    }

    pub(crate) fn record_latency(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns.saturating_record(ns);
    }
}

impl fmt::Debug for Tally {
    /// Without the histogram's thousands of cells.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("elapsed", &self.elapsed)
            .field("sent", &self.sent)
            .field("matched", &self.matched)
            .field("refused_by_code", &self.refused_by_code)
            .field("overdue", &self.overdue)
            .field("late", &self.late)
            .field("duplicate", &self.duplicate)
            .field("wrong", &self.wrong)
            .field("held_back", &self.held_back)
            .field("send_failed", &self.send_failed)
            .field("dropped", &self.dropped)
            .field("latency_ns_max", &self.latency_ns.max())
            .finish_non_exhaustive()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}
