//! A verdict in lines.

use std::fmt::Write as _;
use std::path::PathBuf;

use beast::load::report::verdict::{Unit, Verdict};

/// Everything, for people.
pub(super) fn text(verdict: &Verdict) -> String {
    let mut out = String::new();
    let word = |pass: bool| if pass { "pass" } else { "FAIL" };
    let _ = writeln!(out, "One core, answers a second (source design: 1 node / 3 nodes)");
    for entry in &verdict.throughput {
        let source = entry.source;
        let _ = writeln!(
            out,
            "  {:<24} {:>9.0}   {:>6.0} ({:.1} times) / {:>6.0} ({:.1} times)   server busy {:.2}, generator {:.2}   {}",
            entry.what,
            entry.answers_per_s.value,
            source.one_node,
            entry.answers_per_s.value / source.one_node,
            source.three_nodes,
            entry.answers_per_s.value / source.three_nodes,
            entry.server_busy,
            entry.client_busy,
            word(entry.pass)
        );
    }
    let _ = writeln!(out, "Figures, with the interval of 95 %");
    for figure in &verdict.figures {
        let (scale, unit) = match figure.unit {
            Unit::Times => (1.0, "times"),
            Unit::Ns => (1e-3, "us"),
            Unit::Share => (100.0, "%"),
        };
        let [value, low, high] =
            [figure.median.value, figure.median.low, figure.median.high].map(|v| v * scale);
        let target = match (figure.target_max, figure.pass) {
            (Some(most), Some(pass)) => format!("   at most {}: {}", most * scale, word(pass)),
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "  {:<40} {:<55} {value:>10.3} {unit} [{low:.3}, {high:.3}]{target}",
            figure.what, figure.name
        );
    }
    let _ = writeln!(out, "Latency under load, open loop, from the intended time");
    for entry in &verdict.under_load {
        let us = |ns: u64| ns as f64 / 1e3;
        let _ = writeln!(
            out,
            "  {:<24} {:>3.0} % of the knee, {:>8.0}/s   p50 {:>7.1} us   p99 {:>8.1} us   p99.9 {:>8.1} us   unanswered {:.3} %{}   {}",
            entry.what,
            entry.share_of_knee * 100.0,
            entry.rate_per_s,
            us(entry.latency.p50_ns),
            us(entry.latency.p99_ns),
            us(entry.latency.p999_ns),
            entry.loss * 100.0,
            if entry.kept_schedule { "" } else { "   generator late" },
            word(entry.pass)
        );
    }
    let _ = writeln!(out, "Books");
    for books in &verdict.books {
        let _ = writeln!(
            out,
            "  {}: sent {} = received {} + dropped {}; received = answered {} + refused {} + waiting {}; seen {}   {}",
            books.what,
            books.sent,
            books.received,
            books.dropped,
            books.answered,
            books.refused,
            books.waiting,
            books.seen,
            word(books.pass)
        );
    }
    for failed in &verdict.failures {
        let _ = writeln!(out, "{}: {}   FAIL", failed.what, failed.why);
    }
    for note in &verdict.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let (reached, all) = verdict.reached();
    let word = if verdict.passed() { "proved" } else { "not proved" };
    let _ = writeln!(out, "{word}: {reached} of {all} targets reached, in {:.0} s", verdict.took_s);
    out
}

/// Where the files of the verdict are.
pub(super) fn written(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("wrote {}\n", path.display())).collect()
}
