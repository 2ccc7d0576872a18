//! The thread beside the shards: dials feeds, asks REST, watches the keys, serves health.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::books;
use super::feed_setup::FeedSetup;
use super::feeds::{Dialer, Pace, Session, SessionStatus};
use super::key_watch::KeyWatch;
use super::rest::{Ask, RestCounts, RestDesk};
use crate::admin::{self, Facts, Feed, Kind, Stage};
use crate::backoffice::DrainStatus;
use crate::feed::Row;
use crate::price::Catalogue;
use crate::shard::{Counter, Published};

/// How often what is shown about feeds and assets is brought up to date.
const FACTS_EVERY: Duration = Duration::from_millis(50);

/// Everything the back office works with.
pub(super) struct BackOffice {
    pub(super) keys: KeyWatch,
    pub(super) facts: Arc<Facts>,
    pub(super) health: Vec<TcpListener>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) sessions: Vec<Session>,
    pub(super) rows: Vec<Arc<Row>>,
    pub(super) dialer: Dialer,
    pub(super) desk: RestDesk,
    pub(super) asks: Receiver<Ask>,
    pub(super) prewarm: bool,
    pub(super) published: Vec<Arc<Published>>,
    pub(super) drain: Arc<DrainStatus>,
    pub(super) leaving: watch::Receiver<bool>,
    /// Turns true when health is to be served: at once, unless another process still serves it.
    pub(super) health_begins: watch::Receiver<bool>,
    /// Turns true when another process serves it.
    pub(super) health_over: watch::Receiver<bool>,
}

impl BackOffice {
    /// Works until the process leaves.
    pub(super) async fn run(self) {
        let mut tasks = JoinSet::new();
        let mut leaving = self.leaving.clone();
        let counts = Arc::clone(&self.desk.counts);
        let statuses: Vec<_> = self
            .sessions
            .iter()
            .map(|session| (Arc::clone(&session.row), Arc::clone(&session.status)))
            .collect();
        add_metrics(&self.facts, &statuses, &counts);
        tasks.spawn(show_facts(Arc::clone(&self.facts), statuses, self.published));
        tasks.spawn(books::tell(Arc::clone(&self.facts), self.drain));
        tasks.spawn(self.keys.run());
        if self.prewarm {
            tasks.spawn(prewarm(Arc::clone(&self.catalogue), self.dialer.asks.clone()));
        }
        let paces: Vec<_> = self.rows.iter().map(|row| (row.number, Arc::new(Pace::default()))).collect();
        for session in self.sessions {
            let number = session.row.number;
            if let Some((_, pace)) = paces.iter().find(|(row, _)| *row == number) {
                tasks.spawn(self.dialer.clone().keep_up(session, Arc::clone(pace)));
            }
        }
        tasks.spawn(self.desk.run(self.asks));
        let (mut begins, over) = (self.health_begins, self.health_over);
        let (listeners, facts) = (self.health, Arc::clone(&self.facts));
        let served = tokio::spawn(async move {
            // A sender that is gone means leaving, which ends serving at once.
            let _gone = begins.wait_for(|begins| *begins).await.is_err();
            admin::serve(listeners, facts, over).await
        });
        // A sender that is gone means the same as leaving.
        let _gone = leaving.wait_for(|leaving| *leaving).await;
        tasks.abort_all();
        if let Ok(Err(error)) = served.await {
            tracing::error!("health and metrics are not served: {error}");
        }
    }
}

/// Asks REST once about every asset's preferred listing.
async fn prewarm(catalogue: Arc<Catalogue>, asks: tokio::sync::mpsc::Sender<Ask>) {
    for asset in catalogue.assets() {
        let ask = Ask { listing: asset.listings[0], exact: false, urgent: false, live: None, tries: 0 };
        if asks.send(ask).await.is_err() {
            return;
        }
    }
}

