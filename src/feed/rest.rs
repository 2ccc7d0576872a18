//! The pure part of asking an exchange by REST: the URL for a symbol, and the trade in the body that
//! comes back.

use std::fmt;

use super::extract::raw;
use super::frame::{Refused, Trade};
use super::path::Path;
use super::plan::{Plan, marks};
use super::row::{RestRow, Row, RowError, with_symbol};
use super::scan::Broken;
use super::walk::{Walk, Whose};
use crate::price::ListingId;
use crate::time::UnixNs;

/// Reads the bodies of one exchange's REST endpoint.
#[derive(Debug)]
pub struct RestReader {
    row: RestRow,
    plan: Plan,
    walk: Walk,
    error_text: Option<Path>,
    trades: Vec<Trade>,
}

/// Why a body holds no trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestError {
    /// Not JSON, or cut off.
    Malformed,
    /// The exchange refused; its words, cut to 200 bytes.
    Refused(String),
    /// No trade in it.
    NoTrade,
    /// Only trades that had to be refused; the first reason.
    BadTrade(&'static str),
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the body is not JSON or cut off"),
            Self::Refused(text) => write!(f, "the exchange refused: {text}"),
            Self::NoTrade => f.write_str("the body holds no trade"),
            Self::BadTrade(reason) => write!(f, "the body's trade was refused: {reason}"),
        }
    }
}

impl std::error::Error for RestError {}

impl RestReader {
    /// For a row; `None` when it has no REST endpoint.
    ///
    /// # Errors
    /// When the row has a mistake.
    pub fn new(row: &Row) -> Result<Option<Self>, RowError> {
        let Some(rest) = &row.rest else { return Ok(None) };
        row.check()?;
        let plan = Plan::of_rest(row, rest)?;
        let error_text = rest.error_text.as_ref().map(|t| row.path("rest.error_text", t)).transpose()?;
        Ok(Some(Self {
            walk: Walk::new(&plan, 1),
            row: rest.clone(),
            plan,
            error_text,
            trades: Vec::with_capacity(1),
        }))
    }

    /// Reads a body for a listing that was received at `received`.
    ///
    /// # Errors
    /// When there is no good trade in it.
    pub fn read(&mut self, body: &[u8], listing: ListingId, received: UnixNs) -> Result<Trade, RestError> {
        self.trades.clear();
        let before = self.walk.refused;
        let whose = Whose::Known(listing);
        self.walk
            .read(&self.plan, &whose, body, received, &mut self.trades)
            .map_err(|Broken| RestError::Malformed)?;
        if marks(&self.plan.error, body, &self.walk.slots) {
            let text = self.error_text.as_ref().and_then(|path| raw(path, body)).unwrap_or(body);
            let text = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
            return Err(RestError::Refused(text));
        }
        self.trades.first().copied().ok_or_else(|| self.why_none(before))
    }

    /// Bodies' trades refused since this was made.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.walk.refused
    }

    /// The URL for a symbol of this exchange.
    #[must_use]
    pub fn url(&self, symbol: &str) -> String {
        let rest = &self.row;
        let url = with_symbol(&rest.url, symbol);
        if !url.contains("{SYMBOL_REST}") {
            return url;
        }
        let replaced = |part: &str| {
            let pair = rest.symbol_parts.iter().find(|(from, _)| from == part);
            pair.map_or(part.to_owned(), |(_, to)| to.clone())
        };
        let parts: Vec<String> = match &rest.symbol_cut {
            Some(cut) => symbol.split(cut.as_str()).map(replaced).collect(),
            None => vec![replaced(symbol)],
        };
        url.replace("{SYMBOL_REST}", &parts.join(&rest.symbol_join))
    }

    fn why_none(&self, before: Refused) -> RestError {
        let now = self.walk.refused.by_reason();
        let grown = now.iter().zip(before.by_reason()).find(|((_, now), (_, before))| now > before);
        grown.map_or(RestError::NoTrade, |((reason, _), _)| RestError::BadTrade(reason))
    }
}
