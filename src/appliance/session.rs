//! A feed connection as a guest of a shard: it decrypts, hands bytes to the pure connection and
//! passes on what that hears.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

use super::rest::Ask;
use crate::engine::Ended;
use crate::feed::{Connection, Phase, Sink, Trade};
use crate::price::{Confirmation, ListingId, Quote, SessionId, Tier};
use crate::shard::{Guest, Keep, Publisher};
use crate::time::{MonoNs, Now};

/// How long after its ack a listing without a trade is asked about by REST.
const PRIME_AFTER: Duration = Duration::from_secs(2);

/// Which connection of which session, and how long its silence may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) session: SessionId,
    /// Rises with every reconnect.
    pub(super) connection: u32,
    pub(super) dead_after: Duration,
}

/// What is said of a connection when it is over.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) why: String,
    /// When the last frame came.
    pub(super) heard: Option<MonoNs>,
    pub(super) kind: EndKind,
}

/// What has to follow an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndKind {
    /// Dial again after a while.
    Failed,
    /// The exchange asked for it: dial again at once, if the connection had a healthy minute.
    AskedFor,
    /// This process is leaving: nothing.
    Leaving,
}

/// News of a connection, for those who show them.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// 0 upgrading, 1 subscribing, 2 live.
    pub(super) phase: std::sync::atomic::AtomicU8,
    /// Trades taken.
    pub(super) trades: std::sync::atomic::AtomicU64,
}

/// The guest.
pub(super) struct FeedGuest {
    identity: Identity,
    name: Arc<str>,
    connection: Connection,
    tls: Option<Box<ClientConnection>>,
    plain: Vec<u8>,
    asks: Sender<Ask>,
    over: Option<oneshot::Sender<Ending>>,
    status: Arc<Status>,
    heard: Option<MonoNs>,
    /// Listings whose subscription is accepted and which have had no trade yet.
    quiet: Vec<ListingId>,
    prime_at: MonoNs,
    leave_soon: bool,
}

impl FeedGuest {
    pub(super) fn new(
        identity: Identity,
        name: Arc<str>,
        connection: Connection,
        tls: Option<ClientConnection>,
        asks: Sender<Ask>,
        over: oneshot::Sender<Ending>,
        status: Arc<Status>,
    ) -> Self {
        Self {
            identity,
            name,
            connection,
            tls: tls.map(Box::new),
            plain: Vec::new(),
            asks,
            over: Some(over),
            status,
            heard: None,
            quiet: Vec::new(),
            prime_at: MonoNs::NEVER,
            leave_soon: false,
        }
    }

    fn over(&mut self, why: String, kind: EndKind, publisher: &mut Publisher) -> Keep {
        publisher.heard(self.identity.session, self.identity.connection, MonoNs(0));
        if let Some(over) = self.over.take() {
            let ending = Ending { why, heard: self.heard, kind };
            // Whoever dialled may be gone already when the process is leaving.
            let _gone = over.send(ending);
        }
        Keep::Close
    }

    /// Hands plain bytes to the connection.
    fn digest(&mut self, now: Now, bytes: &[u8], publisher: &mut Publisher) -> Result<(), String> {
        let mut ears = Ears {
            identity: self.identity,
            name: &self.name,
            now,
            publisher,
            status: &self.status,
            heard: &mut self.heard,
            quiet: &mut self.quiet,
            leave_soon: &mut self.leave_soon,
        };
        let was_quiet = ears.quiet.len();
        let result = self.connection.receive(now, bytes, &mut ears).map_err(|why| why.to_string());
        if self.quiet.len() > was_quiet && self.prime_at == MonoNs::NEVER {
            self.prime_at = now.mono.plus(PRIME_AFTER);
        }
        result
    }

