//! The keys the program knows.

use std::collections::HashMap;

use aya::maps::{HashMap as BpfHashMap, MapData};

use super::error::XdpError;
use super::layout::KEY_WORDS;
use crate::account::{Key, KeyTable};

/// The map of keys, and what stands in it. Changed by one system call a key that has changed.
pub struct KeyMap {
    map: BpfHashMap<MapData, u64, [u64; KEY_WORDS]>,
    held: HashMap<u64, [u64; KEY_WORDS]>,
    room: usize,
}

impl std::fmt::Debug for KeyMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyMap({} keys)", self.held.len())
    }
}

impl KeyMap {
    pub(super) fn new(map: BpfHashMap<MapData, u64, [u64; KEY_WORDS]>, room: usize) -> Self {
        Self { map, held: HashMap::new(), room }
    }

    /// Makes the map hold those of the table's keys that `place` has a place of tokens for: 0 for a key
    /// without limits. The others are left to the shards. Returns how many found no room.
    ///
    /// # Errors
    /// The kernel's, after which the map may hold some of the old keys and some of the new; revoked
    /// ones are taken out first.
    pub fn replace(
        &mut self,
        table: &KeyTable,
        place: impl Fn(&Key) -> Option<u32>,
    ) -> Result<usize, XdpError> {
        let keys = table.keys().iter().filter_map(|key| Some((key.public_id, words(key, place(key)?))));
        let wanted: HashMap<u64, [u64; KEY_WORDS]> = keys.collect();
        let gone: Vec<u64> = self.held.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            self.map.remove(&id).map_err(|e| XdpError::of("a revoked key cannot be taken out", &e))?;
            self.held.remove(&id);
        }
        let mut left_out = 0;
        for (id, words) in wanted {
            if self.held.get(&id) == Some(&words) {
                continue;
            }
            if self.held.len() >= self.room && !self.held.contains_key(&id) {
                left_out += 1;
                continue;
            }
            self.map.insert(id, words, 0).map_err(|e| XdpError::of("a key cannot be put in", &e))?;
            self.held.insert(id, words);
        }
        Ok(left_out)
    }
}

fn words(key: &Key, place: u32) -> [u64; KEY_WORDS] {
    let halves = |bytes: [u8; 16]| {
        let whole = u128::from_le_bytes(bytes);
        [whole as u64, (whole >> 64) as u64]
    };
    let ([a, b], [c, d]) = (halves(key.v2_request.0), halves(key.v2_answer.0));
    [u64::from(key.number) | u64::from(place) << 32, key.expires.0, a, b, c, d]
}
