//! Own small messages, written from the documented shapes.

use super::{LATE, built_in, extractor, listing, read};
use crate::feed::{Extractor, Frame, Refused};
use crate::limits::TRADE_AHEAD_NS_MAX;
use crate::time::UnixNs;

/// A message with one trade of `{S}` at `{P}`, for each row that is on, and a symbol of that row.
pub(super) const ONE_TRADE: &[(&str, &str, &str)] = &[
    (
        "coinbase",
        "ABC-USD",
        r#"{"channel":"market_trades","timestamp":"2026-01-02T03:04:05.1Z","sequence_num":7,"events":[{"type":"update","trades":[{"product_id":"{S}","trade_id":"41","price":{P},"size":"1.5","time":"2026-01-02T03:04:05.123456Z","side":"BUY"}]}]}"#,
    ),
    ("gemini", "abcusd", r#"{"E":1767323045123456000,"s":"{S}","t":41,"p":{P},"q":"1.5","m":false}"#),
    (
        "kraken",
        "ABC/USD",
        r#"{"channel":"trade","type":"update","data":[{"symbol":"{S}","side":"buy","price":{P},"qty":1.50,"ord_type":"limit","trade_id":41,"timestamp":"2026-01-02T03:04:05.123456Z"}]}"#,
    ),
    (
        "gateio",
        "ABC_USDT",
        r#"{"time":1767323045,"time_ms":1767323045130,"channel":"spot.trades","event":"update","result":{"id":41,"create_time":1767323045,"create_time_ms":"1767323045123.456","side":"buy","currency_pair":"{S}","amount":"1.5","price":{P}}}"#,
    ),
    (
        "bybit",
        "ABCUSDT",
        r#"{"topic":"publicTrade.{S}","ts":1767323045124,"type":"snapshot","data":[{"i":"99","T":1767323045123,"p":{P},"v":"1.5","S":"Buy","seq":5,"s":"{S}","BT":false,"RPI":false}]}"#,
    ),
    (
        "okx",
        "ABC-USDT",
        r#"{"arg":{"channel":"trades","instId":"{S}"},"data":[{"instId":"{S}","tradeId":"41","px":{P},"sz":"1.5","side":"buy","ts":"1767323045123","count":"1"}]}"#,
    ),
    (
        "cryptocom",
        "ABC_USD",
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"{S}","subscription":"trade.{S}","channel":"trade","data":[{"d":"41","t":1767323045123,"p":{P},"q":"1.5","s":"BUY","i":"{S}","m":"9"}]}}"#,
    ),
    (
        "coinbase_exchange",
        "ABC-USD",
        r#"{"type":"match","trade_id":41,"maker_order_id":"015e7661-0000","side":"buy","size":"1.5","price":{P},"product_id":"{S}","sequence":12,"time":"2026-01-02T03:04:05.123456Z"}"#,
    ),
    (
        "gemini_v2",
        "ABCUSD",
        r#"{"type":"l2_updates","symbol":"{S}","changes":[["buy","1","2"]],"trades":[{"event_id":41,"price":{P},"quantity":"1.5","side":"buy","symbol":"{S}","tid":77,"timestamp":1767323045123,"type":"trade"}]}"#,
    ),
    ("kraken_v1", "ABC/USD", r#"[12,[[{P},"1.5","1767323045.123456","b","l",""]],"trade","{S}"]"#),
    (
        "cryptocom_v2",
        "ABC_USD",
        r#"{"code":0,"method":"subscribe","result":{"instrument_name":"{S}","subscription":"trade.{S}","channel":"trade","data":[{"dataTime":1767323045999,"d":41,"s":"BUY","p":{P},"q":1.5,"t":1767323045123,"i":"{S}"}]}}"#,
    ),
];

