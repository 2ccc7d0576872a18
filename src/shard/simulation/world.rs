//! One seed's world: the shards, their kernels, and everybody outside.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::datagrams::{Circumstances, Datagrams};
use super::feeds::{Feed, Rest, Script, Shared};
use super::mutant::{Mutant, Mutation};
use super::prices::{Model, catalogue};
use super::streams::{Limits, Streams};
use super::{Keys, Tally};
use crate::engine::UdpIndex;
use crate::engine::simulated::{Faults, Kernel, PeerIndex, Random, SimulatedEngine};
use crate::ledger::Segment;
use crate::price::{ListingId, Quote};
use crate::shard::{
    Answerer, Arrival, Control, Counter, Counters, Inbox, Options, Published, Publisher, Shard, ShardSecrets,
    Update, links,
};
use crate::time::{Clock, MonoNs, Now, ScriptedClock, UnixNs};

const REST_DEADLINE: Duration = Duration::from_millis(800);
const LIMITS: Limits = Limits { idle_ns: 3_000_000_000, head_ns: 1_500_000_000 };
const DRAIN: Duration = Duration::from_secs(5);

/// How long coming to rest takes: links that hold one message are filled every 20 ms.
const REST_MIN: Duration = Duration::from_millis(1_500);
const REST_MAX: Duration = Duration::from_secs(30);

/// How far time may have jumped past an instant when the world looks: three pauses of the
/// machine: before it hears that it must leave, before its time is over, and after.
const JUMPS_MAX: Duration = Duration::from_millis(3 * PAUSE_NS_MAX as u64 / 1_000_000 + 50);
const PAUSE_NS_MAX: usize = 400_000_000;

/// Steps before the faults stop.
const STEPS: usize = 150;

/// A clock that moves a little whenever the loop looks at it, once a turn.
struct TurnClock {
    hands: ScriptedClock,
    turn: Rc<Cell<Now>>,
}

impl Clock for TurnClock {
    fn now(&self) -> Now {
        self.hands.advance(Duration::from_micros(3));
        self.turn.set(self.hands.now());
        self.hands.now()
    }
}

type Running = Pin<Box<dyn Future<Output = (std::io::Result<()>, Box<Shard>)>>>;

struct Side {
    kernel: Rc<RefCell<Kernel>>,
    control: Sender<Control>,
    published: Arc<Published>,
    /// What its publishers have sent, and where it is to go.
    links: Vec<(Receiver<Update>, Sender<Update>)>,
    /// What lies in its inbox, link by link.
    unseen: [Vec<Update>; 2],
    model: Model,
    datagrams: Datagrams,
    streams: Streams,
    running: Option<Running>,
    done: Option<Box<Shard>>,
}

