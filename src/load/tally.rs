//! What became of a stretch of load.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::latency::{as_text, histogram, record};
use super::result::Counts;
use crate::wire::ErrorCode;

/// Counts and latencies of one stretch. Over a whole run,
/// `sent = matched + refused + wrong + late + lost + still under way`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tally {
    /// How long the stretch took.
    pub elapsed: Duration,
    /// How much of it the generator found nothing to do.
    pub idle: Duration,
    /// Processor time the generator used in it.
    pub cpu: Duration,
    /// Requests the kernel took.
    pub sent: u64,
    /// Right answers in time.
    pub matched: u64,
    /// Refusals by UDP in time, by the number of their code less one.
    pub refused_by_code: [u64; ErrorCode::ALL.len()],
    /// HTTP answers by status, in time or late.
    pub statuses: BTreeMap<u16, u64>,
    /// HTTP answers in time whose status was not 200, by status.
    pub refused_by_status: BTreeMap<u16, u64>,
    /// Requests given up because no answer came in time.
    pub overdue: u64,
    /// Answers to requests that had been given up.
    pub late: u64,
    /// Further answers to answered requests.
    pub duplicate: u64,
    /// Requests answered by something else than what they asked for.
    pub wrong: u64,
    /// What came and answers no request that was asked.
    pub stray: u64,
    /// Requests that should have left, of an open loop.
    pub scheduled: u64,
    /// Requests of the schedule that were not sent, because too many were under way.
    pub held_back: u64,
    /// Requests the kernel refused.
    pub send_failed: u64,
    /// How often the kernel said that nobody listens.
    pub port_closed: u64,
    /// Connections that the server closed or did not answer on, and that were opened again.
    pub reconnected: u64,
    /// Answers the kernel dropped because a socket of the generator was full.
    pub dropped: u64,
    /// Payload bytes of right answers.
    pub answer_bytes: u64,
    /// Nanoseconds from when a request should have left to its right answer in time.
    #[serde(with = "as_text")]
    pub latency_ns: Histogram<u64>,
    /// Nanoseconds by which requests of a schedule left late although nothing but the generator kept
    /// them.
    #[serde(with = "as_text")]
    pub lag_ns: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            idle: Duration::ZERO,
            cpu: Duration::ZERO,
            sent: 0,
            matched: 0,
            refused_by_code: [0; ErrorCode::ALL.len()],
            statuses: BTreeMap::new(),
            refused_by_status: BTreeMap::new(),
            overdue: 0,
            late: 0,
            duplicate: 0,
            wrong: 0,
            stray: 0,
            scheduled: 0,
            held_back: 0,
            send_failed: 0,
            port_closed: 0,
            reconnected: 0,
            dropped: 0,
            answer_bytes: 0,
            latency_ns: histogram(),
            lag_ns: histogram(),
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
        self.cpu += other.cpu;
        for (to, from) in self.refused_by_code.iter_mut().zip(other.refused_by_code) {
            *to += from;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (status, count) in &other.refused_by_status {
            *self.refused_by_status.entry(*status).or_default() += count;
        }
        for (to, from) in [
            (&mut self.sent, other.sent),
            (&mut self.matched, other.matched),
            (&mut self.overdue, other.overdue),
            (&mut self.late, other.late),
            (&mut self.duplicate, other.duplicate),
            (&mut self.wrong, other.wrong),
            (&mut self.stray, other.stray),
            (&mut self.scheduled, other.scheduled),
            (&mut self.held_back, other.held_back),
            (&mut self.send_failed, other.send_failed),
            (&mut self.port_closed, other.port_closed),
            (&mut self.reconnected, other.reconnected),
            (&mut self.dropped, other.dropped),
            (&mut self.answer_bytes, other.answer_bytes),
        ] {
            *to += from;
        }
        // All histograms here have the same bounds, so nothing can be out of range.
        self.latency_ns.add(&other.latency_ns).unwrap_or_else(|_| unreachable!("same bounds"));
        self.lag_ns.add(&other.lag_ns).unwrap_or_else(|_| unreachable!("same bounds"));
    }

    /// Refusals in time.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_by_code.iter().chain(self.refused_by_status.values()).sum()
    }

    /// The counts, as results show them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let by_code = ErrorCode::ALL.iter().zip(self.refused_by_code);
        let by_code = by_code.map(|(code, count)| (code.as_str().to_owned(), count));
        let by_status = self.refused_by_status.iter().map(|(status, n)| (format!("http_{status}"), *n));
        Counts {
            sent: self.sent,
            answered: self.matched,
            refused: by_code.chain(by_status).filter(|(_, count)| *count > 0).collect(),
            statuses: self.statuses.clone(),
            wrong: self.wrong,
            stray: self.stray,
            late: self.late,
            duplicate: self.duplicate,
            lost: self.overdue.cast_signed().saturating_sub(self.late.cast_signed()),
            held_back: self.held_back,
            send_failed: self.send_failed,
            port_closed: self.port_closed,
            reconnected: self.reconnected,
            dropped: self.dropped,
            answer_bytes: self.answer_bytes,
        }
    }

    pub(crate) fn record_refused(&mut self, code: ErrorCode) {
        if let Some(count) = self.refused_by_code.get_mut(usize::from(code.number() - 1)) {
            *count += 1;
        }
    }

    pub(crate) fn record_latency(&mut self, latency: Duration) {
        record(&mut self.latency_ns, latency);
    }

    pub(crate) fn record_lag(&mut self, lag: Duration) {
        record(&mut self.lag_ns, lag);
    }
}

/// A stretch that the kernel ended, with what it had come to.
pub(crate) struct Broken {
    pub(crate) tally: Box<Tally>,
    pub(crate) error: io::Error,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self { tally: Box::default(), error }
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        broken.error
    }
}

impl fmt::Debug for Tally {
    /// Without the histograms' thousands of cells.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("elapsed", &self.elapsed)
            .field("counts", &self.counts())
            .field("overdue", &self.overdue)
            .field("scheduled", &self.scheduled)
            .field("latency_ns_max", &self.latency_ns.max())
            .finish_non_exhaustive()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_passes_between_processes() {
        let mut tally = Tally::new();
        tally.record_latency(Duration::from_micros(70));
        tally.record_lag(Duration::from_secs(100));
        tally.record_refused(ErrorCode::Expired);
        tally.statuses.insert(503, 4);
        tally.refused_by_status.insert(503, 4);
        tally.overdue = 3;
        let text = serde_json::to_string(&tally).unwrap();
        let mut read: Tally = serde_json::from_str(&text).unwrap();
        assert_eq!(read.counts(), tally.counts());
        assert_eq!(read.latency_ns, tally.latency_ns);
        read.add(&tally);
        assert_eq!((read.refused(), read.lost(), read.lag_ns.len()), (10, 6, 2));
        assert_eq!(read.counts().refused["http_503"], 8);
    }
}
