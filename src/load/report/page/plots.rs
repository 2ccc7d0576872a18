//! The plots of a run or of several.

use std::fmt::Write as _;
use std::io;

use hdrhistogram::Histogram;

use super::figure::{Subject, badge};
use super::format;
use super::plot::{Axis, Cell, Line, Plot, Scale, Tick};

/// Lines of the percentile table for each halving of what is left.
const TICKS_PER_HALF: u32 = 8;

/// Rows of a table behind a plot; a longer series is thinned out.
const ROWS_MAX: usize = 240;

/// Steps of the heat map in a factor of ten.
const HEAT_STEPS_PER_DECADE: f64 = 10.0;

/// Latencies that are drawn by percentile.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) colour: usize,
    pub(super) histogram: Histogram<u64>,
}

/// Latency against percentile.
pub(super) fn percentiles(subjects: &[Subject<'_>]) -> io::Result<String> {
    let mut curves = Vec::new();
    for subject in subjects {
        curves.push(Curve {
            name: format!("{}, {}", subject.run.name, subject.run.setup.loop_kind.caption()),
            colour: subject.index,
            histogram: subject.run.latency.decode().map_err(crate::load::report::invalid)?,
        });
    }
    let mut table = String::from("<table><thead><tr><th scope=\"col\">percentile</th>");
    for subject in subjects {
        let _ = write!(table, "<th scope=\"col\">{}</th>", subject.name());
    }
    table.push_str("</tr></thead><tbody>");
    for (name, path) in PERCENTILES {
        let _ = write!(table, "<tr><th scope=\"row\">{name}</th>");
        for subject in subjects {
            let _ = write!(table, "<td>{}</td>", subject.time(path));
        }
        table.push_str("</tr>");
    }
    table.push_str("</tbody></table>");
    let plot = percentile_plot("percentiles", "Latency by percentile", &curves, table);
    Ok(format!(
        "<section><h2>Latency</h2>{}</section>",
        plot.as_ref().map_or_else(
            || "<p class=\"none\">No request was answered, so there is no latency.</p>".to_owned(),
            Plot::html
        )
    ))
}

/// A plot of latencies by percentile; `None` when nothing was recorded.
pub(super) fn percentile_plot(id: &str, title: &str, curves: &[Curve], table: String) -> Option<Plot> {
    let filled = || curves.iter().map(|curve| &curve.histogram).filter(|histogram| !histogram.is_empty());
    let most = filled().map(Histogram::len).max()?;
    let least = filled().map(|histogram| histogram.value_at_quantile(0.01)).min()?;
    let highest = filled().map(Histogram::max).max()?;
    // The curve of n values ends at 1 − 1/n.
    let nines = (most as f64).log10().clamp(1.0, 9.0);
    let ticks = [("0 %", 0.0), ("50 %", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("99.9 %", 0.999)]
        .into_iter()
        .chain([("99.99 %", 0.9999), ("99.999 %", 0.99999), ("99.9999 %", 0.999_999)])
        .map(|(text, quantile): (&str, f64)| Tick {
            at: nines_of(quantile),
            text: text.to_owned(),
            minor: quantile == 0.5 || quantile > 0.9999,
        })
        .filter(|tick| tick.at <= nines)
        .collect();
    let line = |curve: &Curve| Line {
        name: curve.name.clone(),
        colour: curve.colour,
        dashed: false,
        filled: curves.len() == 1,
        points: points(&curve.histogram, nines),
    };
    Some(Plot {
        id: id.to_owned(),
        title: title.to_owned(),
        about: "How long the slowest part of the requests took: each step to the right looks at a tenth of \
                the part before. The dot is the slowest request."
            .to_owned(),
        x: Axis {
            scale: Scale::Linear,
            min: 0.0,
            max: nines,
            ticks,
            label: "percentile, one nine more each step",
        },
        y: Axis::log(least as f64, highest as f64, "latency", format::time_mark),
        cells: Vec::new(),
        lines: curves.iter().map(line).collect(),
        marks: Vec::new(),
        hints: hints(curves, nines),
        table,
    })
}

/// Rows of the table of percentiles: name and path in the JSON.
pub(super) const PERCENTILES: [(&str, &str); 9] = [
    ("least", "/latency/min_ns"),
    ("mean", "/latency/mean_ns"),
    ("standard deviation", "/latency/stdev_ns"),
    ("p50", "/latency/p50_ns"),
    ("p90", "/latency/p90_ns"),
    ("p99", "/latency/p99_ns"),
    ("p99.9", "/latency/p999_ns"),
    ("p99.99", "/latency/p9999_ns"),
    ("most", "/latency/max_ns"),
];

fn nines_of(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn points(histogram: &Histogram<u64>, nines: f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        let at = nines_of(step.quantile_iterated_to().min(1.0)).min(nines);
        points.push((at.max(0.0), step.value_iterated_to().min(histogram.max()) as f64));
        if at >= nines {
            break;
        }
    }
    if let Some(last) = points.last_mut() {
        // Where the curve of this run ends.
        *last = ((histogram.len() as f64).log10().min(nines), histogram.max() as f64);
    }
    points
}

/// What is said when a part of the percentile plot is pointed at.
fn hints(curves: &[Curve], nines: f64) -> Vec<(f64, f64, String)> {
    const STRETCHES: u32 = 48;
    (0..STRETCHES)
        .map(|n| {
            let [from, to] = [n, n + 1].map(|n| nines * f64::from(n) / f64::from(STRETCHES));
            let quantile = 1.0 - 10_f64.powf(-f64::midpoint(from, to));
            let mut text = format!("{:.*} %", 2.max(to.ceil() as usize), quantile * 100.0);
            for curve in curves {
                let value = curve.histogram.value_at_quantile(quantile) as f64;
                let _ = write!(text, "\n{}: {}", curve.name, format::time(value));
            }
            (from, to, text)
        })
        .collect()
}

/// Throughput and latency over time.
pub(super) fn over_time(subjects: &[Subject<'_>]) -> io::Result<String> {
    if subjects.iter().all(|subject| subject.run.intervals.len() < 2) {
        return Ok(String::new());
    }
    Ok(format!("<section><h2>Over time</h2>{}{}</section>", throughput(subjects), latency(subjects)?))
}

fn end_s(subjects: &[Subject<'_>]) -> f64 {
    let ends = subjects.iter().filter_map(|subject| subject.run.intervals.last());
    ends.map(|last| last.start_s + last.length_s).fold(0.0, f64::max)
}

fn time_axis(subjects: &[Subject<'_>]) -> Axis {
    Axis::span(end_s(subjects), "time since the beginning", format::seconds_mark)
}

fn throughput(subjects: &[Subject<'_>]) -> String {
    let mut lines = Vec::new();
    let mut most = 0.0_f64;
    for subject in subjects {
        let points: Vec<_> =
            subject.run.intervals.iter().map(|i| (i.start_s + i.length_s / 2.0, i.rate_per_s())).collect();
        most = points.iter().map(|(_, rate)| *rate).fold(most, f64::max);
        lines.push(Line {
            name: format!("{}: right answers a second", subject.run.name),
            colour: subject.index,
            dashed: false,
            filled: subjects.len() == 1,
            points,
        });
    }
    let mut marks = Vec::new();
    if let [subject] = subjects
        && let Some(rate) = subject.run.setup.rate_per_s
    {
        most = most.max(rate);
        marks.push((rate, format!("intended {}", format::rate(rate))));
    }
    let plot = Plot {
        id: "throughput".to_owned(),
        title: "Throughput".to_owned(),
        about: "Right answers a second in each interval of the run.".to_owned(),
        x: time_axis(subjects),
        y: Axis::linear(most, "answers a second", format::rate_mark),
        cells: Vec::new(),
        lines,
        marks,
        hints: interval_hints(subjects),
        table: interval_table(subjects),
    };
    plot.html()
}

fn latency(subjects: &[Subject<'_>]) -> io::Result<String> {
    let (mut least, mut most) = (u64::MAX, 1);
    let mut lines = Vec::new();
    for subject in subjects {
        let answered = subject.run.intervals.iter().filter(|interval| interval.latency.count > 0);
        let points = |ns: fn(&crate::load::latency::Latency) -> u64| {
            answered
                .clone()
                .map(|i| (i.start_s + i.length_s / 2.0, ns(&i.latency) as f64))
                .collect::<Vec<_>>()
        };
        least = answered
            .clone()
            .map(|i| i.latency.p50_ns.min(i.latency.min_ns.saturating_mul(2)))
            .fold(least, u64::min);
        most = answered.clone().map(|i| i.latency.max_ns).fold(most, u64::max);
        let mut line = |name: &str, colour, dashed, points| {
            let name =
                if subjects.len() == 1 { name.to_owned() } else { format!("{}: {name}", subject.run.name) };
            lines.push(Line { name, colour, dashed, filled: false, points });
        };
        if subjects.len() == 1 {
            line("slowest", 1, true, points(|l| l.max_ns));
            line("p99", 3, false, points(|l| l.p99_ns));
            line("median", 0, false, points(|l| l.p50_ns));
        } else {
            line("p99", subject.index, false, points(|l| l.p99_ns));
        }
    }
    let y = Axis::log(least.min(most) as f64, most as f64, "latency", format::time_mark);
    let cells = if let [subject] = subjects { heat(subject, &y)? } else { Vec::new() };
    let about = if subjects.len() == 1 {
        "Each interval's median, 99th percentile and slowest answer; behind them, the darker a field the more answers fell into it."
    } else {
        "The 99th percentile of each interval."
    };
    let plot = Plot {
        id: "latency".to_owned(),
        title: "Latency over time".to_owned(),
        about: about.to_owned(),
        x: time_axis(subjects),
        y,
        cells,
        lines,
        marks: Vec::new(),
        hints: interval_hints(subjects),
        table: interval_table(subjects),
    };
    Ok(plot.html())
}

/// How answers are spread over latency and time.
fn heat(subject: &Subject<'_>, y: &Axis) -> io::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    let thin = subject.run.intervals.len().div_ceil(ROWS_MAX);
    for chunk in subject.run.intervals.chunks(thin) {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
        let mut counts = std::collections::BTreeMap::<i32, u64>::new();
        for interval in chunk {
            let histogram = interval.latency.decode().map_err(crate::load::report::invalid)?;
            for value in histogram.iter_recorded() {
                let step =
                    ((value.value_iterated_to().max(1) as f64).log10() * HEAT_STEPS_PER_DECADE).floor();
                *counts.entry(step as i32).or_default() += value.count_at_value();
            }
        }
        let most = counts.values().copied().max().unwrap_or(1).max(2);
        for (step, count) in counts {
            let edge = |step: i32| 10_f64.powf(f64::from(step) / HEAT_STEPS_PER_DECADE);
            let (low, high) = (edge(step).max(y.min), edge(step + 1).min(y.max));
            if low < high {
                // By logarithm, so that one slow answer among a million is still seen.
                let weight = 0.06 + 0.5 * (count as f64).ln_1p() / (most as f64).ln_1p();
                cells.push(Cell { x: (first.start_s, last.start_s + last.length_s), y: (low, high), weight });
            }
        }
    }
    Ok(cells)
}

fn interval_hints(subjects: &[Subject<'_>]) -> Vec<(f64, f64, String)> {
    // All runs are pointed at by the intervals of the longest.
    let Some(longest) = subjects.iter().max_by_key(|subject| subject.run.intervals.len()) else {
        return Vec::new();
    };
    let thin = longest.run.intervals.len().div_ceil(ROWS_MAX).max(1);
    let intervals = longest.run.intervals.iter().step_by(thin);
    intervals
        .map(|interval| {
            let (from, to) = (interval.start_s, interval.start_s + interval.length_s * thin as f64);
            let mut text = format!("{} to {}", format::seconds(from), format::seconds(to));
            for subject in subjects {
                let here = subject.run.intervals.iter().find(|i| i.start_s + i.length_s > from);
                if let Some(i) = here {
                    let l = &i.latency;
                    let [p50, p99, most] = [l.p50_ns, l.p99_ns, l.max_ns].map(|ns| format::time(ns as f64));
                    let rate = format::rate(i.rate_per_s());
                    let _ =
                        write!(text, "\n{}: {rate}, p50 {p50}, p99 {p99}, slowest {most}", subject.run.name);
                }
            }
            (from, to, text)
        })
        .collect()
}

/// Both plots over time stand on the same figures.
fn interval_table(subjects: &[Subject<'_>]) -> String {
    let mut table = String::from("<table><thead><tr>");
    if subjects.len() > 1 {
        table.push_str("<th scope=\"col\">run</th>");
    }
    for name in ["from", "length", "sent", "answered", "p50", "p99", "slowest"] {
        let _ = write!(table, "<th scope=\"col\">{name}</th>");
    }
    table.push_str("</tr></thead><tbody>");
    for subject in subjects {
        let thin = subject.run.intervals.len().div_ceil(ROWS_MAX).max(1);
        for n in (0..subject.run.intervals.len()).step_by(thin) {
            table.push_str("<tr>");
            if subjects.len() > 1 {
                let _ = write!(table, "<th scope=\"row\">{}</th>", subject.name());
            }
            let at = |member: &str| format!("/intervals/{n}/{member}");
            let _ = write!(
                table,
                "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                subject.figure(&at("start_s"), format::seconds),
                subject.figure(&at("length_s"), format::seconds),
                subject.count(&at("counts/sent")),
                subject.count(&at("counts/answered")),
                subject.time(&at("latency/p50_ns")),
                subject.time(&at("latency/p99_ns")),
                subject.time(&at("latency/max_ns")),
            );
        }
        if thin > 1 {
            let _ = write!(
                table,
                "<tr><td colspan=\"8\">One interval in {thin} is shown; all of them are in the JSON.</td></tr>"
            );
        }
    }
    table.push_str("</tbody></table>");
    table
}

/// Searches for the knee.
pub(super) fn knees(subjects: &[Subject<'_>]) -> String {
    let mut out = String::new();
    for subject in subjects {
        let Some(knee) = &subject.run.knee else { continue };
        let mut steps: Vec<_> = knee.steps.iter().collect();
        steps.sort_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
        let points = |ns: fn(&crate::load::latency::Latency) -> u64| {
            let answered = steps.iter().filter(|step| step.latency.count > 0);
            answered.map(|step| (step.rate_per_s, ns(&step.latency) as f64)).collect::<Vec<_>>()
        };
        let lines = vec![
            Line {
                name: "p99".to_owned(),
                colour: 3,
                dashed: false,
                filled: false,
                points: points(|l| l.p99_ns),
            },
            Line {
                name: "median".to_owned(),
                colour: 0,
                dashed: false,
                filled: false,
                points: points(|l| l.p50_ns),
            },
        ];
        let all = lines.iter().flat_map(|line| &line.points).map(|(_, ns)| *ns);
        let bound = knee.p99_ns_max as f64;
        let (least, most) = (all.clone().fold(bound, f64::min), all.fold(bound, f64::max));
        let fastest = steps.iter().map(|step| step.rate_per_s).fold(1.0, f64::max);
        let about = match knee.rate_per_s {
            Some(rate) => format!(
                "The highest rate within the bounds is {} requests a second; what kept it from more: {}.",
                format::count(rate),
                knee.limited_by
            ),
            None => "No rate that was tried stayed within the bounds.".to_owned(),
        };
        let mut table = String::from("<table><thead><tr>");
        for name in ["rate", "answered", "p50", "p99", "without right answer", "schedule kept", ""] {
            let _ = write!(table, "<th scope=\"col\">{name}</th>");
        }
        table.push_str("</tr></thead><tbody>");
        for (n, step) in knee.steps.iter().enumerate() {
            let at = |member: &str| format!("/knee/steps/{n}/{member}");
            let _ = write!(
                table,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                subject.rate(&at("rate_per_s")),
                subject.rate(&at("answered_per_s")),
                subject.time(&at("latency/p50_ns")),
                subject.time(&at("latency/p99_ns")),
                subject.share(&at("loss")),
                if step.kept_schedule { "yes" } else { "no" },
                badge(step.pass),
            );
        }
        table.push_str("</tbody></table>");
        let plot = Plot {
            id: format!("knee-{}", subject.index),
            title: format!("Knee of {}", subject.run.name),
            about,
            x: Axis::linear(fastest, "intended requests a second", format::rate_mark),
            y: Axis::log(least, most, "latency", format::time_mark),
            cells: Vec::new(),
            lines,
            marks: vec![(bound, format!("p99 bound {}", format::time(bound)))],
            hints: Vec::new(),
            table,
        };
        let loss = subject.share("/knee/loss_max");
        let _ = write!(
            out,
            "<section><h2>Knee</h2><p>Highest rate: {}, with p99 at most {} and at most {loss} without a right answer in time.</p>{}</section>",
            subject.rate("/knee/rate_per_s"),
            subject.time("/knee/p99_ns_max"),
            plot.html()
        );
    }
    out
}
