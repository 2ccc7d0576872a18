//! Stream connections of the scripted kernel, with the peers at their other ends.

use std::collections::VecDeque;
use std::io;

use nix::errno::Errno;

use super::kernel::{Arming, Kernel, Late};
use crate::engine::{ConnId, Ended, Event, ListenerIndex};

/// Most bytes a stream hands out at once.
const CHUNK_LEN: usize = 4_096;

/// One end of a connection outside the shard, for good: never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerIndex(pub(crate) usize);

/// What a peer and the kernel know of a connection.
#[derive(Debug, Default)]
struct Peer {
    conn: Option<ConnId>,
    /// Sent by the peer, not yet handed out.
    to_shard: VecDeque<u8>,
    /// The peer sends nothing more.
    shut: bool,
    /// The peer is gone.
    reset: bool,
    /// Not yet read by the peer.
    from_shard: Vec<u8>,
    /// Unread bytes the peer has room for.
    window: usize,
    closed: bool,
    /// A fault broke the connection.
    broken: bool,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    peer: Option<PeerIndex>,
    receive: Arming,
    sending: Option<(Vec<u8>, usize)>,
}

#[derive(Debug, Default)]
struct Listener {
    arming: Arming,
    backlog: VecDeque<PeerIndex>,
}

/// All connections and listeners.
#[derive(Debug)]
pub(super) struct Streams {
    peers: Vec<Peer>,
    slots: Vec<Slot>,
    /// The one freed last is used first, so that generations matter.
    free: Vec<u32>,
    listeners: Vec<Listener>,
    /// Peers that wait to be adopted.
    guests: VecDeque<PeerIndex>,
}

impl Streams {
    pub(super) fn new(listeners: usize, connections_max: usize) -> Self {
        Self {
            peers: Vec::new(),
            slots: std::iter::repeat_with(Slot::default).take(connections_max).collect(),
            free: (0..u32::try_from(connections_max).unwrap()).rev().collect(),
            listeners: std::iter::repeat_with(Listener::default).take(listeners).collect(),
            guests: VecDeque::new(),
        }
    }

    pub(super) fn peer_of(&self, conn: ConnId) -> Option<PeerIndex> {
        let slot = &self.slots[conn.slot as usize];
        slot.peer.filter(|_| slot.generation == conn.generation)
    }

    fn slot(&mut self, conn: ConnId) -> Option<&mut Slot> {
        let slot = &mut self.slots[conn.slot as usize];
        (slot.generation == conn.generation && slot.peer.is_some()).then_some(slot)
    }

    fn open(&mut self, peer: PeerIndex) -> Option<ConnId> {
        let number = self.free.pop()?;
        let slot = &mut self.slots[number as usize];
        *slot = Slot { generation: slot.generation + 1, peer: Some(peer), ..Slot::default() };
        let conn = ConnId { slot: number, generation: slot.generation };
        self.peers[peer.0].conn = Some(conn);
        Some(conn)
    }
}

/// The peers' side.
impl Kernel {
    /// A client connects to a listener; `window` is how many bytes it takes before it has to read.
    pub(crate) fn connect(&mut self, listener: ListenerIndex, window: usize) -> PeerIndex {
        let peer = self.new_peer(window);
        self.streams.listeners[usize::from(listener.0)].backlog.push_back(peer);
        peer
    }

    /// The other end of the next connection that is adopted.
    pub(crate) fn expect_guest(&mut self, window: usize) -> PeerIndex {
        let peer = self.new_peer(window);
        self.streams.guests.push_back(peer);
        peer
    }

    fn new_peer(&mut self, window: usize) -> PeerIndex {
        self.streams.peers.push(Peer { window, ..Peer::default() });
        PeerIndex(self.streams.peers.len() - 1)
    }

    pub(crate) fn peer_write(&mut self, peer: PeerIndex, bytes: &[u8]) {
        let peer = &mut self.streams.peers[peer.0];
        assert!(!peer.shut && !peer.reset, "a peer writes after its end");
        if !peer.closed {
            peer.to_shard.extend(bytes);
        }
    }

    pub(crate) fn peer_shut(&mut self, peer: PeerIndex) {
        self.streams.peers[peer.0].shut = true;
    }

    pub(crate) fn peer_reset(&mut self, peer: PeerIndex) {
        self.streams.peers[peer.0].reset = true;
    }

    pub(crate) fn peer_read(&mut self, peer: PeerIndex, most: usize) -> Vec<u8> {
        let from = &mut self.streams.peers[peer.0].from_shard;
        let count = most.min(from.len());
        from.drain(..count).collect()
    }

