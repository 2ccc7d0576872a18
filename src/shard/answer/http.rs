//! Answers to HTTP requests.

use super::{Answerer, Attempt, Caller, Denied, Entry, Found, Fresh};
use crate::account::{Standing, Unrecognized};
use crate::http::head::{Method, Reject, Request};
use crate::http::respond::{self, Extra, MonthLimit, RateLimit, Reply, Status};
use crate::ledger::Transport;
use crate::limits::{ASSETS_PER_REQUEST_MAX, V1_HEAD_LEN_MAX};
use crate::price::{Catalogue, ListingId, Symbol};
use crate::shard::Counter;
use crate::time::Now;
use crate::wire::{ErrorCode, v1};

/// Longest body of a multi-asset answer.
pub(super) const BODY_LEN_MAX: usize = ASSETS_PER_REQUEST_MAX * (V1_HEAD_LEN_MAX + 2) + 64;

/// Room for a decoded query parameter: the longest list of assets.
const PARAMETER_LEN_MAX: usize = 2_048;

/// What becomes of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVerdict {
    /// The answer was appended.
    Done,
    /// It waits for news of this listing; nothing was appended.
    Wait(ListingId),
}

/// The reason a request is refused, with its status.
struct Refusal {
    counter: Counter,
    status: Status,
    error: &'static str,
    /// Its number in records, where it has one.
    code: Option<ErrorCode>,
    message: &'static str,
    allow: Option<&'static str>,
    retry_after_s: Option<u64>,
    /// The key whose limits are told, and when.
    limited: Option<(Caller, Now)>,
    /// The whole body, for what is refused often.
    body: Option<&'static [u8]>,
}

impl Refusal {
    const fn new(counter: Counter, status: Status, error: &'static str, message: &'static str) -> Self {
        let (code, allow, retry_after_s, limited, body) = (None, None, None, None, None);
        Self { counter, status, error, code, message, allow, retry_after_s, limited, body }
    }

    const fn coded(counter: Counter, status: Status, code: ErrorCode, message: &'static str) -> Self {
        Self { code: Some(code), ..Self::new(counter, status, code.as_str(), message) }
    }

    const fn bad(message: &'static str) -> Self {
        Self::coded(Counter::HttpBadRequest, Status::BadRequest, ErrorCode::BadRequest, message)
    }
}

const UNAUTHORIZED: Refusal = Refusal::coded(
    Counter::HttpUnauthorized,
    Status::Unauthorized,
    ErrorCode::Unauthorized,
    "no valid key; send it as Authorization: Bearer KEY or X-API-Key: KEY",
);
const UNKNOWN_ASSET: Refusal = Refusal::coded(
    Counter::HttpUnknownAsset,
    Status::NotFound,
    ErrorCode::UnknownAsset,
    "no such asset, or that exchange does not list it; GET /assets names all",
);
const STALE: Refusal = Refusal {
    retry_after_s: Some(1),
    ..Refusal::coded(
        Counter::HttpStale,
        Status::ServiceUnavailable,
        ErrorCode::Stale,
        "no exchange has a fresh price of this asset just now",
    )
};
const OVERLOADED: Refusal = Refusal {
    retry_after_s: Some(1),
    ..Refusal::coded(
        Counter::HttpOverloaded,
        Status::ServiceUnavailable,
        ErrorCode::Overloaded,
        "the server cannot take the request just now",
    )
};
const RATE_LIMITED: Refusal = Refusal {
    body: Some(
        br#"{"error":"rate_limited","message":"over the rate of this key; wait as Retry-After says"}"#,
    ),
    ..Refusal::coded(Counter::HttpRateLimited, Status::TooManyRequests, ErrorCode::RateLimited, "")
};
const MONTHLY_LIMIT: Refusal = Refusal {
    body: Some(
        br#"{"error":"monthly_limit","message":"this key has used up its month, which ends at midnight UTC"}"#,
    ),
    ..Refusal::coded(Counter::HttpMonthlyLimit, Status::TooManyRequests, ErrorCode::MonthlyLimit, "")
};
const METHOD: Refusal = Refusal {
    allow: Some("GET, HEAD, OPTIONS"),
    ..Refusal::new(
        Counter::HttpMethod,
        Status::MethodNotAllowed,
        "method_not_allowed",
        "only GET, HEAD and OPTIONS are spoken here",
    )
};
const NOT_FOUND: Refusal = Refusal::new(
    Counter::HttpNotFound,
    Status::NotFound,
    "not_found",
    "no such path; there are /price, /prices, /assets and /exchanges",
);

