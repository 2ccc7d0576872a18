//! Datagrams that are no good requests.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use beast::account::Token;
use beast::store::{NewKey, Store};
use beast::time::{Clock as _, RealClock};
use beast::wire::ErrorCode;
use beast::wire::v2::{Key, Refusal, Reply, write_error};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::{Value, json};

use super::clients::{SILENCE, Udp, v1_request, v2_request, v2_request_at};
use super::on_both_engines;
use super::running::{Running, wait_until};

/// Where a stranger asks from: each network has a budget of its own.
fn stranger(running: &Running, network: u16) -> Udp {
    let [high, low] = network.to_be_bytes();
    Udp::from(IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, 9)), running.udp())
}

/// What comes back for `request`. A good request is sent behind it, on the same socket and so to the
/// same shard; what arrives before its answer is for the first one.
fn replies_to(client: &Udp, token: &Token, request: &[u8]) -> Vec<Vec<u8>> {
    client.send(request);
    client.send(v1_request(token, "BTC", "\"marker\"").as_bytes());
    let mut replies = Vec::new();
    loop {
        let reply = client.receive();
        if reply.ends_with(b",\"id\":\"marker\"}") {
            assert!(reply.starts_with(b"{\"asset\":\"BTC\""), "{}", reply.escape_ascii());
            return replies;
        }
        replies.push(reply);
        assert!(replies.len() <= 1, "more than one reply");
    }
}

#[test]
fn datagrams_of_every_length() {
    on_both_engines(|running| {
        let before = running.settled();
        let mut lens: Vec<usize> = (0..130).collect();
        for boundary in
            [176, 256, 512, 1_024, 1_232, 1_280, 1_472, 2_048, 4_096, 9_000, 16_384, 32_768, 65_507]
        {
            lens.extend((boundary - 1..=boundary + 1).filter(|len| *len <= 65_507));
        }
        let good_v2 = v2_request(&running.token, "BTC", 1);
        let mut sent = 0;
        for (kind, len) in (0..6).flat_map(|kind| lens.iter().map(move |len| (kind, *len))) {
            let mut datagram = match kind {
                0 => vec![0; len],
                1 => vec![b'{'; len],
                2 => vec![0xff; len],
                3 => b"{\"api_key\":\"".iter().copied().cycle().take(len).collect(),
                4 => [&[0xbe, 0xa5, 2, 1][..], &[0; 84]].concat(),
                _ => good_v2.clone(),
            };
            datagram.resize(len, 0);
            let client = stranger(running, 256 + sent as u16);
            let replies = replies_to(&client, &running.token, &datagram);
            sent += 1;
            for reply in replies {
                assert!(reply.len() <= len, "{} bytes to {len} bytes", reply.len());
                let priced = kind == 5 && (88..=1_232).contains(&len);
                assert_eq!(reply.len() == 88, priced, "kind {kind}, {len} bytes");
            }
        }
        // Each of them and its marker is in the books.
        wait_until("every datagram is in the books", || {
            let books = running.books();
            books.received + books.kernel_dropped - before.kernel_dropped == before.received + 2 * sent
        });
    });
}

#[test]
fn v2_that_is_cut_forged_or_unknown() {
    on_both_engines(|running| {
        let token = &running.token;
        let good = v2_request(token, "BTC", 77);
        let code_of = |request: &[u8], network: u16| {
            let replies = replies_to(&stranger(running, network), token, request);
            let reply = replies.first()?;
            assert!(reply.len() <= request.len());
            match Reply::parse(reply, &Key(token.v2_answer_key().0)).unwrap() {
                Reply::RefusedUnsigned(refusal) => Some(refusal.code),
                other => panic!("{other:?}"),
            }
        };
        for len in 0..88 {
            // What is not even v2 by its magic is met with silence, as is what is shorter than an error.
            let told = (len >= 40).then_some(ErrorCode::BadRequest);
            assert_eq!(code_of(&good[..len], 300 + len as u16), told, "{len} bytes");
        }
        for at in 8..56 {
            let mut forged = good.clone();
            forged[at] ^= 0x10;
            assert_eq!(code_of(&forged, 500 + at as u16), Some(ErrorCode::Unauthorized), "byte {at}");
        }
        for at in (5..8).chain(56..88) {
            let mut bent = good.clone();
            bent[at] = 1;
            assert_eq!(code_of(&bent, 700 + at as u16), Some(ErrorCode::BadRequest), "byte {at}");
        }
        let unknown = Token::generate().unwrap();
        assert_eq!(code_of(&v2_request(&unknown, "BTC", 1), 900), Some(ErrorCode::Unauthorized));
    });
}

