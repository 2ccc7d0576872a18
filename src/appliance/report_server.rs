//! A process that only reports: what others have answered and drained, from the store and the data
//! folder it shares with them.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::feed_setup::feed_setup;
use super::reports::{self, ReportSockets, ReportThreads};
use super::start::{Addresses, StartError, no_back_office, open_health, runtime};
use super::topology::Topology;
use crate::account::Token;
use crate::admin::{self, Facts, Stage};
use crate::config::Config;
use crate::engine::probe::Chosen;
use crate::report::Reports;
use crate::store::{Store, StoreError};
use crate::time::{Clock as _, RealClock};

/// A running process in the role REPORT_SERVER.
pub struct ReportServer {
    /// Where it listens.
    pub addresses: Addresses,
    /// What it knows about itself.
    pub facts: Arc<Facts>,
    leaving: watch::Sender<bool>,
    reports: ReportThreads,
    health: JoinHandle<()>,
}

impl ReportServer {
    /// Starts everything. `deliver` is given the first key, when one is made, before it counts.
    ///
    /// # Errors
    /// What was found, what is needed and what to do.
    pub fn start(
        config: &Config,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Self, StartError> {
        let setup = feed_setup(config, None).map_err(|e| {
            StartError::new(e, "mend that setting; beast config print shows where each comes from")
        })?;
        let topology = Topology {
            engine: Chosen::Portable,
            shards: Vec::new(),
            feed_core: None,
            listen: config.listen.clone(),
        };
        let store = Arc::new(Store::open(config.store_options())?);
        let sockets = ReportSockets::open(config, &topology, None)?;
        // Only once the ports are ours: a key that was shown must not be lost by a start that fails.
        store.first_key(deliver)?;
        let facts =
            Facts::new(RealClock.now(), env!("CARGO_PKG_VERSION"), Duration::from_secs(config.shard_stall_s));
        facts.set_stage(Stage {
            name: "store",
            done: 1,
            needed: 1,
            total: 1,
            detail: "open; reports are read from it".to_owned(),
        });
        let runtime = runtime()?;
        let (health, health_addresses) = {
            // These sockets belong to the runtime's reactor.
            let _entered = runtime.enter();
            open_health(config, &topology, None)?
        };
        let (reports_http, reports_udp) = sockets.addresses();
        let (leaving, is_leaving) = watch::channel(false);
        let catalogue = (*setup.catalogue).clone();
        let reports = Reports::new(store, config.data_dir.join("journal"), catalogue, None);
        let reports = sockets.serve(reports, reports::keep_exports(config), &is_leaving)?;
        let told = Arc::clone(&facts);
        let health = std::thread::Builder::new()
            .name("back-office".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(admin::serve(health, told, is_leaving)) {
                    tracing::error!("health and metrics are not served: {error}");
                }
            })
            .map_err(no_back_office)?;
        let addresses = Addresses {
            health: health_addresses,
            reports: reports_http,
            reports_udp,
            ..Addresses::default()
        };
        Ok(Self { addresses, facts, leaving, reports, health })
    }

    /// Ends all threads; what is in flight has a second.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn leave(self) -> io::Result<()> {
        self.facts.leave();
        // The receivers may be gone with their threads.
        let _gone = self.leaving.send(true);
        let ended = self.reports.leave();
        ended.and(self.health.join().map_err(|_| io::Error::other("the back office panicked")))
    }
}
