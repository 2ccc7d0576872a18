//! All records of a data folder: those being written, and those of earlier segments and runs.
//!
//! ```text
//!   DATA/journal/        mode 0700
//!     lock               held by the process that serves
//!     shard-0/
//!       0000000006-00000000000000000000.seg    epoch 6, sealed
//!       0000000007-00000000000000000000.seg    epoch 7, sealed
//!       0000000007-00000000000000131008.seg    being written by shard 0
//!       0000000007-00000000000000262016.seg    ready to be written next
//!
//!   a chain = (epoch, shard):  ├── released ──┤── to be drained ──┤ being written … ready
//!                              first                              end
//! ```
//!
//! Readers see records in order, as soon as they are written. A sealed segment is kept as detail until
//! it is pruned, and one with records that were not [released](Journal::release) never is.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use super::error::{JournalError, failed};
use super::layout::SegmentIndex;
use super::record::ChainId;
use super::recovery::{Kept, Own, Recovery, recover};
use super::segment::{Live, Segment};
use crate::time::UnixNs;

/// Name of the file that a serving process locks.
pub(super) const LOCK: &str = "lock";

/// Segments that may be ready for one shard. At 8 MiB and a million records a second they last a second.
pub(super) const READY_MAX: usize = 8;

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// Where it lies; made when missing.
    pub folder: PathBuf,
    /// Length of one segment, in bytes: 64 of a record each, and 4,096.
    pub segment_bytes: u64,
    /// Most bytes of all segments together.
    pub bytes_max: u64,
}

/// The journal of a data folder, held alone.
#[derive(Debug)]
pub struct Journal {
    pub(super) options: JournalOptions,
    pub(super) table: Mutex<Table>,
    epoch: u32,
    /// Locked as long as this lives; absent while the process before us holds it.
    lock: Mutex<Option<File>>,
}

/// Every segment there is. Never locked by a shard, and by others for moments: at most while files are
/// removed.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) chains: BTreeMap<ChainId, Chain>,
    pub(super) trouble: Option<String>,
    pub(super) sync_trouble: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Chain {
    /// By first sequence.
    pub(super) segments: BTreeMap<u64, Entry>,
    /// Records before this one may go.
    pub(super) released: u64,
    /// Of the shards of this process.
    pub(super) writer: Option<Writer>,
}

#[derive(Debug)]
pub(super) enum Entry {
    Live(Arc<Live>),
    Sealed { path: PathBuf, index: Arc<SegmentIndex>, len: u64 },
}

/// How a shard of this process is served with segments.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) ready: Sender<Arc<Live>>,
    /// First sequence of the next segment to be made.
    pub(super) next: u64,
    /// How many should be ready.
    pub(super) wanted: usize,
    /// `next` when none was ready last.
    pub(super) seen_empty: u64,
}

/// A chain as its readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Which.
    pub id: ChainId,
    /// Sequence of the earliest record that is still here.
    pub first: u64,
    /// Sequence that the next record has or would have.
    pub end: u64,
    /// Records before this one were released.
    pub released: u64,
    /// Whether a shard of this process writes it: otherwise its end stands.
    pub live: bool,
}

/// A segment as those who look for detail see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its chain.
    pub chain: ChainId,
    /// Sequence of its first record.
    pub first: u64,
    /// Sequence behind its last record.
    pub end: u64,
    /// Its length on disk.
    pub bytes: u64,
    /// What it holds; `None` while it may still be written.
    pub index: Option<Arc<SegmentIndex>>,
}

/// What may be pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Segments whose latest record is older.
    pub before: Option<UnixNs>,
    /// The oldest segments, until all together have no more bytes than this.
    pub bytes_max: Option<u64>,
}

/// What was pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Files removed.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a journal stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Most they may be.
    pub bytes_max: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Records that were not released yet.
    pub unreleased: u64,
    /// Records there is room for at once, of each shard.
    pub room_records: Vec<u64>,
    /// Why no further segment can be made, told to the operator.
    pub trouble: Option<String>,
    /// Why records do not reach the disk, told to the operator.
    pub sync_trouble: Option<String>,
}

