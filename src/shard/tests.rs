//! What the loop does in situations that the simulation seldom or never brings about.

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};

use super::answer::tests::{NOW, answerer};
use super::*;
use crate::engine::simulated::{Faults, Kernel, Log, PeerIndex, SimulatedEngine};
use crate::engine::{Ended, Event, ListenerIndex, UdpIndex};
use crate::price::{Confirmation, ListingId, Price, Quote, Tier, TradeKey};
use crate::time::{Clock as _, MonoNs, Now, ScriptedClock};

struct Bench {
    shard: Shard,
    engine: SimulatedEngine,
    kernel: Rc<RefCell<Kernel>>,
    clock: ScriptedClock,
    control: Sender<Control>,
    /// Tells prices from elsewhere.
    rest: Publisher,
    key: String,
    events: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        let (answerer, token) = answerer(true);
        let catalogue = Arc::clone(answerer.catalogue());
        let (rest, ends) = links(&catalogue, 1, 64);
        let own = links(&catalogue, 0, 1).0;
        let (control, controlled) = unbounded();
        let options = Options {
            udp: 1,
            tcp: 1,
            spin: Duration::ZERO,
            rest_deadline: Duration::from_millis(800),
            http_idle: Duration::from_secs(60),
            http_head: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        };
        let clock = ScriptedClock::at(NOW);
        let kernel = Kernel::new(1, Faults::none(), clock.clone(), 1, 1);
        let kernel = Rc::new(RefCell::new(kernel));
        let mut shard = Shard::new(answerer, own, Inbox::new(ends), controlled, Published::new(), options);
        let mut engine = SimulatedEngine::new(&kernel);
        shard.start(&mut engine);
        let key = token.reveal();
        Self { shard, engine, kernel, clock, control, rest, key, events: Vec::new() }
    }

    fn turn(&mut self) {
        self.kernel.borrow_mut().harvests = 0;
        let now = self.clock.now();
        self.shard.turn(&mut self.engine, now, &mut self.events).unwrap();
    }

    /// Lets time pass, with a turn every 10 ms.
    fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(10);
        for _ in 0..time.as_millis().div_ceil(step.as_millis()) {
            self.clock.advance(step);
            self.turn();
        }
    }

    fn connect(&mut self, window: usize) -> PeerIndex {
        let peer = self.kernel.borrow_mut().connect(ListenerIndex(0), window);
        self.turn();
        self.turn();
        peer
    }

    fn write(&mut self, peer: PeerIndex, bytes: &str) {
        self.kernel.borrow_mut().peer_write(peer, bytes.as_bytes());
        self.turn();
    }

    fn read(&mut self, peer: PeerIndex, most: usize) -> String {
        String::from_utf8(self.kernel.borrow_mut().peer_read(peer, most)).unwrap()
    }

    fn closed(&self, peer: PeerIndex) -> bool {
        self.kernel.borrow().peer_closed(peer)
    }

    fn price(&self, asset: &str) -> String {
        format!("GET /price?asset={asset} HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", self.key)
    }

    /// What a client at `from` was answered so far.
    fn answers(&self, from: SocketAddr) -> Vec<String> {
        let told = |log: &Log| match log {
            Log::Answered { peer, bytes, .. } if *peer == from => Some(String::from_utf8_lossy(bytes).into()),
            _ => None,
        };
        self.kernel.borrow().log.iter().filter_map(told).collect()
    }
}

#[test]
fn a_peer_that_waits_for_room_is_not_armed_again_by_a_want_of_buffers() {
    let mut bench = Bench::new();
    let peer = bench.connect(1 << 20);
    bench.write(peer, "GET");
    let id = bench.shard.conns.ids()[0];
    for conn in bench.shard.conns.iter_mut() {
        conn.receiving = false;
    }
    // The receive had ended in the kernel before it was cancelled.
    bench.shard.receive_ended(&mut bench.engine, NOW, id, Ended::NoBuffers);
    assert!(bench.shard.rearm.is_empty());
}

