//! Kraken v2: `trade` with JSON numbers for prices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::calendar::rfc3339;
use crate::exchange_sim::market::Trade;

/// Trades in the snapshot of a symbol.
const SNAPSHOT_LEN: usize = 50;

/// A connection without subscriptions is closed after about a minute.
const IDLE_MS_MAX: u64 = 60_000;

/// One connection.
pub(super) struct Kraken {
    connection: u64,
    symbols: BTreeSet<String>,
    next_heartbeat_ms: u64,
    idle_since_ms: u64,
}

impl Kraken {
    pub(super) fn new(connection: u64) -> Self {
        Self { connection, symbols: BTreeSet::new(), next_heartbeat_ms: 1_000, idle_since_ms: 0 }
    }

    fn trades_frame(kind: &str, trades: &[Trade], context: &mut Context<'_>) {
        let data = trades.iter().map(trade_json).collect::<Vec<_>>().join(",");
        context.send(format!(r#"{{"channel":"trade","type":"{kind}","data":[{data}]}}"#));
    }

    fn change(&mut self, method: &str, request: &Value, context: &mut Context<'_>) {
        let request_id = request_id(request);
        let times = times(context);
        let params = request.get("params");
        let channel = params.and_then(|p| p.get("channel")).and_then(Value::as_str).unwrap_or_default();
        if channel != "trade" {
            let error = quoted(&format!("Channel {channel} is not simulated"));
            return context.send(format!(
                r#"{{"method":"{method}","success":false,"error":{error}{request_id}{times}}}"#
            ));
        }
        // `snapshot` is off for trades unless asked for.
        let snapshot = params.and_then(|p| p.get("snapshot")).and_then(Value::as_bool).unwrap_or(false);
        for symbol in strings(params.and_then(|p| p.get("symbol"))) {
            let known = match method {
                "subscribe" => context.subscribe(&mut self.symbols, symbol),
                _ => self.symbols.remove(symbol),
            };
            if !known {
                let (error, symbol) =
                    (quoted(&format!("Currency pair not supported {symbol}")), quoted(symbol));
                context.send(format!(
                    r#"{{"method":"{method}","success":false,"error":{error},"symbol":{symbol}{request_id}{times}}}"#
                ));
                continue;
            }
            context.send(format!(
                r#"{{"method":"{method}","result":{{"channel":"trade","snapshot":{snapshot},"symbol":"{symbol}"}},"success":true{request_id}{times}}}"#
            ));
            if method == "subscribe" && snapshot && context.snapshots {
                let trades = context.market.oldest_first(symbol, SNAPSHOT_LEN);
                if !trades.is_empty() {
                    Self::trades_frame("snapshot", &trades, context);
                }
            }
        }
        self.idle_since_ms = context.elapsed_ms;
    }
}

impl Protocol for Kraken {
    fn opened(&mut self, context: &mut Context<'_>) {
        // Beyond 2^53, as the real ones are.
        let connection_id = 16_763_580_994_566_763_000 + self.connection % 1_000;
        context.send(format!(
            r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"online","api_version":"v2","connection_id":{connection_id},"upcoming_maintenance":[],"emergency":[]}}]}}"#
        ));
    }

    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let times = times(context);
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        match request.get("method").and_then(Value::as_str) {
            Some(method @ ("subscribe" | "unsubscribe")) => self.change(method, &request, context),
            Some("ping") => context.pong(format!(r#"{{"method":"pong"{}{times}}}"#, request_id(&request))),
            _ => context.send(format!(r#"{{"error":"Malformed request","success":false{times}}}"#)),
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        let trades = trades.iter().filter(|t| self.symbols.contains(&*t.symbol)).cloned().collect::<Vec<_>>();
        if !trades.is_empty() {
            Self::trades_frame("update", &trades, context);
        }
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if self.symbols.is_empty() {
            if context.elapsed_ms - self.idle_since_ms >= IDLE_MS_MAX {
                context.out.push(Outgoing::Close(1000, "no subscription"));
            }
        } else if context.elapsed_ms >= self.next_heartbeat_ms {
            self.next_heartbeat_ms = context.elapsed_ms + 1_000;
            if context.heartbeats {
                context.send(r#"{"channel":"heartbeat"}"#.to_owned());
            }
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.symbols
    }
}

fn trade_json(trade: &Trade) -> String {
    format!(
        r#"{{"symbol":"{}","side":"{}","price":{},"qty":{},"ord_type":"limit","trade_id":{},"timestamp":"{}"}}"#,
        trade.symbol,
        if trade.taker_buys { "buy" } else { "sell" },
        trade.price,
        trade.size,
        trade.id,
        rfc3339(trade.time_ns, 6)
    )
}

fn request_id(request: &Value) -> String {
    request.get("req_id").and_then(Value::as_u64).map_or_else(String::new, |id| format!(r#","req_id":{id}"#))
}

fn times(context: &Context<'_>) -> String {
    format!(
        r#","time_in":"{}","time_out":"{}""#,
        rfc3339(context.now_ns, 6),
        rfc3339(context.now_ns.saturating_add(41_000), 6)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::{Bench, values};

    #[test]
    fn every_symbol_is_answered_for_itself_and_snapshots_come_when_asked_for() {
        let mut bench = Bench::new(Exchange::Kraken);
        let status = values(bench.opened());
        assert_eq!(status[0]["channel"], "status");
        let frames = bench.send(
            r#"{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD","NOPE/USD"],"snapshot":true},"req_id":9}"#,
        );
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[0]["result"]["symbol"], "BTC/USD");
        assert_eq!((&frames[0]["success"], &frames[0]["req_id"]), (&Value::from(true), &Value::from(9)));
        assert_eq!(frames[1]["type"], "snapshot");
        let data = frames[1]["data"].as_array().unwrap();
        assert_eq!(data.len(), 50);
        assert!(data.iter().all(|t| t["price"].is_number()));
        assert!(data.iter().map(|t| t["trade_id"].as_u64().unwrap()).is_sorted());
        assert_eq!(frames[2]["success"], false);
        assert_eq!(frames[2]["error"], "Currency pair not supported NOPE/USD");
        let frames =
            bench.send(r#"{"method":"subscribe","params":{"channel":"trade","symbol":["ETH/USD"]}}"#);
        assert_eq!(frames.len(), 1, "no snapshot unless asked for");
    }

    #[test]
    fn prices_are_numbers_with_their_zeros_oldest_first() {
        let mut bench = Bench::new(Exchange::Kraken);
        bench.send(r#"{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}"#);
        let specs = ["84099.0", "84099.10"].map(|price| crate::exchange_sim::market::TradeSpec {
            price: price.to_owned(),
            time_ns: 1_800_000_000_000_000_000,
            id: None,
        });
        let trades = bench.market.make("BTC/USD", &specs, 0).unwrap();
        let mut context = Context::new(0, 0, &mut bench.market);
        bench.protocol.traded(&trades, &mut context);
        let [Outgoing::Text(text)] = context.out.as_slice() else { panic!("{:?}", context.out) };
        let first = text.find(r#""price":84099.0,"#).unwrap();
        assert!(first < text.find(r#""price":84099.10,"#).unwrap());
        assert!(text.contains(r#""timestamp":"2027-01-15T08:00:00.000000Z""#));
    }

    #[test]
    fn heartbeats_run_while_something_is_subscribed_and_pings_are_answered() {
        let mut bench = Bench::new(Exchange::Kraken);
        assert!(bench.wait_until(3_000).is_empty());
        bench.send(r#"{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}"#);
        let beats = values(bench.wait_until(6_000));
        assert_eq!(beats.len(), 3);
        assert_eq!(beats[0], serde_json::json!({"channel":"heartbeat"}));
        let pong = bench.send(r#"{"method":"ping","req_id":42}"#);
        assert_eq!((&pong[0]["method"], &pong[0]["req_id"]), (&Value::from("pong"), &Value::from(42)));
        assert_eq!(bench.pings_answered, 1);
        let mut idle = Bench::new(Exchange::Kraken);
        assert!(matches!(idle.wait_until(60_000).last(), Some(Outgoing::Close(1000, _))));
    }
}