/// Tells what has to come up, of which nothing has yet.
pub(super) fn begin_stages(facts: &Facts, setup: &FeedSetup) {
    let feeds = setup.rows.iter().filter(|row| row.enabled).count() as u64;
    let detail = "nobody has looked yet".to_owned();
    facts.set_stage(feeds_stage(0, feeds, detail));
    facts.set_stage(assets_stage(0, setup.catalogue.assets().len() as u64));
}

/// One exchange is enough.
fn feeds_stage(up: u64, total: u64, detail: String) -> Stage {
    Stage { name: "feeds", done: small(up), needed: u32::from(total > 0), total: small(total), detail }
}

/// Half of the assets are enough.
fn assets_stage(fresh: u64, listed: u64) -> Stage {
    let detail = "assets with a fresh price; half of them are enough to be ready".to_owned();
    let needed = small(listed.div_ceil(2).max(1));
    Stage { name: "assets", done: small(fresh), needed, total: small(listed), detail }
}

async fn show_facts(
    facts: Arc<Facts>,
    sessions: Vec<(Arc<Row>, Arc<SessionStatus>)>,
    published: Vec<Arc<Published>>,
) {
    let mut every = tokio::time::interval(FACTS_EVERY);
    loop {
        every.tick().await;
        let feeds = feeds(&sessions);
        let up = feeds.iter().filter(|feed| feed.connected > 0).count() as u64;
        facts.set_stage(feeds_stage(up, feeds.len() as u64, missing(&feeds)));
        facts.set_feeds(feeds);
        let shard = |counter| published.iter().map(|p| p.read().value(counter)).min().unwrap_or(0);
        facts.set_stage(assets_stage(shard(Counter::AssetsFresh), shard(Counter::Assets)));
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn feeds(sessions: &[(Arc<Row>, Arc<SessionStatus>)]) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    for (row, status) in sessions {
        // Connected means upgraded and subscribing: a socket alone brings no price.
        let live =
            status.connected.load(Ordering::Relaxed) && status.connection.phase.load(Ordering::Relaxed) > 0;
        let feed = match feeds.iter_mut().find(|feed| feed.exchange == row.name) {
            Some(feed) => feed,
            None => {
                feeds.push(Feed { exchange: row.name.clone(), connected: 0, wanted: 0 });
                let last = feeds.len() - 1;
                &mut feeds[last]
            }
        };
        feed.wanted += 1;
        feed.connected += u32::from(live);
        if live && status.complained.swap(false, Ordering::Relaxed) {
            tracing::info!("{} is connected", row.name);
        }
    }
    feeds
}

fn missing(feeds: &[Feed]) -> String {
    let missing: Vec<&str> =
        feeds.iter().filter(|f| f.connected < f.wanted).map(|f| f.exchange.as_str()).collect();
    if missing.is_empty() {
        "all exchanges are connected".to_owned()
    } else {
        format!("not connected: {}", missing.join(", "))
    }
}

fn add_metrics(facts: &Facts, sessions: &[(Arc<Row>, Arc<SessionStatus>)], counts: &Arc<RestCounts>) {
    let (sessions, counts) = (sessions.to_vec(), Arc::clone(counts));
    facts.add_source(move |text| {
        text.family("beast_feed_trade_taken_total", "Trades taken from feeds.", Kind::Counter);
        for (index, (row, status)) in sessions.iter().enumerate() {
            let (session, trades) = (index.to_string(), status.connection.trades.load(Ordering::Relaxed));
            text.sample(&[("exchange", &row.name), ("session", &session)], trades);
        }
        text.family("beast_feed_dialled_total", "Connection attempts of feeds.", Kind::Counter);
        for (index, (row, status)) in sessions.iter().enumerate() {
            let (session, attempts) = (index.to_string(), status.attempts.load(Ordering::Relaxed));
            text.sample(&[("exchange", &row.name), ("session", &session)], attempts);
        }
        text.family("beast_rest_fetched_total", "Prices asked for by REST.", Kind::Counter);
        text.sample(&[("outcome", "price")], counts.fetched.load(Ordering::Relaxed));
        text.sample(&[("outcome", "failed")], counts.failed.load(Ordering::Relaxed));
    });
}
