//! Answers to datagrams, v1 and v2.

use std::net::IpAddr;

use super::{Answerer, Attempt, Caller, Denied, Entry, Found, Fresh, Verdict};
use crate::account::Unrecognized;
use crate::ledger::Transport;
use crate::limits::UDP_PAYLOAD_MAX;
use crate::price::Symbol;
use crate::shard::Counter;
use crate::time::Now;
use crate::wire::{ErrorCode, Reject, answer_len_max, v1, v2};

impl Answerer {
    /// Answers a datagram from `peer` into `room`, which holds at least
    /// [`UDP_PAYLOAD_MAX`] bytes. `truncated` says that the datagram was longer than what is here.
    #[inline]
    pub fn datagram(
        &mut self,
        now: Now,
        peer: IpAddr,
        request: &[u8],
        truncated: bool,
        room: &mut [u8],
        attempt: Attempt,
    ) -> Verdict {
        if attempt == Attempt::First {
            self.counters.add(Counter::UdpReceived, 1);
            self.stopwatch.received(None);
        }
        if truncated || request.len() > UDP_PAYLOAD_MAX {
            // In silence: it may be an answer, and what is too long to be read cannot be told apart.
            return self.refuse_silently(ErrorCode::BadRequest);
        }
        if v2::looks_like(request) {
            self.datagram_v2(now, peer, request, room, attempt)
        } else {
            self.datagram_v1(now, peer, request, room, attempt)
        }
    }

    fn datagram_v2(
        &mut self,
        now: Now,
        peer: IpAddr,
        request: &[u8],
        room: &mut [u8],
        attempt: Attempt,
    ) -> Verdict {
        let view = match v2::RequestView::parse(request) {
            Ok(view) => view,
            Err(reject) => return self.reject(now, peer, request, room, reject),
        };
        let known = self.keys.by_public_id(view.key_id());
        let known = known.and_then(|index| Some((index, self.keys.key(index)?)));
        let Some((index, key)) = known.filter(|(_, key)| now.unix < key.expires) else {
            return self.refuse_stranger(now, peer, request, room, ErrorCode::Unauthorized);
        };
        if !view.tag_valid(&v2::Key(key.v2_request.0)) {
            return self.refuse_stranger(now, peer, request, room, ErrorCode::Unauthorized);
        }
        let answer_key = v2::Key(key.v2_answer.0);
        let key = Caller { number: key.number, index };
        let caller = V2Caller { key, answer_key: &answer_key, request_id: view.request_id(), now };
        if attempt == Attempt::First && !v2::in_window(view.time_ms(), now.unix.ms()) {
            // A valid tag, but maybe an old one that somebody replays from a forged address.
            if !self.budget.take(peer, now.mono) {
                return self.refuse_silently(ErrorCode::Expired);
            }
            return self.refuse_v2(&caller, room, ErrorCode::Expired);
        }
        // After the window, so that old requests that somebody replays use up nobody's rate.
        if let Err(denied) = self.admit(now, key, attempt) {
            return self.deny_v2(&caller, room, denied);
        }
        let fresh = match self.find(view.symbol(), view.exchange(), now) {
            Found::Fresh(fresh) => fresh,
            Found::Unknown => return self.refuse_v2(&caller, room, ErrorCode::UnknownAsset),
            Found::Stale(listing) => {
                if attempt != Attempt::Last && self.ask(listing, view.exchange().is_some(), now) {
                    return Verdict::Wait(listing);
                }
                return self.refuse_v2(&caller, room, ErrorCode::Stale);
            }
        };
        let Fresh { asset, exchange, .. } = fresh;
        let template = fresh.ready.v2;
        let id = caller.request_id.to_le_bytes();
        let entry = Entry { caller: key, asset, assets: 1, exchange, transport: Transport::UdpV2, id: &id };
        let record = match self.record(now, entry) {
            Ok(record) => record,
            Err(denied) => return self.deny_v2(&caller, room, denied),
        };
        let record = v2::RecordId { epoch: record.epoch, shard: record.shard, sequence: record.sequence };
        match template.write(room, caller.request_id, record, caller.answer_key) {
            Some(len) => self.answered(len),
            None => self.refuse_silently(ErrorCode::BadRequest),
        }
    }

