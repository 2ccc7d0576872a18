//! Fuzz bodies of what clients send: queries, cursors and datagrams.

use super::cursor::Cursor;
use super::names::Names;
use super::query::{LIMIT_MAX, Query, Scope, Which};
use super::udp;
use crate::limits::REQUEST_ID_LEN_MAX;
use crate::time::UnixNs;

/// What is read as a cursor is written as it was read.
pub fn report_cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.text(), text);
    }
}

/// A query that is taken is within its bounds, belongs to its caller, and its cursor leads back to
/// the same query; a refusal says something. The bytes are `name=value` pairs, as in a URL without
/// escapes.
pub fn report_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parameters: Vec<(String, String)> = text
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let (names, now) = (Names::default(), UnixNs(1_763_650_000_000_000_000));
    for which in Which::ALL {
        for scope in [Scope::All, Scope::Key(7)] {
            let query = match Query::parse(which, &parameters, scope, &names, now) {
                Ok(query) => query,
                Err(refusal) => {
                    assert!(!refusal.message.is_empty() && refusal.status >= 400);
                    continue;
                }
            };
            assert!((1..=LIMIT_MAX).contains(&query.limit));
            assert!(query.filter.from <= query.filter.to && query.filter.to <= now);
            assert!(scope == Scope::All || query.filter.key == Some(7));
            let places = query.after.as_ref().map_or(6, Vec::len);
            let place = vec![1; if which == Which::Usage { 6 } else { places.min(3) }];
            let next = query.cursor(place.clone());
            let mut again: Vec<_> = parameters.iter().filter(|(name, _)| name != "cursor").cloned().collect();
            again.push(("cursor".to_owned(), next));
            if which == Which::Usage {
                let again =
                    Query::parse(which, &again, scope, &names, now).map(|query| (query.after, query.filter));
                assert_eq!(again, Ok((Some(place), query.filter)));
            }
        }
    }
}

/// What is read as a request over UDP has an id that can be given back.
pub fn report_datagram(bytes: &[u8]) {
    if let Some(id) = udp::parse(bytes).and_then(|request| request.id()) {
        assert!(id.len() <= REQUEST_ID_LEN_MAX && !id.contains(['{', '[']) || id.starts_with('"'));
    }
}
