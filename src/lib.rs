//! beast: a price appliance. It keeps the latest price of every asset in each core's own memory as
//! ready-to-send bytes and answers over UDP and TCP.
//!
//! The modules below are the rooms of the house, in dependency order: a room uses only rooms above
//! it. `docs/ARCHITECTURE.md` draws them and says what flows through; `tests/tidy.rs` keeps the
//! order true.
#![deny(unsafe_code)]

pub mod limits;
pub mod price;
pub mod siphash;
pub mod time;

pub mod http;
pub mod wire;

pub mod sys;

pub mod engine;

pub mod account;
pub mod ledger;

pub mod shard;

pub mod xdp;

pub mod feed;

pub mod store;

pub mod backoffice;

pub mod admin;

pub mod report;

pub mod exchange_sim;
pub mod load;

pub mod host;

pub mod config;

pub mod appliance;

#[doc(hidden)]
pub mod fuzz;
