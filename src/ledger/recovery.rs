//! What an earlier run has left: every whole record is kept, and nothing else.
//!
//! A segment that was sealed is taken at its word; damage in it is found when it is read. One that
//! was not, because the process was killed, is looked through and sealed. Files that are not ours,
//! or not readable as what they say they are, stay where they are and are told.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::error::{JournalError, failed};
use super::layout::{
    HEADER_LEN, Header, HeaderFault, SEAL_AT, Scan, Scanned, SegmentIndex, epoch_and_first, shard_of,
};
use super::record::{ChainId, RECORD_LEN};

/// Bytes read at a time.
const PIECE_LEN: usize = 256 * 1_024;
const _: () = assert!(PIECE_LEN.is_multiple_of(RECORD_LEN));

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments of earlier runs that hold records.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Records whose writing was broken off when the process ended; none was answered.
    pub unfinished: u64,
    /// Records that were written and cannot be read any more.
    pub damaged: u64,
    /// Records between two segments that are there, in one that is not.
    pub missing: u64,
    /// Everything an operator should look at, one line each.
    pub findings: Vec<String>,
}

impl fmt::Display for Recovery {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segments, records, unfinished, damaged, missing, findings } = self;
        write!(f, "{records} records of earlier runs in {segments} segments")?;
        if *unfinished > 0 {
            write!(f, ", {unfinished} broken off unanswered")?;
        }
        if damaged + missing > 0 {
            write!(f, ", {damaged} damaged, {missing} missing")?;
        }
        if !findings.is_empty() {
            write!(f, ", {} findings", findings.len())?;
        }
        Ok(())
    }
}

/// A segment of an earlier run.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) chain: ChainId,
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) index: SegmentIndex,
    pub(super) len: u64,
}

/// Which runs' segments a recovery meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// None of this run or a later one may be there yet.
    None,
    /// This run has begun to write; its segments, and those of later runs, are not looked at.
    Begun,
}

/// Looks through the folders of all shards for what runs before `epoch` have left.
pub(super) fn recover(
    folder: &Path,
    epoch: u32,
    own: Own,
    report: &mut Recovery,
) -> Result<Vec<Kept>, JournalError> {
    let mut kept = Vec::new();
    for path in entries(folder)? {
        match path.file_name().and_then(|name| name.to_str()).and_then(shard_of) {
            Some(shard) if path.is_dir() => {
                recover_shard(&path, ChainId { epoch, shard }, own, &mut kept, report)?;
            }
            _ if path.ends_with(super::journal::LOCK) => {}
            _ => report.findings.push(format!("{} is no folder of a shard; left as it is", path.display())),
        }
    }
    kept.sort_by_key(|segment| (segment.chain, segment.first));
    for segment in &kept {
        report.segments += 1;
        report.records += segment.index.count - segment.index.damaged;
        report.damaged += segment.index.damaged;
        if segment.index.damaged > 0 {
            let (path, damaged) = (segment.path.display(), segment.index.damaged);
            report.findings.push(format!("{path}: {damaged} records are damaged; the others are kept"));
        }
    }
    for pair in kept.windows(2).filter(|pair| pair[0].chain == pair[1].chain) {
        let end = pair[0].first.saturating_add(pair[0].index.count);
        let missing = pair[1].first.saturating_sub(end);
        if missing > 0 {
            report.missing += missing;
            let path = pair[1].path.display();
            report.findings.push(format!("{path}: the {missing} records before it are missing"));
        }
    }
    Ok(kept)
}

fn recover_shard(
    folder: &Path,
    now: ChainId,
    own: Own,
    kept: &mut Vec<Kept>,
    report: &mut Recovery,
) -> Result<(), JournalError> {
    for path in entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let finished = name.strip_suffix(super::keeper::UNREADY).unwrap_or(name);
        if own == Own::Begun && epoch_and_first(finished).is_some_and(|(epoch, _)| epoch >= now.epoch) {
            continue;
        }
        if name.strip_suffix(super::keeper::UNREADY).is_some_and(|name| epoch_and_first(name).is_some()) {
            // The process ended while it was being made: there was never a record in it.
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            continue;
        }
        let Some((epoch, first)) = epoch_and_first(name) else {
            report.findings.push(format!("{} is no segment; left as it is", path.display()));
            continue;
        };
        if epoch >= now.epoch {
            return Err(JournalError::Epoch { path, epoch: now.epoch });
        }
        let chain = ChainId { epoch, shard: now.shard };
        kept.extend(recover_segment(&path, chain, first, report).map_err(failed("recover", &path))?);
    }
    Ok(())
}

