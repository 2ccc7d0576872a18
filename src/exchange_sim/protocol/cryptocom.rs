//! Crypto.com exchange v1, and its predecessor v2 with numbers for prices and ids: `trade`, and the
//! heartbeat that must be answered.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Context, Outgoing, Protocol, quoted, strings};
use crate::exchange_sim::market::{HISTORY_LEN, Trade};

/// The first heartbeat, and the time between two.
const FIRST_HEARTBEAT_MS: u64 = 10_000;
const HEARTBEAT_EVERY_MS: u64 = 30_000;

/// The heartbeat at which a client that has answered none is closed.
const UNANSWERED_MAX: u32 = 3;

/// The server's own control pings.
const PING_EVERY_MS: u64 = 5_000;

/// Most channels of one connection.
const CHANNELS_MAX: usize = 400;

/// One connection.
pub(super) struct Cryptocom {
    /// v2: prices, sizes and ids are JSON numbers, and acknowledgements name no channel.
    numbers: bool,
    instruments: BTreeSet<String>,
    heartbeat_id: Option<u64>,
    unanswered: u32,
    next_heartbeat_ms: u64,
    next_ping_ms: u64,
}

impl Cryptocom {
    /// Exchange v1.
    pub(super) fn strings() -> Self {
        Self {
            numbers: false,
            instruments: BTreeSet::new(),
            heartbeat_id: None,
            unanswered: 0,
            next_heartbeat_ms: FIRST_HEARTBEAT_MS,
            next_ping_ms: PING_EVERY_MS,
        }
    }

    /// v2/market.
    pub(super) fn numbers() -> Self {
        Self { numbers: true, ..Self::strings() }
    }

