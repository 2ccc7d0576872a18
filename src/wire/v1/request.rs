//! The request of v1: what its members mean, found in one pass.

use std::fmt;

use super::scan::{Text, decode_ascii};
use crate::limits::{ASSETS_PER_REQUEST_MAX, REQUEST_ID_LEN_MAX};
use crate::wire::Reject;

/// A valid request. Names are the bytes between the quotes of the JSON string: one that was written
/// with escapes still has them, and matches no token, asset or exchange, none of which needs any.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    token: &'a [u8],
    source: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    /// One name, or the inside of the array, quotes and all.
    names: &'a [u8],
    asset_count: usize,
    single: bool,
}

impl<'a> Request<'a> {
    /// The API key, empty when there was none.
    #[must_use]
    #[inline]
    pub fn token(&self) -> &'a [u8] {
        self.token
    }

    /// The asset of a request for one; `None` when the request has `assets`.
    #[must_use]
    #[inline]
    pub fn asset(&self) -> Option<&'a [u8]> {
        self.single.then_some(self.names)
    }

    /// All assets in the order of the request: 1 to [`ASSETS_PER_REQUEST_MAX`].
    #[must_use]
    pub fn assets(&self) -> AssetNames<'a> {
        AssetNames(if self.single {
            Names::One(Some(self.names))
        } else {
            Names::Listed(Text(self.names), 0)
        })
    }

    /// How many assets there are.
    #[must_use]
    pub fn asset_count(&self) -> usize {
        self.asset_count
    }

    /// The exchange whose price is wanted.
    #[must_use]
    #[inline]
    pub fn source(&self) -> Option<&'a [u8]> {
        self.source
    }

    /// The request's id as it stood in the request, quotes included; at most
    /// [`REQUEST_ID_LEN_MAX`] bytes.
    #[must_use]
    #[inline]
    pub fn id(&self) -> Option<&'a [u8]> {
        self.id
    }
}

/// Says nothing of the token: requests may be printed.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("asset_count", &self.asset_count).finish_non_exhaustive()
    }
}

/// The names of a request's assets.
#[derive(Clone, Debug)]
pub struct AssetNames<'a>(Names<'a>);

#[derive(Clone, Debug)]
enum Names<'a> {
    One(Option<&'a [u8]>),
    /// The inside of an array that was parsed, and a position in it.
    Listed(Text<'a>, usize),
}

impl<'a> Iterator for AssetNames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.0 {
            Names::One(name) => name.take(),
            Names::Listed(text, at) => {
                let comma = text.space(*at);
                let start = text.space(comma + usize::from(text.byte(comma) == Some(b',')));
                let end = text.string(start).ok()?;
                *at = end;
                Some(inside(*text, start, end))
            }
        }
    }
}

/// The members that mean something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    ApiKey,
    Asset,
    Assets,
    Source,
    Id,
    Pad,
    /// What only answers have.
    Answer,
    Unknown,
}

impl Member {
    /// The known names with their closing quotes; none is longer than a word.
    const KNOWN: [(Self, &[u8]); 9] = [
        (Self::ApiKey, b"api_key\""),
        (Self::Asset, b"asset\""),
        (Self::Id, b"id\""),
        (Self::Assets, b"assets\""),
        (Self::Source, b"source\""),
        (Self::Pad, b"pad\""),
        (Self::Answer, b"price\""),
        (Self::Answer, b"prices\""),
        (Self::Answer, b"error\""),
    ];

    /// Takes a member's name. A known one is found by comparing one word, so that the next position
    /// does not wait for a search of the closing quote.
    #[inline(always)]
    fn take(text: Text<'_>, at: usize) -> Result<(Self, usize), Reject> {
        if text.byte(at) == Some(b'"') {
            let word = text.word(at + 1);
            for (member, name) in Self::KNOWN {
                let unused = 64 - 8 * name.len();
                if word << unused == Text(name).word(0) << unused {
                    return Ok((member, at + 1 + name.len()));
                }
            }
        }
        let end = text.string(at)?;
        Ok((Self::of_escaped(inside(text, at, end)), end))
    }

