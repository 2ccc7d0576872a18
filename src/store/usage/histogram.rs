//! Latencies as counts in 32 buckets, so that rows can be added up and still tell a percentile.
//!
//! ```text
//!   bucket   0          1      2      3      4     …    29       30       31
//!   from ns  0          1,024  1,536  2,048  3,072 …    16.8 M   25.2 M   33.6 M
//!            └ shorter  └── two buckets for each doubling ──────────────┘  └ longer
//! ```
//!
//! Log-linear: each doubling is cut in two halves of equal width, so a percentile is known to a
//! third of itself at worst. Shorter than 1 µs nobody can tell by the clock of a turn; longer than
//! 34 ms are only requests that waited for REST, and of those the maximum is kept exactly.

/// How many buckets there are.
pub const BUCKETS: usize = 32;

/// Power of two at which the second bucket begins, in nanoseconds.
const FIRST_BIT: u32 = 10;

/// Counts of latencies by bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Histogram {
    /// The bucket of a latency in nanoseconds.
    #[must_use]
    #[inline]
    pub fn bucket(latency_ns: u64) -> usize {
        let Some(bit) = latency_ns.checked_ilog2().filter(|bit| *bit >= FIRST_BIT) else { return 0 };
        let half = (latency_ns >> (bit - 1)) & 1;
        let bucket = u64::from(bit - FIRST_BIT) * 2 + half + 1;
        (bucket as usize).min(BUCKETS - 1)
    }

    /// Shortest latency of a bucket, in nanoseconds; buckets beyond the last begin at infinity.
    #[must_use]
    pub fn begin_ns(bucket: usize) -> u64 {
        match bucket {
            0 => 0,
            1..BUCKETS => (2 + (bucket as u64 - 1) % 2) << (FIRST_BIT as usize - 1 + (bucket - 1) / 2),
            _ => u64::MAX,
        }
    }

    /// Counts one latency.
    #[inline]
    pub fn add(&mut self, latency_ns: u64) {
        let count = &mut self.0[Self::bucket(latency_ns)];
        *count = count.saturating_add(1);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// How many latencies were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency that `per_mille` thousandths of those counted do not exceed, in nanoseconds,
    /// taken as evenly spread within its bucket and never above `max_ns`, the longest there was.
    /// `None` when nothing was counted.
    #[must_use]
    pub fn percentile_ns(&self, per_mille: u32, max_ns: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = (u128::from(count) * u128::from(per_mille.min(1_000))).div_ceil(1_000).max(1);
        let mut below = 0_u128;
        for (bucket, &here) in self.0.iter().enumerate() {
            let here = u128::from(here);
            if below + here >= wanted {
                let begin = Self::begin_ns(bucket);
                let end = Self::begin_ns(bucket + 1).min(max_ns.max(begin));
                let into = u128::from(end - begin) * (wanted - below) / here.max(1);
                return Some(begin.saturating_add(u64::try_from(into).unwrap_or(u64::MAX)).min(max_ns));
            }
            below += here;
        }
        Some(max_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_where_the_last_ended() {
        for bucket in 0..BUCKETS {
            let begin = Histogram::begin_ns(bucket);
            assert_eq!(Histogram::bucket(begin), bucket);
            if bucket > 0 {
                assert_eq!(Histogram::bucket(begin - 1), bucket - 1);
            }
        }
        assert_eq!(Histogram::bucket(u64::MAX), BUCKETS - 1);
        let begins: Vec<u64> = (0..5).map(Histogram::begin_ns).collect();
        assert_eq!(begins, [0, 1_024, 1_536, 2_048, 3_072]);
        assert_eq!(Histogram::begin_ns(BUCKETS - 1), 33_554_432);
    }

    #[test]
    fn a_percentile_is_within_a_third_of_the_truth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_ns(500, 0), None);
        let latencies: Vec<u64> = (1..=1_000).map(|n| 1_000 + n * n * 7).collect();
        for latency in &latencies {
            histogram.add(*latency);
        }
        assert_eq!(histogram.count(), 1_000);
        let max = *latencies.last().unwrap();
        for per_mille in [1, 250, 500, 900, 990, 999, 1_000] {
            let truth = latencies[per_mille as usize - 1];
            let found = histogram.percentile_ns(per_mille, max).unwrap();
            assert!(found.abs_diff(truth) * 3 <= truth + 3_072, "{per_mille}: {found}, not {truth}");
        }
        assert_eq!(histogram.percentile_ns(1_000, max), Some(max));
    }

    #[test]
    fn merging_adds_each_bucket() {
        let (mut left, mut right) = (Histogram::default(), Histogram::default());
        left.add(5);
        right.add(5);
        right.add(900_000_000);
        left.merge(&right);
        assert_eq!((left.0[0], left.0[31], left.count()), (2, 1, 3));
    }
}