    fn trades_frame(&self, newest_first: &[Trade], context: &mut Context<'_>) {
        let Some(symbol) = newest_first.first().map(|trade| trade.symbol.clone()) else { return };
        let data = newest_first
            .iter()
            .map(|trade| if self.numbers { number_json(trade) } else { trade_json(trade) })
            .collect::<Vec<_>>()
            .join(",");
        let id = if self.numbers { "" } else { r#""id":-1,"# };
        context.send(format!(
            r#"{{{id}"method":"subscribe","code":0,"result":{{"instrument_name":"{symbol}","subscription":"trade.{symbol}","channel":"trade","data":[{data}]}}}}"#
        ));
    }

    fn subscribe(&mut self, id: &str, channel: &str, context: &mut Context<'_>) {
        if self.instruments.len() >= CHANNELS_MAX {
            return refuse(id, 40_107, "Exceeded max subscriptions", channel, context);
        }
        let symbol = channel.strip_prefix("trade.").unwrap_or_default();
        if !context.subscribe(&mut self.instruments, symbol) {
            return refuse(id, 40_003, "Unknown symbol", channel, context);
        }
        if !self.numbers {
            context.send(format!(r#"{{"id":{id},"method":"subscribe","code":0,"channel":"{channel}"}}"#));
        }
        if context.snapshots {
            let trades = context.market.newest_first(symbol, HISTORY_LEN);
            self.trades_frame(&trades, context);
        }
    }
}

impl Protocol for Cryptocom {
    fn received(&mut self, text: &str, context: &mut Context<'_>) {
        let request = serde_json::from_str::<Value>(text).unwrap_or_default();
        let id = request.get("id").and_then(Value::as_i64).unwrap_or(-1).to_string();
        let channels =
            strings(request.get("params").and_then(|params| params.get("channels"))).collect::<Vec<_>>();
        match request.get("method").and_then(Value::as_str) {
            Some("subscribe") if !channels.is_empty() => {
                if self.numbers {
                    context.send(format!(r#"{{"id":{id},"code":0,"method":"subscribe"}}"#));
                }
                for channel in channels {
                    self.subscribe(&id, channel, context);
                }
            }
            Some("unsubscribe") => {
                for channel in channels {
                    self.instruments.remove(channel.strip_prefix("trade.").unwrap_or_default());
                }
                context.send(format!(r#"{{"id":{id},"method":"unsubscribe","code":0}}"#));
            }
            Some("public/respond-heartbeat") => {
                // Only the id of the latest heartbeat counts.
                if self.heartbeat_id.is_some()
                    && request.get("id").and_then(Value::as_u64) == self.heartbeat_id
                {
                    self.heartbeat_id = None;
                    self.unanswered = 0;
                    context.heartbeats_answered += 1;
                }
            }
            _ => context.send(format!(r#"{{"id":{id},"code":40001,"message":"Bad request"}}"#)),
        }
    }

    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>) {
        let newest_first = trades
            .iter()
            .rev()
            .filter(|t| self.instruments.contains(&*t.symbol))
            .cloned()
            .collect::<Vec<_>>();
        self.trades_frame(&newest_first, context);
    }

    fn ticked(&mut self, context: &mut Context<'_>) {
        if context.elapsed_ms >= self.next_ping_ms {
            self.next_ping_ms = context.elapsed_ms + PING_EVERY_MS;
            context.out.push(Outgoing::Ping);
        }
        if context.elapsed_ms >= self.next_heartbeat_ms {
            self.next_heartbeat_ms = context.elapsed_ms + HEARTBEAT_EVERY_MS;
            if !context.heartbeats {
                return;
            }
            self.unanswered += 1;
            if self.unanswered >= UNANSWERED_MAX {
                return context.out.push(Outgoing::Close(1000, "heartbeats not answered"));
            }
            let id = context.now_ms();
            self.heartbeat_id = Some(id);
            context.send(format!(r#"{{"id":{id},"method":"public/heartbeat","code":0}}"#));
        }
    }

    fn symbols(&self) -> &BTreeSet<String> {
        &self.instruments
    }
}

/// One trade as both the WebSocket and the REST endpoint of exchange v1 write it.
pub(super) fn trade_json(trade: &Trade) -> String {
    format!(
        r#"{{"d":"{}","t":{},"p":{},"q":"{}","s":"{}","i":"{}","m":"{}"}}"#,
        trade.id,
        trade.time_ns / 1_000_000,
        quoted(&trade.price),
        trade.size,
        side(trade),
        trade.symbol,
        4_611_686_018_690_432_925_u64
    )
}

fn number_json(trade: &Trade) -> String {
    let time_ms = trade.time_ns / 1_000_000;
    format!(
        r#"{{"dataTime":{},"d":{},"s":"{}","p":{},"q":{},"t":{time_ms},"i":"{}"}}"#,
        time_ms + 1,
        trade.id,
        side(trade),
        trade.price,
        trade.size,
        trade.symbol
    )
}

fn side(trade: &Trade) -> &'static str {
    if trade.taker_buys { "BUY" } else { "SELL" }
}

fn refuse(id: &str, code: u32, message: &str, channel: &str, context: &mut Context<'_>) {
    context.send(format!(
        r#"{{"id":{id},"method":"subscribe","code":{code},"message":"{message}","channel":{}}}"#,
        quoted(channel)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::protocol::testing::{Bench, values};

    #[test]
    fn a_subscription_is_acknowledged_then_shows_old_trades_newest_first() {
        let mut bench = Bench::new(Exchange::Cryptocom);
        let frames = bench.send(
            r#"{"id":1,"method":"subscribe","params":{"channels":["trade.BTC_USD","trade.NOPE_USD"]}}"#,
        );
        assert_eq!(frames.len(), 3);
        assert_eq!((&frames[0]["id"], &frames[0]["channel"]), (&1.into(), &"trade.BTC_USD".into()));
        assert!(frames[0].get("result").is_none());
        let data = frames[1]["result"]["data"].as_array().unwrap();
        assert_eq!((frames[1]["id"].as_i64(), data.len()), (Some(-1), 100));
        let ids = data.iter().map(|t| t["d"].as_str().unwrap().parse::<u64>().unwrap());
        assert!(ids.is_sorted_by(|a, b| a > b));
        assert_eq!((&frames[2]["code"], &frames[2]["channel"]), (&40_003.into(), &"trade.NOPE_USD".into()));
        let (made, frames) = bench.trade_twice("BTC_USD");
        let data = frames[0]["result"]["data"].as_array().unwrap();
        assert_eq!([data[0]["p"].as_str(), data[1]["p"].as_str()], [Some("22.20"), Some("11.10")]);
        assert_eq!((&data[0]["t"], &data[0]["i"]), (&1_790_000_001_123_u64.into(), &"BTC_USD".into()));
        assert_eq!(data[0]["d"], made[1].id.to_string());
    }

    #[test]
    fn the_predecessor_writes_numbers() {
        let mut bench = Bench::new(Exchange::CryptocomV2);
        let frames = bench.send(r#"{"method":"subscribe","params":{"channels":["trade.BTC_USDT"]},"id":0}"#);
        assert_eq!(frames[0], serde_json::json!({"id":0,"code":0,"method":"subscribe"}));
        let trade = &frames[1]["result"]["data"][0];
        assert!(trade["p"].is_number() && trade["d"].is_number() && trade["dataTime"].is_number());
    }

    #[test]
    fn an_unanswered_client_is_closed_at_the_third_heartbeat() {
        let mut bench = Bench::new(Exchange::Cryptocom);
        let beats = |out: Vec<Outgoing>| values(out.into_iter().filter(|o| *o != Outgoing::Ping).collect());
        let first = beats(bench.wait_until(10_000));
        assert_eq!(first[0]["method"], "public/heartbeat");
        let id = &first[0]["id"];
        bench.send_raw(&format!(r#"{{"id":{id},"method":"public/respond-heartbeat"}}"#));
        assert_eq!(beats(bench.wait_until(40_000)).len(), 1);
        bench.send_raw(r#"{"id":5,"method":"public/respond-heartbeat"}"#);
        assert_eq!(beats(bench.wait_until(70_000)).len(), 1, "a wrong id answers nothing");
        assert!(bench.wait_until(100_000).contains(&Outgoing::Close(1000, "heartbeats not answered")));
    }
}
