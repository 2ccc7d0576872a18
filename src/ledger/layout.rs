//! What a segment file looks like, over bytes and nothing else.
//!
//! ```text
//!   shard-3/0000000007-00000000000000131008.seg      epoch 7, from sequence 131,008
//!
//!   0        header: magic, version, record length, epoch, shard, first sequence, slots, checksum
//!   64       seal: zeros while records are still written; then how many, of when, of which keys
//!   4,096    slot 0 │ slot 1 │ … 64 bytes each; zeros where nothing was written
//! ```

use super::check::{Seed, sum};
use super::record::{ChainId, RECORD_LEN, Record, Slot, words_of};
use crate::time::UnixNs;

/// Length of what comes before the slots: the smallest page of memory.
pub(super) const HEADER_LEN: usize = 4_096;

/// Where the seal begins.
pub(super) const SEAL_AT: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"beastseg");
const SEAL_MAGIC: u64 = u64::from_le_bytes(*b"seal 1\0\0");
const VERSION: u32 = 1;

/// Words of a seal before its keys.
const SEAL_WORDS: usize = 6;

/// Keys a seal can name; a segment with more says so.
const KEYS_MAX: usize = (HEADER_LEN - SEAL_AT) / 8 - SEAL_WORDS - 1;

/// Which part of which chain a segment file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) chain: ChainId,
    /// Sequence of the first slot.
    pub(super) first: u64,
    /// How many slots it was made with.
    pub(super) slots: u64,
}

/// Why a file's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// It does not begin as a segment does.
    Foreign,
    /// It does, but is damaged.
    Damaged,
    /// It was written by another version.
    Version(u32),
}

impl Header {
    pub(super) fn bytes(&self) -> [u8; SEAL_AT] {
        let words = [
            MAGIC,
            u64::from(VERSION) | (RECORD_LEN as u64) << 32,
            u64::from(self.chain.epoch) | u64::from(self.chain.shard) << 32,
            self.first,
            self.slots,
            0,
            0,
        ];
        let mut bytes = [0; SEAL_AT];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words.into_iter().chain([sum(&words)])) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let words = bytes.get(..SEAL_AT).and_then(words_of).ok_or(HeaderFault::Foreign)?;
        let [magic, version, chain, first, slots, .., stored] = words;
        if magic != MAGIC {
            return Err(HeaderFault::Foreign);
        }
        if stored != sum(&words[..7]) || slots > u64::MAX / RECORD_LEN as u64 - 64 {
            return Err(HeaderFault::Damaged);
        }
        if version != u64::from(VERSION) | (RECORD_LEN as u64) << 32 {
            return Err(HeaderFault::Version(version as u32));
        }
        first.checked_add(slots).ok_or(HeaderFault::Damaged)?;
        Ok(Self { chain: ChainId { epoch: chain as u32, shard: (chain >> 32) as u16 }, first, slots })
    }
}

/// What a segment that is no longer written holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentIndex {
    /// Places taken, from the first one on, also by records that cannot be read any more.
    pub count: u64,
    /// Places of records that cannot be read any more.
    pub damaged: u64,
    /// Time of the earliest record.
    pub time_min: UnixNs,
    /// Time of the latest record.
    pub time_max: UnixNs,
    /// Whose records these are, in rising order; `None` when they are more than a segment can say.
    pub keys: Option<Vec<u32>>,
}

impl SegmentIndex {
    /// Whether records of that key may be among them.
    #[must_use]
    pub fn may_hold(&self, key: u32) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.binary_search(&key).is_ok())
    }

    pub(super) fn seal(&self) -> Vec<u8> {
        let keys = self.keys.as_deref();
        let many = keys.map_or(u64::MAX, |keys| keys.len() as u64);
        let mut words = vec![SEAL_MAGIC, self.count, self.damaged, self.time_min.0, self.time_max.0, many];
        words.extend(keys.unwrap_or_default().iter().map(|key| u64::from(*key)));
        words.push(sum(&words));
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The seal of a header page; `None` when there is none, or only half of one.
    pub(super) fn read(header: &[u8]) -> Option<Self> {
        let mut words = header
            .get(SEAL_AT..HEADER_LEN)?
            .chunks_exact(8)
            .map(|bytes| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte)));
        let mut seal: Vec<u64> = words.by_ref().take(SEAL_WORDS).collect();
        let [magic, count, damaged, time_min, time_max, many] = seal.as_slice().try_into().ok()?;
        let key_count = if many == u64::MAX { 0 } else { usize::try_from(many).ok()? };
        if magic != SEAL_MAGIC || key_count > KEYS_MAX {
            return None;
        }
        seal.extend(words.by_ref().take(key_count));
        if words.next()? != sum(&seal) {
            return None;
        }
        let keys = seal[SEAL_WORDS..].iter().map(|key| u32::try_from(*key)).collect::<Result<_, _>>().ok()?;
        let keys = (many != u64::MAX).then_some(keys);
        Some(Self { count, damaged, time_min: UnixNs(time_min), time_max: UnixNs(time_max), keys })
    }
}

