//! The data folder and the modes of what lies in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::account::Token;

/// The file of the instance key, and the name of its credential.
const INSTANCE_KEY: &str = "instance.key";

/// A data folder, held alone from the first look to the last file made: two processes that start at
/// once must not both make the first of something.
pub(super) struct Folder {
    path: PathBuf,
    /// Open and locked for as long as this lives.
    handle: File,
}

impl Folder {
    /// The folder, made if it is not there.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| Self::lock(path))
            .map_err(|source| StoreError::Folder { path: path.to_owned(), source })
    }

    /// The folder, if a database lies in it.
    pub(super) fn existing(path: &Path) -> Result<Self, StoreError> {
        let folder = Self::lock(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::NoDatabase { path: path.to_owned() },
            _ => StoreError::Folder { path: path.to_owned(), source },
        })?;
        if !folder.database().exists() {
            return Err(StoreError::NoDatabase { path: path.to_owned() });
        }
        Ok(folder)
    }

    fn lock(path: &Path) -> io::Result<Self> {
        let handle = File::open(path)?;
        handle.lock()?;
        Ok(Self { path: path.to_owned(), handle })
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("beast.sqlite")
    }

    /// The instance key that the service manager has handed us as a credential, or the one in the folder.
    pub(super) fn instance_key(&self) -> PathBuf {
        let handed =
            std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(INSTANCE_KEY));
        handed.filter(|path| path.exists()).unwrap_or_else(|| self.path.join(INSTANCE_KEY))
    }

    /// Whether the service manager guards this file, by a folder that nobody else can enter. It may
    /// grant a service its credentials by an access list, which looks like a mode of the group.
    pub(super) fn is_guarded(path: &Path) -> bool {
        path.starts_with("/run/credentials")
    }

    /// Makes an empty database file of mode 0600, or narrows the mode of the one there is. SQLite
    /// gives its write-ahead log the same mode.
    ///
    /// A file that is there is not opened: closing it again would drop the locks that other
    /// connections of this process hold on it.
    pub(super) fn create_database(&self) -> Result<(), StoreError> {
        let path = self.database();
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let result = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => narrow(&path),
            made => made.map(drop),
        };
        result.map_err(|source| StoreError::File { path, source })
    }

    /// Writes a new file of mode 0600 so that after a crash it is there whole or not at all.
    pub(super) fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let draft = path.with_extension("new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_new(&draft, bytes)?;
        fs::rename(&draft, path)?;
        self.handle.sync_all()
    }
}

/// Writes the first key's token into `first-key` in the data folder, mode 0600, and says where.
///
/// # Errors
/// There is such a file already, or it cannot be written.
pub fn write_first_key(folder: &Path, token: &Token) -> Result<PathBuf, StoreError> {
    let path = folder.join("first-key");
    match write_new(&path, format!("{}\n", token.reveal()).as_bytes()) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(StoreError::FirstKeyExists { path })
        }
        Err(source) => Err(StoreError::File { path, source }),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn narrow(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}
