//! The ramp: thirteen levels of rising load and what each must fulfil.

use super::result::{Counts, Criterion};

/// Requests of a level, and how many of them are under way at a time.
pub const LEVELS: [(u64, u64); 13] = [
    (300, 30),
    (900, 90),
    (3_000, 300),
    (9_000, 600),
    (30_000, 900),
    (90_000, 1_500),
    (300_000, 3_000),
    (600_000, 6_000),
    (900_000, 9_000),
    (1_500_000, 12_000),
    (3_000_000, 15_000),
    (6_000_000, 18_000),
    (9_000_000, 21_000),
];

/// The last level at which every request must be answered.
const ALL_ANSWERED_UNTIL: u32 = 9;

/// The levels whose latency is judged. Below, a level is over before it means anything; above, so many
/// are under way that they wait for each other.
const JUDGED: std::ops::RangeInclusive<u32> = 5..=8;

const P50_NS_MAX: u64 = 10_000_000;
const P99_NS_MAX: u64 = 300_000_000;

/// Requests and concurrency of a level, from 1, times `scale`; at least 1 of each.
#[must_use]
pub fn level(number: u32, scale: f64) -> Option<(u64, u64)> {
    let index = usize::try_from(number.checked_sub(1)?).ok()?;
    let (requests, concurrency) = *LEVELS.get(index)?;
    let scaled = |whole: u64| ((whole as f64 * scale).round() as u64).max(1);
    Some((scaled(requests), scaled(concurrency)))
}

/// What a level must fulfil, and whether it did.
#[must_use]
pub fn judge(number: u32, requests: u64, counts: &Counts, p50_ns: u64, p99_ns: u64) -> Vec<Criterion> {
    let mut criteria = Vec::new();
    if number <= ALL_ANSWERED_UNTIL {
        criteria.push(Criterion {
            name: "all requests answered".to_owned(),
            needed: format!("{requests} of {requests}"),
            found: format!("{} of {requests}", counts.answered),
            pass: counts.answered == requests && counts.wrong + counts.duplicate == 0,
        });
    }
    if JUDGED.contains(&number) {
        for (name, found, most) in [("p50", p50_ns, P50_NS_MAX), ("p99", p99_ns, P99_NS_MAX)] {
            criteria.push(Criterion {
                name: name.to_owned(),
                needed: format!("below {} ms", most / 1_000_000),
                found: format!("{:.3} ms", found as f64 / 1e6),
                pass: found < most && counts.answered > 0,
            });
        }
    }
    let failures = server_failures(counts);
    criteria.push(Criterion {
        name: "no 5xx".to_owned(),
        needed: "0".to_owned(),
        found: failures.to_string(),
        pass: failures == 0,
    });
    criteria
}

/// Answers by which a server says that the fault is its own: 5xx, and what stands for it by UDP.
fn server_failures(counts: &Counts) -> u64 {
    let http: u64 = counts.statuses.iter().filter(|(status, _)| **status >= 500).map(|(_, n)| n).sum();
    let udp: u64 = ["stale", "overloaded"].iter().filter_map(|code| counts.refused.get(*code)).sum();
    http + udp
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(number: u32, counts: &Counts, p50_ms: u64, p99_ms: u64) -> bool {
        judge(number, 100, counts, p50_ms * 1_000_000, p99_ms * 1_000_000).iter().all(|c| c.pass)
    }

    #[test]
    fn levels_are_scaled_and_end() {
        assert_eq!(level(1, 1.0), Some((300, 30)));
        assert_eq!(level(13, 1.0), Some((9_000_000, 21_000)));
        assert_eq!(level(13, 0.001), Some((9_000, 21)));
        assert_eq!(level(1, 0.000_1), Some((1, 1)));
        assert_eq!((level(0, 1.0), level(14, 1.0)), (None, None));
    }

    #[test]
    fn each_criterion_holds_where_it_belongs() {
        let all = Counts { sent: 100, answered: 100, ..Counts::default() };
        let most = Counts { answered: 99, lost: 1, ..all.clone() };
        assert!(passes(9, &all, 500, 500) && !passes(9, &most, 1, 1) && passes(10, &most, 500, 500));
        assert!(passes(5, &all, 9, 299) && !passes(5, &all, 10, 10) && !passes(8, &all, 1, 300));
        assert!(passes(4, &all, 20, 400));
        let failing = Counts { statuses: [(503, 1)].into(), ..all.clone() };
        assert!(!passes(13, &failing, 1, 1));
        let stale = Counts { refused: [("stale".to_owned(), 1)].into(), ..all };
        assert!(!passes(13, &stale, 1, 1));
    }
}
