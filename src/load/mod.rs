//! Load on a server, and what became of it.
//!
//! ```text
//!             fill                sendmmsg
//! Requests ───────► SendBatch ───────────────► server
//!    ▲                  Flights: id → when it should have left
//!    └── check ◄── ReceiveBatch ◄─────────────
//!          └─► Flights::land ─► Tally: matched, refused, late, duplicate, wrong, lost
//! ```
//!
//! [`HttpLoad`] does the same over kept-alive connections. Each of them is one thread. It spins: its
//! core belongs to it, and a generator that sleeps measures its own waking.

mod flights;
pub mod floor;
mod http;
pub mod latency;
pub mod machine;
pub mod report;
mod requests;
pub mod result;
pub mod server;
mod tally;
mod udp;
mod v1;
mod v2;

pub use http::{HttpExchange, HttpLoad, HttpLoadOptions};
pub use requests::{Echo, Requests, Verdict};
pub use tally::Tally;
pub use udp::{Pace, UdpLoad, UdpLoadOptions};
pub use v1::V1;
pub use v2::V2;
