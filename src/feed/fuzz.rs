//! Fuzz bodies of what exchanges send and of rows: any bytes in, nothing panics, what must hold holds.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use serde::de::IgnoredAny;

use super::data::{self, FeedData, Overrides};
use super::{Connection, Disconnect, Extractor, Frame, RestReader, Row, Sink, Trade};
use crate::http::ws::Key;
use crate::price::ListingId;
use crate::time::{MonoNs, Now, UnixNs};

/// What is asked for, in the spelling of every exchange.
pub(crate) const SYMBOLS: [&str; 8] =
    ["ABC-USD", "ABCUSD", "ABC/USD", "ABC_USDT", "ABCUSDT", "ABC-USDT", "ABC_USD", "SECOND"];

/// 2030-01-01: after every message in the corpora.
const LATE: UnixNs = UnixNs(1_893_456_000_000_000_000);

static BUILT_IN: LazyLock<FeedData> =
    LazyLock::new(|| data::load(&Overrides::default()).expect("the built-in rows and assets are right"));

/// The first byte chooses a row, `a` the first of them.
fn row_of(bytes: &[u8]) -> Option<(&'static Row, &[u8])> {
    let (first, message) = bytes.split_first()?;
    let rows = &BUILT_IN.rows;
    Some((&rows[usize::from(first.wrapping_sub(b'a')) % rows.len()], message))
}

