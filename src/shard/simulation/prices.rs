//! The obvious model of prices: what is listed, what is held, what is fresh, what an answer says.

use std::sync::Arc;
use std::time::Duration;

use crate::price::{
    AssetId, Catalogue, Confirmation, Currency, Exchange, ExchangeId, ListingId, Quote, SessionId, Symbol,
    Tier,
};
use crate::shard::Update;
use crate::time::MonoNs;

/// Numbers and names of the exchanges. Each has one feed session of the same position.
pub(super) const EXCHANGES: [(usize, &str); 3] = [(1, "coinbase"), (2, "kraken"), (5, "gateio")];

/// Symbol, whether any quote currency will do, and the listings, preferred first: position in
/// `EXCHANGES` and quote currency.
type Listed = (&'static str, bool, &'static [(usize, &'static str)]);

const ASSETS: [Listed; 6] = [
    ("BTC", false, &[(0, "USD"), (1, "USD"), (2, "USDT")]),
    ("ETH", false, &[(1, "USD"), (0, "USD")]),
    ("SOL", false, &[(0, "USD")]),
    ("XRP", true, &[(2, "USDT"), (1, "USD")]),
    ("DOGE", false, &[(1, "EUR")]),
    ("1INCH", false, &[(0, "USD"), (2, "USDT"), (1, "USD")]),
];

/// No feed ever hears of this asset, so only REST can price it.
pub(super) const UNFED: &str = "DOGE";

pub(super) fn catalogue() -> Arc<Catalogue> {
    let exchange = |(number, name): &(usize, &str)| Exchange {
        id: ExchangeId::new(*number).unwrap(),
        name: (*name).into(),
        dead_after: Duration::from_millis(500),
    };
    let mut catalogue = Catalogue::new(EXCHANGES.iter().map(exchange).collect()).unwrap();
    for (index, (symbol, any_quote, listings)) in ASSETS.iter().enumerate() {
        let listing = |(exchange, currency): &(usize, &str)| {
            (ExchangeId::new(EXCHANGES[*exchange].0).unwrap(), "x", Currency::parse(currency).unwrap())
        };
        let listings: Vec<_> = listings.iter().map(listing).collect();
        let (id, symbol) = (AssetId::new(10 + index).unwrap(), Symbol::parse(symbol).unwrap());
        catalogue.add_asset(id, symbol, *any_quote, &listings).unwrap();
    }
    Arc::new(catalogue)
}

/// Symbols of all assets.
pub(super) fn symbols() -> Vec<&'static str> {
    ASSETS.iter().map(|(symbol, ..)| *symbol).collect()
}

/// One listing as the model sees it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) symbol: &'static str,
    pub(super) exchange: usize,
    pub(super) currency: &'static str,
    any_quote: bool,
    pub(super) held: Option<Quote>,
    live: Option<(SessionId, u32)>,
    rest_until: MonoNs,
    /// Every quote that was ever held, with the time at which it came to be.
    pub(super) history: Vec<(MonoNs, Quote)>,
    /// The latest instant at which it was known to be fresh.
    fresh_last: MonoNs,
    /// When REST last said that it cannot say.
    pub(super) failed_last: MonoNs,
    /// When it was last confirmed.
    pub(super) news_last: MonoNs,
}

/// What a shard should know.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) rows: Vec<Row>,
    sessions: [(u32, MonoNs); EXCHANGES.len()],
}

/// What the rule says.
#[derive(Clone, Debug)]
pub(super) enum Chosen {
    Fresh(ListingId),
    Stale(ListingId),
    Unknown,
}

impl Model {
    pub(super) fn new() -> Self {
        let row = |symbol, any_quote, exchange, currency| Row {
            symbol,
            exchange,
            currency,
            any_quote,
            held: None,
            live: None,
            rest_until: MonoNs(0),
            history: Vec::new(),
            fresh_last: MonoNs(0),
            failed_last: MonoNs(0),
            news_last: MonoNs(0),
        };
        let rows = ASSETS.iter().flat_map(|(symbol, any_quote, listings)| {
            listings.iter().map(move |(exchange, currency)| row(*symbol, *any_quote, *exchange, *currency))
        });
        Self { rows: rows.collect(), sessions: [(0, MonoNs(0)); EXCHANGES.len()] }
    }

