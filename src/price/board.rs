//! The price board: the newest quote of every listing with its ready-to-send answers, what is
//! fresh, and which listing answers for an asset. One per shard, owned by it.
//!
//! Freshness is confirmation, not recency of trade. A listing is confirmed until the later of
//!
//! - the deadline of the feed session it is live on (moved on by every frame that session hears), and
//! - the end of its last REST confirmation.

use super::{AssetId, Catalogue, ExchangeId, ListingId, Quote, SessionId, Symbol, Tier};
use crate::limits::FEED_SESSIONS_MAX;
use crate::time::MonoNs;

/// Prices of all listings as one shard knows them; `A` is what it keeps ready to send for each.
#[derive(Debug)]
pub struct Board<A> {
    rows: Vec<Row<A>>,
    assets: Vec<AssetRow>,
    symbols: SymbolTable,
    sessions: Vec<Session>,
}

/// How far a listing is confirmed, told beside a quote or alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// It is live on this connection of a feed session.
    Live {
        /// The session.
        session: SessionId,
        /// Which connection of it: rises with every reconnect.
        connection: u32,
    },
    /// REST confirmed it until then.
    Until(MonoNs),
}

/// What the rule says about an asset.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection<'a, A> {
    /// This listing answers.
    Fresh {
        /// Which.
        listing: ListingId,
        /// Its newest quote.
        quote: &'a Quote,
        /// Its ready answers.
        ready: &'a A,
    },
    /// Nothing fresh; this is the listing to ask REST about.
    Stale {
        /// The preferred listing, or the one of the exchange that was named.
        listing: ListingId,
    },
    /// The exchange that was named does not list the asset.
    NotListed,
}

#[derive(Debug)]
struct Row<A> {
    exchange: ExchangeId,
    held: Option<(Quote, A)>,
    live: Option<(SessionId, u32)>,
    rest_until: MonoNs,
}

#[derive(Debug)]
struct AssetRow {
    id: AssetId,
    /// Those that may answer without being named, preferred first; never empty.
    chosen: Vec<ListingId>,
    /// Every listing, also those in another quote currency.
    all: Vec<ListingId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Session {
    connection: u32,
    deadline: MonoNs,
}

impl<A> Board<A> {
    /// An empty board for a catalogue.
    #[must_use]
    pub fn new(catalogue: &Catalogue) -> Self {
        let rows = catalogue
            .listings()
            .iter()
            .map(|l| Row { exchange: l.exchange, held: None, live: None, rest_until: MonoNs(0) })
            .collect();
        let assets: Vec<AssetRow> = catalogue
            .assets()
            .iter()
            .map(|asset| {
                let first = catalogue.listing(asset.listings[0]).quote;
                let same = |id: &&ListingId| asset.any_quote || catalogue.listing(**id).quote == first;
                AssetRow {
                    id: asset.id,
                    chosen: asset.listings.iter().filter(same).copied().collect(),
                    all: asset.listings.clone(),
                }
            })
            .collect();
        let symbols = SymbolTable::new(catalogue.assets().iter().map(|a| a.symbol));
        Self { rows, assets, symbols, sessions: vec![Session::default(); FEED_SESSIONS_MAX] }
    }

    /// Position of an asset on this board, for [`select`](Self::select).
    #[must_use]
    #[inline]
    pub fn find(&self, symbol: Symbol) -> Option<usize> {
        self.symbols.find(symbol)
    }

    /// The persistent number of the asset at `position`.
    #[must_use]
    pub fn asset(&self, position: usize) -> AssetId {
        self.assets[position].id
    }

