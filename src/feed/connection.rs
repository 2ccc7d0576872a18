//! One feed connection as a pure state machine: no socket, no clock. Bytes and `now` go in; bytes
//! to send, events and the next deadline come out.
//!
//! ```text
//!                 101            all is asked for          close()
//!   Upgrading ─────────► Subscribing ─────────► Live ─────────────► Draining
//!       │                     │                  │                      │
//!       └─ refused, 10 s      └─ silent, closed by the exchange,        └─ closed, or 2 s
//!                                protocol error                            have gone
//!
//!   the owner: dials, speaks TLS, then   receive(now, bytes)   after each read
//!                                        tick(now)             at deadline()
//!                                        outbox()              is written after either
//!                                        Err(Disconnect)       write what is left and close
//! ```
//!
//! A connection lives once; for the next attempt, after [`Backoff`](super::Backoff), make a new one:
//! every subscription is made again, and nothing counts as live or acked from before.

mod subscriptions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::subscriptions::{News, Subscriptions};
use super::frame::{Frame, Refused, Trade};
use super::{Endpoint, Extractor, Row, RowError};
use crate::http::ws::{self, Decoder, Incoming, Key, ProtocolError, UpgradeError};
use crate::price::ListingId;
use crate::time::{MonoNs, Now};

/// How long an exchange may take to answer the upgrade.
const UPGRADE_MAX: Duration = Duration::from_secs(10);

/// How long a connection that we close waits for the exchange to close it too.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Bytes that may wait to be sent, beyond which the exchange evidently does not read: all subscribes
/// of a connection are a few kilobytes, and only a flood of pings makes more.
const OUTBOX_LEN_MAX: usize = 256 << 10;

/// Most characters of an exchange's words in one of our messages.
const WORDS_LEN_MAX: usize = 200;

/// Who hears what a connection learns.
pub trait Sink {
    /// A trade of a listing of this connection: of each listing the newest in its message.
    fn trade(&mut self, trade: Trade);
    /// Frames of whatever kind came: the connection is alive.
    fn heard(&mut self, now: MonoNs);
    /// The listing's first trade on this connection; follows [`trade`](Self::trade).
    fn live(&mut self, listing: ListingId);
    /// The exchange has accepted the listing's subscription. No proof of a price yet: it counts
    /// once REST has confirmed the price after this moment.
    fn acked(&mut self, listing: ListingId);
    /// The exchange does not know the listing's symbol, or not any more; the others go on. `words`
    /// are the exchange's.
    fn symbol_refused(&mut self, listing: ListingId, words: &str);
    /// The exchange has refused something else, or sent what makes no sense.
    fn error(&mut self, words: &str);
    /// The exchange will close this connection soon: open another one, then close this one.
    fn reconnect_soon(&mut self);
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The upgrade was refused.
    Upgrade(UpgradeError),
    /// The upgrade was not answered in time.
    UpgradeTimeout,
    /// No frame came for this long.
    Silent(Duration),
    /// The exchange broke the WebSocket protocol.
    Protocol(ProtocolError),
    /// The exchange closed the connection.
    Closed {
        /// Its code, as RFC 6455 section 7.4 numbers them.
        code: Option<u16>,
        /// Its words, often none.
        reason: String,
    },
    /// The exchange does not read what we send.
    NotReading,
    /// We closed the connection.
    Drained,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upgrade(error) => error.fmt(f),
            Self::UpgradeTimeout => {
                write!(f, "the upgrade was not answered within {} s", UPGRADE_MAX.as_secs())
            }
            Self::Silent(time) => write!(f, "no frame for {} s", time.as_secs()),
            Self::Protocol(error) => error.fmt(f),
            Self::Closed { code, reason } => {
                f.write_str("closed by the exchange")?;
                if let Some(code) = code {
                    write!(f, ", code {code}")?;
                }
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            Self::NotReading => f.write_str("the exchange does not read what is sent to it"),
            Self::Drained => f.write_str("closed by us"),
        }
    }
}

impl std::error::Error for Disconnect {}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The upgrade is under way.
    Upgrading,
    /// Subscribes are still to be sent.
    Subscribing,
    /// Everything has been asked for.
    Live,
    /// It is being closed by us.
    Draining,
}

/// One connection to an exchange, from the moment its byte stream is up.
#[derive(Debug)]
pub struct Connection {
    row: Arc<Row>,
    extractor: Extractor,
    subscriptions: Subscriptions,
    masks: Masks,
    outbox: Vec<u8>,
    state: State,
    trades: Vec<Trade>,
    news: Vec<News>,
    nonsense: u64,
}

