//! Requests under way on one socket. An id names a slot and how often the slot was used, so an
//! answer finds its request at once, and one that comes late or twice is known for what it is.
//!
//! ```text
//! id   63      48 47            16 15        0
//!      [ socket  |  generation    |   slot   ]
//! ```

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::requests::WireId;
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
    slots: Vec<Slot>,
    free: VecDeque<u16>,
    /// How much of an id an answer brings back.
    wire_id: WireId,
    /// Ids in the order of their departure, when answers bring none back.
    order: VecDeque<u64>,
    /// The slot that is looked at next for being overdue.
    sweep_at: usize,
    given_up: GivenUp,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    from: MonoNs,
    generation: u32,
    waiting: bool,
}

/// Requests given up whose answers have not come since. A slot alone cannot know them all: it is given
/// up again and again while a server stands still, or when the generator itself was not running and
/// all it sends is overdue as it leaves.
#[derive(Default)]
struct GivenUp {
    ids: HashSet<u64>,
    /// The same and some that were answered since, oldest first.
    order: VecDeque<u64>,
}

impl GivenUp {
    /// Most of them; the oldest are forgotten first, and their answers count as duplicates. A guess: a
    /// socket that loses 10,000 requests a second knows them for 6 s. More takes more memory, 3 MiB a
    /// socket as it is.
    const MOST: usize = 1 << 16;

    fn add(&mut self, id: u64) {
        if self.order.len() == Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id);
        self.ids.insert(id);
    }

    /// Whether that one was given up, which is told only once.
    fn take(&mut self, id: u64) -> bool {
        self.ids.remove(&id)
    }
}

impl Flights {
    /// Most requests under way on a socket.
    pub(crate) const MOST: usize = 1 << 16;

    /// Room for `most` requests at a time, between 1 and [`MOST`](Self::MOST).
    pub(crate) fn new(socket: u16, most: usize, wire_id: WireId) -> Self {
        let (slots, free, order) = (Vec::new(), VecDeque::new(), VecDeque::new());
        let given_up = GivenUp::default();
        let mut flights = Self { socket, slots, free, wire_id, order, sweep_at: 0, given_up };
        flights.grow(most);
        flights
    }

