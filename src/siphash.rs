//! SipHash-2-4 with a 64-bit result (Aumasson and Bernstein, 2012): the keyed hash of short input.
//! It tags v2 datagrams and recognises tokens; whoever lacks the key can neither forge nor steer it.

/// A key, ready to hash under.
#[derive(Clone, Copy)]
pub struct SipHash {
    /// The four state words before any input.
    start: [u64; 4],
}

impl SipHash {
    /// Takes the two little-endian words of a 16-byte key.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(key);
        #[expect(clippy::cast_possible_truncation, reason = "the halves are meant to be cut apart")]
        let (k0, k1) = (whole as u64, (whole >> 64) as u64);
        Self {
            start: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    /// The hash of `bytes`. As a tag it goes on the wire in little-endian order.
    #[must_use]
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut state = self.start;
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            absorb(&mut state, u64::from_le_bytes(*word));
        }
        // The last word: what is left over, and the length modulo 256 in its highest byte.
        let mut last = (bytes.len() as u64) << 56;
        for (at, byte) in tail.iter().enumerate() {
            last |= u64::from(*byte) << (8 * at);
        }
        absorb(&mut state, last);
        state[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

impl std::fmt::Debug for SipHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SipHash(redacted)")
    }
}

#[inline(always)]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_paper() {
        let key = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(SipHash::new(key).hash(&input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", SipHash::new([7; 16])), "SipHash(redacted)");
    }

    proptest! {
        #[test]
        fn agrees_with_another_implementation(key: [u8; 16], input in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut other = siphasher::sip::SipHasher24::new_with_key(&key);
            other.write(&input);
            prop_assert_eq!(SipHash::new(key).hash(&input), other.finish());
        }
    }
}
