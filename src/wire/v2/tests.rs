use proptest::prelude::*;

use super::*;
use crate::price::{Currency, Price, Quote, Tier, TradeKey};
use crate::time::UnixNs;
use crate::wire::ErrorCode;

const REQUEST_KEY: Key = Key([7; 16]);
const ANSWER_KEY: Key = Key([9; 16]);

fn request() -> Request {
    Request {
        key_id: 0x0102_0304_0506_0708,
        time_ms: 1_763_650_000_123,
        request_id: 42,
        exchange: Some(ExchangeId::new(3).unwrap()),
        symbol: Symbol::parse("BTC").unwrap(),
    }
}

fn request_bytes() -> [u8; ANSWER_LEN] {
    let mut bytes = [0xff; ANSWER_LEN];
    assert_eq!(write_request(&mut bytes, &request(), &REQUEST_KEY), Some(ANSWER_LEN));
    bytes
}

fn template() -> AnswerTemplate {
    let quote = Quote {
        price: Price::parse(b"65000.12").unwrap(),
        key: TradeKey { time: UnixNs(1_763_650_000_123_456_789), number: 1 },
        received: UnixNs(1_763_650_000_130_000_000),
        tier: Tier::Rest,
    };
    let (symbol, currency) = (Symbol::parse("BTC").unwrap(), Currency::parse("USD").unwrap());
    AnswerTemplate::new(symbol, currency, ExchangeId::new(3).unwrap(), &quote)
}

fn record() -> RecordId {
    RecordId { epoch: 0xa1b2_c3d4, shard: 0xe5f6, sequence: 0x1122_3344_5566_7788 }
}

fn refusal() -> Refusal {
    Refusal { code: ErrorCode::Expired, request_id: 42, server_time_ms: 1_763_650_000_124, retry_after_ms: 5 }
}

#[test]
fn a_request_says_what_was_written() {
    let bytes = request_bytes();
    let view = RequestView::parse(&bytes).unwrap();
    let sent = request();
    assert_eq!(
        (view.key_id(), view.time_ms(), view.request_id()),
        (sent.key_id, sent.time_ms, sent.request_id)
    );
    assert_eq!((view.exchange(), view.symbol()), (sent.exchange, Some(sent.symbol)));
    assert!(view.tag_valid(&REQUEST_KEY) && !view.tag_valid(&ANSWER_KEY));
    assert_eq!(request_id(&bytes), 42);
    let mut any = [0; ANSWER_LEN];
    write_request(&mut any, &Request { exchange: None, ..sent }, &REQUEST_KEY).unwrap();
    assert_eq!(RequestView::parse(&any).unwrap().exchange(), None);
}

#[test]
fn every_signed_bit_counts_and_every_zero_is_checked() {
    let bytes = request_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        let accepted = RequestView::parse(&damaged).is_ok_and(|view| view.tag_valid(&REQUEST_KEY));
        assert!(!accepted, "bit {bit}");
    }
}

#[test]
fn only_lengths_between_the_answer_and_the_payload_bound_are_requests() {
    let mut long = [0; UDP_PAYLOAD_MAX + 100];
    long[..ANSWER_LEN].copy_from_slice(&request_bytes());
    for len in 0..long.len() {
        let ok = RequestView::parse(&long[..len]).is_ok();
        assert_eq!(ok, (ANSWER_LEN..=UDP_PAYLOAD_MAX).contains(&len), "{len} bytes");
    }
    for at in ZEROS_AT..UDP_PAYLOAD_MAX {
        let mut set = long;
        set[at] = 1;
        assert_eq!(RequestView::parse(&set[..UDP_PAYLOAD_MAX]).err(), Some(Reject::BadRequest), "byte {at}");
    }
}

#[test]
fn answers_are_never_requests() {
    let (mut answer, mut error) = ([0; ANSWER_LEN], [0; ERROR_LEN]);
    template().write(&mut answer, 1, record(), &ANSWER_KEY).unwrap();
    write_error(&mut error, ANSWER_LEN, &refusal(), None).unwrap();
    assert_eq!(RequestView::parse(&answer).err(), Some(Reject::IsAnswer));
    assert_eq!(RequestView::parse(&error).err(), Some(Reject::IsAnswer));
    answer[2] = 3;
    assert_eq!(RequestView::parse(&answer).err(), Some(Reject::IsAnswer), "of a later version too");
    assert!(looks_like(&answer) && looks_like(&request_bytes()) && !looks_like(b"{\"asset\""));
}

#[test]
fn an_exchange_number_out_of_range_is_a_bad_request() {
    let mut bytes = request_bytes();
    bytes[4] = 64;
    assert_eq!(RequestView::parse(&bytes).err(), Some(Reject::BadRequest));
}

