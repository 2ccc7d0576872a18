//! The error of v2.

use super::{ERROR_HEAD, ERROR_LEN, Key, first_word, put_words};
use crate::wire::ErrorCode;

/// What an error tells a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why there is no price.
    pub code: ErrorCode,
    /// The request's id, 0 when it had none.
    pub request_id: u64,
    /// The server's clock, in Unix milliseconds.
    pub server_time_ms: u64,
    /// How long to wait before asking again, in milliseconds; 0 when waiting does not help.
    pub retry_after_ms: u32,
}

/// Writes an error, with a tag when the client's answer key is known. Returns its length, or `None`
/// when `out` or `len_max`, the length of the request, is shorter than [`ERROR_LEN`].
#[must_use]
pub fn write_error(
    out: &mut [u8],
    len_max: usize,
    refusal: &Refusal,
    answer_key: Option<&Key>,
) -> Option<usize> {
    if len_max < ERROR_LEN {
        return None;
    }
    let signed = [
        first_word(ERROR_HEAD, [refusal.code.number(), 0, 0, 0]),
        refusal.request_id,
        refusal.server_time_ms,
        u64::from(refusal.retry_after_ms),
    ];
    let tag = answer_key.map_or(0, |key| key.tag(&signed));
    let [head, request_id, time, retry] = signed;
    put_words(out, &[head, request_id, time, retry, tag])
}
