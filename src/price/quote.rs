//! One price of one listing, and what makes one trade newer than another.

use super::Price;
use crate::time::UnixNs;

/// Which tier of the service a quote came through. The answer's `source` ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The exchange's own WebSocket feed.
    Ws,
    /// The exchange's REST endpoint.
    Rest,
    /// A cache shared between nodes.
    Cache,
}

impl Tier {
    /// As the end of `source`, without the dash.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Rest => "rest",
            Self::Cache => "cache",
        }
    }
}

/// What orders the trades of one listing: trade time first, then the trade's number.
///
/// Exchanges without a rising trade number (Bybit, Kraken v1) get one made from the moment of
/// receipt and the position in time order within the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TradeKey {
    /// The exchange's time of the trade.
    pub time: UnixNs,
    /// The exchange's trade number, or one that rises in stream order.
    pub number: u64,
}

/// The last trade of one listing as far as one source knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The exact price.
    pub price: Price,
    /// When and as which number the trade happened.
    pub key: TradeKey,
    /// When we received it.
    pub received: UnixNs,
    /// How it came.
    pub tier: Tier,
}
