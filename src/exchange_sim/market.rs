//! One exchange's symbols and their recent trades.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::exchange::Exchange;
use super::walk::{Walk, decimal_text, hash, trimmed};

/// Most symbols one exchange learns of: a client may ask for any name.
const SYMBOLS_MAX: usize = 4_096;

/// Trades kept for each symbol: the longest snapshot an exchange sends.
pub(super) const HISTORY_LEN: usize = 100;

/// Longest price text a test may put into a trade, in bytes.
const PRICE_LEN_MAX: usize = 512;

/// One in so many symbols that are no majors is thin: its last trade is old and the next is rare.
const THIN_ONE_IN: u64 = 16;

/// A thin symbol trades in one of so many rounds.
const THIN_ROUNDS: u64 = 64;

/// A trade as the wire will show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade {
    /// The exchange's own name of the pair.
    pub symbol: Arc<str>,
    /// Price, digit for digit.
    pub price: Arc<str>,
    /// Amount of the base asset, digit for digit.
    pub size: Arc<str>,
    /// Trade time in nanoseconds since the Unix epoch, in the exchange's own resolution.
    pub time_ns: u64,
    /// Trade id, increasing for each symbol.
    pub id: u64,
    /// Whether the taker bought.
    pub taker_buys: bool,
}

/// The newest trade of a symbol, by trade time and then id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTrade {
    /// Price, digit for digit as it was sent.
    pub price: String,
    /// Trade time in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Trade id.
    pub id: u64,
}

/// A trade that a test wants made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeSpec {
    /// Price text, put on the wire as it is, sense or nonsense.
    pub price: String,
    /// Trade time in nanoseconds since the Unix epoch, rounded down to the exchange's resolution.
    pub time_ns: u64,
    /// Trade id; the next free one when absent.
    pub id: Option<u64>,
}

/// The symbols of one exchange.
#[derive(Debug)]
pub(super) struct Market {
    exchange: Exchange,
    seed: u64,
    history_len: usize,
    allow: Option<BTreeSet<String>>,
    refuse: BTreeSet<String>,
    listings: BTreeMap<Arc<str>, Listing>,
    cursor: Option<Arc<str>>,
    round: u64,
}

#[derive(Debug)]
struct Listing {
    walk: Walk,
    /// Oldest first, by time and then id.
    trades: VecDeque<Trade>,
    next_id: u64,
    thin: bool,
    held: bool,
}

impl Market {
    pub(super) fn new(exchange: Exchange, seed: u64, history_len: usize) -> Self {
        Self {
            exchange,
            seed,
            history_len: history_len.min(HISTORY_LEN),
            allow: None,
            refuse: BTreeSet::new(),
            listings: BTreeMap::new(),
            cursor: None,
            round: 0,
        }
    }

    /// Lists only these symbols from now on.
    pub(super) fn allow_only(&mut self, symbols: BTreeSet<String>) {
        self.allow = Some(symbols);
    }

    /// Stops knowing these symbols.
    pub(super) fn refuse(&mut self, symbols: BTreeSet<String>) {
        self.refuse = symbols;
    }

    /// Makes sure that `symbol` is listed; false when the exchange does not know it.
    pub(super) fn list(&mut self, symbol: &str, now_ns: u64) -> bool {
        if self.refuse.contains(symbol) || self.allow.as_ref().is_some_and(|allow| !allow.contains(symbol)) {
            return false;
        }
        if self.listings.contains_key(symbol) {
            return true;
        }
        let base = self.exchange.base(symbol);
        // A name that no exchange knows, so that a wrong symbol can be tried by hand.
        if base == "NOPE" || !self.exchange.symbol_looks_valid(symbol) || self.listings.len() >= SYMBOLS_MAX {
            return false;
        }
        let fate = hash(symbol);
        let mut listing = Listing {
            walk: Walk::new(&base, self.seed ^ fate ^ hash(self.exchange.name())),
            trades: VecDeque::new(),
            next_id: self.exchange.first_id(),
            thin: base.len() > 3 && fate.is_multiple_of(THIN_ONE_IN),
            held: false,
        };
        let symbol: Arc<str> = symbol.into();
        let newest_ns = if listing.thin { now_ns.saturating_sub(7_200_000_000_000) } else { now_ns };
        while listing.trades.len() < self.history_len {
            let left = self.history_len - listing.trades.len();
            // About a minute of history, in steps of 0.6 s.
            let time_ns = newest_ns.saturating_sub(left as u64 * 600_000_000);
            let made = listing.walk_trades(self.exchange, &symbol, time_ns, left);
            listing.keep(made);
        }
        self.listings.insert(symbol, listing);
        true
    }

