//! What was used, told to those who used it and to the operator: over HTTP (9090), over UDP (2680)
//! and at the terminal.
//!
//! ```text
//!   parameters ─► Query ─┬─► store: roll-ups ──────┐
//!   key ─► Scope ────────┤                         ├─► Table ─► json, csv, tsv, text, datagram
//!                        ├─► journal: records ─────┤
//!                        └─► counters of shards ───┘
//! ```
//!
//! Nothing here is on the answer path: it reads what the back office has written, files of the journal
//! and published counters, and never waits for a shard.

mod cursor;
mod detail;
mod export;
mod exports;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod http;
mod names;
mod pages;
mod query;
mod reconcile;
mod refusal;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod udp;

pub use cursor::{Cursor, CursorError};
pub use export::{ExportError, ExportForm, export};
pub use exports::KeepExports;
pub use format::Format;
pub use http::router;
pub use names::Names;
pub use pages::Page;
pub use query::{Filter, LIMIT_DEFAULT, LIMIT_MAX, Query, Scope, Which, group_name};
pub use reconcile::OwnShard;
pub use refusal::Refusal;
pub use service::{ReadShards, Report, Reports};
pub use table::{Cell, Column, Kind, Table, instant_text};
pub use udp::answer as answer_datagram;
