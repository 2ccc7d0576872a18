//! Which price answers when exchanges fail, and that it is the right one again when they are back.

use std::time::{Duration, Instant};

use beast::config::{Config, IoChoice};
use beast::exchange_sim::{Exchange, Sim, SimOptions};
use beast::time::{Clock as _, RealClock};

mod support;

use support::feeds::{Client, NUMBER, Running, config, enable, get, list};
use support::gate::Gate;
use support::wait::{holds, until, within};

/// Exchanges that trade only on command.
fn quiet_sim() -> Sim {
    Sim::start(SimOptions { rate: 0, ..SimOptions::default() }).unwrap()
}

/// Silence that counts as death; both exchanges below send heartbeats every second.
const HASTY: &str = "dead_after_s = 2";

/// BTC on Coinbase, and where that fails on Kraken.
fn two_exchanges(sim: &Sim, io: IoChoice) -> Config {
    let mut config = config(io);
    enable(&mut config, sim, Exchange::Coinbase, HASTY);
    enable(&mut config, sim, Exchange::Kraken, HASTY);
    list(&mut config, "BTC", None, &[(Exchange::Coinbase, "BTC-USD"), (Exchange::Kraken, "BTC/USD")]);
    config.rest.cache_ttl_s = 1;
    config
}

/// Both trade once, at prices that tell them apart.
fn trade_on_both(sim: &Sim) {
    sim.control().set_price(Exchange::Coinbase, "BTC-USD", "65000.10").unwrap();
    sim.control().set_price(Exchange::Kraken, "BTC/USD", "65001.5").unwrap();
}

