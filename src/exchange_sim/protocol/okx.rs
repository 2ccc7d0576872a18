//! OKX v5: `trades`, and the bare `ping`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted};
use crate::exchange_sim::market::Trade;

/// A socket without traffic for so long is closed.
const SILENCE_MS_MAX: u64 = 30_000;

/// One connection.
pub(super) struct Okx {
    connection: u64,
    instruments: BTreeSet<String>,
}

impl Okx {
    pub(super) fn new(connection: u64) -> Self {
        Self { connection, instruments: BTreeSet::new() }
    }

    fn connection_id(&self) -> String {
        format!("{:08x}", 0x761b_0000_u64.wrapping_add(self.connection))
    }

    fn refuse(&self, code: u32, message: &str, context: &mut Context<'_>) {
        context.send(format!(
            r#"{{"event":"error","code":"{code}","msg":{},"connId":"{}"}}"#,
            quoted(message),
            self.connection_id()
        ));
    }
}

impl Protocol for Okx {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        if text == "ping" {
            return context.pong("pong".to_owned());
        }
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        let Some(op @ ("subscribe" | "unsubscribe")) = request.get("op").and_then(Value::as_str) else {
            return self.refuse(60_012, &format!("Invalid request: {text}"), context);
        };
        let id = request
            .get("id")
            .and_then(Value::as_str)
            .map_or_else(String::new, |id| format!(r#""id":{},"#, quoted(id)));
        for argument in request.get("args").and_then(Value::as_array).into_iter().flatten() {
            let member = |key: &str| argument.get(key).and_then(Value::as_str).unwrap_or_default();
            let (channel, instrument) = (member("channel"), member("instId"));
            let known = channel == "trades"
                && match op {
                    "subscribe" => context.subscribe(&mut self.instruments, instrument),
                    _ => self.instruments.remove(instrument),
                };
            if !known {
                let message = format!(
                    "Wrong URL or channel:{channel},instId:{instrument} doesn't exist. Please use the correct URL, channel and parameters referring to API document."
                );
                self.refuse(60_018, &message, context);
                continue;
            }
            context.send(format!(
                r#"{{{id}"event":"{op}","arg":{{"channel":"trades","instId":"{instrument}"}},"connId":"{}"}}"#,
                self.connection_id()
            ));
            if op == "subscribe" && context.snapshots {
                let last = context.market.newest_first(instrument, 1);
                self.traded(&last, context);
            }
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        for trade in trades.iter().filter(|trade| self.instruments.contains(&*trade.symbol)) {
            context.send(format!(
                r#"{{"arg":{{"channel":"trades","instId":"{symbol}"}},"data":[{{"instId":"{symbol}","tradeId":"{}","px":{},"sz":"{}","side":"{}","ts":"{}","count":"1","source":"0","seqId":{}}}]}}"#,
                trade.id,
                quoted(&trade.price),
                trade.size,
                if trade.taker_buys { "buy" } else { "sell" },
                trade.time_ns / 1_000_000,
                80_559_459_948 + trade.id % 1_000_000,
                symbol = trade.symbol,
            ));
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if context.idle_ms >= SILENCE_MS_MAX {
            context.out.push(Outgoing::Close(4004, "No data received in 30s"));
        }
    }

    fn noticed(&mut self, context: &mut Context<'_>) {
        context.send(format!(
            r#"{{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"{}"}}"#,
            self.connection_id()
        ));
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.instruments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::{Bench, values};

    #[test]
    fn every_argument_is_answered_and_the_last_trade_follows() {
        let mut bench = Bench::new(Exchange::Okx);
        let frames = bench.send(
            r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"},{"channel":"trades","instId":"NOPE-USDT"}]}"#,
        );
        assert_eq!(frames.len(), 3);
        assert_eq!(
            (&frames[0]["event"], &frames[0]["arg"]["instId"]),
            (&"subscribe".into(), &"BTC-USDT".into())
        );
        assert!(frames[1].get("event").is_none());
        assert_eq!(frames[1]["data"].as_array().unwrap().len(), 1);
        assert_eq!((&frames[2]["event"], &frames[2]["code"]), (&"error".into(), &"60018".into()));
        assert!(frames[2]["msg"].as_str().unwrap().contains("instId:NOPE-USDT"));
        let (made, frames) = bench.trade_twice("BTC-USDT");
        assert_eq!(frames.len(), 2);
        let data = &frames[1]["data"][0];
        assert_eq!((&data["px"], &data["ts"]), (&"22.20".into(), &"1790000001123".into()));
        assert_eq!(data["tradeId"], made[1].id.to_string());
    }

    #[test]
    fn the_bare_ping_is_answered_bare_and_silence_ends_the_connection() {
        let mut bench = Bench::new(Exchange::Okx);
        bench.wait_until(29_000);
        assert_eq!(bench.send_raw("ping"), [Outgoing::Text("pong".to_owned())]);
        assert!(bench.wait_until(58_900).is_empty());
        assert!(matches!(bench.wait_until(59_000).as_slice(), [Outgoing::Close(4004, _)]));
        assert_eq!(bench.send("{}")[0]["code"], "60012");
        assert_eq!(values(bench.noticed())[0]["code"], "64008");
    }
}