    pub(super) fn apply(&mut self, update: &Update, now: MonoNs) {
        match update {
            Update::Quote(id, quote, _, confirmation) => self.quote(*id, *quote, *confirmation, now),
            Update::Confirm(id, confirmation) => self.confirm(*id, *confirmation, now),
            Update::Heard(session, connection, deadline) => {
                self.heard(*session, *connection, *deadline, now);
            }
            Update::RestFailed(id) => {
                self.rows[id.index()].failed_last = now;
            }
        }
    }

    pub(super) fn quote(&mut self, id: ListingId, quote: Quote, confirmation: Confirmation, now: MonoNs) {
        let feed_lives = self.rows[id.index()].live.is_some_and(|(session, connection)| {
            let (known, deadline) = self.sessions[session.index()];
            known == connection && deadline != MonoNs(0)
        });
        let row = &mut self.rows[id.index()];
        let newer = match row.held {
            None => true,
            // REST repeats what the feed has said.
            Some(held) if quote.tier == Tier::Rest && feed_lives => quote.key.time > held.key.time,
            Some(held) => quote.key >= held.key,
        };
        if newer {
            row.held = Some(quote);
            row.history.push((now, quote));
        }
        self.confirm(id, confirmation, now);
    }

    pub(super) fn confirm(&mut self, id: ListingId, confirmation: Confirmation, now: MonoNs) {
        let row = &mut self.rows[id.index()];
        match confirmation {
            Confirmation::Live { session, connection } => row.live = Some((session, connection)),
            Confirmation::Until(until) => row.rest_until = row.rest_until.max(until),
        }
        row.news_last = now;
        self.note_freshness();
    }

    pub(super) fn heard(&mut self, session: SessionId, connection: u32, deadline: MonoNs, _: MonoNs) {
        let known = &mut self.sessions[session.index()];
        if connection >= known.0 {
            *known = (connection, deadline);
        }
        self.note_freshness();
    }

    fn note_freshness(&mut self) {
        for index in 0..self.rows.len() {
            let until = self.fresh_until(index);
            let row = &mut self.rows[index];
            row.fresh_last = row.fresh_last.max(until);
        }
    }

    pub(super) fn fresh_until(&self, index: usize) -> MonoNs {
        let row = &self.rows[index];
        let live = row.live.map(|(session, connection)| (self.sessions[session.index()], connection));
        match live {
            Some(((known, deadline), connection)) if known == connection => deadline.max(row.rest_until),
            _ => row.rest_until,
        }
    }

    /// Which listing answers for a symbol, by the rule.
    pub(super) fn choose(&self, symbol: &str, source: Option<usize>, now: MonoNs) -> Chosen {
        let of_asset = self.rows.iter().enumerate().filter(|(_, row)| row.symbol == symbol);
        let Some((_, preferred)) = of_asset.clone().next() else { return Chosen::Unknown };
        let may = |row: &Row| match source {
            Some(exchange) => row.exchange == exchange,
            None => row.any_quote || row.currency == preferred.currency,
        };
        let may: Vec<usize> = of_asset.filter(|(_, row)| may(row)).map(|(index, _)| index).collect();
        let fresh = |index: &&usize| self.rows[**index].held.is_some() && now < self.fresh_until(**index);
        let id = |index: &usize| ListingId::new(*index).unwrap();
        match (may.iter().find(fresh), may.first()) {
            (Some(index), _) => Chosen::Fresh(id(index)),
            (None, Some(index)) => Chosen::Stale(id(index)),
            (None, None) => Chosen::Unknown,
        }
    }

    /// The JSON object of what a listing holds, without its closing brace.
    pub(super) fn object(&self, id: ListingId) -> String {
        let row = &self.rows[id.index()];
        row.object(&row.held.unwrap())
    }
}

impl Row {
    pub(super) fn object(&self, quote: &Quote) -> String {
        format!(
            r#"{{"asset":"{}","quote":"{}","price":"{}","source":"{}-{}","ts":{}"#,
            self.symbol,
            self.currency,
            quote.price,
            EXCHANGES[self.exchange].1,
            quote.tier.as_str(),
            quote.key.time.ms()
        )
    }

    /// Whether an answer given between the two instants may have said `object`.
    pub(super) fn may_have_said(&self, object: &str, from: MonoNs, to: MonoNs) -> bool {
        let said = |(index, (since, quote)): (usize, &(MonoNs, Quote))| {
            let until = self.history.get(index + 1).map_or(MonoNs::NEVER, |(at, _)| *at);
            *since <= to && until >= from && self.object(quote) == object
        };
        self.fresh_last >= from && self.history.iter().enumerate().any(said)
    }
}
