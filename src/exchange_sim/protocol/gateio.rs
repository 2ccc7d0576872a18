//! Gate.io spot v4: `spot.trades`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::calendar::ms_fraction;
use crate::exchange_sim::market::Trade;

/// A socket with neither subscription nor client frame is dropped, without a close frame.
const IDLE_MS_MAX: u64 = 30_500;

/// One connection.
pub(super) struct Gateio {
    connection: u64,
    pairs: BTreeSet<String>,
    last_received_ms: u64,
}

impl Gateio {
    pub(super) fn new(connection: u64) -> Self {
        Self { connection, pairs: BTreeSet::new(), last_received_ms: 0 }
    }

    fn head(&self, context: &Context<'_>) -> String {
        format!(
            r#""time":{},"time_ms":{},"conn_id":"{:016x}""#,
            context.now_s(),
            context.now_ms(),
            self.connection.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
    }

    fn reply(&self, request: &Value, event: &str, outcome: &str, context: &mut Context<'_>) {
        let head = self.head(context);
        let id = match request.get("id") {
            Some(id @ (Value::Number(_) | Value::String(_))) => format!(r#","id":{id}"#),
            _ => String::new(),
        };
        let payload = request.get("payload").cloned().unwrap_or_default();
        let trace = format!("{:032x}", context.now_ns);
        context.send(format!(
            r#"{{{head},"trace_id":"{trace}"{id},"channel":"spot.trades","event":"{event}","payload":{payload},{outcome},"requestId":"{trace}"}}"#
        ));
    }
}

impl Protocol for Gateio {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        self.last_received_ms = context.elapsed_ms;
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            let outcome = error(1, "invalid request: malformed JSON");
            return self.reply(&Value::Null, "", &outcome, context);
        };
        let member = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
        match (member("channel"), member("event")) {
            ("spot.ping", _) => {
                let head = self.head(context);
                context.pong(format!(r#"{{{head},"channel":"spot.pong","event":"","result":null}}"#));
            }
            ("spot.trades", event @ ("subscribe" | "unsubscribe")) => {
                let pairs = strings(request.get("payload")).collect::<Vec<_>>();
                // One unknown pair sinks the whole request.
                if let Some(bad) = pairs.iter().find(|pair| !context.market.list(pair, context.now_ns)) {
                    let outcome = error(2, &format!("unknown currency pair {bad}"));
                    return self.reply(&request, event, &outcome, context);
                }
                if pairs.is_empty() {
                    return self.reply(&request, event, &error(2, "payload is empty"), context);
                }
                for pair in pairs {
                    if event == "subscribe" {
                        context.subscribe(&mut self.pairs, pair);
                    } else {
                        self.pairs.remove(pair);
                    }
                }
                self.reply(&request, event, r#""result":{"status":"success"}"#, context);
            }
            (channel, event) => {
                let outcome = error(2, &format!("unknown channel {channel}"));
                let event = if event == "unsubscribe" { event } else { "subscribe" };
                self.reply(&request, event, &outcome, context);
            }
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        for trade in trades.iter().filter(|trade| self.pairs.contains(&*trade.symbol)) {
            let (base, quote) = trade.symbol.split_once('_').unwrap_or((&trade.symbol, ""));
            context.send(format!(
                r#"{{"time":{},"time_ms":{},"channel":"spot.trades","event":"update","result":{{"id":{id},"id_market":{id},"create_time":{},"create_time_ms":"{}","side":"{}","currency_pair":"{}","amount":"{}","price":{},"range":"{id}-{id}","stock":"{base}","money":"{quote}","trade_mode":0}}}}"#,
                context.now_s(),
                context.now_ms(),
                trade.time_ns / 1_000_000_000,
                ms_fraction(trade.time_ns),
                if trade.taker_buys { "buy" } else { "sell" },
                trade.symbol,
                trade.size,
                quoted(&trade.price),
                id = trade.id,
            ));
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if self.pairs.is_empty() && context.elapsed_ms - self.last_received_ms >= IDLE_MS_MAX {
            context.out.push(Outgoing::Cut);
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.pairs
    }
}

fn error(code: u32, message: &str) -> String {
    format!(r#""error":{{"code":{code},"message":{}}},"result":null"#, quoted(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::Bench;

    #[test]
    fn one_ack_a_request_and_one_trade_a_frame() {
        let mut bench = Bench::new(Exchange::Gateio);
        let frames = bench.send(
            r#"{"time":1,"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT","ETH_USDT"]}"#,
        );
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["event"], "subscribe");
        assert_eq!(frames[0]["result"]["status"], "success");
        let (made, frames) = bench.trade_twice("BTC_USDT");
        assert_eq!(frames.len(), 2);
        let result = &frames[1]["result"];
        assert_eq!((&frames[1]["event"], &frames[1]["channel"]), (&"update".into(), &"spot.trades".into()));
        assert!(result.is_object());
        assert_eq!(result["price"], "22.20");
        assert_eq!(result["id"], made[1].id);
        assert_eq!(result["create_time_ms"], "1790000001123.456");
        assert_eq!(result["currency_pair"], "BTC_USDT");
    }

    #[test]
    fn one_unknown_pair_sinks_the_request() {
        let mut bench = Bench::new(Exchange::Gateio);
        let frames =
            bench.send(r#"{"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT","NOPE_USDT"]}"#);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["error"]["code"], 2);
        assert_eq!(frames[0]["error"]["message"], "unknown currency pair NOPE_USDT");
        assert!(frames[0]["result"].is_null());
        assert!(bench.trade_twice("BTC_USDT").1.is_empty());
        assert_eq!(bench.send("{")[0]["error"]["code"], 1);
    }

    #[test]
    fn a_ping_keeps_an_idle_socket_open() {
        let mut bench = Bench::new(Exchange::Gateio);
        bench.wait_until(20_000);
        let pong = bench.send(r#"{"time":1,"channel":"spot.ping"}"#);
        assert_eq!((&pong[0]["channel"], &pong[0]["result"]), (&"spot.pong".into(), &Value::Null));
        assert!(bench.wait_until(50_400).is_empty());
        assert_eq!(bench.wait_until(50_500), [Outgoing::Cut]);
    }
}
