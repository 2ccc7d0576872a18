//! What would one use otherwise? Asks nginx with a fixed answer over HTTP, and Knot DNS, NSD and
//! memcached by UDP, as far as they are installed, with the generator, the processor and the turn of
//! ours. Each answers from memory with one thread.

mod common;

use std::io;
use std::process::ExitCode;

use beast::load::measure::{Load, Run, lengths, run, run_http};
use beast::load::stats::Median;
use beast::load::{Echo, Expect, HttpExchange};
use clap::Parser;
use common::floor::Wait;
use common::machine::Machine;
use common::peers::Peer;
use common::report::{Figure, Report};
use common::subject::SubjectArgs;
use common::{Cpus, floor, nginx};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "peers", about = "Answers a second and processor time of other servers, ours beside them")]
struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Rounds of a run of each server, in turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Measured time of a run.
    #[arg(long, default_value_t = 0.8)]
    seconds: f64,
    /// Sockets that ask by UDP.
    #[arg(long, default_value_t = 4)]
    sockets: usize,
    /// Requests under way on each.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Kept-alive connections by HTTP.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// A run of one server.
#[derive(Debug, Serialize)]
struct Row {
    server: String,
    transport: &'static str,
    request_len: usize,
    run: Run,
}

fn main() -> ExitCode {
    common::main(&["peers", "--quick", "--what=shard"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let peers: Vec<Peer> = Peer::ALL.into_iter().filter(|peer| peer.is_there()).collect();
    for peer in Peer::ALL.iter().filter(|peer| !peers.contains(peer)) {
        eprintln!("{} is left out: install the package {} to compare it", peer.name(), peer.program().1);
    }
    let with_nginx = nginx::is_there();
    if !with_nginx {
        eprintln!("nginx is left out: install the package nginx-light to compare it");
    }
    let (rounds, seconds) = if args.quick { (1, 0.05) } else { (args.rounds, args.seconds) };
    let load = Load { sockets: args.sockets, window: args.window, seconds };
    let mut rows = Vec::new();
    for _ in 0..rounds {
        round(args, cpus, load, &peers, with_nginx, &mut rows)?;
    }
    if !args.json {
        table(&rows);
    }
    let figures = figures(&rows);
    if args.json {
        return Ok(Report::new("peers", machine, rows, figures).print(true));
    }
    Ok(true)
}

/// One run of each, in this order; each is started for its own run and gone before the next.
fn round(
    args: &Args,
    cpus: Cpus,
    load: Load,
    peers: &[Peer],
    with_nginx: bool,
    rows: &mut Vec<Row>,
) -> io::Result<()> {
    for &io in &args.subject.io {
        let mut subject = args.subject.start(io, cpus)?;
        for protocol in ["v2", "v1"] {
            let name = format!("beast {protocol}, {}", io.name());
            let (request_len, run) = if protocol == "v2" {
                let mut v2 = subject.requests_v2();
                let (len, _) = lengths(&mut subject.server, &mut v2)?;
                (len, run(&name, &subject.server, cpus, load, v2)?)
            } else {
                let mut v1 = subject.requests_v1();
                let (len, _) = lengths(&mut subject.server, &mut v1)?;
                (len, run(&name, &subject.server, cpus, load, v1)?)
            };
            rows.push(Row { server: name, transport: "UDP", request_len, run });
        }
        let name = format!("beast, {}", io.name());
        let exchange = subject.http();
        let run = run_http(&name, &subject.server, cpus, (args.connections, load.seconds), &exchange)?;
        rows.push(Row { server: name, transport: "HTTP", request_len: exchange.request.len(), run });
    }
    for peer in peers {
        let mut running = peer.start(cpus.server)?;
        let requests = peer.requests()?;
        let (request_len, _) = lengths(&mut running.server, &mut requests.clone())?;
        let run = run(peer.name(), &running.server, cpus, load, requests)?;
        rows.push(Row { server: peer.name().to_owned(), transport: "UDP", request_len, run });
    }
    let bare = floor::start(88, Wait::Block, cpus.server)?;
    let name = "bare echo";
    let run = run(name, &bare, cpus, load, Echo::new(88, 88))?;
    rows.push(Row { server: name.to_owned(), transport: "UDP", request_len: 88, run });
    drop(bare);
    if with_nginx {
        // Its head is longer than ours; with this body all of the answer is about as long.
        let body = "{\"asset\":\"BTC\",\"quote\":\"USD\",\"price\":\"1.5\"}";
        let nginx = nginx::start(body, cpus.server)?;
        let exchange = HttpExchange {
            request: format!(
                "GET /price?asset=BTC HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {}\r\n\r\n",
                // As long as a key.
                "k".repeat(49)
            )
            .into(),
            expect: Expect::Start(body.into()),
        };
        let run = run_http("nginx", &nginx.server, cpus, (args.connections, load.seconds), &exchange)?;
        rows.push(Row {
            server: "nginx, fixed answer".to_owned(),
            transport: "HTTP",
            request_len: exchange.request.len(),
            run,
        });
    }
    Ok(())
}

/// Names in the order of their first row, by transport.
fn servers(rows: &[Row]) -> Vec<(&'static str, String)> {
    let mut names: Vec<(&'static str, String)> = Vec::new();
    for transport in ["UDP", "HTTP"] {
        for row in rows.iter().filter(|row| row.transport == transport) {
            if !names.iter().any(|(_, name)| *name == row.server) {
                names.push((transport, row.server.clone()));
            }
        }
    }
    names
}

fn of<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.server == name).collect()
}

fn table(rows: &[Row]) {
    println!(
        "{:<5} {:<20} {:>8} {:>8} {:>14} {:>24} {:>12} {:>12} {:>6}",
        "",
        "server",
        "request",
        "answer",
        "k answers/s",
        "server CPU us/answer",
        "server busy",
        "client busy",
        "lost"
    );
    for (transport, name) in servers(rows) {
        let these = of(rows, &name);
        let median = |value: fn(&Row) -> f64| Median::of(these.iter().map(|row| value(row)).collect());
        let value = |of: fn(&Row) -> f64| median(of).map_or(0.0, |median| median.value);
        let Some(cpu) = median(|row| row.run.us_per_answer) else { continue };
        println!(
            "{transport:<5} {name:<20} {:>8} {:>8.0} {:>14.1} {:>9.3} [{:.3}, {:.3}] {:>12.2} {:>12.2} {:>6}",
            these[0].request_len,
            value(|row| row.run.answer_len),
            value(|row| row.run.answers_per_s / 1e3),
            cpu.value,
            cpu.low,
            cpu.high,
            value(|row| row.run.server_busy),
            value(|row| row.run.client_busy),
            these.iter().map(|row| row.run.lost).sum::<u64>(),
        );
    }
}

fn figures(rows: &[Row]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (transport, name) in servers(rows) {
        let mut figure = |what: &str, unit, value: fn(&Row) -> f64| {
            if let Some(median) = Median::of(of(rows, &name).into_iter().map(value).collect()) {
                figures.push(Figure::new(format!("{transport} {name}: {what}"), median, unit, None));
            }
        };
        figure("answers", "k/s", |row| row.run.answers_per_s / 1e3);
        figure("server CPU", "us/answer", |row| row.run.us_per_answer);
    }
    figures
}
