//! What a connection does by itself, and how it ends.

use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite;
use tungstenite::Message;

use super::*;

#[test]
fn it_upgrades_and_subscribes() {
    let mut exchange = Exchange::dialled(toy(""), 2);
    assert_eq!(exchange.connection.phase(), Phase::Upgrading);
    let request = String::from_utf8(std::mem::take(exchange.connection.outbox())).unwrap();
    assert!(request.starts_with("GET /feed?v=1 HTTP/1.1\r\nHost: toy.example:9000\r\n"), "{request}");
    let answer = answer();
    let (first, second) = answer.split_at(30);
    exchange.send(first.as_bytes()).unwrap();
    assert_eq!(exchange.sent(), []);
    exchange.send(second.as_bytes()).unwrap();
    assert_eq!(exchange.connection.phase(), Phase::Live);
    let expected = r#"{"id":1001,"at":1790000000,"sub":["S0","S1"]}"#;
    assert_eq!(exchange.sent(), [Sent::Text(expected.into())]);
}

#[test]
fn an_upgrade_may_fail_or_take_too_long() {
    let mut exchange = Exchange::dialled(toy(""), 1);
    let refused = exchange.send(b"HTTP/1.1 429 Too Many Requests\r\n\r\n").unwrap_err();
    assert_eq!(refused, Disconnect::Upgrade(UpgradeError::Status(429, "Too Many Requests".into())));

    let mut exchange = Exchange::dialled(toy(""), 1);
    assert_eq!(exchange.pass(9_999), Ok(()));
    assert_eq!(exchange.pass(1), Err(Disconnect::UpgradeTimeout));
    assert_eq!(Disconnect::UpgradeTimeout.to_string(), "the upgrade was not answered within 10 s");
}

