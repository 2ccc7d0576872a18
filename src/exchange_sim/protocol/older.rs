//! Older protocols that recordings still speak: Coinbase's Exchange feed, Gemini v2, Kraken v1.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::calendar::{rfc3339, seconds_fraction};
use crate::exchange_sim::market::{HISTORY_LEN, Trade};

/// Coinbase's Exchange feed: `matches` and a `heartbeat` for each product.
#[derive(Default)]
pub(super) struct CoinbaseExchange {
    products: BTreeSet<String>,
    sequence: u64,
    next_heartbeat_ms: u64,
}

impl CoinbaseExchange {
    fn matched(&mut self, kind: &str, trade: &Trade, context: &mut Context<'_>) {
        self.sequence += 1;
        // An order id that starts like a number in scientific notation, as real ones can.
        context.send(format!(
            r#"{{"type":"{kind}","trade_id":{},"maker_order_id":"015e7661-0d26-4a16-8c0b-{:012x}","taker_order_id":"b281704b-3d2e-4631-bc49-{:012x}","side":"{}","size":"{}","price":{},"product_id":"{}","sequence":{},"time":"{}"}}"#,
            trade.id,
            trade.id,
            trade.id,
            if trade.taker_buys { "sell" } else { "buy" },
            trade.size,
            quoted(&trade.price),
            trade.symbol,
            135_437_581_854 + self.sequence,
            rfc3339(trade.time_ns, 6)
        ));
    }
}

