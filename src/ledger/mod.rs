//! The usage record and its place before the send.
//!
//! A shard appends one record for every answer **before** the answer may leave, and the record's
//! identity travels in the answer. A segment that has no room refuses, and the request with it.
//!
//! Today a segment is memory of the process that keeps the newest records and refuses none; what
//! outlives the process will be a mapped file behind the same [`Segment::append`].

mod record;

pub use record::{Record, RecordId, RequestId, Transport};

/// Records kept: the newest of a shard, for its own tests and for people who look.
const RECORDS_KEPT: usize = 4_096;
const _: () = assert!(RECORDS_KEPT.is_power_of_two());

/// One shard's place for records.
#[derive(Debug)]
pub struct Segment {
    epoch: u32,
    shard: u16,
    sequence: u64,
    records: Box<[Record]>,
}

impl Segment {
    /// An empty segment of one shard in one run of the process; `epoch` rises with every start.
    #[must_use]
    pub fn new(epoch: u32, shard: u16) -> Self {
        Self { epoch, shard, sequence: 0, records: vec![Record::EMPTY; RECORDS_KEPT].into() }
    }

    /// Appends a record and gives it its identity; `None` when there is no room to keep it.
    #[inline]
    pub fn append(&mut self, record: Record) -> Option<RecordId> {
        let sequence = self.sequence;
        let slot = usize::try_from(sequence).unwrap_or(0) & (RECORDS_KEPT - 1);
        self.records[slot] = Record { sequence, ..record };
        self.sequence = sequence.checked_add(1)?;
        Some(RecordId { epoch: self.epoch, shard: self.shard, sequence })
    }

    /// How many records were appended so far.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.sequence
    }

    /// The newest records that are still kept, oldest first.
    pub fn newest(&self) -> impl Iterator<Item = &Record> {
        let first = self.sequence.saturating_sub(RECORDS_KEPT as u64);
        (first..self.sequence).map(|s| &self.records[usize::try_from(s).unwrap_or(0) & (RECORDS_KEPT - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_rise_without_gaps_and_the_newest_records_are_kept() {
        let mut segment = Segment::new(3, 1);
        for n in 0..RECORDS_KEPT as u64 + 5 {
            let id = segment.append(Record { key: 9, ..Record::EMPTY }).unwrap();
            assert_eq!(id, RecordId { epoch: 3, shard: 1, sequence: n });
        }
        let kept: Vec<u64> = segment.newest().map(|r| r.sequence).collect();
        assert_eq!(kept, (5..RECORDS_KEPT as u64 + 5).collect::<Vec<_>>());
        assert_eq!(segment.appended(), RECORDS_KEPT as u64 + 5);
    }
}
