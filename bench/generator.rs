//! What does our own generator cost? Loads the bare echo server with it and with the least loop that
//! keeps the same window: `recvmmsg`, then `sendmmsg` of as many. That one knows no ids, no times and
//! no right or wrong.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use beast::load::stats::Median;
use beast::load::{Echo, Pace, UdpLoad, UdpLoadOptions};
use beast::sys::mmsg::{ReceiveBatch, SendBatch};
use beast::sys::net::connect_udp;
use clap::Parser;
use common::child::Server;
use common::floor::{self, Wait};
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, pinned};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "generator", about = "What the load generator costs against the least loop")]
struct Args {
    /// Length of a request, in bytes.
    #[arg(long, default_value_t = 48)]
    request_len: usize,
    /// Length of an answer, in bytes.
    #[arg(long, default_value_t = 64)]
    answer_len: usize,
    /// Sockets that ask.
    #[arg(long, default_value_t = 4)]
    sockets: usize,
    /// Requests under way on each.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Pairs of runs, in alternating order.
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

/// The least loop and the generator, one after the other.
#[derive(Debug, Serialize)]
struct Pair {
    least: Ran,
    generator: Ran,
}

/// One run of either.
#[derive(Debug, Serialize)]
struct Ran {
    answers_per_s: f64,
    /// Processor time of the asking thread for an answer, without the time it found nothing to do.
    us_per_answer: f64,
    busy: f64,
}

/// The generator must reach 0.95 of the least loop's rate.
const RATIO_MAX: f64 = 1.0 / 0.95;

/// Datagrams moved in one call of the kernel, by both.
const BATCH_LEN: usize = 64;

const SOCKET_BUFFER_LEN: usize = 4 << 20;

fn main() -> ExitCode {
    common::main(&["generator", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (count, seconds) = if args.quick { (1, 0.05) } else { (args.pairs, args.seconds) };
    let mut pairs = Vec::new();
    for n in 0..count {
        let (mut first, mut second) = (None, None);
        // Who goes first alternates.
        for turn in 0..2 {
            let server = floor::start(args.answer_len, Wait::Block, cpus.server)?;
            if (n + turn) % 2 == 0 {
                first = Some(pinned(cpus.client, || least(args, &server, seconds))?);
            } else {
                second = Some(pinned(cpus.client, || generator(args, &server, seconds))?);
            }
        }
        if let (Some(least), Some(generator)) = (first, second) {
            if !args.json {
                println!(
                    "pair {n:>2}  least loop {:>7.1} k/s, {:.3} us; generator {:>7.1} k/s, {:.3} us an answer, {:.0} % busy",
                    least.answers_per_s / 1e3,
                    least.us_per_answer,
                    generator.answers_per_s / 1e3,
                    generator.us_per_answer,
                    generator.busy * 100.0
                );
            }
            pairs.push(Pair { least, generator });
        }
    }
    let figure = |name: &str, unit, most, value: fn(&Pair) -> f64| {
        let median = Median::of(pairs.iter().map(value).collect())?;
        Some(Figure::new(name, median, unit, most))
    };
    let most = (!args.quick).then_some(RATIO_MAX);
    let ratio = |pair: &Pair| pair.least.answers_per_s / pair.generator.answers_per_s;
    let figures = [
        figure("least loop's answers a second over the generator's", "times", most, ratio),
        figure("generator's answers", "k/s", None, |pair| pair.generator.answers_per_s / 1e3),
        figure("least loop's answers", "k/s", None, |pair| pair.least.answers_per_s / 1e3),
        figure("generator's own CPU an exchange", "us", None, |pair| pair.generator.us_per_answer),
        figure("least loop's own CPU an exchange", "us", None, |pair| pair.least.us_per_answer),
        figure("generator busy", "of 1", None, |pair| pair.generator.busy),
    ];
    let figures = figures.into_iter().flatten().collect();
    Ok(Report::new("generator", machine, pairs, figures).print(args.json))
}

fn generator(args: &Args, server: &Server, seconds: f64) -> io::Result<Ran> {
    let options = UdpLoadOptions {
        sockets: args.sockets,
        pace: Pace::Window(args.window),
        batch_len: BATCH_LEN,
        socket_buffer_len: SOCKET_BUFFER_LEN,
        ..UdpLoadOptions::new(server.udp)
    };
    let mut load = UdpLoad::open(options, Echo::new(args.request_len, args.answer_len))?;
    let mut whole = load.run(Duration::from_secs_f64(seconds / 4.0))?;
    let measured = load.run(Duration::from_secs_f64(seconds))?;
    whole.add(&measured);
    whole.add(&load.finish()?);
    if whole.matched == 0 || whole.matched != whole.sent {
        return Err(io::Error::other(format!("the bare echo does not answer as it should: {whole:?}")));
    }
    let answers = measured.matched.max(1) as f64;
    Ok(Ran {
        answers_per_s: measured.rate_per_s(),
        us_per_answer: measured.cpu.as_secs_f64() * measured.busy() * 1e6 / answers,
        busy: measured.busy(),
    })
}

/// The least that keeps a window: what came back goes out again.
fn least(args: &Args, server: &Server, seconds: f64) -> io::Result<Ran> {
    let mut received = ReceiveBatch::payload_only(BATCH_LEN);
    let mut outgoing = SendBatch::new(BATCH_LEN);
    let open = |_| connect_udp(server.udp, SOCKET_BUFFER_LEN);
    let sockets = (0..args.sockets.max(1)).map(open).collect::<io::Result<Vec<_>>>()?;
    let mut send = |socket, mut count: usize| -> io::Result<()> {
        while count > 0 {
            for _ in 0..count.min(outgoing.free()) {
                outgoing.push_connected(args.request_len);
                count -= 1;
            }
            while !outgoing.is_empty() {
                outgoing.send(socket)?;
            }
        }
        Ok(())
    };
    for socket in &sockets {
        send(socket, args.window)?;
    }
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    let mut used_before = used();
    let warm_until = Instant::now() + Duration::from_secs_f64(seconds / 4.0);
    let (mut start, mut answers, mut idle) = (None, 0_u64, Duration::ZERO);
    let mut turn_start = Instant::now();
    loop {
        let before = answers;
        for socket in &sockets {
            match received.receive(socket, BATCH_LEN) {
                Ok(count) => {
                    answers += count as u64;
                    send(socket, count)?;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        let now = Instant::now();
        if answers == before {
            idle += now - turn_start;
        }
        turn_start = now;
        match start {
            None if now >= warm_until => {
                (start, answers, idle) = (Some(now), 0, Duration::ZERO);
                used_before = used();
            }
            Some(start) if (now - start).as_secs_f64() >= seconds => {
                let elapsed = (now - start).as_secs_f64();
                let busy = 1.0 - idle.as_secs_f64() / elapsed;
                return Ok(Ran {
                    answers_per_s: answers as f64 / elapsed,
                    us_per_answer: (used() - used_before).as_secs_f64() * busy * 1e6 / answers.max(1) as f64,
                    busy,
                });
            }
            _ => {}
        }
    }
}
