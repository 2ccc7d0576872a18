//! How long does a page of a report take when ten million records have been drained? Fills a store of
//! either shape with their roll-ups, then asks for pages of every report, first, last and in the middle,
//! with every kind of filter.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use beast::config::Config;
use beast::ledger::ChainId;
use beast::report::{Cell, Format, Reports, Scope, Which};
use beast::store::{
    ChainStep, Histogram, NewKey, Store, StoreOptions, UsageBatch, UsageOf, UsageRow, UsageSums,
};
use beast::time::{Clock as _, MonoNs, Now, RealClock, UnixNs};
use clap::Parser;
use common::Start;

/// Measures pages of reports.
#[derive(Debug, Parser)]
struct Args {
    /// Records whose roll-ups the store holds
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Records of one second; fewer make more rows of the same records
    #[arg(long, default_value_t = 20_000)]
    per_second: u64,
    /// Keys that use the service
    #[arg(long, default_value_t = 20)]
    keys: u32,
    /// Times each page is asked for
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Few records, to see whether it runs
    #[arg(long)]
    quick: bool,
    /// PostgreSQL database to fill and ask instead of an SQLite file
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// One object instead of lines
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["reports", "--quick"].map(Into::into).to_vec(),
        Start::Bench(args) => args,
    };
    common::end(measure(Args::parse_from(args)).map(|()| true))
}

fn measure(mut args: Args) -> Result<(), Box<dyn std::error::Error>> {
    if args.quick {
        (args.records, args.rounds) = (30_000, 1);
    }
    let folder = tempfile::tempdir()?;
    let options = StoreOptions {
        url: args.store.as_deref().map(|url| beast::store::StoreUrl::parse(url).ok_or(url)).transpose()?,
        ..folder.path().into()
    };
    let store = Arc::new(Store::open(options)?);
    let keys = make_keys(&store, args.keys)?;
    let begin = Instant::now();
    let filled = fill(&store, &args)?;
    let (seconds, hours) = (count(&store, "usage_seconds")?, count(&store, "usage_hours")?);
    if !args.json {
        println!(
            "{} records in {seconds} rows by second and {hours} by hour; filled in {:.0} s, {} MiB",
            filled.records,
            begin.elapsed().as_secs_f64(),
            size_mib(folder.path())
        );
    }
    let catalogue = (*beast::appliance::feed_setup(&Config::default(), None)?.catalogue).clone();
    let reports = Reports::new(store, folder.path().join("journal"), catalogue, None);
    let now = Now { mono: MonoNs(1), unix: UnixNs(filled.end_s * 1_000_000_000) };
    let mut results = BTreeMap::new();
    for (name, which, scope, query) in pages(&filled, &keys[0]) {
        let parameters = parsed(&query);
        let mut times_us = Vec::new();
        let mut rows = 0;
        for _ in 0..args.rounds {
            let begin = Instant::now();
            let report = reports.report(which, &parameters, scope, now)?;
            let text = report.write(Format::Json);
            times_us.push(u64::try_from(begin.elapsed().as_micros())?);
            rows = report.page.table.rows.len();
            assert!(!text.is_empty());
            if (which, scope) == (Which::Summary, Scope::All) {
                let whole = Cell::Number(filled.records);
                assert_eq!(report.page.table.rows[0].get(2), Some(&whole), "the sum of all");
            }
        }
        times_us.sort_unstable();
        let (median, most) = (times_us[times_us.len() / 2], times_us[times_us.len() - 1]);
        if !args.json {
            println!("{name:<34} {rows:>6} rows  median {:>7.1} ms  most {:>7.1} ms", ms(median), ms(most));
        }
        results.insert(name, serde_json::json!({"rows": rows, "median_us": median, "max_us": most}));
    }
    if args.json {
        let all = serde_json::json!({
            "records": filled.records, "rows_by_second": seconds, "rows_by_hour": hours, "pages": results,
        });
        println!("{all}");
    }
    Ok(())
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

fn make_keys(store: &Store, count: u32) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut keys = Vec::new();
    for _ in 0..count {
        let new = NewKey {
            account: "bench".to_owned(),
            tier: "stress".to_owned(),
            networks: Vec::new(),
            note: String::new(),
            admin: false,
            expires: None,
        };
        keys.push(beast::account::public_text(store.add_key(&new)?.public_id()));
    }
    Ok(keys)
}

/// What was filled in.
struct Filled {
    records: u64,
    begin_s: u64,
    end_s: u64,
}

