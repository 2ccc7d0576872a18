//! UDP clients: each asks once, from a port of his own, and knows what he may be told.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Keys;
use super::prices::{Chosen, EXCHANGES, Model, Row, symbols};
use crate::engine::simulated::{Log, Random};
use crate::price::{ExchangeId, ListingId, Symbol};
use crate::time::{MonoNs, Now};
use crate::wire::{ErrorCode, v2};

/// What a client wants.
#[derive(Clone, Debug)]
enum Ask {
    /// A price by v1.
    V1 { asset: String, source: Option<usize> },
    /// Several prices by v1.
    Several { assets: Vec<String> },
    /// A price by v2.
    V2 { asset: String, source: Option<usize>, id: u64 },
    /// Something that proves nothing: refused so, or not at all.
    Stranger { code: ErrorCode },
    /// A v2 request of a known key that is too old: refused so, or not at all.
    Old { id: u64 },
    /// An answer. Never answered.
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    OnItsWay,
    Dropped,
    Taken(Now),
    /// Its buffer is back; it waits, or it gets nothing.
    Waits(Now),
    Answered,
    Delivered,
    Lost,
}

struct Request {
    bytes: Vec<u8>,
    ask: Ask,
    /// As v1 carries it.
    id: Option<String>,
    truncated: bool,
    answer: Vec<u8>,
    state: State,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, ask, id, truncated, state, .. } = self;
        let cut = if *truncated { ", cut off" } else { "" };
        write!(f, "{ask:?} of {} bytes{cut} with id {id:?} in state {state:?}", bytes.len())
    }
}

/// What a judge needs to know beside the request.
pub(super) struct Circumstances<'a> {
    pub(super) model: &'a Model,
    pub(super) denied: &'a [ListingId],
    pub(super) leaving: bool,
    pub(super) rest_deadline_ns: u64,
    /// The time of what the shard has just been told.
    pub(super) told_at: MonoNs,
}

/// All UDP clients of one shard.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    requests: HashMap<SocketAddr, Request>,
    /// Those that wait, or get nothing.
    waiting: Vec<SocketAddr>,
    next: u16,
    /// How many were taken, lost, dropped, and got nothing.
    pub(super) taken: u64,
    pub(super) lost: u64,
    pub(super) dropped: u64,
    pub(super) delivered: u64,
    /// How many were answered after they had waited.
    pub(super) waited: u64,
}

