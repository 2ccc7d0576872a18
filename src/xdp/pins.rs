//! What outlives the process: lanes and, where the operator chose so, the link that keeps the program on
//! its interface. They are pinned in the BPF file system:
//!
//! ```text
//!   /sys/fs/bpf/beast-NUMBER/EPOCH/  lanes  records  [link]
//!                    │            └─ one folder a start
//!                    └─ as DATA/kernel-pins says
//! ```
//!
//! A start finds what earlier ones have left, takes it into the books and removes it.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::MapData;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::XdpError;
use super::lanes::Lanes;
use super::layout::{LANES, RECORDS, lane, record};
use crate::sys::mmap::SharedWords;

/// Where the BPF file system is by convention.
const BPF_FS: &str = "/sys/fs/bpf";

/// The file in the data folder that names its place there, and how each name begins.
const NAME_FILE: &str = "kernel-pins";
const PREFIX: &str = "beast-";

/// The name of a link that stays.
pub(super) const LINK: &str = "link";

/// How long after its removal a program may still be at work on a packet: it runs to its end with
/// interrupts of its kind held back, which takes microseconds.
pub(super) const LAST_PACKETS: Duration = Duration::from_millis(20);

/// The place of one data folder.
#[derive(Clone, Debug)]
pub struct Pins {
    folder: PathBuf,
}

/// What an earlier start has left.
#[derive(Debug)]
pub struct OldLanes {
    /// Its lanes; nobody writes to them any more.
    pub lanes: Lanes,
    folder: PathBuf,
}

impl Pins {
    /// The place for a data folder that exists. Mounts the BPF file system where it is missing.
    ///
    /// # Errors
    /// There is no BPF file system and none can be mounted, or it cannot be written to.
    pub fn of_folder(data: &Path) -> Result<Self, XdpError> {
        if !is_bpf_fs(Path::new(BPF_FS)) {
            mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|e| {
                XdpError::new(
                    format!("{BPF_FS} is no BPF file system, and it cannot be mounted: {e}"),
                    "run as root: mount -t bpf bpf /sys/fs/bpf",
                )
            })?;
        }
        let Some(folder) = Self::folder(data, true)? else {
            return Err(XdpError::new("the place for records has no name", "report this"));
        };
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Self::refused(&folder, &e)),
            _ => Ok(Self { folder }),
        }
    }

    /// The place for a data folder, when an earlier start has made it.
    ///
    /// # Errors
    /// The data folder cannot be looked at.
    pub fn existing(data: &Path) -> Result<Option<Self>, XdpError> {
        let folder = Self::folder(data, false)?;
        Ok(folder.filter(|folder| folder.is_dir()).map(|folder| Self { folder }))
    }

    /// The folder named by a file in the data folder: a number of chance, so that another data folder
    /// in the same place never takes in what is not its own. `None` when there is none and none is to be
    /// made.
    fn folder(data: &Path, make: bool) -> Result<Option<PathBuf>, XdpError> {
        let file = data.join(NAME_FILE);
        let failed = |e: &io::Error| {
            XdpError::new(format!("{} cannot be used: {e}", file.display()), "check its mode and owner")
        };
        let name = match fs::read_to_string(&file) {
            Ok(name) => name,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let name = format!("{PREFIX}{:016x}", RandomState::new().hash_one(std::process::id()));
                fs::write(&file, &name).map_err(|e| failed(&e))?;
                name
            }
            Err(e) => return Err(failed(&e)),
        };
        let digits = name.trim().strip_prefix(PREFIX).unwrap_or_default();
        if digits.len() != 16 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(XdpError::new(
                format!("{} names no folder of the BPF file system", file.display()),
                "remove it; answers of the kernel that were not taken in are lost then",
            ));
        }
        Ok(Some(Path::new(BPF_FS).join(name.trim())))
    }

    fn refused(path: &Path, error: &io::Error) -> XdpError {
        XdpError::new(
            format!("{} cannot be written to: {error}", path.display()),
            "run as root, or let this user write to that folder",
        )
    }

    /// Makes the folder of one start.
    pub(super) fn run(&self, epoch: u32) -> Result<PathBuf, XdpError> {
        let folder = self.folder.join(epoch.to_string());
        fs::create_dir(&folder).map_err(|e| Self::refused(&folder, &e))?;
        Ok(folder)
    }

    /// What earlier starts have left, oldest first. A program that was told to stay is taken off its
    /// interface, so that what is found is final.
    ///
    /// # Errors
    /// The kernel's; what was not understood stays where it is.
    pub fn old(&self) -> Result<Vec<OldLanes>, XdpError> {
        let entries = fs::read_dir(&self.folder).map_err(|e| Self::refused(&self.folder, &e))?;
        let mut epochs: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        epochs.sort_unstable();
        let mut stayed = false;
        for epoch in &epochs {
            let link = self.folder.join(epoch.to_string()).join(LINK);
            match fs::remove_file(&link) {
                Ok(()) => stayed = true,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Self::refused(&link, &e)),
            }
        }
        if stayed {
            std::thread::sleep(LAST_PACKETS);
        }
        let mut old = Vec::new();
        for epoch in epochs {
            let folder = self.folder.join(epoch.to_string());
            if !folder.join(LANES).exists() || !folder.join(RECORDS).exists() {
                // A start that was killed before the program could run, or an end within `forget`.
                remove(&folder)?;
                continue;
            }
            let lanes = open(&folder)?;
            old.push(OldLanes { lanes, folder });
        }
        Ok(old)
    }
}

