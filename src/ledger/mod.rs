//! The usage record and its place before the send.
//!
//! A shard appends one record for every answer **before** the answer may leave, and the record's
//! identity travels in the answer. A segment that has no room refuses, and the request with it.
//!
//! ```text
//!   shard ─► Segment::append ─► mapped segment ─► Journal::read ─► drain, reports
//!              before the send     │    ▲
//!                            disk ◄┘    └─ keep (makes), sync (every second, seals), recovery (at start)
//! ```

mod check;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod journal;
mod keeper;
mod layout;
mod read;
mod record;
mod recovery;
mod segment;
mod view;

pub use error::JournalError;
pub use journal::{ChainInfo, Journal, JournalOptions, JournalStatus, Prune, Pruned, SegmentInfo};
pub use layout::SegmentIndex;
pub use read::Progress;
pub use record::{ChainId, RECORD_LEN, Record, RecordId, RequestId, Transport};
pub use recovery::Recovery;
pub use segment::Segment;
pub use view::{JournalView, Looked, ViewedSegment};

#[cfg(test)]
mod tests;
