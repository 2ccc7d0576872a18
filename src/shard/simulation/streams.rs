//! HTTP clients: they pipeline, write in pieces, read slowly, leave half-way, and know what they may
//! be told, in which order, and when they may be cut off.

use std::collections::VecDeque;

use super::Keys;
use super::datagrams::Circumstances;
use super::prices::{Chosen, EXCHANGES, Model, symbols};
use crate::engine::ListenerIndex;
use crate::engine::simulated::{Kernel, PeerIndex, Random};
use crate::price::ListingId;
use crate::time::MonoNs;

#[derive(Clone, Debug)]
enum Ask {
    Price {
        asset: String,
        source: Option<usize>,
        head: bool,
    },
    Prices {
        assets: Vec<String>,
    },
    /// A status that does not depend on prices.
    Status(u16),
}

#[derive(Debug)]
struct Asked {
    ask: Ask,
    /// Bytes the client will have written when it is whole.
    ends_at: usize,
    /// Since when it is whole.
    whole_at: Option<MonoNs>,
    /// The connection ends with its answer.
    last: bool,
}

/// How a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It says that it has sent all and reads on.
    Shut,
    /// Its last request asks for the end.
    Close,
    /// It is gone, at any moment.
    Reset,
    /// It sends something that is no request.
    Garbage,
}

#[derive(Debug)]
struct Client {
    peer: PeerIndex,
    end: End,
    plan: VecDeque<u8>,
    written: usize,
    asked: VecDeque<Asked>,
    inbox: Vec<u8>,
    /// Most bytes it reads at once.
    appetite: usize,
    shut: bool,
    gone: bool,
    /// Earliest instant at which the next request may have begun to be served.
    served_from: MonoNs,
    /// When it last wrote.
    wrote_at: MonoNs,
    /// Since when a head is incomplete.
    partial_since: Option<MonoNs>,
    answered: u64,
    over: bool,
}

/// All HTTP clients of one shard.
#[derive(Debug, Default)]
pub(super) struct Streams {
    clients: Vec<Client>,
    /// Refusals by REST since the beginning: when and for what.
    pub(super) denied: Vec<(MonoNs, ListingId)>,
    pub(super) answered: u64,
}

/// Time limits of the shard.
pub(super) struct Limits {
    pub(super) idle_ns: u64,
    pub(super) head_ns: u64,
}

impl Streams {
    /// A new client with a plan.
    pub(super) fn connect(&mut self, random: &mut Random, keys: &Keys, kernel: &mut Kernel, now: MonoNs) {
        let window = *random.pick(&[60, 700, 4_000, 1 << 20]);
        let peer = kernel.connect(ListenerIndex(0), window);
        let end = *random.pick(&[End::Shut, End::Shut, End::Close, End::Reset, End::Garbage]);
        let count = random.between(1, 12);
        let mut client = Client {
            peer,
            end,
            plan: VecDeque::new(),
            written: 0,
            asked: VecDeque::new(),
            inbox: Vec::new(),
            appetite: random.between(20, 3_000),
            shut: false,
            gone: false,
            served_from: now,
            wrote_at: now,
            partial_since: None,
            answered: 0,
            over: false,
        };
        for number in 0..count {
            let last = end == End::Close && number + 1 == count;
            client.plan_request(random, keys, last);
        }
        if end == End::Garbage {
            client.plan.extend(b"GET /price HTTP/1.1\nbare: line ends\n\n");
            let ends_at = client.plan.len();
            client.asked.push_back(Asked { ask: Ask::Status(400), ends_at, whole_at: None, last: true });
        }
        self.clients.push(client);
    }

    pub(super) fn open(&self) -> usize {
        self.clients.iter().filter(|c| !c.over).count()
    }

    /// Everybody writes and reads a little; `hurry` makes them come to their end.
    pub(super) fn act(
        &mut self,
        random: &mut Random,
        kernel: &mut Kernel,
        hurry: bool,
        limits: &Limits,
        now: MonoNs,
        c: &Circumstances<'_>,
    ) -> Result<(), String> {
        for client in self.clients.iter_mut().filter(|client| !client.over) {
            let before = client.answered;
            client
                .act(random, kernel, hurry, limits, now, c, &self.denied)
                .map_err(|e| format!("{e} at {now:?} for {}", client.summary()))?;
            self.answered += client.answered - before;
        }
        Ok(())
    }

    /// Everybody has got what he asked for, or a reason.
    pub(super) fn check_end(&self, now: MonoNs) -> Result<(), String> {
        match self.clients.iter().find(|client| !client.over) {
            Some(client) => Err(format!("left without an end at {now:?}: {}", client.summary())),
            None => Ok(()),
        }
    }
}

impl Client {
    fn summary(&self) -> String {
        let Self { peer, end, written, answered, partial_since, served_from, .. } = self;
        let asked = self.asked.iter().take(2).collect::<Vec<_>>();
        format!(
            "{peer:?}, ends by {end:?}, has written {written}, {} are left to write, {answered} answered, asks {asked:?} and so on, {partial_since:?} {served_from:?}",
            self.plan.len()
        )
    }

