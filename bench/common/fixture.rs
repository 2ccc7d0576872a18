//! A shard's worth of knowledge without feeds and store: 150 assets, each listed by two exchanges,
//! all fresh for ever, and one key.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use beast::account::{Key, KeyTable, Tier as AccountTier, Token};
use beast::ledger::Segment;
use beast::limits::SOCKET_BUFFER_LEN;
use beast::load::{V1, V2};
use beast::price::{
    AssetId, Catalogue, Confirmation, Currency, Exchange, ExchangeId, ListingId, Price, Quote, Symbol, Tier,
    TradeKey,
};
use beast::shard::{Answerer, NoRest, Ready, ShardSecrets};
use beast::time::{Clock, MonoNs, RealClock, UnixNs};
use beast::wire::v2;

const ASSETS: usize = 150;

/// The symbols of all assets, from A000 on: 4 characters, the usual length.
pub fn symbols() -> io::Result<Vec<Symbol>> {
    (0..ASSETS).map(|n| Symbol::parse(&format!("A{n:03}")).map_err(io::Error::other)).collect()
}

fn catalogue() -> io::Result<Catalogue> {
    let exchange = |number, name: &str| -> io::Result<Exchange> {
        let id = ExchangeId::new(number).map_err(io::Error::other)?;
        Ok(Exchange { id, name: name.into(), dead_after: Duration::from_secs(5) })
    };
    let exchanges = vec![exchange(1, "coinbase")?, exchange(2, "kraken")?];
    let ids: Vec<ExchangeId> = exchanges.iter().map(|exchange| exchange.id).collect();
    let mut catalogue = Catalogue::new(exchanges).map_err(io::Error::other)?;
    let usd = Currency::parse("USD").map_err(io::Error::other)?;
    for (n, symbol) in symbols()?.into_iter().enumerate() {
        let id = AssetId::new(n + 1).map_err(io::Error::other)?;
        let listings = [(ids[0], "x", usd), (ids[1], "y", usd)];
        catalogue.add_asset(id, symbol, false, &listings).map_err(io::Error::other)?;
    }
    Ok(catalogue)
}

/// An answerer that has a price for every asset and knows `token`, without limits.
///
/// # Errors
/// None that a right build meets.
pub fn answerer(token: &Token) -> io::Result<Answerer> {
    answerer_on(Segment::new(1, 0), token)
}

/// As [`answerer`], with its records in that place.
///
/// # Errors
/// As [`answerer`].
pub fn answerer_on(segment: Segment, token: &Token) -> io::Result<Answerer> {
    let tier = AccountTier { name: "partner".into(), unlimited: true, qps: 0, burst: 0, monthly: None };
    answerer_of(tier, segment, token)
}

/// As [`answerer_on`], with a key of that tier.
///
/// # Errors
/// As [`answerer`].
pub fn answerer_of(tier: AccountTier, segment: Segment, token: &Token) -> io::Result<Answerer> {
    let key = Key {
        number: 1,
        account: 1,
        public_id: token.public_id(),
        secret_hash: token.secret_hash(),
        v2_request: token.v2_request_key(),
        v2_answer: token.v2_answer_key(),
        tier,
        networks: vec![],
        admin: false,
        expires: UnixNs::NEVER,
    };
    let catalogue = Arc::new(catalogue()?);
    let mut answerer = Answerer::new(
        Arc::clone(&catalogue),
        Box::new(KeyTable::new(vec![key])),
        segment,
        ShardSecrets { recognizer: [1; 16], budget: [2; 16] },
        Box::new(NoRest),
    );
    answerer.set_clock(|| RealClock.now().mono);
    let unix = RealClock.now().unix;
    for n in 0..catalogue.listings().len() {
        let listing = ListingId::new(n).map_err(io::Error::other)?;
        // All prices have seven digits, so that all answers are equally long.
        let text = format!("{}.{:02}", 10_000 + n * 37, n % 90 + 10);
        let quote = Quote {
            price: Price::parse(text.as_bytes()).map_err(io::Error::other)?,
            key: TradeKey { time: unix, number: 1 },
            received: unix,
            tier: Tier::Ws,
        };
        let ready = Ready::new(&catalogue, listing, &quote);
        answerer.board_mut().update(listing, quote, ready, Confirmation::Until(MonoNs::NEVER));
    }
    Ok(answerer)
}

/// v1 requests that the answerer answers.
///
/// # Errors
/// As [`answerer`].
pub fn v1(token: &Token) -> io::Result<V1> {
    Ok(V1::new(&token.reveal(), &symbols()?))
}

/// v2 requests that the answerer answers.
///
/// # Errors
/// As [`answerer`].
pub fn v2(token: &Token) -> io::Result<V2> {
    Ok(V2 {
        key_id: token.public_id(),
        request_key: v2::Key(token.v2_request_key().0),
        answer_key: v2::Key(token.v2_answer_key().0),
        symbols: symbols()?,
    })
}

/// Socket buffers of the servers that are compared, in bytes.
pub const BUFFER_LEN: usize = SOCKET_BUFFER_LEN;