#[test]
fn a_peer_that_never_reads_piles_up_no_answers_by_waiting() {
    let mut bench = Bench::new();
    let peer = bench.connect(10);
    let (priced, stale) = (bench.price("BTC"), bench.price("SOL"));
    let requests = format!("{priced}{stale}{}", priced.repeat(100));
    bench.write(peer, &requests);
    bench.pass(Duration::from_secs(2));
    let pending: Vec<usize> = bench.shard.conns.iter_mut().map(|conn| conn.pending.len()).collect();
    assert!(pending[0] > 0 && pending[0] < 500, "one answer waits behind the first: {pending:?}");
}

#[test]
fn a_slow_reader_is_not_idle() {
    let mut bench = Bench::new();
    let peer = bench.connect(50);
    let request = bench.price("BTC");
    bench.write(peer, &request);
    let mut answer = String::new();
    for _ in 0..4 {
        bench.pass(Duration::from_secs(25));
        answer.push_str(&bench.read(peer, 50));
        assert!(!bench.closed(peer), "{answer}");
    }
    bench.pass(Duration::from_secs(70));
    assert!(bench.closed(peer), "who reads no more is");
}

#[test]
fn a_leaving_shard_answers_all_that_was_asked_on_a_connection() {
    let mut bench = Bench::new();
    let peer = bench.connect(1 << 20);
    let request = bench.price("BTC");
    let (begun, rest) = request.split_at(20);
    bench.write(peer, begun);
    bench.control.send(Control::Stop).unwrap();
    bench.pass(Duration::from_millis(50));
    assert!(!bench.closed(peer), "a request has begun");
    bench.write(peer, &format!("{rest}{request}{request}"));
    bench.pass(Duration::from_millis(50));
    let answers = bench.read(peer, usize::MAX);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    let last = answers.rfind("HTTP/1.1 200 OK").unwrap();
    let announced: Vec<_> = answers.match_indices("connection: close").map(|(at, _)| at > last).collect();
    assert_eq!(announced, [true], "only the last answer says that it is the last: {answers}");
    assert!(bench.closed(peer));
}

