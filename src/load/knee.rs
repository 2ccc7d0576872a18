//! The search for the highest rate that a server keeps within bounds: twice as much until it fails,
//! then by halves. Pure; whoever searches tells what came of each rate.

use super::result::{Criterion, Knee};

/// The bounds, and where to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KneeBounds {
    /// The 99th percentile may be at most this, in nanoseconds.
    pub p99_ns_max: u64,
    /// The share of requests without a right answer in time may be at most this, 0 to 1.
    pub loss_max: f64,
    /// The first rate, requests a second.
    pub from_per_s: u64,
    /// The search ends when the failed rate is at most this share above the good one.
    pub precision: f64,
}

/// Rates that are tried in all.
const TRIES_MAX: usize = 40;

/// Below this a server is not there at all, requests a second.
const RATE_MIN: u64 = 10;

/// Above this no generator sends, requests a second.
const RATE_MAX: u64 = 100_000_000;

/// A search under way.
#[derive(Clone, Debug)]
pub(crate) struct KneeSearch {
    bounds: KneeBounds,
    good: Option<u64>,
    bad: Option<u64>,
    now: u64,
    /// Whether the present rate has failed once. A machine that was busy with something else for a
    /// moment must not decide.
    failed_once: bool,
    tries: usize,
}

impl KneeSearch {
    pub(crate) fn new(bounds: KneeBounds) -> Self {
        let now = bounds.from_per_s.clamp(RATE_MIN, RATE_MAX);
        Self { bounds, good: None, bad: None, now, failed_once: false, tries: 0 }
    }

    /// The rate to try now; `None` when the search has ended.
    pub(crate) fn next(&self) -> Option<u64> {
        let near = |good: u64, bad: u64| bad as f64 <= good as f64 * (1.0 + self.bounds.precision.max(0.001));
        match (self.good, self.bad) {
            _ if self.tries >= TRIES_MAX => None,
            (Some(good), Some(bad)) if near(good, bad) || bad - good < 2 => None,
            (None, Some(bad)) if bad <= RATE_MIN => None,
            (Some(good), None) if good >= RATE_MAX => None,
            _ => Some(self.now),
        }
    }

    /// The rate was tried.
    pub(crate) fn tell(&mut self, passed: bool) {
        self.tries += 1;
        if passed {
            self.good = Some(self.now);
        } else if !self.failed_once {
            self.failed_once = true;
            return;
        } else {
            self.bad = Some(self.now);
        }
        self.failed_once = false;
        self.now = match (self.good, self.bad) {
            (Some(good), Some(bad)) => u64::midpoint(good, bad),
            (Some(good), None) => good.saturating_mul(2).min(RATE_MAX),
            (None, Some(bad)) => (bad / 2).max(RATE_MIN),
            (None, None) => self.now,
        };
    }

    /// The highest rate that passed.
    pub(crate) fn found(&self) -> Option<u64> {
        self.good
    }

    /// Whether some rate failed for good.
    pub(crate) fn met_limit(&self) -> bool {
        self.bad.is_some()
    }
}

/// What must hold of a search. A rate that the generator could not keep is no limit of the server's,
/// and one that was found so far none at all.
pub(super) fn judge(knee: &Knee, ended: bool, allow_late: bool) -> Vec<Criterion> {
    let mut criteria = vec![Criterion {
        name: "a rate within the bounds".to_owned(),
        needed: format!(
            "p99 at most {} ms, at most {} % without a right answer in time",
            knee.p99_ns_max as f64 / 1e6,
            knee.loss_max * 100.0
        ),
        found: knee.rate_per_s.map_or("none".to_owned(), |rate| format!("{rate:.0}/s")),
        pass: knee.rate_per_s.is_some(),
    }];
    if !allow_late {
        criteria.push(Criterion {
            name: "the generator was not the limit".to_owned(),
            needed: "a schedule that is kept at the rate that fails".to_owned(),
            found: if knee.limited_by == "generator" { "not kept" } else { "kept" }.to_owned(),
            pass: knee.limited_by != "generator",
        });
    }
    if !ended {
        criteria.push(Criterion {
            name: "the search came to its end".to_owned(),
            needed: "a rate that fails near one that does not".to_owned(),
            found: format!("ended early, after {} rates", knee.steps.len()),
            pass: false,
        });
    }
    criteria
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: KneeBounds =
        KneeBounds { p99_ns_max: 1, loss_max: 0.0, from_per_s: 10_000, precision: 0.05 };

    fn search(from_per_s: u64, passes: impl Fn(u64, usize) -> bool) -> (Option<u64>, usize) {
        let mut search = KneeSearch::new(KneeBounds { from_per_s, ..BOUNDS });
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.tell(passes(rate, tries));
            tries += 1;
        }
        (search.found(), tries)
    }

    proptest! {
        #[test]
        fn the_highest_good_rate_is_found(limit in 20_u64..50_000_000, from in 0_u64..10_000_000) {
            let (found, tries) = search(from, |rate, _| rate <= limit);
            let found = found.unwrap();
            prop_assert!(found <= limit && found as f64 * 1.051 + 1.0 >= limit as f64, "{found} of {limit}");
            prop_assert!(tries <= TRIES_MAX);
        }
    }

    #[test]
    fn one_bad_moment_does_not_decide_and_a_dead_server_ends_the_search() {
        assert_eq!(search(1_000, |rate, n| n != 2 && rate <= 5_000).0.map(|r| r > 4_750), Some(true));
        let (found, tries) = search(1_000, |_, _| false);
        assert_eq!(found, None);
        assert!(tries < TRIES_MAX);
    }

    #[test]
    fn a_limit_of_the_generator_and_half_a_search_are_no_success() {
        let knee = |limited_by: &str| Knee {
            p99_ns_max: 1,
            loss_max: 0.0,
            steps: Vec::new(),
            rate_per_s: Some(1_000.0),
            limited_by: limited_by.to_owned(),
        };
        let passes = |limited_by: &str, ended, allow_late| {
            judge(&knee(limited_by), ended, allow_late).iter().all(|criterion| criterion.pass)
        };
        assert!(passes("server", true, false) && passes("generator", true, true));
        assert!(!passes("generator", true, false) && !passes("none", false, true));
    }

    #[test]
    fn what_never_fails_ends_at_the_most_anyone_sends() {
        assert_eq!(search(10, |_, _| true).0, Some(RATE_MAX));
    }
}
