//! Reading records back: while they are written, and long after.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use super::Journal;
use super::check::Seed;
use super::error::{JournalError, failed};
use super::journal::Entry;
use super::layout::HEADER_LEN;
use super::record::{ChainId, RECORD_LEN, Record, RecordId, Slot, words_of};
use super::recovery::fill;
use super::segment::Live;

/// Records read from a file at a time: 256 KiB.
const PIECE_RECORDS: usize = 4_096;

/// Bytes read at a time where a disk does not give all of them: what one of its blocks may hold.
const BLOCK_LEN: usize = 4_096;

/// How far a reader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where to go on: the sequence behind the last one looked at.
    pub next: u64,
    /// Records passed over because they are damaged or their segment is missing or cannot be read.
    pub missing: u64,
}

/// Where the next records of a chain are.
enum Piece {
    /// In memory, so many slots of it from that one.
    Live(Arc<Live>, usize, usize),
    /// In a file, so many records from that sequence; the file begins with `first`.
    Sealed { path: PathBuf, first: u64, count: u64 },
    /// Nowhere before that sequence.
    Gap(u64),
}

impl Journal {
    /// Appends the records of a chain from that sequence on to `out`, in order and at most `max`.
    /// Calling it again with [`Progress::next`] goes on; an unchanged `next` means that there are no
    /// more, for now or, when the chain is not live, for ever.
    ///
    /// # Errors
    /// The file of that sequence cannot be read.
    pub fn read(
        &self,
        chain: ChainId,
        from: u64,
        max: usize,
        out: &mut Vec<(RecordId, Record)>,
    ) -> Result<Progress, JournalError> {
        let seed = Seed::of_chain(chain.epoch, chain.shard);
        let mut progress = Progress { next: from, missing: 0 };
        let mut left = max;
        while left > 0
            && let Some(piece) = self.piece(chain, progress.next)
        {
            let at = progress.next;
            match piece {
                Piece::Gap(next) => {
                    progress.missing += next - at;
                    progress.next = next;
                }
                Piece::Live(live, slot, count) => {
                    for slot in (slot..slot + count).take(left) {
                        progress.take(chain, live.slot(slot, seed), out);
                    }
                }
                Piece::Sealed { path, first, count } => {
                    let count = usize::try_from(count).unwrap_or(usize::MAX).min(left).min(PIECE_RECORDS);
                    let mut bytes = vec![0; count * RECORD_LEN];
                    let offset = HEADER_LEN as u64 + (at - first) * RECORD_LEN as u64;
                    match fill_readable(&path, &mut bytes, offset) {
                        // The next call tells why it is no more.
                        Err(_) if progress.next > from => return Ok(progress),
                        read => read.map_err(failed("read", &path))?,
                    }
                    for bytes in bytes.chunks_exact(RECORD_LEN) {
                        let words = words_of(bytes).unwrap_or_default();
                        progress.take(chain, Record::read(&words, seed, progress.next), out);
                    }
                }
            }
            left = left.saturating_sub(usize::try_from(progress.next - at).unwrap_or(usize::MAX));
        }
        Ok(progress)
    }

    /// Shows every record that is not drained yet to `look`: of each chain, those from the sequence on
    /// that `position` gives. For sums over what no store has yet, such as a key's month.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn for_each_from(
        &self,
        position: impl Fn(ChainId) -> u64,
        mut look: impl FnMut(RecordId, &Record),
    ) -> Result<(), JournalError> {
        let mut records = Vec::new();
        for chain in self.chains() {
            let mut at = position(chain.id).max(chain.first);
            loop {
                records.clear();
                let progress = self.read(chain.id, at, PIECE_RECORDS, &mut records)?;
                records.iter().for_each(|(id, record)| look(*id, record));
                if progress.next == at {
                    break;
                }
                at = progress.next;
            }
        }
        Ok(())
    }

    /// Where the records of a chain from that sequence on are; `None` when there are none.
    fn piece(&self, chain: ChainId, at: u64) -> Option<Piece> {
        let table = self.table();
        let segments = &table.chains.get(&chain)?.segments;
        if let Some((first, entry)) = segments.range(..=at).next_back() {
            let end = first + entry.count();
            match entry {
                Entry::Sealed { path, .. } if at < end => {
                    return Some(Piece::Sealed { path: path.clone(), first: *first, count: end - at });
                }
                Entry::Live(live) if at < end => {
                    let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
                    return Some(Piece::Live(Arc::clone(live), small(at - first), small(end - at)));
                }
                // Its shard may have filled it since, and gone on in the next one: what is in that one
                // says nothing about this place.
                Entry::Live(live) if at < first + live.slots as u64 => return None,
                Entry::Live(_) | Entry::Sealed { .. } => {}
            }
        }
        // One without records is still to be written, and those behind it later.
        let (next, entry) = segments.range(at..).next()?;
        (entry.count() > 0).then_some(Piece::Gap(*next))
    }
}

/// Reads what can be read; the rest stays zeros, which are no records. A file that is gone and a disk
/// that has lost a block will not come back: they cost the records there, and hold up no others.
fn fill_readable(path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let is_lost = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::EIO as i32)
    };
    let file = match File::open(path) {
        Err(error) if is_lost(&error) => return Ok(()),
        opened => opened?,
    };
    match fill(&file, bytes, offset) {
        Err(error) if is_lost(&error) => {}
        filled => return filled.map(drop),
    }
    for (piece, at) in bytes.chunks_mut(BLOCK_LEN).zip((offset..).step_by(BLOCK_LEN)) {
        match fill(&file, piece, at) {
            Err(error) if is_lost(&error) => piece.fill(0),
            filled => drop(filled?),
        }
    }
    Ok(())
}

impl Progress {
    fn take(&mut self, chain: ChainId, slot: Slot, out: &mut Vec<(RecordId, Record)>) {
        let ChainId { epoch, shard } = chain;
        match slot {
            Slot::Record(record) => out.push((RecordId { epoch, shard, sequence: self.next }, record)),
            Slot::Empty | Slot::Unreadable => self.missing += 1,
        }
        self.next += 1;
    }
}
