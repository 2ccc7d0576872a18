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

mod cpu;
mod datagrams;
pub mod endurance;
mod error;
mod flights;
pub mod floor;
mod gathering;
mod http;
mod kept;
mod knee;
pub mod latency;
mod ledger;
pub mod machine;
pub mod measure;
mod part;
pub mod ramp;
mod raw;
pub mod report;
mod requests;
pub mod result;
mod run;
mod schedule;
pub mod server;
mod session;
pub mod stats;
mod step;
mod tally;
mod udp;
mod v1;
mod v2;
mod watch;
mod worker;

pub use datagrams::Datagrams;
pub use error::LoadError;
pub use http::{Expect, HttpExchange, HttpLoad, HttpLoadOptions};
pub use knee::KneeBounds;
pub use part::{PartCommand, be_part};
pub use raw::{Raw, RawError, RawId, hex};
pub use requests::{Echo, Requests, Verdict, WireId};
pub use run::{ENDURANCE_SHARE, Mode, Progress, RunOptions, interval_for, run};
pub use session::{Moment, Pin, Protocol, Session, SessionOptions, StepResult};
pub use step::{Step, StepPace, Stop};
pub use tally::Tally;
pub use udp::{Pace, UdpLoad, UdpLoadOptions};
pub use v1::V1;
pub use v2::V2;
pub use watch::ServerWatch;
