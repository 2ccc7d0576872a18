//! Exchange feeds: rows of data, extraction, connections, health.

mod backoff;
mod connection;
pub mod data;
mod endpoint;
mod extract;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod path;
mod plan;
mod rest;
mod row;
mod scan;
mod symbols;
mod trade_time;
mod walk;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use connection::{Connection, Disconnect, Phase, Sink};
pub use endpoint::Endpoint;
pub use extract::Extractor;
pub use frame::{Frame, Refused, Trade};
pub use rest::{RestError, RestReader};
pub use row::{Order, REQUEST_ID_FIRST, RestRow, Row, RowError};
pub use trade_time::TimeFormat;
