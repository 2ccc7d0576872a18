//! What all shards share about limited keys: one cache line per key, in one plain array.
//!
//! ```text
//!   slot   0        8               16             64 bytes
//!          │ owner  │ paid_until_ns │ month, used  │ …
//! ```
//!
//! `paid_until_ns` is the theoretical arrival time of GCRA on the monotonic clock: the instant up to
//! which what was taken is paid for. `month` and `used` share a word, so that a new month and its
//! first request are one exchange. Shards touch a slot only to take a lease (see
//! [`Limiter`](super::Limiter)); nothing here waits, and nothing allocates once the array is there.
//!
//! The array is a hash table over persistent key numbers that only grows: a slot belongs to its key
//! until the process ends, so its position is all that a shard, or a program in the kernel that maps
//! the array, has to know.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Month, Tier};
use crate::limits::LIMITED_KEYS_MIN;

/// The slots of all limited keys of a process.
#[derive(Debug)]
pub struct Allowances {
    slots: Box<[Slot]>,
}

/// What is shared about one key.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Slot {
    /// The key's number plus one; 0 while the slot is free.
    owner: AtomicU64,
    paid_until_ns: AtomicU64,
    /// The month in the upper 16 bits, what was used in it in the lower 48.
    month: AtomicU64,
}

const _: () = assert!(size_of::<Slot>() == 64);

const USED_BITS: u32 = 48;
const USED_MAX: u64 = (1 << USED_BITS) - 1;

/// A tier's limits as the limiter reckons with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Requests a second.
    pub(super) qps: u64,
    /// Requests at once.
    pub(super) burst: u64,
    /// Requests in a month; `None` is no cap.
    pub(super) monthly: Option<u64>,
    /// How far ahead of now may be paid: what `burst` requests cost.
    pub(super) ahead_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

/// How far the clocks of those who take may be apart.
const CLOCKS_APART_NS: u64 = SECOND_NS;

impl Policy {
    /// The limits of a tier; a tier without a rate or a burst admits nothing.
    pub(super) fn of(tier: &Tier) -> Self {
        let (qps, burst) = (u64::from(tier.qps), u64::from(tier.burst));
        let ahead_ns = if qps == 0 { 0 } else { (burst * SECOND_NS).div_ceil(qps) };
        Self { qps, burst, monthly: tier.monthly, ahead_ns }
    }

    /// What `count` requests cost, rounded up: at most a nanosecond a lease is lost. `count` is at
    /// most the burst, so nothing overflows.
    #[inline]
    fn cost_ns(self, count: u64) -> u64 {
        (count * SECOND_NS).div_ceil(self.qps.max(1))
    }

    /// From when on is to be paid, given up to when is paid. What is further ahead than anyone can have
    /// paid in this tier is debt of another one that the key was in: of that only what empties the
    /// bucket counts, or the rate of the old tier would go on for as long as its burst lasts.
    #[inline]
    fn pays_from(self, paid_until_ns: u64, now_ns: u64) -> u64 {
        let ahead_ns = paid_until_ns.saturating_sub(now_ns);
        if ahead_ns > self.ahead_ns.saturating_add(CLOCKS_APART_NS) {
            now_ns.saturating_add(self.ahead_ns)
        } else {
            now_ns.saturating_add(ahead_ns)
        }
    }

    /// How many whole requests `room_ns`, at most `ahead_ns`, pays for.
    #[inline]
    fn count(self, room_ns: u64) -> u64 {
        // Where an interval is shorter than a nanosecond, rounding up would admit more than the burst.
        (room_ns * self.qps / SECOND_NS).min(self.burst)
    }
}

/// Position of a key's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotIndex(u32);

/// Part of a month's cap, taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MonthGrant {
    /// The month it counts for: the one asked for, or a later one that has begun elsewhere.
    pub(super) month: Month,
    pub(super) count: u64,
}

impl Allowances {
    /// Room for `limited_keys` keys that there are now, and as many to come.
    #[must_use]
    pub fn new(limited_keys: usize) -> Self {
        let len = (limited_keys.saturating_mul(4)).max(LIMITED_KEYS_MIN).next_power_of_two();
        Self { slots: (0..len).map(|_| Slot::default()).collect() }
    }

