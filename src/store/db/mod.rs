//! One connection to a database, SQLite's or PostgreSQL's, as the rest of the room sees it: SQL in,
//! rows out, and transactions. Everything here waits.
//!
//! SQL is written once for both engines. What keeps that possible:
//!
//! - parameters are `?1`, `?2` …, and a question mark stands for nothing else;
//! - a column holds a number, a text or bytes, and every number is 64 bits wide;
//! - a `sum(…)` is written `CAST(sum(…) AS BIGINT)`: PostgreSQL would make a decimal of it;
//! - times and all else that functions of one engine would give are parameters;
//! - there is no `rowid`, and an order is always asked for.

mod error;
mod postgres;
mod sqlite;
mod table;
mod tls;
mod value;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::DbError;
pub(super) use postgres::Server;
pub(super) use table::Table;
pub(super) use tls::Tls;
pub use value::{Row, Value};

use super::StoreError;
use postgres::Session;
use rusqlite::Connection;

/// An open connection.
#[derive(Debug)]
pub struct Db {
    engine: Engine,
    /// A transaction could not be ended, so nobody may use this again.
    broken: bool,
}

#[derive(Debug)]
enum Engine {
    Sqlite(Connection),
    Postgres(Session),
}

/// Where connections come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The file of an SQLite database.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(Arc<Server>),
}

impl Source {
    pub(super) fn connect(&self) -> Result<Db, DbError> {
        let engine = match self {
            Self::Sqlite(path) => Engine::Sqlite(sqlite::connect(path)?),
            Self::Postgres(server) => Engine::Postgres(Session::connect(server)?),
        };
        Ok(Db { engine, broken: false })
    }

    /// What to call the database in messages; no secret.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(server) => server.name().to_owned(),
        }
    }
}

impl Db {
    /// All rows of a query.
    ///
    /// # Errors
    /// The database refused, or does not answer.
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
        match &mut self.engine {
            Engine::Sqlite(db) => sqlite::query(db, sql, params),
            Engine::Postgres(session) => session.query(sql, params),
        }
    }

    /// The only row of a query that must have one.
    ///
    /// # Errors
    /// As [`query`](Self::query), or there was none.
    pub fn query_one(&mut self, sql: &str, params: &[Value]) -> Result<Row, DbError> {
        self.query(sql, params)?.pop().ok_or_else(|| DbError::Content("a row is missing".to_owned()))
    }

    /// Carries out a statement and says how many rows it changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, DbError> {
        match &mut self.engine {
            Engine::Sqlite(db) => sqlite::execute(db, sql, params),
            Engine::Postgres(session) => session.execute(sql, params),
        }
    }

    /// Carries out statements that have no parameters.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        match &mut self.engine {
            Engine::Sqlite(db) => Ok(db.execute_batch(sql)?),
            Engine::Postgres(session) => session.batch(sql),
        }
    }

    /// Adds rows to a table of numbers, each as wide as its columns are many. No two of them may
    /// have the same key.
    pub(super) fn add_rows(&mut self, table: &Table, rows: &[i64]) -> Result<(), DbError> {
        match &mut self.engine {
            Engine::Sqlite(db) => sqlite::add_rows(db, table, rows),
            Engine::Postgres(session) => session.add_rows(table, rows),
        }
    }

    /// Carries out `change` in a transaction: all of it or, when it fails, nothing.
    ///
    /// # Errors
    /// Those of `change`, or the transaction could not be begun or committed. A commit that failed
    /// may have happened all the same, if the connection broke just then.
    pub fn transaction<T>(
        &mut self,
        doing: &'static str,
        change: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let begin = match &self.engine {
            // Taken at once: a lock that is asked for half way could be refused.
            Engine::Sqlite(_) => "BEGIN IMMEDIATE",
            Engine::Postgres(_) => "BEGIN",
        };
        self.batch(begin).map_err(database(doing))?;
        let result = match change(self) {
            Ok(value) => self.batch("COMMIT").map(|()| value).map_err(database(doing)),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    fn roll_back(&mut self) {
        let over = matches!(&self.engine, Engine::Sqlite(db) if db.is_autocommit());
        if !over && self.batch("ROLLBACK").is_err() {
            self.broken = true;
        }
    }

    /// One of the two, by engine.
    pub(super) fn either<T>(&self, sqlite: T, postgres: T) -> T {
        match &self.engine {
            Engine::Sqlite(_) => sqlite,
            Engine::Postgres(_) => postgres,
        }
    }

    /// The session of a PostgreSQL server, for what only that can do.
    pub(super) fn postgres(&mut self) -> Option<&mut Session> {
        match &mut self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(session) => Some(session),
        }
    }

    /// Whether this connection can no longer be used.
    pub(super) fn is_broken(&self) -> bool {
        self.broken || matches!(&self.engine, Engine::Postgres(session) if session.is_broken())
    }
}

/// Wraps a refusal of the database while `doing` something.
pub fn database(doing: &'static str) -> impl FnOnce(DbError) -> StoreError {
    move |source| StoreError::Database { doing, source }
}
