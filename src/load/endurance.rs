//! What changed over a long run: memory and the 99th percentile, first quarter against last.

use super::latency::histogram;
use super::result::{Criterion, Endurance, Interval};

/// Memory may grow by this share from the first quarter to the last …
const MEMORY_GROWTH_MAX: f64 = 0.05;

/// … or by so many bytes, whichever is more: allocators keep what they once had.
const MEMORY_GROWTH_BYTES: f64 = 16.0 * 1_048_576.0;

/// The 99th percentile may grow to this many times that of the first quarter. A guess: on a shared
/// machine a quarter differs from the next by a third.
const P99_GROWTH_MAX: f64 = 1.5;

/// Reads the drift out of the intervals of a run.
#[must_use]
pub fn drift(intervals: &[Interval], rate_per_s: f64, share_of_knee: Option<f64>) -> Endurance {
    let quarter = intervals.len().div_ceil(4);
    let (first, last) = (&intervals[..quarter], &intervals[intervals.len() - quarter..]);
    let memory = |interval: &Interval| {
        interval.server_memory_bytes.map(|bytes| (interval.start_s + interval.length_s, bytes as f64))
    };
    let p99 = |interval: &Interval| {
        (interval.latency.count > 0)
            .then_some((interval.start_s + interval.length_s, interval.latency.p99_ns as f64))
    };
    Endurance {
        rate_per_s,
        share_of_knee,
        memory_bytes_per_hour: slope(intervals.iter().filter_map(memory)).map(|per_s| per_s * 3_600.0),
        memory_bytes_first: mean(first.iter().filter_map(memory)),
        memory_bytes_last: mean(last.iter().filter_map(memory)),
        p99_ns_first: p99_of(first),
        p99_ns_last: p99_of(last),
        p99_ns_per_hour: slope(intervals.iter().filter_map(p99)).unwrap_or(0.0) * 3_600.0,
    }
}

/// What must hold of a drift.
#[must_use]
pub fn judge(endurance: &Endurance) -> Vec<Criterion> {
    let mut criteria = Vec::new();
    if let (Some(first), Some(last)) = (endurance.memory_bytes_first, endurance.memory_bytes_last) {
        let most = (first * MEMORY_GROWTH_MAX).max(MEMORY_GROWTH_BYTES);
        let mib = |bytes: f64| bytes / 1_048_576.0;
        criteria.push(Criterion {
            name: "memory, last quarter against first".to_owned(),
            needed: format!("at most {:.1} MiB more than {:.1} MiB", mib(most), mib(first)),
            found: format!("{:.1} MiB, {:+.1} MiB an hour", mib(last), mib(drift_per_hour(endurance))),
            pass: last - first <= most,
        });
    }
    let (first, last) = (endurance.p99_ns_first as f64, endurance.p99_ns_last as f64);
    criteria.push(Criterion {
        name: "p99, last quarter against first".to_owned(),
        needed: format!("at most {P99_GROWTH_MAX} times {:.3} ms", first / 1e6),
        found: format!("{:.3} ms", last / 1e6),
        pass: last <= first * P99_GROWTH_MAX && first > 0.0,
    });
    criteria
}

fn drift_per_hour(endurance: &Endurance) -> f64 {
    endurance.memory_bytes_per_hour.unwrap_or(0.0)
}

fn p99_of(intervals: &[Interval]) -> u64 {
    let mut all = histogram();
    for interval in intervals {
        if let Ok(latency) = interval.latency.decode() {
            // Ours have the same bounds; another's that do not fit are left out.
            let _foreign = all.add(&latency);
        }
    }
    all.value_at_quantile(0.99)
}

fn mean(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for (_, value) in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Slope of the straight line with the least squares; `None` below two different places.
fn slope(points: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let points: Vec<_> = points.collect();
    let count = points.len() as f64;
    let (x_mean, y_mean) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x_mean, y_mean) = (x_mean / count, y_mean / count);
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in &points {
        above += (x - x_mean) * (y - y_mean);
        below += (x - x_mean) * (x - x_mean);
    }
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::latency::{Latency, record};
    use crate::load::result::Counts;

    fn interval(second: u32, memory_bytes: Option<u64>, us: u64) -> Interval {
        let mut latencies = histogram();
        for _ in 0..100 {
            record(&mut latencies, Duration::from_micros(us));
        }
        Interval {
            start_s: f64::from(second),
            length_s: 1.0,
            answered_after: 0,
            step: 0,
            counts: Counts::default(),
            latency: Latency::of(&latencies),
            server_memory_bytes: memory_bytes,
        }
    }

    #[test]
    fn a_leak_and_a_slowing_server_are_seen() {
        let leaking: Vec<_> =
            (0..40).map(|n| interval(n, Some((100 << 20) + (u64::from(n) << 20)), 100)).collect();
        let endurance = drift(&leaking, 1.0, None);
        let per_hour = endurance.memory_bytes_per_hour.unwrap();
        assert!((per_hour / (3_600.0 * 1_048_576.0) - 1.0).abs() < 1e-9, "{per_hour}");
        let criteria = judge(&endurance);
        assert!(!criteria[0].pass && criteria[1].pass, "{criteria:?}");

        let slowing: Vec<_> = (0..40).map(|n| interval(n, None, 100 + u64::from(n) * 10)).collect();
        let criteria = judge(&drift(&slowing, 1.0, None));
        assert_eq!(criteria.len(), 1, "memory nobody told of is not judged");
        assert!(!criteria[0].pass, "{criteria:?}");

        let steady: Vec<_> = (0..40).map(|n| interval(n, Some(1 << 30), 100)).collect();
        assert!(judge(&drift(&steady, 1.0, None)).iter().all(|criterion| criterion.pass));
    }

    #[test]
    fn nothing_is_nothing() {
        let endurance = drift(&[], 1.0, None);
        assert_eq!((endurance.p99_ns_first, endurance.memory_bytes_per_hour), (0, None));
    }
}