    /// Escapes are decoded, so that no member can be given twice by writing it in two ways.
    #[cold]
    fn of_escaped(name: &[u8]) -> Self {
        let mut room = [0; 8];
        let Some(decoded) = decode_ascii(name, &mut room) else { return Self::Unknown };
        let known = Self::KNOWN.iter().find(|(_, known)| known.strip_suffix(b"\"") == Some(decoded));
        known.map_or(Self::Unknown, |(member, _)| *member)
    }
}

/// Parses a datagram: one JSON object, nothing behind it but space.
///
/// # Errors
/// [`Reject::IsAnswer`] as soon as a member of the outermost object is one that only answers have;
/// [`Reject::BadRequest`] for what is not strictly JSON, is nested deeper than 16, gives a known
/// member twice or with a value of the wrong kind, or does not have exactly one of `asset` and
/// `assets`.
#[inline]
pub fn parse(datagram: &[u8]) -> Result<Request<'_>, Reject> {
    let text = Text(datagram);
    let start = text.space(0);
    if text.byte(start) != Some(b'{') {
        return Err(Reject::BadRequest);
    }
    let mut request =
        Request { token: &[], source: None, id: None, names: &[], asset_count: 0, single: false };
    let mut seen = 0_u8;
    let end = text.list(start, 0, b'}', |at, depth| {
        let (member, at) = Member::take(text, at)?;
        let at = text.colon(at)?;
        if member == Member::Unknown {
            return text.value(at, depth);
        }
        let bit = 1 << member as u8;
        if seen & bit != 0 {
            return Err(Reject::BadRequest);
        }
        seen |= bit;
        let end;
        match member {
            Member::ApiKey => {
                end = text.string(at)?;
                request.token = inside(text, at, end);
            }
            Member::Source => {
                end = text.string(at)?;
                request.source = Some(inside(text, at, end));
            }
            Member::Asset => {
                end = text.string(at)?;
                (request.names, request.asset_count, request.single) = (inside(text, at, end), 1, true);
            }
            Member::Assets => {
                (end, request.asset_count) = names(text, at, depth)?;
                request.names = inside(text, at, end);
            }
            Member::Id => {
                end = id(text, at)?;
                request.id = Some(text.slice(at, end));
            }
            Member::Answer => return Err(Reject::IsAnswer),
            Member::Pad | Member::Unknown => end = text.value(at, depth)?,
        }
        Ok(end)
    })?;
    let both = 1 << Member::Asset as u8 | 1 << Member::Assets as u8;
    if text.space(end) != datagram.len() || (seen & both).count_ones() != 1 {
        return Err(Reject::BadRequest);
    }
    if !datagram.is_ascii() && simdutf8::basic::from_utf8(datagram).is_err() {
        return Err(Reject::BadRequest);
    }
    Ok(request)
}

/// What stands between the quotes or brackets of `from..to`.
#[inline(always)]
fn inside(text: Text<'_>, from: usize, to: usize) -> &[u8] {
    text.slice(from + 1, to - 1)
}

/// Takes an array of strings; returns its end and how many there are.
fn names(text: Text<'_>, at: usize, depth: u8) -> Result<(usize, usize), Reject> {
    if text.byte(at) != Some(b'[') {
        return Err(Reject::BadRequest);
    }
    let mut count = 0;
    let end = text.list(at, depth, b']', |at, _| {
        count += 1;
        text.string(at)
    })?;
    if (1..=ASSETS_PER_REQUEST_MAX).contains(&count) { Ok((end, count)) } else { Err(Reject::BadRequest) }
}

/// Takes a number or a string that is short enough.
#[inline(always)]
fn id(text: Text<'_>, at: usize) -> Result<usize, Reject> {
    let end = if text.byte(at) == Some(b'"') { text.string(at)? } else { text.number(at)? };
    if end - at <= REQUEST_ID_LEN_MAX { Ok(end) } else { Err(Reject::BadRequest) }
}
