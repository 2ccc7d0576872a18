//! Recorded frames, and the last trade in them by an obvious reading that shares nothing with the
//! feeds: whole files through serde_json, every number kept as the text it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use beast::exchange_sim::Exchange;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use serde_json::value::RawValue;

/// The folder of the recordings; `None` when it is not there, which only a developer's machine may say.
pub(crate) fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("BEAST_RECORDINGS").map(PathBuf::from);
    let must = named.is_some() || std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"));
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(!must, "no recordings in {}; set BEAST_RECORDINGS to their folder", folder.display());
    eprintln!("not tested: no recordings in {}", folder.display());
    None
}

#[derive(Clone, Debug)]
pub(crate) struct Trade {
    pub(crate) symbol: String,
    pub(crate) price: String,
    pub(crate) time_ns: u64,
    id: u64,
}

/// The last trade of every symbol by exchange time, then id, then the order in which the exchange
/// sends.
pub(crate) fn last_trades(path: &Path, exchange: Exchange) -> BTreeMap<String, Trade> {
    let mut last: BTreeMap<String, Trade> = BTreeMap::new();
    for line in BufReader::new(MultiGzDecoder::new(File::open(path).unwrap())).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["dir"] != "in" {
            continue;
        }
        for trade in trades(exchange, line["frame"].as_str().unwrap()) {
            match last.get(&trade.symbol) {
                Some(held) if (held.time_ns, held.id) > (trade.time_ns, trade.id) => {}
                _ => drop(last.insert(trade.symbol.clone(), trade)),
            }
        }
    }
    last
}

/// The trades of a frame, oldest first.
fn trades(exchange: Exchange, frame: &str) -> Vec<Trade> {
    let Ok(frame) = serde_json::from_str::<&RawValue>(frame) else { return Vec::new() };
    let is = |path: &[&str], text: &str| at(frame, path).is_some_and(|found| plain(found) == text);
    let starts = |path: &[&str], text: &str| at(frame, path).is_some_and(|f| plain(f).starts_with(text));
    match exchange {
        Exchange::Coinbase if is(&["channel"], "market_trades") => {
            let events = list(at(frame, &["events"]));
            let mut all: Vec<Trade> = events
                .into_iter()
                .flat_map(|event| list(at(event, &["trades"])))
                .map(|t| trade(t, "product_id", "price", rfc3339(&of(t, "time")), "trade_id"))
                .collect();
            all.reverse();
            all
        }
        Exchange::CoinbaseExchange if is(&["type"], "match") || is(&["type"], "last_match") => {
            vec![trade(frame, "product_id", "price", rfc3339(&of(frame, "time")), "trade_id")]
        }
        Exchange::GeminiV2 => {
            let all = if is(&["type"], "trade") { vec![frame] } else { list(at(frame, &["trades"])) };
            all.into_iter()
                .filter(|t| of(t, "side") != "block")
                .map(|t| trade(t, "symbol", "price", decimal(&of(t, "timestamp"), 6), "event_id"))
                .collect()
        }
        Exchange::Kraken if is(&["channel"], "trade") => list(at(frame, &["data"]))
            .into_iter()
            .map(|t| trade(t, "symbol", "price", rfc3339(&of(t, "timestamp")), "trade_id"))
            .collect(),
        Exchange::KrakenV1 => kraken_v1(frame),
        Exchange::Gateio if is(&["channel"], "spot.trades") && is(&["event"], "update") => {
            let t = at(frame, &["result"]).unwrap();
            vec![trade(t, "currency_pair", "price", decimal(&of(t, "create_time_ms"), 6), "id")]
        }
        Exchange::Bybit if starts(&["topic"], "publicTrade.") => list(at(frame, &["data"]))
            .into_iter()
            .filter(|t| of(t, "BT") != "true")
            .map(|t| trade(t, "s", "p", decimal(&of(t, "T"), 6), ""))
            .collect(),
        Exchange::Okx if is(&["arg", "channel"], "trades") => list(at(frame, &["data"]))
            .into_iter()
            .map(|t| trade(t, "instId", "px", decimal(&of(t, "ts"), 6), "tradeId"))
            .collect(),
        Exchange::CryptocomV2 if is(&["result", "channel"], "trade") => {
            let mut all: Vec<Trade> = list(at(frame, &["result", "data"]))
                .into_iter()
                .map(|t| trade(t, "i", "p", decimal(&of(t, "t"), 6), "d"))
                .collect();
            all.reverse();
            all
        }
        _ => Vec::new(),
    }
}

/// `[channel, [[price, volume, time, …], …], "trade", pair]`.
fn kraken_v1(frame: &RawValue) -> Vec<Trade> {
    let parts = list(Some(frame));
    let [_, trades, name, pair] = parts[..] else { return Vec::new() };
    if plain(name) != "trade" {
        return Vec::new();
    }
    let of = |trade: &RawValue| {
        let fields = list(Some(trade));
        Trade { symbol: plain(pair), price: plain(fields[0]), time_ns: decimal(&plain(fields[2]), 9), id: 0 }
    };
    list(Some(trades)).into_iter().map(of).collect()
}

fn trade(t: &RawValue, symbol: &str, price: &str, time_ns: u64, id: &str) -> Trade {
    let id = if id.is_empty() { 0 } else { of(t, id).parse().unwrap() };
    Trade { symbol: of(t, symbol), price: of(t, price), time_ns, id }
}

/// The value at a path of keys.
fn at<'a>(value: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    let Some((key, rest)) = path.split_first() else { return Some(value) };
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(value.get()).ok()?;
    at(members.remove(*key)?, rest)
}

fn list(value: Option<&RawValue>) -> Vec<&RawValue> {
    value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default()
}

/// The text of a string, or whatever else stands there as it stands there.
fn plain(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

fn of(value: &RawValue, key: &str) -> String {
    at(value, &[key]).map(plain).unwrap_or_default()
}

/// `digits[.digits]` in a unit of 10^`power` nanoseconds.
fn decimal(text: &str, power: usize) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<power$}").parse().unwrap()
}

fn rfc3339(text: &str) -> u64 {
    let (whole, fraction) = text.strip_suffix('Z').unwrap().split_once('.').unwrap();
    let n: Vec<u64> = whole.split(['-', 'T', ':']).map(|part| part.parse().unwrap()).collect();
    // Days before the month in a year that begins in March, so that the leap day comes last.
    let (year, month) = if n[1] > 2 { (n[0], n[1] - 3) } else { (n[0] - 1, n[1] + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + n[2] - 719_469;
    let nanos: u64 = format!("{fraction:0<9}").parse().unwrap();
    (days * 86_400 + n[3] * 3_600 + n[4] * 60 + n[5]) * 1_000_000_000 + nanos
}
