//! The threads that keep the journal: one makes segments before the shards need them, the other brings
//! records to the disk, so that a slow disk delays no segment.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::admin::{Facts, Kind, Stage};
use crate::config;
use crate::ledger::{Journal, JournalError, JournalOptions, JournalStatus, Recovery, Segment};

/// How often segments are looked after. At a million records a second a shard fills one of 8 MiB in
/// 130 ms.
const KEEP_EVERY: Duration = Duration::from_millis(20);

/// How long after a failure it is tried again: a full disk is not asked a hundred times a second.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Looks at the segments between two reports of how the journal stands.
const TOLD_EVERY: u32 = 5;

/// How often it is looked whether the process before this one has gone.
const GONE_EVERY: Duration = Duration::from_millis(50);

/// Opens the journal of a data folder for this start, `beside` a process that hands over. Returns the place for records of each shard.
pub(super) fn open(
    data_dir: &Path,
    settings: &config::Journal,
    epoch: u32,
    shards: usize,
    beside: bool,
) -> Result<(Arc<Journal>, Vec<Segment>, Recovery), JournalError> {
    let options = JournalOptions {
        folder: data_dir.join("journal"),
        segment_bytes: settings.segment_mib << 20,
        bytes_max: settings.max_mib << 20,
    };
    let shards = u16::try_from(shards).unwrap_or(u16::MAX);
    if beside {
        let (journal, segments) = Journal::open_beside(options, epoch, shards)?;
        return Ok((Arc::new(journal), segments, Recovery::default()));
    }
    let (journal, segments, recovery) = Journal::open(options, epoch, shards)?;
    for finding in &recovery.findings {
        tracing::warn!("journal: {finding}");
    }
    Ok((Arc::new(journal), segments, recovery))
}

/// Takes in what the process before this one leaves, once it has gone.
pub(super) fn take_over(journal: Arc<Journal>) -> io::Result<()> {
    let work = move || {
        let mut said = None;
        loop {
            let trouble = match journal.take_over() {
                Ok(None) => None,
                Ok(Some(recovery)) => {
                    for finding in &recovery.findings {
                        tracing::warn!("journal: {finding}");
                    }
                    tracing::info!("journal: the process before this one has gone: {recovery}");
                    return;
                }
                Err(error) => Some(format!("{}; {}", error.what(), error.cure())),
            };
            say(&mut said, trouble, "what earlier runs have left can be read again");
            std::thread::sleep(GONE_EVERY);
        }
    };
    // Nobody waits for it: it ends with its work, or with the process.
    std::thread::Builder::new().name("journal-heir".to_owned()).spawn(work).map(drop)
}

/// The running threads.
pub(super) struct Keepers {
    journal: Arc<Journal>,
    /// Dropped to stop them.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Keepers {
    /// Starts them.
    pub(super) fn start(
        journal: &Arc<Journal>,
        sync_every: Duration,
        facts: &Arc<Facts>,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let mut keepers = Self { journal: Arc::clone(journal), stop: Some(stop), threads: Vec::new() };
        tell(facts, &journal.status());
        let told = Arc::clone(journal);
        facts.add_source(move |text| {
            let status = told.status();
            let gauges = [
                ("beast_journal_bytes", "Bytes of all segments of the usage journal.", status.bytes),
                ("beast_journal_max_bytes", "Most bytes they may have.", status.bytes_max),
                ("beast_journal_segment_count", "Segments of the usage journal.", status.segments),
                ("beast_journal_undrained_record_count", "Records still to be drained.", status.unreleased),
            ];
            for (name, help, value) in gauges {
                text.single(name, help, Kind::Gauge, value);
            }
            text.family("beast_journal_room_records", "Records there is room for at once.", Kind::Gauge);
            for (shard, room) in status.room_records.iter().enumerate() {
                text.sample(&[("shard", &shard.to_string())], room);
            }
        });
        let (kept, facts, stopped_too) = (Arc::clone(journal), Arc::clone(facts), stopped.clone());
        keepers.spawn("journal", move || keep(&kept, &facts, &stopped))?;
        let synced = Arc::clone(journal);
        keepers.spawn("journal-sync", move || sync(&synced, sync_every, &stopped_too))?;
        Ok(keepers)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }

    /// Stops them and seals what the shards, which must have ended, have written.
    pub(super) fn leave(mut self) -> Result<(), JournalError> {
        self.end();
        self.journal.close()
    }

    fn end(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // One that panicked has ended too.
            let _ended = thread.join();
        }
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes segments until told to stop.
fn keep(journal: &Journal, facts: &Facts, stopped: &Receiver<()>) {
    let (mut said, mut wait, mut turn) = (None, KEEP_EVERY, 0_u32);
    while goes_on(stopped, wait) {
        // After 994 days it begins again.
        turn = turn.wrapping_add(1);
        wait = if journal.keep().is_ok() { KEEP_EVERY } else { AGAIN_AFTER };
        if turn.is_multiple_of(TOLD_EVERY) || wait == AGAIN_AFTER {
            let status = journal.status();
            tell(facts, &status);
            say(&mut said, status.trouble, "records find room again");
        }
    }
}

/// Brings records to the disk until told to stop.
fn sync(journal: &Journal, every: Duration, stopped: &Receiver<()>) {
    let mut said = None;
    while goes_on(stopped, every) {
        let trouble = journal.sync().err().map(|error| error.to_string());
        say(&mut said, trouble, "records reach the disk again");
    }
}

/// Waits; `false` when it is time to stop.
fn goes_on(stopped: &Receiver<()>, wait: Duration) -> bool {
    stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
}

/// Tells the operator of trouble once, and of its end.
fn say(said: &mut Option<String>, trouble: Option<String>, over: &str) {
    if *said == trouble {
        return;
    }
    match &trouble {
        Some(trouble) => tracing::error!("journal: {trouble}"),
        None => tracing::info!("journal: {over}"),
    }
    *said = trouble;
}

/// A shard without room refuses every request, so it needs some to be ready.
fn tell(facts: &Facts, status: &JournalStatus) {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let total = small(status.room_records.len());
    let done = small(status.room_records.iter().filter(|room| **room > 0).count());
    let detail = status.trouble.clone().unwrap_or_else(|| "shards that have room for records".to_owned());
    facts.set_stage(Stage { name: "journal", done, needed: total, total, detail });
}
