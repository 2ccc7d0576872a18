//! Usage as the store keeps it: roll-ups that the drain of the journal adds to and reports read.
//!
//! | table | one row for each | for |
//! | --- | --- | --- |
//! | `usage_seconds` | second, key, asset, exchange, transport, status | usage reports |
//! | `usage_hours` | hour and the same | summaries |
//! | `usage_key_hours` | hour, key, transport, status | summaries without assets and exchanges |
//! | `usage_asset_hours` | hour, asset, exchange, transport, status | summaries without keys |
//! | `usage_months` | key, month, status | monthly caps |
//! | `drained_records` | day, chain, key | the closed-books check |
//! | `drained_chains` | chain | the drain's position |
//! | `usage_records` | record | where `store.raw_records` asks for it |

mod books;
mod histogram;
mod prune;
mod query;
mod raw;
mod write;

pub use books::{DrainedRecords, MonthUse, RolledUp, StoreBooks};
pub use histogram::{BUCKETS, Histogram};
pub use prune::{UsagePrune, UsagePruned};
pub use query::{Buckets, UsageFilter, UsageGroup, UsageGroupSums, UsagePage, UsagePlace};
pub use write::{ChainStep, DrainedChain, UsageBatch};

/// What one roll-up row is about, but for its time. Ordered as the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageOf {
    /// Persistent number of the key.
    pub key: u32,
    /// Persistent number of the asset; of the first one where several were asked for.
    pub asset: u16,
    /// Persistent number of the exchange that priced it.
    pub exchange: u8,
    /// How the requests came: the number of a [`Transport`](crate::ledger::Transport).
    pub transport: u8,
    /// 0 for a price, else the error's number on the wire.
    pub status: u8,
}

/// What is added up in a roll-up row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// Requests answered.
    pub requests: u64,
    /// Assets answered: more than requests where several were asked for at once.
    pub prices: u64,
    /// Latencies added up, in nanoseconds.
    pub latency_ns_sum: u64,
    /// The longest of them.
    pub latency_ns_max: u64,
    /// All of them, by bucket.
    pub latency: Histogram,
}

/// One roll-up row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Seconds or hours since the Unix epoch, by the table.
    pub time: u64,
    /// What it is about.
    pub of: UsageOf,
    /// What was added up.
    pub sums: UsageSums,
}

impl UsageSums {
    /// Adds another row's.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.prices = self.prices.saturating_add(other.prices);
        self.latency_ns_sum = self.latency_ns_sum.saturating_add(other.latency_ns_sum);
        self.latency_ns_max = self.latency_ns_max.max(other.latency_ns_max);
        self.latency.merge(&other.latency);
    }
}

#[cfg(test)]
mod tests;
