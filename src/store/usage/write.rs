//! Adding what the drain has rolled up: rows and positions in one transaction.

use super::{BUCKETS, UsageOf, UsageRow, UsageSums};
use crate::ledger::{ChainId, Record, RecordId};
use crate::store::db::{Db, Table, database};
use crate::store::{Store, StoreError};
use crate::time::{Clock as _, RealClock, calendar};

/// Seconds in an hour.
const HOUR_S: u64 = 3_600;

/// Rows of one statement. A statement of PostgreSQL holds its rows as arrays; more of them at a time
/// was not measured.
const ROWS_PER_STATEMENT: usize = 1_000;

/// A roll-up with those columns as its key, the time first.
macro_rules! usage_table {
    ($name:literal, $($key:literal),+) => {
        Table {
            name: $name,
            key: &[$($key),+],
            sums: &[
                "requests",
                "prices",
                "latency_ns_sum",
                "h00",
                "h01",
                "h02",
                "h03",
                "h04",
                "h05",
                "h06",
                "h07",
                "h08",
                "h09",
                "h10",
                "h11",
                "h12",
                "h13",
                "h14",
                "h15",
                "h16",
                "h17",
                "h18",
                "h19",
                "h20",
                "h21",
                "h22",
                "h23",
                "h24",
                "h25",
                "h26",
                "h27",
                "h28",
                "h29",
                "h30",
                "h31",
            ],
            maxima: &["latency_ns_max"],
            latest: &[],
        }
    };
}

static SECONDS: Table =
    usage_table!("usage_seconds", "second", "key_id", "asset", "exchange", "transport", "status");
static HOURS: Table =
    usage_table!("usage_hours", "hour", "key_id", "asset", "exchange", "transport", "status");
static KEY_HOURS: Table = usage_table!("usage_key_hours", "hour", "key_id", "transport", "status");
static ASSET_HOURS: Table =
    usage_table!("usage_asset_hours", "hour", "asset", "exchange", "transport", "status");
static MONTHS: Table = Table {
    name: "usage_months",
    key: &["key_id", "month", "status"],
    sums: &["requests", "prices"],
    maxima: &[],
    latest: &[],
};
static RECORDS: Table = Table {
    name: "drained_records",
    key: &["day", "epoch", "shard", "key_id"],
    sums: &["records"],
    maxima: &[],
    latest: &[],
};

/// How far one chain of the journal is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainedChain {
    /// The chain.
    pub chain: ChainId,
    /// The first record that is not drained.
    pub next: u64,
    /// Records before it that the journal could not give: damaged, or lost with their file.
    pub missing: u64,
}

/// Step of one chain in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStep {
    /// The chain.
    pub chain: ChainId,
    /// Where it stood when the batch was begun.
    pub from: u64,
    /// Where it stands now.
    pub to: u64,
    /// Records in between that the journal could not give.
    pub missing: u64,
    /// The others, by day since the Unix epoch and key, ascending.
    pub records: Vec<((u64, u32), u64)>,
}

/// What the drain adds at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageBatch {
    /// By second, ascending and each only once.
    pub rows: Vec<UsageRow>,
    /// Where they bring the chains to, in the order of the chains.
    pub chains: Vec<ChainStep>,
    /// The records themselves, where they are to be kept as rows.
    pub raw: Vec<(RecordId, Record)>,
}

impl Store {
    /// How far each chain is drained.
    ///
    /// # Errors
    /// The database refused.
    pub fn drained_chains(&self) -> Result<Vec<DrainedChain>, StoreError> {
        let doing = "see what is drained";
        let sql = "SELECT epoch, shard, next_sequence, missing FROM drained_chains ORDER BY epoch, shard";
        let rows = self.lend(doing)?.query(sql, &[]).map_err(database(doing))?;
        let chain = |row: &crate::store::Row| {
            let chain = ChainId { epoch: row.int(0)?, shard: row.int(1)? };
            Ok(DrainedChain { chain, next: row.int(2)?, missing: row.int(3)? })
        };
        rows.iter().map(chain).collect::<Result<_, _>>().map_err(database(doing))
    }

    /// Adds a batch and moves the positions of its chains: all of it, once, or nothing.
    ///
    /// # Errors
    /// A chain does not stand where the batch begins, so that some of it may have been added already:
    /// see [`drained_chains`](Self::drained_chains) and begin there. Or the database refused; it may have
    /// added the batch all the same if the connection broke at the end, so the same is to be done.
    pub fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        let doing = "add usage";
        self.lend(doing)?.transaction(doing, |db| {
            // First, because it is what may tell us to stop; and it keeps other drains of a chain out.
            batch.chains.iter().try_for_each(|step| move_chain(db, step))?;
            let mut numbers = Vec::new();
            for step in &batch.chains {
                for ((day, key), records) in &step.records {
                    let ChainId { epoch, shard } = step.chain;
                    numbers.extend([int(*day), epoch.into(), shard.into(), (*key).into(), int(*records)]);
                }
            }
            // Rows are in the order of their keys everywhere, so that two drains never wait for each
            // other in a circle.
            sort_rows(&mut numbers, RECORDS.width());
            add(db, &RECORDS, &numbers)?;
            add_months(db, &batch.rows)?;
            let hours = added_up(&batch.rows, |time, of| (time / HOUR_S, of));
            add_rows(db, &HOURS, &hours)?;
            let of_keys = added_up(&hours, |hour, of| (hour, UsageOf { asset: 0, exchange: 0, ..of }));
            add_rows(db, &KEY_HOURS, &of_keys)?;
            add_rows(db, &ASSET_HOURS, &added_up(&hours, |hour, of| (hour, UsageOf { key: 0, ..of })))?;
            add_rows(db, &SECONDS, &batch.rows)?;
            super::raw::add(db, &batch.raw).map_err(database(doing))
        })
    }
}

