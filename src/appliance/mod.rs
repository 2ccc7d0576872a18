//! The whole process put together: from a configuration to threads that answer, and back to
//! nothing. This is where the rooms meet, so it may name them all.
//!
//! ```text
//!  config ─► topology ─► sockets ─► shards (pinned threads) ◄── links ── sessions on the shards
//!     │                                ▲   ▲                                ▲
//!     └─► store ─► keys, every 500 ms ─┘   └─ links ── REST desk ◄── asks ──┘ dialled here
//!                     back office: one tokio runtime on a thread of its own
//! ```

mod backoffice;
mod books;
mod feed_setup;
mod feeds;
mod handover;
mod journal;
mod key_watch;
mod months;
mod report_server;
mod reports;
mod rest;
mod secrets;
mod session;
mod shards;
mod start;
mod starter;
mod steering;
#[cfg(test)]
mod tests;
mod tls;
mod topology;
mod verify;
mod xdp;

pub use feed_setup::{FeedSetup, SetupError, feed_setup};
pub use handover::{Handover, Predecessor, Successor};
pub use report_server::ReportServer;
pub use reports::keep_exports;
pub use start::{Addresses, Appliance, StartError};
pub use steering::Steering;
pub use topology::Topology;
pub use verify::{FirstPrice, RefusedSymbol, Verified, Verify, verify};
