//! The back office: what is done with the books behind the answers. It drains the journal into the
//! store and forgets what is old enough.
//!
//! ```text
//!   journal ── records, in order ──► roll-up ── batch: rows and positions, one transaction ──► store
//!      ▲                                                                                         │
//!      └── release ◄── what the store says it has ◄── at a start, and after anything went wrong ─┘
//! ```
//!
//! A record is counted exactly once whatever happens, because nothing but the store's own positions says
//! where to go on. While the store is gone the journal holds the records.

mod drain;
mod retention;
mod rollup;
mod status;

pub use drain::{Drain, DrainOptions};
pub use retention::{Retention, RetentionOptions};
pub use rollup::Rollup;
pub use status::{DrainCounts, DrainStatus};

#[cfg(test)]
mod tests;
