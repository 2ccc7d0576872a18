//! Extraction against an obvious reading of every recorded message: the last trade of each symbol
//! by time and trade number must agree digit for digit, for every exchange and protocol.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

use super::{LATE, listing, row};
use crate::feed::{Extractor, Frame, Row, Trade};
use crate::time::UnixNs;

/// Which rows read the files of an exchange, and how many trades at least they must find.
const READERS: &[(&str, &[(&str, usize)])] = &[
    ("coinbase", &[("coinbase", 250), ("coinbase_exchange", 430)]),
    ("gemini", &[("gemini", 1), ("gemini_v2", 1_800)]),
    ("kraken", &[("kraken", 15), ("kraken_v1", 15)]),
    ("gateio", &[("gateio", 5)]),
    ("bybit", &[("bybit", 15)]),
    ("okx", &[("okx", 100)]),
    ("cryptocom", &[("cryptocom", 1_000), ("cryptocom_v2", 1_000)]),
];

/// `None` when the recordings are not there, which only a developer's machine may say.
fn recordings() -> Option<PathBuf> {
    let named = std::env::var_os("BEAST_RECORDINGS");
    let folder = named.clone().map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    let must = named.is_some() || std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "no recordings in {}; point BEAST_RECORDINGS at them", folder.display());
    eprintln!("no recordings in {}: extraction was not compared", folder.display());
    None
}

/// A received message.
struct Recorded {
    file: String,
    received: UnixNs,
    text: String,
    /// The text, its numbers as strings.
    value: Value,
}

/// Every received message of every file of an exchange.
fn messages(folder: &PathBuf, exchange: &str) -> Vec<Recorded> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(&format!("{exchange}.")) && name.ends_with(".jsonl.gz"))
        .collect();
    names.sort();
    assert!(names.len() > 2, "{exchange}: too few recordings");
    let mut messages = Vec::new();
    for name in names {
        let mut text = String::new();
        let file = std::fs::File::open(folder.join(&name)).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["dir"] == "in" {
                let received = line["t_ns"].as_u64().map_or(LATE, UnixNs);
                let text = line["frame"].as_str().unwrap().to_owned();
                let value = serde_json::from_str(&numbers_as_strings(&text)).unwrap();
                messages.push(Recorded { file: name.clone(), received, text, value });
            }
        }
    }
    messages
}

/// Puts quotes around every number, so that serde_json keeps its digits.
fn numbers_as_strings(text: &str) -> String {
    let mut out = String::new();
    let (mut inside, mut escaped, mut number) = (false, false, false);
    for c in text.chars() {
        let digit = !inside
            && (c.is_ascii_digit() || matches!(c, '-' | '+' | '.') || number && matches!(c, 'e' | 'E'));
        if digit != number {
            out.push('"');
            number = digit;
        }
        out.push(c);
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = inside,
            '"' => inside = !inside,
            _ => {}
        }
    }
    out
}

#[derive(Clone, Debug)]
struct Plain {
    symbol: String,
    price: String,
    time_ns: u64,
    id: Option<u64>,
}

fn plain(value: &Value, symbol: &Value, price: &str, time_ns: u64, id: &str) -> Plain {
    let text = |v: &Value| v.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let id = value.get(id).map(|id| text(id).parse().unwrap());
    Plain { symbol: text(symbol), price: text(&value[price]), time_ns, id }
}

fn rfc3339(value: &Value) -> u64 {
    let text = value.as_str().unwrap().strip_suffix('Z').unwrap();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let n: Vec<u64> = whole.split(['-', 'T', ':']).map(|part| part.parse().unwrap()).collect();
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut days = n[2] - 1;
    for year in 1970..n[0] {
        days += if leap(year) { 366 } else { 365 };
    }
    for month in 1..n[1] {
        days += match month {
            2 => {
                if leap(n[0]) {
                    29
                } else {
                    28
                }
            }
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().unwrap();
    (days * 86_400 + n[3] * 3_600 + n[4] * 60 + n[5]) * 1_000_000_000 + nanos
}

/// `digits[.digits]` of a unit of 10^`power` nanoseconds.
fn unix(value: &Value, power: usize) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<power$}").parse().unwrap()
}

