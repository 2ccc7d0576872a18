//! The same on both engines.

use super::*;
use crate::ledger::{ChainId, Record, RecordId, RequestId, Transport};
use crate::store::testing::{Home, numbers, on_each_engine};
use crate::store::{Store, StoreError, Value};
use crate::time::UnixNs;

const CHAIN: ChainId = ChainId { epoch: 3, shard: 1 };

/// 2026-01-31T23:59:59Z.
const LAST_OF_JANUARY: u64 = 1_769_903_999;

fn row(time: u64, key: u32, requests: u64) -> UsageRow {
    let of = UsageOf { key, asset: 5, exchange: 2, transport: Transport::UdpV2 as u8, status: 0 };
    let mut latency = Histogram::default();
    latency.0[9] = requests;
    let (prices, latency_ns_sum) = (requests * 2, requests * 100);
    let sums = UsageSums { requests, prices, latency_ns_sum, latency_ns_max: requests, latency };
    UsageRow { time, of, sums }
}

fn step(from: u64, to: u64) -> ChainStep {
    ChainStep { chain: CHAIN, from, to, missing: 0, records: vec![((20_484, 7), to - from)] }
}

fn batch(from: u64, to: u64, rows: &[UsageRow]) -> UsageBatch {
    UsageBatch { rows: rows.to_vec(), chains: vec![step(from, to)], raw: Vec::new() }
}

fn all(store: &Store, table: &str, columns: &str) -> Vec<Vec<i64>> {
    numbers(store, &format!("SELECT {columns} FROM {table} ORDER BY 1, 2, 3"), &[])
}

#[test]
fn merged_sums_are_those_of_both() {
    let mut latency = Histogram::default();
    latency.add(7);
    let one = UsageSums { requests: 1, prices: 3, latency_ns_sum: 7, latency_ns_max: 7, latency };
    let mut sum = UsageSums { latency_ns_max: 9, ..one };
    sum.merge(&one);
    assert_eq!((sum.requests, sum.prices, sum.latency_ns_sum, sum.latency_ns_max), (2, 6, 14, 9));
    assert_eq!(sum.latency.count(), 2);
}

#[test]
fn batches_are_added_up_by_second_hour_and_month() {
    on_each_engine(|home| {
        let store = home.open();
        let rows = [row(LAST_OF_JANUARY, 7, 3), row(LAST_OF_JANUARY, 8, 1), row(LAST_OF_JANUARY + 1, 7, 4)];
        store.add_usage(&batch(0, 8, &rows)).unwrap();
        store.add_usage(&batch(8, 10, &[row(LAST_OF_JANUARY, 7, 2)])).unwrap();

        let columns = "second, key_id, asset, exchange, transport, status, requests, prices, latency_ns_sum,
                       latency_ns_max, h08, h09, h10";
        let of = |time: u64, key, n: [i64; 7]| {
            let mut row = vec![time.cast_signed(), key, 5, 2, 2, 0];
            row.extend(n);
            row
        };
        let january = LAST_OF_JANUARY;
        assert_eq!(
            all(&store, "usage_seconds", columns),
            [
                of(january, 7, [5, 10, 500, 3, 0, 5, 0]),
                of(january, 8, [1, 2, 100, 1, 0, 1, 0]),
                of(january + 1, 7, [4, 8, 400, 4, 0, 4, 0]),
            ]
        );
        let hour = january.cast_signed() / 3_600;
        let hours = all(&store, "usage_hours", "hour, key_id, requests, latency_ns_max, h09");
        assert_eq!(hours, [[hour, 7, 5, 3, 5], [hour, 8, 1, 1, 1], [hour + 1, 7, 4, 4, 4]]);
        let of_keys = "hour, key_id, transport, status, requests, latency_ns_max, h09";
        let of_keys = all(&store, "usage_key_hours", of_keys);
        assert_eq!(
            of_keys,
            [[hour, 7, 2, 0, 5, 3, 5], [hour, 8, 2, 0, 1, 1, 1], [hour + 1, 7, 2, 0, 4, 4, 4]]
        );
        let of_assets = "hour, asset, exchange, transport, status, requests, latency_ns_max, h09";
        let of_assets = all(&store, "usage_asset_hours", of_assets);
        assert_eq!(of_assets, [[hour, 5, 2, 2, 0, 6, 3, 6], [hour + 1, 5, 2, 2, 0, 4, 4, 4]]);
        let months = all(&store, "usage_months", "key_id, month, status, requests, prices");
        assert_eq!(months, [[7, 202_601, 0, 5, 10], [7, 202_602, 0, 4, 8], [8, 202_601, 0, 1, 2]]);
        let MonthUse { mut answered, positions } = store.month_use(202_601).unwrap();
        answered.sort_unstable();
        assert_eq!((answered, positions), (vec![(7, 5), (8, 1)], vec![(CHAIN, 10)]));
        let drained = all(&store, "drained_records", "day, epoch, shard, key_id, records");
        assert_eq!(drained, [[20_484, 3, 1, 7, 10]]);
        let at = DrainedChain { chain: CHAIN, next: 10, missing: 0 };
        assert_eq!(store.drained_chains().unwrap(), [at]);
    });
}