#[derive(Debug)]
enum State {
    Upgrading(Upgrading),
    Open(Open),
    Draining(Draining),
}

#[derive(Debug)]
struct Upgrading {
    key: Key,
    received: Vec<u8>,
    until: MonoNs,
}

#[derive(Debug)]
struct Open {
    decoder: Decoder,
    heard: MonoNs,
    ping_at: MonoNs,
    pace: Pace,
}

#[derive(Debug)]
struct Draining {
    decoder: Decoder,
    until: MonoNs,
}

impl Connection {
    /// On a byte stream that is up, for these listings with the exchange's own symbols, at most
    /// [`Row::symbols_per_connection`]. The upgrade request is in the outbox. `random` must be
    /// unguessable: a key and masks are made of it.
    ///
    /// # Errors
    /// When the row or a symbol is not usable.
    pub fn new<'s>(
        row: Arc<Row>,
        listings: impl IntoIterator<Item = (&'s str, ListingId)> + Clone,
        random: [u8; 24],
        now: Now,
    ) -> Result<Self, RowError> {
        let extractor = Extractor::new(&row, listings.clone())?;
        let endpoint = Endpoint::parse(&row.url)
            .ok_or_else(|| row.error("url", &row.url, "a ws:// or wss:// URL with a host"))?;
        let subscriptions = Subscriptions::new(&row, listings);
        let (key, seed) = random.split_at(16);
        let key = Key::new(key.first_chunk().copied().unwrap_or_default());
        let mut outbox = Vec::new();
        ws::write_request(&mut outbox, &endpoint.authority(), &endpoint.target, &key);
        let until = now.mono.plus(UPGRADE_MAX);
        Ok(Self {
            row,
            extractor,
            subscriptions,
            masks: Masks(u64::from_le_bytes(seed.first_chunk().copied().unwrap_or_default())),
            outbox,
            state: State::Upgrading(Upgrading { key, received: Vec::new(), until }),
            trades: Vec::new(),
            news: Vec::new(),
            nonsense: 0,
        })
    }

