//! Recordings come out as they went in.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use beast::exchange_sim::{Exchange, Replay, Sim, SimOptions, Speed};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{TIME_NS, case, connect, get, run, text, text_with, until};

/// Replays `path` at full speed and returns what the client received that was no reply.
async fn replayed(path: &Path) -> (Exchange, Vec<String>) {
    let replay = Replay::load(path).unwrap();
    let (exchange, len) = (replay.exchange(), replay.len());
    let sim =
        Sim::start(SimOptions { replays: vec![replay], speed: Speed::Max, ..SimOptions::default() }).unwrap();
    let case = case(exchange);
    assert_eq!(get(&sim, exchange, case.rest).await.0, 503, "REST would mix a price of its own in");
    let mut socket = connect(&sim, exchange).await;
    if matches!(exchange, Exchange::Kraken | Exchange::KrakenV1) {
        assert!(text(&mut socket).await.contains("online"), "{exchange} greets before anything else");
    }
    socket.send(Message::text(case.subscribe)).await.unwrap();
    let mut texts = Vec::new();
    while texts.len() < len {
        let text = text(&mut socket).await;
        if !is_reply(exchange, &text) {
            texts.push(text);
        }
    }
    until("finished", || sim.control().replay_finished(exchange)).await;
    sim.control().trade(exchange, case.symbol, "987654.5", TIME_NS).unwrap();
    let after = text_with(&mut socket, |text| !is_reply(exchange, text) && !text.contains("eartbeat")).await;
    assert!(after.contains("987654.5"), "{exchange}: {after}");
    (exchange, texts)
}

/// Whether a frame acknowledges or refuses a request, by the test's own reading.
fn is_reply(exchange: Exchange, text: &str) -> bool {
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return false };
    let is = |key: &str, values: &[&str]| frame[key].as_str().is_some_and(|value| values.contains(&value));
    let has = |key: &str| frame.get(key).is_some();
    match exchange {
        Exchange::Coinbase => is("channel", &["subscriptions"]) || is("type", &["error"]),
        Exchange::CoinbaseExchange => is("type", &["subscriptions", "error"]),
        Exchange::Gemini => has("status"),
        Exchange::GeminiV2 => false,
        Exchange::Kraken => has("method"),
        Exchange::KrakenV1 => is("event", &["subscriptionStatus", "error", "pong"]),
        Exchange::Gateio => is("event", &["subscribe", "unsubscribe"]),
        Exchange::Bybit => has("success"),
        Exchange::Okx => has("event"),
        Exchange::Cryptocom | Exchange::CryptocomV2 => is("method", &["subscribe"]) && !has("result"),
    }
}

/// The received frames of a file that are no replies, by the test's own reading.
fn recorded(path: &Path, exchange: Exchange) -> Vec<String> {
    BufReader::new(MultiGzDecoder::new(File::open(path).unwrap()))
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter(|line| line["dir"] == "in")
        .map(|line| line["frame"].as_str().unwrap().to_owned())
        .filter(|frame| !is_reply(exchange, frame))
        .collect()
}

#[test]
fn a_recording_of_our_own_is_replayed_verbatim() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bybit.own.jsonl.gz");
        let mut file = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        let frames = [
            ("out", r#"{"op":"subscribe","args":["publicTrade.ETHUSDT"]}"#),
            ("in", r#"{"success":true,"ret_msg":"subscribe","conn_id":"x","op":"subscribe"}"#),
            (
                "in",
                r#"{ "data":[ {"s":"ETHUSDT","p":"1900.10","T":1,"i":"5"} ], "topic":"publicTrade.ETHUSDT" }"#,
            ),
            ("in", "no JSON at all \u{e9}\u{1f600}"),
            ("in", r#"{"topic":"tickers.ETHUSDT","data":{"lastPrice":"1"}}"#),
        ];
        for (index, (direction, frame)) in frames.iter().enumerate() {
            writeln!(file, "{}", json!({"t_ns": 1_000 * index, "dir": direction, "frame": frame})).unwrap();
        }
        file.finish().unwrap();
        let (exchange, texts) = replayed(&path).await;
        assert_eq!(exchange, Exchange::Bybit);
        assert_eq!(texts, frames[2..].iter().map(|(_, frame)| *frame).collect::<Vec<_>>());
    });
}

#[test]
fn real_recordings_are_replayed_verbatim() {
    let named = std::env::var_os("BEAST_RECORDINGS").map(PathBuf::from);
    let required = named.is_some() || std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"));
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(!required, "no recordings in {}; set BEAST_RECORDINGS to their folder", folder.display());
        eprintln!("skipped: no recordings in {}", folder.display());
        return;
    };
    let mut paths = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    paths.sort();
    let mut protocols = BTreeSet::new();
    for path in paths.iter().filter(|path| path.to_string_lossy().ends_with(".jsonl.gz")) {
        run(async {
            let (exchange, texts) = replayed(path).await;
            let wanted = recorded(path, exchange);
            assert_eq!(texts.len(), wanted.len(), "{}", path.display());
            for (got, wanted) in texts.iter().zip(&wanted) {
                assert_eq!(got, wanted, "{}", path.display());
            }
            protocols.insert(exchange);
        });
    }
    for exchange in [
        Exchange::Coinbase,
        Exchange::CoinbaseExchange,
        Exchange::GeminiV2,
        Exchange::Kraken,
        Exchange::KrakenV1,
        Exchange::Gateio,
        Exchange::Bybit,
        Exchange::Okx,
        Exchange::CryptocomV2,
    ] {
        assert!(protocols.contains(&exchange), "no recording of {exchange}");
    }
}