#[test]
fn a_store_of_an_older_version_gets_its_coarse_hours_from_its_hours() {
    on_each_engine(|home| {
        let store = home.open();
        let other =
            |row: UsageRow, asset, status| UsageRow { of: UsageOf { asset, status, ..row.of }, ..row };
        let mut rows = vec![
            row(9, 7, 3),
            other(row(9, 7, 5), 6, 3),
            row(9, 8, 1),
            other(row(3_600, 7, 2), 1, 6),
            row(7_300, 7, 4),
        ];
        rows.sort_by_key(|row| (row.time, row.of));
        store.add_usage(&batch(0, 15, &rows)).unwrap();
        let coarse = || {
            ["usage_key_hours", "usage_asset_hours"].map(|table| {
                let mut rows = all(&store, table, "*");
                rows.sort();
                rows
            })
        };
        let written = coarse();
        assert_eq!(written.each_ref().map(Vec::len), [5, 4]);
        let mut db = store.lend("test").unwrap();
        for sql in [
            "DROP TABLE usage_key_hours",
            "DROP TABLE usage_asset_hours",
            "DELETE FROM schema_version WHERE version >= 7",
        ] {
            db.execute(sql, &[]).unwrap();
        }
        drop(db);
        drop(home.open());
        assert_eq!(coarse(), written);
    });
}

#[test]
fn a_batch_that_does_not_begin_where_the_chain_stands_changes_nothing() {
    on_each_engine(|home| {
        let store = home.open();
        let first = batch(0, 3, &[row(9, 7, 3)]);
        store.add_usage(&first).unwrap();
        let other = ChainId { shard: 2, ..CHAIN };
        for (from, to) in [(0, 3), (2, 4), (4, 5)] {
            let mut wrong = batch(from, to, &[row(9, 7, 1)]);
            // Even a chain that stood right does not move.
            wrong.chains.insert(0, ChainStep { chain: other, ..step(0, 1) });
            let error = store.add_usage(&wrong).unwrap_err();
            assert!(matches!(error, StoreError::DrainedElsewhere { chain: CHAIN, .. }), "{error}");
            assert!(error.to_string().contains("in the store already"), "{error}");
        }
        assert_eq!(all(&store, "usage_seconds", "second, key_id, requests"), [[9, 7, 3]]);
        assert_eq!(store.drained_chains().unwrap().len(), 1);
        // Nor does one that could not be written whole: a hole in the table of hours.
        let mut db = store.lend("test").unwrap();
        db.execute("ALTER TABLE usage_seconds RENAME TO usage_elsewhere", &[]).unwrap();
        assert!(store.add_usage(&batch(3, 4, &[row(10, 7, 1)])).is_err());
        db.execute("ALTER TABLE usage_elsewhere RENAME TO usage_seconds", &[]).unwrap();
        drop(db);
        assert_eq!(all(&store, "usage_hours", "hour, key_id, requests"), [[0, 7, 3]]);
        store.add_usage(&ChainStep { missing: 1, ..step(3, 5) }.alone()).unwrap();
        let at = DrainedChain { chain: CHAIN, next: 5, missing: 1 };
        assert_eq!(store.drained_chains().unwrap(), [at]);
    });
}

