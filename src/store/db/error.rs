//! What a database said.

use std::error::Error as _;
use std::fmt;

use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

/// Why a database did not do what it was asked.
#[derive(Debug)]
pub enum DbError {
    /// SQLite refused.
    Sqlite(rusqlite::Error),
    /// PostgreSQL refused, or cannot be reached.
    Postgres(tokio_postgres::Error),
    /// PostgreSQL did not answer in time.
    Silent,
    /// The connection was ended before.
    Ended,
    /// All connections are in use.
    AllInUse(usize),
    /// A row does not hold what it should.
    Content(String),
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Postgres(error) => match error.as_db_error() {
                Some(said) => write!(f, "PostgreSQL says: {}", said.message()),
                None => {
                    write!(f, "PostgreSQL: {error}")?;
                    match error.source() {
                        Some(source) if !error.to_string().contains(&source.to_string()) => {
                            write!(f, ": {source}")
                        }
                        _ => Ok(()),
                    }
                }
            },
            Self::Silent => f.write_str("PostgreSQL does not answer"),
            Self::Ended => f.write_str("the connection to PostgreSQL was ended"),
            Self::AllInUse(count) => write!(f, "all {count} connections to the store are in use"),
            Self::Content(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for DbError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite(error) => Some(error),
            Self::Postgres(error) => Some(error),
            _ => None,
        }
    }
}

impl DbError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Sqlite(error) => of_sqlite(error),
            Self::Postgres(error) => of_postgres(error),
            Self::Silent | Self::Ended => "see whether the server of store.url runs and can be reached",
            Self::AllInUse(_) => "raise store.pool_len, or ask less at a time",
            Self::Content(_) => "restore the store from a backup; nothing of beast writes such a row",
        }
    }
}

fn of_sqlite(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has held the database for too long: stop it, or try again"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "beast.sqlite is not a whole database: restore it from a backup, or move it away"
        }
        Some(ErrorCode::DiskFull) => "the disk is full: make room",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "make beast.sqlite and its folder writable by this user"
        }
        _ => "see whether the disk works and has room; if they do, restore beast.sqlite from a backup",
    }
}

fn of_postgres(error: &tokio_postgres::Error) -> &'static str {
    let Some(code) = error.code() else {
        let mut sources = std::iter::successors(error.source(), |source| (*source).source());
        let certificate = sources.any(|source| source.to_string().contains("certificate"));
        if certificate {
            return "name a file of certificates to trust in store.ca_file; the server's must be made for the \
                    host that store.url names";
        }
        return "see whether the server of store.url runs, listens there, and takes this kind of connection";
    };
    let unencrypted = error.as_db_error().is_some_and(|said| said.message().contains("no encryption"));
    match *code {
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if unencrypted => {
            "write ?sslmode=require behind store.url if the server wants encryption, or let the user in by pg_hba.conf"
        }
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "mend user and password in store.url, or let them in by pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "make the database with createdb, or name another in store.url",
        SqlState::TOO_MANY_CONNECTIONS => "raise max_connections of the server, or lower store.pool_len",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "let the user of store.url make tables in that database: GRANT CREATE ON SCHEMA public TO …"
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => "name the primary in store.url: this server is read-only",
        SqlState::DISK_FULL => "the server's disk is full: make room",
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
            "the server is stopping or starting: wait, or start it"
        }
        _ => "see the server's log",
    }
}
