//! The fuzz body of what a disk gives back.

use super::check::Seed;
use super::layout::{HEADER_LEN, Header, Scan, SegmentIndex};
use super::record::{ChainId, RECORD_LEN, Record, Slot, words_of};

/// The bytes of a segment file, whatever became of them: what is read is what would be written, and a
/// scan counts just the records that can be read one by one.
pub fn segment(bytes: &[u8]) {
    let header = Header::read(bytes);
    if let Ok(header) = header {
        assert_eq!(header.bytes(), bytes[..64]);
    }
    let (chain, first) = header.map_or((ChainId { epoch: 7, shard: 3 }, 0), |h| (h.chain, h.first));
    if let Some(index) = SegmentIndex::read(bytes) {
        let seal = index.seal();
        assert_eq!(seal, bytes[64..64 + seal.len()]);
    }
    let slots = bytes.get(HEADER_LEN..).unwrap_or_default();
    let mut scan = Scan::new(chain, first);
    scan.look(slots);
    let scanned = scan.end();
    let seed = Seed::of_chain(chain.epoch, chain.shard);
    let mut records = 0;
    for (sequence, bytes) in (first..).zip(slots.chunks_exact(RECORD_LEN)) {
        let words = words_of(bytes).unwrap_or_default();
        if let Slot::Record(record) = Record::read(&words, seed, sequence) {
            assert_eq!(record.words(seed, sequence), words);
            records += 1;
            assert!(sequence - first < scanned.index.count && scanned.index.may_hold(record.key));
            assert!((scanned.index.time_min..=scanned.index.time_max).contains(&record.time));
        }
    }
    assert_eq!(scanned.index.count - scanned.index.damaged, records);
}
