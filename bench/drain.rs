//! How fast does the drain bring the journal into the store? Records are written to a journal first;
//! what is timed is one drain of all of them, on one processor with nothing beside it.

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use beast::backoffice::{Drain, DrainOptions, DrainStatus};
use beast::ledger::{Journal, JournalOptions, Record, RequestId, Segment, Transport};
use beast::load::stats::Median;
use beast::store::{Store, StoreOptions, StoreUrl};
use beast::time::UnixNs;
use clap::Parser;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, pinned};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// 2026-01-01T00:00:00Z, when the records begin.
const BEGIN_NS: u64 = 1_767_225_600_000_000_000;

#[derive(Parser, Debug)]
#[command(name = "drain", about = "How fast the drain brings the journal into the store")]
struct Args {
    /// Records of each run.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// How many of them were made in a second: the more, the more of them share a row.
    #[arg(long, default_value_t = 500_000)]
    per_second: u64,
    /// Keys that made them; 150 assets and the three protocols are asked for in any case.
    #[arg(long, default_value_t = 10)]
    keys: u32,
    /// Runs, each into a store of its own.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Keep the first store and its journal in this folder, which must not be there yet.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// An empty PostgreSQL database in place of SQLite; one run. Its server's time is not ours.
    #[arg(long)]
    store: Option<String>,
    /// Every record becomes a row, too.
    #[arg(long)]
    raw: bool,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// One drain of all records.
#[derive(Debug, Serialize)]
struct Run {
    records: u64,
    rows: u64,
    batches: u64,
    store_bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
}

fn main() -> ExitCode {
    common::main(&["drain", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    if !args.json {
        machine.print();
    }
    let cpus = Cpus::first_two()?;
    let records = if args.quick { 20_000 } else { args.records };
    let count = if args.quick || args.store.is_some() { 1 } else { args.runs };
    let runs = (0..count).map(|n| run(args, cpus, records, n)).collect::<io::Result<Vec<_>>>()?;
    let mut figures = Vec::new();
    let mut figure = |name: &str, unit, target_max, value: fn(&Run) -> f64| {
        if let Some(median) = Median::of(runs.iter().map(value).collect()) {
            figures.push(Figure::new(name, median, unit, target_max));
        }
    };
    let target = (!args.quick && args.store.is_none() && !args.raw).then_some(1_000.0);
    figure("a record drained", "ns", target, |run| run.seconds * 1e9 / run.records as f64);
    figure("processor time of it", "ns", None, |run| run.cpu_seconds * 1e9 / run.records as f64);
    figure("records a second", "M/s", None, |run| run.records as f64 / run.seconds / 1e6);
    figure("records a row", "", None, |run| run.records as f64 / run.rows as f64);
    figure("records a batch", "", None, |run| run.records as f64 / run.batches as f64);
    figure("store for a million records", "MiB", None, |run| {
        run.store_bytes as f64 / (1 << 20) as f64 / (run.records as f64 / 1e6)
    });
    Ok(Report::new("drain", machine, runs, figures).print(args.json))
}

fn run(args: &Args, cpus: Cpus, records: u64, n: usize) -> io::Result<Run> {
    let scratch = tempfile::tempdir()?;
    let folder = match (&args.keep, n) {
        (Some(keep), 0) if keep.exists() => {
            return Err(io::Error::other(format!("{} is there already; name another", keep.display())));
        }
        (Some(keep), 0) => keep.clone(),
        _ => scratch.path().join("data"),
    };
    let store = open_store(args, &folder).map_err(io::Error::other)?;
    let epoch = store.next_epoch().map_err(io::Error::other)?;
    let options = JournalOptions {
        folder: folder.join("journal"),
        segment_bytes: 8 << 20,
        bytes_max: (records * 64).max(1 << 30) * 2,
    };
    let (journal, segments, _) = Journal::open(options, epoch, 2).map_err(io::Error::other)?;
    let journal = Arc::new(journal);
    write(args, &journal, segments, records)?;
    journal.close().map_err(io::Error::other)?;
    let (store, status) = (Arc::new(store), Arc::new(DrainStatus::default()));
    let options = DrainOptions { raw_records: args.raw, ..DrainOptions::default() };
    let mut drain = Drain::new(Arc::clone(&journal), Arc::clone(&store), options, Arc::clone(&status));
    let (seconds, cpu_seconds) = pinned(cpus.server, || {
        let (cpu, wall) = (thread_seconds()?, Instant::now());
        let drained = drain.drain_all().map_err(io::Error::other)?;
        if drained != records {
            return Err(io::Error::other(format!("{drained} records were drained of {records}")));
        }
        Ok((wall.elapsed().as_secs_f64(), thread_seconds()? - cpu))
    })?;
    let counts = status.read(UnixNs(0));
    check(&store, records).map_err(io::Error::other)?;
    let store_bytes = store.usage_bytes().map_err(io::Error::other)?;
    Ok(Run { records, rows: counts.rows, batches: counts.batches, store_bytes, seconds, cpu_seconds })
}

fn open_store(args: &Args, folder: &Path) -> Result<Store, String> {
    let url = match &args.store {
        Some(url) => Some(StoreUrl::parse(url).ok_or("--store needs a URL such as postgres://user@host/db")?),
        None => None,
    };
    Store::open(StoreOptions { url, ..folder.into() }).map_err(|error| error.to_string())
}

/// Writes records of two shards, each half of them.
fn write(args: &Args, journal: &Journal, segments: Vec<Segment>, records: u64) -> io::Result<()> {
    let mut segments = segments;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..records {
        // xorshift: the same records in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The lower of two: some assets are asked for far more often than others.
        let asset = (random % 150).min(random >> 20 & 0xffff_ffff) as u16 % 150;
        let asset = asset.min((random >> 40) as u16 % 150);
        let transport = match random >> 56 & 7 {
            0 => Transport::UdpV1,
            1 | 2 => Transport::Http,
            _ => Transport::UdpV2,
        };
        let record = Record {
            time: UnixNs(BEGIN_NS + n * 1_000_000_000 / args.per_second.max(1)),
            latency_ns: (random >> 8 & 0xffff) as u32,
            key: 1 + (random >> 24) as u32 % args.keys.max(1),
            asset,
            assets: 1,
            exchange: (asset % 7) as u8,
            transport,
            status: 0,
            request: RequestId::new(&n.to_le_bytes()),
        };
        let segment = &mut segments[n as usize % 2];
        if segment.append(record).is_none() {
            journal.keep().map_err(io::Error::other)?;
            let none = || io::Error::other("the journal has no room");
            segment.append(record).ok_or_else(none)?;
        }
        if n % 65_536 == 0 {
            journal.keep().map_err(io::Error::other)?;
            journal.sync().map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn thread_seconds() -> io::Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// Every table must account for every record.
fn check(store: &Store, records: u64) -> Result<(), String> {
    let tables = [
        ("usage_seconds", "requests"),
        ("usage_hours", "requests"),
        ("usage_key_hours", "requests"),
        ("usage_asset_hours", "requests"),
        ("usage_months", "requests"),
        ("drained_records", "records"),
    ];
    for (table, column) in tables {
        let sql = format!("SELECT CAST(coalesce(sum({column}), 0) AS BIGINT) FROM {table}");
        let mut db = store.lend("check the sums").map_err(|error| error.to_string())?;
        let row = db.query_one(&sql, &[]).map_err(|error| error.to_string())?;
        let sum: u64 = row.int(0).map_err(|error| error.to_string())?;
        if sum != records {
            return Err(format!("{table} accounts for {sum} records, not {records}"));
        }
    }
    Ok(())
}
