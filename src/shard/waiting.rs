//! Requests that wait for a REST price: bounded, woken by news of a listing or by their deadline.

use std::net::{IpAddr, SocketAddr};

use crate::engine::{ConnId, UdpIndex};
use crate::limits::WAITING_MAX;
use crate::price::ListingId;
use crate::time::MonoNs;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) listing: ListingId,
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
#[derive(Debug, Default)]
pub(super) struct Waiting {
    waiters: Vec<Waiter>,
    /// Earliest deadline, or later: exact enough to know when to look.
    next: Option<MonoNs>,
    datagrams: usize,
}

impl Waiting {
    /// Adds a waiter; gives it back when there is no room.
    pub(super) fn add(&mut self, waiter: Waiter) -> Result<(), Waiter> {
        if !self.has_room() {
            return Err(waiter);
        }
        self.next = Some(self.next.map_or(waiter.deadline, |next| next.min(waiter.deadline)));
        self.datagrams += usize::from(matches!(waiter.who, Who::Datagram { .. }));
        self.waiters.push(waiter);
        Ok(())
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiters.len() < WAITING_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// When the first one must be told.
    pub(super) fn deadline(&self) -> MonoNs {
        self.next.unwrap_or(MonoNs::NEVER)
    }

    /// Takes out those that `wake` wants, oldest first.
    pub(super) fn take(&mut self, wake: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let mut taken = Vec::new();
        let mut at = 0;
        while at < self.waiters.len() {
            if wake(&self.waiters[at]) {
                taken.push(self.waiters.remove(at));
            } else {
                at += 1;
            }
        }
        self.datagrams -= taken.iter().filter(|w| matches!(w.who, Who::Datagram { .. })).count();
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
        Waiter { listing: ListingId::new(listing).unwrap(), deadline: MonoNs(deadline), who }
    }

    #[test]
    fn waiters_leave_by_listing_by_deadline_and_with_their_connection() {
        let mut waiting = Waiting::default();
        for n in 0..4 {
            waiting.add(waiter(n, 100 - n as u64)).unwrap();
        }
        assert_eq!(waiting.deadline(), MonoNs(97));
        assert_eq!(waiting.take(|w| w.listing.index() == 3).len(), 1);
        assert_eq!(waiting.deadline(), MonoNs(98));
        assert_eq!(waiting.take(|w| w.deadline <= MonoNs(99)).len(), 2);
        assert!(waiting.forget(ConnId { slot: 0, generation: 1 }));
        assert!(!waiting.forget(ConnId { slot: 0, generation: 1 }));
        assert!(waiting.is_empty() && waiting.deadline() == MonoNs::NEVER);
    }

    #[test]
    fn there_is_a_bound() {
        let mut waiting = Waiting::default();
        for _ in 0..WAITING_MAX {
            waiting.add(waiter(1, 1)).unwrap();
        }
        assert!(waiting.add(waiter(1, 1)).is_err());
        assert_eq!(waiting.counts(), (0, WAITING_MAX));
    }
}
