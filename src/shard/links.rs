//! Links that carry prices from whoever hears them to every shard, and never make him wait.
//!
//! ```text
//!                       ┌─ link (bounded) ──► Inbox of shard 0 ─► its board
//!   feed ──► Publisher ─┼─ link (bounded) ──► Inbox of shard 1 ─► its board
//!             newest of └─ …
//!             every listing
//! ```
//!
//! The publisher keeps the newest state of every listing and session. When a link is full the
//! listing is marked as owed on that link and what is newest goes out when there is room: a burst
//! may skip prices, but the last one always arrives.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::ready::Ready;
use crate::limits::FEED_SESSIONS_MAX;
use crate::price::{Board, Catalogue, Confirmation, ListingId, Quote, SessionId};
use crate::time::MonoNs;

/// Messages a link holds. At 100 trades a second and a shard that looks every 100 ms, ten are
/// enough; a burst of snapshots is 100 trades for each of 25 symbols. Guess, not measured.
pub const LINK_LEN: usize = 4_096;

/// How often news of a living connection is worth a message: a tenth of the shortest silence that
/// an exchange row may call death.
const HEARD_STEP_NS: u64 = 100_000_000;

/// What travels on a link.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "quotes are nearly all there is, and a link must not allocate")]
pub enum Update {
    /// A quote with all that is ready to send for it.
    Quote(ListingId, Quote, Ready, Confirmation),
    /// A listing is confirmed without a new quote.
    Confirm(ListingId, Confirmation),
    /// A session's connection was heard: what is live on it is fresh until the deadline.
    Heard(SessionId, u32, MonoNs),
    /// REST could not say: whoever waits for this listing waits in vain.
    RestFailed(ListingId),
}

/// The sending end: one per thread that hears prices.
#[derive(Debug)]
pub struct Publisher {
    catalogue: Arc<Catalogue>,
    outlets: Vec<Outlet>,
    listings: Vec<Newest>,
    sessions: Vec<(u32, MonoNs)>,
    /// Messages that found a full link and became debts.
    pub overruns: u64,
}

#[derive(Debug)]
struct Outlet {
    link: Sender<Update>,
    /// Quotes and what they are live on.
    owed_listings: Vec<bool>,
    /// How far REST confirmed a listing.
    owed_rest: Vec<bool>,
    owed_sessions: Vec<bool>,
    owed_failures: Vec<bool>,
    owed: usize,
}

#[derive(Clone, Debug, Default)]
struct Newest {
    held: Option<(Quote, Ready)>,
    live: Option<Confirmation>,
    /// The furthest instant that REST confirmed.
    rest_until: MonoNs,
}

/// Makes the links of one publisher to `shards` shards: the publisher and each shard's end.
#[must_use]
pub fn links(catalogue: &Arc<Catalogue>, shards: usize, len: usize) -> (Publisher, Vec<Receiver<Update>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| bounded(len)).unzip();
    (Publisher::new(Arc::clone(catalogue), senders), receivers)
}

impl Publisher {
    fn new(catalogue: Arc<Catalogue>, links: Vec<Sender<Update>>) -> Self {
        let listings = catalogue.listings().len();
        let outlet = |link| Outlet {
            link,
            owed_listings: vec![false; listings],
            owed_rest: vec![false; listings],
            owed_sessions: vec![false; FEED_SESSIONS_MAX],
            owed_failures: vec![false; listings],
            owed: 0,
        };
        Self {
            outlets: links.into_iter().map(outlet).collect(),
            listings: vec![Newest::default(); listings],
            sessions: vec![(0, MonoNs(0)); FEED_SESSIONS_MAX],
            overruns: 0,
            catalogue,
        }
    }

    /// Publishes a trade; its answers are made here, once. One older than the newest published one
    /// only confirms.
    pub fn quote(&mut self, listing: ListingId, quote: Quote, confirmation: Confirmation) {
        let newest = &mut self.listings[listing.index()];
        if newest.held.as_ref().is_some_and(|(held, _)| held.key > quote.key) {
            self.confirm(listing, confirmation);
            return;
        }
        let ready = Ready::new(&self.catalogue, listing, &quote);
        newest.held = Some((quote, ready.clone()));
        newest.confirm(confirmation);
        self.send_listing(listing, &Update::Quote(listing, quote, ready, confirmation));
    }

    /// Publishes that a listing is confirmed without a new quote.
    pub fn confirm(&mut self, listing: ListingId, confirmation: Confirmation) {
        self.listings[listing.index()].confirm(confirmation);
        self.send_listing(listing, &Update::Confirm(listing, confirmation));
    }

    /// Publishes that a connection was heard, or with a deadline of 0 that it is gone. Small steps
    /// are not worth a message and are left out, and so is news of an older connection.
    pub fn heard(&mut self, session: SessionId, connection: u32, deadline: MonoNs) {
        let known = &mut self.sessions[session.index()];
        if connection < known.0 {
            return;
        }
        let step = deadline.0.saturating_sub(known.1.0);
        if known.0 == connection && deadline.0 != 0 && known.1.0 != 0 && step < HEARD_STEP_NS {
            return;
        }
        *known = (connection, deadline);
        for outlet in &mut self.outlets {
            let owed = &mut outlet.owed_sessions[session.index()];
            let update = Update::Heard(session, connection, deadline);
            self.overruns += send(&outlet.link, update, owed, &mut outlet.owed);
        }
    }

    /// Publishes that REST could not say.
    pub fn rest_failed(&mut self, listing: ListingId) {
        for outlet in &mut self.outlets {
            let owed = &mut outlet.owed_failures[listing.index()];
            self.overruns += send(&outlet.link, Update::RestFailed(listing), owed, &mut outlet.owed);
        }
    }

