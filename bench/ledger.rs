//! What does the journal cost? An append to a mapped segment whose pages are there, as a shard makes
//! it before it sends; the same in memory; and reading all of it back, as the drain does.

mod common;

use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use beast::ledger::{Record, RequestId, Segment, Transport};
use beast::load::stats::Median;
use beast::time::UnixNs;
use clap::Parser;
use common::journal::KeptJournal;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, Start};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "ledger", about = "What the journal costs")]
struct Args {
    /// Rounds, of which the median is taken.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Records of a round; at most what one segment holds, because one always lies ready.
    #[arg(long, default_value_t = 125_000)]
    records: u64,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    mapped_ns: f64,
    memory_ns: f64,
    read_ns: f64,
}

/// How long room is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["ledger", "--quick"].map(Into::into).to_vec(),
        Start::Bench(args) => args,
    };
    let args = Args::parse_from(args);
    let machine = Machine::here();
    let cpu = Cpus::first_two().map(|cpus| cpus.server);
    common::end(cpu.and_then(|cpu| measure(&args, machine, cpu)))
}

fn measure(args: &Args, machine: Machine, cpu: Option<usize>) -> io::Result<bool> {
    if !args.json {
        machine.print();
    }
    let (rounds, records) = if args.quick { (2, 1_000) } else { (args.rounds, args.records) };
    let folder = tempfile::tempdir()?;
    let (mut journal, mut mapped) = KeptJournal::open(&folder.path().join("journal"))?;
    let mut memory = Segment::new(1, 0);
    let all = common::pinned(cpu, || {
        let mut all = Vec::new();
        for round in 0..=rounds {
            wait_for_room(&journal, records)?;
            let mapped_ns = append(&mut mapped, records)?;
            let memory_ns = append(&mut memory, records)?;
            let begin = thread_time()?;
            let mut seen = 0;
            journal.read(|_, record| seen += u64::from(black_box(record).key == 42))?;
            let read_ns = per_record(begin, records)?;
            if seen != records {
                return Err(io::Error::other(format!("{seen} of {records} records were read")));
            }
            // The first round only warms up.
            if round > 0 {
                all.push(Round { mapped_ns, memory_ns, read_ns });
            }
        }
        Ok(all)
    })?;
    let figure = |name: &str, of: fn(&Round) -> f64, most: Option<f64>| {
        let most = most.filter(|_| !args.quick);
        Median::of(all.iter().map(of).collect()).map(|m| Figure::new(name, m, "ns", most))
    };
    let figures = [
        figure("append to a mapped segment", |r| r.mapped_ns, Some(15.0)),
        figure("append in memory", |r| r.memory_ns, None),
        figure("read a record back", |r| r.read_ns, None),
    ];
    let figures = figures.into_iter().flatten().collect();
    Ok(Report::new("ledger", machine, all, figures).print(args.json))
}

/// Segments are made by another thread.
fn wait_for_room(journal: &KeptJournal, records: u64) -> io::Result<()> {
    let begin = Instant::now();
    while journal.journal.status().room_records.first().is_none_or(|room| *room < records) {
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("there is no room for {records} records at once")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn append(segment: &mut Segment, records: u64) -> io::Result<f64> {
    let begin = thread_time()?;
    for n in 0..records {
        let id = n.to_le_bytes();
        let record = Record {
            time: UnixNs(1_763_650_000_000_000_000 + n),
            latency_ns: 900,
            key: 42,
            asset: 7,
            assets: 1,
            exchange: 3,
            transport: Transport::UdpV2,
            status: 0,
            request: RequestId::new(black_box(&id)),
        };
        if black_box(segment.append(record)).is_none() {
            return Err(io::Error::other(format!("no room after {n} records")));
        }
    }
    per_record(begin, records)
}

fn per_record(begin: Duration, records: u64) -> io::Result<f64> {
    Ok(thread_time()?.saturating_sub(begin).as_secs_f64() * 1e9 / records as f64)
}

/// Processor time of this thread: what others do on the processor does not count.
fn thread_time() -> io::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}
