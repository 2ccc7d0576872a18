//! What keys have used of their month: put together from the store and the journal, told to the
//! allowances that the shards share.
//!
//! ```text
//!   store: roll-ups of the month ──┐
//!                                  ├─► Allowances: at least so much is used
//!   journal: records behind them ──┘
//! ```
//!
//! The store says both as of one moment, months and how far they reach, so that the sum is exact also
//! while it is drained: at the start; when keys have changed, since a key may have come under a cap; and
//! when the process before this one has gone, whose last answers are known only then.

use std::collections::HashMap;
use std::sync::Arc;

use super::start::StartError;
use crate::account::{Allowances, Key, MonthSpan};
use crate::ledger::{ChainId, Journal};
use crate::store::Store;
use crate::time::UnixNs;

/// Keeps the allowances told.
#[derive(Clone)]
pub(super) struct Months {
    pub(super) allowances: Arc<Allowances>,
    pub(super) journal: Arc<Journal>,
    /// The month it was last.
    span: MonthSpan,
}

impl Months {
    pub(super) fn new(allowances: Arc<Allowances>, journal: Arc<Journal>) -> Self {
        Self { allowances, journal, span: MonthSpan::of(UnixNs(0)) }
    }

    /// Tells the allowances what capped keys have used in this month. Waits for disks.
    ///
    /// # Errors
    /// The store or the journal cannot be read.
    pub(super) fn seed(&mut self, store: &Store, keys: &[Key], now: UnixNs) -> Result<(), StartError> {
        let span = MonthSpan::of_near(self.span, now);
        if keys.iter().any(capped) {
            let used = month_use(store, &self.journal, span)?;
            for key in keys.iter().filter(|key| capped(key)) {
                let used = used.get(&key.number).copied().unwrap_or(0);
                if !self.allowances.seed(key.number, span.month, used) {
                    let (_, slots) = self.allowances.filled();
                    tracing::error!(
                        "more than {slots} limited keys were in use since the start; those too many are refused \
                         as overloaded: restart the server"
                    );
                    break;
                }
            }
        }
        self.span = span;
        Ok(())
    }

    /// Whether the clock was set back to an earlier month since [`seed`](Self::seed): then what was
    /// used in it counts again, and [`seed`](Self::seed) is due.
    pub(super) fn stepped_back(&self, now: UnixNs) -> bool {
        let month = MonthSpan::of_near(self.span, now).month;
        if month < self.span.month {
            self.allowances.step_back(month);
        }
        month < self.span.month
    }
}

fn capped(key: &Key) -> bool {
    !key.tier.unlimited && key.tier.monthly.is_some()
}

/// Requests that each key was answered with a price in a month.
fn month_use(store: &Store, journal: &Journal, span: MonthSpan) -> Result<HashMap<u32, u64>, StartError> {
    let mut used = HashMap::<u32, u64>::new();
    let stored = store.month_use(span.month.year_month())?;
    for (key, requests) in stored.answered {
        *used.entry(key).or_default() += requests;
    }
    let drained: HashMap<ChainId, u64> = stored.positions.into_iter().collect();
    journal.for_each_from(
        |chain| drained.get(&chain).copied().unwrap_or(0),
        |_, record| {
            if record.status == 0 && span.holds(record.time) {
                *used.entry(record.key).or_default() += 1;
            }
        },
    )?;
    Ok(used)
}
