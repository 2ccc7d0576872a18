//! What does an answer in the kernel cost, and how many come from one core? The time of the program by
//! the kernel's test-run, part by part; and answers a second over a veth pair, against the socket path
//! on the same core, from a sender that bypasses the stack. Needs root.

mod common;
#[path = "../tests/support/veth.rs"]
mod veth;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use beast::account::{Key, KeyTable, Tier, Token};
use beast::load::stats::Median;
use beast::price::Symbol;
use beast::sys::pin;
use beast::time::{Clock as _, RealClock};
use beast::wire::v2;
use beast::xdp::{AttachMode, Interface, Program, Served, Sizes};
use clap::{Parser, ValueEnum};
use common::child::Server;
use common::machine::Machine;
use common::report::{Figure, Report};

use common::{Cpus, Start, fixture};
use serde::Serialize;
use veth::{CLIENT_IF, SERVER_IF, Veth};

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

/// Requests a second that are offered, one after the other; the last is as fast as it goes.
const RATES: [f64; 14] =
    [1e5, 1.5e5, 2e5, 2.5e5, 3e5, 4e5, 5e5, 6e5, 8e5, 1e6, 1.5e6, 2e6, 3e6, f64::INFINITY];

/// Frames in one call of the sender: as many as the ring of a veth holds.
const BURST: u32 = 256;

fn main() -> ExitCode {
    let args = match common::start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => ["xdp", "--quick", "--what", "time"].map(Into::into).to_vec(),
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
        let (runs, found) = rate(args, cpus)?;
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
    let keep = |frame: &[u8]| {
        for (at, bytes) in frame.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            for map in [&kept, &kept_alone] {
                map.words()[at].store(u64::from_ne_bytes(word), Relaxed);
            }
        }
    };
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
            keep(&whole.frame(key, "A007", 0, PORT)?);
            let frame = whole.frame(key, "A007", 0, PORT)?;
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

/// Answers a second at the best rate of requests, in the kernel and through the socket.
fn rate(args: &Args, cpus: Cpus) -> io::Result<(Vec<Run>, Vec<Figure>)> {
    let pairs = if args.quick { 1 } else { args.pairs.max(1) };
    let mut all = Vec::new();
    let mut of: HashMap<&str, Vec<f64>> = HashMap::new();
    for _ in 0..pairs {
        let mut pair = Vec::new();
        for what in ["kernel", "socket"] {
            let best = best_of(args, cpus, what == "kernel")?;
            all.push(Run { what: format!("{what}, answers a second"), value: best });
            of.entry(what).or_default().push(best);
            pair.push(best);
        }
        of.entry("ratio").or_default().push(pair[1] / pair[0]);
    }
    let figure = |what: &str, unit, bound| {
        let median = Median::of(of.get(what)?.clone())?;
        Some(Figure::new(format!("rate, {what}"), median, unit, bound))
    };
    let bound = (!args.quick).then_some(0.5);
    let figures = [
        figure("kernel", "answers/s", None),
        figure("socket", "answers/s", None),
        // As a part, so that the bound is one from above: half as many is twice as fast.
        figure("ratio", "of the kernel's by the socket", bound),
    ];
    Ok((all, figures.into_iter().flatten().collect()))
}

fn best_of(args: &Args, cpus: Cpus, in_kernel: bool) -> io::Result<f64> {
    let veth = Veth::new();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    // The thread that starts the server is moved to its machine; this one must stay.
    let mut server = std::thread::scope(|scope| {
        let start = scope.spawn(|| {
            veth.enter_server();
            if !in_kernel {
                veth.server_passes();
            }
            start(&data, cpus, in_kernel)
        });
        start.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    // Only a driver that has its program by now can receive in a thread.
    let token = key_of(&mut server, &data)?;
    veth.thread_napi();
    pin_napi(SERVER_IF, cpus.server)?;
    let result = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            veth.enter_client();
            if let Some(cpu) = cpus.client {
                pin::pin_thread(cpu)?;
            }
            send(args, cpus, &veth, &token, server.udp)
        });
        client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    drop(server);
    result
}

