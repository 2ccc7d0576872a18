//! Reports over a store and a journal that were filled by hand, so that it is known what they must say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::admin::Books;
use crate::ledger::{ChainId, Journal, JournalOptions, Record, RequestId, Segment, Transport};
use crate::price::Catalogue;
use crate::store::testing::{Home, on_each_engine};
use crate::store::{ChainStep, Histogram, Store, UsageBatch, UsageOf, UsageRow, UsageSums};
use crate::time::{MonoNs, Now, UnixNs};

const CHAIN: ChainId = ChainId { epoch: 1, shard: 0 };
const SECOND_NS: u64 = 1_000_000_000;

/// Noon of 2 January 2026.
const NOON: u64 = 1_767_355_200;
const NOW: Now = Now { mono: MonoNs(1), unix: UnixNs((NOON + 3_600) * SECOND_NS) };

/// A data folder with records of two keys, some on the day before.
struct Folder {
    store: Arc<Store>,
    path: PathBuf,
    journal: Journal,
    segment: Segment,
    recorded: Arc<AtomicU64>,
}

impl Folder {
    fn new(home: &Home) -> Self {
        let path = home.path().join("journal");
        let segment_bytes = 4_096 + 16 * 64;
        let options = JournalOptions { folder: path.clone(), segment_bytes, bytes_max: 1 << 30 };
        let (journal, mut segments, _) = Journal::open(options, CHAIN.epoch, 1).unwrap();
        let segment = segments.pop().unwrap();
        let recorded = Arc::new(AtomicU64::new(0));
        Self { store: Arc::new(home.open()), path, journal, segment, recorded }
    }

    fn append(&mut self, records: &[Record]) {
        for record in records {
            self.journal.keep().unwrap();
            self.segment.append(*record).unwrap();
            self.recorded.fetch_add(1, Ordering::SeqCst);
        }
        self.journal.sync().unwrap();
    }

    /// Adds to the store what a drain would.
    fn drain(&self, from: u64, records: &[Record]) {
        let mut rows: BTreeMap<(u64, UsageOf), UsageSums> = BTreeMap::new();
        let mut days: BTreeMap<(u64, u32), u64> = BTreeMap::new();
        for record in records {
            let second = record.time.0 / SECOND_NS;
            let of = UsageOf {
                key: record.key,
                asset: record.asset,
                exchange: record.exchange,
                transport: record.transport as u8,
                status: record.status,
            };
            let latency_ns = u64::from(record.latency_ns);
            let mut latency = Histogram::default();
            latency.add(latency_ns);
            let one = UsageSums {
                requests: 1,
                prices: 1,
                latency_ns_sum: latency_ns,
                latency_ns_max: latency_ns,
                latency,
            };
            rows.entry((second, of)).or_default().merge(&one);
            *days.entry((second / 86_400, record.key)).or_default() += 1;
        }
        let rows = rows.into_iter().map(|((time, of), sums)| UsageRow { time, of, sums }).collect();
        let to = from + records.len() as u64;
        let step = ChainStep { chain: CHAIN, from, to, missing: 0, records: days.into_iter().collect() };
        self.store.add_usage(&UsageBatch { rows, chains: vec![step], raw: Vec::new() }).unwrap();
    }

    fn reports(&self) -> Reports {
        let recorded = Arc::clone(&self.recorded);
        let read = move || {
            let recorded = recorded.load(Ordering::SeqCst);
            let books = Books { received: recorded, answered: recorded, ..Books::default() };
            vec![OwnShard { chain: CHAIN, books, recorded }]
        };
        let store = Arc::clone(&self.store);
        Reports::new(store, self.path.clone(), Catalogue::default(), Some(Box::new(read)))
    }

    fn ask(&self, which: Which, query: &str, scope: Scope) -> Result<Report, Refusal> {
        let parameters = query.split('&').filter_map(|pair| pair.split_once('='));
        let parameters: Vec<_> =
            parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.reports().report(which, &parameters, scope, NOW)
    }

    fn execute(&self, sql: &str) {
        self.store.lend("test").unwrap().execute(sql, &[]).unwrap();
    }
}

