//! The times exchanges write on their trades.

use serde::Deserialize;

use crate::time::UnixNs;

/// How an exchange writes a trade's time, as a JSON string or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// `2026-08-09T21:05:48.228846629Z`: 0 to 9 fraction digits, `Z` or an offset.
    Rfc3339,
    /// Whole seconds since the Unix epoch.
    UnixS,
    /// Seconds with any number of fraction digits; beyond nanoseconds they are cut off.
    UnixSDecimal,
    /// Whole milliseconds.
    UnixMs,
    /// Milliseconds with any number of fraction digits; beyond nanoseconds they are cut off.
    UnixMsDecimal,
    /// Whole nanoseconds.
    UnixNs,
}

/// 2009-01-03, when there was first anything to trade: what lies before is in the wrong unit.
const EARLIEST: UnixNs = UnixNs(1_230_940_800_000_000_000);

impl TimeFormat {
    /// Reads a time; `None` when it is not one of this format, before 2009 or after 2554.
    #[inline]
    pub(super) fn parse(self, text: &[u8]) -> Option<UnixNs> {
        let time = match self {
            Self::Rfc3339 => rfc3339(text)?,
            Self::UnixS => decimal(text, 9, false)?,
            Self::UnixSDecimal => decimal(text, 9, true)?,
            Self::UnixMs => decimal(text, 6, false)?,
            Self::UnixMsDecimal => decimal(text, 6, true)?,
            Self::UnixNs => decimal(text, 0, false)?,
        };
        (time >= EARLIEST).then_some(time)
    }
}

/// Digits, a fraction if `fraction` allows one, times 10^`power`.
fn decimal(text: &[u8], power: usize, fraction: bool) -> Option<UnixNs> {
    let mut value = 0_u64;
    let mut at = 0;
    while let Some(digit) = digit(text, at) {
        value = value.checked_mul(10)?.checked_add(digit)?;
        at += 1;
    }
    if at == 0 {
        return None;
    }
    let mut scale = power;
    if at < text.len() {
        if !fraction || text.get(at) != Some(&b'.') {
            return None;
        }
        let first = at + 1;
        at = first;
        while let Some(digit) = digit(text, at) {
            if scale > 0 {
                value = value.checked_mul(10)?.checked_add(digit)?;
                scale -= 1;
            }
            at += 1;
        }
        if at == first || at != text.len() {
            return None;
        }
    }
    value.checked_mul(POWERS[scale]).map(UnixNs)
}

