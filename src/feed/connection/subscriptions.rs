//! What a connection has asked for and what came of it: which listings are live, which requests
//! are unanswered, what is still to be sent.
//!
//! ```text
//! listings ──► queue ──► requests ──► acked ──► live       the first trade makes a listing live
//!                ▲           │                             from wherever it is
//!                ├── halves ─┤ error without a name        a single one: refused
//!                └── again ──┘ silence, once
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::feed::row::{REQUEST_ID_FIRST, Row, with_request};
use crate::price::ListingId;
use crate::time::MonoNs;

/// After this long without a trade or an ack a listing is subscribed again, once. Snapshots and acks
/// come within a second in every recording; a guess, not measured: shorter repeats subscribes to
/// exchanges that are merely slow, longer leaves a lost subscribe unnoticed.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(15);

/// One listing on this connection.
#[derive(Debug)]
struct Entry {
    listing: ListingId,
    symbol: String,
    state: State,
    /// It was subscribed a second time because nothing came.
    repeated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was heard of it.
    Waiting,
    /// The exchange has accepted it; no trade yet.
    Acked,
    /// A trade came.
    Live,
    /// The exchange does not want it.
    Refused,
}

/// A subscribe message that was sent and is not yet fully answered.
#[derive(Debug)]
struct Request {
    id: u64,
    entries: Vec<usize>,
    silent_at: MonoNs,
}

/// A message to be sent when its turn comes.
#[derive(Debug)]
enum Queued {
    /// Subscribe to these.
    Subscribe(Vec<usize>),
    /// An `extra_subscribe` of the row.
    Extra(String),
}

/// What the exchange said of a listing, as far as it is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Acked(ListingId),
    Refused(ListingId),
}

#[derive(Debug)]
pub(super) struct Subscriptions {
    entries: Vec<Entry>,
    /// Entry of each listing number, `NO_ENTRY` where there is none.
    entry_of: Vec<u16>,
    queue: VecDeque<Queued>,
    requests: Vec<Request>,
    next_request_id: u64,
    max_per_msg: usize,
    /// The exchange returns the number of the request in its answers.
    numbered: bool,
    /// The exchange names the symbols in its acks.
    acks_name: bool,
    /// It answers each symbol for itself: its acks name one. Others answer a request as a whole.
    answers_each: bool,
}

const NO_ENTRY: u16 = u16::MAX;

