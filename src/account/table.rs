//! The live keys as a shard looks them up.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::{Network, SecretHash, V2Key};
use crate::time::UnixNs;

/// A live key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Persistent number, never reused. What records and reports know the key by.
    pub number: u32,
    /// Persistent number of the account it belongs to, never reused.
    pub account: u32,
    /// The number that names it to everybody: part of the token, and the key id of v2.
    pub public_id: u64,
    /// What is kept of the secret.
    pub secret_hash: SecretHash,
    /// Under which v2 requests are tagged.
    pub v2_request: V2Key,
    /// Under which v2 answers are tagged.
    pub v2_answer: V2Key,
    /// What it may use.
    pub tier: Tier,
    /// From where it may use v1; see [`v1_allowed_from`](Self::v1_allowed_from).
    pub networks: Vec<Network>,
    /// Whether its reports show every key's usage and not only its own.
    pub admin: bool,
    /// From when on it may not be used any more; see [`UnixNs::NEVER`].
    pub expires: UnixNs,
}

/// What one limited key is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLimit {
    /// The key's persistent number.
    pub number: u32,
    /// Its tier.
    pub tier: Tier,
}

/// What a key may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tier {
    /// What people call it.
    pub name: String,
    /// Counted but never refused; the three numbers below say nothing then.
    pub unlimited: bool,
    /// Requests a second.
    pub qps: u32,
    /// Requests at once, after a pause.
    pub burst: u32,
    /// Requests in a month of UTC; `None` is no cap.
    pub monthly: Option<u64>,
}

/// Position of a key in one [`KeyTable`]; says nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyIndex(u32);

/// All live keys, immutable: a change makes a new table. Every shard has a copy.
#[derive(Clone, Debug)]
pub struct KeyTable {
    keys: Vec<Key>,
    /// Open addressing over public ids, at most a quarter full: id and position, `EMPTY` for none.
    slots: Vec<(u64, u32)>,
    shift: u32,
    seed: u64,
    generation: u64,
    /// Of every limited key once, by rising number.
    limits: Vec<KeyLimit>,
    /// For each key its position in `limits`, `EMPTY` for none.
    limit_of: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Key {
    /// Whether v1 may be used with this key from `address`. A v1 token proves no source, so a key
    /// without limits must not be usable for flooding somebody else: it works from its listed
    /// networks only, or from loopback and private ranges when none is listed. Other keys work from
    /// everywhere unless networks are listed.
    #[must_use]
    #[inline]
    pub fn v1_allowed_from(&self, address: IpAddr) -> bool {
        let networks = match (self.networks.as_slice(), self.tier.unlimited) {
            ([], false) => return true,
            ([], true) => &Network::PRIVATE[..],
            (listed, _) => listed,
        };
        networks.iter().any(|network| network.contains(address))
    }
}

impl KeyIndex {
    /// The position, for tables that run beside the keys.
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl KeyTable {
    /// A table of `keys`. Public ids are unique in the store; of two that are equal the first counts.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        static GENERATION: AtomicU64 = AtomicU64::new(0);
        let len = (keys.len().max(1) * 4).next_power_of_two();
        let (limits, limit_of) = limits(&keys);
        let mut table = Self {
            slots: vec![(0, EMPTY); len],
            shift: 64 - len.trailing_zeros(),
            // Random, so that nobody can choose ids that lie on one heap. Changes no answer.
            seed: RandomState::new().hash_one(0),
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            limits,
            limit_of,
            keys,
        };
        for (index, key) in (0_u32..).zip(&table.keys) {
            let at = probe(&table.slots, table.start(key.public_id), key.public_id);
            if table.slots[at].1 == EMPTY {
                table.slots[at] = (key.public_id, index);
            }
        }
        table
    }

    /// The live key with that public id.
    #[must_use]
    #[inline]
    pub fn by_public_id(&self, public_id: u64) -> Option<KeyIndex> {
        let (_, index) = self.slots[probe(&self.slots, self.start(public_id), public_id)];
        (index != EMPTY).then_some(KeyIndex(index))
    }

    /// The key at a position this table gave; `None` for a position of another table that is beyond
    /// this one.
    #[must_use]
    #[inline]
    pub fn key(&self, index: KeyIndex) -> Option<&Key> {
        self.keys.get(index.index())
    }

    /// All keys, in the order of their positions.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// What limited keys are held to, each key once, by rising number. During a rotation two keys of
    /// the table have one number, and share one allowance.
    #[must_use]
    pub fn limits(&self) -> &[KeyLimit] {
        &self.limits
    }

