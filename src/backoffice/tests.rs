//! Records in, rows out, whatever comes between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::ledger::{ChainId, Journal, JournalOptions, Record, RecordId, Segment, Transport};
use crate::store::postgres::{self, Server};
use crate::store::testing::{Home, numbers, on_each_engine};
use crate::store::{Histogram, Store, StoreError};
use crate::time::UnixNs;

const EPOCH: u32 = 4;

/// What a row is about, then requests, prices, sum and maximum of latencies, and the histogram.
type Rows = BTreeMap<[i64; 6], (i64, i64, i64, i64, Vec<i64>)>;

fn any_record() -> impl Strategy<Value = Record> {
    // Few of each, so that rows meet; times go back and forth as a clock that steps does.
    let of = (0_u32..3, 0_u16..3, 0_u8..2, prop::sample::select(Transport::ALL.to_vec()), 0_u8..2);
    (of, 0_u64..3, 0_u64..4_000, 1_u16..4, any::<u32>()).prop_map(|(of, day, second, assets, latency_ns)| {
        let (key, asset, exchange, transport, status) = of;
        let time = UnixNs((day * 86_400 + second) * 1_000_000_000 + u64::from(latency_ns));
        Record { time, latency_ns, key, asset, assets, exchange, transport, status, ..Record::EMPTY }
    })
}

/// The same sums, made the simple way.
fn sums<'a>(records: impl IntoIterator<Item = &'a Record>) -> Rows {
    let mut rows = Rows::new();
    for r in records {
        let second = (r.time.0 / 1_000_000_000).cast_signed();
        let of =
            [second, r.key.into(), r.asset.into(), r.exchange.into(), r.transport as i64, r.status.into()];
        let row = rows.entry(of).or_insert_with(|| (0, 0, 0, 0, vec![0; 32]));
        let latency = i64::from(r.latency_ns);
        row.0 += 1;
        row.1 += i64::from(r.assets);
        row.2 += latency;
        row.3 = row.3.max(latency);
        row.4[Histogram::bucket(r.latency_ns.into())] += 1;
    }
    rows
}

fn stored(store: &Store, table: &str, time: &str) -> Rows {
    let buckets: Vec<String> = (0..32).map(|bucket| format!("h{bucket:02}")).collect();
    let sql = format!(
        "SELECT {time}, key_id, asset, exchange, transport, status, requests, prices, latency_ns_sum,
                latency_ns_max, {} FROM {table}",
        buckets.join(", ")
    );
    let row =
        |row: Vec<i64>| (row[..6].try_into().unwrap(), (row[6], row[7], row[8], row[9], row[10..].to_vec()));
    numbers(store, &sql, &[]).into_iter().map(row).collect()
}

fn check_sums<'a>(store: &Store, records: impl IntoIterator<Item = &'a Record> + Clone) {
    assert_eq!(stored(store, "usage_seconds", "second"), sums(records.clone()));
    let mut by_hour: Vec<Record> = records.clone().into_iter().copied().collect();
    for record in &mut by_hour {
        // The second that is the number of the hour.
        record.time.0 = record.time.0 / 3_600 / 1_000_000_000 * 1_000_000_000;
    }
    assert_eq!(stored(store, "usage_hours", "hour"), sums(&by_hour));
    let count = records.into_iter().count() as i64;
    for (table, column) in [
        ("usage_key_hours", "requests"),
        ("usage_asset_hours", "requests"),
        ("usage_months", "requests"),
        ("drained_records", "records"),
    ] {
        let sql = format!("SELECT CAST(coalesce(sum({column}), 0) AS BIGINT) FROM {table}");
        assert_eq!(numbers(store, &sql, &[]), [[count]], "{table}");
    }
}