    fn plan_request(&mut self, random: &mut Random, keys: &Keys, last: bool) {
        let mut some = |many: &[&str]| -> String { (*random.pick(many)).to_owned() };
        let mut names = symbols();
        names.push("NOPE");
        let asset = some(&names);
        let several: Vec<String> = (0..3).map(|_| some(&names)).collect();
        let source = random.chance(300).then(|| random.below(EXCHANGES.len()));
        let named = source.map_or(String::new(), |s| format!("&source={}", EXCHANGES[s].1));
        let key = &keys.text;
        let mut head = format!("x-api-key: {key}\r\n");
        let (line, ask, body) = match random.below(20) {
            0..11 => {
                (format!("GET /price?asset={asset}{named}"), Ask::Price { asset, source, head: false }, "")
            }
            11..13 => {
                (format!("HEAD /price?asset={asset}{named}"), Ask::Price { asset, source, head: true }, "")
            }
            13..15 => {
                (format!("GET /prices?assets={}", several.join(",")), Ask::Prices { assets: several }, "")
            }
            15 => ("GET /assets".into(), Ask::Status(200), ""),
            16 => ("GET /nowhere".into(), Ask::Status(404), ""),
            17 => ("POST /price".into(), Ask::Status(405), "a body that is skipped"),
            18 => {
                head.clear();
                (format!("GET /price?asset={asset}"), Ask::Status(401), "")
            }
            _ => ("GET /price".into(), Ask::Status(400), ""),
        };
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let close = if last { "connection: close\r\n" } else { "" };
        let text = format!("{line} HTTP/1.1\r\nhost: x\r\n{head}{length}{close}\r\n{body}");
        self.plan.extend(text.as_bytes());
        let ends_at = self.plan.len() - body.len();
        self.asked.push_back(Asked { ask, ends_at, whole_at: None, last });
    }

    #[expect(clippy::too_many_arguments, reason = "what a client sees of the world")]
    fn act(
        &mut self,
        random: &mut Random,
        kernel: &mut Kernel,
        hurry: bool,
        limits: &Limits,
        now: MonoNs,
        c: &Circumstances<'_>,
        denied: &[(MonoNs, ListingId)],
    ) -> Result<(), String> {
        if random.chance(if hurry { 700 } else { 300 }) {
            self.write(random, kernel, now);
        }
        if !self.gone && self.end == End::Reset && random.chance(if hurry { 300 } else { 20 }) {
            kernel.peer_reset(self.peer);
            self.gone = true;
        }
        if hurry || random.chance(300) {
            let most = if hurry { usize::MAX } else { random.between(1, self.appetite) };
            self.inbox.extend(kernel.peer_read(self.peer, most));
            while let Some(answer) = Answer::take(&mut self.inbox, self.asked.front().map(|a| &a.ask))? {
                self.take(&answer, now, c, denied)?;
            }
        }
        let closed = kernel.peer_closed(self.peer);
        if self.gone && (closed || !kernel.peer_accepted(self.peer)) {
            self.over = closed || hurry;
        } else if closed {
            self.inbox.extend(kernel.peer_read(self.peer, usize::MAX));
            while let Some(answer) = Answer::take(&mut self.inbox, self.asked.front().map(|a| &a.ask))? {
                self.take(&answer, now, c, denied)?;
            }
            self.may_be_closed(kernel, limits, now, c)?;
            self.over = true;
        }
        Ok(())
    }

    fn write(&mut self, random: &mut Random, kernel: &mut Kernel, now: MonoNs) {
        if self.gone || kernel.peer_closed(self.peer) {
            return;
        }
        if self.plan.is_empty() {
            if !self.shut && self.end == End::Shut {
                kernel.peer_shut(self.peer);
                self.shut = true;
            }
            return;
        }
        let count = random.between(1, self.plan.len().min(*random.clone().pick(&[5, 90, 400, 4_000])));
        let bytes: Vec<u8> = self.plan.drain(..count).collect();
        kernel.peer_write(self.peer, &bytes);
        self.written += count;
        self.wrote_at = now;
        for asked in self.asked.iter_mut().filter(|a| a.whole_at.is_none()) {
            if asked.ends_at > self.written {
                break;
            }
            asked.whole_at = Some(now);
            self.partial_since = None;
        }
        self.partial_since = self.partial_since.or(Some(now));
    }