    /// The kept trades of a symbol, newest first, at most `limit`.
    pub(super) fn newest_first(&self, symbol: &str, limit: usize) -> Vec<Trade> {
        self.listings
            .get(symbol)
            .map(|listing| listing.trades.iter().rev().take(limit).cloned().collect())
            .unwrap_or_default()
    }

    /// The kept trades of a symbol, oldest first, the newest `limit` of them.
    pub(super) fn oldest_first(&self, symbol: &str, limit: usize) -> Vec<Trade> {
        let mut trades = self.newest_first(symbol, limit);
        trades.reverse();
        trades
    }

    /// The next symbol in turn trades: one taker's fills, oldest first, at most `budget`, all at one
    /// time. Empty when nothing is listed or everything is held.
    pub(super) fn advance(&mut self, now_ns: u64, budget: usize) -> Vec<Trade> {
        for _ in 0..self.listings.len() {
            let from = match &self.cursor {
                Some(symbol) => Bound::Excluded(symbol.clone()),
                None => Bound::Unbounded,
            };
            let Some((symbol, listing)) = self.listings.range_mut((from, Bound::Unbounded)).next() else {
                self.cursor = None;
                self.round = self.round.wrapping_add(1);
                continue;
            };
            self.cursor = Some(symbol.clone());
            if listing.held || (listing.thin && !self.round.is_multiple_of(THIN_ROUNDS)) {
                continue;
            }
            let trades = listing.walk_trades(self.exchange, symbol, now_ns, budget);
            listing.keep(trades.clone());
            return trades;
        }
        Vec::new()
    }

    /// Makes the trades a test asks for; `None` when the symbol is unknown or a price too long.
    pub(super) fn make(&mut self, symbol: &str, specs: &[TradeSpec], now_ns: u64) -> Option<Vec<Trade>> {
        if specs.iter().any(|spec| spec.price.len() > PRICE_LEN_MAX) || !self.list(symbol, now_ns) {
            return None;
        }
        let step_ns = self.exchange.time_step_ns();
        let (symbol, listing) =
            self.listings.range_mut::<str, _>((Bound::Included(symbol), Bound::Included(symbol))).next()?;
        let mut trades = Vec::with_capacity(specs.len());
        for spec in specs {
            let id = spec.id.unwrap_or(listing.next_id);
            listing.next_id = listing.next_id.max(id.saturating_add(1));
            let time_ns = spec.time_ns - spec.time_ns % step_ns;
            let price = spec.price.as_str().into();
            trades.push(Trade {
                symbol: symbol.clone(),
                price,
                size: "0.01".into(),
                time_ns,
                id,
                taker_buys: true,
            });
        }
        listing.keep(trades.clone());
        Some(trades)
    }

    /// Holds a symbol's price where it is, or lets it wander again.
    pub(super) fn hold(&mut self, symbol: &str, on: bool) {
        if let Some(listing) = self.listings.get_mut(symbol) {
            listing.held = on;
        }
    }

    /// The newest trade of a symbol.
    pub(super) fn last(&self, symbol: &str) -> Option<&Trade> {
        self.listings.get(symbol)?.trades.back()
    }

    /// The newest trade of every symbol that has one.
    pub(super) fn last_trades(&self) -> BTreeMap<String, LastTrade> {
        self.listings
            .iter()
            .filter_map(|(symbol, listing)| {
                let Trade { price, time_ns, id, .. } = listing.trades.back()?;
                Some((symbol.to_string(), LastTrade { price: price.to_string(), time_ns: *time_ns, id: *id }))
            })
            .collect()
    }
}

impl Listing {
    fn walk_trades(
        &mut self,
        exchange: Exchange,
        symbol: &Arc<str>,
        time_ns: u64,
        budget: usize,
    ) -> Vec<Trade> {
        let time_ns = time_ns - time_ns % exchange.time_step_ns();
        let taker_buys = self.walk.below(2) == 0;
        // One order in four walks the book and fills at two or three prices.
        let fills = match self.walk.below(8) {
            0 => 3,
            1 => 2,
            _ => 1,
        };
        let mut trades = Vec::with_capacity(fills);
        for _ in 0..fills.min(budget) {
            let mantissa = self.walk.step(taker_buys).unsigned_abs();
            let size = decimal_text(1 + self.walk.below(250_000_000), 8);
            let id = self.next_id;
            self.next_id = self.next_id.saturating_add(1 + self.walk.below(2));
            let price = price_text(exchange, mantissa, self.walk.decimals()).into();
            trades.push(Trade { symbol: symbol.clone(), price, size: size.into(), time_ns, id, taker_buys });
        }
        trades
    }

