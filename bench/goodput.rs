//! Does a shard go on answering when it is asked more than it can? An open loop at once, twice
//! and five times its capacity, which is lowered by a cost an answer has only here. Every request
//! must end in the books: answered, refused, or dropped by the kernel because the socket was full.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use beast::account::Token;
use beast::load::stats::Median;
use beast::load::{Pace, Requests, Tally, UdpLoad, UdpLoadOptions};
use clap::{Parser, ValueEnum};
use common::books::Books;
use common::costly::CostlyShard;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::shard::Io;
use common::{Cpus, fixture};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "goodput", about = "Whether a shard goes on answering when it is asked more than it can")]
struct Args {
    /// Engines, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,portable")]
    io: Vec<Io>,
    /// Protocols, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v2,v1")]
    protocols: Vec<Protocol>,
    /// Offered load, in times the capacity.
    #[arg(long, value_delimiter = ',', default_value = "1,2,5")]
    times: Vec<f64>,
    /// Nanoseconds that an answer costs more than in the product.
    #[arg(long, default_value_t = 15_000)]
    cost_ns: u64,
    /// Rounds, each with all loads.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Measured time of each load, after as much again in which queues fill.
    #[arg(long, default_value_t = 0.7)]
    seconds: f64,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    V1,
    V2,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
struct Run {
    io: Io,
    protocol: Protocol,
    round: usize,
    times: f64,
    /// Requests a second, as they were sent.
    offered_per_s: f64,
    /// Right answers a second.
    answers_per_s: f64,
    latency_us_p50: f64,
    latency_us_p99: f64,
    /// Of this load as a whole, its filling and its end too: sent by the client, and what the server
    /// and its kernel say of them.
    sent: u64,
    answered: u64,
    refused: u64,
    dropped: u64,
    /// `sent` less the other three.
    difference: i64,
}

/// Requests without an answer are given up after this long. A full socket of 32 MiB holds less than a
/// second of requests at the lowered capacity.
const LOST_AFTER: Duration = Duration::from_millis(1_500);

/// Enough that requests given up do not hold back the schedule: 65,536 may be under way on each.
const SOCKETS: usize = 16;

fn main() -> ExitCode {
    common::main(&["goodput", "--quick", "--protocols=v2", "--times=1,5"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (rounds, seconds) = if args.quick { (1, 0.1) } else { (args.rounds, args.seconds) };
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.io {
        for &protocol in &args.protocols {
            let mut these = Vec::new();
            for n in 0..rounds {
                let runs = round(args, cpus, (io, protocol), n, seconds)?;
                if !args.json {
                    runs.iter().for_each(print);
                }
                these.extend(runs);
            }
            figures.extend(self::figures(args, &these));
            all.extend(these);
        }
    }
    let unbalanced = all.iter().filter(|run| run.difference != 0).count();
    let whole = Report::new("goodput", machine, all, figures).print(args.json);
    if unbalanced > 0 {
        return Err(io::Error::other(format!("the books of {unbalanced} loads do not close")));
    }
    Ok(whole)
}

/// All loads on one shard. It stays up in between, so that it also has to recover.
fn round(
    args: &Args,
    cpus: Cpus,
    (io, protocol): (Io, Protocol),
    n: usize,
    seconds: f64,
) -> io::Result<Vec<Run>> {
    let token = Token::generate().map_err(|_| io::Error::other("the machine has no randomness to give"))?;
    let shard = CostlyShard::start(io, Duration::from_nanos(args.cost_ns), &token, cpus.server)?;
    let runs = common::pinned(cpus.client, || {
        let seconds = Duration::from_secs_f64(seconds);
        match protocol {
            Protocol::V1 => loads(args, &shard, (io, protocol, n), seconds, || fixture::v1(&token)),
            Protocol::V2 => loads(args, &shard, (io, protocol, n), seconds, || fixture::v2(&token)),
        }
    });
    shard.leave()?;
    runs
}

fn loads<R: Requests>(
    args: &Args,
    shard: &CostlyShard,
    (io, protocol, round): (Io, Protocol, usize),
    seconds: Duration,
    requests: impl Fn() -> io::Result<R>,
) -> io::Result<Vec<Run>> {
    let closed = Pace::Window(64);
    let (warmed, measured) = load(shard, closed, seconds, requests()?)?;
    let capacity = measured.rate_per_s();
    if capacity < 1.0 {
        return Err(io::Error::other("the shard gives no answers at all"));
    }
    let mut before = Books::closed(&shard.published, Books::default(), warmed.sent)?;
    let mut runs = Vec::new();
    for &times in &args.times {
        let pace = Pace::Rate { per_s: (capacity * times).max(1.0) as u64, in_flight_max: 1 << 16 };
        let (whole, measured) = load(shard, pace, seconds, requests()?)?;
        if whole.wrong + whole.stray + whole.duplicate > 0 {
            return Err(io::Error::other(format!("answers are not what was asked: {whole:?}")));
        }
        let after = Books::closed(&shard.published, before, whole.sent)?;
        let books = after - std::mem::replace(&mut before, after);
        let Books { answered, refused, dropped, .. } = books;
        let quantile = |quantile| measured.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        runs.push(Run {
            io,
            protocol,
            round,
            times,
            offered_per_s: measured.sent as f64 / measured.elapsed.as_secs_f64(),
            answers_per_s: measured.rate_per_s(),
            latency_us_p50: quantile(0.5),
            latency_us_p99: quantile(0.99),
            sent: whole.sent,
            answered,
            refused,
            dropped,
            difference: whole.sent.cast_signed() - books.accounted().cast_signed(),
        });
    }
    Ok(runs)
}

/// Loads the shard: queues fill, then it is measured, then all is waited for. Returns all of it, and
/// the middle.
fn load<R: Requests>(
    shard: &CostlyShard,
    pace: Pace,
    seconds: Duration,
    requests: R,
) -> io::Result<(Tally, Tally)> {
    let options =
        UdpLoadOptions { sockets: SOCKETS, pace, lost_after: LOST_AFTER, ..UdpLoadOptions::new(shard.udp) };
    let mut generator = UdpLoad::open(options, requests)?;
    let mut whole = generator.run(seconds)?;
    let measured = generator.run(seconds)?;
    whole.add(&measured);
    whole.add(&generator.finish()?);
    Ok((whole, measured))
}

fn print(run: &Run) {
    println!(
        "round {:>2}  {:?} {:?} {:>4} times: offered {:>8.1} k/s, answers {:>7.1} k/s, p50 {:>9.0} us, p99 {:>9.0} us; \
         sent {} = answered {} + refused {} + dropped {} + {}",
        run.round,
        run.io,
        run.protocol,
        run.times,
        run.offered_per_s / 1e3,
        run.answers_per_s / 1e3,
        run.latency_us_p50,
        run.latency_us_p99,
        run.sent,
        run.answered,
        run.refused,
        run.dropped,
        run.difference
    );
}

/// For each load, how much more the best load of its round answered: at most 1 / 0.9 times beyond the
/// capacity.
fn figures(args: &Args, runs: &[Run]) -> Vec<Figure> {
    let peak = |round: usize| {
        runs.iter().filter(|r| r.round == round).map(|r| r.answers_per_s).fold(0.0_f64, f64::max)
    };
    let mut figures = Vec::new();
    for &times in &args.times {
        let these: Vec<&Run> = runs.iter().filter(|run| run.times == times).collect();
        let Some(first) = these.first() else { continue };
        let name = format!("{:?} {:?}, {times} times the capacity", first.io, first.protocol);
        let most = (times > 1.0 && !args.quick).then_some(1.0 / 0.9);
        let missing = these.iter().map(|run| peak(run.round) / run.answers_per_s.max(1.0)).collect();
        let goodput = these.iter().map(|run| run.answers_per_s / 1e3).collect();
        let latency = these.iter().map(|run| run.latency_us_p50 / 1e3).collect();
        let figure = |what: &str, values, unit, most| {
            Median::of(values).map(|median| Figure::new(format!("{name}: {what}"), median, unit, most))
        };
        figures.extend(figure("answers", goodput, "k/s", None));
        figures.extend(figure("the peak against it", missing, "times", most));
        figures.extend(figure("latency, median", latency, "ms", None));
    }
    figures
}
