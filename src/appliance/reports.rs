//! Reports beside the answers: HTTP and UDP on ports of their own, by threads that yield to all
//! others.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::handover::Inherited;
use super::secrets::random;
use super::start::{StartError, no_back_office};
use super::topology::Topology;
use crate::account::ReplyBudget;
use crate::admin::{self, books};
use crate::config::Config;
use crate::ledger::ChainId;
use crate::price::Catalogue;
use crate::report::{KeepExports, OwnShard, Reports, answer_datagram, router};
use crate::shard::{Counter, Published};
use crate::store::Store;
use crate::sys::mmsg::{ReceiveBatch, send_one};
use crate::sys::{net, priority};
use crate::time::{Clock as _, RealClock};

/// Connections that the report port holds at a time.
const CONNECTIONS_MAX: usize = 256;

/// Datagrams taken at once.
const BATCH_LEN: usize = 16;

/// Receive buffer of the report port, in bytes: what does not fit is not worth a late answer.
const BUFFER_BYTES: usize = 256 << 10;

/// How often a thread that waits for datagrams looks whether the process leaves.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Politeness of report threads: they get a tenth of what an answering thread on the same processor
/// gets. 0 would let a large report take half of it.
const NICE: i32 = 10;

/// Sockets of the report ports, before anybody answers on them.
pub(super) struct ReportSockets {
    http: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    runtime: Runtime,
}

/// The running threads.
pub(super) struct ReportThreads(Vec<JoinHandle<()>>);

impl ReportSockets {
    /// Opens them.
    /// Those that another process hands over are taken in place of new ones.
    pub(super) fn open(
        config: &Config,
        topology: &Topology,
        mut inherited: Option<&mut Inherited>,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_start(yield_to_answers)
            .build()
            .map_err(no_back_office)?;
        let mut http = Vec::new();
        let mut udp = Vec::new();
        {
            // Listeners are made by the runtime's reactor.
            let _entered = runtime.enter();
            for address in topology.addresses(config.report_port) {
                if let Some(listener) = inherited.as_mut().and_then(|inherited| inherited.take(address)) {
                    http.push(listener);
                    continue;
                }
                let listener = admin::bind(address, "--report-port")
                    .map_err(|e| StartError { what: e.to_string(), cure: e.cure() })?;
                http.push(listener);
            }
        }
        for address in topology.addresses(config.report_udp_port) {
            if let Some(socket) = inherited.as_mut().and_then(|inherited| inherited.take_udp(address)) {
                udp.push(socket);
                continue;
            }
            let socket = open_udp(address).map_err(|e| {
                let what = format!("UDP {address} cannot be opened: {e}; needs a free port of this machine");
                StartError::new(what, "stop what uses the port, or choose another by --report-udp-port")
            })?;
            udp.push(socket);
        }
        Ok(Self { http, udp, runtime })
    }

    /// All of them.
    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.http.iter().map(AsFd::as_fd).chain(self.udp.iter().map(AsFd::as_fd)).collect()
    }

    /// Where they listen: HTTP, UDP.
    pub(super) fn addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let http = self.http.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        (http, self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect())
    }

    /// Answers on them until the process leaves.
    pub(super) fn serve(
        self,
        reports: Reports,
        exports: KeepExports,
        leaving: &watch::Receiver<bool>,
    ) -> Result<ReportThreads, StartError> {
        let reports = Arc::new(reports);
        let mut threads = Vec::new();
        for socket in self.udp {
            let (reports, leaving) = (Arc::clone(&reports), leaving.clone());
            threads.push(spawn("reports-udp", move || answer_datagrams(&socket, &reports, &leaving))?);
        }
        let (router, http, runtime, leaving) = (router(reports), self.http, self.runtime, leaving.clone());
        threads.push(spawn("reports", move || {
            runtime.block_on(async {
                tokio::spawn(prune_exports(exports));
                if let Err(error) = admin::serve_router(http, router, CONNECTIONS_MAX, leaving).await {
                    tracing::error!("reports are not served by HTTP: {error}");
                }
            });
            // A long report must not hold the process up.
            runtime.shutdown_background();
        })?);
        Ok(ReportThreads(threads))
    }
}

impl ReportThreads {
    /// Waits for their end, once the process leaves.
    pub(super) fn leave(self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.0 {
            result = result.and(thread.join().map_err(|_| io::Error::other("a report thread panicked")));
        }
        result
    }
}

/// What reports are read from in this process. `published` are the counters of its own shards.
pub(super) fn reports(
    store: Arc<Store>,
    config: &Config,
    catalogue: &Catalogue,
    epoch: u32,
    published: &[Arc<Published>],
) -> Reports {
    let published = published.to_vec();
    let read = move || {
        let shard = |(index, published): (u16, &Arc<Published>)| {
            let counters = published.read();
            OwnShard {
                chain: ChainId { epoch, shard: index },
                books: books(&counters),
                recorded: counters.value(Counter::RecordAppended),
            }
        };
        (0..).zip(&published).map(shard).collect()
    };
    Reports::new(store, config.data_dir.join("journal"), catalogue.clone(), Some(Box::new(read)))
}

/// How the configuration wants exports to be kept.
#[must_use]
pub fn keep_exports(config: &Config) -> KeepExports {
    KeepExports {
        folder: config.data_dir.join("exports"),
        age_max: bound(config.retention.exports_days).map(|days| Duration::from_secs(days * 86_400)),
        bytes_max: bound(config.retention.exports_mib).map(|mib| mib << 20),
    }
}

/// 0 stands for none.
fn bound(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let thread = std::thread::Builder::new().name(name.into());
    thread
        .spawn(|| {
            yield_to_answers();
            work();
        })
        .map_err(no_back_office)
}

fn yield_to_answers() {
    if let Err(error) = priority::be_nice(NICE) {
        tracing::warn!("reports cannot be made to yield to answers: {error}");
    }
}

fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = net::open_udp(address, BUFFER_BYTES)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

/// One datagram after the other: what comes faster than reports can be read is dropped by the kernel.
fn answer_datagrams(socket: &UdpSocket, reports: &Reports, leaving: &watch::Receiver<bool>) {
    let mut batch = ReceiveBatch::new(BATCH_LEN);
    let mut budget = ReplyBudget::new(random());
    while !*leaving.borrow() {
        let taken = match batch.receive_waiting(socket, BATCH_LEN) {
            Ok(taken) => taken,
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
                0
            }
            Err(error) => {
                // An error that an earlier answer met, told late; none of them ends the socket.
                tracing::debug!("reports by UDP: {error}");
                std::thread::sleep(Duration::from_millis(10));
                0
            }
        };
        for slot in 0..taken {
            if batch.truncated(slot) {
                continue;
            }
            let (peer, to) = (batch.source(slot).socket_addr(), batch.destination(slot));
            let now = RealClock.now();
            if let Some(answer) = answer_datagram(reports, &mut budget, batch.payload(slot), peer.ip(), now) {
                // Who cannot be reached gets none.
                let _lost = send_one(socket, peer, to, answer.as_bytes());
            }
        }
    }
}

/// Removes exports that are too old or too much, once a minute.
async fn prune_exports(keep: KeepExports) {
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        minutes.tick().await;
        let keep = keep.clone();
        let pruned = tokio::task::spawn_blocking(move || keep.prune(std::time::SystemTime::now())).await;
        match pruned {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(files)) => tracing::info!(files, "exports were removed by age or size"),
            Ok(Err(error)) => tracing::warn!("exports cannot be pruned: {error}"),
        }
    }
}
