//! Runs as the generator writes them down, made from a formula: what reports are tested with.

use std::collections::BTreeMap;
use std::time::Duration;

use beast::load::latency::{Latency, histogram};
use beast::load::machine::Machine;
use beast::load::result::{
    Counts, Criterion, Endurance, Generator, Interval, Knee, KneeStep, Ledger, Level, LoopKind,
    RESULT_VERSION, Ramp, RunResult, Schedule, Server, Setup,
};
use hdrhistogram::Histogram;

/// Numbers that follow from a seed (xorshift), 0 to 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Latencies with a long tail around `median_us`; with a stall, the answers of 40 ms wait for it.
fn latencies(numbers: &mut Numbers, count: u64, median_us: f64, stalled: bool) -> Histogram<u64> {
    let mut all = histogram();
    for n in 0..count {
        let (a, b) = (numbers.next().max(1e-9), numbers.next());
        let normal = (-2.0 * a.ln()).sqrt() * (b * std::f64::consts::TAU).cos();
        let tail = if numbers.next() < 0.004 { 1.0 + 20.0 * numbers.next() } else { 1.0 };
        let mut us = median_us * (0.18 * normal).exp() * tail;
        if stalled && n < count / 25 {
            us += 40_000.0 * (1.0 - n as f64 / (count as f64 / 25.0));
        }
        all.record(Duration::from_secs_f64(us / 1e6).as_nanos() as u64).unwrap();
    }
    all
}

fn setup(protocol: &str, mode: &str, loop_kind: LoopKind) -> Setup {
    Setup {
        protocol: protocol.to_owned(),
        target: "prices.example:2679".to_owned(),
        address: "192.0.2.7:2679".to_owned(),
        mode: mode.to_owned(),
        loop_kind,
        rate_per_s: (loop_kind == LoopKind::Open && mode == "run").then_some(20_000.0),
        window: (loop_kind == LoopKind::Closed && mode == "run").then_some(256),
        sockets: 8,
        pipeline: u64::from(protocol == "http"),
        threads: 1,
        processes: 1,
        cpus: vec![Some(1)],
        assets: ["BTC", "ETH", "SOL"].map(str::to_owned).to_vec(),
        lost_after_s: 1.0,
        interval_s: 1.0,
    }
}

/// An open loop of 24 s with a stall in the ninth, some losses and a refusal or two.
pub(crate) fn open(name: &str, median_us: f64, seed: u64) -> RunResult {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ seed);
    let mut whole = histogram();
    let (mut intervals, mut counts) = (Vec::new(), Counts::default());
    for second in 0..24_u32 {
        let answered = 19_950 + (numbers.next() * 50.0) as u64;
        let part = latencies(&mut numbers, answered, median_us, second == 8);
        whole.add(&part).unwrap();
        let lost = 20_000 - answered - u64::from(second % 2);
        let here = Counts {
            sent: 20_000,
            answered,
            lost: lost.cast_signed(),
            refused: BTreeMap::from([("stale".to_owned(), u64::from(second % 2))]),
            answer_bytes: answered * 88,
            ..Counts::default()
        };
        counts.sent += here.sent;
        counts.answered += here.answered;
        counts.lost += here.lost;
        *counts.refused.entry("stale".to_owned()).or_default() += u64::from(second % 2);
        counts.answer_bytes += here.answer_bytes;
        intervals.push(Interval {
            start_s: f64::from(second),
            length_s: 1.0,
            answered_after: 0,
            step: 0,
            counts: here,
            latency: Latency::of(&part),
            server_memory_bytes: Some(47 << 20),
        });
    }
    counts.duplicate = 3;
    let lost = counts.lost.unsigned_abs();
    let ledger = Ledger {
        sent: counts.sent,
        answered: counts.answered,
        refused: counts.refused_total(),
        dropped_by_server_kernel: Some(lost / 2),
        unanswered_by_server: Some(0),
        lost_on_the_way: lost - lost / 2,
        told_by: Some("metrics".to_owned()),
        ..Ledger::default()
    };
    let schedule = Schedule {
        scheduled: counts.sent,
        sent: counts.sent,
        late: 112,
        late_after_ns: 1_000_000,
        lag: Latency::of(&latencies(&mut numbers, 1_000, 2.0, false)),
        late_share_max: 0.01,
        kept: true,
    };
    RunResult {
        version: RESULT_VERSION,
        name: name.to_owned(),
        command: ["beast", "load", "udp", "192.0.2.7:2679", "--rate", "20000", "--key", "tb_028t5cy4tqkff…"]
            .map(str::to_owned)
            .to_vec(),
        started_unix_ms: 1_763_650_000_123,
        duration_s: 24.8,
        interrupted: false,
        setup: setup("udp-v2", "run", LoopKind::Open),
        machine: Machine::here(),
        server: Server {
            version: Some("0.1.0".to_owned()),
            engine: Some("uring".to_owned()),
            shards: Some(2),
            cpu_us_per_answer: Some(1.63),
            memory_bytes_max: Some(47 << 20),
            ..Server::default()
        },
        counts,
        latency: Latency::of(&whole),
        intervals,
        ledger,
        generator: Generator {
            cpu_us_per_exchange: 5.2,
            busy_us_per_exchange: 1.41,
            busy: 0.28,
            memory_bytes_max: 12 << 20,
            schedule: Some(schedule),
            notes: Vec::new(),
        },
        ramp: None,
        knee: None,
        endurance: None,
        criteria: vec![
            criterion("schedule kept", "at most 1 % late", "0.02 %", true),
            criterion("loss", "at most 1 %", "0.1 %", true),
        ],
    }
}

