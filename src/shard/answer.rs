//! From a request's bytes to an answer's bytes: what a shard knows and how it decides. No socket is
//! in sight; UDP v1, UDP v2 and HTTP meet here.
//!
//! ```text
//!   bytes ─► parse ─► key or tag ─► rate ─► asset ─► board, by rule ─► month ─► record ─► answer bytes
//!              │          │          │        │            │ stale       │         │ no room
//!              └──────────┴──────────┴────────┴── refuse ◄─┴─► wait      └─ refuse └─► overloaded
//! ```
//!
//! Every request with a valid key counts against the key's rate, once, whatever comes of it; only one
//! that is answered counts against its month. A month that is used up is refused where the rate is.
//!
//! Every request ends in exactly one counter. One that waits is asked again with
//! [`Attempt::Again`] when a price comes and with [`Attempt::Last`] at its deadline; it was counted
//! as received the first time.

use std::sync::Arc;

use super::counters::{Counter, Counters};
use super::links::{Drained, Inbox};
use super::ready::Ready;
use super::stopwatch::Stopwatch;
use crate::account::{Allowances, KeyIndex, KeyTable, Limited, Limiter, Recognizer, ReplyBudget};
use crate::ledger::{Record, RecordId, RequestId, Segment, Transport};
use crate::price::{Board, Catalogue, ExchangeId, ListingId, Selection, Symbol};
use crate::time::{MonoNs, Now};
use crate::wire::ErrorCode;

mod http;

mod udp;

pub use http::HttpVerdict;

/// Which look at a request this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It has just come.
    First,
    /// It has waited and something has changed.
    Again,
    /// It has waited as long as it may.
    Last,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first so many bytes of the room are the answer.
    Send(usize),
    /// It gets no answer.
    Silent,
    /// It waits for news of this listing.
    Wait(ListingId),
}

/// Whom to ask for a price that no feed has.
pub trait AskRest {
    /// Asks for a listing's price by REST; `false` when nobody can be asked just now. Unless it must
    /// be `exact`ly this listing, another one of the asset may answer in its place.
    fn ask(&mut self, listing: ListingId, exact: bool) -> bool;
}

/// Asks nobody: what is stale is refused at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRest;

impl AskRest for NoRest {
    fn ask(&mut self, _: ListingId, _: bool) -> bool {
        false
    }
}

/// Everything a shard needs to answer, owned by it.
pub struct Answerer {
    catalogue: Arc<Catalogue>,
    /// What it counts.
    pub counters: Counters,
    board: Board<Ready>,
    keys: Box<KeyTable>,
    recognizer: Recognizer,
    limiter: Limiter,
    segment: Segment,
    stopwatch: Stopwatch,
    budget: ReplyBudget,
    rest: Box<dyn AskRest + Send>,
    /// Where each listing stands with REST.
    asked: Vec<Asked>,
    /// Room for the body of a multi-asset HTTP answer.
    scratch: Box<[u8]>,
    /// Bodies that change only with the catalogue.
    assets_body: Box<[u8]>,
    exchanges_body: Box<[u8]>,
}

/// Random secrets of one shard.
#[derive(Clone, Copy)]
pub struct ShardSecrets {
    /// Keys the cache of recognised tokens.
    pub recognizer: [u8; 16],
    /// Keys the table of sources that have proved nothing.
    pub budget: [u8; 16],
}

/// How long an asked listing is not asked about again when no answer comes.
const ASK_AGAIN_NS: u64 = 2_000_000_000;

/// How long a listing that REST had no price for is not asked about again: a broken exchange must
/// not be asked by every request.
const FAILED_NS: u64 = 1_000_000_000;

/// Where a listing stands with REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Nothing is under way.
    No,
    /// It was asked about; an answer may come until then.
    Until(MonoNs),
    /// REST had no price; not asked again until then.
    Failed(MonoNs),
}

/// Names of an asset together with what the board says.
enum Found<'a> {
    Fresh(Fresh<'a>),
    Stale(ListingId),
    Unknown,
}

struct Fresh<'a> {
    ready: &'a Ready,
    asset: u16,
    exchange: u8,
}