    /// Takes bytes from the exchange.
    ///
    /// # Errors
    /// When the connection is over; the outbox may hold a last frame.
    pub fn receive(&mut self, now: Now, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Disconnect> {
        if let State::Upgrading(upgrading) = &mut self.state {
            upgrading.received.extend_from_slice(bytes);
            let consumed = match ws::check_response(&upgrading.received, &upgrading.key) {
                Ok(Some(consumed)) => consumed,
                Ok(None) => return Ok(()),
                Err(error) => return Err(Disconnect::Upgrade(error)),
            };
            let received = std::mem::take(&mut upgrading.received);
            self.state = State::Open(self.opened(now));
            self.send_due(now)?;
            return self.frames(now, received.get(consumed..).unwrap_or_default(), sink);
        }
        self.frames(now, bytes, sink)
    }

    /// Does what is due. To be called at [`deadline`](Self::deadline); calling it more often does
    /// no harm.
    ///
    /// # Errors
    /// When the connection is over; the outbox may hold a last frame.
    pub fn tick(&mut self, now: Now) -> Result<(), Disconnect> {
        let dead_after = self.dead_after();
        match &mut self.state {
            State::Upgrading(upgrading) if now.mono >= upgrading.until => {
                return Err(Disconnect::UpgradeTimeout);
            }
            State::Draining(draining) if now.mono >= draining.until => return Err(Disconnect::Drained),
            State::Upgrading(_) | State::Draining(_) => return Ok(()),
            State::Open(open) => {
                if now.mono >= open.heard.plus(dead_after) {
                    ws::write_close(&mut self.outbox, 1001, self.masks.next());
                    return Err(Disconnect::Silent(dead_after));
                }
                if now.mono >= open.ping_at {
                    open.ping_at = now.mono.plus(Duration::from_secs(self.row.ping_every_s));
                    let id = self.subscriptions.request_id();
                    if let Some(ping) = self.row.ping_message(unix_s(now), id) {
                        ws::write_text(&mut self.outbox, &ping, self.masks.next());
                    }
                }
            }
        }
        self.subscriptions.repeat_silent(now.mono);
        self.send_due(now)
    }

    /// When [`tick`](Self::tick) is to be called next.
    #[must_use]
    pub fn deadline(&self) -> MonoNs {
        match &self.state {
            State::Upgrading(upgrading) => upgrading.until,
            State::Draining(draining) => draining.until,
            State::Open(open) => {
                let message_at =
                    if self.subscriptions.has_queued() { open.pace.next_at } else { MonoNs::NEVER };
                let silent_at = self.subscriptions.silent_at();
                open.heard.plus(self.dead_after()).min(open.ping_at).min(message_at).min(silent_at)
            }
        }
    }

    /// Begins to close the connection. It is over when the exchange has closed it too, or 2 s later:
    /// [`receive`](Self::receive) or [`tick`](Self::tick) then returns [`Disconnect::Drained`].
    pub fn close(&mut self, now: Now) {
        let until = match &self.state {
            State::Draining(_) => return,
            // Nothing was agreed that could be closed.
            State::Upgrading(_) => now.mono,
            State::Open(_) => {
                ws::write_close(&mut self.outbox, 1000, self.masks.next());
                now.mono.plus(DRAIN_MAX)
            }
        };
        let draining = State::Draining(Draining { decoder: Decoder::new(), until });
        if let (State::Open(open), State::Draining(draining)) =
            (std::mem::replace(&mut self.state, draining), &mut self.state)
        {
            // The exchange may be in the middle of a frame.
            draining.decoder = open.decoder;
        }
    }

    /// Bytes to be sent: take them from the front as they are written.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Upgrading(_) => Phase::Upgrading,
            State::Open(open) if !open.pace.all_asked => Phase::Subscribing,
            State::Open(_) => Phase::Live,
            State::Draining(_) => Phase::Draining,
        }
    }

    /// Listings of this connection, and how many of them have had a trade on it.
    #[must_use]
    pub fn live_count(&self) -> (usize, usize) {
        self.subscriptions.count()
    }

    /// Trades refused on this connection.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        self.extractor.refused()
    }

    /// Messages that were not JSON, or binary.
    #[must_use]
    pub fn nonsense_count(&self) -> u64 {
        self.nonsense
    }

    fn dead_after(&self) -> Duration {
        Duration::from_secs(self.row.dead_after_s)
    }

    fn opened(&self, now: Now) -> Open {
        let ping_at = match self.row.ping_every_s {
            0 => MonoNs::NEVER,
            seconds => now.mono.plus(Duration::from_secs(seconds)),
        };
        Open {
            decoder: Decoder::new(),
            heard: now.mono,
            ping_at,
            pace: Pace {
                next_at: now.mono.plus(Duration::from_millis(self.row.open_delay_ms)),
                all_asked: false,
            },
        }
    }

    /// Reads frames until the bytes are used up.
    fn frames(&mut self, now: Now, mut bytes: &[u8], sink: &mut impl Sink) -> Result<(), Disconnect> {
        let Self { state, outbox, masks, .. } = self;
        let open = match state {
            State::Open(open) => open,
            State::Draining(draining) => return drained(&mut draining.decoder, bytes),
            State::Upgrading(_) => return Ok(()),
        };
        let mut context = Context {
            row: &self.row,
            extractor: &mut self.extractor,
            subscriptions: &mut self.subscriptions,
            trades: &mut self.trades,
            news: &mut self.news,
            nonsense: &mut self.nonsense,
        };
        let mut frame_count = 0_u64;
        let end = loop {
            let incoming = match open.decoder.next(&mut bytes) {
                Ok(Some(incoming)) => incoming,
                Ok(None) => break Ok(()),
                Err(error) => {
                    ws::write_close(outbox, error.close_code(), masks.next());
                    break Err(Disconnect::Protocol(error));
                }
            };
            frame_count += 1;
            match incoming {
                Incoming::Text(text) => {
                    if let Some(reply) = context.message(now, text, sink) {
                        ws::write_text(outbox, &reply, masks.next());
                    }
                }
                Incoming::Ping(payload) => ws::write_pong(outbox, payload, masks.next()),
                Incoming::Pong(_) => {}
                Incoming::Binary(bytes) => context.make_no_sense(bytes, sink),
                Incoming::Close { code, reason } => {
                    ws::write_close(outbox, code.unwrap_or(1000), masks.next());
                    break Err(Disconnect::Closed { code, reason: words(reason.as_bytes()) });
                }
            }
            // At once, so that it makes no difference in which pieces the bytes came.
            if context.subscriptions.has_queued() {
                open.pace.send(now, context.row, context.subscriptions, outbox, masks);
            }
            if outbox.len() > OUTBOX_LEN_MAX {
                break Err(Disconnect::NotReading);
            }
        };
        if frame_count > 0 {
            open.heard = now.mono;
            sink.heard(now.mono);
        }
        end
    }

    fn send_due(&mut self, now: Now) -> Result<(), Disconnect> {
        if let State::Open(open) = &mut self.state {
            open.pace.send(now, &self.row, &mut self.subscriptions, &mut self.outbox, &mut self.masks);
        }
        if self.outbox.len() > OUTBOX_LEN_MAX { Err(Disconnect::NotReading) } else { Ok(()) }
    }
}

