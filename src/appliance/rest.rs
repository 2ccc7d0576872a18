//! Prices by REST: for requests that wait, for a warm start, and to confirm listings whose feed is
//! up but silent.
//!
//! ```text
//!  shards, sessions ──► Ask ──► one queue pair per exchange ──► fetch, paced ──► publisher ──► links
//!                              urgent before background            │ failed
//!                                     ▲── the asset's next listing ◄┘
//! ```

mod fetcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

use crate::feed::{RestReader, Row, Trade};
use crate::price::{Catalogue, Confirmation, ExchangeId, ListingId, Quote, Tier};
use crate::shard::{AskRest, Publisher};
use crate::time::{Clock as _, RealClock};
use fetcher::Fetcher;

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
    /// How often it has failed and was wished again.
    pub(super) tries: u8,
}

/// Wishes that may wait in one queue.
pub(super) const QUEUE_LEN: usize = 4_096;

/// A silent listing that could not be confirmed is asked about again after this long, then after
/// twice as long, and so on: without that it would not be live before its next trade.
const CONFIRM_AGAIN: Duration = Duration::from_secs(10);

/// How often: the last time five minutes after the first.
const CONFIRM_TRIES_MAX: u8 = 5;

/// The shards' end.
pub(super) struct RestAsker(pub(super) Sender<Ask>);

impl AskRest for RestAsker {
    fn ask(&mut self, listing: ListingId, exact: bool) -> bool {
        self.0.try_send(Ask { listing, exact, urgent: true, live: None, tries: 0 }).is_ok()
    }
}

/// What is left of a wish whose fetch has failed. Two may have become one: to confirm that a listing is
/// live, which concerns that listing and its connection alone, and to have a price of the asset for
/// somebody who waits, which another listing may serve.
#[derive(Debug)]
struct Failed {
    /// To be asked again after a while.
    confirm_again: Option<Ask>,
    /// To be asked of the next listing now.
    go_on: Option<Ask>,
}

impl Failed {
    fn of(ask: Ask) -> Self {
        let retries = ask.live.is_some() && ask.tries < CONFIRM_TRIES_MAX;
        let again = Ask { exact: true, urgent: false, tries: ask.tries.saturating_add(1), ..ask };
        let waits = ask.live.is_none() || ask.urgent;
        Self {
            confirm_again: retries.then_some(again),
            go_on: waits.then_some(Ask { live: None, tries: 0, ..ask }),
        }
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
    /// Silent listings that are asked about again, and when.
    pub(super) unconfirmed: Vec<(Instant, Ask)>,
}

impl RestDesk {
    /// Runs until `asks` is closed.
    pub(super) async fn run(mut self, mut asks: Receiver<Ask>) {
        let (done, mut outcomes) = mpsc::channel(QUEUE_LEN);
        let client = fetcher::client(&self.tls);
        let mut exchanges: Vec<Option<Fetcher>> = Vec::new();
        for row in &self.rows {
            let (Ok(id), Ok(Some(reader))) = (row.id(), RestReader::new(row)) else { continue };
            if exchanges.len() <= id.index() {
                exchanges.resize_with(id.index() + 1, || None);
            }
            let symbols = Arc::clone(&self.catalogue);
            exchanges[id.index()] = Some(Fetcher::open(row, reader, symbols, client.clone(), done.clone()));
        }
        // What was asked for and has not come, with all that is wanted of it: in a queue or being fetched.
        let mut under_way = HashMap::new();
        let mut settle = tokio::time::interval(Duration::from_millis(20));
        let mut again = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                ask = asks.recv() => {
                    let Some(ask) = ask else { return };
                    self.dispatch(&exchanges, &mut under_way, ask);
                }
                Some(outcome) = outcomes.recv() => {
                    let Outcome { ask, result } = outcome;
                    let ask = match under_way.remove(&ask.listing) {
                        Some(merged) => Ask { live: ask.live, tries: ask.tries, ..merged },
                        None => ask,
                    };
                    self.settle(&exchanges, &mut under_way, Outcome { ask, result });
                }
                _ = settle.tick(), if self.publisher.owes() => self.publisher.settle(),
                _ = again.tick(), if !self.unconfirmed.is_empty() => {
                    let now = Instant::now();
                    for (_, ask) in self.unconfirmed.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
                        self.dispatch(&exchanges, &mut under_way, ask);
                    }
                }
            }
        }
    }

    fn dispatch(&mut self, exchanges: &[Option<Fetcher>], under_way: &mut HashMap<ListingId, Ask>, ask: Ask) {
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
        let sent = exchange.is_some_and(|exchange| exchange.ask(ask));
        if !sent && before.is_none() {
            under_way.remove(&ask.listing);
            self.settle(exchanges, under_way, Outcome { ask, result: Err("no REST endpoint".to_owned()) });
        }
    }

    fn settle(
        &mut self,
        exchanges: &[Option<Fetcher>],
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
                let Failed { confirm_again, go_on } = Failed::of(ask);
                if let Some(again) = confirm_again {
                    self.unconfirmed.push((Instant::now() + CONFIRM_AGAIN * (1 << ask.tries), again));
                }
                if let Some(ask) = go_on {
                    match self.next_listing(ask) {
                        Some(listing) => self.dispatch(exchanges, under_way, Ask { listing, ..ask }),
                        None => self.fail(ask),
                    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::data;
    use crate::price::SessionId;

    #[test]
    fn what_confirms_a_listing_never_goes_on_to_another_one() {
        let catalogue = data::load(&data::Overrides::default()).unwrap().catalogue;
        let live = Some(Confirmation::Live { session: SessionId::new(0).unwrap(), connection: 1 });
        let ask = Ask { listing: catalogue.listings()[0].id, exact: true, urgent: false, live, tries: 1 };

        let alone = Failed::of(ask);
        assert!(alone.go_on.is_none());
        assert_eq!(alone.confirm_again.unwrap().tries, 2);

        // Somebody who waits for any price of the asset has come to it.
        let both = Failed::of(Ask { exact: false, urgent: true, ..ask });
        let (again, go_on) = (both.confirm_again.unwrap(), both.go_on.unwrap());
        assert!(again.live.is_some() && again.exact && !again.urgent && again.tries == 2);
        assert!(go_on.live.is_none() && !go_on.exact && go_on.urgent && go_on.tries == 0);

        let waits = Failed::of(Ask { live: None, exact: false, urgent: true, ..ask });
        assert!(waits.confirm_again.is_none() && waits.go_on.is_some());
        assert!(Failed::of(Ask { tries: CONFIRM_TRIES_MAX, ..ask }).confirm_again.is_none());
    }
}
