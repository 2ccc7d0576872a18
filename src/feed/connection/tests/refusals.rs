//! Acks, errors and silence after subscribing.

use super::*;

/// Answers whole requests by number; `bad` are the symbols it does not know.
fn answer_requests(exchange: &mut Exchange, bad: &[&str], asked: &mut usize) {
    for (id, symbols) in exchange.subscribed() {
        *asked += 1;
        let ok = !symbols.iter().any(|symbol| bad.contains(&symbol.as_str()));
        exchange.text(&format!(r#"{{"id":{id},"ok":{ok},"why":"no such symbol"}}"#));
    }
}

fn acked(events: &[Heard]) -> Vec<usize> {
    let of = |event: &Heard| if let Heard::Acked(listing) = event { Some(*listing) } else { None };
    let mut all: Vec<_> = events.iter().filter_map(of).collect();
    all.sort_unstable();
    all
}

fn refused(events: &[Heard]) -> Vec<usize> {
    let of = |event: &Heard| if let Heard::Refused(listing, _) = event { Some(*listing) } else { None };
    let mut all: Vec<_> = events.iter().filter_map(of).collect();
    all.sort_unstable();
    all
}

#[test]
fn bad_symbols_are_found_by_halves_and_the_others_go_on() {
    let mut exchange = Exchange::open(toy("max_per_msg = 10"), 10);
    let mut asked = 0;
    for _ in 0..40 {
        answer_requests(&mut exchange, &["S3", "S9"], &mut asked);
        exchange.pass(100).unwrap();
        exchange.send(&frame(10, b"")).unwrap();
    }
    let events = exchange.events();
    assert_eq!(refused(&events), [3, 9]);
    assert!(events.contains(&Heard::Refused(3, "no such symbol".into())));
    assert_eq!(acked(&events), [0, 1, 2, 4, 5, 6, 7, 8]);
    assert!(asked <= 17, "{asked} subscribes for 2 bad symbols of 10");
    assert_eq!(exchange.connection.phase(), Phase::Live);
}

#[test]
fn an_exchange_that_refuses_everything_is_not_asked_for_ever() {
    let all: Vec<String> = (0..8).map(|n| format!("S{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut exchange = Exchange::open(toy("max_per_msg = 8"), 8);
    let mut asked = 0;
    for _ in 0..1_000 {
        answer_requests(&mut exchange, &all, &mut asked);
        exchange.pass(100).unwrap();
        exchange.send(&frame(10, b"")).unwrap();
    }
    assert_eq!(asked, 15, "every node of the tree of halves once");
    assert_eq!(refused(&exchange.events()), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn what_is_live_is_not_refused() {
    let mut exchange = Exchange::open(toy(""), 2);
    exchange.sent();
    exchange.trade("S0", "1", 1);
    exchange.trade("S1", "1", 1);
    exchange.events();
    exchange.text(r#"{"id":1001,"ok":false,"why":"already subscribed"}"#);
    exchange.pass(1_000).unwrap();
    assert_eq!(exchange.events(), [Heard::Error("already subscribed".into())]);
    assert_eq!(exchange.sent(), []);
    // Of two, the one that is not live is the bad one.
    let mut exchange = Exchange::open(toy(""), 2);
    exchange.trade("S0", "1", 1);
    exchange.events();
    exchange.text(r#"{"id":1001,"ok":false,"why":"?"}"#);
    assert_eq!(exchange.events(), [Heard::Refused(1, "?".into())]);
    // A refused symbol that trades after all is live.
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.text(r#"{"id":1001,"ok":false,"why":"?"}"#);
    exchange.trade("S0", "1", 1);
    let expected = [Heard::Refused(0, "?".into()), Heard::Trade(0, "1".into(), 1), Heard::Live(0)];
    assert_eq!(exchange.events(), expected);
}

#[test]
fn an_error_of_another_request_refuses_nothing() {
    let mut exchange = Exchange::open(toy(""), 2);
    exchange.sent();
    exchange.text(r#"{"id":100,"ok":false,"why":"ping too often"}"#);
    exchange.text(r#"{"ok":false}"#);
    let expected = [Heard::Error("ping too often".into()), Heard::Error(r#"{"ok":false}"#.into())];
    assert_eq!(exchange.events(), expected);
    exchange.pass(1_000).unwrap();
    assert_eq!(exchange.sent(), []);
}

#[test]
fn an_error_that_names_a_symbol_marks_only_that_one() {
    // Where acks name symbols, each symbol is answered for itself.
    let row = toy("ack_symbol = 'sym'\nerror_symbol = 'sym'");
    let mut exchange = Exchange::open(row, 3);
    exchange.sent();
    exchange.text(r#"{"id":1001,"ok":true,"sym":"S0"}"#);
    exchange.text(r#"{"id":1001,"ok":false,"sym":"S1","why":"no"}"#);
    exchange.text(r#"{"id":1001,"ok":true,"sym":"S9"}"#);
    assert_eq!(exchange.events(), [Heard::Acked(0), Heard::Refused(1, "no".into())]);
    exchange.pass(1_000).unwrap();
    assert_eq!(exchange.sent(), []);

    // Where they name none or all, the whole request was refused with it.
    for acks in ["", "ack_symbol = 'syms[*]'"] {
        let mut exchange = Exchange::open(toy(&format!("error_symbol = 'sym'\n{acks}")), 3);
        exchange.sent();
        exchange.text(r#"{"id":1001,"ok":false,"sym":"S1","why":"no"}"#);
        assert_eq!(exchange.events(), [Heard::Refused(1, "no".into())]);
        exchange.pass(100).unwrap();
        assert_eq!(exchange.subscribed(), [(1002, symbols(&["S0", "S2"]))]);
    }
}

#[test]
fn an_exchange_that_names_the_same_symbol_again_and_again_is_not_asked_for_ever() {
    let mut exchange = Exchange::open(toy("error_symbol = 'sym'\nmax_per_msg = 8"), 8);
    let mut asked = 0;
    for _ in 0..1_000 {
        for (id, _) in exchange.subscribed() {
            asked += 1;
            exchange.text(&format!(r#"{{"id":{id},"ok":false,"sym":"S0","why":"no"}}"#));
        }
        exchange.pass(100).unwrap();
        exchange.send(&frame(10, b"")).unwrap();
    }
    assert_eq!(asked, 14, "all, then the seven others and their halves once each");
    assert_eq!(refused(&exchange.events()), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_refusal_may_follow_an_ack() {
    let row = toy("ack_symbol = 'sym'\nerror_symbol = 'sym'");
    let mut exchange = Exchange::open(row, 1);
    exchange.text(r#"{"ok":true,"sym":"S0"}"#);
    exchange.text(r#"{"ok":false,"sym":"S0","why":"too many connections"}"#);
    exchange.text(r#"{"ok":false,"sym":"S0","why":"again"}"#);
    let expected =
        [Heard::Acked(0), Heard::Refused(0, "too many connections".into()), Heard::Error("again".into())];
    assert_eq!(exchange.events(), expected);
}

#[test]
fn answers_without_a_number_come_in_order() {
    let row = || {
        let mut row = toy("max_per_msg = 2\nmsg_gap_ms = 0");
        row.request_id = None;
        row
    };
    let mut exchange = Exchange::open(row(), 6);
    assert_eq!(exchange.subscribed().len(), 3);
    exchange.text(r#"{"ok":true}"#);
    exchange.text(r#"{"ok":false}"#);
    exchange.text(r#"{"ok":true}"#);
    assert_eq!(acked(&exchange.events()), [0, 1, 4, 5]);
    let halves: Vec<_> = exchange.subscribed().into_iter().map(|(_, symbols)| symbols).collect();
    assert_eq!(halves, [symbols(&["S2"]), symbols(&["S3"])]);

    // Data before the ack: an error then means the next request.
    let mut exchange = Exchange::open(row(), 4);
    exchange.sent();
    exchange.trade("S0", "1", 1);
    exchange.trade("S1", "1", 1);
    exchange.text(r#"{"ok":false}"#);
    let again: Vec<_> = exchange.subscribed().into_iter().map(|(_, symbols)| symbols).collect();
    assert_eq!(again, [symbols(&["S2"]), symbols(&["S3"])]);
}

#[test]
fn silent_listings_are_subscribed_once_more() {
    let mut exchange = Exchange::open(toy("dead_after_s = 1000\nmax_per_msg = 3"), 6);
    exchange.pass(100).unwrap();
    assert_eq!(exchange.subscribed().len(), 2);
    exchange.trade("S0", "1", 1);
    exchange.text(r#"{"id":1002,"ok":true}"#);
    exchange.pass(14_899).unwrap();
    assert_eq!(exchange.sent(), []);
    exchange.pass(1).unwrap();
    assert_eq!(exchange.subscribed(), [(1003, symbols(&["S1", "S2"]))]);
    exchange.pass(600_000).unwrap();
    assert_eq!(exchange.sent(), []);
}
