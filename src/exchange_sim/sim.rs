//! A running simulation: its state, its threads, its end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use super::control::Control;
use super::exchange::Exchange;
use super::market::{Market, Trade};
use super::options::{SimError, SimOptions, Speed};
use super::replay::Replay;
use super::{server, tls};
use crate::time::{Clock, RealClock};

/// Events a slow connection may fall behind before it is let go.
const EVENTS_BEHIND_MAX: usize = 8_192;

/// Most synthetic trades a second for each exchange.
const RATE_MAX: u32 = 1_000_000;

/// The exchanges on loopback. Dropping it ends every connection.
#[derive(Debug)]
pub struct Sim {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    certificate_pem: Option<String>,
    shared: Arc<Shared>,
    /// The thread that `start` made, and what ends it.
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What every task of a simulation knows.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) speed: Speed,
    pub(super) refuse_tls: AtomicBool,
    desks: Vec<Arc<Desk>>,
    connections: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
    runtime: Handle,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) exchange: Exchange,
    pub(super) replay: Option<Arc<Replay>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) stalled: watch::Sender<bool>,
    pub(super) flags: Flags,
    pub(super) tally: Tally,
    market: Mutex<Market>,
    sessions: Mutex<Vec<AbortHandle>>,
}

/// What all connections of an exchange are told.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Trades of one symbol, oldest first.
    Trades(Arc<[Trade]>),
    /// Send frames that make no sense.
    Garbage,
    /// Send bytes that are no WebSocket frame.
    Broken,
    /// Send the oldest known trades again.
    Old,
    /// Announce a closing.
    Notice,
}

/// Misbehaviour that lasts.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) refused_connections: AtomicBool,
    pub(super) refused_rest: AtomicBool,
    pub(super) silent_heartbeats: AtomicBool,
    pub(super) ignored_pings: AtomicBool,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) connections: AtomicU64,
    pub(super) subscriptions: AtomicU64,
    pub(super) pings_answered: AtomicU64,
    pub(super) control_pings: AtomicU64,
    pub(super) heartbeats_answered: AtomicU64,
    pub(super) rest_requests: AtomicU64,
    pub(super) frames_sent: AtomicU64,
    pub(super) replays_finished: AtomicU64,
}

impl Sim {
    /// Starts a simulation on a thread and runtime of its own.
    ///
    /// # Errors
    ///
    /// When a listener cannot be bound, the certificate not be made, or the thread not be started.
    pub fn start(options: SimOptions) -> Result<Self, SimError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(SimError::Start)?;
        let mut sim = Self::start_on(runtime.handle(), options)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("exchange-sim".to_owned())
            .spawn(move || {
                // Either sent or dropped: both mean the end, and dropping the runtime ends its tasks.
                let _ = runtime.block_on(stopped);
            })
            .map_err(SimError::Start)?;
        sim.thread = Some((stop, thread));
        Ok(sim)
    }

    /// Starts a simulation on a runtime that somebody else drives.
    ///
    /// # Errors
    ///
    /// As [`Sim::start`].
    pub fn start_on(runtime: &Handle, options: SimOptions) -> Result<Self, SimError> {
        let _entered = runtime.enter();
        let (listener, addr) = bind(options.listen)?;
        let tls = options.tls_listen.map(|addr| Ok((bind(addr)?, tls::self_signed()?))).transpose()?;
        let desks = Exchange::ALL.map(|exchange| Arc::new(Desk::new(exchange, &options))).to_vec();
        let shared = Arc::new(Shared {
            speed: options.speed,
            refuse_tls: AtomicBool::new(false),
            desks,
            connections: AtomicU64::new(0),
            tasks: Mutex::new(JoinSet::new()),
            runtime: runtime.clone(),
        });
        let mut sim = Self { addr, tls_addr: None, certificate_pem: None, shared, thread: None };
        sim.accept(listener, None);
        if let Some(((listener, addr), (acceptor, pem))) = tls {
            sim.tls_addr = Some(addr);
            sim.certificate_pem = Some(pem);
            sim.accept(listener, Some(acceptor));
        }
        let rate = options.rate.min(RATE_MAX);
        for desk in sim.shared.desks.iter().filter(|desk| rate > 0 && desk.replay.is_none()) {
            sim.shared.spawn(generate(desk.clone(), rate));
        }
        Ok(sim)
    }

    /// Where the plain listener is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the TLS listener is, when one was asked for.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// The self-signed certificate of the TLS listener, to be trusted by whoever connects.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate_pem.as_deref()
    }

    /// The WebSocket URL of an exchange on the plain listener.
    #[must_use]
    pub fn ws_url(&self, exchange: Exchange) -> String {
        format!("ws://{}/ws/{exchange}", self.addr)
    }

    /// What stands in place of scheme and host of an exchange's REST URLs, on the plain listener.
    #[must_use]
    pub fn rest_base(&self, exchange: Exchange) -> String {
        format!("http://{}/rest/{exchange}", self.addr)
    }

    /// A handle that makes the exchanges trade and misbehave, from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone())
    }

    fn accept(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        self.shared.spawn(server::accept(self.shared.clone(), listener, tls));
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        lock(&self.shared.tasks).abort_all();
        if let Some((stop, thread)) = self.thread.take() {
            let _ = stop.send(());
            // Only a panic of its own makes this an error, and that was printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub(super) fn desk(&self, exchange: Exchange) -> &Arc<Desk> {
        &self.desks[exchange.index()]
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Relaxed)
    }

    /// Runs a task until it ends or the simulation does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime)
    }
}

