//! The words and tables of a page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::figure::{Subject, badge};
use super::format::{self, escaped};
use super::plots::PERCENTILES;
use crate::load::machine::Machine;
use crate::load::result::{LoopKind, RunResult};
use crate::time::calendar::date_time;

/// Title, what was done, and the verdict.
pub(super) fn header(subjects: &[Subject<'_>]) -> String {
    let mut out = String::from("<header>");
    if let [subject] = subjects {
        let _ = write!(
            out,
            "<p class=\"kicker\">beast load · {}</p><h1>{}</h1><p class=\"lead\">{}</p><p class=\"chips\">{}</p>",
            escaped(&subject.run.setup.mode),
            subject.name(),
            escaped(&done(subject.run)),
            chips(subject.run)
        );
    } else {
        let _ = write!(
            out,
            "<p class=\"kicker\">beast load · comparison</p><h1>{} runs compared</h1><ul class=\"runs\">",
            subjects.len()
        );
        for subject in subjects {
            let _ = write!(
                out,
                "<li><i class=\"key c{}\"></i><b>{}</b> {} {}</li>",
                subject.index,
                subject.name(),
                escaped(&done(subject.run)),
                chips(subject.run)
            );
        }
        out.push_str("</ul>");
    }
    out.push_str("</header>");
    out
}

/// One sentence about what was done.
fn done(run: &RunResult) -> String {
    let setup = &run.setup;
    let mut text = format!("{} against {} ({})", setup.protocol, setup.target, setup.address);
    match (setup.loop_kind, setup.rate_per_s, setup.window) {
        (LoopKind::Open, Some(rate), _) => {
            let _ = write!(text, ", open loop at {} requests a second", format::count(rate));
        }
        (LoopKind::Open, None, _) => text.push_str(", open loop"),
        (LoopKind::Closed, _, Some(window)) => {
            let _ = write!(text, ", closed loop with {} under way", format::count(window as f64));
        }
        (LoopKind::Closed, _, None) => text.push_str(", closed loop"),
    }
    let things = if setup.protocol == "http" { "connections" } else { "sockets" };
    let _ = write!(
        text,
        ", {} {things} on {} {}, {}, {} UTC",
        format::count(setup.sockets as f64),
        setup.threads,
        if setup.threads == 1 { "thread" } else { "threads" },
        format::seconds(run.duration_s),
        date_time(run.started_unix_ms / 1_000, ' ')
    );
    text
}

fn chips(run: &RunResult) -> String {
    let mut out = String::new();
    if run.interrupted {
        out.push_str("<b class=\"badge warn\">ended early</b> ");
    }
    if !run.criteria.is_empty() {
        out.push_str(badge(run.passed()));
    }
    out
}

/// What must be known before a figure is believed.
pub(super) fn warnings(subjects: &[Subject<'_>]) -> String {
    let mut notes: Vec<String> = Vec::new();
    for Subject { run, .. } in subjects {
        let mut note = |text: String| {
            notes.push(if subjects.len() == 1 { text } else { format!("{}: {text}", run.name) });
        };
        if run.interrupted {
            note("The run was told to stop before its end; this is what ran.".to_owned());
        }
        if run.setup.loop_kind == LoopKind::Closed {
            note(
                "Closed loop: a request leaves when another is answered, so a stalled server is not asked meanwhile. \
                 The rate is a ceiling; the latency is no latency under load."
                    .to_owned(),
            );
        }
        if let Some(schedule) = run.generator.schedule.as_ref().filter(|schedule| !schedule.kept) {
            note(format!(
                "The generator could not keep its own schedule: {} of {} requests left late or not at all. Its figures describe \
                 the generator as much as the server.",
                format::count((schedule.late + schedule.scheduled.saturating_sub(schedule.sent)) as f64),
                format::count(schedule.scheduled as f64)
            ));
        }
        if !run.ledger.balances() {
            note("The ledger does not add up to what was sent.".to_owned());
        }
        if run.ledger.excess > 0 {
            note(format!(
                "More losses were told than there were ({}): others used the same server, or its counters lag.",
                format::count(run.ledger.excess as f64)
            ));
        }
        for text in &run.generator.notes {
            note(text.clone());
        }
    }
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
    format!("<section class=\"notes\" aria-label=\"What to know first\"><ul>{items}</ul></section>")
}

/// The figures that are looked for first.
pub(super) fn summary(subjects: &[Subject<'_>]) -> String {
    match subjects {
        [subject] => tiles(subject) + &criteria(subject),
        several => compared(several),
    }
}

fn tiles(subject: &Subject<'_>) -> String {
    let run = subject.run;
    let what = match run.setup.loop_kind {
        LoopKind::Open => "from the intended send time",
        LoopKind::Closed => "from the send, window full",
    };
    let what = format!("{what}; of answers within {}", format::seconds(run.setup.lost_after_s));
    let loss = format::share(run.counts.loss());
    let tiles = [
        (
            "answers a second",
            format::rate(subject.answers_per_s()),
            format!("{} answered", subject.count("/counts/answered")),
        ),
        ("median", subject.time("/latency/p50_ns"), what.clone()),
        ("p99", subject.time("/latency/p99_ns"), what.clone()),
        ("p99.9", subject.time("/latency/p999_ns"), what.clone()),
        ("slowest", subject.time("/latency/max_ns"), what),
        ("without right answer in time", loss, format!("of {} sent", subject.count("/counts/sent"))),
        (
            "generator's own cost",
            subject.figure("/generator/busy_us_per_exchange", |us| format::time(us * 1e3)),
            format!("an exchange, busy {} of the time", subject.share("/generator/busy")),
        ),
        (
            "server's processor time",
            subject.figure("/server/cpu_us_per_answer", |us| format::time(us * 1e3)),
            "an answer, all its threads".to_owned(),
        ),
    ];
    let mut out = String::from("<section aria-label=\"Summary\"><dl class=\"tiles\">");
    for (name, value, below) in tiles {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd><dd class=\"below\">{below}</dd></div>");
    }
    out.push_str("</dl></section>");
    out
}

fn criteria(subject: &Subject<'_>) -> String {
    if subject.run.criteria.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>What had to hold</h2><div class=\"scroll\"><table class=\"words\"><thead><tr><th scope=\"col\">what</th>\
         <th scope=\"col\">needed</th><th scope=\"col\">found</th><th scope=\"col\"></th></tr></thead><tbody>",
    );
    for criterion in &subject.run.criteria {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&criterion.name),
            escaped(&criterion.needed),
            escaped(&criterion.found),
            badge(criterion.pass)
        );
    }
    out.push_str("</tbody></table></div></section>");
    out
}

