//! The JSON protocol.

use super::requests::{Requests, Verdict, pick};
use crate::price::Symbol;
use crate::time::UnixNs;
use crate::wire::ErrorCode;

/// Asks for assets in v1 and checks the members, the id and the asset of every answer. The id is a
/// string of 16 hexadecimal digits, so that all requests for one asset are equally long.
#[derive(Clone)]
pub struct V1 {
    /// For each symbol a request whose id is still to be written, and the start of its answer.
    assets: Vec<Asset>,
}

#[derive(Clone)]
struct Asset {
    request: Vec<u8>,
    answer_start: Vec<u8>,
}

const ID_DIGITS: usize = 16;
/// What follows the id in a request and in an answer.
const END: &[u8] = b"\"}";

impl V1 {
    /// Asks for `symbols` in turn under the API key `token`.
    #[must_use]
    pub fn new(token: &str, symbols: &[Symbol]) -> Self {
        let asset = |symbol: &Symbol| {
            let symbol = symbol.as_str();
            let blank = "0".repeat(ID_DIGITS);
            Asset {
                request: format!(r#"{{"api_key":"{token}","asset":"{symbol}","id":"{blank}"}}"#).into(),
                answer_start: format!(r#"{{"asset":"{symbol}","quote":""#).into(),
            }
        };
        Self { assets: symbols.iter().map(asset).collect() }
    }

    fn asset(&self, id: u64) -> Option<&Asset> {
        self.assets.get(pick(id, self.assets.len()))
    }
}

impl Requests for V1 {
    fn fill(&mut self, id: u64, _: UnixNs, out: &mut [u8]) -> usize {
        let Some(Asset { request, .. }) = self.asset(id) else { return 0 };
        let Some(room) = out.get_mut(..request.len()) else { return 0 };
        room.copy_from_slice(request);
        let id_at = request.len() - END.len() - ID_DIGITS;
        write_hex(id, &mut room[id_at..][..ID_DIGITS]);
        request.len()
    }

    fn check(&mut self, answer: &[u8]) -> Verdict {
        let Some((members, id)) = split_id(answer) else { return Verdict::Stray };
        if let Some(code) = members.strip_prefix(b"{\"error\":\"").and_then(|m| m.strip_suffix(b"\"")) {
            let known = ErrorCode::ALL.into_iter().find(|known| known.as_str().as_bytes() == code);
            return known.map_or(Verdict::Wrong(id), |code| Verdict::Refused(id, code));
        }
        let rest = self.asset(id).and_then(|asset| members.strip_prefix(&asset.answer_start[..]));
        if rest.is_some_and(has_price) { Verdict::Match(id) } else { Verdict::Wrong(id) }
    }
}

/// Splits `…,"id":"0123456789abcdef"}` into what is before the comma and the id.
fn split_id(answer: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, digits) = answer.strip_suffix(END)?.split_last_chunk::<ID_DIGITS>()?;
    let mut id = 0;
    for digit in digits {
        id = id << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some((rest.strip_suffix(b",\"id\":\"")?, id))
}

/// Whether `USD","price":"1.5","source":"kraken-ws","ts":1763650000123` it is, without more.
pub(super) fn has_price(rest: &[u8]) -> bool {
    let mut parts = rest.split(|byte| *byte == b'"');
    let is = |part: Option<&[u8]>, text: &[u8]| part == Some(text);
    parts.next().is_some_and(|quote| !quote.is_empty())
        && is(parts.next(), b",")
        && is(parts.next(), b"price")
        && is(parts.next(), b":")
        && parts.next().is_some_and(is_price)
        && is(parts.next(), b",")
        && is(parts.next(), b"source")
        && is(parts.next(), b":")
        && parts.next().is_some_and(|source| source.contains(&b'-'))
        && is(parts.next(), b",")
        && is(parts.next(), b"ts")
        && parts
            .next()
            .is_some_and(|ts| ts.len() > 1 && ts[0] == b':' && ts[1..].iter().all(u8::is_ascii_digit))
        && parts.next().is_none()
}

fn is_price(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
        && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && text.iter().any(|byte| matches!(byte, b'1'..=b'9'))
}

fn write_hex(number: u64, out: &mut [u8]) {
    for (to, shift) in out.iter_mut().zip((0..64).step_by(4).rev()) {
        *to = b"0123456789abcdef"[usize::try_from(number >> shift & 0xf).unwrap_or(0)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::v1;

    fn load() -> V1 {
        let symbols = ["BTC", "ETH"].map(|s| Symbol::parse(s).unwrap());
        V1::new("tb_key", &symbols)
    }

    fn answer(asset: &str, id: &[u8]) -> Vec<u8> {
        let head = format!(
            r#"{{"asset":"{asset}","quote":"USD","price":"65000.12","source":"coinbase-ws","ts":1763650000123"#
        );
        let mut out = [0; 1_232];
        let len = v1::write_answer(&mut out, 1_232, head.as_bytes(), Some(id)).unwrap();
        out[..len].to_vec()
    }

    #[test]
    fn requests_are_valid_and_only_their_own_answers_match() {
        let mut load = load();
        for id in [1, 2, 0x0003_0000_0001_0002, u64::MAX] {
            let mut room = [0; 1_232];
            let len = load.fill(id, UnixNs(0), &mut room);
            let request = v1::parse(&room[..len]).unwrap();
            assert_eq!(request.token(), b"tb_key");
            let asset = std::str::from_utf8(request.asset().unwrap()).unwrap();
            let other = if asset == "BTC" { "ETH" } else { "BTC" };
            let own = request.id().unwrap();
            assert_eq!(load.check(&answer(asset, own)), Verdict::Match(id));
            assert_eq!(load.check(&answer(other, own)), Verdict::Wrong(id));
            let mut refusal = [0; 1_232];
            let len = v1::write_error(&mut refusal, 1_232, ErrorCode::Stale, Some(own)).unwrap();
            assert_eq!(load.check(&refusal[..len]), Verdict::Refused(id, ErrorCode::Stale));
        }
    }

    #[test]
    fn what_is_not_an_answer_is_wrong() {
        let mut load = load();
        let right = String::from_utf8(answer("BTC", b"\"0000000000000000\"")).unwrap();
        for (from, to) in [
            ("65000.12", "0.00"),
            ("65000.12", "-1"),
            ("65000.12", ""),
            ("USD", ""),
            ("1763650000123", ""),
            ("1763650000123", "12,\"x\":1"),
            ("-ws", ""),
            ("\"id\"", "\"di\""),
            ("{\"asset", "{\"error\":\"nonsense\",\"asset"),
        ] {
            let wrong = right.replace(from, to);
            assert_ne!(wrong, right);
            let verdict = load.check(wrong.as_bytes());
            assert!(matches!(verdict, Verdict::Wrong(0) | Verdict::Stray), "{wrong}: {verdict:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes: Vec<u8>) {
            load().check(&bytes);
        }

        #[test]
        fn ids_come_back(id: u64) {
            let mut digits = [0; ID_DIGITS];
            write_hex(id, &mut digits);
            let text = [b",\"id\":\"" as &[u8], &digits, END].concat();
            prop_assert_eq!(split_id(&text), Some((&[][..], id)));
        }
    }
}
