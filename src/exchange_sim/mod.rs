//! Exchanges on loopback: the independent counterpart of the feeds.
//!
//! Each exchange's WebSocket and REST protocol is spoken here from its documentation, without a
//! line of the feeds' own code, so that an agreement between the two proves something.
//!
//! ```text
//!            ┌ listener (plain, TLS) ── hyper ─┬─ /rest/<exchange>/…  → protocol::rest
//!  client ──►┤                                 └─ /ws/<exchange>      → session ── protocol
//!            └                                                            ▲   ▲
//!                    generator ── trades ──► Market ── broadcast ─────────┘   │
//!                    Control (any thread) ── cut, stall, garbage, trade ──────┘
//! ```
//!
//! A protocol is pure: received text, trades and the time go in, frames come out. A market is one
//! exchange's symbols with their recent trades, made by a seeded random walk on decimal integers, or
//! silent while a recording is replayed in its place.

mod calendar;
mod control;
mod exchange;
mod market;
mod options;
mod protocol;
mod replay;
mod server;
mod session;
mod sim;
mod tls;
mod walk;

pub use control::{Control, Counts};
pub use exchange::Exchange;
pub use market::{LastTrade, Trade, TradeSpec};
pub use options::{SimError, SimOptions, Speed};
pub use replay::Replay;
pub use sim::Sim;