/// Takes in one segment; `None` when it holds no record or is none.
fn recover_segment(
    path: &Path,
    chain: ChainId,
    first: u64,
    report: &mut Recovery,
) -> io::Result<Option<Kept>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut page = vec![0; HEADER_LEN.min(usize::try_from(len).unwrap_or(HEADER_LEN))];
    file.read_exact_at(&mut page, 0)?;
    let shown = path.display();
    let damaged_header = match Header::read(&page) {
        Ok(header) if header.chain == chain && header.first == first => false,
        Ok(_) => {
            report.findings.push(format!("{shown} is another segment under this name; left as it is"));
            return Ok(None);
        }
        Err(HeaderFault::Version(version)) => {
            let text = format!("{shown} was written by another version ({version}); left as it is");
            report.findings.push(text);
            return Ok(None);
        }
        Err(HeaderFault::Foreign | HeaderFault::Damaged) => true,
    };
    if !damaged_header
        && let Some(index) = SegmentIndex::read(&page)
        && let Some(needed) = segment_len(index.count)
        && len >= needed
    {
        return Ok(Some(Kept { chain, first, path: path.to_owned(), index, len }));
    }
    let Scanned { mut index, unfinished, used } = scan(&file, chain, first)?;
    if damaged_header && index.count == 0 {
        report.findings.push(format!("{shown} holds nothing that belongs under this name; left as it is"));
        return Ok(None);
    }
    if damaged_header {
        report.findings.push(format!("{shown}: its header is damaged; the records are kept"));
    }
    // One at the end was being written; more are damage.
    report.unfinished += unfinished.min(1);
    if unfinished > 1 {
        index.damaged += unfinished - 1;
        index.count += unfinished - 1;
    }
    if used == 0 {
        // Made ready for records that never came.
        fs::remove_file(path)?;
        return Ok(None);
    }
    let len = HEADER_LEN as u64 + used * RECORD_LEN as u64;
    if damaged_header {
        file.write_all_at(&Header { chain, first, slots: used }.bytes(), 0)?;
    }
    seal(&file, &index, len)?;
    Ok((index.count > 0).then(|| Kept { chain, first, path: path.to_owned(), index, len }))
}

/// Length of a file that holds so many records.
fn segment_len(count: u64) -> Option<u64> {
    count.checked_mul(RECORD_LEN as u64)?.checked_add(HEADER_LEN as u64)
}

/// Looks through the slots of a file.
pub(super) fn scan(file: &File, chain: ChainId, first: u64) -> io::Result<Scanned> {
    let mut scan = Scan::new(chain, first);
    let (mut at, mut piece) = (HEADER_LEN as u64, vec![0; PIECE_LEN]);
    loop {
        let got = fill(file, &mut piece, at)?;
        scan.look(&piece[..got]);
        at += got as u64;
        if got < PIECE_LEN {
            return Ok(scan.end());
        }
    }
}

/// Reads until the piece is full or the file has ended.
pub(super) fn fill(file: &File, piece: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < piece.len() {
        match file.read_at(&mut piece[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Writes what a segment holds into its header, and gives back what it does not need.
pub(super) fn seal(file: &File, index: &SegmentIndex, len: u64) -> io::Result<()> {
    // The records first: a seal must not reach the disk before what it speaks of. That it is lost
    // costs nothing but another look at the records.
    file.set_len(len)?;
    file.sync_all()?;
    file.write_all_at(&index.seal(), SEAL_AT as u64)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut entries = read().map_err(failed("read", folder))?;
    entries.sort();
    Ok(entries)
}
