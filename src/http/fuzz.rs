//! Fuzz bodies of heads, queries, WebSocket frames and upgrades.

use super::head::{Head, parse};
use super::query::{QueryError, parameter};
use super::ws::{Decoder, Incoming, Key, ProtocolError, check_response};
use crate::limits::{FEED_MESSAGE_LEN_MAX, HTTP_BODY_LEN_MAX, HTTP_HEAD_LEN_MAX};

/// Most places at which one input is cut.
const CUTS_MAX: usize = 64;

/// A head does not change when more bytes follow it, no prefix of a head is a head, and what was
/// refused stays refused; parameters are read as [`query`] says.
pub fn head(bytes: &[u8]) {
    let whole = parse(bytes);
    for cut in cuts(bytes.len()) {
        let part = parse(&bytes[..cut]);
        match (part, whole) {
            (Head::Complete { .. }, _) => assert_eq!(part, whole),
            (Head::Reject(_), _) => assert!(matches!(whole, Head::Reject(_)), "{part:?} then {whole:?}"),
            (Head::Incomplete, Head::Complete { consumed, .. }) => assert!(cut < consumed),
            (Head::Incomplete, _) => {}
        }
    }
    if let Head::Complete { request, consumed } = whole {
        assert!(consumed <= bytes.len() && consumed <= HTTP_HEAD_LEN_MAX);
        assert!(request.body_len <= HTTP_BODY_LEN_MAX);
        assert!(bytes[..consumed].ends_with(b"\r\n\r\n"));
        assert!(!request.path.contains(&b'?') && request.path.iter().all(u8::is_ascii_graphic));
        query(request.query);
    }
}

/// Parameters are found and decoded as by an obvious model, and a small room is never exceeded.
pub fn query(bytes: &[u8]) {
    for name in ["asset", "assets", "source", "a", ""] {
        let expected = obvious_parameter(bytes, name.as_bytes());
        for room_len in [0, 8, bytes.len()] {
            let mut room = vec![0; room_len];
            match parameter(bytes, name, &mut room) {
                Err(QueryError::TooLong) => {
                    let len = expected.as_ref().map(|value| value.as_ref().map_or(0, Vec::len));
                    assert!(len.is_err() || len.is_ok_and(|len| len > room_len), "{}", bytes.escape_ascii());
                }
                found => {
                    let found = found.map(|value| value.map(<[u8]>::to_vec));
                    assert_eq!(found, expected, "{name} in {}", bytes.escape_ascii());
                }
            }
        }
    }
}

fn obvious_parameter(bytes: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, QueryError> {
    let mut values = Vec::new();
    for pair in bytes.split(|byte| *byte == b'&') {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if key == name || (key.contains(&b'%') && unescaped(key).is_some_and(|key| key == name)) {
            values.push(value);
        }
    }
    match values[..] {
        [] => Ok(None),
        [value] => unescaped(value).map(Some).ok_or(QueryError::Escape),
        _ => Err(QueryError::Repeated),
    }
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        out.push(match text[at] {
            b'+' => b' ',
            b'%' => {
                let digits = text.get(at + 1..at + 3).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
                at += 2;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
        at += 1;
    }
    Some(out)
}

/// Frames give the same in any pieces; messages are no longer than they may be.
pub fn ws_frames(bytes: &[u8]) {
    ws_frames_cut(bytes, &cuts(bytes.len()).collect::<Vec<_>>());
    ws_frames_cut(bytes, &[bytes.len() / 2]);
}

/// As [`ws_frames`], for one choice of pieces.
pub(crate) fn ws_frames_cut(bytes: &[u8], cuts: &[usize]) {
    let whole = decode(bytes, &[]);
    for message in &whole.0 {
        let (len, len_max) = match message {
            Owned::Text(text) => (text.len(), FEED_MESSAGE_LEN_MAX),
            Owned::Binary(bytes) => (bytes.len(), FEED_MESSAGE_LEN_MAX),
            Owned::Ping(bytes) | Owned::Pong(bytes) => (bytes.len(), 125),
            Owned::Close(_, reason) => (reason.len(), 123),
        };
        assert!(len <= len_max, "{message:?}");
    }
    let last = whole.0.len().saturating_sub(1);
    assert!(whole.0.iter().take(last).all(|message| !matches!(message, Owned::Close(..))));
    assert_eq!(decode(bytes, cuts), whole);
}

/// What a decoder gives, kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

fn owned(incoming: Incoming<'_>) -> Owned {
    match incoming {
        Incoming::Text(text) => Owned::Text(text.to_owned()),
        Incoming::Binary(bytes) => Owned::Binary(bytes.to_vec()),
        Incoming::Ping(bytes) => Owned::Ping(bytes.to_vec()),
        Incoming::Pong(bytes) => Owned::Pong(bytes.to_vec()),
        Incoming::Close { code, reason } => Owned::Close(code, reason.to_owned()),
    }
}

/// Feeds `bytes` in pieces that end at `cuts`: the messages, and how it ended.
pub(crate) fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Owned>, Option<ProtocolError>) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let (mut decoder, mut messages, mut from) = (Decoder::new(), Vec::new(), 0);
    for cut in cuts {
        let mut piece = &bytes[from..cut];
        from = cut;
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(incoming)) => messages.push(owned(incoming)),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (messages, None)
}

/// An answer to an upgrade is judged alike once it is whole; what was refused stays refused. The key
/// is that of 16 bytes of 42.
pub fn upgrade(bytes: &[u8]) {
    let key = Key::new([42; 16]);
    let whole = check_response(bytes, &key);
    for cut in cuts(bytes.len()) {
        match check_response(&bytes[..cut], &key) {
            Ok(None) => {}
            Ok(len) => assert_eq!(Ok(len), whole),
            Err(error) => assert!(whole.is_err(), "{error:?} then {whole:?}"),
        }
    }
    match whole {
        Ok(Some(len)) => {
            let head = bytes.get(..len).expect("no longer than what was received");
            assert!(head.ends_with(b"\n") && head.trim_ascii_start().starts_with(b"HTTP/1.1 101"));
            let accept = key.accept();
            assert!(memchr::memmem::find(head, accept.as_bytes()).is_some());
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Places to cut so many bytes, the first and the last among them.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..=len).step_by(len / CUTS_MAX + 1).chain([len])
}
