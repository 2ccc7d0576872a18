//! A table of numbers that rows are added to.

/// Name and columns, by what becomes of them when a row of the same key is there already.
#[derive(Debug)]
pub(in crate::store) struct Table {
    pub(in crate::store) name: &'static str,
    /// Which row it is.
    pub(in crate::store) key: &'static [&'static str],
    /// The new number is added.
    pub(in crate::store) sums: &'static [&'static str],
    /// The larger number stays.
    pub(in crate::store) maxima: &'static [&'static str],
    /// The new number stays.
    pub(in crate::store) latest: &'static [&'static str],
}

impl Table {
    /// All columns, in the order of a row.
    pub(in crate::store) fn columns(&self) -> impl Iterator<Item = &'static str> {
        [self.key, self.sums, self.maxima, self.latest].into_iter().flatten().copied()
    }

    /// How many columns there are.
    pub(in crate::store) fn width(&self) -> usize {
        self.columns().count()
    }

    /// A statement that adds what `rows` gives.
    pub(super) fn add_sql(&self, rows: &str) -> String {
        let name = self.name;
        let columns: Vec<_> = self.columns().collect();
        let sums = self.sums.iter().map(|c| format!("{c} = {name}.{c} + excluded.{c}"));
        let maxima = self.maxima.iter().map(|c| {
            format!("{c} = CASE WHEN excluded.{c} > {name}.{c} THEN excluded.{c} ELSE {name}.{c} END")
        });
        let latest = self.latest.iter().map(|c| format!("{c} = excluded.{c}"));
        let sets: Vec<_> = sums.chain(maxima).chain(latest).collect();
        format!(
            "INSERT INTO {name} ({}) {rows} ON CONFLICT ({}) DO UPDATE SET {}",
            columns.join(", "),
            self.key.join(", "),
            sets.join(", ")
        )
    }
}
