//! The engine over a raw io_uring, driven from a task of a glommio executor.
//!
//! ```text
//!  multishot recvmsg ─► datagram buffers ─► view: request ─► SendBatch ─► one sendmmsg
//!  multishot accept ──► direct descriptor = slot of the connection
//!  multishot recv ────► stream buffers ───► bytes          Send entries own their bytes
//!
//!  park:  bell on ─► enter ─► nothing there? ─► glommio waits for the bell (an eventfd)
//! ```
//!
//! The kernel fills buffers oldest first, so a small ring of them stays in the processor's cache.
//! Answers are written into slots of their own: a batch of them lies together, and the request's
//! buffer goes back to the kernel as soon as the answer is queued.

mod conns;
mod datagram;
mod executor;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use glommio::io::BufferedFile;

use super::{BufferId, ConnId, Datagram, Ended, Engine, Event, ListenerIndex, SocketLoss, Sockets, UdpIndex};
use crate::limits::{FEED_SESSIONS_MAX, RECV_BATCH_LEN};
use crate::sys::eventfd::EventFd;
use crate::sys::mmsg::{RECEIVE_LEN, SendBatch, send_one};
use crate::sys::net::{Control, socket_drops};
use crate::sys::ring::{Completion, Group, Ring, RingOptions};
use crate::sys::token::{TOKEN_INDEX_MAX, Token};
use crate::time::MonoNs;
use conns::{Arming, Conns, Freed, State};
use datagram::DatagramView;

pub use executor::run_on_glommio;

/// Answers that may be queued on one socket: two batches, so that one the kernel did not take does
/// not keep the next from being harvested.
const ANSWERS_MAX: usize = 2 * RECV_BATCH_LEN;

/// Times one harvest enters the ring while the kernel says that it has more. An enter finishes at
/// most 32 datagrams of a socket and 20 other operations; more rounds than a batch needs would only
/// delay its first answer.
const ENTERS_PER_HARVEST: usize = 4;

/// Marks the number of a stream buffer.
const STREAM_BUFFER: u32 = 1 << 31;

/// How answers to datagrams are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UdpSend {
    /// One `sendmmsg` a batch: measured faster.
    #[default]
    Sendmmsg,
    /// One entry of the ring an answer.
    Entries,
}

/// Sizes of a uring engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringOptions {
    /// Operations that fit between two enters, and a quarter of the completions that fit between two
    /// harvests. Too few costs further calls, too many memory.
    pub ring_entries: u32,
    /// Buffers for datagrams, a power of two. Too few and receiving ends in between; too many and
    /// they fall out of the cache.
    pub recv_buffers: u16,
    /// Buffers of [`STREAM_BUFFER_LEN`] bytes for connections, a power of two.
    pub tcp_buffers: u16,
    /// Most accepted connections at a time.
    pub connections_max: u32,
    /// Most adopted sockets at a time, beside the accepted ones.
    pub adopted_max: u32,
    /// How answers to datagrams are sent.
    pub udp_send: UdpSend,
}

/// Bytes of a connection that fit one buffer: several pipelined requests, or half of the longest head.
pub const STREAM_BUFFER_LEN: usize = 4_096;

impl Default for UringOptions {
    fn default() -> Self {
        Self {
            ring_entries: 1_024,
            recv_buffers: 256,
            tcp_buffers: 1_024,
            connections_max: 10_752,
            adopted_max: FEED_SESSIONS_MAX as u32,
            udp_send: UdpSend::default(),
        }
    }
}

/// A raw io_uring behind the seam. It belongs to the thread that made it, and parks only in a task
/// of a glommio executor there.
pub struct UringEngine {
    /// Declared first: it ends its operations before the sockets are closed.
    ring: Ring,
    udp: Vec<UdpSide>,
    listeners: Vec<(std::net::TcpListener, Arming)>,
    conns: Conns,
    /// Datagrams that came when the harvest had its fill.
    held: VecDeque<Datagram>,
    bell: EventFd,
    /// The bell, as the executor knows it.
    bell_file: Option<BufferedFile>,
    /// When the ring's timer will complete.
    deadline: Option<MonoNs>,
    udp_send: UdpSend,
    /// An operation could not be handed over; the next harvest says so.
    broken: Option<io::Error>,
}