impl Protocol for CoinbaseExchange {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        let products = strings(request.get("product_ids")).map(str::to_owned).collect::<Vec<_>>();
        let subscribe = match request.get("type").and_then(Value::as_str) {
            Some("subscribe") => true,
            Some("unsubscribe") => false,
            _ => return context.send(r#"{"type":"error","message":"Malformed JSON"}"#.to_owned()),
        };
        if let Some(bad) = products.iter().find(|product| !context.market.list(product, context.now_ns)) {
            let reason = quoted(&format!("{bad} is not a valid product"));
            return context
                .send(format!(r#"{{"type":"error","message":"Failed to subscribe","reason":{reason}}}"#));
        }
        for product in products {
            if !subscribe {
                self.products.remove(&product);
            } else if context.subscribe(&mut self.products, &product) && context.snapshots {
                for trade in context.market.newest_first(&product, 1) {
                    self.matched("last_match", &trade, context);
                }
            }
        }
        let products = self.products.iter().map(|product| quoted(product)).collect::<Vec<_>>().join(",");
        context.send(format!(
            r#"{{"type":"subscriptions","channels":[{{"name":"matches","product_ids":[{products}],"account_ids":null}}]}}"#
        ));
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        for trade in trades {
            if self.products.contains(&*trade.symbol) {
                self.matched("match", trade, context);
            }
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if self.products.is_empty() && context.elapsed_ms >= 5_000 {
            context.out.push(Outgoing::Close(1008, "no subscription received"));
        }
        if context.elapsed_ms < self.next_heartbeat_ms || !context.heartbeats {
            return;
        }
        self.next_heartbeat_ms = context.elapsed_ms + 1_000;
        for product in &self.products {
            self.sequence += 1;
            context.out.push(Outgoing::Text(format!(
                r#"{{"type":"heartbeat","last_trade_id":{},"product_id":"{product}","sequence":{},"time":"{}"}}"#,
                context.market.last(product).map_or(0, |trade| trade.id),
                132_235_026_653 + self.sequence,
                rfc3339(context.now_ns, 6)
            )));
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.products
    }
}

/// Gemini v2 market data: `l2` with trades in the first frame, no acknowledgement.
#[derive(Default)]
pub(super) struct GeminiV2 {
    symbols: BTreeSet<String>,
    next_heartbeat_ms: u64,
}

impl Protocol for GeminiV2 {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        let kind = request.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "subscribe" && kind != "unsubscribe" {
            return context.send(r#"{"result":"error","reason":"InvalidJson"}"#.to_owned());
        }
        for subscription in request.get("subscriptions").and_then(Value::as_array).into_iter().flatten() {
            for symbol in strings(subscription.get("symbols")) {
                if kind == "unsubscribe" {
                    self.symbols.remove(symbol);
                } else if !context.subscribe(&mut self.symbols, symbol) {
                    context.send(r#"{"result":"error","reason":"InvalidSymbol"}"#.to_owned());
                } else if context.snapshots {
                    let trades = context.market.oldest_first(symbol, HISTORY_LEN);
                    let trades = trades.iter().map(gemini_v2_json).collect::<Vec<_>>().join(",");
                    context.send(format!(
                        r#"{{"auction_events":[],"changes":[["buy","0.01","1"]],"symbol":"{symbol}","trades":[{trades}],"type":"l2_updates"}}"#
                    ));
                }
            }
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        for trade in trades.iter().filter(|trade| self.symbols.contains(&*trade.symbol)) {
            context.send(gemini_v2_json(trade));
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if context.elapsed_ms >= self.next_heartbeat_ms && context.heartbeats && !self.symbols.is_empty() {
            self.next_heartbeat_ms = context.elapsed_ms + 5_000;
            let time_ms = context.now_ms();
            context.send(format!(r#"{{"timestamp":{time_ms},"type":"heartbeat"}}"#));
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.symbols
    }
}

fn gemini_v2_json(trade: &Trade) -> String {
    format!(
        r#"{{"event_id":{},"price":{},"quantity":"{}","side":"{}","symbol":"{}","tid":{},"timestamp":{},"type":"trade"}}"#,
        trade.id,
        quoted(&trade.price),
        trade.size,
        if trade.taker_buys { "buy" } else { "sell" },
        trade.symbol,
        trade.id,
        trade.time_ns / 1_000_000
    )
}

/// Kraken v1: events as objects, data as arrays.
pub(super) struct KrakenV1 {
    connection: u64,
    pairs: BTreeSet<String>,
    next_heartbeat_ms: u64,
}

impl KrakenV1 {
    pub(super) fn new(connection: u64) -> Self {
        Self { connection, pairs: BTreeSet::new(), next_heartbeat_ms: 0 }
    }
}

impl Protocol for KrakenV1 {
    fn opened(&mut self, context: &mut Context<'_>) {
        context.send(format!(
            r#"{{"connectionID":{},"event":"systemStatus","status":"online","version":"1.8.3"}}"#,
            17_843_232_920_108_168_000 + self.connection % 1_000
        ));
    }

    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        let status = match request.get("event").and_then(Value::as_str) {
            Some("subscribe") => "subscribed",
            Some("unsubscribe") => "unsubscribed",
            Some("ping") => {
                let id = request.get("reqid").and_then(Value::as_u64);
                let id = id.map_or_else(String::new, |id| format!(r#","reqid":{id}"#));
                return context.pong(format!(r#"{{"event":"pong"{id}}}"#));
            }
            _ => return context.send(r#"{"errorMessage":"Malformed request","event":"error"}"#.to_owned()),
        };
        for pair in strings(request.get("pair")) {
            let known = match status {
                "subscribed" => context.subscribe(&mut self.pairs, pair),
                _ => self.pairs.remove(pair),
            };
            if known {
                context.send(format!(
                    r#"{{"channelID":{},"channelName":"trade","event":"subscriptionStatus","pair":"{pair}","status":"{status}","subscription":{{"name":"trade"}}}}"#,
                    channel_id(pair)
                ));
            } else {
                let (message, pair) = (quoted(&format!("Currency pair not supported {pair}")), quoted(pair));
                context.send(format!(
                    r#"{{"errorMessage":{message},"event":"subscriptionStatus","pair":{pair},"status":"error","subscription":{{"name":"trade"}}}}"#
                ));
            }
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        let Some(pair) = trades.first().map(|trade| &*trade.symbol).filter(|p| self.pairs.contains(*p))
        else {
            return;
        };
        let rows = trades
            .iter()
            .map(|trade| {
                format!(
                    r#"[{},"{}","{}","{}","l",""]"#,
                    quoted(&trade.price),
                    trade.size,
                    seconds_fraction(trade.time_ns, 6),
                    if trade.taker_buys { "b" } else { "s" }
                )
            })
            .collect::<Vec<_>>()
            .join(",");
        context.send(format!(r#"[{},[{rows}],"trade","{pair}"]"#, channel_id(pair)));
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if context.elapsed_ms >= self.next_heartbeat_ms && context.heartbeats && !self.pairs.is_empty() {
            self.next_heartbeat_ms = context.elapsed_ms + 1_000;
            context.send(r#"{"event":"heartbeat"}"#.to_owned());
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.pairs
    }
}

fn channel_id(pair: &str) -> u64 {
    crate::exchange_sim::walk::hash(pair) % 4_096
}

#[cfg(test)]
mod tests {
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::{Bench, values};

    #[test]
    fn coinbase_exchange_sends_the_last_match_then_matches() {
        let mut bench = Bench::new(Exchange::CoinbaseExchange);
        let frames = bench
            .send(r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","heartbeat"]}"#);
        assert_eq!((&frames[0]["type"], &frames[1]["type"]), (&"last_match".into(), &"subscriptions".into()));
        let (made, frames) = bench.trade_twice("BTC-USD");
        assert_eq!((&frames[1]["type"], &frames[1]["price"]), (&"match".into(), &"22.20".into()));
        assert_eq!(frames[1]["trade_id"], made[1].id);
        let beats = values(bench.wait_until(1_000));
        assert_eq!(beats[0]["last_trade_id"], made[1].id);
        let frames = bench.send(r#"{"type":"subscribe","product_ids":["NOPE-USD"],"channels":["matches"]}"#);
        assert_eq!(frames[0]["reason"], "NOPE-USD is not a valid product");
    }

    #[test]
    fn gemini_v2_sends_old_trades_with_the_book_and_no_ack() {
        let mut bench = Bench::new(Exchange::GeminiV2);
        let frames =
            bench.send(r#"{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD"]}]}"#);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["type"], "l2_updates");
        assert_eq!(frames[0]["trades"].as_array().unwrap().len(), 100);
        let (made, frames) = bench.trade_twice("BTCUSD");
        assert_eq!((&frames[1]["type"], &frames[1]["tid"]), (&"trade".into(), &made[1].id.into()));
        assert_eq!(frames[1]["timestamp"], 1_790_000_001_123_u64);
        assert_eq!(values(bench.wait_until(5_200)).len(), 2);
    }

    #[test]
    fn kraken_v1_sends_arrays() {
        let mut bench = Bench::new(Exchange::KrakenV1);
        assert_eq!(values(bench.opened())[0]["event"], "systemStatus");
        let frames = bench
            .send(r#"{"event":"subscribe","pair":["XBT/USD","NOPE/USD"],"subscription":{"name":"trade"}}"#);
        assert_eq!((&frames[0]["status"], &frames[1]["status"]), (&"subscribed".into(), &"error".into()));
        let (_, frames) = bench.trade_twice("XBT/USD");
        assert_eq!(
            (&frames[0][1][1][0], &frames[0][1][1][2]),
            (&"22.20".into(), &"1790000001.123456".into())
        );
        assert_eq!((&frames[0][2], &frames[0][3]), (&"trade".into(), &"XBT/USD".into()));
        assert_eq!(bench.send(r#"{"event":"ping","reqid":4}"#)[0]["reqid"], 4);
    }
}