impl Answerer {
    /// Appends the answer to a request whose head is whole.
    pub fn http(
        &mut self,
        now: Now,
        request: &Request<'_>,
        out: &mut Vec<u8>,
        attempt: Attempt,
    ) -> HttpVerdict {
        if attempt == Attempt::First {
            self.counters.add(Counter::HttpReceived, 1);
            self.stopwatch.received(None);
        }
        let reply = request.reply();
        let refusal = match request.method {
            Method::Options => {
                respond::preflight(out, reply);
                self.counters.add(Counter::HttpAnswered, 1);
                return HttpVerdict::Done;
            }
            Method::Other => METHOD,
            Method::Get | Method::Head => match request.path {
                b"/price" | b"/prices" => match self.keyed(now, request, out, attempt) {
                    Ok(verdict) => return verdict,
                    Err(refusal) => refusal,
                },
                b"/assets" => {
                    respond::ok(out, reply, None, &self.assets_body);
                    self.counters.add(Counter::HttpAnswered, 1);
                    return HttpVerdict::Done;
                }
                b"/exchanges" => {
                    respond::ok(out, reply, None, &self.exchanges_body);
                    self.counters.add(Counter::HttpAnswered, 1);
                    return HttpVerdict::Done;
                }
                _ => NOT_FOUND,
            },
        };
        self.refuse_http(reply, out, &refusal);
        HttpVerdict::Done
    }

    /// Appends the answer to a head that could not be parsed; the connection closes after it.
    pub fn http_reject(&mut self, reject: Reject, out: &mut Vec<u8>) {
        self.counters.add(Counter::HttpReceived, 1);
        let counter = if reject.is_too_large() { Counter::HttpTooLarge } else { Counter::HttpBadRequest };
        self.counters.add(counter, 1);
        respond::reject(out, reject);
    }

    /// Appends the refusal of a request that would have to wait when no more can.
    pub fn http_no_room(&mut self, now: Now, request: &Request<'_>, out: &mut Vec<u8>) {
        if let Ok(caller) = self.http_caller(now, request) {
            self.record_refusal(now, caller, Transport::Http, id(request), ErrorCode::Overloaded);
        }
        self.refuse_http(request.reply(), out, &OVERLOADED);
    }

    #[cold]
    fn refuse_http(&mut self, reply: Reply, out: &mut Vec<u8>, refusal: &Refusal) {
        self.counters.add(refusal.counter, 1);
        let Refusal { retry_after_s, limited, allow, .. } = *refusal;
        let rate_limit = limited.and_then(|(caller, now)| self.rate_limit(now, caller, 0));
        let extra = Extra { retry_after_s, rate_limit, allow };
        match refusal.body {
            Some(body) => respond::refusal(out, reply, refusal.status, body, extra),
            None => respond::error(out, reply, refusal.status, refusal.error, refusal.message, extra),
        }
    }

    /// Answers what needs a key. A refusal of a valid one is written down.
    fn keyed(
        &mut self,
        now: Now,
        request: &Request<'_>,
        out: &mut Vec<u8>,
        attempt: Attempt,
    ) -> Result<HttpVerdict, Refusal> {
        let caller = self.http_caller(now, request)?;
        let admitted = self.admit(now, caller, attempt).map_err(|denied| denied_http(now, caller, denied));
        let answered = admitted.and_then(|()| match request.path {
            b"/price" => self.price(now, caller, request, out, attempt),
            _ => self.prices(now, caller, request, out, attempt),
        });
        if let Err(refusal) = &answered
            && let Some(code) = refusal.code
        {
            self.record_refusal(now, caller, Transport::Http, id(request), code);
        }
        answered
    }

