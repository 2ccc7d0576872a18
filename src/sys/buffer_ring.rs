//! A ring of buffers that the kernel fills by itself: it takes the oldest one for each datagram or
//! piece of a stream and says which it took.
//!
//! ```text
//! one allocation:   [ entry 0 … entry n-1 | page end ][ buffer 0 ][ buffer 1 ] … [ buffer n-1 ]
//!                     ▲ tail: ours, given back here
//! each buffer:      with the kernel ──lend──► lent ──give_back──► with the kernel
//! ```
#![expect(unsafe_code, reason = "the kernel writes into this memory behind the compiler's back")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

const PAGE_LEN: usize = 4_096;

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_LEN]);
const _: () = assert!(size_of::<Page>() == PAGE_LEN);

/// Marks a buffer that the kernel holds.
const WITH_KERNEL: u32 = u32::MAX;

/// A buffer ring. The ring of operations that registers it must be closed before it is dropped.
pub(super) struct BufferRing {
    pages: NonNull<[Page]>,
    buffers_at: usize,
    buffer_len: usize,
    tail: u16,
    /// For each buffer: how many bytes of it are lent, or [`WITH_KERNEL`].
    lent: Box<[u32]>,
    lent_count: usize,
    leaked: bool,
}

impl BufferRing {
    /// `count` buffers of `buffer_len` bytes, all ready for the kernel.
    ///
    /// # Panics
    /// When `count` is not a power of two or above 32,768: the kernel takes no other number.
    pub(super) fn new(count: u16, buffer_len: usize) -> Self {
        assert!(count.is_power_of_two() && count <= 1 << 15, "a power of two up to 32,768 buffers");
        // Whole cache lines, so that two buffers never share one.
        let buffer_len = buffer_len.next_multiple_of(64);
        let buffers_at = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE_LEN);
        let pages = (buffers_at + usize::from(count) * buffer_len).div_ceil(PAGE_LEN);
        let pages = Box::into_raw(vec![Page([0; PAGE_LEN]); pages].into_boxed_slice());
        let mut ring = Self {
            pages: NonNull::new(pages).expect("a box is never null"),
            buffers_at,
            buffer_len,
            tail: 0,
            lent: vec![0; usize::from(count)].into(),
            lent_count: usize::from(count),
            leaked: false,
        };
        for buffer in 0..count {
            ring.give_back(buffer);
        }
        ring
    }

    /// Where its entries lie, for registering.
    pub(super) fn address(&self) -> u64 {
        self.base() as u64
    }

    /// How many buffers it has.
    #[expect(clippy::cast_possible_truncation, reason = "made from a u16")]
    pub(super) fn count(&self) -> u16 {
        self.lent.len() as u16
    }

    /// How many buffers are lent now.
    pub(super) fn lent(&self) -> usize {
        self.lent_count
    }

    /// Notes that the kernel has filled a buffer and let go of it.
    ///
    /// # Panics
    /// When the buffer is lent already: the kernel never gives one twice.
    pub(super) fn lend(&mut self, buffer: u16, len: u32) {
        let state = &mut self.lent[usize::from(buffer)];
        assert!(*state == WITH_KERNEL, "buffer {buffer} came from the kernel twice");
        *state = len.min(self.buffer_len as u32);
        self.lent_count += 1;
    }

    /// The filled part of a lent buffer.
    ///
    /// # Panics
    /// When the buffer is not lent: the kernel may be writing to it.
    pub(super) fn bytes(&self, buffer: u16) -> &[u8] {
        let len = self.lent[usize::from(buffer)];
        assert!(len != WITH_KERNEL, "buffer {buffer} is not lent");
        // SAFETY: `lent` says that the kernel has let go of this buffer, and keeps it from the
        // kernel until `give_back`, which needs `&mut self`. Buffer and length lie inside the pages:
        // `lent` has as many rows as buffers were allocated, and `lend` bounds the length.
        unsafe { std::slice::from_raw_parts(self.start_of(buffer), len as usize) }
    }

    /// Gives a lent buffer back to the kernel.
    ///
    /// # Panics
    /// When the buffer is not lent: it would be filled twice at a time.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let state = &mut self.lent[usize::from(buffer)];
        assert!(*state != WITH_KERNEL, "buffer {buffer} was given back twice");
        *state = WITH_KERNEL;
        self.lent_count -= 1;
        let at = usize::from(self.tail) & (self.lent.len() - 1);
        let (address, len) = (self.start_of(buffer) as u64, self.buffer_len as u32);
        // SAFETY: `at` is below the number of entries, which lie at the start of the pages. The
        // kernel reads an entry only once the tail has passed it, and there are as many entries as
        // buffers, so it is not reading this one. The fields' places are the kernel's contract.
        let entry = unsafe { &mut *self.base().cast::<BufRingEntry>().add(at) };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies inside the first entry, which is ours, zeroed at the start and
        // aligned; only this thread writes it, and the kernel reads it atomically.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.base().cast::<BufRingEntry>()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn base(&self) -> *mut u8 {
        self.pages.as_ptr().cast()
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        // SAFETY: the pages have room for every buffer of the ring behind the entries.
        unsafe { self.base().add(self.buffers_at + usize::from(buffer) * self.buffer_len) }
    }
}

impl BufferRing {
    /// Never frees the buffers: the kernel may still write to them.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: the pages came from this very kind of box and are freed once. The owner closed the
        // ring of operations before, so the kernel writes here no more.
        drop(unsafe { Box::from_raw(self.pages.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_buffer_shows_what_was_filled_and_comes_back_once() {
        let mut ring = BufferRing::new(4, 100);
        assert_eq!((ring.count(), ring.lent()), (4, 0));
        ring.lend(2, 70);
        ring.lend(0, 1_000);
        assert_eq!((ring.bytes(2).len(), ring.bytes(0).len(), ring.lent()), (70, 128, 2));
        ring.give_back(2);
        ring.lend(2, 0);
        assert!(ring.bytes(2).is_empty());
    }

    #[test]
    #[should_panic(expected = "buffer 1 was given back twice")]
    fn a_buffer_cannot_be_given_back_twice() {
        let mut ring = BufferRing::new(2, 64);
        ring.lend(1, 5);
        ring.give_back(1);
        ring.give_back(1);
    }

    #[test]
    #[should_panic(expected = "buffer 1 is not lent")]
    fn the_kernels_buffers_cannot_be_read() {
        let _ = BufferRing::new(2, 64).bytes(1);
    }
}
