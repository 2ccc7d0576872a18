//! Starting and leaving.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use super::backoffice::{self, BackOffice};
use super::books::Books;
use super::feed_setup::feed_setup;
use super::feeds::{self, Dialer};
use super::handover::{Handover, Inherited, Predecessor, ShardSockets, Talk, Warmth};
use super::journal::{self, Keepers};
use super::key_watch::KeyWatch;
use super::months::Months;
use super::reports::{self, ReportSockets, ReportThreads};
use super::rest::{QUEUE_LEN, RestAsker, RestCounts, RestDesk};
use super::shards::{self, Listening};
use super::starter::Starter;
use super::steering::{self, Steering};
use super::tls::tls_config;
use super::topology::Topology;
use super::xdp::{self, KernelAnswers};
use crate::account::{Allowances, Token};
use crate::admin::{self, Facts};
use crate::config::{Config, IoChoice, Role};
use crate::engine::Sockets;
use crate::engine::probe::{self, Choice, Io};
use crate::exchange_sim::{Sim, SimOptions};
use crate::ledger::{Journal, JournalError, Recovery};
use crate::shard::{Control, Published};
use crate::store::{Store, StoreError};
use crate::sys::rlimits;
use crate::time::{Clock as _, RealClock};

/// Why a process did not start, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// What was found and what is needed.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl std::error::Error for StartError {}

impl StartError {
    pub(super) fn new(what: impl fmt::Display, cure: &str) -> Self {
        Self { what: what.to_string(), cure: cure.to_owned() }
    }
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        Self { what: error.what(), cure: error.cure() }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self { what: error.what(), cure: error.cure() }
    }
}

/// Where a running process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The UDP protocols.
    pub udp: Vec<SocketAddr>,
    /// HTTP.
    pub http: Vec<SocketAddr>,
    /// Health and metrics.
    pub health: Vec<SocketAddr>,
    /// Reports over HTTP.
    pub reports: Vec<SocketAddr>,
    /// Reports over UDP.
    pub reports_udp: Vec<SocketAddr>,
}

/// A running process.
pub struct Appliance {
    /// Where it listens.
    pub addresses: Addresses,
    /// Its engine and why.
    pub engine: Choice,
    /// Its threads.
    pub topology: Topology,
    /// What it knows about itself.
    pub facts: Arc<Facts>,
    /// Where its store lies: a path, or a URL without its password.
    pub store: String,
    /// Which start of its data folder this is.
    pub epoch: u32,
    /// The key that was made because there never was one.
    pub first_key: Option<Token>,
    /// Things the operator should know.
    pub notes: Vec<String>,
    /// The simulated exchanges, with `sim`.
    pub sim: Option<Sim>,
    /// The counters of each shard.
    pub published: Vec<Arc<Published>>,
    /// The counters of every thread that must turn: of the shards, and of the feed thread if there is one.
    pub turning: Vec<Arc<Published>>,
    /// The record of every answer.
    pub journal: Arc<Journal>,
    /// What earlier runs have left in it.
    pub recovery: Recovery,
    /// How a datagram finds its shard.
    pub steering: Steering,
    /// Where and for what the kernel answers itself.
    pub xdp: Option<String>,
    /// What it takes to hand over to another process.
    pub handover: Arc<Handover>,
    /// The process that hands over to this one.
    warmth: Option<Warmth>,
    health_begins: watch::Sender<bool>,
    health_over: watch::Sender<bool>,
    shards: Vec<JoinHandle<io::Result<io::Result<()>>>>,
    controls: Arc<[Sender<Control>]>,
    leaving: watch::Sender<bool>,
    back_office: JoinHandle<()>,
    reports: Option<ReportThreads>,
    keepers: Keepers,
    books: Books,
}