    fn take(
        &mut self,
        answer: &Answer,
        now: MonoNs,
        c: &Circumstances<'_>,
        denied: &[(MonoNs, ListingId)],
    ) -> Result<(), String> {
        let asked = self.asked.pop_front().ok_or_else(|| format!("an answer to nothing: {answer:?}"))?;
        let whole_at = match asked.whole_at {
            Some(at) => at,
            // Garbage is refused as soon as it shows.
            None if asked.last && self.end == End::Garbage => now,
            None => return Err(format!("an answer to half a request: {answer:?} to {asked:?}")),
        };
        self.served_from = self.served_from.max(whole_at);
        let from = self.served_from;
        let stale = |listing: ListingId| {
            let told = denied.iter().any(|(at, id)| *id == listing && *at >= from);
            if told { Ok(()) } else { c.may_be_stale(listing, from, now) }
        };
        let unexpected = || Err(format!("{answer:?} to {asked:?}"));
        match (&asked.ask, answer.status) {
            (Ask::Status(expected), status) if *expected == status => {}
            (Ask::Price { head: true, .. }, 200 | 404 | 503) => {}
            (Ask::Price { asset, source, .. }, 200) => {
                if !said(c.model, asset, *source, answer.body.strip_suffix('}').unwrap_or(""), from, now) {
                    return unexpected();
                }
            }
            (Ask::Price { asset, source, .. }, 503) if answer.body.contains("\"stale\"") => {
                let listing = preferred(c.model, asset, *source).ok_or("stale but unknown")?;
                stale(listing).map_err(|e| format!("{e}: {answer:?} to {asked:?}"))?;
                let denied = denied.iter().any(|(at, id)| *id == listing && *at >= from);
                if !denied
                    && !c.leaving
                    && c.model.rows[listing.index()].failed_last.0 + 1_001_000_000 < from.0
                {
                    self.served_from = MonoNs(from.0 + c.rest_deadline_ns);
                }
            }
            (Ask::Price { asset, source, .. }, 404) => {
                if preferred(c.model, asset, *source).is_some() {
                    return unexpected();
                }
            }
            (Ask::Prices { assets }, 200) => {
                let inside = answer.body.strip_prefix("{\"prices\":[{").and_then(|b| b.strip_suffix("}]}"));
                let items: Vec<&str> = inside.unwrap_or("").split("},{").collect();
                if items.len() != assets.len() {
                    return unexpected();
                }
                for (asset, item) in assets.iter().zip(items) {
                    let error = |code| format!(r#""asset":"{asset}","error":"{code}""#);
                    let known = preferred(c.model, asset, None).is_some();
                    let right = match known {
                        true if item == error("stale") => true,
                        true => said(c.model, asset, None, &format!("{{{item}"), from, now),
                        false => item == error("unknown_asset"),
                    };
                    if !right {
                        return Err(format!("{item:?} for {asset}: {answer:?} to {asked:?}"));
                    }
                }
            }
            _ => return unexpected(),
        }
        self.answered += 1;
        Ok(())
    }

    /// Whether the shard may have closed the connection.
    fn may_be_closed(
        &self,
        kernel: &Kernel,
        limits: &Limits,
        now: MonoNs,
        c: &Circumstances<'_>,
    ) -> Result<(), String> {
        let waits = self.asked.iter().any(|a| a.whole_at.is_some());
        let slow_head = self.partial_since.is_some_and(|at| now.0.saturating_sub(at.0) >= limits.head_ns);
        let idle = now.0.saturating_sub(self.wrote_at.0) >= limits.idle_ns;
        let done = self.asked.is_empty() && (self.shut || self.end == End::Close || self.end == End::Garbage);
        let excused = c.leaving
            || kernel.peer_broken(self.peer)
            || !kernel.peer_accepted(self.peer)
            || done
            || (slow_head && !waits)
            || idle;
        if excused { Ok(()) } else { Err("closed without a reason".into()) }
    }
}

fn preferred(model: &Model, symbol: &str, source: Option<usize>) -> Option<ListingId> {
    // At the beginning of time nothing is fresh.
    match model.choose(symbol, source, MonoNs::NEVER) {
        Chosen::Stale(listing) | Chosen::Fresh(listing) => Some(listing),
        Chosen::Unknown => None,
    }
}

/// Whether some listing of the asset may have said this between the two instants.
fn said(model: &Model, symbol: &str, source: Option<usize>, object: &str, from: MonoNs, to: MonoNs) -> bool {
    let of = model.rows.iter().filter(|row| row.symbol == symbol);
    of.filter(|row| source.is_none_or(|s| s == row.exchange)).any(|row| row.may_have_said(object, from, to))
}

/// One answer of the stream.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    /// Takes the first whole answer out of the stream.
    fn take(stream: &mut Vec<u8>, ask: Option<&Ask>) -> Result<Option<Self>, String> {
        let Some(end) = stream.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8_lossy(&stream[..end]).into_owned();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
        let (Some(status), Some(length)) = (status, length) else {
            return Err(format!("not an answer: {head:?}"));
        };
        let without = matches!(ask, Some(Ask::Price { head: true, .. }));
        let whole = end + 4 + if without { 0 } else { length };
        if stream.len() < whole {
            return Ok(None);
        }
        let body = String::from_utf8_lossy(&stream[end + 4..whole]).into_owned();
        stream.drain(..whole);
        Ok(Some(Self { status, body }))
    }
}