impl ChainStep {
    fn alone(self) -> UsageBatch {
        UsageBatch { chains: vec![self], ..UsageBatch::default() }
    }
}

#[test]
fn records_become_rows_where_they_are_asked_for() {
    on_each_engine(|home| {
        let store = home.open();
        let id = |sequence| RecordId { epoch: 3, shard: 1, sequence };
        let record = |n: u64| Record {
            time: UnixNs(1_000 + n),
            latency_ns: u32::MAX,
            key: u32::MAX,
            asset: 4,
            assets: 2,
            exchange: 255,
            transport: Transport::Http,
            status: 3,
            request: RequestId::new(&b"0123456789abcdef0123456789abcdef"[..n as usize * 16]),
        };
        let raw = (0..3).map(|n| (id(n), record(n))).collect();
        store.add_usage(&UsageBatch { raw, ..batch(0, 3, &[]) }).unwrap();
        let max = i64::from(u32::MAX);
        assert_eq!(
            all(
                &store,
                "usage_records",
                "sequence, epoch, shard, time_ns, key_id, asset, prices, exchange, transport, status, latency_ns, length(request)"
            ),
            [0, 1, 2].map(|n| [n, 3, 1, 1_000 + n, max, 4, 2, 255, 3, 3, max, n * 16])
        );
        let sql = "SELECT request FROM usage_records WHERE sequence = ?1";
        let row = store.lend("test").unwrap().query_one(sql, &[Value::Int(1)]).unwrap();
        assert_eq!(row.blob(0).unwrap(), b"0123456789abcdef");
    });
}

#[test]
fn old_usage_is_forgotten_but_months_stay() {
    on_each_engine(|home| {
        let store = home.open();
        let day = 20_484_u64;
        let rows: Vec<_> = (0..48).map(|hour| row(day * 86_400 + hour * 3_600, 7, 1)).collect();
        let mut batch = batch(0, 48, &rows);
        batch.chains[0].records = vec![((day, 7), 24), ((day + 1, 7), 24)];
        store.add_usage(&batch).unwrap();
        let count = |table: &str| numbers(&store, &format!("SELECT count(*) FROM {table}"), &[])[0][0];
        assert_eq!(store.prune_usage(UsagePrune::default()).unwrap().rows, 0);

        let seconds_before = day * 86_400 + 10 * 3_600;
        let prune = UsagePrune { seconds_before, ..UsagePrune::default() };
        assert_eq!(store.prune_usage(prune).unwrap().rows, 10);
        assert_eq!((count("usage_seconds"), count("usage_hours")), (38, 48));
        assert_eq!(
            numbers(&store, "SELECT min(second) FROM usage_seconds", &[]),
            [[seconds_before.cast_signed()]]
        );
        // Whole days only, so that a day's hours and its drained records are of one age.
        let prune = UsagePrune { hours_before: (day + 1) * 86_400 + 5, ..prune };
        // Hours in three tables, and the counts of a day.
        assert_eq!(store.prune_usage(prune).unwrap().rows, 3 * 24 + 1);
        assert_eq!((count("usage_hours"), count("drained_records")), (24, 1));
        assert_eq!((count("usage_key_hours"), count("usage_asset_hours")), (24, 24));
        assert_eq!(
            all(&store, "usage_months", "key_id, month, status, requests"),
            [[7, 202_601, 0, 24], [7, 202_602, 0, 24]]
        );
        assert_eq!(store.drained_chains().unwrap()[0].next, 48);
    });
}