/// A column a run, each beside the first.
fn compared(subjects: &[Subject<'_>]) -> String {
    let mut out = String::from(
        "<section><h2>Side by side</h2><div class=\"scroll\"><table><thead><tr><th scope=\"col\"></th>",
    );
    for subject in subjects {
        let _ =
            write!(out, "<th scope=\"col\"><i class=\"key c{}\"></i>{}</th>", subject.index, subject.name());
    }
    out.push_str("</tr></thead><tbody>");
    let first_rate = subjects[0].answers_per_s();
    let mut row = |name: &str, cell: &dyn Fn(&Subject<'_>) -> (String, Option<f64>)| {
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th>");
        let base = cell(&subjects[0]).1;
        for subject in subjects {
            let (text, value) = cell(subject);
            let beside = match (base, value) {
                (Some(base), Some(value)) if subject.index > 0 && base > 0.0 => {
                    format!(" <small>{:+.1} %</small>", (value / base - 1.0) * 100.0)
                }
                _ => String::new(),
            };
            let _ = write!(out, "<td>{text}{beside}</td>");
        }
        out.push_str("</tr>");
    };
    if first_rate > 0.0 {
        row("answers a second", &|s| (format::rate(s.answers_per_s()), Some(s.answers_per_s())));
    }
    row("answered", &|s| (s.count("/counts/answered"), None));
    row("without right answer in time", &|s| (format::share(s.run.counts.loss()), None));
    for (name, path) in PERCENTILES {
        let value = |s: &Subject<'_>| {
            let l = &s.run.latency;
            match path {
                "/latency/p50_ns" => Some(l.p50_ns as f64),
                "/latency/p90_ns" => Some(l.p90_ns as f64),
                "/latency/p99_ns" => Some(l.p99_ns as f64),
                "/latency/p999_ns" => Some(l.p999_ns as f64),
                "/latency/max_ns" => Some(l.max_ns as f64),
                _ => None,
            }
        };
        row(name, &|s| (s.time(path), value(s)));
    }
    row("server's processor time an answer", &|s| {
        let us = s.run.server.cpu_us_per_answer;
        (s.figure("/server/cpu_us_per_answer", |us| format::time(us * 1e3)), us)
    });
    row("loop", &|s| (escaped(s.run.setup.loop_kind.caption()), None));
    out.push_str("</tbody></table></div></section>");
    out
}