fn listings<'s>(symbols: &[&'s str]) -> Vec<(&'s str, ListingId)> {
    let listing = |(n, symbol): (usize, &&'s str)| (*symbol, ListingId::new(n).expect("few listings"));
    symbols.iter().enumerate().map(listing).collect()
}

/// A message of a row's exchange gives at most one trade a listing, of a listing that was asked for,
/// at a positive price and no time that is to come; a second reading agrees with the first. What
/// serde_json takes is never called malformed.
pub fn message(bytes: &[u8]) {
    let Some((row, message)) = row_of(bytes) else { return };
    read_message(row, &SYMBOLS, message);
}

/// As [`message`], for a row.
pub(crate) fn read_message(row: &Row, symbols: &[&str], message: &[u8]) {
    let mut extractor = Extractor::new(row, listings(symbols)).expect("a row that was checked");
    let (mut first, mut again) = (Vec::new(), Vec::new());
    let frame = extractor.extract(message, LATE, &mut first);
    let is_json = serde_json::from_slice::<IgnoredAny>(message).is_ok();
    assert!(!is_json || frame != Frame::Malformed, "{}", message.escape_ascii());
    check_trades(symbols.len(), frame, &first);
    assert!(extractor.named().iter().all(|listing| listing.index() < symbols.len()));
    assert_eq!(extractor.extract(message, LATE, &mut again), frame);
    let plain = |trade: &Trade| (trade.listing, trade.price, trade.key.time);
    assert!(first.iter().map(plain).eq(again.iter().map(plain)), "{first:?} {again:?}");
}

fn check_trades(count: usize, frame: Frame<'_>, trades: &[Trade]) {
    assert_eq!(trades.len(), if let Frame::Trades(count) = frame { count } else { 0 });
    for (at, trade) in trades.iter().enumerate() {
        assert!(trade.listing.index() < count, "{trade:?}");
        assert!(trade.price.mantissa() > 0 && trade.key.time <= LATE, "{trade:?}");
        assert!(trades[..at].iter().all(|other| other.listing != trade.listing), "two of one listing");
    }
}

/// A REST body gives a trade of the listing that was asked for, or words that say why not.
pub fn rest(bytes: &[u8]) {
    let Some((row, body)) = row_of(bytes) else { return };
    let Some(mut reader) = RestReader::new(row).expect("a row that was checked") else { return };
    let listing = ListingId::new(7).expect("a listing");
    let first = reader.read(body, listing, LATE);
    match &first {
        Ok(trade) => {
            assert!(trade.listing == listing && trade.price.mantissa() > 0 && trade.key.time <= LATE);
        }
        Err(error) => assert!(error.to_string().len() < 800, "{error}"),
    }
    let again = reader.read(body, listing, LATE);
    assert_eq!(first.map(|trade| trade.price), again.map(|trade| trade.price));
}

/// Rows as TOML, alone and over the built-in ones: what is accepted can be used, what is refused is
/// refused in words. Behind a zero byte stands a message for the rows.
pub fn rows(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, message) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let Ok(text) = std::str::from_utf8(text) else { return };
    match data::rows(text, &[]) {
        Ok(rows) => {
            for row in &rows {
                read_message(row, &["ABC", "SECOND"], message);
                let mut reader = RestReader::new(row).expect("a row that was accepted");
                if let Some(reader) = &mut reader {
                    assert!(!reader.url("ABC").contains("{SYMBOL"));
                    let _ = reader.read(message, ListingId::new(0).expect("a listing"), LATE);
                }
                let made = Connection::new(Arc::new(row.clone()), listings(&["ABC"]), KEY_RANDOM, NOW);
                made.expect("a row that was accepted");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(changes) = Overrides::parse(text)
        && let Err(error) = data::load(&changes)
    {
        assert!(!error.to_string().is_empty());
    }
}

/// Assets as CSV: each that is accepted has a name of its own and is listed somewhere; what is refused
/// is refused in words.
pub fn assets(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match data::catalogue(&BUILT_IN.rows, text, &[]) {
        Ok((catalogue, _)) => {
            let mut symbols = HashSet::new();
            for asset in catalogue.assets() {
                assert!(!asset.listings.is_empty());
                assert!(symbols.insert(asset.symbol), "{} twice", asset.symbol);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What stands behind an accepted upgrade means the same in any pieces, and gives no trade but of
/// the symbols that were asked for. The first byte chooses the row.
pub fn connection(bytes: &[u8]) {
    let Some((row, bytes)) = row_of(bytes) else { return };
    let step = bytes.len() / 16 + 1;
    let cuts: Vec<usize> = (0..bytes.len()).step_by(step).collect();
    connection_cut(row, &SYMBOLS, bytes, &cuts);
}

/// As [`connection`], for a row, symbols and pieces.
pub(crate) fn connection_cut(row: &Row, symbols: &[&str], bytes: &[u8], cuts: &[usize]) {
    let all = [upgrade_answer().as_bytes(), bytes].concat();
    let upgrade_len = all.len() - bytes.len();
    let cuts: Vec<usize> = cuts.iter().map(|cut| upgrade_len + cut % (bytes.len() + 1)).collect();
    let whole = outcome(row, symbols, &all, &[]);
    for event in &whole.events {
        if let Heard::Trade(listing, price, _) = event {
            assert!(*listing < symbols.len(), "{event:?}");
            assert!(!price.starts_with('-') && price != "0");
        }
    }
    assert_eq!(outcome(row, symbols, &all, &cuts), whole);
}

pub(super) const KEY_RANDOM: [u8; 24] = [3; 24];

const NOW: Now = Now { mono: MonoNs(77), unix: LATE };

/// The answer that accepts the upgrade of [`KEY_RANDOM`].
pub(super) fn upgrade_answer() -> String {
    let key = Key::new(*KEY_RANDOM.first_chunk().expect("24 bytes"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: {}\r\n\r\n",
        key.accept()
    )
}

/// All that comes of some bytes at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) events: Vec<Heard>,
    pub(super) outbox: Vec<u8>,
    pub(super) end: Option<Disconnect>,
    pub(super) heard: Option<MonoNs>,
    pub(super) deadline: MonoNs,
}

/// Gives a new connection `bytes` in pieces that end at `cuts`.
pub(super) fn outcome(row: &Row, symbols: &[&str], bytes: &[u8], cuts: &[usize]) -> Outcome {
    let made = Connection::new(Arc::new(row.clone()), listings(symbols), KEY_RANDOM, NOW);
    let (mut connection, mut log, mut end) = (made.expect("a row that was checked"), Log::default(), None);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        if let Err(disconnect) = connection.receive(NOW, &bytes[from..cut], &mut log) {
            end = Some(disconnect);
            break;
        }
        from = cut;
    }
    let deadline = connection.deadline();
    let outbox = std::mem::take(connection.outbox());
    Outcome { events: log.events, outbox, end, heard: log.heard, deadline }
}

/// An event of a connection, kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    Trade(usize, String, u64),
    Live(usize),
    Acked(usize),
    Refused(usize, String),
    Error(String),
    ReconnectSoon,
}

/// Keeps all events but `heard`, which is only counted: it comes once for each read.
#[derive(Default)]
pub(super) struct Log {
    pub(super) events: Vec<Heard>,
    pub(super) heard: Option<MonoNs>,
}

impl Sink for Log {
    fn trade(&mut self, trade: Trade) {
        self.events.push(Heard::Trade(trade.listing.index(), trade.price.to_string(), trade.key.number));
    }

    fn heard(&mut self, now: MonoNs) {
        self.heard = Some(now);
    }

    fn live(&mut self, listing: ListingId) {
        self.events.push(Heard::Live(listing.index()));
    }

    fn acked(&mut self, listing: ListingId) {
        self.events.push(Heard::Acked(listing.index()));
    }

    fn symbol_refused(&mut self, listing: ListingId, words: &str) {
        self.events.push(Heard::Refused(listing.index(), words.into()));
    }

    fn error(&mut self, words: &str) {
        self.events.push(Heard::Error(words.into()));
    }

    fn reconnect_soon(&mut self) {
        self.events.push(Heard::ReconnectSoon);
    }
}
