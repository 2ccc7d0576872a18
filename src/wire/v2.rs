//! UDP v2: fixed binary layouts, little-endian, every field at an offset of its own size.
//!
//! ```text
//! request, 88 to 1,232 bytes               answer, 88 bytes
//!  0 magic BE A5, version 2, kind 01        0 magic, version, kind 81
//!  4 exchange, 0 any; 5..8 zero             4 status 0; 5 flags; 6 exchange; 7 exponent
//!  8 key id                                 8 request id
//! 16 time, Unix ms                         16 mantissa
//! 24 request id                            24 exchange's time, Unix ns
//! 32 symbol, 16 bytes                      32 receive time, Unix ns
//! 48 tag of 0..48                          40 quote currency, 8 bytes
//! 56 zeros to the end                      48 symbol, 16 bytes
//!                                          64 record: epoch u32, shard u16, zero u16
//! error, 40 bytes                          72 record: sequence u64
//!  0 magic, version, kind 82               80 tag of 0..80
//!  4 status; 5..8 zero
//!  8 request id
//! 16 server's time, Unix ms
//! 24 retry after, ms, u32; 28 zero u32
//! 32 tag of 0..32, or zero
//! ```
//!
//! An answer is never longer than its request: the shortest request is as long as the answer.

mod answer;
mod client;
mod error;

pub use answer::{AnswerTemplate, RecordId};
pub use client::{Answer, Reply, ReplyFault, Request, write_request};
pub use error::{Refusal, write_error};

use std::fmt;

use super::Reject;
use crate::limits::{EXCHANGES_MAX, UDP_PAYLOAD_MAX};
use crate::price::{ExchangeId, Symbol};
use crate::siphash::SipHash;

/// Length of an answer and least length of a request, in bytes.
pub const ANSWER_LEN: usize = 88;

/// Length of an error, in bytes.
pub const ERROR_LEN: usize = 40;

/// How far a request's time may lie from the server's, either way, in milliseconds. Wider lets a
/// recorded request be replayed for longer, narrower refuses clients with slow clocks.
pub const WINDOW_MS: u64 = 10_000;

const MAGIC: [u8; 2] = [0xbe, 0xa5];
const VERSION: u8 = 2;
const KIND_REQUEST: u8 = 0x01;
const KIND_ANSWER: u8 = 0x81;
const KIND_ERROR: u8 = 0x82;

/// What the first four bytes of each kind must be.
const REQUEST_HEAD: [u8; 4] = [MAGIC[0], MAGIC[1], VERSION, KIND_REQUEST];
const ANSWER_HEAD: [u8; 4] = [MAGIC[0], MAGIC[1], VERSION, KIND_ANSWER];
const ERROR_HEAD: [u8; 4] = [MAGIC[0], MAGIC[1], VERSION, KIND_ERROR];

/// Where a request's zeros begin.
const ZEROS_AT: usize = 56;

const _: () = assert!(ERROR_LEN <= ANSWER_LEN && ANSWER_LEN <= UDP_PAYLOAD_MAX);

