//! Holds each key to its tier over all shards, by leases.
//!
//! ```text
//!   Allowances (shared)                 Limiter (one a shard)
//!   ┌─ slot of key 7 ─────────┐  lease  ┌─ entry of key 7 ─┐   spent one by one,
//!   │ paid until, month, used │ ──────► │ rate 48, month 9 │   by the shard alone
//!   └─────────────────────────┘         └──────────────────┘
//! ```
//!
//! A shard takes several requests of a key at once from what all share and spends them by itself, so
//! the shared line is touched once a lease, not once a request. Nothing is divided beforehand: a
//! shard that has all of a key's traffic takes all leases. Where a lease of several would be too much
//! for the bound below, it is of one and spent at once, which is plain GCRA. A request over the limit
//! only reads the shared line. Unlimited keys have no entry: they cost a look at their place.
//!
//! # How far this is from one exact limiter
//!
//! Let b be the burst, q the rate, N the number of shards and L the longest lease, the largest whole
//! number up to b / (256 N), at least 1. Let B be what the shared bucket holds and H what the shards
//! hold. H is at most N L, hence at most b / 256; with L = 1 it is 0.
//!
//! *Not more.* Leasing moves requests from B to H and spending takes them from H, so B + H grows only
//! by q a second and only while B is below b: B + H never exceeds b + N L. Within any time t a key is
//! therefore admitted at most b + N L + q t times, which is N L, 0.4 % of b, above the rule.
//!
//! *Not less.* A shard refuses only when it holds nothing and B is below one, so that B + H is below
//! 1 + N L while an exact limiter might still hold as much: it is that much behind. It can fall
//! behind again by as much only after B has been full, since before that nothing is lost from the
//! bucket, and from there to a refusal at least b - N L - 1 are admitted. L above 1 needs b of at least
//! 512 N, so the loss is at most (1 + b / 256) in b - b / 256 - 1: 0.6 % for one shard, less for more.
//!
//! Both hold for any way in which traffic is spread, since nothing was said about it, and leases need
//! no end: what an idle shard holds is inside the bound for as long as it likes. Rounding costs a
//! nanosecond a lease. A shard reads its clock once a turn; one that is behind takes less, not more.
//!
//! A key that changes its tier keeps what it has paid, but no debt beyond the burst of the new tier: from
//! the first lease on that is asked for, it is held to that one.
//!
//! Months are leased in the same way, with the cap in the place of the burst and nothing that refills.

use std::sync::Arc;

use super::allowances::{MonthGrant, Policy, SlotIndex};
use super::{Allowances, KeyIndex, KeyTable, Month, MonthSpan};
use crate::limits::LEASE_PARTS;
use crate::time::{Now, UnixNs};

/// One per shard.
#[derive(Debug)]
pub struct Limiter {
    shared: Arc<Allowances>,
    /// How many shards answer, this one with them.
    shards: u64,
    /// Of each limited key of the table, in the order of the table's limits.
    entries: Vec<Entry>,
    span: MonthSpan,
}

/// What a shard holds of one key.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Entry {
    /// What is leased and not yet spent.
    rate: u32,
    month: u32,
    /// Which month that is of.
    month_of: Month,
    capped: bool,
    number: u32,
    slot: Option<SlotIndex>,
    policy: Policy,
}

/// Why a key may not ask just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Over its rate; there will be a request after so many nanoseconds.
    Rate(u64),
    /// Over its month, which ends in so many nanoseconds.
    Month(u64),
    /// There are more limited keys than slots; see [`Allowances::filled`].
    NoSlot,
}

/// Where a key stands, for those who want to pace themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests at once, after a pause.
    pub burst: u64,
    /// Nanoseconds in which a spent burst is whole again.
    pub burst_ns: u64,
    /// Requests left of the burst.
    pub left: u64,
    /// Nanoseconds until the burst is whole again.
    pub whole_ns: u64,
    /// Of the month: its cap, what is left of it, and the nanoseconds until it ends.
    pub month: Option<(u64, u64, u64)>,
}

impl Limiter {
    /// The limiter of one of `shards` shards that share `shared`.
    #[must_use]
    pub fn new(shared: Arc<Allowances>, shards: usize, table: &KeyTable) -> Self {
        let shards = u64::try_from(shards.max(1)).unwrap_or(u64::MAX);
        let mut limiter = Self { shared, shards, entries: Vec::new(), span: MonthSpan::of(UnixNs(0)) };
        limiter.table_replaced(table);
        limiter
    }

    /// Takes over what is held of keys whose limits are the same in a new table, and gives the rest
    /// back. Call it when the table in use is replaced.
    pub fn table_replaced(&mut self, new: &KeyTable) {
        let mut old = std::mem::take(&mut self.entries).into_iter().peekable();
        self.entries.reserve(new.limits().len());
        for limit in new.limits() {
            // Both are in the order of the keys' numbers.
            while let Some(gone) = old.next_if(|entry| entry.number < limit.number) {
                self.give_back(&gone);
            }
            let policy = Policy::of(&limit.tier);
            let entry = match old.next_if(|entry| entry.number == limit.number) {
                Some(entry) if entry.policy == policy => entry,
                Some(changed) => {
                    self.give_back(&changed);
                    Entry::new(limit.number, changed.slot, policy)
                }
                None => Entry::new(limit.number, self.shared.slot(limit.number), policy),
            };
            self.entries.push(entry);
        }
        old.for_each(|gone| self.give_back(&gone));
    }

