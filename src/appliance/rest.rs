//! Prices by REST: for requests that wait, for a warm start, and to confirm listings whose feed is
//! up but silent.
//!
//! ```text
//!  shards, sessions ──► Ask ──► one queue pair per exchange ──► fetch, paced ──► publisher ──► links
//!                              urgent before background            │ failed
//!                                     ▲── the asset's next listing ◄┘
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::feed::{RestReader, Row, Trade};
use crate::price::{Catalogue, Confirmation, ExchangeId, ListingId, Quote, Tier};
use crate::shard::{AskRest, Publisher};
use crate::time::{Clock as _, RealClock};

/// A wish for a listing's price.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) listing: ListingId,
    /// No other listing of the asset will do.
    pub(super) exact: bool,
    /// Somebody waits for it.
    pub(super) urgent: bool,
    /// What else is confirmed once the price is there.
    pub(super) live: Option<Confirmation>,
}

/// Wishes that may wait in one queue.
pub(super) const QUEUE_LEN: usize = 4_096;

/// Largest body that is read, in bytes. One trade is a few hundred.
const BODY_LEN_MAX: usize = 1 << 20;

/// Time for one fetch. Longer than a client waits, because the price is of use to the next one.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Fetches of one exchange under way at once.
const FETCHES_MAX: usize = 4;

type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The shards' end.
pub(super) struct RestAsker(pub(super) Sender<Ask>);

impl AskRest for RestAsker {
    fn ask(&mut self, listing: ListingId, exact: bool) -> bool {
        self.0.try_send(Ask { listing, exact, urgent: true, live: None }).is_ok()
    }
}

/// What REST has done so far, for metrics.
#[derive(Debug, Default)]
pub(super) struct RestCounts {
    pub(super) fetched: AtomicU64,
    pub(super) failed: AtomicU64,
}

struct Outcome {
    ask: Ask,
    result: Result<Trade, String>,
}

/// Serves wishes until all who can wish are gone.
pub(super) struct RestDesk {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) rows: Vec<Arc<Row>>,
    pub(super) publisher: Publisher,
    pub(super) cache_ttl: Duration,
    pub(super) counts: Arc<RestCounts>,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

struct Exchange {
    urgent: Sender<Ask>,
    background: Sender<Ask>,
}

impl RestDesk {
    /// Runs until `asks` is closed.
    pub(super) async fn run(mut self, mut asks: Receiver<Ask>) {
        let (done, mut outcomes) = mpsc::channel(QUEUE_LEN);
        let client = client(&self.tls);
        let mut exchanges: Vec<Option<Exchange>> = Vec::new();
        for row in &self.rows {
            let (Ok(id), Ok(Some(reader))) = (row.id(), RestReader::new(row)) else { continue };
            if exchanges.len() <= id.index() {
                exchanges.resize_with(id.index() + 1, || None);
            }
            exchanges[id.index()] = Some(open(row, reader, &self.catalogue, client.clone(), done.clone()));
        }
        // What was asked for and has not come, with all that is wanted of it: in a queue or being fetched.
        let mut under_way = HashMap::new();
        let mut settle = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                ask = asks.recv() => {
                    let Some(ask) = ask else { return };
                    self.dispatch(&exchanges, &mut under_way, ask);
                }
                Some(outcome) = outcomes.recv() => {
                    let Outcome { ask, result } = outcome;
                    let ask = match under_way.remove(&ask.listing) {
                        Some(merged) => Ask { live: ask.live, ..merged },
                        None => ask,
                    };
                    self.settle(&exchanges, &mut under_way, Outcome { ask, result });
                }
                _ = settle.tick(), if self.publisher.owes() => self.publisher.settle(),
            }
        }
    }

    fn dispatch(
        &mut self,
        exchanges: &[Option<Exchange>],
        under_way: &mut HashMap<ListingId, Ask>,
        ask: Ask,
    ) {
        let before = under_way.get(&ask.listing).copied();
        // Somebody who waits does not stand behind a whole prewarm.
        let overtakes = before.is_none_or(|before| ask.urgent && !before.urgent);
        let merged = before.map_or(ask, |before| Ask {
            urgent: before.urgent || ask.urgent,
            exact: before.exact && ask.exact,
            ..ask
        });
        under_way.insert(ask.listing, merged);
        if !overtakes && ask.live.is_none() {
            return;
        }
        let id: ExchangeId = self.catalogue.listing(ask.listing).exchange;
        let exchange = exchanges.get(id.index()).and_then(Option::as_ref);
        let sent = exchange.is_some_and(|exchange| {
            let queue = if ask.urgent { &exchange.urgent } else { &exchange.background };
            queue.try_send(ask).is_ok()
        });
        if !sent && before.is_none() {
            under_way.remove(&ask.listing);
            self.settle(exchanges, under_way, Outcome { ask, result: Err("no REST endpoint".to_owned()) });
        }
    }

    fn settle(
        &mut self,
        exchanges: &[Option<Exchange>],
        under_way: &mut HashMap<ListingId, Ask>,
        outcome: Outcome,
    ) {
        let Outcome { ask, result } = outcome;
        match result {
            Ok(trade) => {
                self.counts.fetched.fetch_add(1, Ordering::Relaxed);
                let now = RealClock.now();
                let quote =
                    Quote { price: trade.price, key: trade.key, received: now.unix, tier: Tier::Rest };
                let until = Confirmation::Until(now.mono.plus(self.cache_ttl));
                self.publisher.quote(ask.listing, quote, until);
                if let Some(live) = ask.live {
                    self.publisher.confirm(ask.listing, live);
                }
            }
            Err(why) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(listing = ask.listing.index(), "REST: {why}");
                if ask.live.is_some() && !ask.urgent {
                    return;
                }
                match self.next_listing(ask) {
                    Some(listing) => self.dispatch(exchanges, under_way, Ask { listing, ..ask }),
                    None => self.fail(ask),
                }
            }
        }
    }

    /// Tells those who wait for the asset by any listing that came before this one.
    fn fail(&mut self, ask: Ask) {
        let asset = self.catalogue.listing(ask.listing).asset;
        let listings = self.catalogue.asset_by_id(asset).map(|a| a.listings.clone()).unwrap_or_default();
        for listing in listings {
            if !ask.exact || listing == ask.listing {
                self.publisher.rest_failed(listing);
            }
            if listing == ask.listing {
                return;
            }
        }
    }

    /// The asset's next listing in the same quote currency that may stand in.
    fn next_listing(&self, ask: Ask) -> Option<ListingId> {
        if ask.exact {
            return None;
        }
        let this = self.catalogue.listing(ask.listing);
        let asset = self.catalogue.asset_by_id(this.asset)?;
        let mut later = asset.listings.iter().skip_while(|id| **id != ask.listing).skip(1);
        later.find(|id| asset.any_quote || self.catalogue.listing(**id).quote == this.quote).copied()
    }
}

