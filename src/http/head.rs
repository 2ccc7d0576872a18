//! Heads of HTTP/1.1 requests: from received bytes to what a request asks for, in one pass and
//! without allocating.
//!
//! Framing is strict, because a server that guesses where a request ends can be made to disagree
//! with whatever stands before it: a line that ends in a bare LF, a space before a colon, a folded
//! line, a `Content-Length` beside a `Transfer-Encoding`, or two of either, ends the connection.
//!
//! Two decisions: a chunked body gets 411 and the connection is closed, since no endpoint has a use
//! for a body and one of announced length can be skipped. `Expect: 100-continue` with a body gets
//! 417 and the connection is closed, since nobody can then say whether the body will follow;
//! without a body it is ignored.

use std::mem::MaybeUninit;

use httparse::Status as Progress;

use super::query::{self, QueryError};
use super::respond::{Connection, Reply, Status};
use crate::limits::{
    HTTP_BODY_LEN_MAX, HTTP_HEAD_LEN_MAX, HTTP_HEADERS_MAX, HTTP_TARGET_LEN_MAX, REQUEST_ID_LEN_MAX,
};

/// What stands at the beginning of the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// A head that is right so far and not yet whole: read on.
    Incomplete,
    /// A whole head.
    Complete {
        /// What it says.
        request: Request<'a>,
        /// Its length in bytes. [`Request::body_len`] bytes of body follow, to be skipped.
        consumed: usize,
    },
    /// Not a request of ours: answer with [`Reject::status`] and close.
    Reject(Reject),
}

/// The methods that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// Any other.
    Other,
}

/// A request's head: views over the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path as sent, without query; begins with `/`, or is `*` for `OPTIONS`.
    pub path: &'a [u8],
    /// What follows `?`, empty when nothing does.
    pub query: &'a [u8],
    /// The API key, from `Authorization: Bearer` or `X-API-Key`; never empty.
    pub token: Option<&'a [u8]>,
    /// `X-Request-Id` when it is 1 to 32 bytes of visible ASCII.
    pub request_id: Option<&'a [u8]>,
    /// Bytes of body that follow the head, at most [`HTTP_BODY_LEN_MAX`].
    pub body_len: usize,
    /// What becomes of the connection after the answer.
    pub connection: Connection,
    /// Whether a browser's script asks: the answer needs CORS headers.
    pub has_origin: bool,
}

impl Request<'_> {
    /// The value of a query parameter; see [`query::parameter`].
    ///
    /// # Errors
    /// When it is malformed, repeated or too long for `room`.
    pub fn parameter<'b>(&'b self, name: &str, room: &'b mut [u8]) -> Result<Option<&'b [u8]>, QueryError> {
        query::parameter(self.query, name, room)
    }

    /// How the answer to this request has to be framed.
    #[must_use]
    #[inline]
    pub fn reply(&self) -> Reply {
        Reply {
            connection: self.connection,
            without_body: self.method == Method::Head,
            cors: self.has_origin,
        }
    }
}

/// Why a head was refused. The connection is closed after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// The request line is not `METHOD SP TARGET SP VERSION`.
    RequestLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A line does not end in CR LF.
    LineEnd,
    /// A header's name is not a token directly followed by a colon, or a line is folded.
    HeaderName,
    /// A header's value holds control bytes.
    HeaderValue,
    /// The target is neither a path nor an `http://` URL.
    Target,
    /// The target is too long.
    TargetLength,
    /// The head is too long.
    HeadLength,
    /// Too many headers.
    HeaderCount,
    /// `Host` is missing, repeated or malformed.
    Host,
    /// `Content-Length` is not a number, or there is more than one.
    ContentLength,
    /// The body is too long to be skipped.
    BodyLength,
    /// `Transfer-Encoding` together with `Content-Length`, twice, in HTTP/1.0, or not `chunked`.
    TransferEncoding,
    /// A chunked body.
    Chunked,
    /// An expectation that is not met.
    Expect,
    /// Two different API keys.
    TwoTokens,
}

