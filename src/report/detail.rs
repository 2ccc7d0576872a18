//! Single records, from the journal's segments: those that are sealed by their index, those that are
//! still written as far as they are.

use std::path::Path;

use super::names::Names;
use super::pages::Page;
use super::query::{Filter, Query};
use super::refusal::Refusal;
use super::table::{Cell, Column, Kind, Table, column};
use crate::ledger::{ChainId, JournalError, JournalView, Record, RecordId, Transport, ViewedSegment};

/// Places one page may look at. More makes a page slower, fewer gives more pages with few rows; at a
/// tenth of a microsecond a place this is a few hundredths of a second.
const SCAN_MAX: u64 = 300_000;

/// Places looked at in one go.
const PIECE: usize = 4_096;

const DETAIL: [Column; 11] = [
    column("time", Kind::Instant),
    column("record", Kind::Text),
    column("key", Kind::Text),
    column("asset", Kind::Text),
    column("prices", Kind::Number),
    column("exchange", Kind::Text),
    column("transport", Kind::Text),
    column("status", Kind::Text),
    column("latency_ns", Kind::Number),
    column("request_id", Kind::Text),
    column("account", Kind::Text),
];

pub(super) fn journal_refused(error: JournalError) -> Refusal {
    Refusal::unavailable(format!("{}; {}", error.what(), error.cure()))
}

/// Records in the order of their identity: start, shard, sequence.
pub(super) fn detail(journal: &Path, query: &Query, names: &Names) -> Result<Page, Refusal> {
    let after = match query.after.as_deref() {
        None => None,
        Some(place) => Some(record_id(place).ok_or_else(|| {
            Refusal::parameter("cursor names no record there can be; begin again without it".to_owned())
        })?),
    };
    let view = JournalView::open(journal).map_err(journal_refused)?;
    let mut table = Table::new(&DETAIL);
    let (mut looked_at, mut last, mut next) = (0_u64, None, None);
    let mut records: Vec<(RecordId, Record)> = Vec::new();
    let (filter, limit) = (&query.filter, query.limit);
    'pages: for segment in view.segments().iter().filter(|segment| may_hold(segment, filter)) {
        let Some(mut at) = begin(segment, after) else { continue };
        loop {
            if looked_at >= SCAN_MAX {
                next = last;
                break 'pages;
            }
            records.clear();
            let looked = segment.read(at, PIECE, &mut records).map_err(journal_refused)?;
            for (id, record) in records.iter().filter(|(_, record)| passes(record, filter)) {
                if table.rows.len() == limit {
                    next = last;
                    break 'pages;
                }
                table.rows.push(row(*id, record, names));
                last = Some(*id);
            }
            looked_at += looked.next.saturating_sub(at);
            if looked.next > at {
                let ChainId { epoch, shard } = segment.chain;
                last = Some(RecordId { epoch, shard, sequence: looked.next - 1 });
            }
            at = looked.next;
            if looked.ended {
                break;
            }
        }
    }
    let next =
        next.map(|id: RecordId| query.cursor(vec![u64::from(id.epoch), u64::from(id.shard), id.sequence]));
    Ok(Page { table, next, period: (filter.from, filter.to) })
}

/// Where to begin in a segment; `None` when all of it lies before.
fn begin(segment: &ViewedSegment, after: Option<RecordId>) -> Option<u64> {
    let Some(after) = after else { return Some(segment.first) };
    match segment.chain.cmp(&after.chain()) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Greater => Some(segment.first),
        std::cmp::Ordering::Equal => {
            let begin = after.sequence.saturating_add(1).max(segment.first);
            (begin < segment.end).then_some(begin)
        }
    }
}

/// Whether a segment may hold records of that period and key, as far as its index tells.
pub(super) fn may_hold(segment: &ViewedSegment, filter: &Filter) -> bool {
    segment.index.as_ref().is_none_or(|index| {
        index.time_max >= filter.from
            && index.time_min < filter.to
            && filter.key.is_none_or(|key| index.may_hold(key))
    })
}

fn passes(record: &Record, filter: &Filter) -> bool {
    record.time >= filter.from
        && record.time < filter.to
        && filter.key.is_none_or(|key| key == record.key)
        && filter.asset.is_none_or(|asset| asset == record.asset)
        && filter.exchange.is_none_or(|exchange| exchange == record.exchange)
        && filter.transport.is_none_or(|transport| transport == record.transport)
        && filter.status.is_none_or(|status| status == record.status)
}

fn record_id(place: &[u64]) -> Option<RecordId> {
    let [epoch, shard, sequence] = place else { return None };
    Some(RecordId {
        epoch: u32::try_from(*epoch).ok()?,
        shard: u16::try_from(*shard).ok()?,
        sequence: *sequence,
    })
}

fn row(id: RecordId, record: &Record, names: &Names) -> Vec<Cell> {
    vec![
        Cell::Time(record.time),
        format!("{}-{}-{}", id.epoch, id.shard, id.sequence).into(),
        names.key_text(record.key).into(),
        names.asset_text(record.asset).into(),
        u64::from(record.assets).into(),
        names.exchange_text(record.exchange).into(),
        record.transport.name().into(),
        Names::status_text(record.status).into(),
        u64::from(record.latency_ns).into(),
        request_text(record).into(),
        names.account_text(record.key).into(),
    ]
}

/// The request's own id as its client wrote it: the number of v2, the string of v1 without its
/// quotes; nothing where it had none.
fn request_text(record: &Record) -> String {
    let raw = record.request.as_bytes();
    match (record.transport, <[u8; 8]>::try_from(raw)) {
        (Transport::UdpV2, Ok(number)) => u64::from_le_bytes(number).to_string(),
        _ => serde_json::from_slice::<String>(raw)
            .unwrap_or_else(|_| String::from_utf8_lossy(raw).into_owned()),
    }
}
