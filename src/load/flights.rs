//! Requests under way on one socket. An id names a slot and how often the slot was used, so an
//! answer finds its request at once, and one that comes late or twice is known for what it is.
//!
//! ```text
//! id   63      48 47            16 15        0
//!      [ socket  |  generation    |   slot   ]
//! ```

use std::time::Duration;

use crate::time::MonoNs;

/// What an answer's id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// A request that was waited for, after this long.
    InTime(Duration),
    /// A request that had been given up.
    Late,
    /// A request that has been answered before.
    Duplicate,
    /// No request of this socket.
    NotOurs,
}

pub(crate) struct Flights {
    socket: u16,
    slots: Box<[Slot]>,
    free: Vec<u16>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    from: MonoNs,
    generation: u32,
    /// The generation last given up, 0 when there is none or its answer came late.
    overdue: u32,
    waiting: bool,
}

impl Flights {
    /// Most requests under way on a socket.
    pub(crate) const MOST: usize = 1 << 16;

    /// Room for `most` requests at a time, between 1 and [`MOST`](Self::MOST).
    pub(crate) fn new(socket: u16, most: usize) -> Self {
        let most = most.clamp(1, Self::MOST);
        let free = (0..most).rev().filter_map(|slot| u16::try_from(slot).ok()).collect();
        Self { socket, slots: vec![Slot::default(); most].into(), free }
    }

    /// How many more may depart.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A request departs that should have left at `from`. Returns its id, or `None` when as many as
    /// may be are under way.
    pub(crate) fn depart(&mut self, from: MonoNs) -> Option<u64> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        // Generation 0 is never issued: 0 marks "none" in `overdue`.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.from = from;
        slot.waiting = true;
        Some(u64::from(self.socket) << 48 | u64::from(slot.generation) << 16 | u64::from(index))
    }

    /// A request that departed did not leave after all.
    pub(crate) fn cancel(&mut self, id: u64) {
        let (_, generation, index) = split(id);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        if slot.waiting && slot.generation == generation {
            slot.waiting = false;
            self.free.push(index);
        }
    }

    /// An answer with this id has come.
    pub(crate) fn land(&mut self, id: u64, now: MonoNs) -> Landing {
        let (socket, generation, index) = split(id);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return Landing::NotOurs };
        if socket != self.socket || generation == 0 || generation > slot.generation {
            return Landing::NotOurs;
        }
        if slot.waiting && generation == slot.generation {
            slot.waiting = false;
            self.free.push(index);
            return Landing::InTime(now.since(slot.from));
        }
        if generation == slot.overdue {
            slot.overdue = 0;
            return Landing::Late;
        }
        Landing::Duplicate
    }

    /// Gives up what should have left longer than `lost_after` ago. Returns how many that were.
    pub(crate) fn expire(&mut self, now: MonoNs, lost_after: Duration) -> u64 {
        let mut given_up = 0;
        for (index, slot) in (0..=u16::MAX).zip(&mut self.slots) {
            if slot.waiting && now.since(slot.from) > lost_after {
                slot.waiting = false;
                slot.overdue = slot.generation;
                self.free.push(index);
                given_up += 1;
            }
        }
        given_up
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each part is cut out of the id")]
fn split(id: u64) -> (u16, u32, u16) {
    ((id >> 48) as u16, (id >> 16) as u32, id as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_known_for_what_it_is() {
        let mut flights = Flights::new(3, 2);
        let first = flights.depart(MonoNs(10)).unwrap();
        let second = flights.depart(MonoNs(20)).unwrap();
        assert_eq!(flights.depart(MonoNs(30)), None, "the window is full");
        assert_eq!(flights.land(first, MonoNs(110)), Landing::InTime(Duration::from_nanos(100)));
        assert_eq!(flights.land(first, MonoNs(120)), Landing::Duplicate);
        assert_eq!(flights.expire(MonoNs(1_000), Duration::from_nanos(500)), 1);
        let third = flights.depart(MonoNs(1_000)).unwrap();
        assert_eq!(flights.land(second, MonoNs(1_100)), Landing::Late);
        assert_eq!(flights.land(second, MonoNs(1_200)), Landing::Duplicate);
        assert_eq!((flights.waiting(), flights.free()), (1, 1));
        flights.cancel(third);
        assert_eq!((flights.waiting(), flights.free()), (0, 2));
    }

    #[test]
    fn ids_of_others_are_not_ours() {
        let mut flights = Flights::new(3, 2);
        let ours = flights.depart(MonoNs(10)).unwrap();
        for foreign in [ours ^ 1 << 48, ours + (1 << 16), ours & !(0xffff_ffff << 16), ours | 0xff] {
            assert_eq!(flights.land(foreign, MonoNs(20)), Landing::NotOurs, "{foreign:x}");
        }
    }

    #[test]
    fn the_largest_window_uses_every_slot_once() {
        let mut flights = Flights::new(0, usize::MAX);
        let mut ids: Vec<_> = std::iter::from_fn(|| flights.depart(MonoNs(0))).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Flights::MOST);
        assert_eq!(flights.expire(MonoNs(2), Duration::from_nanos(1)), Flights::MOST as u64);
    }
}