const POWERS: [u64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

fn digit(text: &[u8], at: usize) -> Option<u64> {
    text.get(at).filter(|b| b.is_ascii_digit()).map(|b| u64::from(b - b'0'))
}

fn rfc3339(text: &[u8]) -> Option<UnixNs> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let two = |at: usize| Some(digit(date, at)? * 10 + digit(date, at + 1)?);
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| date[*at] != *mark) || !matches!(date[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = two(0)? * 100 + two(2)?;
    let (month, day, hour, minute, second) = (two(5)?, two(8)?, two(11)?, two(14)?, two(17)?);
    // A leap second is counted as the first of the next minute.
    if year < 1970 || day == 0 || day > month_days(year, month)? || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (mut nanos, mut scale, mut at) = (0, 9, 0);
    if rest.first() == Some(&b'.') {
        at = 1;
        while let Some(digit) = digit(rest, at) {
            if scale == 0 {
                return None;
            }
            nanos = nanos * 10 + digit;
            scale -= 1;
            at += 1;
        }
        if at == 1 {
            return None;
        }
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = match &rest[at..] {
        b"Z" | b"z" => seconds,
        [sign @ (b'+' | b'-'), offset @ ..] if offset.len() == 5 && offset[2] == b':' => {
            let hours = digit(offset, 0)? * 10 + digit(offset, 1)?;
            let minutes = digit(offset, 3)? * 10 + digit(offset, 4)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let ahead = hours * 3_600 + minutes * 60;
            if *sign == b'+' { seconds.checked_sub(ahead)? } else { seconds + ahead }
        }
        _ => return None,
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos * POWERS[scale]).map(UnixNs)
}

fn month_days(year: u64, month: u64) -> Option<u64> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days from 1970-01-01 to a date not before it. Years are counted from March, so that the leap day
/// is the last of its year and the months' lengths follow one formula.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ns(format: TimeFormat, text: &str) -> Option<u64> {
        format.parse(text.as_bytes()).map(|t| t.0)
    }

    #[test]
    fn rfc3339_takes_none_to_nine_fraction_digits() {
        // `date -u -d 2026-08-09T21:05:48Z +%s` says 1786309548.
        for (text, fraction) in [
            ("2026-08-09T21:05:48Z", 0),
            ("2026-08-09T21:05:48.4Z", 400_000_000),
            ("2026-08-09T21:05:48.44524Z", 445_240_000),
            ("2026-08-09T21:05:48.25328358Z", 253_283_580),
            ("2026-08-09T21:05:48.229198328Z", 229_198_328),
            ("2026-08-09T23:05:48.229198328+02:00", 229_198_328),
            ("2026-08-09T17:35:48.229198328-03:30", 229_198_328),
        ] {
            assert_eq!(ns(TimeFormat::Rfc3339, text), Some(1_786_309_548_000_000_000 + fraction), "{text}");
        }
        assert_eq!(ns(TimeFormat::Rfc3339, "2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000_000));
        for bad in [
            "",
            "2026-08-09",
            "2026-08-09T21:05:48",
            "2026-08-09T21:05:48.Z",
            "2026-08-09T21:05:48.1234567891Z",
            "2026-13-09T21:05:48Z",
            "2026-02-29T21:05:48Z",
            "2026-00-00T21:05:48Z",
            "2026-08-09T24:05:48Z",
            "2026-08-09T21:05:48+0200",
            "2026-08-09T21:05:48Zx",
            "2026/08/09T21:05:48Z",
            "1970-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(ns(TimeFormat::Rfc3339, bad), None, "{bad}");
        }
    }

    #[test]
    fn unix_times_keep_their_fractions() {
        use TimeFormat::*;
        for (format, text, expected) in [
            (UnixS, "1788336082", Some(1_788_336_082_000_000_000)),
            (UnixMs, "1788118931677", Some(1_788_118_931_677_000_000)),
            (UnixNs, "1790732616897030070", Some(1_790_732_616_897_030_070)),
            (UnixSDecimal, "1618678142.557535", Some(1_618_678_142_557_535_000)),
            (UnixSDecimal, "1618678142.55753512345", Some(1_618_678_142_557_535_123)),
            (UnixSDecimal, "1618678142", Some(1_618_678_142_000_000_000)),
            (UnixMsDecimal, "1619093560801.34", Some(1_619_093_560_801_340_000)),
            (UnixMsDecimal, "1788336082402.208000", Some(1_788_336_082_402_208_000)),
            (UnixMs, "1788336082402.2", None),
            (UnixMs, "1788336082", None),
            (UnixMs, "-1788336082402", None),
            (UnixMs, "1.7e12", None),
            (UnixMsDecimal, "1788336082402.", None),
            (UnixMs, "", None),
            (UnixMs, "99999999999999999999", None),
            (UnixNs, "99999999999999999999", None),
        ] {
            assert_eq!(ns(format, text), expected, "{format:?} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_parser(text in proptest::collection::vec(any::<u8>(), 0..50), mutate in "[0-9T:.Z+-]{0,40}") {
            use TimeFormat::*;
            for format in [Rfc3339, UnixS, UnixSDecimal, UnixMs, UnixMsDecimal, UnixNs] {
                let _ = format.parse(&text);
                let _ = format.parse(mutate.as_bytes());
            }
        }

        #[test]
        fn days_count_up_by_one(year in 1970_u64..2550, month in 1_u64..=12) {
            let last = month_days(year, month).unwrap();
            prop_assert_eq!(days(year, month, last) - days(year, month, 1), last - 1);
            let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            prop_assert_eq!(days(next_year, next, 1) - days(year, month, last), 1);
        }
    }
}
