//! The engine for machines that refuse io_uring: epoll, `recvmmsg`, `sendmmsg`, plain sockets.
//!
//! A UDP socket that has lately given datagrams is asked again without asking epoll first; one that
//! has given none for a while is left to epoll. One that goes on giving them is taken out of epoll until
//! the shard parks: while somebody watches a socket, the kernel wakes him for every answer that has left,
//! which made an answer 6 % dearer. Connections are watched edge-triggered: added once, never modified.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};

use super::{BufferId, ConnId, Datagram, Ended, Engine, Event, ListenerIndex, SocketLoss, Sockets, UdpIndex};
use crate::limits::{FEED_SESSIONS_MAX, RECV_BATCH_LEN};
use crate::sys::mmsg::{ReceiveBatch, SendBatch, send_one};
use crate::sys::net::socket_drops;
use crate::time::{Clock as _, MonoNs, RealClock};

/// Bytes taken from a connection at a time.
const STREAM_BUFFER_LEN: usize = 16 << 10;

/// Buffers for connections' bytes: what one harvest may hand out.
const STREAM_BUFFERS: usize = 64;

/// Connections taken from a listener in one harvest, so that a flood of them does not starve
/// datagrams. Guess, not measured.
const ACCEPTS_PER_HARVEST: usize = 64;

/// Harvests in a row that may leave epoll unasked while datagrams come or are looked for: bounds how
/// long a connection waits. Guess, not measured.
const HARVESTS_WITHOUT_EPOLL: u32 = 8;

/// Empty looks at a socket after its last datagram before it is left to epoll. A shard that spins
/// finds a lone request sooner so, by one call of the kernel; one that parks asks epoll anyway. Covers
/// a round trip on a local network at a quarter of a microsecond a look.
const LOOKS_WITHOUT_EPOLL: u32 = 256;

/// Harvests with datagrams since the last parking after which a socket leaves epoll. Leaving and coming
/// back are two calls, so this is more than a shard that parks between requests ever sees. Guess, not
/// measured.
const HARVESTS_WATCHED: u32 = 16;

/// Marks the number of a stream buffer; datagram buffers are `socket << 16 | slot`.
const STREAM_BUFFER: u32 = 1 << 31;

/// epoll, `recvmmsg` and `sendmmsg` behind the seam.
pub struct PortableEngine {
    epoll: Epoll,
    sockets: Sockets,
    udp: Vec<UdpSide>,
    /// Which UDP socket the last harvest began with.
    first_udp: usize,
    listeners: Vec<ListenerSide>,
    conns: Vec<Conn>,
    free_conns: Vec<u32>,
    /// Connections with something to read or a wish to, each at most once.
    readable: VecDeque<ConnId>,
    /// Events made outside harvest, delivered by the next one.
    done: Vec<Event>,
    buffers: Vec<StreamBuffer>,
    free_buffers: Vec<u32>,
    polled: Vec<EpollEvent>,
    unpolled: u32,
    /// Connections accepted and not closed.
    accepted: usize,
    accepted_max: usize,
}

struct UdpSide {
    batch: ReceiveBatch,
    answers: SendBatch,
    lent: usize,
    armed: bool,
    /// Epoll tells of it. Not while others take its datagrams, or it would not let us sleep.
    watched: bool,
    /// Gave datagrams at the last look, or epoll says it will.
    hot: bool,
    /// How often it may still be asked though it is not hot.
    looks: u32,
    /// Harvests that it gave datagrams in since the shard last parked.
    gave: u32,
}

impl UdpSide {
    /// Whether a harvest asks the socket itself.
    fn is_asked(&self) -> bool {
        self.armed && (self.hot || self.looks > 0 || !self.watched)
    }
}

struct ListenerSide {
    armed: bool,
    hot: bool,
}

#[derive(Default)]
struct Conn {
    generation: u32,
    stream: Option<OwnedFd>,
    armed: bool,
    readable: bool,
    /// The peer has sent its last byte, or the connection broke.
    ending: bool,
    listed: bool,
    sending: Option<(Vec<u8>, usize)>,
    adopted: bool,
}