#[test]
fn a_revoked_key_stops() {
    on_both_engines(|running| {
        let store = Store::open(&running.data.path().join("data")).unwrap();
        let new = NewKey {
            account: "revoked".to_owned(),
            tier: "partner".to_owned(),
            networks: Vec::new(),
            note: String::new(),
            admin: false,
            expires: None,
        };
        let token = store.add_key(&new).unwrap();
        // Several sockets, so that both shards have recognised it.
        let clients: Vec<Udp> = (0..8).map(|n| stranger(running, 2_000 + n)).collect();
        // While a key is not known its holder is a stranger, and silence an answer, too.
        let all_hear = |wanted: &[u8], silence_will_do: bool| {
            clients.iter().for_each(|client| client.send(v1_request(&token, "BTC", "1").as_bytes()));
            clients.iter().fold(true, |all, client| {
                let replies = client.all_within(SILENCE);
                all && replies.iter().all(|r| r.starts_with(wanted))
                    && (silence_will_do || !replies.is_empty())
            })
        };
        wait_until("the new key is known", || all_hear(b"{\"asset\":\"BTC\"", false));
        let mut http = super::Http::to(running.http());
        assert_eq!(http.get("/price?asset=BTC", &token).status, 200);
        store.revoke(&token.reveal()).unwrap();
        wait_until("the revoked key has stopped", || all_hear(b"{\"error\":\"unauthorized\"", true));
        assert_eq!(http.get("/price?asset=BTC", &token).status, 401);
        let client = stranger(running, 2_100);
        match client.v2(&v2_request(&token, "BTC", 3), &token) {
            Reply::RefusedUnsigned(refusal) => assert_eq!(refusal.code, ErrorCode::Unauthorized),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn bombs_garbage_and_answers() {
    on_both_engines(|running| {
        let token = &running.token;
        let key = token.reveal();
        let with_key = |rest: &str| format!(r#"{{"api_key":"{key}","id":5,{rest}"#).into_bytes();
        let nested = |open: &str, count: usize| with_key(&format!("\"x\":{}", open.repeat(count)));
        let mut bad: Vec<Vec<u8>> = vec![
            nested("[", 1_100),
            nested("{\"a\":", 200),
            nested("[[{\"a\":[", 120),
            with_key(&format!("\"asset\":\"BTC\",\"x\":{}{}}}", "[".repeat(500), "]".repeat(500))),
            with_key(&format!("\"asset\":\"BTC\",\"x\":1{}", "0".repeat(1_000))),
            with_key(&format!("\"asset\":\"BTC\",\"x\":\"{}\"", "\\u0000".repeat(150))),
            with_key(&format!("\"assets\":[{}]}}", "\"BTC\",".repeat(130))),
            with_key("\"asset\":\"BTC\",\"x\":\"\\ud800\"}}"),
            with_key("\"asset\":{\"asset\":\"BTC\"}}"),
            with_key("\"asset\":null}"),
            with_key("\"asset\":\"BTC\",\"assets\":[\"BTC\"]}"),
            with_key("\"asset\":\"BTC\"}x"),
            with_key("\"asset\":\"BTC\"} {}"),
            with_key("\"asset\":\"BTC\",}"),
            with_key("\"asset\":\"B\u{1}TC\"}"),
            [&with_key("\"asset\":\"")[..], &[0xff, 0xfe, 0x80], b"\"}"].concat(),
            [&[0xef, 0xbb, 0xbf][..], v1_request(token, "BTC", "1").as_bytes()].concat(),
            b"{".to_vec(),
            b"{}".to_vec(),
            b"null".to_vec(),
            b"GET /price?asset=BTC HTTP/1.1\r\n\r\n".to_vec(),
            (0..=255).collect(),
        ];
        let mut id = [b'9'; 33].to_vec();
        id.splice(0..0, format!(r#"{{"api_key":"{key}","asset":"BTC","id":"#).bytes());
        id.push(b'}');
        bad.push(id);
        for (n, request) in bad.iter().enumerate() {
            let replies = replies_to(&stranger(running, 3_000 + n as u16), token, request);
            for reply in replies {
                assert!(reply.len() <= request.len());
                assert_eq!(reply, b"{\"error\":\"bad_request\"}", "{}", request.escape_ascii());
            }
        }
        // What is itself an answer gets none.
        let client = stranger(running, 3_900);
        let mut answers = vec![
            client.ask(v1_request(token, "BTC", "1").as_bytes()),
            client.ask(v1_request(token, "NOPE", "1").as_bytes()),
            client.ask(&v2_request(token, "BTC", 1)),
            client.ask(&v2_request_at(token, "BTC", 1, 0)),
            format!(r#"{{"prices":[],"id":1,"pad":"{}"}}"#, "x".repeat(100)).into_bytes(),
        ];
        let mut error = vec![0; 40];
        let told = Refusal {
            code: ErrorCode::Stale,
            request_id: 1,
            server_time_ms: RealClock.now().unix.ms(),
            retry_after_ms: 0,
        };
        write_error(&mut error, 88, &told, None).unwrap();
        answers.push(error);
        for answer in answers {
            assert_eq!(replies_to(&client, token, &answer), [[0; 0]; 0], "{}", answer.escape_ascii());
        }
    });
}

/// Whatever is asked, an answer is at most three times as long under a valid key, and no longer
/// than the request for everybody else.
#[test]
fn replies_are_bounded_by_their_requests() {
    on_both_engines(|running| {
        let key = running.token.reveal();
        let unknown = Token::generate().unwrap().reveal();
        let network = std::cell::Cell::new(4_000);
        let names = prop::collection::vec("[A-Za-z0-9]{1,16}|BTC|ETH|SOL|DOGE", 1..20);
        let request =
            (names, any::<bool>(), 0_usize..300, "0|[1-9][0-9]{0,18}|\"[a-z]{0,30}\"", any::<bool>());
        let cases = Cases { cases: 300, failure_persistence: None, ..Cases::default() };
        let outcome = TestRunner::new(cases).run(&request, |(names, several, pad, id, known)| {
            let key = if known { &key } else { &unknown };
            let asset = match several {
                true => format!("\"assets\":{}", json!(names)),
                false => format!("\"asset\":{}", json!(names[0])),
            };
            let pad = "x".repeat(pad);
            let request = format!("{{\"api_key\":\"{key}\",{asset},\"pad\":\"{pad}\",\"id\":{id}}}");
            network.set(network.get() + 1);
            let client = stranger(running, network.get());
            for reply in replies_to(&client, &running.token, request.as_bytes()) {
                let most = if known { 3 * request.len() } else { request.len() };
                prop_assert!(reply.len() <= most.min(1_232), "{} to {request}", reply.len());
                let value: Value = serde_json::from_slice(&reply).unwrap();
                prop_assert_eq!(
                    value["id"].to_string(),
                    serde_json::from_str::<Value>(&id).unwrap().to_string()
                );
                prop_assert_eq!(known, value["error"] != "unauthorized");
            }
            Ok(())
        });
        outcome.unwrap();
    });
}

/// A network that has proved nothing gets ten replies a second, however many sockets and addresses
/// it asks from; those with a key are not touched by it.
#[test]
fn strangers_of_one_network_share_ten_replies_a_second() {
    on_both_engines(|running| {
        let unknown = Token::generate().unwrap();
        for network in [1, 2] {
            let started = Instant::now();
            let clients: Vec<Udp> = (1..=60)
                .map(|host| Udp::from(IpAddr::V4(Ipv4Addr::new(127, 0, 10 + network, host)), running.udp()))
                .collect();
            for client in &clients {
                client.send(v1_request(&unknown, "BTC", "1").as_bytes());
                client.send(&v2_request(&unknown, "BTC", 1));
                client.send(&v2_request_at(&running.token, "BTC", 1, 0));
            }
            // The answer to a good request behind the others shows that all have been looked at.
            let mut replies = 0;
            for client in &clients {
                replies += replies_to_many(client, &running.token);
            }
            let tenths = usize::try_from(started.elapsed().as_millis() / 100).unwrap();
            // Ten at once and one more every 100 ms, over both shards.
            assert!(
                replies >= 1 && replies <= 10 + tenths,
                "{replies} replies in {tenths} tenths of a second"
            );
        }
    });
}

/// How many replies came before that to a good request.
fn replies_to_many(client: &Udp, token: &Token) -> usize {
    client.send(v1_request(token, "BTC", "\"marker\"").as_bytes());
    (0..).take_while(|_| !client.receive().ends_with(b",\"id\":\"marker\"}")).count()
}