fn move_chain(db: &mut Db, step: &ChainStep) -> Result<(), StoreError> {
    let doing = "add usage";
    let ChainId { epoch, shard } = step.chain;
    db.execute(
        "INSERT INTO drained_chains (epoch, shard, next_sequence, updated_ms, missing)
         VALUES (?1, ?2, 0, 0, 0) ON CONFLICT (epoch, shard) DO NOTHING",
        &[epoch.into(), shard.into()],
    )
    .map_err(database(doing))?;
    let moved = db
        .execute(
            "UPDATE drained_chains SET next_sequence = ?1, missing = missing + ?2, updated_ms = ?3
             WHERE epoch = ?4 AND shard = ?5 AND next_sequence = ?6",
            &[
                step.to.into(),
                step.missing.into(),
                RealClock.now().unix.ms().into(),
                epoch.into(),
                shard.into(),
                step.from.into(),
            ],
        )
        .map_err(database(doing))?;
    if moved == 1 { Ok(()) } else { Err(StoreError::DrainedElsewhere { chain: step.chain, from: step.from }) }
}

/// The same by another time or less, ascending: what becomes equal is one row.
fn added_up(rows: &[UsageRow], coarser: impl Fn(u64, UsageOf) -> (u64, UsageOf)) -> Vec<UsageRow> {
    let coarse = |row: &UsageRow| {
        let (time, of) = coarser(row.time, row.of);
        UsageRow { time, of, ..*row }
    };
    let mut rows: Vec<UsageRow> = rows.iter().map(coarse).collect();
    rows.sort_by_key(|row| (row.time, row.of));
    rows.dedup_by(|next, row| {
        let same = (next.time, next.of) == (row.time, row.of);
        if same {
            row.sums.merge(&next.sums);
        }
        same
    });
    rows
}

fn add_months(db: &mut Db, rows: &[UsageRow]) -> Result<(), StoreError> {
    let mut months: Vec<[i64; 5]> = Vec::new();
    let mut month_of_day = (u64::MAX, 0);
    for UsageRow { time, of, sums } in rows {
        let day = time / calendar::DAY_S;
        if month_of_day.0 != day {
            month_of_day = (day, calendar::month_number(day));
        }
        let month = month_of_day.1;
        months.push([of.key.into(), month.into(), of.status.into(), int(sums.requests), int(sums.prices)]);
    }
    months.sort_unstable();
    months.dedup_by(|next, row| {
        let same = next[..3] == row[..3];
        if same {
            row[3] = row[3].saturating_add(next[3]);
            row[4] = row[4].saturating_add(next[4]);
        }
        same
    });
    add(db, &MONTHS, months.as_flattened())
}

fn add_rows(db: &mut Db, table: &Table, rows: &[UsageRow]) -> Result<(), StoreError> {
    let key: Vec<fn(&UsageRow) -> i64> = table.key.iter().map(|column| number_of(column)).collect();
    let mut numbers = Vec::with_capacity(rows.len() * table.width());
    for row in rows {
        let UsageSums { requests, prices, latency_ns_sum, latency_ns_max, latency } = &row.sums;
        numbers.extend(key.iter().map(|number| number(row)));
        numbers.extend([int(*requests), int(*prices), int(*latency_ns_sum)]);
        numbers.extend(latency.0.map(int));
        numbers.push(int(*latency_ns_max));
    }
    add(db, table, &numbers)
}

/// What stands in a column of a roll-up's key.
fn number_of(column: &str) -> fn(&UsageRow) -> i64 {
    match column {
        "key_id" => |row| row.of.key.into(),
        "asset" => |row| row.of.asset.into(),
        "exchange" => |row| row.of.exchange.into(),
        "transport" => |row| row.of.transport.into(),
        "status" => |row| row.of.status.into(),
        _ => |row| int(row.time),
    }
}

fn add(db: &mut Db, table: &Table, numbers: &[i64]) -> Result<(), StoreError> {
    let rows = numbers.chunks(ROWS_PER_STATEMENT * table.width());
    rows.into_iter().try_for_each(|rows| db.add_rows(table, rows)).map_err(database("add usage"))
}

fn sort_rows(numbers: &mut [i64], width: usize) {
    let mut rows: Vec<Vec<i64>> = numbers.chunks_exact(width).map(<[i64]>::to_vec).collect();
    rows.sort_unstable();
    numbers.copy_from_slice(&rows.concat());
}

/// Nothing that is counted gets beyond it.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const _: () = assert!(BUCKETS == 32, "the columns of the tables");
