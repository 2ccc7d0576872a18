//! The seam between what the bytes mean and how the kernel moves them.
//!
//! A shard's loop is one function over [`Engine`]; three engines stand behind it: *uring* (a raw
//! ring driven from a task of the shard's glommio executor), *portable* (epoll, `recvmmsg`,
//! `sendmmsg`) and *simulated* (a scripted kernel for tests). The seam is low on purpose: short
//! sends, ended multishots and refused calls reach the loop as they are, so that what mends them is
//! written once and tested under simulation.
//!
//! ```text
//!            arm_*             harvest                    queue            send
//!   loop ───────────► engine ───────────► Event::Datagram ──────► engine ───────► kernel
//!                        ▲                     │ view: request bytes + room for the answer
//!                        └──────── release ────┘
//! ```
//!
//! Buffers are lent by index: a [`BufferId`] is neither `Copy` nor `Clone`, so each one goes back
//! exactly once, by `queue` (which sends and then releases) or by `release`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::time::MonoNs;

#[cfg(test)]
mod conformance;
mod portable;
pub mod probe;
#[cfg(test)]
pub(crate) mod simulated;
mod thread;
mod uring;

pub use portable::PortableEngine;
pub use thread::run_on_thread;
pub use uring::{STREAM_BUFFER_LEN, UdpSend, UringEngine, UringOptions, run_on_glommio};

/// The sockets a shard brings to its engine, opened by [`crate::sys::net`]. Their positions are
/// their [`UdpIndex`] and [`ListenerIndex`].
#[derive(Debug, Default)]
pub struct Sockets {
    /// Bound, non-blocking.
    pub udp: Vec<UdpSocket>,
    /// Listening, non-blocking.
    pub tcp: Vec<TcpListener>,
}

/// Which of a shard's UDP sockets, in the order they were given to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpIndex(pub u8);

/// Which of a shard's TCP listeners, in the order they were given to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerIndex(pub u8);

/// A connection of this engine. `generation` tells apart connections that used one slot in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Dense index below the engine's connection limit; free to index tables with.
    pub slot: u32,
    /// Rises each time the slot is used again.
    pub generation: u32,
}

/// A buffer lent by the engine.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(pub(crate) u32);

/// A datagram in a lent buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The socket it came in on and its answer leaves by.
    pub socket: UdpIndex,
    /// Where it lies.
    pub buffer: BufferId,
    /// It was longer than the buffer; only its beginning is there.
    pub truncated: bool,
}

/// What became of something that was armed or sent.
#[derive(Debug)]
pub enum Event {
    /// A datagram came.
    Datagram(Datagram),
    /// A datagram that [`Engine::send`] had taken failed after all, with this error number. Only where
    /// answers go out as entries of a ring.
    SendFailed(UdpIndex, i32),
    /// The socket is no longer armed for receiving; arm it again. `NoBuffers` is the usual cause.
    UdpEnded(UdpIndex, Ended),
    /// A connection was accepted and is not yet armed for receiving.
    Accepted(ListenerIndex, ConnId),
    /// The listener is no longer armed; arm it again.
    AcceptEnded(ListenerIndex, Ended),
    /// Bytes came on a connection.
    Received(ConnId, BufferId),
    /// The connection is no longer armed for receiving: arm again, or close it when the peer has.
    ReceiveEnded(ConnId, Ended),
    /// A send is over: `Ok` is how many bytes the kernel took, maybe fewer than were given. The
    /// vector is the one given to [`Engine::send_tcp`].
    Sent(ConnId, Vec<u8>, io::Result<usize>),
}

/// Why something armed has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer has closed its side.
    Closed,
    /// All lent buffers are out; more will be when some are released.
    NoBuffers,
    /// As many connections are there as may be: one more came and was closed.
    Full,
    /// It was disarmed, or the kernel ended it without an error.
    Quiet,
    /// The kernel's error number.
    Error(i32),
}

/// Kernel-side loss of one UDP socket since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLoss {
    /// Datagrams dropped because the receive buffer was full (`SO_MEMINFO`).
    pub dropped: u64,
}

/// What a shard's loop asks of the kernel. No method blocks but [`park`](Self::park).
pub trait Engine {
    /// Asks for datagrams on a socket until [`Event::UdpEnded`].
    fn arm_udp(&mut self, socket: UdpIndex);