    /// Whose key a request came with.
    fn http_caller(&mut self, now: Now, request: &Request<'_>) -> Result<Caller, Refusal> {
        let token = request.token.ok_or(UNAUTHORIZED)?;
        let index = self.recognizer.recognize(&self.keys, token, now.mono).map_err(|why| match why {
            Unrecognized::Unknown => UNAUTHORIZED,
            Unrecognized::Busy => OVERLOADED,
        })?;
        let key = self.keys.key(index).filter(|key| now.unix < key.expires).ok_or(UNAUTHORIZED)?;
        Ok(Caller { number: key.number, index })
    }

    /// Where a limited key stands once `charged` more are counted against its month.
    #[inline]
    fn rate_limit(&self, now: Now, caller: Caller, charged: u64) -> Option<RateLimit> {
        self.limiter.standing(&self.keys, caller.index, now).map(|standing| rate_limit(standing, charged))
    }

    fn price(
        &mut self,
        now: Now,
        caller: Caller,
        request: &Request<'_>,
        out: &mut Vec<u8>,
        attempt: Attempt,
    ) -> Result<HttpVerdict, Refusal> {
        let (mut asset_room, mut source_room) = ([0; 64], [0; 64]);
        let asset = request.parameter("asset", &mut asset_room).map_err(|e| Refusal::bad(e.message()))?;
        let source = request.parameter("source", &mut source_room).map_err(|e| Refusal::bad(e.message()))?;
        let asset = asset.ok_or(Refusal::bad("the asset is missing: GET /price?asset=BTC"))?;
        let source = self.source(source).map_err(|_| UNKNOWN_ASSET)?;
        let fresh = match self.find(Symbol::from_bytes(asset), source, now) {
            Found::Fresh(fresh) => fresh,
            Found::Unknown => return Err(UNKNOWN_ASSET),
            Found::Stale(listing) => {
                if attempt != Attempt::Last && self.ask(listing, source.is_some(), now) {
                    return Ok(HttpVerdict::Wait(listing));
                }
                return Err(STALE);
            }
        };
        let Fresh { asset, exchange, ready } = fresh;
        let (start, reply) = (out.len(), request.reply());
        let rate_limit = self.rate_limit(now, caller, 1);
        respond::ok_head(out, reply, rate_limit.as_ref(), ready.head().len() + 1);
        if !reply.without_body {
            out.extend_from_slice(ready.head());
            out.push(b'}');
        }
        let entry = Entry { caller, asset, assets: 1, exchange, transport: Transport::Http, id: id(request) };
        if let Err(denied) = self.record(now, entry) {
            out.truncate(start);
            return Err(denied_http(now, caller, denied));
        }
        self.counters.add(Counter::HttpAnswered, 1);
        Ok(HttpVerdict::Done)
    }

