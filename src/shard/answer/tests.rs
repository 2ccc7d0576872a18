//! The answer function without sockets: what each request gets and which counter it ends in.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::account::{Key, Tier as AccountTier, Token};
use crate::http::head::{self, Head};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::price::{AssetId, Confirmation, Currency, Exchange, Price, Quote, Tier, TradeKey};
use crate::time::UnixNs;
use crate::wire::v2;

mod records;

pub(in crate::shard) const NOW: Now =
    Now { mono: MonoNs(1_000_000_000_000), unix: UnixNs(1_763_650_000_123_000_000) };
const LATER: MonoNs = MonoNs(2_000_000_000_000);

struct AskEverything(bool);

impl AskRest for AskEverything {
    fn ask(&mut self, _: ListingId, _: bool) -> bool {
        self.0
    }
}

fn catalogue() -> Arc<Catalogue> {
    let id = |n| ExchangeId::new(n).unwrap();
    let exchange =
        |n, name: &str| Exchange { id: id(n), name: name.into(), dead_after: Duration::from_secs(5) };
    let mut catalogue = Catalogue::new(vec![exchange(1, "coinbase"), exchange(2, "kraken")]).unwrap();
    let usd = Currency::parse("USD").unwrap();
    for (n, symbol) in ["BTC", "ETH", "SOL"].iter().enumerate() {
        let listings = [(id(1), "x", usd), (id(2), "y", usd)];
        let symbol = Symbol::parse(symbol).unwrap();
        catalogue.add_asset(AssetId::new(n + 1).unwrap(), symbol, false, &listings).unwrap();
    }
    Arc::new(catalogue)
}

fn price(answerer: &mut Answerer, listing: usize, text: &str) {
    let id = ListingId::new(listing).unwrap();
    let quote = Quote {
        price: Price::parse(text.as_bytes()).unwrap(),
        key: TradeKey { time: NOW.unix, number: 1 },
        received: NOW.unix,
        tier: Tier::Ws,
    };
    let ready = Ready::new(&answerer.catalogue().clone(), id, &quote);
    answerer.board_mut().update(id, quote, ready, Confirmation::Until(LATER));
}

pub(in crate::shard) fn answerer(rest: bool) -> (Answerer, Token) {
    let token = Token::generate().unwrap();
    let key = Key {
        number: 42,
        account: 1,
        public_id: token.public_id(),
        secret_hash: token.secret_hash(),
        v2_request: token.v2_request_key(),
        v2_answer: token.v2_answer_key(),
        tier: AccountTier { name: "partner".into(), unlimited: true, qps: 0, burst: 0, monthly: None },
        networks: vec![],
        admin: false,
        expires: UnixNs::NEVER,
    };
    let secrets = ShardSecrets { recognizer: [1; 16], budget: [2; 16] };
    let keys = Box::new(KeyTable::new(vec![key]));
    let segment = Segment::new(7, 3);
    let mut answerer = Answerer::new(catalogue(), keys, segment, secrets, Box::new(AskEverything(rest)));
    price(&mut answerer, 0, "65000.12");
    price(&mut answerer, 1, "64999.50");
    (answerer, token)
}

fn udp_from(
    answerer: &mut Answerer,
    peer: &str,
    request: &[u8],
    attempt: Attempt,
) -> Result<String, Verdict> {
    let mut room = [0; UDP_PAYLOAD_MAX];
    match answerer.datagram(NOW, peer.parse::<IpAddr>().unwrap(), request, false, &mut room, attempt) {
        Verdict::Send(len) => Ok(String::from_utf8_lossy(&room[..len]).into_owned()),
        other => Err(other),
    }
}

fn udp(answerer: &mut Answerer, request: &str) -> Result<String, Verdict> {
    udp_from(answerer, "127.0.0.1", request.as_bytes(), Attempt::First)
}

fn http(answerer: &mut Answerer, request: &str) -> String {
    let Head::Complete { request, .. } = head::parse(request.as_bytes()) else { panic!("{request}") };
    let mut out = Vec::new();
    match answerer.http(NOW, &request, &mut out, Attempt::First) {
        HttpVerdict::Done => String::from_utf8(out).unwrap(),
        HttpVerdict::Wait(listing) => format!("waits for {}", listing.index()),
    }
}