    /// Makes room for `most` requests at a time, if there is not.
    pub(crate) fn grow(&mut self, most: usize) {
        for slot in self.slots.len()..most.clamp(1, Self::MOST) {
            self.slots.push(Slot::default());
            self.free.extend(u16::try_from(slot));
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A request departs that should have left at `from`. Returns its id, or `None` when as many as
    /// may be are under way.
    pub(crate) fn depart(&mut self, from: MonoNs) -> Option<u64> {
        let index = self.free.pop_front()?;
        let slot = &mut self.slots[usize::from(index)];
        // Generation 0 is never issued: it is that of a slot that was never used.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.from = from;
        slot.waiting = true;
        let id = id_of(self.socket, slot.generation, index);
        if self.wire_id == WireId::None {
            self.forget_given_up();
            self.order.push_back(id);
        }
        Some(id)
    }

    /// The whole id, from what an answer brings back of it.
    pub(crate) fn whole(&mut self, told: u64) -> u64 {
        let (_, generation, index) = split(told);
        match self.wire_id {
            WireId::Whole => told,
            WireId::Low16 | WireId::Low32 => {
                let slot = self.slots.get(usize::from(index)).copied().unwrap_or_default();
                let full = match self.wire_id {
                    WireId::Low32 => {
                        let newest = slot.generation & !0xffff | generation & 0xffff;
                        // What seems to come from the future was used before its low part began anew.
                        if newest > slot.generation { newest.saturating_sub(1 << 16) } else { newest }
                    }
                    _ => slot.generation,
                };
                id_of(self.socket, full, index)
            }
            WireId::None => {
                // Those that were given up have left their place in the order behind.
                while let Some(id) = self.order.pop_front() {
                    if self.is_waiting(id) {
                        return id;
                    }
                }
                u64::MAX
            }
        }
    }

    fn is_waiting(&self, id: u64) -> bool {
        let (_, generation, index) = split(id);
        self.slots.get(usize::from(index)).is_some_and(|slot| slot.waiting && slot.generation == generation)
    }

    /// Drops the oldest that are no longer waited for: where no answer comes, nobody else does.
    fn forget_given_up(&mut self) {
        while self.order.front().is_some_and(|id| !self.is_waiting(*id)) {
            self.order.pop_front();
        }
    }

    /// A slot is free again. The next request takes the one that was freed last, which is warm; but
    /// where an id tells slots apart only, the one that was freed first, so that a late answer is not
    /// taken for another's.
    fn release(&mut self, index: u16) {
        match self.wire_id {
            WireId::Whole | WireId::None => self.free.push_front(index),
            WireId::Low16 | WireId::Low32 => self.free.push_back(index),
        }
    }

    /// A request that departed did not leave after all.
    pub(crate) fn cancel(&mut self, id: u64) {
        let (_, generation, index) = split(id);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        if slot.waiting && slot.generation == generation {
            slot.waiting = false;
            self.release(index);
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
            let latency = now.since(slot.from);
            self.release(index);
            return Landing::InTime(latency);
        }
        if self.given_up.take(id) { Landing::Late } else { Landing::Duplicate }
    }

    /// Gives up what should have left longer than `lost_after` ago. Returns how many that were.
    pub(crate) fn expire(&mut self, now: MonoNs, lost_after: Duration) -> u64 {
        self.expire_some(now, lost_after, self.slots.len())
    }

    /// As [`expire`](Self::expire), of the next `count` slots only: all of them at once take so long
    /// that answers would seem late.
    pub(crate) fn expire_some(&mut self, now: MonoNs, lost_after: Duration, count: usize) -> u64 {
        let mut given_up = 0;
        for _ in 0..count.min(self.slots.len()) {
            let index = self.sweep_at;
            self.sweep_at = (index + 1) % self.slots.len();
            let slot = &mut self.slots[index];
            // There are no more slots than a u16 has numbers.
            if let Ok(index) = u16::try_from(index)
                && slot.waiting
                && now.since(slot.from) > lost_after
            {
                slot.waiting = false;
                given_up += 1;
                let id = id_of(self.socket, slot.generation, index);
                self.given_up.add(id);
                self.release(index);
            }
        }
        given_up
    }
}

fn id_of(socket: u16, generation: u32, index: u16) -> u64 {
    u64::from(socket) << 48 | u64::from(generation) << 16 | u64::from(index)
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
        let mut flights = Flights::new(3, 2, WireId::Whole);
        let first = flights.depart(MonoNs(10)).unwrap();
        let second = flights.depart(MonoNs(20)).unwrap();
        assert_eq!(flights.depart(MonoNs(30)), None, "the window is full");
        assert_eq!(flights.land(first, MonoNs(110)), Landing::InTime(Duration::from_nanos(100)));
        assert_eq!(flights.land(first, MonoNs(120)), Landing::Duplicate);
        assert_eq!(flights.expire(MonoNs(1_000), Duration::from_nanos(500)), 1);
        let third = flights.depart(MonoNs(1_000)).unwrap();
        assert_eq!(flights.land(second, MonoNs(1_100)), Landing::Late);
        assert_eq!(flights.land(second, MonoNs(1_200)), Landing::Duplicate);
        assert_eq!((flights.waiting(), flights.free.len()), (1, 1));
        flights.cancel(third);
        assert_eq!((flights.waiting(), flights.free.len()), (0, 2));
    }

    #[test]
    fn every_request_given_up_is_late_once_however_often_its_slot_was_used_since() {
        let mut flights = Flights::new(3, 2, WireId::Whole);
        let mut given_up = Vec::new();
        for round in 0..100 {
            // Two that are overdue as they leave, and in the same slots one that is answered.
            let (sent, now) = (MonoNs(round * 10), MonoNs(round * 10 + 1_000));
            given_up.extend([flights.depart(sent).unwrap(), flights.depart(sent).unwrap()]);
            assert_eq!(flights.expire(now, Duration::from_nanos(500)), 2);
            let answered = flights.depart(now).unwrap();
            assert!(matches!(flights.land(answered, now), Landing::InTime(_)));
            assert_eq!(flights.land(answered, now), Landing::Duplicate);
        }
        for expected in [Landing::Late, Landing::Duplicate] {
            for id in &given_up {
                assert_eq!(flights.land(*id, MonoNs(9_999)), expected, "{id:x}");
            }
        }
    }

    #[test]
    fn what_was_given_up_longest_ago_is_forgotten_first() {
        let mut given_up = GivenUp::default();
        let most = GivenUp::MOST as u64;
        for id in 0..most + 10 {
            given_up.add(id);
        }
        assert_eq!(given_up.order.len(), GivenUp::MOST);
        assert!(!given_up.take(9) && given_up.take(10) && given_up.take(most + 9));
    }

    #[test]
    fn ids_of_others_are_not_ours() {
        let mut flights = Flights::new(3, 2, WireId::Whole);
        let ours = flights.depart(MonoNs(10)).unwrap();
        for foreign in [ours ^ 1 << 48, ours + (1 << 16), ours & !(0xffff_ffff << 16), ours | 0xff] {
            assert_eq!(flights.land(foreign, MonoNs(20)), Landing::NotOurs, "{foreign:x}");
        }
    }

    #[test]
    fn the_largest_window_uses_every_slot_once() {
        let mut flights = Flights::new(0, usize::MAX, WireId::Whole);
        let mut ids: Vec<_> = std::iter::from_fn(|| flights.depart(MonoNs(0))).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Flights::MOST);
        assert_eq!(flights.expire(MonoNs(2), Duration::from_nanos(1)), Flights::MOST as u64);
    }

