//! What can go wrong with the journal, told to the operator.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// What went wrong. Its text says what was found, what is needed and what to do.
#[derive(Debug)]
pub enum JournalError {
    /// A folder or file of the journal cannot be made, read or written.
    File {
        /// Which.
        path: PathBuf,
        /// What was being done: "cannot …".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A segment is of this start or a later one: the counter of starts was lost.
    Epoch {
        /// The segment.
        path: PathBuf,
        /// The number of this start.
        epoch: u32,
    },
    /// Another process keeps its records in this folder.
    Held {
        /// The journal's folder.
        path: PathBuf,
    },
}

/// Wraps a refusal of the system while `doing` something with a file.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::File { path, doing, source }
}

impl JournalError {
    /// What was found and what is needed.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::File { path, doing, source } => {
                format!("cannot {doing} {}: {source}; the usage journal needs it", path.display())
            }
            Self::Epoch { path, epoch } => format!(
                "{} was written by this start, number {epoch}, or a later one; the journal and the count of \
                 starts in the store must belong together",
                path.display()
            ),
            Self::Held { path } => {
                format!("{} is in use by another beast; a data folder serves one at a time", path.display())
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::File { path, .. } if self.is_full() => {
                format!("free space on the disk of {}", path.display())
            }
            Self::File { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => format!(
                "let this user read and write it (ls -ld {}; chown), or choose another data folder with --data",
                path.display()
            ),
            Self::File { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "choose a data folder on a disk that can be written, with --data".to_owned()
            }
            Self::File { .. } => {
                "see dmesg for what the disk says, or choose another data folder with --data".to_owned()
            }
            Self::Epoch { path, .. } => format!(
                "bring back the store that belongs to this journal, or move {} away",
                path.parent().and_then(Path::parent).unwrap_or(path).display()
            ),
            Self::Held { .. } => "end the other one, or choose another data folder with --data".to_owned(),
        }
    }

    /// Whether the disk has no room left, which may be better a moment later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::File { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.cure())
    }
}

impl std::error::Error for JournalError {}
