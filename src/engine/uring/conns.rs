//! The connections of a ring: which of its slots are in use, and which operations each still has
//! under way.
//!
//! ```text
//!            accepted, adopted               close                 nothing under way
//!   Free ─────────────────────────► Open ─────────────► Closing ─────────────────────► Free
//!                                                                   generation + 1
//! ```
//!
//! A slot is free for the next connection only when no operation of the last one is under way, so
//! no completion can be mistaken for another connection's.

use std::os::fd::{AsFd, OwnedFd};

use crate::engine::ConnId;
use crate::sys::ring::Target;

/// What has been asked for of something that completes many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arming {
    /// Nothing.
    #[default]
    Idle,
    /// It is under way.
    Armed,
    /// It was cancelled and has not ended yet.
    Ending {
        /// It has been asked for again meanwhile.
        again: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Free,
    Open,
    Closing,
}

#[derive(Debug, Default)]
pub(super) struct Conn {
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) receive: Arming,
    pub(super) sending: bool,
    /// The descriptor of an adopted connection; others are direct descriptors numbered like their
    /// slot.
    plain: Option<OwnedFd>,
}

impl Conn {
    /// The socket, as the ring knows it.
    pub(super) fn target(&self, slot: u32) -> Target<'_> {
        self.plain.as_ref().map_or(Target::Direct(slot), |fd| Target::Plain(fd.as_fd()))
    }

    /// Whether an operation is under way.
    pub(super) fn busy(&self) -> bool {
        self.sending || self.receive != Arming::Idle
    }
}

/// How a freed slot's socket is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Freed {
    /// The ring must close the direct descriptor of this number.
    Direct(u32),
    /// The descriptor has been closed.
    Plain,
}

/// All slots: first those of direct descriptors, then those of adopted sockets.
#[derive(Debug)]
pub(super) struct Conns {
    slots: Box<[Conn]>,
    adopted_free: Vec<u32>,
}

impl Conns {
    pub(super) fn new(direct_max: u32, adopted_max: u32) -> Self {
        let all = direct_max.saturating_add(adopted_max);
        let slots = std::iter::repeat_with(Conn::default).take(all as usize);
        Self { slots: slots.collect(), adopted_free: (direct_max..all).rev().collect() }
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A slot that has no end in sight: whatever connection it holds.
    pub(super) fn slot(&mut self, slot: u32) -> &mut Conn {
        &mut self.slots[slot as usize]
    }

    /// An open connection; `None` once it is closing or gone.
    pub(super) fn open(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|c| c.generation == id.generation && c.state == State::Open)
    }

    /// Notes an accepted connection in the slot the kernel chose; `None` when that slot is in use,
    /// which the kernel never does.
    pub(super) fn accepted(&mut self, slot: u32) -> Option<ConnId> {
        let conn = self.slots.get_mut(slot as usize).filter(|c| c.state == State::Free)?;
        conn.state = State::Open;
        Some(ConnId { slot, generation: conn.generation })
    }

    /// Finds a slot for a socket opened elsewhere; gives it back when there is none.
    pub(super) fn adopt(&mut self, socket: OwnedFd) -> Result<ConnId, OwnedFd> {
        let Some(slot) = self.adopted_free.pop() else { return Err(socket) };
        let conn = &mut self.slots[slot as usize];
        (conn.state, conn.plain) = (State::Open, Some(socket));
        Ok(ConnId { slot, generation: conn.generation })
    }

    /// Frees a closing slot if nothing is under way on it any more.
    pub(super) fn free_if_idle(&mut self, slot: u32) -> Option<Freed> {
        let conn = self.slots.get_mut(slot as usize)?;
        if conn.state != State::Closing || conn.busy() {
            return None;
        }
        conn.state = State::Free;
        conn.generation = conn.generation.wrapping_add(1);
        if conn.plain.take().is_some() {
            self.adopted_free.push(slot);
            return Some(Freed::Plain);
        }
        Some(Freed::Direct(slot))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_slot_is_reused_only_when_its_last_operation_is_over() {
        let mut conns = Conns::new(2, 0);
        let first = conns.accepted(1).unwrap();
        assert_eq!(conns.accepted(1), None, "the slot is in use");
        conns.slot(1).sending = true;
        conns.slot(1).receive = Arming::Armed;
        conns.slot(1).state = State::Closing;
        assert!(conns.open(first).is_none());
        assert_eq!(conns.free_if_idle(1), None);
        conns.slot(1).sending = false;
        assert_eq!(conns.free_if_idle(1), None);
        conns.slot(1).receive = Arming::Idle;
        assert_eq!(conns.free_if_idle(1), Some(Freed::Direct(1)));
        assert_eq!(conns.free_if_idle(1), None);
        let second = conns.accepted(1).unwrap();
        assert_ne!(first, second);
        assert!(conns.open(first).is_none() && conns.open(second).is_some());
    }

    #[test]
    fn adopted_sockets_have_slots_of_their_own() {
        let socket = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut conns = Conns::new(3, 1);
        let id = conns.adopt(socket()).unwrap();
        assert_eq!((id.slot, conns.len()), (3, 4));
        assert!(conns.adopt(socket()).is_err());
        conns.slot(3).state = State::Closing;
        assert_eq!(conns.free_if_idle(3), Some(Freed::Plain));
        assert_eq!(conns.adopt(socket()).unwrap().generation, id.generation + 1);
    }
}
