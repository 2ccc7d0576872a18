//! Roll-ups read again, for reports: pages in the order of the tables' keys, and sums by chosen
//! columns.
//!
//! Statements are put together from numbers only, never from text of a client, so both engines take
//! the same ones and nothing needs to be escaped.

use std::fmt::Write as _;

use super::{BUCKETS, Histogram, UsageOf, UsageRow, UsageSums};
use crate::store::{DbError, Row, Store, StoreError, database};

/// Rows that one page may look at where a filter has no index. More makes a page slower, fewer gives
/// more pages with few rows; at about a microsecond a row this stays below a tenth of a second.
const SCAN_MAX: usize = 40_000;

const HOUR_S: u64 = 3_600;

/// Which usage is meant: from second `from_s` up to before `to_s`, and of each number given only that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// First second that belongs to it, since the Unix epoch.
    pub from_s: u64,
    /// First second that does not.
    pub to_s: u64,
    /// Persistent number of the key.
    pub key: Option<u32>,
    /// Persistent number of the asset.
    pub asset: Option<u16>,
    /// Persistent number of the exchange.
    pub exchange: Option<u8>,
    /// Number of the transport.
    pub transport: Option<u8>,
    /// 0 for a price, else the error's number.
    pub status: Option<u8>,
}

/// What sums are made by, in the order they are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageGroup {
    /// Days since the Unix epoch.
    Day,
    /// Hours since the Unix epoch.
    Hour,
    /// Keys.
    Key,
    /// Assets.
    Asset,
    /// Exchanges.
    Exchange,
    /// Transports.
    Transport,
    /// Statuses.
    Status,
}

impl UsageGroup {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Day, Self::Hour, Self::Key, Self::Asset, Self::Exchange, Self::Transport, Self::Status];

    /// What it is of a row by hour.
    fn expression(self) -> &'static str {
        match self {
            Self::Day => "hour / 24",
            Self::Hour => "hour",
            Self::Key => "key_id",
            Self::Asset => "asset",
            Self::Exchange => "exchange",
            Self::Transport => "transport",
            Self::Status => "status",
        }
    }
}

/// Whether sums tell percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// Latencies are added up by bucket.
    Added,
    /// The histogram stays empty.
    LeftOut,
}

/// A page of rows, and where the next one begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsagePage {
    /// In the order of second, key, asset, exchange, transport, status.
    pub rows: Vec<UsageRow>,
    /// The place to give as `after` for what follows; `None` when nothing does. A page with a next
    /// one may hold fewer rows than asked for, even none: so many others lay between.
    pub next: Option<UsagePlace>,
}

/// A row's place in the order of `usage_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsagePlace {
    /// Since the Unix epoch.
    pub second: u64,
    /// The rest of the key.
    pub of: UsageOf,
}

/// What was added up of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageGroupSums {
    /// The numbers of the columns it was grouped by, in their order.
    pub group: Vec<u64>,
    /// Their rows together.
    pub sums: UsageSums,
    /// Those of the requests that were refused.
    pub refused: u64,
}