pub(super) struct World {
    random: Random,
    mutation: Mutation,
    hands: ScriptedClock,
    script: Shared,
    sides: Vec<Side>,
    rest: Publisher,
    feed: Option<PeerIndex>,
    leaving_since: Option<MonoNs>,
    early: bool,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Mutation) -> Self {
        let mut random = Random::new(seed);
        let now = Now { mono: MonoNs(3_000_000_000_000), unix: UnixNs(1_763_650_000_123_000_000) };
        let hands = ScriptedClock::at(now);
        let catalogue = catalogue();
        let script = Script::new(random.next());
        let count = random.between(1, 2);
        let link_len = *random.pick(&[1, 4, 4, 16]);
        let (feed, feed_links) = links(&catalogue, count, link_len);
        let (rest, rest_links) = links(&catalogue, count, link_len);
        let mut feed = Some(feed);
        let sides =
            feed_links.into_iter().zip(rest_links).enumerate().map(|(index, (feed_link, rest_link))| {
                let (mut relays, mut receivers) = (Vec::new(), Vec::new());
                for link in [feed_link, rest_link] {
                    let (to, from) = unbounded();
                    relays.push((link, to));
                    receivers.push(from);
                }
                let faults = faults(&mut random);
                let kernel = Kernel::new(random.next(), faults, hands.clone(), 2, 1);
                let kernel = Rc::new(RefCell::new(kernel));
                let rest = Rest { script: Arc::clone(&script), shard: index };
                let secrets = ShardSecrets { recognizer: [1; 16], budget: [2; 16] };
                let segment = Segment::new(1, u16::try_from(index).unwrap());
                let answerer = Answerer::new(
                    Arc::clone(&catalogue),
                    Keys::shared().table(),
                    segment,
                    secrets,
                    Box::new(rest),
                );
                let publisher = feed.take().unwrap_or_else(|| links(&catalogue, 0, 1).0);
                let (control, controls) = unbounded();
                let published = Published::new();
                let options = Options {
                    udp: 2,
                    tcp: 1,
                    spin: Duration::from_micros(*random.pick(&[0, 50])),
                    rest_deadline: REST_DEADLINE,
                    http_idle: Duration::from_nanos(LIMITS.idle_ns),
                    http_head: Duration::from_nanos(LIMITS.head_ns),
                    drain: DRAIN,
                };
                let inbox = Inbox::new(receivers);
                let shard = Shard::new(answerer, publisher, inbox, controls, Arc::clone(&published), options);
                let clock = TurnClock { hands: hands.clone(), turn: Rc::new(Cell::new(now)) };
                let mut shard = Box::new(shard);
                let mut engine = Mutant::new(SimulatedEngine::new(&kernel), mutation);
                let running: Running = Box::pin(async move {
                    let result = shard.run(&mut engine, &clock).await;
                    (result, shard)
                });
                Side {
                    kernel,
                    control,
                    published,
                    links: relays,
                    model: Model::new(),
                    unseen: [Vec::new(), Vec::new()],
                    datagrams: Datagrams::default(),
                    streams: Streams::default(),
                    running: Some(running),
                    done: None,
                }
            });
        let sides = sides.collect();
        let early = random.chance(300);
        Self { random, mutation, hands, script, sides, rest, feed: None, leaving_since: None, early }
    }

    pub(super) fn run(mut self) -> Result<Tally, String> {
        let steps = if self.early { self.random.between(1, STEPS) } else { STEPS };
        for _ in 0..steps {
            self.outside_acts();
            self.step(false)?;
        }
        if !self.early {
            self.come_to_rest()?;
            self.check_boards()?;
        }
        self.leave()?;
        self.check_end()
    }

    /// Clients ask, the feed and REST tell.
    fn outside_acts(&mut self) {
        let now = self.hands.now();
        self.script.lock().unwrap().set_now(now);
        self.feed_speaks();
        self.script.lock().unwrap().rest_says(&mut self.rest);
        let (random, keys) = (&mut self.random, Keys::shared());
        for side in &mut self.sides {
            let many = if random.chance(60) { 40 } else { 3 };
            for _ in 0..random.below(many) {
                let (from, bytes) = side.datagrams.ask(random, keys, now);
                let socket = UdpIndex(u8::try_from(random.below(2)).unwrap());
                side.kernel.borrow_mut().datagram(socket, from, bytes);
            }
            if random.chance(80) && side.streams.open() < 12 {
                side.streams.connect(random, keys, &mut side.kernel.borrow_mut(), now.mono);
            }
        }
    }

    fn feed_speaks(&mut self) {
        let mut kernel = self.sides[0].kernel.borrow_mut();
        match self.feed {
            Some(peer) if !kernel.peer_closed(peer) => {
                kernel.peer_read(peer, usize::MAX);
                let burst = if self.random.chance(50) { 60 } else { 3 };
                let count = self.random.below(burst);
                kernel.peer_write(peer, &vec![b'.'; count]);
            }
            _ if self.random.chance(300) => {
                self.feed = Some(kernel.expect_guest(1 << 20));
                let socket = std::fs::File::open("/dev/null").unwrap().into();
                let guest = Box::new(Feed(Arc::clone(&self.script)));
                let _ = self.sides[0].control.send(Control::Guest(Arrival { socket, guest }));
            }
            _ => {}
        }
    }

    /// Lets links carry, shards run, clients act and time pass; `hurry` when all is to come to rest.
    fn step(&mut self, hurry: bool) -> Result<(), String> {
        if self.mutation != Mutation::NeverSettle && (hurry || self.random.chance(300)) {
            self.rest.settle();
        }
        for index in 0..self.sides.len() {
            self.forward(index, hurry);
            self.poll(index)?;
        }
        self.clients_act(hurry)?;
        self.pass_time(hurry);
        Ok(())
    }

    /// Hands some of what the links hold to a shard's inbox.
    fn forward(&mut self, index: usize, all: bool) {
        let side = &mut self.sides[index];
        for ((from, to), unseen) in side.links.iter().zip(&mut side.unseen) {
            let count = if all { usize::MAX } else { self.random.below(6) };
            for update in from.try_iter().take(count) {
                unseen.push(update.clone());
                let _ = to.send(update);
            }
        }
    }

    fn poll(&mut self, index: usize) -> Result<(), String> {
        let side = &mut self.sides[index];
        let Some(running) = &mut side.running else { return Ok(()) };
        self.script.lock().unwrap().set_now(self.hands.now());
        side.kernel.borrow_mut().harvests = 0;
        let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready((result, shard)) = polled {
            result.map_err(|e| format!("the engine broke: {e}"))?;
            (side.running, side.done) = (None, Some(shard));
        }
        let mut denied: Vec<ListingId> = Vec::new();
        self.script.lock().unwrap().denied.retain(|(shard, listing)| {
            if *shard == index {
                denied.push(*listing);
            }
            *shard != index
        });
        let now = self.hands.now();
        side.streams.denied.extend(denied.iter().map(|listing| (now.mono, *listing)));
        let leaving = self.leaving_since.is_some();
        // It may just have gone on parking; else it has looked into its inbox first of all.
        let turned = side.kernel.borrow().harvests > 0;
        if turned {
            for update in side.unseen.iter_mut().flat_map(|unseen| unseen.drain(..)) {
                side.model.apply(&update, now.mono);
            }
        }
        let model = &side.model;
        let circumstances = Circumstances {
            model,
            denied: &denied,
            leaving,
            rest_deadline_ns: u64::try_from(REST_DEADLINE.as_nanos()).unwrap(),
            told_at: now.mono,
        };
        let log = std::mem::take(&mut side.kernel.borrow_mut().log);
        for entry in log {
            side.datagrams.note(&entry, Keys::shared(), &circumstances)?;
        }
        if turned {
            side.datagrams.check_waiting(now, &circumstances)?;
            check_books(&side.published.read())?;
        }
        Ok(())
    }

    fn clients_act(&mut self, hurry: bool) -> Result<(), String> {
        let now = self.hands.now().mono;
        for side in &mut self.sides {
            let circumstances = Circumstances {
                model: &side.model,
                denied: &[],
                leaving: self.leaving_since.is_some(),
                rest_deadline_ns: u64::try_from(REST_DEADLINE.as_nanos()).unwrap(),
                told_at: now,
            };
            let kernel = &mut side.kernel.borrow_mut();
            side.streams.act(&mut self.random, kernel, hurry, &LIMITS, now, &circumstances)?;
        }
        Ok(())
    }

    /// Moves the clock to the next instant at which something happens, or half-way.
    fn pass_time(&mut self, hurry: bool) {
        let now = self.hands.now().mono;
        let mut next = MonoNs(now.0 + 100_000_000);
        for side in &self.sides {
            let kernel = side.kernel.borrow();
            let until = kernel.parked_until.into_iter().chain(kernel.next_due());
            next = until.fold(next, MonoNs::min);
        }
        let wait = usize::try_from(next.0.saturating_sub(now.0)).unwrap();
        let wait = match self.random.below(100) {
            _ if hurry => wait.max(10_000_000),
            0..30 => self.random.below(wait + 1),
            // The machine was busy elsewhere.
            30..35 => self.random.below(PAUSE_NS_MAX),
            _ => wait,
        };
        self.hands.advance(Duration::from_nanos(wait as u64 + 1_000));
    }

    /// The faults stop, the feed falls silent, everybody finishes.
    fn come_to_rest(&mut self) -> Result<(), String> {
        for side in &self.sides {
            side.kernel.borrow_mut().faults.stop();
        }
        self.script.lock().unwrap().rest_works = self.random.chance(500);
        let since = self.hands.now().mono;
        loop {
            self.script.lock().unwrap().set_now(self.hands.now());
            self.script.lock().unwrap().rest_says(&mut self.rest);
            self.step(true)?;
            let lasted = self.hands.now().mono.since(since);
            let open: usize = self.sides.iter().map(|side| side.streams.open()).sum();
            let waiting: u64 = self.sides.iter().map(|side| waiting(&side.published.read())).sum();
            let unseen = self.sides.iter().flat_map(|side| &side.unseen).any(|unseen| !unseen.is_empty());
            if lasted > REST_MAX || (lasted > REST_MIN && open == 0 && waiting == 0 && !unseen) {
                break;
            }
        }
        for side in &self.sides {
            side.streams.check_end(self.hands.now().mono)?;
            side.datagrams.check_end(false, &[])?;
            let waiting = waiting(&side.published.read());
            if waiting > 0 {
                return Err(format!("{waiting} requests wait after all has come to rest"));
            }
        }
        Ok(())
    }

    /// What every shard was told comes to the newest that was said.
    fn check_boards(&self) -> Result<(), String> {
        let truth = &self.script.lock().unwrap().truth;
        for (number, side) in self.sides.iter().enumerate() {
            for (index, row) in truth.rows.iter().enumerate() {
                let held = side.model.rows[index].held;
                // Who said it is left open where the feed and REST tell of the same trade.
                let newest = |quote: Quote| (quote.key, quote.price.text().as_str().to_owned());
                if held.map(newest) != row.held.map(newest) {
                    return Err(format!("shard {number} was told {held:?} in the end, not {:?}", row.held));
                }
                let (told, said) = (side.model.fresh_until(index), truth.fresh_until(index));
                // Small steps of a living connection are not worth a message.
                if told > said || said.0 - told.0 >= 100_000_000 {
                    return Err(format!("shard {number}, {row:?}: fresh until {told:?}, not {said:?}"));
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), String> {
        let since = self.hands.now().mono;
        self.leaving_since = Some(since);
        for side in &self.sides {
            let _ = side.control.send(Control::Stop);
        }
        while self.sides.iter().any(|side| side.running.is_some()) {
            self.step(false)?;
            let lasted = self.hands.now().mono.since(since);
            if lasted > DRAIN + JUMPS_MAX {
                return Err(format!("leaving takes {lasted:?}"));
            }
        }
        Ok(())
    }

    fn check_end(mut self) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for (number, side) in self.sides.iter_mut().enumerate() {
            let shard = side.done.take().expect("it has left");
            side.datagrams.check_end(true, &side.kernel.borrow().failing())?;
            let lent = side.kernel.borrow().in_use();
            if lent > 0 {
                return Err(format!("shard {number} has kept {lent} buffers"));
            }
            let counters = side.published.read();
            check_books(&counters)?;
            let value = |counter| counters.value(counter);
            for (counter, expected) in [
                (Counter::UdpWaiting, 0),
                (Counter::HttpWaiting, 0),
                (Counter::UdpReceived, side.datagrams.taken),
                (Counter::SendFailed, side.datagrams.lost),
                (Counter::KernelDropped, side.datagrams.dropped),
            ] {
                if value(counter) != expected {
                    return Err(format!("shard {number}: {counter:?} is {}, not {expected}", value(counter)));
                }
            }
            if !self.early {
                for (index, row) in side.model.rows.iter().enumerate() {
                    let id = ListingId::new(index).unwrap();
                    let board = shard.answerer().board();
                    if board.quote(id) != row.held.as_ref()
                        || board.fresh_until(id) != side.model.fresh_until(index)
                    {
                        return Err(format!("shard {number} holds {:?}, not {row:?}", board.quote(id)));
                    }
                }
            }
            tally += Tally {
                delivered: side.datagrams.delivered,
                lost: side.datagrams.lost,
                http_answered: side.streams.answered,
                short_sends: value(Counter::SendShort),
                no_buffers: value(Counter::ReceiveNoBuffers),
                overruns: self.rest.overruns,
                waited: side.datagrams.waited,
            };
        }
        Ok(tally)
    }
}

fn waiting(counters: &Counters) -> u64 {
    counters.value(Counter::UdpWaiting) + counters.value(Counter::HttpWaiting)
}

/// received = answered + Σ refused + waiting, for both transports.
fn check_books(counters: &Counters) -> Result<(), String> {
    type Books = (&'static str, Vec<Counter>, Vec<Counter>);
    static SIDES: OnceLock<Vec<Books>> = OnceLock::new();
    let sides = SIDES.get_or_init(|| {
        let of = |transport: &str, names: &[&str]| -> Vec<Counter> {
            let of = |c: &Counter| names.contains(&c.metric().0) && c.metric().1.contains(transport);
            Counter::ALL.iter().copied().filter(of).collect()
        };
        let ends = ["request_answered", "request_refused", "request_waiting"];
        let side = |transport| (transport, of(transport, &["request_received"]), of(transport, &ends));
        vec![side("transport=\"udp\""), side("transport=\"http\"")]
    });
    for (transport, received, ended) in sides {
        let sum = |of: &[Counter]| -> u64 { of.iter().map(|c| counters.value(*c)).sum() };
        let (received, ended) = (sum(received), sum(ended));
        if received != ended {
            return Err(format!("{transport}: {received} received, {ended} accounted for"));
        }
    }
    Ok(())
}

/// A seed's own mixture of what goes wrong.
fn faults(random: &mut Random) -> Faults {
    let mut some = |most: usize| -> u16 {
        if random.chance(400) { u16::try_from(random.below(most)).unwrap() } else { 0 }
    };
    let mut faults = Faults {
        short_send: some(600),
        eagain: some(300),
        send_error: some(150),
        send_failed_late: some(100),
        enobufs: some(100),
        multishot_ended: some(100),
        receive_error: some(50),
        truncated: some(30),
        partial_tcp_read: some(900),
        short_tcp_send: some(900),
        tcp_send_error: some(30),
        tcp_receive_error: some(30),
        accept_ended: some(500),
        early_wake: some(300),
        ..Faults::none()
    };
    if random.chance(50) {
        faults.accept_ended = 1_000;
    }
    faults.late_ns_max = *random.pick(&[1, 500_000, 20_000_000]);
    faults.udp_buffers = *random.pick(&[2, 8, 64, 200]);
    faults.stream_buffers = *random.pick(&[1, 4, 32]);
    faults.connections_max = *random.pick(&[3, 8, 32]);
    faults.socket_len = *random.pick(&[5, 500]);
    faults
}
