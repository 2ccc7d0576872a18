//! Makes the shards of a process and wires them to one another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::StartError;
use super::feed_setup::FeedSetup;
use super::secrets::random;
use super::shards::{self, Listening};
use super::start::no_back_office;
use super::topology::Topology;
use super::xdp::{KernelAnswers, KernelSetup};
use crate::account::{Allowances, KeyTable};
use crate::admin::Facts;
use crate::config::Config;
use crate::engine::Sockets;
use crate::engine::probe::Chosen;
use crate::ledger::{Journal, Segment};
use crate::price::Catalogue;
use crate::shard::{
    Answerer, AskRest, Control, Inbox, LINK_LEN, NoRest, Options, Published, Publisher, Shard, ShardSecrets,
    Update, links,
};
use crate::time::{Clock as _, Now, RealClock};

/// The links of one shard: what it publishes with, and where its prices come from.
type Wiring = (Publisher, Vec<Receiver<Update>>);

/// What shards are made of.
pub(super) struct Starter<'a> {
    pub(super) config: &'a Config,
    pub(super) setup: &'a FeedSetup,
    pub(super) topology: &'a Topology,
    pub(super) epoch: u32,
    pub(super) connections_max: usize,
    pub(super) keys: &'a [crate::account::Key],
    pub(super) allowances: &'a Arc<Allowances>,
    /// Shards wait to be opened.
    pub(super) held: bool,
    pub(super) now: Now,
}

/// What they have become.
pub(super) struct Running {
    pub(super) threads: Vec<JoinHandle<io::Result<io::Result<()>>>>,
    pub(super) controls: Arc<[Sender<Control>]>,
    /// Where feed connections are handed to.
    pub(super) guests: Arc<[Sender<Control>]>,
    pub(super) published: Vec<Arc<Published>>,
    /// The counters of every thread that must turn: of the shards, and of the feed thread.
    pub(super) turning: Vec<Arc<Published>>,
}

impl Starter<'_> {
    /// Starts all shards, and the feed thread where there is a core for it. Returns the publisher
    /// of the REST desk too, since it is wired like the others.
    pub(super) fn start_shards(
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
            let shard = if self.held { made.0.held() } else { made.0 };
            threads.push(self.spawn(*cpu, &format!("shard-{index}"), shard, sockets)?);
            controls.push(made.1);
            published.push(counters);
        }
        let mut turning = published.clone();
        let mut guests: Arc<[Sender<Control>]> = controls.clone().into();
        if let (Some(cpu), Some(publisher)) = (self.topology.feed_core, publishers.next()) {
            // A shard without sockets: it looks after feeds and answers nobody.
            let sockets = Sockets::default();
            let unused = Segment::new(self.epoch, u16::MAX);
            let counters = Published::new();
            facts.add_shard(Arc::clone(&counters), self.now.mono);
            turning.push(Arc::clone(&counters));
            let (shard, control) =
                self.shard(unused, publisher, Vec::new(), &sockets, counters, Box::new(NoRest));
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
        Ok((Running { threads, controls: controls.into(), guests, published, turning }, desk))
    }

    /// Answers in the kernel, where they are asked for.
    pub(super) fn kernel(
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