/// Looks at the slots of a segment, in order, and tells what it holds.
#[derive(Debug)]
pub(super) struct Scan {
    seed: Seed,
    first: u64,
    /// Slots seen.
    seen: u64,
    /// Slots up to the last record.
    count: u64,
    records: u64,
    /// Slots behind the last record that hold something unreadable.
    unreadable: u64,
    /// Slots up to the last one that is not empty.
    used: u64,
    times: Option<(UnixNs, UnixNs)>,
    keys: Vec<u32>,
    too_many_keys: bool,
}

/// What a scan has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) index: SegmentIndex,
    /// Places behind the last record that hold something: a record whose writing was broken off is
    /// one, and never was answered.
    pub(super) unfinished: u64,
    /// Slots up to the last one that is not empty.
    pub(super) used: u64,
}

impl Scan {
    pub(super) fn new(chain: ChainId, first: u64) -> Self {
        Self {
            seed: Seed::of_chain(chain.epoch, chain.shard),
            first,
            seen: 0,
            count: 0,
            records: 0,
            unreadable: 0,
            used: 0,
            times: None,
            keys: Vec::new(),
            too_many_keys: false,
        }
    }

    /// Looks at the next slots; what is left at the end of `bytes` and is no whole slot counts as one
    /// that cannot be read.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(RECORD_LEN) {
            let slot = match words_of(bytes) {
                Some(words) => Record::read(&words, self.seed, self.first.saturating_add(self.seen)),
                None if bytes.iter().all(|byte| *byte == 0) => Slot::Empty,
                None => Slot::Unreadable,
            };
            self.take(slot);
        }
    }

    pub(super) fn take(&mut self, slot: Slot) {
        self.seen += 1;
        match slot {
            Slot::Empty => {}
            Slot::Unreadable => {
                self.unreadable += 1;
                self.used = self.seen;
            }
            Slot::Record(record) => {
                self.records += 1;
                self.unreadable = 0;
                (self.count, self.used) = (self.seen, self.seen);
                let (min, max) = self.times.unwrap_or((record.time, record.time));
                self.times = Some((min.min(record.time), max.max(record.time)));
                self.add_key(record.key);
            }
        }
    }

    fn add_key(&mut self, key: u32) {
        if let Err(at) = self.keys.binary_search(&key)
            && !self.too_many_keys
        {
            self.too_many_keys = self.keys.len() == KEYS_MAX;
            self.keys.insert(at, key);
        }
    }

    pub(super) fn end(self) -> Scanned {
        let (time_min, time_max) = self.times.unwrap_or_default();
        let index = SegmentIndex {
            count: self.count,
            damaged: self.count - self.records,
            time_min,
            time_max,
            keys: (!self.too_many_keys).then_some(self.keys),
        };
        Scanned { index, unfinished: self.unreadable, used: self.used }
    }
}

/// Name of a shard's folder.
pub(super) fn folder_name(shard: u16) -> String {
    format!("shard-{shard}")
}

/// The shard that a folder of that name belongs to.
pub(super) fn shard_of(name: &str) -> Option<u16> {
    let shard = name.strip_prefix("shard-")?.parse().ok()?;
    (folder_name(shard) == name).then_some(shard)
}

/// Name of a segment's file.
pub(super) fn file_name(epoch: u32, first: u64) -> String {
    format!("{epoch:010}-{first:020}.seg")
}

