//! The page of `beast prove`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use serde_json::Value;

use super::figure::{badge, figure};
use super::format::{self, escaped};
use super::plots::{Curve, percentile_plot};
use super::sections::machine_facts;
use crate::load::report::verdict::{Failed, Unit, Verdict};
use crate::time::calendar::date_time;

/// A verdict as a self-contained page.
///
/// # Errors
/// `InvalidData` when a histogram cannot be decoded.
pub fn verdict_page(verdict: &Verdict) -> io::Result<String> {
    let document = serde_json::to_value(verdict)?;
    let mut body = header(verdict);
    body.push_str(&failures(verdict));
    body.push_str(&notes(verdict));
    body.push_str(&throughput(verdict, &document));
    body.push_str(&targets(verdict, &document));
    body.push_str(&under_load(verdict, &document)?);
    body.push_str(&books(verdict, &document));
    body.push_str(&elsewhere(verdict));
    body.push_str(&machine(verdict));
    Ok(super::document("beast prove", "verdict.json", &verdict.schema, &body))
}

fn header(verdict: &Verdict) -> String {
    let (reached, all) = verdict.reached();
    let class = if verdict.passed() { "pass" } else { "fail" };
    let word = match (verdict.passed(), verdict.interrupted) {
        (true, _) => "proved",
        (false, true) => "ended early",
        (false, false) => "not proved",
    };
    let cpus = match (verdict.server_cpu, verdict.client_cpu) {
        (Some(server), Some(client)) => {
            format!("the server on processor {server}, the generator on {client}")
        }
        _ => "server and generator not pinned".to_owned(),
    };
    format!(
        "<header><p class=\"kicker\">beast prove{}</p><h1><b class=\"badge verdict {class}\">{word}</b> {reached} of {all} targets \
         reached</h1><p class=\"lead\">beast {} on this machine, {cpus}; {} UTC, took {}.</p></header>",
        if verdict.quick { " · quick" } else { "" },
        escaped(&verdict.version),
        date_time(verdict.started_unix_ms / 1_000, ' '),
        format::seconds(verdict.took_s)
    )
}

fn failures(verdict: &Verdict) -> String {
    if verdict.failures.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>What failed</h2><div class=\"scroll\"><table class=\"words\"><thead><tr><th scope=\"col\">what</th>\
         <th scope=\"col\">why</th><th scope=\"col\"></th></tr></thead><tbody>",
    );
    for Failed { what, why } in &verdict.failures {
        let (what, why) = (escaped(what), escaped(why));
        let _ = write!(out, "<tr><th scope=\"row\">{what}</th><td>{why}</td><td>{}</td></tr>", badge(false));
    }
    out.push_str(END);
    out.push_str("</section>");
    out
}

fn notes(verdict: &Verdict) -> String {
    if verdict.notes.is_empty() {
        return String::new();
    }
    let items: String = verdict.notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
    format!("<section class=\"notes\" aria-label=\"What to know first\"><ul>{items}</ul></section>")
}

fn head(names: &[&str]) -> String {
    let cells: String = names.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    format!("<div class=\"scroll\"><table class=\"figures\"><thead><tr>{cells}</tr></thead><tbody>")
}

const END: &str = "</tbody></table></div>";

fn throughput(verdict: &Verdict, document: &Value) -> String {
    if verdict.throughput.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>One core, beside the source design</h2><p>The source design, a Go service, was measured at 487,900 UDP and \
         369,600 TCP requests a second. Read as one node of 8 processors that is 61,000 and 46,000 for a processor; read as \
         three such nodes, a third of that. Passing means reaching the higher reading. Here one shard on one processor is \
         asked in a closed loop: a ceiling, and where the generator was the limit, a lower bound of it.</p>",
    );
    out.push_str(&head(&[
        "",
        "answers a second",
        "95 % interval",
        "server busy",
        "generator busy",
        "source, 1 node",
        "times",
        "source, 3 nodes",
        "times",
        "",
    ]));
    for (n, entry) in verdict.throughput.iter().enumerate() {
        let at = |member: &str, text: fn(f64) -> String| {
            figure(document, 0, &format!("/throughput/{n}/{member}"), text)
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td><b>{}</b></td><td>{} – {}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td>\
             <td>{:.1}</td><td>{}</td></tr>",
            escaped(&entry.what),
            at("answers_per_s/value", format::rate),
            at("answers_per_s/low", format::rate),
            at("answers_per_s/high", format::rate),
            at("server_busy", format::share),
            at("client_busy", format::share),
            at("source/one_node", format::rate),
            entry.answers_per_s.value / entry.source.one_node,
            at("source/three_nodes", format::rate),
            entry.answers_per_s.value / entry.source.three_nodes,
            badge(entry.pass)
        );
    }
    out.push_str(END);
    out.push_str("</section>");
    out
}

fn unit(unit: Unit) -> fn(f64) -> String {
    match unit {
        Unit::Times => format::times,
        Unit::Ns => format::time,
        Unit::Share => format::share,
    }
}