impl Appliance {
    /// Starts everything. `deliver` is given the first key, when one is made, before it counts.
    ///
    /// # Errors
    /// What was found, what is needed and what to do.
    pub fn start(
        config: &Config,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Self, StartError> {
        Self::start_after(config, None, deliver)
    }

    /// As [`start`](Self::start), with the sockets of a process before this one. Requests are left to
    /// it until [`take_over`](Self::take_over).
    ///
    /// # Errors
    /// The same; and sockets that are not the ones this process would open.
    pub fn start_after(
        config: &Config,
        predecessor: Option<Predecessor>,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Self, StartError> {
        if config.role == Role::WebhookServer {
            return Err(StartError::new(
                "there are no webhooks in this version, so there is nothing to do for a WEBHOOK_SERVER",
                "set SERVER_TYPE to APP_SERVER, REPORT_SERVER or APP_REPORT_SERVER",
            ));
        }
        if config.role == Role::ReportServer {
            return Err(StartError::new(
                "a REPORT_SERVER answers no prices",
                "start it as a ReportServer, or set SERVER_TYPE to APP_SERVER or APP_REPORT_SERVER",
            ));
        }
        let engine = probe::choose(io_of(config.io))
            .map_err(|e| StartError::new(e, "use --io auto or --io portable"))?;
        let topology = Topology::plan(config, engine.engine)
            .map_err(|e| StartError::new(format!("the processors are not known: {e}"), "see dmesg"))?;
        Self::start_on(config, engine, topology, predecessor, deliver)
    }

    pub(super) fn start_on(
        config: &Config,
        engine: Choice,
        topology: Topology,
        predecessor: Option<Predecessor>,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Self, StartError> {
        if predecessor.is_some() && config.xdp.is_some() {
            return Err(StartError::new(
                "answers from the kernel cannot be switched on by a restart without loss",
                "stop it and start it anew",
            ));
        }
        let now = RealClock.now();
        let (mut inherited, warmth) = predecessor.map(Predecessor::parts).unzip();
        let sim = start_sim(config)?;
        let setup = feed_setup(config, sim.as_ref()).map_err(|e| {
            StartError::new(e, "mend that setting; beast config print shows where each comes from")
        })?;
        let store = Arc::new(Store::open(config.store_options())?);
        let store_name = store.name();
        let first_key = store.first_key(deliver)?;
        let epoch = store.next_epoch()?;
        let keys_version = store.keys_version()?;
        let keys = store.load_keys()?;
        let (sockets, listening) = open_shards(config, &topology, inherited.as_mut())?;
        let mut steering = steering::decide(config.steer, &topology);
        // Sockets that another process still answers on are steered when it does no more.
        if inherited.is_none() {
            // The first shard's sockets stand for their groups: a program is the group's.
            steering = steering.apply(sockets.first().map_or(&[][..], |first| &first.udp));
        }
        let mut notes = setup.notes.clone();
        notes.extend(shards::buffer_warning(&sockets, config.socket_buffer_bytes));
        let limits = rlimits::raise().map_err(|e| {
            StartError::new(format!("the limits of the process are not known: {e}"), "see dmesg")
        })?;
        let (connections_max, fewer) = shards::connections_max(
            config.connections_max,
            engine.engine,
            topology.shards.len(),
            limits.descriptors,
        );
        notes.extend(fewer);
        let facts = Facts::new(now, env!("CARGO_PKG_VERSION"), Duration::from_secs(config.shard_stall_s));
        facts.set_engine(engine.engine.name(), &engine.why);
        // Known from the beginning, or a process would count as ready before anyone has looked.
        backoffice::begin_stages(&facts, &setup);
        let runtime = runtime()?;
        let (health, health_addresses) = {
            // These sockets belong to the runtime's reactor.
            let _entered = runtime.enter();
            open_health(config, &topology, inherited.as_mut())?
        };
        let no_descriptor = |e| StartError::new(e, "raise the limit of descriptors (ulimit -n)");
        let shared =
            sockets.iter().map(ShardSockets::of).collect::<io::Result<_>>().map_err(no_descriptor)?;

        let report_sockets = match config.role {
            Role::AppReportServer => Some(ReportSockets::open(config, &topology, inherited.as_mut())?),
            _ => None,
        };
        let (reports_http, reports_udp) =
            report_sockets.as_ref().map(ReportSockets::addresses).unwrap_or_default();
        let report_fds = report_sockets.as_ref().map(ReportSockets::fds).unwrap_or_default();
        let others = health.iter().map(|listener| listener.as_fd()).chain(report_fds);
        let others = others.map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>();
        let others = others.map_err(no_descriptor)?;
        let (journal, segments, recovery) =
            journal::open(&config.data_dir, &config.journal, epoch, topology.shards.len(), warmth.is_some())?;
        let sync_every = Duration::from_millis(config.journal.sync_ms);
        let keepers = Keepers::start(&journal, sync_every, &facts).map_err(no_back_office)?;
        let (asks, asked) = mpsc::channel(QUEUE_LEN);
        let limited = keys.iter().filter(|key| !key.tier.unlimited).count();
        let allowances = Arc::new(Allowances::new(limited));
        if let Some(count @ 1..) = xdp::take_in_old(&config.data_dir, &journal)? {
            notes.push(format!(
                "{count} answers of the kernel that an earlier start has left are in the journal now"
            ));
        }
        let mut months = Months::new(Arc::clone(&allowances), Arc::clone(&journal));
        // Before anything is answered or drained, so that it is exact.
        months.seed(&store, &keys, now.unix)?;
        let starter = Starter {
            config,
            setup: &setup,
            topology: &topology,
            epoch,
            connections_max,
            keys: &keys,
            allowances: &allowances,
            held: warmth.is_some(),
            now,
        };
        let kernel = starter.kernel(&journal, &listening)?;
        let xdp = kernel.as_ref().map(ToString::to_string);
        notes.extend(kernel.iter().flat_map(KernelAnswers::notes));
        let (running, desk_publisher) =
            starter.start_shards(sockets, segments, kernel, &facts, &|| Box::new(RestAsker(asks.clone())))?;
        let books = Books::start(config, &journal, &store, &facts).map_err(no_back_office)?;
        let tls = Arc::new(tls_config(config.feeds_ca_file.as_deref())?);
        let (leaving, is_leaving) = watch::channel(false);
        let (reports_leaving, reports_store) = (is_leaving.clone(), Arc::clone(&store));
        let (health_begins, begins) = watch::channel(warmth.is_none());
        let (health_over, over) = watch::channel(false);
        let sessions = feeds::plan(&setup.rows, &setup.catalogue)
            .map_err(|e| StartError::new(e, "mend the rows of the feeds"))?;
        let rows: Vec<_> = setup.rows.iter().filter(|row| row.enabled).map(Arc::clone).collect();
        let keys = KeyWatch {
            // As months were told: they are told again once it is alone.
            alone: warmth.is_none(),
            store,
            version: keys_version,
            keys,
            months,
            shards: Arc::clone(&running.controls),
            owed: false,
        };
        let office = BackOffice {
            keys,
            facts: Arc::clone(&facts),
            health,
            catalogue: Arc::clone(&setup.catalogue),
            sessions,
            rows: rows.clone(),
            dialer: Dialer {
                tls: Arc::clone(&tls),
                asks,
                shards: running.guests,
                leaving: is_leaving.clone(),
            },
            desk: RestDesk {
                catalogue: Arc::clone(&setup.catalogue),
                rows,
                publisher: desk_publisher,
                cache_ttl: Duration::from_secs(config.rest.cache_ttl_s),
                counts: Arc::new(RestCounts::default()),
                tls,
                unconfirmed: Vec::new(),
            },
            asks: asked,
            prewarm: config.rest.prewarm,
            published: running.published.clone(),
            drain: books.status(),
            leaving: is_leaving,
            health_begins: begins,
            health_over: over,
        };
        let handover = Handover {
            shards: shared,
            others,
            controls: Arc::clone(&running.controls),
            published: running.published.clone(),
            journal: Arc::clone(&journal),
            kernel_answers: xdp.is_some(),
            health_over: health_over.clone(),
            talk: Talk::default(),
        };
        let back_office = spawn_back_office(runtime, office)?;
        let reports = match report_sockets {
            Some(sockets) => {
                let reports =
                    reports::reports(reports_store, config, &setup.catalogue, epoch, &running.published);
                Some(sockets.serve(reports, reports::keep_exports(config), &reports_leaving)?)
            }
            None => None,
        };
        let Listening { udp, http } = listening;
        Ok(Self {
            addresses: Addresses { udp, http, health: health_addresses, reports: reports_http, reports_udp },
            engine,
            topology,
            facts,
            store: store_name,
            epoch,
            first_key,
            notes,
            sim,
            published: running.published,
            turning: running.turning,
            journal,
            recovery,
            steering,
            xdp,
            handover: Arc::new(handover),
            warmth,
            health_begins,
            health_over,
            shards: running.threads,
            controls: running.controls,
            leaving,
            back_office,
            reports,
            keepers,
            books,
        })
    }

    /// Takes requests over from the process before this one, if there is one; returns when it takes
    /// none any more.
    ///
    /// # Errors
    /// Why that one goes on; this one should leave.
    pub fn take_over(&mut self) -> Result<(), StartError> {
        let Some(warmth) = self.warmth.take() else { return Ok(()) };
        let cure = "the old process goes on as before; mend that and restart again";
        let taken = warmth.take_over(&self.controls, &self.published, &self.health_begins);
        taken.map_err(|why| StartError::new(why, cure))?;
        let decided = self.steering.clone();
        self.steering = decided.clone().apply(self.handover.udp_groups());
        if self.steering != decided {
            tracing::warn!("{}", self.steering);
        }
        journal::take_over(Arc::clone(&self.journal)).map_err(no_back_office)
    }

    /// Whether all shards are still running.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.shards.iter().all(|thread| !thread.is_finished())
    }

    /// Finishes what is in flight and ends all threads, within the configured time.
    ///
    /// # Errors
    /// The first error that a shard ended with.
    pub fn leave(self) -> io::Result<()> {
        self.end(false)
    }

    /// As [`leave`](Self::leave), when another process has taken over: it drains the usage that is left.
    ///
    /// # Errors
    /// The same.
    pub fn leave_to_heir(self) -> io::Result<()> {
        self.end(true)
    }

    fn end(self, heir: bool) -> io::Result<()> {
        self.facts.leave();
        // So that the sockets are closed when their shards end.
        drop(self.handover);
        for control in self.controls.iter() {
            // A shard that is gone has left already.
            let _gone = control.send(Control::Stop);
        }
        let mut result = Ok(());
        for thread in self.shards {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a shard panicked")));
            result = result.and(ended.and_then(|inner| inner));
        }
        // The receivers may be gone with the back office.
        let _gone = (self.health_over.send(true), self.health_begins.send(true));
        let _gone = self.leaving.send(true);
        let ended = self.back_office.join();
        drop(self.sim);
        if let Some(reports) = self.reports {
            result = result.and(reports.leave());
        }
        if heir {
            self.books.leave_to_heir();
        } else {
            self.books.leave();
        }
        result = result.and(self.keepers.leave().map_err(io::Error::other));
        result.and(ended.map_err(|_| io::Error::other("the back office panicked")))
    }
}

fn io_of(choice: IoChoice) -> Io {
    match choice {
        IoChoice::Auto => Io::Auto,
        IoChoice::Uring => Io::Uring,
        IoChoice::Portable => Io::Portable,
    }
}

pub(super) fn start_sim(config: &Config) -> Result<Option<Sim>, StartError> {
    if !config.sim {
        return Ok(None);
    }
    Sim::start(SimOptions::default()).map(Some).map_err(|e| StartError::new(e, "try again"))
}

/// The sockets of all shards: those that were handed over, or new ones.
fn open_shards(
    config: &Config,
    topology: &Topology,
    inherited: Option<&mut Inherited>,
) -> Result<(Vec<Sockets>, Listening), StartError> {
    let unopened = |e| StartError::new(e, "beast serve --help shows the options for ports and addresses");
    let Some(inherited) = inherited else {
        let (udp, http) = (config.udp_port, config.http_port);
        return shards::open_sockets(topology, udp, http, config.socket_buffer_bytes).map_err(unopened);
    };
    let (udp, http) = (topology.addresses(config.udp_port), topology.addresses(config.http_port));
    let listening = inherited.check(topology.shards.len(), udp, http)?;
    Ok((std::mem::take(&mut inherited.shards), listening))
}

pub(super) fn open_health(
    config: &Config,
    topology: &Topology,
    mut inherited: Option<&mut Inherited>,
) -> Result<(Vec<std::net::TcpListener>, Vec<SocketAddr>), StartError> {
    const REPORT: &str = "BEAST_REPORT_HEALTH_PORT";
    let mut ports = Vec::new();
    if config.role != Role::ReportServer {
        ports.push((config.health_port, "--health-port"));
    }
    if matches!(config.role, Role::AppReportServer | Role::ReportServer) {
        ports.push((config.report_health_port, REPORT));
    }
    let mut listeners = Vec::new();
    for (port, setting) in ports {
        for address in topology.addresses(port) {
            if let Some(listener) = inherited.as_mut().and_then(|inherited| inherited.take(address)) {
                listeners.push(listener);
                continue;
            }
            match admin::bind(address, setting) {
                Ok(listener) => listeners.push(listener),
                Err(e) => return Err(StartError { what: e.to_string(), cure: e.cure() }),
            }
        }
    }
    let addresses = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    Ok((listeners, addresses))
}

pub(super) fn runtime() -> Result<Runtime, StartError> {
    Builder::new_current_thread().enable_all().build().map_err(no_back_office)
}

pub(super) fn no_back_office(error: io::Error) -> StartError {
    let cure = "raise the limits of descriptors and threads (ulimit -n, ulimit -u)";
    StartError::new(format!("the back office cannot start: {error}"), cure)
}

fn spawn_back_office(runtime: Runtime, office: BackOffice) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name("back-office".into())
        .spawn(move || {
            runtime.block_on(office.run());
            // Looking up a name may take the resolver longer than leaving may take.
            runtime.shutdown_background();
        })
        .map_err(no_back_office)
}
