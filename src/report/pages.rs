//! The reports that are read from roll-ups: usage, and what it adds up to.

use std::collections::BTreeMap;

use super::names::Names;
use super::query::{Filter, Query, group_name};
use super::refusal::Refusal;
use super::table::{Cell, Column, Kind, Table, column};
use crate::store::{
    Buckets, Store, StoreError, UsageFilter, UsageGroup, UsageGroupSums, UsageOf, UsagePlace, UsageSums,
};
use crate::time::UnixNs;
use crate::time::calendar::DAY_S;

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_S: u64 = 3_600;

/// Most parts of each kind on the page of a summary; what is used less is not shown there.
const TOP: usize = 10;

/// Most different combinations of key, transport and status, or of asset and exchange, that a summary
/// adds up. A guess; at some hundred bytes each.
const COMBINATIONS_MAX: usize = 500_000;

/// One page of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What stands on it.
    pub table: Table,
    /// The cursor to the next one.
    pub next: Option<String>,
    /// Begin and end of what was really looked at.
    pub period: (UnixNs, UnixNs),
}

const SUMS: [Column; 8] = [
    column("requests", Kind::Number),
    column("answered", Kind::Number),
    column("refused", Kind::Number),
    column("prices", Kind::Number),
    column("latency_mean_ns", Kind::Number),
    column("latency_p50_ns", Kind::Number),
    column("latency_p99_ns", Kind::Number),
    column("latency_max_ns", Kind::Number),
];

const USAGE: [Column; 11] = [
    column("time", Kind::Second),
    column("key", Kind::Text),
    column("asset", Kind::Text),
    column("exchange", Kind::Text),
    column("transport", Kind::Text),
    column("status", Kind::Text),
    column("requests", Kind::Number),
    column("prices", Kind::Number),
    column("latency_mean_ns", Kind::Number),
    column("latency_p99_ns", Kind::Number),
    column("latency_max_ns", Kind::Number),
];

pub(super) fn store_refused(error: StoreError) -> Refusal {
    Refusal::unavailable(format!("{}; {}", error.what(), error.cure()))
}

/// Roll-ups of seconds.
pub(super) fn usage(store: &Store, query: &Query, names: &Names) -> Result<Page, Refusal> {
    let filter = by_second(&query.filter);
    let after = match query.after.as_deref() {
        None => None,
        Some(place) => Some(usage_place(place).ok_or_else(|| {
            Refusal::parameter("cursor names no row there can be; begin again without it".to_owned())
        })?),
    };
    let found = store.usage_page(&filter, after, query.limit).map_err(store_refused)?;
    let mut table = Table::new(&USAGE);
    table.rows = found
        .rows
        .iter()
        .map(|row| {
            let UsageOf { key, asset, exchange, transport, status } = row.of;
            let sums = &row.sums;
            vec![
                Cell::Time(UnixNs(row.time.saturating_mul(SECOND_NS))),
                names.key_text(key).into(),
                names.asset_text(asset).into(),
                names.exchange_text(exchange).into(),
                Names::transport_text(transport).into(),
                Names::status_text(status).into(),
                sums.requests.into(),
                sums.prices.into(),
                sums.latency_ns_sum.checked_div(sums.requests).into(),
                sums.latency.percentile_ns(990, sums.latency_ns_max).into(),
                sums.latency_ns_max.into(),
            ]
        })
        .collect();
    let next = found.next.map(|UsagePlace { second, of }| {
        let UsageOf { key, asset, exchange, transport, status } = of;
        let rest = [u64::from(key), asset.into(), exchange.into(), transport.into(), status.into()];
        query.cursor(std::iter::once(second).chain(rest).collect())
    });
    Ok(Page { table, next, period: (seconds(filter.from_s), seconds(filter.to_s)) })
}

/// Sums by the columns that were asked for.
pub(super) fn usage_summary(store: &Store, query: &Query, names: &Names) -> Result<Page, Refusal> {
    let filter = by_second(&query.filter);
    let wanted = query.limit.saturating_add(1);
    let after = query.after.as_deref();
    let mut found =
        store.usage_sums(&filter, &query.by, after, wanted, Buckets::Added).map_err(store_refused)?;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let mut columns: Vec<Column> = query
        .by
        .iter()
        .map(|group| match group {
            UsageGroup::Day | UsageGroup::Hour => column(group_name(*group), Kind::Second),
            _ => column(group_name(*group), Kind::Text),
        })
        .collect();
    columns.extend(SUMS);
    let mut table = Table { columns, rows: Vec::new() };
    let mut next = None;
    for group in found {
        let mut row: Vec<Cell> =
            query.by.iter().zip(&group.group).map(|(by, number)| group_cell(*by, *number, names)).collect();
        row.extend(sums_cells(&group.sums, group.refused));
        table.rows.push(row);
        next = Some(group.group);
    }
    let next = next.filter(|_| more).map(|place| query.cursor(place));
    Ok(Page { table, next, period: whole_hours(&filter) })
}

