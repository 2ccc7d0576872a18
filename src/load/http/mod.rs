//! The HTTP generator: kept-alive connections on one thread, spinning; one request under way on each,
//! or several where requests are pipelined.

mod answer;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};

pub use answer::Expect;
use answer::Parsed;
use peer::{Asked, Peer, State};

use super::cpu::thread_cpu;
use super::schedule::Schedule;
use super::step::{Share, StepPace, Stop};
use super::tally::{Broken, Tally};
use crate::time::{Clock, MonoNs, RealClock};

/// A request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpExchange {
    /// The whole request; not HEAD, whose answers look like others without their body.
    pub request: Vec<u8>,
    /// What the body of a 200 must be.
    pub expect: Expect,
}

/// How to load a server.
#[derive(Clone, Debug)]
pub struct HttpLoadOptions {
    /// Where it listens.
    pub server: SocketAddr,
    /// Where connections come from; the kernel's choice when `None`.
    pub source: Option<IpAddr>,
    /// Connections.
    pub connections: usize,
    /// Requests that may be under way on each; 1 without pipelining.
    pub pipeline: usize,
    /// A request without an answer for this long is given up.
    pub lost_after: Duration,
    /// How long connections may take to come up.
    pub connect_max: Duration,
    /// Ends a stretch early.
    pub stop: Stop,
}

impl HttpLoadOptions {
    /// 64 connections, one request under way on each, given up after a second.
    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            source: None,
            connections: 64,
            pipeline: 1,
            lost_after: Duration::from_secs(1),
            connect_max: Duration::from_secs(30),
            stop: Stop::new(),
        }
    }
}

/// A generator under way; see [`UdpLoad`](super::UdpLoad) for how stretches follow one another.
pub struct HttpLoad {
    exchanges: Vec<HttpExchange>,
    options: HttpLoadOptions,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    peers: Vec<Peer>,
    /// How many of the peers are in use, from the first.
    used: usize,
    /// Peers that may have room for a request, the one that waits longest first.
    free: VecDeque<usize>,
    /// Peers that are to be opened again.
    closed: VecDeque<usize>,
    schedule: Option<Schedule>,
    scheduled_told: u64,
    /// Requests that may still be sent.
    left: u64,
    /// Requests under way that have not been given up.
    waiting: usize,
    next_exchange: usize,
    /// When a request of the schedule last found no room to leave.
    blocked_at: MonoNs,
    sweep_at: usize,
    /// Bytes just read, and requests about to be written.
    room: Box<[u8]>,
    outgoing: Vec<u8>,
}

/// Readiness taken from the kernel at a time.
const EVENTS_LEN: usize = 256;

/// Connections that are asked in a turn before answers are looked at again: what has come meanwhile
/// would seem late.
const FEED_LEN: usize = 64;

/// Connections that are looked at for overdue requests in one turn.
const SWEEP_LEN: usize = 64;

/// Connections that are being opened at a time, so that a server's backlog is not flooded.
const OPENING_MAX: usize = 256;

/// How long to wait before a connection that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Bytes read at a time.
const READ_LEN: usize = 64 << 10;

impl HttpLoad {
    /// Connects. `exchanges` are asked in turn.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` when there is nothing to ask, `TimedOut` when not all connections
    /// come up in time.
    pub fn open(options: HttpLoadOptions, exchanges: Vec<HttpExchange>) -> io::Result<Self> {
        let (connections, pipeline) = (options.connections.max(1), options.pipeline.max(1));
        let mut load = Self::new(options, exchanges)?;
        load.use_peers(connections, |_| pipeline)?;
        Ok(load)
    }

