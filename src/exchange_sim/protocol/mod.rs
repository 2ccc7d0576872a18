//! The exchanges' protocols as pure state machines: text, trades and the time in, frames out.

mod bybit;
mod coinbase;
mod cryptocom;
mod gateio;
mod gemini;
mod kraken;
mod okx;
mod older;
mod rest;

use std::collections::BTreeSet;

use serde_json::Value;

use super::exchange::Exchange;
use super::market::{Market, Trade};

pub(super) use rest::{RestRequest, answer};

/// Most symbols one connection subscribes to.
const SUBSCRIPTIONS_MAX: usize = 1_024;

/// What a connection is to send or do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A text frame.
    Text(String),
    /// A WebSocket control ping.
    Ping,
    /// A close frame with this code and reason, then the end.
    Close(u16, &'static str),
    /// The end without a close frame.
    Cut,
}

/// What a protocol may know and use while it handles one event.
pub(super) struct Context<'a> {
    /// Now, in nanoseconds since the Unix epoch.
    pub(super) now_ns: u64,
    /// Time since the connection opened, in milliseconds.
    pub(super) elapsed_ms: u64,
    /// Time since a text frame went either way, in milliseconds.
    pub(super) idle_ms: u64,
    /// The exchange's symbols.
    pub(super) market: &'a mut Market,
    /// Whether old trades are sent after subscribing: not while a recording is replayed.
    pub(super) snapshots: bool,
    /// Whether heartbeats are sent.
    pub(super) heartbeats: bool,
    /// Whether text pings are answered.
    pub(super) answers_pings: bool,
    /// What to send, in order.
    pub(super) out: Vec<Outgoing>,
    /// Text pings answered during this event.
    pub(super) pings_answered: u64,
    /// Server heartbeats that the client answered rightly during this event.
    pub(super) heartbeats_answered: u64,
    /// Symbols newly subscribed during this event.
    pub(super) subscribed: u64,
}

impl<'a> Context<'a> {
    pub(super) fn new(now_ns: u64, elapsed_ms: u64, market: &'a mut Market) -> Self {
        Self {
            now_ns,
            elapsed_ms,
            idle_ms: 0,
            market,
            snapshots: true,
            heartbeats: true,
            answers_pings: true,
            out: Vec::new(),
            pings_answered: 0,
            heartbeats_answered: 0,
            subscribed: 0,
        }
    }

    fn send(&mut self, text: String) {
        self.out.push(Outgoing::Text(text));
    }

    /// Answers a text ping, unless told not to.
    fn pong(&mut self, text: String) {
        if self.answers_pings {
            self.pings_answered += 1;
            self.send(text);
        }
    }

    /// Now in whole seconds since the Unix epoch.
    fn now_s(&self) -> u64 {
        self.now_ns / 1_000_000_000
    }

    /// Now in whole milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// Lists `symbol` and adds it to `symbols`; false when it is unknown or there are too many.
    fn subscribe(&mut self, symbols: &mut BTreeSet<String>, symbol: &str) -> bool {
        if symbols.len() >= SUBSCRIPTIONS_MAX || !self.market.list(symbol, self.now_ns) {
            return false;
        }
        self.subscribed += u64::from(symbols.insert(symbol.to_owned()));
        true
    }
}