    /// Months outlast a change of keys; a rate is whole again in a moment.
    fn give_back(&self, entry: &Entry) {
        if let (Some(slot), true) = (entry.slot, entry.capped) {
            self.shared.return_month(slot, MonthGrant { month: entry.month_of, count: entry.month.into() });
        }
    }

    /// Counts a request against the key's rate, unless it is over its rate or its month.
    ///
    /// # Errors
    /// Which limit, and when to come again.
    #[inline]
    pub fn admit(&mut self, table: &KeyTable, key: KeyIndex, now: Now) -> Result<(), Limited> {
        let Some(entry) = table.limit_of(key).and_then(|at| self.entries.get_mut(at)) else { return Ok(()) };
        if entry.rate > 0 && (!entry.capped || entry.holds_month(&self.span, now.unix)) {
            entry.rate -= 1;
            return Ok(());
        }
        self.lease(table, key, now)
    }

    /// Counts an answer against the key's month.
    ///
    /// # Errors
    /// The month is used up.
    #[inline]
    pub fn charge(&mut self, table: &KeyTable, key: KeyIndex, now: Now) -> Result<(), Limited> {
        let Some(entry) = table.limit_of(key).and_then(|at| self.entries.get_mut(at)) else { return Ok(()) };
        if !entry.capped {
            return Ok(());
        }
        if !entry.holds_month(&self.span, now.unix) {
            self.lease_month(table, key, now)?;
        }
        if let Some(entry) = table.limit_of(key).and_then(|at| self.entries.get_mut(at)) {
            entry.month = entry.month.saturating_sub(1);
        }
        Ok(())
    }

    /// Takes back a charge for an answer that could not be given.
    pub fn discharge(&mut self, table: &KeyTable, key: KeyIndex) {
        if let Some(entry) = table.limit_of(key).and_then(|at| self.entries.get_mut(at))
            && entry.capped
        {
            entry.month = entry.month.saturating_add(1);
        }
    }

    /// Where a key stands; `None` without limits.
    #[must_use]
    pub fn standing(&self, table: &KeyTable, key: KeyIndex, now: Now) -> Option<Standing> {
        let entry = self.entries.get(table.limit_of(key)?)?;
        let (slot, policy) = (entry.slot?, entry.policy);
        let (left, whole_ns) = self.shared.rate_left(slot, policy, now.mono.0);
        let span = MonthSpan::of_near(self.span, now.unix);
        let month = policy.monthly.map(|cap| {
            let held = if entry.month_of >= span.month { u64::from(entry.month) } else { 0 };
            let left = self.shared.month_left(slot, cap, span.month) + held;
            (cap, left.min(cap), span.end.0.saturating_sub(now.unix.0))
        });
        let left = (left + u64::from(entry.rate)).min(policy.burst);
        Some(Standing { burst: policy.burst, burst_ns: policy.ahead_ns, left, whole_ns, month })
    }

    #[cold]
    fn lease(&mut self, table: &KeyTable, key: KeyIndex, now: Now) -> Result<(), Limited> {
        let Some(at) = table.limit_of(key) else { return Ok(()) };
        if self.entries.get(at).is_some_and(|entry| entry.capped) {
            self.lease_month(table, key, now)?;
        }
        let Some(entry) = self.entries.get_mut(at) else { return Ok(()) };
        let slot = entry.slot.ok_or(Limited::NoSlot)?;
        if entry.rate == 0 {
            let want = lease_len(entry.policy.burst, self.shards);
            let taken = self.shared.take_rate(slot, entry.policy, now.mono.0, want);
            entry.rate = u32::try_from(taken.map_err(Limited::Rate)?).unwrap_or(u32::MAX);
        }
        entry.rate -= 1;
        Ok(())
    }

    /// Makes sure that something of this month is held.
    #[cold]
    fn lease_month(&mut self, table: &KeyTable, key: KeyIndex, now: Now) -> Result<(), Limited> {
        self.span = MonthSpan::of_near(self.span, now.unix);
        let span = self.span;
        let Some(entry) = table.limit_of(key).and_then(|at| self.entries.get_mut(at)) else { return Ok(()) };
        let Some(cap) = entry.policy.monthly else { return Ok(()) };
        let slot = entry.slot.ok_or(Limited::NoSlot)?;
        if entry.holds_month(&span, now.unix) {
            return Ok(());
        }
        let grant = self.shared.take_month(slot, cap, span.month, lease_len(cap, self.shards));
        entry.month = u32::try_from(grant.count).unwrap_or(u32::MAX);
        entry.month_of = grant.month;
        if entry.month == 0 {
            return Err(Limited::Month(span.end.0.saturating_sub(now.unix.0)));
        }
        Ok(())
    }
}

impl Entry {
    fn new(number: u32, slot: Option<SlotIndex>, policy: Policy) -> Self {
        let capped = policy.monthly.is_some();
        Self { rate: 0, month: 0, month_of: Month::from_number(0), capped, number, slot, policy }
    }

    /// Whether something is held of the month that `now` lies in. `span` may be an earlier one.
    #[inline]
    fn holds_month(&self, span: &MonthSpan, now: UnixNs) -> bool {
        self.month > 0 && span.holds(now) && self.month_of >= span.month
    }
}

/// The longest lease of an allowance. Never more than a million, so that it fits anywhere.
fn lease_len(allowance: u64, shards: u64) -> u64 {
    (allowance / LEASE_PARTS / shards).clamp(1, 1_000_000)
}

#[cfg(test)]
mod tests;
