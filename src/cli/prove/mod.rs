//! `beast prove`: measure this program on this machine, beside the least a server can do here, and say
//! what came of it.

mod measure;
mod subject;
mod text;
mod wire;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use beast::load::Stop;
use beast::load::machine::Machine;
use beast::load::report::ReportFolder;
use beast::load::report::verdict::{Elsewhere, VERDICT_SCHEMA, Verdict};
use beast::load::server::Cpus;
use beast::time::{Clock as _, RealClock};
use clap::{Args, ValueEnum};

use super::load::{stop_on_signal, without_secrets};
use super::{Failure, Outcome, print};

/// Arguments of `beast prove`.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Under a minute: few and short repetitions, rough figures
    #[arg(long)]
    quick: bool,

    /// Folder for verdict.html and verdict.json
    #[arg(long, value_name = "FOLDER", default_value = "beast-verdict")]
    report: PathBuf,

    /// Engines to prove; those that do not work here are left out, which the verdict says
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,portable,xdp")]
    io: Vec<Io>,

    /// Protocols to prove
    #[arg(long, value_enum, value_delimiter = ',', default_value = "v2,v1,http")]
    protocols: Vec<Protocol>,

    /// Pairs of floor and server for each ratio; 15, or 3 with --quick
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pairs: Option<u32>,
}

/// Engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    /// A ring in a task of a glommio executor
    Uring,
    /// epoll, recvmmsg, sendmmsg
    Portable,
    /// v2 answered in the kernel, over a veth pair; needs root
    Xdp,
}

impl Io {
    fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Portable => "portable",
            Self::Xdp => "XDP",
        }
    }

    /// What `--io` of `beast serve` is told.
    fn io(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Portable => "portable",
            Self::Xdp => "auto",
        }
    }

    /// Times the round trip of a bare spinning loop that a lone request may take, where there is such
    /// a target.
    fn lone_times_max(self) -> Option<f64> {
        match self {
            Self::Uring => Some(1.25),
            Self::Portable => Some(1.1),
            Self::Xdp => None,
        }
    }
}

/// Protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// JSON by UDP
    V1,
    /// Binary by UDP
    V2,
    /// HTTP/1.1, connections kept alive
    Http,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "UDP v1",
            Self::V2 => "UDP v2",
            Self::Http => "HTTP",
        }
    }

    /// Times the floor's processor time that an answer may take.
    fn floor_times_max(self) -> f64 {
        match self {
            Self::V1 => 1.15,
            Self::V2 => 1.12,
            Self::Http => 1.05,
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    pairs: usize,
    /// Measured time of one closed loop.
    closed_s: f64,
    /// How long the search for the knee tries each rate.
    knee_step: Duration,
    /// How near the knee is found, as a share.
    knee_precision: f64,
    /// How long each open loop runs.
    open: Duration,
}

impl ProveArgs {
    fn effort(&self) -> Effort {
        let pairs = |usual: u32| self.pairs.unwrap_or(usual) as usize;
        if self.quick {
            Effort {
                pairs: pairs(3),
                closed_s: 0.2,
                knee_step: Duration::from_millis(250),
                knee_precision: 0.2,
                open: Duration::from_millis(400),
            }
        } else {
            Effort {
                pairs: pairs(15),
                closed_s: 0.8,
                knee_step: Duration::from_secs(1),
                knee_precision: 0.05,
                open: Duration::from_secs(5),
            }
        }
    }
}

/// Carries out `beast prove`.
pub(crate) fn run(args: &ProveArgs) -> Outcome {
    let folder = ReportFolder::prepare(&args.report)
        .map_err(|e| Failure::usage(e.to_string(), "name a folder you may write to by --report"))?;
    let cpus = Cpus::first_two()
        .map_err(|e| Failure::runtime(format!("processors are not told: {e}"), "report this"))?;
    let stop = Stop::new();
    stop_on_signal(stop.clone())?;
    let started = Instant::now();
    let mut verdict = empty(args, cpus);
    measure::all(args, cpus, &stop, &mut verdict);
    verdict.took_s = started.elapsed().as_secs_f64();
    verdict.interrupted = stop.told();
    // Printed first, and written even when it cannot be: neither may take the other along.
    let told = print(&text::text(&verdict));
    let written = folder
        .write_verdict(&verdict)
        .map_err(|e| Failure::runtime(format!("the verdict cannot be written: {e}"), "see the disk"))
        .and_then(|paths| print(&text::written(&paths)));
    let mut failures: Vec<_> = [told, written].into_iter().filter_map(Result::err).collect();
    failures.extend(unreached(&verdict));
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// What a verdict that does not pass ends the command with.
fn unreached(verdict: &Verdict) -> Option<Failure> {
    if verdict.passed() {
        return None;
    }
    let (reached, all) = verdict.reached();
    let what = if verdict.interrupted {
        "it was ended early".to_owned()
    } else {
        format!("{reached} of {all} targets were reached")
    };
    Some(Failure::runtime(
        what,
        "see the lines above; on a machine that does something else too, run it again",
    ))
}

fn empty(args: &ProveArgs, cpus: Cpus) -> Verdict {
    let elsewhere = |what: &str, target: &str, command: &str| Elsewhere {
        what: what.to_owned(),
        target: target.to_owned(),
        command: command.to_owned(),
    };
    let mut notes = Vec::new();
    if cpus.server.is_none() {
        notes.push(
            "There is one processor only: server and generator share it, and no figure means what it says."
                .to_owned(),
        );
    }
    if args.quick {
        notes.push("The quick form: few and short repetitions, rough figures.".to_owned());
    }
    Verdict {
        schema: VERDICT_SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: without_secrets(std::env::args()),
        started_unix_ms: RealClock.now().unix.ms(),
        took_s: 0.0,
        quick: args.quick,
        interrupted: false,
        machine: Machine::here(),
        server_cpu: cpus.server,
        client_cpu: cpus.client,
        throughput: Vec::new(),
        figures: Vec::new(),
        under_load: Vec::new(),
        books: Vec::new(),
        failures: Vec::new(),
        notes,
        elsewhere: vec![
            elsewhere(
                "answer function without sockets",
                "120 ns v2, 150 ns v1",
                "cargo bench --bench answer",
            ),
            elsewhere(
                "21,000 connections over two shards",
                "none fails, at most 512 MiB",
                "cargo bench --bench connections",
            ),
            elsewhere("a frame to the update on every link", "1 µs of processor", "cargo bench --bench feed"),
            elsewhere(
                "goodput at 2 and 5 times the capacity",
                "at least 90 % of the peak",
                "cargo bench --bench goodput",
            ),
            elsewhere("HTTP beside nginx", "at most 0.85 times", "cargo bench --bench http"),
            elsewhere("idle process", "below 1 % of a core", "cargo bench --bench process"),
            elsewhere("allocations of an answer", "none", "cargo test --test allocations"),
            elsewhere("other servers beside this one", "", "cargo bench --bench peers"),
        ],
    }
}

/// A line of progress. A closed standard error is no reason to stop.
fn say(line: &str) {
    let _closed = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use beast::load::report::verdict::{Books, Failed};
    use beast::load::report::verdict_page;

    use super::*;

    #[test]
    fn what_failed_is_told_and_no_verdict_passes_with_it() {
        let (report, protocols) = (PathBuf::new(), vec![Protocol::V2]);
        let args = ProveArgs { quick: true, report, io: vec![Io::Xdp], protocols, pairs: None };
        let mut verdict = empty(&args, Cpus::first_two().unwrap());
        assert!(!verdict.passed(), "nothing was measured");
        verdict.books.push(Books {
            what: "everything".to_owned(),
            sent: 0,
            received: 0,
            dropped: 0,
            answered: 0,
            refused: 0,
            waiting: 0,
            seen: 0,
            pass: true,
        });
        assert!(verdict.passed() && unreached(&verdict).is_none());
        let (what, why) = ("UDP v2, XDP".to_owned(), "3 wrong answers; none may be".to_owned());
        verdict.failures.push(Failed { what, why: why.clone() });
        assert!(!verdict.passed() && unreached(&verdict).is_some());
        assert_eq!(verdict.reached(), (1, 2));
        assert!(text::text(&verdict).contains(&why) && verdict_page(&verdict).unwrap().contains(&why));
    }
}