struct StreamBuffer {
    bytes: Box<[u8]>,
    len: usize,
}

/// What an epoll event is about.
#[derive(Clone, Copy)]
enum Token {
    Udp(usize),
    Listener(usize),
    Conn(ConnId),
}

impl Token {
    fn encode(self) -> u64 {
        match self {
            Self::Udp(index) => index as u64,
            Self::Listener(index) => 1 << 32 | index as u64,
            Self::Conn(id) => 1 << 63 | u64::from(id.generation & 0x7fff_ffff) << 32 | u64::from(id.slot),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant to be cut apart")]
    fn decode(data: u64) -> Self {
        let (high, low) = ((data >> 32) as u32, data as u32);
        match high {
            0 => Self::Udp(low as usize),
            1 => Self::Listener(low as usize),
            _ => Self::Conn(ConnId { slot: low, generation: high & 0x7fff_ffff }),
        }
    }
}

impl PortableEngine {
    /// Takes over a shard's sockets; holds at most `connections_max` accepted connections, and
    /// beside them as many adopted ones as there may be feeds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(sockets: Sockets, connections_max: usize) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, socket) in sockets.tcp.iter().enumerate() {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(socket, EpollEvent::new(flags, Token::Listener(index).encode()))?;
        }
        let udp = sockets.udp.iter().map(|_| UdpSide {
            batch: ReceiveBatch::new(RECV_BATCH_LEN),
            answers: SendBatch::new(RECV_BATCH_LEN),
            lent: 0,
            armed: false,
            watched: false,
            hot: true,
            looks: 0,
            gave: 0,
        });
        let buffer = || StreamBuffer { bytes: vec![0; STREAM_BUFFER_LEN].into(), len: 0 };
        Ok(Self {
            epoll,
            udp: udp.collect(),
            first_udp: 0,
            listeners: sockets.tcp.iter().map(|_| ListenerSide { armed: false, hot: true }).collect(),
            conns: Vec::new(),
            free_conns: (0..u32::try_from(connections_max + FEED_SESSIONS_MAX).unwrap_or(u32::MAX))
                .rev()
                .collect(),
            readable: VecDeque::new(),
            done: Vec::new(),
            buffers: std::iter::repeat_with(buffer).take(STREAM_BUFFERS).collect(),
            free_buffers: (0..STREAM_BUFFERS as u32).collect(),
            polled: vec![EpollEvent::empty(); 256],
            unpolled: 0,
            accepted: 0,
            accepted_max: connections_max,
            sockets,
        })
    }

    fn poll(&mut self, timeout: EpollTimeout) -> io::Result<()> {
        let count = match self.epoll.wait(&mut self.polled, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        self.unpolled = 0;
        for at in 0..count {
            let (data, flags) = (self.polled[at].data(), self.polled[at].events());
            match Token::decode(data) {
                Token::Udp(index) => self.udp[index].hot = true,
                Token::Listener(index) => self.listeners[index].hot = true,
                Token::Conn(id) => self.conn_ready(id, flags),
            }
        }
        Ok(())
    }

    /// Lets epoll tell of every socket that is armed and whose datagrams could be answered, before the
    /// shard sleeps.
    fn watch(&mut self) {
        for (index, side) in self.udp.iter_mut().enumerate() {
            side.gave = 0;
            if side.watched && side.answers.free() == 0 {
                // What waits there would end the sleep at once, and nothing could be done about it.
                side.watched = self.epoll.delete(&self.sockets.udp[index]).is_err();
            }
            if !side.armed || side.watched || side.answers.free() == 0 {
                continue;
            }
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Udp(index).encode());
            match self.epoll.add(&self.sockets.udp[index], event) {
                Ok(()) => side.watched = true,
                Err(e) => {
                    side.armed = false;
                    let socket = UdpIndex(u8::try_from(index).unwrap_or(u8::MAX));
                    self.done.push(Event::UdpEnded(socket, Ended::Error(e as i32)));
                }
            }
        }
    }