#[test]
fn an_answer_says_what_was_written() {
    let mut bytes = [0xff; 100];
    assert_eq!(template().write(&mut bytes, 42, record(), &ANSWER_KEY), Some(ANSWER_LEN));
    let Ok(Reply::Answer(answer)) = Reply::parse(&bytes[..ANSWER_LEN], &ANSWER_KEY) else { panic!() };
    assert_eq!(answer.price.text().as_str(), "65000.12");
    assert_eq!((answer.symbol.as_str(), answer.currency.as_str()), ("BTC", "USD"));
    assert_eq!((answer.exchange.index(), answer.tier), (3, Tier::Rest));
    assert_eq!(answer.exchange_time_ns, 1_763_650_000_123_456_789);
    assert_eq!(answer.receive_time_ns, 1_763_650_000_130_000_000);
    assert_eq!((answer.request_id, answer.record), (42, record()));
    for bit in 0..ANSWER_LEN * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Reply::parse(&damaged[..ANSWER_LEN], &ANSWER_KEY).is_err(), "bit {bit}");
    }
}

#[test]
fn a_currency_is_only_what_the_server_writes() {
    for currency in [b"USD\0X\0\0\0", b"usd\0\0\0\0\0", b"\0USD\0\0\0\0"] {
        let mut bytes = [0; ANSWER_LEN];
        template().write(&mut bytes, 42, record(), &ANSWER_KEY).unwrap();
        bytes[40..48].copy_from_slice(currency);
        let tag = SipHash::new(ANSWER_KEY.0).hash(&bytes[..80]);
        bytes[80..].copy_from_slice(&tag.to_le_bytes());
        assert_eq!(Reply::parse(&bytes, &ANSWER_KEY), Err(ReplyFault::OutOfRange));
    }
}

#[test]
fn an_error_says_what_was_written() {
    let mut bytes = [0xff; 64];
    assert_eq!(write_error(&mut bytes, ERROR_LEN, &refusal(), Some(&ANSWER_KEY)), Some(ERROR_LEN));
    assert_eq!(Reply::parse(&bytes[..ERROR_LEN], &ANSWER_KEY), Ok(Reply::Refused(refusal())));
    assert_eq!(Reply::parse(&bytes[..ERROR_LEN], &REQUEST_KEY), Err(ReplyFault::WrongTag));
    write_error(&mut bytes, ERROR_LEN, &refusal(), None).unwrap();
    assert_eq!(Reply::parse(&bytes[..ERROR_LEN], &REQUEST_KEY), Ok(Reply::RefusedUnsigned(refusal())));
}

#[test]
fn nothing_is_written_where_it_does_not_fit() {
    for len in 0..ANSWER_LEN {
        let mut short = vec![0; len];
        assert_eq!(template().write(&mut short, 1, record(), &ANSWER_KEY), None);
        assert_eq!(write_request(&mut short, &request(), &REQUEST_KEY), None);
        assert!(short.iter().all(|byte| *byte == 0));
        let fits = (len >= ERROR_LEN).then_some(ERROR_LEN);
        assert_eq!(write_error(&mut short, 88, &refusal(), None), fits);
        assert_eq!(write_error(&mut [0; 88], len, &refusal(), None), fits);
    }
}

#[test]
fn the_window_is_ten_seconds_each_way() {
    let now = 1_763_650_000_000;
    assert!(in_window(now - 10_000, now) && in_window(now + 10_000, now));
    assert!(!in_window(now - 10_001, now) && !in_window(now + 10_001, now));
    assert!(!in_window(u64::MAX, 0) && !in_window(0, u64::MAX));
}

#[test]
fn keys_are_not_printed() {
    assert_eq!(format!("{:?}", Key([0x41; 16])), "Key(secret)");
}

proptest! {
    #[test]
    fn no_bytes_stop_the_views(mut bytes in proptest::collection::vec(any::<u8>(), 0..1_300), head in 0_usize..4) {
        for (to, from) in bytes.iter_mut().zip([&[][..], &REQUEST_HEAD, &ANSWER_HEAD, &ERROR_HEAD][head]) {
            *to = *from;
        }
        crate::wire::fuzz::v2(&bytes);
    }

    #[test]
    fn every_request_comes_back(key_id: u64, time_ms: u64, request_id: u64, exchange in 0_usize..64,
        symbol in "[A-Z0-9]{1,16}", key: [u8; 16], padding in 0_usize..1_144) {
        let exchange = (exchange > 0).then(|| ExchangeId::new(exchange).unwrap());
        let symbol = Symbol::parse(&symbol).unwrap();
        let sent = Request { key_id, time_ms, request_id, exchange, symbol };
        let mut bytes = vec![0; ANSWER_LEN + padding];
        write_request(&mut bytes, &sent, &Key(key)).unwrap();
        let view = RequestView::parse(&bytes).unwrap();
        prop_assert!(view.tag_valid(&Key(key)));
        prop_assert_eq!((view.key_id(), view.time_ms(), view.request_id()), (key_id, time_ms, request_id));
        prop_assert_eq!((view.exchange(), view.symbol()), (exchange, Some(symbol)));
    }
}