struct UdpSide {
    socket: UdpSocket,
    /// Bound to a wildcard: control messages say where a datagram was sent to.
    wildcard: bool,
    armed: bool,
    /// Disarmed, and not yet told to be over.
    ending: bool,
    answers: SendBatch,
}

impl UringEngine {
    /// Takes over a shard's sockets. To be called on the thread that will use it.
    ///
    /// # Errors
    /// When the kernel refuses the ring, with the refused call, its likely cause and the cure in the
    /// text.
    pub fn new(sockets: Sockets, options: UringOptions) -> io::Result<Self> {
        let slots = options.connections_max.saturating_add(options.adopted_max);
        if slots >= TOKEN_INDEX_MAX {
            let text = format!("{slots} connections asked for, a ring holds at most {TOKEN_INDEX_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut ring = Ring::new(&RingOptions {
            submissions: options.ring_entries,
            completions: options.ring_entries.saturating_mul(4),
            direct_max: options.connections_max,
            sends_max: slots,
            datagram_buffers: options.recv_buffers,
            datagram_len: RECEIVE_LEN,
            stream_buffers: options.tcp_buffers,
            stream_len: STREAM_BUFFER_LEN,
        })?;
        let bell = EventFd::new()?;
        ring.register_bell(&bell)?;
        ring.ring_bell(false);
        let side = |socket: UdpSocket| -> io::Result<UdpSide> {
            let wildcard = socket.local_addr()?.ip().is_unspecified();
            Ok(UdpSide {
                socket,
                wildcard,
                armed: false,
                ending: false,
                answers: SendBatch::new(ANSWERS_MAX),
            })
        };
        Ok(Self {
            ring,
            udp: sockets.udp.into_iter().map(side).collect::<io::Result<_>>()?,
            listeners: sockets.tcp.into_iter().map(|l| (l, Arming::Idle)).collect(),
            conns: Conns::new(options.connections_max, options.adopted_max),
            held: VecDeque::with_capacity(usize::from(options.recv_buffers)),
            bell,
            bell_file: None,
            deadline: None,
            udp_send: options.udp_send,
            broken: None,
        })
    }

