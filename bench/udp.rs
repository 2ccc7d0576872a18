//! How near is an answer to the floor? Runs the bare echo server and the shard (or the whole
//! appliance) in turn on the same processor, with the same lengths and the same client, and prints
//! how many times the floor's processor time an answer takes.

mod common;

use std::io;
use std::process::ExitCode;

use beast::load::measure::{Load, Run, lengths, run};
use beast::load::stats::Median;
use beast::load::{Echo, Requests};
use clap::{Parser, ValueEnum};
use common::floor::Wait;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::shard::Io;
use common::subject::{Subject, SubjectArgs};
use common::{Cpus, floor};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "udp", about = "How near a UDP answer is to the bare echo")]
struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Protocols to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v2,v1")]
    protocols: Vec<Protocol>,
    /// Pairs of runs, floor and server, in alternating order.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Measured time of a run.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Sockets that ask.
    #[arg(long, default_value_t = 4)]
    sockets: usize,
    /// Requests under way on each.
    #[arg(long, default_value_t = 64)]
    window: usize,
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

impl Protocol {
    /// Times the floor's processor time that an answer may take.
    fn target_max(self) -> f64 {
        match self {
            Self::V1 => 1.15,
            Self::V2 => 1.12,
        }
    }
}

/// A floor run and a server run side by side.
#[derive(Debug, Serialize)]
struct Pair {
    protocol: Protocol,
    io: Io,
    request_len: usize,
    answer_len: usize,
    floor: Run,
    server: Run,
    cpu_ratio: f64,
}

fn main() -> ExitCode {
    common::main(&["udp", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (pairs, seconds) = if args.quick { (1, 0.05) } else { (args.pairs, args.seconds) };
    let load = Load { sockets: args.sockets, window: args.window, seconds };
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.subject.io {
        for &protocol in &args.protocols {
            let mut these = Vec::new();
            for n in 0..pairs {
                let known = these.last().map(|pair: &Pair| (pair.request_len, pair.answer_len));
                let pair = match protocol {
                    Protocol::V1 => pair(args, cpus, load, protocol, io, (n, known), Subject::requests_v1)?,
                    Protocol::V2 => pair(args, cpus, load, protocol, io, (n, known), Subject::requests_v2)?,
                };
                if !args.json {
                    print(n, &pair);
                }
                these.push(pair);
            }
            figures.extend(self::figures(&these, protocol, io, !args.quick));
            all.extend(these);
        }
    }
    Ok(Report::new("udp", machine, all, figures).print(args.json))
}

fn pair<R: Requests + Send>(
    args: &Args,
    cpus: Cpus,
    load: Load,
    protocol: Protocol,
    io: Io,
    (n, known): (usize, Option<(usize, usize)>),
    requests: fn(&Subject) -> R,
) -> io::Result<Pair> {
    // Each server is started for its own run and gone before the other's: neither disturbs the other,
    // and where things happen to lie in memory averages out.
    let floor_run = |(request_len, answer_len)| {
        let server = floor::start(answer_len, Wait::Block, cpus.server)?;
        run("floor", &server, cpus, load, Echo::new(request_len, answer_len))
    };
    let server_run = || {
        let mut subject = args.subject.start(io, cpus)?;
        let mut probing = requests(&subject);
        let lengths = lengths(&mut subject.server, &mut probing)?;
        Ok::<_, io::Error>((lengths, run("server", &subject.server, cpus, load, requests(&subject))?))
    };
    let (lengths, floor, server) = match known {
        // The first server run tells the lengths; after that the order alternates.
        Some(lengths) if n.is_multiple_of(2) => {
            let floor = floor_run(lengths)?;
            (lengths, floor, server_run()?.1)
        }
        _ => {
            let (lengths, server) = server_run()?;
            (lengths, floor_run(lengths)?, server)
        }
    };
    let (request_len, answer_len) = lengths;
    let cpu_ratio = server.us_per_answer / floor.us_per_answer;
    Ok(Pair { protocol, io, request_len, answer_len, floor, server, cpu_ratio })
}

fn print(n: usize, pair: &Pair) {
    let Pair { protocol, io, request_len, answer_len, floor, server, cpu_ratio } = pair;
    println!("pair {n:>2}  {io:?} {protocol:?}, {request_len} to {answer_len} bytes: {cpu_ratio:.3} times");
    floor.print();
    server.print();
}

fn figures(pairs: &[Pair], protocol: Protocol, io: Io, judged: bool) -> Vec<Figure> {
    let figure = |what: &str, unit, target_max, value: fn(&Pair) -> f64| {
        let median = Median::of(pairs.iter().map(value).collect())?;
        Some(Figure::new(format!("{io:?} {protocol:?}: {what}"), median, unit, target_max))
    };
    let target_max = judged.then_some(protocol.target_max());
    [
        figure("server CPU an answer against the floor", "times", target_max, |p| p.cpu_ratio),
        figure("server CPU an answer", "us", None, |p| p.server.us_per_answer),
        figure("  of that in user mode", "us", None, |p| p.server.user_us_per_answer),
        figure("floor CPU an answer", "us", None, |p| p.floor.us_per_answer),
        figure("  of that in user mode", "us", None, |p| p.floor.user_us_per_answer),
        figure("server answers", "k/s", None, |p| p.server.answers_per_s / 1e3),
        figure("floor answers", "k/s", None, |p| p.floor.answers_per_s / 1e3),
    ]
    .into_iter()
    .flatten()
    .collect()
}
