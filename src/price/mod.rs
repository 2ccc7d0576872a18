//! Prices and what they are prices of. Pure values and one table; knows no protocol and no socket.
//!
//! ```text
//! exchange's text ──► Price ──► Quote ──► Board (one per shard) ──► what is fresh, by rule
//! ```

mod board;
mod catalogue;
mod decimal;
#[doc(hidden)]
pub mod fuzz;
mod names;
mod quote;

pub use board::{Board, Confirmation, Selection};
pub use catalogue::{Asset, Catalogue, CatalogueError, Exchange, Listing};
pub use decimal::{Price, PriceError, PriceText};
pub use names::{AssetId, Currency, ExchangeId, ListingId, NameError, SessionId, Symbol};
pub use quote::{Quote, Tier, TradeKey};
