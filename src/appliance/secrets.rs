//! Randomness of the process.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// Unguessable bytes.
///
/// # Panics
/// When the system has no randomness: nothing here would be safe without it.
#[must_use]
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has randomness");
    bytes
}