    fn conn_ready(&mut self, id: ConnId, flags: EpollFlags) {
        let Some(conn) = self.conn(id) else { return };
        if flags.intersects(
            EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR,
        ) {
            conn.readable = true;
            conn.ending |= !flags.difference(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT).is_empty();
            self.list(id);
        }
        if flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.push_send(id);
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize).filter(|c| c.generation == id.generation && c.stream.is_some())
    }

    /// Puts a connection on the list of those to read, once.
    fn list(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && conn.armed
            && conn.readable
            && !conn.listed
        {
            conn.listed = true;
            self.readable.push_back(id);
        }
    }

    fn push_send(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let (Some((bytes, from)), Some(stream)) = (conn.sending.take(), conn.stream.as_ref()) else { return };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(stream.as_raw_fd(), bytes.get(from..).unwrap_or(&[]), flags) {
            Ok(sent) => self.done.push(Event::Sent(id, bytes, Ok(sent))),
            Err(Errno::EAGAIN | Errno::EINTR) => conn.sending = Some((bytes, from)),
            Err(e) => self.done.push(Event::Sent(id, bytes, Err(e.into()))),
        }
    }

    fn add_conn(&mut self, stream: OwnedFd, adopted: bool) -> io::Result<ConnId> {
        let Some(slot) = self.free_conns.pop() else {
            return Err(io::Error::from_raw_os_error(Errno::ENFILE as i32));
        };
        if slot as usize >= self.conns.len() {
            self.conns.resize_with(slot as usize + 1, Conn::default);
        }
        let conn = &mut self.conns[slot as usize];
        conn.generation = (conn.generation + 1) & 0x7fff_ffff;
        let id = ConnId { slot, generation: conn.generation };
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        if let Err(e) = self.epoll.add(&stream, EpollEvent::new(flags, Token::Conn(id).encode())) {
            self.free_conns.push(slot);
            return Err(e.into());
        }
        *conn = Conn { generation: id.generation, stream: Some(stream), adopted, ..Conn::default() };
        self.accepted += usize::from(!adopted);
        Ok(id)
    }

    fn accept(&mut self, index: usize, events: &mut Vec<Event>) {
        let listener = ListenerIndex(u8::try_from(index).unwrap_or(u8::MAX));
        for _ in 0..ACCEPTS_PER_HARVEST {
            let accepted = self.sockets.tcp[index].accept();
            if accepted.is_ok() && self.accepted >= self.accepted_max {
                self.listeners[index].armed = false;
                events.push(Event::AcceptEnded(listener, Ended::Full));
                return;
            }
            match accepted.and_then(|(stream, _)| self.add_conn(stream.into(), false)) {
                Ok(id) => events.push(Event::Accepted(listener, id)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[index].hot = false;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    self.listeners[index].armed = false;
                    let code = e.raw_os_error().unwrap_or(Errno::EIO as i32);
                    events.push(Event::AcceptEnded(listener, Ended::Error(code)));
                    return;
                }
            }
        }
    }

    fn receive(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let Some(buffer) = self.free_buffers.pop() else {
            self.list(id);
            return;
        };
        let into = &mut self.buffers[buffer as usize];
        let conn = self.conns.get_mut(id.slot as usize).filter(|c| c.generation == id.generation && c.armed);
        let Some((conn, stream)) =
            conn.and_then(|c| c.stream.as_ref().map(AsRawFd::as_raw_fd).map(|s| (c, s)))
        else {
            self.free_buffers.push(buffer);
            return;
        };
        match recv(stream, &mut into.bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                conn.armed = false;
                events.push(Event::ReceiveEnded(id, Ended::Closed));
            }
            Ok(len) => {
                into.len = len;
                // A short read has emptied a stream; what comes later makes a new edge. The end of
                // the stream, once told, makes none.
                conn.readable = len == STREAM_BUFFER_LEN || conn.ending;
                events.push(Event::Received(id, BufferId(STREAM_BUFFER | buffer)));
                self.list(id);
                return;
            }
            Err(Errno::EAGAIN) => conn.readable = false,
            Err(Errno::EINTR) => self.list(id),
            Err(e) => {
                conn.armed = false;
                events.push(Event::ReceiveEnded(id, Ended::Error(e as i32)));
            }
        }
        self.free_buffers.push(buffer);
    }

    fn receive_datagrams(&mut self, index: usize, most: usize, events: &mut Vec<Event>) -> usize {
        let side = &mut self.udp[index];
        // Slots are filled from the first one on, so none may still be lent.
        let most = most.min(side.answers.free());
        if !side.is_asked() || side.lent > 0 || most == 0 {
            return 0;
        }
        let socket = UdpIndex(u8::try_from(index).unwrap_or(u8::MAX));
        match side.batch.receive(&self.sockets.udp[index], most) {
            Ok(count) => {
                (side.lent, side.hot, side.looks) = (count, true, LOOKS_WITHOUT_EPOLL);
                side.gave = side.gave.saturating_add(1);
                if side.watched && side.gave >= HARVESTS_WATCHED {
                    side.watched = self.epoll.delete(&self.sockets.udp[index]).is_err();
                }
                for slot in 0..count {
                    let buffer = BufferId(u32::from(socket.0) << 16 | slot as u32);
                    let truncated = side.batch.truncated(slot);
                    events.push(Event::Datagram(Datagram { socket, buffer, truncated }));
                }
                count
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                (side.hot, side.looks) = (false, side.looks.saturating_sub(1));
                0
            }
            // A queued ICMP error of some peer, or a signal: the socket is fine, look again.
            Err(_) => 0,
        }
    }
}

