//! Workers that load together, and what they find out, put together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::datagrams::Datagrams;
use super::error::LoadError;
use super::gathering::Gathering;
use super::http::{HttpExchange, HttpLoad, HttpLoadOptions};
use super::part::{Part, PartCommand, PartSpec};
use super::result::Interval;
use super::step::{Step, Stop};
use super::tally::Tally;
use super::udp::{UdpLoad, UdpLoadOptions};
use super::worker::{Generator, Order, Told, work};
use crate::sys::pin::{cpus, pin_thread};
use crate::sys::rlimits;
use crate::time::{Clock as _, RealClock};

/// What is asked.
#[derive(Clone)]
pub enum Protocol {
    /// Datagrams.
    Udp(Datagrams),
    /// Requests over kept-alive connections.
    Http {
        /// What is asked for, in turn.
        exchanges: Vec<HttpExchange>,
        /// Requests that may be under way on a connection.
        pipeline: usize,
    },
}

/// Which processors threads are kept on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Each thread on one of those this process may use, from the last on: servers take the first.
    /// Where the kernel refuses, a note says so.
    Auto,
    /// None.
    None,
    /// These, in turn.
    Cpus(Vec<usize>),
}

/// Who asks whom.
#[derive(Clone)]
pub struct SessionOptions {
    /// What is asked.
    pub protocol: Protocol,
    /// The server.
    pub server: SocketAddr,
    /// Threads that ask, at least 1. Where connections need several processes, there is one thread in
    /// each.
    pub threads: usize,
    /// Where they run.
    pub pin: Pin,
    /// The most UDP sockets or connections a step will want.
    pub sockets_max: usize,
    /// Addresses connections come from, in turn by thread; the kernel's choice when empty.
    pub sources: Vec<IpAddr>,
    /// A request without an answer for this long is given up.
    pub lost_after: Duration,
    /// Length of an interval.
    pub interval: Duration,
    /// How to start further processes; `None` where that is not possible.
    pub part: Option<PartCommand>,
    /// Ends everything early.
    pub stop: Stop,
}

impl SessionOptions {
    /// One thread, pinned by itself, answers given up after a second, intervals of a second.
    #[must_use]
    pub fn new(protocol: Protocol, server: SocketAddr) -> Self {
        Self {
            protocol,
            server,
            threads: 1,
            pin: Pin::Auto,
            sockets_max: 4,
            sources: Vec::new(),
            lost_after: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            part: None,
            stop: Stop::new(),
        }
    }
}

/// Workers that wait for steps. They and their sockets stay from step to step.
pub struct Session {
    workers: Vec<Worker>,
    told: Receiver<(usize, Told)>,
    options: SessionOptions,
    /// Ends the threads' work; told when the operator's is, and when the session goes.
    halt: Stop,
    cpus: Vec<Option<usize>>,
    notes: Vec<String>,
    processes: usize,
}

enum Worker {
    Thread { orders: Option<Sender<Order>>, thread: Option<JoinHandle<()>> },
    Process(Part),
}

/// A look at a step under way.
pub struct Moment<'a> {
    /// How long it has been.
    pub elapsed: Duration,
    /// All of the step so far.
    pub so_far: &'a Tally,
    /// The interval that has just ended, if one has.
    pub interval: Option<&'a mut Interval>,
}

/// What came of a step.
pub struct StepResult {
    /// All of it.
    pub total: Tally,
    /// Piece by piece; the last one holds what came after the sending ended, too.
    pub intervals: Vec<Interval>,
    /// How long requests were sent.
    pub sending: Duration,
    /// Right answers that came meanwhile.
    pub answered_while_sending: u64,
    /// How long it took, with the wait for the last answers.
    pub elapsed: Duration,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// What ended it before its end, if something did; the other members are what came of it until
    /// then.
    pub error: Option<LoadError>,
    /// The most memory one of the processes had.
    pub memory_bytes_max: u64,
}

/// Descriptors a process needs beside its connections: standard streams, epoll, pipes, files.
const DESCRIPTORS_BESIDE: u64 = 64;

