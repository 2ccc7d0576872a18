//! The scripted kernel: datagrams, buffers, what is late; and the log a test judges by.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use super::random::Random;
use super::streams::Streams;
use crate::engine::{BufferId, ConnId, Datagram, Ended, Event, ListenerIndex, UdpIndex};
use crate::time::{Clock as _, MonoNs, Now, ScriptedClock};

/// How often what goes wrong, per mille, and how much there is of what can run out.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// A send takes only the first few answers.
    pub(crate) short_send: u16,
    /// The socket is full for a while.
    pub(crate) eagain: u16,
    /// The oldest answer cannot be sent at all.
    pub(crate) send_error: u16,
    /// An answer that was taken fails afterwards, as entries of a ring do.
    pub(crate) send_failed_late: u16,
    /// A receive ends for want of buffers although some are there.
    pub(crate) enobufs: u16,
    /// A receive ends for no reason.
    pub(crate) multishot_ended: u16,
    /// A receive of datagrams ends with an error.
    pub(crate) receive_error: u16,
    /// A datagram is longer than its buffer.
    pub(crate) truncated: u16,
    /// A stream hands out only part of what is there.
    pub(crate) partial_tcp_read: u16,
    /// A stream takes only part of what it is given.
    pub(crate) short_tcp_send: u16,
    /// A send on a stream fails and the connection with it.
    pub(crate) tcp_send_error: u16,
    /// A connection breaks while it is read.
    pub(crate) tcp_receive_error: u16,
    /// An accept ends: a newcomer has gone, or there are too many files; always the latter at 1,000.
    pub(crate) accept_ended: u16,
    /// Parking ends for no reason.
    pub(crate) early_wake: u16,
    /// How late an event may be, in nanoseconds.
    pub(crate) late_ns_max: usize,
    /// Buffers for datagrams.
    pub(crate) udp_buffers: usize,
    /// Buffers for streams.
    pub(crate) stream_buffers: usize,
    /// Connections at a time.
    pub(crate) connections_max: usize,
    /// Datagrams a socket holds before it drops.
    pub(crate) socket_len: usize,
}

impl Faults {
    /// Nothing goes wrong any more; what there is stays.
    pub(crate) fn stop(&mut self) {
        let Self { udp_buffers, stream_buffers, connections_max, socket_len, .. } = *self;
        *self = Self { udp_buffers, stream_buffers, connections_max, socket_len, ..Self::none() };
    }

    /// A kernel without faults.
    pub(crate) fn none() -> Self {
        Self {
            short_send: 0,
            eagain: 0,
            send_error: 0,
            send_failed_late: 0,
            enobufs: 0,
            multishot_ended: 0,
            receive_error: 0,
            truncated: 0,
            partial_tcp_read: 0,
            short_tcp_send: 0,
            tcp_send_error: 0,
            tcp_receive_error: 0,
            accept_ended: 0,
            early_wake: 0,
            late_ns_max: 1,
            udp_buffers: 128,
            stream_buffers: 64,
            connections_max: 64,
            socket_len: 1_000,
        }
    }
}

/// What happened, in order, each at the turn's own time.
#[derive(Debug)]
pub(crate) enum Log {
    /// The shard took a datagram, maybe only its beginning.
    Harvested { peer: SocketAddr, now: Now, truncated: bool },
    /// A socket that was full dropped one.
    Dropped(SocketAddr),
    /// The shard gave an answer to be sent; `late` when its request had waited.
    Answered { peer: SocketAddr, bytes: Vec<u8>, now: Now, late: bool },
    /// The shard gave a datagram's buffer back without answering yet.
    Released(SocketAddr),
    /// A client has got an answer.
    Delivered(SocketAddr, Vec<u8>),
    /// An answer was given up or failed.
    Lost(SocketAddr),
}

/// What has been asked for and goes on until it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arming {
    #[default]
    Idle,
    Armed,
    /// Cancelled and not yet over.
    Ending {
        again: bool,
    },
}

/// What happens at a later time.
#[derive(Debug)]
pub(super) enum Late {
    Datagram(UdpIndex, SocketAddr, Vec<u8>),
    SendFailed(UdpIndex, SocketAddr),
    /// A send on a stream makes progress.
    Stream(ConnId),
    ReceiveCancelled(ConnId),
    AcceptCancelled(ListenerIndex),
    UdpCancelled(UdpIndex),
}