    /// Without connections yet.
    pub(crate) fn new(options: HttpLoadOptions, exchanges: Vec<HttpExchange>) -> io::Result<Self> {
        if exchanges.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to ask, give one request"));
        }
        Ok(Self {
            exchanges,
            options,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); EVENTS_LEN],
            peers: Vec::new(),
            used: 0,
            free: VecDeque::new(),
            closed: VecDeque::new(),
            schedule: None,
            scheduled_told: 0,
            left: u64::MAX,
            waiting: 0,
            next_exchange: 0,
            blocked_at: MonoNs(0),
            sweep_at: 0,
            room: vec![0; READ_LEN].into(),
            outgoing: Vec::new(),
        })
    }

    /// Loads the server for `duration` and tells what became of it. Requests under way at the end
    /// stay so. A connection that the server closes is opened again, and its request counts as
    /// overdue.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&mut self, duration: Duration) -> io::Result<Tally> {
        self.left = u64::MAX;
        Ok(self.run_until(RealClock.now().mono.plus(duration))?)
    }

    /// Sends nothing more and waits until every request is answered or given up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(&mut self) -> io::Result<Tally> {
        self.schedule = None;
        Ok(self.settle()?)
    }

    /// Requests under way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting
    }

    /// Opens what a share needs. Nothing may be under way.
    pub(crate) fn prepare(&mut self, share: &Share) -> io::Result<()> {
        self.left = share.requests.unwrap_or(u64::MAX);
        let pipeline = self.options.pipeline.max(1);
        match share.pace {
            StepPace::Window(window) => {
                self.schedule = None;
                let window = usize::try_from(window).unwrap_or(usize::MAX);
                let peers = share.sockets.min(window);
                self.use_peers(peers, |peer| window / peers + usize::from(peer < window % peers))
            }
            StepPace::Rate(per_s) => {
                self.schedule = Some(Schedule::new(per_s, share.index, share.of));
                self.use_peers(share.sockets, |_| pipeline)
            }
        }
    }

    /// Opens connections until there are so many, gives each its depth, and waits until all are up.
    fn use_peers(&mut self, count: usize, depth: impl Fn(usize) -> usize) -> io::Result<()> {
        self.free.clear();
        self.closed.clear();
        self.waiting = 0;
        self.used = count;
        let deadline = RealClock.now().mono.plus(self.options.connect_max);
        let (mut begun, mut up, mut last_error) = (0, 0, None);
        while up < count {
            while begun < count && begun - up < OPENING_MAX {
                self.reset(begun)?;
                up += usize::from(self.peers[begun].state == State::Open);
                begun += 1;
            }
            let ready = self.epoll.wait(&mut self.events, EpollTimeout::from(10_u8))?;
            for event in 0..ready {
                let index = usize::try_from(self.events[event].data()).unwrap_or(usize::MAX);
                let Some(peer) = self.peers.get_mut(index) else { continue };
                if peer.state != State::Connecting {
                    continue;
                }
                match peer.connected(&self.epoll, index) {
                    Ok(()) => up += 1,
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Err(e),
                    Err(e) => {
                        self.peers[index] = self.connect(index)?;
                        last_error = Some(e);
                    }
                }
            }
            if RealClock.now().mono > deadline {
                let why = last_error.map_or_else(String::new, |e| format!("; the last one said: {e}"));
                let what = format!(
                    "{up} of {count} connections came up in {} s{why}",
                    self.options.connect_max.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            if self.options.stop.told() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped while connecting"));
            }
        }
        for index in 0..count {
            self.peers[index].depth = depth(index).max(1);
            self.peers[index].listed = true;
            self.free.push_back(index);
        }
        Ok(())
    }

    /// Makes a connection fit for a new step: a new one, or one that owes nothing.
    fn reset(&mut self, index: usize) -> io::Result<()> {
        if index == self.peers.len() {
            let peer = self.connect(index)?;
            self.peers.push(peer);
        } else if self.peers[index].state != State::Open || !self.peers[index].asked.is_empty() {
            self.peers[index] = self.connect(index)?;
        }
        Ok(())
    }

    fn connect(&self, index: usize) -> io::Result<Peer> {
        Peer::connect(self.options.server, self.options.source, &self.epoll, index)
    }

    /// Begins the schedule of an open loop; no request of it is to leave from `end` on.
    pub(crate) fn begin(&mut self, start: MonoNs, end: MonoNs) {
        self.scheduled_told = 0;
        if let Some(schedule) = &mut self.schedule {
            schedule.begin(start, end);
        }
    }

    /// Loads the server until `end`, or until all that was to be sent is sent and answered.
    pub(crate) fn run_until(&mut self, end: MonoNs) -> Result<Tally, Broken> {
        self.stretch(end, false)
    }

    /// Waits until every request is answered or given up. What a schedule still owes leaves late.
    pub(crate) fn settle(&mut self) -> Result<Tally, Broken> {
        let now = RealClock.now().mono;
        match &mut self.schedule {
            Some(schedule) => schedule.cut(now),
            None => self.left = 0,
        }
        let mut tally = self.stretch(now.plus(self.options.lost_after * 3 / 2), true)?;
        self.give_up(&mut tally);
        Ok(tally)
    }

    /// Gives up all that is under way.
    fn give_up(&mut self, tally: &mut Tally) {
        for peer in &mut self.peers {
            for asked in peer.asked.iter_mut().filter(|asked| !asked.overdue) {
                asked.overdue = true;
                tally.overdue += 1;
            }
        }
        self.waiting = 0;
    }

    /// Whether all that was to be sent is sent and answered.
    pub(crate) fn is_done(&self, now: MonoNs, settling: bool) -> bool {
        let nothing_to_send = match &self.schedule {
            None => self.left == 0,
            Some(schedule) => settling && schedule.due(now) == 0,
        };
        nothing_to_send && self.waiting == 0
    }

    fn stretch(&mut self, end: MonoNs, settling: bool) -> Result<Tally, Broken> {
        let mut tally = Tally::new();
        let cpu = thread_cpu();
        let start = RealClock.now().mono;
        let ended = self.turns(start, end, settling, &mut tally);
        let now = *ended.as_ref().unwrap_or(&RealClock.now().mono);
        if let Some(schedule) = &self.schedule {
            let scheduled = schedule.scheduled(now);
            tally.scheduled += scheduled.saturating_sub(self.scheduled_told);
            self.scheduled_told = self.scheduled_told.max(scheduled);
        }
        tally.elapsed = now.since(start);
        tally.cpu = thread_cpu().saturating_sub(cpu);
        ended.map_err(|error| {
            self.give_up(&mut tally);
            Broken { tally: Box::new(tally.clone()), error }
        })?;
        Ok(tally)
    }

    /// Takes turns at all connections, until when it returns.
    fn turns(&mut self, start: MonoNs, end: MonoNs, settling: bool, tally: &mut Tally) -> io::Result<MonoNs> {
        let mut now = start;
        while now < end && !self.is_done(now, settling) && (settling || !self.options.stop.told()) {
            let sent_before = tally.sent;
            let ready = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
            let arrived = RealClock.now().mono;
            for event in 0..ready {
                let (index, flags) = (self.events[event].data(), self.events[event].events());
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                if index < self.used {
                    self.attend(index, flags, arrived, tally);
                }
            }
            self.feed(tally);
            self.reopen(arrived);
            self.sweep(arrived, tally);
            let turn_start = std::mem::replace(&mut now, RealClock.now().mono);
            if ready == 0 && tally.sent == sent_before {
                tally.idle += now.since(turn_start);
            }
        }
        Ok(now)
    }

    /// Something happened on a connection.
    fn attend(&mut self, index: usize, flags: EpollFlags, now: MonoNs, tally: &mut Tally) {
        let peer = &mut self.peers[index];
        let result = match peer.state {
            State::Closed(_) => Ok(true),
            State::Connecting => peer.connected(&self.epoll, index).map(|()| true),
            State::Open => {
                let flushed = if flags.contains(EpollFlags::EPOLLOUT) {
                    peer.flush(&self.epoll, index)
                } else {
                    Ok(())
                };
                let readable = flags.intersects(!EpollFlags::EPOLLOUT);
                flushed.and_then(|()| if readable { self.read(index, now, tally) } else { Ok(true) })
            }
        };
        match result {
            Ok(true) => self.list(index),
            Ok(false) => self.close(index, now, tally),
            Err(e) => {
                tally.port_closed += u64::from(e.kind() == io::ErrorKind::ConnectionRefused);
                self.close(index, now, tally);
            }
        }
    }

    /// Reads what there is; returns whether the connection goes on.
    fn read(&mut self, index: usize, now: MonoNs, tally: &mut Tally) -> io::Result<bool> {
        let peer = &mut self.peers[index];
        let len = match peer.stream.read(&mut self.room) {
            Ok(0) => return Ok(false),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e),
        };
        let mut kept = std::mem::take(&mut peer.input);
        let bytes = if kept.is_empty() {
            &self.room[..len]
        } else {
            kept.extend_from_slice(&self.room[..len]);
            &kept[..]
        };
        let (mut at, mut goes_on) = (0, true);
        while goes_on && at < bytes.len() {
            let (status, body, len, closes) = match answer::parse(&bytes[at..]) {
                Parsed::Incomplete => break,
                Parsed::Answer { status, body, len, closes } => (status, body, len, closes),
                Parsed::Broken => {
                    match peer.asked.pop_front() {
                        Some(Asked { overdue: false, .. }) => {
                            self.waiting -= 1;
                            tally.wrong += 1;
                        }
                        _ => tally.stray += 1,
                    }
                    return Ok(false);
                }
            };
            at += len;
            goes_on = !closes;
            let Some(asked) = peer.asked.pop_front() else {
                tally.stray += 1;
                continue;
            };
            *tally.statuses.entry(status).or_default() += 1;
            if asked.overdue {
                tally.late += 1;
                continue;
            }
            self.waiting -= 1;
            let right = self.exchanges[asked.exchange].expect.holds(body);
            match status {
                200 if right => {
                    tally.matched += 1;
                    tally.answer_bytes += len as u64;
                    tally.record_latency(now.since(asked.from));
                }
                200 => tally.wrong += 1,
                _ => *tally.refused_by_status.entry(status).or_default() += 1,
            }
        }
        if at < bytes.len() {
            peer.input = bytes[at..].to_vec();
        }
        Ok(goes_on)
    }

    /// Puts a connection with room into the list, unless it stands there.
    fn list(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if !peer.listed && peer.room() > 0 {
            peer.listed = true;
            self.free.push_back(index);
        }
    }

    fn close(&mut self, index: usize, now: MonoNs, tally: &mut Tally) {
        let peer = &mut self.peers[index];
        let again_at = match peer.state {
            // It worked until now: at once.
            State::Open => {
                tally.reconnected += 1;
                now
            }
            State::Connecting | State::Closed(_) => now.plus(AGAIN_AFTER),
        };
        let under_way = peer.asked.iter().filter(|asked| !asked.overdue).count();
        self.waiting -= under_way;
        tally.overdue += under_way as u64;
        peer.asked.clear();
        peer.state = State::Closed(again_at);
        // The kernel would tell of it again and again.
        let _gone = self.epoll.delete(&peer.stream);
        let _gone = peer.stream.shutdown(std::net::Shutdown::Both);
        self.closed.push_back(index);
    }

    /// Opens again what was closed, when its time has come.
    fn reopen(&mut self, now: MonoNs) {
        for _ in 0..self.closed.len().min(OPENING_MAX) {
            let Some(index) = self.closed.pop_front() else { return };
            let due = matches!(self.peers[index].state, State::Closed(again_at) if again_at <= now);
            match if due { self.connect(index) } else { Err(io::ErrorKind::WouldBlock.into()) } {
                Ok(fresh) => {
                    let Peer { depth, listed, .. } = self.peers[index];
                    self.peers[index] = Peer { depth, listed, ..fresh };
                }
                Err(_) => {
                    if due {
                        self.peers[index].state = State::Closed(now.plus(AGAIN_AFTER));
                    }
                    self.closed.push_back(index);
                }
            }
        }
    }

    /// Sends what is due, or what the window allows.
    fn feed(&mut self, tally: &mut Tally) {
        for _ in 0..FEED_LEN {
            let now = RealClock.now().mono;
            let due = self.schedule.as_ref().map_or(u64::MAX, |schedule| schedule.due(now)).min(self.left);
            if due == 0 {
                return;
            }
            let Some(index) = self.free.pop_front() else {
                if self.schedule.is_some() {
                    self.blocked_at = now;
                }
                return;
            };
            let peer = &mut self.peers[index];
            peer.listed = false;
            // An open loop takes one request to each connection in turn, a closed one fills it up.
            let most = if self.schedule.is_some() { 1 } else { peer.room() as u64 };
            let count = most.min(due).min(peer.room() as u64);
            self.outgoing.clear();
            for _ in 0..count {
                let from = match &mut self.schedule {
                    None => now,
                    Some(schedule) => {
                        let from = schedule.take();
                        tally.record_lag(now.since(from.max(self.blocked_at)));
                        from
                    }
                };
                let exchange = self.next_exchange;
                self.next_exchange = (exchange + 1) % self.exchanges.len();
                self.outgoing.extend_from_slice(&self.exchanges[exchange].request);
                peer.asked.push_back(Asked { from, sent: now, exchange, overdue: false });
            }
            if count == 0 {
                continue;
            }
            self.left -= count;
            tally.sent += count;
            self.waiting += usize::try_from(count).unwrap_or(0);
            if peer.write(&self.outgoing, &self.epoll, index).is_err() {
                // The server has closed meanwhile: what it was asked is lost with the connection.
                tally.send_failed += count;
                self.close(index, now, tally);
            } else {
                self.list(index);
            }
        }
    }

    /// Gives up requests that have waited too long, on the next few connections. One whose oldest
    /// request has waited as long again is opened anew: what is asked on it would wait behind that.
    fn sweep(&mut self, now: MonoNs, tally: &mut Tally) {
        for _ in 0..SWEEP_LEN.min(self.used) {
            self.sweep_at = (self.sweep_at + 1) % self.used;
            let oldest = self.peers[self.sweep_at].asked.front();
            if oldest.is_some_and(|asked| now.since(asked.sent) > self.options.lost_after * 2) {
                self.close(self.sweep_at, now, tally);
                continue;
            }
            for asked in &mut self.peers[self.sweep_at].asked {
                if now.since(asked.from) <= self.options.lost_after {
                    break;
                }
                if !asked.overdue {
                    asked.overdue = true;
                    tally.overdue += 1;
                    self.waiting -= 1;
                }
            }
        }
    }
}
