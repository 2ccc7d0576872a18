//! Records as rows, where they are asked for.

use crate::ledger::{Record, RecordId};
use crate::store::db::{Db, DbError, Value};

const COLUMNS: &str = "epoch, shard, sequence, time_ns, key_id, asset, prices, exchange, transport, status,
                       latency_ns, request";

/// Numbers of a row; behind them stands the request's id.
const NUMBERS: usize = 11;

/// Adds records: by binary COPY to PostgreSQL, row by row to SQLite.
pub(super) fn add(db: &mut Db, records: &[(RecordId, Record)]) -> Result<(), DbError> {
    if records.is_empty() {
        return Ok(());
    }
    if let Some(session) = db.postgres() {
        return session.copy(format!("COPY usage_records ({COLUMNS}) FROM STDIN BINARY"), copied(records));
    }
    let sql = format!(
        "INSERT INTO usage_records ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    );
    for (id, record) in records {
        let mut row = numbers(id, record).map(Value::Int).to_vec();
        row.push(Value::Blob(record.request.as_bytes().to_vec()));
        db.execute(&sql, &row)?;
    }
    Ok(())
}

fn numbers(id: &RecordId, record: &Record) -> [i64; NUMBERS] {
    let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    [
        id.epoch.into(),
        id.shard.into(),
        int(id.sequence),
        int(record.time.0),
        record.key.into(),
        record.asset.into(),
        record.assets.into(),
        record.exchange.into(),
        i64::from(record.transport as u8),
        record.status.into(),
        record.latency_ns.into(),
    ]
}

/// The rows in PostgreSQL's binary COPY format: a signature, two empty words, then of each row the
/// number of its fields and each field behind its length, all big-endian, and -1 at the end.
fn copied(records: &[(RecordId, Record)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + records.len() * (2 + NUMBERS * 12 + 36));
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    out.extend_from_slice(&[0; 8]);
    for (id, record) in records {
        out.extend_from_slice(&(NUMBERS as i16 + 1).to_be_bytes());
        for number in numbers(id, record) {
            out.extend_from_slice(&8_i32.to_be_bytes());
            out.extend_from_slice(&number.to_be_bytes());
        }
        let request = record.request.as_bytes();
        // At most 32.
        out.extend_from_slice(&(request.len() as i32).to_be_bytes());
        out.extend_from_slice(request);
    }
    out.extend_from_slice(&(-1_i16).to_be_bytes());
    out
}
