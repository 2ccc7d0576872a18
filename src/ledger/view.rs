//! A look at a journal from beside it: for reports, of whichever process, also while another one
//! serves. Nothing is locked, mended or sealed, and what is removed meanwhile is simply gone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::check::Seed;
use super::error::{JournalError, failed};
use super::layout::{HEADER_LEN, Header, SegmentIndex, epoch_and_first, shard_of};
use super::record::{ChainId, RECORD_LEN, Record, RecordId, Slot, words_of};
use super::recovery::fill;

/// Records read at a time: 256 KiB.
const PIECE_RECORDS: usize = 4_096;

/// A segment that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewedSegment {
    /// Its chain.
    pub chain: ChainId,
    /// Sequence of its first record.
    pub first: u64,
    /// Sequence behind its last place: all places there are while it is written.
    pub end: u64,
    /// What it holds; `None` while it may still be written.
    pub index: Option<SegmentIndex>,
    path: PathBuf,
}

/// How far a look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Where to go on: the sequence behind the last place looked at.
    pub next: u64,
    /// Places passed over because what they hold is damaged.
    pub damaged: u64,
    /// Nothing more is in this segment, for now.
    pub ended: bool,
}

/// The segments of a journal, as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalView {
    segments: Vec<ViewedSegment>,
}

impl JournalView {
    /// Looks into the journal of that folder; one that is not there is empty.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let mut segments = Vec::new();
        for path in entries(folder)? {
            let Some(shard) = path.file_name().and_then(|name| name.to_str()).and_then(shard_of) else {
                continue;
            };
            for path in entries(&path)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let Some((epoch, first)) = name.and_then(epoch_and_first) else { continue };
                let chain = ChainId { epoch, shard };
                segments.extend(look(&path, chain, first).map_err(failed("read", &path))?);
            }
        }
        segments.sort_unstable_by_key(|segment| (segment.chain, segment.first));
        Ok(Self { segments })
    }

    /// All of them, by chain and sequence.
    #[must_use]
    pub fn segments(&self) -> &[ViewedSegment] {
        &self.segments
    }
}

impl ViewedSegment {
    /// Appends the records from that sequence on to `out`, in order, from at most `max` places.
    ///
    /// # Errors
    /// The file cannot be read. One that was removed meanwhile is no error and has ended.
    pub fn read(
        &self,
        from: u64,
        max: usize,
        out: &mut Vec<(RecordId, Record)>,
    ) -> Result<Looked, JournalError> {
        let ChainId { epoch, shard } = self.chain;
        let seed = Seed::of_chain(epoch, shard);
        let mut looked = Looked { next: from.max(self.first), damaged: 0, ended: false };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Looked { ended: true, ..looked });
            }
            Err(error) => return Err(failed("open", &self.path)(error)),
        };
        let mut bytes = vec![0; PIECE_RECORDS * RECORD_LEN];
        let mut left = max;
        while left > 0 && looked.next < self.end {
            let places = usize::try_from(self.end - looked.next).unwrap_or(usize::MAX);
            let piece = places.min(left).min(PIECE_RECORDS) * RECORD_LEN;
            let Some(bytes) = bytes.get_mut(..piece) else { break };
            let offset = HEADER_LEN as u64 + (looked.next - self.first) * RECORD_LEN as u64;
            let got = fill(&file, bytes, offset).map_err(failed("read", &self.path))?;
            for stored in bytes.chunks_exact(RECORD_LEN).take(got / RECORD_LEN) {
                let words = words_of(stored).unwrap_or_default();
                match Record::read(&words, seed, looked.next) {
                    Slot::Record(record) => {
                        out.push((RecordId { epoch, shard, sequence: looked.next }, record));
                    }
                    // The end of what is written, or a record that is being written just now.
                    Slot::Empty | Slot::Unreadable if self.index.is_none() => {
                        looked.ended = true;
                        return Ok(looked);
                    }
                    Slot::Empty | Slot::Unreadable => looked.damaged += 1,
                }
                looked.next += 1;
                left -= 1;
            }
            if got < piece {
                looked.ended = true;
                return Ok(looked);
            }
        }
        looked.ended = looked.next >= self.end;
        Ok(looked)
    }
}