/// The message of a row for a symbol and a price as JSON.
pub(super) fn one_trade(row: &str, symbol: &str, price: &str) -> String {
    let (_, _, message) = ONE_TRADE.iter().find(|(name, ..)| *name == row).unwrap();
    message.replace("{S}", symbol).replace("{P}", price)
}

#[test]
fn every_row_reads_its_trade_whether_the_price_is_a_string_or_a_number() {
    let rows: Vec<String> = built_in().rows.into_iter().map(|r| r.name).collect();
    assert_eq!(rows.len(), ONE_TRADE.len(), "a message for each row");
    for (name, symbol, _) in ONE_TRADE {
        let mut extractor = extractor(name, &["OTHER", symbol]);
        for (price, digits) in [
            ("\"0.0470500\"", "0.0470500"),
            ("84099.0", "84099.0"),
            ("\"3.5e-12\"", "0.0000000000035"),
            ("6E-8", "0.00000006"),
            ("\"\\u0031.5\"", "1.5"),
        ] {
            let message = one_trade(name, symbol, price);
            let (frame, trades) = read(&mut extractor, &message);
            assert_eq!(frame, Frame::Trades(1), "{name}: {message}");
            let (at, found, time, number) = trades[0].clone();
            assert_eq!((at, found.as_str()), (1, digits), "{name}");
            assert_eq!(time / 1_000_000, 1_767_323_045_123, "{name}");
            if !matches!(*name, "bybit" | "kraken_v1") {
                assert_eq!(number, 41, "{name}");
            }
        }
        assert_eq!(*extractor.refused(), Refused::default(), "{name}");
    }
}

#[test]
fn bad_prices_are_refused_and_counted_by_reason() {
    for (name, symbol, _) in ONE_TRADE {
        for (price, reason) in [
            ("\"-1\"", "negative_price"),
            ("-0.5", "negative_price"),
            ("\"0\"", "zero_price"),
            ("0.000", "zero_price"),
            ("\"NaN\"", "malformed_price"),
            ("NaN", "malformed_price"),
            ("true", "malformed_price"),
            ("\"\"", "malformed_price"),
            ("\"1,5\"", "malformed_price"),
            ("1e308", "absurd_price"),
            ("\"1234567890123456789012345678901234567890\"", "absurd_price"),
            ("1234567890123456789012345678901234567890", "absurd_price"),
            ("null", "missing_field"),
            ("{}", "missing_field"),
            ("[\"1\"]", "missing_field"),
        ] {
            if price == "null" && *name == "gemini" {
                continue; // Without a price it is not a trade message there.
            }
            let mut extractor = extractor(name, &[symbol]);
            let message = one_trade(name, symbol, price);
            let (frame, trades) = read(&mut extractor, &message);
            assert_eq!((frame, trades), (Frame::Trades(0), vec![]), "{name} {message}");
            let counted: Vec<_> =
                extractor.refused().by_reason().into_iter().filter(|(_, n)| *n > 0).collect();
            assert_eq!(counted, [(reason, 1)], "{name} {message}");
        }
    }
}