    fn datagram_v1(
        &mut self,
        now: Now,
        peer: IpAddr,
        request: &[u8],
        room: &mut [u8],
        attempt: Attempt,
    ) -> Verdict {
        let parsed = match v1::parse(request) {
            Ok(parsed) => parsed,
            Err(reject) => return self.reject(now, peer, request, room, reject),
        };
        let caller = match self.v1_caller(now, peer, parsed.token()) {
            Ok(caller) => caller,
            Err(Unrecognized::Unknown) => {
                let code = ErrorCode::Unauthorized;
                return self.refuse_stranger_v1(now, peer, request, room, code, parsed.id());
            }
            // Neither known nor unknown: nothing is sent, and whoever is genuine asks again.
            Err(Unrecognized::Busy) => return self.refuse_silently(ErrorCode::Overloaded),
        };
        let (id, len_max) = (parsed.id(), answer_len_max(request.len()));
        let caller = V1Caller { key: caller, id, len_max, now };
        if let Err(denied) = self.admit(now, caller.key, attempt) {
            return self.refuse_v1(&caller, room, denied.code);
        }
        let source = match self.source(parsed.source()) {
            Ok(source) => source,
            Err(code) => return self.refuse_v1(&caller, room, code),
        };
        let Some(name) = parsed.asset() else {
            return self.several_v1(&caller, &parsed, room, attempt);
        };
        let fresh = match self.find(Symbol::from_bytes(name), source, now) {
            Found::Fresh(fresh) => fresh,
            Found::Unknown => return self.refuse_v1(&caller, room, ErrorCode::UnknownAsset),
            Found::Stale(listing) => {
                if attempt != Attempt::Last && self.ask(listing, source.is_some(), now) {
                    return Verdict::Wait(listing);
                }
                return self.refuse_v1(&caller, room, ErrorCode::Stale);
            }
        };
        let Some(len) = v1::write_answer(room, len_max, fresh.ready.head(), id) else {
            // The request is too short for its answer: a longer "pad" cures it.
            return self.refuse_v1(&caller, room, ErrorCode::BadRequest);
        };
        let Fresh { asset, exchange, .. } = fresh;
        let entry = Entry { asset, assets: 1, exchange, ..caller.entry() };
        match self.record(now, entry) {
            Ok(_) => self.answered(len),
            Err(denied) => self.refuse_v1(&caller, room, denied.code),
        }
    }

    /// Whose key a v1 token belongs to, if it may be used now and from `peer`.
    #[inline]
    fn v1_caller(&mut self, now: Now, peer: IpAddr, token: &[u8]) -> Result<Caller, Unrecognized> {
        let index = self.recognizer.recognize(&self.keys, token, now.mono)?;
        let key = self.keys.key(index).filter(|key| now.unix < key.expires && key.v1_allowed_from(peer));
        key.map(|key| Caller { number: key.number, index }).ok_or(Unrecognized::Unknown)
    }