#[test]
fn messages_are_split_and_paced() {
    let row = toy("open_delay_ms = 1000\nextra_subscribe = ['{\"hb\":{REQ_ID}}']");
    let mut exchange = Exchange::open(row, 9);
    exchange.pass(999).unwrap();
    assert_eq!(exchange.sent(), []);
    assert_eq!(exchange.connection.phase(), Phase::Subscribing);
    exchange.pass(1).unwrap();
    assert_eq!(exchange.subscribed(), [(1001, symbols(&["S0", "S1", "S2", "S3"]))]);
    exchange.pass(99).unwrap();
    assert_eq!(exchange.sent(), []);
    exchange.pass(101).unwrap();
    let rest = [(1002, symbols(&["S4", "S5", "S6", "S7"])), (1003, symbols(&["S8"]))];
    assert_eq!(exchange.subscribed(), rest);
    assert_eq!(exchange.connection.phase(), Phase::Subscribing);
    exchange.pass(100).unwrap();
    assert_eq!(exchange.sent(), [Sent::Text(r#"{"hb":1004}"#.into())]);
    assert_eq!(exchange.connection.phase(), Phase::Live);
}

#[test]
fn a_listing_is_live_from_its_first_trade_on() {
    let mut exchange = Exchange::open(toy(""), 2);
    exchange.trade("S1", "0.10", 7);
    exchange.trade("S1", "0.20", 8);
    exchange.trade("S9", "0.30", 9);
    let expected = [Heard::Trade(1, "0.10".into(), 7), Heard::Live(1), Heard::Trade(1, "0.20".into(), 8)];
    assert_eq!(exchange.events(), expected);
    assert_eq!(exchange.connection.live_count(), (2, 1));
    assert_eq!(exchange.connection.refused().unknown_symbol, 1);
}

#[test]
fn a_trade_without_a_price_makes_nothing_live() {
    let mut exchange = Exchange::open(toy(""), 1);
    for price in ["0", "-1", "NaN", "1e308", "", "1234567890123456789012345678901234567890"] {
        exchange.trade("S0", price, 1);
    }
    assert_eq!(exchange.events(), []);
    assert_eq!(exchange.connection.refused().total(), 6);
}

#[test]
fn pings_go_out_on_their_interval_only_where_wanted() {
    let mut exchange = Exchange::open(toy("dead_after_s = 100"), 1);
    exchange.pass(14_000).unwrap();
    assert_eq!(exchange.sent().len(), 1, "the subscribe");

    let row = toy("dead_after_s = 100\nping_every_s = 20\nping = 'ping'\npong_text = 'pong'");
    let mut exchange = Exchange::open(row, 1);
    exchange.trade("S0", "1", 1);
    exchange.sent();
    exchange.pass(19_999).unwrap();
    assert_eq!(exchange.sent(), []);
    exchange.pass(1).unwrap();
    assert_eq!(exchange.sent(), [Sent::Text("ping".into())]);
    exchange.text("pong");
    exchange.pass(60_000).unwrap();
    assert_eq!(exchange.sent(), vec![Sent::Text("ping".into()); 3]);
    assert_eq!(exchange.connection.nonsense_count(), 0);

    let numbered = "ping_every_s = 5\nping = '{\"ping\":{REQ_ID},\"at\":{UNIX_S}}'";
    let mut exchange = Exchange::open(toy(numbered), 1);
    exchange.sent();
    exchange.pass(5_000).unwrap();
    assert_eq!(exchange.sent(), [Sent::Text(r#"{"ping":1002,"at":1790000005}"#.into())]);
}

#[test]
fn control_pings_and_heartbeats_are_answered_at_once() {
    let row = toy("heartbeat_match = ['m=hb']\nheartbeat_id = 'n'\nheartbeat_reply = '{\"re\":{ID}}'");
    let mut exchange = Exchange::open(row, 1);
    exchange.sent();
    let both = [frame(9, b"are you there"), frame(1, br#"{"n":18446744073709551616,"m":"hb"}"#)].concat();
    exchange.send(&both).unwrap();
    let expected =
        [Sent::Pong(b"are you there".to_vec()), Sent::Text(r#"{"re":18446744073709551616}"#.into())];
    assert_eq!(exchange.sent(), expected);
}

#[test]
fn silence_of_any_frame_ends_it() {
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.trade("S0", "1", 1);
    exchange.sent();
    for opcode in [9, 10, 1] {
        exchange.pass(9_999).unwrap();
        exchange.send(&frame(opcode, b"{}")).unwrap();
        assert_eq!(exchange.log.heard, Some(exchange.clock.now().mono));
    }
    exchange.sent();
    // Half a frame is none.
    exchange.pass(5_000).unwrap();
    exchange.send(&[0x81]).unwrap();
    assert_eq!(exchange.pass(4_999), Ok(()));
    assert_eq!(exchange.pass(1), Err(Disconnect::Silent(Duration::from_secs(10))));
    assert_eq!(exchange.sent(), [Sent::Close(1001)]);
}

#[test]
fn a_notice_is_passed_on_and_trades_go_on() {
    let mut exchange = Exchange::open(toy("notice_match = ['code=64008']"), 1);
    exchange.text(r#"{"event":"notice","code":"64008"}"#);
    exchange.trade("S0", "1", 1);
    let expected = [Heard::ReconnectSoon, Heard::Trade(0, "1".into(), 1), Heard::Live(0)];
    assert_eq!(exchange.events(), expected);
}

#[test]
fn the_exchange_may_close_it() {
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.sent();
    let closed = exchange.send(&frame(8, b"\x03\xf5restart\nnow")).unwrap_err();
    assert_eq!(closed.to_string(), "closed by the exchange, code 1013: restart now");
    assert_eq!(exchange.sent(), [Sent::Close(1013)]);

    let mut exchange = Exchange::open(toy(""), 1);
    let closed = exchange.send(&frame(8, b"")).unwrap_err();
    assert_eq!(closed, Disconnect::Closed { code: None, reason: String::new() });
    assert_eq!(closed.to_string(), "closed by the exchange");
}

#[test]
fn a_broken_protocol_ends_it() {
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.sent();
    assert_eq!(exchange.send(&[0x83, 0]), Err(Disconnect::Protocol(ProtocolError::Opcode(3))));
    assert_eq!(exchange.sent(), [Sent::Close(1002)]);
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.sent();
    assert_eq!(exchange.send(&frame(1, b"\xff")), Err(Disconnect::Protocol(ProtocolError::Utf8)));
    assert_eq!(exchange.sent(), [Sent::Close(1007)]);
}

#[test]
fn nonsense_is_counted_and_shown_once() {
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.text("<html>");
    exchange.send(&frame(2, &[0])).unwrap();
    exchange.text("{");
    assert_eq!(exchange.events(), [Heard::Error("a message is not JSON text: <html>".into())]);
    assert_eq!(exchange.connection.nonsense_count(), 3);
}

#[test]
fn an_exchange_that_only_pings_and_never_reads_is_left() {
    let mut exchange = Exchange::open(toy(""), 1);
    let flood = frame(9, &[b'x'; 125]).repeat(10_000);
    assert_eq!(exchange.send(&flood), Err(Disconnect::NotReading));
    assert!(exchange.connection.outbox().len() < OUTBOX_LEN_MAX + 1_000);
}

#[test]
fn we_may_close_it() {
    let mut exchange = Exchange::open(toy(""), 1);
    exchange.sent();
    // In the middle of a frame, whose end still has to be understood.
    let last = frame(1, trade("S0", "1", 1).as_bytes());
    exchange.send(&last[..20]).unwrap();
    exchange.connection.close(exchange.clock.now());
    exchange.connection.close(exchange.clock.now());
    assert_eq!(exchange.connection.phase(), Phase::Draining);
    assert_eq!(exchange.sent(), [Sent::Close(1000)]);
    assert_eq!(exchange.send(&last[20..]), Ok(()));
    assert_eq!(exchange.events(), []);
    assert_eq!(exchange.send(&frame(8, b"\x03\xe8")), Err(Disconnect::Drained));

    let mut exchange = Exchange::open(toy(""), 1);
    exchange.connection.close(exchange.clock.now());
    assert_eq!(exchange.pass(1_999), Ok(()));
    assert_eq!(exchange.pass(1), Err(Disconnect::Drained));

    let mut exchange = Exchange::dialled(toy(""), 1);
    exchange.connection.close(exchange.clock.now());
    assert_eq!(exchange.connection.tick(exchange.clock.now()), Err(Disconnect::Drained));
}

#[test]
fn a_row_that_cannot_be_dialled_is_refused() {
    let row = toy("url = 'wss://a:99999/'");
    let error = Connection::new(Arc::new(row), [], KEY_RANDOM, Now::default()).unwrap_err().to_string();
    assert!(error.contains("\"url\""), "{error}");
}

/// A stream in memory: reads what was given, keeps what is written.
#[derive(Default)]
struct Memory {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.input.len());
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..len].copy_from_slice(&self.input[..len]);
        self.input.drain(..len);
        Ok(len)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_independent_server_understands_the_conversation() {
    let mut exchange = Exchange::dialled(toy(""), 2);
    let request = std::mem::take(exchange.connection.outbox());
    let mut server = tungstenite::accept(Memory { input: request, output: Vec::new() }).unwrap();
    exchange.send(&std::mem::take(&mut server.get_mut().output)).unwrap();
    server.get_mut().input.append(exchange.connection.outbox());
    let Message::Text(subscribe) = server.read().unwrap() else { panic!() };
    assert!(subscribe.contains(r#"["S0","S1"]"#), "{subscribe}");

    server.send(Message::text(trade("S1", "65000.10", 5))).unwrap();
    server.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    exchange.send(&std::mem::take(&mut server.get_mut().output)).unwrap();
    assert_eq!(exchange.events(), [Heard::Trade(1, "65000.10".into(), 5), Heard::Live(1)]);
    server.get_mut().input.append(exchange.connection.outbox());
    assert_eq!(server.read().unwrap(), Message::Pong(vec![1, 2, 3].into()));

    exchange.connection.close(exchange.clock.now());
    server.get_mut().input.append(exchange.connection.outbox());
    assert!(matches!(server.read().unwrap(), Message::Close(Some(frame)) if u16::from(frame.code) == 1000));
    server.flush().ok();
    assert_eq!(exchange.send(&std::mem::take(&mut server.get_mut().output)), Err(Disconnect::Drained));
}

#[test]
fn every_built_in_row_asks_for_all_its_listings_within_ten_seconds() {
    let data = crate::feed::data::load(&crate::feed::data::Overrides::default()).unwrap();
    let mut enabled = 0;
    for row in data.rows.iter().filter(|row| row.enabled) {
        enabled += 1;
        let id = row.id().unwrap();
        let listings: Vec<_> = data
            .catalogue
            .listings()
            .iter()
            .filter(|listing| listing.exchange == id)
            .map(|listing| (listing.symbol.as_str(), listing.id))
            .take(row.symbols_per_connection)
            .collect();
        assert!(!listings.is_empty(), "{}", row.name);
        let clock =
            ScriptedClock::at(Now { mono: MonoNs(1), unix: UnixNs::from_ms(1_790_000_000_000).unwrap() });
        let mut connection =
            Connection::new(Arc::new(row.clone()), listings.clone(), KEY_RANDOM, clock.now()).unwrap();
        connection.outbox().clear();
        connection.receive(clock.now(), answer().as_bytes(), &mut Log::default()).unwrap();
        let mut exchange = Exchange { connection, clock, log: Log::default(), received: Vec::new() };
        let mut sent = exchange.sent();
        for _ in 0..10 {
            exchange.pass(1_000).unwrap();
            exchange.send(&frame(10, b"")).unwrap();
            sent.extend(exchange.sent());
        }
        assert_eq!(exchange.connection.phase(), Phase::Live, "{}", row.name);
        let texts: Vec<String> = sent
            .into_iter()
            .map(|sent| match sent {
                Sent::Text(text) => text,
                other => panic!("{}: {other:?}", row.name),
            })
            .collect();
        for text in &texts {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
        for (symbol, _) in listings {
            let asked = |text: &&String| text.to_ascii_lowercase().contains(&symbol.to_ascii_lowercase());
            assert!(texts.iter().any(|text| asked(&text)), "{}: {symbol}", row.name);
        }
    }
    assert!(enabled >= 7);
}