    fn prices(
        &mut self,
        now: Now,
        caller: Caller,
        request: &Request<'_>,
        out: &mut Vec<u8>,
        attempt: Attempt,
    ) -> Result<HttpVerdict, Refusal> {
        const TOO_MANY: Refusal = Refusal::bad("more than 64 assets; ask in several requests");
        let (mut list_room, mut source_room) = ([0; PARAMETER_LEN_MAX], [0; 64]);
        let list = request.parameter("assets", &mut list_room).map_err(|e| Refusal::bad(e.message()))?;
        let source = request.parameter("source", &mut source_room).map_err(|e| Refusal::bad(e.message()))?;
        let list = list.ok_or(Refusal::bad("the assets are missing: GET /prices?assets=BTC,ETH"))?;
        let source = self.source(source).map_err(|_| UNKNOWN_ASSET)?;
        let mut count = 0;
        let mut waits_for = None;
        for name in list.split(|byte| *byte == b',') {
            count += 1;
            if count > ASSETS_PER_REQUEST_MAX {
                return Err(TOO_MANY);
            }
            let Some(symbol) = Symbol::from_bytes(name) else {
                return Err(Refusal::bad(
                    "assets must be names of 1 to 16 letters and digits, separated by commas",
                ));
            };
            if let Found::Stale(listing) = self.find(Some(symbol), source, now)
                && attempt != Attempt::Last
                && self.ask(listing, source.is_some(), now)
            {
                waits_for = waits_for.or(Some(listing));
            }
        }
        if let Some(listing) = waits_for {
            return Ok(HttpVerdict::Wait(listing));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let (mut first, mut priced) = ((0, 0), 0);
        let written =
            v1::PricesWriter::new(&mut scratch, BODY_LEN_MAX, count, None).and_then(|mut writer| {
                for name in list.split(|byte| *byte == b',') {
                    let pushed = match self.find(Symbol::from_bytes(name), source, now) {
                        Found::Fresh(fresh) => {
                            if priced == 0 {
                                first = (fresh.asset, fresh.exchange);
                            }
                            priced += 1;
                            writer.push_head(fresh.ready.head())
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
        let (asset, exchange) = first;
        let entry =
            Entry { caller, asset, assets: priced, exchange, transport: Transport::Http, id: id(request) };
        let body = written.and_then(|len| scratch.get(..len)).ok_or(Denied::NO_ROOM);
        let done = body.and_then(|body| {
            self.record(now, entry)?;
            respond::ok(out, request.reply(), self.rate_limit(now, caller, 0).as_ref(), body);
            self.counters.add(Counter::HttpAnswered, 1);
            Ok(HttpVerdict::Done)
        });
        self.scratch = scratch;
        done.map_err(|denied| denied_http(now, caller, denied))
    }
}

/// The refusal of a key over its limits.
#[cold]
fn denied_http(now: Now, caller: Caller, denied: Denied) -> Refusal {
    let refusal = match denied.code {
        ErrorCode::RateLimited => RATE_LIMITED,
        ErrorCode::MonthlyLimit => MONTHLY_LIMIT,
        _ => return OVERLOADED,
    };
    let retry_after_s = Some(seconds(denied.retry_after_ns).max(1));
    Refusal { retry_after_s, limited: Some((caller, now)), ..refusal }
}

fn rate_limit(standing: Standing, charged: u64) -> RateLimit {
    let month = standing.month.map(|(quota, left, end_ns)| MonthLimit {
        quota,
        remaining: left.saturating_sub(charged),
        reset_s: seconds(end_ns),
    });
    RateLimit {
        quota: standing.burst,
        window_s: seconds(standing.burst_ns),
        remaining: standing.left,
        reset_s: seconds(standing.whole_ns),
        month,
    }
}

/// Whole seconds, rounded up.
fn seconds(ns: u64) -> u64 {
    ns.div_ceil(1_000_000_000)
}

fn id<'a>(request: &Request<'a>) -> &'a [u8] {
    request.request_id.unwrap_or_default()
}

/// The body of `GET /assets`.
pub(super) fn assets_body(catalogue: &Catalogue) -> Vec<u8> {
    let mut text = String::from("{\"assets\":[");
    for (index, asset) in catalogue.assets().iter().enumerate() {
        let first = catalogue.listing(asset.listings[0]);
        let comma = if index > 0 { "," } else { "" };
        let open =
            format!("{comma}{{\"asset\":\"{}\",\"quote\":\"{}\",\"sources\":[", asset.symbol, first.quote);
        text.push_str(&open);
        for (index, listing) in asset.listings.iter().enumerate() {
            let (_, exchange) = catalogue.names(catalogue.listing(*listing));
            let comma = if index > 0 { "," } else { "" };
            text.push_str(&format!("{comma}\"{exchange}\""));
        }
        text.push_str("]}");
    }
    text.push_str("]}");
    text.into_bytes()
}

/// The body of `GET /exchanges`.
pub(super) fn exchanges_body(catalogue: &Catalogue) -> Vec<u8> {
    let mut text = String::from("{\"exchanges\":[");
    for (index, exchange) in catalogue.exchanges().iter().enumerate() {
        let listed = catalogue.listings().iter().filter(|l| l.exchange == exchange.id).count();
        let comma = if index > 0 { "," } else { "" };
        let (name, number) = (&exchange.name, exchange.id.index());
        text.push_str(&format!("{comma}{{\"exchange\":\"{name}\",\"number\":{number},\"assets\":{listed}}}"));
    }
    text.push_str("]}");
    text.into_bytes()
}
