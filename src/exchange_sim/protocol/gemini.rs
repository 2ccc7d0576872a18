//! Gemini's `ws.gemini.com`: `@trade` streams.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::market::Trade;

/// The server's own control pings.
const PING_EVERY_MS: u64 = 20_000;

/// One connection.
#[derive(Default)]
pub(super) struct Gemini {
    symbols: BTreeSet<String>,
    next_ping_ms: u64,
}

impl Protocol for Gemini {
    fn opened(&mut self, _context: &mut Context<'_>) {
        self.next_ping_ms = PING_EVERY_MS;
    }

    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            return refuse("null", -1013, "Malformed request", context);
        };
        let id = match request.get("id") {
            Some(id @ (Value::Number(_) | Value::String(_))) => id.to_string(),
            _ => "null".to_owned(),
        };
        let method = request.get("method").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        match method.as_str() {
            "subscribe" | "unsubscribe" => {
                let mut symbols = Vec::new();
                // One bad stream rejects the whole frame.
                for stream in strings(request.get("params")) {
                    let symbol = stream.strip_suffix("@trade").map(str::to_ascii_lowercase);
                    match symbol.filter(|symbol| context.market.list(symbol, context.now_ns)) {
                        Some(symbol) => symbols.push(symbol),
                        None => {
                            return refuse(&id, -1013, &format!("Invalid stream name: {stream}"), context);
                        }
                    }
                }
                if symbols.is_empty() {
                    return refuse(&id, -1013, "Missing params", context);
                }
                for symbol in symbols {
                    if method == "subscribe" {
                        context.subscribe(&mut self.symbols, &symbol);
                    } else {
                        self.symbols.remove(&symbol);
                    }
                }
                context.send(format!(r#"{{"id":{id},"status":200}}"#));
            }
            "ping" => context.pong(format!(r#"{{"id":{id},"status":200}}"#)),
            "time" => {
                let time_ms = context.now_ms();
                context.send(format!(r#"{{"id":{id},"status":200,"result":{{"serverTime":{time_ms}}}}}"#));
            }
            "list_subscriptions" => {
                let streams =
                    self.symbols.iter().map(|s| format!("\"{s}@trade\"")).collect::<Vec<_>>().join(",");
                context.send(format!(r#"{{"id":{id},"status":200,"result":[{streams}]}}"#));
            }
            _ => refuse(&id, -1020, "Unsupported method", context),
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        for trade in trades.iter().filter(|trade| self.symbols.contains(&*trade.symbol)) {
            // `m`: the buyer is the maker.
            context.send(format!(
                r#"{{"E":{},"s":"{}","t":{},"p":{},"q":"{}","m":{}}}"#,
                trade.time_ns,
                trade.symbol,
                trade.id,
                quoted(&trade.price),
                trade.size,
                !trade.taker_buys
            ));
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if context.elapsed_ms >= self.next_ping_ms {
            self.next_ping_ms = context.elapsed_ms + PING_EVERY_MS;
            context.out.push(Outgoing::Ping);
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.symbols
    }
}

fn refuse(id: &str, code: i32, message: &str, context: &mut Context<'_>) {
    context
        .send(format!(r#"{{"id":{id},"status":400,"error":{{"code":{code},"msg":{}}}}}"#, quoted(message)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::{Bench, NOW_NS};

    #[test]
    fn trades_come_one_a_frame_with_nanoseconds_and_no_snapshot() {
        let mut bench = Bench::new(Exchange::Gemini);
        let frames = bench.send(r#"{"id":"a","method":"SUBSCRIBE","params":["BTCUSD@trade"]}"#);
        assert_eq!(frames, [serde_json::json!({"id":"a","status":200})]);
        let (made, frames) = bench.trade_twice("btcusd");
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[1]["p"], "22.20");
        assert_eq!(frames[1]["s"], "btcusd");
        assert_eq!(frames[1]["t"], made[1].id);
        assert_eq!(frames[1]["E"], NOW_NS + 1_000_000_000);
        assert!(frames[1]["m"].is_boolean() && frames[1].get("e").is_none());
    }

    #[test]
    fn one_bad_stream_rejects_the_whole_frame() {
        let mut bench = Bench::new(Exchange::Gemini);
        let frames = bench.send(r#"{"id":4,"method":"subscribe","params":["btcusd@trade","nopeusd@trade"]}"#);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["status"], 400);
        assert_eq!(frames[0]["error"]["code"], -1013);
        assert_eq!(frames[0]["error"]["msg"], "Invalid stream name: nopeusd@trade");
        assert!(bench.trade_twice("btcusd").1.is_empty());
    }

    #[test]
    fn pings_go_both_ways() {
        let mut bench = Bench::new(Exchange::Gemini);
        bench.opened();
        let frames = bench.send(r#"{"id":100,"method":"ping"}"#);
        assert_eq!(frames, [serde_json::json!({"id":100,"status":200})]);
        assert_eq!(bench.pings_answered, 1);
        assert_eq!(bench.wait_until(41_000), [Outgoing::Ping, Outgoing::Ping]);
    }
}