fn datagram_slot(buffer: &BufferId) -> (usize, usize) {
    ((buffer.0 >> 16) as usize, (buffer.0 & 0xffff) as usize)
}

impl Engine for PortableEngine {
    fn arm_udp(&mut self, socket: UdpIndex) {
        let index = usize::from(socket.0);
        let side = &mut self.udp[index];
        (side.armed, side.hot) = (true, true);
    }

    fn disarm_udp(&mut self, socket: UdpIndex) {
        let index = usize::from(socket.0);
        let side = &mut self.udp[index];
        if !side.armed {
            return;
        }
        side.armed = false;
        if side.watched && self.epoll.delete(&self.sockets.udp[index]).is_ok() {
            side.watched = false;
        }
        self.done.push(Event::UdpEnded(socket, Ended::Quiet));
    }

    fn arm_accept(&mut self, listener: ListenerIndex) {
        let side = &mut self.listeners[usize::from(listener.0)];
        (side.armed, side.hot) = (true, true);
    }

    fn disarm_accept(&mut self, listener: ListenerIndex) {
        self.listeners[usize::from(listener.0)].armed = false;
    }

    fn arm_receive(&mut self, conn: ConnId) {
        if let Some(c) = self.conn(conn) {
            (c.armed, c.readable) = (true, true);
            self.list(conn);
        }
    }

    fn disarm_receive(&mut self, conn: ConnId) {
        if let Some(c) = self.conn(conn) {
            c.armed = false;
        }
    }

    fn harvest(&mut self, datagrams: usize, events: &mut Vec<Event>) -> io::Result<()> {
        let mut left = datagrams;
        // Each time another socket is the first: a flood on one must not starve the others.
        let count = self.udp.len();
        self.first_udp = (self.first_udp + 1) % count.max(1);
        for index in 0..count {
            left -= self.receive_datagrams((self.first_udp + index) % count, left, events);
        }
        self.unpolled += 1;
        let looking = left < datagrams || self.udp.iter().any(|u| u.armed && (u.looks > 0 || !u.watched));
        if !looking || self.unpolled >= HARVESTS_WITHOUT_EPOLL {
            self.poll(EpollTimeout::ZERO)?;
        }
        for index in 0..self.listeners.len() {
            if self.listeners[index].armed && self.listeners[index].hot {
                self.accept(index, events);
            }
        }
        // Each connection on the list is read once; those with more list themselves again, behind.
        for _ in 0..self.readable.len().min(self.free_buffers.len()) {
            let Some(id) = self.readable.pop_front() else { break };
            if let Some(conn) = self.conn(id) {
                conn.listed = false;
            }
            self.receive(id, events);
        }
        events.append(&mut self.done);
        Ok(())
    }

