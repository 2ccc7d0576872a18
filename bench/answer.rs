//! What does an answer cost without the kernel? Calls the answer function on requests in memory:
//! parse, key, tag, limit, board, record, answer; no socket, no feed. The same for a key that is held
//! to 100,000 requests a second and asks just as often, as one of eight shards that share its
//! allowance; and for two that are refused, over their rate and over their month.

mod common;

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use beast::account::{Allowances, Tier, Token};
use beast::http::head::{self, Head};
use beast::ledger::Segment;
use beast::limits::{RECV_BATCH_LEN, UDP_PAYLOAD_MAX};
use beast::load::stats::Median;
use beast::load::{Requests, Verdict as Judged};
use beast::shard::{Answerer, Attempt, Counter, HttpVerdict, Verdict};
use beast::time::{Clock, MonoNs, Now, RealClock};
use clap::Parser;
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, Start, fixture};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "answer", about = "What an answer costs without the kernel")]
struct Args {
    /// Rounds, of which the median is taken.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Answers in a round.
    #[arg(long, default_value_t = 500_000)]
    answers: usize,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    protocol: &'static str,
    key: &'static str,
    ns_per_answer: f64,
}

/// Different requests in memory: more than the first cache holds, as on a socket.
const REQUESTS: usize = 4_096;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["answer", "--quick"].map(Into::into).to_vec(),
        Start::Bench(args) => args,
    };
    let args = Args::parse_from(args);
    let machine = Machine::here();
    let cpu = Cpus::first_two().map(|cpus| cpus.server);
    common::end(cpu.and_then(|cpu| common::pinned(cpu, || measure(&args, machine))))
}

fn measure(args: &Args, machine: Machine) -> io::Result<bool> {
    if !args.json {
        machine.print();
    }
    let (rounds, answers) = if args.quick { (2, 2 * REQUESTS) } else { (args.rounds, args.answers) };
    let token = Token::generate().map_err(|_| io::Error::other("the machine has no randomness to give"))?;
    let mut answerer = fixture::answerer(&token)?;
    let now = RealClock.now();
    let (mut v1, mut v2) = (fixture::v1(&token)?, fixture::v2(&token)?);
    let v1_requests = requests(&mut v1, now);
    let v2_requests = requests(&mut v2, now);
    let http_requests = http_requests(&token)?;
    check(&mut answerer, &v1_requests, &mut v1, now)?;
    check(&mut answerer, &v2_requests, &mut v2, now)?;

    let mut subjects = Vec::new();
    for key in KEYS {
        subjects.push((key, subject(key, &token, now)?));
    }
    let mut all = Vec::new();
    for round in 0..=rounds {
        // Taken in turn, so that whatever changes on the machine meets all alike.
        for (key, subject) in &mut subjects {
            let these = [
                ("v2", subject.udp_round(&v2_requests, answers)?),
                ("v1", subject.udp_round(&v1_requests, answers)?),
                ("http", subject.http_round(&http_requests, answers)?),
            ];
            subject.check_refusals(*key)?;
            // The first round only warms up.
            if round > 0 {
                all.extend(these.map(|(protocol, ns_per_answer)| Round {
                    protocol,
                    key: key.name(),
                    ns_per_answer,
                }));
            }
        }
    }
    let median = |protocol: &str, key: AskedAs| {
        let these = all.iter().filter(|r| r.protocol == protocol && r.key == key.name());
        Median::of(these.map(|r| r.ns_per_answer).collect())
    };
    let mut figures = Vec::new();
    for (protocol, most) in [("v2", Some(120.0)), ("v1", Some(150.0)), ("http", None)] {
        // Only a limited key is ever refused, so its answers are what a refusal is held against.
        let answered = median(protocol, AskedAs::Limited).map(|median| median.value);
        for key in KEYS {
            let bound = if key.is_refused() { answered } else { most };
            let named = format!("answer function, {protocol}, {}", key.name());
            let figure =
                median(protocol, key).map(|m| Figure::new(named, m, "ns", bound.filter(|_| !args.quick)));
            figures.extend(figure);
        }
    }
    Ok(Report::new("answer", machine, all, figures).print(args.json))
}

/// What is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskedAs {
    /// A key that is counted and never refused.
    Unlimited,
    /// A key that keeps to its limits.
    Limited,
    /// A key that is over its rate.
    OverRate,
    /// A key that has used up its month.
    OverMonth,
}

const KEYS: [AskedAs; 4] = [AskedAs::Unlimited, AskedAs::Limited, AskedAs::OverRate, AskedAs::OverMonth];

impl AskedAs {
    fn name(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited key",
            Self::Limited => "limited key",
            Self::OverRate => "refused over its rate",
            Self::OverMonth => "refused over its month",
        }
    }

    fn is_refused(self) -> bool {
        matches!(self, Self::OverRate | Self::OverMonth)
    }
}

/// Who answers, and a clock that moves on with each request.
struct Subject {
    answerer: Answerer,
    now: Now,
    asked: u64,
    /// How far the clock moves in a turn.
    step_ns: u64,
}

/// Shards among which the limited key's allowance is shared: the more, the shorter its leases.
const SHARDS: usize = 8;

/// Monthly cap of those that keep to it: more than they ask.
const MONTHLY: u64 = 1_000_000_000;

