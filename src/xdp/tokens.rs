//! Tokens of limited keys that the program may spend: the process puts leases in, the program takes one
//! out for an answer, both by atomic additions.

use std::sync::atomic::Ordering::Relaxed;

use crate::sys::mmap::SharedWords;

/// Places for tokens, numbered from 1: place 0 stands for a key without limits.
#[derive(Debug)]
pub struct Tokens {
    words: SharedWords,
}

impl Tokens {
    pub(super) fn new(words: SharedWords) -> Self {
        Self { words }
    }

    /// How many places there are, the unused one with them.
    #[must_use]
    pub fn places(&self) -> usize {
        self.words.words().len()
    }

    /// What lies in a place; below 0 only for the instant in which the program finds nothing.
    #[must_use]
    pub fn held(&self, place: usize) -> i64 {
        self.words.words().get(place).map_or(0, |word| word.load(Relaxed).cast_signed())
    }

    /// Puts tokens into a place; a negative number takes them out.
    pub fn add(&self, place: usize, count: i64) {
        if let Some(word) = self.words.words().get(place) {
            word.fetch_add(count.cast_unsigned(), Relaxed);
        }
    }
}