/// One thing that happens to a drain.
#[derive(Clone, Debug)]
enum Event {
    /// So many records of a chain are added to the batch.
    Read(u16, usize),
    /// The batch is written.
    Write,
    /// The batch is written, but the drain dies before it hears of it; its successor asks the store.
    WriteUnheard,
    /// The same, but it tries the batch again first.
    WriteTwice,
    /// The drain dies with the batch.
    Die,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u16..2, 1_usize..20).prop_map(|(shard, count)| Event::Read(shard, count)),
        3 => Just(Event::Write),
        1 => Just(Event::WriteUnheard),
        1 => Just(Event::WriteTwice),
        1 => Just(Event::Die),
    ]
}

struct Drainer<'a> {
    store: &'a Store,
    chains: &'a [Vec<Record>; 2],
    at: [u64; 2],
    rollup: Rollup,
}

impl Drainer<'_> {
    fn read(&mut self, shard: u16, count: usize) {
        let chain = ChainId { epoch: EPOCH, shard };
        let from = self.at[usize::from(shard)];
        let all = &self.chains[usize::from(shard)][from as usize..];
        let id = |n| RecordId { epoch: EPOCH, shard, sequence: from + n };
        let some: Vec<_> = (0..).map(id).zip(all[..count.min(all.len())].iter().copied()).collect();
        let to = from + some.len() as u64;
        self.rollup.add(chain, from, to, 0, &some);
        self.at[usize::from(shard)] = to;
    }

    fn ask(&mut self) {
        self.rollup.clear();
        self.at = [0, 0];
        for drained in self.store.drained_chains().unwrap() {
            self.at[usize::from(drained.chain.shard)] = drained.next;
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Read(shard, count) => self.read(*shard, *count),
            Event::Write => self.store.add_usage(&self.rollup.take()).unwrap(),
            Event::WriteUnheard => {
                self.store.add_usage(&self.rollup.take()).unwrap();
                self.ask();
            }
            Event::WriteTwice => {
                let batch = self.rollup.take();
                self.store.add_usage(&batch).unwrap();
                if batch.chains.iter().any(|step| step.to > step.from) {
                    let error = self.store.add_usage(&batch).unwrap_err();
                    assert!(matches!(error, StoreError::DrainedElsewhere { .. }), "{error}");
                    self.ask();
                }
            }
            Event::Die => self.ask(),
        }
    }
}

fn any_split_gives_the_same_rows(cases: u32, home: impl Fn() -> Home) {
    let chain = || prop::collection::vec(any_record(), 0..60);
    let events = prop::collection::vec(any_event(), 0..30);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let check = |(left, right, events): (Vec<Record>, Vec<Record>, Vec<Event>)| {
        let home = home();
        let store = home.open();
        let chains = [left, right];
        let mut drainer = Drainer { store: &store, chains: &chains, at: [0, 0], rollup: Rollup::new(false) };
        events.iter().for_each(|event| drainer.take(event));
        for shard in [0, 1] {
            drainer.take(&Event::Read(shard, usize::MAX));
        }
        drainer.take(&Event::Write);
        check_sums(&store, chains.iter().flatten());
        Ok(())
    };
    runner.run(&(chain(), chain(), events), check).unwrap();
}

#[test]
fn any_split_and_any_crash_gives_the_same_rows_in_sqlite() {
    any_split_gives_the_same_rows(64, Home::sqlite);
}

#[test]
fn any_split_and_any_crash_gives_the_same_rows_in_postgres() {
    let Some(server) = postgres::shared() else { return };
    any_split_gives_the_same_rows(16, || Home::postgres(server));
}

/// A journal with one shard, and a store.
struct World {
    journal: Arc<Journal>,
    segment: Segment,
    store: Arc<Store>,
    status: Arc<DrainStatus>,
    written: Vec<Record>,
}

impl World {
    fn new(home: &Home) -> Self {
        let folder = home.path().join("journal");
        let options = JournalOptions { folder, segment_bytes: 4_096 + 64 * 1_024, bytes_max: 1 << 30 };
        let (journal, mut segments, _) = Journal::open(options, EPOCH, 1).unwrap();
        let segment = segments.pop().unwrap();
        let (store, status) = (Arc::new(home.open()), Arc::default());
        Self { journal: Arc::new(journal), segment, store, status, written: Vec::new() }
    }

