//! Whether an open loop kept its schedule.

use std::time::Duration;

use super::latency::{LATENCY_NS_MAX, Latency};
use super::result::{Criterion, Schedule};
use super::tally::Tally;

/// Share of a schedule's requests that may be late or not leave at all.
const LATE_SHARE_MAX: f64 = 0.01;

/// How an open loop kept its schedule.
pub(super) fn schedule(tally: &Tally, late_after: Duration) -> Schedule {
    let late_after_ns = u64::try_from(late_after.as_nanos()).unwrap_or(u64::MAX).min(LATENCY_NS_MAX);
    let late = tally.lag_ns.count_between(late_after_ns.saturating_add(1), LATENCY_NS_MAX);
    // What was taken from the schedule has a lag; what was not never left.
    let never = tally.scheduled.saturating_sub(tally.lag_ns.len());
    let missed = late + never + tally.held_back + tally.send_failed;
    Schedule {
        scheduled: tally.scheduled,
        sent: tally.sent,
        late,
        late_after_ns,
        lag: Latency::of(&tally.lag_ns),
        late_share_max: LATE_SHARE_MAX,
        kept: missed as f64 <= tally.scheduled as f64 * LATE_SHARE_MAX,
    }
}

pub(super) fn criterion(schedule: &Schedule) -> Criterion {
    let missing = schedule.scheduled.saturating_sub(schedule.sent);
    Criterion {
        name: "the generator kept its schedule".to_owned(),
        needed: format!(
            "at most {} % of {} requests more than {} ms late or not sent",
            schedule.late_share_max * 100.0,
            schedule.scheduled,
            schedule.late_after_ns as f64 / 1e6
        ),
        found: format!(
            "{} late, {missing} not sent, the latest by {:.3} ms",
            schedule.late,
            schedule.lag.max_ns as f64 / 1e6
        ),
        pass: schedule.kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_kept_when_nearly_all_left_in_time() {
        let mut tally = Tally::new();
        tally.scheduled = 1_000;
        tally.sent = 995;
        for _ in 0..995 {
            tally.record_lag(Duration::from_micros(10));
        }
        assert!(schedule(&tally, Duration::from_millis(10)).kept);
        for _ in 0..5 {
            tally.record_lag(Duration::from_millis(20));
        }
        assert_eq!(schedule(&tally, Duration::from_millis(10)).late, 5);
        tally.held_back = 6;
        let missed = schedule(&tally, Duration::from_millis(10));
        assert!(!missed.kept && !criterion(&missed).pass);
    }
}
