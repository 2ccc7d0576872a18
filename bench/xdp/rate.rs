//! Answers a second over a veth pair, in the kernel and through the socket, on the same core.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::load::server::CpuTime;
use beast::load::stats::Median;
use beast::sys::mmap::SharedWords;
use beast::sys::pin;
use beast::time::{Clock as _, RealClock};
use beast::xdp::{AttachMode, Interface, Program, Sizes};

use super::common::Cpus;
use super::common::child::Server;
use super::common::report::Figure;
use super::veth::{CLIENT_IF, SERVER_IF, Veth};
use super::{Args, FRAME_WORDS, OBJECT, PORT, Run, frame, keep, request};

/// Requests a second that are offered, one after the other; the last is as fast as it goes.
const RATES: [f64; 10] = [1e5, 1.5e5, 2e5, 3e5, 4e5, 6e5, 8e5, 1.2e6, 2e6, f64::INFINITY];

/// More frames a second than a sender manages, also where most find no room: 6 million were seen.
const RATE_MAX: f64 = 1e7;

/// How long a rate is kept up before it is looked at.
const SETTLE: Duration = Duration::from_millis(30);

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Words of the map that paces the sender, as bpf/bench.bpf.c has them.
mod pace {
    pub(super) const WORDS: usize = 4;
    pub(super) const INTERVAL: usize = 0;
    pub(super) const OVER: usize = 1;
    pub(super) const SENT: usize = 3;
}

/// Which is bounded.
const RATIO: &str = "the socket by the kernel";

/// What is told, and in which unit.
const FIGURES: [(&str, &str); 6] = [
    ("kernel", "answers/s"),
    ("kernel, by its processor's time", "answers/s"),
    ("socket", "answers/s"),
    ("socket, by its processor's time", "answers/s"),
    (RATIO, "times"),
    ("the socket by the kernel, by processor time", "times"),
];

/// What one way of answering reaches.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// Answers a second at the best rate of requests.
    answers: f64,
    /// Answers a second of processor time that the server's side has spent, at the best rate of requests:
    /// what its core would do if the sender's, which takes the answers too, were not the limit.
    capacity: f64,
}

/// Answers a second at the best rate of requests, in the kernel and through the socket.
pub(super) fn rate(args: &Args, cpus: Cpus) -> io::Result<(Vec<Run>, Vec<Figure>)> {
    let pairs = if args.quick { 1 } else { args.pairs.max(1) };
    let (mut all, mut of) = (Vec::new(), [(); 6].map(|()| Vec::new()));
    for _ in 0..pairs {
        let (kernel, socket) = (best_of(args, cpus, true)?, best_of(args, cpus, false)?);
        let values = [
            kernel.answers,
            kernel.capacity,
            socket.answers,
            socket.capacity,
            socket.answers / kernel.answers,
            socket.capacity / kernel.capacity,
        ];
        for (((what, _), of), value) in FIGURES.iter().zip(&mut of).zip(values) {
            all.push(Run { what: (*what).into(), value });
            of.push(value);
        }
    }
    let figures = FIGURES.iter().zip(of).filter_map(|((what, unit), values)| {
        // As a part, so that the bound is one from above: half as many is twice as fast.
        let bound = (!args.quick && *what == RATIO).then_some(0.5);
        Some(Figure::new(format!("rate, {what}"), Median::of(values)?, unit, bound))
    });
    let figures = figures.collect();
    Ok((all, figures))
}

fn best_of(args: &Args, cpus: Cpus, in_kernel: bool) -> io::Result<Reached> {
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
    let result = key_of(&mut server, &data).and_then(|token| {
        // Only a driver that has its program by now can receive in a thread.
        veth.thread_napi();
        let serving = Serving { napi: pin_napi(SERVER_IF, cpus.server)?, server: &server };
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                veth.enter_client();
                if let Some(cpu) = cpus.client {
                    pin::pin_thread(cpu)?;
                }
                send(args, cpus, &veth, &token, &serving)
            });
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    });
    let left = leave(&mut server);
    result.and_then(|reached| left.map(|()| reached))
}

/// Asks the server to leave and waits for it: one that is killed leaves its lanes in the kernel.
fn leave(server: &mut Server) -> io::Result<()> {
    let id = nix::unistd::Pid::from_raw(server.id().cast_signed());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if server.alive().is_err() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("the server does not leave"))
}

fn start(data: &Path, cpus: Cpus, in_kernel: bool) -> io::Result<Server> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.args(["serve", "--sim", "--shards", "1", "--listen", "10.77.0.1", "--data"]).arg(data);
    command.args(["--http-port", "0", "--health-port", "0", "--set", "report_health_port=0"]);
    command.args(["--set", "drain_s=1"]);
    if in_kernel {
        command.args(["--xdp", &format!("{SERVER_IF}:native")]);
    }
    command.stderr(fs::File::create(data.with_extension("log"))?);
    Server::command(&mut command, cpus.server, SocketAddr::from(([10, 77, 0, 1], PORT)), None)
}