/// Starts the fetcher of one exchange.
fn open(
    row: &Arc<Row>,
    mut reader: RestReader,
    catalogue: &Arc<Catalogue>,
    client: HttpsClient,
    done: Sender<Outcome>,
) -> Exchange {
    let (urgent, mut urgent_asks) = mpsc::channel::<Ask>(QUEUE_LEN);
    let (background, mut background_asks) = mpsc::channel::<Ask>(QUEUE_LEN);
    let gap = row
        .rest
        .as_ref()
        .map_or(Duration::ZERO, |rest| Duration::from_secs_f64(1.0 / f64::from(rest.per_second.max(1))));
    let catalogue = Arc::clone(catalogue);
    tokio::spawn(async move {
        let permits = Arc::new(tokio::sync::Semaphore::new(FETCHES_MAX));
        let (bodies, mut fetched) = mpsc::channel::<(Ask, Result<Bytes, String>)>(FETCHES_MAX);
        let mut being_fetched = HashSet::new();
        let mut next_at = tokio::time::Instant::now();
        loop {
            let ask = tokio::select! {
                biased;
                Some((ask, body)) = fetched.recv() => {
                    being_fetched.remove(&ask.listing);
                    let received = RealClock.now().unix;
                    let result = body.and_then(|body| {
                        reader.read(&body, ask.listing, received).map_err(|e| e.to_string())
                    });
                    if done.send(Outcome { ask, result }).await.is_err() {
                        return;
                    }
                    continue;
                }
                ask = next_ask(&permits, next_at, &mut urgent_asks, &mut background_asks) => ask,
            };
            let Some((ask, permit)) = ask else { return };
            if !being_fetched.insert(ask.listing) && ask.live.is_none() {
                // What is on its way serves this one too.
                continue;
            }
            next_at = tokio::time::Instant::now() + gap;
            let url = reader.url(&catalogue.listing(ask.listing).symbol);
            let (client, bodies) = (client.clone(), bodies.clone());
            tokio::spawn(async move {
                let body = match tokio::time::timeout(FETCH_MAX, fetch(&client, &url)).await {
                    Ok(body) => body.map_err(|why| format!("{url}: {why}")),
                    Err(_) => Err(format!("{url}: no answer within {} s", FETCH_MAX.as_secs())),
                };
                // The exchange's task ends only with the process.
                let _gone = bodies.send((ask, body)).await;
                drop(permit);
            });
        }
    });
    Exchange { urgent, background }
}

/// The next wish, once the exchange's pace allows it: urgent ones first.
async fn next_ask(
    permits: &Arc<tokio::sync::Semaphore>,
    next_at: tokio::time::Instant,
    urgent: &mut Receiver<Ask>,
    background: &mut Receiver<Ask>,
) -> Option<(Ask, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    tokio::time::sleep_until(next_at).await;
    let ask = tokio::select! {
        biased;
        ask = urgent.recv() => ask,
        ask = background.recv() => ask,
    };
    ask.map(|ask| (ask, permit))
}

fn client(tls: &Arc<rustls::ClientConfig>) -> HttpsClient {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(rustls::ClientConfig::clone(tls))
        .https_or_http()
        .enable_http1()
        .build();
    Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector)
}

async fn fetch(client: &HttpsClient, url: &str) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
    let request = Request::get(uri)
        .header("user-agent", concat!("beast/", env!("CARGO_PKG_VERSION")))
        .header("accept", "application/json")
        .body(Empty::new())
        .map_err(|e| e.to_string())?;
    let response = client.request(request).await.map_err(|e| chain(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_LEN_MAX).collect().await;
    let body = body.map_err(|e| e.to_string())?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(format!("status {status}")) }
}

/// An error with what caused it: hyper's own words are too short to act on.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