impl Answerer {
    /// An answerer with an empty board.
    #[must_use]
    pub fn new(
        catalogue: Arc<Catalogue>,
        keys: Box<KeyTable>,
        segment: Segment,
        secrets: ShardSecrets,
        rest: Box<dyn AskRest + Send>,
    ) -> Self {
        Self {
            board: Board::new(&catalogue),
            counters: Counters::default(),
            recognizer: Recognizer::new(secrets.recognizer, &keys),
            limiter: Limiter::new(Arc::new(Allowances::new(0)), 1, &keys),
            keys,
            segment,
            stopwatch: Stopwatch::default(),
            budget: ReplyBudget::new(secrets.budget),
            rest,
            asked: vec![Asked::No; catalogue.listings().len()],
            scratch: vec![0; http::BODY_LEN_MAX].into(),
            assets_body: http::assets_body(&catalogue).into(),
            exchanges_body: http::exchanges_body(&catalogue).into(),
            catalogue,
        }
    }

    /// Takes in what the links hold. `settled` hears of each listing that has news.
    pub fn drain(&mut self, inbox: &Inbox, now: MonoNs, mut settled: impl FnMut(ListingId, bool)) {
        let asked = &mut self.asked;
        let Drained { applied, older, .. } = inbox.drain(&mut self.board, |listing, found| {
            let failed = Asked::Failed(MonoNs(now.0.saturating_add(FAILED_NS)));
            asked[listing.index()] = if found { Asked::No } else { failed };
            settled(listing, found);
        });
        self.counters.add(Counter::UpdateApplied, applied);
        self.counters.add(Counter::UpdateOlder, older);
    }

    /// Tells how many shards answer beside and with this one: together they send strangers no more
    /// than the contract allows.
    pub fn share_replies(&mut self, shards: usize) {
        self.budget.share(shards);
    }

    /// Shares the allowances of limited keys with other shards; `shards` is how many share them, this
    /// one with them. Before it is called they are the shard's own.
    pub fn share_limits(&mut self, allowances: Arc<Allowances>, shards: usize) {
        self.limiter = Limiter::new(allowances, shards, &self.keys);
    }

    /// Gives it a clock to tell latencies by; without one all of them are 0.
    pub fn set_clock(&mut self, clock: fn() -> MonoNs) {
        self.stopwatch.set_clock(clock);
    }

    /// The request that is looked at again next was received then.
    pub(super) fn waited_since(&mut self, received: MonoNs) {
        self.stopwatch.received(Some(received));
    }

    /// Takes a new table of keys; returns the old one, to be dropped elsewhere.
    pub fn replace_keys(&mut self, keys: Box<KeyTable>) -> Box<KeyTable> {
        self.recognizer.table_replaced(&self.keys, &keys);
        self.limiter.table_replaced(&keys);
        std::mem::replace(&mut self.keys, keys)
    }

    /// The board, for those who watch freshness.
    #[must_use]
    pub fn board(&self) -> &Board<Ready> {
        &self.board
    }

    /// The board, for those who fill it without links: tests and benches.
    pub fn board_mut(&mut self) -> &mut Board<Ready> {
        &mut self.board
    }