#[test]
fn a_draining_shard_leaves_datagrams_to_others_and_gives_each_connection_one_more_answer() {
    let mut bench = Bench::new();
    let from: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let ask = |bench: &mut Bench, id: u32| {
        let request = format!(r#"{{"api_key":"{}","asset":"BTC","id":{id}}}"#, bench.key);
        bench.kernel.borrow_mut().datagram(UdpIndex(0), from, request.into_bytes());
        bench.pass(Duration::from_millis(50));
        bench.answers(from).len()
    };
    let (idle, busy) = (bench.connect(1 << 20), bench.connect(1 << 20));
    let request = bench.price("BTC");
    bench.write(busy, &request);
    assert_eq!(ask(&mut bench, 1), 1);
    assert!(!bench.read(busy, usize::MAX).contains("connection: close"));

    bench.control.send(Control::Drain).unwrap();
    bench.pass(Duration::from_millis(50));
    assert_eq!(ask(&mut bench, 2), 1, "it waits for whoever takes it");
    assert!(!bench.closed(idle) && !bench.closed(busy));
    bench.write(busy, &request);
    bench.pass(Duration::from_millis(50));
    let answer = bench.read(busy, usize::MAX);
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
    assert!(bench.closed(busy) && !bench.closed(idle));

    // Nobody took it over after all.
    bench.control.send(Control::Open).unwrap();
    bench.pass(Duration::from_millis(50));
    assert_eq!(ask(&mut bench, 3), 3);
    bench.write(idle, &request);
    bench.pass(Duration::from_millis(50));
    let answer = bench.read(idle, usize::MAX);
    assert!(answer.contains("HTTP/1.1 200 OK") && !answer.contains("connection: close"), "{answer}");
    assert!(!bench.closed(idle));
}

#[test]
fn a_held_shard_takes_nothing_until_it_is_opened() {
    let mut bench = Bench::new();
    bench.control.send(Control::Drain).unwrap();
    bench.pass(Duration::from_millis(50));
    // As one that was held from the start.
    assert!(!bench.shard.open && !bench.shard.udp_armed.contains(&true));
    let peer = bench.connect(1 << 20);
    bench.pass(Duration::from_millis(50));
    let request = bench.price("BTC");
    bench.write(peer, &request);
    bench.pass(Duration::from_millis(50));
    assert_eq!(bench.read(peer, usize::MAX), "");
    bench.control.send(Control::Open).unwrap();
    bench.pass(Duration::from_millis(50));
    assert!(bench.read(peer, usize::MAX).contains("HTTP/1.1 200 OK"));
}

#[test]
fn a_failure_leaves_hope_for_the_other_assets_of_a_request() {
    let mut bench = Bench::new();
    let from: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let pad = "x".repeat(150);
    let request = format!(r#"{{"api_key":"{}","assets":["ETH","SOL"],"pad":"{pad}"}}"#, bench.key);
    bench.kernel.borrow_mut().datagram(UdpIndex(0), from, request.into_bytes());
    bench.pass(Duration::from_millis(50));
    let listing = |n| ListingId::new(n).unwrap();
    bench.rest.rest_failed(listing(2));
    bench.pass(Duration::from_millis(50));
    assert!(bench.answers(from).is_empty(), "SOL may still come");
    let quote = Quote {
        price: Price::parse(b"140.25").unwrap(),
        key: TradeKey { time: NOW.unix, number: 1 },
        received: NOW.unix,
        tier: Tier::Rest,
    };
    bench.rest.quote(listing(4), quote, Confirmation::Until(MonoNs::NEVER));
    bench.pass(Duration::from_millis(50));
    let answers = bench.answers(from);
    assert!(answers[0].contains(r#"{"asset":"ETH","error":"stale"}"#), "{answers:?}");
    assert!(answers[0].contains(r#""price":"140.25""#), "{answers:?}");
}

/// Sends much and counts how it ends.
struct Talker {
    stopped: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

impl Guest for Talker {
    fn start(&mut self, _: Now, _: &mut Vec<u8>, _: &mut Publisher) -> Keep {
        Keep::Open
    }

    fn receive(&mut self, _: Now, _: &[u8], out: &mut Vec<u8>, _: &mut Publisher) -> Keep {
        out.resize(100_000, b'.');
        Keep::Open
    }

    fn deadline(&self) -> MonoNs {
        MonoNs::NEVER
    }

    fn tick(&mut self, _: Now, _: &mut Vec<u8>, _: &mut Publisher) -> Keep {
        Keep::Open
    }

    fn ended(&mut self, _: Now, _: Ended, _: &mut Publisher) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn stop(&mut self, _: Now, _: &mut Vec<u8>, _: &mut Publisher) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }
}

fn arrival() -> (Arrival, Arc<AtomicU32>, Arc<AtomicU32>) {
    let (stopped, ended) = (Arc::default(), Arc::default());
    let guest = Talker { stopped: Arc::clone(&stopped), ended: Arc::clone(&ended) };
    let socket: OwnedFd = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    (Arrival { socket, guest: Box::new(guest) }, stopped, ended)
}

#[test]
fn a_guest_that_comes_while_the_shard_leaves_is_sent_home_and_holds_nobody_up() {
    let bench = Bench::new();
    bench.kernel.borrow_mut().expect_guest(1 << 20);
    let (arrival, stopped, _) = arrival();
    bench.control.send(Control::Stop).unwrap();
    bench.control.send(Control::Guest(arrival)).unwrap();
    let Bench { mut shard, mut engine, clock, .. } = bench;
    let mut events = Vec::new();
    shard.turn(&mut engine, clock.now(), &mut events).unwrap();
    assert_eq!(stopped.load(Ordering::Relaxed), 1);
    assert_eq!(shard.conns.len(), 0);
}

#[test]
fn a_guest_whose_other_side_does_not_read_is_given_up() {
    let mut bench = Bench::new();
    let peer = bench.kernel.borrow_mut().expect_guest(10);
    let (arrival, _, ended) = arrival();
    bench.control.send(Control::Guest(arrival)).unwrap();
    bench.pass(Duration::from_millis(50));
    for _ in 0..10 {
        if !bench.closed(peer) {
            bench.write(peer, "ping");
        }
    }
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    assert!(bench.closed(peer));
}
