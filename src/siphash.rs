//! SipHash-2-4 with a 64-bit result (Aumasson and Bernstein, 2012): the keyed hash of short input.
//! It tags v2 datagrams and recognises tokens; whoever lacks the key can neither forge nor steer it.

/// A key, ready to hash under.
#[derive(Clone, Copy)]
pub struct SipHash {
    /// The state before any input.
    start: State,
}

/// The four words between rounds.
#[derive(Clone, Copy)]
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl SipHash {
    /// Takes the two little-endian words of a 16-byte key.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(key);
        #[expect(clippy::cast_possible_truncation, reason = "the halves are meant to be cut apart")]
        let (k0, k1) = (whole as u64, (whole >> 64) as u64);
        Self {
            start: State {
                v0: k0 ^ 0x736f_6d65_7073_6575,
                v1: k1 ^ 0x646f_7261_6e64_6f6d,
                v2: k0 ^ 0x6c79_6765_6e65_7261,
                v3: k1 ^ 0x7465_6462_7974_6573,
            },
        }
    }

    /// The hash of `bytes`. As a tag it goes on the wire in little-endian order.
    #[must_use]
    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut state = self.start;
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            state.absorb(u64::from_le_bytes(*word));
        }
        // The last word: what is left over, and the length modulo 256 in its highest byte.
        let mut last = (bytes.len() as u64) << 56;
        for (at, byte) in tail.iter().enumerate() {
            last |= u64::from(*byte) << (8 * at);
        }
        state.finish(last)
    }

    /// The [`hash`](Self::hash) of whole words, each the little-endian reading of 8 bytes. With the
    /// length known to the compiler there is no loop and no tail; inlined into where the key is made
    /// ready, so that the state is never written to memory.
    #[must_use]
    #[inline(always)]
    pub fn hash_words<const WORDS: usize>(&self, words: &[u64; WORDS]) -> u64 {
        let mut state = self.start;
        for word in words {
            state.absorb(*word);
        }
        state.finish((WORDS as u64 * 8) << 56)
    }
}

impl std::fmt::Debug for SipHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SipHash(redacted)")
    }
}

impl State {
    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn finish(mut self, last: u64) -> u64 {
        self.absorb(last);
        self.v2 ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    /// The key 00 01 … 0f over 00 01 …: the paper's example of 15 bytes, and others of the
    /// reference implementation's vectors.
    #[test]
    fn the_published_vectors_hold() {
        let key = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let input: Vec<u8> = (0..63).collect();
        let vectors = [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (7, 0xab02_00f5_8b01_d137),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
            (63, 0x958a_324c_eb06_4572),
        ];
        for (len, expected) in vectors {
            assert_eq!(SipHash::new(key).hash(&input[..len]), expected, "{len} bytes");
        }
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

        #[test]
        fn whole_words_agree_with_bytes(key: [u8; 16], words: [u64; 10]) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let sip = SipHash::new(key);
            prop_assert_eq!(sip.hash_words(&words), sip.hash(&bytes));
            prop_assert_eq!(sip.hash_words(words.first_chunk::<6>().unwrap()), sip.hash(&bytes[..48]));
        }
    }
}
