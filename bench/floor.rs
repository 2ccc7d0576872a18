//! How much does a datagram cost before anyone looks at it? Loads the bare echo server at several
//! lengths and windows, blocking and spinning.

mod common;

use std::io;
use std::process::ExitCode;

use beast::load::Echo;
use beast::load::measure::{Load, Run, run};
use beast::load::stats::Median;
use clap::Parser;
use common::floor::Wait;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, floor};
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

/// One run of a combination.
#[derive(Debug, Serialize)]
struct Row {
    request_len: usize,
    answer_len: usize,
    wait: Wait,
    sockets: usize,
    window: usize,
    run: Run,
}

fn main() -> ExitCode {
    common::main(&["floor", "--quick", "--windows=4:64"], measure)
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
                    .map(|_| row(cpus, lengths, wait, window, seconds))
                    .collect::<io::Result<Vec<_>>>()?;
                let name =
                    format!("{} to {} bytes, {wait:?}, {} x {}", lengths.0, lengths.1, window.0, window.1);
                let mut figure = |what: &str, unit, value: fn(&Row) -> f64| {
                    if let Some(median) = Median::of(these.iter().map(value).collect()) {
                        figures.push(Figure::new(format!("{name}: {what}"), median, unit, None));
                    }
                };
                figure("answers", "k/s", |row| row.run.answers_per_s / 1e3);
                figure("server CPU", "us/answer", |row| row.run.us_per_answer);
                figure("server busy", "of 1", |row| row.run.server_busy);
                figure("client busy", "of 1", |row| row.run.client_busy);
                runs.extend(these);
            }
        }
    }
    let lost: u64 = runs.iter().map(|row| row.run.lost).sum();
    let kept = Report::new("floor", machine, runs, figures).print(args.json);
    if lost > 0 {
        eprintln!("{lost} requests were lost: the windows are larger than the socket buffers hold");
    }
    Ok(kept)
}

fn row(
    cpus: Cpus,
    (request_len, answer_len): (usize, usize),
    wait: Wait,
    (sockets, window): (usize, usize),
    seconds: f64,
) -> io::Result<Row> {
    let server = floor::start(answer_len, wait, cpus.server)?;
    let load = Load { sockets, window, seconds };
    let run = run("floor", &server, cpus, load, Echo::new(request_len, answer_len))?;
    Ok(Row { request_len, answer_len, wait, sockets, window, run })
}
