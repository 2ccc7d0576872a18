//! What a run of the generator found out: everything a report shows, in plain numbers.
//!
//! ```text
//! RunResult
//! ├─ setup, machine, server      what was done, on what, to whom
//! ├─ counts, latency             of the whole run
//! ├─ intervals                   the same, second by second
//! ├─ ledger                      where every request ended
//! ├─ generator                   its own cost, and whether it kept its schedule
//! └─ ramp | knee | endurance     what only such a run has
//! ```
//!
//! All of it has a JSON form by serde. Secrets are not in it: API keys in the command line are cut
//! down to their public part.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::machine::Machine;

/// Version of [`RunResult`]'s JSON form. Rises when a member goes or changes its meaning, not when one
/// is added.
pub const RESULT_VERSION: u32 = 1;

/// Name of the criterion that fails when a run could not go on.
pub(super) const RAN_TO_ITS_END: &str = "ran to its end";

/// One run of `beast load`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`RESULT_VERSION`] of whoever wrote it.
    pub version: u32,
    /// What the operator calls it, where several are compared.
    pub name: String,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// How long it took, in seconds, with the wait for the last answers.
    pub duration_s: f64,
    /// Whether it was told to stop before its end. What is here is what ran.
    pub interrupted: bool,
    /// What was done.
    pub setup: Setup,
    /// Where the generator ran.
    pub machine: Machine,
    /// What the server told of itself.
    pub server: Server,
    /// Of the whole run.
    pub counts: Counts,
    /// Of all right answers in time. Refusals are not in it: they are quick, and would make a server
    /// seem fast that answers little. See [`Setup::loop_kind`] for what it counts from.
    pub latency: Latency,
    /// The run in pieces of [`Setup::interval_s`], in order. In a ramp or a knee search they go through
    /// all steps, with the pauses between them left out.
    pub intervals: Vec<Interval>,
    /// Where every request ended.
    pub ledger: Ledger,
    /// What the generator itself was up to.
    pub generator: Generator,
    /// The levels, when this was a ramp.
    pub ramp: Option<Ramp>,
    /// The search, when there was one; also before an endurance run.
    pub knee: Option<Knee>,
    /// What changed over time, when this was an endurance run.
    pub endurance: Option<Endurance>,
    /// What had to hold, and whether it did. The run is a success when all did.
    pub criteria: Vec<Criterion>,
}

impl RunResult {
    /// Whether everything held that had to.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.criteria.iter().all(|criterion| criterion.pass)
    }

    /// How long requests were sent, in seconds.
    #[must_use]
    pub fn sending_s(&self) -> f64 {
        self.intervals.iter().map(|interval| interval.length_s).sum()
    }

    /// Right answers a second, while requests were sent.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        let after: u64 = self.intervals.iter().map(|interval| interval.answered_after).sum();
        let (answered, seconds) = (self.counts.answered.saturating_sub(after), self.sending_s());
        if seconds > 0.0 { answered as f64 / seconds } else { 0.0 }
    }

    /// What ended the run before its end, when it could not go on.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let ended = self.criteria.iter().find(|criterion| criterion.name == RAN_TO_ITS_END);
        ended.map(|criterion| criterion.found.as_str())
    }
}

/// How requests were spread over time, and so what a latency means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoopKind {
    /// By a fixed schedule: latency counts from when a request should have left, so a stall of
    /// server or generator shows in all requests it delays.
    Open,
    /// By a window: a request leaves when another is answered. Latency counts from the sending; a
    /// stalled server is not asked meanwhile, so this is no latency under load and must not be shown
    /// as one.
    Closed,
}

