//! The shard's loop: drain the links, harvest, answer, send, keep house, park.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::answer::{Answerer, Attempt, Verdict};
use super::conns::Conns;
use super::counters::{Counter, Published};
use super::guest::Arrival;
use super::links::{Inbox, Publisher};
use super::waiting::{Waiter, Waiting, Who};
use crate::account::KeyTable;
use crate::engine::{ConnId, Datagram, Ended, Engine, Event, ListenerIndex, UdpIndex};
use crate::limits::{RECV_BATCH_LEN, UDP_PAYLOAD_MAX};
use crate::price::{AssetId, ListingId};
use crate::time::{Clock, MonoNs, Now};

/// How a shard behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// UDP sockets and TCP listeners its engine was given.
    pub udp: u8,
    /// TCP listeners its engine was given.
    pub tcp: u8,
    /// How long to look for work before parking.
    pub spin: Duration,
    /// How long a request may wait for a REST price.
    pub rest_deadline: Duration,
    /// Silence after which a kept-alive connection is closed.
    pub http_idle: Duration,
    /// Time within which a head must be complete.
    pub http_head: Duration,
    /// How long leaving may take.
    pub drain: Duration,
}

/// What a shard is told from outside.
pub enum Control {
    /// New keys.
    Keys(Box<KeyTable>),
    /// A connection to look after.
    Guest(Arrival),
    /// Take datagrams and connections, where the shard does not yet or no longer.
    Open,
    /// Leave datagrams and connections to another process that has the same sockets; go on with the
    /// connections there are, each until its next answer.
    Drain,
    /// Finish what is in flight and leave.
    Stop,
}

/// One shard without its engine and clock.
pub struct Shard {
    pub(super) answerer: Answerer,
    pub(super) publisher: Publisher,
    pub(super) conns: Conns,
    pub(super) waiting: Waiting,
    pub(super) options: Options,
    inbox: Inbox,
    control: Receiver<Control>,
    published: Arc<Published>,
    /// What those who wait have to be told; empty between turns.
    settled: Vec<News>,
    /// Sockets and listeners to arm again when buffers are back.
    pub(super) rearm: Vec<Rearm>,
    /// Listeners that are not armed because files or memory have run out.
    pub(super) refused_accepts: Vec<ListenerIndex>,
    /// Connections that something is due for; empty between turns.
    pub(super) due: Vec<ConnId>,
    late_room: Box<[u8; UDP_PAYLOAD_MAX]>,
    pub(super) house_at: MonoNs,
    fresh_at: MonoNs,
    pub(super) sweep_at: MonoNs,
    pub(super) leaving: Option<MonoNs>,
    /// Takes datagrams and connections.
    pub(super) open: bool,
    /// Which sockets are armed, or disarmed and not over yet.
    pub(super) udp_armed: Vec<bool>,
}

/// What has to be armed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rearm {
    Udp(UdpIndex),
    Accept(ListenerIndex),
    Receive(ConnId),
}

/// What a request may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// A listing of this asset was priced or confirmed.
    Price(AssetId),
    /// REST had no price for this listing.
    Failed(ListingId),
}

