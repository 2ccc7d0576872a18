//! The answer of v2: prepared when a price changes, completed for each request.

use super::{ANSWER_HEAD, ANSWER_LEN, Key, first_word, put_words};
use crate::price::{Currency, ExchangeId, Quote, Symbol, Tier};

/// Which usage record an answer is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// Start of the server process the record belongs to; rises.
    pub epoch: u32,
    /// Shard that answered.
    pub shard: u16,
    /// Number of the record within epoch and shard.
    pub sequence: u64,
}

/// An answer without what only the request decides: its id, its record and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTemplate {
    words: [u64; 8],
}

impl AnswerTemplate {
    /// Everything a quote says about a symbol.
    #[must_use]
    pub fn new(symbol: Symbol, currency: Currency, exchange: ExchangeId, quote: &Quote) -> Self {
        // Exchange numbers are below 64.
        let exchange = u8::try_from(exchange.index()).unwrap_or(0);
        let fields = [0, tier_bits(quote.tier), exchange, quote.price.exponent().to_le_bytes()[0]];
        let (symbol_low, symbol_high) = halves(symbol.as_u128());
        Self {
            words: [
                first_word(ANSWER_HEAD, fields),
                0,
                quote.price.mantissa().cast_unsigned(),
                quote.key.time.0,
                quote.received.0,
                u64::from_le_bytes(*currency.padded()),
                symbol_low,
                symbol_high,
            ],
        }
    }

    /// The words up to the record, the second of them 0 in the place of the request's id: for a
    /// program in the kernel that completes them itself.
    #[must_use]
    pub fn words(&self) -> &[u64; 8] {
        &self.words
    }

    /// Writes the answer. Returns its length, or `None` when `out` is shorter than
    /// [`ANSWER_LEN`].
    #[must_use]
    #[inline]
    pub fn write(
        &self,
        out: &mut [u8],
        request_id: u64,
        record: RecordId,
        answer_key: &Key,
    ) -> Option<usize> {
        let [head, _, mantissa, time, received, currency, symbol_low, symbol_high] = self.words;
        let place = u64::from(record.shard) << 32 | u64::from(record.epoch);
        let signed = [
            head,
            request_id,
            mantissa,
            time,
            received,
            currency,
            symbol_low,
            symbol_high,
            place,
            record.sequence,
        ];
        let tag = answer_key.tag(&signed);
        let out = out.get_mut(..ANSWER_LEN)?;
        put_words(out, &signed)?;
        put_words(out.get_mut(80..)?, &[tag])?;
        Some(ANSWER_LEN)
    }
}

/// The two low bits of an answer's flags.
fn tier_bits(tier: Tier) -> u8 {
    match tier {
        Tier::Ws => 0,
        Tier::Rest => 1,
        Tier::Cache => 2,
    }
}

/// The inverse of [`tier_bits`].
pub(super) fn tier_of(flags: u8) -> Option<Tier> {
    [Tier::Ws, Tier::Rest, Tier::Cache].into_iter().find(|tier| tier_bits(*tier) == flags)
}

#[expect(clippy::cast_possible_truncation, reason = "the number is cut into its halves")]
pub(super) fn halves(number: u128) -> (u64, u64) {
    (number as u64, (number >> 64) as u64)
}
