//! Checksums of 64 bits. Each step is a bijection of its word and of what came before, so damage
//! that stays within one word of eight bytes is always found; any other is missed once in 2^64.

/// Odd, so that multiplying by it loses nothing; the bits of the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Binds what is summed to a purpose and an identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed([u64; 4]);

impl Seed {
    /// For records of one shard in one run.
    pub(super) fn of_chain(epoch: u32, shard: u16) -> Self {
        let mut lane = sum(&[0x6a6f_7572_6e61_6c31, u64::from(epoch), u64::from(shard)]);
        Self(std::array::from_fn(|_| {
            lane = step(lane, ODD);
            lane
        }))
    }

    /// The sum of a record. Four lanes of two words, so that the processor works on them at a time.
    #[inline]
    pub(super) fn sum(self, sequence: u64, words: &[u64; 7]) -> u64 {
        let [a, b, c, d] = self.0;
        let a = step(step(a, words[0]), sequence);
        let b = step(step(b, words[1]), words[4]);
        let c = step(step(c, words[2]), words[5]);
        let d = step(step(d, words[3]), words[6]);
        let sum = step(step(step(a, b), c), d);
        sum ^ (sum >> 32)
    }
}

/// The sum of any words.
pub(super) fn sum(words: &[u64]) -> u64 {
    let sum = words.iter().fold(words.len() as u64, |sum, word| step(sum, *word));
    sum ^ (sum >> 32)
}

#[inline]
fn step(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(ODD).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn damage_within_a_word_is_always_found(
            words: [u64; 7], sequence: u64, epoch: u32, shard: u16, at in 0_usize..7, damage in 1_u64..,
        ) {
            let seed = Seed::of_chain(epoch, shard);
            let mut damaged = words;
            damaged[at] ^= damage;
            prop_assert_ne!(seed.sum(sequence, &words), seed.sum(sequence, &damaged));
            prop_assert_ne!(seed.sum(sequence, &words), seed.sum(sequence ^ damage, &words));
            prop_assert_ne!(sum(&words), sum(&damaged));
        }

        #[test]
        fn a_sum_belongs_to_one_chain(words: [u64; 7], sequence: u64, epoch: u32, shard: u16) {
            let sum = Seed::of_chain(epoch, shard).sum(sequence, &words);
            prop_assert_ne!(sum, Seed::of_chain(epoch ^ 1, shard).sum(sequence, &words));
            prop_assert_ne!(sum, Seed::of_chain(epoch, shard ^ 1).sum(sequence, &words));
        }
    }
}
