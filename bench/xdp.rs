//! What does an answer in the kernel cost, and how many come from one core? The time of the program by
//! the kernel's test-run, part by part; and answers a second over a veth pair, against the socket path
//! on the same core, from a sender that bypasses the stack. Needs root.

mod common;
#[path = "xdp/rate.rs"]
mod rate;
#[path = "../tests/support/veth.rs"]
mod veth;

use std::collections::HashMap;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;

use beast::account::{Key, KeyTable, Tier, Token};
use beast::load::stats::Median;
use beast::price::Symbol;
use beast::sys::mmap::SharedWords;
use beast::sys::pin;
use beast::time::{Clock as _, RealClock};
use beast::wire::v2;
use beast::xdp::{Interface, Program, Served, Sizes};
use clap::{Parser, ValueEnum};
use common::machine::Machine;
use common::report::{Figure, Report};

use common::{Cpus, Start, fixture};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "xdp", about = "What an answer in the kernel costs, and how many come from one core")]
struct Args {
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "time,rate")]
    what: Vec<What>,
    /// Rounds of `time`, of which the median is taken.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Pairs of `rate`: the kernel, then the socket path.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Seconds at each rate of requests.
    #[arg(long, default_value_t = 0.25)]
    seconds: f64,
    /// Small sizes: correctness only.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The program alone.
    Time,
    /// Answers a second.
    Rate,
}

/// One number of one round.
#[derive(Debug, Serialize)]
struct Run {
    what: String,
    value: f64,
}

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/bench.bpf.o");

/// Runs in one call: fewer than a lane has slots.
const REPEAT: u32 = 50_000;

/// Words of the bench program's map with the kept request: 130 bytes and a little.
const FRAME_WORDS: usize = 17;

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["xdp", "--quick"].map(Into::into).to_vec(),
        Start::Bench(args) => args,
    };
    common::end(measure(&Args::parse_from(args)))
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    if !args.json {
        machine.print();
    }
    let cpus = Cpus::first_two()?;
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    if args.what.contains(&What::Time) {
        let (runs, found) = common::pinned(cpus.server, || time(args))?;
        all.extend(runs);
        figures.extend(found);
    }
    if args.what.contains(&What::Rate) {
        let (runs, found) = rate::rate(args, cpus)?;
        all.extend(runs);
        figures.extend(found);
    }
    Ok(Report::new("xdp", machine, all, figures).print(args.json))
}

/// The program with a full board and three keys.
struct Subject {
    program: Program,
    lane: usize,
    keys: HashMap<&'static str, Token>,
}

fn key(token: &Token, number: u32, unlimited: bool) -> Key {
    let rate = u32::MAX;
    let tier = Tier { name: "x".into(), unlimited, qps: rate, burst: rate, monthly: None };
    Key {
        number,
        account: 1,
        public_id: token.public_id(),
        secret_hash: token.secret_hash(),
        v2_request: token.v2_request_key(),
        v2_answer: token.v2_answer_key(),
        tier,
        networks: vec![],
        admin: false,
        expires: beast::time::UnixNs::NEVER,
    }
}

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PORT: u16 = 2_679;

impl Subject {
    /// `name` is that of a program in the bench object.
    fn new(name: &'static str) -> io::Result<Self> {
        let token =
            || Token::generate().map_err(|_| io::Error::other("the machine has no randomness to give"));
        let keys: HashMap<_, _> =
            [("unlimited", token()?), ("limited", token()?), ("unknown", token()?)].into();
        let (symbols, answerer) = (fixture::symbols()?, fixture::answerer(&keys["unlimited"])?);
        let mut program = Program::load_from(OBJECT, name, &symbols, 1, Sizes::default(), None)
            .map_err(io::Error::other)?;
        let table = KeyTable::new(vec![key(&keys["unlimited"], 1, true), key(&keys["limited"], 2, false)]);
        let place = |key: &Key| Some(u32::from(!key.tier.unlimited));
        program.keys.replace(&table, place).map_err(io::Error::other)?;
        program.tokens.add(1, i64::MAX / 2);
        let now = RealClock.now();
        program.settings.tell_time(now);
        let interface = Interface {
            name: "none".into(),
            index: 0,
            hardware: SERVER_MAC,
            addresses: vec!["10.77.0.1".parse().map_err(io::Error::other)?],
            tagged: vec![],
        };
        program.settings.tell_served(&Served::new(&interface, &interface.addresses, PORT));
        // The last asset has no price.
        let all = 0..symbols.len() - 1;
        program.prices.follow(answerer.board(), answerer.catalogue(), all, now.mono, |ready| &ready.v2);
        let lane = pin::cpus()?[0];
        Ok(Self { program, lane, keys })
    }