    /// Applies the rule: the first listing that is fresh at `now`, else stale. With `source`, only
    /// that exchange's listing counts.
    #[inline]
    #[must_use]
    pub fn select(&self, position: usize, source: Option<ExchangeId>, now: MonoNs) -> Selection<'_, A> {
        let asset = &self.assets[position];
        let Some(source) = source else {
            let fresh = asset.chosen.iter().find_map(|id| self.fresh(*id, now));
            return fresh.unwrap_or(Selection::Stale { listing: asset.chosen[0] });
        };
        match asset.all.iter().find(|id| self.rows[id.index()].exchange == source) {
            Some(id) => self.fresh(*id, now).unwrap_or(Selection::Stale { listing: *id }),
            None => Selection::NotListed,
        }
    }

    #[inline]
    fn fresh(&self, id: ListingId, now: MonoNs) -> Option<Selection<'_, A>> {
        let row = &self.rows[id.index()];
        let (quote, ready) = row.held.as_ref()?;
        (now < self.deadline(row)).then_some(Selection::Fresh { listing: id, quote, ready })
    }

    /// The instant until which a listing's quote is fresh, 0 when it never was.
    #[must_use]
    pub fn fresh_until(&self, id: ListingId) -> MonoNs {
        self.deadline(&self.rows[id.index()])
    }

    #[inline]
    fn deadline(&self, row: &Row<A>) -> MonoNs {
        match row.live {
            Some((session, connection)) if self.sessions[session.index()].connection == connection => {
                self.sessions[session.index()].deadline.max(row.rest_until)
            }
            _ => row.rest_until,
        }
    }

    /// The newest quote of a listing, fresh or not.
    #[must_use]
    pub fn quote(&self, id: ListingId) -> Option<&Quote> {
        self.rows[id.index()].held.as_ref().map(|(quote, _)| quote)
    }

    /// Takes in a quote and what is ready to send for it. Returns whether it replaced the held one:
    /// an older trade never does, and REST does not say again what a living feed has said; the
    /// confirmation counts all the same.
    pub fn update(&mut self, id: ListingId, quote: Quote, ready: A, confirmation: Confirmation) -> bool {
        let echo = quote.tier == Tier::Rest && self.is_live(id);
        let row = &mut self.rows[id.index()];
        let newer = row.held.as_ref().is_none_or(|(held, _)| {
            // Numbers of trades without ids follow receipt, so they cannot tell that it is the same one;
            // where they do, REST may give it a finer time.
            let same = quote.key.number == held.key.number && quote.price == held.price;
            if echo { quote.key.time > held.key.time && !same } else { quote.key >= held.key }
        });
        if newer {
            row.held = Some((quote, ready));
        }
        self.confirm(id, confirmation);
        newer
    }

    /// Whether the listing is live on a connection that is not known to be gone.
    fn is_live(&self, id: ListingId) -> bool {
        self.rows[id.index()].live.is_some_and(|(session, connection)| {
            let session = self.sessions[session.index()];
            session.connection == connection && session.deadline != MonoNs(0)
        })
    }

    /// Takes in a confirmation without a quote.
    pub fn confirm(&mut self, id: ListingId, confirmation: Confirmation) {
        let row = &mut self.rows[id.index()];
        match confirmation {
            // Late news of an earlier connection, which came another way, says nothing of this one.
            Confirmation::Live { session, connection }
                if row.live.is_some_and(|(held, newer)| held == session && newer > connection) => {}
            Confirmation::Live { session, connection } => row.live = Some((session, connection)),
            Confirmation::Until(until) => row.rest_until = row.rest_until.max(until),
        }
    }

    /// A session's connection was heard: what is live on it is fresh until `deadline`. A deadline
    /// of 0 says that the connection is gone. News of an older connection is ignored.
    pub fn heard(&mut self, session: SessionId, connection: u32, deadline: MonoNs) {
        let row = &mut self.sessions[session.index()];
        if connection >= row.connection {
            *row = Session { connection, deadline };
        }
    }
}

/// Open addressing over the symbols' 16 bytes, at most half full, fixed at start.
#[derive(Debug)]
struct SymbolTable {
    slots: Vec<(u128, u32)>,
    shift: u32,
}

