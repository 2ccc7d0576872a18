//! Metrics in Prometheus' text form, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::books::{Books, books};
use super::facts::Facts;
use super::process;
use crate::shard::Counter;
use crate::time::Now;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// Metrics as text, one family after the other.
#[derive(Debug, Default)]
pub struct MetricsText {
    text: String,
    name: String,
}

impl MetricsText {
    /// Begins a family. Each name may be begun once; the samples that follow belong to it.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let (kind, suffix) = match kind {
            Kind::Counter => ("counter", if name.ends_with("_total") { "" } else { "_total" }),
            Kind::Gauge => ("gauge", ""),
        };
        self.name = format!("{name}{suffix}");
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {0} {help}\n# TYPE {0} {kind}\n", self.name);
    }

    /// A value of the family begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{name}=\"{value}\"")
            })
            .collect();
        self.ready(&labels.join(","), value);
    }

    /// A family of one value without labels.
    pub fn single(&mut self, name: &str, help: &str, kind: Kind, value: impl Display) {
        self.family(name, help, kind);
        self.sample(&[], value);
    }

    /// As [`sample`](Self::sample), with labels that are already in their final form.
    fn ready(&mut self, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{} {value}", self.name),
            _ => writeln!(self.text, "{}{{{labels}}} {value}", self.name),
        };
    }
}

/// What falls as well as rises.
const GAUGES: &[&str] = &["request_waiting", "asset_fresh", "asset_listed", "socket_receiving"];

/// What a family of several counters counts, where the counters' own descriptions say less.
const FAMILY_HELP: &[(&str, &str)] = &[
    ("request_received", "Requests taken from the kernel, whatever became of them."),
    ("request_answered", "Requests answered with what they asked for."),
    ("request_refused", "Requests refused, by reason."),
    ("request_waiting", "Requests waiting for a REST price."),
    ("receive_rearmed", "Receives that ended and were armed again, by cause."),
];

/// All metrics of the process.
pub(super) fn render(facts: &Facts, now: Now) -> String {
    let mut text = MetricsText::default();
    shards(&mut text, facts);
    process_facts(&mut text, facts, now);
    stages(&mut text, facts, now);
    facts.write_sources(&mut text);
    text.text
}

fn shards(text: &mut MetricsText, facts: &Facts) {
    // Each shard is read once, so that its books close in every scrape.
    let shards = facts.counters();
    let mut done = Vec::new();
    for counter in Counter::ALL {
        let (name, _) = counter.metric();
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        let help = FAMILY_HELP.iter().find(|(n, _)| *n == name).map_or(counter.help(), |(_, help)| help);
        let kind = if GAUGES.contains(&name) { Kind::Gauge } else { Kind::Counter };
        text.family(&format!("beast_{name}"), help, kind);
        for (index, counters) in shards.iter().enumerate() {
            for member in Counter::ALL.iter().filter(|member| member.metric().0 == name) {
                let labels = member.metric().1;
                let comma = if labels.is_empty() { "" } else { "," };
                text.ready(&format!("shard=\"{index}\"{comma}{labels}"), counters.value(*member));
            }
        }
    }
    text.family(
        "beast_books_difference",
        "Requests received less those answered, refused or waiting; 0 when the books close.",
        Kind::Gauge,
    );
    let all: Vec<Books> = shards.iter().map(books).collect();
    for (index, books) in all.iter().enumerate() {
        text.sample(&[("shard", &index.to_string())], books.difference());
    }
}

fn process_facts(text: &mut MetricsText, facts: &Facts, now: Now) {
    text.family("beast_build_info", "The program's version; always 1.", Kind::Gauge);
    text.sample(&[("version", facts.version)], 1);
    if let Some((engine, reason)) = facts.engine() {
        text.family("beast_engine_info", "The engine in use and why it was chosen; always 1.", Kind::Gauge);
        text.sample(&[("engine", &engine), ("reason", &reason)], 1);
    }
    let started_s = facts.started.unix.ms() / 1_000;
    text.single("process_start_time_seconds", "Unix time of the start.", Kind::Gauge, started_s);
    let uptime_s = now.mono.since(facts.started.mono).as_secs();
    text.single("beast_uptime_seconds", "Time since the start.", Kind::Gauge, uptime_s);
    let kernel = [
        ("process_resident_memory_bytes", "Memory in RAM.", process::resident_bytes()),
        ("process_open_fds", "Open descriptors.", process::open_descriptors()),
        ("process_max_fds", "Most descriptors that may be open.", process::descriptors_max()),
    ];
    for (name, help, value) in kernel {
        if let Some(value) = value {
            text.single(name, help, Kind::Gauge, value);
        }
    }
}