#[derive(Debug, Default)]
struct Socket {
    armed: bool,
    /// Cancelled, and that is not over yet.
    ending: bool,
    /// In the socket, not yet in a buffer.
    held: VecDeque<(SocketAddr, Vec<u8>)>,
    answers: VecDeque<(SocketAddr, BufferId, Vec<u8>)>,
    full_until: MonoNs,
    /// The last send found it full.
    was_full: bool,
    dropped: u64,
}

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    /// Filled, waiting to be harvested.
    Filled,
    Lent,
    /// Under an answer that is queued.
    Queued,
}

/// Everything behind one shard's seam.
pub(crate) struct Kernel {
    pub(crate) faults: Faults,
    pub(crate) clock: ScriptedClock,
    pub(crate) log: Vec<Log>,
    /// Set while the shard parks.
    pub(crate) parked_until: Option<MonoNs>,
    /// Harvests since the test last looked: a loop that never comes to rest is a fault.
    pub(crate) harvests: u32,
    pub(super) random: Random,
    pub(super) streams: Streams,
    pub(super) ready: VecDeque<Event>,
    /// Bytes of filled buffers that are not harvested yet.
    pub(super) filled: HashMap<u32, Vec<u8>>,
    sockets: Vec<Socket>,
    datagrams: VecDeque<Datagram>,
    /// Whose answers the failures are about that are not harvested yet.
    failed: VecDeque<SocketAddr>,
    sources: HashMap<u32, SocketAddr>,
    places: Vec<Place>,
    late: BTreeMap<(MonoNs, u64), Late>,
    late_count: u64,
}

impl Kernel {
    pub(crate) fn new(seed: u64, faults: Faults, clock: ScriptedClock, udp: usize, tcp: usize) -> Self {
        Self {
            log: Vec::new(),
            parked_until: None,
            harvests: 0,
            random: Random::new(seed),
            streams: Streams::new(tcp, faults.connections_max),
            ready: VecDeque::new(),
            filled: HashMap::new(),
            sockets: std::iter::repeat_with(Socket::default).take(udp).collect(),
            datagrams: VecDeque::new(),
            failed: VecDeque::new(),
            sources: HashMap::new(),
            places: vec![Place::Free; faults.udp_buffers + faults.stream_buffers],
            late: BTreeMap::new(),
            late_count: 0,
            faults,
            clock,
        }
    }

    /// A client's datagram is on its way to a socket.
    pub(crate) fn datagram(&mut self, socket: UdpIndex, from: SocketAddr, bytes: Vec<u8>) {
        self.later(Late::Datagram(socket, from, bytes));
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<MonoNs> {
        let full = self.sockets.iter().filter(|s| !s.answers.is_empty()).map(|s| s.full_until);
        self.late.keys().next().map(|(due, _)| *due).into_iter().chain(full).min()
    }

    /// Whose answers were taken and failed, or will, without the shard having heard of it.
    pub(crate) fn failing(&self) -> Vec<SocketAddr> {
        let late = self.late.values().filter_map(|late| match late {
            Late::SendFailed(_, peer) => Some(*peer),
            _ => None,
        });
        late.chain(self.failed.iter().copied()).collect()
    }

    /// Buffers the shard has and has not given back.
    pub(crate) fn in_use(&self) -> usize {
        self.places.iter().filter(|place| matches!(place, Place::Lent | Place::Queued)).count()
    }

    pub(super) fn buffer_count(&self) -> usize {
        self.places.len()
    }

    pub(super) fn connections_max(&self) -> usize {
        self.faults.connections_max
    }

    pub(super) fn dropped(&self, socket: UdpIndex) -> u64 {
        self.sockets[usize::from(socket.0)].dropped
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    pub(super) fn later(&mut self, what: Late) {
        let wait = self.random.below(self.faults.late_ns_max) as u64;
        self.late_count += 1;
        self.late.insert((MonoNs(self.now().mono.0 + wait), self.late_count), what);
    }

    /// The shard parks.
    pub(super) fn park(&mut self, until: MonoNs) {
        let left = self.sockets.iter().any(|s| !s.answers.is_empty() && !s.was_full);
        assert!(!left, "parks although a socket has room for the answers that are queued");
        self.parked_until = Some(until);
    }

    /// Lets everything happen that is due, and says whether there is anything to harvest.
    pub(super) fn has_work(&mut self) -> bool {
        self.act();
        let early = self.faults.early_wake;
        !self.ready.is_empty() || !self.datagrams.is_empty() || self.random.chance(early)
    }

    fn act(&mut self) {
        let now = self.now().mono;
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                Late::Datagram(socket, from, bytes) => self.arrive(socket, from, bytes),
                Late::SendFailed(socket, peer) => {
                    self.failed.push_back(peer);
                    self.ready.push_back(Event::SendFailed(socket, Errno::EPERM as i32));
                }
                Late::Stream(conn) => self.stream_progress(conn),
                Late::ReceiveCancelled(conn) => self.receive_cancelled(conn),
                Late::AcceptCancelled(listener) => self.accept_cancelled(listener),
                Late::UdpCancelled(socket) => self.udp_cancelled(socket),
            }
        }
        for index in 0..self.sockets.len() {
            self.receive(index);
        }
        self.act_on_streams();
    }

