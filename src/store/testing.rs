//! Stores for tests, of this room and others.

use std::path::Path;

use super::postgres::{self, Server};
use super::{Row, Store, StoreOptions, StoreUrl, Value};

/// A data folder, and a database that belongs to it.
#[derive(Debug)]
pub(crate) struct Home {
    folder: tempfile::TempDir,
    pub(crate) url: Option<StoreUrl>,
}

impl Home {
    /// With SQLite.
    pub(crate) fn sqlite() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), url: None }
    }

    /// With a database of that server.
    pub(crate) fn postgres(server: &Server) -> Self {
        Self { url: StoreUrl::parse(&server.new_database()), ..Self::sqlite() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions { url: self.url.clone(), ..self.path().into() }
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(self.options()).unwrap()
    }
}

/// Runs a test on SQLite and on PostgreSQL.
pub(crate) fn on_each_engine(test: impl Fn(&Home)) {
    test(&Home::sqlite());
    if let Some(server) = postgres::shared() {
        test(&Home::postgres(server));
    }
}

/// Rows of numbers.
pub(crate) fn numbers(store: &Store, sql: &str, params: &[Value]) -> Vec<Vec<i64>> {
    let rows = store.lend("test").unwrap().query(sql, params).unwrap();
    let numbers = |row: &Row| (0..).map_while(|column| row.int(column).ok()).collect();
    rows.iter().map(numbers).collect()
}