    fn frame(&self, key: &str, asset: &str, late_ms: u64, port: u16) -> io::Result<Vec<u8>> {
        let request = request(&self.keys[key], asset, 7, RealClock.now().unix.ms() - late_ms)?;
        frame((CLIENT_MAC, SERVER_MAC), ([10, 77, 0, 2], [10, 77, 0, 1]), port, &request)
    }

    /// Nanoseconds of a run on this frame, which must come out so.
    fn ns(&self, frame: &[u8], sent: bool) -> io::Result<f64> {
        let mut out = vec![0; 2_048];
        let run = self.program.test_run(frame, &mut out, REPEAT).map_err(io::Error::other)?;
        if run.sent != sent {
            return Err(io::Error::other(format!(
                "sent is {}, passed {:?}",
                run.sent,
                self.program.lanes.passed(self.lane)
            )));
        }
        Ok(run.mean_ns as f64)
    }

    fn release(&self) {
        self.program.lanes.release(self.lane, u64::MAX);
    }
}

fn request(token: &Token, asset: &str, request_id: u64, time_ms: u64) -> io::Result<Vec<u8>> {
    let symbol = Symbol::parse(asset).map_err(io::Error::other)?;
    let request = v2::Request { key_id: token.public_id(), time_ms, request_id, exchange: None, symbol };
    let mut out = vec![0; v2::ANSWER_LEN];
    v2::write_request(&mut out, &request, &v2::Key(token.v2_request_key().0))
        .ok_or_else(|| io::Error::other("the room is too small"))?;
    Ok(out)
}

/// A request in a frame, as `(from, to)`.
fn frame(
    macs: ([u8; 6], [u8; 6]),
    ips: ([u8; 4], [u8; 4]),
    port: u16,
    payload: &[u8],
) -> io::Result<Vec<u8>> {
    let builder =
        etherparse::PacketBuilder::ethernet2(macs.0, macs.1).ipv4(ips.0, ips.1, 64).udp(50_000, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).map_err(io::Error::other)?;
    Ok(frame)
}

/// The time of the program, by how far a request comes.
fn time(args: &Args) -> io::Result<(Vec<Run>, Vec<Figure>)> {
    let rounds = if args.quick { 2 } else { args.rounds };
    let plain = Subject::new("bench_plain")?;
    let mut whole = Subject::new("bench_answer")?;
    let mut alone = Subject::new("bench_restore")?;
    let kept = [whole.program.map("frames", FRAME_WORDS), alone.program.map("frames", FRAME_WORDS)];
    let [kept, kept_alone] = kept.map(|map| map.map_err(io::Error::other));
    let (kept, kept_alone) = (kept?, kept_alone?);
    let mut all = Vec::new();
    for _ in 0..rounds {
        // Each goes one part further than the one before.
        let parts = [
            ("headers: not our port", plain.frame("unlimited", "A000", 0, PORT + 1)?),
            ("and checksums, key: unknown", plain.frame("unknown", "A000", 0, PORT)?),
            ("and clock: outside the window", plain.frame("unlimited", "A000", 20_000, PORT)?),
            ("and request tag, asset: unknown", plain.frame("unlimited", "NONE", 0, PORT)?),
            ("and price: stale", plain.frame("unlimited", "A149", 0, PORT)?),
        ];
        for (what, frame) in parts {
            all.push(Run { what: what.into(), value: plain.ns(&frame, false)? });
        }
        for (what, key) in [("hit", "unlimited"), ("hit with a token", "limited")] {
            let frame = whole.frame(key, "A007", 0, PORT)?;
            for map in [&kept, &kept_alone] {
                keep(map, &frame);
            }
            whole.release();
            let with = whole.ns(&frame, true)?;
            let without = alone.ns(&frame, false)?;
            all.push(Run { what: what.into(), value: with - without });
        }
    }
    let mut names: Vec<String> = Vec::new();
    for run in &all {
        if !names.contains(&run.what) {
            names.push(run.what.clone());
        }
    }
    let figures = names.into_iter().filter_map(|name| {
        let of = all.iter().filter(|run| run.what == name).map(|run| run.value).collect();
        let bound = (!args.quick && name.starts_with("hit")).then_some(160.0);
        Median::of(of).map(|median| Figure::new(format!("program, {name}"), median, "ns", bound))
    });
    let figures = figures.collect();
    Ok((all, figures))
}

/// Puts a frame into the map from which a program takes it.
fn keep(map: &SharedWords, frame: &[u8]) {
    for (word, bytes) in map.words().iter().zip(frame.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(whole), Relaxed);
    }
}
