//! Pages and sums against the obvious model: a sorted list of all rows. The same on both engines.

use std::collections::BTreeMap;

use super::*;
use crate::ledger::ChainId;
use crate::store::testing::on_each_engine;
use crate::store::usage::{ChainStep, UsageBatch};

/// The first second of 2026.
const BEGIN: u64 = 1_767_225_600;

/// Deterministic, well mixed.
fn mixed(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Rows of three hours, ascending, each place only once.
fn rows(count: u64) -> Vec<UsageRow> {
    let mut rows = BTreeMap::new();
    for n in 0..count {
        let pick = |part: u64, of: u64| mixed(n * 16 + part) % of;
        let of = UsageOf {
            key: 1 + pick(0, 4) as u32,
            asset: 1 + pick(1, 5) as u16,
            exchange: 1 + pick(2, 3) as u8,
            transport: 1 + pick(3, 3) as u8,
            status: if pick(4, 10) == 0 { 6 } else { 0 },
        };
        let mut sums = UsageSums::default();
        for at in 0..=pick(5, 3) {
            let latency_ns = pick(6 + at, 1 << 20);
            let mut latency = Histogram::default();
            latency.add(latency_ns);
            let one = UsageSums {
                requests: 1,
                prices: 1 + at,
                latency_ns_sum: latency_ns,
                latency_ns_max: latency_ns,
                latency,
            };
            sums.merge(&one);
        }
        let time = BEGIN + pick(9, 3 * HOUR_S);
        rows.insert((time, of), sums);
    }
    rows.into_iter().map(|((time, of), sums)| UsageRow { time, of, sums }).collect()
}

fn fill(store: &Store, rows: &[UsageRow], from: u64) {
    let chain = ChainId { epoch: 1, shard: 0 };
    let step = ChainStep { chain, from, to: from + 1, missing: 0, records: Vec::new() };
    store.add_usage(&UsageBatch { rows: rows.to_vec(), chains: vec![step], raw: Vec::new() }).unwrap();
}

fn passes(filter: &UsageFilter, row: &UsageRow) -> bool {
    let UsageOf { key, asset, exchange, transport, status } = row.of;
    (filter.from_s..filter.to_s).contains(&row.time)
        && filter.key.is_none_or(|wanted| wanted == key)
        && filter.asset.is_none_or(|wanted| wanted == asset)
        && filter.exchange.is_none_or(|wanted| wanted == exchange)
        && filter.transport.is_none_or(|wanted| wanted == transport)
        && filter.status.is_none_or(|wanted| wanted == status)
}

/// Filters of every kind, over all three hours and over a part of them.
fn filters() -> Vec<UsageFilter> {
    let mut filters = Vec::new();
    for (from_s, to_s) in [(BEGIN, BEGIN + 3 * HOUR_S), (BEGIN + 1_800, BEGIN + 2 * HOUR_S), (0, u64::MAX)] {
        let all = UsageFilter { from_s, to_s, ..UsageFilter::default() };
        let key = UsageFilter { key: Some(2), ..all };
        filters.extend([
            all,
            key,
            UsageFilter { asset: Some(3), ..all },
            UsageFilter { asset: Some(3), ..key },
            UsageFilter { exchange: Some(1), transport: Some(2), ..key },
            UsageFilter { status: Some(6), ..all },
            UsageFilter { key: Some(99), ..all },
            UsageFilter { asset: Some(99), ..all },
        ]);
    }
    filters
}

fn all_pages(store: &Store, filter: &UsageFilter, limit: usize) -> Vec<UsageRow> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.usage_page(filter, after, limit).unwrap();
        assert!(page.rows.len() <= limit);
        found.extend(page.rows);
        assert!(page.next.is_none() || page.next > after, "no step ahead");
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[test]
fn pages_hold_every_row_once_and_in_order() {
    let rows = rows(900);
    on_each_engine(|home| {
        let store = home.open();
        assert_eq!(store.usage_page(&filters()[0], None, 10).unwrap(), UsagePage::default());
        fill(&store, &rows, 0);
        for filter in filters() {
            let expected: Vec<_> = rows.iter().filter(|row| passes(&filter, row)).copied().collect();
            for limit in [1_000, 37] {
                assert_eq!(all_pages(&store, &filter, limit), expected, "{filter:?} by {limit}");
            }
        }
    });
}

#[test]
fn pages_stay_whole_while_rows_are_added() {
    let rows = rows(600);
    on_each_engine(|home| {
        let store = home.open();
        let (early, late) = rows.split_at(400);
        fill(&store, early, 0);
        let filter = filters()[0];
        let first = store.usage_page(&filter, None, 150).unwrap();
        fill(&store, late, 1);
        let mut found = first.rows;
        let mut after = first.next;
        while after.is_some() {
            let page = store.usage_page(&filter, after, 150).unwrap();
            found.extend(page.rows);
            after = page.next;
        }
        assert_eq!(found, rows);
    });
}

#[test]
fn a_filter_without_an_index_looks_at_so_many_rows_a_page_and_goes_on_behind_them() {
    // All in one hour, so that hours do not help: the one asset asked for lies far behind.
    let of = |asset| UsageOf { key: 1, asset, exchange: 1, transport: 1, status: 0 };
    let sums = UsageSums { requests: 1, ..UsageSums::default() };
    let count = SCAN_MAX as u64 + 100;
    let mut rows: Vec<_> =
        (0..count).map(|n| UsageRow { time: BEGIN + n / 30, of: of(1 + (n % 30) as u16), sums }).collect();
    rows.push(UsageRow { time: BEGIN + 3_000, of: of(77), sums });
    on_each_engine(|home| {
        let store = home.open();
        fill(&store, &rows, 0);
        let filter =
            UsageFilter { from_s: BEGIN, to_s: BEGIN + HOUR_S, asset: Some(77), ..UsageFilter::default() };
        let first = store.usage_page(&filter, None, 10).unwrap();
        assert!(first.rows.is_empty() && first.next.is_some(), "{first:?}");
        assert_eq!(all_pages(&store, &filter, 10), rows[rows.len() - 1..]);
        // Hours without the asset are passed over at once.
        let elsewhere = UsageFilter { asset: Some(78), ..filter };
        assert_eq!(store.usage_page(&elsewhere, None, 10).unwrap(), UsagePage::default());
    });
}

fn expected_group(row: &UsageRow, by: &[UsageGroup]) -> Vec<u64> {
    let of = |group: &UsageGroup| match group {
        UsageGroup::Day => row.time / 86_400,
        UsageGroup::Hour => row.time / HOUR_S,
        UsageGroup::Key => row.of.key.into(),
        UsageGroup::Asset => row.of.asset.into(),
        UsageGroup::Exchange => row.of.exchange.into(),
        UsageGroup::Transport => row.of.transport.into(),
        UsageGroup::Status => row.of.status.into(),
    };
    by.iter().map(of).collect()
}

#[test]
fn sums_are_those_of_the_rows() {
    use UsageGroup::{Asset, Day, Exchange, Hour, Key, Status, Transport};
    let rows = rows(900);
    let groups: [&[UsageGroup]; 8] = [
        &[],
        &[Day],
        &[Hour],
        &[Key, Asset],
        &[Hour, Status],
        &[Asset, Transport],
        &[Hour, Exchange],
        &[Key, Asset, Exchange, Transport, Status],
    ];
    on_each_engine(|home| {
        let store = home.open();
        for by in groups {
            let sums = store.usage_sums(&filters()[0], by, None, 10, Buckets::Added).unwrap();
            assert!(sums.is_empty(), "of nothing: {sums:?}");
        }
        fill(&store, &rows, 0);
        for filter in filters() {
            // Sums are of whole hours.
            let whole = UsageFilter {
                from_s: filter.from_s / HOUR_S * HOUR_S,
                to_s: filter.to_s.div_ceil(HOUR_S).saturating_mul(HOUR_S),
                ..filter
            };
            for by in groups {
                let mut expected: BTreeMap<Vec<u64>, (UsageSums, u64)> = BTreeMap::new();
                for row in rows.iter().filter(|row| passes(&whole, row)) {
                    let (sums, refused) = expected.entry(expected_group(row, by)).or_default();
                    sums.merge(&row.sums);
                    *refused += if row.of.status == 0 { 0 } else { row.sums.requests };
                }
                let sums = |(group, (sums, refused))| UsageGroupSums { group, sums, refused };
                let expected: Vec<_> = expected.into_iter().map(sums).collect();
                let found = store.usage_sums(&filter, by, None, 10_000, Buckets::Added).unwrap();
                assert_eq!(found, expected, "{filter:?} by {by:?}");
                if let [_, .., last] = expected.as_slice() {
                    let first = store.usage_sums(&filter, by, None, 7, Buckets::Added).unwrap();
                    assert_eq!(first, expected[..expected.len().min(7)]);
                    // Page by page, and without percentiles.
                    let (mut found, mut after) = (Vec::new(), None);
                    while after.as_ref() != Some(&last.group) {
                        let page = store.usage_sums(&filter, by, after.as_deref(), 7, Buckets::LeftOut);
                        found.extend(page.unwrap());
                        after = found.last().map(|sums: &UsageGroupSums| sums.group.clone());
                    }
                    let light = |sums: &UsageGroupSums| {
                        let mut sums = sums.clone();
                        sums.sums.latency = Histogram::default();
                        sums
                    };
                    assert_eq!(found, expected.iter().map(light).collect::<Vec<_>>());
                }
            }
        }
    });
}
