//! What the closed-books check reads of the store.

use crate::ledger::ChainId;
use crate::store::{DbError, Row, Store, StoreError, database};

/// Records drained of one chain, of one day and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainedRecords {
    /// Days since the Unix epoch.
    pub day: u64,
    /// Whose records.
    pub chain: ChainId,
    /// Persistent number of the key.
    pub key: u32,
    /// How many.
    pub records: u64,
}

/// Requests that the roll-ups of one day and key add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledUp {
    /// Days since the Unix epoch.
    pub day: u64,
    /// Persistent number of the key.
    pub key: u32,
    /// How many.
    pub requests: u64,
}

/// All that the store has to say, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreBooks {
    /// How far each chain is drained: the sequence of the first record that is not.
    pub positions: Vec<(ChainId, u64)>,
    /// What was drained on the days asked for.
    pub drained: Vec<DrainedRecords>,
    /// What the roll-ups of those days hold.
    pub rolled_up: Vec<RolledUp>,
}

/// What a month comes to in the store, and how far that reaches, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonthUse {
    /// Requests of each key that were answered with a price.
    pub answered: Vec<(u32, u64)>,
    /// How far each chain is drained: what the journal holds from there on comes on top.
    pub positions: Vec<(ChainId, u64)>,
}

impl Store {
    /// What each key has used in a month; `month` is 202601 for January 2026.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    pub fn month_use(&self, month: u32) -> Result<MonthUse, StoreError> {
        const DOING: &str = "read what was used this month";
        // One statement here too: a batch that is added meanwhile is in both or in neither.
        let sql = "SELECT 1, epoch, shard, 0, next_sequence FROM drained_chains
                   UNION ALL
                   SELECT 2, 0, 0, key_id, requests FROM usage_months WHERE month = ?1 AND status = 0";
        let rows = self.lend(DOING)?.query(sql, &[month.into()]).map_err(database(DOING))?;
        let mut month = MonthUse::default();
        rows.iter().try_for_each(|row| month.take(row)).map_err(database(DOING))?;
        Ok(month)
    }

    /// The store's side of the closed-books check, of days `from_day` up to before `to_day`.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    pub fn store_books(&self, from_day: u64, to_day: u64) -> Result<StoreBooks, StoreError> {
        const DOING: &str = "read the books";
        // One statement, because one statement sees one moment on either engine.
        let sql = format!(
            "SELECT 1, 0, epoch, shard, 0, next_sequence FROM drained_chains
             UNION ALL
             SELECT 2, day, epoch, shard, key_id, records FROM drained_records
             WHERE day >= {from_day} AND day < {to_day}
             UNION ALL
             SELECT 3, hour / 24, 0, 0, key_id, CAST(sum(requests) AS BIGINT) FROM usage_hours
             WHERE hour >= {} AND hour < {} GROUP BY hour / 24, key_id",
            from_day.saturating_mul(24),
            to_day.saturating_mul(24)
        );
        let rows = self.lend(DOING)?.query(&sql, &[]).map_err(database(DOING))?;
        let mut books = StoreBooks::default();
        rows.iter().try_for_each(|row| books.take(row)).map_err(database(DOING))?;
        Ok(books)
    }
}

impl MonthUse {
    fn take(&mut self, row: &Row) -> Result<(), DbError> {
        let count = row.int(4)?;
        match row.int::<u8>(0)? {
            1 => self.positions.push((ChainId { epoch: row.int(1)?, shard: row.int(2)? }, count)),
            _ => self.answered.push((row.int(3)?, count)),
        }
        Ok(())
    }
}

impl StoreBooks {
    fn take(&mut self, row: &Row) -> Result<(), DbError> {
        let (day, key, count) = (row.int(1)?, row.int(4)?, row.int(5)?);
        let chain = ChainId { epoch: row.int(2)?, shard: row.int(3)? };
        match row.int::<u8>(0)? {
            1 => self.positions.push((chain, count)),
            2 => self.drained.push(DrainedRecords { day, chain, key, records: count }),
            _ => self.rolled_up.push(RolledUp { day, key, requests: count }),
        }
        Ok(())
    }
}
