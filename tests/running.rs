//! A process under way: its shards agree, its keys change, it leaves when told.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use beast::config::{Config, IoChoice};
use beast::exchange_sim::{Exchange, Replay, Sim, SimOptions, Speed};
use beast::store::{NewKey, Store};
use beast::time::{Clock as _, RealClock};
use nix::sys::signal::Signal;

mod support;

use support::feeds::{NUMBER, Running, config, enable, engines, get, list};
use support::gate::Gate;
use support::program::Program;
use support::wait::{holds, until, within};

const SYMBOLS: usize = 150;
const FRAMES: usize = 200;

/// Frames of trades of every symbol, more than the links hold, and one of old trades at the end.
fn burst() -> Replay {
    let start_ms = RealClock.now().unix.ms() - 3_600_000;
    let frame = |n: usize, time_ms: u64, price: &dyn Fn(usize) -> String| {
        let trades: Vec<String> = (0..SYMBOLS)
            .map(|s| {
                let price = price(s);
                format!(r#"{{"instId":"O{s}-USD","tradeId":"{n}","px":"{price}","sz":"1","side":"buy","ts":"{time_ms}"}}"#)
            })
            .collect();
        let trades = trades.join(",");
        (None, format!(r#"{{"arg":{{"channel":"trades","instId":"O0-USD"}},"data":[{trades}]}}"#))
    };
    let mut frames: Vec<_> = (0..FRAMES).map(|n| frame(n, start_ms + n as u64, &|s| price(n, s))).collect();
    frames.push(frame(FRAMES, start_ms - 1, &|_| "1.0".to_owned()));
    Replay::new(Exchange::Okx, frames)
}

fn price(frame: usize, symbol: usize) -> String {
    format!("{}.{symbol:03}0", 1_000 + frame)
}

/// Bursts sent until one overflows: a shard that has a core of its own may keep pace with one.
const BURSTS_MAX: usize = 20;

#[test]
fn every_shard_ends_with_the_newest_price_after_a_burst_that_overflows_the_links() {
    for io in engines() {
        let overflowed = (0..BURSTS_MAX).any(|_| overruns_of_a_burst(io) > 0);
        assert!(overflowed, "a burst must overflow a link to prove anything: none of {BURSTS_MAX} did");
    }
}

/// Sends one burst, waits for its last prices on both shards, and tells how often a link was full.
fn overruns_of_a_burst(io: IoChoice) -> u64 {
    let replays = vec![burst()];
    let sim = Sim::start(SimOptions { replays, speed: Speed::Max, ..SimOptions::default() }).unwrap();
    let mut config = config(io);
    config.shards = 2;
    enable(&mut config, &sim, Exchange::Okx, "max_per_msg = 1000\nsymbols_per_connection = 1000");
    for s in 0..SYMBOLS {
        list(&mut config, &format!("O{s}"), Some(NUMBER + s), &[(Exchange::Okx, &format!("O{s}-USD"))]);
    }
    let running = Running::start(config);
    until("the burst is sent", || {
        let counts = sim.control().counts(Exchange::Okx);
        holds(counts.replays_finished > 0, || format!("{counts:?}"))
    });
    for s in 0..SYMBOLS {
        let (asset, expected) = (format!("O{s}"), price(FRAMES - 1, s));
        // Each request comes from another port, so the kernel spreads them over the shards.
        until(&format!("both shards say {expected} for {asset}"), || {
            let mut told = BTreeMap::new();
            while told.len() < 2 {
                let (answer, shard) = running.client.v2_from(&asset, None)?;
                told.insert(shard, answer.price);
            }
            holds(told.values().all(|price| *price == expected), || format!("{told:?}"))
        });
    }
    for shard in ["0", "1"] {
        let label = format!("shard=\"{shard}\"");
        assert!(running.metric("beast_request_answered_total", &label) > 0);
    }
    running.metric("beast_link_overrun_total", "")
}

/// BTC on Kraken at a price that stands still.
fn btc(sim: &Sim) -> Config {
    sim.control().set_price(Exchange::Kraken, "BTC/USD", "65001.5").unwrap();
    let mut config = config(IoChoice::Auto);
    enable(&mut config, sim, Exchange::Kraken, "");
    list(&mut config, "BTC", None, &[(Exchange::Kraken, "BTC/USD")]);
    config
}

fn quiet_sim() -> Sim {
    Sim::start(SimOptions { rate: 0, ..SimOptions::default() }).unwrap()
}

/// A change of keys counts within 2 s; what is added allows for a busy machine.
const KEYS_MAX: Duration = Duration::from_secs(6);

#[test]
fn keys_count_from_when_they_are_made_until_they_are_revoked() {
    for (io, shards) in engines().into_iter().zip([2, 1]) {
        let sim = quiet_sim();
        let running = Running::start(Config { io, shards, ..btc(&sim) });
        running.client.until("BTC", "65001.5", "kraken-ws");
        let data = running.data.path().join("data");
        let store = Store::open(&data).unwrap();
        let new = NewKey {
            account: "desk".to_owned(),
            tier: "partner".to_owned(),
            networks: Vec::new(),
            note: String::new(),
            admin: false,
            expires: None,
        };
        let token = store.add_key(&new).unwrap();
        let other = running.client.with(token);
        // HTTP first: what nobody knows gets few replies by UDP.
        within(KEYS_MAX, "the new key works by HTTP", || other.http("BTC", None));
        std::thread::sleep(Duration::from_millis(200));
        assert!(other.all("BTC", None).is_ok());

        let mut revoke = Command::new(env!("CARGO_BIN_EXE_beast"));
        revoke.args(["keys", "revoke", &beast::account::public_text(token.public_id()), "--data"]).arg(&data);
        let revoked = revoke.output().unwrap();
        assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
        within(KEYS_MAX, "the revoked key is refused by HTTP", || match other.http("BTC", None) {
            Err(error) if error == "unauthorized" => Ok(()),
            told => Err(format!("{told:?}")),
        });
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(other.v1("BTC", None), Err("unauthorized".to_owned()));
        assert_eq!(other.v2("BTC", None), Err("unauthorized".to_owned()));
        assert_eq!(running.client.all("BTC", None).unwrap().price, "65001.5", "the first key still works");
    }
}

/// A program with BTC from a feed, and ETH only by a REST that stands behind a gate.
fn program_with_gate(sim: &Sim, deadline_ms: u64) -> (Program, Gate) {
    let mut config = btc(sim);
    let gate = Gate::before(sim.addr());
    sim.control().set_price(Exchange::Coinbase, "ETH-USD", "1900.25").unwrap();
    sim.control().refuse_connect(Exchange::Coinbase, true);
    enable(&mut config, sim, Exchange::Coinbase, "");
    let base = format!("http://{}/rest/coinbase", gate.addr);
    config.feeds.get_mut("coinbase").unwrap().insert("rest_base".into(), base.into());
    list(&mut config, "ETH", None, &[(Exchange::Coinbase, "ETH-USD")]);
    config.rest.deadline_ms = deadline_ms;
    let program = Program::start(&config);
    program.client.until("BTC", "65001.5", "kraken-ws");
    ready(&program, 200);
    (program, gate)
}

/// Waits until `/ready` says so.
fn ready(program: &Program, status: u16) {
    until(&format!("/ready is {status}"), || {
        let got = get(program.health, "/ready", "");
        holds(got.as_ref().is_ok_and(|got| got.0 == status), || format!("{got:?}"))
    });
}

#[test]
fn a_process_that_is_told_to_leave_finishes_what_is_in_flight() {
    let sim = quiet_sim();
    let (mut program, gate) = program_with_gate(&sim, 8_000);
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (client, over, answered) = (program.client.clone(), &over, &answered);
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    if client.v1("BTC", None).is_ok() {
                        answered.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let client = program.client.clone();
        let waits = scope.spawn(move || client.http("ETH", None));
        until("it waits", || {
            let waiting = support::feeds::metric(program.health, "beast_request_waiting", "http");
            holds(waiting == 1 && answered.load(SeqCst) > 100, || format!("{waiting} wait"))
        });
        let told = Instant::now();
        program.signal(Signal::SIGTERM);
        ready(&program, 503);
        gate.open();
        let answer = waits.join().unwrap().unwrap();
        assert_eq!((&*answer.price, &*answer.source), ("1900.25", "coinbase-rest"));
        assert_eq!(program.exit_code(), 0);
        // Ten seconds are promised; what is added allows for a busy machine.
        assert!(told.elapsed() < Duration::from_secs(13), "{:?}", told.elapsed());
        over.store(true, SeqCst);
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let sim = quiet_sim();
    let (mut program, _closed) = program_with_gate(&sim, 60_000);
    let client = program.client.clone();
    // Its connection ends with the process.
    let waits = std::thread::spawn(move || client.http("ETH", None));
    until("it waits", || {
        let waiting = support::feeds::metric(program.health, "beast_request_waiting", "http");
        holds(waiting == 1, || format!("{waiting} wait"))
    });
    program.signal(Signal::SIGTERM);
    ready(&program, 503);
    // Only then is the first one out of the way: two that come together count as one.
    program.line_with("leaving");
    let told = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.exit_code(), 128 + Signal::SIGTERM as i32);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert!(waits.join().unwrap().is_err());
}