    /// Stops asking for datagrams of a socket that is armed: others that share it may take them.
    /// Those already taken still come, and an [`Event::UdpEnded`] once no more are taken.
    fn disarm_udp(&mut self, socket: UdpIndex);

    /// Asks for connections on a listener until [`Event::AcceptEnded`].
    fn arm_accept(&mut self, listener: ListenerIndex);

    /// Stops asking for connections; the listener stays open until the engine is dropped. Connections
    /// already taken still come, and maybe an [`Event::AcceptEnded`] with [`Ended::Quiet`].
    fn disarm_accept(&mut self, listener: ListenerIndex);

    /// Asks for a connection's bytes until [`Event::ReceiveEnded`].
    fn arm_receive(&mut self, conn: ConnId);

    /// Stops asking for a connection's bytes: the peer must wait. Bytes already taken still come, and
    /// maybe an [`Event::ReceiveEnded`] with [`Ended::Quiet`].
    fn disarm_receive(&mut self, conn: ConnId);

    /// Hands all that was asked for to the kernel and appends what it has finished to `events`:
    /// at most `datagrams` datagrams and any number of other events.
    ///
    /// # Errors
    /// Only when the engine itself is broken and the process must end.
    fn harvest(&mut self, datagrams: usize, events: &mut Vec<Event>) -> io::Result<()>;

    /// The request's bytes and room of [`UDP_PAYLOAD_MAX`](crate::limits::UDP_PAYLOAD_MAX) bytes
    /// for its answer, which [`queue`](Self::queue) must follow at once if it is to be sent.
    fn view(&mut self, datagram: &Datagram) -> (&[u8], &mut [u8]);

    /// Source address of a datagram.
    fn peer(&self, datagram: &Datagram) -> SocketAddr;

    /// The address a datagram was sent to, where the socket is bound to a wildcard.
    fn local(&self, datagram: &Datagram) -> Option<IpAddr>;

    /// Queues the `len` bytes written to the room of [`view`](Self::view) as the answer to
    /// `datagram`: back to its source, from the address that was asked.
    fn queue(&mut self, datagram: Datagram, len: usize);

    /// Answers queued on a socket and not yet sent or skipped.
    fn queued(&self, socket: UdpIndex) -> usize;

    /// Sends queued answers of one socket, oldest first, by one call of the kernel. Returns how many
    /// it took, maybe fewer than queued; those leave the queue and their buffers are released.
    ///
    /// # Errors
    /// The kernel's error for the oldest queued answer; `WouldBlock` when the socket is full.
    fn send(&mut self, socket: UdpIndex) -> io::Result<usize>;

    /// Gives up the oldest queued answer of a socket and releases its buffer.
    fn skip(&mut self, socket: UdpIndex);

    /// Sends one datagram outside the queue: answers whose request has waited.
    ///
    /// # Errors
    /// The kernel's.
    fn send_late(
        &mut self,
        socket: UdpIndex,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> io::Result<()>;

    /// The bytes of an [`Event::Received`].
    fn bytes(&self, buffer: &BufferId) -> &[u8];

    /// Gives a buffer back unsent.
    fn release(&mut self, buffer: BufferId);

    /// Sends `bytes[from..]` on a connection; [`Event::Sent`] returns the vector. One send at a time
    /// per connection.
    fn send_tcp(&mut self, conn: ConnId, bytes: Vec<u8>, from: usize);

    /// Closes a connection. No event of it follows; a send under way is abandoned.
    fn close(&mut self, conn: ConnId);

    /// Takes a connected, non-blocking stream socket that was opened elsewhere. It is not yet armed.
    ///
    /// # Errors
    /// When the engine's connection limit is reached.
    fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnId>;

    /// Most connections at a time; `slot` of every [`ConnId`] is below it.
    fn connections_max(&self) -> usize;

    /// Loss counted by the kernel on a UDP socket.
    fn loss(&self, socket: UdpIndex) -> SocketLoss;

    /// Waits until something is there to harvest or `until` is reached, whichever is first; may
    /// return early.
    fn park(&mut self, until: MonoNs) -> impl Future<Output = io::Result<()>>;
}
