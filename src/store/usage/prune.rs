//! Forgetting usage that is old, or too much.

use crate::store::db::{Db, DbError, Value, database};
use crate::store::{Store, StoreError};
use crate::time::calendar::DAY_S;

/// What a roll-up row takes, indexes and all, in bytes, in SQLite and in PostgreSQL. In SQLite a number is
/// as long as it needs; in PostgreSQL each takes 8 bytes. A guess, not measured: where it is wrong, it takes
/// more looks to come below a bound, or a little more goes.
const ROW_BYTES: (u64, u64) = (150, 470);

/// Seconds whose rows go in one transaction: short enough that nobody waits for it.
const SLICE_S: i64 = 60;

/// Rows by second that are at most so much older than the newest never go for the sake of size.
const KEPT_S: i64 = 3_600;

/// What usage may be forgotten. Times are seconds since the Unix epoch; months are never forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsagePrune {
    /// Rows by second of earlier seconds.
    pub seconds_before: u64,
    /// Rows by hour, and counts of drained records, of earlier days.
    pub hours_before: u64,
    /// Records kept as rows of earlier seconds.
    pub records_before: u64,
    /// The oldest records kept as rows, then the oldest rows by second but those of the last hour, until
    /// the store takes no more bytes than this.
    pub bytes_max: Option<u64>,
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsagePruned {
    /// Rows that went.
    pub rows: u64,
    /// The store would have to be smaller than what must stay.
    pub too_small: bool,
}

impl Store {
    /// Forgets usage.
    ///
    /// # Errors
    /// The database refused; what went before stays gone.
    pub fn prune_usage(&self, prune: UsagePrune) -> Result<UsagePruned, StoreError> {
        let doing = "forget old usage";
        let mut db = self.lend(doing)?;
        let day = prune.hours_before / DAY_S;
        let mut pruned = UsagePruned::default();
        let mut forget = |db: &mut Db| -> Result<(), DbError> {
            let rows = &mut pruned.rows;
            *rows += slices(db, SECONDS, int(prune.seconds_before))?;
            *rows += slices(db, RECORDS, int(prune.records_before).saturating_mul(RECORDS.second))?;
            for table in ["usage_hours", "usage_key_hours", "usage_asset_hours"] {
                let sql = format!("DELETE FROM {table} WHERE hour < ?1");
                *rows += db.execute(&sql, &[(day * 24).into()])?;
            }
            *rows += db.execute("DELETE FROM drained_records WHERE day < ?1", &[day.into()])?;
            if let Some(bytes_max) = prune.bytes_max {
                // How many that are is a guess, and all of them go before the first second.
                loop {
                    let before = too_many_before(db, RECORDS, bytes_max)?;
                    match slices(db, RECORDS, before)? {
                        0 => break,
                        gone => *rows += gone,
                    }
                }
                let before = too_many_before(db, SECONDS, bytes_max)?;
                let newest = db.query_one("SELECT max(second) FROM usage_seconds", &[])?.int_or_null(0)?;
                let kept = newest.map_or(0, |newest| newest.saturating_sub(KEPT_S));
                pruned.too_small = before > kept;
                *rows += slices(db, SECONDS, before.min(kept))?;
            }
            Ok(())
        };
        forget(&mut db).map_err(database(doing))?;
        Ok(pruned)
    }

    /// Bytes that the store takes, as far as can be told.
    ///
    /// # Errors
    /// The database refused.
    pub fn usage_bytes(&self) -> Result<u64, StoreError> {
        let doing = "measure the store";
        bytes(&mut *self.lend(doing)?).map_err(database(doing))
    }
}

/// Bytes that usage takes: all pages in use of SQLite's file; in PostgreSQL, where room that was given
/// back still counts as the table's, what its rows are likely to take.
fn bytes(db: &mut Db) -> Result<u64, DbError> {
    let sql = db.either(
        "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count),
                (SELECT page_size FROM pragma_page_size)",
        "SELECT (SELECT count(*) FROM usage_seconds) + (SELECT count(*) FROM usage_hours)
                + (SELECT count(*) FROM usage_key_hours) + (SELECT count(*) FROM usage_asset_hours)
                + (SELECT count(*) FROM usage_records), 0",
    );
    let row = db.query_one(sql, &[])?;
    let (count, size): (u64, u64) = (row.int(0)?, row.int(1)?);
    Ok(count.saturating_mul(if size == 0 { ROW_BYTES.1 } else { size }))
}

/// A table whose rows go by age.
#[derive(Clone, Copy)]
struct Aged {
    table: &'static str,
    /// Their time, and how much of it a second is.
    column: &'static str,
    second: i64,
}

const SECONDS: Aged = Aged { table: "usage_seconds", column: "second", second: 1 };
const RECORDS: Aged = Aged { table: "usage_records", column: "time_ns", second: 1_000_000_000 };

/// The time before which rows must go so that the store takes about `bytes_max`; 0 when none must.
fn too_many_before(db: &mut Db, of: Aged, bytes_max: u64) -> Result<i64, DbError> {
    let over = bytes(db)?.saturating_sub(bytes_max);
    if over == 0 {
        return Ok(0);
    }
    let rows = over.div_ceil(db.either(ROW_BYTES.0, ROW_BYTES.1));
    let Aged { table, column, .. } = of;
    let at = format!("SELECT {column} FROM {table} ORDER BY {column} LIMIT 1 OFFSET ?1");
    match db.query(&at, &[rows.into()])?.first() {
        Some(row) => Ok(row.int::<i64>(0)?.saturating_add(1)),
        // All of them: what is left is too much without any.
        None => Ok(i64::MAX),
    }
}

/// Deletes rows of before that time, a slice at a time.
fn slices(db: &mut Db, of: Aged, before: i64) -> Result<u64, DbError> {
    let Aged { table, column, second } = of;
    let first = format!("SELECT min({column}) FROM {table} WHERE {column} < ?1");
    let delete = format!("DELETE FROM {table} WHERE {column} < ?1");
    let mut rows = 0;
    while let Some(oldest) = db.query_one(&first, &[before.into()])?.int_or_null(0)? {
        let end = oldest.saturating_add(SLICE_S.saturating_mul(second)).min(before);
        rows += db.execute(&delete, &[Value::Int(end)])?;
    }
    Ok(rows)
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
