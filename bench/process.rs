//! What does the appliance cost when nobody asks, and how soon does it answer? Starts it with simulated
//! exchanges and without any feed, and reads the time until it is ready, the processor time it uses
//! while idle, and its memory.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use beast::load::server::CpuUse;
use beast::load::stats::Median;
use clap::{Parser, ValueEnum};
use common::Cpus;
use common::machine::Machine;
use common::metrics::{Metrics, wait_until_ready};
use common::report::{Figure, Report};
use common::shard::{Io, Send};
use common::subject::{Subject, SubjectArgs, What};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "process", about = "What the appliance costs when nobody asks, and how soon it answers")]
struct Args {
    /// Engines, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,portable")]
    io: Vec<Io>,
    /// What it hears of prices, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sim,none")]
    feeds: Vec<Feeds>,
    /// Starts of each kind.
    #[arg(long, default_value_t = 7)]
    starts: usize,
    /// Time in which nobody asks, at the last start of each kind.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Shards; 0 is one for each processor.
    #[arg(long, default_value_t = 0)]
    shards: usize,
    /// Command of the server, as for `udp`; {shards} and {feeds} are filled in too.
    #[arg(long, default_value = concat!(env!("CARGO_BIN_EXE_beast"), " serve {feeds} --shards {shards} --io {io} \
        --listen 127.0.0.1 --udp-port {udp} --http-port {http} --health-port {health} --data {data}"))]
    server: String,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Feeds {
    /// Seven simulated exchanges in the same process, each with 50 trades a second: their work counts
    /// too.
    Sim,
    /// No exchange is on: the process alone.
    None,
}

/// What the rows of the built-in exchanges that are on are called.
const EXCHANGES: [&str; 7] = ["coinbase", "gemini", "kraken", "gateio", "bybit", "okx", "cryptocom"];

impl Feeds {
    fn arguments(self) -> String {
        match self {
            Self::Sim => "--sim".to_owned(),
            Self::None => {
                let off: Vec<_> =
                    EXCHANGES.iter().map(|name| format!("--set feeds.{name}.enabled=false")).collect();
                off.join(" ") + " --set rest.prewarm=false"
            }
        }
    }
}

/// One kind of process.
#[derive(Debug, Serialize)]
struct Run {
    io: Io,
    feeds: Feeds,
    /// From the start of the process until it says that it is ready; only with prices.
    ready_s: Vec<f64>,
    /// Part of one processor used while idle, all threads.
    idle: f64,
    idle_busiest_thread: String,
    idle_busiest: f64,
    memory_mib: f64,
    memory_mib_max: f64,
    /// Prices that came in the idle time, for each shard that took them.
    updates: i64,
}

fn main() -> ExitCode {
    common::main(&["process", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    if !args.json {
        machine.print();
    }
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.io {
        for &feeds in &args.feeds {
            let run = run(args, io, feeds)?;
            if !args.json {
                println!("{run:?}");
            }
            figures.extend(self::figures(&run, !args.quick));
            all.push(run);
        }
    }
    Ok(Report::new("process", machine, all, figures).print(args.json))
}

fn run(args: &Args, io: Io, feeds: Feeds) -> io::Result<Run> {
    let (starts, seconds) = if args.quick { (1, 0.1) } else { (args.starts.max(1), args.seconds) };
    let mut ready_s = Vec::new();
    let (mut subject, ready) = start(args, io, feeds)?;
    ready_s.extend(ready);
    for _ in 1..starts {
        drop(subject);
        let (next, ready) = start(args, io, feeds)?;
        subject = next;
        ready_s.extend(ready);
    }
    // What follows a start, such as asking for prices by REST, is over by then.
    std::thread::sleep(Duration::from_secs_f64(seconds / 5.0));
    let updates = |subject: &Subject| -> io::Result<i64> {
        let Some(health) = subject.health else { return Ok(0) };
        Ok(Metrics::read(health)?.sum("beast_price_update_applied_total", ""))
    };
    let (updates_before, before) = (updates(&subject)?, subject.server.cpu()?);
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let CpuUse { process, busiest, busiest_name, .. } = subject.server.cpu()?.since(&before);
    let elapsed = begin.elapsed().as_secs_f64();
    subject.server.alive()?;
    let (now, most) = subject.server.memory()?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Run {
        io,
        feeds,
        ready_s,
        idle: process.as_secs_f64() / elapsed,
        idle_busiest_thread: busiest_name,
        idle_busiest: busiest.as_secs_f64() / elapsed,
        memory_mib: mib(now),
        memory_mib_max: mib(most),
        updates: updates(&subject)? - updates_before,
    })
}

/// Starts one; with prices, also says how long it took until it was ready.
fn start(args: &Args, io: Io, feeds: Feeds) -> io::Result<(Subject, Option<f64>)> {
    let server =
        args.server.replace("{shards}", &args.shards.to_string()).replace("{feeds}", &feeds.arguments());
    let subject = SubjectArgs {
        what: What::Beast,
        io: vec![io],
        send: Send::Sendmmsg,
        spin_us: 0,
        server,
        assets: vec!["BTC".to_owned()],
    };
    let begin = Instant::now();
    let mut subject = subject.start(io, Cpus { server: None, client: None })?;
    // Without prices it never is.
    if feeds == Feeds::None {
        return Ok((subject, None));
    }
    wait_until_ready(&mut subject)?;
    Ok((subject, Some(begin.elapsed().as_secs_f64())))
}

fn figures(run: &Run, judged: bool) -> Vec<Figure> {
    let name = |what: &str| format!("{:?}, feeds {:?}: {what}", run.io, run.feeds);
    let figure = |what: &str, values: Vec<f64>, unit, most: Option<f64>| {
        let most = most.filter(|_| judged);
        Median::of(values).map(|median| Figure::new(name(what), median, unit, most))
    };
    // The exchanges that are simulated in the process are no part of what has to be idle.
    let idle_max = (run.feeds == Feeds::None).then_some(1.0);
    [
        figure("start to ready", run.ready_s.clone(), "s", Some(2.0)),
        figure("idle", vec![run.idle * 100.0], "% of a core", idle_max),
        figure("  of that its busiest thread", vec![run.idle_busiest * 100.0], "% of a core", None),
        figure("memory", vec![run.memory_mib], "MiB", None),
    ]
    .into_iter()
    .flatten()
    .collect()
}
