//! Whether the books close: what shards counted, what the journal holds, what was drained of it and
//! what the roll-ups add up to, side by side.
//!
//! ```text
//!   shard:  received = answered + refused + waiting                    published counters
//!           recorded = journal                                         the same, segments
//!   day:    journal (drained part) = drained = rolled up               segments, drained_records, usage_hours
//!   key:    the same
//!   chain:  journal (drained part) = drained
//! ```
//!
//! The store's side is read first, as of one moment with its positions; of the journal only records
//! before those positions are compared, and the others are shown as pending. Of days whose records
//! were partly pruned the journal's side is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::detail::{journal_refused, may_hold};
use super::names::Names;
use super::pages::{Page, store_refused};
use super::query::{Filter, Query};
use super::refusal::Refusal;
use super::service::ReadShards;
use super::table::{Cell, Column, Kind, Table, column};
use crate::admin::Books;
use crate::ledger::{ChainId, JournalView};
use crate::store::{Store, StoreBooks};
use crate::time::UnixNs;
use crate::time::calendar::{DAY_S, date};

const DAY_NS: u64 = DAY_S * 1_000_000_000;

/// Places of the journal looked at in one go.
const PIECE: usize = 65_536;

const RECONCILE: [Column; 11] = [
    column("scope", Kind::Text),
    column("name", Kind::Text),
    column("received", Kind::Number),
    column("answered", Kind::Number),
    column("refused", Kind::Number),
    column("waiting", Kind::Number),
    column("journal", Kind::Number),
    column("drained", Kind::Number),
    column("rolled_up", Kind::Number),
    column("pending", Kind::Number),
    column("difference", Kind::Signed),
];

/// What a shard of this process has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnShard {
    /// The chain it writes.
    pub chain: ChainId,
    /// Its requests.
    pub books: Books,
    /// Records it has appended.
    pub recorded: u64,
}

/// Longest time until a shard's counters tell of what is in its journal already: it publishes every
/// 20 ms, or when it is woken at last.
const PUBLISHED_AFTER: Duration = Duration::from_millis(250);

/// A day of a chain and a key in it: the smallest thing all sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    day: u64,
    chain: ChainId,
    key: u32,
}

/// What the journal holds.
#[derive(Debug, Default)]
struct Found {
    /// Records before the store's positions.
    drained: BTreeMap<Place, u64>,
    /// Records behind them.
    pending: BTreeMap<Place, u64>,
    /// First day of which a chain's records are all still here.
    whole_from: BTreeMap<ChainId, u64>,
    /// Sequence behind the last record of each chain.
    ends: BTreeMap<ChainId, u64>,
}

/// One line of the check.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Records in the journal, where all of them are still there.
    journal: Option<u64>,
    /// What was drained of the same places, to compare that with.
    drained_of_journal: u64,
    drained: u64,
    rolled_up: Option<u64>,
    pending: u64,
}

impl Line {
    fn difference(&self) -> i64 {
        let apart = |left: u64, right: u64| i128::from(left) - i128::from(right);
        let journal = self.journal.map_or(0, |journal| apart(journal, self.drained_of_journal));
        let rolled_up = self.rolled_up.map_or(0, |rolled_up| apart(self.drained, rolled_up));
        // Two mistakes must not cancel each other out.
        let all = if journal == 0 { rolled_up } else { journal };
        i64::try_from(all).unwrap_or(if all > 0 { i64::MAX } else { i64::MIN })
    }
}

/// The check of all days the period touches, and whether every book closes.
pub(super) fn reconcile(
    store: &Store,
    journal: &Path,
    shards: Option<&ReadShards>,
    query: &Query,
    names: &Names,
) -> Result<(Page, bool), Refusal> {
    let days = query.filter.from.0 / DAY_NS..query.filter.to.0.div_ceil(DAY_NS);
    let stored = store.store_books(days.start, days.end).map_err(store_refused)?;
    // Counters from before and after the look: what is in the journal must lie between them.
    let before = shards.map(|read| read()).unwrap_or_default();
    let found = look(journal, &days, &stored)?;
    let after = shards.map(|read| read_after(read, &found)).unwrap_or_default();
    let mut table = Table::new(&RECONCILE);
    for (before, after) in before.iter().zip(&after) {
        table.rows.push(shard_row(before, after, &stored, &found));
    }
    lines(&stored, &found, |place| place.day, |day, _| Some(*day))
        .into_iter()
        .for_each(|(day, line)| table.rows.push(row("day", date(day), &line)));
    lines(&stored, &found, |place| place.key, |_, key| Some(*key))
        .into_iter()
        .for_each(|(key, line)| table.rows.push(row("key", names.key_text(key), &line)));
    lines(&stored, &found, |place| place.chain, |_, _| None).into_iter().for_each(|(chain, line)| {
        table.rows.push(row("chain", format!("{}-{}", chain.epoch, chain.shard), &line));
    });
    let closed = table.rows.iter().all(|row| row.last() == Some(&Cell::Signed(0)));
    let period = (UnixNs(days.start.saturating_mul(DAY_NS)), UnixNs(days.end.saturating_mul(DAY_NS)));
    Ok((Page { table, next: None, period }, closed))
}

