//! The strings of the puppets: make exchanges trade and misbehave, from any thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::exchange::Exchange;
use super::market::{LastTrade, TradeSpec};
use super::options::SimError;
use super::sim::{Event, Shared, now_ns};

/// A handle to a running simulation. Once that has ended, commands reach nobody.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

/// What an exchange has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// WebSocket connections that were opened.
    pub connections: u64,
    /// WebSocket connections that are open now.
    pub open_connections: u64,
    /// Symbols subscribed, over all connections.
    pub subscriptions: u64,
    /// Text pings that were answered.
    pub pings_answered: u64,
    /// Control pings that were received.
    pub control_pings: u64,
    /// Server heartbeats that a client answered with the right id.
    pub heartbeats_answered: u64,
    /// REST requests, answered or refused.
    pub rest_requests: u64,
    /// WebSocket frames sent.
    pub frames_sent: u64,
    /// Connections to which a whole recording has been sent.
    pub replays_finished: u64,
}

/// The commands of [`Control::command`], for people.
const HELP: &str = "\
cut EXCHANGE                          end its connections without a close frame
stall EXCHANGE on|off                 keep its connections open and dead
garbage EXCHANGE                      send frames that make no sense
broken EXCHANGE                       send bytes that are no WebSocket frame
replay-old EXCHANGE                   send old trades again
notice EXCHANGE                       announce a closing (okx)
silence-heartbeats EXCHANGE on|off    send no heartbeats
ignore-pings EXCHANGE on|off          answer no text pings
refuse-connect EXCHANGE on|off        answer WebSocket upgrades with 503
refuse-rest EXCHANGE on|off           answer REST requests with 503
refuse-tls on|off                     answer TLS handshakes with an alert
price EXCHANGE SYMBOL PRICE           trade at this price and stay there
release EXCHANGE SYMBOL               let its price wander again
last EXCHANGE                         show the last trades
counts                                show what was done";

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Ends every WebSocket connection of the exchange without a close frame; gives their number.
    pub fn cut(&self, exchange: Exchange) -> usize {
        self.shared.desk(exchange).cut()
    }

    /// While on, connections stay open and nothing is read, sent or answered. Trades made meanwhile are
    /// sent afterwards, unless they are too many: then the connection ends.
    pub fn stall(&self, exchange: Exchange, on: bool) {
        self.shared.desk(exchange).stalled.send_replace(on);
    }

    /// Sends frames that make no sense: no JSON, no frames, senseless prices and times.
    pub fn garbage(&self, exchange: Exchange) {
        self.shared.desk(exchange).tell(Event::Garbage);
    }

    /// Sends bytes that are no WebSocket frame.
    pub fn broken(&self, exchange: Exchange) {
        self.shared.desk(exchange).tell(Event::Broken);
    }

    /// Sends the oldest known trades of every subscribed symbol again, with their own times and ids.
    pub fn replay_old(&self, exchange: Exchange) {
        self.shared.desk(exchange).tell(Event::Old);
    }

    /// Announces that the connection will soon be closed, where the exchange has such a notice.
    pub fn notice(&self, exchange: Exchange) {
        self.shared.desk(exchange).tell(Event::Notice);
    }

    /// While on, new TLS connections are answered with a fatal alert.
    pub fn refuse_tls(&self, on: bool) {
        self.shared.refuse_tls.store(on, Relaxed);
    }

    /// While on, WebSocket upgrades are answered with 503.
    pub fn refuse_connect(&self, exchange: Exchange, on: bool) {
        self.shared.desk(exchange).flags.refused_connections.store(on, Relaxed);
    }

    /// While on, REST requests are answered with 503.
    pub fn refuse_rest(&self, exchange: Exchange, on: bool) {
        self.shared.desk(exchange).flags.refused_rest.store(on, Relaxed);
    }

    /// While on, no heartbeats are sent.
    pub fn silence_heartbeats(&self, exchange: Exchange, on: bool) {
        self.shared.desk(exchange).flags.silent_heartbeats.store(on, Relaxed);
    }

    /// While on, text pings are not answered.
    pub fn ignore_pings(&self, exchange: Exchange, on: bool) {
        self.shared.desk(exchange).flags.ignored_pings.store(on, Relaxed);
    }

    /// Trades `symbol` now at `price` and holds it there: no synthetic trade follows until
    /// [`Control::release`]. Gives the trade as it went out.
    ///
    /// # Errors
    ///
    /// When the exchange does not know the symbol.
    pub fn set_price(&self, exchange: Exchange, symbol: &str, price: &str) -> Result<LastTrade, SimError> {
        let desk = self.shared.desk(exchange);
        let mut market = desk.market();
        let now_ns = now_ns();
        // Newest for certain, even when the clock has not moved by one step of the exchange's times.
        let after_last =
            market.last(symbol).map_or(0, |last| last.time_ns.saturating_add(exchange.time_step_ns()));
        let spec = TradeSpec { price: price.to_owned(), time_ns: now_ns.max(after_last), id: None };
        let trades = market
            .make(symbol, &[spec], now_ns)
            .ok_or_else(|| SimError::UnknownSymbol(exchange, symbol.to_owned()))?;
        market.hold(symbol, true);
        let last = trades.first().map_or_else(
            || LastTrade { price: price.to_owned(), time_ns: now_ns, id: 0 },
            |trade| LastTrade { price: price.to_owned(), time_ns: trade.time_ns, id: trade.id },
        );
        desk.tell(Event::Trades(trades.into()));
        Ok(last)
    }

    /// Lets a held price wander again.
    pub fn release(&self, exchange: Exchange, symbol: &str) {
        self.shared.desk(exchange).market().hold(symbol, false);
    }

    /// Sends one trade with a price text and a time of the caller's choice; gives its id.
    ///
    /// # Errors
    ///
    /// When the exchange does not know the symbol or the price text is too long.
    pub fn trade(
        &self,
        exchange: Exchange,
        symbol: &str,
        price: &str,
        time_ns: u64,
    ) -> Result<u64, SimError> {
        let ids =
            self.trades(exchange, symbol, &[TradeSpec { price: price.to_owned(), time_ns, id: None }])?;
        Ok(ids.first().copied().unwrap_or_default())
    }

    /// Sends several trades of one symbol together, given oldest first: in one frame where the exchange
    /// does so, in its own order. Gives their ids.
    ///
    /// # Errors
    ///
    /// As [`Control::trade`].
    pub fn trades(
        &self,
        exchange: Exchange,
        symbol: &str,
        specs: &[TradeSpec],
    ) -> Result<Vec<u64>, SimError> {
        let desk = self.shared.desk(exchange);
        let mut market = desk.market();
        let trades = market
            .make(symbol, specs, now_ns())
            .ok_or_else(|| SimError::UnknownSymbol(exchange, symbol.to_owned()))?;
        let ids = trades.iter().map(|trade| trade.id).collect();
        desk.tell(Event::Trades(trades.into()));
        Ok(ids)
    }

    /// The newest trade of every symbol, by trade time and then id.
    #[must_use]
    pub fn last_trades(&self, exchange: Exchange) -> BTreeMap<String, LastTrade> {
        self.shared.desk(exchange).market().last_trades()
    }

    /// What the exchange has done since the start.
    #[must_use]
    pub fn counts(&self, exchange: Exchange) -> Counts {
        let desk = self.shared.desk(exchange);
        let tally = &desk.tally;
        Counts {
            connections: tally.connections.load(Relaxed),
            open_connections: desk.open_connections() as u64,
            subscriptions: tally.subscriptions.load(Relaxed),
            pings_answered: tally.pings_answered.load(Relaxed),
            control_pings: tally.control_pings.load(Relaxed),
            heartbeats_answered: tally.heartbeats_answered.load(Relaxed),
            rest_requests: tally.rest_requests.load(Relaxed),
            frames_sent: tally.frames_sent.load(Relaxed),
            replays_finished: tally.replays_finished.load(Relaxed),
        }
    }

    /// Whether a whole recording has been sent to at least one connection.
    #[must_use]
    pub fn replay_finished(&self, exchange: Exchange) -> bool {
        self.counts(exchange).replays_finished > 0
    }

    /// Carries out one line as a person types it; gives what to show.
    ///
    /// # Errors
    ///
    /// A text that says what was wrong with the line and how to find the right one.
    pub fn command(&self, line: &str) -> Result<String, String> {
        let words = line.split_whitespace().collect::<Vec<_>>();
        let switch = |word: &str| match word {
            "on" => Ok(true),
            "off" => Ok(false),
            other => Err(format!("`{other}` is neither on nor off")),
        };
        match words.as_slice() {
            [] => return Ok(String::new()),
            ["help"] => return Ok(HELP.to_owned()),
            ["counts"] => return Ok(self.all_counts()),
            ["refuse-tls", on] => self.refuse_tls(switch(on)?),
            ["cut", name] => return Ok(format!("{} connections cut", self.cut(name.parse()?))),
            ["garbage", name] => self.garbage(name.parse()?),
            ["broken", name] => self.broken(name.parse()?),
            ["replay-old", name] => self.replay_old(name.parse()?),
            ["notice", name] => self.notice(name.parse()?),
            ["last", name] => {
                let lines = self.last_trades(name.parse()?).into_iter().map(|(symbol, last)| {
                    format!("{symbol} {} time_ns {} id {}", last.price, last.time_ns, last.id)
                });
                return Ok(lines.collect::<Vec<_>>().join("\n"));
            }
            ["stall", name, on] => self.stall(name.parse()?, switch(on)?),
            ["silence-heartbeats", name, on] => self.silence_heartbeats(name.parse()?, switch(on)?),
            ["ignore-pings", name, on] => self.ignore_pings(name.parse()?, switch(on)?),
            ["refuse-connect", name, on] => self.refuse_connect(name.parse()?, switch(on)?),
            ["refuse-rest", name, on] => self.refuse_rest(name.parse()?, switch(on)?),
            ["release", name, symbol] => self.release(name.parse()?, symbol),
            ["price", name, symbol, price] => {
                self.set_price(name.parse()?, symbol, price).map_err(|error| error.to_string())?;
            }
            _ => return Err(format!("`{}` is no command; `help` lists them", line.trim())),
        }
        Ok("done".to_owned())
    }

    fn all_counts(&self) -> String {
        let used = Exchange::ALL.into_iter().map(|exchange| (exchange, self.counts(exchange)));
        let lines = used.filter(|(_, counts)| *counts != Counts::default()).map(|(exchange, c)| {
            format!(
                "{exchange}: {} open of {} connections, {} subscriptions, {} pings answered, {} heartbeats answered, \
                 {} REST requests, {} frames sent",
                c.open_connections,
                c.connections,
                c.subscriptions,
                c.pings_answered,
                c.heartbeats_answered,
                c.rest_requests,
                c.frames_sent
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
