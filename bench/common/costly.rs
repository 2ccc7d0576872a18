//! A shard whose every answer costs more than it does in the product, so that a client on the same
//! machine can ask many times what it can answer. Only the engine is wrapped: the shard, the sockets
//! and the queues are the product's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use beast::account::Token;
use beast::engine::{
    BufferId, ConnId, Datagram, Engine, Event, ListenerIndex, PortableEngine, SocketLoss, Sockets, UdpIndex,
    UringEngine, UringOptions, run_on_glommio, run_on_thread,
};
use beast::ledger::Segment;
use beast::shard::{Control, Published};
use beast::sys::net::open_udp;
use beast::time::{Clock, MonoNs, RealClock};
use crossbeam_channel::Sender;

use super::fixture;
use super::shard::{Io, Told, told_shard_of};

/// A running costly shard on a thread of this process.
pub struct CostlyShard {
    /// Where it takes UDP.
    pub udp: SocketAddr,
    /// What it counts.
    pub published: Arc<Published>,
    control: Sender<Control>,
    thread: JoinHandle<io::Result<io::Result<()>>>,
}

impl CostlyShard {
    /// Starts it on a processor.
    ///
    /// # Errors
    /// When the engine is refused.
    pub fn start(io: Io, cost: Duration, token: &Token, cpu: Option<usize>) -> io::Result<Self> {
        Self::start_on(Segment::new(1, 0), io, cost, token, cpu)
    }

    /// As [`start`](Self::start), with its records in that place.
    ///
    /// # Errors
    /// When the engine is refused.
    pub fn start_on(
        segment: Segment,
        io: Io,
        cost: Duration,
        token: &Token,
        cpu: Option<usize>,
    ) -> io::Result<Self> {
        let udp = open_udp("127.0.0.1:0".parse().map_err(io::Error::other)?, fixture::BUFFER_LEN)?;
        let address = udp.local_addr()?;
        let sockets = Sockets { udp: vec![udp], tcp: vec![] };
        let Told { mut shard, control, published } =
            told_shard_of(fixture::answerer_on(segment, token)?, Duration::ZERO, 0)?;
        let thread = match io {
            Io::Uring => run_on_glommio(cpu, "shard-0", move || async move {
                let inner = UringEngine::new(sockets, UringOptions::default())?;
                shard.run(&mut Costly { inner, cost }, &RealClock).await
            })?,
            Io::Portable => run_on_thread(cpu, "shard-0", move || async move {
                let inner = PortableEngine::new(sockets, 16)?;
                shard.run(&mut Costly { inner, cost }, &RealClock).await
            })?,
        };
        Ok(Self { udp: address, published, control, thread })
    }

    /// Tells it to leave and waits until it has.
    ///
    /// # Errors
    /// What it ended with.
    pub fn leave(self) -> io::Result<()> {
        // One that is gone has left already.
        let _gone = self.control.send(Control::Stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
    }
}

/// An engine whose datagrams take `cost` longer to look at.
struct Costly<E> {
    inner: E,
    cost: Duration,
}

impl<E: Engine> Engine for Costly<E> {
    fn view(&mut self, datagram: &Datagram) -> (&[u8], &mut [u8]) {
        let until = RealClock.now().mono.plus(self.cost);
        while RealClock.now().mono < until {
            std::hint::spin_loop();
        }
        self.inner.view(datagram)
    }

    fn arm_udp(&mut self, socket: UdpIndex) {
        self.inner.arm_udp(socket);
    }

    fn disarm_udp(&mut self, socket: UdpIndex) {
        self.inner.disarm_udp(socket);
    }

    fn arm_accept(&mut self, listener: ListenerIndex) {
        self.inner.arm_accept(listener);
    }

    fn disarm_accept(&mut self, listener: ListenerIndex) {
        self.inner.disarm_accept(listener);
    }

    fn arm_receive(&mut self, conn: ConnId) {
        self.inner.arm_receive(conn);
    }

    fn disarm_receive(&mut self, conn: ConnId) {
        self.inner.disarm_receive(conn);
    }

    fn harvest(&mut self, datagrams: usize, events: &mut Vec<Event>) -> io::Result<()> {
        self.inner.harvest(datagrams, events)
    }

    fn peer(&self, datagram: &Datagram) -> SocketAddr {
        self.inner.peer(datagram)
    }

    fn local(&self, datagram: &Datagram) -> Option<IpAddr> {
        self.inner.local(datagram)
    }

    fn queue(&mut self, datagram: Datagram, len: usize) {
        self.inner.queue(datagram, len);
    }

    fn queued(&self, socket: UdpIndex) -> usize {
        self.inner.queued(socket)
    }

    fn send(&mut self, socket: UdpIndex) -> io::Result<usize> {
        self.inner.send(socket)
    }

    fn skip(&mut self, socket: UdpIndex) {
        self.inner.skip(socket);
    }

    fn send_late(
        &mut self,
        socket: UdpIndex,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.inner.send_late(socket, peer, local, bytes)
    }

    fn bytes(&self, buffer: &BufferId) -> &[u8] {
        self.inner.bytes(buffer)
    }

    fn release(&mut self, buffer: BufferId) {
        self.inner.release(buffer);
    }

    fn send_tcp(&mut self, conn: ConnId, bytes: Vec<u8>, from: usize) {
        self.inner.send_tcp(conn, bytes, from);
    }

    fn close(&mut self, conn: ConnId) {
        self.inner.close(conn);
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnId> {
        self.inner.adopt(socket)
    }

    fn connections_max(&self) -> usize {
        self.inner.connections_max()
    }

    fn loss(&self, socket: UdpIndex) -> SocketLoss {
        self.inner.loss(socket)
    }

    async fn park(&mut self, until: MonoNs) -> io::Result<()> {
        self.inner.park(until).await
    }
}
