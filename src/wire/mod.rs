//! The UDP protocols: views over received bytes and writers of answers; pure.
//!
//! ```text
//! datagram ──► v2::looks_like? ──► v2::RequestView ──► v2::AnswerTemplate::write ──► 88 bytes
//!         └──► v1::parse ───────► v1::Request ──────► v1::write_answer ──────────► JSON
//! ```
//!
//! `docs/PROTOCOL.md` describes every byte for people who write clients. Writers fill a slice that
//! the caller owns and return how much of it they used, or `None` when the bytes do not fit the
//! bound they were given; nothing here allocates or panics.

#[doc(hidden)]
pub mod fuzz;
pub mod v1;
pub mod v2;

use crate::limits::{UDP_PAYLOAD_MAX, V1_AMPLIFICATION_MAX};

/// Why a client gets an error instead of a price. UDP v1, UDP v2 and HTTP share these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// Not a request, or its answer would be longer than the protocol allows.
    BadRequest = 1,
    /// No key, no such key, a revoked key, or a wrong tag.
    Unauthorized = 2,
    /// No asset of that name, or the named exchange does not list it.
    UnknownAsset = 3,
    /// Over the key's rate.
    RateLimited = 4,
    /// Over the key's month.
    MonthlyLimit = 5,
    /// No exchange has a fresh price of the asset.
    Stale = 6,
    /// The server cannot take the request just now.
    Overloaded = 7,
    /// The request's time is too far from the server's. Only v2.
    Expired = 8,
}

impl ErrorCode {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::UnknownAsset,
        Self::RateLimited,
        Self::MonthlyLimit,
        Self::Stale,
        Self::Overloaded,
        Self::Expired,
    ];

    /// The name of v1 and HTTP.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::UnknownAsset => "unknown_asset",
            Self::RateLimited => "rate_limited",
            Self::MonthlyLimit => "monthly_limit",
            Self::Stale => "stale",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
        }
    }

    /// The number of v2; never 0, which means no error.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// From the number of v2.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// Why a datagram is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// It is malformed: the client gets [`ErrorCode::BadRequest`], if a reply may be sent.
    BadRequest,
    /// It is itself an answer, so it gets none: two servers must never talk to each other.
    IsAnswer,
}

impl Reject {
    /// What the client is told, `None` for silence.
    #[must_use]
    pub fn code(self) -> Option<ErrorCode> {
        match self {
            Self::BadRequest => Some(ErrorCode::BadRequest),
            Self::IsAnswer => None,
        }
    }
}

/// Longest v1 answer to a request of `request_len` bytes whose key was valid. Before a valid key is
/// seen the bound is `request_len` itself.
#[must_use]
#[inline]
pub fn answer_len_max(request_len: usize) -> usize {
    request_len.saturating_mul(V1_AMPLIFICATION_MAX).min(UDP_PAYLOAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_zero_is_no_error() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::from_number(9), None);
    }

    #[test]
    fn answers_are_bounded_by_request_and_payload() {
        assert_eq!(answer_len_max(0), 0);
        assert_eq!(answer_len_max(100), 300);
        assert_eq!(answer_len_max(1_232), 1_232);
        assert_eq!(answer_len_max(usize::MAX), 1_232);
    }
}
