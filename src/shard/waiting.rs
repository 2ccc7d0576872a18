//! Requests that wait for a REST price: bounded, woken by news of a listing or by their deadline.

use std::net::{IpAddr, SocketAddr};

use crate::engine::{ConnId, UdpIndex};
use crate::limits::{ASSETS_MAX, WAITING_MAX};
use crate::price::{AssetId, ListingId};
use crate::time::MonoNs;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) listing: ListingId,
    /// What the listing prices.
    pub(super) asset: AssetId,
    pub(super) deadline: MonoNs,
    pub(super) who: Who,
}

/// Who waits.
#[derive(Debug)]
pub(super) enum Who {
    /// A datagram, kept whole.
    Datagram { socket: UdpIndex, peer: SocketAddr, local: Option<IpAddr>, request: Vec<u8> },
    /// A connection, whose input begins with the request.
    Conn(ConnId),
}

/// All that wait on one shard.
#[derive(Debug)]
pub(super) struct Waiting {
    waiters: Vec<Waiter>,
    /// Earliest deadline, or later: exact enough to know when to look.
    next: Option<MonoNs>,
    datagrams: usize,
    /// How many wait for each asset: prices that nobody waits for cost one look.
    by_asset: Box<[u16; ASSETS_MAX]>,
}

const _: () = assert!(WAITING_MAX <= u16::MAX as usize);

impl Default for Waiting {
    fn default() -> Self {
        Self { waiters: Vec::new(), next: None, datagrams: 0, by_asset: Box::new([0; ASSETS_MAX]) }
    }
}

impl Waiting {
    /// Adds a waiter, for whom there must be room.
    pub(super) fn add(&mut self, waiter: Waiter) {
        debug_assert!(self.has_room(), "whoever adds has asked for room");
        self.next = Some(self.next.map_or(waiter.deadline, |next| next.min(waiter.deadline)));
        self.datagrams += usize::from(matches!(waiter.who, Who::Datagram { .. }));
        self.by_asset[waiter.asset.index()] += 1;
        self.waiters.push(waiter);
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiters.len() < WAITING_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether somebody waits for a price of this asset.
    pub(super) fn is_for(&self, asset: AssetId) -> bool {
        self.by_asset[asset.index()] > 0
    }

    /// When the first one must be told.
    pub(super) fn deadline(&self) -> MonoNs {
        self.next.unwrap_or(MonoNs::NEVER)
    }

    /// Takes out those that `wake` wants, oldest first.
    pub(super) fn take(&mut self, wake: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let taken: Vec<Waiter> = self.waiters.extract_if(.., |w| wake(w)).collect();
        for waiter in &taken {
            self.datagrams -= usize::from(matches!(waiter.who, Who::Datagram { .. }));
            self.by_asset[waiter.asset.index()] -= 1;
        }
        self.next = self.waiters.iter().map(|w| w.deadline).min();
        taken
    }

    /// Takes out a connection that has gone; `true` when it waited.
    pub(super) fn forget(&mut self, conn: ConnId) -> bool {
        !self.take(|w| matches!(w.who, Who::Conn(id) if id == conn)).is_empty()
    }

    /// How many datagrams and how many connections wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.datagrams, self.waiters.len() - self.datagrams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(listing: usize, deadline: u64) -> Waiter {
        let who = Who::Conn(ConnId { slot: listing as u32, generation: 1 });
        let asset = AssetId::new(listing + 10).unwrap();
        Waiter { listing: ListingId::new(listing).unwrap(), asset, deadline: MonoNs(deadline), who }
    }

    #[test]
    fn waiters_leave_by_listing_by_deadline_and_with_their_connection() {
        let mut waiting = Waiting::default();
        for n in 0..4 {
            waiting.add(waiter(n, 100 - n as u64));
        }
        let (waited_for, other) = (AssetId::new(13).unwrap(), AssetId::new(3).unwrap());
        assert!(waiting.is_for(waited_for) && !waiting.is_for(other));
        assert_eq!(waiting.deadline(), MonoNs(97));
        assert_eq!(waiting.take(|w| w.listing.index() == 3).len(), 1);
        assert_eq!(waiting.deadline(), MonoNs(98));
        assert!(!waiting.is_for(waited_for));
        assert_eq!(waiting.take(|w| w.deadline <= MonoNs(99)).len(), 2);
        assert!(waiting.forget(ConnId { slot: 0, generation: 1 }));
        assert!(!waiting.forget(ConnId { slot: 0, generation: 1 }));
        assert!(waiting.is_empty() && waiting.deadline() == MonoNs::NEVER);
    }

    #[test]
    fn there_is_a_bound() {
        let mut waiting = Waiting::default();
        for _ in 0..WAITING_MAX {
            assert!(waiting.has_room());
            waiting.add(waiter(1, 1));
        }
        assert!(!waiting.has_room());
        assert_eq!(waiting.counts(), (0, WAITING_MAX));
    }
}