    fn keep(&mut self, trades: Vec<Trade>) {
        for trade in trades {
            let at = self.trades.partition_point(|kept| (kept.time_ns, kept.id) <= (trade.time_ns, trade.id));
            self.trades.insert(at, trade);
            if self.trades.len() > HISTORY_LEN {
                self.trades.pop_front();
            }
        }
    }
}

/// Each exchange pads or trims zeros in its own way.
fn price_text(exchange: Exchange, mantissa: u64, decimals: u32) -> String {
    match exchange {
        Exchange::Gemini => decimal_text(mantissa.saturating_mul(1_000), decimals.saturating_add(3)),
        Exchange::KrakenV1 => decimal_text(mantissa.saturating_mul(1_000), decimals.saturating_add(3)),
        Exchange::Gateio | Exchange::Bybit | Exchange::Okx => trimmed(&decimal_text(mantissa, decimals)),
        _ => decimal_text(mantissa, decimals),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_790_000_000_123_456_789;

    #[test]
    fn a_new_symbol_has_a_sorted_history_with_ties() {
        let mut market = Market::new(Exchange::Coinbase, 1, 100);
        assert!(market.list("BTC-USD", NOW_NS));
        let trades = market.oldest_first("BTC-USD", 1_000);
        assert_eq!(trades.len(), 100);
        assert!(trades.windows(2).all(|w| (w[0].time_ns, w[0].id) < (w[1].time_ns, w[1].id)));
        assert!(trades.windows(2).any(|w| w[0].time_ns == w[1].time_ns && w[0].price != w[1].price));
        assert!(trades.iter().all(|t| t.time_ns < NOW_NS && t.time_ns.is_multiple_of(1_000)));
        assert_eq!(market.newest_first("BTC-USD", 1)[0], trades[99]);
    }

    #[test]
    fn every_symbol_trades_in_turn_and_the_same_seed_gives_the_same_prices() {
        let prices = |seed| {
            let mut market = Market::new(Exchange::Okx, seed, 0);
            assert!(market.list("BTC-USDT", NOW_NS) && market.list("ETH-USDT", NOW_NS));
            (0..50).flat_map(|_| market.advance(NOW_NS, 3)).map(|t| (t.symbol, t.price)).collect::<Vec<_>>()
        };
        assert_eq!(prices(3), prices(3));
        assert_ne!(prices(3), prices(4));
        assert!(prices(3).iter().filter(|(symbol, _)| &**symbol == "ETH-USDT").count() >= 20);
    }

    #[test]
    fn unknown_symbols_are_refused_and_their_number_is_bounded() {
        let mut market = Market::new(Exchange::Bybit, 1, 0);
        assert!(!market.list("NOPEUSDT", NOW_NS));
        assert!(!market.list("nonsense\"", NOW_NS));
        market.refuse(BTreeSet::from(["XUSDT".to_owned()]));
        assert!(!market.list("XUSDT", NOW_NS));
        for i in 0..SYMBOLS_MAX {
            assert!(market.list(&format!("A{i}USDT"), NOW_NS));
        }
        assert!(!market.list("ONEMOREUSDT", NOW_NS));
        market.allow_only(BTreeSet::from(["A1USDT".to_owned()]));
        assert!(market.list("A1USDT", NOW_NS) && !market.list("A2USDT", NOW_NS));
    }

    #[test]
    fn a_made_trade_counts_as_last_only_when_it_is_newest() {
        let mut market = Market::new(Exchange::Kraken, 1, 0);
        let spec = |price: &str, time_ns, id| TradeSpec { price: price.to_owned(), time_ns, id };
        market
            .make("BTC/USD", &[spec("5.0", NOW_NS, None), spec("4.0", NOW_NS - 5_000, None)], NOW_NS)
            .unwrap();
        assert_eq!(market.last_trades()["BTC/USD"].price, "5.0");
        market.make("BTC/USD", &[spec("6.0", NOW_NS, Some(7))], NOW_NS).unwrap();
        assert_eq!(market.last_trades()["BTC/USD"].price, "5.0");
        assert!(market.make("BTC/USD", &[spec(&"9".repeat(600), NOW_NS, None)], NOW_NS).is_none());
        market.hold("BTC/USD", true);
        assert!(market.advance(NOW_NS, 3).is_empty());
    }
}
