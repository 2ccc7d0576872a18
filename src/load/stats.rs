//! Medians, and how far to trust them.

use serde::{Deserialize, Serialize};

/// A median with the interval that holds the true one in at least 95 of 100 repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// The median of the sample.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Values it was taken from. Below 6 there is no such interval; the ends are the extremes.
    pub count: usize,
}

impl Median {
    /// Of a sample; `None` when it is empty.
    ///
    /// The interval is between two order statistics: each value lies below the true median with
    /// probability one half whatever its distribution, so ranks follow the binomial.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (low, high) = (values.get(cut(count))?, values.get(count - 1 - cut(count))?);
        let value = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Self { value, low: *low, high: *high, count })
    }
}

/// How many values may be cut from each end: the most with P(Binomial(count, ½) ≤ cut) ≤ 2.5 %.
fn cut(count: usize) -> usize {
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = 0.0;
    for k in 0..count / 2 {
        below += chance;
        if below > 0.025 {
            return k.saturating_sub(1);
        }
        chance *= (count - k) as f64 / (k + 1) as f64;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_lies_between_the_right_order_statistics() {
        let of = |count: u32| Median::of((1..=count).map(f64::from).collect()).unwrap();
        assert_eq!(of(5), Median { value: 3.0, low: 1.0, high: 5.0, count: 5 });
        // The tables of the sign test: from 6 values on the extremes, from 9 on one is cut.
        assert_eq!((of(8).low, of(8).high), (1.0, 8.0));
        assert_eq!((of(9).low, of(9).high), (2.0, 8.0));
        assert_eq!((of(15).low, of(15).high, of(15).value), (4.0, 12.0, 8.0));
        assert_eq!(Median::of(Vec::new()), None);
    }
}
