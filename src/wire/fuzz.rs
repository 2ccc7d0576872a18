//! Fuzz bodies: any bytes in, nothing panics, what must hold holds. Ordinary tests call them, and so
//! may a fuzzer.

use serde::de::IgnoredAny;

use super::v2::{Key, Reply, RequestView};
use super::{answer_len_max, v1};
use crate::limits::{ASSETS_PER_REQUEST_MAX, REQUEST_ID_LEN_MAX, UDP_PAYLOAD_MAX};
use crate::wire::{ErrorCode, Reject};

/// Whatever v1 accepts is JSON in the eyes of another parser, and so is every answer to it.
pub fn v1(bytes: &[u8]) {
    let request = match v1::parse(bytes) {
        Ok(request) => request,
        Err(Reject::BadRequest | Reject::IsAnswer) => return,
    };
    assert!(is_json(bytes), "accepted what is not JSON");
    let names = request.assets().count();
    assert!((1..=ASSETS_PER_REQUEST_MAX).contains(&names));
    assert_eq!(names, request.asset_count());
    assert!(request.id().is_none_or(|id| is_json(id) && id.len() <= REQUEST_ID_LEN_MAX));

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

/// Views read what they accept.
pub fn v2(bytes: &[u8]) {
    let key = Key([1; 16]);
    if let Ok(view) = RequestView::parse(bytes) {
        let _ = (view.key_id(), view.time_ms(), view.exchange(), view.symbol());
        assert!(
            view.request_id() == super::v2::request_id(bytes) && view.tag_valid(&key) == view.tag_valid(&key)
        );
    }
    if let Ok(reply) = Reply::parse(bytes, &key) {
        assert_eq!(RequestView::parse(bytes).err(), Some(Reject::IsAnswer));
        let _ = reply.request_id();
    }
}

/// Whether another parser calls the bytes one JSON text in UTF-8.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}