fn subject(key: AskedAs, token: &Token, now: Now) -> io::Result<Subject> {
    let (qps, burst, monthly) = match key {
        AskedAs::Unlimited | AskedAs::Limited => (100_000, 100_000, Some(MONTHLY)),
        AskedAs::OverRate => (1, 1, Some(MONTHLY)),
        AskedAs::OverMonth => (100_000, 100_000, Some(1)),
    };
    let unlimited = key == AskedAs::Unlimited;
    let tier = Tier { name: "bench".into(), unlimited, qps, burst, monthly };
    let mut answerer = fixture::answerer_of(tier, Segment::new(1, 0), token)?;
    answerer.share_limits(Arc::new(Allowances::new(1)), SHARDS);
    // As fast as the limited key may ask.
    let step_ns = if key == AskedAs::OverRate { 0 } else { 10_000 * RECV_BATCH_LEN as u64 };
    Ok(Subject { answerer, now, asked: 0, step_ns })
}

fn requests(load: &mut impl Requests, now: Now) -> Vec<Vec<u8>> {
    let mut room = [0; UDP_PAYLOAD_MAX];
    (1..=REQUESTS as u64)
        .map(|id| {
            let len = load.fill(id, now.unix, &mut room);
            room[..len].to_vec()
        })
        .collect()
}

fn http_requests(token: &Token) -> io::Result<Vec<Vec<u8>>> {
    let symbols = fixture::symbols()?;
    let request = |n: usize| {
        let (symbol, token) = (symbols[n % symbols.len()].as_str(), token.reveal());
        format!("GET /price?asset={symbol} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-API-Key: {token}\r\n\r\n")
            .into_bytes()
    };
    Ok((0..REQUESTS).map(request).collect())
}

/// Every request gets the answer it asks for.
fn check(
    answerer: &mut Answerer,
    requests: &[Vec<u8>],
    judge: &mut impl Requests,
    now: Now,
) -> io::Result<()> {
    let mut room = [0; UDP_PAYLOAD_MAX];
    for (id, request) in (1..).zip(requests) {
        let verdict = answerer.datagram(now, PEER, request, false, &mut room, Attempt::First);
        let judged = match verdict {
            Verdict::Send(len) => judge.check(&room[..len]),
            other => return Err(io::Error::other(format!("request {id} got {other:?}"))),
        };
        if judged != Judged::Match(id) {
            return Err(io::Error::other(format!("request {id} got {judged:?}")));
        }
    }
    Ok(())
}

impl Subject {
    /// The time of the next request: a shard reads it once a turn.
    fn step(&mut self) -> Now {
        self.asked += 1;
        if self.asked.is_multiple_of(RECV_BATCH_LEN as u64) {
            self.now.mono = MonoNs(self.now.mono.0 + self.step_ns);
        }
        self.now
    }

    fn udp_round(&mut self, requests: &[Vec<u8>], answers: usize) -> io::Result<f64> {
        let mut room = [0; UDP_PAYLOAD_MAX];
        let mut sent = 0_usize;
        let start = thread_time()?;
        for request in requests.iter().cycle().take(answers) {
            let now = self.step();
            let request = black_box(&request[..]);
            let verdict = self.answerer.datagram(now, PEER, request, false, &mut room, Attempt::First);
            sent += usize::from(matches!(verdict, Verdict::Send(_)));
            black_box(&mut room);
        }
        finish(start, sent, answers)
    }

    fn http_round(&mut self, requests: &[Vec<u8>], answers: usize) -> io::Result<f64> {
        let mut out = Vec::with_capacity(4_096);
        let mut sent = 0_usize;
        let start = thread_time()?;
        for request in requests.iter().cycle().take(answers) {
            let now = self.step();
            out.clear();
            if let Head::Complete { request, .. } = head::parse(black_box(request)) {
                let verdict = self.answerer.http(now, &request, &mut out, Attempt::First);
                sent += usize::from(verdict == HttpVerdict::Done && out.starts_with(b"HTTP/1.1 "));
            }
            black_box(&mut out);
        }
        finish(start, sent, answers)
    }

    /// Whether all were refused that should be, and nobody else; the very first request is not.
    fn check_refusals(&self, key: AskedAs) -> io::Result<()> {
        let count = |counter| self.answerer.counters.value(counter);
        let answered = count(Counter::UdpAnswered) + count(Counter::HttpAnswered);
        let over_rate = count(Counter::UdpRateLimited) + count(Counter::HttpRateLimited);
        let over_month = count(Counter::UdpMonthlyLimit) + count(Counter::HttpMonthlyLimit);
        let right = match key {
            AskedAs::Unlimited | AskedAs::Limited => over_rate + over_month == 0,
            AskedAs::OverRate => answered <= 1 && over_month == 0,
            AskedAs::OverMonth => answered <= 1 && over_rate == 0,
        };
        if right {
            return Ok(());
        }
        let name = key.name();
        let told =
            format!("{name}: {answered} answered, {over_rate} over the rate, {over_month} over the month");
        Err(io::Error::other(told))
    }
}

fn finish(start: Duration, sent: usize, answers: usize) -> io::Result<f64> {
    let took = thread_time()?.saturating_sub(start);
    if sent != answers {
        return Err(io::Error::other(format!("{sent} answers to {answers} requests")));
    }
    Ok(took.as_secs_f64() * 1e9 / answers as f64)
}

/// Processor time of this thread: what others do on the processor does not count.
fn thread_time() -> io::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}
