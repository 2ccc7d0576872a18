//! How many replies a source gets that has proved nothing: at most ten a second per IPv4 /24 or
//! IPv6 /56, in fixed memory, so that the service cannot be made to shout at third parties.

use std::net::IpAddr;

use crate::siphash::SipHash;
use crate::time::MonoNs;

/// Prefixes told apart at a time; those that share a slot share its budget. 64 KiB.
const SLOTS: usize = 8_192;
const _: () = assert!(SLOTS.is_power_of_two());

/// Replies a second and at once.
const PER_SECOND: u64 = 10;
const INTERVAL_NS: u64 = 1_000_000_000 / PER_SECOND;

/// A generic cell rate limiter per slot.
#[derive(Debug)]
pub(super) struct ReplyBudget {
    hash: SipHash,
    /// When the slot's bucket will be full again.
    full_at: Box<[MonoNs]>,
}

impl ReplyBudget {
    /// All sources fresh; `key` keeps strangers from choosing whose slot they share.
    #[must_use]
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { hash: SipHash::new(key), full_at: vec![MonoNs(0); SLOTS].into() }
    }

    /// Takes one reply from the source's budget; `false` when it is used up.
    pub(super) fn take(&mut self, source: IpAddr, now: MonoNs) -> bool {
        let hash = self.hash.hash(&prefix(source));
        let full_at = &mut self.full_at[usize::try_from(hash).unwrap_or(0) & (SLOTS - 1)];
        let next = full_at.0.max(now.0).saturating_add(INTERVAL_NS);
        if next > now.0.saturating_add(1_000_000_000) {
            return false;
        }
        *full_at = MonoNs(next);
        true
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
        let later = MonoNs(now.0 + 500_000_000);
        let granted = (0..50).filter(|n| budget.take(from(*n), later)).count();
        assert_eq!(granted, 5);
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