impl Store {
    /// At most `limit` rows of `usage_seconds` that come after a place.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    pub fn usage_page(
        &self,
        filter: &UsageFilter,
        after: Option<UsagePlace>,
        limit: usize,
    ) -> Result<UsagePage, StoreError> {
        let scans = filter.has_unindexed();
        let mut begin = Begin { second: filter.from_s, after };
        if scans {
            match self.first_hour(filter, begin.second())? {
                Some(hour) => begin.skip_to(hour.saturating_mul(HOUR_S)),
                None => return Ok(UsagePage::default()),
            }
        }
        let columns =
            format!("second, {OF_COLUMNS}, {}", sums_columns(Buckets::Added, |column| column.to_owned()));
        let range = begin.range(filter);
        let order = begin.order(filter);
        let wanted = limit.saturating_add(1);
        let sql = if scans {
            // Looks at the columns of the key only, which an index holds too, and fetches the rest of
            // what it finds.
            let places = format!("second, {OF_COLUMNS}");
            format!(
                "SELECT {columns} FROM (
                     SELECT {places} FROM (
                         SELECT {places} FROM usage_seconds WHERE {range} ORDER BY {order} LIMIT {SCAN_MAX}
                     ) AS looked_at WHERE true{} ORDER BY {order} LIMIT {wanted}
                 ) AS found JOIN usage_seconds USING ({places}) ORDER BY {order}",
                filter.conditions()
            )
        } else {
            format!("SELECT {columns} FROM usage_seconds WHERE {range} ORDER BY {order} LIMIT {wanted}")
        };
        let mut rows = self.integers("read usage", &sql, usage_row)?;
        if rows.len() > limit {
            rows.truncate(limit);
            let next = rows.last().map(|row| UsagePlace { second: row.time, of: row.of });
            return Ok(UsagePage { rows, next });
        }
        if !scans {
            return Ok(UsagePage { rows, next: None });
        }
        // Nothing more among the rows looked at; what lies behind them is the next page's.
        let sql = format!(
            "SELECT second, {OF_COLUMNS} FROM usage_seconds WHERE {range} ORDER BY {order} LIMIT 1 OFFSET {}",
            SCAN_MAX - 1
        );
        let looked_at = self.integers("read usage", &sql, place)?;
        Ok(UsagePage { rows, next: looked_at.first().copied() })
    }

    /// The first hour from second `from_s` on that holds anything the filter lets through.
    fn first_hour(&self, filter: &UsageFilter, from_s: u64) -> Result<Option<u64>, StoreError> {
        let sql = format!(
            "SELECT hour FROM {} WHERE hour >= {} AND hour < {}{} ORDER BY hour LIMIT 1",
            filter.hours(&[]),
            from_s / HOUR_S,
            filter.to_s.div_ceil(HOUR_S),
            filter.conditions()
        );
        Ok(self.integers("read usage", &sql, |row| row.int(0))?.first().copied())
    }

    /// Sums by group, of the whole hours that the filter's period touches: at most `limit` groups
    /// after one that is named by its numbers. Without groups the one sum of all. Buckets of
    /// latencies are added up only where they are asked for: they are most of the work.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    pub fn usage_sums(
        &self,
        filter: &UsageFilter,
        by: &[UsageGroup],
        after: Option<&[u64]>,
        limit: usize,
        buckets: Buckets,
    ) -> Result<Vec<UsageGroupSums>, StoreError> {
        let groups: Vec<&str> = by.iter().map(|group| group.expression()).collect();
        let groups = groups.join(", ");
        let mut rows = format!(
            "FROM {} WHERE hour >= {} AND hour < {}{}",
            filter.hours(by),
            filter.from_s / HOUR_S,
            filter.to_s.div_ceil(HOUR_S),
            filter.conditions()
        );
        if let Some(after) = after.filter(|after| after.len() == by.len() && !by.is_empty()) {
            let _ = write!(rows, " AND ({groups}) > ({})", numbers(after.iter().copied()));
        }
        let grouped = format!("GROUP BY {groups} ORDER BY {groups} LIMIT");
        if buckets == Buckets::Added && !by.is_empty() {
            // Groups of later pages are left out beforehand: sorting their buckets too is most of the work.
            let sql = format!("SELECT {groups} {rows} {grouped} 1 OFFSET {}", limit.saturating_sub(1));
            if let Some(last) = self.integers("add up usage", &sql, |row| group_of(row, by))?.first() {
                let _ = write!(rows, " AND ({groups}) <= ({})", numbers(last.iter().copied()));
            }
        }
        let sums = sums_columns(buckets, |column| match column {
            "latency_ns_max" => "max(latency_ns_max)".to_owned(),
            _ => format!("CAST(sum({column}) AS BIGINT)"),
        });
        let sql = if by.is_empty() {
            // Of no rows there is no sum, and nothing that could be read as one.
            format!("SELECT {REFUSED}, {sums} {rows} HAVING count(*) > 0")
        } else {
            format!("SELECT {groups}, {REFUSED}, {sums} {rows} {grouped} {limit}")
        };
        self.integers("add up usage", &sql, |row| {
            let (group, refused) = (group_of(row, by)?, row.int(by.len())?);
            Ok(UsageGroupSums { group, refused, sums: sums_of(row, by.len() + 1, buckets)? })
        })
    }

    /// Runs a statement that reads whole numbers only.
    fn integers<T>(
        &self,
        doing: &'static str,
        sql: &str,
        read: impl Fn(&Row) -> Result<T, DbError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.lend(doing)?.query(sql, &[]).map_err(database(doing))?;
        rows.iter().map(read).collect::<Result<_, _>>().map_err(database(doing))
    }
}

const OF_COLUMNS: &str = "key_id, asset, exchange, transport, status";

/// Refused requests of a group.
const REFUSED: &str = "CAST(sum(CASE WHEN status = 0 THEN 0 ELSE requests END) AS BIGINT)";

/// Where a page begins.
struct Begin {
    second: u64,
    after: Option<UsagePlace>,
}

impl Begin {
    fn second(&self) -> u64 {
        self.after.map_or(self.second, |after| after.second)
    }

    fn skip_to(&mut self, second: u64) {
        if second > self.second() {
            (self.second, self.after) = (second, None);
        }
    }