impl SymbolTable {
    fn new(symbols: impl ExactSizeIterator<Item = Symbol>) -> Self {
        let len = (symbols.len().max(1) * 4).next_power_of_two();
        let mut table = Self { slots: vec![(0, 0); len], shift: 64 - len.trailing_zeros() };
        for (index, symbol) in symbols.enumerate() {
            let mut at = table.start(symbol.as_u128());
            while table.slots[at].0 != 0 {
                at = (at + 1) & (len - 1);
            }
            table.slots[at] = (symbol.as_u128(), u32::try_from(index).unwrap_or(u32::MAX));
        }
        table
    }

    /// Fibonacci hashing of both halves; symbols are short, so the low half decides mostly.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant to be cut apart")]
    fn start(&self, key: u128) -> usize {
        let mixed = (key as u64) ^ ((key >> 64) as u64).rotate_left(29);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline]
    fn find(&self, symbol: Symbol) -> Option<usize> {
        let key = symbol.as_u128();
        let mut at = self.start(key);
        loop {
            let (found, index) = self.slots[at];
            if found == key {
                return Some(index as usize);
            }
            if found == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Currency, Exchange, Price, TradeKey};
    use super::*;
    use crate::time::UnixNs;

    const SECOND: u64 = 1_000_000_000;

    fn catalogue(any_quote: bool) -> Catalogue {
        let exchange = |n: usize, name: &str| Exchange {
            id: ExchangeId::new(n).unwrap(),
            name: name.into(),
            dead_after: Duration::from_secs(5),
        };
        let mut catalogue =
            Catalogue::new(vec![exchange(1, "one"), exchange(2, "two"), exchange(3, "three")]).unwrap();
        let (usd, usdt) = (Currency::parse("USD").unwrap(), Currency::parse("USDT").unwrap());
        let id = |n| ExchangeId::new(n).unwrap();
        catalogue
            .add_asset(
                AssetId::new(7).unwrap(),
                Symbol::parse("BTC").unwrap(),
                any_quote,
                &[(id(1), "BTC-USD", usd), (id(2), "BTCUSDT", usdt), (id(3), "BTC/USD", usd)],
            )
            .unwrap();
        catalogue
    }

    fn quote(price: &str, second: u64, number: u64) -> Quote {
        Quote {
            price: Price::parse(price.as_bytes()).unwrap(),
            key: TradeKey { time: UnixNs(second * SECOND), number },
            received: UnixNs(second * SECOND),
            tier: Tier::Ws,
        }
    }

    fn listing(n: usize) -> ListingId {
        ListingId::new(n).unwrap()
    }

    fn live(session: usize, connection: u32) -> Confirmation {
        Confirmation::Live { session: SessionId::new(session).unwrap(), connection }
    }

    fn answering(board: &Board<u8>, source: Option<usize>, now: u64) -> Option<usize> {
        let source = source.map(|n| ExchangeId::new(n).unwrap());
        match board.select(0, source, MonoNs(now)) {
            Selection::Fresh { listing, .. } => Some(listing.index()),
            _ => None,
        }
    }

    #[test]
    fn an_older_trade_never_replaces_a_newer_one() {
        let mut board = Board::new(&catalogue(false));
        assert!(board.update(listing(0), quote("2", 10, 5), 0, live(0, 1)));
        assert!(!board.update(listing(0), quote("1", 10, 4), 0, live(0, 1)));
        assert!(!board.update(listing(0), quote("1", 9, 9), 0, live(0, 1)));
        assert!(board.update(listing(0), quote("3", 10, 6), 0, live(0, 1)));
        assert_eq!(board.quote(listing(0)).unwrap().price.text().as_str(), "3");
    }

    #[test]
    fn rest_does_not_repeat_what_a_living_feed_has_said() {
        let mut board = Board::new(&catalogue(false));
        let session = SessionId::new(0).unwrap();
        let rest = || Quote { tier: Tier::Rest, ..quote("1", 10, 5) };
        let later = Quote { tier: Tier::Rest, ..quote("2", 11, 1) };
        let until = Confirmation::Until(MonoNs(500));
        board.heard(session, 1, MonoNs(100));
        board.update(listing(0), quote("1", 10, 5), 0, live(0, 1));
        assert!(!board.update(listing(0), rest(), 0, until));
        let numbered_later = Quote { tier: Tier::Rest, ..quote("1", 10, 6) };
        assert!(!board.update(listing(0), numbered_later, 0, until));
        let finer = TradeKey { time: UnixNs(10 * SECOND + 7), number: 5 };
        assert!(!board.update(listing(0), Quote { key: finer, ..rest() }, 0, until), "a finer clock");
        assert_eq!(board.quote(listing(0)).unwrap().tier, Tier::Ws);
        board.heard(session, 1, MonoNs(0));
        assert!(board.update(listing(0), rest(), 0, until), "the feed is gone: REST is who says it now");
        assert!(board.update(listing(0), quote("1", 10, 5), 0, live(0, 2)), "and the feed again");
        assert_eq!(board.quote(listing(0)).unwrap().tier, Tier::Ws);
        assert!(board.update(listing(0), later, 0, until), "a later trade is news from anybody");
    }

    #[test]
    fn the_first_fresh_listing_of_the_same_quote_currency_answers() {
        let mut board = Board::new(&catalogue(false));
        let session = |n| SessionId::new(n).unwrap();
        for n in 0..3 {
            board.update(listing(n), quote("1", 1, 1), 0, live(n, 1));
        }
        assert_eq!(answering(&board, None, 1), None, "no session was heard yet");
        for n in 0..3 {
            board.heard(session(n), 1, MonoNs(100));
        }
        assert_eq!(answering(&board, None, 99), Some(0));
        assert_eq!(answering(&board, None, 100), None, "the deadline itself is too late");
        board.heard(session(0), 1, MonoNs(0));
        assert_eq!(answering(&board, None, 50), Some(2), "USDT does not stand in for USD");
        assert_eq!(answering(&board, Some(2), 50), Some(1), "unless it is asked for");
        board.confirm(listing(0), Confirmation::Until(MonoNs(60)));
        assert_eq!(answering(&board, None, 50), Some(0), "REST confirmed the first one");
        let mut any = Board::new(&catalogue(true));
        any.update(listing(1), quote("1", 1, 1), 0, Confirmation::Until(MonoNs(9)));
        assert_eq!(answering(&any, None, 5), Some(1));
    }

    #[test]
    fn a_reconnect_confirms_only_what_it_has_heard_of() {
        let mut board = Board::new(&catalogue(false));
        let session = SessionId::new(0).unwrap();
        board.update(listing(0), quote("1", 1, 1), 0, live(0, 1));
        board.heard(session, 1, MonoNs(100));
        board.heard(session, 2, MonoNs(200));
        assert_eq!(answering(&board, None, 50), None, "not live on the second connection yet");
        board.heard(session, 1, MonoNs(900));
        assert_eq!(answering(&board, None, 50), None, "late news of the first one is ignored");
        board.confirm(listing(0), live(0, 2));
        assert_eq!(answering(&board, None, 150), Some(0));
        board.confirm(listing(0), live(0, 1));
        assert_eq!(answering(&board, None, 150), Some(0), "REST was asked on behalf of the first one");
    }

    #[test]
    fn symbols_are_found_and_strangers_are_not() {
        let board: Board<u8> = Board::new(&catalogue(false));
        assert_eq!(board.find(Symbol::parse("BTC").unwrap()), Some(0));
        assert_eq!(board.find(Symbol::parse("ETH").unwrap()), None);
        let names: Vec<Symbol> = (0..3_000).map(|n| Symbol::parse(&format!("A{n}")).unwrap()).collect();
        let table = SymbolTable::new(names.iter().copied());
        for (n, name) in names.iter().enumerate() {
            assert_eq!(table.find(*name), Some(n));
        }
    }
}