/// Rolls up records of so many a second: busy keys and assets more than others.
fn fill(store: &Store, args: &Args) -> Result<Filled, Box<dyn std::error::Error>> {
    let seconds = args.records.div_ceil(args.per_second).max(1);
    let end_s = RealClock.now().unix.ms() / 1_000;
    let begin_s = end_s - seconds;
    let mut random = Random(7);
    let chain = ChainId { epoch: 1, shard: 0 };
    let (mut done, mut pending) = (0, BTreeMap::<(u64, UsageOf), UsageSums>::new());
    for second in 0..seconds {
        let of_second = args.per_second.min(args.records - second * args.per_second);
        for _ in 0..of_second {
            let asset = 1 + u16::try_from(random.skewed(150))?;
            let of = UsageOf {
                key: 1 + u32::try_from(random.skewed(u64::from(args.keys)))?,
                asset,
                // Its first exchange, and now and then the one that stands in.
                exchange: u8::try_from(1 + (u64::from(asset) + u64::from(random.below(50) == 0)) % 7)?,
                transport: 1 + u8::try_from(random.below(3))?,
                status: if random.below(1_000) == 0 { 6 } else { 0 },
            };
            let latency_ns = 1_000 + random.skewed(100_000);
            let mut latency = Histogram::default();
            latency.add(latency_ns);
            let one = UsageSums {
                requests: 1,
                prices: 1,
                latency_ns_sum: latency_ns,
                latency_ns_max: latency_ns,
                latency,
            };
            pending.entry((begin_s + second, of)).or_default().merge(&one);
        }
        if pending.len() >= 50_000 || second + 1 == seconds {
            let rows =
                pending.iter().map(|((time, of), sums)| UsageRow { time: *time, of: *of, sums: *sums });
            let rows: Vec<_> = rows.collect();
            let to = (second + 1) * args.per_second;
            let step = ChainStep { chain, from: done, to, missing: 0, records: Vec::new() };
            store.add_usage(&UsageBatch { rows, chains: vec![step], raw: Vec::new() })?;
            pending.clear();
            done = to;
        }
    }
    Ok(Filled { records: args.records, begin_s, end_s })
}

const EVERYTHING: &str = "day,hour,key,asset,exchange,transport,status";

/// Every kind of page, with who asks.
fn pages(filled: &Filled, key: &str) -> Vec<(&'static str, Which, Scope, String)> {
    let middle = filled.begin_s + (filled.end_s - filled.begin_s) / 2;
    let last = filled.end_s - 1;
    let all = Scope::All;
    vec![
        ("usage, first page", Which::Usage, all, String::new()),
        ("usage, from the middle", Which::Usage, all, format!("from={middle}")),
        ("usage, last second", Which::Usage, all, format!("from={last}")),
        ("usage, one key's own", Which::Usage, Scope::Key(1), format!("from={middle}")),
        ("usage, admin for one key", Which::Usage, all, format!("key={key}&from={middle}")),
        ("usage, one asset", Which::Usage, all, "asset=BTC".to_owned()),
        ("usage, a rare asset", Which::Usage, all, "asset=#150".to_owned()),
        ("usage, an asset nobody asked for", Which::Usage, all, "asset=#4000".to_owned()),
        ("usage, one exchange", Which::Usage, all, "exchange=#7".to_owned()),
        ("usage, one transport", Which::Usage, all, "transport=http".to_owned()),
        ("usage, refusals", Which::Usage, all, "status=stale".to_owned()),
        ("usage, all filters", Which::Usage, all, format!("key={key}&asset=#90&transport=http&status=ok")),
        ("usage summary by day", Which::UsageSummary, all, String::new()),
        ("usage summary by hour, own key", Which::UsageSummary, Scope::Key(1), "by=hour".to_owned()),
        ("usage summary by key", Which::UsageSummary, all, "by=key".to_owned()),
        ("usage summary by asset, transport", Which::UsageSummary, all, "by=asset,transport".to_owned()),
        ("usage summary by key, asset", Which::UsageSummary, all, "by=key,asset".to_owned()),
        ("usage summary by everything", Which::UsageSummary, all, format!("by={EVERYTHING}")),
        ("usage summary of one exchange", Which::UsageSummary, all, "by=key&exchange=#3".to_owned()),
        ("usage summary of one asset", Which::UsageSummary, all, "by=key&asset=BTC".to_owned()),
        ("summary", Which::Summary, all, String::new()),
        ("summary, one key's own", Which::Summary, Scope::Key(1), String::new()),
        ("detail, empty journal", Which::Detail, all, String::new()),
        ("reconcile, empty journal", Which::Reconcile, all, String::new()),
    ]
}

fn parsed(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn count(store: &Store, table: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let row = store.lend("count")?.query_one(&format!("SELECT count(*) FROM {table}"), &[]);
    Ok(row.and_then(|row| row.int(0)).map_err(|e| io::Error::other(e.to_string()))?)
}

fn size_mib(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum::<u64>() >> 20
}

/// A fixed sequence, so that every run asks the same of the store.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    /// Small numbers far more often than large ones.
    fn skewed(&mut self, bound: u64) -> u64 {
        let (one, two) = (self.below(bound), self.below(bound));
        one.min(two).min(self.below(bound))
    }
}