    /// Whether the shard, or a kernel without room, has closed the connection.
    pub(crate) fn peer_closed(&self, peer: PeerIndex) -> bool {
        self.streams.peers[peer.0].closed
    }

    /// Whether the connection came to be at all.
    pub(crate) fn peer_accepted(&self, peer: PeerIndex) -> bool {
        self.streams.peers[peer.0].conn.is_some()
    }

    /// Whether a fault broke the connection.
    pub(crate) fn peer_broken(&self, peer: PeerIndex) -> bool {
        self.streams.peers[peer.0].broken
    }
}

/// The shard's side.
impl Kernel {
    pub(super) fn arm_accept(&mut self, listener: ListenerIndex) {
        let arming = &mut self.streams.listeners[usize::from(listener.0)].arming;
        arm(arming, &listener);
    }

    pub(super) fn disarm_accept(&mut self, listener: ListenerIndex) {
        if disarm(&mut self.streams.listeners[usize::from(listener.0)].arming) {
            self.later(Late::AcceptCancelled(listener));
        }
    }

    pub(super) fn arm_receive(&mut self, conn: ConnId) {
        // A connection may have been closed since it was put on the list of those to arm again.
        if let Some(slot) = self.streams.slot(conn) {
            arm(&mut slot.receive, &conn);
        }
    }

    pub(super) fn disarm_receive(&mut self, conn: ConnId) {
        let slot = self.streams.slot(conn).expect("a closed connection is disarmed");
        if disarm(&mut slot.receive) {
            self.later(Late::ReceiveCancelled(conn));
        }
    }

    pub(super) fn receive_cancelled(&mut self, conn: ConnId) {
        let told = self.random.chance(500);
        let Some(slot) = self.streams.slot(conn) else { return };
        let Arming::Ending { again } = slot.receive else { return };
        // Asked for again meanwhile: the kernel goes on, or says that it has ended after all.
        slot.receive = if again && !told { Arming::Armed } else { Arming::Idle };
        if !again || told {
            self.ready.push_back(Event::ReceiveEnded(conn, Ended::Quiet));
        }
    }

    pub(super) fn accept_cancelled(&mut self, listener: ListenerIndex) {
        let arming = &mut self.streams.listeners[usize::from(listener.0)].arming;
        if let Arming::Ending { again } = *arming {
            *arming = if again { Arming::Armed } else { Arming::Idle };
            if !again {
                self.ready.push_back(Event::AcceptEnded(listener, Ended::Quiet));
            }
        }
    }

    pub(super) fn adopt(&mut self) -> io::Result<ConnId> {
        let peer = self.streams.guests.pop_front().expect("an adoption that the test expects");
        self.streams.open(peer).ok_or_else(|| {
            self.streams.peers[peer.0].closed = true;
            Errno::ENFILE.into()
        })
    }

    pub(super) fn send_tcp(&mut self, conn: ConnId, bytes: Vec<u8>, from: usize) {
        assert!(from < bytes.len(), "a send of nothing");
        let slot = self.streams.slot(conn).expect("a send on a closed connection");
        assert!(slot.sending.is_none(), "two sends at a time on {conn:?}");
        slot.sending = Some((bytes, from));
        self.later(Late::Stream(conn));
    }

    pub(super) fn stream_progress(&mut self, conn: ConnId) {
        let (short, fails) =
            (self.random.chance(self.faults.short_tcp_send), self.random.chance(self.faults.tcp_send_error));
        let Some(index) = self.streams.peer_of(conn) else { return };
        let Some((bytes, from)) = self.streams.slots[conn.slot as usize].sending.take() else { return };
        let peer = &mut self.streams.peers[index.0];
        if peer.reset || fails {
            peer.broken = true;
            self.ready.push_back(Event::Sent(conn, bytes, Err(Errno::EPIPE.into())));
            return;
        }
        let room = peer.window.saturating_sub(peer.from_shard.len()).min(bytes.len() - from);
        if room == 0 {
            self.streams.slots[conn.slot as usize].sending = Some((bytes, from));
            self.faults.late_ns_max += 1_000_000;
            self.later(Late::Stream(conn));
            self.faults.late_ns_max -= 1_000_000;
            return;
        }
        let count = if short { self.random.between(1, room) } else { room };
        let peer = &mut self.streams.peers[index.0];
        peer.from_shard.extend_from_slice(&bytes[from..from + count]);
        self.ready.push_back(Event::Sent(conn, bytes, Ok(count)));
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        let slot = self.streams.slot(conn).expect("closed twice");
        let index = slot.peer.take().expect("an open connection has a peer");
        slot.sending = None;
        slot.receive = Arming::Idle;
        self.streams.free.push(conn.slot);
        self.streams.peers[index.0].closed = true;
        for event in std::mem::take(&mut self.ready) {
            match event {
                Event::Received(id, buffer) if id == conn => self.take_back(&buffer),
                Event::ReceiveEnded(id, _) | Event::Sent(id, ..) | Event::Accepted(_, id) if id == conn => {}
                other => self.ready.push_back(other),
            }
        }
    }