    fn view(&mut self, datagram: &Datagram) -> (&[u8], &mut [u8]) {
        let (socket, slot) = datagram_slot(&datagram.buffer);
        let side = &mut self.udp[socket];
        (side.batch.payload(slot), side.answers.room())
    }

    fn peer(&self, datagram: &Datagram) -> SocketAddr {
        let (socket, slot) = datagram_slot(&datagram.buffer);
        self.udp[socket].batch.source(slot).socket_addr()
    }

    fn local(&self, datagram: &Datagram) -> Option<IpAddr> {
        let (socket, slot) = datagram_slot(&datagram.buffer);
        self.udp[socket].batch.destination(slot)
    }

    fn queue(&mut self, datagram: Datagram, len: usize) {
        let (socket, slot) = datagram_slot(&datagram.buffer);
        let side = &mut self.udp[socket];
        let destination = side.batch.destination(slot);
        side.answers.push(side.batch.source(slot), destination, len);
        side.lent -= 1;
    }

    fn queued(&self, socket: UdpIndex) -> usize {
        self.udp[usize::from(socket.0)].answers.len()
    }

    fn send(&mut self, socket: UdpIndex) -> io::Result<usize> {
        let index = usize::from(socket.0);
        self.udp[index].answers.send(&self.sockets.udp[index])
    }

    fn skip(&mut self, socket: UdpIndex) {
        self.udp[usize::from(socket.0)].answers.skip();
    }

    fn send_late(
        &mut self,
        socket: UdpIndex,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        send_one(&self.sockets.udp[usize::from(socket.0)], peer, local, bytes)
    }

    fn bytes(&self, buffer: &BufferId) -> &[u8] {
        let buffer = &self.buffers[(buffer.0 & !STREAM_BUFFER) as usize];
        &buffer.bytes[..buffer.len]
    }

    fn release(&mut self, buffer: BufferId) {
        if buffer.0 & STREAM_BUFFER != 0 {
            self.free_buffers.push(buffer.0 & !STREAM_BUFFER);
        } else {
            self.udp[datagram_slot(&buffer).0].lent -= 1;
        }
    }

    fn send_tcp(&mut self, conn: ConnId, bytes: Vec<u8>, from: usize) {
        if let Some(c) = self.conn(conn) {
            c.sending = Some((bytes, from));
            self.push_send(conn);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(c) = self.conn(conn) {
            // Closing the only descriptor takes it out of epoll too.
            let adopted = c.adopted;
            *c = Conn { generation: c.generation, ..Conn::default() };
            self.accepted -= usize::from(!adopted);
            self.free_conns.push(conn.slot);
            self.done.retain(|event| !matches!(event, Event::Sent(id, ..) if *id == conn));
        }
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnId> {
        self.add_conn(socket, true)
    }

    fn connections_max(&self) -> usize {
        self.accepted_max + FEED_SESSIONS_MAX
    }

    fn loss(&self, socket: UdpIndex) -> SocketLoss {
        SocketLoss { dropped: socket_drops(&self.sockets.udp[usize::from(socket.0)]).into() }
    }

    async fn park(&mut self, until: MonoNs) -> io::Result<()> {
        let mut pending = !self.done.is_empty()
            || !self.readable.is_empty()
            || self.udp.iter().any(|u| u.armed && u.hot && u.lent == 0 && u.answers.free() > 0)
            || self.listeners.iter().any(|l| l.armed && l.hot);
        if !pending {
            self.watch();
            pending = !self.done.is_empty();
        }
        let wait_ns = if pending { 0 } else { until.0.saturating_sub(RealClock.now().mono.0) };
        // Whole milliseconds, rounded up so that the deadline has passed when this returns.
        let wait_ms = i32::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX);
        self.poll(EpollTimeout::try_from(wait_ms).unwrap_or(EpollTimeout::ZERO))
    }
}

#[cfg(test)]
impl PortableEngine {
    /// How many buffers are out, for the conformance tests.
    pub(crate) fn lent(&self) -> usize {
        self.udp.iter().map(|u| u.lent).sum::<usize>() + STREAM_BUFFERS - self.free_buffers.len()
    }
}

#[cfg(test)]
mod tests;
