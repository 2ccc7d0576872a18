//! What is written down about answers and refusals, and what happens when it cannot be.

use super::*;
use crate::ledger::{Journal, JournalOptions};

fn statuses(answerer: &Answerer) -> Vec<(Transport, u8, Vec<u8>)> {
    let records = answerer.segment().newest();
    records.map(|(_, r)| (r.transport, r.status, r.request.as_bytes().to_vec())).collect()
}

#[test]
fn refusals_of_a_valid_key_are_written_down_and_those_of_strangers_are_not() {
    let (mut answerer, token) = answerer(false);
    let key = token.reveal();
    udp(&mut answerer, &format!(r#"{{"api_key":"{key}","asset":"NOPE","id":1}}"#)).unwrap();
    udp(&mut answerer, &format!(r#"{{"api_key":"{key}","asset":"BTC","id":2}}"#)).unwrap();
    udp(&mut answerer, &format!(r#"{{"api_key":"{key}","asset":"SOL","id":3}}"#)).unwrap();
    let _ = udp(&mut answerer, r#"{"api_key":"tb_nobody","asset":"BTC","id":4}"#);
    let _ = udp(&mut answerer, "no request at all");
    let get = |path: &str, id: u8| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nX-Request-Id: {id}\r\n\r\n")
    };
    http(&mut answerer, &get("/price", 5));
    http(&mut answerer, &get("/price?asset=BTC", 6));
    http(&mut answerer, &get("/price?asset=SOL", 7));
    http(&mut answerer, &get("/elsewhere", 8));
    http(&mut answerer, "GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\n\r\n");
    let code = |code: ErrorCode| code.number();
    let expected = [
        (Transport::UdpV1, code(ErrorCode::UnknownAsset), b"1".to_vec()),
        (Transport::UdpV1, 0, b"2".to_vec()),
        (Transport::UdpV1, code(ErrorCode::Stale), b"3".to_vec()),
        (Transport::Http, code(ErrorCode::BadRequest), b"5".to_vec()),
        (Transport::Http, 0, b"6".to_vec()),
        (Transport::Http, code(ErrorCode::Stale), b"7".to_vec()),
    ];
    assert_eq!(statuses(&answerer), expected);
    assert_eq!(answerer.counters.value(Counter::RecordAppended), expected.len() as u64);
    books_close(&answerer);
}

#[test]
fn an_answer_without_room_for_its_record_is_not_given() {
    let (mut answerer, token) = answerer(false);
    let data = tempfile::tempdir().unwrap();
    let options = JournalOptions { folder: data.path().join("j"), segment_bytes: 4_160, bytes_max: 0 };
    let (journal, mut segments, _) = Journal::open(options, 1, 1).unwrap();
    answerer.segment = segments.remove(0);
    let request = format!(r#"{{"api_key":"{}","asset":"BTC","id":2}}"#, token.reveal());
    assert_eq!(udp(&mut answerer, &request).unwrap(), r#"{"error":"overloaded","id":2}"#);
    let get = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", token.reveal());
    assert!(http(&mut answerer, &get).starts_with("HTTP/1.1 503"));
    for (counter, count) in [
        (Counter::UdpOverloaded, 1),
        (Counter::HttpOverloaded, 1),
        (Counter::RecordRefused, 2),
        (Counter::RecordAppended, 0),
        (Counter::UdpAnswered, 0),
    ] {
        assert_eq!(answerer.counters.value(counter), count, "{counter:?}");
    }
    assert!(journal.status().trouble.is_some());
    books_close(&answerer);
}

#[test]
fn a_latency_counts_from_the_turn_or_from_before_the_wait() {
    let (mut answerer, token) = answerer(true);
    answerer.set_clock(|| NOW.mono.plus(Duration::from_nanos(250)));
    let request = format!(r#"{{"api_key":"{}","asset":"SOL","id":9}}"#, token.reveal());
    assert!(matches!(udp(&mut answerer, &request), Err(Verdict::Wait(_))));
    price(&mut answerer, 4, "150.25");
    answerer.waited_since(MonoNs(NOW.mono.0 - 5_000));
    udp_from(&mut answerer, "127.0.0.1", request.as_bytes(), Attempt::Again).unwrap();
    udp(&mut answerer, &request).unwrap();
    let latencies: Vec<u32> = answerer.segment().newest().map(|(_, record)| record.latency_ns).collect();
    assert_eq!(latencies, [5_250, 250]);
}
