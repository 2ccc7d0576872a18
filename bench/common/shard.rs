//! One shard without feeds, store and back office: the answer path as the appliance has it, over a
//! real engine and a fixed board. What is measured on it is the path and nothing else.

use std::ffi::OsString;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use beast::account::Token;
use beast::engine::{PortableEngine, Sockets, UdpSend, UringEngine, UringOptions, run_on_glommio};
use beast::shard::{Answerer, Control, Inbox, LINK_LEN, Options, Published, Shard, links};
use beast::sys::net::{open_tcp, open_udp};
use beast::time::RealClock;
use clap::{Parser, ValueEnum};
use crossbeam_channel::Sender;
use serde::Serialize;

use super::child::{Part, Server, leave_with_parent, start_part};
use super::fixture;

/// Which engine moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// A ring in a task of a glommio executor.
    Uring,
    /// epoll, recvmmsg, sendmmsg.
    Portable,
}

/// How the uring engine sends datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Send {
    /// One sendmmsg for all answers of a turn.
    Sendmmsg,
    /// One ring entry an answer.
    Entries,
}

impl Io {
    /// As it is written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Portable => "portable",
        }
    }
}

impl Send {
    fn name(self) -> &'static str {
        match self {
            Self::Sendmmsg => "sendmmsg",
            Self::Entries => "entries",
        }
    }
}

/// What the child is told.
#[derive(Parser, Debug)]
#[command(name = "shard-server")]
struct ShardArgs {
    #[arg(long, value_enum)]
    io: Io,
    #[arg(long, value_enum)]
    send: Send,
    #[arg(long)]
    spin_us: u64,
    /// The key it shall know. A bench's own, made for one run.
    #[arg(long)]
    token: String,
}

/// Starts the shard as a child of this program.
///
/// # Errors
/// As [`start_part`].
pub fn start(io: Io, send: Send, spin_us: u64, token: &Token, cpu: Option<usize>) -> io::Result<Server> {
    let (spin_us, token) = (spin_us.to_string(), token.reveal());
    let args: [&str; 8] =
        ["--io", io.name(), "--send", send.name(), "--spin-us", &spin_us, "--token", &token];
    start_part(Part::Shard, &args, cpu)
}

/// What the child does until it is killed.
///
/// # Errors
/// When the engine is refused or breaks.
pub fn be_child(args: &[OsString]) -> io::Result<()> {
    leave_with_parent();
    let args = ShardArgs::parse_from(&args[1..]);
    let token = Token::parse(args.token.as_bytes()).map_err(|_| io::Error::other("--token is not a key"))?;
    let loopback = "127.0.0.1:0".parse().map_err(io::Error::other)?;
    let udp = open_udp(loopback, fixture::BUFFER_LEN)?;
    let tcp = open_tcp(loopback, 4_096)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{} {}", udp.local_addr()?, tcp.local_addr()?)?;
    stdout.flush()?;
    let sockets = Sockets { udp: vec![udp], tcp: vec![tcp] };
    let spin = Duration::from_micros(args.spin_us);
    match args.io {
        Io::Portable => {
            let mut shard = shard(&token, spin)?;
            let mut engine = PortableEngine::new(sockets, 16_384)?;
            block_on(shard.run(&mut engine, &RealClock))
        }
        Io::Uring => {
            let udp_send = match args.send {
                Send::Sendmmsg => UdpSend::Sendmmsg,
                Send::Entries => UdpSend::Entries,
            };
            let options = UringOptions { udp_send, ..UringOptions::default() };
            let thread = run_on_glommio(None, "shard-0", move || async move {
                let mut shard = shard(&token, spin)?;
                let mut engine = UringEngine::new(sockets, options)?;
                shard.run(&mut engine, &RealClock).await
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
        }
    }
}

fn shard(token: &Token, spin: Duration) -> io::Result<Shard> {
    let Told { shard, control, .. } = told_shard(token, spin, 1)?;
    // Nobody tells this shard anything; the sender is forgotten so that the channel stays open.
    std::mem::forget(control);
    Ok(shard)
}

/// A shard that can be told to stop and whose counters can be read.
pub struct Told {
    /// Without engine and clock.
    pub shard: Shard,
    /// Where it is told.
    pub control: Sender<Control>,
    /// What it counts.
    pub published: Arc<Published>,
}

/// Makes a shard for one UDP socket and `tcp` listeners.
///
/// # Errors
/// As [`fixture::answerer`].
pub fn told_shard(token: &Token, spin: Duration, tcp: u8) -> io::Result<Told> {
    told_shard_of(fixture::answerer(token)?, spin, tcp)
}

/// As [`told_shard`], of that answerer.
///
/// # Errors
/// None that a right build meets.
pub fn told_shard_of(answerer: Answerer, spin: Duration, tcp: u8) -> io::Result<Told> {
    let (publisher, receivers) = links(answerer.catalogue(), 1, LINK_LEN);
    let (control, controlled) = crossbeam_channel::unbounded();
    let options = Options {
        udp: 1,
        tcp,
        spin,
        rest_deadline: Duration::from_millis(800),
        http_idle: Duration::from_secs(60),
        http_head: Duration::from_secs(10),
        drain: Duration::from_secs(1),
    };
    let published = Published::new();
    let inbox = Inbox::new(receivers);
    let shard = Shard::new(answerer, publisher, inbox, controlled, Arc::clone(&published), options);
    Ok(Told { shard, control, published })
}

/// Runs a future whose waits block the thread themselves.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