    /// Remembers the first failure to hand an operation over.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.broken.get_or_insert(error);
        }
    }

    /// How many more datagrams can be given out and still find room for their answers.
    fn answers_free(&self) -> usize {
        let out = self.ring.lent(Group::Datagrams) - self.held.len();
        self.udp.iter().map(|u| u.answers.free()).min().unwrap_or(0).saturating_sub(out)
    }

    fn complete(&mut self, done: Completion, left: &mut usize, events: &mut Vec<Event>) {
        match done.token {
            Token::Datagrams { socket } => self.datagram(socket, done, left, events),
            Token::DatagramSend { socket } => {
                if let Err(code) = done.result {
                    events.push(Event::SendFailed(UdpIndex(socket), code));
                }
            }
            Token::Accept { listener } => self.accepted(listener, done, events),
            Token::Receive { slot, .. } => self.received(slot, done, events),
            Token::Send { slot, .. } => self.sent(slot, done, events),
            Token::Deadline => self.deadline = None,
            Token::Close { slot } => {
                let code = done.result.err().unwrap_or(0);
                self.note(Err(io::Error::other(format!("closing slot {slot} failed: error {code}"))));
            }
            // Failing means that what was to be cancelled or moved is over already.
            Token::Cancel | Token::DeadlineUpdate => {}
        }
    }

    fn datagram(&mut self, socket: u8, done: Completion, left: &mut usize, events: &mut Vec<Event>) {
        let side = &mut self.udp[usize::from(socket)];
        side.armed = done.more;
        if let Some(buffer) = done.buffer {
            let bytes = self.ring.bytes(Group::Datagrams, buffer);
            match DatagramView::new(bytes, side.wildcard) {
                Some(view) if done.result.is_ok() => {
                    let truncated = view.truncated();
                    let datagram =
                        Datagram { socket: UdpIndex(socket), buffer: BufferId(buffer.into()), truncated };
                    if *left > 0 {
                        *left -= 1;
                        events.push(Event::Datagram(datagram));
                    } else {
                        self.held.push_back(datagram);
                    }
                }
                _ => self.ring.give_back(Group::Datagrams, buffer),
            }
        }
        if !done.more {
            match done.result {
                _ if std::mem::take(&mut self.udp[usize::from(socket)].ending) => {
                    events.push(Event::UdpEnded(UdpIndex(socket), Ended::Quiet));
                }
                // An empty datagram ends a multishot like the end of a stream would. Nothing is amiss.
                Ok(_) => self.arm_udp(UdpIndex(socket)),
                Err(_) => events.push(Event::UdpEnded(UdpIndex(socket), ended(done.result))),
            }
        }
    }

    fn accepted(&mut self, listener: u8, done: Completion, events: &mut Vec<Event>) {
        let index = ListenerIndex(listener);
        if let Ok(slot) = done.result {
            match self.conns.accepted(slot) {
                Some(conn) => events.push(Event::Accepted(index, conn)),
                None => self.note(Err(io::Error::other(format!("slot {slot} was accepted into twice")))),
            }
        }
        if !done.more {
            let arming = &mut self.listeners[usize::from(listener)].1;
            let again = *arming == (Arming::Ending { again: true });
            *arming = Arming::Idle;
            if again && done.result == Err(libc::ECANCELED) {
                self.arm_accept(index);
            } else {
                // The kernel takes a connection before it looks for a slot, and closes it when there is none.
                let full = done.result == Err(libc::ENFILE);
                let why = if full { Ended::Full } else { ended(done.result) };
                events.push(Event::AcceptEnded(index, why));
            }
        }
    }

    fn received(&mut self, slot: u32, done: Completion, events: &mut Vec<Event>) {
        let conn = self.conns.slot(slot);
        let id = ConnId { slot, generation: conn.generation };
        let open = conn.state == State::Open;
        let again = conn.receive == (Arming::Ending { again: true });
        if !done.more {
            conn.receive = Arming::Idle;
        }
        if let Some(buffer) = done.buffer {
            if open && done.result.is_ok_and(|len| len > 0) {
                events.push(Event::Received(id, BufferId(STREAM_BUFFER | u32::from(buffer))));
            } else {
                self.ring.give_back(Group::Streams, buffer);
            }
        }
        if done.more {
            return;
        }
        if !open {
            self.free_if_idle(slot);
        } else if again && done.result == Err(libc::ECANCELED) {
            self.arm_receive(id);
        } else {
            let why = if done.result == Ok(0) { Ended::Closed } else { ended(done.result) };
            events.push(Event::ReceiveEnded(id, why));
        }
    }

    fn sent(&mut self, slot: u32, done: Completion, events: &mut Vec<Event>) {
        let conn = self.conns.slot(slot);
        let id = ConnId { slot, generation: conn.generation };
        let open = conn.state == State::Open;
        conn.sending = false;
        let bytes = self.ring.take_sent(slot).unwrap_or_default();
        if open {
            let result = done.result.map(|n| n as usize).map_err(io::Error::from_raw_os_error);
            events.push(Event::Sent(id, bytes, result));
        } else {
            self.free_if_idle(slot);
        }
    }

    fn free_if_idle(&mut self, slot: u32) {
        if let Some(Freed::Direct(slot)) = self.conns.free_if_idle(slot) {
            let closed = self.ring.close_direct(slot);
            self.note(closed);
        }
    }

    /// Starts or moves the ring's timer so that it completes at `until` or before.
    fn wake_by(&mut self, until: MonoNs) -> io::Result<()> {
        if until == MonoNs::NEVER || self.deadline.is_some_and(|at| at <= until) {
            return Ok(());
        }
        self.ring.set_deadline(until.0, self.deadline.is_some())?;
        self.deadline = Some(until);
        Ok(())
    }

    fn has_harvest(&mut self) -> bool {
        self.broken.is_some()
            || self.ring.has_completions()
            || (!self.held.is_empty() && self.answers_free() > 0)
    }
}

