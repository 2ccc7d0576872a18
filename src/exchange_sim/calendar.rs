//! Times as exchanges write them.

use crate::time::calendar::date_time;

/// RFC 3339 in UTC with `digits` (at most 9) digits of fraction, rounded down.
pub(super) fn rfc3339(unix_ns: u64, digits: usize) -> String {
    let mut text = seconds_text(unix_ns, 'T');
    let fraction = format!("{:09}", unix_ns % 1_000_000_000);
    let digits = digits.min(9);
    if digits > 0 {
        text.push('.');
        text.extend(fraction.chars().take(digits));
    }
    text.push('Z');
    text
}

/// RFC 3339 in UTC as Go's `RFC3339Nano` writes it: no trailing zeros in the fraction, and no point
/// when there is no fraction at all.
pub(super) fn rfc3339_trimmed(unix_ns: u64) -> String {
    let mut text = seconds_text(unix_ns, 'T');
    let fraction = format!("{:09}", unix_ns % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text.push('Z');
    text
}

/// The way Go prints a time for people, which Coinbase's heartbeats carry: not RFC 3339.
pub(super) fn go_printed(unix_ns: u64, up_ns: u64) -> String {
    format!(
        "{}.{:09} +0000 UTC m=+{}.{:09}",
        seconds_text(unix_ns, ' '),
        unix_ns % 1_000_000_000,
        up_ns / 1_000_000_000,
        up_ns % 1_000_000_000
    )
}

/// Milliseconds since the Unix epoch with one to six digits of fraction, as Gate.io writes them.
pub(super) fn ms_fraction(unix_ns: u64) -> String {
    let fraction = format!("{:06}", unix_ns % 1_000_000);
    let fraction = fraction.trim_end_matches('0');
    format!("{}.{}", unix_ns / 1_000_000, if fraction.is_empty() { "0" } else { fraction })
}

/// Seconds since the Unix epoch with `digits` (at most 9) digits of fraction.
pub(super) fn seconds_fraction(unix_ns: u64, digits: usize) -> String {
    let fraction = format!("{:09}", unix_ns % 1_000_000_000);
    format!("{}.{}", unix_ns / 1_000_000_000, fraction.get(..digits.min(9)).unwrap_or_default())
}

fn seconds_text(unix_ns: u64, separator: char) -> String {
    date_time(unix_ns / 1_000_000_000, separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_are_written_as_the_calendar_has_them() {
        assert_eq!(rfc3339(0, 6), "1970-01-01T00:00:00.000000Z");
        // A leap day, the end of a year, and a day beyond 2^31 seconds.
        assert_eq!(rfc3339(1_709_210_096_123_456_789, 6), "2024-02-29T12:34:56.123456Z");
        assert_eq!(rfc3339(1_767_225_599_999_999_999, 0), "2025-12-31T23:59:59Z");
        assert_eq!(rfc3339(4_102_444_800_000_000_000, 3), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn fractions_are_trimmed_where_the_exchange_trims_them() {
        assert_eq!(rfc3339_trimmed(1_709_210_096_445_240_000), "2024-02-29T12:34:56.44524Z");
        assert_eq!(rfc3339_trimmed(1_709_210_096_000_000_000), "2024-02-29T12:34:56Z");
        assert_eq!(ms_fraction(1_788_336_082_402_208_000), "1788336082402.208");
        assert_eq!(ms_fraction(1_788_336_082_402_000_000), "1788336082402.0");
        assert_eq!(seconds_fraction(1_618_678_142_557_535_000, 6), "1618678142.557535");
        assert!(go_printed(1_709_210_096_445_240_000, 1_500_000_000).ends_with("UTC m=+1.500000000"));
    }
}
