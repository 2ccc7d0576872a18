//! Answering allocates nothing: every allocation of the live shard thread is counted while requests of
//! each protocol are answered or, beyond the rate of a limited key, refused, on both engines. What
//! parking costs is shown apart.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;

use std::cell::RefCell;
use std::time::Duration;

use beast::account::{Tier, Token};
use beast::config::{Config, IoChoice};
use beast::exchange_sim::Exchange;
use beast::shard::Counter;
use beast::store::{NewKey, Store};
use beast::sys::counting_alloc::CountingAllocator;
use clients::{Http, Udp, get, v1_request, v2_request};
use running::{Running, config, wait_until};

#[global_allocator]
static ALLOCATIONS: CountingAllocator = CountingAllocator::new("shard-");

const REQUESTS: usize = 20_000;

/// Requests that go first: pools fill, vectors reach their length.
const WARM_UP: usize = 4_000;

/// Clients, and requests each has under way.
const CLIENTS: usize = 8;
const WINDOW: usize = 8;

/// Asks for BTC and another asset in turn, so that an answer's length is not always the same.
const ASSETS: [&str; 4] = ["BTC", "ETH", "NOPE", "SOL"];

/// One test, because the counter knows one process.
#[test]
fn no_answer_allocates_on_its_shard() {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let running = Running::start(Config { spin_us: 1_000_000, ..config(io, 1) });
        assert!(ALLOCATIONS.counted().0 > 0, "{io:?}: the shard's thread is not counted");
        let limited = limited_key(&running);
        quiet_feeds(&running);
        let udp: Vec<Udp> = (0..CLIENTS).map(|_| Udp::to(running.udp())).collect();
        let http: RefCell<Vec<Http>> = RefCell::new((0..CLIENTS).map(|_| Http::to(running.http())).collect());
        for requests in [WARM_UP, REQUESTS] {
            let measured = requests == REQUESTS;
            for (key, token) in [("unlimited", &running.token), ("limited", &limited)] {
                check(&running, &format!("v1, {key}"), measured, || {
                    ask(&udp, requests, |asset, n| v1_request(token, asset, &n.to_string()).into_bytes());
                });
                check(&running, &format!("v2, {key}"), measured, || {
                    ask(&udp, requests, |asset, n| v2_request(token, asset, n as u64));
                });
                check(&running, &format!("HTTP, {key}"), measured, || {
                    ask_http(token, &mut http.borrow_mut(), requests);
                });
            }
        }
        let refused = [Counter::UdpRateLimited, Counter::HttpRateLimited].map(|c| running.count(c));
        assert!(refused.iter().all(|refused| *refused > 100), "{io:?}: {refused:?} refusals show nothing");
        drop(http);
        running.leave();

        let running = Running::start(Config { spin_us: 0, ..config(io, 1) });
        quiet_feeds(&running);
        let client = Udp::to(running.udp());
        let mut cost = (0, 0);
        for _ in 0..2 {
            let before = (ALLOCATIONS.counted().0, parks(&running));
            for n in 0..200 {
                client.v2(&v2_request(&running.token, "BTC", n), &running.token);
                std::thread::sleep(Duration::from_millis(1));
            }
            cost = (ALLOCATIONS.counted().0 - before.0, parks(&running) - before.1);
        }
        assert!(cost.1 > 0, "{io:?} did not park");
        eprintln!("{io:?}: {} allocations in about {} parks and 200 answers between them", cost.0, cost.1);
        running.leave();
    }
}

/// A key whose rate is soon used up, and whose month is not.
fn limited_key(running: &Running) -> Token {
    let store = Store::open(&running.data.path().join("data")).unwrap();
    let (name, monthly) = ("limited".to_owned(), Some(1_000_000));
    store.put_tier(&Tier { name: name.clone(), unlimited: false, qps: 500, burst: 2_000, monthly }).unwrap();
    let new = NewKey {
        account: "limits".to_owned(),
        tier: name,
        networks: Vec::new(),
        note: String::new(),
        admin: false,
        expires: None,
    };
    let token = store.add_key(&new).unwrap();
    let mut http = Http::to(running.http());
    wait_until("the key is known", || http.get("/price?asset=BTC", &token).status == 200);
    token
}

/// The feeds fall silent, for less time than their prices stay fresh, so that answers alone are
/// counted.
fn quiet_feeds(running: &Running) {
    let control = running.appliance().sim.as_ref().unwrap().control();
    // Two seconds after the subscriptions REST is asked for what has had no trade.
    std::thread::sleep(Duration::from_millis(2_500));
    for exchange in Exchange::ALL {
        control.stall(exchange, true);
    }
    let mut last = feed_events(running);
    wait_until("the feeds are silent", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = feed_events(running);
        std::mem::replace(&mut last, now) == now
    });
}

/// Grows with whatever a feed's connection carries.
fn feed_events(running: &Running) -> u64 {
    let control = running.appliance().sim.as_ref().unwrap().control();
    let events = Exchange::ALL.map(|exchange| {
        let counts = control.counts(exchange);
        counts.connections
            + counts.subscriptions
            + counts.pings_answered
            + counts.control_pings
            + counts.heartbeats_answered
            + counts.rest_requests
            + counts.frames_sent
    });
    events.iter().sum()
}

fn parks(running: &Running) -> u64 {
    // Published every 20 ms, or whenever it is woken.
    std::thread::sleep(Duration::from_millis(300));
    running.count(Counter::Parked)
}

/// Tries of a measurement: a feed may speak in the midst of one, and the first time that more
/// connections are served at once than ever before, their vectors are made.
const TRIES: usize = 5;

fn check(running: &Running, name: &str, measured: bool, load: impl Fn()) {
    let engine = running.appliance().engine.engine;
    let mut counts = Vec::new();
    for _ in 0..TRIES {
        let parked = running.count(Counter::Parked);
        let before = ALLOCATIONS.counted().0;
        load();
        counts.push(ALLOCATIONS.counted().0 - before);
        assert_eq!(running.count(Counter::Parked), parked, "{engine:?} parked under load");
        if !measured || counts.last() == Some(&0) {
            eprintln!("{engine:?}, {name}: {counts:?} allocations");
            return;
        }
    }
    panic!("{engine:?}, {name}: {counts:?} allocations, each time in {REQUESTS} requests");
}

fn ask(clients: &[Udp], requests: usize, request: impl Fn(&str, usize) -> Vec<u8>) {
    let mut buffer = [0; 2_048];
    for round in 0..requests / CLIENTS / WINDOW + 1 {
        for client in clients {
            for n in 0..WINDOW {
                client.send(&request(ASSETS[n % ASSETS.len()], round * WINDOW + n));
            }
        }
        for client in clients {
            for _ in 0..WINDOW {
                client.0.recv(&mut buffer).expect("no answer came");
            }
        }
    }
}

fn ask_http(token: &Token, clients: &mut [Http], requests: usize) {
    let request = |n: usize| get(&format!("/price?asset={}", ASSETS[n % ASSETS.len()]), token);
    let requests_at_once: String = (0..WINDOW).map(request).collect();
    for _ in 0..requests / CLIENTS / WINDOW + 1 {
        for client in &mut *clients {
            client.write(requests_at_once.as_bytes());
        }
        for client in &mut *clients {
            for n in 0..WINDOW {
                let status = client.read().status;
                let wanted = if ASSETS[n % ASSETS.len()] == "NOPE" { 404 } else { 200 };
                assert!(status == wanted || status == 429, "{status}, not {wanted}");
            }
        }
    }
}