/// How long workers have to open their sockets.
const UP_MAX: Duration = Duration::from_secs(60);

/// From telling workers to begin until they do.
const START_AFTER: Duration = Duration::from_millis(20);

/// How often whoever watches is shown a step.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long after a step's end a worker may still be silent before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(30);

impl Session {
    /// Starts the workers.
    ///
    /// # Errors
    /// When there are too few descriptors, a processor is not to be had, or the kernel refuses sockets.
    pub fn open(options: SessionOptions) -> Result<Self, LoadError> {
        let limits = rlimits::raise();
        let limits =
            limits.map_err(|e| LoadError::new(format!("limits cannot be read: {e}"), "see ulimit -a"))?;
        let threads = options.threads.max(1);
        let workers = match &options.protocol {
            Protocol::Udp(_) => {
                fits(options.sockets_max as u64, limits.descriptors)?;
                threads
            }
            Protocol::Http { .. } => match fits(options.sockets_max as u64, limits.descriptors) {
                Ok(()) => threads,
                Err(error) if options.part.is_none() => return Err(error),
                Err(error) => {
                    let each = limits.descriptors.saturating_sub(DESCRIPTORS_BESIDE);
                    if each < DESCRIPTORS_BESIDE {
                        return Err(error);
                    }
                    let needed = (options.sockets_max as u64).div_ceil(each);
                    threads.max(usize::try_from(needed).unwrap_or(usize::MAX))
                }
            },
        };
        let in_processes = matches!(options.protocol, Protocol::Http { .. })
            && fits(options.sockets_max as u64, limits.descriptors).is_err();
        let mut notes = Vec::new();
        let cpus = pins(&options.pin, workers, &mut notes)?;
        let (tell, told) = channel();
        let processes = if in_processes { workers } else { 1 };
        let workers_opened = Vec::with_capacity(workers);
        let halt = Stop::new();
        let mut session = Self { workers: workers_opened, told, options, halt, cpus, notes, processes };
        for index in 0..workers {
            let worker = if in_processes {
                session.process(index, tell.clone())?
            } else {
                session.thread(index, tell.clone())
            };
            session.workers.push(worker);
        }
        Ok(session)
    }

    fn source(&self, index: usize) -> Option<IpAddr> {
        let given = self.options.sources.get(index % self.options.sources.len().max(1)).copied();
        // On loopback every process may come from an address of its own, and none runs out of ports.
        let own = u8::try_from(index + 1).ok().map(|n| IpAddr::from(Ipv4Addr::new(127, 0, 1, n)));
        let loopback = self.options.server.ip().is_loopback() && self.options.server.is_ipv4();
        given.or(own.filter(|_| loopback && self.processes > 1))
    }

    fn process(&self, index: usize, tell: Sender<(usize, Told)>) -> Result<Worker, LoadError> {
        let (Some(command), Protocol::Http { exchanges, pipeline }) =
            (&self.options.part, &self.options.protocol)
        else {
            unreachable!("only HTTP with a command for it is spread over processes");
        };
        let spec = PartSpec {
            server: self.options.server,
            source: self.source(index),
            pipeline: *pipeline,
            lost_after: self.options.lost_after,
            cpu: self.cpus.get(index).copied().flatten(),
            exchanges: exchanges.clone(),
        };
        let part = Part::start(command, &spec, index, tell);
        part.map(Worker::Process).map_err(|e| {
            LoadError::new(
                format!("{} cannot be started again: {e}", command.program.display()),
                "raise the limit of processes (ulimit -u), or ask for fewer connections",
            )
        })
    }

    fn thread(&self, index: usize, tell: Sender<(usize, Told)>) -> Worker {
        let (orders, ordered) = channel();
        let options = SessionOptions { stop: self.halt.clone(), ..self.options.clone() };
        let source = self.source(index);
        let cpu = self.cpus.get(index).copied().flatten();
        let thread = std::thread::spawn(move || {
            // Nobody listens any more when the session is gone, which also ends the orders.
            let mut tell = |told| drop(tell.send((index, told)));
            match generator(&options, source, cpu) {
                Ok(generator) => work(generator, options.server, &ordered, &options.stop, &mut tell),
                Err(error) => tell(Told::failed(error)),
            }
        });
        Worker::Thread { orders: Some(orders), thread: Some(thread) }
    }