impl Journal {
    /// Opens the journal of a data folder for a run of `shards` shards, and takes in what earlier runs
    /// have left. `epoch` must be higher than theirs. Returns the place for records of each shard.
    ///
    /// A disk without room is no error: the shards have no room until there is some.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn open(
        options: JournalOptions,
        epoch: u32,
        shards: u16,
    ) -> Result<(Self, Vec<Segment>, Recovery), JournalError> {
        make_folder(&options.folder)?;
        let lock = lock(&options.folder)?;
        let mut recovery = Recovery::default();
        let mut table = Table::default();
        table.take_in(recover(&options.folder, epoch, Own::None, &mut recovery)?);
        let (journal, segments) = Self::of(options, epoch, shards, table, Some(lock))?;
        Ok((journal, segments, recovery))
    }

    /// Opens it beside another process that serves this folder and is about to leave: only what this
    /// run writes is in it, until [`take_over`](Self::take_over).
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open_beside(
        options: JournalOptions,
        epoch: u32,
        shards: u16,
    ) -> Result<(Self, Vec<Segment>), JournalError> {
        make_folder(&options.folder)?;
        Self::of(options, epoch, shards, Table::default(), None)
    }

    /// Takes in what earlier runs have left, once the process that this one was opened beside has gone;
    /// `None` while it has not. Nothing to do when that is done.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn take_over(&self) -> Result<Option<Recovery>, JournalError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recovery = Recovery::default();
        if held.is_some() {
            return Ok(Some(recovery));
        }
        let lock = match lock(&self.options.folder) {
            Ok(lock) => lock,
            Err(JournalError::Held { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept = recover(&self.options.folder, self.epoch, Own::Begun, &mut recovery)?;
        self.table().take_in(kept);
        *held = Some(lock);
        Ok(Some(recovery))
    }

    /// Whether all records of the folder are in it: no process before this one still writes some.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn of(
        options: JournalOptions,
        epoch: u32,
        shards: u16,
        mut table: Table,
        lock: Option<File>,
    ) -> Result<(Self, Vec<Segment>), JournalError> {
        let folder = &options.folder;
        let mut segments = Vec::new();
        for shard in 0..shards {
            let chain = ChainId { epoch, shard };
            make_folder(&folder.join(super::layout::folder_name(shard)))?;
            let (ready, supply) = crossbeam_channel::bounded(READY_MAX);
            table.chains.entry(chain).or_default().writer =
                Some(Writer { ready, next: 0, wanted: 1, seen_empty: 0 });
            segments.push(Segment::awaiting(chain, supply).map_err(failed("map memory for", folder))?);
        }
        let journal = Self { options, table: Mutex::new(table), epoch, lock: Mutex::new(lock) };
        match journal.keep() {
            Err(error) if !error.is_full() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok((journal, segments))
    }

    /// A further place for records, of a chain that is no shard's of this run: it goes on where the
    /// chain ends, and at least from `from`. There is room in it once [`keep`](Self::keep) was called.
    ///
    /// # Errors
    /// The chain's folder cannot be made.
    pub fn further(&self, chain: ChainId, from: u64) -> Result<Segment, JournalError> {
        let folder = self.options.folder.join(super::layout::folder_name(chain.shard));
        make_folder(&folder)?;
        let (ready, supply) = crossbeam_channel::bounded(READY_MAX);
        let mut table = self.table();
        let held = table.chains.entry(chain).or_default();
        let next = held.info(chain).end.max(from);
        held.writer = Some(Writer { ready, next, wanted: 1, seen_empty: next });
        drop(table);
        Segment::awaiting(chain, supply)
            .map(|segment| segment.going_on_from(next))
            .map_err(failed("map memory for", &folder))
    }

    /// All chains of which there are records, or may soon be, in the order of epoch and shard.
    #[must_use]
    pub fn chains(&self) -> Vec<ChainInfo> {
        self.table().chains.iter().map(|(id, chain)| chain.info(*id)).collect()
    }

    /// All segments that hold records, by chain and sequence.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let table = self.table();
        let all = table.chains.iter().flat_map(|(id, chain)| {
            chain.segments.iter().map(|(first, entry)| SegmentInfo {
                chain: *id,
                first: *first,
                end: first + entry.count(),
                bytes: entry.len(),
                index: match entry {
                    Entry::Live(_) => None,
                    Entry::Sealed { index, .. } => Some(Arc::clone(index)),
                },
            })
        });
        all.filter(|segment| segment.end > segment.first).collect()
    }

    /// Records of that chain before `up_to` were drained: segments that hold no others may be pruned.
    /// Not remembered over a start.
    pub fn release(&self, chain: ChainId, up_to: u64) {
        if let Some(chain) = self.table().chains.get_mut(&chain) {
            chain.released = chain.released.max(up_to);
        }
    }

    /// Removes sealed segments whose records were all released, oldest first, and forgets chains of
    /// earlier runs that have none left.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn prune(&self, prune: Prune) -> Result<Pruned, JournalError> {
        let mut pruned = Pruned::default();
        // Under the lock, so that no reader is sent to a file that is gone.
        let mut table = self.table();
        let mut bytes = table.bytes();
        let mut old: Vec<(UnixNs, ChainId, u64, u64)> = Vec::new();
        for (id, chain) in &table.chains {
            for (first, entry) in &chain.segments {
                let Entry::Sealed { index, len, .. } = entry else { break };
                if first + index.count > chain.released {
                    break;
                }
                old.push((index.time_max, *id, *first, *len));
            }
        }
        old.sort_unstable();
        for (time, id, first, len) in old {
            let too_old = prune.before.is_some_and(|before| time < before);
            let too_many = prune.bytes_max.is_some_and(|most| bytes > most);
            if !too_old && !too_many {
                continue;
            }
            let Some(chain) = table.chains.get_mut(&id) else { continue };
            let Some(Entry::Sealed { path, .. }) = chain.segments.get(&first) else { continue };
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", path)(e)),
                _ => {}
            }
            chain.segments.remove(&first);
            bytes -= len;
            pruned.segments += 1;
            pruned.bytes += len;
        }
        table.chains.retain(|_, chain| chain.writer.is_some() || !chain.segments.is_empty());
        Ok(pruned)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let table = self.table();
        let infos = table.chains.iter().map(|(id, chain)| chain.info(*id));
        let room = |chain: &Chain| -> Option<u64> {
            chain.writer.as_ref()?;
            let live = chain.segments.values().filter_map(|entry| match entry {
                Entry::Live(live) => Some(live.slots.saturating_sub(live.written()) as u64),
                Entry::Sealed { .. } => None,
            });
            Some(live.sum())
        };
        JournalStatus {
            bytes: table.bytes(),
            bytes_max: self.options.bytes_max,
            segments: table.chains.values().map(|chain| chain.segments.len() as u64).sum(),
            unreleased: infos.map(|info| info.end - info.released.clamp(info.first, info.end)).sum(),
            room_records: table.chains.values().filter_map(room).collect(),
            trouble: table.trouble.clone(),
            sync_trouble: table.sync_trouble.clone(),
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // Every change leaves the table whole, so a panic elsewhere leaves nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take_in(&mut self, kept: Vec<Kept>) {
        for kept in kept {
            let entry = Entry::Sealed { path: kept.path, index: kept.index.into(), len: kept.len };
            self.chains.entry(kept.chain).or_default().segments.insert(kept.first, entry);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.chains.values().flat_map(|chain| chain.segments.values()).map(Entry::len).sum()
    }
}

impl Chain {
    fn info(&self, id: ChainId) -> ChainInfo {
        let first = self.segments.keys().next().copied().unwrap_or(0);
        let last = self.segments.iter().rev().find(|(_, entry)| entry.count() > 0);
        let end = last.map_or(first, |(first, entry)| first + entry.count());
        ChainInfo { id, first, end, released: self.released, live: self.writer.is_some() }
    }
}

impl Entry {
    /// Places taken by records.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Live(live) => live.written() as u64,
            Self::Sealed { index, .. } => index.count,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Live(live) => size_of_val(live.words.words()) as u64,
            Self::Sealed { len, .. } => *len,
        }
    }
}

/// Makes a folder that only its owner may look into.
fn make_folder(path: &Path) -> Result<(), JournalError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let opened = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JournalError::Held { path: folder.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}