fn start(data: &Path, cpus: Cpus, in_kernel: bool) -> io::Result<Server> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.args(["serve", "--sim", "--shards", "1", "--listen", "10.77.0.1", "--data"]).arg(data);
    command.args(["--http-port", "0", "--health-port", "0", "--set", "report_health_port=0"]);
    if in_kernel {
        command.args(["--xdp", &format!("{SERVER_IF}:native")]);
    }
    command.stderr(fs::File::create(data.with_extension("log"))?);
    Server::command(&mut command, cpus.server, SocketAddr::from(([10, 77, 0, 1], PORT)), None)
}

/// The server's first key, once it is ready to be asked with it.
fn key_of(server: &mut Server, data: &Path) -> io::Result<Token> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        server.alive()?;
        let log = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        if log.contains("\nready ") {
            let text = fs::read_to_string(data.join("first-key"))?;
            return Token::parse(text.trim().as_bytes())
                .map_err(|_| io::Error::other("the first key is none"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other(fs::read_to_string(data.with_extension("log"))?))
}

/// Keeps the thread that receives for an interface on one processor.
fn pin_napi(interface: &str, cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let wanted = format!("napi/{interface}-");
    let mut found = false;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fs::read_to_string(entry.path().join("comm")).unwrap_or_default().starts_with(&wanted) {
            let mut set = nix::sched::CpuSet::new();
            set.set(cpu)?;
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(pid), &set)?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(io::Error::other(format!("no thread receives for {interface}"))) }
}

/// Offers one rate after the other and tells the most answers a second.
fn send(args: &Args, cpus: Cpus, veth: &Veth, token: &Token, server: SocketAddr) -> io::Result<f64> {
    let other = io::Error::other::<beast::xdp::XdpError>;
    let client = Interface::named(CLIENT_IF).map_err(other)?;
    let to = veth.server_hardware();
    let mut counting =
        Program::load_from(OBJECT, "bench_count", &[], 1, Sizes::default(), None).map_err(other)?;
    let counted = counting.map("counted", 1).map_err(other)?;
    veth.client_empty();
    counting.attach(&client, AttachMode::Native, false).map_err(other)?;
    veth.thread_napi();
    pin_napi(CLIENT_IF, cpus.client)?;
    let mut sender =
        Program::load_from(OBJECT, "bench_send", &[], 1, Sizes::default(), None).map_err(other)?;
    let kept = sender.map("frames", FRAME_WORDS).map_err(other)?;
    let rates = if args.quick { &RATES[..1] } else { &RATES[..] };
    let mut best = 0.0_f64;
    for rate in rates {
        let payload = request(token, "BTC", 7, RealClock.now().unix.ms())?;
        let frame = frame((client.hardware, to), ([10, 77, 0, 2], [10, 77, 0, 1]), server.port(), &payload)?;
        for (at, bytes) in frame.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            kept.words()[at].store(u64::from_ne_bytes(word), Relaxed);
        }
        let (before, begun) = (counted.words()[0].load(Relaxed), Instant::now());
        let (mut sent, end) = (0.0, Duration::from_secs_f64(args.seconds));
        while begun.elapsed() < end {
            if sent > begun.elapsed().as_secs_f64() * rate {
                // The thread that takes the answers runs here too.
                std::thread::yield_now();
                continue;
            }
            sender.live_run(&frame, client.index, BURST).map_err(other)?;
            sent += f64::from(BURST);
        }
        let answers = (counted.words()[0].load(Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
        if !args.json {
            println!("offered {:>9.0}/s, answered {answers:>9.0}/s", sent / begun.elapsed().as_secs_f64());
        }
        best = best.max(answers);
    }
    if best == 0.0 {
        return Err(io::Error::other("not one answer came"));
    }
    Ok(best)
}
