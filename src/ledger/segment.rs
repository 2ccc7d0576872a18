//! Where a shard writes its records: one segment after the other, each ready before it is needed.
//!
//! ```text
//!   shard:  append ─► active segment ──full──► next ready one … none: no room, and no answer
//!                        │ written            ▲
//!   journal: reads, syncs, seals              └── made, mapped, pre-faulted
//! ```
//!
//! An append makes no system call, takes no lock and allocates nothing.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Receiver;

use super::check::Seed;
use super::layout::HEADER_LEN;
use super::record::{ChainId, RECORD_WORDS, Record, RecordId, Slot};
use crate::sys::mmap::SharedWords;

/// Words before the first slot.
pub(super) const HEADER_WORDS: usize = HEADER_LEN / 8;

/// Records an in-memory segment keeps.
const IN_MEMORY_SLOTS: usize = 4_096;

/// A segment that is or will be written. The shard that writes it and the journal share it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) words: SharedWords,
    pub(super) chain: ChainId,
    /// Sequence of the first slot.
    pub(super) first: u64,
    pub(super) slots: usize,
    /// Slots that hold whole records; only the shard changes it.
    written: AtomicU64,
    /// Slots that are on disk; only the journal changes it.
    synced: AtomicU64,
    /// Where it lies; none in memory.
    pub(super) file: Option<(File, PathBuf)>,
}

impl Live {
    pub(super) fn new(words: SharedWords, chain: ChainId, first: u64, file: Option<(File, PathBuf)>) -> Self {
        let slots = words.words().len().saturating_sub(HEADER_WORDS) / RECORD_WORDS;
        Self { words, chain, first, slots, written: AtomicU64::new(0), synced: AtomicU64::new(0), file }
    }

    /// Slots that hold whole records: those below may be read.
    pub(super) fn written(&self) -> usize {
        usize::try_from(self.written.load(Ordering::Acquire)).unwrap_or(usize::MAX)
    }

