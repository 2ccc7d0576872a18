//! Unix time as the calendar has it, in UTC, from 1970 to 9999.
//!
//! The days are counted in eras of 400 years that start in March, so that the leap day is the last
//! of its year.

/// Seconds of a day of UTC.
pub const DAY_S: u64 = 86_400;

/// Days from 1 March of year 0 to the Unix epoch.
const EPOCH_DAYS: u64 = 719_468;

/// Date and time of day of a Unix time, such as `2026-01-31T23:59:59` with `separator` `T`.
#[must_use]
pub fn date_time(unix_s: u64, separator: char) -> String {
    let of_day = unix_s % DAY_S;
    format!(
        "{}{separator}{:02}:{:02}:{:02}",
        date(unix_s / DAY_S),
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// The date of a day since the Unix epoch, such as `2026-01-31`.
#[must_use]
pub fn date(unix_days: u64) -> String {
    let (year, month, day) = year_month_day(unix_days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The calendar month of a day since the Unix epoch as one number, such as 202601 for January 2026.
#[must_use]
pub fn month_number(unix_days: u64) -> u32 {
    let (year, month, _) = year_month_day(unix_days);
    u32::try_from(year.saturating_mul(100) + month).unwrap_or(u32::MAX)
}

fn year_month_day(unix_days: u64) -> (u64, u64, u64) {
    let days = unix_days.saturating_add(EPOCH_DAYS);
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The Unix time, in seconds, of `2026-01-31`, `2026-01-31T23:59:59` or the same with `Z` behind it
/// or a space in place of the `T`. `None` for anything else, for days the calendar does not have and
/// for years outside 1970 to 9999.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text).as_bytes();
    let (date, time) = text.split_at_checked(10)?;
    let days = days(date)?;
    let of_day = match time {
        [] => 0,
        [b'T' | b' ', h1, h2, b':', m1, m2, b':', s1, s2] => {
            let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
            if hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            hour * 3_600 + minute * 60 + second
        }
        _ => return None,
    };
    Some(days * DAY_S + of_day)
}

/// Days since the Unix epoch of `2026-01-31`.
fn days(text: &[u8]) -> Option<u64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let (year, month, day) = (number(&[*y1, *y2, *y3, *y4])?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let from_march = (month + 9) % 12;
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let days = (era * 146_097 + of_era).checked_sub(EPOCH_DAYS)?;
    // 31 February is a day of March here and is written as one: no such day.
    (date(days).as_bytes() == text).then_some(days)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'9' => Some(value * 10 + u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_month_is_numbered_by_its_year_and_itself() {
        for (text, number) in [("1970-01-01", 197_001), ("2024-02-29", 202_402), ("2025-12-31", 202_512)] {
            assert_eq!(month_number(parse(text).unwrap() / DAY_S), number);
        }
        assert!(month_number(u64::MAX) > 0);
    }

    #[test]
    fn known_days_are_written_and_read_as_the_calendar_has_them() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00"),
            (1_709_210_096, "2024-02-29T12:34:56"),
            (1_767_225_599, "2025-12-31T23:59:59"),
            (4_102_444_800, "2100-01-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(date_time(unix_s, 'T'), text);
            assert_eq!(parse(text), Some(unix_s));
            assert_eq!(parse(&format!("{}Z", text.replace('T', " "))), Some(unix_s));
            assert_eq!(parse(&text[..10]), Some(unix_s / DAY_S * DAY_S));
        }
    }

    #[test]
    fn what_the_calendar_does_not_have_is_refused() {
        for bad in [
            "",
            "2026",
            "2026-02-29",
            "2026-04-31",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "1969-12-31",
            "2026-01-01T24:00:00",
            "2026-01-01T00:60:00",
            "2026-01-01T00:00:60",
            "2026-01-01T00:00",
            "2026-01-01x00:00:00",
            "+026-01-01",
            "2026-1-1",
            "2026-01-01T00:00:00+01:00",
            "２026-01-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unix_s in 0..253_402_300_800_u64) {
            prop_assert_eq!(parse(&date_time(unix_s, 'T')), Some(unix_s));
        }
    }
}
