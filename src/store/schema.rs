//! The tables, as numbered steps. A step that was released is never edited: a further one follows.
//!
//! Each step is written for both engines. A column has the same name in both and holds a number of
//! 64 bits, a text or bytes: INTEGER, TEXT and BLOB in SQLite, BIGINT, TEXT and BYTEA in PostgreSQL.

use super::StoreError;
use super::db::{Db, database};
use crate::time::{Clock as _, RealClock};

/// One step: for SQLite, for PostgreSQL.
type Step = (&'static str, &'static str);

/// All steps; the version of a database is how many of them it has seen.
const STEPS: &[Step] = &[
    (include_str!("schema/1_keys.sqlite.sql"), include_str!("schema/1_keys.postgres.sql")),
    (include_str!("schema/2_usage.sqlite.sql"), include_str!("schema/2_usage.postgres.sql")),
    (include_str!("schema/3_admin.sqlite.sql"), include_str!("schema/3_admin.postgres.sql")),
    (include_str!("schema/4_keys_made.sqlite.sql"), include_str!("schema/4_keys_made.postgres.sql")),
    (include_str!("schema/5_missing.sqlite.sql"), include_str!("schema/5_missing.postgres.sql")),
    (include_str!("schema/6_rotation.sqlite.sql"), include_str!("schema/6_rotation.postgres.sql")),
    (include_str!("schema/7_coarse_hours.sqlite.sql"), include_str!("schema/7_coarse_hours.postgres.sql")),
];

/// The version that this program makes and needs.
pub(super) const VERSION: usize = STEPS.len();

/// Held in a PostgreSQL database while its tables are brought up to date: any number of our own.
const STEPS_LOCK: i64 = 0x0062_6561_7374;

/// Takes the steps that are missing; `name` is what to call the database.
pub(super) fn migrate(db: &mut Db, name: &str) -> Result<(), StoreError> {
    let doing = "bring the tables up to date";
    db.transaction(doing, |db| {
        if db.postgres().is_some() {
            // Two starts at once must not both take a step; SQLite has let in only one.
            db.batch(&format!("SELECT pg_advisory_xact_lock({STEPS_LOCK})")).map_err(database(doing))?;
        }
        let strict = db.either("STRICT", "");
        db.batch(&format!(
            "CREATE TABLE IF NOT EXISTS schema_version (
                version    {number} PRIMARY KEY,
                applied_ms {number} NOT NULL
            ) {strict}",
            number = db.either("INTEGER", "BIGINT"),
        ))
        .map_err(database(doing))?;
        let found = db
            .query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])
            .and_then(|row| row.int::<u32>(0))
            .map_err(database(doing))?;
        let needed = u32::try_from(VERSION).unwrap_or(u32::MAX);
        if found > needed {
            return Err(StoreError::NewerSchema { database: name.to_owned(), found, needed });
        }
        for (version, (sqlite, postgres)) in (1_u32..).zip(STEPS).filter(|(version, _)| *version > found) {
            db.batch(db.either(sqlite, postgres)).map_err(database(doing))?;
            let now_ms = RealClock.now().unix.ms();
            db.execute("INSERT INTO schema_version VALUES (?1, ?2)", &[version.into(), now_ms.into()])
                .map_err(database(doing))?;
        }
        Ok(())
    })
}
