//! What is made once when a price changes and copied for every answer.

use crate::limits::V1_HEAD_LEN_MAX;
use crate::price::{Catalogue, ListingId, Quote};
use crate::wire::{v1, v2};

/// The answers of one quote, ready but for what belongs to a request.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The v2 answer without request id, record and tag.
    pub v2: v2::AnswerTemplate,
    head_len: u8,
    head: [u8; V1_HEAD_LEN_MAX],
}

const _: () = assert!(V1_HEAD_LEN_MAX <= u8::MAX as usize);

impl Ready {
    /// Makes the answers of a quote of one of the catalogue's listings.
    #[must_use]
    pub fn new(catalogue: &Catalogue, listing: ListingId, quote: &Quote) -> Self {
        let listing = catalogue.listing(listing);
        let (symbol, exchange) = catalogue.names(listing);
        let mut head = [0; V1_HEAD_LEN_MAX];
        let ts_ms = quote.key.time.ms();
        let head_len =
            v1::write_head(&mut head, symbol, listing.quote, quote.price, exchange, quote.tier, ts_ms);
        Self {
            v2: v2::AnswerTemplate::new(symbol, listing.quote, listing.exchange, quote),
            // The room is the sum of the longest parts, so this cannot fail; an empty head would
            // be refused as an answer that is too short to be one.
            head_len: head_len.and_then(|len| u8::try_from(len).ok()).unwrap_or(0),
            head,
        }
    }

    /// The v1 answer up to, and without, the id and the closing brace.
    #[must_use]
    #[inline]
    pub fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }
}
