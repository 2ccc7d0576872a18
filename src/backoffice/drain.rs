//! Draining the journal into the store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{DrainStatus, Rollup};
use crate::ledger::{ChainId, Journal, JournalError, Record, RecordId};
use crate::store::{Store, StoreError, UsageBatch};

/// Records looked at between two looks at the size and age of a batch. A backlog is drained in batches
/// of at least so many; more would hold the store's lock for longer.
const RECORDS_PER_LOOK: usize = 65_536;

/// How often the journal is asked for news when there were none.
const NEWS_EVERY: Duration = Duration::from_millis(20);

/// Pauses after failures: the first, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// How the journal is drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOptions {
    /// Rows after which a batch is written.
    pub rows: usize,
    /// Time after which one is written that has fewer.
    pub wait: Duration,
    /// Whether the records themselves become rows too.
    pub raw_records: bool,
    /// How long may be spent at the end on what is left.
    pub leave: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        let (rows, wait) = (300, Duration::from_millis(100));
        Self { rows, wait, raw_records: false, leave: Duration::from_secs(5) }
    }
}

/// The drain of one journal into one store.
#[derive(Debug)]
pub struct Drain {
    journal: Arc<Journal>,
    store: Arc<Store>,
    options: DrainOptions,
    status: Arc<DrainStatus>,
    /// Where the roll-up stands in each chain; `None` until the store has said where it stands itself.
    positions: Option<BTreeMap<ChainId, u64>>,
    rollup: Rollup,
    /// When the first record was added to the roll-up.
    begun: Instant,
    records: Vec<(RecordId, Record)>,
    /// Whether the journal is ours alone, when last looked at.
    alone: bool,
}

/// Why not all was drained.
#[derive(Debug)]
enum Failure {
    Store(StoreError),
    /// One chain cannot be read; whether others were.
    Journal(JournalError, bool),
}

