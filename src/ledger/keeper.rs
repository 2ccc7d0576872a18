//! The work behind the shards: segments are made before they are needed, records reach the disk, and
//! what is full is sealed. Two threads do it, so that a slow disk delays no new segment: one calls
//! [`Journal::keep`], the other [`Journal::sync`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::Journal;
use super::check::Seed;
use super::error::{JournalError, failed};
use super::journal::{Entry, Prune, READY_MAX, Table};
use super::layout::{HEADER_LEN, Header, Scan, Scanned, file_name, folder_name};
use super::record::{ChainId, RECORD_LEN};
use super::recovery::seal;
use super::segment::{HEADER_WORDS, Live};
use crate::sys::mmap::SharedWords;

/// What a segment's file is called until it can be used.
pub(super) const UNREADY: &str = ".new";

/// Slots that are pre-faulted again behind those just synced: 256 KiB.
const AHEAD_SLOTS: usize = 4_096;

impl Journal {
    /// Makes segments for the shards that have too few ready. To be called every few milliseconds, by
    /// one thread.
    ///
    /// # Errors
    /// One cannot be made; it is tried again at the next call.
    pub fn keep(&self) -> Result<(), JournalError> {
        let result = self.make_wanted();
        let bytes_max = self.options.bytes_max;
        let mut table = self.table();
        let none_ready = table.starves();
        table.trouble = match &result {
            Err(error) => Some(error.to_string()),
            Ok(Made::Capped { bytes }) if none_ready => Some(format!(
                "the usage journal has {bytes} of at most {bytes_max} bytes and all of it is still to be \
                 drained, so requests are refused as overloaded; see why the store takes nothing, or raise \
                 journal.max_mib"
            )),
            Ok(_) => None,
        };
        drop(table);
        result.map(|_| ())
    }

    fn make_wanted(&self) -> Result<Made, JournalError> {
        let (mut failed, mut result) = (Vec::new(), Ok(Made::All));
        while let Some((chain, first)) = self.wanted(&failed) {
            let needed = self.segment_len();
            let mut bytes = self.table().bytes();
            if bytes + needed > self.options.bytes_max {
                // Detail that is drained makes room for what is not.
                let most = self.options.bytes_max.saturating_sub(needed);
                bytes -= self.prune(Prune { before: None, bytes_max: Some(most) })?.bytes;
            }
            if bytes + needed > self.options.bytes_max {
                return Ok(Made::Capped { bytes });
            }
            let live = match self.make(chain, first) {
                Ok(live) => Arc::new(live),
                Err(error) if error.is_full() => {
                    // As with the cap, once a shard would have to refuse.
                    if self.starves() {
                        let most = bytes.saturating_sub(needed);
                        self.prune(Prune { before: None, bytes_max: Some(most) })?;
                    }
                    return Err(error);
                }
                Err(error) => {
                    // It is about this shard's folder, and holds up no other one.
                    failed.push(chain);
                    result = Err(error);
                    continue;
                }
            };
            let mut table = self.table();
            let Some(chain) = table.chains.get_mut(&chain) else { continue };
            let Some(writer) = &mut chain.writer else { continue };
            writer.next = first + live.slots as u64;
            if first == 0 {
                // That a shard takes its first one says nothing.
                writer.seen_empty = writer.next;
            }
            chain.segments.insert(first, Entry::Live(Arc::clone(&live)));
            // It has room: `wanted` is at most what it holds. A shard that is gone needs none.
            let _gone = writer.ready.try_send(live);
        }
        result
    }

    /// Whether a shard has no segment ready.
    fn starves(&self) -> bool {
        self.table().starves()
    }