    /// Threads that ask, over all processes.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Processes that ask.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// The processor of each thread.
    #[must_use]
    pub fn cpus(&self) -> &[Option<usize>] {
        &self.cpus
    }

    /// What the operator should know.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Sockets a step over UDP needs to keep this rate even when no answer comes: one holds 65,536
    /// requests. At least one a thread.
    #[must_use]
    pub fn sockets_for(per_s: u64, lost_after: Duration, threads: usize) -> usize {
        let under_way = u128::from(per_s) * (lost_after * 5 / 4).as_millis() / 1_000;
        usize::try_from(under_way.div_ceil(1 << 16)).unwrap_or(usize::MAX).max(threads)
    }

    /// Does a step. `watch` is shown how it goes, every interval and a few times a second. When a
    /// worker cannot go on, the others end early, and the result says so; no further step can be done.
    ///
    /// # Errors
    /// When the step cannot begin: the server is not there, sockets run out.
    pub fn step(&mut self, step: &Step, watch: &mut dyn FnMut(Moment<'_>)) -> Result<StepResult, LoadError> {
        let count = self.workers.len();
        for index in 0..count {
            self.order(index, Order::Step(step.share(index, count)))?;
        }
        let begun = RealClock.now().mono;
        let (mut up, mut stop_told) = (0, false);
        while up < count {
            match self.told.recv_timeout(LOOK_EVERY) {
                Ok((_, Told::Up)) => up += 1,
                Ok((_, Told::Failed { error, .. })) => return Err(error),
                Ok((_, Told::Interval { .. } | Told::Done { .. })) => return Err(silent()),
                Err(RecvTimeoutError::Timeout) if RealClock.now().mono.since(begun) < UP_MAX => {}
                Err(_) => return Err(silent()),
            }
            self.pass_stop(&mut stop_told);
        }
        let start = RealClock.now().mono.plus(START_AFTER);
        let end = start.plus(step.duration);
        let interval = self.options.interval.max(Duration::from_millis(1));
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        for index in 0..count {
            self.order(index, Order::Go { start_ns: start.0, end_ns: end.0, interval_ns })?;
        }
        let mut gathering = Gathering::new(count, interval);
        let mut failed = None;
        while gathering.done < count {
            let told = self.told.recv_timeout(LOOK_EVERY);
            self.pass_stop(&mut stop_told);
            let now = RealClock.now().mono;
            match told {
                Ok((worker, told)) => {
                    if let Told::Failed { error, .. } = &told {
                        failed.get_or_insert_with(|| error.clone());
                        self.halt_all();
                    }
                    gathering.take(worker, told);
                }
                Err(RecvTimeoutError::Timeout)
                    if now.since(end) <= self.options.lost_after * 2 + PATIENCE => {}
                Err(_) => {
                    failed.get_or_insert_with(silent);
                    break;
                }
            }
            let elapsed = now.since(start);
            gathering.show(elapsed, watch);
        }
        let elapsed = RealClock.now().mono.since(start);
        Ok(gathering.finish(elapsed, stop_told && elapsed < step.duration, failed))
    }

    /// Tells the workers to stop once the operator has.
    fn pass_stop(&mut self, told: &mut bool) {
        if *told || !self.options.stop.told() {
            return;
        }
        *told = true;
        self.halt_all();
    }

    /// Tells the workers to stop.
    fn halt_all(&mut self) {
        self.halt.tell();
        for worker in &mut self.workers {
            if let Worker::Process(part) = worker {
                // One that has ended does not hear it, and need not.
                let _unheard = part.order(Order::Stop);
            }
        }
    }

    fn order(&mut self, index: usize, order: Order) -> Result<(), LoadError> {
        let sent = match &mut self.workers[index] {
            Worker::Thread { orders, .. } => orders.as_ref().is_some_and(|orders| orders.send(order).is_ok()),
            Worker::Process(part) => part.order(order).is_ok(),
        };
        if sent {
            return Ok(());
        }
        // It has ended; what it said last tells why.
        while let Ok((_, told)) = self.told.recv_timeout(LOOK_EVERY) {
            if let Told::Failed { error, .. } = told {
                return Err(error);
            }
        }
        Err(silent())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // One that loads still, after an error of another, ends at once.
        self.halt.tell();
        for worker in &mut self.workers {
            if let Worker::Thread { orders, .. } = worker {
                *orders = None;
            }
        }
        for worker in &mut self.workers {
            if let Worker::Thread { thread, .. } = worker
                && let Some(thread) = thread.take()
            {
                // Its panic has been shown by itself.
                let _panicked = thread.join();
            }
        }
    }
}

fn silent() -> LoadError {
    LoadError::new("a worker of the generator says nothing", "see what it said on standard error")
}

fn fits(sockets: u64, descriptors: u64) -> Result<(), LoadError> {
    let needed = sockets.saturating_add(DESCRIPTORS_BESIDE);
    if needed <= descriptors {
        return Ok(());
    }
    Err(LoadError::new(
        format!("this process may have {descriptors} descriptors, {sockets} sockets need {needed}"),
        "raise the limit (ulimit -Hn, LimitNOFILE=), or ask for fewer sockets",
    ))
}

fn pins(pin: &Pin, threads: usize, notes: &mut Vec<String>) -> Result<Vec<Option<usize>>, LoadError> {
    let had = cpus().unwrap_or_default();
    match pin {
        Pin::None => Ok(vec![None; threads]),
        Pin::Cpus(wanted) => {
            for &cpu in wanted {
                try_pin(cpu).map_err(|e| LoadError::of_pin(&e, cpu, &had))?;
            }
            Ok(wanted.iter().cycle().take(threads).copied().map(Some).collect())
        }
        Pin::Auto if had.len() < 2 => Ok(vec![None; threads]),
        Pin::Auto => {
            let wanted: Vec<_> = had.iter().rev().cycle().take(threads).copied().collect();
            match wanted.iter().try_for_each(|cpu| try_pin(*cpu)) {
                Ok(()) => Ok(wanted.into_iter().map(Some).collect()),
                Err(e) => {
                    notes.push(format!("threads are not pinned: {e}"));
                    Ok(vec![None; threads])
                }
            }
        }
    }
}

/// Pins a thread that ends at once: whether it may be done.
fn try_pin(cpu: usize) -> std::io::Result<()> {
    let tried = std::thread::spawn(move || pin_thread(cpu)).join();
    tried.unwrap_or_else(|_| Err(std::io::Error::other("pinning panicked")))
}

fn generator(
    options: &SessionOptions,
    source: Option<IpAddr>,
    cpu: Option<usize>,
) -> Result<Generator, LoadError> {
    if let Some(cpu) = cpu {
        pin_thread(cpu).map_err(|e| LoadError::of_pin(&e, cpu, &cpus().unwrap_or_default()))?;
    }
    let (server, lost_after, stop) = (options.server, options.lost_after, options.stop.clone());
    let generator = match &options.protocol {
        Protocol::Udp(requests) => {
            let options = UdpLoadOptions { sockets: 1, lost_after, stop, ..UdpLoadOptions::new(server) };
            UdpLoad::open(options, requests.clone()).map(|load| Generator::Udp(Box::new(load)))
        }
        Protocol::Http { exchanges, pipeline } => {
            let pipeline = *pipeline;
            let options =
                HttpLoadOptions { source, pipeline, lost_after, stop, ..HttpLoadOptions::new(server) };
            HttpLoad::new(options, exchanges.clone()).map(|load| Generator::Http(Box::new(load)))
        }
    };
    generator.map_err(|e| LoadError::of_sockets(&e, server))
}

impl StepResult {
    /// Right answers a second, of the time requests were sent and what came in it: what a server that
    /// is asked for too much answers afterwards is more than it can.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.sending.as_secs_f64();
        if seconds > 0.0 { self.answered_while_sending as f64 / seconds } else { 0.0 }
    }
}
