//! A counter that wakes whoever waits for it; a ring of operations can ring it like a bell.
#![expect(unsafe_code, reason = "glommio takes a raw descriptor")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use glommio::io::BufferedFile;
use nix::sys::eventfd::{EfdFlags, EventFd as Counter};

/// An eventfd. It is a blocking one on purpose: a ring that reads it waits for it by itself, and
/// would be told `EAGAIN` at once by a non-blocking one.
#[derive(Debug)]
pub struct EventFd {
    counter: OwnedFd,
}

impl EventFd {
    /// A counter at zero.
    ///
    /// # Errors
    /// The kernel's; no descriptors left.
    pub fn new() -> io::Result<Self> {
        let counter = Counter::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { counter: counter.into() })
    }

    /// The same counter as a file that tasks of the current glommio executor can wait for: reading 8
    /// bytes waits until it is not zero.
    ///
    /// # Errors
    /// The kernel's; no descriptors left.
    ///
    /// # Panics
    /// Outside a glommio executor.
    pub fn glommio_file(&self) -> io::Result<BufferedFile> {
        let twin = self.counter.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor was duplicated for this and nobody else knows it, so the file owns it.
        Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(twin) })
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