    #[test]
    fn short_ids_are_made_whole() {
        for (wire_id, mask) in [(WireId::Low16, 0xffff), (WireId::Low32, 0xffff_ffff)] {
            let mut flights = Flights::new(9, 3, wire_id);
            for round in 0..200_000 {
                let id = flights.depart(MonoNs(round)).unwrap();
                assert_eq!(flights.whole(id & mask), id);
                assert!(matches!(flights.land(id, MonoNs(round)), Landing::InTime(_)));
                let again = flights.whole(id & mask);
                assert_eq!(flights.land(again, MonoNs(round)), Landing::Duplicate);
            }
            let none = flights.whole(3);
            assert_eq!(flights.land(none, MonoNs(0)), Landing::NotOurs);
        }
    }

    #[test]
    fn without_ids_answers_belong_to_the_oldest_request() {
        let mut flights = Flights::new(9, 3, WireId::None);
        let ids: Vec<_> = (0..3).map(|n| flights.depart(MonoNs(n * 100)).unwrap()).collect();
        assert_eq!(flights.expire(MonoNs(150), Duration::from_nanos(100)), 1);
        assert_eq!(flights.whole(0), ids[1]);
        flights.land(ids[1], MonoNs(160));
        assert_eq!(flights.whole(0), ids[2]);
        flights.land(ids[2], MonoNs(160));
        let none = flights.whole(0);
        assert_eq!(flights.land(none, MonoNs(160)), Landing::NotOurs);
    }

    #[test]
    fn what_nobody_answers_is_not_kept() {
        let mut flights = Flights::new(9, 3, WireId::None);
        for n in 0..10_000 {
            flights.depart(MonoNs(n)).unwrap();
            flights.expire(MonoNs(n + 2), Duration::from_nanos(1));
        }
        assert!(flights.order.len() <= 4, "{}", flights.order.len());
    }
}