/// A key of SipHash-2-4: the request key or the answer key of an API key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The tag of whole words.
    #[inline]
    pub(crate) fn tag<const WORDS: usize>(&self, words: &[u64; WORDS]) -> u64 {
        SipHash::new(self.0).hash_words(words)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// Whether a datagram means to be v2. v1 never begins so.
#[must_use]
#[inline]
pub fn looks_like(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// Whether a request's time is close enough to ours; both in Unix milliseconds.
#[must_use]
#[inline]
pub fn in_window(request_ms: u64, now_ms: u64) -> bool {
    request_ms.abs_diff(now_ms) <= WINDOW_MS
}

/// The request id of a datagram that may be no valid request, 0 when it is too short to have one.
#[must_use]
pub fn request_id(datagram: &[u8]) -> u64 {
    let field = datagram.get(24..).and_then(|rest| rest.first_chunk::<8>());
    field.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A request whose layout is valid. Its tag is not checked yet: the key is looked up first.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The first seven words: everything but the zeros.
    words: &'a [[u8; 8]; 7],
}

impl<'a> RequestView<'a> {
    /// Checks length, magic, version, kind, exchange number and zeros.
    ///
    /// # Errors
    /// [`Reject::IsAnswer`] for answers and errors of v2, else [`Reject::BadRequest`].
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Reject> {
        let Some(head) = datagram.first_chunk::<4>() else { return Err(Reject::BadRequest) };
        if *head != REQUEST_HEAD {
            let answer = [MAGIC[0], MAGIC[1], KIND_ANSWER, KIND_ERROR];
            let is_answer = head[..2] == answer[..2] && answer[2..].contains(&head[3]);
            return Err(if is_answer { Reject::IsAnswer } else { Reject::BadRequest });
        }
        let Some((fields, zeros)) = datagram.split_first_chunk::<ZEROS_AT>() else {
            return Err(Reject::BadRequest);
        };
        if datagram.len() < ANSWER_LEN || datagram.len() > UDP_PAYLOAD_MAX {
            return Err(Reject::BadRequest);
        }
        let (zero_words, zero_rest) = zeros.as_chunks::<8>();
        let mut set = zero_words.iter().fold(0, |set, word| set | u64::from_le_bytes(*word));
        set |= zero_rest.iter().fold(0, |set, byte| set | u64::from(*byte));
        set |= u64::from(fields[5] | fields[6] | fields[7]);
        if set != 0 || usize::from(fields[4]) >= EXCHANGES_MAX {
            return Err(Reject::BadRequest);
        }
        let (words, _) = fields.as_chunks::<8>();
        let Some(words) = words.first_chunk::<7>() else { return Err(Reject::BadRequest) };
        Ok(Self { words })
    }

    /// Number of the API key: the token's public id.
    #[must_use]
    #[inline]
    pub fn key_id(&self) -> u64 {
        self.word(1)
    }

    /// When the client made the request, in Unix milliseconds.
    #[must_use]
    #[inline]
    pub fn time_ms(&self) -> u64 {
        self.word(2)
    }

    /// What the answer repeats.
    #[must_use]
    #[inline]
    pub fn request_id(&self) -> u64 {
        self.word(3)
    }

    /// The exchange whose price is asked for, `None` for any.
    #[must_use]
    #[inline]
    pub fn exchange(&self) -> Option<ExchangeId> {
        match self.words[0][4] {
            0 => None,
            // `parse` has checked the bound.
            number => ExchangeId::new(usize::from(number)).ok(),
        }
    }

    /// The asset asked for, `None` when the field holds no symbol.
    #[must_use]
    #[inline]
    pub fn symbol(&self) -> Option<Symbol> {
        let padded = u128::from(self.word(5)) << 64 | u128::from(self.word(4));
        Symbol::from_padded(padded.to_le_bytes())
    }

    /// Whether the tag is that of the fields under `request_key`.
    #[must_use]
    #[inline]
    pub fn tag_valid(&self, request_key: &Key) -> bool {
        let signed: [u64; 6] = std::array::from_fn(|i| self.word(i));
        request_key.tag(&signed) == self.word(6)
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.words[index])
    }
}

/// Writes little-endian words over the start of `out`; `None` when they do not fit.
#[inline(always)]
fn put_words<const WORDS: usize>(out: &mut [u8], words: &[u64; WORDS]) -> Option<usize> {
    let (room, _) = out.as_chunks_mut::<8>();
    for (to, from) in room.first_chunk_mut::<WORDS>()?.iter_mut().zip(words) {
        *to = from.to_le_bytes();
    }
    Some(WORDS * 8)
}

/// The first word of a message.
fn first_word(head: [u8; 4], rest: [u8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(rest)) << 32 | u64::from(u32::from_le_bytes(head))
}

#[cfg(test)]
mod tests;