    fn append(&mut self, count: u64) {
        for _ in 0..count {
            let n = self.written.len() as u64;
            // The clock steps back by an hour now and then.
            let second = 1_770_000_000 + n / 10 - n / 70 % 2 * 3_600;
            let record = Record {
                time: UnixNs(second * 1_000_000_000 + n),
                latency_ns: n as u32 * 37,
                key: 1 + (n % 3) as u32,
                assets: 1,
                ..Record::EMPTY
            };
            if self.segment.append(record).is_none() {
                self.journal.keep().unwrap();
                self.segment.append(record).unwrap();
            }
            self.written.push(record);
        }
    }

    fn drain(&self) -> Drain {
        let (journal, store) = (Arc::clone(&self.journal), Arc::clone(&self.store));
        Drain::new(journal, store, DrainOptions::default(), Arc::clone(&self.status))
    }

    fn check(&self) {
        check_sums(&self.store, &self.written);
        let info = self.journal.chains()[0];
        assert_eq!((info.released, info.end), (self.written.len() as u64, self.written.len() as u64));
    }
}

#[test]
fn what_is_written_is_drained_once_however_often_it_is_begun() {
    on_each_engine(|home| {
        let mut world = World::new(home);
        world.append(2_500);
        let mut drain = world.drain();
        assert_eq!(drain.drain_all().unwrap(), 2_500);
        world.append(10);
        // One that begins anew, as after a crash, goes on where the store stands.
        assert_eq!(world.drain().drain_all().unwrap(), 10);
        // The first now stands where the store does not; it finds out, and nothing is counted twice.
        world.append(5);
        let error = drain.drain_all().unwrap_err();
        assert!(error.contains("in the store already"), "{error}");
        assert_eq!(drain.drain_all().unwrap(), 5);
        world.check();
        let counts = world.status.read(UnixNs(0));
        assert_eq!((counts.records, counts.missing, counts.failures), (2_515, 0, 1));
        assert_eq!(counts.error, None);
    });
}

#[test]
fn a_chain_that_cannot_be_read_holds_up_no_other() {
    let home = Home::sqlite();
    let folder = home.path().join("journal");
    let options =
        JournalOptions { folder: folder.clone(), segment_bytes: 4_096 + 16 * 64, bytes_max: 1 << 30 };
    let (journal, mut segments, _) = Journal::open(options, EPOCH, 2).unwrap();
    for segment in &mut segments {
        for _ in 0..40 {
            journal.keep().unwrap();
            segment.append(Record { key: 1, assets: 1, ..Record::EMPTY }).unwrap();
        }
    }
    journal.sync().unwrap();
    // The second segment of the first chain: what lies there is no file.
    let path = folder.join("shard-0").join(format!("{EPOCH:010}-{:020}.seg", 16));
    let aside = home.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (store, status) = (Arc::new(home.open()), Arc::<DrainStatus>::default());
    let mut drain =
        Drain::new(Arc::new(journal), Arc::clone(&store), DrainOptions::default(), Arc::clone(&status));
    for more in 0..4 {
        let error = drain.drain_all().unwrap_err();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(status.read(UnixNs(0)).records, 16 + 40 + more, "all but what is there and behind it");
        segments[1].append(Record { key: 1, assets: 1, ..Record::EMPTY }).unwrap();
    }
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(drain.drain_all().unwrap(), 24 + 1);
}

