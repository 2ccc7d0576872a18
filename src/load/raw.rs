//! Payloads from a file, for servers of any protocol that answers each datagram with one.

use std::fmt;

use super::requests::{Requests, Verdict, WireId, pick};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::time::UnixNs;

/// Asks with payloads in turn. Where the protocol has an id that comes back at the same place, a
/// request carries its own there.
#[derive(Clone, Debug)]
pub struct Raw {
    payloads: Vec<Vec<u8>>,
    id: Option<RawId>,
    expect: Vec<u8>,
}

/// Where an id lies in request and answer; most significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RawId {
    /// Bytes before it.
    pub offset: usize,
    /// Its bytes: 2, 4 or 8.
    pub len: usize,
}

/// Why payloads cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawError {
    /// A line is not hexadecimal: its number from 1, and what is wrong with it.
    Hex(usize, String),
    /// The payload of this line is longer than a datagram may be, in bytes.
    Long(usize, usize),
    /// The payload of this line, of so many bytes, ends before the id does.
    Short(usize, usize),
    /// There is no payload.
    Empty,
    /// The id has a length that is none of 2, 4 and 8.
    IdLen(usize),
}

impl fmt::Display for RawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hex(line, what) => write!(f, "line {line}: {what}"),
            Self::Long(line, len) => {
                write!(f, "line {line} has {len} bytes, a datagram takes at most {UDP_PAYLOAD_MAX}")
            }
            Self::Short(line, len) => write!(f, "line {line} has {len} bytes and ends before the id does"),
            Self::Empty => write!(f, "there is no payload in it"),
            Self::IdLen(len) => write!(f, "an id of {len} bytes; needs 2, 4 or 8"),
        }
    }
}

impl std::error::Error for RawError {}

impl Raw {
    /// Reads payloads, one a line in hexadecimal digits; spaces between bytes, empty lines and what
    /// follows a `#` do not count. An answer must contain the bytes of `expect` somewhere.
    ///
    /// # Errors
    /// What is wrong with the text or the id.
    pub fn parse(text: &str, id: Option<RawId>, expect: Vec<u8>) -> Result<Self, RawError> {
        if let Some(RawId { len, .. }) = id
            && ![2, 4, 8].contains(&len)
        {
            return Err(RawError::IdLen(len));
        }
        let mut payloads = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.split('#').next().unwrap_or_default();
            let payload = hex(line).map_err(|what| RawError::Hex(number, what))?;
            if payload.is_empty() {
                continue;
            }
            if payload.len() > UDP_PAYLOAD_MAX {
                return Err(RawError::Long(number, payload.len()));
            }
            if let Some(RawId { offset, len }) = id
                && offset.saturating_add(len) > payload.len()
            {
                return Err(RawError::Short(number, payload.len()));
            }
            payloads.push(payload);
        }
        if payloads.is_empty() { Err(RawError::Empty) } else { Ok(Self { payloads, id, expect }) }
    }
}

impl Requests for Raw {
    fn fill(&mut self, id: u64, _: UnixNs, out: &mut [u8]) -> usize {
        let Some(payload) = self.payloads.get(pick(id, self.payloads.len())) else { return 0 };
        let Some(room) = out.get_mut(..payload.len()) else { return 0 };
        room.copy_from_slice(payload);
        if let Some(RawId { offset, len }) = self.id
            && let Some(place) = room.get_mut(offset..offset + len)
        {
            place.copy_from_slice(&id.to_be_bytes()[8 - len..]);
        }
        payload.len()
    }

    fn check(&mut self, answer: &[u8]) -> Verdict {
        let id = match self.id {
            None => 0,
            Some(RawId { offset, len }) => {
                let Some(bytes) = answer.get(offset..offset.saturating_add(len)) else {
                    return Verdict::Stray;
                };
                bytes.iter().fold(0, |id, byte| id << 8 | u64::from(*byte))
            }
        };
        let right = self.expect.is_empty() || memchr::memmem::find(answer, &self.expect).is_some();
        if right { Verdict::Match(id) } else { Verdict::Wrong(id) }
    }

    fn wire_id(&self) -> WireId {
        match self.id {
            None => WireId::None,
            Some(RawId { len: 2, .. }) => WireId::Low16,
            Some(RawId { len: 4, .. }) => WireId::Low32,
            Some(_) => WireId::Whole,
        }
    }
}

/// Bytes of hexadecimal digits, with spaces between bytes or without.
///
/// # Errors
/// What stands there instead.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        if let Some(other) = word.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(format!("{other:?} is no hexadecimal digit"));
        }
        if !word.len().is_multiple_of(2) {
            return Err(format!("{} hexadecimal digits, a byte has two", word.len()));
        }
        for pair in word.as_bytes().chunks(2) {
            let digits = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|e| e.to_string())?);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DNS: Option<RawId> = Some(RawId { offset: 0, len: 2 });

    #[test]
    fn payloads_carry_their_ids_and_answers_bring_them_back() {
        let text = "# a query\n\n00 00 0100 aabb # one\n\t0000ffff\n";
        let mut raw = Raw::parse(text, DNS, vec![0xbb]).unwrap();
        assert_eq!(raw.payloads, [vec![0, 0, 1, 0, 0xaa, 0xbb], vec![0, 0, 0xff, 0xff]]);
        let mut room = [0; UDP_PAYLOAD_MAX];
        let len = raw.fill(0x7_1234, UnixNs(0), &mut room);
        assert_eq!(room[..2], [0x12, 0x34]);
        room[2..7].copy_from_slice(b"\x01\0\xaa\xbbx");
        assert_eq!(raw.check(&room[..len.max(7)]), Verdict::Match(0x1234));
        assert_eq!(raw.check(&room[..4]), Verdict::Wrong(0x1234));
        assert_eq!(raw.check(&room[..1]), Verdict::Stray);
        assert_eq!(raw.wire_id(), WireId::Low16);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_with_its_line() {
        let message = |text: &str, id| Raw::parse(text, id, Vec::new()).unwrap_err().to_string();
        assert_eq!(message("00\n0g", None), "line 2: 'g' is no hexadecimal digit");
        assert_eq!(message("000", None), "line 1: 3 hexadecimal digits, a byte has two");
        assert_eq!(message("# none\n\n", None), "there is no payload in it");
        assert_eq!(message("00", DNS), "line 1 has 1 bytes and ends before the id does");
        assert_eq!(
            message(&"00".repeat(1_233), None),
            "line 1 has 1233 bytes, a datagram takes at most 1232"
        );
        assert_eq!(message("00", Some(RawId { offset: 0, len: 3 })), "an id of 3 bytes; needs 2, 4 or 8");
    }

    proptest! {
        #[test]
        fn no_file_and_no_answer_makes_it_panic(
            text: String, offset in 0_usize..=usize::MAX, len in 0_usize..10, answer: Vec<u8>,
        ) {
            if let Ok(mut raw) = Raw::parse(&text, Some(RawId { offset, len }), vec![1]) {
                raw.check(&answer);
            }
            if let Ok(mut raw) = Raw::parse("00 11 22 33 44 55 66 77 88", Some(RawId { offset: 1, len: 8 }), vec![1]) {
                raw.check(&answer);
            }
        }
    }
}
