//! When the requests of an open loop should leave.

use crate::time::MonoNs;

/// A worker's part of a fixed schedule: of the requests at start, start + 1 / rate, start + 2 / rate …
/// every `of`-th, from the `index`-th on, up to an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    per_s: u64,
    index: u64,
    of: u64,
    start: MonoNs,
    /// No request should leave from here on.
    end: MonoNs,
    taken: u64,
}

const NS_PER_S: u128 = 1_000_000_000;

impl Schedule {
    /// The part of worker `index` of `of` in `per_s` requests a second over all workers.
    pub(crate) fn new(per_s: u64, index: u64, of: u64) -> Self {
        let of = of.max(1);
        Self { per_s: per_s.max(1), index: index % of, of, start: MonoNs(0), end: MonoNs(0), taken: 0 }
    }

    /// Begins anew.
    pub(crate) fn begin(&mut self, start: MonoNs, end: MonoNs) {
        (self.start, self.end, self.taken) = (start, end, 0);
    }

    /// Lets no further requests become due.
    pub(crate) fn cut(&mut self, now: MonoNs) {
        self.end = self.end.min(now);
    }

    /// How many should have left by now and have not been taken.
    pub(crate) fn due(&self, now: MonoNs) -> u64 {
        self.scheduled(now).saturating_sub(self.taken)
    }

    /// How many should have left by now.
    pub(crate) fn scheduled(&self, now: MonoNs) -> u64 {
        let Some(last) = self.end.0.checked_sub(1) else { return 0 };
        let until = now.0.min(last);
        let Some(elapsed_ns) = until.checked_sub(self.start.0) else { return 0 };
        let of_all = u128::from(elapsed_ns) * u128::from(self.per_s) / NS_PER_S + 1;
        let ours = of_all.saturating_sub(u128::from(self.index)).div_ceil(u128::from(self.of));
        u64::try_from(ours).unwrap_or(u64::MAX)
    }

    /// Takes the next one and tells when it should leave.
    pub(crate) fn take(&mut self) -> MonoNs {
        let place = u128::from(self.taken) * u128::from(self.of) + u128::from(self.index);
        self.taken += 1;
        let offset_ns = u64::try_from((place * NS_PER_S).div_ceil(u128::from(self.per_s)));
        MonoNs(self.start.0.saturating_add(offset_ns.unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_schedule_holds_its_rate_and_tells_when_each_should_leave() {
        let mut schedule = Schedule::new(1_000, 0, 1);
        schedule.begin(MonoNs(5_000), MonoNs::NEVER);
        assert_eq!(schedule.due(MonoNs(5_000)), 1);
        assert_eq!(schedule.due(MonoNs(5_000 + 2_000_000)), 3);
        let taken: Vec<_> = (0..3).map(|_| schedule.take().0).collect();
        assert_eq!(taken, [5_000, 1_005_000, 2_005_000]);
        assert_eq!(schedule.due(MonoNs(5_000 + 2_000_000)), 0);
        schedule.cut(MonoNs(5_000 + 3_500_000));
        assert_eq!(schedule.due(MonoNs(u64::MAX)), 1);
    }

    proptest! {
        #[test]
        fn the_parts_of_all_workers_are_the_whole(
            per_s in 1_u64..5_000_000, of in 1_u64..9, length_ns in 1_u64..100_000, start in 0_u64..1 << 40,
        ) {
            let (start, end) = (MonoNs(start), MonoNs(start + length_ns));
            let all = |index, of| {
                let mut part = Schedule::new(per_s, index, of);
                part.begin(start, end);
                (0..part.due(end)).map(|_| part.take()).collect::<Vec<_>>()
            };
            let whole = all(0, 1);
            prop_assert!(whole.iter().all(|at| *at >= start && *at < end));
            let mut parts: Vec<_> = (0..of).flat_map(|index| all(index, of)).collect();
            parts.sort_unstable();
            prop_assert_eq!(parts, whole);
        }
    }
}