impl Desk {
    fn new(exchange: Exchange, options: &SimOptions) -> Self {
        let mut replay: Option<Replay> = None;
        for next in options.replays.iter().filter(|next| next.exchange() == exchange) {
            match &mut replay {
                Some(replay) => replay.append(next),
                None => replay = Some(next.clone()),
            }
        }
        let mut market = Market::new(exchange, options.seed, options.history_len);
        if let Some(symbols) = options.allow.get(&exchange) {
            market.allow_only(symbols.clone());
        }
        if let Some(symbols) = options.refuse.get(&exchange) {
            market.refuse(symbols.clone());
        }
        Self {
            exchange,
            replay: replay.map(Arc::new),
            events: broadcast::channel(EVENTS_BEHIND_MAX).0,
            stalled: watch::channel(false).0,
            flags: Flags::default(),
            tally: Tally::default(),
            market: Mutex::new(market),
            sessions: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn market(&self) -> MutexGuard<'_, Market> {
        lock(&self.market)
    }

    /// Hands an event to every connection; nobody listening is no failure.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(super) fn remember(&self, session: AbortHandle) {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| !session.is_finished());
        sessions.push(session);
    }

    /// Ends every connection without a word; gives their number.
    pub(super) fn cut(&self) -> usize {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| !session.is_finished());
        for session in &*sessions {
            session.abort();
        }
        sessions.len()
    }

    /// Connections that are open now.
    pub(super) fn open_connections(&self) -> usize {
        lock(&self.sessions).iter().filter(|session| !session.is_finished()).count()
    }
}

/// Now, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    RealClock.now().unix.0
}

/// A lock that a panicked task left behind still guards whole values: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), SimError> {
    let bound = || {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, addr))
    };
    bound().map_err(|error| SimError::Bind(addr, error))
}

/// Makes trades at `rate` a second, one symbol after the other.
async fn generate(desk: Arc<Desk>, rate: u32) {
    let period = Duration::from_secs(1) / rate.min(200);
    let mut ticks = interval(period.max(Duration::from_millis(5)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let started = Instant::now();
    let mut made = 0_u64;
    loop {
        ticks.tick().await;
        let due_ns = started.elapsed().as_nanos().saturating_mul(u128::from(rate)) / 1_000_000_000;
        let due = u64::try_from(due_ns).unwrap_or(u64::MAX);
        // Time that was slept away is not made up for.
        made = made.max(due.saturating_sub(u64::from(rate)));
        while made < due {
            let budget = usize::try_from(due - made).unwrap_or(usize::MAX);
            // Told under the lock: the events keep the order of the ids.
            let mut market = desk.market();
            let trades = market.advance(now_ns(), budget);
            if trades.is_empty() {
                made = due;
                break;
            }
            made += trades.len() as u64;
            desk.tell(Event::Trades(trades.into()));
        }
    }
}