/// Epoch and first sequence of a file of that name.
pub(super) fn epoch_and_first(name: &str) -> Option<(u32, u64)> {
    let (epoch, first) = name.strip_suffix(".seg")?.split_once('-')?;
    let (epoch, first) = (epoch.parse().ok()?, first.parse().ok()?);
    (file_name(epoch, first) == name).then_some((epoch, first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::any_record;
    use super::*;

    fn chain() -> impl Strategy<Value = ChainId> {
        (any::<u32>(), any::<u16>()).prop_map(|(epoch, shard)| ChainId { epoch, shard })
    }

    fn bytes_of(chain: ChainId, first: u64, records: &[Record]) -> Vec<u8> {
        let seed = Seed::of_chain(chain.epoch, chain.shard);
        let stored = (first..).zip(records).flat_map(|(sequence, record)| record.words(seed, sequence));
        stored.flat_map(u64::to_le_bytes).collect()
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(chain in chain(), first in 0..1_u64 << 60, slots in 0..1_u64 << 50) {
            let header = Header { chain, first, slots };
            prop_assert_eq!(Header::read(&header.bytes()), Ok(header));
        }

        #[test]
        fn no_damaged_header_is_read(chain in chain(), first in 0..1_u64 << 60, bit in 0..512_usize) {
            let mut bytes = Header { chain, first, slots: 9 }.bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::read(&bytes).is_err());
            prop_assert!(Header::read(&bytes[..63]).is_err());
        }

        #[test]
        fn names_are_read_as_they_were_written(epoch: u32, shard: u16, first: u64) {
            prop_assert_eq!(epoch_and_first(&file_name(epoch, first)), Some((epoch, first)));
            prop_assert_eq!(shard_of(&folder_name(shard)), Some(shard));
        }

        #[test]
        fn a_seal_is_read_as_it_was_written_or_not_at_all(
            numbers: [u64; 4], keys in prop::option::of(prop::collection::btree_set(any::<u32>(), 0..=KEYS_MAX)),
            bit in prop::option::of(0..400_usize),
        ) {
            let [count, damaged, time_min, time_max] = numbers;
            let keys = keys.map(|keys| keys.into_iter().collect());
            let (time_min, time_max) = (UnixNs(time_min), UnixNs(time_max));
            let index = SegmentIndex { count, damaged, time_min, time_max, keys };
            let mut page = vec![0; SEAL_AT];
            page.extend(index.seal());
            prop_assert!(page.len() <= HEADER_LEN);
            page.resize(HEADER_LEN, 0);
            if let Some(bit) = bit.filter(|bit| *bit / 8 < SEAL_WORDS * 8) {
                page[SEAL_AT + bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(SegmentIndex::read(&page), None);
            } else {
                prop_assert_eq!(SegmentIndex::read(&page), Some(index));
            }
        }

        /// The obvious model: of a segment cut off anywhere and damaged in some places, a scan finds
        /// the records of all other places.
        #[test]
        fn a_scan_finds_every_whole_record(
            chain in chain(), first in 0..1_u64 << 40,
            records in prop::collection::vec(any_record(), 0..20), cut in 0..1_400_usize,
            flips in prop::collection::vec(0..20 * 512_usize, 0..4), empty in 0..9_usize,
        ) {
            let mut bytes = bytes_of(chain, first, &records);
            bytes.resize(bytes.len() + empty * RECORD_LEN, 0);
            let mut hurt: Vec<usize> = Vec::new();
            for flip in flips.into_iter().filter(|flip| flip / 8 < records.len() * RECORD_LEN) {
                if !hurt.contains(&(flip / 512)) {
                    bytes[flip / 8] ^= 1 << (flip % 8);
                    hurt.push(flip / 512);
                }
            }
            bytes.truncate(cut);
            let whole: Vec<usize> = (0..records.len().min(bytes.len() / RECORD_LEN))
                .filter(|at| !hurt.contains(at)).collect();
            let mut scan = Scan::new(chain, first);
            scan.look(&bytes);
            let Scanned { index, unfinished, used } = scan.end();
            prop_assert_eq!(index.count as usize, whole.last().map_or(0, |last| last + 1));
            prop_assert_eq!((index.count - index.damaged) as usize, whole.len());
            prop_assert!(unfinished <= used - index.count);
            let mut keys: Vec<u32> = whole.iter().map(|at| records[*at].key).collect();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(index.keys, Some(keys));
            let times = whole.iter().map(|at| records[*at].time);
            prop_assert_eq!(index.time_min, times.clone().min().unwrap_or_default());
            prop_assert_eq!(index.time_max, times.max().unwrap_or_default());
        }
    }

    #[test]
    fn more_keys_than_a_seal_can_name_are_all_possible() {
        let mut scan = Scan::new(ChainId { epoch: 1, shard: 0 }, 0);
        for key in 0..=KEYS_MAX as u32 {
            scan.take(Slot::Record(Record { key, ..Record::EMPTY }));
        }
        let index = scan.end().index;
        assert_eq!(index.keys, None);
        assert!(index.may_hold(7) && index.may_hold(u32::MAX));
        let few = SegmentIndex { keys: Some(vec![3, 9]), ..SegmentIndex::default() };
        assert!(few.may_hold(9) && !few.may_hold(4));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "1-2.seg",
            "0000000007-00000000000000000000.seg.new",
            "lock",
            "+000000001-00000000000000000000.seg",
        ] {
            assert_eq!(epoch_and_first(name), None, "{name}");
        }
        for name in ["shard-", "shard-01", "shard-65536", "shard--1", "other"] {
            assert_eq!(shard_of(name), None, "{name}");
        }
    }
}
