//! From a message of an exchange to trades of our listings, as its row says. Allocates nothing once
//! it is built, but for what the caller's vector needs.
//!
//! Of keys that occur twice in one object the first counts for single values; elements of all count.

use super::frame::{Frame, Refused, Trade};
use super::path::Path;
use super::plan::{Plan, marks};
use super::row::{Row, RowError};
use super::scan::{self, UNESCAPED_MAX};
use super::symbols::{EXCHANGE_SYMBOL_LEN_MAX, SymbolTable};
use super::walk::{Walk, Whose, whole_number};
use crate::price::ListingId;
use crate::time::UnixNs;

/// Reads the messages of one connection. Make one per connection: trades of exchanges without trade
/// numbers get numbers that rise over its life, from the moment of receipt on.
#[derive(Debug)]
pub struct Extractor {
    plan: Plan,
    whose: Whose,
    walk: Walk,
    named: Vec<ListingId>,
    pong_text: Option<Box<[u8]>>,
    heartbeat_id: Option<Path>,
    request_id: Option<Path>,
    error_text: Option<Path>,
    error_symbol: Option<SymbolIn>,
    ack_symbol: Option<SymbolIn>,
}

/// Where an ack or error names symbols.
#[derive(Debug)]
struct SymbolIn {
    path: Path,
    /// The symbol begins behind this and ends where its characters end; none: it is the value.
    after: Option<Box<[u8]>>,
}

impl Extractor {
    /// For a row and the listings to be read, each with the exchange's own symbol.
    ///
    /// # Errors
    /// When the row has a mistake, or a symbol occurs twice, is empty or longer than 32 bytes.
    pub fn new<'s>(
        row: &Row,
        listings: impl IntoIterator<Item = (&'s str, ListingId)>,
    ) -> Result<Self, RowError> {
        row.check()?;
        let plan = Plan::of_feed(row)?;
        let listings: Vec<_> = listings.into_iter().collect();
        let count = listings.len();
        let table = SymbolTable::new(listings, row.ignore_case).map_err(|symbol| {
            let needed = format!("symbols of 1 to {EXCHANGE_SYMBOL_LEN_MAX} bytes, each for one asset only");
            row.error("symbol", &symbol, &needed)
        })?;
        let path = |field, text: &Option<String>| text.as_ref().map(|t| row.path(field, t)).transpose();
        let symbol_in = |field, text: &Option<String>, after: &Option<String>| {
            let after = after.as_ref().map(|a| a.as_bytes().into());
            Ok(path(field, text)?.map(|path| SymbolIn { path, after }))
        };
        Ok(Self {
            walk: Walk::new(&plan, count),
            plan,
            whose: Whose::Symbols(table),
            named: Vec::with_capacity(count),
            pong_text: row.pong_text.as_ref().map(|text| text.as_bytes().into()),
            heartbeat_id: path("heartbeat_id", &row.heartbeat_id)?,
            request_id: path("request_id", &row.request_id)?,
            error_text: path("error_text", &row.error_text)?,
            error_symbol: symbol_in("error_symbol", &row.error_symbol, &row.error_symbol_after)?,
            ack_symbol: symbol_in("ack_symbol", &row.ack_symbol, &row.ack_symbol_after)?,
        })
    }

    /// Reads a message that was received at `received` and appends the newest trade of each listing
    /// in it to `out`.
    pub fn extract<'f>(&mut self, message: &'f [u8], received: UnixNs, out: &mut Vec<Trade>) -> Frame<'f> {
        self.named.clear();
        if self.pong_text.as_deref().is_some_and(|pong| pong == message.trim_ascii()) {
            return Frame::Pong;
        }
        match self.walk.read(&self.plan, &self.whose, message, received, out) {
            Ok(Some(count)) => Frame::Trades(count),
            Ok(None) => self.classify(message),
            Err(scan::Broken) => Frame::Malformed,
        }
    }

    /// Listings the last ack or error named.
    #[must_use]
    pub fn named(&self) -> &[ListingId] {
        &self.named
    }

    /// Trades refused since this was made.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.walk.refused
    }

    /// What a whole message is that holds no trades.
    fn classify<'f>(&mut self, message: &'f [u8]) -> Frame<'f> {
        let is = |checks| marks(checks, message, &self.walk.slots);
        if is(&self.plan.heartbeat) {
            return Frame::Heartbeat { id: quoted(self.heartbeat_id.as_ref(), message).unwrap_or(b"") };
        }
        // Errors first: an error may bear the id of a ping or subscribe.
        if is(&self.plan.error) {
            name(&self.whose, self.error_symbol.as_ref(), message, &mut self.named);
            let text = self.error_text.as_ref().and_then(|path| raw(path, message));
            return Frame::Error { request: self.request(message), text: text.unwrap_or(message) };
        }
        if is(&self.plan.pong) {
            return Frame::Pong;
        }
        if is(&self.plan.notice) {
            return Frame::Notice;
        }
        if is(&self.plan.ack) {
            name(&self.whose, self.ack_symbol.as_ref(), message, &mut self.named);
            return Frame::Ack { request: self.request(message) };
        }
        Frame::Other
    }

    fn request(&self, message: &[u8]) -> Option<u64> {
        whole_number(raw(self.request_id.as_ref()?, message)?)
    }
}

/// The text of the first value at a path.
pub(super) fn raw<'f>(path: &Path, message: &'f [u8]) -> Option<&'f [u8]> {
    first(path, message).map(|span| span.raw(message)).filter(|text| !text.is_empty())
}

fn quoted<'f>(path: Option<&Path>, message: &'f [u8]) -> Option<&'f [u8]> {
    first(path?, message).map(|span| span.quoted(message))
}

fn first(path: &Path, message: &[u8]) -> Option<scan::Span> {
    let mut found = None;
    let start = scan::space(message, 0);
    // The message was walked once already, so it is whole.
    let _ = scan::each(message, start, &path.steps, &mut |span| {
        found.get_or_insert(span);
    });
    found
}

/// Gathers the listings of ours that the values at a path name.
fn name(whose: &Whose, symbol_in: Option<&SymbolIn>, message: &[u8], named: &mut Vec<ListingId>) {
    let (Some(symbol_in), Whose::Symbols(table)) = (symbol_in, whose) else { return };
    let start = scan::space(message, 0);
    let _ = scan::each(message, start, &symbol_in.path.steps, &mut |span| {
        let mut buffer = [0; UNESCAPED_MAX];
        // Long texts come raw: an escape in front of the symbol does no harm.
        let value = span.plain(message, &mut buffer).unwrap_or(span.raw(message));
        let symbol = match &symbol_in.after {
            None => Some(value),
            Some(after) => memchr::memmem::find(value, after).map(|at| {
                let rest = &value[at + after.len()..];
                let end = rest.iter().position(|b| !is_symbol_byte(*b)).unwrap_or(rest.len());
                &rest[..end]
            }),
        };
        if let Some(listing) = symbol.and_then(|symbol| table.find(symbol))
            && !named.contains(&listing)
        {
            named.push(listing);
        }
    });
}

fn is_symbol_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/')
}