fn record(second: u64, key: u32, id: &[u8]) -> Record {
    Record {
        time: UnixNs(second * SECOND_NS + 5),
        key,
        asset: 3,
        assets: 1,
        exchange: 2,
        transport: Transport::UdpV1,
        latency_ns: 1_000 * key,
        request: RequestId::new(id),
        ..Record::EMPTY
    }
}

/// 30 records of key 1 and 10 of key 2; a quarter of them on the day before.
fn records() -> Vec<Record> {
    let second = |n: u64| if n < 10 { NOON - 86_400 + n } else { NOON + n };
    (0..40).map(|n| record(second(n), if n % 4 == 3 { 2 } else { 1 }, b"\"=1+1\"")).collect()
}

/// Scope, name, and the columns from `journal` on.
fn lines(report: &Report) -> Vec<(String, Vec<Cell>)> {
    let text = |cell: &Cell| match cell {
        Cell::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let rows = report.page.table.rows.iter();
    rows.map(|row| (format!("{} {}", text(&row[0]), text(&row[1])), row[6..].to_vec())).collect()
}

fn line(journal: u64, drained: u64, rolled_up: Option<u64>, pending: u64, difference: i64) -> Vec<Cell> {
    vec![journal.into(), drained.into(), rolled_up.into(), pending.into(), Cell::Signed(difference)]
}

#[test]
fn the_books_close_and_what_is_not_drained_yet_is_pending() {
    on_each_engine(|home| {
        let mut folder = Folder::new(home);
        folder.append(&records());
        folder.drain(0, &records()[..30]);
        let report = folder.ask(Which::Reconcile, "", Scope::All).unwrap();
        assert_eq!(report.closed, Some(true), "{report:?}");
        assert_eq!(
            lines(&report),
            [
                ("shard 0".to_owned(), line(40, 30, None, 10, 0)),
                ("day 2026-01-01".to_owned(), line(10, 10, Some(10), 0, 0)),
                ("day 2026-01-02".to_owned(), line(20, 20, Some(20), 10, 0)),
                ("key #1".to_owned(), line(23, 23, Some(23), 7, 0)),
                ("key #2".to_owned(), line(7, 7, Some(7), 3, 0)),
                ("chain 1-0".to_owned(), line(30, 30, None, 10, 0)),
            ]
        );
        assert!(report.write(Format::Json).contains("\"closed\":true"));
    });
}

#[test]
fn every_side_that_is_wrong_shows_where() {
    on_each_engine(|home| {
        let mut folder = Folder::new(home);
        folder.append(&records());
        folder.drain(0, &records());
        let differences = |folder: &Folder| -> Vec<(String, i64)> {
            let report = folder.ask(Which::Reconcile, "", Scope::All).unwrap();
            let apart = lines(&report).into_iter().filter_map(|(name, cells)| match cells.last() {
                Some(Cell::Signed(0)) => None,
                Some(Cell::Signed(apart)) => Some((name, *apart)),
                other => panic!("{other:?}"),
            });
            let apart: Vec<_> = apart.collect();
            assert_eq!(report.closed, Some(apart.is_empty()));
            apart
        };
        assert_eq!(differences(&folder), []);
        // A shard that counted more, or fewer, than the journal has.
        folder.recorded.fetch_add(2, Ordering::SeqCst);
        assert_eq!(differences(&folder), [("shard 0".to_owned(), -2)]);
        folder.recorded.fetch_sub(3, Ordering::SeqCst);
        assert_eq!(differences(&folder), [("shard 0".to_owned(), 1)]);
        folder.recorded.fetch_add(1, Ordering::SeqCst);
        // Roll-ups of a key that went.
        folder.execute("DELETE FROM usage_hours WHERE key_id = 2");
        let gone = [("day 2026-01-01", 2), ("day 2026-01-02", 8), ("key #2", 10)];
        assert_eq!(differences(&folder), gone.map(|(name, apart)| (name.to_owned(), apart)));
        // Records that were drained twice.
        folder.execute("UPDATE drained_records SET records = records + 5 WHERE key_id = 1 AND day = 20454");
        let twice = differences(&folder);
        assert!(
            twice.contains(&("key #1".to_owned(), -5)) && twice.contains(&("chain 1-0".to_owned(), -5)),
            "{twice:?}"
        );
    });
}

#[test]
fn detail_shows_each_record_once_to_whom_it_belongs() {
    let home = Home::sqlite();
    let mut folder = Folder::new(&home);
    folder.append(&records());
    let all = folder.ask(Which::Detail, "", Scope::All).unwrap().page;
    assert_eq!((all.table.rows.len(), &all.next), (40, &None));
    assert_eq!(all.table.rows[0][0], Cell::Time(UnixNs((NOON - 86_400) * SECOND_NS + 5)));
    assert_eq!(all.table.rows[0][1], Cell::from("1-0-0"));
    // Without the quotes of JSON, and no formula in a spreadsheet.
    let csv = folder.ask(Which::Detail, "limit=1", Scope::All).unwrap().write(Format::Csv);
    assert!(csv.lines().nth(1).unwrap().ends_with(",'=1+1,"), "{csv}");
    for (query, scope, count) in [
        ("", Scope::Key(2), 10),
        ("key=#2", Scope::All, 10),
        ("from=2026-01-02", Scope::All, 30),
        ("to=2026-01-02", Scope::Key(1), 8),
        ("transport=http", Scope::All, 0),
        ("asset=#3&exchange=#2&status=ok", Scope::All, 40),
    ] {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = folder.ask(Which::Detail, &format!("{query}&limit=3{cursor}"), scope).unwrap().page;
            rows.extend(page.table.rows);
            let Some(next) = page.next else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(rows.len(), count, "{query}");
        let mut once = rows.clone();
        once.dedup();
        assert_eq!(once, rows);
    }
}

#[test]
fn parameters_are_read_or_refused_with_the_cure() {
    let names = Names::default();
    let parse = |which, query: &str, scope| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Query::parse(which, &pairs, scope, &names, NOW.unix)
    };
    let period = |query: &str| {
        let filter = parse(Which::Usage, query, Scope::All).unwrap().filter;
        (filter.from.0 / SECOND_NS, filter.to.0 / SECOND_NS)
    };
    let now = NOON + 3_600;
    assert_eq!(period(""), (0, now));
    assert_eq!(period("from=2026-01-02&to=2026-01-02T12:00:00Z"), (NOON - 43_200, NOON));
    assert_eq!(period("from=2h&to=30m"), (now - 7_200, now - 1_800));
    assert_eq!(period(&format!("from={NOON}")), (NOON, now));
    assert_eq!(period("to=2099-01-01"), (0, now), "the future has no usage");
    for (query, text) in [
        ("from=yesterday", "from is \"yesterday\"; needs an instant"),
        ("from=1767355200000", "needs an instant"),
        ("limit=10001", "needs a number from 1 to 10000"),
        ("frm=1h", "there is no parameter \"frm\" here; needs one of from, to, key"),
        ("by=day", "there is no parameter \"by\""),
        ("from=1h&from=2h", "from is given more than once"),
        ("from=1h&to=2h", "from is later than to"),
        (
            "from=2026-01-02T15:00:00Z",
            "from lies in the future, it is 2026-01-02T13:00:00Z now; instants are in UTC",
        ),
        ("from=2099-01-01&to=2099-01-02", "from lies in the future"),
        ("transport=udp", "needs one of udp-v1, udp-v2, http"),
        ("status=fine", "needs ok or one of bad_request"),
        ("format=xml", "needs json, csv, tsv or text"),
        ("key=tb_0", "needs the public part of a key"),
        ("cursor=x", "pass `next` of the last page unchanged"),
    ] {
        let refusal = parse(Which::Usage, query, Scope::All).unwrap_err();
        assert!(refusal.status == 400 && refusal.message.contains(text), "{query}: {refusal}");
    }
    for by in ["by=", "by=day,day", "by=second"] {
        assert!(parse(Which::UsageSummary, by, Scope::All).is_err(), "{by}");
    }
    assert_eq!(parse(Which::Usage, "", Scope::Key(7)).unwrap().filter.key, Some(7));
    assert_eq!(parse(Which::Usage, "key=#8", Scope::Key(7)).unwrap_err().status, 403);
    assert_eq!(parse(Which::Reconcile, "", Scope::Key(7)).unwrap_err().status, 403);
    // A whole key that was pasted is not told back.
    let token = crate::account::Token::generate().unwrap().reveal();
    let refusal = parse(Which::Usage, &format!("key={token}"), Scope::All).unwrap_err();
    assert!(!refusal.message.contains(&token[16..]), "{refusal}");
}
