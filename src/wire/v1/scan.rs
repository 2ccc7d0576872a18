//! A single-pass scanner of strict JSON (RFC 8259) that keeps nothing but a position.
//!
//! Strings are scanned eight bytes at a time. Bytes past the end read as zero, which is a control
//! character, so that an unterminated string ends like any other malformed one.

use crate::wire::Reject;

/// How deep objects and arrays may be nested, the outermost one included. A guess, not measured:
/// requests need 2; every level costs a frame of the stack.
pub(super) const DEPTH_MAX: u8 = 16;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// A position in a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// High bits seen inside strings, the only place where a byte above 127 may stand.
    high: u64,
}

impl<'a> Scanner<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, high: 0 }
    }

    /// Whether a string scanned so far may hold bytes above 127, whose UTF-8 is then to be checked.
    #[inline]
    pub(super) fn beyond_ascii(&self) -> bool {
        self.high & HIGH_BITS != 0
    }

    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or(&[])
    }

    /// The next byte, not taken.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes `byte`, which must be next.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Reject> {
        if self.take(byte) { Ok(()) } else { Err(Reject::BadRequest) }
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes a string and returns what stands between its quotes, escapes and all.
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a [u8], Reject> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let word = self.word();
            self.high |= word;
            let special = specials(word);
            if special == 0 {
                self.at += 8;
                continue;
            }
            self.at += special.trailing_zeros() as usize / 8;
            match self.peek() {
                Some(b'"') => {
                    let inside = self.since(start);
                    self.at += 1;
                    return Ok(inside);
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(Reject::BadRequest),
            }
        }
    }

    /// The next eight bytes as a little-endian number, zeros for those past the end.
    #[inline]
    fn word(&self) -> u64 {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    #[cold]
    fn escape(&mut self) -> Result<(), Reject> {
        self.at += 1;
        let kind = self.peek();
        self.at += 1;
        match kind {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let digits = self.bytes.get(self.at..self.at + 4).ok_or(Reject::BadRequest)?;
                self.at += 4;
                if digits.iter().all(u8::is_ascii_hexdigit) { Ok(()) } else { Err(Reject::BadRequest) }
            }
            _ => Err(Reject::BadRequest),
        }
    }

    /// Takes a number.
    #[inline]
    pub(super) fn number(&mut self) -> Result<(), Reject> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Takes one digit or more.
    #[inline]
    fn digits(&mut self) -> Result<(), Reject> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Reject::BadRequest) }
    }

    /// Takes any value. `depth` is how many objects and arrays it stands in.
    pub(super) fn value(&mut self, depth: u8) -> Result<(), Reject> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.list(depth, b'}', |scanner, depth| {
                scanner.string()?;
                scanner.colon()?;
                scanner.value(depth)
            }),
            Some(b'[') => self.list(depth, b']', Self::value),
            Some(b't') => self.word_of(b"true"),
            Some(b'f') => self.word_of(b"false"),
            Some(b'n') => self.word_of(b"null"),
            _ => Err(Reject::BadRequest),
        }
    }

    /// Takes an opening bracket, items by `item` between commas, and `close`. `item` gets the depth
    /// it stands at.
    #[inline]
    pub(super) fn list(
        &mut self,
        depth: u8,
        close: u8,
        mut item: impl FnMut(&mut Self, u8) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        if depth >= DEPTH_MAX {
            return Err(Reject::BadRequest);
        }
        self.at += 1;
        self.skip_space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            item(self, depth + 1)?;
            self.skip_space();
            if self.take(close) {
                return Ok(());
            }
            self.expect(b',')?;
            self.skip_space();
        }
    }

    /// Takes the colon behind a member's name and the space around it.
    #[inline]
    pub(super) fn colon(&mut self) -> Result<(), Reject> {
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Ok(())
    }

    fn word_of(&mut self, word: &[u8]) -> Result<(), Reject> {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word));
        self.at += word.len();
        if found { Ok(()) } else { Err(Reject::BadRequest) }
    }

    /// Whether nothing but space is left.
    #[inline]
    pub(super) fn ended(&mut self) -> bool {
        self.skip_space();
        self.at >= self.bytes.len()
    }
}

/// Marks the quotes, backslashes and control characters of a word by the high bits of their bytes.
/// Above the first mark there may be false ones, below it none.
#[inline]
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