/// Adds up all sides by what `of` says of a place; `of_rolled_up` says the same of a roll-up's day
/// and key, `None` where roll-ups do not know it.
fn lines<K: Ord>(
    stored: &StoreBooks,
    found: &Found,
    of: impl Fn(&Place) -> K,
    of_rolled_up: impl Fn(&u64, &u32) -> Option<K>,
) -> BTreeMap<K, Line> {
    let mut lines: BTreeMap<K, Line> = BTreeMap::new();
    let is_whole = |place: &Place| found.whole_from.get(&place.chain).is_some_and(|day| place.day >= *day);
    for drained in &stored.drained {
        let place = Place { day: drained.day, chain: drained.chain, key: drained.key };
        let line = lines.entry(of(&place)).or_default();
        add(&mut line.drained, drained.records);
        if is_whole(&place) {
            add(&mut line.drained_of_journal, drained.records);
            line.journal.get_or_insert(0);
        }
    }
    for (place, records) in found.drained.iter().filter(|(place, _)| is_whole(place)) {
        add(lines.entry(of(place)).or_default().journal.get_or_insert(0), *records);
    }
    for (place, records) in &found.pending {
        add(&mut lines.entry(of(place)).or_default().pending, *records);
    }
    for rolled_up in &stored.rolled_up {
        if let Some(key) = of_rolled_up(&rolled_up.day, &rolled_up.key) {
            add(lines.entry(key).or_default().rolled_up.get_or_insert(0), rolled_up.requests);
        }
    }
    // Where roll-ups are known of anything, none means zero.
    if of_rolled_up(&0, &0).is_some() {
        lines.values_mut().for_each(|line| _ = line.rolled_up.get_or_insert(0));
    }
    lines
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// Counts what the journal holds of those days.
fn look(journal: &Path, days: &std::ops::Range<u64>, stored: &StoreBooks) -> Result<Found, Refusal> {
    let view = JournalView::open(journal).map_err(journal_refused)?;
    let filter = Filter {
        from: UnixNs(days.start.saturating_mul(DAY_NS)),
        to: UnixNs(days.end.saturating_mul(DAY_NS)),
        ..Filter::default()
    };
    let mut found = Found::default();
    let mut records = Vec::new();
    for segment in view.segments() {
        let position = stored.positions.iter().find(|(chain, _)| *chain == segment.chain);
        let position = position.map_or(0, |(_, next)| *next);
        let whole = || whole_from(segment.first, segment.index.as_ref());
        found.whole_from.entry(segment.chain).or_insert_with(whole);
        if !may_hold(segment, &filter) {
            found.ends.insert(segment.chain, segment.end);
            continue;
        }
        let mut at = segment.first;
        loop {
            records.clear();
            let looked = segment.read(at, PIECE, &mut records).map_err(journal_refused)?;
            for (id, record) in &records {
                let place = Place { day: record.time.0 / DAY_NS, chain: segment.chain, key: record.key };
                if !days.contains(&place.day) {
                    continue;
                }
                let side = if id.sequence < position { &mut found.drained } else { &mut found.pending };
                *side.entry(place).or_default() += 1;
            }
            at = looked.next;
            // A segment that is made ready for later holds nothing and is no end.
            if at > segment.first {
                found.ends.insert(segment.chain, at);
            }
            if looked.ended {
                break;
            }
        }
    }
    Ok(found)
}

/// The first day of which all records of a chain are here whose earliest kept segment begins at that
/// sequence: the first of all, or the day after the segment's own first one.
fn whole_from(first: u64, index: Option<&crate::ledger::SegmentIndex>) -> u64 {
    match (first, index) {
        (0, _) => 0,
        (_, Some(index)) => index.time_min.0 / DAY_NS + 1,
        // Only a segment that is still written is left: nothing is known of those before it.
        (_, None) => u64::MAX,
    }
}

/// Reads the counters until they tell of all that was found, or have had the time to.
fn read_after(read: &ReadShards, found: &Found) -> Vec<OwnShard> {
    let shards = read();
    let behind = |shard: &OwnShard| found.ends.get(&shard.chain).is_some_and(|end| *end > shard.recorded);
    if !shards.iter().any(behind) {
        return shards;
    }
    std::thread::sleep(PUBLISHED_AFTER);
    read()
}

fn shard_row(before: &OwnShard, after: &OwnShard, stored: &StoreBooks, found: &Found) -> Vec<Cell> {
    let (chain, books) = (after.chain, &after.books);
    let end = found.ends.get(&chain).copied().unwrap_or(0);
    let position =
        stored.positions.iter().find(|(drained, _)| *drained == chain).map_or(0, |(_, next)| *next);
    let recorded =
        i128::from(end) - i128::from(end.clamp(before.recorded, after.recorded.max(before.recorded)));
    let difference = if recorded == 0 { books.difference() } else { recorded };
    vec![
        "shard".into(),
        chain.shard.to_string().into(),
        books.received.into(),
        books.answered.into(),
        books.refused.into(),
        books.waiting.into(),
        end.into(),
        position.into(),
        Cell::Nothing,
        end.saturating_sub(position).into(),
        Cell::Signed(i64::try_from(difference).unwrap_or(i64::MAX)),
    ]
}

fn row(scope: &str, name: String, line: &Line) -> Vec<Cell> {
    vec![
        scope.into(),
        name.into(),
        Cell::Nothing,
        Cell::Nothing,
        Cell::Nothing,
        Cell::Nothing,
        line.journal.into(),
        line.drained.into(),
        line.rolled_up.into(),
        line.pending.into(),
        Cell::Signed(line.difference()),
    ]
}
