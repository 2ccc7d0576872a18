//! Forgetting what is old enough, or too much.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::ledger::{Journal, Prune};
use crate::store::{Store, UsagePrune, UsagePruned};
use crate::time::{Clock as _, RealClock, UnixNs};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long what is kept. An age or size of `None` is no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionOptions {
    /// Segments of the journal, once drained: the detail of usage.
    pub detail: Option<Duration>,
    /// Usage by second, and records kept as rows.
    pub seconds: Option<Duration>,
    /// Usage by hour.
    pub hours: Option<Duration>,
    /// Bytes of the store; records kept as rows go, then usage by second, oldest first.
    pub store_bytes_max: Option<u64>,
}

/// What forgets.
#[derive(Debug)]
pub struct Retention {
    journal: Arc<Journal>,
    store: Arc<Store>,
    options: RetentionOptions,
}

impl Retention {
    /// Nothing is forgotten yet.
    #[must_use]
    pub fn new(journal: Arc<Journal>, store: Arc<Store>, options: RetentionOptions) -> Self {
        Self { journal, store, options }
    }

    /// Looks now and then until `stop` says something or its sender is gone.
    pub fn run(&self, stop: &Receiver<()>) {
        let mut said = false;
        while matches!(stop.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout)) {
            match self.look(RealClock.now().unix) {
                Ok(()) => said = false,
                Err(error) if !said => {
                    said = true;
                    tracing::warn!("what is old cannot be removed: {error}");
                }
                Err(_) => {}
            }
        }
    }

    /// Forgets what is too old or too much at `now`.
    ///
    /// # Errors
    /// What the journal or the store said, or that the store is too small for what must stay.
    pub fn look(&self, now: UnixNs) -> Result<(), String> {
        let before = |age: Option<Duration>| {
            age.map(|age| now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)))
        };
        let seconds_before = |age| before(age).unwrap_or(0) / 1_000_000_000;
        let prune = Prune {
            before: before(self.options.detail).map(UnixNs),
            // By size they go when their room is needed: the journal sees to that itself.
            bytes_max: None,
        };
        let detail = self.journal.prune(prune).map_err(|error| error.to_string());
        let usage = self.store.prune_usage(UsagePrune {
            seconds_before: seconds_before(self.options.seconds),
            hours_before: seconds_before(self.options.hours),
            records_before: seconds_before(self.options.seconds),
            bytes_max: self.options.store_bytes_max,
        });
        // One that fails does not keep the other from its work.
        let UsagePruned { rows, too_small } = usage.map_err(|error| error.to_string())?;
        let detail = detail?;
        if rows > 0 || detail.segments > 0 {
            tracing::info!(rows, segments = detail.segments, "removed usage that was kept long enough");
        }
        if too_small {
            return Err(
                "the store holds more than it may, though of its usage by second only the last hour is \
                        left, which stays; raise retention.store_mib, or lower retention.hours_days"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