/// Levels of a ramp.
pub(super) fn ramps(subjects: &[Subject<'_>]) -> String {
    let mut out = String::new();
    for subject in subjects {
        let Some(ramp) = &subject.run.ramp else { continue };
        let passed = ramp.levels.iter().filter(|level| level.pass).count();
        let _ = write!(
            out,
            "<section><h2>Ramp{}</h2><p>{passed} of {} levels passed. Requests and concurrency were multiplied by {}. Each level is \
             a closed loop.</p><div class=\"scroll\"><table class=\"ramp\"><thead><tr>",
            if subjects.len() == 1 { String::new() } else { format!(" of {}", subject.name()) },
            ramp.levels.len(),
            ramp.scale
        );
        for name in [
            "level",
            "requests",
            "at a time",
            "took",
            "answers a second",
            "answered",
            "p50",
            "p99",
            "slowest",
            "",
        ] {
            let _ = write!(out, "<th scope=\"col\">{name}</th>");
        }
        out.push_str("</tr></thead><tbody>");
        let most = ramp.levels.iter().map(|level| level.rate_per_s).fold(1.0, f64::max);
        for (n, level) in ramp.levels.iter().enumerate() {
            let at = |member: &str| format!("/ramp/levels/{n}/{member}");
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td>\
                 <td class=\"bar\" style=\"--part:{:.1}%\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                level.number,
                subject.count(&at("requests")),
                subject.count(&at("concurrency")),
                subject.figure(&at("duration_s"), format::seconds),
                level.rate_per_s / most * 100.0,
                subject.rate(&at("rate_per_s")),
                subject.count(&at("counts/answered")),
                subject.time(&at("latency/p50_ns")),
                subject.time(&at("latency/p99_ns")),
                subject.time(&at("latency/max_ns")),
                badge(level.pass),
            );
            for criterion in level.criteria.iter().filter(|criterion| !criterion.pass) {
                let _ = write!(
                    out,
                    "<tr class=\"why\"><td></td><td colspan=\"9\">{}: needs {}, found {}</td></tr>",
                    escaped(&criterion.name),
                    escaped(&criterion.needed),
                    escaped(&criterion.found)
                );
            }
        }
        out.push_str("</tbody></table></div></section>");
    }
    out
}