impl Failure {
    /// Whether there is more to drain all the same.
    fn others_go_on(&self) -> bool {
        matches!(self, Self::Journal(_, true))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Journal(error, _) => error.fmt(f),
        }
    }
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new(
        journal: Arc<Journal>,
        store: Arc<Store>,
        options: DrainOptions,
        status: Arc<DrainStatus>,
    ) -> Self {
        let (rollup, records) = (Rollup::new(options.raw_records), Vec::new());
        let begun = Instant::now();
        let alone = journal.is_alone();
        Self { journal, store, options, status, positions: None, rollup, begun, records, alone }
    }

    /// Drains until `stop` says something, and ends at once; or until its sender is gone, and then drains
    /// what is left, for a while.
    pub fn run(mut self, stop: &Receiver<()>) {
        let mut trouble = Trouble::default();
        let mut pause = Duration::ZERO;
        loop {
            match stop.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(()) => return,
            }
            pause = match self.turn(false) {
                Ok(read) => {
                    trouble.is_over();
                    if read { Duration::ZERO } else { NEWS_EVERY.min(self.options.wait) }
                }
                Err(failure) => {
                    self.failed(&failure);
                    let pause = trouble.tell(&failure);
                    if failure.others_go_on() { NEWS_EVERY } else { pause }
                }
            };
        }
        let left = Instant::now();
        loop {
            match self.turn(true) {
                Ok(true) if left.elapsed() < self.options.leave => {}
                Ok(true) => {
                    tracing::warn!("usage is left in the journal; the next start drains it");
                    break;
                }
                Ok(false) => break,
                Err(failure) if failure.others_go_on() && left.elapsed() < self.options.leave => {
                    self.failed(&failure);
                }
                Err(failure) => {
                    self.failed(&failure);
                    tracing::warn!("usage is left in the journal, and the next start drains it: {failure}");
                    break;
                }
            }
        }
    }

    /// Drains all there is now, and says how many records that were.
    ///
    /// # Errors
    /// What the store or the journal said. Nothing is lost: calling it again goes on.
    pub fn drain_all(&mut self) -> Result<u64, String> {
        let before = self.status.read(crate::time::UnixNs(0)).records;
        loop {
            match self.turn(true) {
                Ok(true) => {}
                Ok(false) => return Ok(self.status.read(crate::time::UnixNs(0)).records - before),
                Err(failure) => {
                    self.failed(&failure);
                    return Err(failure.to_string());
                }
            }
        }
    }

    /// Reads what there is, up to a bound, and writes a batch when one is due, or `now`. Returns
    /// whether there was anything to read.
    fn turn(&mut self, now: bool) -> Result<bool, Failure> {
        let alone = self.journal.is_alone();
        if alone != self.alone {
            // The process before us has gone: how far it has drained its records only the store knows.
            self.alone = alone;
            self.rollup.clear();
            self.positions = None;
        }
        if self.positions.is_none() {
            self.begin().map_err(Failure::Store)?;
        }
        let (read, unread) = self.read();
        let now = now || unread.is_some();
        let due = self.rollup.len() >= self.options.rows || self.begun.elapsed() >= self.options.wait;
        if !self.rollup.is_empty() && (due || now) {
            let batch = self.rollup.take();
            self.store.add_usage(&batch).map_err(Failure::Store)?;
            self.added(&batch);
        }
        // Behind the others, which one that cannot be read must not hold up.
        unread.map_or(Ok(read), |error| Err(Failure::Journal(error, read)))
    }

    /// Asks the store where it stands, and tells the journal.
    fn begin(&mut self) -> Result<(), StoreError> {
        let mut positions = BTreeMap::new();
        for drained in self.store.drained_chains()? {
            self.journal.release(drained.chain, drained.next);
            positions.insert(drained.chain, drained.next);
        }
        self.positions = Some(positions);
        Ok(())
    }

    /// Reads on in each chain. Returns whether there was anything, and why one could not be read.
    fn read(&mut self) -> (bool, Option<JournalError>) {
        let Some(positions) = &mut self.positions else { return (false, None) };
        let chains = self.journal.chains();
        let share = RECORDS_PER_LOOK / chains.len().max(1);
        let (mut read, mut unread, mut lag) = (false, None, 0);
        for chain in chains {
            let position = positions.entry(chain.id).or_default();
            lag += chain.end.saturating_sub(chain.released.max(chain.first));
            if chain.end <= *position {
                continue;
            }
            self.records.clear();
            let progress = match self.journal.read(chain.id, *position, share.max(1), &mut self.records) {
                Ok(progress) => progress,
                Err(error) => {
                    unread.get_or_insert(error);
                    continue;
                }
            };
            if progress.next == *position {
                continue;
            }
            if self.rollup.is_empty() {
                self.begun = Instant::now();
            }
            if let Some((_, first)) = self.records.first() {
                self.status.waits(first.time);
            }
            if progress.missing > 0 {
                let ChainId { epoch, shard } = chain.id;
                tracing::error!(
                    "{} usage records of start {epoch}, shard {shard} before {} are damaged or gone and \
                     are not counted; see whether the disk of the journal fails",
                    progress.missing,
                    progress.next
                );
            }
            self.rollup.add(chain.id, *position, progress.next, progress.missing, &self.records);
            *position = progress.next;
            read = true;
        }
        self.status.set_lag(lag);
        (read, unread)
    }

    fn added(&mut self, batch: &UsageBatch) {
        let (mut records, mut missing) = (0, 0);
        for step in &batch.chains {
            self.journal.release(step.chain, step.to);
            records += step.to - step.from - step.missing;
            missing += step.missing;
        }
        self.status.drained(records, missing, batch.rows.len() as u64);
    }

    /// Forgets what is not in the store for certain: it is read again.
    fn failed(&mut self, failure: &Failure) {
        self.rollup.clear();
        self.positions = None;
        self.status.failed(failure.to_string());
        // How much waits is told from the journal alone.
        let lag =
            |chain: &crate::ledger::ChainInfo| chain.end.saturating_sub(chain.released.max(chain.first));
        self.status.set_lag(self.journal.chains().iter().map(lag).sum());
    }
}

/// Tells the operator when draining fails and when it works again, once each.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    pause: Duration,
}

impl Trouble {
    /// Returns how long to wait before it is tried again.
    fn tell(&mut self, failure: &Failure) -> Duration {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.pause = RETRY_FIRST;
            tracing::warn!(
                "usage does not reach the store: {failure}. Answers go on and the journal keeps the records \
                 until it is full; it is tried again until it works"
            );
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(RETRY_LONGEST);
        pause
    }

    fn is_over(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!("usage reaches the store again, after {} s", since.elapsed().as_secs());
        }
    }
}