    fn several_v1(
        &mut self,
        caller: &V1Caller<'_>,
        request: &v1::Request<'_>,
        room: &mut [u8],
        attempt: Attempt,
    ) -> Verdict {
        let V1Caller { id, len_max, now, .. } = *caller;
        let source = match self.source(request.source()) {
            Ok(source) => source,
            Err(code) => return self.refuse_v1(caller, room, code),
        };
        let mut waits_for = None;
        for name in request.assets() {
            if let Found::Stale(listing) = self.find(Symbol::from_bytes(name), source, now)
                && attempt != Attempt::Last
                && self.ask(listing, source.is_some(), now)
            {
                waits_for = waits_for.or(Some(listing));
            }
        }
        if let Some(listing) = waits_for {
            return Verdict::Wait(listing);
        }
        let (mut first, mut priced) = ((0, 0), 0);
        let written =
            v1::PricesWriter::new(room, len_max, request.asset_count(), id).and_then(|mut writer| {
                for name in request.assets() {
                    let pushed = match self.find(Symbol::from_bytes(name), source, now) {
                        Found::Fresh(fresh) => {
                            let pushed = writer.push_head(fresh.ready.head());
                            if pushed && priced == 0 {
                                first = (fresh.asset, fresh.exchange);
                            }
                            priced += u16::from(pushed);
                            pushed
                        }
                        Found::Stale(_) => writer.push_error(name, ErrorCode::Stale),
                        Found::Unknown => writer.push_error(name, ErrorCode::UnknownAsset),
                    };
                    if !pushed {
                        break;
                    }
                }
                writer.finish()
            });
        let Some(len) = written else { return self.refuse_v1(caller, room, ErrorCode::BadRequest) };
        let (asset, exchange) = first;
        match self.record(now, Entry { asset, assets: priced, exchange, ..caller.entry() }) {
            Ok(_) => self.answered(len),
            Err(denied) => self.refuse_v1(caller, room, denied.code),
        }
    }

    /// Counts an answer of `len` bytes.
    #[inline]
    fn answered(&mut self, len: usize) -> Verdict {
        self.counters.add(Counter::UdpAnswered, 1);
        self.counters.add(Counter::AnswerBytes, len as u64);
        Verdict::Send(len)
    }

    fn reject(&mut self, now: Now, peer: IpAddr, request: &[u8], room: &mut [u8], reject: Reject) -> Verdict {
        match reject.code() {
            Some(code) => self.refuse_stranger(now, peer, request, room, code),
            None => {
                self.counters.add(Counter::UdpIsAnswer, 1);
                Verdict::Silent
            }
        }
    }

    /// Refuses somebody who has proved nothing, in the protocol he seems to speak.
    #[cold]
    fn refuse_stranger(
        &mut self,
        now: Now,
        peer: IpAddr,
        request: &[u8],
        room: &mut [u8],
        code: ErrorCode,
    ) -> Verdict {
        if !v2::looks_like(request) {
            return self.refuse_stranger_v1(now, peer, request, room, code, None);
        }
        let refusal = v2::Refusal {
            code,
            request_id: v2::request_id(request),
            server_time_ms: now.unix.ms(),
            retry_after_ms: 0,
        };
        if request.len() < v2::ERROR_LEN || !self.budget.take(peer, now.mono) {
            return self.refuse_silently(code);
        }
        let written = v2::write_error(room, request.len(), &refusal, None);
        self.refused(code, written)
    }

    #[cold]
    fn refuse_stranger_v1(
        &mut self,
        now: Now,
        peer: IpAddr,
        request: &[u8],
        room: &mut [u8],
        code: ErrorCode,
        id: Option<&[u8]>,
    ) -> Verdict {
        // Only what looks like JSON gets a reply: anything else may be somebody else's protocol.
        let json = request.trim_ascii_start().first() == Some(&b'{');
        let len_max = request.len().min(UDP_PAYLOAD_MAX);
        let written = if json { v1::write_error(room, len_max, code, id) } else { None };
        if written.is_none() || !self.budget.take(peer, now.mono) {
            return self.refuse_silently(code);
        }
        self.refused(code, written)
    }

    #[cold]
    fn refuse_v1(&mut self, caller: &V1Caller<'_>, room: &mut [u8], code: ErrorCode) -> Verdict {
        let V1Caller { key, id, len_max, now } = *caller;
        self.record_refusal(now, key, Transport::UdpV1, id.unwrap_or_default(), code);
        let written = v1::write_error(room, len_max, code, id);
        self.refused(code, written)
    }

    #[cold]
    fn refuse_v2(&mut self, caller: &V2Caller<'_>, room: &mut [u8], code: ErrorCode) -> Verdict {
        let retry_after_ns = if code == ErrorCode::Stale { 1_000_000_000 } else { 0 };
        self.deny_v2(caller, room, Denied { code, retry_after_ns })
    }