impl Datagrams {
    /// A new client's datagram.
    pub(super) fn ask(&mut self, random: &mut Random, keys: &Keys, now: Now) -> (SocketAddr, Vec<u8>) {
        self.next += 1;
        let number = u64::from(self.next);
        let id = match random.below(4) {
            0 => None,
            1 => Some(format!("\"c{number}\"")),
            _ => Some(format!("{}", 70_000 + number)),
        };
        let member = id.as_ref().map_or(String::new(), |id| format!(",\"id\":{id}"));
        let asset = (*random.pick(&symbols())).to_owned();
        let asset = if random.chance(50) { "NOPE".to_owned() } else { asset };
        let source = random.chance(300).then(|| random.below(EXCHANGES.len()));
        let named = source.map_or(String::new(), |s| format!(",\"source\":\"{}\"", EXCHANGES[s].1));
        let (key, stranger) = (&keys.text, &keys.stranger);
        let mut address = IpAddr::from([10, 0, u8::try_from(random.below(3)).unwrap(), 7]);
        let v2_request = |asset: &str, time_ms: u64, key: &v2::Key| {
            let exchange = source.map(|s| ExchangeId::new(EXCHANGES[s].0).unwrap());
            let symbol = Symbol::parse(asset).unwrap();
            let request = v2::Request { key_id: keys.id, time_ms, request_id: number, exchange, symbol };
            let mut bytes = vec![0; 96];
            let len = v2::write_request(&mut bytes, &request, key).unwrap();
            bytes.truncate(len);
            bytes
        };
        let unauthorized = Ask::Stranger { code: ErrorCode::Unauthorized };
        let bad = Ask::Stranger { code: ErrorCode::BadRequest };
        let (bytes, ask, id) = match random.below(100) {
            0..40 => {
                let text = format!(r#"{{"api_key":"{key}","asset":"{asset}"{member}{named}}}"#);
                (text.into_bytes(), Ask::V1 { asset, source }, id)
            }
            40..75 => {
                let bytes = v2_request(&asset, now.unix.ms(), &keys.v2_request);
                (bytes, Ask::V2 { asset, source, id: number }, None)
            }
            75..82 => {
                let assets: Vec<String> = symbols().iter().map(|s| (*s).to_owned()).collect();
                let from = random.below(assets.len() - 2);
                let mut assets = assets[from..from + 3].to_vec();
                assets.push("NOPE".into());
                let list = assets.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(",");
                let pad = "x".repeat(200);
                let text = format!(r#"{{"assets":[{list}]{member},"api_key":"{key}","pad":"{pad}"}}"#);
                (text.into_bytes(), Ask::Several { assets }, id)
            }
            82..85 => {
                let text = format!(r#"{{"api_key":"{stranger}","asset":"{asset}"{member}}}"#);
                (text.into_bytes(), unauthorized, id)
            }
            85..88 => {
                address = IpAddr::from([203, 0, 113, 9]);
                let text = format!(r#"{{"api_key":"{key}","asset":"{asset}"{member}}}"#);
                (text.into_bytes(), unauthorized, id)
            }
            88..91 => {
                (v2_request(&asset, now.unix.ms(), &v2::Key([9; 16])), unauthorized, Some(number.to_string()))
            }
            91..94 => {
                (v2_request(&asset, now.unix.ms() - 60_000, &keys.v2_request), Ask::Old { id: number }, None)
            }
            94..97 => (b"{\"asset\":                                 }".to_vec(), bad, None),
            97..99 => {
                let mut bytes = v2_request(&asset, now.unix.ms(), &keys.v2_request);
                bytes.truncate(random.between(30, 80));
                let whole = bytes.get(24..32).is_some();
                (bytes, bad, Some(if whole { number } else { 0 }.to_string()))
            }
            _ => (br#"{"asset":"BTC","price":"1","id":7}"#.to_vec(), Ask::Answer, None),
        };
        let peer = SocketAddr::new(address, 1_024 + self.next);
        let state = State::OnItsWay;
        let request = Request { bytes: bytes.clone(), ask, id, truncated: false, answer: Vec::new(), state };
        self.requests.insert(peer, request);
        (peer, bytes)
    }

    /// Takes in what happened and judges it.
    pub(super) fn note(&mut self, log: &Log, keys: &Keys, c: &Circumstances<'_>) -> Result<(), String> {
        let peer = match log {
            Log::Harvested { peer, .. } | Log::Answered { peer, .. } => peer,
            Log::Dropped(peer) | Log::Released(peer) | Log::Delivered(peer, _) | Log::Lost(peer) => peer,
        };
        let request =
            self.requests.get_mut(peer).ok_or_else(|| format!("{peer} has never asked: {log:?}"))?;
        request.state = match (request.state, log) {
            (State::OnItsWay, Log::Harvested { now, truncated, .. }) => {
                self.taken += 1;
                request.truncated = *truncated;
                State::Taken(*now)
            }
            (State::OnItsWay, Log::Dropped(_)) => {
                self.dropped += 1;
                State::Dropped
            }
            (State::Taken(since), Log::Released(_)) => {
                request.may_be_released(since, c).map_err(|e| format!("{peer}: {e} for {request:?}"))?;
                self.waiting.push(*peer);
                State::Waits(since)
            }
            (State::Taken(since), Log::Answered { bytes, now, late: false, .. })
            | (State::Waits(since), Log::Answered { bytes, now, late: true, .. }) => {
                request.judge(since, *now, bytes, keys, c).map_err(|e| {
                    format!("{peer} got {:?}: {e} for {request:?}", String::from_utf8_lossy(bytes))
                })?;
                self.waited += u64::from(matches!(log, Log::Answered { late: true, .. }));
                self.waiting.retain(|p| p != peer);
                request.answer.clone_from(bytes);
                State::Answered
            }
            (State::Answered, Log::Delivered(_, bytes)) if *bytes == request.answer => {
                self.delivered += 1;
                State::Delivered
            }
            (State::Answered, Log::Lost(_)) => {
                self.lost += 1;
                State::Lost
            }
            (state, _) => return Err(format!("{peer}: {log:?} does not follow {state:?}: {request:?}")),
        };
        Ok(())
    }

    /// Nobody waits longer than he may, nor for what is there.
    pub(super) fn check_waiting(&self, now: Now, c: &Circumstances<'_>) -> Result<(), String> {
        for peer in &self.waiting {
            let request = &self.requests[peer];
            let State::Waits(since) = request.state else { continue };
            let Some((asset, source)) = request.waits_for() else { continue };
            let waited = now.mono.since(since.mono);
            if waited.as_nanos() > u128::from(c.rest_deadline_ns) + 60_000_000 {
                return Err(format!("{peer} waits for {waited:?}: {request:?}"));
            }
            let news = |row: &Row| row.symbol == asset && row.news_last == c.told_at;
            let fresh = matches!(c.model.choose(asset, source, now.mono), Chosen::Fresh(_));
            if fresh && c.model.rows.iter().any(news) && !matches!(request.ask, Ask::Several { .. }) {
                return Err(format!("{peer} still waits for what has come: {request:?}"));
            }
        }
        Ok(())
    }

    /// Everything has come to an end. What never reached a shard that has left does not count, nor do
    /// the failures it never heard of.
    pub(super) fn check_end(&self, left_early: bool, failing: &[SocketAddr]) -> Result<(), String> {
        for (peer, request) in &self.requests {
            let ended = match request.state {
                State::Delivered | State::Lost | State::Dropped => true,
                State::OnItsWay => left_early,
                State::Waits(_) => request.waits_for().is_none(),
                State::Answered => left_early && failing.contains(peer),
                State::Taken(_) => false,
            };
            if !ended {
                return Err(format!("{peer} is left without an end: {request:?}"));
            }
        }
        Ok(())
    }
}

impl Request {
    /// What it may wait for; `None` when it cannot be waiting.
    fn waits_for(&self) -> Option<(&str, Option<usize>)> {
        match &self.ask {
            Ask::V1 { asset, source } | Ask::V2 { asset, source, .. } if !self.truncated => {
                Some((asset, *source))
            }
            Ask::Several { assets } if !self.truncated => Some((&assets[0], None)),
            _ => None,
        }
    }

    fn may_be_released(&self, now: Now, c: &Circumstances<'_>) -> Result<(), String> {
        let Some((asset, source)) = self.waits_for() else { return Ok(()) };
        let several = matches!(self.ask, Ask::Several { .. });
        match c.model.choose(asset, source, now.mono) {
            Chosen::Stale(_) => Ok(()),
            _ if several => Ok(()),
            chosen => Err(format!("no answer although {chosen:?}")),
        }
    }

    /// Whether `bytes` is what this client should get at `now`.
    fn judge(
        &self,
        since: Now,
        now: Now,
        bytes: &[u8],
        keys: &Keys,
        c: &Circumstances<'_>,
    ) -> Result<(), String> {
        if self.truncated {
            return Err("what is too long is not answered".into());
        }
        match &self.ask {
            Ask::Answer => Err("an answer is answered".into()),
            Ask::Stranger { code } => self.judge_refusal(bytes, *code, keys, self.id.as_deref()),
            Ask::Old { id } => match v2::Reply::parse(bytes, &keys.v2_answer) {
                Ok(v2::Reply::Refused(r)) if r.code == ErrorCode::Expired && r.request_id == *id => Ok(()),
                other => Err(format!("should be expired: {other:?}")),
            },
            Ask::V1 { asset, source } => {
                let id = self.id.as_ref().map_or(String::new(), |id| format!(",\"id\":{id}"));
                let expected = match c.model.choose(asset, *source, now.mono) {
                    Chosen::Fresh(listing) => format!("{}{id}}}", c.model.object(listing)),
                    Chosen::Unknown => format!(r#"{{"error":"unknown_asset"{id}}}"#),
                    Chosen::Stale(listing) => {
                        c.may_be_stale(listing, since.mono, now.mono)?;
                        format!(r#"{{"error":"stale"{id}}}"#)
                    }
                };
                if bytes == expected.as_bytes() { Ok(()) } else { Err(format!("should be {expected}")) }
            }
            Ask::Several { assets } => {
                let item = |asset: &String| match c.model.choose(asset, None, now.mono) {
                    Chosen::Fresh(listing) => format!("{}}}", c.model.object(listing)),
                    Chosen::Unknown => format!(r#"{{"asset":"{asset}","error":"unknown_asset"}}"#),
                    Chosen::Stale(_) => format!(r#"{{"asset":"{asset}","error":"stale"}}"#),
                };
                let items: Vec<String> = assets.iter().map(item).collect();
                let id = self.id.as_ref().map_or(String::new(), |id| format!(",\"id\":{id}"));
                let expected = format!(r#"{{"prices":[{}]{id}}}"#, items.join(","));
                if bytes == expected.as_bytes() { Ok(()) } else { Err(format!("should be {expected}")) }
            }
            Ask::V2 { asset, source, id } => {
                let reply = v2::Reply::parse(bytes, &keys.v2_answer).map_err(|e| e.to_string())?;
                if reply.request_id() != *id {
                    return Err("somebody else's answer".into());
                }
                match (c.model.choose(asset, *source, now.mono), reply) {
                    (Chosen::Fresh(listing), v2::Reply::Answer(answer)) => {
                        let row = &c.model.rows[listing.index()];
                        let quote = row.held.unwrap();
                        let same = answer.price.identical(quote.price)
                            && answer.symbol.as_str() == row.symbol
                            && answer.currency.as_str() == row.currency
                            && answer.exchange.index() == EXCHANGES[row.exchange].0
                            && answer.tier == quote.tier
                            && answer.exchange_time_ns == quote.key.time.0;
                        if same { Ok(()) } else { Err(format!("{answer:?} should be {row:?}")) }
                    }
                    (Chosen::Unknown, v2::Reply::Refused(r)) if r.code == ErrorCode::UnknownAsset => Ok(()),
                    (Chosen::Stale(listing), v2::Reply::Refused(r)) if r.code == ErrorCode::Stale => {
                        c.may_be_stale(listing, since.mono, now.mono)
                    }
                    (chosen, reply) => Err(format!("{reply:?} although {chosen:?}")),
                }
            }
        }
    }

    fn judge_refusal(
        &self,
        bytes: &[u8],
        code: ErrorCode,
        keys: &Keys,
        id: Option<&str>,
    ) -> Result<(), String> {
        if bytes.len() > self.bytes.len() {
            return Err("a stranger gets more than he sent".into());
        }
        if v2::looks_like(&self.bytes) {
            return match v2::Reply::parse(bytes, &keys.v2_answer) {
                Ok(v2::Reply::RefusedUnsigned(r)) if r.code == code => {
                    let same = id.is_none_or(|id| id == r.request_id.to_string());
                    if same { Ok(()) } else { Err(format!("{r:?} should carry {id:?}")) }
                }
                other => Err(format!("{other:?} should be {code:?}")),
            };
        }
        let id = id.map_or(String::new(), |id| format!(",\"id\":{id}"));
        let expected = format!(r#"{{"error":"{}"{id}}}"#, code.as_str());
        if bytes == expected.as_bytes() { Ok(()) } else { Err(format!("should be {expected}")) }
    }
}

impl Circumstances<'_> {
    /// Whether a request that came at `since` may be told at `now` that a listing is stale: nobody
    /// could be asked, REST could not say, it has waited long enough, or the shard leaves.
    pub(super) fn may_be_stale(&self, listing: ListingId, since: MonoNs, now: MonoNs) -> Result<(), String> {
        // A failure is remembered for a second.
        let failed = self.model.rows[listing.index()].failed_last.0 + 1_001_000_000 >= since.0;
        let waited = now.0.saturating_sub(since.0) >= self.rest_deadline_ns;
        if failed || waited || self.leaving || self.denied.contains(&listing) {
            return Ok(());
        }
        Err(format!("told to be stale after {:?} without a reason", now.since(since)))
    }
}
