//! How many connections does the appliance hold, in how much memory, and what does it do with those
//! beyond its limit? Opens thousands of kept-alive connections from several processes, asks on every
//! one of them again and again, and reads the server's memory and books. Then fills a server to a
//! small limit: who comes too late is told at once and counted, who is there goes on, and who comes
//! when others have left is served.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use beast::load::stats::Median;
use clap::Parser;
use common::Cpus;
use common::clients::Clients;
use common::machine::Machine;
use common::metrics::{Metrics, wait_until_ready};
use common::report::{Figure, Report};
use common::shard::{Io, Send};
use common::subject::{Subject, SubjectArgs, What};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "connections", about = "How many connections the appliance holds, and what it does beyond")]
struct Args {
    /// Engines that hold many connections, one after the other. Every engine refuses beyond a limit.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring")]
    io: Vec<Io>,
    /// Connections.
    #[arg(long, default_value_t = 21_000)]
    connections: usize,
    /// Client processes they are spread over: each may hold only so many descriptors.
    #[arg(long, default_value_t = 3)]
    processes: usize,
    /// Requests on every connection.
    #[arg(long, default_value_t = 5)]
    requests: usize,
    /// The limit of the server that has to refuse.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// Command of the server, as for `udp`; {limit} is filled in with what it may hold.
    #[arg(long, default_value = concat!(env!("CARGO_BIN_EXE_beast"), " serve --sim --shards {shards} --io {io} \
        --listen 127.0.0.1 --udp-port {udp} --http-port {http} --health-port {health} --data {data} {limit}"))]
    server: String,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// One server filled with connections.
#[derive(Debug, Serialize)]
struct Held {
    io: Io,
    connections: u64,
    right: u64,
    failed: u64,
    /// Connections the server closed, or never opened.
    missing: u64,
    memory_mib: f64,
    memory_mib_max: f64,
    seconds: f64,
    books: Books,
}

/// One server filled beyond its limit.
#[derive(Debug, Serialize)]
struct Limited {
    io: Io,
    limit: u64,
    tried: u64,
    served: u64,
    refused: u64,
    refused_by_its_count: i64,
    failed: u64,
    /// Of those that came when as many had left.
    served_later: u64,
    books: Books,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Run {
    Held(Held),
    Limited(Limited),
}

/// What the server says of its HTTP requests.
#[derive(Debug, Serialize)]
struct Books {
    accepted: i64,
    received: i64,
    answered: i64,
    refused: i64,
    waiting: i64,
    /// `received` less the other three; 0 when the books close.
    difference: i64,
}

impl Books {
    fn of(metrics: &Metrics) -> Self {
        let http = |family| metrics.sum(family, "transport=\"http\"");
        let (received, answered) =
            (http("beast_request_received_total"), http("beast_request_answered_total"));
        let (refused, waiting) = (http("beast_request_refused_total"), http("beast_request_waiting"));
        let accepted = metrics.sum("beast_connection_accepted_total", "");
        let difference = received - answered - refused - waiting;
        Self { accepted, received, answered, refused, waiting, difference }
    }
}

/// A shard publishes its counters at least this often.
const PUBLISHED_AFTER: Duration = Duration::from_millis(300);

/// What a server with 21,000 connections may hold, in MiB.
const MEMORY_MIB_MAX: f64 = 512.0;

fn main() -> ExitCode {
    let smoke =
        ["connections", "--quick", "--connections=300", "--processes=2", "--requests=3", "--limit=40"];
    common::main(&smoke, measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    if !args.json {
        machine.print();
    }
    let (mut runs, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.io {
        let held = hold(args, io)?;
        figures.extend(held_figures(&held));
        runs.push(Run::Held(held));
    }
    for io in [Io::Uring, Io::Portable] {
        let limited = exceed(args, io)?;
        figures.extend(limited_figures(&limited));
        runs.push(Run::Limited(limited));
    }
    if !args.json {
        runs.iter().for_each(|run| println!("{run:?}"));
    }
    let whole = Report::new("connections", machine, runs, figures).print(args.json);
    if args.quick && !whole {
        return Err(io::Error::other("connections or requests were lost"));
    }
    Ok(whole)
}

/// Starts a server that is not held to one processor, and waits until it is ready.
fn start(args: &Args, io: Io, shards: usize, limit: Option<usize>) -> io::Result<Subject> {
    let limit = limit.map_or(String::new(), |limit| format!("--set connections_max={limit}"));
    let server = args.server.replace("{shards}", &shards.to_string()).replace("{limit}", &limit);
    let subject = SubjectArgs {
        what: What::Beast,
        io: vec![io],
        send: Send::Sendmmsg,
        spin_us: 0,
        server,
        assets: vec!["BTC".to_owned()],
    };
    let mut subject = subject.start(io, Cpus { server: None, client: None })?;
    wait_until_ready(&mut subject)?;
    Ok(subject)
}

fn clients(args: &Args, subject: &Subject) -> io::Result<Clients> {
    let Some(http) = subject.server.http else { return Err(io::Error::other("the server takes no HTTP")) };
    Clients::start(args.processes.max(1), http, &subject.token().reveal(), "BTC")
}

fn metrics(subject: &Subject) -> io::Result<Metrics> {
    std::thread::sleep(PUBLISHED_AFTER);
    let Some(health) = subject.health else { return Err(io::Error::other("the server has no health port")) };
    Metrics::read(health)
}

fn hold(args: &Args, io: Io) -> io::Result<Held> {
    let subject = start(args, io, 2, None)?;
    let begin = Instant::now();
    let mut clients = clients(args, &subject)?;
    clients.open(args.connections)?;
    let asked = clients.ask(args.requests)?;
    let seconds = begin.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (now, most) = subject.server.memory()?;
    Ok(Held {
        io,
        connections: asked.open,
        right: asked.right,
        failed: asked.failed,
        missing: (args.connections as u64).saturating_sub(asked.open),
        memory_mib: mib(now),
        memory_mib_max: mib(most),
        seconds,
        books: Books::of(&metrics(&subject)?),
    })
}

/// One shard, so that the limit is met exactly.
fn exceed(args: &Args, io: Io) -> io::Result<Limited> {
    let subject = start(args, io, 1, Some(args.limit))?;
    let mut clients = clients(args, &subject)?;
    let tried = args.limit + args.limit / 2;
    clients.open(tried)?;
    let first = clients.ask(2)?;
    let leaving = args.limit / 4;
    clients.leave(leaving)?;
    // A slot is free once the server has seen its peer leave.
    std::thread::sleep(PUBLISHED_AFTER);
    clients.open(leaving)?;
    let second = clients.ask(2)?;
    let metrics = metrics(&subject)?;
    Ok(Limited {
        io,
        limit: args.limit as u64,
        tried: tried as u64,
        served: first.open,
        refused: first.closed,
        refused_by_its_count: metrics.sum("beast_connection_refused_total", ""),
        failed: first.failed + second.failed,
        served_later: leaving as u64 - second.closed.min(leaving as u64),
        books: Books::of(&metrics),
    })
}

/// A number that was counted once.
fn counted(name: String, value: f64, unit: &'static str, target_max: Option<f64>) -> Option<Figure> {
    Median::of(vec![value]).map(|median| Figure::new(name, median, unit, target_max))
}

fn held_figures(held: &Held) -> Vec<Figure> {
    let name = |what: &str| format!("{:?}, 2 shards: {what}", held.io);
    let unasked = held.books.answered - held.right.cast_signed();
    [
        counted(name("connections up"), held.connections as f64, "", None),
        counted(name("connections missing"), held.missing as f64, "", Some(0.0)),
        counted(name("requests answered"), held.right as f64, "", None),
        counted(name("requests failed"), held.failed as f64, "", Some(0.0)),
        counted(name("server memory, the most"), held.memory_mib_max, "MiB", Some(MEMORY_MIB_MAX)),
        counted(name("books, difference"), held.books.difference.abs() as f64, "", Some(0.0)),
        counted(name("books against clients"), unasked.abs() as f64, "", Some(0.0)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn limited_figures(limited: &Limited) -> Vec<Figure> {
    let name = |what: &str| format!("{:?}, limit of {}: {what}", limited.io, limited.limit);
    let Limited { limit, tried, served, refused, refused_by_its_count, .. } = *limited;
    let left = limit / 4;
    [
        counted(name("served, off the limit by"), served.abs_diff(limit) as f64, "", Some(0.0)),
        counted(name("refused"), refused as f64, "", None),
        counted(name("refused, not told"), (tried - limit).abs_diff(refused) as f64, "", Some(0.0)),
        counted(
            name("refused, miscounted"),
            refused_by_its_count.abs_diff(refused.cast_signed()) as f64,
            "",
            Some(0.0),
        ),
        counted(name("requests failed"), limited.failed as f64, "", Some(0.0)),
        counted(name("not served after others left"), (left - limited.served_later) as f64, "", Some(0.0)),
        counted(name("books, difference"), limited.books.difference.abs() as f64, "", Some(0.0)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
