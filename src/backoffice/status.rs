//! How the drain stands, for metrics and for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::time::UnixNs;

/// Written by the drain, read by everybody.
#[derive(Debug, Default)]
pub struct DrainStatus {
    records: AtomicU64,
    missing: AtomicU64,
    rows: AtomicU64,
    batches: AtomicU64,
    failures: AtomicU64,
    lag_records: AtomicU64,
    /// When the oldest record that is not in the store was made; 0 when there is none.
    oldest_ns: AtomicU64,
    error: Mutex<Option<String>>,
}

/// One reading of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainCounts {
    /// Records drained since the start.
    pub records: u64,
    /// Records that the journal could not give.
    pub missing: u64,
    /// Roll-up rows added or added to.
    pub rows: u64,
    /// Transactions they took.
    pub batches: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Records that are written and not yet drained.
    pub lag_records: u64,
    /// Age of the oldest of them, in whole seconds.
    pub lag_s: u64,
    /// Why the last attempt failed; `None` once one has succeeded.
    pub error: Option<String>,
}

impl DrainStatus {
    /// How it stands at `now`.
    #[must_use]
    pub fn read(&self, now: UnixNs) -> DrainCounts {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let lag_s = match load(&self.oldest_ns) {
            0 => 0,
            oldest => now.0.saturating_sub(oldest) / 1_000_000_000,
        };
        DrainCounts {
            records: load(&self.records),
            missing: load(&self.missing),
            rows: load(&self.rows),
            batches: load(&self.batches),
            failures: load(&self.failures),
            lag_records: load(&self.lag_records),
            lag_s,
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn drained(&self, records: u64, missing: u64, rows: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.missing.fetch_add(missing, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.oldest_ns.store(0, Ordering::Relaxed);
        self.set_error(None);
    }

    pub(super) fn failed(&self, error: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.set_error(Some(error));
    }

    /// A record of that time waits; only the oldest counts.
    pub(super) fn waits(&self, time: UnixNs) {
        // The drain alone writes it.
        if self.oldest_ns.load(Ordering::Relaxed) == 0 {
            self.oldest_ns.store(time.0.max(1), Ordering::Relaxed);
        }
    }

    pub(super) fn set_lag(&self, records: u64) {
        self.lag_records.store(records, Ordering::Relaxed);
        if records == 0 {
            self.oldest_ns.store(0, Ordering::Relaxed);
        }
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