/// What a whole period comes to, on one page.
pub(super) fn summary(store: &Store, query: &Query, names: &Names) -> Result<Page, Refusal> {
    use UsageGroup::{Asset, Exchange, Key, Status, Transport};
    const PARTS: [UsageGroup; 5] = [Key, Asset, Exchange, Transport, Status];
    // Together what one statement by all five would tell, but each from a table with fewer rows.
    const STATEMENTS: [&[UsageGroup]; 2] = [&[Key, Transport, Status], &[Asset, Exchange]];
    let filter = by_second(&query.filter);
    let all = store.usage_sums(&filter, &[], None, 1, Buckets::Added).map_err(store_refused)?;
    let total = all.first().map(|all| Part { sums: all.sums, refused: all.refused }).unwrap_or_default();
    let mut parts: BTreeMap<(UsageGroup, u64), Part> = BTreeMap::new();
    for by in STATEMENTS {
        let found =
            store.usage_sums(&filter, by, None, COMBINATIONS_MAX, Buckets::LeftOut).map_err(store_refused)?;
        if found.len() >= COMBINATIONS_MAX {
            return Err(Refusal::parameter(format!(
                "the period holds more than {COMBINATIONS_MAX} combinations of key, transport and status, or of asset and exchange; ask for a shorter one, or for one key"
            )));
        }
        for combination in &found {
            for (group, number) in by.iter().zip(&combination.group) {
                parts.entry((*group, *number)).or_default().add(combination);
            }
        }
    }
    let mut columns = vec![column("part", Kind::Text), column("name", Kind::Text)];
    columns.extend(SUMS);
    let mut table = Table { columns, rows: Vec::new() };
    let mut first = vec!["total".into(), "".into()];
    first.extend(sums_cells(&total.sums, total.refused));
    table.rows.push(first);
    for group in PARTS {
        let of_group = parts.range((group, 0)..=(group, u64::MAX));
        let mut of_group: Vec<_> = of_group.map(|((_, number), part)| (*number, *part)).collect();
        of_group.sort_by_key(|(number, part)| (std::cmp::Reverse(part.sums.requests), *number));
        for (number, part) in of_group.into_iter().take(TOP) {
            let mut row = vec![group_name(group).into(), group_cell(group, number, names)];
            row.extend(sums_cells(&part.sums, part.refused));
            table.rows.push(row);
        }
    }
    Ok(Page { table, next: None, period: whole_hours(&filter) })
}

#[derive(Clone, Copy, Default)]
struct Part {
    sums: UsageSums,
    refused: u64,
}

impl Part {
    fn add(&mut self, other: &UsageGroupSums) {
        self.sums.merge(&other.sums);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

fn sums_cells(sums: &UsageSums, refused: u64) -> [Cell; SUMS.len()] {
    [
        sums.requests.into(),
        sums.requests.saturating_sub(refused).into(),
        refused.into(),
        sums.prices.into(),
        sums.latency_ns_sum.checked_div(sums.requests).into(),
        sums.latency.percentile_ns(500, sums.latency_ns_max).into(),
        sums.latency.percentile_ns(990, sums.latency_ns_max).into(),
        sums.latency_ns_max.into(),
    ]
}

fn group_cell(group: UsageGroup, number: u64, names: &Names) -> Cell {
    // What does not fit is no number of a row; it is shown as the largest.
    match group {
        UsageGroup::Day => Cell::Time(seconds(number.saturating_mul(DAY_S))),
        UsageGroup::Hour => Cell::Time(seconds(number.saturating_mul(HOUR_S))),
        UsageGroup::Key => names.key_text(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        UsageGroup::Asset => names.asset_text(u16::try_from(number).unwrap_or(u16::MAX)).into(),
        UsageGroup::Exchange => names.exchange_text(u8::try_from(number).unwrap_or(u8::MAX)).into(),
        UsageGroup::Transport => Names::transport_text(u8::try_from(number).unwrap_or(u8::MAX)).into(),
        UsageGroup::Status => Names::status_text(u8::try_from(number).unwrap_or(u8::MAX)).into(),
    }
}

fn seconds(unix_s: u64) -> UnixNs {
    UnixNs(unix_s.saturating_mul(SECOND_NS))
}

/// The hours that were added up.
fn whole_hours(filter: &UsageFilter) -> (UnixNs, UnixNs) {
    (seconds(filter.from_s / HOUR_S * HOUR_S), seconds(filter.to_s.div_ceil(HOUR_S) * HOUR_S))
}

/// The filter by seconds that the period touches.
pub(super) fn by_second(filter: &Filter) -> UsageFilter {
    UsageFilter {
        from_s: filter.from.0 / SECOND_NS,
        to_s: filter.to.0.div_ceil(SECOND_NS),
        key: filter.key,
        asset: filter.asset,
        exchange: filter.exchange,
        transport: filter.transport.map(|transport| transport as u8),
        status: filter.status,
    }
}

fn usage_place(place: &[u64]) -> Option<UsagePlace> {
    let [second, key, asset, exchange, transport, status] = place else { return None };
    let of = UsageOf {
        key: u32::try_from(*key).ok()?,
        asset: u16::try_from(*asset).ok()?,
        exchange: u8::try_from(*exchange).ok()?,
        transport: u8::try_from(*transport).ok()?,
        status: u8::try_from(*status).ok()?,
    };
    Some(UsagePlace { second: *second, of })
}
