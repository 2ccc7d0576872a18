//! Strict JSON (RFC 8259), scanned once: every function takes a position and returns the one behind
//! what it has found there. Positions travel in registers; nothing else is kept.
//!
//! Strings are scanned eight bytes at a time. Bytes past the end read as zero, which is a control
//! character, so that an unterminated string ends like any other malformed one.

use crate::wire::Reject;

/// How deep objects and arrays may be nested, the outermost one included. A guess, not measured:
/// requests need 2; every level costs a frame of the stack.
pub(in crate::wire) const DEPTH_MAX: u8 = 16;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// A text that may be JSON. Its UTF-8 is for the caller to check.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) struct Text<'a>(pub(in crate::wire) &'a [u8]);

impl<'a> Text<'a> {
    #[inline(always)]
    pub(super) fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    #[inline(always)]
    pub(super) fn slice(self, from: usize, to: usize) -> &'a [u8] {
        self.0.get(from..to).unwrap_or(&[])
    }

    #[inline(always)]
    pub(in crate::wire) fn space(self, mut at: usize) -> usize {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte(at) {
            at += 1;
        }
        at
    }

    /// The byte `expected`.
    #[inline(always)]
    fn expect(self, at: usize, expected: u8) -> Result<usize, Reject> {
        if self.byte(at) == Some(expected) { Ok(at + 1) } else { Err(Reject::BadRequest) }
    }

    /// A string, quotes and all.
    #[inline]
    pub(super) fn string(self, at: usize) -> Result<usize, Reject> {
        let mut at = self.expect(at, b'"')?;
        loop {
            let special = specials(self.word(at));
            if special == 0 {
                at += 8;
                continue;
            }
            at += special.trailing_zeros() as usize / 8;
            match self.byte(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => at = self.escape(at + 1)?,
                _ => return Err(Reject::BadRequest),
            }
        }
    }

    /// The next eight bytes as a little-endian number, zeros for those past the end.
    #[inline(always)]
    pub(super) fn word(self, at: usize) -> u64 {
        let rest = self.0.get(at..).unwrap_or(&[]);
        if let Some(chunk) = rest.first_chunk::<8>() {
            return u64::from_le_bytes(*chunk);
        }
        match self.0.last_chunk::<8>() {
            Some(chunk) if !rest.is_empty() => u64::from_le_bytes(*chunk) >> (64 - 8 * rest.len()),
            _ => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    /// What follows a backslash.
    #[cold]
    fn escape(self, at: usize) -> Result<usize, Reject> {
        match self.byte(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
            Some(b'u') => {
                let digits = self.slice(at + 1, at + 5);
                let valid = digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit);
                if valid { Ok(at + 5) } else { Err(Reject::BadRequest) }
            }
            _ => Err(Reject::BadRequest),
        }
    }

    #[inline]
    pub(super) fn number(self, at: usize) -> Result<usize, Reject> {
        let at = at + usize::from(self.byte(at) == Some(b'-'));
        let mut at = if self.byte(at) == Some(b'0') { at + 1 } else { self.digits(at)? };
        if self.byte(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.byte(at) {
            let signed = matches!(self.byte(at + 1), Some(b'+' | b'-'));
            at = self.digits(at + 1 + usize::from(signed))?;
        }
        Ok(at)
    }

    /// One digit or more.
    #[inline(always)]
    fn digits(self, start: usize) -> Result<usize, Reject> {
        let mut at = start;
        while let Some(b'0'..=b'9') = self.byte(at) {
            at += 1;
        }
        if at > start { Ok(at) } else { Err(Reject::BadRequest) }
    }

    /// Any value. `depth` is how many objects and arrays it stands in.
    pub(in crate::wire) fn value(self, at: usize, depth: u8) -> Result<usize, Reject> {
        match self.byte(at) {
            Some(b'"') => self.string(at),
            Some(b'-' | b'0'..=b'9') => self.number(at),
            Some(b'{') => self.list(at, depth, b'}', |at, depth| {
                let at = self.colon(self.string(at)?)?;
                self.value(at, depth)
            }),
            Some(b'[') => self.list(at, depth, b']', |at, depth| self.value(at, depth)),
            Some(b't') => self.literal(at, b"true"),
            Some(b'f') => self.literal(at, b"false"),
            Some(b'n') => self.literal(at, b"null"),
            _ => Err(Reject::BadRequest),
        }
    }

    /// A bracket, items by `item` between commas, and `close`. `item` gets its position and depth.
    #[inline(always)]
    pub(super) fn list(
        self,
        at: usize,
        depth: u8,
        close: u8,
        mut item: impl FnMut(usize, u8) -> Result<usize, Reject>,
    ) -> Result<usize, Reject> {
        if depth >= DEPTH_MAX {
            return Err(Reject::BadRequest);
        }
        let mut at = self.space(at + 1);
        if self.byte(at) == Some(close) {
            return Ok(at + 1);
        }
        loop {
            at = self.space(item(at, depth + 1)?);
            match self.byte(at) {
                Some(b',') => at = self.space(at + 1),
                Some(byte) if byte == close => return Ok(at + 1),
                _ => return Err(Reject::BadRequest),
            }
        }
    }

    /// The colon behind a member's name, and the space around it.
    #[inline(always)]
    pub(super) fn colon(self, at: usize) -> Result<usize, Reject> {
        let at = self.expect(self.space(at), b':')?;
        Ok(self.space(at))
    }

    fn literal(self, at: usize, literal: &[u8]) -> Result<usize, Reject> {
        let end = at + literal.len();
        if self.slice(at, end) == literal { Ok(end) } else { Err(Reject::BadRequest) }
    }
}

/// Marks the quotes, backslashes and control characters of a word by the high bits of their bytes.
/// Above the first mark there may be false ones, below it none.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(LOW_BITS) & !word;
    let quote = zero(word ^ (LOW_BITS * b'"' as u64));
    let backslash = zero(word ^ (LOW_BITS * b'\\' as u64));
    let control = word.wrapping_sub(LOW_BITS * 0x20) & !word;
    (quote | backslash | control) & HIGH_BITS
}

/// Decodes the inside of a valid JSON string into `out`. `None` when it is longer, or holds anything
/// beyond ASCII.
pub(super) fn decode_ascii<'o>(inside: &[u8], out: &'o mut [u8]) -> Option<&'o [u8]> {
    let mut len = 0;
    let mut rest = inside;
    while let [byte, after @ ..] = rest {
        let mut decoded = *byte;
        rest = after;
        if decoded == b'\\' {
            let [kind, after @ ..] = rest else { return None };
            rest = after;
            decoded = match kind {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let (digits, after) = rest.split_first_chunk::<4>()?;
                    rest = after;
                    let digits = std::str::from_utf8(digits).ok()?;
                    u8::try_from(u16::from_str_radix(digits, 16).ok()?).ok()?
                }
                other => *other,
            };
        }
        if !decoded.is_ascii() {
            return None;
        }
        *out.get_mut(len)? = decoded;
        len += 1;
    }
    out.get(..len)
}
