//! What an extractor makes of a message.

use crate::price::{ListingId, Price, TradeKey};

/// The newest trade of one listing in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    /// What was traded, and where.
    pub listing: ListingId,
    /// At which price.
    pub price: Price,
    /// When, and as which trade.
    pub key: TradeKey,
}

/// What a message is. Slices are of the message itself, raw: JSON escapes are not undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'f> {
    /// Trades: how many were appended, at most one a listing. 0 when all of them were refused,
    /// passed over or of other symbols.
    Trades(usize),
    /// A heartbeat of the exchange. `id` is a JSON value for
    /// [`heartbeat_answer`](super::Row::heartbeat_answer), empty where the row names none.
    Heartbeat {
        /// The id, with its quotes if it is a string.
        id: &'f [u8],
    },
    /// The answer to a ping.
    Pong,
    /// A subscribe was accepted. [`named`](super::Extractor::named) has the listings it names.
    Ack {
        /// The request's number, where the exchange returns it.
        request: Option<u64>,
    },
    /// A request was refused. [`named`](super::Extractor::named) has the listings it names, none
    /// where it names no symbol of ours.
    Error {
        /// The request's number, where the exchange returns it.
        request: Option<u64>,
        /// What the exchange says; the whole message where the row does not know.
        text: &'f [u8],
    },
    /// The exchange will soon close this connection: open another one.
    Notice,
    /// A message of another kind.
    Other,
    /// Not JSON, or cut off.
    Malformed,
}

/// Trades that were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Of a symbol that no listing has.
    pub unknown_symbol: u64,
    /// Without symbol, price or time.
    pub missing_field: u64,
    /// The price is not a decimal number.
    pub malformed_price: u64,
    /// The price is zero.
    pub zero_price: u64,
    /// The price is below zero.
    pub negative_price: u64,
    /// The price is beyond anything that trades.
    pub absurd_price: u64,
    /// The time is not of the row's format, or before 2009.
    pub bad_time: u64,
    /// The time lies further ahead than clocks differ.
    pub future_time: u64,
}

impl Refused {
    /// Each count with its name, for metrics.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 8] {
        [
            ("unknown_symbol", self.unknown_symbol),
            ("missing_field", self.missing_field),
            ("malformed_price", self.malformed_price),
            ("zero_price", self.zero_price),
            ("negative_price", self.negative_price),
            ("absurd_price", self.absurd_price),
            ("bad_time", self.bad_time),
            ("future_time", self.future_time),
        ]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_reason().iter().map(|(_, count)| count).sum()
    }
}