    #[cold]
    fn deny_v2(&mut self, caller: &V2Caller<'_>, room: &mut [u8], denied: Denied) -> Verdict {
        let code = denied.code;
        // Whoever replays an old request proves nothing, and its key's owner did not send it.
        if code != ErrorCode::Expired {
            let id = caller.request_id.to_le_bytes();
            self.record_refusal(caller.now, caller.key, Transport::UdpV2, &id, code);
        }
        let refusal = v2::Refusal {
            code,
            request_id: caller.request_id,
            server_time_ms: caller.now.unix.ms(),
            retry_after_ms: u32::try_from(denied.retry_after_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX),
        };
        let written = v2::write_error(room, v2::ERROR_LEN, &refusal, Some(caller.answer_key));
        self.refused(code, written)
    }

    fn refuse_silently(&mut self, code: ErrorCode) -> Verdict {
        self.refused(code, None)
    }

    fn refused(&mut self, code: ErrorCode, written: Option<usize>) -> Verdict {
        self.counters.add(counter(code), 1);
        match written {
            Some(len) => Verdict::Send(len),
            None => {
                self.counters.add(Counter::ReplySuppressed, 1);
                Verdict::Silent
            }
        }
    }

    /// Refuses a datagram that would have to wait when no more can: [`datagram`](Self::datagram) has
    /// just said [`Verdict::Wait`], so its key is valid.
    #[cold]
    pub fn no_room_to_wait(&mut self, now: Now, peer: IpAddr, request: &[u8], room: &mut [u8]) -> Verdict {
        let code = ErrorCode::Overloaded;
        if let Ok(view) = v2::RequestView::parse(request) {
            let known = self.keys.by_public_id(view.key_id());
            let Some((index, key)) = known.and_then(|index| Some((index, self.keys.key(index)?))) else {
                return self.refuse_silently(code);
            };
            let answer_key = v2::Key(key.v2_answer.0);
            let key = Caller { number: key.number, index };
            let caller = V2Caller { key, answer_key: &answer_key, request_id: view.request_id(), now };
            return self.refuse_v2(&caller, room, code);
        }
        let Ok(parsed) = v1::parse(request) else { return self.refuse_silently(code) };
        match self.v1_caller(now, peer, parsed.token()) {
            Ok(key) => {
                let (id, len_max) = (parsed.id(), answer_len_max(request.len()));
                self.refuse_v1(&V1Caller { key, id, len_max, now }, room, code)
            }
            Err(_) => self.refuse_silently(code),
        }
    }
}

/// Who asks in v1 with a valid key.
struct V1Caller<'a> {
    key: Caller,
    id: Option<&'a [u8]>,
    /// Longest answer he may get.
    len_max: usize,
    now: Now,
}

impl<'a> V1Caller<'a> {
    /// What is written down of him whatever the answer is.
    fn entry(&self) -> Entry<'a> {
        let id = self.id.unwrap_or_default();
        Entry { caller: self.key, asset: 0, assets: 0, exchange: 0, transport: Transport::UdpV1, id }
    }
}

/// Who asks in v2 with a valid tag.
struct V2Caller<'a> {
    key: Caller,
    answer_key: &'a v2::Key,
    request_id: u64,
    now: Now,
}

fn counter(code: ErrorCode) -> Counter {
    match code {
        ErrorCode::BadRequest => Counter::UdpBadRequest,
        ErrorCode::Unauthorized => Counter::UdpUnauthorized,
        ErrorCode::UnknownAsset => Counter::UdpUnknownAsset,
        ErrorCode::RateLimited => Counter::UdpRateLimited,
        ErrorCode::MonthlyLimit => Counter::UdpMonthlyLimit,
        ErrorCode::Stale => Counter::UdpStale,
        ErrorCode::Overloaded => Counter::UdpOverloaded,
        ErrorCode::Expired => Counter::UdpExpired,
    }
}