    /// How many slots are taken, and how many there are.
    #[must_use]
    pub fn filled(&self) -> (usize, usize) {
        (self.slots.iter().filter(|slot| slot.owner.load(Relaxed) != 0).count(), self.slots.len())
    }

    /// Makes sure that at least `used` requests count as used by a key in `month`: after a start, and
    /// when a key comes under a cap. `false` when there is no slot left.
    pub fn seed(&self, key: u32, month: Month, used: u64) -> bool {
        let Some(index) = self.slot(key) else { return false };
        self.change_month(index, |tag, counted| match tag.cmp(&month) {
            std::cmp::Ordering::Less => Some((month, used)),
            std::cmp::Ordering::Equal if counted < used => Some((month, used)),
            _ => None,
        });
        true
    }

    /// Forgets months after `month`: the clock was ahead and has been set back. What was used in
    /// `month` is to be seeded afterwards.
    pub fn step_back(&self, month: Month) {
        for (at, slot) in (0..).zip(&self.slots) {
            if slot.owner.load(Relaxed) != 0 {
                self.change_month(SlotIndex(at), |tag, _| (tag > month).then_some((month, 0)));
            }
        }
    }

    /// What a key has used in a month, as far as it is counted here; leases count in full.
    #[must_use]
    pub fn used(&self, key: u32, month: Month) -> u64 {
        let (tag, used) = self.slot(key).map_or((month, 0), |at| unpack(self.at(at).month.load(Relaxed)));
        if tag == month { used } else { 0 }
    }