/// The server's first key, once it is ready to be asked with it.
fn key_of(server: &mut Server, data: &Path) -> io::Result<Token> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let log = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        server.alive().map_err(|e| io::Error::other(format!("{e}\n{log}")))?;
        if log.contains("\nready ") {
            let text = fs::read_to_string(data.join("first-key"))?;
            return Token::parse(text.trim().as_bytes())
                .map_err(|_| io::Error::other("the first key is none"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other(fs::read_to_string(data.with_extension("log"))?))
}

/// Keeps the threads that receive for an interface on one processor. Returns their numbers.
fn pin_napi(interface: &str, cpu: Option<usize>) -> io::Result<Vec<u32>> {
    let wanted = format!("napi/{interface}-");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if fs::read_to_string(entry.path().join("comm")).unwrap_or_default().starts_with(&wanted) {
            if let Some(cpu) = cpu {
                let mut set = nix::sched::CpuSet::new();
                set.set(cpu)?;
                nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(pid.cast_signed()), &set)?;
            }
            found.push(pid);
        }
    }
    if found.is_empty() {
        return Err(io::Error::other(format!("no thread receives for {interface}")));
    }
    Ok(found)
}

/// Has threads run before everything that is not as urgent: the sender never waits, and on a core that
/// is shared with it answers would be lost before they are counted.
fn hurry(threads: &[u32]) -> io::Result<()> {
    for thread in threads {
        let status = Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]).status();
        let status = status.map_err(|e| io::Error::other(format!("chrt of util-linux: {e}")))?;
        if !status.success() {
            return Err(io::Error::other("chrt cannot hurry the thread that takes the answers"));
        }
    }
    Ok(())
}

/// All that works for the answers on the server's side.
struct Serving<'a> {
    server: &'a Server,
    /// Threads of the kernel that receive for it.
    napi: Vec<u32>,
}

/// What stood where at one moment.
struct Sample {
    at: Instant,
    sent: u64,
    answers: u64,
    /// Processor time of the server's side so far.
    busy: Duration,
}

impl Serving<'_> {
    fn sample(&self, paces: &SharedWords, counted: &SharedWords) -> io::Result<Sample> {
        let mut busy = self.server.cpu()?.process;
        for thread in &self.napi {
            busy += CpuTime::of(*thread)?.process;
        }
        let read = |map: &SharedWords, index: usize| map.words()[index].load(Relaxed);
        let (sent, answers) = (read(paces, pace::SENT), read(counted, 0));
        Ok(Sample { at: Instant::now(), sent, answers, busy })
    }
}

/// Offers one rate after the other and tells the most answers.
fn send(args: &Args, cpus: Cpus, veth: &Veth, token: &Token, serving: &Serving<'_>) -> io::Result<Reached> {
    let other = io::Error::other::<beast::xdp::XdpError>;
    let client = Interface::named(CLIENT_IF).map_err(other)?;
    let to = veth.server_hardware();
    let load = |name| Program::load_from(OBJECT, name, &[], 1, Sizes::default(), None).map_err(other);
    let mut counting = load("bench_count")?;
    let counted = counting.map("counted", 1).map_err(other)?;
    veth.client_empty();
    counting.attach(&client, AttachMode::Native, false).map_err(other)?;
    veth.thread_napi();
    hurry(&pin_napi(CLIENT_IF, cpus.client)?)?;
    let mut sender = load("bench_send")?;
    let kept = sender.map("frames", FRAME_WORDS).map_err(other)?;
    let paces = sender.map("paces", pace::WORDS).map_err(other)?;
    let rates = if args.quick { &RATES[..1] } else { &RATES[..] };
    let mut best = Reached::default();
    for rate in rates {
        let payload = request(token, "BTC", 7, RealClock.now().unix.ms())?;
        let port = serving.server.udp.port();
        let frame = frame((client.hardware, to), ([10, 77, 0, 2], [10, 77, 0, 1]), port, &payload)?;
        keep(&kept, &frame);
        paces.words()[pace::INTERVAL].store((1e9 / rate) as u64, Relaxed);
        paces.words()[pace::OVER].store(0, Relaxed);
        // It is told when it is over, some time before this many.
        let most = (rate.min(RATE_MAX) * (1.0 + 2.0 * args.seconds)) as u32;
        let (before, after) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| sender.live_run(&frame, client.index, most).map_err(other));
            let sent = paces.words()[pace::SENT].load(Relaxed);
            let looked = (|| {
                let begun = Instant::now();
                while paces.words()[pace::SENT].load(Relaxed) == sent && begun.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(SETTLE);
                let before = serving.sample(&paces, &counted)?;
                std::thread::sleep(Duration::from_secs_f64(args.seconds));
                Ok::<_, io::Error>((before, serving.sample(&paces, &counted)?))
            })();
            paces.words()[pace::OVER].store(1, Relaxed);
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            looked
        })?;
        let time = (after.at - before.at).as_secs_f64();
        let busy = (after.busy - before.busy).as_secs_f64();
        let offered = (after.sent - before.sent) as f64 / time;
        let answers = (after.answers - before.answers) as f64;
        let found = Reached { answers: answers / time, capacity: answers / busy.max(f64::MIN_POSITIVE) };
        if !args.json {
            println!(
                "offered {offered:>9.0}/s, answered {:>9.0}/s, {:>9.0} a second of the server's {:>3.0} %",
                found.answers,
                found.capacity,
                100.0 * busy / time
            );
        }
        best.answers = best.answers.max(found.answers);
        best.capacity = best.capacity.max(found.capacity);
    }
    if best.answers == 0.0 {
        return Err(io::Error::other("not one answer came"));
    }
    Ok(best)
}