impl LoopKind {
    /// What must stand beside a latency of this kind.
    #[must_use]
    pub fn caption(self) -> &'static str {
        match self {
            Self::Open => "open loop: from the intended send time",
            Self::Closed => "closed loop: from the actual send time, not latency under load",
        }
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// `udp-v1`, `udp-v2`, `udp-raw`, `udp-echo` or `http`.
    pub protocol: String,
    /// The server as the operator named it.
    pub target: String,
    /// Its address.
    pub address: String,
    /// `run`, `ramp`, `knee` or `endurance`.
    pub mode: String,
    /// Open or closed loop; a ramp is closed, a knee search and an endurance run are open.
    pub loop_kind: LoopKind,
    /// Requests a second that were intended, in a plain open loop and an endurance run.
    pub rate_per_s: Option<f64>,
    /// Requests under way over all sockets, in a plain closed loop.
    pub window: Option<u64>,
    /// UDP sockets or HTTP connections; in a ramp the most there were.
    pub sockets: u64,
    /// Requests that may be under way on one HTTP connection; 1 without pipelining. 0 for UDP.
    pub pipeline: u64,
    /// Generator threads over all processes.
    pub threads: u64,
    /// Generator processes.
    pub processes: u64,
    /// The processor of each thread, in their order; `None` for one that was not pinned.
    pub cpus: Vec<Option<usize>>,
    /// What was asked for, in turn.
    pub assets: Vec<String>,
    /// A request without an answer for this long was given up, in seconds.
    pub lost_after_s: f64,
    /// Length of an interval, in seconds.
    pub interval_s: f64,
}

/// What the server told of itself, or the kernel of it. Left out where nobody told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Where its metrics were read.
    pub metrics_url: Option<String>,
    /// Its process, when it was named.
    pub pid: Option<u32>,
    /// Its version.
    pub version: Option<String>,
    /// Its engine.
    pub engine: Option<String>,
    /// How many shards it has.
    pub shards: Option<u64>,
    /// Processor time it used during the run for each answer, in microseconds; all its threads.
    pub cpu_us_per_answer: Option<f64>,
    /// The most memory it had, of the moments that were looked at, in bytes.
    pub memory_bytes_max: Option<u64>,
}

/// Counts of a stretch. Over a whole run
/// `sent = answered + Σ refused + wrong + late + lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests the kernel took.
    pub sent: u64,
    /// Right answers in time.
    pub answered: u64,
    /// Refusals in time, by reason: the protocol's code, or `http_` and the status.
    pub refused: BTreeMap<String, u64>,
    /// HTTP answers by status, whatever else was right or wrong about them.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests whose answer was wrong: another asset, no well-formed price, not the expected bytes.
    pub wrong: u64,
    /// Datagrams or bytes that belong to no request: a forged tag, an id nobody sent.
    pub stray: u64,
    /// Requests answered after they had been given up.
    pub late: u64,
    /// Further answers to answered requests.
    pub duplicate: u64,
    /// Requests given up that no answer has come to since. In an interval: given up less late ones, so
    /// it may be negative there.
    pub lost: i64,
    /// Requests of the schedule that did not leave because too many were under way.
    pub held_back: u64,
    /// Requests the kernel did not take.
    pub send_failed: u64,
    /// How often the kernel said that nobody listens: ICMP port unreachable, connection refused.
    pub port_closed: u64,
    /// Connections that were opened again: the server closed or reset them, or had not answered the
    /// oldest request on them within twice the time after which it is given up.
    pub reconnected: u64,
    /// Answers the kernel dropped because a socket of the generator was full.
    pub dropped: u64,
    /// Payload bytes of right answers.
    pub answer_bytes: u64,
}

impl Counts {
    /// Refusals for all reasons together.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Adds another stretch's.
    pub fn add(&mut self, other: &Self) {
        for (reason, count) in &other.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.lost = self.lost.saturating_add(other.lost);
        for (to, from) in [
            (&mut self.sent, other.sent),
            (&mut self.answered, other.answered),
            (&mut self.wrong, other.wrong),
            (&mut self.stray, other.stray),
            (&mut self.late, other.late),
            (&mut self.duplicate, other.duplicate),
            (&mut self.held_back, other.held_back),
            (&mut self.send_failed, other.send_failed),
            (&mut self.port_closed, other.port_closed),
            (&mut self.reconnected, other.reconnected),
            (&mut self.dropped, other.dropped),
            (&mut self.answer_bytes, other.answer_bytes),
        ] {
            *to = to.saturating_add(from);
        }
    }

    /// Share of what was sent that got no right answer in time, 0 to 1: a refusal or a wrong answer
    /// serves nobody, however quick it is. Of a whole run or step; in an interval answers may belong
    /// to requests of the one before.
    #[must_use]
    pub fn loss(&self) -> f64 {
        let unanswered = self.sent.saturating_sub(self.answered);
        if self.sent == 0 { 0.0 } else { unanswered as f64 / self.sent as f64 }
    }
}

