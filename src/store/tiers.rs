//! Tiers in the store.

use super::db::{DbError, Row, Value, database};
use super::keys::{NAME_LEN_MAX, check_text};
use super::{Store, StoreError};
use crate::account::Tier;

impl Store {
    /// All tiers: limited ones by rising rate, then unlimited ones.
    ///
    /// # Errors
    /// The database refused.
    pub fn list_tiers(&self) -> Result<Vec<Tier>, StoreError> {
        let doing = "list the tiers";
        let sql = "SELECT name, unlimited, qps, burst, monthly_cap FROM tiers ORDER BY unlimited, qps, name";
        let rows = self.lend(doing)?.query(sql, &[]).map_err(database(doing))?;
        rows.iter().map(tier).collect::<Result<_, _>>().map_err(database(doing))
    }

    /// Makes a tier, or changes the one of that name for all keys that have it. `true` when it was made.
    ///
    /// # Errors
    /// The name is unsuitable, a limited tier admits nothing, or the database refused.
    pub fn put_tier(&self, tier: &Tier) -> Result<bool, StoreError> {
        let doing = "change the tier";
        check_text("tier's name", &tier.name, 1, NAME_LEN_MAX)?;
        if !tier.unlimited && (tier.qps == 0 || tier.burst == 0) {
            return Err(StoreError::EmptyTier { name: tier.name.clone() });
        }
        let values: [Value; 5] = [
            tier.name.as_str().into(),
            tier.unlimited.into(),
            tier.qps.into(),
            tier.burst.into(),
            tier.monthly.map_or(Value::Null, Into::into),
        ];
        self.lend(doing)?.transaction(doing, |db| {
            let change =
                "UPDATE tiers SET unlimited = ?2, qps = ?3, burst = ?4, monthly_cap = ?5 WHERE name = ?1";
            if db.execute(change, &values).map_err(database(doing))? > 0 {
                return Ok(false);
            }
            let make =
                "INSERT INTO tiers (name, unlimited, qps, burst, monthly_cap) VALUES (?1, ?2, ?3, ?4, ?5)";
            db.execute(make, &values).map_err(database(doing))?;
            Ok(true)
        })
    }
}

fn tier(row: &Row) -> Result<Tier, DbError> {
    Ok(Tier {
        name: row.text(0)?.to_owned(),
        unlimited: row.int::<i64>(1)? != 0,
        qps: row.int(2)?,
        burst: row.int(3)?,
        monthly: row.int_or_null(4)?.map(i64::unsigned_abs),
    })
}
