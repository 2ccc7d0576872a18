//! The folder of exports: what was exported without a place of its own, kept for so long and so much.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long and how much of them is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepExports {
    /// The folder.
    pub folder: PathBuf,
    /// Files that were last written longer ago go.
    pub age_max: Option<Duration>,
    /// The oldest go until all together have no more bytes.
    pub bytes_max: Option<u64>,
}

/// Endings of files that exports have; no other file of the folder is ever touched.
const ENDINGS: [&str; 3] = ["csv", "parquet", "part"];

impl KeepExports {
    /// Makes the folder, for the owner's eyes only, where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// Removes what is too old or too much, and says how many files went.
    ///
    /// # Errors
    /// The folder cannot be read, or a file not removed.
    pub fn prune(&self, now: SystemTime) -> io::Result<usize> {
        let mut files = files(&self.folder)?;
        files.sort();
        let mut bytes: u64 = files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
        let mut removed = 0;
        for File { written, bytes: len, path } in files {
            let age = now.duration_since(written).unwrap_or_default();
            let old = self.age_max.is_some_and(|most| age > most);
            let much = self.bytes_max.is_some_and(|most| bytes > most);
            if !old && !much {
                continue;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            bytes = bytes.saturating_sub(len);
            removed += 1;
        }
        Ok(removed)
    }
}

/// Ordered by age, oldest first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    written: SystemTime,
    bytes: u64,
    path: PathBuf,
}

fn files(folder: &Path) -> io::Result<Vec<File>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let ours = path.extension().is_some_and(|ending| ENDINGS.iter().any(|ours| ending == *ours));
        // One that went meanwhile is none.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if ours && about.is_file() {
            files.push(File { written: about.modified()?, bytes: about.len(), path });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn write(folder: &Path, name: &str, len: usize, written: SystemTime) {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_len(len as u64).unwrap();
        file.set_modified(written).unwrap();
    }

    fn left(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_go_then_the_oldest_and_nothing_that_is_not_ours() {
        let home = tempfile::tempdir().unwrap();
        let keep = KeepExports {
            folder: home.path().join("exports"),
            age_max: Some(30 * DAY),
            bytes_max: Some(250),
        };
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        assert_eq!(keep.prune(now).unwrap(), 0, "without a folder");
        keep.make_folder().unwrap();
        write(&keep.folder, "a.csv", 1, now - 31 * DAY);
        write(&keep.folder, "notes.txt", 9_999, now - 99 * DAY);
        write(&keep.folder, "b.parquet", 100, now - 3 * DAY);
        write(&keep.folder, "c.csv", 100, now - 2 * DAY);
        write(&keep.folder, "d.csv", 100, now - DAY);
        assert_eq!(keep.prune(now).unwrap(), 2);
        assert_eq!(left(&keep.folder), ["c.csv", "d.csv", "notes.txt"]);
        assert_eq!(keep.prune(now).unwrap(), 0);
        // A clock that steps back makes nothing old.
        assert_eq!(keep.prune(now - 500 * DAY).unwrap(), 0);
        assert_eq!(keep.prune(now + 29 * DAY).unwrap(), 1);
        assert_eq!(left(&keep.folder), ["d.csv", "notes.txt"]);
        let for_ever = KeepExports { age_max: None, bytes_max: None, ..keep };
        assert_eq!(for_ever.prune(now + 9_999 * DAY).unwrap(), 0);
    }
}
