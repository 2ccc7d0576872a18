//! Coinbase Advanced Trade market data: `market_trades` and `heartbeats`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::calendar::{go_printed, rfc3339_trimmed};
use crate::exchange_sim::market::{HISTORY_LEN, Trade};

/// A connection that has asked for nothing by then is closed.
const SUBSCRIBE_DEADLINE_MS: u64 = 5_000;

/// Without heartbeats, a connection whose channels are silent for so long is closed.
const SILENCE_MS_MAX: u64 = 90_000;

/// One connection. Frames of all channels share one sequence.
#[derive(Default)]
pub(super) struct Coinbase {
    products: BTreeSet<String>,
    heartbeats: bool,
    sequence: u64,
    asked: bool,
    next_heartbeat_ms: u64,
    heartbeat_count: u64,
}

impl Coinbase {
    fn envelope(&mut self, channel: &str, events: &str, context: &mut Context<'_>) {
        context.send(format!(
            r#"{{"channel":"{channel}","timestamp":"{}","sequence_num":{},"events":[{events}]}}"#,
            rfc3339_trimmed(context.now_ns),
            self.sequence
        ));
        self.sequence += 1;
    }

    fn trades_event(&mut self, kind: &str, newest_first: &[Trade], context: &mut Context<'_>) {
        let trades = newest_first.iter().map(trade_json).collect::<Vec<_>>().join(",");
        self.envelope("market_trades", &format!(r#"{{"type":"{kind}","trades":[{trades}]}}"#), context);
    }

    /// Lists every subscription of the connection; comes after the snapshots.
    fn acknowledge(&mut self, context: &mut Context<'_>) {
        let mut channels = Vec::new();
        if !self.products.is_empty() {
            let products = self.products.iter().map(|product| quoted(product)).collect::<Vec<_>>().join(",");
            channels.push(format!(r#""market_trades":[{products}]"#));
        }
        if self.heartbeats {
            channels.push(r#""heartbeats":["heartbeats"]"#.to_owned());
        }
        let event = format!(r#"{{"subscriptions":{{{}}}}}"#, channels.join(","));
        self.envelope("subscriptions", &event, context);
    }

    fn subscribe(&mut self, products: &[String], context: &mut Context<'_>) {
        // One bad product refuses the whole request, as on the Exchange feed.
        if let Some(bad) = products.iter().find(|product| !context.market.list(product, context.now_ns)) {
            return refuse(&format!("{bad} is not a valid product"), context);
        }
        for product in products {
            if context.subscribe(&mut self.products, product) && context.snapshots {
                let trades = context.market.newest_first(product, HISTORY_LEN);
                if !trades.is_empty() {
                    self.trades_event("snapshot", &trades, context);
                }
            }
        }
        self.acknowledge(context);
    }
}

impl Protocol for Coinbase {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return refuse("failure to parse the message", context);
        };
        let member = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
        let products = strings(request.get("product_ids")).map(as_traded).collect::<Vec<_>>();
        match (member("type"), member("channel")) {
            ("subscribe", "market_trades") if !products.is_empty() => {
                self.asked = true;
                self.subscribe(&products, context);
            }
            ("subscribe", "heartbeats") => {
                self.asked = true;
                self.heartbeats = true;
                self.next_heartbeat_ms = context.elapsed_ms;
                self.acknowledge(context);
            }
            ("unsubscribe", "market_trades") => {
                for product in &products {
                    self.products.remove(product);
                }
                self.acknowledge(context);
            }
            ("unsubscribe", "heartbeats") => {
                self.heartbeats = false;
                self.acknowledge(context);
            }
            ("subscribe" | "unsubscribe", channel) => {
                refuse(&format!("channel {channel} is not simulated or needs product_ids"), context);
            }
            _ => refuse("type must be subscribe or unsubscribe", context),
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        let newest_first =
            trades.iter().rev().filter(|t| self.products.contains(&*t.symbol)).cloned().collect::<Vec<_>>();
        if !newest_first.is_empty() {
            self.trades_event("update", &newest_first, context);
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if !self.asked && context.elapsed_ms >= SUBSCRIBE_DEADLINE_MS {
            context.out.push(Outgoing::Close(1008, "no subscription received"));
        } else if self.asked && !self.heartbeats && context.idle_ms >= SILENCE_MS_MAX {
            context.out.push(Outgoing::Close(1000, "no updates"));
        }
        if self.heartbeats && context.elapsed_ms >= self.next_heartbeat_ms {
            self.next_heartbeat_ms = context.elapsed_ms + 1_000;
            self.heartbeat_count += 1;
            if context.heartbeats {
                let event = format!(
                    r#"{{"current_time":"{}","heartbeat_counter":{}}}"#,
                    go_printed(context.now_ns, self.heartbeat_count * 1_000_000_000),
                    self.heartbeat_count
                );
                self.envelope("heartbeats", &event, context);
            }
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.products
    }
}

/// Products quoted in USDC are the USD products under another name.
pub(super) fn as_traded(product: &str) -> String {
    product.strip_suffix("-USDC").map_or_else(|| product.to_owned(), |base| format!("{base}-USD"))
}

/// One trade as both the WebSocket and the REST endpoint write it.
pub(super) fn trade_json(trade: &Trade) -> String {
    format!(
        r#"{{"product_id":"{}","trade_id":"{}","price":{},"size":"{}","time":"{}","side":"{}"}}"#,
        trade.symbol,
        trade.id,
        quoted(&trade.price),
        trade.size,
        rfc3339_trimmed(trade.time_ns),
        if trade.taker_buys { "BUY" } else { "SELL" }
    )
}

fn refuse(message: &str, context: &mut Context<'_>) {
    context.send(format!(r#"{{"type":"error","message":{}}}"#, quoted(message)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::{Bench, values};

    #[test]
    fn snapshots_come_first_newest_first_and_the_ack_after_them() {
        let mut bench = Bench::new(Exchange::Coinbase);
        let frames = bench
            .send(r#"{"type":"subscribe","product_ids":["BTC-USD","ETH-USDC"],"channel":"market_trades"}"#);
        assert_eq!(frames.len(), 3);
        for (frame, product) in frames.iter().zip(["BTC-USD", "ETH-USD"]) {
            let event = &frame["events"][0];
            assert_eq!(event["type"], "snapshot");
            let trades = event["trades"].as_array().unwrap();
            assert_eq!(trades.len(), 100);
            assert!(trades.iter().all(|t| t["product_id"] == product && t["price"].is_string()));
            let ids = trades.iter().map(|t| t["trade_id"].as_str().unwrap().parse::<u64>().unwrap());
            assert!(ids.is_sorted_by(|a, b| a > b));
        }
        assert_eq!(frames[2]["channel"], "subscriptions");
        assert_eq!(
            frames[2]["events"][0]["subscriptions"]["market_trades"],
            serde_json::json!(["BTC-USD", "ETH-USD"])
        );
        assert_eq!(frames.iter().map(|f| f["sequence_num"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn updates_are_newest_first_at_equal_times() {
        let mut bench = Bench::new(Exchange::Coinbase);
        bench.send(r#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"market_trades"}"#);
        let (made, frames) = bench.trade_twice("BTC-USD");
        let trades = frames[0]["events"][0]["trades"].as_array().unwrap();
        assert_eq!(frames[0]["events"][0]["type"], "update");
        assert_eq!(
            [trades[0]["price"].as_str(), trades[1]["price"].as_str()],
            [Some("22.20"), Some("11.10")]
        );
        assert_eq!(trades[0]["time"], trades[1]["time"]);
        assert_eq!(trades[0]["trade_id"], made[1].id.to_string());
        assert!(bench.trade_twice("ETH-USD").1.is_empty(), "nothing of a product not asked for");
    }

    #[test]
    fn heartbeats_tick_each_second_and_can_be_silenced() {
        let mut bench = Bench::new(Exchange::Coinbase);
        bench.send(r#"{"type":"subscribe","channel":"heartbeats"}"#);
        let beats = values(bench.wait_until(3_050));
        assert_eq!(beats.len(), 3);
        assert_eq!(beats[2]["events"][0]["heartbeat_counter"], 3);
        assert!(beats[0]["events"][0]["current_time"].as_str().unwrap().contains(" +0000 UTC m=+"));
        bench.heartbeats = false;
        assert!(bench.wait_until(6_000).is_empty());
    }

    #[test]
    fn a_subscription_without_updates_or_heartbeats_is_closed() {
        let mut bench = Bench::new(Exchange::Coinbase);
        bench.send(r#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"market_trades"}"#);
        bench.wait_until(60_000);
        bench.trade_twice("BTC-USD");
        assert!(bench.wait_until(149_900).is_empty());
        assert!(matches!(bench.wait_until(150_000).as_slice(), [Outgoing::Close(1000, _)]));
    }

    #[test]
    fn a_silent_client_and_a_bad_product_are_refused() {
        let mut bench = Bench::new(Exchange::Coinbase);
        assert!(matches!(bench.wait_until(5_000).last(), Some(Outgoing::Close(1008, _))));
        let mut bench = Bench::new(Exchange::Coinbase);
        let frames = bench
            .send(r#"{"type":"subscribe","product_ids":["BTC-USD","NOPE-USD"],"channel":"market_trades"}"#);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["type"], "error");
        assert!(bench.trade_twice("BTC-USD").1.is_empty(), "the good product went down with it");
    }
}