fn criterion(name: &str, needed: &str, found: &str, pass: bool) -> Criterion {
    Criterion { name: name.to_owned(), needed: needed.to_owned(), found: found.to_owned(), pass }
}

/// A ramp that was ended in its fifth level, whose server failed the fourth.
pub(crate) fn ramp() -> RunResult {
    let mut run = open("ramp <b>&amp;", 90.0, 7);
    let mut numbers = Numbers(99);
    let level = |(number, requests, concurrency): (u32, u64, u64)| {
        let pass = number != 4;
        let latency =
            Latency::of(&latencies(&mut numbers, requests.min(9_000), 30.0 * f64::from(number), false));
        Level {
            number,
            requests,
            concurrency,
            duration_s: requests as f64 / 190_000.0,
            rate_per_s: 150_000.0 + 9_000.0 * f64::from(number),
            counts: Counts {
                sent: requests,
                answered: requests - u64::from(!pass) * 7,
                lost: i64::from(!pass) * 7,
                statuses: BTreeMap::from([(200, requests)]),
                ..Counts::default()
            },
            latency,
            criteria: vec![criterion(
                "every request answered",
                "100 %",
                if pass { "100 %" } else { "99.92 %" },
                pass,
            )],
            pass,
        }
    };
    let levels = [(1, 300, 30), (2, 900, 90), (3, 3_000, 300), (4, 9_000, 600), (5, 30_000, 900)].map(level);
    run.setup = setup("http", "ramp", LoopKind::Closed);
    run.generator.schedule = None;
    run.generator.notes.push("thread 0 is not pinned: the kernel does not allow it".to_owned());
    run.interrupted = true;
    run.counts.statuses = BTreeMap::from([(200, run.counts.answered), (503, 12)]);
    run.ramp = Some(Ramp { scale: 0.1, levels: levels.to_vec() });
    run.criteria = vec![criterion("every level", "passes", "4 of 5", false)];
    run
}

/// A search for the knee and an endurance run at 80 % of it.
pub(crate) fn endurance() -> RunResult {
    let mut run = open("endurance", 25.0, 3);
    let mut numbers = Numbers(5);
    let step = |rate: f64| {
        let over = rate > 400_000.0;
        let latency = Latency::of(&latencies(&mut numbers, 5_000, 20.0 + (rate / 60_000.0).powi(3), over));
        KneeStep {
            rate_per_s: rate,
            answered_per_s: rate.min(412_000.0),
            loss: if over { 0.02 } else { 0.0 },
            counts: Counts::default(),
            latency,
            kept_schedule: true,
            pass: !over,
        }
    };
    let steps = [100_000.0, 200_000.0, 400_000.0, 500_000.0, 450_000.0, 425_000.0].map(step);
    run.knee = Some(Knee {
        p99_ns_max: 1_000_000,
        loss_max: 0.000_1,
        steps: steps.to_vec(),
        rate_per_s: Some(400_000.0),
        limited_by: "server".to_owned(),
    });
    run.setup = setup("udp-v1", "endurance", LoopKind::Open);
    run.endurance = Some(Endurance {
        rate_per_s: 320_000.0,
        share_of_knee: Some(0.8),
        memory_bytes_per_hour: Some(1_200.5),
        memory_bytes_first: Some(49_283_072.0),
        memory_bytes_last: Some(49_283_400.0),
        p99_ns_first: 41_200,
        p99_ns_last: 41_500,
        p99_ns_per_hour: 310.0,
    });
    run
}

/// A run that met nobody: no answer, no latency.
pub(crate) fn unanswered() -> RunResult {
    let mut run = open("nobody there", 25.0, 3);
    let none = Latency::of(&histogram());
    run.latency = none.clone();
    run.intervals.truncate(1);
    for interval in &mut run.intervals {
        interval.latency = none.clone();
    }
    run.counts = Counts { sent: 10, lost: 10, port_closed: 10, ..Counts::default() };
    run.ledger = Ledger { sent: 10, port_closed: 10, ..Ledger::default() };
    run.server = Server::default();
    run.criteria = vec![criterion("an answer", "at least one", "none", false)];
    run
}
