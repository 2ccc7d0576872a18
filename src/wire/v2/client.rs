//! The client's side of v2, for the load generator and for tests.

use std::fmt;

use super::answer::{halves, tier_of};
use super::{
    ANSWER_HEAD, ANSWER_LEN, ERROR_HEAD, ERROR_LEN, Key, REQUEST_HEAD, RecordId, Refusal, first_word,
    put_words,
};
use crate::price::{Currency, ExchangeId, Price, Symbol, Tier};
use crate::wire::ErrorCode;

/// What a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of the API key: the token's public id.
    pub key_id: u64,
    /// The client's clock, in Unix milliseconds.
    pub time_ms: u64,
    /// What the answer repeats; never the same twice.
    pub request_id: u64,
    /// The exchange whose price is wanted, `None` for any.
    pub exchange: Option<ExchangeId>,
    /// The asset.
    pub symbol: Symbol,
}

/// Writes a request of the least length. Returns its length, or `None` when `out` is shorter.
#[must_use]
pub fn write_request(out: &mut [u8], request: &Request, request_key: &Key) -> Option<usize> {
    let exchange = request.exchange.map_or(0, |id| u8::try_from(id.index()).unwrap_or(0));
    let (symbol_low, symbol_high) = halves(request.symbol.as_u128());
    let signed = [
        first_word(REQUEST_HEAD, [exchange, 0, 0, 0]),
        request.key_id,
        request.time_ms,
        request.request_id,
        symbol_low,
        symbol_high,
    ];
    let tag = request_key.tag(&signed);
    let [head, key_id, time, id, ..] = signed;
    put_words(out, &[head, key_id, time, id, symbol_low, symbol_high, tag, 0, 0, 0, 0])
}

/// A reply whose layout is valid and whose tag, where it must have one, is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A price.
    Answer(Answer),
    /// An error under the client's answer key.
    Refused(Refusal),
    /// An error without a tag: anyone may have sent it.
    RefusedUnsigned(Refusal),
}

/// A price as v2 carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's id.
    pub request_id: u64,
    /// The asset.
    pub symbol: Symbol,
    /// The exact price.
    pub price: Price,
    /// What the price is in.
    pub currency: Currency,
    /// Where the price is from.
    pub exchange: ExchangeId,
    /// How it came.
    pub tier: Tier,
    /// The exchange's time of the trade, in Unix nanoseconds.
    pub exchange_time_ns: u64,
    /// When the server received it, in Unix nanoseconds.
    pub receive_time_ns: u64,
    /// The usage record the answer is charged to.
    pub record: RecordId,
}

/// Why bytes are not a reply to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// Neither an answer nor an error of v2.
    Malformed,
    /// The tag is not that of the bytes under this key.
    WrongTag,
    /// The tag is right but a field is outside what v2 defines: a newer server, perhaps.
    OutOfRange,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "neither an answer nor an error of v2",
            Self::WrongTag => "the tag is wrong: forged, damaged, or made under another key",
            Self::OutOfRange => "a field is outside what v2 defines",
        })
    }
}

impl std::error::Error for ReplyFault {}

impl Reply {
    /// Checks and reads a datagram from the server.
    ///
    /// # Errors
    /// See [`ReplyFault`].
    pub fn parse(datagram: &[u8], answer_key: &Key) -> Result<Self, ReplyFault> {
        if let Ok(bytes) = <&[u8; ANSWER_LEN]>::try_from(datagram) {
            let words = words::<{ ANSWER_LEN / 8 }>(bytes);
            let [signed @ .., tag] = words;
            if !datagram.starts_with(&ANSWER_HEAD) {
                return Err(ReplyFault::Malformed);
            }
            if answer_key.tag(&signed) != tag {
                return Err(ReplyFault::WrongTag);
            }
            return answer(&signed, bytes).map(Self::Answer).ok_or(ReplyFault::OutOfRange);
        }
        if let Ok(bytes) = <&[u8; ERROR_LEN]>::try_from(datagram) {
            let words = words::<{ ERROR_LEN / 8 }>(bytes);
            let [signed @ .., tag] = words;
            if !datagram.starts_with(&ERROR_HEAD) {
                return Err(ReplyFault::Malformed);
            }
            if tag != 0 && answer_key.tag(&signed) != tag {
                return Err(ReplyFault::WrongTag);
            }
            let refusal = refusal(&signed, bytes).ok_or(ReplyFault::OutOfRange)?;
            return Ok(if tag == 0 { Self::RefusedUnsigned(refusal) } else { Self::Refused(refusal) });
        }
        Err(ReplyFault::Malformed)
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> u64 {
        match self {
            Self::Answer(answer) => answer.request_id,
            Self::Refused(refusal) | Self::RefusedUnsigned(refusal) => refusal.request_id,
        }
    }
}

fn answer(words: &[u64; 10], bytes: &[u8; ANSWER_LEN]) -> Option<Answer> {
    let [_, request_id, mantissa, exchange_time_ns, receive_time_ns, currency, low, high, place, sequence] =
        *words;
    let (status, zero) = (bytes[4], place >> 48);
    if status != 0 || zero != 0 {
        return None;
    }
    let symbol = u128::from(high) << 64 | u128::from(low);
    let currency = currency.to_le_bytes();
    let currency_len = currency.iter().position(|byte| *byte == 0).unwrap_or(currency.len());
    let [epoch @ .., shard_low, shard_high, _, _] = place.to_le_bytes();
    Some(Answer {
        request_id,
        symbol: Symbol::from_padded(symbol.to_le_bytes())?,
        price: Price::from_parts(mantissa.cast_signed(), i8::from_le_bytes([bytes[7]])).ok()?,
        currency: Currency::from_bytes(&currency[..currency_len]).filter(|c| *c.padded() == currency)?,
        exchange: ExchangeId::new(usize::from(bytes[6])).ok()?,
        tier: tier_of(bytes[5])?,
        exchange_time_ns,
        receive_time_ns,
        record: RecordId {
            epoch: u32::from_le_bytes(epoch),
            shard: u16::from_le_bytes([shard_low, shard_high]),
            sequence,
        },
    })
}

fn refusal(words: &[u64; 4], bytes: &[u8; ERROR_LEN]) -> Option<Refusal> {
    let [_, request_id, server_time_ms, retry] = *words;
    if bytes[5..8] != [0; 3] {
        return None;
    }
    Some(Refusal {
        code: ErrorCode::from_number(bytes[4])?,
        request_id,
        server_time_ms,
        retry_after_ms: u32::try_from(retry).ok()?,
    })
}

/// The bytes, `WORDS` times eight of them, as little-endian words.
fn words<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(chunks[i]))
}