/// What drifted over a long run.
pub(super) fn endurance(subjects: &[Subject<'_>]) -> String {
    let mut out = String::new();
    for subject in subjects.iter().filter(|subject| subject.run.endurance.is_some()) {
        let rows = [
            ("rate", subject.rate("/endurance/rate_per_s")),
            ("share of the knee", subject.share("/endurance/share_of_knee")),
            ("p99, first quarter", subject.time("/endurance/p99_ns_first")),
            ("p99, last quarter", subject.time("/endurance/p99_ns_last")),
            ("p99, change an hour", subject.time("/endurance/p99_ns_per_hour")),
            (
                "server's memory, first quarter",
                subject.figure("/endurance/memory_bytes_first", format::bytes),
            ),
            ("server's memory, last quarter", subject.figure("/endurance/memory_bytes_last", format::bytes)),
            (
                "server's memory, change an hour",
                subject.figure("/endurance/memory_bytes_per_hour", format::bytes),
            ),
        ];
        let _ = write!(
            out,
            "<section><h2>Endurance: {}</h2><div class=\"scroll\"><table><tbody>",
            subject.name()
        );
        for (name, value) in rows {
            let _ = write!(out, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
        }
        out.push_str("</tbody></table></div></section>");
    }
    out
}

/// Lines of the ledger that add up: name, path, and colour of the part in the bar.
const ENDS: [(&str, &str, &str); 9] = [
    ("answered in time", "/ledger/answered", "good"),
    ("refused by the server", "/ledger/refused", "refused"),
    ("answered wrongly", "/ledger/wrong", "bad"),
    ("answered after it was given up", "/ledger/late", "late"),
    ("nobody listened (ICMP, connection refused)", "/ledger/port_closed", "bad"),
    ("dropped by the server's kernel, its socket full", "/ledger/dropped_by_server_kernel", "lost"),
    ("received by the server, not answered", "/ledger/unanswered_by_server", "lost"),
    ("answer dropped by our kernel, our socket full", "/ledger/dropped_by_our_kernel", "lost"),
    ("lost on the way, or for a reason nobody told", "/ledger/lost_on_the_way", "lost"),
];

/// Lines beside the sum.
const BESIDE: [(&str, &str); 6] = [
    ("answered twice", "/counts/duplicate"),
    ("strays: answers to nothing that was asked", "/counts/stray"),
    ("held back: never left, too many under way", "/counts/held_back"),
    ("not taken by our kernel", "/counts/send_failed"),
    ("connections broken and opened again", "/counts/reconnected"),
    ("losses told beyond those there were", "/ledger/excess"),
];

/// Where every request ended.
pub(super) fn ledger(subjects: &[Subject<'_>]) -> String {
    let mut out = String::from("<section><h2>Where every request ended</h2>");
    if let [subject] = subjects {
        out.push_str(&bar(subject.run));
    }
    out.push_str("<div class=\"scroll\"><table class=\"ledger\"><thead><tr><th scope=\"col\">requests</th>");
    for subject in subjects {
        let _ = write!(out, "<th scope=\"col\">{}</th>", subject.name());
    }
    out.push_str("</tr></thead><tbody>");
    for (name, path, _) in ENDS {
        let cells: String =
            subjects.iter().map(|subject| format!("<td>{}</td>", subject.count(path))).collect();
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th>{cells}</tr>");
    }
    out.push_str("<tr class=\"sum\"><th scope=\"row\">= sent</th>");
    for subject in subjects {
        let word = if subject.run.ledger.balances() { "adds up" } else { "does not add up" };
        let _ = write!(
            out,
            "<td>{} <small class=\"{}\">{word}</small></td>",
            subject.count("/ledger/sent"),
            if subject.run.ledger.balances() { "ok" } else { "bad" }
        );
    }
    out.push_str("</tr></tbody><tbody class=\"beside\">");
    for (name, path) in BESIDE {
        let cells: String =
            subjects.iter().map(|subject| format!("<td>{}</td>", subject.count(path))).collect();
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th>{cells}</tr>");
    }
    for (group, name, keys) in [
        ("refused", "refused as", keys(subjects, |run| run.counts.refused.keys().cloned().collect())),
        (
            "statuses",
            "HTTP status",
            keys(subjects, |run| run.counts.statuses.keys().map(u16::to_string).collect()),
        ),
    ] {
        for key in keys {
            let path = format!("/counts/{group}/{}", key.replace('~', "~0").replace('/', "~1"));
            let cells: String =
                subjects.iter().map(|subject| format!("<td>{}</td>", subject.count(&path))).collect();
            let _ = write!(out, "<tr><th scope=\"row\">{name} {}</th>{cells}</tr>", escaped(&key));
        }
    }
    out.push_str("</tbody></table></div>");
    let told: Vec<String> = subjects
        .iter()
        .map(|subject| match &subject.run.ledger.told_by {
            Some(told_by) => format!("{}: the server's side was told by {}", subject.run.name, told_by),
            None => format!("{}: nobody told the server's side", subject.run.name),
        })
        .collect();
    let _ = write!(
        out,
        "<p class=\"small\">{}. A dash is a figure that nobody told.</p></section>",
        escaped(&told.join("; "))
    );
    out
}

fn keys(subjects: &[Subject<'_>], of: fn(&RunResult) -> Vec<String>) -> BTreeSet<String> {
    subjects.iter().flat_map(|subject| of(subject.run)).collect()
}

/// The parts of what was sent, side by side. A part that is there is at least a sliver.
fn bar(run: &RunResult) -> String {
    let ledger = &run.ledger;
    let counts = [
        Some(ledger.answered),
        Some(ledger.refused),
        Some(ledger.wrong),
        Some(ledger.late),
        Some(ledger.port_closed),
        ledger.dropped_by_server_kernel,
        ledger.unanswered_by_server,
        Some(ledger.dropped_by_our_kernel),
        Some(ledger.lost_on_the_way),
    ];
    let mut out = String::from("<div class=\"parts\" aria-hidden=\"true\">");
    for ((name, _, class), count) in ENDS.iter().zip(counts) {
        let Some(count) = count.filter(|count| *count > 0) else { continue };
        let _ = write!(
            out,
            "<span class=\"{class}\" style=\"flex-grow:{count}\" title=\"{name}: {}\"></span>",
            format::count(count as f64)
        );
    }
    out.push_str("</div>");
    out
}

/// What the figures were measured on.
pub(super) fn fingerprint(subjects: &[Subject<'_>]) -> String {
    let mut rows: Vec<(String, Vec<Option<String>>)> = Vec::new();
    let mut row = |name: &str, of: &dyn Fn(&RunResult) -> Option<String>| {
        let cells: Vec<_> = subjects.iter().map(|subject| of(subject.run)).collect();
        if cells.iter().any(Option::is_some) {
            rows.push((name.to_owned(), cells));
        }
    };
    row("command", &|run| Some(run.command.join(" ")));
    let facts: Vec<_> = subjects.iter().map(|subject| machine_facts(&subject.run.machine)).collect();
    let names: Vec<String> = facts.iter().flatten().fold(Vec::new(), |mut names, (name, _)| {
        if !names.contains(name) {
            names.push(name.clone());
        }
        names
    });
    let fact = |facts: &Vec<(String, String)>, wanted: &str| {
        facts.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.clone())
    };
    row("generator's threads on", &|run| Some(list(run.setup.cpus.iter().copied())));
    row("server", &|run| run.server.version.clone());
    row("server's engine", &|run| run.server.engine.clone());
    row("server's shards", &|run| run.server.shards.map(|shards| shards.to_string()));
    row("server's memory, most", &|run| run.server.memory_bytes_max.map(|bytes| format::bytes(bytes as f64)));
    row("given up after", &|run| Some(format::seconds(run.setup.lost_after_s)));
    row("assets", &|run| Some(run.setup.assets.join(", ")).filter(|text| !text.is_empty()));
    for name in names {
        rows.push((name.clone(), facts.iter().map(|facts| fact(facts, &name)).collect()));
    }
    let mut out = String::from(
        "<section><h2>What it was measured on</h2><div class=\"scroll\"><table class=\"facts\"><tbody>",
    );
    if subjects.len() > 1 {
        out.push_str("<tr><th scope=\"col\"></th>");
        for subject in subjects {
            let _ = write!(out, "<th scope=\"col\">{}</th>", subject.name());
        }
        out.push_str("</tr>");
    }
    for (name, cells) in rows {
        let differs = cells.windows(2).any(|pair| pair[0] != pair[1]);
        let _ = write!(
            out,
            "<tr{}><th scope=\"row\">{}</th>",
            if differs { " class=\"differs\"" } else { "" },
            escaped(&name)
        );
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", cell.map_or_else(|| "–".to_owned(), |text| escaped(&text)));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>");
    out
}

/// A machine, line by line; what the kernel does not show is left out.
pub(super) fn machine_facts(machine: &Machine) -> Vec<(String, String)> {
    let mitigations = machine.mitigations.join("; ");
    let facts = [
        ("processor", Some(machine.cpu.clone())),
        ("processors allowed", Some(list(machine.cpus.iter().map(|cpu| Some(*cpu))))),
        ("machine", machine.product.clone()),
        ("memory", machine.memory_bytes.map(|bytes| format::bytes(bytes as f64))),
        ("kernel", Some(machine.kernel.clone())),
        (
            "frequency governor",
            Some(machine.governor.clone().unwrap_or_else(|| "not shown by the kernel".to_owned())),
        ),
        ("load when it began", Some(machine.load_average.clone())),
        ("mitigations", Some(if mitigations.is_empty() { "none needed".to_owned() } else { mitigations })),
    ];
    let facts = facts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
    facts.chain(machine.sysctls.clone()).collect()
}

fn list(cpus: impl Iterator<Item = Option<usize>>) -> String {
    cpus.map(|cpu| cpu.map_or_else(|| "not pinned".to_owned(), |cpu| cpu.to_string()))
        .collect::<Vec<_>>()
        .join(", ")
}