/// When queued messages may be sent: the first `open_delay_ms` after opening, then one each
/// `msg_gap_ms`.
#[derive(Debug)]
struct Pace {
    next_at: MonoNs,
    /// There was a moment with nothing left to be sent.
    all_asked: bool,
}

impl Pace {
    fn send(
        &mut self,
        now: Now,
        row: &Row,
        subscriptions: &mut Subscriptions,
        outbox: &mut Vec<u8>,
        masks: &mut Masks,
    ) {
        while now.mono >= self.next_at {
            let Some(message) = subscriptions.next_message(row, now.mono, unix_s(now)) else { break };
            ws::write_text(outbox, &message, masks.next());
            self.next_at = now.mono.plus(Duration::from_millis(row.msg_gap_ms));
        }
        self.all_asked |= !subscriptions.has_queued();
    }
}

/// What reading a message needs, apart from the decoder that lends the message.
struct Context<'a> {
    row: &'a Row,
    extractor: &'a mut Extractor,
    subscriptions: &'a mut Subscriptions,
    trades: &'a mut Vec<Trade>,
    news: &'a mut Vec<News>,
    nonsense: &'a mut u64,
}

impl Context<'_> {
    /// Reads a text message; what it returns is to be sent at once.
    fn message(&mut self, now: Now, text: &str, sink: &mut impl Sink) -> Option<String> {
        self.trades.clear();
        match self.extractor.extract(text.as_bytes(), now.unix, self.trades) {
            Frame::Trades(_) => {
                for trade in self.trades.drain(..) {
                    if let Some(first) = self.subscriptions.traded(trade.listing) {
                        sink.trade(trade);
                        if first {
                            sink.live(trade.listing);
                        }
                    }
                }
            }
            Frame::Heartbeat { id } => return self.row.heartbeat_answer(id),
            Frame::Ack { request } => {
                self.subscriptions.accepted(request, self.extractor.named(), self.news);
                self.tell("", sink);
            }
            Frame::Error { request, text } => {
                let words = words(text);
                self.subscriptions.refused(request, self.extractor.named(), self.news);
                if self.news.is_empty() {
                    sink.error(&words);
                }
                self.tell(&words, sink);
            }
            Frame::Notice => sink.reconnect_soon(),
            Frame::Malformed => self.make_no_sense(text.as_bytes(), sink),
            Frame::Pong | Frame::Other => {}
        }
        None
    }

    fn tell(&mut self, words: &str, sink: &mut impl Sink) {
        for news in self.news.drain(..) {
            match news {
                News::Acked(listing) => sink.acked(listing),
                News::Refused(listing) => sink.symbol_refused(listing, words),
            }
        }
    }

    /// Counts a message that means nothing; the first one is shown.
    fn make_no_sense(&mut self, message: &[u8], sink: &mut impl Sink) {
        *self.nonsense += 1;
        if *self.nonsense == 1 {
            sink.error(&format!("a message is not JSON text: {}", words(message)));
        }
    }
}

/// Reads only for the exchange's close.
fn drained(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<(), Disconnect> {
    loop {
        match decoder.next(&mut bytes) {
            Ok(None) => return Ok(()),
            Ok(Some(Incoming::Close { .. })) | Err(_) => return Err(Disconnect::Drained),
            Ok(Some(_)) => {}
        }
    }
}

/// What an exchange says, fit for a line of a log.
fn words(text: &[u8]) -> String {
    let start = text.get(..WORDS_LEN_MAX * 4).unwrap_or(text);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(start).chars().map(plain).take(WORDS_LEN_MAX).collect()
}

fn unix_s(now: Now) -> u64 {
    now.unix.ms() / 1_000
}

/// Masks of our frames, by SplitMix64 from a random seed. They keep a careless proxy from reading
/// frames as requests; nothing secret is sent here.
#[derive(Debug)]
struct Masks(u64);

impl Masks {
    #[expect(clippy::cast_possible_truncation, reason = "half of the bits are enough")]
    fn next(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) as u32).to_le_bytes()
    }
}

#[cfg(test)]
mod tests;
