//! The records of what was answered in the kernel, one lane a processor.
//!
//! ```text
//!   lane of a processor:   tail ── records, at most 2^shift ── head
//!                           ▲ the process                       ▲ the program
//! ```
//!
//! The program writes a record and then moves the head; the process takes records out, makes them safe,
//! and then moves the tail. Where the tail stands decides only which slots may be used again: what was
//! made safe already is told by whoever did it, so a process that is killed between the two takes no
//! record twice.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::layout::{lane as at, record as rec};
use crate::ledger::{Record, RecordId, RequestId, Transport};
use crate::sys::mmap::SharedWords;
use crate::time::UnixNs;

/// Why requests were passed up, in the order the program counts them.
pub const PASS_REASONS: [&str; 8] =
    ["not_sure", "key", "tag", "window", "asset", "stale", "limited", "lane_full"];

/// All lanes of one run.
#[derive(Debug)]
pub struct Lanes {
    lanes: SharedWords,
    records: SharedWords,
    count: usize,
    shift: u32,
}

impl Lanes {
    pub(super) fn new(lanes: SharedWords, records: SharedWords, count: usize, shift: u32) -> Self {
        Self { lanes, records, count, shift }
    }

    /// Names the lanes before the program runs.
    pub(super) fn name(&self, epoch: u32, shard_first: u16) {
        for (lane, shard) in (0..self.count).zip(shard_first..) {
            self.word(lane, at::PLACE).store(u64::from(shard) << 32 | u64::from(epoch), Relaxed);
        }
    }

    /// How many lanes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Epoch and shard of a lane.
    #[must_use]
    pub fn place(&self, lane: usize) -> (u32, u16) {
        let place = self.word(lane, at::PLACE).load(Relaxed);
        (place as u32, (place >> 32) as u16)
    }

    /// How many requests a lane has answered.
    #[must_use]
    pub fn answered(&self, lane: usize) -> u64 {
        self.word(lane, at::HEAD).load(Acquire)
    }

    /// How many of a lane's records were released.
    #[must_use]
    pub fn released(&self, lane: usize) -> u64 {
        self.word(lane, at::TAIL).load(Relaxed)
    }

    /// How many requests a lane has passed up for each of [`PASS_REASONS`].
    #[must_use]
    pub fn passed(&self, lane: usize) -> [u64; PASS_REASONS.len()] {
        std::array::from_fn(|reason| self.word(lane, at::PASSED + reason).load(Relaxed))
    }

    /// The records of a lane from number `from` on, oldest first. Nothing before the lane's tail can be
    /// read any more.
    pub fn records(&self, lane: usize, from: u64) -> impl Iterator<Item = (RecordId, Record)> {
        let (epoch, shard) = self.place(lane);
        let (first, end) = (from.max(self.released(lane)), self.answered(lane));
        (first..end).map(move |sequence| (RecordId { epoch, shard, sequence }, self.read(lane, sequence)))
    }

    /// Lets the program use the slots of all records before number `until` again. Call it when they are
    /// safe; never moves back, nor beyond what there is.
    pub fn release(&self, lane: usize, until: u64) {
        let until = until.min(self.answered(lane)).max(self.released(lane));
        self.word(lane, at::TAIL).store(until, Release);
    }

    fn read(&self, lane: usize, sequence: u64) -> Record {
        let slot = (lane << self.shift) + (sequence as usize & ((1 << self.shift) - 1));
        let words = &self.records.words()[slot * rec::WORDS..(slot + 1) * rec::WORDS];
        let word = |index: usize| words[index].load(Relaxed);
        debug_assert_eq!(word(rec::SEQUENCE), sequence, "a record stands in its own slot");
        let small = word(rec::SMALL);
        let [.., exchange, _, status, request_len] = small.to_le_bytes();
        let mut id = [0; 32];
        for (bytes, index) in id.chunks_exact_mut(8).zip(rec::REQUEST..) {
            bytes.copy_from_slice(&word(index).to_le_bytes());
        }
        let id = id.get(..usize::from(request_len)).unwrap_or(&id);
        Record {
            time: UnixNs(word(rec::TIME)),
            key: word(rec::KEY) as u32,
            asset: small as u16,
            assets: (small >> 16) as u16,
            exchange,
            transport: Transport::UdpV2,
            status,
            request: RequestId::new(id),
            ..Record::EMPTY
        }
    }

    fn word(&self, lane: usize, index: usize) -> &AtomicU64 {
        &self.lanes.words()[lane * at::WORDS + index]
    }
}