impl OldLanes {
    /// Removes them: all their records are safe.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(self) -> Result<(), XdpError> {
        remove(&self.folder)
    }
}

/// Removes the pins of one start.
pub(super) fn remove(folder: &Path) -> Result<(), XdpError> {
    for name in [LINK, LANES, RECORDS] {
        match fs::remove_file(folder.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Pins::refused(folder, &e)),
            _ => {}
        }
    }
    fs::remove_dir(folder).map_err(|e| Pins::refused(folder, &e))
}

/// Opens the lanes pinned in a folder.
fn open(folder: &Path) -> Result<Lanes, XdpError> {
    let pinned = |name: &str| {
        let map = MapData::from_pin(folder.join(name))
            .map_err(|e| XdpError::of(&format!("{} cannot be opened", folder.join(name).display()), &e))?;
        let info = map.info().map_err(|e| XdpError::of("a pinned map says nothing of itself", &e))?;
        Ok::<_, XdpError>((map, info.max_entries() as usize, info.value_size() as usize))
    };
    let (lanes, count, lane_len) = pinned(LANES)?;
    let (records, slots, record_len) = pinned(RECORDS)?;
    let shift = (slots / count.max(1)).checked_ilog2();
    let whole = shift.is_some_and(|shift| count << shift == slots);
    if !whole || lane_len != lane::WORDS * 8 || record_len != record::WORDS * 8 {
        return Err(XdpError::new(
            format!("what is pinned in {} was made by another version of beast", folder.display()),
            "start that version once more so that it can take its records, or remove that folder and lose them",
        ));
    }
    map_lanes(&lanes, &records, count, shift.unwrap_or(0))
}

/// Maps lanes and their records.
pub(super) fn map_lanes(
    lanes: &MapData,
    records: &MapData,
    count: usize,
    shift: u32,
) -> Result<Lanes, XdpError> {
    let mapped = |map: &MapData, words: usize| {
        SharedWords::of_map(&map.fd(), words).map_err(|e| XdpError::of("a map cannot be mapped", &e))
    };
    let lane_words = mapped(lanes, count * lane::WORDS)?;
    let record_words = mapped(records, (count << shift) * record::WORDS)?;
    Ok(Lanes::new(lane_words, record_words, count, shift))
}

fn is_bpf_fs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_has_its_own_place_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let named = |make| Pins::folder(folder.path(), make);
        assert_eq!(named(false), Ok(None));
        let place = named(true).unwrap();
        assert_eq!((named(false).unwrap(), named(true).unwrap()), (place.clone(), place.clone()));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Pins::folder(other.path(), true).unwrap(), place);
        fs::write(folder.path().join(NAME_FILE), "beast-../../etc/passwd").unwrap();
        assert!(named(true).unwrap_err().to_string().contains("names no folder"));
    }
}
