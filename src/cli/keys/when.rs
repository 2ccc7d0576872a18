//! Lengths of time and instants as people type them.

use std::time::Duration;

use beast::time::{Clock as _, RealClock, UnixNs, calendar};

/// Reads `90d`, `24h`, `30m`, `45s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it like 90d, 24h, 30m or 45s".to_owned();
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit_s = match unit {
        "d" => calendar::DAY_S,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(unit_s).filter(|seconds| *seconds <= 100 * 366 * calendar::DAY_S);
    seconds.map(Duration::from_secs).ok_or_else(|| "at most a hundred years".to_owned())
}

/// Reads an instant of UTC, or a length of time from now; `None` for `never`. It must lie ahead.
pub(super) fn expiry(text: &str) -> Result<Option<UnixNs>, String> {
    let now = RealClock.now().unix;
    if text == "never" {
        return Ok(None);
    }
    let at = match calendar::parse(text) {
        Some(seconds) => UnixNs::from_ms(seconds.saturating_mul(1_000)).unwrap_or(UnixNs::NEVER),
        None => {
            let length = duration(text).map_err(|_| {
                "write it like 2027-01-31, 2027-01-31T18:00:00 (UTC), 90d, 24h, or never".to_owned()
            })?;
            let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
            UnixNs(now.0.saturating_add(length_ns))
        }
    };
    if at <= now {
        return Err("that is over already; to stop a key now, revoke it".to_owned());
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_instants_are_read_as_people_write_them() {
        for (text, seconds) in [("45s", 45), ("30m", 1_800), ("24h", 86_400), ("90d", 7_776_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for wrong in
            ["", "d", "12", "-1h", "+1h", "1.5h", "1w", "1 h", "99999999999999999999d", "40000d", "é"]
        {
            assert!(duration(wrong).is_err() && expiry(wrong).is_err(), "{wrong}");
        }
        assert_eq!(expiry("never"), Ok(None));
        assert_eq!(expiry("2100-01-31"), Ok(Some(UnixNs(4_105_036_800_000_000_000))));
        assert_eq!(expiry("2100-01-31T00:00:01Z"), Ok(Some(UnixNs(4_105_036_801_000_000_000))));
        assert!(expiry("2020-01-31").unwrap_err().contains("revoke"));
        assert!(expiry("0s").unwrap_err().contains("over already"));
        assert!(expiry("1h").unwrap().unwrap() > RealClock.now().unix);
    }
}