    fn arrive(&mut self, socket: UdpIndex, from: SocketAddr, bytes: Vec<u8>) {
        let at = &mut self.sockets[usize::from(socket.0)];
        if at.held.len() >= self.faults.socket_len {
            at.dropped += 1;
            self.log.push(Log::Dropped(from));
        } else {
            at.held.push_back((from, bytes));
        }
    }

    /// Moves datagrams into buffers as long as the socket is armed.
    fn receive(&mut self, index: usize) {
        let socket = UdpIndex(u8::try_from(index).unwrap());
        while self.sockets[index].armed && !self.sockets[index].held.is_empty() {
            let ended = if self.random.chance(self.faults.receive_error) {
                Some(Ended::Error(Errno::EHOSTUNREACH as i32))
            } else if self.random.chance(self.faults.multishot_ended) {
                Some(Ended::Quiet)
            } else if self.random.chance(self.faults.enobufs) {
                Some(Ended::NoBuffers)
            } else {
                None
            };
            let buffer = if ended.is_none() { self.take_buffer(0..self.faults.udp_buffers) } else { None };
            let Some(buffer) = buffer else {
                (self.sockets[index].armed, self.sockets[index].ending) = (false, false);
                self.ready.push_back(Event::UdpEnded(socket, ended.unwrap_or(Ended::NoBuffers)));
                return;
            };
            let (from, bytes) = self.sockets[index].held.pop_front().unwrap();
            self.sources.insert(buffer.0, from);
            self.filled.insert(buffer.0, bytes);
            let truncated = self.random.chance(self.faults.truncated);
            self.datagrams.push_back(Datagram { socket, buffer, truncated });
        }
    }

    pub(super) fn take_stream_buffer(&mut self) -> Option<BufferId> {
        self.take_buffer(self.faults.udp_buffers..self.places.len())
    }

    fn take_buffer(&mut self, among: std::ops::Range<usize>) -> Option<BufferId> {
        let at = among.into_iter().find(|at| self.places[*at] == Place::Free)?;
        self.places[at] = Place::Filled;
        Some(BufferId(u32::try_from(at).unwrap()))
    }

    /// A filled buffer goes back before anybody has seen it.
    pub(super) fn take_back(&mut self, buffer: &BufferId) {
        self.filled.remove(&buffer.0);
        self.move_buffer(buffer, Place::Filled, Place::Free);
    }

    fn move_buffer(&mut self, buffer: &BufferId, from: Place, to: Place) {
        let place = &mut self.places[buffer.0 as usize];
        assert_eq!(*place, from, "buffer {} goes to {to:?}", buffer.0);
        *place = to;
    }

    pub(super) fn arm_udp(&mut self, socket: UdpIndex) {
        let armed = &mut self.sockets[usize::from(socket.0)].armed;
        assert!(!*armed, "{socket:?} is armed twice");
        *armed = true;
    }

    pub(super) fn disarm_udp(&mut self, socket: UdpIndex) {
        let at = &mut self.sockets[usize::from(socket.0)];
        assert!(at.armed && !at.ending, "{socket:?} is disarmed and was not armed");
        at.ending = true;
        self.later(Late::UdpCancelled(socket));
    }

    /// Until now datagrams were still taken. It may have ended by itself before, and been armed again.
    fn udp_cancelled(&mut self, socket: UdpIndex) {
        let at = &mut self.sockets[usize::from(socket.0)];
        if std::mem::take(&mut at.ending) {
            at.armed = false;
            self.ready.push_back(Event::UdpEnded(socket, Ended::Quiet));
        }
    }

