//! What outlives the process: lanes and, where the operator chose so, the link that keeps the program on
//! its interface. They are pinned in the BPF file system:
//!
//! ```text
//!   /sys/fs/bpf/beast-DEVICE-INODE/EPOCH/  lanes  records  [link]
//!                    └─ of the data folder    └─ one folder a start
//! ```
//!
//! A start finds what earlier ones have left, takes it into the books and removes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
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
        let folder = Self::folder(data)?;
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
        let folder = Self::folder(data)?;
        // Without the right to look there, this process has never written there.
        Ok(folder.is_dir().then_some(Self { folder }))
    }

    fn folder(data: &Path) -> Result<PathBuf, XdpError> {
        let metadata = fs::metadata(data).map_err(|e| {
            XdpError::new(format!("{} cannot be looked at: {e}", data.display()), "check its mode")
        })?;
        Ok(Path::new(BPF_FS).join(format!("beast-{:x}-{:x}", metadata.dev(), metadata.ino())))
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