/// One connection's side of an exchange's protocol.
pub(super) trait Protocol: Send {
    /// The connection was opened.
    fn opened(&mut self, _context: &mut Context<'_>) {}

    /// A text frame came from the client.
    fn received(&mut self, text: &str, context: &mut Context<'_>);

    /// Trades of one symbol were made, oldest first.
    fn traded(&mut self, trades: &[Trade], context: &mut Context<'_>);

    /// A moment passed; called several times a second.
    fn ticked(&mut self, _context: &mut Context<'_>) {}

    /// The exchange is about to close for maintenance and says so.
    fn noticed(&mut self, _context: &mut Context<'_>) {}

    /// The symbols whose trades this connection gets.
    fn symbols(&self) -> &BTreeSet<String>;
}

/// A new connection's protocol; `connection` numbers it.
pub(super) fn open(exchange: Exchange, connection: u64) -> Box<dyn Protocol> {
    match exchange {
        Exchange::Coinbase => Box::new(coinbase::Coinbase::default()),
        Exchange::CoinbaseExchange => Box::new(older::CoinbaseExchange::default()),
        Exchange::Gemini => Box::new(gemini::Gemini::default()),
        Exchange::GeminiV2 => Box::new(older::GeminiV2::default()),
        Exchange::Kraken => Box::new(kraken::Kraken::new(connection)),
        Exchange::KrakenV1 => Box::new(older::KrakenV1::new(connection)),
        Exchange::Gateio => Box::new(gateio::Gateio::new(connection)),
        Exchange::Bybit => Box::new(bybit::Bybit::new(connection)),
        Exchange::Okx => Box::new(okx::Okx::new(connection)),
        Exchange::Cryptocom => Box::new(cryptocom::Cryptocom::strings()),
        Exchange::CryptocomV2 => Box::new(cryptocom::Cryptocom::numbers()),
    }
}

/// Whether a recorded frame acknowledges or refuses a request: those are answered anew for each
/// client instead of being replayed.
pub(super) fn is_reply(exchange: Exchange, frame: &str) -> bool {
    if frame == "pong" {
        return true;
    }
    let Ok(frame) = serde_json::from_str::<Value>(frame) else { return false };
    let text = |key: &str| frame.get(key).and_then(Value::as_str).unwrap_or_default();
    match exchange {
        Exchange::Coinbase => text("channel") == "subscriptions" || text("type") == "error",
        Exchange::CoinbaseExchange => matches!(text("type"), "subscriptions" | "error"),
        Exchange::Gemini => frame.get("status").is_some(),
        Exchange::GeminiV2 => false,
        Exchange::Kraken => frame.get("method").is_some(),
        Exchange::KrakenV1 => matches!(text("event"), "subscriptionStatus" | "error" | "pong"),
        Exchange::Gateio => {
            matches!(text("event"), "subscribe" | "unsubscribe") || text("channel") == "spot.pong"
        }
        Exchange::Bybit => frame.get("success").is_some(),
        Exchange::Okx => frame.get("event").is_some(),
        Exchange::Cryptocom | Exchange::CryptocomV2 => {
            text("method") == "subscribe" && frame.get("result").is_none()
        }
    }
}

/// A JSON string literal of any text.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The strings of an array member, in order; others are left out.
fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
pub(super) mod testing {
    //! A client's view of one protocol without a socket.

    use serde_json::Value;

    use super::{Context, Outgoing, Protocol, open};
    use crate::exchange_sim::exchange::Exchange;
    use crate::exchange_sim::market::{Market, Trade, TradeSpec};

    pub(in super::super) const NOW_NS: u64 = 1_790_000_000_123_456_789;

    pub(in super::super) struct Bench {
        pub(in super::super) market: Market,
        pub(in super::super) protocol: Box<dyn Protocol>,
        pub(in super::super) elapsed_ms: u64,
        pub(in super::super) heartbeats: bool,
        pub(in super::super) pings_answered: u64,
        traffic_at_ms: u64,
    }

    impl Bench {
        pub(in super::super) fn new(exchange: Exchange) -> Self {
            Self {
                market: Market::new(exchange, 1, 100),
                protocol: open(exchange, 3),
                elapsed_ms: 0,
                heartbeats: true,
                pings_answered: 0,
                traffic_at_ms: 0,
            }
        }

        fn with(&mut self, act: impl FnOnce(&mut dyn Protocol, &mut Context<'_>)) -> Vec<Outgoing> {
            let now_ns = NOW_NS + self.elapsed_ms * 1_000_000;
            let mut context = Context::new(now_ns, self.elapsed_ms, &mut self.market);
            context.heartbeats = self.heartbeats;
            context.idle_ms = self.elapsed_ms - self.traffic_at_ms;
            act(&mut *self.protocol, &mut context);
            self.pings_answered += context.pings_answered;
            if context.out.iter().any(|outgoing| matches!(outgoing, Outgoing::Text(_))) {
                self.traffic_at_ms = self.elapsed_ms;
            }
            context.out
        }

        pub(in super::super) fn opened(&mut self) -> Vec<Outgoing> {
            self.with(|protocol, context| protocol.opened(context))
        }

        pub(in super::super) fn noticed(&mut self) -> Vec<Outgoing> {
            self.with(|protocol, context| protocol.noticed(context))
        }

        pub(in super::super) fn send_raw(&mut self, text: &str) -> Vec<Outgoing> {
            self.traffic_at_ms = self.elapsed_ms;
            self.with(|protocol, context| protocol.received(text, context))
        }

        /// Sends a text and parses every text frame that comes back.
        pub(in super::super) fn send(&mut self, text: &str) -> Vec<Value> {
            values(self.send_raw(text))
        }

        /// Lets time pass to `elapsed_ms` in steps of 100 ms.
        pub(in super::super) fn wait_until(&mut self, elapsed_ms: u64) -> Vec<Outgoing> {
            let mut out = Vec::new();
            while self.elapsed_ms < elapsed_ms {
                self.elapsed_ms = (self.elapsed_ms + 100).min(elapsed_ms);
                out.extend(self.with(|protocol, context| protocol.ticked(context)));
            }
            out
        }

        /// Two trades at the same time, 11.10 with the lower id, then 22.20.
        pub(in super::super) fn trade_twice(&mut self, symbol: &str) -> (Vec<Trade>, Vec<Value>) {
            let spec = |price: &str| TradeSpec {
                price: price.to_owned(),
                time_ns: NOW_NS + 1_000_000_000,
                id: None,
            };
            let trades = self.market.make(symbol, &[spec("11.10"), spec("22.20")], NOW_NS).unwrap();
            let out = self.with(|protocol, context| protocol.traded(&trades, context));
            (trades, values(out))
        }
    }

    pub(in super::super) fn values(out: Vec<Outgoing>) -> Vec<Value> {
        out.into_iter()
            .map(|outgoing| match outgoing {
                Outgoing::Text(text) => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")),
                other => panic!("not a text frame: {other:?}"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_are_told_from_data() {
        for (exchange, reply, data) in [
            (Exchange::Coinbase, r#"{"channel":"subscriptions"}"#, r#"{"channel":"market_trades"}"#),
            (Exchange::CoinbaseExchange, r#"{"type":"error"}"#, r#"{"type":"match"}"#),
            (Exchange::Gemini, r#"{"id":1,"status":200}"#, r#"{"t":1}"#),
            (Exchange::Kraken, r#"{"method":"pong"}"#, r#"{"channel":"trade"}"#),
            (Exchange::KrakenV1, r#"{"event":"subscriptionStatus"}"#, "[1]"),
            (Exchange::Gateio, r#"{"event":"subscribe"}"#, r#"{"event":"update"}"#),
            (Exchange::Bybit, r#"{"success":true}"#, r#"{"topic":"x"}"#),
            (Exchange::Okx, r#"{"event":"error"}"#, r#"{"arg":{}}"#),
            (Exchange::Cryptocom, r#"{"method":"subscribe"}"#, r#"{"method":"subscribe","result":{}}"#),
        ] {
            assert!(is_reply(exchange, reply), "{exchange}");
            assert!(!is_reply(exchange, data), "{exchange}");
        }
        assert!(!is_reply(Exchange::Okx, "not json"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Nothing a client sends stops a protocol, and what it says of JSON texts is JSON again.
        #[test]
        fn no_text_stops_a_protocol(text in r#"(\PC{0,60}|\{"(op|method|event|type)":"(subscribe|unsubscribe|ping)","(args|params|pair|payload|product_ids)":(\[("[a-z@./A-Z_-]{0,12}",?)?\]|1|\{\})\})"#) {
            for exchange in Exchange::ALL {
                let mut bench = testing::Bench::new(exchange);
                bench.opened();
                for outgoing in bench.send_raw(&text) {
                    if let Outgoing::Text(text) = outgoing {
                        prop_assert!(text == "pong" || serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
                    }
                }
                bench.wait_until(1_000);
            }
        }
    }
}
