//! What every report is before it is written: columns with kinds, and rows of cells.

use crate::time::UnixNs;
use crate::time::calendar::date_time;

/// What stands in a column. Each cell is of its column's kind, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole, never negative.
    Number,
    /// Whole, may be negative: differences.
    Signed,
    /// Text; some of it comes from clients.
    Text,
    /// An instant, shown to the second.
    Second,
    /// An instant, shown to the nanosecond.
    Instant,
}

/// A column: its name, with the unit last, and what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Member name in JSON, head in the other forms.
    pub name: &'static str,
    /// What stands in it.
    pub kind: Kind,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing is known or nothing applies.
    Nothing,
    /// Of a [`Kind::Number`] column.
    Number(u64),
    /// Of a [`Kind::Signed`] column.
    Signed(i64),
    /// Of a [`Kind::Text`] column.
    Text(String),
    /// Of a [`Kind::Second`] or [`Kind::Instant`] column.
    Time(UnixNs),
}

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the order they are shown.
    pub columns: Vec<Column>,
    /// Each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

/// Short for a list of columns.
pub(super) const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<u64>> for Cell {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Nothing, Self::Number)
    }
}

/// An instant in UTC, to the second or to the nanosecond: `2026-01-31T23:59:59Z`.
#[must_use]
pub fn instant_text(at: UnixNs, kind: Kind) -> String {
    let seconds = date_time(at.0 / 1_000_000_000, 'T');
    match kind {
        Kind::Instant => format!("{seconds}.{:09}Z", at.0 % 1_000_000_000),
        _ => format!("{seconds}Z"),
    }
}
