//! An engine that lies in one respect, as if the loop lacked what mends it: the simulation must
//! notice.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::engine::simulated::SimulatedEngine;
use crate::engine::{BufferId, ConnId, Datagram, Engine, Event, ListenerIndex, SocketLoss, UdpIndex};
use crate::time::MonoNs;

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    /// Nothing.
    None,
    /// Sockets are armed once and never again.
    ForgetUdp,
    /// Listeners are armed once and never again.
    ForgetAccept,
    /// Connections are armed once and never again.
    ForgetReceive,
    /// What a short send has left is thrown away.
    DropShortRest,
    /// A stream's short send passes for a whole one.
    FalseSent,
    /// What a full link could not take is never sent again.
    NeverSettle,
}

pub(super) struct Mutant {
    pub(super) inner: SimulatedEngine,
    pub(super) mutation: Mutation,
    armed: Vec<UdpIndex>,
    listening: Vec<ListenerIndex>,
    receiving: Vec<ConnId>,
}

impl Mutant {
    pub(super) fn new(inner: SimulatedEngine, mutation: Mutation) -> Self {
        Self { inner, mutation, armed: Vec::new(), listening: Vec::new(), receiving: Vec::new() }
    }
}

/// Whether `what` is new to `known`, which learns it.
fn first<T: PartialEq>(known: &mut Vec<T>, what: T) -> bool {
    let first = !known.contains(&what);
    known.push(what);
    first
}

impl Engine for Mutant {
    fn arm_udp(&mut self, socket: UdpIndex) {
        if self.mutation != Mutation::ForgetUdp || first(&mut self.armed, socket) {
            self.inner.arm_udp(socket);
        }
    }

    fn disarm_udp(&mut self, socket: UdpIndex) {
        self.inner.disarm_udp(socket);
    }

    fn arm_accept(&mut self, listener: ListenerIndex) {
        if self.mutation != Mutation::ForgetAccept || first(&mut self.listening, listener) {
            self.inner.arm_accept(listener);
        }
    }

    fn disarm_accept(&mut self, listener: ListenerIndex) {
        self.inner.disarm_accept(listener);
    }

    fn arm_receive(&mut self, conn: ConnId) {
        if self.mutation != Mutation::ForgetReceive || first(&mut self.receiving, conn) {
            self.inner.arm_receive(conn);
        }
    }

    fn disarm_receive(&mut self, conn: ConnId) {
        self.inner.disarm_receive(conn);
    }

    fn harvest(&mut self, datagrams: usize, events: &mut Vec<Event>) -> io::Result<()> {
        self.inner.harvest(datagrams, events)?;
        if self.mutation == Mutation::FalseSent {
            for event in events {
                if let Event::Sent(_, bytes, Ok(taken)) = event {
                    *taken = bytes.len();
                }
            }
        }
        Ok(())
    }

    fn view(&mut self, datagram: &Datagram) -> (&[u8], &mut [u8]) {
        self.inner.view(datagram)
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
        let taken = self.inner.send(socket)?;
        while self.mutation == Mutation::DropShortRest && self.inner.queued(socket) > 0 {
            self.inner.skip(socket);
        }
        Ok(taken)
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