    /// The slot of a key, taken for it when it has none; `None` when all are taken. Costs a probe:
    /// for when tables change.
    pub(super) fn slot(&self, key: u32) -> Option<SlotIndex> {
        let owner = u64::from(key) + 1;
        let mask = self.slots.len() - 1;
        let start = usize::try_from(owner.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(0);
        for step in 0..self.slots.len() {
            let at = (start + step) & mask;
            let taken = self.slots[at].owner.compare_exchange(0, owner, Relaxed, Relaxed);
            if taken.is_ok() || taken == Err(owner) {
                return u32::try_from(at).ok().map(SlotIndex);
            }
        }
        None
    }

    /// Takes up to `want` requests from a key's rate; `Err` says after how many nanoseconds there
    /// will be one.
    pub(super) fn take_rate(
        &self,
        slot: SlotIndex,
        policy: Policy,
        now_ns: u64,
        want: u64,
    ) -> Result<u64, u64> {
        let paid_until = &self.at(slot).paid_until_ns;
        let mut seen = paid_until.load(Relaxed);
        loop {
            let from = policy.pays_from(seen, now_ns);
            if from < seen {
                // Written down, so that the bucket fills from here on.
                match paid_until.compare_exchange_weak(seen, from, Relaxed, Relaxed) {
                    Ok(_) => seen = from,
                    Err(changed) => seen = changed,
                }
                continue;
            }
            let room_ns = policy.ahead_ns.saturating_sub(from - now_ns);
            let count = policy.count(room_ns).min(want);
            if count == 0 {
                let debt_ns = (from - now_ns).saturating_sub(policy.ahead_ns);
                return Err(debt_ns.saturating_add(policy.cost_ns(1).saturating_sub(room_ns)));
            }
            let paid = from.saturating_add(policy.cost_ns(count));
            match paid_until.compare_exchange_weak(seen, paid, Relaxed, Relaxed) {
                Ok(_) => return Ok(count),
                Err(changed) => seen = changed,
            }
        }
    }

    /// How many requests a key's rate has left, and in how many nanoseconds it is whole again.
    pub(super) fn rate_left(&self, slot: SlotIndex, policy: Policy, now_ns: u64) -> (u64, u64) {
        let paid_until_ns = self.at(slot).paid_until_ns.load(Relaxed);
        let ahead_ns = policy.pays_from(paid_until_ns, now_ns).saturating_sub(now_ns);
        (policy.count(policy.ahead_ns.saturating_sub(ahead_ns)), ahead_ns)
    }

    /// Takes up to `want` requests from a key's month, none when the cap is reached.
    pub(super) fn take_month(&self, slot: SlotIndex, cap: u64, month: Month, want: u64) -> MonthGrant {
        let mut grant = MonthGrant { month, count: 0 };
        self.change_month(slot, |tag, counted| {
            let used = if tag < month { 0 } else { counted };
            grant =
                MonthGrant { month: tag.max(month), count: cap.min(USED_MAX).saturating_sub(used).min(want) };
            (grant.count > 0).then_some((grant.month, used + grant.count))
        });
        grant
    }

    /// Gives back what was taken from a month and not used.
    pub(super) fn return_month(&self, slot: SlotIndex, grant: MonthGrant) {
        self.change_month(slot, |tag, used| {
            (tag == grant.month).then(|| (tag, used.saturating_sub(grant.count)))
        });
    }

    /// How many requests a key's month has left.
    pub(super) fn month_left(&self, slot: SlotIndex, cap: u64, month: Month) -> u64 {
        let (tag, used) = unpack(self.at(slot).month.load(Relaxed));
        cap.saturating_sub(if tag < month { 0 } else { used })
    }

    /// Changes the month's word to what `change` makes of month and use; `None` leaves it. It may be
    /// asked more than once, and its last answer counts.
    fn change_month(&self, slot: SlotIndex, mut change: impl FnMut(Month, u64) -> Option<(Month, u64)>) {
        let word = &self.at(slot).month;
        let mut seen = word.load(Relaxed);
        loop {
            let (month, used) = unpack(seen);
            let Some((month, used)) = change(month, used) else { return };
            let next = u64::from(month.number()) << USED_BITS | used.min(USED_MAX);
            match word.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    #[inline]
    fn at(&self, slot: SlotIndex) -> &Slot {
        // Only `slot` and `step_back` make positions, from this array.
        &self.slots[slot.0 as usize]
    }
}

fn unpack(word: u64) -> (Month, u64) {
    (Month::from_number((word >> USED_BITS) as u16), word & USED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: Month = Month::from_number(670);

    fn tier(qps: u32, burst: u32) -> Policy {
        Policy::of(&Tier { name: String::new(), unlimited: false, qps, burst, monthly: None })
    }

    #[test]
    fn every_key_has_one_slot_until_all_are_taken() {
        let allowances = Allowances::new(0);
        let slots: Vec<_> =
            (0..LIMITED_KEYS_MIN as u32).map(|key| allowances.slot(key * 7).unwrap()).collect();
        let mut sorted: Vec<u32> = slots.iter().map(|slot| slot.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), LIMITED_KEYS_MIN);
        assert_eq!(allowances.slot(7), Some(slots[1]));
        assert_eq!(allowances.slot(8), None);
        assert!(!allowances.seed(8, MONTH, 1));
        assert_eq!(allowances.filled(), (LIMITED_KEYS_MIN, LIMITED_KEYS_MIN));
    }

    #[test]
    fn a_rate_admits_its_burst_and_then_one_each_interval() {
        let allowances = Allowances::new(1);
        let (slot, policy) = (allowances.slot(1).unwrap(), tier(10, 20));
        let now = 5 * SECOND_NS;
        assert_eq!(allowances.rate_left(slot, policy, now), (20, 0));
        assert_eq!(allowances.take_rate(slot, policy, now, 15), Ok(15));
        assert_eq!(allowances.take_rate(slot, policy, now, 15), Ok(5));
        assert_eq!(allowances.take_rate(slot, policy, now, 1), Err(100_000_000));
        assert_eq!(allowances.rate_left(slot, policy, now), (0, 2 * SECOND_NS));
        assert_eq!(allowances.take_rate(slot, policy, now + 60_000_000, 1), Err(40_000_000));
        assert_eq!(allowances.take_rate(slot, policy, now + 100_000_000, 9), Ok(1));
        assert_eq!(allowances.take_rate(slot, policy, now + SECOND_NS, 99), Ok(9));
        assert_eq!(allowances.take_rate(slot, policy, now + 60 * SECOND_NS, 99), Ok(20));
    }

    #[test]
    fn a_key_that_changes_its_tier_is_held_to_the_new_one_at_once() {
        let allowances = Allowances::new(1);
        let slot = allowances.slot(1).unwrap();
        let (slow, fast) = (tier(1, 100_000), tier(10, 20));
        let now = 5 * SECOND_NS;
        assert_eq!(allowances.take_rate(slot, slow, now, 100_000), Ok(100_000));
        assert_eq!(allowances.rate_left(slot, fast, now), (0, 2 * SECOND_NS));
        assert_eq!(allowances.take_rate(slot, fast, now, 1), Err(100_000_000), "as from an empty bucket");
        assert_eq!(allowances.take_rate(slot, fast, now + SECOND_NS, 99), Ok(10));
        assert_eq!(allowances.take_rate(slot, fast, now + SECOND_NS, 99), Err(100_000_000));
        // Who reads the clock a little late forgives nothing.
        assert!(allowances.take_rate(slot, fast, now + SECOND_NS / 2, 99).is_err());
        assert_eq!(allowances.rate_left(slot, fast, now + SECOND_NS), (0, 2 * SECOND_NS));
        // A tier that reaches further holds what was paid against it.
        assert_eq!(allowances.rate_left(slot, slow, now + SECOND_NS).0, 99_998);
    }

    #[test]
    fn the_widest_and_the_emptiest_tiers_neither_overflow_nor_divide_by_nothing() {
        let allowances = Allowances::new(1);
        for (key, (qps, burst)) in
            (1..).zip([(u32::MAX, u32::MAX), (1, u32::MAX), (u32::MAX, 1), (0, 5), (5, 0)])
        {
            let (slot, policy) = (allowances.slot(key).unwrap(), tier(qps, burst));
            for now in [0, u64::MAX / 2] {
                let taken = allowances.take_rate(slot, policy, now, u64::MAX);
                let most = if qps == 0 { 0 } else { burst.into() };
                assert!(taken.unwrap_or(0) <= most && allowances.rate_left(slot, policy, now).0 <= most);
                assert_eq!(taken.is_err(), most == 0);
            }
        }
    }

    #[test]
    fn months_are_seeded_spent_to_the_cap_and_begun_anew() {
        let allowances = Allowances::new(1);
        let slot = allowances.slot(3).unwrap();
        let next = Month::from_number(MONTH.number() + 1);
        let grant = |month, count| MonthGrant { month, count };
        assert!(allowances.seed(3, MONTH, 40));
        allowances.seed(3, MONTH, 30);
        assert_eq!(allowances.used(3, MONTH), 40);
        assert_eq!(allowances.take_month(slot, 100, MONTH, 50), grant(MONTH, 50));
        assert_eq!(allowances.take_month(slot, 100, MONTH, 50), grant(MONTH, 10));
        assert_eq!(allowances.take_month(slot, 100, MONTH, 50).count, 0);
        allowances.return_month(slot, grant(MONTH, 4));
        assert_eq!(allowances.month_left(slot, 100, MONTH), 4);
        assert_eq!(allowances.take_month(slot, 100, next, 1), grant(next, 1));
        // A shard whose clock was read before midnight spends from the month that has begun.
        assert_eq!(allowances.take_month(slot, 100, MONTH, 2), grant(next, 2));
        allowances.return_month(slot, grant(MONTH, 9));
        assert_eq!((allowances.used(3, next), allowances.used(3, MONTH)), (3, 0));
        allowances.step_back(MONTH);
        allowances.seed(3, MONTH, 96);
        assert_eq!(allowances.take_month(slot, 100, MONTH, 50), grant(MONTH, 4));
    }

    #[test]
    fn threads_that_take_at_once_take_no_more_than_there_is() {
        let allowances = Allowances::new(1);
        let (slot, policy) = (allowances.slot(1).unwrap(), tier(1, 30_000));
        let (mut rate, mut month) = (0, 0);
        std::thread::scope(|scope| {
            let take = || {
                let (mut rate, mut month) = (0, 0);
                for want in (1..=7).cycle().take(9_000) {
                    rate += allowances.take_rate(slot, policy, 1, want).unwrap_or(0);
                    month += allowances.take_month(slot, 20_000, MONTH, want).count;
                }
                (rate, month)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            for thread in threads {
                let taken = thread.join().unwrap();
                rate += taken.0;
                month += taken.1;
            }
        });
        assert_eq!((rate, month), (30_000, 20_000));
    }
}
