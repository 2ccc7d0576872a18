//! How many replies a source gets that has proved nothing: at most ten a second per IPv4 /24 or
//! IPv6 /56, in fixed memory, so that the service cannot be made to shout at third parties.

use std::net::IpAddr;

use crate::siphash::SipHash;
use crate::time::MonoNs;

/// Prefixes told apart at a time; those that share a slot share its budget. 640 KiB.
const SLOTS: usize = 8_192;
const _: () = assert!(SLOTS.is_power_of_two());

/// Replies in any one second.
const PER_SECOND: usize = 10;
const SECOND_NS: u64 = 1_000_000_000;

/// The newest replies to each slot's sources: another one may go out when the oldest of them is long
/// enough ago.
#[derive(Debug)]
pub struct ReplyBudget {
    hash: SipHash,
    /// When the last replies went out, in no order; `NEVER` where there was none.
    sent_at: Box<[[MonoNs; PER_SECOND]]>,
    /// How many of a slot's places this shard uses, and how long each is taken.
    places: usize,
    taken_for_ns: u64,
}

impl ReplyBudget {
    /// All sources fresh; `key` keeps strangers from choosing whose slot they share.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        let sent_at = vec![[MonoNs::NEVER; PER_SECOND]; SLOTS].into();
        Self { hash: SipHash::new(key), sent_at, places: PER_SECOND, taken_for_ns: SECOND_NS }
    }

    /// This is one of so many budgets that the kernel spreads one source over.
    pub fn share(&mut self, shards: usize) {
        let shards = shards.max(1);
        self.places = (PER_SECOND / shards).max(1);
        let slower = shards.div_ceil(PER_SECOND);
        self.taken_for_ns = SECOND_NS.saturating_mul(slower as u64);
    }

    /// Takes one reply from the source's budget; `false` when it is used up.
    #[must_use]
    pub fn take(&mut self, source: IpAddr, now: MonoNs) -> bool {
        let hash = self.hash.hash(&prefix(source));
        let slot = &mut self.sent_at[usize::try_from(hash).unwrap_or(0) & (SLOTS - 1)];
        let free =
            |at: &&mut MonoNs| **at == MonoNs::NEVER || now.0.saturating_sub(at.0) >= self.taken_for_ns;
        let place = slot.iter_mut().take(self.places).find(free);
        place.map(|at| *at = now).is_some()
    }
}

fn prefix(source: IpAddr) -> [u8; 8] {
    let mut prefix = [0; 8];
    match source.to_canonical() {
        IpAddr::V4(v4) => {
            prefix[0] = 4;
            prefix[1..4].copy_from_slice(&v4.octets()[..3]);
        }
        IpAddr::V6(v6) => {
            prefix[0] = 6;
            prefix[1..8].copy_from_slice(&v6.octets()[..7]);
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_gets_ten_replies_a_second_and_others_are_not_touched() {
        let mut budget = ReplyBudget::new([7; 16]);
        let now = MonoNs(5_000_000_000);
        let from = |last: u8| IpAddr::from([203, 0, 113, last]);
        let granted = (0..50).filter(|n| budget.take(from(*n), now)).count();
        assert_eq!(granted, 10);
        assert!(budget.take(IpAddr::from([198, 51, 100, 1]), now));
        assert!(budget.take("2001:db8::1".parse().unwrap(), now));
        assert!(!budget.take(from(1), MonoNs(now.0 + 999_999_999)), "ten in any one second");
        let later = MonoNs(now.0 + 1_000_000_000);
        let granted = (0..50).filter(|n| budget.take(from(*n), later)).count();
        assert_eq!(granted, 10);
    }

    #[test]
    fn shards_share_what_a_source_may_get() {
        for shards in [1, 2, 3, 4, 10, 11, 64] {
            let mut budgets: Vec<_> = (0..shards).map(|_| ReplyBudget::new([7; 16])).collect();
            budgets.iter_mut().for_each(|budget| budget.share(shards));
            let source = IpAddr::from([203, 0, 113, 1]);
            let mut granted = 0;
            for tenth in 0..600_u64 {
                let now = MonoNs(5_000_000_000 + tenth * 100_000_000);
                granted += budgets.iter_mut().map(|b| usize::from(b.take(source, now))).sum::<usize>();
            }
            // Over a minute, since a shard of many may send one reply in several seconds.
            assert!(granted <= 600, "{shards} shards: {granted}");
            assert!(granted >= 300, "{shards} shards: {granted}");
        }
    }

    #[test]
    fn ipv6_sources_share_by_56_bits() {
        let mut budget = ReplyBudget::new([7; 16]);
        for n in 0..10 {
            assert!(budget.take(format!("2001:db8:0:12{n:x}::1").parse().unwrap(), MonoNs(0)));
        }
        assert!(!budget.take("2001:db8:0:1ff::9".parse().unwrap(), MonoNs(0)));
    }
}