#[test]
fn strange_symbols_times_and_gaps_are_refused_and_counted() {
    for (name, symbol, _) in ONE_TRADE {
        let good = one_trade(name, symbol, "\"5\"");
        let refused = |message: &str, received: UnixNs| {
            let mut extractor = extractor(name, &[symbol]);
            let mut out = Vec::new();
            let frame = extractor.extract(message.as_bytes(), received, &mut out);
            assert!(out.is_empty(), "{name}: {message} {out:?}");
            assert_eq!(frame, Frame::Trades(0), "{name}: {message}");
            extractor.refused().by_reason().into_iter().find(|(_, n)| *n > 0).unwrap().0
        };
        for stranger in ["W", "ABC", "XABC-USDT", &format!("{symbol}X"), ""] {
            assert_eq!(
                refused(&one_trade(name, stranger, "\"5\""), LATE),
                "unknown_symbol",
                "{name} {stranger}"
            );
        }
        let time = |extractor: &mut Extractor| read(extractor, &good).1[0].2;
        let time = time(&mut extractor(name, &[symbol]));
        let earliest = UnixNs(time - TRADE_AHEAD_NS_MAX);
        assert_eq!(refused(&good, UnixNs(earliest.0 - 1)), "future_time", "{name}");
        let mut out = Vec::new();
        extractor(name, &[symbol]).extract(good.as_bytes(), earliest, &mut out);
        assert_eq!(out.len(), 1, "{name}: a clock may be that much behind");
        let bad_time =
            good.replace("2026-01-02T03:04:05.123456Z", "yesterday").replace("1767323045", "17673230");
        assert_eq!(refused(&bad_time, LATE), "bad_time", "{name}");
    }
    let kraken = r#"{"channel":"trade","data":[{"symbol":"A","price":1},{"price":1,"timestamp":"2026-01-02T03:04:05Z"},{"symbol":"A","timestamp":"2026-01-02T03:04:05Z"},7,null,[]]}"#;
    let mut extractor = extractor("kraken", &["A"]);
    assert_eq!(read(&mut extractor, kraken).0, Frame::Trades(0));
    assert_eq!(extractor.refused().missing_field, 6);
}

#[test]
fn keys_come_in_any_order_and_other_keys_do_not_matter() {
    let mut bybit = extractor("bybit", &["ABCUSDT"]);
    let message = r#" { "extra" : {"data":[{"p":"9"}],"topic":"x"} , "data" : [ {"BT":false,"s":"ABCUSDT","p":"2","T":1767323045123,"x":[[{}]]} ] , "type":"snapshot", "topic" : "publicTrade.ABCUSDT" } "#;
    let (frame, trades) = read(&mut bybit, message);
    assert_eq!((frame, trades[0].1.as_str()), (Frame::Trades(1), "2"));
    let mut okx = extractor("okx", &["A"]);
    let message = r#"{"data":[{"ts":"1767323045123","px":"2","tradeId":"1","instId":"A"}],"arg":{"instId":"A","channel":"trades"}}"#;
    assert_eq!(read(&mut okx, message).0, Frame::Trades(1));
    let mut gateio = extractor("gateio", &["A_USDT"]);
    let message = r#"{"result":{"price":"2","currency_pair":"A\u005fUSDT","id":"7","create_time_ms":1767323045123},"\u0065vent":"upd\u0061te","channel":"spot.trades"}"#;
    assert_eq!(read(&mut gateio, message).1, [(0, "2".into(), 1_767_323_045_123_000_000, 7)]);
    let mut kraken = extractor("kraken", &["A/USD"]);
    let message = r#"{"channel":"trade","data":[{"symbol":"A\/USD","price":3.10,"trade_id":1,"timestamp":"2026-01-02T03:04:05Z"}]}"#;
    assert_eq!(read(&mut kraken, message).1[0].1, "3.10");
}

