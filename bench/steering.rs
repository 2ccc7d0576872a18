//! Does it pay to answer a datagram on the core that received it? The whole appliance with a shard on
//! each of two processors and a client on each of them too: over loopback a datagram is received where
//! its sender runs, so both receive, as they would from a card with two queues. Steered by the core and
//! by the kernel's hash of the peer in turn.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use beast::load::measure::lengths;
use beast::load::stats::Median;
use beast::load::{Pace, Tally, UdpLoad, UdpLoadOptions};
use clap::Parser;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::shard::{Io, Send};
use common::subject::{Subject, SubjectArgs, What};
use common::{Cpus, pinned};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "steering", about = "Whether it pays to answer on the core that received")]
struct Args {
    /// Engines, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,portable")]
    io: Vec<Io>,
    /// Requests under way on each of a client's four sockets.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Pairs of runs, by core and by hash, in alternating order.
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

/// One run.
#[derive(Debug, Serialize)]
struct Ran {
    /// Of both clients.
    answers_per_s: f64,
    /// Processor time of the whole server for an answer.
    us_per_answer: f64,
}

/// By core and by hash, side by side.
#[derive(Debug, Serialize)]
struct Pair {
    io: Io,
    cpu: Ran,
    hash: Ran,
}

fn main() -> ExitCode {
    common::main(&["steering", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (pairs, seconds) = if args.quick { (1, 0.05) } else { (args.pairs, args.seconds) };
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.io {
        let mut these = Vec::new();
        for n in 0..pairs {
            let run = |steer| run(args, cpus, io, steer, seconds);
            let pair = if n % 2 == 0 {
                let cpu = run("cpu")?;
                Pair { io, cpu, hash: run("hash")? }
            } else {
                let hash = run("hash")?;
                Pair { io, cpu: run("cpu")?, hash }
            };
            if !args.json {
                println!(
                    "pair {n:>2} {io:?}: by core {:.1} k/s, {:.3} us an answer; by hash {:.1} k/s, {:.3} us",
                    pair.cpu.answers_per_s / 1e3,
                    pair.cpu.us_per_answer,
                    pair.hash.answers_per_s / 1e3,
                    pair.hash.us_per_answer
                );
            }
            these.push(pair);
        }
        let mut figure = |what: &str, unit, value: fn(&Pair) -> f64| {
            if let Some(median) = Median::of(these.iter().map(value).collect()) {
                figures.push(Figure::new(format!("{io:?}: {what}"), median, unit, None));
            }
        };
        figure("server CPU an answer, by core against by hash", "times", |pair| {
            pair.cpu.us_per_answer / pair.hash.us_per_answer
        });
        figure("answers a second, by core against by hash", "times", |pair| {
            pair.cpu.answers_per_s / pair.hash.answers_per_s
        });
        figure("server CPU an answer, by core", "us", |pair| pair.cpu.us_per_answer);
        figure("server CPU an answer, by hash", "us", |pair| pair.hash.us_per_answer);
        all.extend(these);
    }
    Ok(Report::new("steering", machine, all, figures).print(args.json))
}

fn run(args: &Args, cpus: Cpus, io: Io, steer: &str, seconds: f64) -> io::Result<Ran> {
    let subject = SubjectArgs {
        what: What::Beast,
        io: vec![io],
        send: Send::Sendmmsg,
        spin_us: 0,
        server: format!(
            "{} serve --sim --shards 2 --io {{io}} --steer {steer} --listen 127.0.0.1 --udp-port {{udp}} \
             --http-port {{http}} --health-port {{health}} --data {{data}} --set host_check=false",
            env!("CARGO_BIN_EXE_beast")
        ),
        assets: vec!["BTC".to_owned(), "ETH".to_owned()],
    };
    let mut subject = subject.start(io, Cpus { server: None, client: None })?;
    let mut probing = subject.requests_v2();
    lengths(&mut subject.server, &mut probing)?;
    let before = subject.server.cpu()?;
    let tallies = std::thread::scope(|scope| {
        let clients = [cpus.server, cpus.client].map(|cpu| {
            let subject = &subject;
            scope.spawn(move || pinned(cpu, || client(args, subject, seconds)))
        });
        clients.map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let used = subject.server.cpu()?.since(&before);
    let (mut matched, mut rate) = (0, 0.0);
    for tally in tallies {
        let tally = tally?;
        if tally.matched == 0 || tally.wrong + tally.stray + tally.duplicate + tally.refused() > 0 {
            return Err(io::Error::other(format!("the server does not answer as it should: {tally:?}")));
        }
        matched += tally.matched;
        rate += tally.rate_per_s();
    }
    Ok(Ran { answers_per_s: rate, us_per_answer: used.process.as_secs_f64() * 1e6 / matched as f64 })
}

/// One client's whole run: its server's processor time is reckoned over all of it.
fn client(args: &Args, subject: &Subject, seconds: f64) -> io::Result<Tally> {
    let options = UdpLoadOptions {
        sockets: 4,
        pace: Pace::Window(args.window),
        ..UdpLoadOptions::new(subject.server.udp)
    };
    let mut load = UdpLoad::open(options, subject.requests_v2())?;
    let mut whole = load.run(Duration::from_secs_f64(seconds))?;
    whole.add(&load.finish()?);
    Ok(whole)
}