impl Reject {
    /// The status to answer with.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Chunked => Status::LengthRequired,
            Self::BodyLength => Status::ContentTooLarge,
            Self::TargetLength => Status::UriTooLong,
            Self::Expect => Status::ExpectationFailed,
            Self::HeadLength | Self::HeaderCount => Status::HeadTooLarge,
            Self::RequestLine
            | Self::Version
            | Self::LineEnd
            | Self::HeaderName
            | Self::HeaderValue
            | Self::Target
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::TwoTokens => Status::BadRequest,
        }
    }

    /// Whether it counts as too large rather than as a bad request.
    #[must_use]
    pub fn is_too_large(self) -> bool {
        matches!(self, Self::BodyLength | Self::TargetLength | Self::HeadLength | Self::HeaderCount)
    }

    /// The `error` member of the answer's body.
    #[must_use]
    pub fn error(self) -> &'static str {
        if self.is_too_large() { "too_large" } else { "bad_request" }
    }

    /// The `message` member of the answer's body: what was found and what is needed.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is not METHOD, space, target, space, HTTP/1.1",
            Self::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Self::LineEnd => "every line of the head must end in CR LF",
            Self::HeaderName => {
                "a header line must be a name directly followed by a colon, and must not be folded"
            }
            Self::HeaderValue => "a header holds control bytes",
            Self::Target => "the target must be a path or an http:// URL in ASCII without a fragment",
            Self::TargetLength => "the target is longer than 4096 bytes",
            Self::HeadLength => "the head is longer than 8192 bytes",
            Self::HeaderCount => "the head has more than 64 headers",
            Self::Host => "HTTP/1.1 needs exactly one Host header, a host name with an optional port",
            Self::ContentLength => "there must be at most one Content-Length, a decimal number",
            Self::BodyLength => "the body is longer than 65536 bytes; none is needed",
            Self::TransferEncoding => {
                "Transfer-Encoding must be chunked, alone, in HTTP/1.1, without Content-Length"
            }
            Self::Chunked => "chunked bodies are not read here; send none, or a Content-Length",
            Self::Expect => "expectations are not met here; send the request without Expect",
            Self::TwoTokens => "Authorization and X-API-Key carry different keys; send one",
        }
    }
}

const _: () = assert!(HTTP_TARGET_LEN_MAX == 4096 && HTTP_HEAD_LEN_MAX == 8192);
const _: () = assert!(HTTP_HEADERS_MAX == 64 && HTTP_BODY_LEN_MAX == 65_536);

/// Parses the head at the beginning of `bytes`. Empty lines before it are skipped. Never looks
/// further than [`HTTP_HEAD_LEN_MAX`] bytes.
#[must_use]
pub fn parse(bytes: &[u8]) -> Head<'_> {
    match parse_within(bytes) {
        Ok(Some((request, consumed))) => Head::Complete { request, consumed },
        Ok(None) => Head::Incomplete,
        Err(reject) => Head::Reject(reject),
    }
}

fn parse_within(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Reject> {
    let bytes = bytes.get(..HTTP_HEAD_LEN_MAX).unwrap_or(bytes);
    let mut room = [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let consumed = match parsed.parse_with_uninit_headers(bytes, &mut room) {
        Ok(Progress::Complete(consumed)) => consumed,
        Ok(Progress::Partial) => return incomplete(bytes).map(|()| None),
        Err(error) => return Err(refusal(error)),
    };
    let head = bytes.get(..consumed).unwrap_or(bytes);
    check_line_ends(head)?;
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reject::RequestLine);
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        long if long.len() > METHOD_LEN_MAX => return Err(Reject::RequestLine),
        _ => Method::Other,
    };
    let (path, query) = split_target(method, target.as_bytes())?;
    let mut fields = Fields::default();
    for header in parsed.headers.iter() {
        fields.take(header.name.as_bytes(), header.value)?;
    }
    let version_1_1 = version == 1;
    let request = Request {
        method,
        path,
        query,
        token: fields.token,
        request_id: fields.request_id,
        body_len: fields.body_len(version_1_1)?,
        connection: fields.connection(version_1_1),
        has_origin: fields.has_origin,
    };
    if version_1_1 && !fields.has_host {
        return Err(Reject::Host);
    }
    Ok(Some((request, consumed)))
}

/// Whether the beginning of a head may still become one.
fn incomplete(bytes: &[u8]) -> Result<(), Reject> {
    check_line_ends(bytes)?;
    if bytes.len() > FIRST_LINE_LEN_MAX {
        let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
        let line = bytes.get(start..).unwrap_or_default();
        if memchr::memchr(b'\n', line).unwrap_or(line.len()) > FIRST_LINE_LEN_MAX {
            return Err(Reject::TargetLength);
        }
    }
    if bytes.len() < HTTP_HEAD_LEN_MAX { Ok(()) } else { Err(Reject::HeadLength) }
}

/// Longest method, in bytes: the longest registered ones have 17.
const METHOD_LEN_MAX: usize = 20;

/// Longest request line: method, target, version, two spaces and CR.
const FIRST_LINE_LEN_MAX: usize = METHOD_LEN_MAX + HTTP_TARGET_LEN_MAX + 11;

fn check_line_ends(head: &[u8]) -> Result<(), Reject> {
    for at in memchr::memchr_iter(b'\n', head) {
        if at == 0 || head.get(at - 1) != Some(&b'\r') {
            return Err(Reject::LineEnd);
        }
    }
    Ok(())
}

fn refusal(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::HeaderName => Reject::HeaderName,
        httparse::Error::HeaderValue => Reject::HeaderValue,
        httparse::Error::NewLine => Reject::LineEnd,
        httparse::Error::TooManyHeaders => Reject::HeaderCount,
        httparse::Error::Version => Reject::Version,
        httparse::Error::Token | httparse::Error::Status => Reject::RequestLine,
    }
}

