//! What is kept: accounts, tiers, keys and the counter of starts, in SQLite.
//!
//! ```text
//!   DATA/               mode 0700, locked while a store is being opened
//!     beast.sqlite      mode 0600: hashes of secrets, and v2 keys sealed under …
//!     instance.key      … these 32 bytes, mode 0600. Without it the database gives no key away.
//!     first-key         mode 0600: the key of the first start, when nobody sat at a terminal
//! ```
//!
//! Any number of processes may have a store open: the server polls [`Store::keys_version`] and sees
//! what `beast keys` changed. Everything here waits for the disk, so no shard ever calls it.

mod error;
mod folder;
mod instance_key;
mod keys;
mod schema;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub use error::StoreError;
pub use folder::write_first_key;
pub use keys::{KeyRow, NewKey, Revoked};
pub use usage::{BUCKETS, Histogram, UsageOf, UsageRow, UsageSums};

use error::sqlite;
use folder::Folder;
use instance_key::InstanceKey;

/// How long a statement waits for another process to finish its own. Theirs take milliseconds; only
/// a disk that hangs takes longer.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// An open data folder.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    folder: PathBuf,
    /// Absent where keys are only listed or revoked.
    instance_key: Option<InstanceKey>,
}

impl Store {
    /// Opens the data folder, making what is not there yet, and brings its tables up to date.
    ///
    /// # Errors
    /// The folder or a file of it cannot be used, was written by a newer version, or `instance.key`
    /// is readable by others or does not belong to the database.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let folder = Folder::create(path)?;
        let db = connect(&folder)?;
        let mut store = Self { db, folder: path.to_owned(), instance_key: None };
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

    /// Opens a data folder that is there already, without its `instance.key`: enough to list and
    /// revoke keys, also those of a lost instance key.
    ///
    /// # Errors
    /// There is no database, or it cannot be used, or was written by a newer version.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let folder = Folder::existing(path)?;
        let db = connect(&folder)?;
        Ok(Self { db, folder: path.to_owned(), instance_key: None })
    }

    /// The number of this start: one more than the last, from 1, never given twice.
    ///
    /// # Errors
    /// The database refused, or 4,294,967,295 starts are used up.
    pub fn next_epoch(&mut self) -> Result<u32, StoreError> {
        self.db
            .query_row(
                "UPDATE instance SET value = value + 1 WHERE name = 'epoch' RETURNING value",
                [],
                |row| row.get(0),
            )
            .map_err(sqlite("count this start"))
    }
}

fn connect(folder: &Folder) -> Result<Connection, StoreError> {
    folder.create_database()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(folder.database(), flags)?;
        db.busy_timeout(BUSY_WAIT)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        // Not NORMAL: an epoch or a revocation that power loss takes back would be worse than slow.
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update(None, "foreign_keys", true)?;
        Ok(db)
    };
    let mut db = open().map_err(sqlite("open beast.sqlite"))?;
    let change = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(sqlite("bring the tables up to date"))?;
    schema::migrate(&change, &folder.database())?;
    change.commit().map_err(sqlite("bring the tables up to date"))?;
    Ok(db)
}

#[cfg(test)]
mod tests;