    pub(super) fn synced(&self) -> usize {
        usize::try_from(self.synced.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    pub(super) fn set_synced(&self, slots: usize) {
        self.synced.store(slots as u64, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.written() >= self.slots
    }

    /// The words of these slots, as positions in the mapping.
    pub(super) fn range(slots: std::ops::Range<usize>) -> std::ops::Range<usize> {
        HEADER_WORDS + slots.start * RECORD_WORDS..HEADER_WORDS + slots.end * RECORD_WORDS
    }

    /// What stands in a slot.
    pub(super) fn slot(&self, slot: usize, seed: Seed) -> Slot {
        let stored = self.words.words().get(Self::range(slot..slot + 1));
        let mut words = [0; RECORD_WORDS];
        for (word, stored) in words.iter_mut().zip(stored.unwrap_or_default()) {
            *word = u64::from_le(stored.load(Ordering::Relaxed));
        }
        Record::read(&words, seed, self.first + slot as u64)
    }

    /// Writes the next slot; only the shard that holds the segment calls it.
    #[inline]
    fn put(&self, slot: usize, words: [u64; RECORD_WORDS]) -> Option<()> {
        let stored = self.words.words().get(Self::range(slot..slot + 1))?;
        for (stored, word) in stored.iter().zip(words) {
            stored.store(word.to_le(), Ordering::Relaxed);
        }
        self.written.store(slot as u64 + 1, Ordering::Release);
        Some(())
    }
}

/// Where a segment's successor comes from.
#[derive(Debug)]
enum Supply {
    /// The journal makes them.
    Ready(Receiver<Arc<Live>>),
    /// It begins again and overwrites its oldest records.
    Rewind,
}

/// One shard's place for records.
#[derive(Debug)]
pub struct Segment {
    chain: ChainId,
    seed: Seed,
    /// Of the next record.
    sequence: u64,
    /// Of the next record, in the active segment.
    slot: usize,
    active: Arc<Live>,
    supply: Supply,
}

impl Segment {
    /// A place in memory that keeps the newest records and refuses none: for tests and benches. The
    /// way to it is the same as to a file.
    ///
    /// # Panics
    /// When the machine has no memory left.
    #[must_use]
    pub fn new(epoch: u32, shard: u16) -> Self {
        let chain = ChainId { epoch, shard };
        let words = SharedWords::in_memory(HEADER_WORDS + IN_MEMORY_SLOTS * RECORD_WORDS)
            .unwrap_or_else(|e| panic!("no memory for {IN_MEMORY_SLOTS} records: {e}"));
        Self::of(Live::new(words, chain, 0, None).into(), Supply::Rewind)
    }

    /// A place whose segments come from `ready`; there is none until the first one came.
    pub(super) fn awaiting(chain: ChainId, ready: Receiver<Arc<Live>>) -> std::io::Result<Self> {
        let none = Live::new(SharedWords::in_memory(HEADER_WORDS)?, chain, 0, None);
        Ok(Self::of(none.into(), Supply::Ready(ready)))
    }

    /// The same place for later records of its chain.
    pub(super) fn going_on_from(self, sequence: u64) -> Self {
        Self { sequence, ..self }
    }

    fn of(active: Arc<Live>, supply: Supply) -> Self {
        let chain = active.chain;
        let seed = Seed::of_chain(chain.epoch, chain.shard);
        Self { chain, seed, sequence: 0, slot: 0, active, supply }
    }

    /// Appends a record and gives it its identity; `None` when there is no room to keep it, and the
    /// answer must not be sent. Once it has returned, the record outlives the process.
    #[inline]
    pub fn append(&mut self, record: Record) -> Option<RecordId> {
        if self.slot == self.active.slots {
            self.turn_over()?;
        }
        let sequence = self.sequence;
        self.active.put(self.slot, record.words(self.seed, sequence))?;
        self.slot += 1;
        self.sequence += 1;
        Some(RecordId { epoch: self.chain.epoch, shard: self.chain.shard, sequence })
    }

    /// Takes the next segment.
    #[cold]
    fn turn_over(&mut self) -> Option<()> {
        match &self.supply {
            // The journal holds the old one too, so letting go of it unmaps nothing here.
            Supply::Ready(ready) => self.active = ready.try_recv().ok()?,
            Supply::Rewind => {}
        }
        self.slot = 0;
        Some(())
    }

    /// How many records were appended so far.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.sequence
    }

    /// The newest records that are still at hand, oldest first.
    pub fn newest(&self) -> impl Iterator<Item = (RecordId, Record)> {
        let slots = self.active.slots as u64;
        let kept = match self.supply {
            Supply::Ready(_) => self.slot as u64,
            Supply::Rewind => slots.min(self.sequence),
        };
        (self.sequence - kept..self.sequence).filter_map(move |sequence| {
            let slot = usize::try_from(sequence % slots.max(1)).ok()?;
            let ChainId { epoch, shard } = self.chain;
            let words = self.active.words.words().get(Live::range(slot..slot + 1))?;
            let words = std::array::from_fn(|at| u64::from_le(words[at].load(Ordering::Relaxed)));
            match Record::read(&words, self.seed, sequence) {
                Slot::Record(record) => Some((RecordId { epoch, shard, sequence }, record)),
                Slot::Empty | Slot::Unreadable => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_rise_without_gaps_and_the_newest_records_are_kept() {
        let mut segment = Segment::new(3, 1);
        let many = IN_MEMORY_SLOTS as u64 + 5;
        for n in 0..many {
            let id = segment.append(Record { key: n as u32, ..Record::EMPTY }).unwrap();
            assert_eq!(id, RecordId { epoch: 3, shard: 1, sequence: n });
        }
        let kept: Vec<(u64, u32)> = segment.newest().map(|(id, r)| (id.sequence, r.key)).collect();
        assert_eq!(kept, (5..many).map(|n| (n, n as u32)).collect::<Vec<_>>());
        assert_eq!(segment.appended(), many);
    }

    #[test]
    fn without_a_next_segment_there_is_no_room_and_nothing_is_lost() {
        let chain = ChainId { epoch: 3, shard: 1 };
        let (ready, supply) = crossbeam_channel::bounded(2);
        let mut segment = Segment::awaiting(chain, supply).unwrap();
        assert_eq!(segment.append(Record::EMPTY), None);
        for first in [0, 2] {
            let words = SharedWords::in_memory(HEADER_WORDS + 2 * RECORD_WORDS).unwrap();
            ready.send(Arc::new(Live::new(words, chain, first, None))).unwrap();
        }
        let sequences: Vec<_> = (0..5).map(|_| segment.append(Record::EMPTY).map(|id| id.sequence)).collect();
        assert_eq!(sequences, [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(segment.newest().count(), 2);
        assert_eq!(segment.appended(), 4);
    }
}