impl Subscriptions {
    /// With everything queued that a new connection sends.
    pub(super) fn new<'s>(row: &Row, listings: impl IntoIterator<Item = (&'s str, ListingId)>) -> Self {
        let entry = |(symbol, listing): (&str, ListingId)| Entry {
            listing,
            symbol: symbol.into(),
            state: State::Waiting,
            repeated: false,
        };
        let entries: Vec<_> = listings.into_iter().map(entry).collect();
        let len = entries.iter().map(|entry| entry.listing.index() + 1).max().unwrap_or(0);
        let mut entry_of = vec![NO_ENTRY; len];
        for (index, entry) in entries.iter().enumerate() {
            entry_of[entry.listing.index()] = u16::try_from(index).unwrap_or(NO_ENTRY);
        }
        let mut all = Self {
            entry_of,
            queue: VecDeque::new(),
            requests: Vec::new(),
            next_request_id: REQUEST_ID_FIRST,
            max_per_msg: row.max_per_msg.max(1),
            numbered: row.request_id.is_some(),
            acks_name: row.ack_symbol.is_some(),
            answers_each: row.ack_symbol.as_ref().is_some_and(|path| !path.contains('*')),
            entries,
        };
        all.queue_subscribe((0..all.entries.len()).collect());
        all.queue.extend(row.extra_subscribe.iter().cloned().map(Queued::Extra));
        all
    }

    /// Whether something is to be sent.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next message, which is sent now.
    pub(super) fn next_message(&mut self, row: &Row, now: MonoNs, unix_s: u64) -> Option<String> {
        loop {
            match self.queue.pop_front()? {
                Queued::Extra(template) => {
                    let id = self.request_id();
                    return Some(with_request(&template, unix_s, id));
                }
                Queued::Subscribe(mut entries) => {
                    entries.retain(|entry| self.is(*entry, State::Waiting));
                    if entries.is_empty() {
                        continue;
                    }
                    let id = self.request_id();
                    let symbols: Vec<&str> =
                        entries.iter().filter_map(|e| self.entries.get(*e)).map(|e| &*e.symbol).collect();
                    let message = row.subscribe_message(&symbols, unix_s, id);
                    self.requests.push(Request { id, entries, silent_at: now.plus(SILENT_AFTER) });
                    return Some(message);
                }
            }
        }
    }

    /// A number no other request of this connection has.
    pub(super) fn request_id(&mut self) -> u64 {
        let id = self.next_request_id;
        self.next_request_id += 1;
        id
    }

    /// A trade came: whether it is the listing's first one here. `None` when the listing is not
    /// subscribed here.
    #[inline]
    pub(super) fn traded(&mut self, listing: ListingId) -> Option<bool> {
        let entry = usize::from(*self.entry_of.get(listing.index())?);
        let entry = self.entries.get_mut(entry)?;
        Some(std::mem::replace(&mut entry.state, State::Live) != State::Live)
    }

    /// A subscribe was accepted.
    pub(super) fn accepted(&mut self, request: Option<u64>, named: &[ListingId], news: &mut Vec<News>) {
        let entries = if !named.is_empty() {
            named.iter().filter_map(|listing| self.entry(*listing)).collect()
        } else if self.acks_name {
            // It names symbols, but none of ours: it says nothing of the rest of the request.
            return;
        } else {
            self.take_request(request, |_| true).map(|request| request.entries).unwrap_or_default()
        };
        for index in entries {
            if let Some(entry) = self.entries.get_mut(index)
                && entry.state == State::Waiting
            {
                entry.state = State::Acked;
                news.push(News::Acked(entry.listing));
            }
        }
        self.drop_answered();
    }

    /// A request was refused: the symbols it names are marked, a request that names none is sent
    /// again in halves until the bad symbol is alone.
    pub(super) fn refused(&mut self, request: Option<u64>, named: &[ListingId], news: &mut Vec<News>) {
        let before = news.len();
        for listing in named {
            if let Some(entry) = self.entry(*listing) {
                self.refuse(entry, news);
            }
        }
        if self.answers_each && !named.is_empty() {
            self.drop_answered();
        } else if news.len() > before {
            // The symbols beside the bad one went with it.
            if let Some(rest) = self.take_request(request, |entry| named.contains(&entry.listing)) {
                self.queue.push_back(Queued::Subscribe(rest.entries));
            }
        } else {
            // What is live or acked was not refused.
            let waits = |entry: &Entry| entry.state == State::Waiting;
            if let Some(refused) = self.take_request(request, waits) {
                self.halve(refused.entries, news);
            }
        }
    }

    fn halve(&mut self, mut entries: Vec<usize>, news: &mut Vec<News>) {
        entries.retain(|entry| self.is(*entry, State::Waiting));
        match entries[..] {
            [] => {}
            [alone] => self.refuse(alone, news),
            _ => {
                let second = entries.split_off(entries.len().div_ceil(2));
                self.queue.push_back(Queued::Subscribe(entries));
                self.queue.push_back(Queued::Subscribe(second));
            }
        }
    }

    /// Queues those again that have been silent for long enough.
    pub(super) fn repeat_silent(&mut self, now: MonoNs) {
        let mut silent = Vec::new();
        self.requests.retain(|request| {
            if request.silent_at > now {
                return true;
            }
            silent.extend_from_slice(&request.entries);
            false
        });
        silent.retain(|index| match self.entries.get_mut(*index) {
            Some(entry) => entry.state == State::Waiting && !std::mem::replace(&mut entry.repeated, true),
            None => false,
        });
        self.queue_subscribe(silent);
    }

    /// When [`repeat_silent`](Self::repeat_silent) is next due.
    pub(super) fn silent_at(&self) -> MonoNs {
        self.requests.iter().map(|request| request.silent_at).min().unwrap_or(MonoNs::NEVER)
    }

    /// Listings subscribed here, and how many of them are live.
    pub(super) fn count(&self) -> (usize, usize) {
        let live = self.entries.iter().filter(|entry| entry.state == State::Live).count();
        (self.entries.len(), live)
    }

    fn queue_subscribe(&mut self, entries: Vec<usize>) {
        self.queue
            .extend(entries.chunks(self.max_per_msg).map(|entries| Queued::Subscribe(entries.to_vec())));
    }

    /// The request an answer belongs to: by number where the exchange returns it, else the oldest
    /// with such an entry, since answers come in order.
    fn take_request(&mut self, id: Option<u64>, has: impl Fn(&Entry) -> bool) -> Option<Request> {
        let at = match id {
            Some(id) => self.requests.iter().position(|request| request.id == id)?,
            None if self.numbered => return None,
            None => self.requests.iter().position(|request| {
                request.entries.iter().any(|index| self.entries.get(*index).is_some_and(&has))
            })?,
        };
        Some(self.requests.remove(at))
    }

    /// Forgets requests of whose listings each was heard.
    fn drop_answered(&mut self) {
        let entries = &self.entries;
        let waits = |index: &usize| entries.get(*index).is_some_and(|e| e.state == State::Waiting);
        self.requests.retain(|request| request.entries.iter().any(waits));
    }

    fn refuse(&mut self, index: usize, news: &mut Vec<News>) {
        if let Some(entry) = self.entries.get_mut(index)
            && matches!(entry.state, State::Waiting | State::Acked)
        {
            entry.state = State::Refused;
            news.push(News::Refused(entry.listing));
        }
    }

    fn entry(&self, listing: ListingId) -> Option<usize> {
        self.entry_of.get(listing.index()).map(|e| usize::from(*e)).filter(|e| *e < self.entries.len())
    }

    fn is(&self, index: usize, state: State) -> bool {
        self.entries.get(index).is_some_and(|entry| entry.state == state)
    }
}