#[test]
fn a_running_drain_follows_and_ends_with_nothing_left() {
    on_each_engine(|home| {
        let mut world = World::new(home);
        let (stop, stopped) = mpsc::channel();
        let drain = world.drain();
        let thread = std::thread::spawn(move || drain.run(&stopped));
        for _ in 0..20 {
            world.append(50);
            std::thread::sleep(Duration::from_millis(2));
        }
        let drained = || world.status.read(UnixNs(0)).records;
        while drained() < 1_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
        world.append(3);
        drop(stop);
        thread.join().unwrap();
        world.check();
    });
}

#[test]
fn a_locked_store_loses_nothing_and_the_operator_is_told() {
    let home = Home::sqlite();
    let mut world = World::new(&home);
    world.append(100);
    let other = home.open();
    let mut holder = other.lend("test").unwrap();
    let mut drain = world.drain();
    holder
        .transaction("hold the lock", |_| {
            let error = drain.drain_all().unwrap_err();
            assert!(
                error.contains("database is locked") && error.contains("stop it, or try again"),
                "{error}"
            );
            Ok(())
        })
        .unwrap();
    let later = UnixNs(world.written[0].time.0 + 9_000_000_000);
    let counts = world.status.read(later);
    assert_eq!((counts.records, counts.failures, counts.lag_records, counts.lag_s), (0, 1, 100, 9));
    assert!(counts.error.unwrap().contains("locked"));

    world.append(20);
    assert_eq!(drain.drain_all().unwrap(), 120);
    world.check();
    drain.drain_all().unwrap();
    let counts = world.status.read(later);
    assert_eq!((counts.lag_records, counts.lag_s, counts.error), (0, 0, None));
}

#[test]
fn a_postgres_that_stops_and_comes_back_loses_nothing() {
    let Some(server) = Server::start() else { return };
    let home = Home::postgres(&server);
    let mut world = World::new(&home);
    let (stop, stopped) = mpsc::channel();
    let drain = world.drain();
    let thread = std::thread::spawn(move || drain.run(&stopped));
    let wait = |world: &World, until: &dyn Fn(&DrainCounts) -> bool| {
        for _ in 0..6_000 {
            if until(&world.status.read(UnixNs(0))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{:?}", world.status.read(UnixNs(0)));
    };
    for stops in 1..=2_u64 {
        world.append(300);
        server.stop();
        world.append(300);
        wait(&world, &|counts| counts.error.is_some());
        assert!(world.status.read(UnixNs(0)).lag_records >= 300);
        server.start_again();
        wait(&world, &|counts| counts.error.is_none() && counts.records == stops * 600);
    }
    world.append(1);
    drop(stop);
    thread.join().unwrap();
    world.check();
    assert!(world.status.read(UnixNs(0)).failures >= 2);
}

#[test]
fn drained_detail_and_old_rows_are_forgotten_and_what_is_not_drained_stays() {
    on_each_engine(|home| {
        let mut world = World::new(home);
        world.append(1_500);
        let day = Duration::from_secs(86_400);
        let options = RetentionOptions {
            detail: Some(day),
            seconds: Some(day),
            hours: Some(day),
            ..RetentionOptions::default()
        };
        let retention = Retention::new(Arc::clone(&world.journal), Arc::clone(&world.store), options);
        let late = UnixNs(1_770_000_000_000_000_000 + 90 * 86_400_000_000_000);
        world.journal.sync().unwrap();
        retention.look(late).unwrap();
        assert_eq!(world.drain().drain_all().unwrap(), 1_500, "nothing went that was not drained");
        let segments = world.journal.segments().len();

        retention.look(world.written[0].time).unwrap();
        world.check();
        retention.look(late).unwrap();
        assert!(world.journal.segments().len() < segments);
        assert!(stored(&world.store, "usage_seconds", "second").is_empty());
        assert!(stored(&world.store, "usage_hours", "hour").is_empty());
        let months = "SELECT CAST(sum(requests) AS BIGINT) FROM usage_months";
        assert_eq!(numbers(&world.store, months, &[]), [[1_500]]);
        assert_eq!(world.drain().drain_all().unwrap(), 0, "nothing comes back");
    });
}
