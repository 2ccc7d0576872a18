//! Recordings of the real exchanges, replayed through a real WebSocket at full speed: every protocol
//! must answer with the last trade of the file, digit for digit.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use beast::appliance::feed_setup;
use beast::config::{Config, IoChoice};
use beast::exchange_sim::{Exchange, Replay, Sim, SimOptions, Speed};
use beast::time::{Clock as _, RealClock};
use tempfile::NamedTempFile;

mod support;

use support::feeds::{NUMBER, Running, config, enable, enable_tls, engines, list, metric};
use support::program::Program;
use support::recordings::{folder, last_trades};
use support::wait::{holds, until};

/// Every recording that holds trades, and what it speaks.
const RECORDINGS: &[(&str, Exchange)] = &[
    ("coinbase.cryptofeed-20260809", Exchange::Coinbase),
    ("coinbase.flashbook-20260707", Exchange::CoinbaseExchange),
    ("gemini.cryptofeed-20210405", Exchange::GeminiV2),
    ("gemini.cryptofeed-20210623", Exchange::GeminiV2),
    ("gemini.cryptofeed-20260809", Exchange::GeminiV2),
    ("kraken.cryptofeed-20210417", Exchange::KrakenV1),
    ("kraken.flashbook-20260707", Exchange::Kraken),
    ("gateio.cryptofeed-20210422", Exchange::Gateio),
    ("bybit.cryptofeed-20260809-spot", Exchange::Bybit),
    ("okx.cryptofeed-20210722", Exchange::Okx),
    ("okx.cryptofeed-20220513", Exchange::Okx),
    ("cryptocom.cryptofeed-20211123", Exchange::CryptocomV2),
];

#[test]
fn every_recording_is_answered_with_its_last_trades_on_uring() {
    if engines().contains(&IoChoice::Uring) {
        replay_all(IoChoice::Uring, false);
    }
}

#[test]
fn every_recording_is_answered_with_its_last_trades_on_the_portable_engine() {
    replay_all(IoChoice::Portable, false);
}

#[test]
fn every_recording_is_answered_with_its_last_trades_through_tls() {
    for io in engines() {
        replay_all(io, true);
    }
}

fn replay_all(io: IoChoice, tls: bool) {
    let Some(folder) = folder() else { return };
    for (name, exchange) in RECORDINGS {
        replay(io, &folder.join(format!("{name}.jsonl.gz")), *exchange, tls);
    }
}

fn with_tls() -> SimOptions {
    SimOptions { tls_listen: Some((Ipv4Addr::LOCALHOST, 0).into()), ..SimOptions::default() }
}

/// A file with the simulation's certificate.
fn trusted(sim: &Sim) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), sim.certificate_pem().unwrap()).unwrap();
    file
}

/// A symbol of the exchange that is in no recording: its trade comes after all others.
fn after(exchange: Exchange) -> &'static str {
    match exchange {
        Exchange::Coinbase | Exchange::CoinbaseExchange | Exchange::Okx => "AFTER-USD",
        Exchange::Gemini => "afterusd",
        Exchange::GeminiV2 | Exchange::Bybit => "AFTERUSD",
        Exchange::Kraken | Exchange::KrakenV1 => "AFTER/USD",
        Exchange::Gateio | Exchange::Cryptocom | Exchange::CryptocomV2 => "AFTER_USD",
    }
}