#[test]
fn the_oldest_seconds_go_when_there_are_too_many() {
    on_each_engine(|home| {
        let store = home.open();
        let empty = store.usage_bytes().unwrap();
        for n in 0..4 {
            let rows: Vec<_> = (0..2_500).map(|at| row(1_000 + n * 2_500 + at, 7, 1)).collect();
            store.add_usage(&batch(n * 2_500, n * 2_500 + 2_500, &rows)).unwrap();
        }
        let full = store.usage_bytes().unwrap();
        let bytes_max = empty + (full - empty) / 2;
        let prune = UsagePrune { bytes_max: Some(bytes_max), ..UsagePrune::default() };
        while store.prune_usage(prune).unwrap().rows > 0 {}
        assert!(store.usage_bytes().unwrap() <= bytes_max);
        let left = numbers(&store, "SELECT count(*), min(second), max(second) FROM usage_seconds", &[]);
        let [count, min, max] = left[0][..] else { panic!("{left:?}") };
        assert!((2_000..8_000).contains(&count), "{count}");
        assert_eq!((max, max - min + 1), (10_999, count), "only the oldest went");
    });
}

#[test]
fn records_go_before_seconds_and_the_last_hour_of_these_stays() {
    on_each_engine(|home| {
        let store = home.open();
        let rows: Vec<_> = (0..8).map(|n| row(10_000 + n * 1_200, 7, 1)).collect();
        store.add_usage(&batch(0, 8, &rows)).unwrap();
        let without_records = store.usage_bytes().unwrap();
        let id = |sequence| RecordId { epoch: 3, shard: 1, sequence };
        let of = |n: u64| Record { time: UnixNs((10_000 + n) * 1_000_000_000), ..Record::EMPTY };
        let raw = (8..5_008).map(|n| (id(n), of(n))).collect();
        store.add_usage(&UsageBatch { raw, ..batch(8, 5_008, &[]) }).unwrap();
        let count = |table: &str| numbers(&store, &format!("SELECT count(*) FROM {table}"), &[])[0][0];
        let full = store.usage_bytes().unwrap();
        let prune = |bytes_max| {
            let mut pruned = UsagePruned { rows: 1, too_small: false };
            while pruned.rows > 0 {
                let prune = UsagePrune { bytes_max: Some(bytes_max), ..UsagePrune::default() };
                pruned = store.prune_usage(prune).unwrap();
            }
            pruned.too_small
        };
        assert!(!prune(without_records + (full - without_records) / 2));
        let left = numbers(&store, "SELECT count(*), max(time_ns) FROM usage_records", &[]);
        assert!((1..4_000).contains(&left[0][0]), "{left:?}");
        assert_eq!((left[0][1], count("usage_seconds")), (of(5_007).time.0.cast_signed(), 8));
        assert!(prune(1));
        assert_eq!((count("usage_records"), count("usage_hours")), (0, 4));
        let seconds = numbers(&store, "SELECT second FROM usage_seconds ORDER BY second", &[]);
        assert_eq!(seconds, [[14_800], [16_000], [17_200], [18_400]]);
    });
}

#[test]
fn both_engines_have_the_same_tables() {
    let Some(server) = crate::store::postgres::shared() else { return };
    let columns = |home: &Home, sql: &str| -> Vec<(String, String)> {
        let store = home.open();
        let rows = store.lend("test").unwrap().query(sql, &[]).unwrap();
        let text = |row: &crate::store::Row, column| row.text(column).unwrap().to_owned();
        let mut columns: Vec<_> = rows.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        columns.sort();
        columns
    };
    let sqlite = columns(
        &Home::sqlite(),
        "SELECT t.name || '.' || c.name, CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'BLOB' THEN 'bytea'
                ELSE lower(c.type) END || CASE WHEN c.\"notnull\" OR c.pk > 0 THEN '' ELSE ' or null' END
         FROM sqlite_master t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'",
    );
    let postgres = columns(
        &Home::postgres(server),
        "SELECT CAST(table_name || '.' || column_name AS TEXT),
                CAST(data_type || CASE is_nullable WHEN 'NO' THEN '' ELSE ' or null' END AS TEXT)
         FROM information_schema.columns WHERE table_schema = 'public'",
    );
    assert!(sqlite.len() > 100);
    assert_eq!(sqlite, postgres);
}