fn targets(verdict: &Verdict, document: &Value) -> String {
    if verdict.figures.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>Against the floor</h2><p>The floor is the least this machine lets a server do: a bare <code>recvmmsg</code>/\
         <code>sendmmsg</code> echo for UDP, a bare ring responder for HTTP, with the same lengths and the same generator, in turn \
         with the server. Medians with the interval that holds the true one in 95 of 100 repetitions.</p>",
    );
    out.push_str(&head(&["", "figure", "median", "95 % interval", "at most", ""]));
    let mut last = "";
    for (n, entry) in verdict.figures.iter().enumerate() {
        let text = unit(entry.unit);
        let at = |member: &str| figure(document, 0, &format!("/figures/{n}/{member}"), text);
        let what = if entry.what == last { String::new() } else { escaped(&entry.what) };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{what}</th><td class=\"left\">{}</td><td><b>{}</b></td><td>{} – {}</td><td>{}</td><td>{}</td></tr>",
            escaped(&entry.name),
            at("median/value"),
            at("median/low"),
            at("median/high"),
            at("target_max"),
            entry.pass.map_or("", badge)
        );
        last = &entry.what;
    }
    out.push_str(END);
    out.push_str("</section>");
    out
}

fn under_load(verdict: &Verdict, document: &Value) -> io::Result<String> {
    if verdict.under_load.is_empty() {
        return Ok(String::new());
    }
    let mut out = String::from(
        "<section><h2>Latency under load</h2><p>An open loop at 50, 70 and 90 % of the knee, which is the highest rate with p99 within \
         the bound and every request rightly answered in time. Latency counts from the time a request should have left, so that a stall of server or \
         generator shows in every request it delays.</p>",
    );
    out.push_str(&head(&[
        "",
        "of the knee",
        "rate",
        "answered",
        "p50",
        "p99",
        "p99.9",
        "slowest",
        "without right answer",
        "p99 at most",
        "",
    ]));
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (n, entry) in verdict.under_load.iter().enumerate() {
        let first = verdict.under_load.iter().position(|other| other.what == entry.what).unwrap_or(n);
        groups.entry(first).or_default().push(n);
        let at = |member: &str, text: fn(f64) -> String| {
            figure(document, 0, &format!("/under_load/{n}/{member}"), text)
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}{}</td></tr>",
            if first == n { escaped(&entry.what) } else { String::new() },
            at("share_of_knee", format::share),
            at("rate_per_s", format::rate),
            at("answers_per_s", format::rate),
            at("latency/p50_ns", format::time),
            at("latency/p99_ns", format::time),
            at("latency/p999_ns", format::time),
            at("latency/max_ns", format::time),
            at("loss", format::share),
            at("p99_ns_max", format::time),
            if entry.kept_schedule { "" } else { "<b class=\"badge warn\">generator late</b> " },
            badge(entry.pass)
        );
    }
    out.push_str(END);
    for (first, members) in groups {
        let mut curves = Vec::new();
        for (colour, n) in [2, 0, 1].into_iter().cycle().zip(members) {
            let entry = &verdict.under_load[n];
            curves.push(Curve {
                name: format!(
                    "{} of the knee, {} intended",
                    format::share(entry.share_of_knee),
                    format::rate(entry.rate_per_s)
                ),
                colour,
                histogram: entry.latency.decode().map_err(crate::load::report::invalid)?,
            });
        }
        let table = "<p>These figures stand in the table above.</p>".to_owned();
        let title = &verdict.under_load[first].what;
        out.push_str(
            &percentile_plot(&format!("load-{first}"), title, &curves, table)
                .map_or_else(String::new, |plot| plot.html()),
        );
    }
    out.push_str("</section>");
    Ok(out)
}

fn books(verdict: &Verdict, document: &Value) -> String {
    if verdict.books.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>The books</h2><p>Every request ends in exactly one counter: what the generator sent is what the server received \
         and what its kernel dropped, and what it received is what it answered, refused and still had waiting.</p>",
    );
    out.push_str(&head(&[
        "",
        "sent",
        "received",
        "dropped",
        "answered",
        "refused",
        "waiting",
        "answers seen",
        "",
    ]));
    for (n, entry) in verdict.books.iter().enumerate() {
        let at = |member: &str| figure(document, 0, &format!("/books/{n}/{member}"), format::count);
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&entry.what),
            at("sent"),
            at("received"),
            at("dropped"),
            at("answered"),
            at("refused"),
            at("waiting"),
            at("seen"),
            badge(entry.pass)
        );
    }
    out.push_str(END);
    out.push_str("</section>");
    out
}

fn elsewhere(verdict: &Verdict) -> String {
    if verdict.elsewhere.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>Measured elsewhere</h2><p>Targets that this command does not measure.</p>",
    );
    out.push_str("<div class=\"scroll\"><table class=\"facts\"><tbody>");
    for entry in &verdict.elsewhere {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
            escaped(&entry.what),
            escaped(&entry.target),
            escaped(&entry.command)
        );
    }
    out.push_str(END);
    out.push_str("</section>");
    out
}

fn machine(verdict: &Verdict) -> String {
    let mut out = String::from(
        "<section><h2>What it was measured on</h2><div class=\"scroll\"><table class=\"facts\"><tbody>",
    );
    let command = ("command".to_owned(), verdict.command.join(" "));
    for (name, text) in std::iter::once(command).chain(machine_facts(&verdict.machine)) {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(&name), escaped(&text));
    }
    out.push_str(END);
    out.push_str("</section>");
    out
}
