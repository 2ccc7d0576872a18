//! What is asked, and whether an answer is right.

use crate::time::UnixNs;
use crate::wire::ErrorCode;

/// What an answer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was asked for, by the request of this id.
    Match(u64),
    /// A well-formed refusal of the request of this id.
    Refused(u64, ErrorCode),
    /// Not what the request of this id asked for.
    Wrong(u64),
    /// Not an answer to anything this generator asks.
    Stray,
}

/// How much of an id an answer brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireId {
    /// All 64 bits.
    Whole,
    /// The lower 32: a late answer may be taken for that of a request 65,536 uses of its slot later.
    Low32,
    /// The lower 16: a late answer is taken for that of whoever uses the slot then.
    Low16,
    /// Nothing: an answer is taken for that of the oldest request on its socket.
    None,
}

/// A kind of request. Ids are opaque 64-bit numbers that the answer must bring back.
pub trait Requests {
    /// Writes the request of this id, made `now`, to the front of `out`, which has room for
    /// [`UDP_PAYLOAD_MAX`](crate::limits::UDP_PAYLOAD_MAX) bytes, and returns its length.
    fn fill(&mut self, id: u64, now: UnixNs, out: &mut [u8]) -> usize;

    /// Judges a datagram that came back. The ids of the verdict have as many bits as
    /// [`wire_id`](Self::wire_id) says.
    fn check(&mut self, answer: &[u8]) -> Verdict;

    /// How much of an id answers bring back.
    fn wire_id(&self) -> WireId {
        WireId::Whole
    }
}

/// Which of `count` things the request of this id asks for: spread evenly, and the same when the
/// answer is judged.
pub(super) fn pick(id: u64, count: usize) -> usize {
    // The high bits of a multiplication by the golden ratio: ids that lie close together spread.
    let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(spread).unwrap_or(0) % count.max(1)
}

/// Datagrams of fixed lengths without a protocol, for bare servers: the id in the first 8 bytes
/// (little endian), then one byte repeated.
#[derive(Clone, Debug)]
pub struct Echo {
    request_len: usize,
    answer_tail: Vec<u8>,
}

impl Echo {
    /// Bytes of the id, the shortest request and answer.
    pub const ID_LEN: usize = 8;
    /// What follows the id in a request.
    pub const REQUEST_FILL: u8 = b'q';
    /// What follows the id in an answer.
    pub const ANSWER_FILL: u8 = b'a';

    /// Requests and answers of these lengths, in bytes; below [`ID_LEN`](Self::ID_LEN) counts as
    /// that.
    #[must_use]
    pub fn new(request_len: usize, answer_len: usize) -> Self {
        let tail_len = answer_len.saturating_sub(Self::ID_LEN);
        Self { request_len: request_len.max(Self::ID_LEN), answer_tail: vec![Self::ANSWER_FILL; tail_len] }
    }
}

impl Requests for Echo {
    fn fill(&mut self, id: u64, _: UnixNs, out: &mut [u8]) -> usize {
        let len = self.request_len.min(out.len());
        let (head, tail) = out[..len].split_at_mut(Self::ID_LEN);
        head.copy_from_slice(&id.to_le_bytes());
        tail.fill(Self::REQUEST_FILL);
        len
    }

    fn check(&mut self, answer: &[u8]) -> Verdict {
        match answer.split_first_chunk() {
            Some((id, tail)) if tail == self.answer_tail => Verdict::Match(u64::from_le_bytes(*id)),
            Some((id, _)) => Verdict::Wrong(u64::from_le_bytes(*id)),
            None => Verdict::Stray,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_brings_its_id_back_and_nothing_else_passes() {
        let mut echo = Echo::new(48, 64);
        let mut request = [0; 1_232];
        assert_eq!(echo.fill(0x0102, UnixNs(0), &mut request), 48);
        let mut answer = [Echo::ANSWER_FILL; 64];
        answer[..8].copy_from_slice(&request[..8]);
        assert_eq!(echo.check(&answer), Verdict::Match(0x0102));
        assert_eq!(echo.check(&answer[..63]), Verdict::Wrong(0x0102));
        assert_eq!(echo.check(&answer[..5]), Verdict::Stray);
        answer[63] = 0;
        assert_eq!(echo.check(&answer), Verdict::Wrong(0x0102));
    }
}