/// Why an operation that is over has ended.
fn ended(result: Result<u32, i32>) -> Ended {
    match result {
        Ok(_) | Err(libc::ECANCELED) => Ended::Quiet,
        Err(libc::ENOBUFS) => Ended::NoBuffers,
        Err(code) => Ended::Error(code),
    }
}

/// Which buffer a number means.
fn place(buffer: &BufferId) -> (Group, u16) {
    let group = if buffer.0 & STREAM_BUFFER == 0 { Group::Datagrams } else { Group::Streams };
    (group, (buffer.0 & 0xffff) as u16)
}

impl Engine for UringEngine {
    fn arm_udp(&mut self, socket: UdpIndex) {
        let side = &mut self.udp[usize::from(socket.0)];
        if !side.armed {
            side.armed = true;
            let armed = self.ring.receive_datagrams(side.socket.as_fd(), socket.0, side.wildcard);
            self.note(armed);
        }
    }

    fn disarm_udp(&mut self, socket: UdpIndex) {
        let side = &mut self.udp[usize::from(socket.0)];
        if side.armed && !side.ending {
            side.ending = true;
            let cancelled = self.ring.cancel(Token::Datagrams { socket: socket.0 });
            self.note(cancelled);
        }
    }

    fn arm_accept(&mut self, listener: ListenerIndex) {
        let (socket, arming) = &mut self.listeners[usize::from(listener.0)];
        match arming {
            Arming::Idle => {
                *arming = Arming::Armed;
                let armed = self.ring.accept(socket.as_fd(), listener.0);
                self.note(armed);
            }
            Arming::Armed => {}
            Arming::Ending { again } => *again = true,
        }
    }

    fn disarm_accept(&mut self, listener: ListenerIndex) {
        let arming = &mut self.listeners[usize::from(listener.0)].1;
        match arming {
            Arming::Idle => {}
            Arming::Armed => {
                *arming = Arming::Ending { again: false };
                let cancelled = self.ring.cancel(Token::Accept { listener: listener.0 });
                self.note(cancelled);
            }
            Arming::Ending { again } => *again = false,
        }
    }

    fn arm_receive(&mut self, id: ConnId) {
        let Some(conn) = self.conns.open(id) else { return };
        match &mut conn.receive {
            arming @ Arming::Idle => {
                *arming = Arming::Armed;
                let armed = self.ring.receive(conn.target(id.slot), id.slot, id.generation);
                self.note(armed);
            }
            Arming::Armed => {}
            Arming::Ending { again } => *again = true,
        }
    }

    fn disarm_receive(&mut self, id: ConnId) {
        let Some(conn) = self.conns.open(id) else { return };
        match &mut conn.receive {
            Arming::Idle => {}
            arming @ Arming::Armed => {
                *arming = Arming::Ending { again: false };
                let cancelled = self.ring.cancel(Token::Receive { slot: id.slot, generation: id.generation });
                self.note(cancelled);
            }
            Arming::Ending { again } => *again = false,
        }
    }

