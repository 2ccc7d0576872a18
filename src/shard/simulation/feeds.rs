//! Who tells prices: a guest on the first shard that plays a feed, and REST behind a publisher of its
//! own.

use std::sync::{Arc, Mutex};

use super::prices::{EXCHANGES, Model, Row, UNFED};
use crate::engine::Ended;
use crate::engine::simulated::Random;
use crate::price::{Confirmation, ListingId, Price, Quote, SessionId, Tier, TradeKey};
use crate::shard::{AskRest, Guest, Keep, Publisher};
use crate::time::{MonoNs, Now, UnixNs};

/// How long a feed connection counts as alive after it was heard.
const DEAD_AFTER_NS: u64 = 500_000_000;

/// How long REST confirms a price.
const REST_TTL_NS: u64 = 700_000_000;

/// What the feed and REST have said, together with what every shard should know in the end.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) random: Random,
    pub(super) truth: Model,
    connections: [u32; EXCHANGES.len()],
    trades: u64,
    /// Asked of REST: when the answer is due, by which shard, for what.
    pub(super) asked: Vec<(MonoNs, ListingId)>,
    /// Refused questions: by which shard, for what. Emptied by the test.
    pub(super) denied: Vec<(usize, ListingId)>,
    pub(super) rest_works: bool,
    now: Now,
}

pub(super) type Shared = Arc<Mutex<Script>>;

impl Script {
    pub(super) fn new(seed: u64) -> Shared {
        Arc::new(Mutex::new(Self {
            random: Random::new(seed),
            truth: Model::new(),
            connections: [1; EXCHANGES.len()],
            trades: 0,
            asked: Vec::new(),
            denied: Vec::new(),
            rest_works: true,
            now: Now::default(),
        }))
    }

    pub(super) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    fn quote_now(&mut self, tier: Tier) -> Quote {
        self.trades += 1;
        let digits = self.random.between(0, 6);
        let price = format!("{}.{:0digits$}", self.random.between(1, 99_999), self.trades);
        // Some trades are old ones: exchanges replay them.
        let back = if self.random.chance(200) { self.random.below(2_000_000_000) as u64 } else { 0 };
        Quote {
            price: Price::parse(price.as_bytes()).unwrap(),
            // No two trades are of one time: which of two publishers was heard first would decide.
            key: TradeKey { time: UnixNs(self.now.unix.0 + self.trades - back), number: self.trades },
            received: self.now.unix,
            tier,
        }
    }

    /// One thing that a feed may say.
    fn feed_says(&mut self, publisher: &mut Publisher) {
        let now = self.now.mono;
        let exchange = self.random.below(EXCHANGES.len());
        let session = SessionId::new(exchange).unwrap();
        let connection = self.connections[exchange];
        let listed = |row: &Row| row.exchange == exchange && row.symbol != UNFED;
        let rows: Vec<usize> = (0..self.truth.rows.len()).filter(|i| listed(&self.truth.rows[*i])).collect();
        let id = ListingId::new(*self.random.pick(&rows)).unwrap();
        let live = Confirmation::Live { session, connection };
        match self.random.below(100) {
            0..55 => {
                let quote = self.quote_now(Tier::Ws);
                self.truth.quote(id, quote, live, now);
                publisher.quote(id, quote, live);
            }
            55..70 => {
                self.truth.confirm(id, live, now);
                publisher.confirm(id, live);
            }
            70..97 => {
                let deadline = MonoNs(now.0 + DEAD_AFTER_NS);
                self.truth.heard(session, connection, deadline, now);
                publisher.heard(session, connection, deadline);
            }
            _ => {
                self.truth.heard(session, connection, MonoNs(0), now);
                publisher.heard(session, connection, MonoNs(0));
                self.connections[exchange] += 1;
            }
        }
    }

    /// REST answers what is due.
    pub(super) fn rest_says(&mut self, publisher: &mut Publisher) {
        let now = self.now.mono;
        for (due, id) in std::mem::take(&mut self.asked) {
            if due > now {
                self.asked.push((due, id));
                continue;
            }
            let until = Confirmation::Until(MonoNs(now.0 + REST_TTL_NS));
            match self.random.below(10) {
                0..2 => publisher.rest_failed(id),
                2..6 if self.truth.rows[id.index()].held.is_some() => {
                    let held = self.truth.rows[id.index()].held.unwrap();
                    self.truth.confirm(id, until, now);
                    if self.random.chance(500) {
                        publisher.confirm(id, until);
                    } else {
                        // The same trade as a shard may have heard of from the feed.
                        publisher.quote(id, Quote { tier: Tier::Rest, ..held }, until);
                    }
                }
                _ => {
                    let quote = self.quote_now(Tier::Rest);
                    self.truth.quote(id, quote, until, now);
                    publisher.quote(id, quote, until);
                }
            }
        }
    }
}

/// Plays a feed: every byte it gets is one thing to say.
pub(super) struct Feed(pub(super) Shared);

impl Guest for Feed {
    fn start(&mut self, _: Now, out: &mut Vec<u8>, _: &mut Publisher) -> Keep {
        out.extend_from_slice(b"hello");
        Keep::Open
    }

    fn receive(&mut self, _: Now, bytes: &[u8], out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep {
        for _ in bytes {
            self.0.lock().unwrap().feed_says(publisher);
        }
        out.extend_from_slice(bytes);
        Keep::Open
    }

    fn deadline(&self) -> MonoNs {
        MonoNs::NEVER
    }

    fn tick(&mut self, _: Now, _: &mut Vec<u8>, _: &mut Publisher) -> Keep {
        Keep::Open
    }

    fn ended(&mut self, _: Now, _: Ended, _: &mut Publisher) {}

    fn stop(&mut self, _: Now, out: &mut Vec<u8>, _: &mut Publisher) {
        out.extend_from_slice(b"bye");
    }
}

/// Takes a shard's questions: refuses some, never answers some, answers some after a while.
pub(super) struct Rest {
    pub(super) script: Shared,
    pub(super) shard: usize,
}

impl AskRest for Rest {
    fn ask(&mut self, listing: ListingId, exact: bool) -> bool {
        let script = &mut *self.script.lock().unwrap();
        if !script.rest_works || script.random.chance(150) {
            script.denied.push((self.shard, listing));
            return false;
        }
        if !script.random.chance(150) {
            let wait = script.random.below(1_200_000_000) as u64;
            let due = MonoNs(script.now.mono.0 + wait);
            let symbol = script.truth.rows[listing.index()].symbol;
            let stands_in = |row: &Row| row.symbol == symbol;
            let others: Vec<usize> =
                (0..script.truth.rows.len()).filter(|index| stands_in(&script.truth.rows[*index])).collect();
            let other = !exact && script.random.chance(200);
            let listing = if other { ListingId::new(*script.random.pick(&others)).unwrap() } else { listing };
            script.asked.push((due, listing));
        }
        true
    }
}