/// A piece of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it began, in seconds since the run did.
    pub start_s: f64,
    /// How long it took, in seconds.
    pub length_s: f64,
    /// Which level or step of the run it belongs to, from 0.
    pub step: u32,
    /// What happened in it. Answers count when they come. The last one of a step holds what came after
    /// the sending ended, too.
    pub counts: Counts,
    /// How many of its right answers came after the sending ended, and count in no rate.
    #[serde(default)]
    pub answered_after: u64,
    /// Of the right answers that came in it.
    pub latency: Latency,
    /// The server's memory at its end, in bytes, where it is known.
    pub server_memory_bytes: Option<u64>,
}

impl Interval {
    /// Right answers a second, while requests were sent.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        let answered = self.counts.answered.saturating_sub(self.answered_after);
        if self.length_s > 0.0 { answered as f64 / self.length_s } else { 0.0 }
    }
}

/// Where every request that was sent ended. The first six lines and those of the lost ones add up:
///
/// `sent = answered + refused + wrong + late + port_closed
///       + dropped_by_server_kernel + unanswered_by_server + dropped_by_our_kernel + lost_on_the_way`
///
/// What nobody told counts as lost on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Requests our kernel took.
    pub sent: u64,
    /// Right answers in time.
    pub answered: u64,
    /// Refusals in time.
    pub refused: u64,
    /// Wrong answers.
    pub wrong: u64,
    /// Answers after the request was given up.
    pub late: u64,
    /// Lost because nobody listened; at least so many, since the kernel tells of several at once.
    pub port_closed: u64,
    /// Dropped because a socket of the server was full. `None` when nobody told.
    pub dropped_by_server_kernel: Option<u64>,
    /// Taken by the server, by its own books, but no answer reached us: it was silent, could not send,
    /// or the answer was lost on the way back. `None` when nobody told.
    pub unanswered_by_server: Option<u64>,
    /// Answers dropped because a socket of ours was full.
    pub dropped_by_our_kernel: u64,
    /// Lost on the way out, where the server tells what it received; else the rest, lost on the way out
    /// or back or for a reason that nobody told.
    pub lost_on_the_way: u64,
    /// By how much the reasons told exceed what was lost: others used the same server, or its counters
    /// lag. 0 when the ledger is sound.
    pub excess: u64,
    /// Who told of the server's side: `metrics`, `/proc/net/udp` or nobody.
    pub told_by: Option<String>,
}

impl Ledger {
    /// Whether the lines add up to what was sent.
    #[must_use]
    pub fn balances(&self) -> bool {
        let reasons = [
            self.answered,
            self.refused,
            self.wrong,
            self.late,
            self.port_closed,
            self.dropped_by_server_kernel.unwrap_or(0),
            self.unanswered_by_server.unwrap_or(0),
            self.dropped_by_our_kernel,
            self.lost_on_the_way,
        ];
        let sum: u128 = reasons.into_iter().map(u128::from).sum();
        sum == u128::from(self.sent) + u128::from(self.excess)
    }
}

/// What the generator itself was up to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Processor time of its threads for each request sent, in microseconds. They spin, so this holds
    /// the time they found nothing to do; see `busy`.
    pub cpu_us_per_exchange: f64,
    /// The same without the time nothing was to do.
    pub busy_us_per_exchange: f64,
    /// Part of the time its threads found something to do, 0 to 1.
    pub busy: f64,
    /// The most memory of one of its processes, in bytes.
    pub memory_bytes_max: u64,
    /// How it kept its schedule; `None` in a closed loop, which has none.
    pub schedule: Option<Schedule>,
    /// What the operator should know, such as a thread that could not be pinned.
    pub notes: Vec<String>,
}

/// How an open loop kept its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Requests that should have left.
    pub scheduled: u64,
    /// Requests that did.
    pub sent: u64,
    /// Requests that left late by the generator's own fault.
    pub late: u64,
    /// From how much on a request counts as late, in nanoseconds.
    pub late_after_ns: u64,
    /// By how much requests left late by the generator's own fault, all of them.
    pub lag: Latency,
    /// Largest share of requests that may be late or not leave at all, 0 to 1.
    pub late_share_max: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// Something that had to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criterion {
    /// What.
    pub name: String,
    /// What is needed, with its unit.
    pub needed: String,
    /// What was found, with its unit.
    pub found: String,
    /// Whether it held.
    pub pass: bool,
}

