//! A journal on disk for one shard, with the thread that keeps it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use beast::ledger::{ChainId, Journal, JournalOptions, Record, RecordId, Segment};

/// Of the only shard.
const CHAIN: ChainId = ChainId { epoch: 1, shard: 0 };

/// A journal that is kept until it is dropped.
pub struct KeptJournal {
    /// For those who read it.
    pub journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
    /// Where the next read begins.
    at: u64,
}

impl KeptJournal {
    /// Opens one in a folder and keeps it. Returns the shard's place too.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path) -> io::Result<(Self, Segment)> {
        let options =
            JournalOptions { folder: folder.to_owned(), segment_bytes: 8 << 20, bytes_max: 1 << 30 };
        let (journal, segments, _) = Journal::open(options, CHAIN.epoch, 1).map_err(io::Error::other)?;
        let segment = segments.into_iter().next().ok_or_else(|| io::Error::other("no segment"))?;
        let (journal, stop) = (Arc::new(journal), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&journal), Arc::clone(&stop));
        let keeper = std::thread::spawn(move || {
            for turn in 0_u32.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // What cannot be kept refuses answers, and those are counted.
                let _told = kept.keep();
                if turn.is_multiple_of(100) {
                    let _told = kept.sync();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Ok((Self { journal, stop, keeper: Some(keeper), at: 0 }, segment))
    }

    /// Shows all records since the last call, and lets go of them.
    ///
    /// # Errors
    /// A record is missing, or cannot be read.
    pub fn read(&mut self, mut look: impl FnMut(RecordId, &Record)) -> io::Result<()> {
        let mut records = Vec::new();
        loop {
            records.clear();
            let progress = self.journal.read(CHAIN, self.at, 1 << 16, &mut records);
            let progress = progress.map_err(io::Error::other)?;
            if progress.missing > 0 {
                return Err(io::Error::other(format!("{} records are missing", progress.missing)));
            }
            records.iter().for_each(|(id, record)| look(*id, record));
            if progress.next == self.at {
                self.journal.release(CHAIN, self.at);
                return Ok(());
            }
            self.at = progress.next;
        }
    }
}

impl Drop for KeptJournal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            let _ended = keeper.join();
        }
    }
}
