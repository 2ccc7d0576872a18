//! The cursor that leads from one page to the next: where the last page ended, and the period that
//! the first one was asked for.
//!
//! It is opaque to clients and proves nothing: whoever forges one sees only what he may see anyway.
//! The checksum finds cursors that were cut or mistyped, the fingerprint those of another query.
//!
//! ```text
//!   version 1 │ report 1 │ fingerprint 4 │ from 8 │ to 8 │ places, 8 each │ CRC-32 4    in base 64
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::query::Which;
use crate::time::UnixNs;

const VERSION: u8 = 1;
const HEAD_LEN: usize = 22;
const CHECKSUM_LEN: usize = 4;

/// Most numbers a place may have: a summary by everything there is.
pub(super) const PLACES_MAX: usize = 8;

/// Longest text of a cursor, in bytes.
const TEXT_LEN_MAX: usize = (HEAD_LEN + PLACES_MAX * 8 + CHECKSUM_LEN).div_ceil(3) * 4;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of which report.
    pub which: Which,
    /// Of which query; see [`Query::fingerprint`](super::Query::fingerprint).
    pub fingerprint: u32,
    /// Begin of the period, from the first page on.
    pub from: UnixNs,
    /// End of the period, from the first page on, so that paging ends although rows are added.
    pub to: UnixNs,
    /// The last row's place in the order of the report.
    pub place: Vec<u64>,
}

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorError {
    /// It was not given out by this program, or was cut or changed.
    Damaged,
    /// It belongs to another report.
    OtherReport,
    /// It belongs to a query with other filters.
    OtherQuery,
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "cursor is not one this server gave out; pass `next` of the last page unchanged, or leave it out to begin again",
            Self::OtherReport => "cursor belongs to another report; begin again without it",
            Self::OtherQuery => {
                "cursor belongs to a query with other filters; repeat those of the first page, or begin again without it"
            }
        })
    }
}

impl std::error::Error for CursorError {}

impl Cursor {
    /// As clients get it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = vec![VERSION, self.which as u8];
        bytes.extend_from_slice(&self.fingerprint.to_be_bytes());
        bytes.extend_from_slice(&self.from.0.to_be_bytes());
        bytes.extend_from_slice(&self.to.0.to_be_bytes());
        for number in self.place.iter().take(PLACES_MAX) {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what a client has sent.
    ///
    /// # Errors
    /// [`CursorError::Damaged`].
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let damaged = CursorError::Damaged;
        if text.len() > TEXT_LEN_MAX {
            return Err(damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged)?;
        let (checked, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(damaged)?;
        if u32::from_be_bytes(*sum) != checksum(checked) {
            return Err(damaged);
        }
        let (head, places) = checked.split_first_chunk::<HEAD_LEN>().ok_or(damaged)?;
        let [VERSION, which, f1, f2, f3, f4, times @ ..] = head else { return Err(damaged) };
        let (places, []) = places.as_chunks::<8>() else { return Err(damaged) };
        let (from, to) = times.split_first_chunk::<8>().ok_or(damaged)?;
        let to = to.first_chunk::<8>().ok_or(damaged)?;
        Ok(Self {
            which: Which::of_number(*which).ok_or(damaged)?,
            fingerprint: u32::from_be_bytes([*f1, *f2, *f3, *f4]),
            from: UnixNs(u64::from_be_bytes(*from)),
            to: UnixNs(u64::from_be_bytes(*to)),
            place: places.iter().map(|number| u64::from_be_bytes(*number)).collect(),
        })
    }
}

pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::fuzz;

    proptest! {
        #[test]
        fn what_is_written_is_read(fingerprint: u32, from: u64, to: u64, place in proptest::collection::vec(any::<u64>(), 0..=PLACES_MAX)) {
            let cursor = Cursor { which: Which::Detail, fingerprint, from: UnixNs(from), to: UnixNs(to), place };
            let text = cursor.text();
            prop_assert!(text.len() <= TEXT_LEN_MAX);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(Cursor::parse(&text), Ok(cursor));
        }

        #[test]
        fn a_changed_cursor_is_noticed(at in 0..60_usize, byte in b'A'..=b'Z') {
            let cursor = Cursor { which: Which::Usage, fingerprint: 9, from: UnixNs(1), to: UnixNs(2), place: vec![1, 2, 3] };
            let text = cursor.text();
            let mut changed = text.clone().into_bytes();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(Cursor::parse(&changed).is_ok(), changed == text);
        }

        #[test]
        fn arbitrary_text_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz::report_cursor(&bytes);
        }
    }
}
