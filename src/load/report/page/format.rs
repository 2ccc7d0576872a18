//! Numbers and texts for people.

/// Text that may stand anywhere in HTML, attributes included.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A time, with three digits that matter.
pub(super) fn time(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        0.0 => return "0 ns".to_owned(),
        ns if ns < 999.5 => (1.0, "ns"),
        ns if ns < 999_500.0 => (1e3, "µs"),
        ns if ns < 999_500_000.0 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let scaled = ns / value;
    if unit == "ns" && scaled.fract() == 0.0 { format!("{scaled:.0} ns") } else { three(scaled, unit) }
}

/// A length of a run in seconds.
pub(super) fn seconds(s: f64) -> String {
    match s {
        s if s < 1.0 => time(s * 1e9),
        s if s < 120.0 => three(s, "s"),
        s if s < 7_200.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3_600.0).floor(), (s % 3_600.0 / 60.0).floor()),
    }
}

/// A number of things, its thousands apart.
pub(super) fn count(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut out = String::new();
    if n < 0.0 {
        out.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate, short: `488 k/s`.
pub(super) fn rate(per_s: f64) -> String {
    match per_s.abs() {
        // Three digits of what is no whole number.
        r if r < 9.995 && r.fract() > 0.0 => format!("{per_s:.2}/s"),
        r if r < 99.95 && r.fract() > 0.0 => format!("{per_s:.1}/s"),
        r if r < 9_999.5 => format!("{}/s", count(per_s)),
        r if r < 999_500.0 => three(per_s / 1e3, "k/s"),
        _ => three(per_s / 1e6, "M/s"),
    }
}

/// A round number for the mark of an axis: no digits that say nothing.
pub(super) fn short(text: &str) -> String {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

/// A time at the mark of an axis.
pub(super) fn time_mark(ns: f64) -> String {
    short(&time(ns))
}

/// A rate at the mark of an axis.
pub(super) fn rate_mark(per_s: f64) -> String {
    match per_s.abs() {
        0.0 => "0".to_owned(),
        r if (1e3..9_999.5).contains(&r) => short(&three(per_s / 1e3, "k/s")),
        _ => short(&rate(per_s)),
    }
}

/// Seconds at the mark of an axis.
pub(super) fn seconds_mark(s: f64) -> String {
    match s {
        0.0 => "0 s".to_owned(),
        s if s < 120.0 => short(&seconds(s)),
        s => seconds(s),
    }
}

/// A part of a whole.
pub(super) fn share(part: f64) -> String {
    let percent = part * 100.0;
    match percent.abs() {
        0.0 => "0 %".to_owned(),
        p if p < 0.0001 => "under 0.0001 %".to_owned(),
        p if p < 0.01 => format!("{percent:.4} %"),
        p if p < 1.0 => format!("{percent:.3} %"),
        p if p < 9.995 => format!("{percent:.2} %"),
        p if p < 99.95 => format!("{percent:.1} %"),
        p if p < 100.0 => format!("{percent:.3} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// A ratio.
pub(super) fn times(ratio: f64) -> String {
    format!("{ratio:.3} ×")
}

/// An amount of memory.
pub(super) fn bytes(n: f64) -> String {
    match n {
        n if n < 1024.0 => format!("{n:.0} B"),
        n if n < 1024.0 * 1024.0 => three(n / 1024.0, "KiB"),
        n if n < 1024.0 * 1024.0 * 1024.0 => three(n / 1024.0 / 1024.0, "MiB"),
        n => three(n / 1024.0 / 1024.0 / 1024.0, "GiB"),
    }
}

/// Three digits that matter, and a unit.
fn three(value: f64, unit: &str) -> String {
    match value.abs() {
        v if v < 9.995 => format!("{value:.2} {unit}"),
        v if v < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_name_their_unit() {
        let times: Vec<String> =
            [0.0, 840.0, 1_234.0, 16_449.0, 999_600.0, 1.5e9].iter().map(|ns| time(*ns)).collect();
        assert_eq!(times, ["0 ns", "840 ns", "1.23 µs", "16.4 µs", "1.00 ms", "1.50 s"]);
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(count(-999.0), "-999");
        assert_eq!([rate(9_000.0), rate(487_900.0), rate(1.2e6)], ["9,000/s", "488 k/s", "1.20 M/s"]);
        assert_eq!([rate(54.5176), rate(2.0), rate(0.5)], ["54.5/s", "2/s", "0.50/s"]);
        assert_eq!(
            [share(0.0), share(0.01), share(1.0), share(0.99999)],
            ["0 %", "1.00 %", "100 %", "99.999 %"]
        );
        assert_eq!([time_mark(20e6), time_mark(2.5e3), time_mark(200.0)], ["20 ms", "2.5 µs", "200 ns"]);
        assert_eq!([rate_mark(0.0), rate_mark(5_000.0), rate_mark(1.5e5)], ["0", "5 k/s", "150 k/s"]);
        assert_eq!([seconds(0.0), seconds_mark(2.5), seconds_mark(600.0)], ["0 ns", "2.5 s", "10 min 00 s"]);
        assert_eq!(bytes(47.0 * 1_048_576.0), "47.0 MiB");
        assert_eq!([seconds(30.0), seconds(125.0), seconds(7_260.0)], ["30.0 s", "2 min 05 s", "2 h 01 min"]);
    }

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escaped("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }
}