#[test]
fn elements_in_front_of_what_marks_them_are_read_once() {
    let mut okx = extractor("okx", &["A"]);
    let element = r#"{"ts":"1767323045123","px":"0","tradeId":"1","instId":"A"}"#;
    let twice = format!(r#"{{"data":[{element}],"arg":{{"channel":"trades"}},"data":[{element}]}}"#);
    assert_eq!(read(&mut okx, &twice).0, Frame::Trades(0));
    assert_eq!(okx.refused().zero_price, 2);
}

#[test]
fn of_keys_that_occur_twice_the_first_counts() {
    let mut extractor = extractor("gemini", &["abcusd"]);
    let message =
        r#"{"E":1767323045123456000,"s":"abcusd","s":"other","t":1,"p":"1","p":"2","q":"1","m":true}"#;
    assert_eq!(read(&mut extractor, message).1[0].1, "1");
}

#[test]
fn the_newest_trade_of_a_message_is_told_by_time_then_number_then_position() {
    let coinbase = |trades: &[(&str, &str, &str)]| {
        let trades: Vec<String> = trades
            .iter()
            .map(|(id, price, second)| format!(r#"{{"product_id":"A-USD","trade_id":"{id}","price":"{price}","time":"2026-01-02T03:04:{second}Z"}}"#))
            .collect();
        format!(r#"{{"channel":"market_trades","events":[{{"trades":[{}]}}]}}"#, trades.join(","))
    };
    let best = |message: &str| read(&mut extractor("coinbase", &["A-USD"]), message).1[0].1.clone();
    assert_eq!(best(&coinbase(&[("5", "1", "05"), ("4", "2", "05"), ("9", "3", "04")])), "1");
    assert_eq!(best(&coinbase(&[("4", "2", "05"), ("5", "1", "05"), ("9", "3", "04")])), "1");
    assert_eq!(best(&coinbase(&[("9", "3", "04.9"), ("4", "2", "05")])), "2");
    assert_eq!(best(&coinbase(&[("x", "1", "05"), ("y", "2", "05")])), "1", "newest first there");
    assert_eq!(best(&coinbase(&[("5", "0", "06"), ("4", "2", "05")])), "2", "a bad trade hides no good one");

    let bybit = |prices: &[&str]| {
        let trades: Vec<String> =
            prices.iter().map(|p| format!(r#"{{"T":1767323045123,"s":"A","p":"{p}","BT":false}}"#)).collect();
        format!(r#"{{"topic":"publicTrade.A","data":[{}]}}"#, trades.join(","))
    };
    let mut extractor = extractor("bybit", &["A"]);
    let (_, first) = read(&mut extractor, &bybit(&["1", "2", "3"]));
    let (_, second) = read(&mut extractor, &bybit(&["4"]));
    assert_eq!((first[0].1.as_str(), second[0].1.as_str()), ("3", "4"));
    assert_eq!(first[0].3, LATE.0 + 2, "numbers come from the moment of receipt");
    assert!(second[0].3 > first[0].3, "and rise over messages of one moment");
}

#[test]
fn several_symbols_in_one_message_each_get_their_newest() {
    let mut extractor = extractor("kraken", &["A", "B"]);
    let message = r#"{"channel":"trade","data":[{"symbol":"A","price":1,"trade_id":1,"timestamp":"2026-01-02T03:04:05Z"},{"symbol":"B","price":2,"trade_id":1,"timestamp":"2026-01-02T03:04:05Z"},{"symbol":"A","price":3,"trade_id":2,"timestamp":"2026-01-02T03:04:05Z"}]}"#;
    let (frame, trades) = read(&mut extractor, message);
    assert_eq!(frame, Frame::Trades(2));
    let pairs: Vec<_> = trades.iter().map(|t| (t.0, t.1.as_str(), t.3)).collect();
    assert_eq!(pairs, [(0, "3", 2), (1, "2", 1)]);
}

#[test]
fn block_trades_are_passed_over() {
    let mut bybit = extractor("bybit", &["A"]);
    let message = r#"{"topic":"publicTrade.A","data":[{"T":1767323045123,"s":"A","p":"1","BT":false},{"T":1767323045124,"s":"A","p":"9","BT":true}]}"#;
    assert_eq!(read(&mut bybit, message).1[0].1, "1");
    let mut gemini = extractor("gemini_v2", &["ABCUSD"]);
    let message = r#"{"type":"trade","symbol":"ABCUSD","event_id":1,"timestamp":1767323045123,"price":"9","quantity":"1","side":"block"}"#;
    assert_eq!(read(&mut gemini, message).0, Frame::Trades(0));
    assert_eq!(bybit.refused().total() + gemini.refused().total(), 0);
}

#[test]
fn messages_that_are_not_trades_are_told_apart() {
    // Row, symbols, message, what it is, which symbols it names.
    type Case = (&'static str, &'static [&'static str], &'static str, Frame<'static>, &'static [usize]);
    let cases: &[Case] = &[
        (
            "coinbase",
            &["A-USD", "B-USD"],
            r#"{"channel":"subscriptions","events":[{"subscriptions":{"heartbeats":["heartbeats"],"market_trades":["B-USD","A-USD"]}}]}"#,
            Frame::Ack { request: None },
            &[1, 0],
        ),
        (
            "coinbase",
            &["A-USD"],
            r#"{"channel":"heartbeats","events":[{"current_time":"2026-01-02 03:04:05 +0000 UTC m=+1","heartbeat_counter":3}]}"#,
            Frame::Heartbeat { id: b"" },
            &[],
        ),
        (
            "coinbase",
            &["A-USD"],
            r#"{"type":"error","message":"no such thing"}"#,
            Frame::Error { request: None, text: b"no such thing" },
            &[],
        ),
        (
            "coinbase",
            &["A-USD"],
            r#"{"channel":"ticker","events":[{"type":"update","tickers":[{"product_id":"A-USD","price":"9"}]}]}"#,
            Frame::Other,
            &[],
        ),
        (
            "coinbase_exchange",
            &["A-USD"],
            r#"{"type":"error","message":"Failed to subscribe","reason":"A-USD is not a valid product"}"#,
            Frame::Error { request: None, text: b"A-USD is not a valid product" },
            &[0],
        ),
        (
            "coinbase_exchange",
            &["A-USD"],
            r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["A-USD"],"account_ids":null}]}"#,
            Frame::Ack { request: None },
            &[0],
        ),
        ("gemini", &["ausd"], r#"{"id":1001,"status":200}"#, Frame::Ack { request: Some(1001) }, &[]),
        ("gemini", &["ausd"], r#"{"id":100,"status":200}"#, Frame::Pong, &[]),
        (
            "gemini",
            &["ausd"],
            r#"{"id":"1002","status":400,"error":{"code":-1013,"msg":"Invalid stream name: AUSD@trade"}}"#,
            Frame::Error { request: Some(1002), text: b"Invalid stream name: AUSD@trade" },
            &[0],
        ),
        (
            "gemini",
            &["ausd"],
            r#"{"u":1,"E":1767323045123456000,"s":"ausd","b":"","B":"0","c":"9","C":"1"}"#,
            Frame::Other,
            &[],
        ),
        (
            "gemini_v2",
            &["AUSD"],
            r#"{"timestamp":1767323045123,"type":"heartbeat"}"#,
            Frame::Heartbeat { id: b"" },
            &[],
        ),
        (
            "gemini_v2",
            &["AUSD"],
            r#"{"type":"l2_updates","symbol":"AUSD","changes":[["buy","1","2"]]}"#,
            Frame::Other,
            &[],
        ),
        (
            "kraken",
            &["A/USD"],
            r#"{"method":"subscribe","result":{"channel":"trade","snapshot":true,"symbol":"A/USD"},"success":true,"req_id":1003}"#,
            Frame::Ack { request: Some(1003) },
            &[0],
        ),
        (
            "kraken",
            &["A/USD"],
            r#"{"method":"subscribe","success":false,"error":"Currency pair not supported A/USD","symbol":"A/USD","req_id":1003}"#,
            Frame::Error { request: Some(1003), text: b"Currency pair not supported A/USD" },
            &[0],
        ),
        ("kraken", &["A/USD"], r#"{"channel":"heartbeat"}"#, Frame::Heartbeat { id: b"" }, &[]),
        ("kraken", &["A/USD"], r#"{"method":"pong","req_id":42}"#, Frame::Pong, &[]),
        (
            "kraken",
            &["A/USD"],
            r#"{"channel":"status","type":"update","data":[{"system":"online","connection_id":16763580994566763544}]}"#,
            Frame::Other,
            &[],
        ),
        (
            "kraken_v1",
            &["A/USD"],
            r#"{"channelID":1,"channelName":"trade","event":"subscriptionStatus","pair":"A/USD","status":"subscribed"}"#,
            Frame::Ack { request: None },
            &[0],
        ),
        (
            "kraken_v1",
            &["A/USD"],
            r#"{"errorMessage":"Currency pair not supported A/USD","event":"subscriptionStatus","pair":"A/USD","status":"error"}"#,
            Frame::Error { request: None, text: b"Currency pair not supported A/USD" },
            &[0],
        ),
        ("kraken_v1", &["A/USD"], r#"[9,{"a":["1"]},"ticker","A/USD"]"#, Frame::Other, &[]),
        ("kraken_v1", &["A/USD"], r#"{"event":"heartbeat"}"#, Frame::Heartbeat { id: b"" }, &[]),
        (
            "gateio",
            &["A_USDT", "B_USDT"],
            r#"{"time":1,"id":1004,"channel":"spot.trades","event":"subscribe","payload":["A_USDT","B_USDT"],"result":{"status":"success"}}"#,
            Frame::Ack { request: Some(1004) },
            &[0, 1],
        ),
        (
            "gateio",
            &["A_USDT"],
            r#"{"time":1,"channel":"spot.trades","event":"subscribe","error":{"code":2,"message":"unknown currency pair A_USDT"},"result":null}"#,
            Frame::Error { request: None, text: b"unknown currency pair A_USDT" },
            &[0],
        ),
        (
            "gateio",
            &["A_USDT"],
            r#"{"time":1,"channel":"spot.pong","event":"","error":null,"result":null}"#,
            Frame::Pong,
            &[],
        ),
        (
            "gateio",
            &["A_USDT"],
            r#"{"time":1,"channel":"spot.tickers","event":"update","result":{"currency_pair":"A_USDT","last":"9"}}"#,
            Frame::Other,
            &[],
        ),
        (
            "bybit",
            &["AUSDT"],
            r#"{"success":true,"ret_msg":"subscribe","conn_id":"x","req_id":"1005","op":"subscribe"}"#,
            Frame::Ack { request: Some(1005) },
            &[],
        ),
        (
            "bybit",
            &["AUSDT"],
            r#"{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}"#,
            Frame::Pong,
            &[],
        ),
        (
            "bybit",
            &["AUSDT"],
            r#"{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.AUSDT","req_id":"1006","op":"subscribe"}"#,
            Frame::Error { request: Some(1006), text: b"error:handler not found,topic:publicTrade.AUSDT" },
            &[0],
        ),
        (
            "bybit",
            &["AUSDT"],
            r#"{"topic":"tickers.AUSDT","data":{"symbol":"AUSDT","lastPrice":"9"}}"#,
            Frame::Other,
            &[],
        ),
        ("okx", &["A-USDT"], "pong", Frame::Pong, &[]),
        (
            "okx",
            &["A-USDT"],
            r#"{"event":"subscribe","arg":{"channel":"trades","instId":"A-USDT"},"connId":"x"}"#,
            Frame::Ack { request: None },
            &[0],
        ),
        (
            "okx",
            &["A-USDT"],
            r#"{"event":"error","code":"60018","msg":"Wrong URL or channel:trades,instId:A-USDT doesn't exist.","connId":"x"}"#,
            Frame::Error { request: None, text: b"Wrong URL or channel:trades,instId:A-USDT doesn't exist." },
            &[0],
        ),
        (
            "okx",
            &["A-USDT"],
            r#"{"event":"error","code":"60012","msg":"Invalid request"}"#,
            Frame::Error { request: None, text: b"Invalid request" },
            &[],
        ),
        ("okx", &["A-USDT"], r#"{"event":"notice","code":"64008","msg":"soon"}"#, Frame::Notice, &[]),
        (
            "okx",
            &["A-USDT"],
            r#"{"event":"channel-conn-count","channel":"trades","connCount":"1"}"#,
            Frame::Other,
            &[],
        ),
        (
            "cryptocom",
            &["A_USD"],
            r#"{"id":1007,"method":"subscribe","code":0,"channel":"trade.A_USD"}"#,
            Frame::Ack { request: Some(1007) },
            &[0],
        ),
        (
            "cryptocom",
            &["A_USD"],
            r#"{"id":1007,"method":"subscribe","code":40003,"message":"Unknown symbol","channel":"trade.A_USD"}"#,
            Frame::Error { request: Some(1007), text: b"Unknown symbol" },
            &[0],
        ),
        (
            "cryptocom",
            &["A_USD"],
            r#"{"id":1788335101113,"method":"public/heartbeat","code":0}"#,
            Frame::Heartbeat { id: b"1788335101113" },
            &[],
        ),
        (
            "cryptocom",
            &["A_USD"],
            r#"{"id":"x7","method":"public/heartbeat","code":0}"#,
            Frame::Heartbeat { id: b"\"x7\"" },
            &[],
        ),
        (
            "cryptocom",
            &["A_USD"],
            r#"{"id":-1,"method":"subscribe","code":0,"result":{"channel":"ticker","data":[{"i":"A_USD","a":"9"}]}}"#,
            Frame::Other,
            &[],
        ),
    ];
    for (name, symbols, message, expected, named) in cases {
        let mut extractor = extractor(name, symbols);
        let (frame, trades) = read(&mut extractor, message);
        assert_eq!(frame, *expected, "{name}: {message}");
        assert_eq!(trades, [], "{name}: {message}");
        let listings: Vec<_> = named.iter().map(|n| listing(*n)).collect();
        assert_eq!(extractor.named(), listings, "{name}: {message}");
        assert_eq!(extractor.refused().total(), 0, "{name}: {message}");
    }
}

#[test]
fn what_is_not_whole_json_is_malformed_and_yields_nothing() {
    for (name, symbol, _) in ONE_TRADE {
        let mut extractor = extractor(name, &[symbol]);
        let good = one_trade(name, symbol, "\"5\"");
        for len in 0..good.len() {
            let (frame, trades) = read(&mut extractor, &good[..len]);
            assert_eq!((frame, trades.len()), (Frame::Malformed, 0), "{name} {len}");
        }
        let refused = one_trade(name, symbol, "0");
        read(&mut extractor, &refused[..refused.len() - 1]);
        assert_eq!(extractor.refused().total(), 0, "{name}: half a message refuses no trade");
        for bad in [
            "",
            " ",
            "hello?",
            "{",
            "}",
            "[1,",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "\u{1}",
            "{}{}",
            &format!("{good}x"),
        ] {
            assert_eq!(read(&mut extractor, bad).0, Frame::Malformed, "{name} {bad}");
        }
        let deep = format!("{{\"deep\":{}{},{}", "[".repeat(200_000), "]".repeat(200_000), &good[1..]);
        if good.starts_with('{') {
            assert_eq!(read(&mut extractor, &deep).0, Frame::Trades(1), "{name}");
        }
        let mut out = Vec::new();
        let invalid = good
            .replace(symbol, "\u{7f}")
            .into_bytes()
            .iter()
            .map(|b| if *b == 0x7f { 0xff } else { *b })
            .collect::<Vec<_>>();
        extractor.extract(&invalid, LATE, &mut out);
        assert!(out.is_empty(), "{name}: bytes that are not UTF-8 are no symbol");
        for other in ["{}", "[]", "7", "null", "\"ping\"", " [ ] "] {
            assert_eq!(read(&mut extractor, other).0, Frame::Other, "{name} {other}");
        }
    }
    let mut okx = extractor("okx", &["A"]);
    assert_eq!(read(&mut okx, "pong\n").0, Frame::Pong);
    assert_eq!(read(&mut okx, "{\"a\":\"pong\"}").0, Frame::Other);
}
