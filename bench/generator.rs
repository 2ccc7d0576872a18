//! What does our own generator cost? Loads the bare echo server with it and with the least loop that
//! keeps the same window: `recvmmsg`, then `sendmmsg` of as many. That one knows no ids, no times and
//! no right or wrong. The same loop over io_uring, multishot receives in place of `recvmmsg`, shows
//! whether the generator would be better off with it.

mod common;

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use beast::load::stats::Median;
use beast::load::{Echo, Pace, UdpLoad, UdpLoadOptions};
use beast::sys::mmsg::{RECEIVE_LEN, ReceiveBatch, SendBatch};
use beast::sys::net::connect_udp;
use beast::sys::ring::{Group, Ring, RingOptions};
use beast::sys::token::Token;
use clap::Parser;
use common::child::Server;
use common::floor::{self, Wait};
use common::machine::Machine;
use common::report::{Figure, Report};
use common::{Cpus, pinned};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[derive(Parser, Debug)]
#[command(name = "generator", about = "What the load generator costs against the least loop")]
struct Args {
    /// Length of a request, in bytes.
    #[arg(long, default_value_t = 48)]
    request_len: usize,
    /// Length of an answer, in bytes.
    #[arg(long, default_value_t = 64)]
    answer_len: usize,
    /// Sockets that ask.
    #[arg(long, default_value_t = 4)]
    sockets: usize,
    /// Requests under way on each.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Rounds with a run of each, in changing order.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
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

/// The least loop, the same over io_uring where the kernel allows it, and the generator, one after the other.
#[derive(Debug, Serialize)]
struct Round {
    least: Ran,
    ring: Option<Ran>,
    generator: Ran,
}

/// One run of any of them.
#[derive(Debug, Serialize)]
struct Ran {
    answers_per_s: f64,
    /// Processor time of the asking thread for an answer, without the time it found nothing to do.
    us_per_answer: f64,
    busy: f64,
}

/// The generator must reach 0.95 of the least loop's rate.
const RATIO_MAX: f64 = 1.0 / 0.95;

/// Datagrams moved in one call of the kernel, by both.
const BATCH_LEN: usize = 64;

const SOCKET_BUFFER_LEN: usize = 4 << 20;

fn main() -> ExitCode {
    common::main(&["generator", "--quick"], measure)
}

fn measure(args: &Args) -> io::Result<bool> {
    let machine = Machine::here();
    let cpus = Cpus::first_two()?;
    if !args.json {
        machine.print();
    }
    let (count, seconds) = if args.quick { (1, 0.05) } else { (args.pairs, args.seconds) };
    let with_ring = Ringed::new(args.window, &[]).is_ok();
    let mut rounds = Vec::new();
    for n in 0..count {
        let (mut least, mut ring, mut ours) = (None, None, None);
        // Who goes first changes.
        for turn in 0..3 {
            let server = floor::start(args.answer_len, Wait::Block, cpus.server)?;
            match (n + turn) % 3 {
                0 => least = Some(pinned(cpus.client, || least_loop(args, &server, seconds, Batched::new))?),
                1 if with_ring => {
                    let ringed = |sockets: &[UdpSocket]| Ringed::new(args.window, sockets);
                    ring = Some(pinned(cpus.client, || least_loop(args, &server, seconds, ringed))?);
                }
                1 => {}
                _ => ours = Some(pinned(cpus.client, || generator(args, &server, seconds))?),
            }
        }
        let (Some(least), Some(generator)) = (least, ours) else { continue };
        let round = Round { least, ring, generator };
        if !args.json {
            round.print(n);
        }
        rounds.push(round);
    }
    let figure = |name: &str, unit, most, value: fn(&Round) -> Option<f64>| {
        let median = Median::of(rounds.iter().filter_map(value).collect())?;
        Some(Figure::new(name, median, unit, most))
    };
    let most = (!args.quick).then_some(RATIO_MAX);
    let figures = [
        figure("least loop's answers a second over the generator's", "times", most, |round| {
            Some(round.least.answers_per_s / round.generator.answers_per_s)
        }),
        figure("generator's answers", "k/s", None, |round| Some(round.generator.answers_per_s / 1e3)),
        figure("least loop's answers", "k/s", None, |round| Some(round.least.answers_per_s / 1e3)),
        figure("generator's own CPU an exchange", "us", None, |round| Some(round.generator.us_per_answer)),
        figure("least loop's own CPU an exchange", "us", None, |round| Some(round.least.us_per_answer)),
        figure("generator busy", "of 1", None, |round| Some(round.generator.busy)),
        figure("least loop over io_uring: answers", "k/s", None, |round| {
            Some(round.ring.as_ref()?.answers_per_s / 1e3)
        }),
        figure("least loop over io_uring: own CPU against the least loop's", "times", None, |round| {
            Some(round.ring.as_ref()?.us_per_answer / round.least.us_per_answer)
        }),
    ];
    let figures = figures.into_iter().flatten().collect();
    Ok(Report::new("generator", machine, rounds, figures).print(args.json))
}

fn generator(args: &Args, server: &Server, seconds: f64) -> io::Result<Ran> {
    let options = UdpLoadOptions {
        sockets: args.sockets,
        pace: Pace::Window(args.window),
        batch_len: BATCH_LEN,
        socket_buffer_len: SOCKET_BUFFER_LEN,
        ..UdpLoadOptions::new(server.udp)
    };
    let mut load = UdpLoad::open(options, Echo::new(args.request_len, args.answer_len))?;
    let mut whole = load.run(Duration::from_secs_f64(seconds / 4.0))?;
    let measured = load.run(Duration::from_secs_f64(seconds))?;
    whole.add(&measured);
    whole.add(&load.finish()?);
    if whole.matched == 0 || whole.matched != whole.sent {
        return Err(io::Error::other(format!("the bare echo does not answer as it should: {whole:?}")));
    }
    let answers = measured.matched.max(1) as f64;
    Ok(Ran {
        answers_per_s: measured.rate_per_s(),
        us_per_answer: measured.cpu.as_secs_f64() * measured.busy() * 1e6 / answers,
        busy: measured.busy(),
    })
}

impl Round {
    fn print(&self, n: usize) {
        let shown = |ran: &Ran| format!("{:.1} k/s, {:.3} us", ran.answers_per_s / 1e3, ran.us_per_answer);
        println!(
            "round {n:>2}  least loop {}; over io_uring {}; generator {} an answer, {:.0} % busy",
            shown(&self.least),
            self.ring.as_ref().map_or("refused".to_owned(), shown),
            shown(&self.generator),
            self.generator.busy * 100.0
        );
    }
}

/// How a least loop takes what has come back.
trait Harvest {
    /// Adds to `counts` how many datagrams each of `sockets` gave.
    fn harvest(&mut self, sockets: &[UdpSocket], counts: &mut [usize]) -> io::Result<()>;
}

/// By `recvmmsg`, socket after socket.
struct Batched(ReceiveBatch);

impl Batched {
    #[expect(clippy::unnecessary_wraps, reason = "made where the other kind is made")]
    fn new(_: &[UdpSocket]) -> io::Result<Self> {
        Ok(Self(ReceiveBatch::payload_only(BATCH_LEN)))
    }
}

impl Harvest for Batched {
    fn harvest(&mut self, sockets: &[UdpSocket], counts: &mut [usize]) -> io::Result<()> {
        for (socket, count) in sockets.iter().zip(counts) {
            match self.0.receive(socket, BATCH_LEN) {
                Ok(came) => *count += came,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// By a multishot receive on each socket, into one ring of buffers.
struct Ringed(Ring);

impl Ringed {
    fn new(window: usize, sockets: &[UdpSocket]) -> io::Result<Self> {
        let buffers = (window * sockets.len().max(1)).next_power_of_two().clamp(64, 4_096);
        let mut ring = Ring::new(&RingOptions {
            submissions: 256,
            completions: 4 * 4_096,
            direct_max: 1,
            sends_max: 1,
            datagram_buffers: u16::try_from(buffers).unwrap_or(4_096),
            datagram_len: RECEIVE_LEN,
            stream_buffers: 1,
            stream_len: 64,
        })?;
        for (index, socket) in (0..).zip(sockets) {
            ring.receive_datagrams(socket.as_fd(), index, false)?;
        }
        Ok(Self(ring))
    }
}

impl Harvest for Ringed {
    fn harvest(&mut self, sockets: &[UdpSocket], counts: &mut [usize]) -> io::Result<()> {
        if self.0.wants_enter() {
            self.0.enter()?;
        }
        while let Some(done) = self.0.pop() {
            let Token::Datagrams { socket } = done.token else { continue };
            if let Some(buffer) = done.buffer {
                counts[usize::from(socket)] += 1;
                self.0.give_back(Group::Datagrams, buffer);
            }
            if !done.more {
                self.0.receive_datagrams(sockets[usize::from(socket)].as_fd(), socket, false)?;
            }
        }
        Ok(())
    }
}

/// The least that keeps a window: what came back goes out again.
fn least_loop<H: Harvest>(
    args: &Args,
    server: &Server,
    seconds: f64,
    harvest: impl FnOnce(&[UdpSocket]) -> io::Result<H>,
) -> io::Result<Ran> {
    let mut outgoing = SendBatch::new(BATCH_LEN);
    let open = |_| connect_udp(server.udp, SOCKET_BUFFER_LEN);
    let sockets = (0..args.sockets.max(1)).map(open).collect::<io::Result<Vec<_>>>()?;
    let mut harvest = harvest(&sockets)?;
    let mut counts = vec![0; sockets.len()];
    let mut send = |socket, mut count: usize| -> io::Result<()> {
        while count > 0 {
            for _ in 0..count.min(outgoing.free()) {
                outgoing.push_connected(args.request_len);
                count -= 1;
            }
            while !outgoing.is_empty() {
                outgoing.send(socket)?;
            }
        }
        Ok(())
    };
    for socket in &sockets {
        send(socket, args.window)?;
    }
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    let mut used_before = used();
    let warm_until = Instant::now() + Duration::from_secs_f64(seconds / 4.0);
    let (mut start, mut answers, mut idle) = (None, 0_u64, Duration::ZERO);
    let mut turn_start = Instant::now();
    loop {
        let before = answers;
        harvest.harvest(&sockets, &mut counts)?;
        for (socket, count) in sockets.iter().zip(&mut counts) {
            answers += *count as u64;
            send(socket, std::mem::take(count))?;
        }
        let now = Instant::now();
        if answers == before {
            idle += now - turn_start;
        }
        turn_start = now;
        match start {
            None if now >= warm_until => {
                (start, answers, idle) = (Some(now), 0, Duration::ZERO);
                used_before = used();
            }
            Some(start) if (now - start).as_secs_f64() >= seconds => {
                let elapsed = (now - start).as_secs_f64();
                let busy = 1.0 - idle.as_secs_f64() / elapsed;
                return Ok(Ran {
                    answers_per_s: answers as f64 / elapsed,
                    us_per_answer: (used() - used_before).as_secs_f64() * busy * 1e6 / answers.max(1) as f64,
                    busy,
                });
            }
            _ => {}
        }
    }
}
