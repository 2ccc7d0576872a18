//! What `beast prove` found out on a machine: every figure beside its target.

use std::io;

use serde::{Deserialize, Serialize};

use crate::load::latency::Latency;
use crate::load::machine::Machine;
use crate::load::stats::Median;

/// Names the meaning of all members of `verdict.json`.
pub const VERDICT_SCHEMA: &str = "beast-prove/1";

/// Names of the files of a verdict.
pub const VERDICT_FILES: [&str; 2] = ["verdict.json", "verdict.html"];

/// Requests a second of one core of the source design, a Go service that answered 487,900 UDP and
/// 369,600 TCP requests a second on what its headline calls a node of 8 processors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePerCore {
    /// If the headline is read as one node.
    pub one_node: f64,
    /// If it is read as three.
    pub three_nodes: f64,
}

/// UDP requests a second of one core of the source design: 487,900 over 8 processors.
pub const SOURCE_UDP: SourcePerCore = SourcePerCore { one_node: 61_000.0, three_nodes: 61_000.0 / 3.0 };

/// TCP requests a second of one core of the source design: 369,600 over 8 processors.
pub const SOURCE_TCP: SourcePerCore = SourcePerCore { one_node: 46_000.0, three_nodes: 46_000.0 / 3.0 };

/// A verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`VERDICT_SCHEMA`].
    pub schema: String,
    /// Version of the program that was proved.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// How long it took.
    pub took_s: f64,
    /// Whether the short form was asked for, whose figures are rough.
    pub quick: bool,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// The machine.
    pub machine: Machine,
    /// Processor of the server; `None` when it was not pinned.
    pub server_cpu: Option<usize>,
    /// Processor of the generator.
    pub client_cpu: Option<usize>,
    /// Answers a second of one core, beside the source design's.
    pub throughput: Vec<Throughput>,
    /// Figures with targets, and some without.
    pub figures: Vec<Figure>,
    /// Latencies under load.
    pub under_load: Vec<UnderLoad>,
    /// The books of each server.
    pub books: Vec<Books>,
    /// What could not be measured although it should have, or was not as it must be.
    #[serde(default)]
    pub failures: Vec<Failed>,
    /// What a reader must know: an engine that was left out and why, a side that was the limit.
    pub notes: Vec<String>,
    /// Targets that take longer than this, and the command that measures each.
    pub elsewhere: Vec<Elsewhere>,
}

/// The ceiling of a closed loop over one core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// What was asked how, and by which engine.
    pub what: String,
    /// Right answers a second.
    pub answers_per_s: Median,
    /// Part of the time the server's busiest thread was running; at 1 the server was the limit.
    pub server_busy: f64,
    /// Part of the time the generator found something to do; at 1 it was.
    pub client_busy: f64,
    /// The source design's figure.
    pub source: SourcePerCore,
    /// Whether it reaches the higher reading of it.
    pub pass: bool,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was asked how, and by which engine.
    pub what: String,
    /// What the figure says of it.
    pub name: String,
    /// The figure.
    pub median: Median,
    /// Its unit.
    pub unit: Unit,
    /// The most it may be, where there is a target.
    pub target_max: Option<f64>,
    /// Whether it is; `None` without a target.
    pub pass: Option<bool>,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A ratio.
    Times,
    /// Nanoseconds.
    Ns,
    /// A part of a whole, 0 to 1.
    Share,
}

impl Figure {
    /// A figure with a target, or without.
    #[must_use]
    pub fn new(what: &str, name: &str, median: Median, unit: Unit, target_max: Option<f64>) -> Self {
        let pass = target_max.map(|most| median.value <= most);
        Self { what: what.to_owned(), name: name.to_owned(), median, unit, target_max, pass }
    }
}

/// An open loop at a part of the knee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnderLoad {
    /// What was asked how, and by which engine.
    pub what: String,
    /// Part of the knee, 0 to 1.
    pub share_of_knee: f64,
    /// The knee: the highest rate within bounds, requests a second.
    pub knee_per_s: f64,
    /// Intended requests a second.
    pub rate_per_s: f64,
    /// Right answers a second.
    pub answers_per_s: f64,
    /// Part of the requests without a right answer in time.
    pub loss: f64,
    /// Whether the generator kept its schedule.
    pub kept_schedule: bool,
    /// From the intended send time.
    pub latency: Latency,
    /// The most that the 99th percentile may be.
    pub p99_ns_max: u64,
    /// Whether it is, every request got its right answer in time, and the schedule was kept.
    pub pass: bool,
}

/// Whether the books of a server close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// The server.
    pub what: String,
    /// Requests that the generator has sent it.
    pub sent: u64,
    /// Requests it received, by its books.
    pub received: u64,
    /// Datagrams its kernel dropped.
    pub dropped: u64,
    /// What it answered.
    pub answered: u64,
    /// What it refused.
    pub refused: u64,
    /// What was waiting when it was looked at.
    pub waiting: u64,
    /// Right answers and refusals that the generator has seen.
    pub seen: u64,
    /// Whether sent = received + dropped, received = answered + refused + waiting, and every answer
    /// was seen.
    pub pass: bool,
}

/// What could not be measured, or was not as it must be. No verdict passes with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// What was asked how, and by which engine.
    pub what: String,
    /// What was found, and is needed.
    pub why: String,
}

/// A target that is measured elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// What.
    pub what: String,
    /// Its target.
    pub target: String,
    /// The command that measures it.
    pub command: String,
}

impl Verdict {
    /// Whether everything that has a target has reached it, and something was measured.
    #[must_use]
    pub fn passed(&self) -> bool {
        let verdicts = self.verdicts();
        !self.interrupted && !verdicts.is_empty() && verdicts.iter().all(|pass| *pass)
    }

    /// How many targets were reached, and of how many.
    #[must_use]
    pub fn reached(&self) -> (usize, usize) {
        let verdicts = self.verdicts();
        (verdicts.iter().filter(|pass| **pass).count(), verdicts.len())
    }

    fn verdicts(&self) -> Vec<bool> {
        let throughput = self.throughput.iter().map(|throughput| throughput.pass);
        let figures = self.figures.iter().filter_map(|figure| figure.pass);
        let under_load = self.under_load.iter().map(|under_load| under_load.pass);
        let books = self.books.iter().map(|books| books.pass);
        let failures = self.failures.iter().map(|_| false);
        throughput.chain(figures).chain(under_load).chain(books).chain(failures).collect()
    }

    /// The text of `verdict.json`.
    ///
    /// # Errors
    /// When a member has no JSON form, which none has.
    pub fn to_json(&self) -> io::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}