    fn send_listing(&mut self, listing: ListingId, update: &Update) {
        let (news, rest) = match update {
            Update::Quote(_, _, _, confirmation) => (true, matches!(confirmation, Confirmation::Until(_))),
            Update::Confirm(_, Confirmation::Until(_)) => (false, true),
            _ => (true, false),
        };
        for outlet in &mut self.outlets {
            let owed = (&mut outlet.owed_listings[listing.index()], &mut outlet.owed_rest[listing.index()]);
            let stands_before = *owed.0 || *owed.1;
            if stands_before || is_full(&outlet.link, update.clone()) {
                // What an update carries is owed part by part: the newest of each may be of another.
                for debt in [news.then_some(owed.0), rest.then_some(owed.1)].into_iter().flatten() {
                    self.overruns += u64::from(!*debt);
                    outlet.owed += usize::from(!*debt);
                    *debt = true;
                }
            }
        }
    }

    /// Whether something is owed on a link.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.outlets.iter().any(|o| o.owed > 0)
    }

    /// Sends what is owed as far as there is room. Call it now and then.
    pub fn settle(&mut self) {
        for outlet in self.outlets.iter_mut().filter(|o| o.owed > 0) {
            for (index, (connection, deadline)) in self.sessions.iter().enumerate() {
                if let (true, Ok(id)) = (outlet.owed_sessions[index], SessionId::new(index)) {
                    let update = Update::Heard(id, *connection, *deadline);
                    settle_one(&outlet.link, update, &mut outlet.owed_sessions[index], &mut outlet.owed);
                }
            }
            for (index, newest) in self.listings.iter().enumerate() {
                let Ok(id) = ListingId::new(index) else { continue };
                if outlet.owed_listings[index]
                    && let Some(update) = newest.update(id)
                {
                    settle_one(&outlet.link, update, &mut outlet.owed_listings[index], &mut outlet.owed);
                }
                if outlet.owed_rest[index] {
                    let rest = Update::Confirm(id, Confirmation::Until(newest.rest_until));
                    settle_one(&outlet.link, rest, &mut outlet.owed_rest[index], &mut outlet.owed);
                }
                if outlet.owed_failures[index] {
                    let failed = Update::RestFailed(id);
                    settle_one(&outlet.link, failed, &mut outlet.owed_failures[index], &mut outlet.owed);
                }
            }
        }
    }
}

impl Newest {
    fn confirm(&mut self, confirmation: Confirmation) {
        match confirmation {
            Confirmation::Live { .. } => self.live = Some(confirmation),
            Confirmation::Until(until) => self.rest_until = self.rest_until.max(until),
        }
    }

    /// The quote and what it is live on; what REST confirmed is a message of its own.
    fn update(&self, id: ListingId) -> Option<Update> {
        Some(match &self.held {
            Some((quote, ready)) => {
                let confirmation = self.live.unwrap_or(Confirmation::Until(self.rest_until));
                Update::Quote(id, *quote, ready.clone(), confirmation)
            }
            None => Update::Confirm(id, self.live?),
        })
    }
}

/// Sends, unless a debt of the same kind stands before it; a full link makes one. Returns how many
/// debts were made. A link whose shard is gone swallows all.
fn send(link: &Sender<Update>, update: Update, owed: &mut bool, total: &mut usize) -> u64 {
    if *owed {
        return 0;
    }
    if is_full(link, update) {
        *owed = true;
        *total += 1;
        return 1;
    }
    0
}

/// Sends, unless the link is full.
fn is_full(link: &Sender<Update>, update: Update) -> bool {
    matches!(link.try_send(update), Err(TrySendError::Full(_)))
}

fn settle_one(link: &Sender<Update>, update: Update, owed: &mut bool, total: &mut usize) {
    if !is_full(link, update) {
        *owed = false;
        *total -= 1;
    }
}

#[cfg(test)]
impl Outlet {
    /// The debts, counted one by one.
    fn debts(&self) -> usize {
        let all = [&self.owed_listings, &self.owed_rest, &self.owed_sessions, &self.owed_failures];
        all.iter().map(|owed| owed.iter().filter(|owed| **owed).count()).sum()
    }
}

/// The receiving ends of one shard.
#[derive(Debug)]
pub struct Inbox {
    links: Vec<Receiver<Update>>,
}

/// What a look into the inbox did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Quotes that went onto the board.
    pub applied: u64,
    /// Quotes that were no news to the board.
    pub older: u64,
    /// Updates of all kinds.
    pub updates: u64,
}

impl Inbox {
    /// The links that end here.
    #[must_use]
    pub fn new(links: Vec<Receiver<Update>>) -> Self {
        Self { links }
    }

    /// Takes all that waits onto the board; `settled` is told each listing that was priced or
    /// confirmed, or that REST had no price for.
    pub fn drain(&self, board: &mut Board<Ready>, mut settled: impl FnMut(ListingId, bool)) -> Drained {
        let mut drained = Drained::default();
        for link in &self.links {
            // What comes in while we drain is left to the next look, so that this ends.
            for _ in 0..link.len() {
                let Ok(update) = link.try_recv() else { break };
                drained.updates += 1;
                match update {
                    Update::Quote(listing, quote, ready, confirmation) => {
                        if board.update(listing, quote, ready, confirmation) {
                            drained.applied += 1;
                        } else {
                            drained.older += 1;
                        }
                        settled(listing, true);
                    }
                    Update::Confirm(listing, confirmation) => {
                        board.confirm(listing, confirmation);
                        settled(listing, true);
                    }
                    Update::Heard(session, connection, deadline) => {
                        board.heard(session, connection, deadline);
                    }
                    Update::RestFailed(listing) => settled(listing, false),
                }
            }
        }
        drained
    }
}

#[cfg(test)]
mod tests;
