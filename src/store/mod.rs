//! What is kept: accounts, tiers, keys, the counter of starts and what was used, in SQLite or, by
//! URL, in PostgreSQL.
//!
//! ```text
//!   DATA/               mode 0700, locked while a store is being opened
//!     beast.sqlite      mode 0600: hashes of secrets, and v2 keys sealed under …   (or PostgreSQL)
//!     instance.key      … these 32 bytes, mode 0600. Without it the database gives no key away.
//!     first-key         mode 0600: the key of the first start, when nobody sat at a terminal
//! ```
//!
//! Any number of processes may have a store open: the server polls [`Store::keys_version`] and sees
//! what `beast keys` changed. Everything here waits for a disk or a network, so no shard ever calls it,
//! nor does a task of a runtime but on a thread for waiting.
//!
//! Reports ask in SQL, on a connection of the pool: [`Store::lend`] and [`Db::query`].

mod db;
mod error;
mod folder;
mod instance_key;
mod key_changes;
mod keys;
mod options;
mod pool;
mod schema;
mod tiers;
mod usage;

use std::path::{Path, PathBuf};

pub use db::{Db, DbError, Row, Value, database};
pub use error::StoreError;
pub use folder::write_first_key;
pub use key_changes::Rotated;
pub use keys::{KeyRow, NewKey, OldSecret, Revoked};
pub use options::{POOL_LEN, StoreOptions, StoreUrl};
pub use pool::Lent;
pub use usage::{
    BUCKETS, Buckets, ChainStep, DrainedChain, DrainedRecords, Histogram, MonthUse, RolledUp, StoreBooks,
    UsageBatch, UsageFilter, UsageGroup, UsageGroupSums, UsageOf, UsagePage, UsagePlace, UsagePrune,
    UsagePruned, UsageRow, UsageSums,
};

use folder::Folder;
use instance_key::InstanceKey;
use pool::Pool;

/// An open store. Threads share it; each call takes a connection of the pool for as long as it lasts.
#[derive(Debug)]
pub struct Store {
    pool: Pool,
    folder: PathBuf,
    /// Absent where keys are only listed or revoked.
    instance_key: Option<InstanceKey>,
}

impl Store {
    /// Opens the store, making what is not there yet, and brings its tables up to date. A path is
    /// that of a data folder with SQLite in it.
    ///
    /// # Errors
    /// The folder, a file of it or the server cannot be used, a newer version wrote the tables, or
    /// `instance.key` is readable by others or does not belong to the database.
    pub fn open(options: impl Into<StoreOptions>) -> Result<Self, StoreError> {
        let options = options.into();
        let folder = Folder::create(&options.folder)?;
        let mut store = Self::connect(&options, &folder)?;
        let sealed = store.any_sealed()?;
        let key = match (InstanceKey::load(&folder)?, &sealed) {
            (Some(key), _) => key,
            (None, None) => InstanceKey::create(&folder)?,
            (None, Some(_)) => return Err(StoreError::InstanceKeyMissing { path: folder.instance_key() }),
        };
        if let Some((public_id, sealed)) = sealed
            && key.unseal(public_id, &sealed).is_none()
        {
            return Err(StoreError::InstanceKeyWrong { path: folder.instance_key() });
        }
        store.instance_key = Some(key);
        Ok(store)
    }

    /// Opens a store that is there already, without its `instance.key`: enough to read, and to revoke
    /// keys, also those of a lost instance key.
    ///
    /// # Errors
    /// There is no database, or it cannot be used, or was written by a newer version.
    pub fn open_existing(options: impl Into<StoreOptions>) -> Result<Self, StoreError> {
        let options = options.into();
        let folder = match options.url {
            None => Folder::existing(&options.folder)?,
            Some(_) => Folder::create(&options.folder)?,
        };
        Self::connect(&options, &folder)
    }

    fn connect(options: &StoreOptions, folder: &Folder) -> Result<Self, StoreError> {
        let pool = Pool::new(options.source(folder)?, options.pool_len);
        if options.url.is_none() {
            folder.create_database()?;
        }
        let store = Self { pool, folder: options.folder.clone(), instance_key: None };
        schema::migrate(&mut *store.lend("open the store")?, &store.name())?;
        Ok(store)
    }

    /// A connection, to read or change what is kept. `doing` follows "cannot" in messages.
    ///
    /// # Errors
    /// All connections are in use, or another cannot be made.
    pub fn lend(&self, doing: &'static str) -> Result<Lent<'_>, StoreError> {
        self.pool.lend().map_err(database(doing))
    }

    /// Connections that are open, and how many of them are in use.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        self.pool.counts()
    }

    /// The database as it may be shown: a path, or a URL without its password.
    #[must_use]
    pub fn name(&self) -> String {
        self.pool.source().name()
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of this start: one more than the last, from 1, never given twice.
    ///
    /// # Errors
    /// The database refused, or 4,294,967,295 starts are used up.
    pub fn next_epoch(&self) -> Result<u32, StoreError> {
        let doing = "count this start";
        self.lend(doing)?.transaction(doing, |db| {
            let count = "UPDATE instance SET value = value + 1 WHERE name = 'epoch' RETURNING value";
            db.query_one(count, &[]).and_then(|row| row.int(0)).map_err(database(doing))
        })
    }
}

#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests beside src")]
pub(crate) mod postgres;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