/// Whether something ended for want of what will not be there a moment later: files, memory.
pub(super) fn out_of_room(ended: Ended) -> bool {
    matches!(ended, Ended::Error(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// How often the house is kept: counters published, messages read, deadlines looked at.
const HOUSE_NS: u64 = 20_000_000;

/// How often fresh assets are counted.
const FRESH_NS: u64 = 100_000_000;

/// How long an idle shard parks at most, so that links are drained and keys revoked in time.
const PARK_NS: u64 = 100_000_000;

/// How long it parks while requests wait for REST or answers for a full socket.
const PARK_BUSY_NS: u64 = 1_000_000;

impl Shard {
    /// A shard that is ready to run.
    #[must_use]
    pub fn new(
        answerer: Answerer,
        publisher: Publisher,
        inbox: Inbox,
        control: Receiver<Control>,
        published: Arc<Published>,
        options: Options,
    ) -> Self {
        Self {
            answerer,
            publisher,
            conns: Conns::default(),
            waiting: Waiting::default(),
            options,
            inbox,
            control,
            published,
            settled: Vec::new(),
            rearm: Vec::new(),
            refused_accepts: Vec::new(),
            due: Vec::new(),
            late_room: Box::new([0; UDP_PAYLOAD_MAX]),
            house_at: MonoNs(0),
            fresh_at: MonoNs(0),
            sweep_at: MonoNs(0),
            leaving: None,
            open: true,
            udp_armed: Vec::new(),
        }
    }

    /// Takes nothing until it is told [`Control::Open`]: prices come before requests.
    #[must_use]
    pub fn held(self) -> Self {
        Self { open: false, ..self }
    }

    /// What the shard knows and has counted.
    #[must_use]
    pub fn answerer(&self) -> &Answerer {
        &self.answerer
    }

    /// Answers until told to stop.
    ///
    /// # Errors
    /// When the engine is broken.
    pub async fn run<E: Engine, C: Clock>(&mut self, engine: &mut E, clock: &C) -> io::Result<()> {
        let mut events = Vec::with_capacity(4 * RECV_BATCH_LEN);
        self.start(engine);
        let mut busy_at = clock.now().mono;
        loop {
            let now = clock.now();
            let busy = self.turn(engine, now, &mut events)?;
            if self.finished(engine, now, busy) {
                self.leave(engine, now);
                return Ok(());
            }
            if busy {
                busy_at = now.mono;
            } else if now.mono.since(busy_at) >= self.options.spin {
                self.answerer.counters.add(Counter::Parked, 1);
                engine.park(self.park_until(engine, now)).await?;
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// One turn. Returns whether there was anything to do.
    ///
    /// # Errors
    /// When the engine is broken.
    pub(super) fn turn<E: Engine>(
        &mut self,
        engine: &mut E,
        now: Now,
        events: &mut Vec<Event>,
    ) -> io::Result<bool> {
        self.drain_links(engine, now);
        let room = self.room(engine);
        engine.harvest(room, events)?;
        let busy = !events.is_empty();
        for event in events.drain(..) {
            self.take(engine, now, event);
        }
        for index in 0..self.options.udp {
            self.send(engine, UdpIndex(index));
        }
        let stuck = self.stuck(engine);
        let mut at = 0;
        while let Some(rearm) = self.rearm.get(at).copied() {
            // Buffers may lie under answers that a full socket has left: armed now it would end at
            // once, and the loop would spin until the socket has room.
            if stuck && matches!(rearm, Rearm::Udp(_)) {
                at += 1;
                continue;
            }
            self.rearm.swap_remove(at);
            match rearm {
                Rearm::Udp(socket) => self.arm_udp(engine, socket),
                Rearm::Accept(listener) => self.rearm_accept(engine, listener),
                Rearm::Receive(conn) => engine.arm_receive(conn),
            }
        }
        self.answerer.counters.add(Counter::Turn, 1);
        if now.mono >= self.house_at {
            self.keep_house(engine, now);
        }
        Ok(busy)
    }

    /// How many datagrams can be answered now: answers that a full socket has left behind take
    /// their room.
    fn room<E: Engine>(&self, engine: &E) -> usize {
        let queued = (0..self.options.udp).map(|index| engine.queued(UdpIndex(index))).max().unwrap_or(0);
        RECV_BATCH_LEN.saturating_sub(queued)
    }

    fn take<E: Engine>(&mut self, engine: &mut E, now: Now, event: Event) {
        match event {
            Event::Datagram(datagram) => self.answer(engine, now, datagram),
            Event::SendFailed(..) => self.answerer.counters.add(Counter::SendFailed, 1),
            Event::UdpEnded(socket, ended) => self.udp_ended(socket, ended),
            Event::Accepted(listener, conn) => self.accepted(engine, now, listener, conn),
            Event::AcceptEnded(listener, ended) => self.accept_ended(listener, ended),
            Event::Received(conn, buffer) => self.received(engine, now, conn, buffer),
            Event::ReceiveEnded(conn, ended) => self.receive_ended(engine, now, conn, ended),
            Event::Sent(conn, bytes, result) => self.sent(engine, now, conn, bytes, result),
        }
    }

    pub(super) fn count_ended(&mut self, ended: Ended) {
        let counter = match ended {
            Ended::NoBuffers => Counter::ReceiveNoBuffers,
            _ => Counter::ReceiveEnded,
        };
        self.answerer.counters.add(counter, 1);
    }

    #[inline]
    fn answer<E: Engine>(&mut self, engine: &mut E, now: Now, datagram: Datagram) {
        let peer = engine.peer(&datagram);
        let (request, room) = engine.view(&datagram);
        let verdict =
            self.answerer.datagram(now, peer.ip(), request, datagram.truncated, room, Attempt::First);
        match verdict {
            Verdict::Send(len) => engine.queue(datagram, len),
            Verdict::Silent => engine.release(datagram.buffer),
            Verdict::Wait(listing) if self.waiting.has_room() => {
                let request = request.to_vec();
                let local = engine.local(&datagram);
                let who = Who::Datagram { socket: datagram.socket, peer, local, request };
                let deadline = now.mono.plus(self.options.rest_deadline);
                self.wait(listing, deadline, who);
                engine.release(datagram.buffer);
            }
            Verdict::Wait(_) => match self.answerer.no_room_to_wait(now, peer.ip(), request, room) {
                Verdict::Send(len) => engine.queue(datagram, len),
                Verdict::Silent | Verdict::Wait(_) => engine.release(datagram.buffer),
            },
        }
    }

    /// Sends what is queued on a socket. A short send goes on behind what was taken, an answer that
    /// cannot be sent is given up and counted, a full socket is left to the next turn.
    fn send<E: Engine>(&mut self, engine: &mut E, socket: UdpIndex) {
        let mut queued = engine.queued(socket);
        while queued > 0 {
            match engine.send(socket) {
                Ok(sent) if sent < queued => {
                    self.answerer.counters.add(Counter::SendShort, 1);
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.answerer.counters.add(Counter::SendFailed, 1);
                    engine.skip(socket);
                }
            }
            queued = engine.queued(socket);
        }
    }

    fn drain_links<E: Engine>(&mut self, engine: &mut E, now: Now) {
        if self.waiting.is_empty() {
            return self.answerer.drain(&self.inbox, now.mono, |_, _| {});
        }
        let catalogue = Arc::clone(self.answerer.catalogue());
        let (settled, waiting) = (&mut self.settled, &self.waiting);
        self.answerer.drain(&self.inbox, now.mono, |listing, found| {
            // A price of any listing of the asset may help; a failure concerns its own listing.
            let asset = catalogue.listing(listing).asset;
            let news = if found { News::Price(asset) } else { News::Failed(listing) };
            if waiting.is_for(asset) && !settled.contains(&news) {
                settled.push(news);
            }
        });
        if self.settled.is_empty() {
            return;
        }
        let mut settled = std::mem::take(&mut self.settled);
        let concerns = |w: &Waiter| {
            settled.contains(&News::Price(w.asset)) || settled.contains(&News::Failed(w.listing))
        };
        // Who waits for several assets may hope for the others after a failure, so none is the last.
        for waiter in self.waiting.take(concerns) {
            self.wake(engine, now, waiter, Attempt::Again);
        }
        settled.clear();
        self.settled = settled;
    }

    /// Lets a request wait, for which there must be room.
    pub(super) fn wait(&mut self, listing: ListingId, deadline: MonoNs, who: Who) {
        let asset = self.answerer.catalogue().listing(listing).asset;
        self.waiting.add(Waiter { listing, asset, deadline, who });
    }

    /// Asks again for a request that has waited.
    pub(super) fn wake<E: Engine>(&mut self, engine: &mut E, now: Now, waiter: Waiter, attempt: Attempt) {
        let deadline = waiter.deadline;
        let waits_max = u64::try_from(self.options.rest_deadline.as_nanos()).unwrap_or(u64::MAX);
        self.answerer.waited_since(MonoNs(deadline.0.saturating_sub(waits_max)));
        match waiter.who {
            Who::Conn(conn) => self.wake_conn(engine, now, conn, attempt, deadline),
            Who::Datagram { socket, peer, local, request } => {
                let room = &mut self.late_room[..];
                let mut verdict = self.answerer.datagram(now, peer.ip(), &request, false, room, attempt);
                if let Verdict::Wait(listing) = verdict {
                    if self.waiting.has_room() {
                        return self.wait(listing, deadline, Who::Datagram { socket, peer, local, request });
                    }
                    verdict = self.answerer.no_room_to_wait(now, peer.ip(), &request, room);
                }
                if let Verdict::Send(len) = verdict
                    && engine.send_late(socket, peer, local, &self.late_room[..len]).is_err()
                {
                    self.answerer.counters.add(Counter::SendFailed, 1);
                }
            }
        }
    }

    pub(super) fn keep_house<E: Engine>(&mut self, engine: &mut E, now: Now) {
        self.house_at = MonoNs(now.mono.0.saturating_add(HOUSE_NS));
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Keys(keys) => drop(self.answerer.replace_keys(keys)),
                Control::Guest(arrival) => self.welcome(engine, now, arrival),
                Control::Open => self.open(engine),
                Control::Drain => self.drain(engine),
                Control::Stop => self.stop(engine, now),
            }
        }
        if self.waiting.deadline() <= now.mono {
            for waiter in self.waiting.take(|w| w.deadline <= now.mono) {
                self.wake(engine, now, waiter, Attempt::Last);
            }
        }
        self.tick_guests(engine, now);
        self.sweep(engine, now);
        self.publisher.settle();
        if now.mono >= self.fresh_at {
            self.fresh_at = MonoNs(now.mono.0.saturating_add(FRESH_NS));
            let fresh = self.answerer.fresh_count(now.mono) as u64;
            let listed = self.answerer.catalogue().assets().len() as u64;
            self.answerer.counters.set(Counter::AssetsFresh, fresh);
            self.answerer.counters.set(Counter::Assets, listed);
        }
        let drops = (0..self.options.udp).map(|i| engine.loss(UdpIndex(i)).dropped).sum();
        let (datagrams, conns) = self.waiting.counts();
        let receiving = self.udp_armed.iter().filter(|armed| **armed).count();
        let counters = &mut self.answerer.counters;
        counters.set(Counter::KernelDropped, drops);
        counters.set(Counter::SocketsReceiving, receiving as u64);
        counters.set(Counter::LinkOverrun, self.publisher.overruns);
        counters.set(Counter::UdpWaiting, datagrams as u64);
        counters.set(Counter::HttpWaiting, conns as u64);
        self.published.publish(counters);
    }

    /// Whether answers are left that a full socket did not take.
    pub(super) fn stuck<E: Engine>(&self, engine: &E) -> bool {
        (0..self.options.udp).any(|index| engine.queued(UdpIndex(index)) > 0)
    }

    fn park_until<E: Engine>(&self, engine: &E, now: Now) -> MonoNs {
        let busy =
            self.stuck(engine) || !self.waiting.is_empty() || self.leaving.is_some() || self.publisher.owes();
        MonoNs(now.mono.0.saturating_add(if busy { PARK_BUSY_NS } else { PARK_NS }))
    }
}
