//! Bybit spot v5: `publicTrade`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::market::Trade;

/// Most args in one request on spot.
const ARGS_MAX: usize = 10;

/// A connection that sends no ping for so long is closed.
const PING_WITHIN_MS: u64 = 600_000;

/// Most trades in one frame.
const TRADES_PER_FRAME_MAX: usize = 1_024;

/// One connection.
pub(super) struct Bybit {
    connection: u64,
    symbols: BTreeSet<String>,
    last_ping_ms: u64,
    frames: usize,
}

impl Bybit {
    pub(super) fn new(connection: u64) -> Self {
        Self { connection, symbols: BTreeSet::new(), last_ping_ms: 0, frames: 0 }
    }

    fn reply(&self, success: bool, message: &str, op: &str, request: &Value) -> String {
        let request_id = match request.get("req_id") {
            Some(id @ (Value::Number(_) | Value::String(_))) => format!(r#","req_id":{id}"#),
            _ => String::new(),
        };
        format!(
            r#"{{"success":{success},"ret_msg":{},"conn_id":"d9avt8shteepr00gfc1g-{:05x}"{request_id},"op":"{op}"}}"#,
            quoted(message),
            self.connection
        )
    }
}

impl Protocol for Bybit {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        match request.get("op").and_then(Value::as_str) {
            Some("ping") => {
                self.last_ping_ms = context.elapsed_ms;
                context.pong(self.reply(true, "pong", "ping", &request));
            }
            Some(op @ ("subscribe" | "unsubscribe")) => {
                let args = strings(request.get("args")).collect::<Vec<_>>();
                if args.len() > ARGS_MAX {
                    return context.send(self.reply(false, "args size >10", op, &request));
                }
                let mut symbols = Vec::new();
                for topic in args {
                    let symbol = topic.strip_prefix("publicTrade.");
                    let Some(symbol) = symbol.filter(|symbol| context.market.list(symbol, context.now_ns))
                    else {
                        let message = format!("error:handler not found,topic:{topic}");
                        return context.send(self.reply(false, &message, op, &request));
                    };
                    symbols.push(symbol);
                }
                for symbol in symbols {
                    if op == "subscribe" {
                        context.subscribe(&mut self.symbols, symbol);
                    } else {
                        self.symbols.remove(symbol);
                    }
                }
                context.send(self.reply(true, op, op, &request));
            }
            _ => context.send(self.reply(false, "error:request op is wrong", "", &request)),
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        let Some(symbol) = trades.first().map(|trade| &*trade.symbol).filter(|s| self.symbols.contains(*s))
        else {
            return;
        };
        for trades in trades.chunks(TRADES_PER_FRAME_MAX) {
            self.frames = self.frames.wrapping_add(1);
            let data =
                trades.iter().map(|trade| trade_json(trade, self.frames)).collect::<Vec<_>>().join(",");
            let members = [
                format!(r#""topic":"publicTrade.{symbol}""#),
                format!(r#""ts":{}"#, context.now_ms()),
                r#""type":"snapshot""#.to_owned(),
                format!(r#""data":[{data}]"#),
            ];
            context.send(turned(members, self.frames));
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if context.elapsed_ms - self.last_ping_ms >= PING_WITHIN_MS {
            context.out.push(Outgoing::Close(1000, "no ping"));
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.symbols
    }
}

fn trade_json(trade: &Trade, turn: usize) -> String {
    let members = [
        format!(r#""i":"{}""#, trade.id),
        format!(r#""T":{}"#, trade.time_ns / 1_000_000),
        format!(r#""p":{}"#, quoted(&trade.price)),
        format!(r#""v":"{}""#, trade.size),
        format!(r#""S":"{}""#, if trade.taker_buys { "Buy" } else { "Sell" }),
        format!(r#""seq":{}"#, 112_488_547_164 + trade.time_ns / 1_000_000 % 1_000_000),
        format!(r#""s":"{}""#, trade.symbol),
        r#""BT":false,"RPI":false"#.to_owned(),
    ];
    turned(members, turn)
}

/// An object with its members in one of several orders: Bybit changes it from frame to frame.
fn turned<const N: usize>(mut members: [String; N], turn: usize) -> String {
    members.rotate_left(turn % 4 % N);
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::Bench;

    #[test]
    fn acks_name_no_symbol_and_trades_are_oldest_first() {
        let mut bench = Bench::new(Exchange::Bybit);
        let frames = bench.send(r#"{"req_id":"1","op":"subscribe","args":["publicTrade.BTCUSDT"]}"#);
        assert_eq!(frames.len(), 1, "no old trades are sent");
        assert_eq!((&frames[0]["success"], &frames[0]["req_id"]), (&true.into(), &"1".into()));
        let (made, frames) = bench.trade_twice("BTCUSDT");
        assert_eq!(frames.len(), 1);
        assert_eq!(
            (&frames[0]["topic"], &frames[0]["type"]),
            (&"publicTrade.BTCUSDT".into(), &"snapshot".into())
        );
        let data = frames[0]["data"].as_array().unwrap();
        assert_eq!([data[0]["p"].as_str(), data[1]["p"].as_str()], [Some("11.10"), Some("22.20")]);
        assert_eq!((&data[1]["T"], &data[1]["s"]), (&1_790_000_001_123_u64.into(), &"BTCUSDT".into()));
        assert_eq!(data[1]["i"], made[1].id.to_string());
    }

    #[test]
    fn the_order_of_keys_changes() {
        let first = |turn| turned(["\"a\":1".to_owned(), "\"b\":2".to_owned()], turn);
        assert_eq!(first(0), r#"{"a":1,"b":2}"#);
        assert_eq!(first(1), r#"{"b":2,"a":1}"#);
    }

    #[test]
    fn long_requests_and_unknown_topics_fail_as_a_whole() {
        let mut bench = Bench::new(Exchange::Bybit);
        let args = (0..11).map(|i| format!("\"publicTrade.A{i}USDT\"")).collect::<Vec<_>>().join(",");
        let frames = bench.send(&format!(r#"{{"op":"subscribe","args":[{args}]}}"#));
        assert_eq!((&frames[0]["success"], &frames[0]["ret_msg"]), (&false.into(), &"args size >10".into()));
        let frames =
            bench.send(r#"{"op":"subscribe","args":["publicTrade.BTCUSDT","publicTrade.NOPEUSDT"]}"#);
        assert_eq!(frames[0]["ret_msg"], "error:handler not found,topic:publicTrade.NOPEUSDT");
        assert!(bench.trade_twice("BTCUSDT").1.is_empty());
    }

    #[test]
    fn a_client_that_never_pings_is_closed_after_ten_minutes() {
        let mut bench = Bench::new(Exchange::Bybit);
        let pong = bench.send(r#"{"op":"ping"}"#);
        assert_eq!((&pong[0]["ret_msg"], &pong[0]["op"]), (&"pong".into(), &"ping".into()));
        assert!(bench.wait_until(599_900).is_empty());
        assert!(matches!(bench.wait_until(600_000).as_slice(), [Outgoing::Close(1000, _)]));
    }
}