fn replay(io: IoChoice, path: &Path, exchange: Exchange, tls: bool) {
    let expected = last_trades(path, exchange);
    assert!(!expected.is_empty(), "{} holds no trade", path.display());
    let replay = Replay::load(path).unwrap();
    assert_eq!(replay.exchange(), exchange, "{}", path.display());
    let sim = Sim::start(SimOptions { replays: vec![replay], speed: Speed::Max, ..with_tls() }).unwrap();
    let mut config = config(io);
    config.assets.clear();
    let authority = trusted(&sim);
    config.feeds_ca_file = Some(authority.path().to_owned());
    // One connection, so that one last trade comes after all others.
    let enable = if tls { enable_tls } else { enable };
    enable(&mut config, &sim, exchange, "symbols_per_connection = 1000");
    list(&mut config, "AFTER", Some(NUMBER), &[(exchange, after(exchange))]);
    let assets = assets(&mut config, exchange, expected.keys());
    let running = Running::start(config);
    let client = &running.client;
    until("the recording is sent", || {
        holds(sim.control().replay_finished(exchange), || format!("{:?}", sim.control().counts(exchange)))
    });
    sim.control().trade(exchange, after(exchange), "1.5", RealClock.now().unix.0).unwrap();
    client.until("AFTER", "1.5", &format!("{exchange}-ws"));
    for (symbol, trade) in &expected {
        let answer = client.all(&assets[symbol], Some(exchange.name())).unwrap_or_else(|error| {
            panic!("{} {symbol}: {error}", path.display());
        });
        let found = (answer.price.as_str(), answer.ts_ms, answer.source.as_str());
        let wanted = (trade.price.as_str(), trade.time_ns / 1_000_000, &*format!("{exchange}-ws"));
        assert_eq!(found, wanted, "{} {symbol}", path.display());
    }
}

/// Which asset each symbol prices: a built-in one, or one that is added.
fn assets<'a>(
    config: &mut Config,
    exchange: Exchange,
    symbols: impl Iterator<Item = &'a String>,
) -> BTreeMap<String, String> {
    let built_in = feed_setup(config, None).unwrap().catalogue;
    let mut assets = BTreeMap::new();
    for (index, symbol) in symbols.enumerate() {
        let listing = built_in.listings().iter().find(|listing| listing.symbol == *symbol);
        let known = listing.and_then(|listing| built_in.asset_by_id(listing.asset));
        let asset = known.map_or_else(|| format!("R{index}"), |asset| asset.symbol.to_string());
        if known.is_none() {
            list(config, &asset, Some(NUMBER + 1 + index), &[(exchange, symbol)]);
        }
        assets.insert(symbol.clone(), asset);
    }
    assets
}

#[test]
fn rest_through_tls_answers_where_the_feed_is_refused() {
    let sim = Sim::start(SimOptions { rate: 0, ..with_tls() }).unwrap();
    sim.control().refuse_connect(Exchange::Kraken, true);
    sim.control().set_price(Exchange::Kraken, "BTC/USD", "65001.5").unwrap();
    let mut config = config(IoChoice::Auto);
    enable_tls(&mut config, &sim, Exchange::Kraken, "");
    list(&mut config, "BTC", None, &[(Exchange::Kraken, "BTC/USD")]);
    let authority = trusted(&sim);
    config.feeds_ca_file = Some(authority.path().to_owned());
    Running::start(config).client.until("BTC", "65001.5", "kraken-rest");
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused_with_the_cure_and_tried_again_later() {
    let sim = Sim::start(SimOptions { rate: 0, ..with_tls() }).unwrap();
    sim.control().set_price(Exchange::Kraken, "BTC/USD", "65001.5").unwrap();
    let mut config = config(IoChoice::Portable);
    enable_tls(&mut config, &sim, Exchange::Kraken, "");
    list(&mut config, "BTC", None, &[(Exchange::Kraken, "BTC/USD")]);
    let program = Program::start(&config);
    let line = program.line_with("UnknownIssuer");
    assert!(line.contains("WARN") && line.contains("kraken") && line.contains("feeds_ca_file"), "{line}");
    until("it is dialled again", || {
        let dialled = metric(program.health, "beast_feed_dialled_total", "kraken");
        holds(dialled >= 2, || format!("{dialled} attempts"))
    });
    assert_eq!(program.client.all("BTC", None), Err("stale".to_owned()), "REST is not trusted either");
    assert_eq!(sim.control().counts(Exchange::Kraken), Default::default(), "nothing came through");
}
