//! How long does one lone request take? One request in flight against a bare spinning loop, and
//! against the shard (or the whole appliance) that spins as long as it is told to.

mod common;

use std::io;
use std::process::ExitCode;

use beast::load::Echo;
use beast::load::measure::{Load, Run, lengths, run};
use beast::load::stats::Median;
use beast::wire::v2;
use clap::Parser;
use common::floor::Wait;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::shard::Io;
use common::subject::SubjectArgs;
use common::{Cpus, floor};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "rtt", about = "How long one lone request takes against a bare spinning loop")]
struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Pairs of runs, floor and server, in alternating order.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Measured time of a run.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// A floor run and a server run side by side.
#[derive(Debug, Serialize)]
struct Pair {
    io: Io,
    floor: Run,
    server: Run,
    latency_ratio: f64,
}

fn main() -> ExitCode {
    common::main(&["rtt", "--quick", "--what=shard", "--spin-us=50"], measure)
}

fn target_max(io: Io) -> f64 {
    match io {
        Io::Uring => 1.25,
        Io::Portable => 1.1,
    }
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (pairs, seconds) = if args.quick { (1, 0.05) } else { (args.pairs, args.seconds) };
    let load = Load { sockets: 1, window: 1, seconds };
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.subject.io {
        let these = (0..pairs).map(|n| pair(args, cpus, load, io, n)).collect::<io::Result<Vec<_>>>()?;
        let mut figure = |what: &str, unit, target_max, value: fn(&Pair) -> f64| {
            if let Some(median) = Median::of(these.iter().map(value).collect()) {
                figures.push(Figure::new(format!("{io:?} v2: {what}"), median, unit, target_max));
            }
        };
        let target = (!args.quick).then_some(target_max(io));
        figure("median round trip against a bare spinning loop", "times", target, |p| p.latency_ratio);
        figure("median round trip", "us", None, |p| p.server.latency_us_p50);
        figure("99th percentile", "us", None, |p| p.server.latency_us_p99);
        figure("floor's median round trip", "us", None, |p| p.floor.latency_us_p50);
        figure("floor's 99th percentile", "us", None, |p| p.floor.latency_us_p99);
        all.extend(these);
    }
    Ok(Report::new("rtt", machine, all, figures).print(args.json))
}

fn pair(args: &Args, cpus: Cpus, load: Load, io: Io, n: usize) -> io::Result<Pair> {
    let floor_run = || {
        let server = floor::start(v2::ANSWER_LEN, Wait::Spin, cpus.server)?;
        run("floor", &server, cpus, load, Echo::new(v2::ANSWER_LEN, v2::ANSWER_LEN))
    };
    let server_run = || {
        let mut subject = args.subject.start(io, cpus)?;
        let mut probing = subject.requests_v2();
        lengths(&mut subject.server, &mut probing)?;
        run("server", &subject.server, cpus, load, subject.requests_v2())
    };
    let (floor, server) = if n.is_multiple_of(2) {
        let floor = floor_run()?;
        (floor, server_run()?)
    } else {
        let server = server_run()?;
        (floor_run()?, server)
    };
    let latency_ratio = server.latency_us_p50 / floor.latency_us_p50;
    Ok(Pair { io, floor, server, latency_ratio })
}