/// A ramp: levels of rising load, each a number of requests by so many at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// What requests and concurrency were multiplied by.
    pub scale: f64,
    /// The levels that ran, in order.
    pub levels: Vec<Level>,
}

/// One level of a ramp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// Its number, from 1.
    pub number: u32,
    /// Requests that were to be sent.
    pub requests: u64,
    /// Requests under way at a time; over HTTP as many connections.
    pub concurrency: u64,
    /// How long it took, in seconds.
    pub duration_s: f64,
    /// Right answers a second.
    pub rate_per_s: f64,
    /// What became of its requests.
    pub counts: Counts,
    /// Closed loop.
    pub latency: Latency,
    /// What had to hold here.
    pub criteria: Vec<Criterion>,
    /// Whether all of it did.
    pub pass: bool,
}

/// A search for the highest rate that stays within bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    /// The 99th percentile may be at most this, in nanoseconds, open loop.
    pub p99_ns_max: u64,
    /// The share of requests without a right answer in time may be at most this, 0 to 1.
    pub loss_max: f64,
    /// The rates that were tried, in order.
    pub steps: Vec<KneeStep>,
    /// The highest rate that kept the bounds, requests a second; `None` when none did.
    pub rate_per_s: Option<f64>,
    /// Why the next one did not: `server`, `generator`, or `none` when the search ended before a
    /// rate failed.
    pub limited_by: String,
}

/// A rate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KneeStep {
    /// Requests a second that were intended.
    pub rate_per_s: f64,
    /// Right answers a second that came.
    pub answered_per_s: f64,
    /// Share of requests without a right answer in time, 0 to 1.
    pub loss: f64,
    /// What became of its requests.
    pub counts: Counts,
    /// Open loop.
    pub latency: Latency,
    /// Whether the generator kept its schedule.
    pub kept_schedule: bool,
    /// Whether the rate kept the bounds.
    pub pass: bool,
}

/// What changed over a long run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endurance {
    /// Requests a second.
    pub rate_per_s: f64,
    /// The share of the knee that is, 0 to 1; `None` when the rate was given.
    pub share_of_knee: Option<f64>,
    /// How much the server's memory grew an hour, by the straight line that fits best, in bytes.
    pub memory_bytes_per_hour: Option<f64>,
    /// Its memory in the first quarter of the run, on average, in bytes.
    pub memory_bytes_first: Option<f64>,
    /// In the last quarter.
    pub memory_bytes_last: Option<f64>,
    /// The 99th percentile of the first quarter, in nanoseconds.
    pub p99_ns_first: u64,
    /// Of the last quarter.
    pub p99_ns_last: u64,
    /// How much the 99th percentile grew an hour, by the straight line that fits best, in nanoseconds.
    pub p99_ns_per_hour: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_balances_only_when_every_request_has_its_line() {
        let ledger = Ledger {
            sent: 100,
            answered: 80,
            refused: 5,
            late: 1,
            dropped_by_server_kernel: Some(10),
            dropped_by_our_kernel: 1,
            lost_on_the_way: 3,
            ..Ledger::default()
        };
        assert!(ledger.balances());
        assert!(!Ledger { answered: 81, ..ledger.clone() }.balances());
        assert!(Ledger { answered: 81, excess: 1, ..ledger }.balances());
    }

    #[test]
    fn loss_is_what_had_no_right_answer_in_time() {
        let counts = Counts { sent: 1_000, answered: 985, late: 5, lost: 10, ..Counts::default() };
        assert!((counts.loss() - 0.015).abs() < 1e-12);
        let refused = [("overloaded".to_owned(), 9)].into();
        let counts = Counts { sent: 1_000, answered: 990, refused, wrong: 1, ..Counts::default() };
        assert!((counts.loss() - 0.01).abs() < 1e-12);
        assert!(Counts::default().loss().abs() < 1e-12);
    }
}
