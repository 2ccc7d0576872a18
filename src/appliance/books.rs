//! The threads that keep the books: one drains the journal into the store, the other forgets what is
//! old.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::admin::{Facts, Kind, Stage};
use crate::backoffice::{Drain, DrainOptions, DrainStatus, Retention, RetentionOptions};
use crate::config::Config;
use crate::ledger::Journal;
use crate::store::Store;
use crate::time::{Clock as _, RealClock};

/// How often `/ready` learns how the drain stands.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// The running threads.
pub(super) struct Books {
    /// Dropped to stop them.
    stops: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    status: Arc<DrainStatus>,
}

impl Books {
    /// Starts them. What earlier runs have left in the journal is drained first.
    pub(super) fn start(
        config: &Config,
        journal: &Arc<Journal>,
        store: &Arc<Store>,
        facts: &Facts,
    ) -> io::Result<Self> {
        let status = Arc::<DrainStatus>::default();
        let mut books = Self { stops: Vec::new(), threads: Vec::new(), status: Arc::clone(&status) };
        let drain = Drain::new(Arc::clone(journal), Arc::clone(store), drain_options(config), status);
        books.spawn("drain", move |stop| drain.run(stop))?;
        let retention = Retention::new(Arc::clone(journal), Arc::clone(store), retention_options(config));
        books.spawn("retention", move |stop| retention.run(stop))?;
        add_metrics(facts, Arc::clone(&books.status), Arc::clone(store));
        Ok(books)
    }

    /// How the drain stands.
    pub(super) fn status(&self) -> Arc<DrainStatus> {
        Arc::clone(&self.status)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Receiver<()>) + Send + 'static) -> io::Result<()> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&stopped))?;
        self.stops.push(stop);
        self.threads.push(thread);
        Ok(())
    }

    /// Drains what the shards, which must have ended, have left, for a while, and stops.
    pub(super) fn leave(mut self) {
        self.end();
    }

    /// Stops at once: another process drains what is left, as soon as this one has gone.
    pub(super) fn leave_to_heir(mut self) {
        for stop in &self.stops {
            // One that has ended needs no telling.
            let _ended = stop.send(());
        }
        self.end();
    }

    fn end(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // One that panicked has ended too.
            let _ended = thread.join();
        }
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.end();
    }
}

fn drain_options(config: &Config) -> DrainOptions {
    DrainOptions {
        rows: config.store.batch_rows,
        wait: Duration::from_millis(config.store.batch_ms),
        raw_records: config.store.raw_records,
        ..DrainOptions::default()
    }
}

/// 0 in a setting is no bound.
fn retention_options(config: &Config) -> RetentionOptions {
    let days = |days: u64| (days > 0).then(|| Duration::from_secs(days * 86_400));
    let retention = &config.retention;
    RetentionOptions {
        detail: days(retention.detail_days),
        seconds: days(retention.seconds_days),
        hours: days(retention.hours_days),
        store_bytes_max: (retention.store_mib > 0).then_some(retention.store_mib << 20),
    }
}

/// Keeps `/ready` told. A store that is gone makes nobody unready: answers go on.
pub(super) async fn tell(facts: Arc<Facts>, status: Arc<DrainStatus>) {
    let mut every = tokio::time::interval(TOLD_EVERY);
    loop {
        every.tick().await;
        let counts = status.read(RealClock.now().unix);
        let (records, seconds) = (counts.lag_records, counts.lag_s);
        let lag = format!("{records} records are still to be drained, the oldest for {seconds} s");
        let (done, detail) = match counts.error {
            Some(error) => (0, format!("{error}; {lag}")),
            None => (1, lag),
        };
        facts.set_stage(Stage { name: "drain", done, needed: 0, total: 1, detail });
    }
}

fn add_metrics(facts: &Facts, status: Arc<DrainStatus>, store: Arc<Store>) {
    facts.add_source(move |text| {
        let counts = status.read(RealClock.now().unix);
        for (name, help, value) in [
            ("beast_drain_record_total", "Usage records added to the store.", counts.records),
            ("beast_drain_missing_total", "Usage records that the journal could not give.", counts.missing),
            ("beast_drain_row_total", "Roll-up rows added or added to.", counts.rows),
            ("beast_drain_batch_total", "Transactions that they took.", counts.batches),
            ("beast_drain_failed_total", "Attempts to drain that failed.", counts.failures),
        ] {
            text.single(name, help, Kind::Counter, value);
        }
        let (open, used) = store.connections();
        for (name, help, value) in [
            ("beast_drain_lag_records", "Usage records still to be drained.", counts.lag_records),
            ("beast_drain_lag_seconds", "Age of the oldest of them.", counts.lag_s),
            ("beast_drain_failing", "1 while the store takes no usage.", u64::from(counts.error.is_some())),
            ("beast_store_connection_open_count", "Connections to the store.", open as u64),
            ("beast_store_connection_used_count", "Those in use.", used as u64),
        ] {
            text.single(name, help, Kind::Gauge, value);
        }
    });
}
