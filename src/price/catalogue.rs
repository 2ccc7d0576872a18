//! Which assets there are, which exchanges list them, and in which order the exchanges are asked.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::{AssetId, Currency, ExchangeId, ListingId, Symbol};
use crate::limits::{EXCHANGE_NAME_LEN_MAX, LISTINGS_PER_ASSET_MAX};

/// An asset and the listings that can price it, the preferred one first.
#[derive(Clone, Debug)]
pub struct Asset {
    /// Persistent number.
    pub id: AssetId,
    /// What clients ask for.
    pub symbol: Symbol,
    /// In order of preference; never empty.
    pub listings: Vec<ListingId>,
    /// Whether a listing in another quote currency than the first one's may stand in.
    pub any_quote: bool,
}

/// An exchange as the answer path knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Persistent number.
    pub id: ExchangeId,
    /// Name in lower case, as in `source` before the tier.
    pub name: String,
    /// Silence after which its connections count as dead.
    pub dead_after: Duration,
}

/// One asset on one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Index in this process.
    pub id: ListingId,
    /// What is priced.
    pub asset: AssetId,
    /// Where.
    pub exchange: ExchangeId,
    /// The exchange's own symbol.
    pub symbol: String,
    /// What the price is in.
    pub quote: Currency,
}

/// All of them, checked. Built once at start and shared by every room.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    exchanges: Vec<Exchange>,
    assets: Vec<Asset>,
    listings: Vec<Listing>,
    /// For each listing, the position of its asset in `assets`.
    positions: Vec<usize>,
    by_symbol: HashMap<Symbol, usize>,
}

/// What is wrong with a catalogue's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError(String);

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CatalogueError {}

impl Catalogue {
    /// An empty catalogue of these exchanges.
    ///
    /// # Errors
    /// When a number is 0, a number or name occurs twice or a name is not 1 to 20 lower-case letters, digits and
    /// underscores.
    pub fn new(exchanges: Vec<Exchange>) -> Result<Self, CatalogueError> {
        for (index, exchange) in exchanges.iter().enumerate() {
            let name = &exchange.name;
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if name.is_empty() || name.len() > EXCHANGE_NAME_LEN_MAX || !name.bytes().all(plain) {
                return Err(CatalogueError(format!(
                    "exchange name is {name:?}, needs 1 to {EXCHANGE_NAME_LEN_MAX} lower-case letters, digits and underscores"
                )));
            }
            if exchange.id.index() == 0 {
                return Err(CatalogueError(format!(
                    "exchange {name} has number 0, which means any exchange in requests; needs 1 to 63"
                )));
            }
            if let Some(twin) = exchanges[..index].iter().find(|e| e.id == exchange.id || e.name == *name) {
                return Err(CatalogueError(format!(
                    "exchanges {} and {name} share a number or a name; each needs its own",
                    twin.name
                )));
            }
        }
        Ok(Self { exchanges, ..Self::default() })
    }

    /// Adds an asset; listings are `(exchange, symbol there, quote currency)`, preferred first.
    ///
    /// # Errors
    /// When the asset's number or symbol is taken, it has no listing or more than 16, or a listing's
    /// exchange is unknown or repeated.
    pub fn add_asset(
        &mut self,
        id: AssetId,
        symbol: Symbol,
        any_quote: bool,
        listings: &[(ExchangeId, &str, Currency)],
    ) -> Result<(), CatalogueError> {
        if self.assets.iter().any(|a| a.id == id || a.symbol == symbol) {
            return Err(CatalogueError(format!("asset {symbol} (number {}) is listed twice", id.index())));
        }
        if listings.is_empty() || listings.len() > LISTINGS_PER_ASSET_MAX {
            return Err(CatalogueError(format!(
                "asset {symbol} has {} listings, needs 1 to {LISTINGS_PER_ASSET_MAX}",
                listings.len()
            )));
        }
        let mut ids = Vec::with_capacity(listings.len());
        for (index, (exchange, text, quote)) in listings.iter().enumerate() {
            if self.exchange(*exchange).is_none() || listings[..index].iter().any(|l| l.0 == *exchange) {
                return Err(CatalogueError(format!(
                    "asset {symbol}: exchange number {} is unknown or listed twice",
                    exchange.index()
                )));
            }
            let id_of_listing =
                ListingId::new(self.listings.len()).map_err(|e| CatalogueError(e.to_string()))?;
            self.listings.push(Listing {
                id: id_of_listing,
                asset: id,
                exchange: *exchange,
                symbol: (*text).to_owned(),
                quote: *quote,
            });
            self.positions.push(self.assets.len());
            ids.push(id_of_listing);
        }
        self.by_symbol.insert(symbol, self.assets.len());
        self.assets.push(Asset { id, symbol, listings: ids, any_quote });
        Ok(())
    }

    /// All exchanges.
    #[must_use]
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// All assets, in the order they were added.
    #[must_use]
    pub fn assets(&self) -> &[Asset] {
        &self.assets
    }

    /// All listings, indexed by [`ListingId`].
    #[must_use]
    pub fn listings(&self) -> &[Listing] {
        &self.listings
    }

    /// One listing of this catalogue.
    #[must_use]
    pub fn listing(&self, id: ListingId) -> &Listing {
        &self.listings[id.index()]
    }

    /// Symbol of a listing's asset and name of its exchange; both are there, since `add_asset`
    /// checked them.
    #[must_use]
    pub fn names(&self, listing: &Listing) -> (Symbol, &str) {
        let position = self.positions[listing.id.index()];
        let exchange = self.exchange(listing.exchange).map_or("", |e| e.name.as_str());
        (self.assets[position].symbol, exchange)
    }

    /// The exchange of that number.
    #[must_use]
    pub fn exchange(&self, id: ExchangeId) -> Option<&Exchange> {
        self.exchanges.iter().find(|e| e.id == id)
    }

    /// The exchange of that name.
    #[must_use]
    pub fn exchange_named(&self, name: &str) -> Option<&Exchange> {
        self.exchanges.iter().find(|e| e.name == name)
    }

    /// The asset of that symbol.
    #[must_use]
    pub fn asset(&self, symbol: Symbol) -> Option<&Asset> {
        self.by_symbol.get(&symbol).map(|index| &self.assets[*index])
    }

    /// The asset of that number.
    #[must_use]
    pub fn asset_by_id(&self, id: AssetId) -> Option<&Asset> {
        self.assets.iter().find(|a| a.id == id)
    }
}