    /// Of the shards that should have one more ready, the one that has the fewest, so that near the cap
    /// none takes what others need more; and the sequence it begins with.
    fn wanted(&self, failed: &[ChainId]) -> Option<(ChainId, u64)> {
        let mut table = self.table();
        let wanted = table.chains.iter_mut().filter_map(|(id, chain)| {
            let writer = chain.writer.as_mut()?;
            let ready = writer.ready.len();
            if ready == 0 && writer.next > writer.seen_empty {
                // All were taken since the last call: it writes fast, so more should be ready.
                writer.wanted = (writer.wanted * 2).min(READY_MAX);
                writer.seen_empty = writer.next;
            }
            (ready < writer.wanted && !failed.contains(id)).then_some((ready, *id, writer.next))
        });
        wanted.min().map(|(_, chain, next)| (chain, next))
    }

    /// Length of a segment with whole slots, at least one.
    fn segment_len(&self) -> u64 {
        let slots = self.options.segment_bytes.saturating_sub(HEADER_LEN as u64) / RECORD_LEN as u64;
        HEADER_LEN as u64 + slots.max(1) * RECORD_LEN as u64
    }

    /// Makes a segment: its blocks are there, its header is written, its pages are faulted in.
    fn make(&self, chain: ChainId, first: u64) -> Result<Live, JournalError> {
        let folder = self.options.folder.join(folder_name(chain.shard));
        let path = folder.join(file_name(chain.epoch, first));
        let unready = folder.join(file_name(chain.epoch, first) + UNREADY);
        let made = self.make_file(&unready, chain, first).and_then(|made| {
            if path.try_exists()? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(&unready, &path)?;
            Ok(made)
        });
        match made {
            Ok((words, file)) => Ok(Live::new(words, chain, first, Some((file, path)))),
            Err(error) => {
                // So that it takes no room while there is too little.
                let _gone = fs::remove_file(&unready);
                Err(failed("make", &path)(error))
            }
        }
    }

