//! Calendar months of UTC, which monthly caps are reckoned by.

use crate::time::UnixNs;

/// A month of UTC, counted from January 1970, which is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(u16);

/// A month with its bounds, so that an instant inside costs two comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthSpan {
    /// Which month.
    pub month: Month,
    /// Its first instant.
    pub start: UnixNs,
    /// The first instant of the next one.
    pub end: UnixNs,
}

const DAY_NS: u64 = 86_400_000_000_000;
const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Month {
    /// The month of an instant.
    #[must_use]
    pub fn of(time: UnixNs) -> Self {
        MonthSpan::of(time).month
    }

    /// From months since January 1970.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        Self(number)
    }

    /// Months since January 1970.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// Year times 100 plus month, such as 202601 for January 2026.
    #[must_use]
    pub fn year_month(self) -> u32 {
        let months = u32::from(self.0);
        (1970 + months / 12) * 100 + months % 12 + 1
    }
}

impl MonthSpan {
    /// The month of an instant. `UnixNs` ends in the year 2554, so there always is one.
    #[must_use]
    pub fn of(time: UnixNs) -> Self {
        let day = time.0 / DAY_NS;
        let (mut year, mut first, mut number) = (1970, 0, 0);
        while first + year_days(year) <= day {
            first += year_days(year);
            year += 1;
            number += 12;
        }
        for (month, days) in DAYS.into_iter().enumerate() {
            let days = days + u64::from(month == 1 && year_days(year) == 366);
            if day < first + days {
                // The end of the last month that begins before UnixNs ends may lie beyond it.
                let end = (first + days).saturating_mul(DAY_NS);
                return Self { month: Month(number), start: UnixNs(first * DAY_NS), end: UnixNs(end) };
            }
            first += days;
            number += 1;
        }
        unreachable!("the day lies in this year, and its months have all its days");
    }

    /// `span` while the instant lies in it, else the month that it lies in.
    #[must_use]
    #[inline]
    pub fn of_near(span: Self, time: UnixNs) -> Self {
        if span.holds(time) { span } else { Self::of(time) }
    }

    /// Whether the instant lies in it.
    #[must_use]
    #[inline]
    pub fn holds(&self, time: UnixNs) -> bool {
        self.start <= time && time < self.end
    }
}

fn year_days(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(leap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn months_begin_and_end_as_the_calendar_has_them() {
        // Seconds from Python's calendar.timegm.
        for (year_month, start_s, end_s) in [
            (197_001, 0, 2_678_400),
            (200_002, 949_363_200, 951_868_800),
            (202_402, 1_706_745_600, 1_709_251_200),
            (202_512, 1_764_547_200, 1_767_225_600),
            (202_601, 1_767_225_600, 1_769_904_000),
            (210_002, 4_105_123_200, 4_107_542_400),
        ] {
            for inside in [start_s * SECOND, start_s * SECOND + 1, end_s * SECOND - 1] {
                let span = MonthSpan::of(UnixNs(inside));
                assert_eq!(span.month.year_month(), year_month);
                assert_eq!((span.start.0, span.end.0), (start_s * SECOND, end_s * SECOND));
            }
        }
    }

    proptest! {
        #[test]
        fn months_follow_one_another_without_gaps(time: u64) {
            let span = MonthSpan::of(UnixNs(time));
            prop_assert!(span.start.0 <= time && (time < span.end.0 || span.end.0 == u64::MAX));
            if span.start.0 > 0 {
                let before = MonthSpan::of(UnixNs(span.start.0 - 1));
                prop_assert_eq!(before.end, span.start);
                prop_assert_eq!(before.month.number() + 1, span.month.number());
            }
        }
    }
}