/// The trades of a message in the order of time, `None` when it is no trade message.
fn oracle(row: &str, m: &Value) -> Option<Vec<Plain>> {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    Some(match row {
        "coinbase" if m["channel"] == "market_trades" => {
            let trades = list(&m["events"]).into_iter().flat_map(|e| list(&e["trades"]));
            let mut all: Vec<_> = trades
                .map(|t| plain(&t, &t["product_id"], "price", rfc3339(&t["time"]), "trade_id"))
                .collect();
            all.reverse();
            all
        }
        "coinbase_exchange" if m["type"] == "match" || m["type"] == "last_match" => {
            vec![plain(m, &m["product_id"], "price", rfc3339(&m["time"]), "trade_id")]
        }
        "gemini" if m.get("t").is_some() && m.get("p").is_some() && m.get("m").is_some() => {
            vec![plain(m, &m["s"], "p", unix(&m["E"], 0), "t")]
        }
        "gemini_v2" if m["type"] == "trade" || m["type"] == "l2_updates" && m.get("trades").is_some() => {
            let one = vec![m.clone()];
            let all = if m["type"] == "trade" { one } else { list(&m["trades"]) };
            all.iter()
                .filter(|t| t["side"] != "block")
                .map(|t| plain(t, &t["symbol"], "price", unix(&t["timestamp"], 6), "event_id"))
                .collect()
        }
        "kraken" if m["channel"] == "trade" => {
            let of = |t: &Value| plain(t, &t["symbol"], "price", rfc3339(&t["timestamp"]), "trade_id");
            list(&m["data"]).iter().map(of).collect()
        }
        "kraken_v1" if m[2] == "trade" => list(&m[1])
            .iter()
            .map(|t| Plain {
                symbol: m[3].as_str().unwrap().into(),
                price: t[0].as_str().unwrap().into(),
                time_ns: unix(&t[2], 9),
                id: None,
            })
            .collect(),
        "gateio" if m["channel"] == "spot.trades" && m["event"] == "update" => {
            let t = &m["result"];
            vec![plain(t, &t["currency_pair"], "price", unix(&t["create_time_ms"], 6), "id")]
        }
        "bybit" if m["topic"].as_str().is_some_and(|t| t.starts_with("publicTrade.")) => list(&m["data"])
            .iter()
            .filter(|t| t["BT"] != true)
            .map(|t| plain(t, &t["s"], "p", unix(&t["T"], 6), "none"))
            .collect(),
        "okx" if m["arg"]["channel"] == "trades" && m.get("data").is_some() => {
            let of = |t: &Value| plain(t, &t["instId"], "px", unix(&t["ts"], 6), "tradeId");
            list(&m["data"]).iter().map(of).collect()
        }
        "cryptocom" | "cryptocom_v2" if m["result"]["channel"] == "trade" => {
            let of = |t: &Value| plain(t, &t["i"], "p", unix(&t["t"], 6), "d");
            list(&m["result"]["data"]).iter().rev().map(of).collect()
        }
        _ => return None,
    })
}

struct Tally {
    trades: usize,
    last: BTreeMap<String, Plain>,
}

/// The obvious way: every trade in order, the last one by time and number stays.
fn last_trades(row: &str, messages: &[Recorded]) -> Tally {
    let mut tally = Tally { trades: 0, last: BTreeMap::new() };
    for message in messages {
        for trade in oracle(row, &message.value).unwrap_or_default() {
            tally.trades += 1;
            let key = |t: &Plain| (t.time_ns, t.id.unwrap_or(0));
            match tally.last.get(&trade.symbol) {
                Some(held) if key(held) > key(&trade) => {}
                _ => {
                    tally.last.insert(trade.symbol.clone(), trade);
                }
            }
        }
    }
    tally
}

