//! Memory that is a file's content, as atomic words: whoever holds it may read and write any word from
//! any thread, so there is nothing to get wrong but the meaning of the words.
//!
//! ```text
//!   thread that writes ─► words ◄─ threads that read
//!                           │
//!            page cache ────┴──► the file, also when the process is killed; on disk after `sync`
//! ```
#![expect(unsafe_code, reason = "mapping and unmapping memory")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{
    MapFlags, MmapAdvise, MsFlags, ProtFlags, madvise, mmap, mmap_anonymous, msync, munmap,
};

const WORD_LEN: usize = size_of::<AtomicU64>();

/// A mapping, shared with the file it was made from. It is unmapped when it is dropped.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory belongs to the mapping, not to a thread, and is reached through atomics only.
unsafe impl Send for SharedWords {}
// SAFETY: as above; shared references give out nothing but atomics.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `count` words of a file, which must have that length and, lest writing a word
    /// end the process, all its blocks (`fallocate`).
    ///
    /// # Errors
    /// The file is shorter, or the kernel refuses to map it.
    pub fn of_file(file: &File, count: usize) -> io::Result<Self> {
        let bytes = bytes_of(count)?;
        if file.metadata()?.len() < bytes.get() as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than its mapping"));
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start: start.cast(), count })
    }

    /// Maps the first `count` words of a BPF array that was made with `BPF_F_MMAPABLE`. The map lives as
    /// long as anybody holds it.
    ///
    /// # Errors
    /// The kernel's: the map is shorter, or is not one that can be mapped.
    pub fn of_map(map: &impl AsFd, count: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced, and it refuses more
        // than the map has.
        let start = unsafe { mmap(None, bytes_of(count)?, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start: start.cast(), count })
    }

    /// Memory of `count` words that is no file's.
    ///
    /// # Errors
    /// The kernel has none to give.
    pub fn in_memory(count: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced.
        let start = unsafe { mmap_anonymous(None, bytes_of(count)?, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { start: start.cast(), count })
    }

    /// The words.
    #[must_use]
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` and `count` are what was mapped, page-aligned and readable and writable until
        // `drop`; all bit patterns are words, and nothing makes another kind of reference to them.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }

    /// Gives the pages of these words memory that can be written without a fault. A page of a file
    /// that the kernel has written to disk since needs this anew.
    ///
    /// # Errors
    /// The kernel's; `Unsupported` before Linux 5.14.
    pub fn populate(&self, words: Range<usize>) -> io::Result<()> {
        let (start, len) = self.pages(words)?;
        // SAFETY: the range lies within the mapping, and populating changes no content.
        match unsafe { madvise(start.cast(), len, MmapAdvise::MADV_POPULATE_WRITE) } {
            Err(Errno::EINVAL) => Err(io::ErrorKind::Unsupported.into()),
            result => Ok(result?),
        }
    }

    /// Waits until these words are on disk.
    ///
    /// # Errors
    /// The kernel's: the disk failed.
    pub fn sync(&self, words: Range<usize>) -> io::Result<()> {
        let (start, len) = self.pages(words)?;
        // SAFETY: the range lies within the mapping, and writing it out changes no content.
        Ok(unsafe { msync(start.cast(), len, MsFlags::MS_SYNC) }?)
    }

    /// The pages that hold these words, as address and length.
    fn pages(&self, words: Range<usize>) -> io::Result<(NonNull<AtomicU64>, usize)> {
        let from = words.start.saturating_mul(WORD_LEN);
        let held = self.words().get(words).ok_or(io::ErrorKind::InvalidInput)?;
        // The mapping begins with a page.
        let before = from % page_len();
        let start = self.start.as_ptr().wrapping_byte_add(from - before);
        Ok((NonNull::new(start).ok_or(io::ErrorKind::InvalidInput)?, before + size_of_val(held)))
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are what was mapped, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.count * WORD_LEN) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}

/// Length of a page of memory, in bytes.
fn page_len() -> usize {
    // The kernel always knows; 4,096 is the smallest there is on the machines we run on.
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|len| usize::try_from(len).ok())
        .unwrap_or(4_096)
}

fn bytes_of(count: usize) -> io::Result<NonZeroUsize> {
    count.checked_mul(WORD_LEN).and_then(NonZeroUsize::new).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_is_written_is_in_the_file_at_once() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(3 * 4_096).unwrap();
        let shared = SharedWords::of_file(&file, 3 * 512).unwrap();
        if let Err(e) = shared.populate(500..1_030) {
            assert_eq!(e.kind(), io::ErrorKind::Unsupported);
        }
        shared.words()[513].store(u64::from_le_bytes(*b"a record"), Ordering::Relaxed);
        shared.sync(513..514).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(&bytes[513 * 8..514 * 8], b"a record");
        assert!(shared.sync(0..3 * 512 + 1).is_err());
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4_095).unwrap();
        assert!(SharedWords::of_file(&file, 512).is_err());
        assert!(SharedWords::of_file(&file, 0).is_err());
        assert!(SharedWords::in_memory(usize::MAX).is_err());
        let memory = SharedWords::in_memory(8).unwrap();
        assert!(memory.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }
}