    /// Position in [`limits`](Self::limits) of what a key is held to; `None` without limits.
    #[must_use]
    #[inline]
    pub fn limit_of(&self, index: KeyIndex) -> Option<usize> {
        self.limit_of.get(index.index()).filter(|at| **at != EMPTY).map(|at| *at as usize)
    }

    /// Differs between any two tables of a process that were made apart.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Where the search for an id begins: both halves of a 128-bit product under a random seed.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant to be cut apart")]
    fn start(&self, public_id: u64) -> usize {
        let product = u128::from(public_id ^ self.seed) * 0x9e37_79b9_7f4a_7c15;
        (((product as u64) ^ (product >> 64) as u64) >> self.shift) as usize
    }
}

/// The limits of all limited keys by rising number, and where among them each key's stands.
fn limits(keys: &[Key]) -> (Vec<KeyLimit>, Vec<u32>) {
    let limited = keys.iter().filter(|key| !key.tier.unlimited);
    let mut limits: Vec<KeyLimit> =
        limited.map(|key| KeyLimit { number: key.number, tier: key.tier.clone() }).collect();
    limits.sort_by_key(|limit| limit.number);
    limits.dedup_by_key(|limit| limit.number);
    let place = |key: &Key| {
        let found = limits.binary_search_by_key(&key.number, |limit| limit.number);
        found.ok().filter(|_| !key.tier.unlimited).and_then(|at| u32::try_from(at).ok()).unwrap_or(EMPTY)
    };
    let limit_of = keys.iter().map(place).collect();
    (limits, limit_of)
}

/// The slot that holds `public_id`, or the empty one where it would stand.
#[inline]
fn probe(slots: &[(u64, u32)], start: usize, public_id: u64) -> usize {
    let mut at = start;
    while slots[at].1 != EMPTY && slots[at].0 != public_id {
        at = (at + 1) & (slots.len() - 1);
    }
    at
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::Token;
    use super::*;

    pub(crate) fn key(token: &Token, number: u32) -> Key {
        Key {
            number,
            account: 1,
            public_id: token.public_id(),
            secret_hash: token.secret_hash(),
            v2_request: token.v2_request_key(),
            v2_answer: token.v2_answer_key(),
            tier: Tier { name: "basic".to_owned(), unlimited: false, qps: 1, burst: 1, monthly: None },
            networks: Vec::new(),
            admin: false,
            expires: UnixNs::NEVER,
        }
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let table = KeyTable::new(Vec::new());
        assert_eq!(table.by_public_id(0), None);
        assert_eq!(table.by_public_id(u64::MAX), None);
        assert!(table.key(KeyIndex(0)).is_none());
    }

    #[test]
    fn keys_without_limits_stay_at_home_unless_told_otherwise() {
        let from = |key: &Key, address: &str| key.v1_allowed_from(address.parse().unwrap());
        let mut key = key(&Token::generate().unwrap(), 1);
        assert!(from(&key, "203.0.113.9"));
        key.tier.unlimited = true;
        for home in
            ["127.0.0.1", "10.1.2.3", "::1", "fd00::1", "fe80::1", "::ffff:192.168.1.1", "169.254.1.1"]
        {
            assert!(from(&key, home), "{home}");
        }
        for away in ["203.0.113.9", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "::"] {
            assert!(!from(&key, away), "{away}");
        }
        key.networks = vec!["203.0.113.0/24".parse().unwrap()];
        assert!(from(&key, "203.0.113.9") && !from(&key, "127.0.0.1"));
        key.tier.unlimited = false;
        assert!(from(&key, "203.0.113.9") && !from(&key, "127.0.0.1"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let token = Token::generate().unwrap();
        let shown = format!("{:?}", KeyTable::new(vec![key(&token, 1)]));
        assert!(shown.matches("redacted").count() == 3, "{shown}");
    }

    proptest! {
        #[test]
        fn finds_what_a_map_finds(
            ids in proptest::collection::vec(prop_oneof![any::<u64>(), 0..40_u64, (0..40_u64).prop_map(|i| i << 58)], 0..300),
            asked in proptest::collection::vec(prop_oneof![any::<u64>(), 0..80_u64], 0..50),
        ) {
            let token = Token::generate().unwrap();
            let mut model = HashMap::new();
            let mut keys = Vec::new();
            for (number, id) in (0_u32..).zip(&ids) {
                model.entry(*id).or_insert(number);
                keys.push(Key { public_id: *id, ..key(&token, number) });
            }
            let table = KeyTable::new(keys);
            for id in ids.iter().chain(&asked) {
                let found = table.by_public_id(*id).and_then(|index| table.key(index)).map(|key| key.number);
                prop_assert_eq!(found, model.get(id).copied());
            }
        }
    }
}