fn stages(text: &mut MetricsText, facts: &Facts, now: Now) {
    let ready = facts.unready(now.mono).is_empty();
    text.single("beast_ready", "1 when the process may get traffic.", Kind::Gauge, u8::from(ready));
    let stages = facts.stages();
    text.family("beast_stage_done", "How much of a stage is there.", Kind::Gauge);
    for stage in &stages {
        text.sample(&[("stage", stage.name)], stage.done);
    }
    text.family("beast_stage_total", "How much of a stage there can be.", Kind::Gauge);
    for stage in &stages {
        text.sample(&[("stage", stage.name)], stage.total);
    }
    let feeds = facts.feeds();
    text.family("beast_feed_connected", "Feed connections that are live.", Kind::Gauge);
    for feed in &feeds {
        text.sample(&[("exchange", &feed.exchange)], feed.connected);
    }
    text.family("beast_feed_wanted", "Feed connections there should be.", Kind::Gauge);
    for feed in &feeds {
        text.sample(&[("exchange", &feed.exchange)], feed.wanted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::admin::{Feed, Stage};
    use crate::shard::{Counters, Published};
    use crate::time::{MonoNs, UnixNs};

    fn facts() -> Arc<Facts> {
        let started = Now { mono: MonoNs(1_000_000_000), unix: UnixNs(1_700_000_000_500_000_000) };
        let facts = Facts::new(started, "1.2.3", Duration::from_secs(10));
        for (received, stale) in [(5, 5), (8, 7)] {
            let published = Published::new();
            let mut counters = Counters::default();
            counters.add(Counter::UdpReceived, received);
            counters.add(Counter::UdpStale, stale);
            published.publish(&counters);
            facts.add_shard(published, started.mono);
        }
        facts.set_engine("portable", "io_uring is off: \"EPERM\"\nin a \\ container");
        facts.set_stage(Stage { name: "feeds", done: 2, needed: 1, total: 7, detail: String::new() });
        facts.set_feeds(vec![Feed { exchange: "okx".into(), connected: 1, wanted: 2 }]);
        facts.add_source(|text| text.single("beast_extra", "Of a source.", Kind::Counter, 3));
        facts
    }

    #[test]
    fn the_form_is_what_a_stranger_reads() {
        let now = Now { mono: MonoNs(4_000_000_000), unix: UnixNs(0) };
        let text = render(&facts(), now);
        let samples = parse(&text);
        let value = |series: &str| samples.get(series).unwrap_or_else(|| panic!("{series}\n{text}")).as_str();
        assert_eq!(value("beast_request_received_total{shard=0,transport=udp}"), "5");
        assert_eq!(value("beast_request_received_total{shard=1,transport=udp}"), "8");
        assert_eq!(value("beast_request_refused_total{reason=stale,shard=1,transport=udp}"), "7");
        assert_eq!(value("beast_books_difference{shard=0}"), "0");
        assert_eq!(value("beast_books_difference{shard=1}"), "1");
        assert_eq!(
            value("beast_engine_info{engine=portable,reason=io_uring is off: \"EPERM\"\nin a \\ container}"),
            "1"
        );
        assert_eq!(value("beast_build_info{version=1.2.3}"), "1");
        assert_eq!(value("process_start_time_seconds{}"), "1700000000");
        assert_eq!(value("beast_uptime_seconds{}"), "3");
        assert_eq!(value("beast_feed_wanted{exchange=okx}"), "2");
        assert_eq!(value("beast_ready{}"), "1");
        assert_eq!(value("beast_extra_total{}"), "3");
        assert!(value("process_resident_memory_bytes{}").parse::<u64>().unwrap() > 0);
        let of_shards = samples.keys().filter(|series| series.contains("shard=1")).count();
        assert_eq!(of_shards, Counter::ALL.len() + 1);
    }

    /// Reads the text form as its specification says, with nothing of the writer's. Series are
    /// shown with their labels unescaped and in order.
    fn parse(text: &str) -> BTreeMap<String, String> {
        let mut samples = BTreeMap::new();
        let mut families = BTreeSet::new();
        let (mut family, mut helped) = (String::new(), String::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(!help.is_empty(), "{line}");
                helped = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, helped, "TYPE follows HELP");
                assert!(kind == "gauge" || (kind == "counter" && name.ends_with("_total")), "{line}");
                assert!(families.insert(name.to_owned()), "{name} twice");
                assert!(
                    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                    "{line}"
                );
                family = name.to_owned();
            } else {
                let rest = line.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} in {family}"));
                let (labels, value) = labels(rest);
                value.parse::<f64>().unwrap();
                let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let series = format!("{family}{{{}}}", pairs.join(","));
                assert!(samples.insert(series, value.to_owned()).is_none(), "{line} twice");
            }
        }
        samples
    }

    fn labels(rest: &str) -> (BTreeMap<String, String>, &str) {
        let mut found = BTreeMap::new();
        let Some(mut rest) = rest.strip_prefix('{') else { return (found, rest.strip_prefix(' ').unwrap()) };
        loop {
            let (name, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("escape {c}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(found.insert(name.to_owned(), value).is_none(), "label {name} twice");
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return (found, rest.strip_prefix("} ").unwrap()),
            }
        }
    }
}
