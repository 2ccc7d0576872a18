//! Trades that are made arrive, in each exchange's own form.

use std::collections::{BTreeMap, BTreeSet};

use beast::exchange_sim::{Exchange, Sim, SimError, SimOptions, TradeSpec};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{TIME_NS, case, cases, connect, get, quiet, run, subscribed, text, text_with, trades};

#[test]
fn every_protocol_shows_the_trades_that_are_made() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        for case in cases() {
            let mut socket = subscribed(&sim, &case).await;
            let spec = |price: &str| TradeSpec { price: price.to_owned(), time_ns: TIME_NS, id: None };
            let ids = sim
                .control()
                .trades(case.exchange, case.symbol, &[spec("71000.5"), spec("71000.25")])
                .unwrap();
            let got = trades(&mut socket, &case, 2).await;
            let prices =
                got.iter().map(|(_, price, _)| price.to_string().replace('"', "")).collect::<Vec<_>>();
            let wanted = if case.newest_first { ["71000.25", "71000.5"] } else { ["71000.5", "71000.25"] };
            assert_eq!(prices, wanted, "{}", case.exchange);
            for (symbol, _, time) in &got {
                assert_eq!((symbol, time), (&json!(case.symbol), &case.time), "{}", case.exchange);
            }
            let last = sim.control().last_trades(case.exchange)[case.symbol].clone();
            assert_eq!((last.price.as_str(), last.id), ("71000.25", ids[1]));
            assert_eq!(last.time_ns / 1_000_000, TIME_NS / 1_000_000);
            let (status, body) = get(&sim, case.exchange, case.rest).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(
                (status, body.pointer(case.rest_price_at)),
                (200, Some(&json!("71000.25"))),
                "{}",
                case.exchange
            );
        }
    });
}

#[test]
fn synthetic_trades_flow_and_the_last_one_is_known() {
    run(async {
        let sim = Sim::start(SimOptions { rate: 2_000, ..SimOptions::default() }).unwrap();
        for case in cases() {
            let mut socket = subscribed(&sim, &case).await;
            for (symbol, price, _) in trades(&mut socket, &case, 150).await {
                assert_eq!(symbol, case.symbol, "{}", case.exchange);
                let price = price.to_string().replace('"', "");
                assert!(
                    price.parse::<f64>().is_ok_and(|price| price > 40_000.0),
                    "{}: {price}",
                    case.exchange
                );
            }
            // Held: what is told as the last trade is the last frame, digit for digit.
            sim.control().set_price(case.exchange, case.symbol, "65432.109").unwrap();
            text_with(&mut socket, |text| text.contains("65432.109")).await;
            assert_eq!(sim.control().last_trades(case.exchange)[case.symbol].price, "65432.109");
            sim.control().release(case.exchange, case.symbol);
            trades(&mut socket, &case, 10).await;
        }
    });
}

#[test]
fn all_the_symbols_of_an_exchange_get_trades() {
    run(async {
        let sim = Sim::start(SimOptions { rate: 1_000, ..SimOptions::default() }).unwrap();
        let symbols = ["BTC", "ETH", "SOL", "DOGE", "XRP", "W", "S", "A"].map(|base| format!("{base}-USDT"));
        let args =
            symbols.iter().map(|s| format!(r#"{{"channel":"trades","instId":"{s}"}}"#)).collect::<Vec<_>>();
        let mut socket = connect(&sim, Exchange::Okx).await;
        socket
            .send(Message::text(format!(r#"{{"op":"subscribe","args":[{}]}}"#, args.join(","))))
            .await
            .unwrap();
        let mut missing = symbols.iter().cloned().collect::<BTreeSet<_>>();
        let case = case(Exchange::Okx);
        while !missing.is_empty() {
            for (symbol, ..) in trades(&mut socket, &case, 1).await {
                missing.remove(symbol.as_str().unwrap());
            }
        }
    });
}

#[test]
fn allowed_and_refused_symbols_are_obeyed() {
    run(async {
        let set = |symbols: &[&str]| symbols.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        let options = SimOptions {
            allow: BTreeMap::from([(Exchange::Okx, set(&["ETH-USDT"]))]),
            refuse: BTreeMap::from([(Exchange::Gateio, set(&["BTC_USDT"]))]),
            ..quiet()
        };
        let sim = Sim::start(options).unwrap();
        for exchange in [Exchange::Okx, Exchange::Gateio] {
            let case = case(exchange);
            let mut socket = connect(&sim, exchange).await;
            socket.send(Message::text(case.subscribe)).await.unwrap();
            assert!(text(&mut socket).await.contains("error"), "{exchange}");
            let error = sim.control().trade(exchange, case.symbol, "1", TIME_NS).unwrap_err();
            assert!(matches!(error, SimError::UnknownSymbol(e, _) if e == exchange));
        }
        assert!(sim.control().trade(Exchange::Okx, "ETH-USDT", "1", TIME_NS).is_ok());
    });
}