    /// Moves what the connection wants to send into `out`, encrypted where there is TLS.
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let phase = match self.connection.phase() {
            Phase::Upgrading => 0,
            Phase::Subscribing => 1,
            Phase::Live | Phase::Draining => 2,
        };
        self.status.phase.store(phase, std::sync::atomic::Ordering::Relaxed);
        let outbox = self.connection.outbox();
        match &mut self.tls {
            None => out.append(outbox),
            Some(tls) => {
                tls.writer().write_all(outbox).map_err(|e| format!("TLS: {e}"))?;
                outbox.clear();
                while tls.wants_write() {
                    tls.write_tls(out).map_err(|e| format!("TLS: {e}"))?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, now: Now, mut bytes: &[u8], publisher: &mut Publisher) -> Result<(), String> {
        if self.tls.is_none() {
            return self.digest(now, bytes, publisher);
        }
        while !bytes.is_empty() {
            let Some(tls) = &mut self.tls else { return Ok(()) };
            tls.read_tls(&mut bytes).map_err(|e| format!("TLS: {e}"))?;
            self.decrypt(now, publisher)?;
        }
        Ok(())
    }

    fn decrypt(&mut self, now: Now, publisher: &mut Publisher) -> Result<(), String> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let state = tls.process_new_packets().map_err(|e| format!("TLS: {e}"))?;
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(state.plaintext_bytes_to_read(), 0);
        let mut filled = 0;
        while filled < plain.len() {
            match tls.reader().read(&mut plain[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(format!("TLS: {e}")),
            }
        }
        let closed = state.peer_has_closed();
        let result = self.digest(now, &plain[..filled], publisher);
        self.plain = plain;
        result?;
        if closed { Err("closed by the exchange".to_owned()) } else { Ok(()) }
    }

    /// Asks REST about listings that are subscribed and silent: once it has confirmed their price
    /// they count as live on this connection.
    fn prime(&mut self) {
        for listing in self.quiet.drain(..) {
            let Identity { session, connection, .. } = self.identity;
            let live = Some(Confirmation::Live { session, connection });
            // A full queue means that REST has enough to do; the listing then waits for a trade.
            let _full = self.asks.try_send(Ask { listing, exact: true, urgent: false, live, tries: 0 });
        }
        self.prime_at = MonoNs::NEVER;
    }
}

impl Guest for FeedGuest {
    fn start(&mut self, now: Now, out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep {
        // TLS may have received more than its handshake.
        let early = if self.tls.is_some() { self.decrypt(now, publisher) } else { Ok(()) };
        match early.and_then(|()| self.flush(out)) {
            Ok(()) => Keep::Open,
            Err(why) => self.over(why, EndKind::Failed, publisher),
        }
    }

    fn receive(&mut self, now: Now, bytes: &[u8], out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep {
        let result = self.take(now, bytes, publisher);
        let flushed = self.flush(out);
        match result.and(flushed) {
            Ok(()) if self.leave_soon => {
                self.connection.close(now);
                let _last_words = self.flush(out);
                self.over("the exchange asked to reconnect".to_owned(), EndKind::AskedFor, publisher)
            }
            Ok(()) => Keep::Open,
            Err(why) => self.over(why, EndKind::Failed, publisher),
        }
    }

    fn deadline(&self) -> MonoNs {
        self.connection.deadline().min(self.prime_at)
    }

    fn tick(&mut self, now: Now, out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep {
        if now.mono >= self.prime_at {
            self.prime();
        }
        let result = self.connection.tick(now).map_err(|why| why.to_string());
        match result.and(self.flush(out)) {
            Ok(()) => Keep::Open,
            Err(why) => self.over(why, EndKind::Failed, publisher),
        }
    }

    fn ended(&mut self, _: Now, cause: Ended, publisher: &mut Publisher) {
        let why = match cause {
            Ended::Closed => "the connection was closed without a word".to_owned(),
            Ended::Error(code) => io::Error::from_raw_os_error(code).to_string(),
            Ended::NoBuffers | Ended::Full | Ended::Quiet => "the connection ended".to_owned(),
        };
        self.over(why, EndKind::Failed, publisher);
    }

    fn stop(&mut self, now: Now, out: &mut Vec<u8>, publisher: &mut Publisher) {
        self.connection.close(now);
        let _last_words = self.flush(out);
        self.over("this process is leaving".to_owned(), EndKind::Leaving, publisher);
    }
}

/// What a connection hears, on its way to the links.
struct Ears<'a> {
    identity: Identity,
    name: &'a str,
    now: Now,
    publisher: &'a mut Publisher,
    status: &'a Status,
    heard: &'a mut Option<MonoNs>,
    quiet: &'a mut Vec<ListingId>,
    leave_soon: &'a mut bool,
}

impl Ears<'_> {
    fn live_here(&self) -> Confirmation {
        Confirmation::Live { session: self.identity.session, connection: self.identity.connection }
    }
}

impl Sink for Ears<'_> {
    fn trade(&mut self, trade: Trade) {
        let quote = Quote { price: trade.price, key: trade.key, received: self.now.unix, tier: Tier::Ws };
        self.publisher.quote(trade.listing, quote, self.live_here());
        self.status.trades.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn heard(&mut self, now: MonoNs) {
        *self.heard = Some(now);
        let Identity { session, connection, dead_after } = self.identity;
        self.publisher.heard(session, connection, now.plus(dead_after));
    }

    fn live(&mut self, listing: ListingId) {
        self.quiet.retain(|quiet| *quiet != listing);
    }

    fn acked(&mut self, listing: ListingId) {
        self.quiet.push(listing);
    }

    fn symbol_refused(&mut self, listing: ListingId, words: &str) {
        tracing::warn!("{} refuses the symbol of listing {}: {words}", self.name, listing.index());
    }

    fn error(&mut self, words: &str) {
        tracing::debug!("{} says: {words}", self.name);
    }

    fn reconnect_soon(&mut self) {
        *self.leave_soon = true;
    }
}