    fn harvest(&mut self, datagrams: usize, events: &mut Vec<Event>) -> io::Result<()> {
        let mut left = datagrams.min(self.answers_free());
        while left > 0
            && let Some(datagram) = self.held.pop_front()
        {
            events.push(Event::Datagram(datagram));
            left -= 1;
        }
        for _ in 0..ENTERS_PER_HARVEST {
            if self.ring.wants_enter() {
                self.ring.enter()?;
            }
            while let Some(done) = self.ring.pop() {
                self.complete(done, &mut left, events);
            }
            if left == 0 || !self.ring.wants_enter() {
                break;
            }
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    fn view(&mut self, datagram: &Datagram) -> (&[u8], &mut [u8]) {
        let side = &mut self.udp[usize::from(datagram.socket.0)];
        let bytes = self.ring.bytes(Group::Datagrams, place(&datagram.buffer).1);
        let payload = DatagramView::new(bytes, side.wildcard).map_or(&[][..], |view| view.payload());
        (payload, side.answers.room())
    }

    fn peer(&self, datagram: &Datagram) -> SocketAddr {
        let bytes = self.ring.bytes(Group::Datagrams, place(&datagram.buffer).1);
        let wildcard = self.udp[usize::from(datagram.socket.0)].wildcard;
        let view = DatagramView::new(bytes, wildcard);
        view.map_or_else(|| SocketAddr::from(([0; 4], 0)), |view| view.source().socket_addr())
    }

    fn local(&self, datagram: &Datagram) -> Option<IpAddr> {
        let bytes = self.ring.bytes(Group::Datagrams, place(&datagram.buffer).1);
        let wildcard = self.udp[usize::from(datagram.socket.0)].wildcard;
        Control::destination(DatagramView::new(bytes, wildcard)?.control())
    }

    fn queue(&mut self, datagram: Datagram, len: usize) {
        let side = &mut self.udp[usize::from(datagram.socket.0)];
        let bytes = self.ring.bytes(Group::Datagrams, place(&datagram.buffer).1);
        if let Some(view) = DatagramView::new(bytes, side.wildcard) {
            side.answers.push(&view.source(), Control::destination(view.control()), len);
        }
        self.release(datagram.buffer);
    }

    fn queued(&self, socket: UdpIndex) -> usize {
        self.udp[usize::from(socket.0)].answers.len()
    }

    fn send(&mut self, socket: UdpIndex) -> io::Result<usize> {
        let side = &mut self.udp[usize::from(socket.0)];
        match self.udp_send {
            UdpSend::Sendmmsg => side.answers.send(&side.socket),
            UdpSend::Entries => self.ring.send_batch(side.socket.as_fd(), socket.0, &mut side.answers),
        }
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
        send_one(&self.udp[usize::from(socket.0)].socket, peer, local, bytes)
    }

    fn bytes(&self, buffer: &BufferId) -> &[u8] {
        let (group, number) = place(buffer);
        self.ring.bytes(group, number)
    }

    fn release(&mut self, buffer: BufferId) {
        let (group, number) = place(&buffer);
        self.ring.give_back(group, number);
    }

    fn send_tcp(&mut self, id: ConnId, bytes: Vec<u8>, from: usize) {
        let Some(conn) = self.conns.open(id) else { return };
        conn.sending = true;
        let pushed = self.ring.send(conn.target(id.slot), id.slot, id.generation, bytes, from);
        self.note(pushed);
    }

    fn close(&mut self, id: ConnId) {
        let ConnId { slot, generation } = id;
        let Some(conn) = self.conns.open(id) else { return };
        conn.state = State::Closing;
        let (receiving, sending) = (conn.receive == Arming::Armed, conn.sending);
        if receiving {
            let cancelled = self.ring.cancel(Token::Receive { slot, generation });
            self.note(cancelled);
        }
        if sending {
            let cancelled = self.ring.cancel(Token::Send { slot, generation });
            self.note(cancelled);
        }
        self.free_if_idle(slot);
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnId> {
        self.conns.adopt(socket).map_err(|_refused| io::Error::from_raw_os_error(libc::ENFILE))
    }

    fn connections_max(&self) -> usize {
        self.conns.len()
    }

    fn loss(&self, socket: UdpIndex) -> SocketLoss {
        SocketLoss { dropped: socket_drops(&self.udp[usize::from(socket.0)].socket).into() }
    }

    async fn park(&mut self, until: MonoNs) -> io::Result<()> {
        if self.has_harvest() {
            return Ok(());
        }
        self.wake_by(until)?;
        self.ring.ring_bell(true);
        // What came before the bell was on rang nothing, but this enter shows it.
        self.ring.enter()?;
        if !self.has_harvest() && !self.ring.has_more() {
            let bell = match &mut self.bell_file {
                Some(file) => file,
                none => none.insert(self.bell.glommio_file()?),
            };
            bell.read_at(0, 8).await?;
        }
        self.ring.ring_bell(false);
        Ok(())
    }
}

#[cfg(test)]
impl UringEngine {
    /// How many buffers are out, for the conformance tests.
    pub(crate) fn lent(&self) -> usize {
        self.ring.lent(Group::Datagrams) + self.ring.lent(Group::Streams)
    }
}