    fn make_file(&self, path: &Path, chain: ChainId, first: u64) -> io::Result<(SharedWords, File)> {
        let len = self.segment_len();
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).read(true).write(true).mode(0o600).open(path)?;
        let slots = (len - HEADER_LEN as u64) / RECORD_LEN as u64;
        file.write_all(&Header { chain, first, slots }.bytes())?;
        allocate(&mut file, len)?;
        let words = SharedWords::of_file(&file, usize::try_from(len / 8).map_err(io::Error::other)?)?;
        match words.populate(0..words.words().len()) {
            // An older kernel: the shard takes the faults.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            result => result?,
        }
        Ok((words, file))
    }

    /// Brings what was written to the disk, and seals what is full. To be called as often as power
    /// loss may take records, by one thread.
    ///
    /// # Errors
    /// The disk failed; it is tried again at the next call.
    pub fn sync(&self) -> Result<(), JournalError> {
        let result = self.sync_all();
        self.table().sync_trouble = result.as_ref().err().map(JournalError::to_string);
        result
    }

    fn sync_all(&self) -> Result<(), JournalError> {
        let mut result = Ok(());
        for live in self.live() {
            result = result.and(self.sync_live(&live));
            if live.is_full() {
                result = result.and(self.seal_live(live));
            }
        }
        result
    }

    /// Segments that are, or may be, written.
    fn live(&self) -> Vec<Arc<Live>> {
        let table = self.table();
        let entries = table.chains.values().flat_map(|chain| chain.segments.values());
        let live = entries.filter_map(|entry| match entry {
            Entry::Live(live) => Some(Arc::clone(live)),
            Entry::Sealed { .. } => None,
        });
        live.collect()
    }

    fn sync_live(&self, live: &Live) -> Result<(), JournalError> {
        let Some((file, path)) = &live.file else { return Ok(()) };
        let (synced, written) = (live.synced(), live.written());
        if synced == written {
            return Ok(());
        }
        let sync = || -> io::Result<()> {
            if synced == 0 {
                // The file itself, its name, and with them its header.
                file.sync_all()?;
                File::open(path.parent().unwrap_or(path))?.sync_all()?;
            }
            live.words.sync(Live::range(synced..written))?;
            // The kernel protects what it has written out, so the next pages would fault.
            match live.words.populate(Live::range(written..live.slots.min(written + AHEAD_SLOTS))) {
                Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
                result => result,
            }
        };
        sync().map_err(failed("bring to the disk", path))?;
        live.set_synced(written);
        Ok(())
    }

    /// Seals a segment that its shard has let go of.
    fn seal_live(&self, live: Arc<Live>) -> Result<(), JournalError> {
        let Some((file, path)) = &live.file else { return Ok(()) };
        if !self.is_let_go(&live) {
            return Ok(());
        }
        let seed = Seed::of_chain(live.chain.epoch, live.chain.shard);
        let written = live.written();
        let mut scan = Scan::new(live.chain, live.first);
        (0..written).for_each(|slot| scan.take(live.slot(slot, seed)));
        let Scanned { index, .. } = scan.end();
        let len = HEADER_LEN as u64 + (written * RECORD_LEN) as u64;
        seal(file, &index, len).map_err(failed("seal", path))?;
        let sealed = Entry::Sealed { path: path.clone(), index: index.into(), len };
        if let Some(chain) = self.table().chains.get_mut(&live.chain) {
            chain.segments.insert(live.first, sealed);
        }
        Ok(())
    }

    /// Whether nobody but the table and the caller holds a segment. New holders come from the table
    /// only, to read; the shard that writes it is the first and never comes back.
    fn is_let_go(&self, live: &Arc<Live>) -> bool {
        let _table = self.table();
        Arc::strong_count(live) <= 2
    }

    /// Seals what the shards have left when they have ended, and removes what they never used. What
    /// cannot be sealed is recovered at the next start.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(&self) -> Result<(), JournalError> {
        self.end(|_| true)
    }

    /// As [`close`](Self::close), for one chain whose place was dropped.
    ///
    /// # Errors
    /// The disk failed.
    pub fn finish(&self, chain: ChainId) -> Result<(), JournalError> {
        self.end(|id| id == chain)
    }

    fn end(&self, is_meant: impl Fn(ChainId) -> bool) -> Result<(), JournalError> {
        // With its sender a shard's supply goes, and the segments that lie ready in it.
        for (_, chain) in self.table().chains.iter_mut().filter(|(id, _)| is_meant(**id)) {
            chain.writer = None;
        }
        let mut result = Ok(());
        for live in self.live().into_iter().filter(|live| is_meant(live.chain)) {
            let Some((_, path)) = &live.file else { continue };
            if live.written() > 0 {
                result = result.and(self.sync_live(&live)).and(self.seal_live(live));
            } else if self.is_let_go(&live) {
                result = result.and(fs::remove_file(path).map_err(failed("remove", path)));
                if let Some(chain) = self.table().chains.get_mut(&live.chain) {
                    chain.segments.remove(&live.first);
                }
            }
        }
        result
    }
}

impl Table {
    fn starves(&self) -> bool {
        self.chains.values().filter_map(|chain| chain.writer.as_ref()).any(|writer| writer.ready.is_empty())
    }
}

/// What became of the segments that were wanted.
enum Made {
    /// They are there.
    All,
    /// There may be no more: there are so many bytes, and all are still to be drained.
    Capped { bytes: u64 },
}

/// Gives a file all its blocks, so that writing to its memory cannot fail for want of room.
fn allocate(file: &mut File, len: u64) -> io::Result<()> {
    let signed = i64::try_from(len).map_err(io::Error::other)?;
    loop {
        match fallocate(&*file, FallocateFlags::empty(), 0, signed) {
            Ok(()) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    // A file system that cannot: zeros take blocks too.
    let zeros = [0; 64 * 1_024];
    let mut left = len.saturating_sub(file.metadata()?.len());
    while left > 0 {
        let piece = zeros.len().min(usize::try_from(left).unwrap_or(zeros.len()));
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

const _: () = assert!(HEADER_WORDS * 8 == HEADER_LEN);
