//! The answers of v1.

use crate::price::{Currency, Price, Symbol, Tier};
use crate::wire::ErrorCode;

/// Writes the part of an answer that changes only with the price: everything up to the id, the
/// closing brace left out. Returns its length, at most
/// [`V1_HEAD_LEN_MAX`](crate::limits::V1_HEAD_LEN_MAX), or `None` when it does not fit.
///
/// `exchange` is a name of the catalogue: lower-case letters, digits and underscores.
#[must_use]
pub fn write_head(
    out: &mut [u8],
    asset: Symbol,
    quote: Currency,
    price: Price,
    exchange: &str,
    tier: Tier,
    ts_ms: u64,
) -> Option<usize> {
    let mut cursor = Cursor::new(out, usize::MAX);
    let price = price.text();
    let parts: [&[u8]; 11] = [
        b"{\"asset\":\"",
        asset.as_str().as_bytes(),
        b"\",\"quote\":\"",
        quote.as_str().as_bytes(),
        b"\",\"price\":\"",
        price.as_bytes(),
        b"\",\"source\":\"",
        exchange.as_bytes(),
        b"-",
        tier.as_str().as_bytes(),
        b"\",\"ts\":",
    ];
    for part in parts {
        cursor.put(part)?;
    }
    cursor.put(Digits::of(ts_ms).as_bytes())?;
    Some(cursor.len)
}

/// Completes a head to an answer of at most `len_max` bytes, which is
/// [`answer_len_max`](crate::wire::answer_len_max) of the request. Returns its length, or `None`
/// when it does not fit.
#[must_use]
#[inline]
pub fn write_answer(out: &mut [u8], len_max: usize, head: &[u8], id: Option<&[u8]>) -> Option<usize> {
    let mut cursor = Cursor::new(out, len_max);
    cursor.put(head)?;
    cursor.close(id)
}

/// Writes an error of at most `len_max` bytes: the length of the request before its key is known to
/// be valid, else [`answer_len_max`](crate::wire::answer_len_max) of it. Returns its length, or
/// `None` when it does not fit.
#[must_use]
pub fn write_error(out: &mut [u8], len_max: usize, code: ErrorCode, id: Option<&[u8]>) -> Option<usize> {
    let mut cursor = Cursor::new(out, len_max);
    cursor.put(b"{\"error\":\"")?;
    cursor.put(code.as_str().as_bytes())?;
    cursor.put(b"\"")?;
    cursor.close(id)
}

/// Writes an answer to a request for several assets: as many, from the first on, as fit, and the
/// number of those left out.
#[derive(Debug)]
pub struct PricesWriter<'o, 'i> {
    cursor: Cursor<'o>,
    id: Option<&'i [u8]>,
    pushed: usize,
    total: usize,
    full: bool,
}

impl<'o, 'i> PricesWriter<'o, 'i> {
    /// Begins an answer of at most `len_max` bytes for `total` assets. `None` when not even an empty
    /// one fits.
    #[must_use]
    pub fn new(out: &'o mut [u8], len_max: usize, total: usize, id: Option<&'i [u8]>) -> Option<Self> {
        let mut cursor = Cursor::new(out, len_max);
        cursor.put(b"{\"prices\":[")?;
        let writer = Self { cursor, id, pushed: 0, total, full: false };
        (writer.cursor.room() >= writer.tail_len(total)).then_some(writer)
    }

    /// Adds a price. `false` when it does not fit: then nothing more is added.
    #[must_use]
    pub fn push_head(&mut self, head: &[u8]) -> bool {
        self.push([head, b"", b"", b"}"])
    }

    /// Adds an asset that has no price. `asset` is the inside of a JSON string as
    /// [`Request::assets`](super::Request::assets) yields it. `false` as for
    /// [`push_head`](Self::push_head).
    #[must_use]
    pub fn push_error(&mut self, asset: &[u8], code: ErrorCode) -> bool {
        let mut open = [0; 64];
        let mut end = Cursor::new(&mut open, usize::MAX);
        let written = end.put(b"\",\"error\":\"").and_then(|()| end.put(code.as_str().as_bytes()));
        let len = end.len;
        written.is_some() && self.push([b"{\"asset\":\"", asset, open.get(..len).unwrap_or(&[]), b"\"}"])
    }

    fn push(&mut self, parts: [&[u8]; 4]) -> bool {
        let comma: &[u8] = if self.pushed > 0 { b"," } else { b"" };
        let len = parts.iter().fold(comma.len(), |sum, part| sum.saturating_add(part.len()));
        let left_out = self.total.saturating_sub(self.pushed + 1);
        let fits = self.cursor.room() >= len.saturating_add(self.tail_len(left_out));
        if self.full || self.pushed >= self.total || !fits {
            self.full = true;
            return false;
        }
        for part in [comma].into_iter().chain(parts) {
            // There is room: it was just checked.
            let _ = self.cursor.put(part);
        }
        self.pushed += 1;
        true
    }

    /// How many assets were added.
    #[must_use]
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// Ends the answer. Returns its length, or `None` when no asset was added: the client then gets
    /// [`ErrorCode::BadRequest`].
    #[must_use]
    pub fn finish(mut self) -> Option<usize> {
        if self.pushed == 0 {
            return None;
        }
        self.cursor.put(b"]")?;
        let left_out = self.total.saturating_sub(self.pushed);
        if left_out > 0 {
            self.cursor.put(b",\"more\":")?;
            self.cursor.put(Digits::of(left_out as u64).as_bytes())?;
        }
        self.cursor.close(self.id)
    }

    /// Bytes behind the last item when `left_out` assets do not follow.
    fn tail_len(&self, left_out: usize) -> usize {
        let more = if left_out > 0 { 8 + Digits::of(left_out as u64).as_bytes().len() } else { 0 };
        1 + more + self.id.map_or(1, |id| 7 + id.len())
    }
}

/// A slice being filled from its start.
#[derive(Debug)]
struct Cursor<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl<'o> Cursor<'o> {
    #[inline]
    fn new(out: &'o mut [u8], len_max: usize) -> Self {
        let len_max = len_max.min(out.len());
        Self { out: out.get_mut(..len_max).unwrap_or_default(), len: 0 }
    }

    fn room(&self) -> usize {
        self.out.len() - self.len
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// The end of every answer. Returns the whole length.
    #[inline]
    fn close(mut self, id: Option<&[u8]>) -> Option<usize> {
        if let Some(id) = id {
            self.put(b",\"id\":")?;
            self.put(id)?;
        }
        self.put(b"}")?;
        Some(self.len)
    }
}

/// A number in plain digits, on the stack.
struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    fn of(number: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; 20], start: 20 };
        let mut rest = number;
        while rest > 0 || digits.start == 20 {
            digits.start -= 1;
            digits.bytes[digits.start] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        digits
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
