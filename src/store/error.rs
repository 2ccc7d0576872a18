//! What can go wrong with the store, told to the operator.

use std::path::PathBuf;
use std::{fmt, io};

use super::db::DbError;
use crate::ledger::ChainId;

/// What went wrong. Its text says what was found, what is needed and what to do, and never holds a
/// secret.
#[derive(Debug)]
pub enum StoreError {
    /// The data folder cannot be made or opened.
    Folder {
        /// The data folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file in it cannot be made, read or written.
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no database where one was expected.
    NoDatabase {
        /// The data folder.
        path: PathBuf,
    },
    /// The URL of a PostgreSQL database cannot be used.
    Url {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of certificates cannot be used.
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of beast wrote the database.
    NewerSchema {
        /// The database.
        database: String,
        /// Its version.
        found: u32,
        /// The newest version this program knows.
        needed: u32,
    },
    /// Others than the owner may read the instance key.
    InstanceKeyReadable {
        /// The instance key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There are sealed keys but no instance key.
    InstanceKeyMissing {
        /// Where it should lie.
        path: PathBuf,
    },
    /// The instance key is not the one that the keys were sealed under.
    InstanceKeyWrong {
        /// The instance key.
        path: PathBuf,
    },
    /// One key's row cannot be read.
    DamagedKey {
        /// Its public text.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// There is no such tier.
    UnknownTier {
        /// What was asked for.
        found: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A name or note is empty, too long, or would garble a terminal.
    BadText {
        /// Which it is: "account name" or "note".
        what: &'static str,
        /// Most characters it may have.
        len_max: usize,
    },
    /// What was given cannot be the beginning of a key.
    NotAKey {
        /// What is wrong with it.
        why: String,
    },
    /// No key begins so.
    UnknownKey {
        /// The public text that was asked for.
        found: String,
    },
    /// Several keys begin so.
    AmbiguousKey {
        /// The public text that was asked for.
        found: String,
        /// Public texts of those that begin so.
        matches: Vec<String>,
    },
    /// A chain of the journal does not stand where it was thought to.
    DrainedElsewhere {
        /// The chain.
        chain: ChainId,
        /// Where it was thought to stand.
        from: u64,
    },
    /// The key was revoked, and that is for ever.
    RevokedKey {
        /// Its public text.
        key: String,
        /// When, in UTC.
        at: String,
    },
    /// A limited tier without a rate or a burst would admit nothing.
    EmptyTier {
        /// Its name.
        name: String,
    },
    /// The file for the first key is taken.
    FirstKeyExists {
        /// That file.
        path: PathBuf,
    },
    /// The machine gives no random bytes, or its cryptography is out of order.
    NoRandomness,
    /// The database refused.
    Database {
        /// What was being done: "cannot …".
        doing: &'static str,
        /// What it said.
        source: DbError,
    },
}

impl StoreError {
    /// What was found and what is needed.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Folder { path, source } => {
                format!("the data folder {} cannot be used: {source}", path.display())
            }
            Self::File { path, source } => format!("{} cannot be used: {source}", path.display()),
            Self::NoDatabase { path } => format!("there is no beast.sqlite in {}", path.display()),
            Self::Url { url, why } => format!("the store {url} cannot be used: {why}"),
            Self::CaFile { path, why } => {
                format!("store.ca_file {} cannot be used: {why}", path.display())
            }
            Self::NewerSchema { database, found, needed } => {
                format!("{database} has schema version {found}, this beast knows versions up to {needed}")
            }
            Self::InstanceKeyReadable { path, mode } => format!(
                "{} has mode {mode:04o}, needs 0600 because it opens every sealed key",
                path.display()
            ),
            Self::InstanceKeyMissing { path } => {
                format!("{} is missing, and the database holds keys sealed under it", path.display())
            }
            Self::InstanceKeyWrong { path } => format!(
                "{} does not open the keys in the database beside it, which were sealed under another one",
                path.display()
            ),
            Self::DamagedKey { key, what } => format!("key {key} in the database is damaged: {what}"),
            Self::UnknownTier { found, .. } => format!("there is no tier '{}'", found.escape_debug()),
            Self::BadText { what, len_max } => {
                format!("the {what} must be one line of printable text, at most {len_max} characters")
            }
            Self::NotAKey { why } => why.clone(),
            Self::UnknownKey { found } => format!("no key begins with {found}"),
            Self::AmbiguousKey { found, matches } => {
                format!("{} keys begin with {found}: {}", matches.len(), matches.join(", "))
            }
            Self::RevokedKey { key, at } => format!("key {key} was revoked at {at}, for ever"),
            Self::EmptyTier { name } => {
                format!(
                    "tier '{}' would admit nothing: its rate and its burst must be above 0",
                    name.escape_debug()
                )
            }
            Self::FirstKeyExists { path } => {
                format!("{} is there already, with the key of another database", path.display())
            }
            Self::DrainedElsewhere { chain: ChainId { epoch, shard }, from } => {
                format!("records of start {epoch}, shard {shard} from {from} on are in the store already")
            }
            Self::NoRandomness => "the machine's source of randomness or its cryptography fails".to_owned(),
            Self::Database { doing, source } => format!("cannot {doing}: {source}"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        let lost = "if it is lost, its keys cannot be used again: revoke each of them with `beast keys revoke`, \
                    remove instance.key if there is one, and make new keys";
        match self {
            Self::Folder { .. } => {
                "make it a folder that this user may write, or name another one with --data".to_owned()
            }
            Self::File { .. } => {
                "see that this user owns it and may write its folder, and that the disk has room".to_owned()
            }
            Self::NoDatabase { .. } => {
                "name the server's data folder with --data, or make a key with `beast keys add`".to_owned()
            }
            Self::Url { .. } => "give store.url as postgres://user@host:5432/database".to_owned(),
            Self::CaFile { .. } => "give a PEM file of one or more certificates, or leave it out".to_owned(),
            Self::NewerSchema { .. } => {
                "run the newer beast that wrote it, or name another data folder with --data, or another \
                 database with --store"
                    .to_owned()
            }
            Self::InstanceKeyReadable { path, .. } => format!(
                "run: chmod 600 '{}'; if a stranger may have read it, revoke the keys and hand out new ones",
                path.display()
            ),
            Self::InstanceKeyMissing { .. } => format!("put it back from a backup; {lost}"),
            Self::InstanceKeyWrong { .. } => {
                format!("put back the one that belongs to this database; {lost}")
            }
            Self::DamagedKey { key, .. } => {
                format!("restore the database from a backup, or run: beast keys revoke {key}")
            }
            Self::UnknownTier { known, .. } => format!("choose one of {}", known.join(", ")),
            Self::BadText { .. } => "shorten it and leave out line ends and spaces around it".to_owned(),
            Self::NotAKey { .. } | Self::UnknownKey { .. } => {
                "see the keys there are with `beast keys list`".to_owned()
            }
            Self::AmbiguousKey { .. } => "give more of it".to_owned(),
            Self::RevokedKey { .. } => "make a new key with `beast keys add`".to_owned(),
            Self::EmptyTier { .. } => {
                "give it both, or make it unlimited; to stop a key, revoke it".to_owned()
            }
            Self::FirstKeyExists { .. } => {
                "move it away and start again, so that this database's first key can be written there"
                    .to_owned()
            }
            Self::DrainedElsewhere { .. } => {
                "nothing: the drain goes on where the store stands. If it comes again and again, two processes \
                 drain one journal: stop one"
                    .to_owned()
            }
            Self::NoRandomness => "nothing was changed: restart the machine".to_owned(),
            Self::Database { source, .. } => source.cure().to_owned(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.cure())
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder { source, .. } | Self::File { source, .. } => Some(source),
            Self::Database { source, .. } => Some(source),
            _ => None,
        }
    }
}
