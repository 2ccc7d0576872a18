//! Starting and leaving.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

use super::backoffice::BackOffice;
use super::books::Books;
use super::feed_setup::{FeedSetup, feed_setup};
use super::feeds::{self, Dialer};
use super::journal::{self, Keepers};
use super::key_watch::KeyWatch;
use super::months::Months;
use super::reports::{self, ReportSockets, ReportThreads};
use super::rest::{QUEUE_LEN, RestAsker, RestCounts, RestDesk};
use super::secrets::random;
use super::shards::{self, Listening};
use super::steering::{self, Steering};
use super::tls::tls_config;
use super::topology::Topology;
use super::xdp::{self, KernelAnswers, KernelSetup};
use crate::account::{Allowances, KeyTable, Token};
use crate::admin::{self, Facts};
use crate::config::{Config, IoChoice, Role};
use crate::engine::Sockets;
use crate::engine::probe::{self, Choice, Chosen, Io};
use crate::exchange_sim::{Sim, SimOptions};
use crate::ledger::{Journal, JournalError, Recovery, Segment};
use crate::price::Catalogue;
use crate::shard::{
    Answerer, AskRest, Control, Inbox, LINK_LEN, NoRest, Options, Published, Publisher, Shard, ShardSecrets,
    Update, links,
};
use crate::store::{Store, StoreError};
use crate::sys::rlimits;
use crate::time::{Clock as _, Now, RealClock};

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
    /// The record of every answer.
    pub journal: Arc<Journal>,
    /// What earlier runs have left in it.
    pub recovery: Recovery,
    /// How a datagram finds its shard.
    pub steering: Steering,
    /// Where and for what the kernel answers itself.
    pub xdp: Option<String>,
    shards: Vec<JoinHandle<io::Result<io::Result<()>>>>,
    controls: Arc<[Sender<Control>]>,
    leaving: watch::Sender<bool>,
    back_office: JoinHandle<()>,
    reports: Option<ReportThreads>,
    keepers: Keepers,
    books: Books,
}

/// The links of one shard: what it publishes with, and where its prices come from.
type Wiring = (Publisher, Vec<Receiver<Update>>);

impl Appliance {
    /// Starts everything. `deliver` is given the first key, when one is made, before it counts.
    ///
    /// # Errors
    /// What was found, what is needed and what to do.
    pub fn start(
        config: &Config,
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
        Self::start_on(config, engine, topology, deliver)
    }

    pub(super) fn start_on(
        config: &Config,
        engine: Choice,
        topology: Topology,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Self, StartError> {
        let now = RealClock.now();
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
        let (sockets, listening) =
            shards::open_sockets(&topology, config.udp_port, config.http_port, config.socket_buffer_bytes)
                .map_err(|e| {
                    StartError::new(e, "beast serve --help shows the options for ports and addresses")
                })?;
        let steering = steering::apply(config.steer, &topology, &sockets);
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
        let runtime = runtime()?;
        let (health, health_addresses) = {
            // These sockets belong to the runtime's reactor.
            let _entered = runtime.enter();
            open_health(config, &topology)?
        };

        let report_sockets = match config.role {
            Role::AppReportServer => Some(ReportSockets::open(config, &topology)?),
            _ => None,
        };
        let (reports_http, reports_udp) =
            report_sockets.as_ref().map(ReportSockets::addresses).unwrap_or_default();
        let (journal, segments, recovery) =
            journal::open(&config.data_dir, &config.journal, epoch, topology.shards.len())?;
        let sync_every = Duration::from_millis(config.journal.sync_ms);
        let keepers = Keepers::start(&journal, sync_every, &facts).map_err(no_back_office)?;
        let (asks, asked) = mpsc::channel(QUEUE_LEN);
        let limited = keys.iter().filter(|key| !key.tier.unlimited).count();
        let allowances = Arc::new(Allowances::new(limited));
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
            now,
        };
        if let Some(count @ 1..) = xdp::take_in_old(&config.data_dir, &journal)? {
            notes.push(format!(
                "{count} answers of the kernel that an earlier start has left are in the journal now"
            ));
        }
        let kernel = starter.kernel(&journal, &listening)?;
        let xdp = kernel.as_ref().map(ToString::to_string);
        notes.extend(kernel.iter().flat_map(KernelAnswers::notes));
        let (running, desk_publisher) =
            starter.start_shards(sockets, segments, kernel, &facts, &|| Box::new(RestAsker(asks.clone())))?;
        let books = Books::start(config, &journal, &store, &facts).map_err(no_back_office)?;
        let tls = Arc::new(tls_config(config.feeds_ca_file.as_deref())?);
        let (leaving, is_leaving) = watch::channel(false);
        let (reports_leaving, reports_store) = (is_leaving.clone(), Arc::clone(&store));
        let sessions = feeds::plan(&setup.rows, &setup.catalogue)
            .map_err(|e| StartError::new(e, "mend the rows of the feeds"))?;
        let rows: Vec<_> = setup.rows.iter().filter(|row| row.enabled).map(Arc::clone).collect();
        let keys = KeyWatch {
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
            journal,
            recovery,
            steering,
            xdp,
            shards: running.threads,
            controls: running.controls,
            leaving,
            back_office,
            reports,
            keepers,
            books,
        })
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
        self.facts.leave();
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
        let _gone = self.leaving.send(true);
        let ended = self.back_office.join();
        drop(self.sim);
        if let Some(reports) = self.reports {
            result = result.and(reports.leave());
        }
        self.books.leave();
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

pub(super) fn open_health(
    config: &Config,
    topology: &Topology,
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
            match admin::bind(address, setting) {
                Ok(listener) => listeners.push(listener),
                Err(e) => return Err(StartError { what: e.to_string(), cure: e.cure() }),
            }
        }
    }
    let addresses = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    Ok((listeners, addresses))
}