/// The path and the query of a target in origin, absolute or asterisk form.
fn split_target(method: Method, target: &[u8]) -> Result<(&[u8], &[u8]), Reject> {
    if target.len() > HTTP_TARGET_LEN_MAX {
        return Err(Reject::TargetLength);
    }
    if target.iter().any(|byte| !byte.is_ascii() || *byte == b'#') {
        return Err(Reject::Target);
    }
    let origin = match target {
        [b'/', ..] => target,
        b"*" if method == Method::Options => return Ok((target, b"")),
        _ => origin_of_absolute(target)?,
    };
    let (path, query) = match memchr::memchr(b'?', origin) {
        Some(at) => (origin.get(..at), origin.get(at + 1..)),
        None => (Some(origin), None),
    };
    let path = path.filter(|path| !path.is_empty()).unwrap_or(b"/");
    Ok((path, query.unwrap_or_default()))
}

fn origin_of_absolute(target: &[u8]) -> Result<&[u8], Reject> {
    const SCHEME: &[u8] = b"http://";
    let (scheme, rest) = target.split_at_checked(SCHEME.len()).ok_or(Reject::Target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at(end);
    if !scheme.eq_ignore_ascii_case(SCHEME) || authority.is_empty() || !is_host(authority) {
        return Err(Reject::Target);
    }
    Ok(origin)
}

/// Bytes of a host name, an address in brackets, and a port; neither user nor list.
fn is_host(value: &[u8]) -> bool {
    let host = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=[]:".contains(b);
    value.iter().all(host)
}

/// What the headers say that concerns us.
#[derive(Default)]
struct Fields<'a> {
    has_host: bool,
    token: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    content_length: Option<usize>,
    transfer_encoding: Option<&'a [u8]>,
    expects: bool,
    close: bool,
    keep_alive: bool,
    has_origin: bool,
}

impl<'a> Fields<'a> {
    /// Takes one header in. The length of its name decides first: most headers of a browser are
    /// none of ours.
    #[inline]
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Reject> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.has_host || !is_host(value) {
                    return Err(Reject::Host);
                }
                self.has_host = true;
            }
            6 if name.eq_ignore_ascii_case(b"origin") => self.has_origin = true,
            6 if name.eq_ignore_ascii_case(b"expect") => self.expects = true,
            9 if name.eq_ignore_ascii_case(b"x-api-key") => self.take_token(value)?,
            10 if name.eq_ignore_ascii_case(b"connection") => self.take_connection(value),
            12 if name.eq_ignore_ascii_case(b"x-request-id") => self.take_request_id(value),
            13 if name.eq_ignore_ascii_case(b"authorization") => {
                if let Some((scheme, token)) = value.split_at_checked(7)
                    && scheme.eq_ignore_ascii_case(b"bearer ")
                {
                    self.take_token(token.trim_ascii())?;
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.content_length.is_some() {
                    return Err(Reject::ContentLength);
                }
                self.content_length = Some(decimal(value).ok_or(Reject::ContentLength)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.transfer_encoding.is_some() {
                    return Err(Reject::TransferEncoding);
                }
                self.transfer_encoding = Some(value);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_token(&mut self, token: &'a [u8]) -> Result<(), Reject> {
        if token.is_empty() {
            return Ok(());
        }
        if self.token.is_some_and(|other| other != token) {
            return Err(Reject::TwoTokens);
        }
        self.token = Some(token);
        Ok(())
    }

    fn take_request_id(&mut self, value: &'a [u8]) {
        let fits = (1..=REQUEST_ID_LEN_MAX).contains(&value.len());
        if fits && value.iter().all(u8::is_ascii_graphic) && self.request_id.is_none() {
            self.request_id = Some(value);
        }
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn body_len(&self, version_1_1: bool) -> Result<usize, Reject> {
        if let Some(coding) = self.transfer_encoding {
            let known = coding.eq_ignore_ascii_case(b"chunked") && version_1_1;
            return Err(match self.content_length {
                None if known => Reject::Chunked,
                _ => Reject::TransferEncoding,
            });
        }
        let len = self.content_length.unwrap_or(0);
        if len > HTTP_BODY_LEN_MAX {
            return Err(Reject::BodyLength);
        }
        if len > 0 && self.expects {
            return Err(Reject::Expect);
        }
        Ok(len)
    }

    fn connection(&self, version_1_1: bool) -> Connection {
        match (version_1_1, self.close, self.keep_alive) {
            (_, true, _) | (false, false, false) => Connection::Close,
            (true, false, _) => Connection::KeepAlive,
            (false, false, true) => Connection::KeepAliveAnnounced,
        }
    }
}

/// A number of digits only; what does not fit is as large as can be.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let grow = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    Some(digits.iter().fold(0, grow))
}

#[cfg(test)]
mod tests;
