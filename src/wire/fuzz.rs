//! Fuzz bodies: any bytes in, nothing panics, what must hold holds. Ordinary tests call them, and so
//! may a fuzzer.

mod model;

use serde::de::IgnoredAny;

use self::model::{Meaning, depth, model};
use super::v1::scan::{DEPTH_MAX, Text};
use super::v2::{
    ANSWER_LEN, AnswerTemplate, ERROR_LEN, Key, Reply, Request, RequestView, write_error, write_request,
};
use super::{answer_len_max, v1};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::price::{Quote, TradeKey};
use crate::siphash::SipHash;
use crate::time::UnixNs;
use crate::wire::{ErrorCode, Reject};

/// The scanner takes exactly what serde_json calls JSON, unless it is nested too deep.
pub fn json(bytes: &[u8]) {
    let text = Text(bytes);
    let taken = text.value(text.space(0), 0).is_ok_and(|end| text.space(end) == bytes.len());
    let taken = taken && std::str::from_utf8(bytes).is_ok();
    assert_eq!(taken, is_flat_json(bytes), "{}", bytes.escape_ascii());
}

/// A request is taken, refused and read as the same rules over serde_json say; what answers it is
/// JSON within its bound, and no request.
pub fn v1(bytes: &[u8]) {
    let found = v1::parse(bytes);
    let meaning = found.as_ref().map_err(|reject| *reject).map(|request| {
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Meaning {
            token: string(request.token()),
            assets: request.assets().map(string).collect(),
            single: request.asset().is_some(),
            source: request.source().map(string),
            id: request.id().map(string),
        }
    });
    if is_flat_json(bytes) {
        assert_eq!(meaning, model(bytes), "{}", bytes.escape_ascii());
    } else {
        assert!(meaning.is_err(), "accepted what is not JSON: {}", bytes.escape_ascii());
    }
    let Ok(request) = found else { return };
    let names = request.asset_count();
    assert_eq!(names, request.assets().count());

    let mut out = [0; UDP_PAYLOAD_MAX];
    let len_max = answer_len_max(bytes.len());
    let error = v1::write_error(&mut out, len_max, ErrorCode::Stale, request.id());
    assert!(error.is_none_or(|len| len <= len_max && is_json(&out[..len])));
    let Some(mut prices) = v1::PricesWriter::new(&mut out, len_max, names, request.id()) else { return };
    for asset in request.assets() {
        if !prices.push_error(asset, ErrorCode::UnknownAsset) {
            break;
        }
    }
    if let Some(len) = prices.finish() {
        assert!(len <= len_max && is_json(&out[..len]), "{}", String::from_utf8_lossy(&out[..len]));
        assert_eq!(v1::parse(&out[..len]).err(), Some(Reject::IsAnswer));
    }
}

/// What is taken as a request, an answer or an error is what its writer writes of the fields that
/// were read; nothing is two of these. So that more than the tag is tried, the tag is also set right.
pub fn v2(bytes: &[u8]) {
    v2_request(bytes);
    v2_reply(bytes);
    let mut tagged = bytes.to_vec();
    let tag_at = match bytes.len() {
        ERROR_LEN => ERROR_LEN - 8,
        ANSWER_LEN if bytes.starts_with(&[0xbe, 0xa5, 2, 0x81]) => ANSWER_LEN - 8,
        len if len >= ANSWER_LEN => 48,
        _ => return,
    };
    let tag = SipHash::new(KEY.0).hash(&bytes[..tag_at]);
    tagged[tag_at..tag_at + 8].copy_from_slice(&tag.to_le_bytes());
    v2_request(&tagged);
    v2_reply(&tagged);
    // A damaged tag is always noticed.
    tagged[tag_at] ^= 1;
    assert!(!RequestView::parse(&tagged).is_ok_and(|view| view.tag_valid(&KEY)));
    assert!(matches!(Reply::parse(&tagged, &KEY), Err(_) | Ok(Reply::RefusedUnsigned(_))));
}

const KEY: Key = Key([1; 16]);

fn v2_request(bytes: &[u8]) {
    let Ok(view) = RequestView::parse(bytes) else { return };
    assert!((ANSWER_LEN..=UDP_PAYLOAD_MAX).contains(&bytes.len()));
    assert_eq!(view.request_id(), super::v2::request_id(bytes));
    assert_eq!(v1::parse(bytes).err(), Some(Reject::BadRequest));
    let Some(symbol) = view.symbol() else { return };
    let (key_id, time_ms, request_id) = (view.key_id(), view.time_ms(), view.request_id());
    let request = Request { key_id, time_ms, request_id, exchange: view.exchange(), symbol };
    let mut written = vec![0; bytes.len()];
    assert_eq!(write_request(&mut written, &request, &KEY), Some(ANSWER_LEN));
    assert_eq!((&written[..48], &written[56..]), (&bytes[..48], &bytes[56..]));
    assert_eq!(view.tag_valid(&KEY), written == bytes);
}

fn v2_reply(bytes: &[u8]) {
    let Ok(reply) = Reply::parse(bytes, &KEY) else { return };
    assert_eq!(RequestView::parse(bytes).err(), Some(Reject::IsAnswer));
    let mut written = [0; ANSWER_LEN];
    let len = match reply {
        Reply::Answer(answer) => {
            let quote = Quote {
                price: answer.price,
                key: TradeKey { time: UnixNs(answer.exchange_time_ns), number: 0 },
                received: UnixNs(answer.receive_time_ns),
                tier: answer.tier,
            };
            AnswerTemplate::new(answer.symbol, answer.currency, answer.exchange, &quote).write(
                &mut written,
                answer.request_id,
                answer.record,
                &KEY,
            )
        }
        Reply::Refused(refusal) => write_error(&mut written, ERROR_LEN, &refusal, Some(&KEY)),
        Reply::RefusedUnsigned(refusal) => write_error(&mut written, ERROR_LEN, &refusal, None),
    };
    assert_eq!(len.map(|len| &written[..len]), Some(bytes), "{reply:?}");
}

/// Whether another parser calls the bytes one JSON text in UTF-8.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Whether they are JSON that is nested no deeper than v1 takes it.
fn is_flat_json(bytes: &[u8]) -> bool {
    is_json(bytes) && depth(bytes) <= usize::from(DEPTH_MAX)
}