    /// The shard's records.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// What the catalogue lists.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    #[inline]
    fn find(&self, asset: Option<Symbol>, source: Option<ExchangeId>, now: Now) -> Found<'_> {
        let Some(position) = asset.and_then(|symbol| self.board.find(symbol)) else { return Found::Unknown };
        match self.board.select(position, source, now.mono) {
            Selection::Fresh { listing, ready, .. } => Found::Fresh(Fresh {
                ready,
                asset: self.board.asset(position).index() as u16,
                exchange: self.catalogue.listing(listing).exchange.index() as u8,
            }),
            Selection::Stale { listing } => Found::Stale(listing),
            Selection::NotListed => Found::Unknown,
        }
    }

    /// The exchange a client named; `Err` when there is none of that name.
    #[inline]
    fn source(&self, name: Option<&[u8]>) -> Result<Option<ExchangeId>, ErrorCode> {
        let Some(name) = name else { return Ok(None) };
        let found = std::str::from_utf8(name).ok().and_then(|name| self.catalogue.exchange_named(name));
        found.map(|exchange| Some(exchange.id)).ok_or(ErrorCode::UnknownAsset)
    }

    /// Asks REST about a stale listing, unless it was just asked. `true` when an answer may come.
    fn ask(&mut self, listing: ListingId, exact: bool, now: Now) -> bool {
        let asked = &mut self.asked[listing.index()];
        match *asked {
            Asked::Until(until) if now.mono < until => return true,
            Asked::Failed(until) if now.mono < until => return false,
            Asked::No | Asked::Until(_) | Asked::Failed(_) => {}
        }
        if !self.rest.ask(listing, exact) {
            return false;
        }
        *asked = Asked::Until(MonoNs(now.mono.0.saturating_add(ASK_AGAIN_NS)));
        true
    }

    /// How many assets have a fresh price.
    #[must_use]
    pub fn fresh_count(&self, now: MonoNs) -> usize {
        let fresh =
            |position: &usize| matches!(self.board.select(*position, None, now), Selection::Fresh { .. });
        (0..self.catalogue.assets().len()).filter(fresh).count()
    }

    /// Charges and writes down an answer. When that fails it must not be sent.
    #[inline]
    fn record(&mut self, now: Now, entry: Entry<'_>) -> Result<RecordId, Denied> {
        self.limiter.charge(&self.keys, entry.caller.index, now)?;
        let appended = self.append(now, &entry, 0);
        if appended.is_none() {
            self.counters.add(Counter::RecordRefused, 1);
            self.limiter.discharge(&self.keys, entry.caller.index);
        }
        appended.ok_or(Denied::NO_ROOM)
    }

    /// Writes down that somebody with a valid key was refused, where there is room: a refusal costs
    /// him nothing, so it is not held back for want of it.
    #[cold]
    fn record_refusal(&mut self, now: Now, caller: Caller, transport: Transport, id: &[u8], code: ErrorCode) {
        let entry = Entry { caller, asset: 0, assets: 0, exchange: 0, transport, id };
        let _no_room = self.append(now, &entry, code.number());
    }

    #[inline]
    fn append(&mut self, now: Now, entry: &Entry<'_>, status: u8) -> Option<RecordId> {
        let record = Record {
            time: now.unix,
            latency_ns: self.stopwatch.latency_ns(now.mono),
            key: entry.caller.number,
            asset: entry.asset,
            assets: entry.assets,
            exchange: entry.exchange,
            transport: entry.transport,
            status,
            request: RequestId::new(entry.id),
        };
        let id = self.segment.append(record)?;
        self.counters.add(Counter::RecordAppended, 1);
        Some(id)
    }

    /// Counts a request against its key's rate, the first time it is looked at.
    #[inline]
    fn admit(&mut self, now: Now, caller: Caller, attempt: Attempt) -> Result<(), Denied> {
        if attempt != Attempt::First {
            return Ok(());
        }
        Ok(self.limiter.admit(&self.keys, caller.index, now)?)
    }
}

/// Whose valid key a request came with.
#[derive(Clone, Copy)]
struct Caller {
    /// The key's persistent number.
    number: u32,
    /// Where it stands in the table.
    index: KeyIndex,
}

/// Why somebody with a valid key gets no answer although there may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Denied {
    code: ErrorCode,
    /// When to come again; 0 says nothing.
    retry_after_ns: u64,
}

impl Denied {
    const NO_ROOM: Self = Self { code: ErrorCode::Overloaded, retry_after_ns: 0 };
}

impl From<Limited> for Denied {
    fn from(limited: Limited) -> Self {
        match limited {
            Limited::Rate(retry_after_ns) => Self { code: ErrorCode::RateLimited, retry_after_ns },
            Limited::Month(retry_after_ns) => Self { code: ErrorCode::MonthlyLimit, retry_after_ns },
            Limited::NoSlot => Self::NO_ROOM,
        }
    }
}

/// What is written down about an answer, as far as the request and the board tell it.
struct Entry<'a> {
    caller: Caller,
    asset: u16,
    assets: u16,
    exchange: u8,
    transport: Transport,
    id: &'a [u8],
}

#[cfg(test)]
pub(super) mod tests;