/// Records that a month counts.
fn answers_recorded(answerer: &Answerer) -> usize {
    answerer.segment().newest().filter(|(_, record)| record.is_answer()).count()
}

/// received = answered + Σ refused, for both transports.
fn books_close(answerer: &Answerer) {
    for transport in ["udp", "http"] {
        let sum = |name: &str| -> u64 {
            let of = |c: &&Counter| c.metric().0 == name && c.metric().1.contains(transport);
            Counter::ALL.iter().filter(of).map(|c| answerer.counters.value(*c)).sum()
        };
        assert_eq!(sum("request_received"), sum("request_answered") + sum("request_refused"), "{transport}");
    }
}

#[test]
fn v1_gets_the_price_and_its_id_back_and_leaves_a_record() {
    let (mut answerer, token) = answerer(false);
    let key = token.reveal();
    let answer = udp(&mut answerer, &format!(r#"{{"api_key":"{key}","asset":"btc","id":"a7"}}"#)).unwrap();
    assert_eq!(
        answer,
        r#"{"asset":"BTC","quote":"USD","price":"65000.12","source":"coinbase-ws","ts":1763650000123,"id":"a7"}"#
    );
    let (_, record) = answerer.segment().newest().last().unwrap();
    assert_eq!((record.key, record.asset, record.exchange), (42, 1, 1));
    assert_eq!(record.request.as_bytes(), b"\"a7\"");
    let kraken = udp(&mut answerer, &format!(r#"{{"api_key":"{key}","asset":"BTC","source":"kraken"}}"#));
    assert!(kraken.unwrap().contains(r#""price":"64999.50","source":"kraken-ws""#));
    books_close(&answerer);
}

#[test]
fn v1_refuses_with_a_name_and_strangers_get_nothing_longer_than_they_sent() {
    let (mut answerer, token) = answerer(false);
    let key = token.reveal();
    let ask = |rest: &str| format!(r#"{{"api_key":"{key}",{rest}}}"#);
    assert_eq!(
        udp(&mut answerer, &ask(r#""asset":"NOPE","id":1"#)).unwrap(),
        r#"{"error":"unknown_asset","id":1}"#
    );
    assert_eq!(
        udp(&mut answerer, &ask(r#""asset":"BTC","source":"nope""#)).unwrap(),
        r#"{"error":"unknown_asset"}"#
    );
    assert_eq!(udp(&mut answerer, &ask(r#""asset":"ETH""#)).unwrap(), r#"{"error":"stale"}"#);
    assert_eq!(
        udp(&mut answerer, r#"{"api_key":"tb_x","asset":"BTC","id":3}"#).unwrap(),
        r#"{"error":"unauthorized","id":3}"#
    );
    assert_eq!(udp(&mut answerer, r#"{"asset":}"#), Err(Verdict::Silent), "the error would be longer");
    assert_eq!(
        udp(&mut answerer, r#"{"asset":                      }"#).unwrap(),
        r#"{"error":"bad_request"}"#
    );
    assert_eq!(udp(&mut answerer, "GET / HTTP/1.1\r\n\r\n and some more of it"), Err(Verdict::Silent));
    assert_eq!(udp(&mut answerer, &answer_like()), Err(Verdict::Silent));
    let public = udp_from(&mut answerer, "203.0.113.9", ask(r#""asset":"BTC""#).as_bytes(), Attempt::First);
    assert_eq!(public.unwrap(), r#"{"error":"unauthorized"}"#, "an unlimited key from a public address");
    books_close(&answerer);
    assert_eq!(answerer.counters.value(Counter::UdpIsAnswer), 1);
}

fn answer_like() -> String {
    r#"{"asset":"BTC","price":"1","id":7}"#.into()
}

#[test]
fn strangers_have_ten_replies_a_second_and_silence_after_that() {
    let (mut answerer, _) = answerer(false);
    let request = r#"{"api_key":"tb_nobody","asset":"BTC","id":3}"#;
    let told = (0..100).filter(|_| udp(&mut answerer, request).is_ok()).count();
    assert_eq!(told, 10);
    assert_eq!(answerer.counters.value(Counter::UdpUnauthorized), 100);
    assert_eq!(answerer.counters.value(Counter::ReplySuppressed), 90);
    books_close(&answerer);
}

#[test]
fn several_assets_are_answered_together() {
    let (mut answerer, token) = answerer(false);
    let key = token.reveal();
    let pad = " ".repeat(100);
    let request = format!(r#"{{"api_key":"{key}","assets":["BTC","ETH","NOPE"],"id":9,"pad":"{pad}"}}"#);
    assert_eq!(
        udp(&mut answerer, &request).unwrap(),
        r#"{"prices":[{"asset":"BTC","quote":"USD","price":"65000.12","source":"coinbase-ws","ts":1763650000123},{"asset":"ETH","error":"stale"},{"asset":"NOPE","error":"unknown_asset"}],"id":9}"#
    );
    books_close(&answerer);
}

#[test]
fn what_is_stale_waits_for_rest_and_is_told_at_its_deadline() {
    let (mut answerer, token) = answerer(true);
    let request = format!(r#"{{"api_key":"{}","asset":"ETH","id":1}}"#, token.reveal());
    let eth = ListingId::new(2).unwrap();
    assert_eq!(udp(&mut answerer, &request), Err(Verdict::Wait(eth)));
    let again = udp_from(&mut answerer, "127.0.0.1", request.as_bytes(), Attempt::Last);
    assert_eq!(again.unwrap(), r#"{"error":"stale","id":1}"#);
    assert_eq!(udp(&mut answerer, &request), Err(Verdict::Wait(eth)));
    price(&mut answerer, 2, "3000.5");
    let again = udp_from(&mut answerer, "127.0.0.1", request.as_bytes(), Attempt::Again);
    assert!(again.unwrap().contains(r#""price":"3000.5""#));
    assert_eq!(answerer.counters.value(Counter::UdpReceived), 2, "waiting is not receiving again");
    books_close(&answerer);
}

#[test]
fn v2_gets_a_tagged_answer_with_the_identity_of_its_record() {
    let (mut answerer, token) = answerer(false);
    let (request_key, answer_key) = (v2::Key(token.v2_request_key().0), v2::Key(token.v2_answer_key().0));
    let mut request = v2::Request {
        key_id: token.public_id(),
        time_ms: NOW.unix.ms(),
        request_id: 0x1234,
        exchange: None,
        symbol: Symbol::parse("BTC").unwrap(),
    };
    let mut bytes = [0; 96];
    let ask = |answerer: &mut Answerer, bytes: &[u8]| {
        let mut room = [0; UDP_PAYLOAD_MAX];
        let peer = IpAddr::from([127, 0, 0, 1]);
        match answerer.datagram(NOW, peer, bytes, false, &mut room, Attempt::First) {
            Verdict::Send(len) => Some(v2::Reply::parse(&room[..len], &answer_key)),
            _ => None,
        }
    };
    v2::write_request(&mut bytes, &request, &request_key).unwrap();
    let Some(Ok(v2::Reply::Answer(answer))) = ask(&mut answerer, &bytes) else { panic!("no price") };
    assert_eq!(answer.request_id, 0x1234);
    assert_eq!(answer.price.to_string(), "65000.12");
    assert_eq!((answer.record.epoch, answer.record.shard, answer.record.sequence), (7, 3, 0));

    request.time_ms -= 10_001;
    v2::write_request(&mut bytes, &request, &request_key).unwrap();
    let Some(Ok(v2::Reply::Refused(refusal))) = ask(&mut answerer, &bytes) else { panic!("no refusal") };
    assert_eq!((refusal.code, refusal.server_time_ms), (ErrorCode::Expired, NOW.unix.ms()));

    bytes[50] ^= 1;
    assert!(ask(&mut answerer, &bytes).is_some_and(|reply| !matches!(reply, Ok(v2::Reply::Answer(_)))));
    assert!(ask(&mut answerer, &bytes[..60]).is_some());
    assert_eq!(answerer.counters.value(Counter::UdpUnauthorized), 1);
    assert_eq!(answerer.counters.value(Counter::UdpBadRequest), 1);
    books_close(&answerer);
}

#[test]
fn http_answers_the_same_objects() {
    let (mut answerer, token) = answerer(false);
    let key = token.reveal();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n");
    let one = http(&mut answerer, &get("/price?asset=BTC"));
    let object =
        r#"{"asset":"BTC","quote":"USD","price":"65000.12","source":"coinbase-ws","ts":1763650000123}"#;
    assert!(one.starts_with("HTTP/1.1 200 OK\r\n") && one.ends_with(object), "{one}");
    let two = http(&mut answerer, &get("/prices?assets=BTC,ETH"));
    assert!(two.ends_with(&format!(r#"{{"prices":[{object},{{"asset":"ETH","error":"stale"}}]}}"#)), "{two}");
    for (target, status) in [
        ("/price?asset=NOPE", "404"),
        ("/price", "400"),
        ("/price?asset=ETH", "503"),
        ("/nothing", "404"),
        ("/prices?assets=", "400"),
        ("/price?asset=BTC&asset=ETH", "400"),
        ("/price?asset=BTC&source=nope", "404"),
    ] {
        let answer = http(&mut answerer, &get(target));
        assert_eq!(&answer[9..12], status, "{target}: {answer}");
    }
    let nobody = http(&mut answerer, "GET /price?asset=BTC HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
    let post = http(&mut answerer, "POST /price HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD, OPTIONS"), "{post}");
    let assets = http(&mut answerer, "GET /assets HTTP/1.1\r\nhost: x\r\n\r\n");
    let body = &assets[assets.find("\r\n\r\n").unwrap()..];
    let parsed: serde_json::Value = serde_json::from_str(body.trim()).unwrap();
    assert_eq!(parsed["assets"].as_array().unwrap().len(), 3);
    books_close(&answerer);
}

#[test]
fn first_sightings_over_the_budget_are_overloaded_and_not_unauthorized() {
    let (mut answerer, _) = answerer(false);
    let tokens: Vec<Token> = (0..1_100).map(|_| Token::generate().unwrap()).collect();
    let key = |(number, token): (u32, &Token)| Key {
        number,
        account: 1,
        public_id: token.public_id(),
        secret_hash: token.secret_hash(),
        v2_request: token.v2_request_key(),
        v2_answer: token.v2_answer_key(),
        tier: AccountTier { name: "partner".into(), unlimited: true, qps: 0, burst: 0, monthly: None },
        networks: vec![],
        admin: false,
        expires: UnixNs::NEVER,
    };
    drop(answerer.replace_keys(Box::new(KeyTable::new((1..).zip(&tokens).map(key).collect()))));
    let ask = |token: &Token| format!(r#"{{"api_key":"{}","asset":"BTC"}}"#, token.reveal());
    for token in &tokens[..1_000] {
        assert!(udp(&mut answerer, &ask(token)).is_ok());
    }
    assert_eq!(udp(&mut answerer, &ask(&tokens[1_001])), Err(Verdict::Silent));
    let request = |token: &Token| {
        format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", token.reveal())
    };
    let answer = http(&mut answerer, &request(&tokens[1_001]));
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert!(http(&mut answerer, &request(&tokens[7])).starts_with("HTTP/1.1 200"), "who is known is served");
    assert_eq!(answerer.counters.value(Counter::UdpOverloaded), 1);
    assert_eq!(answerer.counters.value(Counter::HttpOverloaded), 1);
    assert_eq!(answerer.counters.value(Counter::UdpUnauthorized), 0);
    books_close(&answerer);
}

#[test]
fn who_finds_no_room_to_wait_is_told_so_in_his_own_protocol() {
    let (mut answerer, token) = answerer(true);
    let request = format!(r#"{{"api_key":"{}","asset":"SOL","id":9}}"#, token.reveal());
    assert!(matches!(udp(&mut answerer, &request), Err(Verdict::Wait(_))));
    let (mut room, peer) = ([0; UDP_PAYLOAD_MAX], IpAddr::from([127, 0, 0, 1]));
    let Verdict::Send(len) = answerer.no_room_to_wait(NOW, peer, request.as_bytes(), &mut room) else {
        panic!()
    };
    assert_eq!(&room[..len], br#"{"error":"overloaded","id":9}"#);
    books_close(&answerer);
}

#[test]
fn more_assets_than_a_request_may_name_are_not_asked_for() {
    let (mut answerer, token) = answerer(true);
    let names = vec!["SOL"; 65].join(",");
    let answer = http(
        &mut answerer,
        &format!("GET /prices?assets={names} HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", token.reveal()),
    );
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("more than 64"), "{answer}");
}

/// An answerer whose one key is of this tier.
fn limited(qps: u32, burst: u32, monthly: Option<u64>) -> (Answerer, Token) {
    let (mut answerer, token) = answerer(true);
    let mut keys = answerer.keys.keys().to_vec();
    keys[0].tier = AccountTier { name: "test".into(), unlimited: false, qps, burst, monthly };
    drop(answerer.replace_keys(Box::new(KeyTable::new(keys))));
    (answerer, token)
}

fn v1_of(token: &Token, asset: &str) -> String {
    format!(r#"{{"api_key":"{}","asset":"{asset}","id":7}}"#, token.reveal())
}

fn get_of(token: &Token, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", token.reveal())
}

fn v2_of(token: &Token, time_ms: u64) -> Vec<u8> {
    let symbol = Symbol::parse("BTC").unwrap();
    let request = v2::Request { key_id: token.public_id(), time_ms, request_id: 5, exchange: None, symbol };
    let mut bytes = vec![0; 88];
    v2::write_request(&mut bytes, &request, &v2::Key(token.v2_request_key().0)).unwrap();
    bytes
}

fn v2_at(answerer: &mut Answerer, now: Now, token: &Token) -> Result<v2::Answer, v2::Refusal> {
    let mut room = [0; UDP_PAYLOAD_MAX];
    let request = v2_of(token, now.unix.ms());
    let verdict = answerer.datagram(now, [127, 0, 0, 1].into(), &request, false, &mut room, Attempt::First);
    let Verdict::Send(len) = verdict else { panic!("{verdict:?}") };
    match v2::Reply::parse(&room[..len], &v2::Key(token.v2_answer_key().0)) {
        Ok(v2::Reply::Answer(answer)) => Ok(answer),
        Ok(v2::Reply::Refused(refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn over_its_rate_a_key_is_refused_in_every_protocol_and_told_when_to_come_again() {
    let (mut answerer, token) = limited(10, 3, None);
    assert!(udp(&mut answerer, &v1_of(&token, "BTC")).unwrap().contains("65000.12"));
    let answer = http(&mut answerer, &get_of(&token, "/price?asset=BTC"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\r\nratelimit-policy: \"rate\";q=3;w=1\r\nratelimit: \"rate\";r=1;t=1\r\n"));
    assert!(v2_at(&mut answerer, NOW, &token).is_ok());

    assert_eq!(udp(&mut answerer, &v1_of(&token, "BTC")).unwrap(), r#"{"error":"rate_limited","id":7}"#);
    let refusal = v2_at(&mut answerer, NOW, &token).unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after_ms), (ErrorCode::RateLimited, 100));
    for target in ["/price?asset=BTC", "/prices?assets=BTC,ETH", "/price?asset=NOPE"] {
        let answer = http(&mut answerer, &get_of(&token, target));
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n") && answer.contains("{\"error\":\"rate_limited\""));
        assert!(answer.contains("\r\nratelimit: \"rate\";r=0;t=1\r\n"), "{answer}");
    }
    let later = Now { mono: NOW.mono.plus(Duration::from_millis(100)), ..NOW };
    assert!(v2_at(&mut answerer, later, &token).is_ok());
    assert_eq!(answerer.counters.value(Counter::UdpRateLimited), 2);
    assert_eq!(answerer.counters.value(Counter::HttpRateLimited), 3);
    assert_eq!(answers_recorded(&answerer), 4);
    assert!(http(&mut answerer, "GET /assets HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
    books_close(&answerer);
}

#[test]
fn a_month_counts_answers_and_a_rate_counts_all_that_a_key_asks() {
    let (mut answerer, token) = limited(1, 10, Some(3));
    let pad = " ".repeat(100);
    let several =
        format!(r#"{{"api_key":"{}","assets":["BTC","NOPE"],"id":7,"pad":"{pad}"}}"#, token.reveal());
    assert!(udp(&mut answerer, &v1_of(&token, "NOPE")).unwrap().contains("unknown_asset"));
    assert!(udp(&mut answerer, &several).unwrap().contains("65000.12"));
    assert!(http(&mut answerer, &get_of(&token, "/prices?assets=BTC,NOPE")).starts_with("HTTP/1.1 200"));
    let answer = http(&mut answerer, &get_of(&token, "/price?asset=BTC"));
    assert!(answer.contains("\r\nratelimit-policy: \"rate\";q=10;w=10, \"month\";q=3\r\n"), "{answer}");
    assert!(answer.contains(", \"month\";r=0;t="), "{answer}");
    // Four of ten are used of the rate, and all of the month.
    let refusal = v2_at(&mut answerer, NOW, &token).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::MonthlyLimit);
    let end_ms = crate::account::MonthSpan::of(NOW.unix).end.ms();
    assert_eq!(refusal.server_time_ms + u64::from(refusal.retry_after_ms), end_ms);
    for _ in 0..20 {
        let told = udp(&mut answerer, &v1_of(&token, "BTC")).unwrap();
        assert_eq!(told, r#"{"error":"monthly_limit","id":7}"#);
    }
    let answer = http(&mut answerer, &get_of(&token, "/price?asset=BTC"));
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\"monthly_limit\""), "{answer}");
    let next = Now { mono: NOW.mono, unix: UnixNs(end_ms * 1_000_000) };
    for _ in 0..3 {
        assert!(v2_at(&mut answerer, next, &token).is_ok(), "a new month");
    }
    assert_eq!(answers_recorded(&answerer), 6);
    books_close(&answerer);
}

#[test]
fn who_waits_counts_against_the_rate_once_and_against_the_month_when_he_is_answered() {
    let (mut answerer, token) = limited(1, 3, Some(1));
    let request = v1_of(&token, "ETH");
    let again =
        |answerer: &mut Answerer, attempt| udp_from(answerer, "127.0.0.1", request.as_bytes(), attempt);
    assert!(matches!(udp(&mut answerer, &request), Err(Verdict::Wait(_))));
    assert!(matches!(udp(&mut answerer, &request), Err(Verdict::Wait(_))));
    for _ in 0..5 {
        assert!(matches!(again(&mut answerer, Attempt::Again), Err(Verdict::Wait(_))));
    }
    price(&mut answerer, 2, "3000.5");
    assert!(again(&mut answerer, Attempt::Again).unwrap().contains("3000.5"));
    assert!(again(&mut answerer, Attempt::Last).unwrap().contains("monthly_limit"));
    assert_eq!(answers_recorded(&answerer), 1);
    books_close(&answerer);
}

#[test]
fn requests_that_prove_nothing_new_use_up_nobodys_rate() {
    let (mut answerer, token) = limited(1, 1, None);
    let old = v2_of(&token, NOW.unix.ms() - 60_000);
    let mut room = [0; UDP_PAYLOAD_MAX];
    for _ in 0..50 {
        let _ = answerer.datagram(NOW, [127, 0, 0, 1].into(), &old, false, &mut room, Attempt::First);
        let _ = udp(&mut answerer, &format!(r#"{{"api_key":"{}x","asset":"BTC"}}"#, token.reveal()));
    }
    assert!(v2_at(&mut answerer, NOW, &token).is_ok());
    books_close(&answerer);
}

#[test]
fn a_key_ends_when_it_expires_and_not_before() {
    let (mut answerer, token) = answerer(false);
    let mut keys = answerer.keys.keys().to_vec();
    keys[0].expires = UnixNs(NOW.unix.0 + 1);
    drop(answerer.replace_keys(Box::new(KeyTable::new(keys.clone()))));
    assert!(udp(&mut answerer, &v1_of(&token, "BTC")).unwrap().contains("65000.12"));
    assert!(v2_at(&mut answerer, NOW, &token).is_ok());
    keys[0].expires = NOW.unix;
    drop(answerer.replace_keys(Box::new(KeyTable::new(keys))));
    assert_eq!(udp(&mut answerer, &v1_of(&token, "BTC")).unwrap(), r#"{"error":"unauthorized","id":7}"#);
    let answer = http(&mut answerer, &get_of(&token, "/price?asset=BTC"));
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let request = v2_of(&token, NOW.unix.ms());
    let mut room = [0; UDP_PAYLOAD_MAX];
    let verdict = answerer.datagram(NOW, [127, 0, 0, 1].into(), &request, false, &mut room, Attempt::First);
    assert!(matches!(verdict, Verdict::Send(40)), "{verdict:?}");
    books_close(&answerer);
}
