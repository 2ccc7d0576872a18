//! The tables, as numbered steps. A step that was released is never edited: a further one follows.

use std::path::Path;

use rusqlite::{Transaction, params};

use super::StoreError;
use super::error::sqlite;

/// All steps; the version of a database is how many of them it has seen.
const STEPS: &[&str] = &[
    include_str!("schema/1_keys.sqlite.sql"),
    include_str!("schema/2_usage.sqlite.sql"),
    include_str!("schema/3_admin.sqlite.sql"),
];

/// Takes the steps that are missing.
pub(super) fn migrate(change: &Transaction<'_>, path: &Path) -> Result<(), StoreError> {
    let doing = || sqlite("bring the tables up to date");
    change
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_version (
                version    INTEGER PRIMARY KEY,
                applied_ms INTEGER NOT NULL
            ) STRICT",
        )
        .map_err(doing())?;
    let found: u32 = change
        .query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))
        .map_err(doing())?;
    let needed = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > needed {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, needed });
    }
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > found) {
        change.execute_batch(step).map_err(doing())?;
        change
            .execute(
                "INSERT INTO schema_version VALUES (?1, CAST(unixepoch('subsec') * 1000 AS INTEGER))",
                params![version],
            )
            .map_err(doing())?;
    }
    Ok(())
}
