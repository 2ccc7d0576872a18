//! The engine for tests: a scripted kernel behind the seam.
//!
//! ```text
//!   the test: clients, clock ──► Kernel ◄──► SimulatedEngine ◄──► the shard's loop
//!                                  │
//!                                  └──► log: what came, what was answered, what was lost
//! ```
//!
//! [`Faults`] says how often what goes wrong; a seed decides when. The kernel asserts what the seam
//! demands of the loop: every buffer goes back exactly once, nothing that is armed is armed again,
//! one send at a time per connection, nothing is asked of what is closed. A broken rule is a panic.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use super::{BufferId, ConnId, Datagram, Engine, Event, ListenerIndex, SocketLoss, UdpIndex};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::time::{Clock as _, MonoNs};

mod kernel;
mod random;
mod streams;

pub(crate) use kernel::{Faults, Kernel, Log};
pub(crate) use random::Random;
pub(crate) use streams::PeerIndex;

/// The shard's side of a [`Kernel`].
pub(crate) struct SimulatedEngine {
    kernel: Rc<RefCell<Kernel>>,
    /// Contents of the buffers that are out.
    contents: Vec<Vec<u8>>,
    room: Box<[u8; UDP_PAYLOAD_MAX]>,
}

impl SimulatedEngine {
    pub(crate) fn new(kernel: &Rc<RefCell<Kernel>>) -> Self {
        let buffers = kernel.borrow().buffer_count();
        let contents = vec![Vec::new(); buffers];
        Self { kernel: Rc::clone(kernel), contents, room: Box::new([0; UDP_PAYLOAD_MAX]) }
    }
}

impl Engine for SimulatedEngine {
    fn arm_udp(&mut self, socket: UdpIndex) {
        self.kernel.borrow_mut().arm_udp(socket);
    }

    fn disarm_udp(&mut self, socket: UdpIndex) {
        self.kernel.borrow_mut().disarm_udp(socket);
    }

    fn arm_accept(&mut self, listener: ListenerIndex) {
        self.kernel.borrow_mut().arm_accept(listener);
    }

    fn disarm_accept(&mut self, listener: ListenerIndex) {
        self.kernel.borrow_mut().disarm_accept(listener);
    }

    fn arm_receive(&mut self, conn: ConnId) {
        self.kernel.borrow_mut().arm_receive(conn);
    }

    fn disarm_receive(&mut self, conn: ConnId) {
        self.kernel.borrow_mut().disarm_receive(conn);
    }

    fn harvest(&mut self, datagrams: usize, events: &mut Vec<Event>) -> io::Result<()> {
        let contents = &mut self.contents;
        self.kernel.borrow_mut().harvest(datagrams, events, |buffer, bytes| contents[buffer] = bytes);
        Ok(())
    }

    fn view(&mut self, datagram: &Datagram) -> (&[u8], &mut [u8]) {
        // What an earlier answer has left behind must not matter.
        self.room.fill(b'#');
        (&self.contents[datagram.buffer.0 as usize], &mut self.room[..])
    }

    fn peer(&self, datagram: &Datagram) -> SocketAddr {
        self.kernel.borrow().source(&datagram.buffer)
    }

    fn local(&self, _: &Datagram) -> Option<IpAddr> {
        None
    }

    fn queue(&mut self, datagram: Datagram, len: usize) {
        self.kernel.borrow_mut().queue(datagram, self.room[..len].to_vec());
    }

    fn queued(&self, socket: UdpIndex) -> usize {
        self.kernel.borrow().queued(socket)
    }

    fn send(&mut self, socket: UdpIndex) -> io::Result<usize> {
        self.kernel.borrow_mut().send(socket)
    }

    fn skip(&mut self, socket: UdpIndex) {
        self.kernel.borrow_mut().skip(socket);
    }

    fn send_late(
        &mut self,
        socket: UdpIndex,
        peer: SocketAddr,
        _: Option<IpAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.kernel.borrow_mut().send_late(socket, peer, bytes)
    }

    fn bytes(&self, buffer: &BufferId) -> &[u8] {
        &self.contents[buffer.0 as usize]
    }

    fn release(&mut self, buffer: BufferId) {
        self.kernel.borrow_mut().release(buffer);
    }

    fn send_tcp(&mut self, conn: ConnId, bytes: Vec<u8>, from: usize) {
        self.kernel.borrow_mut().send_tcp(conn, bytes, from);
    }

    fn close(&mut self, conn: ConnId) {
        self.kernel.borrow_mut().close(conn);
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnId> {
        // The descriptor only stands for a connection; the peer is the kernel's next guest.
        drop(socket);
        self.kernel.borrow_mut().adopt()
    }

    fn connections_max(&self) -> usize {
        self.kernel.borrow().connections_max()
    }

    fn loss(&self, socket: UdpIndex) -> SocketLoss {
        SocketLoss { dropped: self.kernel.borrow().dropped(socket) }
    }

    /// Pending until the clock, which others move, has reached `until` or something is there.
    async fn park(&mut self, until: MonoNs) -> io::Result<()> {
        self.kernel.borrow_mut().park(until);
        let mut first = true;
        std::future::poll_fn(|_| {
            let mut kernel = self.kernel.borrow_mut();
            let over = !first && (kernel.clock.now().mono >= until || kernel.has_work());
            first = false;
            if over {
                kernel.parked_until = None;
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }
}
