//! How much does a datagram cost before anyone looks at it? Loads the bare echo server at several
//! lengths and windows, blocking and spinning.

mod common;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use beast::load::{Echo, Pace, Tally, UdpLoad, UdpLoadOptions};
use clap::Parser;
use common::floor::Wait;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::stats::Median;
use common::{Cpus, Start, floor};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "floor", about = "What a datagram costs on a bare echo server")]
struct Args {
    /// Request and answer lengths, in bytes.
    #[arg(long, value_parser = pair, value_delimiter = ',', default_value = "48:64,96:88")]
    lengths: Vec<(usize, usize)>,
    /// Sockets and requests under way on each.
    #[arg(long, value_parser = pair, value_delimiter = ',', default_value = "1:64,4:64,8:128")]
    windows: Vec<(usize, usize)>,
    /// How the server waits.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "block,spin")]
    waits: Vec<Wait>,
    /// Runs of each combination.
    #[arg(long, default_value_t = 5)]
    runs: usize,
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

fn pair(text: &str) -> Result<(usize, usize), String> {
    let wrong = || format!("{text:?} is not two numbers with a colon between, such as 48:64");
    let (first, second) = text.split_once(':').ok_or_else(wrong)?;
    Ok((first.parse().map_err(|_| wrong())?, second.parse().map_err(|_| wrong())?))
}

/// One run.
#[derive(Debug, Serialize)]
struct Run {
    request_len: usize,
    answer_len: usize,
    wait: Wait,
    sockets: usize,
    window: usize,
    answers_per_s: f64,
    server_us_per_answer: f64,
    server_user_share: f64,
    server_busy: f64,
    client_busy: f64,
    latency_us_p50: f64,
    latency_us_p99: f64,
    lost: u64,
}

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["floor", "--quick", "--windows=4:64"].map(Into::into).to_vec(),
        Start::Bench(args) => args,
    };
    if let Some(served) = floor::be_child(&args) {
        return common::end(served.map(|()| true));
    }
    common::end(measure(&Args::parse_from(args)))
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (runs_each, seconds) = if args.quick { (1, 0.05) } else { (args.runs, args.seconds) };
    let (mut runs, mut figures) = (Vec::new(), Vec::new());
    for &lengths in &args.lengths {
        for &wait in &args.waits {
            for &window in &args.windows {
                let these = (0..runs_each)
                    .map(|_| run(cpus, lengths, wait, window, seconds))
                    .collect::<io::Result<Vec<_>>>()?;
                let name =
                    format!("{} to {} bytes, {wait:?}, {} x {}", lengths.0, lengths.1, window.0, window.1);
                let mut figure = |what: &str, unit, value: fn(&Run) -> f64| {
                    if let Some(median) = Median::of(these.iter().map(value).collect()) {
                        figures.push(Figure::new(format!("{name}: {what}"), median, unit, None));
                    }
                };
                figure("answers", "k/s", |run| run.answers_per_s / 1e3);
                figure("server CPU", "us/answer", |run| run.server_us_per_answer);
                figure("server busy", "of 1", |run| run.server_busy);
                figure("client busy", "of 1", |run| run.client_busy);
                runs.extend(these);
            }
        }
    }
    let lost: u64 = runs.iter().map(|run| run.lost).sum();
    let kept = Report::new("floor", machine, runs, figures).print(args.json);
    if lost > 0 {
        eprintln!("{lost} requests were lost: the windows are larger than the socket buffers hold");
    }
    Ok(kept)
}

fn run(
    cpus: Cpus,
    (request_len, answer_len): (usize, usize),
    wait: Wait,
    (sockets, window): (usize, usize),
    seconds: f64,
) -> io::Result<Run> {
    let server = common::pinned(cpus.server, || floor::start(answer_len, wait))?;
    let options =
        UdpLoadOptions { sockets, pace: Pace::Window(window), ..UdpLoadOptions::new(server.address) };
    let (whole, measured, used) = common::pinned(cpus.client, || {
        let mut load = UdpLoad::open(options, Echo::new(request_len, answer_len))?;
        let mut whole = load.run(Duration::from_secs_f64(seconds / 4.0))?;
        let before = server.cpu()?;
        let measured: Tally = load.run(Duration::from_secs_f64(seconds))?;
        let used = server.cpu()?.since(&before);
        whole.add(&measured);
        whole.add(&load.finish()?);
        Ok((whole, measured, used))
    })?;
    let wrong = whole.wrong + whole.duplicate + whole.refused();
    if wrong > 0 || whole.matched == 0 || whole.sent != whole.matched + whole.late + whole.lost() {
        return Err(io::Error::other(format!("the echo does not echo: {whole:?}")));
    }
    let us = |quantile| measured.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Run {
        request_len,
        answer_len,
        wait,
        sockets,
        window,
        answers_per_s: measured.rate_per_s(),
        server_us_per_answer: used.process.as_secs_f64() * 1e6 / measured.matched.max(1) as f64,
        server_user_share: used.user_share,
        server_busy: used.process.as_secs_f64() / measured.elapsed.as_secs_f64(),
        client_busy: measured.busy(),
        latency_us_p50: us(0.5),
        latency_us_p99: us(0.99),
        lost: whole.lost(),
    })
}
