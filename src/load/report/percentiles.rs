//! The `.hgrm` text that HdrHistogram's plotters read: value, percentile, count up to it, and
//! 1/(1 − percentile), then mean, deviation, maximum and total.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Values of a histogram of nanoseconds are printed in microseconds.
const NS_PER_US: f64 = 1_000.0;

/// Lines for each halving of the distance to 100 %, as HdrHistogram's own writers have it.
const TICKS_PER_HALF: u32 = 5;

/// Writes the percentiles of a histogram of nanoseconds, in microseconds.
///
/// # Errors
/// Those of `out`.
pub fn write_percentiles(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0_u64;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let (mean, stdev, max) = (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US, histogram.max());
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {stdev:12.3}]")?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", max as f64 / NS_PER_US, histogram.len())?;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        // Twice as many as there are values of that many digits, up to a power of two.
        (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds_and_end_with_the_maximum() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for us in 1..=1_000_u64 {
            histogram.record(us * 1_000).unwrap();
        }
        let mut text = Vec::new();
        write_percentiles(&histogram, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert_eq!(&rows[0][1..], [0.0, 1.0, 1.0]);
        let half = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((half[0] - 500.0).abs() < 0.5, "{half:?}");
        assert_eq!((half[2], half[3]), (500.0, 2.0));
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 1_000.0, 3));
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn nothing_recorded_is_no_error() {
        let mut text = Vec::new();
        write_percentiles(&Histogram::<u64>::new(3).unwrap(), &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("Total count    =            0]"));
    }
}