/// The same on both real engines.
macro_rules! on_both_engines {
    ($($test:ident)*) => {
        mod uring {
            $(#[test] fn $test() { super::$test(super::IoChoice::Uring); })*
        }
        mod portable {
            $(#[test] fn $test() { super::$test(super::IoChoice::Portable); })*
        }
    };
}

on_both_engines! {
    a_dead_exchange_is_replaced_by_the_next_and_then_by_rest_and_comes_back
    a_cut_connection_comes_back_with_its_prices
    all_who_wait_are_answered_by_one_request
    who_waits_in_vain_is_told_at_the_deadline
}

fn a_dead_exchange_is_replaced_by_the_next_and_then_by_rest_and_comes_back(io: IoChoice) {
    let sim = quiet_sim();
    let exchanges = sim.control();
    trade_on_both(&sim);
    let running = Running::start(two_exchanges(&sim, io));
    let client = &running.client;
    client.until("BTC", "65000.10", "coinbase-ws");

    exchanges.stall(Exchange::Coinbase, true);
    client.until("BTC", "65001.5", "kraken-ws");
    assert_eq!(client.v1("BTC", Some("kraken")).unwrap().price, "65001.5");
    exchanges.stall(Exchange::Coinbase, false);
    client.until("BTC", "65000.10", "coinbase-ws");

    for exchange in [Exchange::Coinbase, Exchange::Kraken] {
        exchanges.refuse_connect(exchange, true);
        exchanges.cut(exchange);
    }
    client.until("BTC", "65000.10", "coinbase-rest");
    exchanges.refuse_rest(Exchange::Coinbase, true);
    client.until("BTC", "65001.5", "kraken-rest");
    exchanges.refuse_rest(Exchange::Kraken, true);
    for ask in [Client::v1, Client::v2, Client::http] {
        until("nobody has a price", || match ask(client, "BTC", None) {
            Err(error) if error == "stale" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    exchanges.refuse_rest(Exchange::Kraken, false);
    client.until("BTC", "65001.5", "kraken-rest");
    for exchange in [Exchange::Coinbase, Exchange::Kraken] {
        exchanges.refuse_connect(exchange, false);
        exchanges.refuse_rest(exchange, false);
    }
    // Its attempts are some seconds apart by now.
    within(Duration::from_secs(70), "the preferred feed answers again", || match client.v1("BTC", None) {
        Ok(answer) if answer.source == "coinbase-ws" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    client.until("BTC", "65000.10", "coinbase-ws");
}

fn a_cut_connection_comes_back_with_its_prices(io: IoChoice) {
    let sim = quiet_sim();
    trade_on_both(&sim);
    let running = Running::start(two_exchanges(&sim, io));
    let client = &running.client;
    for round in 1..=3 {
        client.until("BTC", "65000.10", "coinbase-ws");
        let dialled = running.metric("beast_feed_dialled_total", "coinbase");
        sim.control().cut(Exchange::Coinbase);
        until("it was dialled again", || {
            let now = running.metric("beast_feed_dialled_total", "coinbase");
            holds(now > dialled, || format!("round {round}: {now} attempts"))
        });
    }
    client.until("BTC", "65000.10", "coinbase-ws");
    // One attempt for each cut: nobody dials in a frenzy.
    assert!(running.metric("beast_feed_dialled_total", "coinbase") <= 5);
}

#[test]
fn a_thin_asset_is_fresh_as_long_as_its_feed_lives() {
    let sim = Sim::start(SimOptions { rate: 0, history_len: 0, ..SimOptions::default() }).unwrap();
    sim.control().refuse_rest(Exchange::Kraken, true);
    // An hour old when the feed begins, and nothing after it.
    let hour_ago = RealClock.now().unix.0 - 3_600_000_000_000;
    sim.control().trade(Exchange::Kraken, "THIN/USD", "0.000000012340", hour_ago).unwrap();
    let mut config = config(IoChoice::Auto);
    enable(&mut config, &sim, Exchange::Kraken, HASTY);
    list(&mut config, "THIN", Some(NUMBER), &[(Exchange::Kraken, "THIN/USD")]);
    let running = Running::start(config);
    until("it is there", || running.client.v1("THIN", None));
    let started = Instant::now();
    // Three times what silence of the whole feed may last.
    while started.elapsed() < Duration::from_secs(6) {
        let answer = running.client.all("THIN", None).unwrap();
        assert_eq!((&*answer.price, &*answer.source), ("0.000000012340", "kraken-ws"));
        assert_eq!(answer.ts_ms, hour_ago / 1_000_000, "the trade keeps its own time");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A symbol in the exchange's own way of writing.
fn symbol(exchange: Exchange, base: &str) -> String {
    match exchange {
        Exchange::Coinbase | Exchange::CoinbaseExchange | Exchange::Okx => format!("{base}-USD"),
        Exchange::Gemini => format!("{}usd", base.to_lowercase()),
        Exchange::GeminiV2 | Exchange::Bybit => format!("{base}USD"),
        Exchange::Kraken | Exchange::KrakenV1 => format!("{base}/USD"),
        Exchange::Gateio | Exchange::Cryptocom | Exchange::CryptocomV2 => format!("{base}_USD"),
    }
}

/// Every exchange with two assets, one to be harmed and one that shows that the harm has arrived.
struct Harmed {
    sim: Sim,
    running: Running,
}

/// Names of the two assets of an exchange.
fn pair(exchange: Exchange) -> (String, String) {
    let at = Exchange::ALL.iter().position(|e| *e == exchange).unwrap();
    (format!("AAA{at}"), format!("ZZZ{at}"))
}

impl Harmed {
    fn start() -> Self {
        let sim = quiet_sim();
        let mut config = config(IoChoice::Auto);
        for (index, exchange) in Exchange::ALL.into_iter().enumerate() {
            enable(&mut config, &sim, exchange, "");
            let (first, second) = pair(exchange);
            list(&mut config, &first, Some(NUMBER + 2 * index), &[(exchange, &symbol(exchange, "AAA"))]);
            list(&mut config, &second, Some(NUMBER + 2 * index + 1), &[(exchange, &symbol(exchange, "ZZZ"))]);
        }
        let harmed = Self { running: Running::start(config), sim };
        for exchange in Exchange::ALL {
            harmed.arrived(exchange, "1.5");
        }
        harmed
    }

    fn client(&self) -> &Client {
        &self.running.client
    }

    /// Both assets trade; the first ends at 12.50.
    fn arrived(&self, exchange: Exchange, price: &str) {
        let (first, second) = pair(exchange);
        self.trade_until_heard(exchange, "AAA", &first, "12.50");
        self.trade_until_heard(exchange, "ZZZ", &second, price);
    }

    /// The second asset trades, after all that was sent before; the first is what it was.
    fn unharmed(&self, exchange: Exchange, price: &str) {
        let (first, second) = pair(exchange);
        self.trade_until_heard(exchange, "ZZZ", &second, price);
        self.client().until(&first, "12.50", &format!("{exchange}-ws"));
    }

    /// A trade on a connection that is not subscribed yet reaches nobody, so there may be several.
    fn trade_until_heard(&self, exchange: Exchange, base: &str, asset: &str, price: &str) {
        let source = format!("{exchange}-ws");
        until(&format!("{exchange} trades {asset}"), || {
            let now = RealClock.now().unix.0;
            self.sim.control().trade(exchange, &symbol(exchange, base), price, now).unwrap();
            match self.client().v1(asset, None) {
                Ok(answer) if answer.price == price && answer.source == source => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        self.client().until(asset, price, &source);
    }
}

#[test]
fn nonsense_and_old_trades_never_change_a_price() {
    let harmed = Harmed::start();
    let control = harmed.sim.control();
    for (round, price) in ["2.5", "3.5"].into_iter().enumerate() {
        for exchange in Exchange::ALL {
            control.garbage(exchange);
            control.replay_old(exchange);
            let year_ahead = RealClock.now().unix.0 + 31_536_000_000_000_000;
            for (bad, time_ns) in [
                ("-12.51", RealClock.now().unix.0),
                ("0", RealClock.now().unix.0),
                ("0.00", RealClock.now().unix.0),
                ("1e30", RealClock.now().unix.0),
                ("NaN", RealClock.now().unix.0),
                ("77.7", year_ahead),
            ] {
                control.trade(exchange, &symbol(exchange, "AAA"), bad, time_ns).unwrap();
            }
            harmed.unharmed(exchange, price);
        }
        let connections: u64 =
            Exchange::ALL.map(|exchange| control.counts(exchange).connections).iter().sum();
        assert_eq!(connections, 11, "round {round}: a connection was given up for what it carried");
    }
    // Bytes that are no frames end the connection, and the next one brings the price back.
    for exchange in Exchange::ALL {
        control.broken(exchange);
    }
    for exchange in Exchange::ALL {
        until(&format!("{exchange} is dialled again"), || {
            let counts = control.counts(exchange);
            holds(counts.connections >= 2 && counts.open_connections >= 1, || format!("{counts:?}"))
        });
        harmed.arrived(exchange, "4.5");
    }
}

/// One asset whose feed is refused and whose REST waits behind a gate.
fn gated(sim: &Sim, io: IoChoice, shards: usize, deadline_ms: u64) -> (Config, Gate) {
    sim.control().refuse_connect(Exchange::Coinbase, true);
    let mut config = config(io);
    let gate = Gate::before(sim.addr());
    enable(&mut config, sim, Exchange::Coinbase, "");
    let base = format!("http://{}/rest/coinbase", gate.addr);
    config.feeds.get_mut("coinbase").unwrap().insert("rest_base".into(), base.into());
    list(&mut config, "BTC", None, &[(Exchange::Coinbase, "BTC-USD")]);
    config.shards = shards;
    config.rest.deadline_ms = deadline_ms;
    (config, gate)
}

/// Clients that ask for BTC at the same time, each in one of the protocols.
fn ask_at_once(client: &Client, count: usize, while_they_wait: impl FnOnce()) -> Vec<Result<String, String>> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..count)
            .map(|n| {
                let client = client.clone();
                scope.spawn(move || match n % 3 {
                    0 => client.v1("BTC", None),
                    1 => client.v2("BTC", None),
                    _ => client.http("BTC", None),
                })
            })
            .collect();
        while_they_wait();
        asking
            .into_iter()
            .map(|told| told.join().unwrap().map(|a| format!("{} {}", a.price, a.source)))
            .collect()
    })
}

fn all_who_wait_are_answered_by_one_request(io: IoChoice) {
    let sim = quiet_sim();
    sim.control().set_price(Exchange::Coinbase, "BTC-USD", "65000.10").unwrap();
    let (config, gate) = gated(&sim, io, 2, 60_000);
    let running = Running::start(config);
    let told = ask_at_once(&running.client, 24, || {
        until("all wait", || {
            let waiting = running.metric("beast_request_waiting", "");
            holds(waiting == 24, || format!("{waiting} wait"))
        });
        assert_eq!(running.metric("beast_books_difference", ""), 0);
        assert_eq!(sim.control().counts(Exchange::Coinbase).rest_requests, 0, "the gate is closed");
        gate.open();
    });
    assert_eq!(told, vec![Ok("65000.10 coinbase-rest".to_owned()); 24]);
    assert_eq!(sim.control().counts(Exchange::Coinbase).rest_requests, 1);
    assert_eq!(gate.accepted(), 1);
    assert_eq!(
        running.client.all("BTC", None).unwrap().source,
        "coinbase-rest",
        "and it is kept for a while"
    );
    assert_eq!(sim.control().counts(Exchange::Coinbase).rest_requests, 1);
}

fn who_waits_in_vain_is_told_at_the_deadline(io: IoChoice) {
    let sim = quiet_sim();
    let (config, gate) = gated(&sim, io, 1, 800);
    let running = Running::start(config);
    let started = Instant::now();
    let told = ask_at_once(&running.client, 12, || ());
    assert_eq!(told, vec![Err("stale".to_owned()); 12]);
    // The deadline is 0.8 s; what is added allows for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(gate.accepted() >= 1, "REST was asked");
    assert_eq!(sim.control().counts(Exchange::Coinbase).rest_requests, 0);
    until("the books are published", || {
        let stale = running.metric("beast_request_refused_total", "stale");
        holds(stale == 12, || format!("{stale} refused as stale"))
    });
    assert_eq!(running.metric("beast_request_waiting", ""), 0);
}

#[test]
fn rest_prices_every_asset_at_the_start_when_no_feed_can() {
    let sim = Sim::start(SimOptions::default()).unwrap();
    let mut config = config(IoChoice::Auto);
    config.assets.clear();
    for exchange in Exchange::CURRENT {
        sim.control().refuse_connect(exchange, true);
        enable(&mut config, &sim, exchange, "");
    }
    config.rest.prewarm = true;
    config.rest.cache_ttl_s = 60;
    let running = Running::start(config);
    all_fresh(&running, 150);
    let (status, body) = get(running.client.http, "/assets", "").unwrap();
    assert_eq!(status, 200);
    let assets: serde_json::Value = serde_json::from_str(&body).unwrap();
    for asset in assets["assets"].as_array().unwrap() {
        let answer = running.client.http(asset["asset"].as_str().unwrap(), None).unwrap();
        assert!(answer.source.ends_with("-rest"), "{answer:?}");
    }
}

/// Waits, without asking for any, until so many assets have a price.
fn all_fresh(running: &Running, count: u64) {
    until("all assets have a price", || {
        let (fresh, listed) =
            (running.metric("beast_asset_fresh", ""), running.metric("beast_asset_listed", ""));
        holds(listed == count && fresh == count, || format!("{fresh} of {listed}"))
    });
}

#[test]
fn what_one_exchange_cannot_say_at_the_start_the_next_one_says() {
    let sim = quiet_sim();
    trade_on_both(&sim);
    for exchange in [Exchange::Coinbase, Exchange::Kraken] {
        sim.control().refuse_connect(exchange, true);
    }
    sim.control().refuse_rest(Exchange::Coinbase, true);
    let mut config = two_exchanges(&sim, IoChoice::Auto);
    config.rest.prewarm = true;
    config.rest.cache_ttl_s = 60;
    let running = Running::start(config);
    all_fresh(&running, 1);
    running.client.until("BTC", "65001.5", "kraken-rest");
}

/// Who asks while the prewarm goes through a slow exchange's queue does not stand behind it.
#[test]
fn a_client_overtakes_the_prewarm() {
    let sim = quiet_sim();
    let mut config = config(IoChoice::Auto);
    sim.control().refuse_connect(Exchange::Kraken, true);
    enable(&mut config, &sim, Exchange::Kraken, "[rest]\nper_second = 1");
    for number in 0..30 {
        let symbol = format!("Q{number}/USD");
        sim.control().set_price(Exchange::Kraken, &symbol, "7.25").unwrap();
        list(&mut config, &format!("Q{number}"), Some(NUMBER + number), &[(Exchange::Kraken, &symbol)]);
    }
    config.rest.prewarm = true;
    // Far from the 30 s that the prewarm takes.
    config.rest.deadline_ms = 10_000;
    let running = Running::start(config);
    until("the prewarm has begun", || {
        let requests = sim.control().counts(Exchange::Kraken).rest_requests;
        holds(requests >= 1, || format!("{requests} requests"))
    });
    assert_eq!(running.client.http("Q29", None).unwrap().price, "7.25");
    let requests = sim.control().counts(Exchange::Kraken).rest_requests;
    assert!(requests < 15, "answered after {requests} requests: it stood behind the others");
}
