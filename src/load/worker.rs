//! One thread that loads, and what it is told and tells. The same words pass through a channel to a
//! thread and as lines of JSON to a process.
//!
//! ```text
//!  session                          worker
//!     ── Step(share) ──────────────► opens sockets
//!     ◄────────────────────────── Up
//!     ── Go(start, end, interval) ─► waits for the start
//!     ◄──────── Interval(0, tally)   loads
//!     ◄──────── Interval(1, tally) …
//!     ◄───────────── Done(tally)     waited for the last answers
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::datagrams::Datagrams;
use super::error::LoadError;
use super::http::HttpLoad;
use super::step::{Share, Stop};
use super::tally::{Broken, Tally};
use super::udp::UdpLoad;
use crate::time::{Clock as _, MonoNs, RealClock};

/// What a worker is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make ready for this.
    Step(Share),
    /// Begin, all at the same instant of the machine's monotonic clock.
    Go { start_ns: u64, end_ns: u64, interval_ns: u64 },
    /// End what is under way early.
    Stop,
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// It is ready.
    Up,
    /// What happened in an interval.
    Interval { index: u32, tally: Box<Tally> },
    /// What happened in the wait for the last answers, and its process's largest memory so far.
    Done { tally: Box<Tally>, memory_bytes: u64 },
    /// It cannot go on; with what happened since it told of an interval.
    Failed { error: LoadError, tally: Box<Tally> },
}

impl Told {
    /// It cannot go on, and nothing has happened.
    pub(crate) fn failed(error: LoadError) -> Self {
        Self::Failed { error, tally: Box::default() }
    }
}

/// The generators behind one face.
pub(crate) enum Generator {
    Udp(Box<UdpLoad<Datagrams>>),
    Http(Box<HttpLoad>),
}

impl Generator {
    fn prepare(&mut self, share: &Share) -> io::Result<()> {
        match self {
            Self::Udp(load) => load.prepare(share),
            Self::Http(load) => load.prepare(share),
        }
    }

    fn begin(&mut self, start: MonoNs, end: MonoNs) {
        match self {
            Self::Udp(load) => load.begin(start, end),
            Self::Http(load) => load.begin(start, end),
        }
    }

    fn run_until(&mut self, end: MonoNs) -> Result<Tally, Broken> {
        match self {
            Self::Udp(load) => load.run_until(end),
            Self::Http(load) => load.run_until(end),
        }
    }

    fn settle(&mut self) -> Result<Tally, Broken> {
        match self {
            Self::Udp(load) => load.settle(),
            Self::Http(load) => load.settle(),
        }
    }

    fn is_done(&self, now: MonoNs) -> bool {
        match self {
            Self::Udp(load) => load.is_done(now, false),
            Self::Http(load) => load.is_done(now, false),
        }
    }
}

/// Does what it is told until nobody tells any more.
pub(crate) fn work(
    mut generator: Generator,
    server: SocketAddr,
    orders: &Receiver<Order>,
    stop: &Stop,
    tell: &mut dyn FnMut(Told),
) {
    while let Ok(order) = orders.recv() {
        let result = match order {
            Order::Step(share) => generator.prepare(&share).map(|()| tell(Told::Up)).map_err(Broken::from),
            Order::Go { start_ns, end_ns, interval_ns } => {
                let (start, end) = (MonoNs(start_ns), MonoNs(end_ns));
                load(&mut generator, start, end, Duration::from_nanos(interval_ns.max(1)), stop, tell)
            }
            Order::Stop => Ok(()),
        };
        if let Err(Broken { tally, error }) = result {
            tell(Told::Failed { error: LoadError::of_sockets(&error, server), tally });
            return;
        }
    }
}

fn load(
    generator: &mut Generator,
    start: MonoNs,
    end: MonoNs,
    interval: Duration,
    stop: &Stop,
    tell: &mut dyn FnMut(Told),
) -> Result<(), Broken> {
    std::thread::sleep(start.since(RealClock.now().mono));
    generator.begin(start, end);
    for index in 0.. {
        let until = start.plus(interval * (index + 1)).min(end);
        let (tally, error) = match generator.run_until(until) {
            Ok(tally) => (Box::new(tally), None),
            Err(broken) => (broken.tally, Some(broken.error)),
        };
        tell(Told::Interval { index, tally });
        if let Some(error) = error {
            return Err(error.into());
        }
        let now = RealClock.now().mono;
        if now >= end || stop.told() || generator.is_done(now) {
            break;
        }
    }
    let tally = Box::new(generator.settle()?);
    tell(Told::Done { tally, memory_bytes: memory_bytes_max() });
    Ok(())
}

/// The most memory this process has had so far; 0 where `/proc` is not mounted.
fn memory_bytes_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}
