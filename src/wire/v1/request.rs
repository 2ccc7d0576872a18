//! The request of v1: what its members mean, found in one pass.

use std::fmt;

use super::scan::{Scanner, decode_ascii};
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
            Names::Listed(Scanner::new(self.names))
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
    Listed(Scanner<'a>),
}

impl<'a> Iterator for AssetNames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.0 {
            Names::One(name) => name.take(),
            Names::Listed(scanner) => {
                scanner.skip_space();
                scanner.take(b',');
                scanner.skip_space();
                scanner.string().ok()
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
    #[inline]
    fn of(name: &[u8]) -> Self {
        match name {
            b"api_key" => Self::ApiKey,
            b"asset" => Self::Asset,
            b"assets" => Self::Assets,
            b"source" => Self::Source,
            b"id" => Self::Id,
            b"pad" => Self::Pad,
            b"error" | b"price" | b"prices" => Self::Answer,
            _ if name.contains(&b'\\') => Self::of_escaped(name),
            _ => Self::Unknown,
        }
    }

    /// Escapes are decoded, so that no member can be given twice by writing it in two ways.
    #[cold]
    fn of_escaped(name: &[u8]) -> Self {
        let mut room = [0; 8];
        match decode_ascii(name, &mut room) {
            // A decoded backslash is part of no known name.
            Some(decoded) if !decoded.contains(&b'\\') => Self::of(decoded),
            _ => Self::Unknown,
        }
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
    let mut scanner = Scanner::new(datagram);
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(Reject::BadRequest);
    }
    let mut request =
        Request { token: &[], source: None, id: None, names: &[], asset_count: 0, single: false };
    let mut seen = 0_u8;
    scanner.list(0, b'}', |scanner, depth| {
        let member = Member::of(scanner.string()?);
        scanner.colon()?;
        if member == Member::Unknown {
            return scanner.value(depth);
        }
        let bit = 1 << member as u8;
        if seen & bit != 0 {
            return Err(Reject::BadRequest);
        }
        seen |= bit;
        match member {
            Member::ApiKey => request.token = scanner.string()?,
            Member::Source => request.source = Some(scanner.string()?),
            Member::Asset => {
                request.names = scanner.string()?;
                request.asset_count = 1;
                request.single = true;
            }
            Member::Assets => (request.names, request.asset_count) = names(scanner, depth)?,
            Member::Id => request.id = Some(id(scanner)?),
            Member::Answer => return Err(Reject::IsAnswer),
            Member::Pad | Member::Unknown => scanner.value(depth)?,
        }
        Ok(())
    })?;
    let both = 1 << Member::Asset as u8 | 1 << Member::Assets as u8;
    if !scanner.ended() || (seen & both).count_ones() != 1 {
        return Err(Reject::BadRequest);
    }
    if scanner.beyond_ascii() && simdutf8::basic::from_utf8(datagram).is_err() {
        return Err(Reject::BadRequest);
    }
    Ok(request)
}

/// Takes an array of strings; returns what stands between its brackets, and how many there are.
fn names<'a>(scanner: &mut Scanner<'a>, depth: u8) -> Result<(&'a [u8], usize), Reject> {
    if scanner.peek() != Some(b'[') {
        return Err(Reject::BadRequest);
    }
    let start = scanner.at() + 1;
    let mut count = 0;
    scanner.list(depth, b']', |scanner, _| {
        count += 1;
        scanner.string().map(|_| ())
    })?;
    if !(1..=ASSETS_PER_REQUEST_MAX).contains(&count) {
        return Err(Reject::BadRequest);
    }
    let inside = scanner.since(start);
    Ok((inside.strip_suffix(b"]").unwrap_or(inside), count))
}

/// Takes a number or a string; returns all of its bytes.
#[inline]
fn id<'a>(scanner: &mut Scanner<'a>) -> Result<&'a [u8], Reject> {
    let start = scanner.at();
    if scanner.peek() == Some(b'"') {
        scanner.string()?;
    } else {
        scanner.number()?;
    }
    let id = scanner.since(start);
    if id.len() <= REQUEST_ID_LEN_MAX { Ok(id) } else { Err(Reject::BadRequest) }
}
