use proptest::prelude::*;

use super::*;
use crate::http::fuzz;

fn complete(bytes: &[u8]) -> Request<'_> {
    match parse(bytes) {
        Head::Complete { request, .. } => request,
        other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
    }
}

fn rejected(text: &str) -> Reject {
    match parse(text.as_bytes()) {
        Head::Reject(reject) => reject,
        other => panic!("{other:?} for {text:?}"),
    }
}

/// A GET of `/` over HTTP/1.1 with these further header lines.
fn with(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

#[test]
fn a_request_is_taken_apart() {
    let text = b"GET /price?asset=BTC HTTP/1.1\r\nHost: localhost:8080\r\nAuthorization: Bearer tb_1\r\n\
        X-Request-Id: r-7\r\nAccept: */*\r\n\r\nGET / ";
    let Head::Complete { request, consumed } = parse(text) else { panic!() };
    assert_eq!(consumed, text.len() - 6);
    assert_eq!(
        (request.method, request.path, request.query),
        (Method::Get, &b"/price"[..], &b"asset=BTC"[..])
    );
    assert_eq!(request.token, Some(&b"tb_1"[..]));
    assert_eq!(request.request_id, Some(&b"r-7"[..]));
    assert_eq!((request.body_len, request.connection), (0, Connection::KeepAlive));
    assert_eq!(request.parameter("asset", &mut []), Ok(Some(&b"BTC"[..])));
    assert!(!request.has_origin);
}

#[test]
fn every_prefix_of_a_head_is_incomplete() {
    let text = with("X-API-Key: k\r\nContent-Length: 3\r\n");
    for cut in 0..text.len() {
        assert_eq!(parse(&text.as_bytes()[..cut]), Head::Incomplete, "{cut}");
    }
    assert_eq!(complete(text.as_bytes()).body_len, 3);
}

#[test]
fn methods_and_targets() {
    assert_eq!(complete(b"HEAD / HTTP/1.0\r\n\r\n").method, Method::Head);
    assert_eq!(complete(b"get / HTTP/1.0\r\n\r\n").method, Method::Other);
    assert_eq!(complete(b"POST / HTTP/1.0\r\n\r\n").method, Method::Other);
    assert_eq!(complete(b"OPTIONS * HTTP/1.0\r\n\r\n").path, b"*");
    let absolute = complete(b"GET HTTP://a.example:80/price?asset=BTC HTTP/1.0\r\n\r\n");
    assert_eq!((absolute.path, absolute.query), (&b"/price"[..], &b"asset=BTC"[..]));
    let bare = complete(b"GET http://[::1]?q HTTP/1.0\r\n\r\n");
    assert_eq!((bare.path, bare.query), (&b"/"[..], &b"q"[..]));
    for target in ["*", "price", "http://", "http:///p", "https://a/", "http://u@a/", "/p#f", "/é", "a:443"]
    {
        assert_eq!(
            rejected(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
            Reject::Target,
            "{target}"
        );
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let Head::Complete { consumed, .. } = parse(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n") else { panic!() };
    assert_eq!(consumed, 22);
    assert_eq!(parse(b"\r\n"), Head::Incomplete);
    assert_eq!(rejected("\nGET / HTTP/1.0\r\n\r\n"), Reject::LineEnd);
}

#[test]
fn ambiguous_framing_is_always_refused() {
    for (headers, reject) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Reject::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", Reject::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Reject::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", Reject::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", Reject::TransferEncoding),
        ("Transfer-Encoding: \x0bchunked\r\n", Reject::HeaderValue),
        ("Transfer-Encoding: chunked\r\n", Reject::Chunked),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", Reject::ContentLength),
        ("Content-Length: 1, 1\r\n", Reject::ContentLength),
        ("Content-Length: +1\r\n", Reject::ContentLength),
        ("Content-Length: -1\r\n", Reject::ContentLength),
        ("Content-Length: 0x1\r\n", Reject::ContentLength),
        ("Content-Length:\r\n", Reject::ContentLength),
        ("Content-Length: 65537\r\n", Reject::BodyLength),
        ("Content-Length: 99999999999999999999999\r\n", Reject::BodyLength),
        ("Content-Length : 1\r\n", Reject::HeaderName),
        (" X: folded\r\n", Reject::HeaderName),
        ("X: y\r\n folded\r\n", Reject::HeaderName),
        ("X: y\r\n\tfolded\r\n", Reject::HeaderName),
        ("no colon\r\n", Reject::HeaderName),
        ("X\0: y\r\n", Reject::HeaderName),
        ("X: a\0b\r\n", Reject::HeaderValue),
        ("X: a\x7fb\r\n", Reject::HeaderValue),
        ("X: a\rb\r\n", Reject::HeaderValue),
        ("X: y\n", Reject::LineEnd),
        ("Host: a\r\n", Reject::Host),
        ("Expect: 100-continue\r\nContent-Length: 5\r\n", Reject::Expect),
    ] {
        assert_eq!(rejected(&with(headers)), reject, "{headers:?}");
    }
    assert_eq!(rejected("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Reject::TransferEncoding);
    assert_eq!(complete(with("Expect: 100-continue\r\n").as_bytes()).body_len, 0);
    assert_eq!(complete(with("Content-Length: 65536\r\n").as_bytes()).body_len, 65_536);
}

#[test]
fn bare_line_feeds_are_refused_as_soon_as_seen() {
    for text in ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHo", "GET / HTTP/1.1\r\nHost: a\r\n\n"] {
        assert_eq!(rejected(text), Reject::LineEnd, "{text:?}");
    }
}

#[test]
fn other_protocols_are_refused() {
    assert_eq!(rejected("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Reject::Version);
    assert_eq!(rejected("GET / HTTP/1.2\r\n\r\n"), Reject::Version);
    assert_eq!(rejected("GET /\r\n\r\n").status(), Status::BadRequest);
    assert_eq!(rejected("\x16\x03\x01\x02\x00\x01\x00").status(), Status::BadRequest);
    assert_eq!(rejected("GET  / HTTP/1.1\r\n\r\n").status(), Status::BadRequest);
    assert_eq!(rejected("GET / HTTP/1.1 \r\n\r\n").status(), Status::BadRequest);
}

#[test]
fn one_host_is_needed_in_1_1() {
    assert_eq!(rejected("GET / HTTP/1.1\r\n\r\n"), Reject::Host);
    assert_eq!(rejected("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), Reject::Host);
    assert_eq!(rejected("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), Reject::Host);
    assert_eq!(rejected("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n"), Reject::Host);
    complete(b"GET / HTTP/1.0\r\n\r\n");
    complete(b"GET / HTTP/1.1\r\nHOST: [::1]:8080\r\n\r\n");
}

#[test]
fn limits_are_exact() {
    let target = |len: usize| format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(len - 1));
    assert_eq!(complete(target(HTTP_TARGET_LEN_MAX).as_bytes()).path.len(), HTTP_TARGET_LEN_MAX);
    assert_eq!(rejected(&target(HTTP_TARGET_LEN_MAX + 1)), Reject::TargetLength);
    assert_eq!(rejected(&target(HTTP_HEAD_LEN_MAX * 3)), Reject::TargetLength);
    assert_eq!(rejected(&format!("GET /{}", "a".repeat(HTTP_TARGET_LEN_MAX + 100))), Reject::TargetLength);

    let headers = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(count));
    complete(headers(HTTP_HEADERS_MAX).as_bytes());
    assert_eq!(rejected(&headers(HTTP_HEADERS_MAX + 1)), Reject::HeaderCount);

    let head = |len: usize| format!("GET / HTTP/1.0\r\na: {}\r\n\r\n", "b".repeat(len - 23));
    complete(head(HTTP_HEAD_LEN_MAX).as_bytes());
    assert_eq!(rejected(&head(HTTP_HEAD_LEN_MAX + 1)), Reject::HeadLength);
    assert_eq!(rejected(&head(20 << 20)), Reject::HeadLength);
    assert_eq!(parse(&head(HTTP_HEAD_LEN_MAX + 1).as_bytes()[..HTTP_HEAD_LEN_MAX - 1]), Head::Incomplete);
    assert_eq!(Reject::HeadLength.status(), Status::HeadTooLarge);
    assert_eq!(Reject::TargetLength.status(), Status::UriTooLong);
}

#[test]
fn keys_come_from_either_header_and_never_two() {
    let token = |headers: &str| {
        let text = with(headers);
        complete(text.as_bytes()).token.map(|t| String::from_utf8_lossy(t).into_owned())
    };
    assert_eq!(token("X-API-Key: k1\r\n").as_deref(), Some("k1"));
    assert_eq!(token("authorization: bearer   k1\r\n").as_deref(), Some("k1"));
    assert_eq!(token("Authorization: Bearer k1\r\nX-Api-Key: k1\r\n").as_deref(), Some("k1"));
    assert_eq!(token("Authorization: Basic eA==\r\nX-Api-Key: k1\r\n").as_deref(), Some("k1"));
    for none in ["", "Authorization: Bearer \r\n", "Authorization: Bearerk1\r\n", "X-Api-Key:\r\n"] {
        assert_eq!(token(none), None, "{none:?}");
    }
    assert_eq!(rejected(&with("Authorization: Bearer k1\r\nX-Api-Key: k2\r\n")), Reject::TwoTokens);
    assert_eq!(rejected(&with("X-Api-Key: k1\r\nX-Api-Key: k2\r\n")), Reject::TwoTokens);
}

#[test]
fn request_ids_that_could_not_be_kept_are_ignored() {
    let long = "r".repeat(33);
    for (value, taken) in [("r", true), (&long[..32], true), (&long, false), ("a b", false), ("é", false)] {
        let text = with(&format!("X-Request-Id: {value}\r\n"));
        assert_eq!(complete(text.as_bytes()).request_id.is_some(), taken, "{value}");
    }
}

#[test]
fn the_connection_stays_open_as_each_version_says() {
    let connection = |version: u8, value: &str| {
        let text = format!("GET / HTTP/1.{version}\r\nHost: a\r\n{value}\r\n");
        complete(text.as_bytes()).connection
    };
    assert_eq!(connection(1, ""), Connection::KeepAlive);
    assert_eq!(connection(1, "Connection: Keep-Alive\r\n"), Connection::KeepAlive);
    assert_eq!(connection(1, "Connection: te , CLOSE\r\n"), Connection::Close);
    assert_eq!(connection(0, ""), Connection::Close);
    assert_eq!(connection(0, "Connection: keep-alive\r\n"), Connection::KeepAliveAnnounced);
    assert_eq!(connection(0, "Connection: keep-alive\r\nConnection: close\r\n"), Connection::Close);
}

#[test]
fn every_refusal_says_what_is_needed() {
    let all = [
        Reject::RequestLine,
        Reject::Version,
        Reject::LineEnd,
        Reject::HeaderName,
        Reject::HeaderValue,
        Reject::Target,
        Reject::TargetLength,
        Reject::HeadLength,
        Reject::HeaderCount,
        Reject::Host,
        Reject::ContentLength,
        Reject::BodyLength,
        Reject::TransferEncoding,
        Reject::Chunked,
        Reject::Expect,
        Reject::TwoTokens,
    ];
    for reject in all {
        assert!(reject.message().len() > 20);
        assert_eq!(reject.is_too_large(), reject.error() == "too_large");
        assert!((400..=431).contains(&reject.status().code()));
    }
}

/// Bytes that are often nearly a head.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"GET /price?asset=BTC HTTP/1.0\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Connection: close\r\n".to_vec()),
        Just(b"Authorization: Bearer t\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
        (1_usize..9_000).prop_map(|len| vec![b'x'; len]),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz::head(&bytes);
    }

    #[test]
    fn nearly_right_bytes_are_survived(bytes in nearly_a_head()) {
        fuzz::head(&bytes);
    }
}