/// What extraction finds, with the trade that a board would hold in the end.
fn extracted(row: &Row, symbols: &[&String], messages: &[Recorded]) -> (BTreeMap<String, Trade>, Extractor) {
    let table = symbols.iter().enumerate().map(|(n, symbol)| (symbol.as_str(), listing(n)));
    let mut extractor = Extractor::new(row, table).unwrap();
    let mut last: BTreeMap<String, Trade> = BTreeMap::new();
    let mut out = Vec::new();
    for Recorded { file, received, text, value } in messages {
        out.clear();
        let frame = extractor.extract(text.as_bytes(), *received, &mut out);
        assert_ne!(frame, Frame::Malformed, "{file}: {text}");
        let is_trades = matches!(frame, Frame::Trades(_));
        assert_eq!(oracle(&row.name, value).is_some(), is_trades, "{} {file}: {text}", row.name);
        if let Frame::Trades(count) = frame {
            assert_eq!(count, out.len());
        }
        for trade in &out {
            let symbol = symbols[trade.listing.index()];
            match last.get(symbol) {
                Some(held) if held.key > trade.key => {}
                _ => {
                    last.insert(symbol.clone(), *trade);
                }
            }
        }
    }
    (last, extractor)
}

#[test]
fn every_recording_ends_at_its_last_trade_digit_for_digit() {
    let Some(folder) = recordings() else { return };
    for (exchange, readers) in READERS {
        let messages = messages(&folder, exchange);
        for (name, trades_min) in *readers {
            let row = row(name);
            let tally = last_trades(name, &messages);
            assert!(tally.trades >= *trades_min, "{name}: only {} trades", tally.trades);
            let symbols: Vec<&String> = tally.last.keys().collect();
            let (found, extractor) = extracted(&row, &symbols, &messages);
            assert_eq!(extractor.refused().total(), 0, "{name}: {:?}", extractor.refused());
            assert_eq!(found.keys().collect::<Vec<_>>(), symbols, "{name}");
            for (symbol, expected) in &tally.last {
                let trade = &found[symbol];
                assert_eq!(trade.price.text().as_str(), expected.price, "{name} {symbol}");
                assert_eq!(trade.key.time.0, expected.time_ns, "{name} {symbol}");
                if let Some(id) = expected.id {
                    assert_eq!(trade.key.number, id, "{name} {symbol}");
                }
            }
        }
    }
}

#[test]
fn each_file_ends_at_its_last_trade_alone() {
    let Some(folder) = recordings() else { return };
    for (exchange, readers) in READERS {
        let messages = messages(&folder, exchange);
        for messages in messages.chunk_by(|a, b| a.file == b.file) {
            for (name, _) in *readers {
                let tally = last_trades(name, messages);
                let symbols: Vec<&String> = tally.last.keys().collect();
                let (found, _) = extracted(&row(name), &symbols, messages);
                let prices = |(symbol, trade): (&String, &Trade)| {
                    (symbol.clone(), trade.price.to_string(), trade.key.time.0)
                };
                let expected: Vec<_> =
                    tally.last.iter().map(|(s, t)| (s.clone(), t.price.clone(), t.time_ns)).collect();
                assert_eq!(
                    found.iter().map(prices).collect::<Vec<_>>(),
                    expected,
                    "{name} {}",
                    messages[0].file
                );
            }
        }
    }
}

#[test]
fn strangers_in_recordings_are_counted_and_nothing_else_changes() {
    let Some(folder) = recordings() else { return };
    for (exchange, readers) in READERS {
        let messages = messages(&folder, exchange);
        for (name, _) in *readers {
            let tally = last_trades(name, &messages);
            let known: Vec<&String> = tally.last.keys().step_by(2).collect();
            let (found, extractor) = extracted(&row(name), &known, &messages);
            assert_eq!(found.keys().collect::<Vec<_>>(), known, "{name}");
            assert!(known.iter().all(|s| found[*s].price.text().as_str() == tally.last[*s].price), "{name}");
            let strangers = tally.last.len() > known.len();
            assert_eq!(extractor.refused().unknown_symbol > 0, strangers, "{name}");
            assert_eq!(extractor.refused().total(), extractor.refused().unknown_symbol, "{name}");
        }
    }
}