    /// The rows from here to the filter's end, and of its key where it names one.
    fn range(&self, filter: &UsageFilter) -> String {
        let mut range = format!("second >= {} AND second < {}", self.second(), filter.to_s);
        if let Some(key) = filter.key {
            let _ = write!(range, " AND key_id = {key}");
        }
        if let Some(UsagePlace { second, of }) = self.after {
            let UsageOf { key, asset, exchange, transport, status } = of;
            let rest = [u64::from(asset), exchange.into(), transport.into(), status.into()];
            let (columns, key) = match filter.key {
                Some(_) => ("second, asset, exchange, transport, status", None),
                None => ("second, key_id, asset, exchange, transport, status", Some(u64::from(key))),
            };
            let place = std::iter::once(second).chain(key).chain(rest);
            let _ = write!(range, " AND ({columns}) > ({})", numbers(place));
        }
        range
    }

    /// The order of the index that serves the range.
    fn order(&self, filter: &UsageFilter) -> &'static str {
        match filter.key {
            Some(_) => "second, asset, exchange, transport, status",
            None => "second, key_id, asset, exchange, transport, status",
        }
    }
}

impl UsageFilter {
    /// Whether it names something beside the key, which alone has an index.
    fn has_unindexed(&self) -> bool {
        self.asset.is_some() || self.exchange.is_some() || self.transport.is_some() || self.status.is_some()
    }

    /// The smallest table by hour that has the columns of the filter and of `by`.
    fn hours(&self, by: &[UsageGroup]) -> &'static str {
        let by_any = |groups: &[UsageGroup]| by.iter().any(|group| groups.contains(group));
        let key = self.key.is_some() || by_any(&[UsageGroup::Key]);
        let asset = self.asset.is_some()
            || self.exchange.is_some()
            || by_any(&[UsageGroup::Asset, UsageGroup::Exchange]);
        match (key, asset) {
            (true, true) => "usage_hours",
            (_, false) => "usage_key_hours",
            (false, true) => "usage_asset_hours",
        }
    }

    /// All but the period, each beginning with AND.
    fn conditions(&self) -> String {
        let wanted = [
            ("key_id", self.key.map(u64::from)),
            ("asset", self.asset.map(u64::from)),
            ("exchange", self.exchange.map(u64::from)),
            ("transport", self.transport.map(u64::from)),
            ("status", self.status.map(u64::from)),
        ];
        let wanted = wanted.iter().filter_map(|(column, wanted)| Some((column, (*wanted)?)));
        wanted.map(|(column, wanted)| format!(" AND {column} = {wanted}")).collect()
    }
}

fn numbers(of: impl Iterator<Item = u64>) -> String {
    // Larger ones no row has.
    of.map(|number| number.min(i64::MAX.cast_unsigned()).to_string()).collect::<Vec<_>>().join(", ")
}

/// The columns of sums, each as `write` has it.
fn sums_columns(buckets: Buckets, write: impl Fn(&str) -> String) -> String {
    let mut columns: Vec<String> =
        ["requests", "prices", "latency_ns_sum", "latency_ns_max"].map(&write).to_vec();
    if buckets == Buckets::Added {
        columns.extend((0..BUCKETS).map(|bucket| write(&format!("h{bucket:02}"))));
    }
    columns.join(", ")
}

fn place(row: &Row) -> Result<UsagePlace, DbError> {
    let of = UsageOf {
        key: row.int(1)?,
        asset: row.int(2)?,
        exchange: row.int(3)?,
        transport: row.int(4)?,
        status: row.int(5)?,
    };
    Ok(UsagePlace { second: row.int(0)?, of })
}

fn group_of(row: &Row, by: &[UsageGroup]) -> Result<Vec<u64>, DbError> {
    (0..by.len()).map(|at| row.int(at)).collect()
}

/// The sums that stand in a row from a column on.
fn sums_of(row: &Row, at: usize, buckets: Buckets) -> Result<UsageSums, DbError> {
    let mut latency = Histogram::default();
    if buckets == Buckets::Added {
        for (column, count) in (at + 4..).zip(&mut latency.0) {
            *count = row.int(column)?;
        }
    }
    Ok(UsageSums {
        requests: row.int(at)?,
        prices: row.int(at + 1)?,
        latency_ns_sum: row.int(at + 2)?,
        latency_ns_max: row.int(at + 3)?,
        latency,
    })
}

fn usage_row(row: &Row) -> Result<UsageRow, DbError> {
    let UsagePlace { second, of } = place(row)?;
    Ok(UsageRow { time: second, of, sums: sums_of(row, 6, Buckets::Added)? })
}

#[cfg(test)]
mod tests;