/// One segment; `None` when it is gone, or none of ours.
fn look(path: &Path, chain: ChainId, first: u64) -> io::Result<Option<ViewedSegment>> {
    let mut page = vec![0; HEADER_LEN];
    let read = File::open(path).and_then(|file| {
        let len = file.metadata()?.len();
        file.read_exact_at(&mut page, 0)?;
        Ok(len)
    });
    let len = match read {
        Ok(len) => len,
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let Ok(header) = Header::read(&page) else { return Ok(None) };
    if header.chain != chain || header.first != first {
        return Ok(None);
    }
    let index = SegmentIndex::read(&page);
    let places = len.saturating_sub(HEADER_LEN as u64) / RECORD_LEN as u64;
    let places = index.as_ref().map_or(header.slots, |index| index.count).min(places);
    Ok(Some(ViewedSegment { chain, first, end: first.saturating_add(places), index, path: path.to_owned() }))
}

/// What is in a folder; nothing when it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    match read() {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(Vec::new())
        }
        result => result.map_err(failed("read", folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Journal, JournalOptions};
    use super::*;
    use crate::time::UnixNs;

    const SLOTS: u64 = 8;

    fn options(folder: &Path) -> JournalOptions {
        let segment_bytes = HEADER_LEN as u64 + SLOTS * RECORD_LEN as u64;
        JournalOptions { folder: folder.to_owned(), segment_bytes, bytes_max: 1 << 30 }
    }

    fn all(folder: &Path, piece: usize) -> Vec<(RecordId, Record)> {
        let mut found = Vec::new();
        for segment in JournalView::open(folder).unwrap().segments() {
            let mut at = segment.first;
            loop {
                let looked = segment.read(at, piece, &mut found).unwrap();
                assert_eq!(looked.damaged, 0);
                at = looked.next;
                if looked.ended {
                    break;
                }
            }
        }
        found
    }

    #[test]
    fn what_is_written_is_seen_at_once_and_after_it_was_sealed() {
        let home = tempfile::tempdir().unwrap();
        assert!(all(&home.path().join("none"), 3).is_empty());
        let record = |n: u64| Record { key: 5, time: UnixNs(1_000 + n), ..Record::EMPTY };
        let mut expected = Vec::new();
        for epoch in [1, 2] {
            let (journal, mut segments, _) = Journal::open(options(home.path()), epoch, 2).unwrap();
            for n in 0..SLOTS * 2 + 3 {
                journal.keep().unwrap();
                for segment in &mut segments {
                    expected.push((segment.append(record(n)).unwrap(), record(n)));
                }
                expected.sort_unstable_by_key(|(id, _)| *id);
                if n % 5 == 0 {
                    journal.sync().unwrap();
                }
                assert_eq!(all(home.path(), 3), expected);
            }
        }
        let view = JournalView::open(home.path()).unwrap();
        let sealed = view.segments().iter().filter(|segment| segment.index.is_some()).count();
        assert!(sealed > 4, "{sealed}");
        assert_eq!(all(home.path(), 10_000), expected);
    }

    #[test]
    fn what_was_removed_meanwhile_has_ended_and_what_is_not_ours_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let (journal, mut segments, _) = Journal::open(options(home.path()), 1, 1).unwrap();
        journal.keep().unwrap();
        segments[0].append(Record::EMPTY).unwrap();
        let folder = home.path().join("shard-0");
        fs::write(folder.join("note.txt"), "x").unwrap();
        fs::write(folder.join("0000000009-00000000000000000000.seg"), "short").unwrap();
        fs::write(folder.join("0000000008-00000000000000000000.seg"), [7; 8_192]).unwrap();
        let view = JournalView::open(home.path()).unwrap();
        let chains: Vec<u32> = view.segments().iter().map(|segment| segment.chain.epoch).collect();
        assert!(chains.iter().all(|epoch| *epoch == 1), "{chains:?}");
        for entry in entries(&folder).unwrap() {
            fs::remove_file(entry).unwrap();
        }
        let mut out = Vec::new();
        let looked = view.segments()[0].read(0, 10, &mut out).unwrap();
        assert!(looked.ended && out.is_empty());
        drop(journal);
    }
}
