//! How near is an HTTP answer to what the machine can do at best? Runs the bare ring responder, the
//! appliance and nginx with a fixed answer in turn on the same processor, with the same requests,
//! answers of the same length and the same client.

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use beast::load::measure::{Run, lengths, run_http};
use beast::load::stats::Median;
use beast::load::{Expect, HttpExchange};
use clap::Parser;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::shard::Io;
use common::subject::SubjectArgs;
use common::{Cpus, nginx, ring_http};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "http", about = "How near an HTTP answer is to a bare ring responder and to nginx")]
struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Kept-alive connections, each with one request under way.
    #[arg(long, value_delimiter = ',', default_value = "64,1000")]
    connections: Vec<usize>,
    /// Rounds of a run of each server, in rotating order.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Measured time of a run.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Leave nginx out.
    #[arg(long)]
    no_nginx: bool,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// A run of each server, side by side.
#[derive(Debug, Serialize)]
struct Round {
    io: Io,
    connections: usize,
    ring: Run,
    server: Run,
    nginx: Option<Run>,
}

/// What all servers must agree on.
struct Exchanges {
    /// A request as long as all others; the key in it differs from start to start.
    request: Vec<u8>,
    answer: String,
    nginx_body: Option<String>,
}

fn main() -> ExitCode {
    common::main(&["http", "--quick", "--what=shard"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let with_nginx = !args.no_nginx && nginx::is_there();
    if !args.no_nginx && !with_nginx {
        eprintln!("nginx is left out: there is none on the path; install the package nginx to compare it");
    }
    let (rounds, seconds) = if args.quick { (1, 0.05) } else { (args.pairs, args.seconds) };
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &io in &args.subject.io {
        let exchanges = exchanges(args, cpus, io, with_nginx)?;
        for &connections in &args.connections {
            let mut these = Vec::new();
            for n in 0..rounds {
                let round = round(args, cpus, io, (connections, seconds), n, &exchanges)?;
                if !args.json {
                    println!("round {n:>2}  {io:?}, {connections} connections");
                    round.ring.print();
                    round.server.print();
                    round.nginx.iter().for_each(Run::print);
                }
                these.push(round);
            }
            figures.extend(self::figures(&these, io, connections, !args.quick));
            all.extend(these);
        }
    }
    Ok(Report::new("http", machine, all, figures).print(args.json))
}

/// Learns how long an answer is and which body makes nginx's as long.
fn exchanges(args: &Args, cpus: Cpus, io: Io, with_nginx: bool) -> io::Result<Exchanges> {
    let mut subject = args.subject.start(io, cpus)?;
    let mut probing = subject.requests_v2();
    lengths(&mut subject.server, &mut probing)?;
    let request = subject.http().request;
    let answer = ask(subject.server.http, &request)?;
    drop(subject);
    let nginx_body = if with_nginx {
        let body = |len: usize| "a".repeat(len);
        // nginx has a head of its own; what it is longer or shorter, the body is shorter or longer.
        let probe_len = 100;
        let probed = ask(nginx::start(&body(probe_len), cpus.server)?.server.http, &request)?;
        Some(body((probe_len + answer.len()).saturating_sub(probed.len()).max(1)))
    } else {
        None
    };
    Ok(Exchanges { request, answer, nginx_body })
}

/// Sends one request and reads what comes back.
fn ask(server: Option<SocketAddr>, request: &[u8]) -> io::Result<String> {
    let server = server.ok_or_else(|| io::Error::other("the server takes no HTTP"))?;
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(request)?;
    // Small answers come whole; a second look would wait for nothing.
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = [0; 4_096];
    let len = stream.read(&mut answer)?;
    String::from_utf8(answer[..len].to_vec()).map_err(io::Error::other)
}

fn round(
    args: &Args,
    cpus: Cpus,
    io: Io,
    load: (usize, f64),
    n: usize,
    exchanges: &Exchanges,
) -> io::Result<Round> {
    let fixed = |body_start: &[u8]| HttpExchange {
        request: exchanges.request.clone(),
        expect: Expect::Start(body_start.to_vec()),
    };
    let (mut ring, mut server, mut nginx) = (None, None, None);
    // Each server is started for its own run and gone before the next one's.
    for turn in 0..3 {
        match (n + turn) % 3 {
            0 => {
                let responder = ring_http::start(&exchanges.answer, cpus.server)?;
                let exchange = fixed(b"{\"asset\":\"");
                ring = Some(run_http("ring", &responder, cpus, load, &exchange)?);
            }
            1 => {
                let mut subject = args.subject.start(io, cpus)?;
                let mut probing = subject.requests_v2();
                lengths(&mut subject.server, &mut probing)?;
                server = Some(run_http("server", &subject.server, cpus, load, &subject.http())?);
            }
            _ => {
                let Some(body) = &exchanges.nginx_body else { continue };
                let started = nginx::start(body, cpus.server)?;
                let exchange = fixed(b"a");
                nginx = Some(run_http("nginx", &started.server, cpus, load, &exchange)?);
            }
        }
    }
    let missing = || io::Error::other("a server was left out");
    for other in ring.iter().chain(&nginx) {
        let ours = server.as_ref().map_or(0.0, |run: &Run| run.answer_len);
        if (other.answer_len - ours).abs() > 2.0 {
            eprintln!(
                "not alike: an answer of {} has {:.0} bytes, ours {ours:.0}",
                other.server, other.answer_len
            );
        }
    }
    Ok(Round {
        io,
        connections: load.0,
        ring: ring.ok_or_else(missing)?,
        server: server.ok_or_else(missing)?,
        nginx,
    })
}

fn figures(rounds: &[Round], io: Io, connections: usize, judged: bool) -> Vec<Figure> {
    let figure = |what: &str, unit, target_max: Option<f64>, value: &dyn Fn(&Round) -> Option<f64>| {
        let median = Median::of(rounds.iter().filter_map(value).collect())?;
        let target_max = target_max.filter(|_| judged);
        Some(Figure::new(format!("{io:?}, {connections} connections: {what}"), median, unit, target_max))
    };
    let us = |run: &Run| run.us_per_answer;
    [
        figure("server CPU an answer against the bare ring", "times", Some(1.05), &|r| {
            Some(us(&r.server) / us(&r.ring))
        }),
        figure("server CPU an answer against nginx", "times", Some(0.85), &|r| {
            r.nginx.as_ref().map(|nginx| us(&r.server) / us(nginx))
        }),
        figure("server CPU an answer", "us", None, &|r| Some(us(&r.server))),
        figure("ring CPU an answer", "us", None, &|r| Some(us(&r.ring))),
        figure("nginx CPU an answer", "us", None, &|r| r.nginx.as_ref().map(us)),
        figure("server answers", "k/s", None, &|r| Some(r.server.answers_per_s / 1e3)),
        figure("ring answers", "k/s", None, &|r| Some(r.ring.answers_per_s / 1e3)),
        figure("nginx answers", "k/s", None, &|r| r.nginx.as_ref().map(|n| n.answers_per_s / 1e3)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
