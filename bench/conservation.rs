//! Do the books close whatever the load? An open loop at a half, once, twice and five times the
//! capacity, which is lowered by a cost an answer has only here, on a shard with a journal on disk.
//! Of every load, `sent = answered + refused + dropped by the kernel`, and the journal holds one
//! record for each answer, under the id of a request that was sent, none twice.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use beast::account::Token;
use beast::ledger::Transport;
use beast::load::{Pace, Requests, Tally, UdpLoad, UdpLoadOptions};
use clap::Parser;
use common::books::Books;
use common::costly::CostlyShard;
use common::journal::KeptJournal;
use common::shard::Io;
use common::{Cpus, fixture};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "conservation", about = "Whether the books close at any load")]
struct Args {
    /// Engines, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,portable")]
    io: Vec<Io>,
    /// Offered load, in times the capacity.
    #[arg(long, value_delimiter = ',', default_value = "0.5,1,2,5")]
    times: Vec<f64>,
    /// Nanoseconds that an answer costs more than in the product.
    #[arg(long, default_value_t = 8_000)]
    cost_ns: u64,
    /// Requests of a run, over all its loads.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Runs of each engine.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object a load instead of lines.
    #[arg(long)]
    json: bool,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
struct Load {
    io: Io,
    run: usize,
    times: f64,
    sent: u64,
    /// Answers and refusals that reached the client, in time or late.
    received: u64,
    answered: u64,
    refused: u64,
    dropped: u64,
    /// Records of answers, and of refusals, in the journal.
    recorded: u64,
    recorded_refused: u64,
    /// `sent` less answered, refused and dropped.
    difference: i64,
}

/// As in goodput.
const LOST_AFTER: Duration = Duration::from_millis(1_500);
const SOCKETS: usize = 16;

fn main() -> ExitCode {
    common::main(&["conservation", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let cpus = Cpus::first_two()?;
    let (runs, requests) = if args.quick { (1, 20_000) } else { (args.runs, args.requests) };
    let (mut sent, mut wrong) = (0, 0);
    for &io in &args.io {
        for run in 0..runs {
            for load in one_run(args, cpus, (io, run), requests)? {
                print(args, &load)?;
                sent += load.sent;
                let closes = load.difference == 0
                    && load.recorded == load.answered
                    && load.recorded_refused <= load.refused
                    && load.received <= load.answered + load.refused;
                wrong += usize::from(!closes);
            }
        }
    }
    if !args.json {
        println!("{sent} requests sent, {wrong} loads whose books do not close");
    }
    if wrong > 0 {
        return Err(io::Error::other(format!("the books of {wrong} loads do not close")));
    }
    Ok(true)
}

/// All loads of a run on one shard.
fn one_run(args: &Args, cpus: Cpus, (io, run): (Io, usize), requests: u64) -> io::Result<Vec<Load>> {
    let token = Token::generate().map_err(|_| io::Error::other("the machine has no randomness to give"))?;
    let folder = tempfile::tempdir()?;
    let (mut journal, segment) = KeptJournal::open(&folder.path().join("journal"))?;
    let cost = Duration::from_nanos(args.cost_ns);
    let shard = CostlyShard::start_on(segment, io, cost, &token, cpus.server)?;
    let each = requests / args.times.len().max(1) as u64;
    let loads = common::pinned(cpus.client, || {
        let warm_up = Duration::from_millis(if args.quick { 50 } else { 500 });
        let warmed = ask(&shard, Pace::Window(64), warm_up, fixture::v2(&token)?)?;
        let capacity = warmed.rate_per_s();
        if capacity < 1.0 {
            return Err(io::Error::other("the shard gives no answers at all"));
        }
        let mut before = Books::closed(&shard.published, Books::default(), warmed.sent)?;
        journal.read(|_, _| {})?;
        let mut loads = Vec::new();
        for &times in &args.times {
            let per_s = (capacity * times).max(1.0) as u64;
            let tally = ask_for(&shard, per_s, each, fixture::v2(&token)?)?;
            if tally.wrong + tally.stray + tally.duplicate > 0 {
                return Err(io::Error::other(format!("answers are not what was asked: {tally:?}")));
            }
            let after = Books::closed(&shard.published, before, tally.sent)?;
            let books = after - std::mem::replace(&mut before, after);
            let (recorded, recorded_refused) = count(&mut journal)?;
            loads.push(Load {
                io,
                run,
                times,
                sent: tally.sent,
                received: tally.matched + tally.refused() + tally.late,
                answered: books.answered,
                refused: books.refused,
                dropped: books.dropped,
                recorded,
                recorded_refused,
                difference: tally.sent.cast_signed() - books.accounted().cast_signed(),
            });
        }
        Ok(loads)
    });
    shard.leave()?;
    loads
}

/// So many requests at that rate, however long a busy machine takes to send them.
fn ask_for<R: Requests>(shard: &CostlyShard, per_s: u64, requests: u64, kind: R) -> io::Result<Tally> {
    let mut generator = generator(shard, Pace::Rate { per_s, in_flight_max: 1 << 16 }, kind)?;
    let mut tally = Tally::new();
    while tally.sent < requests {
        let seconds = (requests - tally.sent) as f64 / per_s as f64;
        tally.add(&generator.run(Duration::from_secs_f64(seconds).max(Duration::from_millis(1)))?);
    }
    tally.add(&generator.finish()?);
    Ok(tally)
}

fn ask<R: Requests>(shard: &CostlyShard, pace: Pace, time: Duration, requests: R) -> io::Result<Tally> {
    let mut generator = generator(shard, pace, requests)?;
    let mut tally = generator.run(time)?;
    tally.add(&generator.finish()?);
    Ok(tally)
}

fn generator<R: Requests>(shard: &CostlyShard, pace: Pace, requests: R) -> io::Result<UdpLoad<R>> {
    let options =
        UdpLoadOptions { sockets: SOCKETS, pace, lost_after: LOST_AFTER, ..UdpLoadOptions::new(shard.udp) };
    UdpLoad::open(options, requests)
}

/// New records of answers and of refusals in the journal.
fn count(journal: &mut KeptJournal) -> io::Result<(u64, u64)> {
    let (mut ids, mut refused, mut foreign) = (Vec::new(), 0_u64, 0_u64);
    journal.read(|_, record| {
        foreign += u64::from(record.transport != Transport::UdpV2);
        if record.is_answer() {
            ids.push(record.request.as_bytes().to_vec());
        } else {
            refused += 1;
        }
    })?;
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    if foreign > 0 || ids.len() != count {
        return Err(io::Error::other(format!(
            "{count} records of {} requests, {foreign} foreign",
            ids.len()
        )));
    }
    Ok((count as u64, refused))
}

fn print(args: &Args, load: &Load) -> io::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(load)?);
        return Ok(());
    }
    let Load { io, run, times, sent, answered, refused, dropped, difference, recorded, received, .. } = load;
    println!(
        "run {run:>2}  {io:?} {times:>4} times: sent {sent} = answered {answered} + refused {refused} + dropped \
         {dropped} + {difference}; recorded {recorded}, received {received}"
    );
    Ok(())
}
