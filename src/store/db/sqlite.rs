//! SQLite: what a connection is set to, and the verbs.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::{DbError, Row, Table, Value};

/// How long a statement waits for another process to finish its own. Theirs take milliseconds; only
/// a disk that hangs takes longer.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Statements that a connection keeps prepared: all that the program has, and some to spare.
const STATEMENTS_KEPT: usize = 64;

pub(super) fn connect(path: &Path) -> Result<Connection, DbError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_WAIT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    db.pragma_update(None, "journal_mode", "wal")?;
    // Not NORMAL: an epoch or a revocation that power loss takes back would be worse than slow, and
    // the journal forgets what the drain has committed.
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db)
}

pub(super) fn query(db: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
    let mut statement = db.prepare_cached(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query(params_from_iter(params))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let column = |index| match row.get_ref(index)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(number) => Ok(Value::Int(number)),
            ValueRef::Text(text) => match str::from_utf8(text) {
                Ok(text) => Ok(Value::Text(text.to_owned())),
                Err(_) => Err(DbError::Content("a text is not UTF-8".to_owned())),
            },
            ValueRef::Blob(bytes) => Ok(Value::Blob(bytes.to_vec())),
            ValueRef::Real(_) => Err(DbError::Content("a column holds a fraction".to_owned())),
        };
        all.push(Row((0..width).map(column).collect::<Result<_, DbError>>()?));
    }
    Ok(all)
}

pub(super) fn execute(db: &Connection, sql: &str, params: &[Value]) -> Result<u64, DbError> {
    Ok(db.prepare_cached(sql)?.execute(params_from_iter(params))? as u64)
}

pub(super) fn add_rows(db: &Connection, table: &Table, rows: &[i64]) -> Result<(), DbError> {
    let width = table.width();
    let numbers: Vec<String> = (1..=width).map(|n| format!("?{n}")).collect();
    let mut statement = db.prepare_cached(&table.add_sql(&format!("VALUES ({})", numbers.join(", "))))?;
    for row in rows.chunks_exact(width) {
        statement.execute(params_from_iter(row))?;
    }
    Ok(())
}