    pub(super) fn harvest(
        &mut self,
        datagrams: usize,
        events: &mut Vec<Event>,
        mut fill: impl FnMut(usize, Vec<u8>),
    ) {
        self.harvests += 1;
        self.act();
        let now = self.now();
        for _ in 0..datagrams.min(self.datagrams.len()) {
            let datagram = self.datagrams.pop_front().unwrap();
            self.move_buffer(&datagram.buffer, Place::Filled, Place::Lent);
            let mut bytes = self.filled.remove(&datagram.buffer.0).unwrap();
            if datagram.truncated {
                bytes.truncate(bytes.len() / 2);
            }
            fill(datagram.buffer.0 as usize, bytes);
            let (peer, truncated) = (self.source(&datagram.buffer), datagram.truncated);
            self.log.push(Log::Harvested { peer, now, truncated });
            events.push(Event::Datagram(datagram));
        }
        while let Some(event) = self.ready.pop_front() {
            if let Event::SendFailed(..) = &event {
                self.log.push(Log::Lost(self.failed.pop_front().expect("one for each event")));
            }
            if let Event::Received(conn, buffer) = &event {
                self.move_buffer(buffer, Place::Filled, Place::Lent);
                fill(buffer.0 as usize, self.filled.remove(&buffer.0).unwrap());
                assert!(self.streams.peer_of(*conn).is_some(), "an event of a closed connection");
            }
            events.push(event);
        }
        assert!(self.harvests < 5_000, "the loop does not come to rest: {events:?}");
    }

    pub(super) fn source(&self, buffer: &BufferId) -> SocketAddr {
        self.sources[&buffer.0]
    }

    pub(super) fn queue(&mut self, datagram: Datagram, bytes: Vec<u8>) {
        let Datagram { socket, buffer, .. } = datagram;
        self.move_buffer(&buffer, Place::Lent, Place::Queued);
        let (peer, now) = (self.source(&buffer), self.now());
        self.log.push(Log::Answered { peer, bytes: bytes.clone(), now, late: false });
        self.sockets[usize::from(socket.0)].answers.push_back((peer, buffer, bytes));
    }

    pub(super) fn queued(&self, socket: UdpIndex) -> usize {
        self.sockets[usize::from(socket.0)].answers.len()
    }

    fn full(&mut self, socket: UdpIndex) -> io::Result<()> {
        let now = self.now().mono;
        if self.random.chance(self.faults.eagain) {
            let wait = self.random.between(1, 5_000_000) as u64;
            self.sockets[usize::from(socket.0)].full_until = MonoNs(now.0 + wait);
        }
        let full = now < self.sockets[usize::from(socket.0)].full_until;
        if full { Err(Errno::EAGAIN.into()) } else { Ok(()) }
    }

    pub(super) fn send(&mut self, socket: UdpIndex) -> io::Result<usize> {
        let queued = self.queued(socket);
        assert!(queued > 0, "a send of nothing");
        let full = self.full(socket);
        self.sockets[usize::from(socket.0)].was_full = full.is_err();
        full?;
        if self.random.chance(self.faults.send_error) {
            return Err((*self.random.pick(&[Errno::EPERM, Errno::ENOBUFS, Errno::EINTR])).into());
        }
        let short = self.random.chance(self.faults.short_send);
        let count = if short { self.random.between(1, queued) } else { queued };
        for _ in 0..count {
            let (peer, buffer, bytes) =
                self.sockets[usize::from(socket.0)].answers.pop_front().expect("counted");
            self.move_buffer(&buffer, Place::Queued, Place::Free);
            if self.random.chance(self.faults.send_failed_late) {
                self.later(Late::SendFailed(socket, peer));
            } else {
                self.log.push(Log::Delivered(peer, bytes));
            }
        }
        Ok(count)
    }

    pub(super) fn skip(&mut self, socket: UdpIndex) {
        let oldest = self.sockets[usize::from(socket.0)].answers.pop_front();
        let (peer, buffer, _) = oldest.expect("nothing to skip");
        self.move_buffer(&buffer, Place::Queued, Place::Free);
        self.log.push(Log::Lost(peer));
    }

    pub(super) fn send_late(&mut self, socket: UdpIndex, peer: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let now = self.now();
        self.log.push(Log::Answered { peer, bytes: bytes.to_vec(), now, late: true });
        let failed = self.random.chance(self.faults.send_error);
        if let Err(e) =
            self.full(socket).and_then(|()| if failed { Err(Errno::EPERM.into()) } else { Ok(()) })
        {
            self.log.push(Log::Lost(peer));
            return Err(e);
        }
        self.log.push(Log::Delivered(peer, bytes.to_vec()));
        Ok(())
    }

    pub(super) fn release(&mut self, buffer: BufferId) {
        self.move_buffer(&buffer, Place::Lent, Place::Free);
        if (buffer.0 as usize) < self.faults.udp_buffers {
            self.log.push(Log::Released(self.source(&buffer)));
        }
    }
}