/// What shards are made of.
struct Starter<'a> {
    config: &'a Config,
    setup: &'a FeedSetup,
    topology: &'a Topology,
    epoch: u32,
    connections_max: usize,
    keys: &'a [crate::account::Key],
    allowances: &'a Arc<Allowances>,
    now: Now,
}

struct Running {
    threads: Vec<JoinHandle<io::Result<io::Result<()>>>>,
    controls: Arc<[Sender<Control>]>,
    /// Where feed connections are handed to.
    guests: Arc<[Sender<Control>]>,
    published: Vec<Arc<Published>>,
}

impl Starter<'_> {
    /// Starts all shards, and the feed thread where there is a core for it. Returns the publisher
    /// of the REST desk too, since it is wired like the others.
    fn start_shards(
        &self,
        sockets: Vec<Sockets>,
        segments: Vec<Segment>,
        kernel: Option<KernelAnswers>,
        facts: &Facts,
        asker: &dyn Fn() -> Box<dyn AskRest + Send>,
    ) -> Result<(Running, Publisher), StartError> {
        let count = self.topology.shards.len();
        let feed_threads = usize::from(self.topology.feed_core.is_some());
        let ends = count + usize::from(kernel.is_some());
        let (mut publishers, mut inboxes) = self.wire(ends, count + feed_threads + 1);
        let kernel = kernel.zip(inboxes.drain(count..).next());
        let desk = publishers.pop().ok_or_else(|| StartError::new("no publisher", "report this"))?;
        let (mut threads, mut controls, mut published) = (Vec::new(), Vec::new(), Vec::new());
        let mut publishers = publishers.into_iter();
        for (index, (((sockets, cpu), inbox), segment)) in
            sockets.into_iter().zip(&self.topology.shards).zip(inboxes).zip(segments).enumerate()
        {
            let Some(publisher) = publishers.next() else { break };
            let counters = Published::new();
            facts.add_shard(Arc::clone(&counters), self.now.mono);
            let made = self.shard(segment, publisher, inbox, &sockets, Arc::clone(&counters), asker());
            threads.push(self.spawn(*cpu, &format!("shard-{index}"), made.0, sockets)?);
            controls.push(made.1);
            published.push(counters);
        }
        let mut guests: Arc<[Sender<Control>]> = controls.clone().into();
        if let (Some(cpu), Some(publisher)) = (self.topology.feed_core, publishers.next()) {
            // A shard without sockets: it looks after feeds and answers nobody.
            let sockets = Sockets::default();
            let unused = Segment::new(self.epoch, u16::MAX);
            let (shard, control) =
                self.shard(unused, publisher, Vec::new(), &sockets, Published::new(), Box::new(NoRest));
            threads.push(self.spawn(Some(cpu), "feeds", shard, sockets)?);
            guests = vec![control.clone()].into();
            controls.push(control);
        }
        if let Some((kernel, inbox)) = kernel {
            let counters = Published::new();
            facts.add_shard(Arc::clone(&counters), self.now.mono);
            let (control, controlled) = unbounded();
            threads.push(kernel.spawn(Inbox::new(inbox), controlled, counters).map_err(no_back_office)?);
            controls.push(control);
        }
        Ok((Running { threads, controls: controls.into(), guests, published }, desk))
    }

    /// Answers in the kernel, where they are asked for.
    fn kernel(
        &self,
        journal: &Arc<Journal>,
        listening: &Listening,
    ) -> Result<Option<KernelAnswers>, StartError> {
        let Some(on) = &self.config.xdp else { return Ok(None) };
        let addresses: Vec<_> = listening.udp.iter().map(SocketAddr::ip).collect();
        let setup = KernelSetup {
            on,
            stays: self.config.xdp_stays,
            data_dir: &self.config.data_dir,
            epoch: self.epoch,
            listen: &addresses,
            port: listening.udp.first().map_or(self.config.udp_port, SocketAddr::port),
            catalogue: &self.setup.catalogue,
            keys: KeyTable::new(self.keys.to_vec()),
            allowances: self.allowances,
            shards: self.topology.shards.len(),
            journal,
        };
        KernelAnswers::prepare(setup).map(Some)
    }

    /// Links from every publisher to every shard.
    fn wire(&self, shards: usize, publishers: usize) -> (Vec<Publisher>, Vec<Vec<Receiver<Update>>>) {
        let catalogue: &Arc<Catalogue> = &self.setup.catalogue;
        let mut inboxes: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
        let made = (0..publishers)
            .map(|_| {
                let (publisher, ends): Wiring = links(catalogue, shards, LINK_LEN);
                for (inbox, end) in inboxes.iter_mut().zip(ends) {
                    inbox.push(end);
                }
                publisher
            })
            .collect();
        (made, inboxes)
    }

    fn shard(
        &self,
        segment: Segment,
        publisher: Publisher,
        inbox: Vec<Receiver<Update>>,
        sockets: &Sockets,
        published: Arc<Published>,
        rest: Box<dyn AskRest + Send>,
    ) -> (Shard, Sender<Control>) {
        let (control, controlled) = unbounded();
        let config = self.config;
        let secrets = ShardSecrets { recognizer: random(), budget: random() };
        let keys = Box::new(KeyTable::new(self.keys.to_vec()));
        let mut answerer = Answerer::new(Arc::clone(&self.setup.catalogue), keys, segment, secrets, rest);
        answerer.set_clock(|| RealClock.now().mono);
        answerer.share_replies(self.topology.shards.len());
        let leasing = self.topology.shards.len() + usize::from(config.xdp.is_some());
        answerer.share_limits(Arc::clone(self.allowances), leasing);
        let options = Options {
            udp: u8::try_from(sockets.udp.len()).unwrap_or(u8::MAX),
            tcp: u8::try_from(sockets.tcp.len()).unwrap_or(u8::MAX),
            spin: Duration::from_micros(config.spin_us),
            rest_deadline: Duration::from_millis(config.rest.deadline_ms),
            http_idle: Duration::from_secs(config.http.idle_s),
            http_head: Duration::from_secs(config.http.head_s),
            drain: Duration::from_secs(config.drain_s),
        };
        let shard = Shard::new(answerer, publisher, Inbox::new(inbox), controlled, published, options);
        (shard, control)
    }

    fn spawn(
        &self,
        cpu: Option<usize>,
        name: &str,
        shard: Shard,
        sockets: Sockets,
    ) -> Result<JoinHandle<io::Result<io::Result<()>>>, StartError> {
        let engine: Chosen = self.topology.engine;
        shards::spawn(engine, cpu, name, shard, sockets, self.connections_max)
            .map_err(|e| StartError::new(format!("{name} cannot start: {e}"), "use --io portable"))
    }
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