    /// Accepts and reads what can be.
    pub(super) fn act_on_streams(&mut self) {
        for listener in 0..self.streams.listeners.len() {
            self.accept(listener);
        }
        for slot in 0..self.streams.slots.len() {
            self.read(slot);
        }
    }

    fn accept(&mut self, index: usize) {
        let listener = ListenerIndex(u8::try_from(index).unwrap());
        loop {
            let side = &mut self.streams.listeners[index];
            if side.arming != Arming::Armed || side.backlog.is_empty() {
                return;
            }
            if self.random.chance(self.faults.accept_ended) {
                side.arming = Arming::Idle;
                // Of files there may be too few for long; a newcomer goes away once.
                let lasting = self.faults.accept_ended >= 1_000 || self.random.chance(300);
                let cause = if lasting { Errno::EMFILE } else { Errno::ECONNABORTED };
                self.ready.push_back(Event::AcceptEnded(listener, Ended::Error(cause as i32)));
                return;
            }
            let Some(peer) = side.backlog.pop_front() else { return };
            if let Some(conn) = self.streams.open(peer) {
                self.ready.push_back(Event::Accepted(listener, conn));
                continue;
            }
            // No connection is free: the newcomer is turned away.
            self.streams.peers[peer.0].closed = true;
            self.streams.listeners[index].arming = Arming::Idle;
            self.ready.push_back(Event::AcceptEnded(listener, Ended::Full));
        }
    }

    fn read(&mut self, index: usize) {
        loop {
            let slot = &self.streams.slots[index];
            let (Some(peer_index), Arming::Armed) = (slot.peer, slot.receive) else { return };
            let conn = ConnId { slot: u32::try_from(index).unwrap(), generation: slot.generation };
            let peer = &self.streams.peers[peer_index.0];
            let ended = if peer.reset {
                Some(Ended::Error(Errno::ECONNRESET as i32))
            } else if !peer.to_shard.is_empty() {
                if self.random.chance(self.faults.tcp_receive_error) {
                    self.streams.peers[peer_index.0].broken = true;
                    Some(Ended::Error(Errno::ETIMEDOUT as i32))
                } else if self.random.chance(self.faults.enobufs) {
                    Some(Ended::NoBuffers)
                } else if self.random.chance(self.faults.multishot_ended) {
                    Some(Ended::Quiet)
                } else {
                    None
                }
            } else if peer.shut {
                Some(Ended::Closed)
            } else {
                return;
            };
            let buffer = if ended.is_none() { self.take_stream_buffer() } else { None };
            let Some(buffer) = buffer else {
                self.streams.slots[index].receive = Arming::Idle;
                let ended = ended.unwrap_or(Ended::NoBuffers);
                self.ready.push_back(Event::ReceiveEnded(conn, ended));
                return;
            };
            let partial = self.random.chance(self.faults.partial_tcp_read);
            let most = self.streams.peers[peer_index.0].to_shard.len().min(CHUNK_LEN);
            let count = if partial { self.random.between(1, most) } else { most };
            let bytes = self.streams.peers[peer_index.0].to_shard.drain(..count).collect();
            self.filled.insert(buffer.0, bytes);
            self.ready.push_back(Event::Received(conn, buffer));
        }
    }
}

fn arm(arming: &mut Arming, what: &impl std::fmt::Debug) {
    *arming = match *arming {
        Arming::Idle => Arming::Armed,
        Arming::Armed => panic!("{what:?} is armed twice"),
        Arming::Ending { .. } => Arming::Ending { again: true },
    };
}

/// Whether there is something to cancel.
fn disarm(arming: &mut Arming) -> bool {
    match arming {
        Arming::Idle => false,
        Arming::Armed => {
            *arming = Arming::Ending { again: false };
            true
        }
        Arming::Ending { again } => {
            *again = false;
            false
        }
    }
}
