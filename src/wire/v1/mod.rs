//! UDP v1: one JSON object in a datagram each way.
//!
//! ```text
//! {"api_key":"tb_…","asset":"BTC","id":7}
//! {"asset":"BTC","quote":"USD","price":"65000.12","source":"coinbase-ws","ts":1763650000123,"id":7}
//! └────────────── head, written when the price changes ──────────────────────────────────┘└ tail ┘
//! ```

mod answer;
mod request;
pub(super) mod scan;

pub use answer::{PricesWriter, write_answer, write_error, write_head};
pub use request::{AssetNames, Request, parse};

#[cfg(test)]
mod tests;
