//! One HTTP answer at the front of received bytes; pure.

use std::mem::MaybeUninit;

use serde::{Deserialize, Serialize};

use crate::limits::HTTP_HEADERS_MAX;
use crate::load::v1::has_price;

/// What the body of a 200 must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Anything.
    Any,
    /// It begins so.
    Start(Vec<u8>),
    /// It contains this.
    Contains(Vec<u8>),
    /// A JSON object that begins so, up to the quotation mark before the quote currency, and goes on
    /// with a well-formed price.
    Price(Vec<u8>),
}

impl Expect {
    /// A price of this asset, as `GET /price` answers.
    #[must_use]
    pub fn price_of(symbol: &str) -> Self {
        Self::Price(format!("{{\"asset\":\"{symbol}\",\"quote\":\"").into())
    }

    /// Whether this body is it.
    #[must_use]
    pub fn holds(&self, body: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Start(start) => body.starts_with(start),
            Self::Contains(part) => memchr::memmem::find(body, part).is_some(),
            Self::Price(start) => {
                let rest = body.trim_ascii_end().strip_suffix(b"}");
                rest.and_then(|rest| rest.strip_prefix(&start[..])).is_some_and(has_price)
            }
        }
    }
}

/// What lies at the front of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// Not yet a whole answer.
    Incomplete,
    /// An answer of `len` bytes; whether the server closes the connection after it.
    Answer { status: u16, body: &'a [u8], len: usize, closes: bool },
    /// No answer, or one of a length that cannot be told.
    Broken,
}

/// Longest answer that is read, head and body.
pub(super) const ANSWER_LEN_MAX: usize = 1 << 20;

pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let head_len = match config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_LEN_MAX => return Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(_) => return Parsed::Broken,
    };
    let status = response.code.unwrap_or(0);
    let mut body_len = matches!(status, 204 | 304).then_some(0);
    let mut closes = response.version == Some(0);
    for header in response.headers.iter() {
        let value = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            body_len = value().parse::<usize>().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes = value().eq_ignore_ascii_case("close");
        }
    }
    let Some(body_len) = body_len.filter(|len| *len <= ANSWER_LEN_MAX) else { return Parsed::Broken };
    let len = head_len + body_len;
    match bytes.get(head_len..len) {
        Some(body) => Parsed::Answer { status, body, len, closes },
        None => Parsed::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_cut_out_of_a_stream() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 503 Busy\r\ncontent-length:0\r\nConnection: close\r\n\r\n";
        let Parsed::Answer { status: 200, body: b"ok", len, closes: false } = parse(stream) else {
            panic!("{:?}", parse(stream));
        };
        let rest = &stream[len..];
        let whole = Parsed::Answer { status: 503, body: b"", len: rest.len(), closes: true };
        assert_eq!(parse(rest), whole);
        assert_eq!(parse(&rest[..rest.len() - 1]), Parsed::Incomplete);
        assert_eq!(parse(&stream[..len - 1]), Parsed::Incomplete);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), Parsed::Broken);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), Parsed::Broken);
        assert_eq!(parse(b"nonsense"), Parsed::Broken);
    }

    #[test]
    fn bodies_are_checked() {
        let body = br#"{"asset":"BTC","quote":"USD","price":"1.5","source":"kraken-ws","ts":1763650000123}"#;
        let btc = Expect::price_of("BTC");
        assert!(btc.holds(body));
        assert!(!Expect::price_of("ETH").holds(body));
        let text = std::str::from_utf8(body).unwrap();
        for wrong in [text.replace("1.5", "0.0"), text.replace("1.5", "x"), text[..40].to_owned()] {
            assert!(!btc.holds(wrong.as_bytes()), "{wrong}");
        }
        assert!(Expect::Any.holds(b"") && Expect::Start(b"{\"a".to_vec()).holds(body));
        assert!(Expect::Contains(b"USD".to_vec()).holds(body));
        assert!(!Expect::Contains(b"EUR".to_vec()).holds(body));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let longer = matches!(parse(&bytes), Parsed::Answer { len, .. } if len > bytes.len());
            prop_assert!(!longer);
            prop_assert!(!Expect::price_of("BTC").holds(&bytes));
        }
    }
}
