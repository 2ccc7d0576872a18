//! An allocator that counts what threads of one kind take, for tests that show that a path allocates
//! nothing. The program itself does not use it.
#![expect(unsafe_code, reason = "the trait of allocators is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting the allocations of every thread whose name begins with `prefix`.
///
/// A test installs it: `#[global_allocator] static COUNTED: CountingAllocator = …`.
#[derive(Debug)]
pub struct CountingAllocator {
    prefix: &'static [u8],
    count: AtomicU64,
    bytes: AtomicU64,
}

thread_local! {
    /// Whether this thread is known to be counted. A thread gets its name after its first
    /// allocations, so a no is never final.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

impl CountingAllocator {
    /// Counts threads whose name begins so; the kernel keeps 15 bytes of a name.
    #[must_use]
    pub const fn new(prefix: &'static str) -> Self {
        Self { prefix: prefix.as_bytes(), count: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Allocations and growths so far, and the bytes they asked for.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        (self.count.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }

    fn note(&self, bytes: usize) {
        // At the end of a thread its locals are gone, and so is the interest in it.
        let counted = COUNTED.try_with(|counted| {
            if !counted.get() {
                counted.set(thread_name().starts_with(self.prefix));
            }
            counted.get()
        });
        if counted.unwrap_or(false) {
            self.count.fetch_add(1, Ordering::SeqCst);
            self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        }
    }
}

/// The calling thread's name, padded with zeros. Allocates nothing.
fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, which is the length of `name`.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.note(size);
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.realloc(at, layout, size) }
    }
}
