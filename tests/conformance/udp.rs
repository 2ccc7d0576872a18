//! UDP v1 and v2.

use beast::price::{ExchangeId, Symbol};
use beast::time::{Clock as _, RealClock};
use beast::wire::ErrorCode;
use beast::wire::v2::{Answer, Key, Refusal, Reply, ReplyFault, Request};
use serde_json::{Value, json};

use super::Target;
use super::clients::{v1_request, v2_request, v2_request_at, v2_signed};
use super::running::wait_until;

/// Checks the shape of a price.
pub(crate) fn is_price(answer: &Value, asset: &str) {
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{name}: {answer}"));
    assert_eq!(text("asset"), asset);
    assert!(["USD", "USDT", "USDC", "EUR"].contains(&text("quote")), "{answer}");
    let price = text("price");
    assert!(price.bytes().all(|b| b.is_ascii_digit() || b == b'.'), "{answer}");
    assert!(price.bytes().any(|b| (b'1'..=b'9').contains(&b)), "{answer}");
    assert!(text("source").ends_with("-ws") || text("source").ends_with("-rest"), "{answer}");
    let now = RealClock.now().unix.ms();
    let ts = answer["ts"].as_u64().unwrap();
    assert!(ts <= now + 60_000 && ts + 86_400_000 > now, "{answer} at {now}");
}

pub(crate) fn v1_answers(target: &Target<'_>) {
    let client = target.udp();
    let key = target.token.reveal();
    for (id, comes_back) in
        [("7", ",\"id\":7}"), ("\"a-1\"", ",\"id\":\"a-1\"}"), ("-1.50e+2", ",\"id\":-1.50e+2}")]
    {
        let answer = client.ask(v1_request(&target.token, "BTC", id).as_bytes());
        let text = std::str::from_utf8(&answer).unwrap();
        assert!(text.ends_with(comes_back), "{text}");
        is_price(&serde_json::from_str(text).unwrap(), "BTC");
    }
    let without = client.v1(&format!(r#"{{"api_key":"{key}","asset":"ETH"}}"#));
    is_price(&without, "ETH");
    assert!(without.get("id").is_none());
    // Any order, unknown members, white space, either case.
    let odd = format!(
        " {{\"id\" : 9,\t\"nested\":{{\"asset\":[1,{{}}]}},\r\n\"asset\":\"btc\",\"x\":null,\"api_key\":\"{key}\"}} "
    );
    let answer = client.v1(&odd);
    is_price(&answer, "BTC");
    assert_eq!(answer["id"], 9);

    let sources = sources(target, "BTC");
    assert!(sources.len() > 1);
    for source in sources {
        let request = format!(r#"{{"api_key":"{key}","asset":"BTC","source":"{source}","id":"{source}"}}"#);
        // One that is listed but has no trade yet is told as stale for a moment.
        let mut answer = Value::Null;
        wait_until(&request, || {
            answer = client.v1(&request);
            assert_eq!(answer["id"], json!(source));
            answer.get("error").is_none()
        });
        is_price(&answer, "BTC");
        assert!(answer["source"].as_str().unwrap().starts_with(&format!("{source}-")), "{answer}");
    }

    let pad = "x".repeat(600);
    let several =
        |pad: &str| format!(r#"{{"api_key":"{key}","assets":["BTC","NOPE","ETH"],"id":8,"pad":"{pad}"}}"#);
    let answer = client.v1(&several(&pad));
    assert_eq!((&answer["id"], answer["prices"].as_array().unwrap().len()), (&json!(8), 3));
    is_price(&answer["prices"][0], "BTC");
    assert_eq!(answer["prices"][1], json!({"asset": "NOPE", "error": "unknown_asset"}));
    is_price(&answer["prices"][2], "ETH");
    assert!(answer.get("more").is_none());
    // What does not fit three times the request is told as a number.
    let names = ["BTC"; 40].map(|name| format!("\"{name}\"")).join(",");
    let long = format!(r#"{{"api_key":"{key}","assets":[{names}],"id":8}}"#);
    let answer = client.v1(&long);
    let prices = answer["prices"].as_array().unwrap().len() as u64;
    assert!(prices > 0 && prices < 40, "{answer}");
    assert_eq!(answer["more"].as_u64(), Some(40 - prices));
}

/// The exchanges that list an asset, as the server says.
fn sources(target: &Target<'_>, asset: &str) -> Vec<String> {
    let assets = target.http().get("/assets", &target.token).json();
    let entry = assets["assets"].as_array().unwrap().iter().find(|entry| entry["asset"] == asset).unwrap();
    let name = |source: &Value| source.as_str().unwrap().to_owned();
    entry["sources"].as_array().unwrap().iter().map(name).collect()
}

pub(crate) fn v1_refuses(target: &Target<'_>) {
    let key = target.token.reveal();
    let mut mistyped = key.clone().into_bytes();
    mistyped[20] = if mistyped[20] == b'0' { b'1' } else { b'0' };
    let mistyped = String::from_utf8(mistyped).unwrap();
    let stranger = beast::account::Token::generate().unwrap().reveal();
    for (network, (request, error)) in (0..).zip([
        (format!(r#"{{"api_key":"{key}","asset":"NOPE","id":1}}"#), "unknown_asset"),
        (format!(r#"{{"api_key":"{key}","asset":"BTC","source":"nowhere","id":1}}"#), "unknown_asset"),
        (format!(r#"{{"api_key":"{mistyped}","asset":"BTC","id":1}}"#), "unauthorized"),
        (format!(r#"{{"api_key":"{stranger}","asset":"BTC","id":1}}"#), "unauthorized"),
        (r#"{"asset":"BTC","id":1,"pad":"long enough for the error"}"#.to_owned(), "unauthorized"),
        (format!(r#"{{"api_key":"{key}","id":1}}"#), "bad_request"),
        (format!(r#"{{"api_key":"{key}","asset":"BTC","asset":"BTC","id":1}}"#), "bad_request"),
    ]) {
        let answer = target.stranger(network).v1(&request);
        assert_eq!(answer["error"], error, "{request}");
        if error != "bad_request" {
            assert_eq!(answer["id"], 1, "{request}");
        }
    }
}

pub(crate) fn v2_answers(target: &Target<'_>) {
    let client = target.udp();
    let token = &target.token;
    let request = v2_request(token, "BTC", 0xdead_beef_0000_0001);
    let first = price(client.v2(&request, token));
    assert_eq!((first.request_id, first.symbol), (0xdead_beef_0000_0001, Symbol::parse("BTC").unwrap()));
    assert!(first.price.mantissa() > 0 && first.exchange_time_ns > 0 && first.receive_time_ns > 0);
    // Sent again it is answered and charged again.
    let again = price(client.v2(&request, token));
    assert_eq!(again.request_id, first.request_id);
    assert_eq!(again.record.epoch, first.record.epoch);
    assert_eq!((again.record.shard, again.record.sequence), (first.record.shard, first.record.sequence + 1));

    // The tag is made under the answer key, over every byte before it.
    let bytes = client.ask(&request);
    assert_eq!(bytes.len(), 88);
    let answer_key = Key(token.v2_answer_key().0);
    assert!(Reply::parse(&bytes, &answer_key).is_ok());
    assert_eq!(Reply::parse(&bytes, &Key(token.v2_request_key().0)), Err(ReplyFault::WrongTag));
    for at in 4..80 {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        assert_eq!(Reply::parse(&forged, &answer_key), Err(ReplyFault::WrongTag), "byte {at}");
    }
    // Longer by zeros is a request, too, and its answer is no longer for it.
    for len in [89, 96, 1_231, 1_232] {
        let mut longer = request.clone();
        longer.resize(len, 0);
        assert_eq!(client.ask(&longer).len(), 88);
    }
    // One exchange's price only, by its number.
    let exchanges = target.http().get("/exchanges", token).json();
    for exchange in exchanges["exchanges"].as_array().unwrap() {
        let name = exchange["exchange"].as_str().unwrap();
        if !sources(target, "BTC").iter().any(|source| source == name) {
            continue;
        }
        let number = usize::try_from(exchange["number"].as_u64().unwrap()).unwrap();
        let id = ExchangeId::new(number).unwrap();
        let asks = Request {
            key_id: token.public_id(),
            time_ms: RealClock.now().unix.ms(),
            request_id: 5,
            exchange: Some(id),
            symbol: Symbol::parse("BTC").unwrap(),
        };
        wait_until(name, || match client.v2(&v2_signed(token, &asks), token) {
            Reply::Answer(answer) => {
                assert_eq!((answer.exchange, answer.request_id), (id, 5));
                true
            }
            Reply::Refused(Refusal { code: ErrorCode::Stale, .. }) => false,
            other => panic!("{name}: {other:?}"),
        });
    }
}

fn price(reply: Reply) -> Answer {
    match reply {
        Reply::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn v2_refuses(target: &Target<'_>) {
    let client = target.stranger(100);
    let token = &target.token;
    let signed = |request: &[u8], code: ErrorCode| match client.v2(request, token) {
        Reply::Refused(refusal) => {
            assert_eq!((refusal.code, refusal.request_id), (code, 3));
            let now = RealClock.now().unix.ms();
            assert!(refusal.server_time_ms.abs_diff(now) < 10_000, "{refusal:?} at {now}");
        }
        other => panic!("{other:?} in place of {code:?}"),
    };
    signed(&v2_request(token, "NOPE", 3), ErrorCode::UnknownAsset);
    let now = RealClock.now().unix.ms();
    signed(&v2_request_at(token, "BTC", 3, now - 60_000), ErrorCode::Expired);
    signed(&v2_request_at(token, "BTC", 3, now + 60_000), ErrorCode::Expired);
    let client = target.stranger(101);
    let unsigned = |request: &[u8], code: ErrorCode| match client.v2(request, token) {
        Reply::RefusedUnsigned(refusal) => {
            assert_eq!((refusal.code, refusal.request_id), (code, 3));
        }
        other => panic!("{other:?} in place of {code:?}"),
    };
    let mut forged = v2_request(token, "BTC", 3);
    forged[33] ^= 1;
    unsigned(&forged, ErrorCode::Unauthorized);
    let stranger = beast::account::Token::generate().unwrap();
    unsigned(&v2_request(&stranger, "BTC", 3), ErrorCode::Unauthorized);
    let mut not_zero = v2_request(token, "BTC", 3);
    not_zero[87] = 1;
    unsigned(&not_zero, ErrorCode::BadRequest);
}

/// v1, v2 and HTTP give one price, digit for digit, when it did not change in between.
pub(crate) fn all_protocols_agree(target: &Target<'_>) {
    let (client, mut http) = (target.udp(), target.http());
    let id = r#","id":4}"#;
    wait_until("a moment in which the price did not change", || {
        let v1 = |text: Vec<u8>| String::from_utf8(text).unwrap().strip_suffix(id).unwrap().to_owned();
        let request = v1_request(&target.token, "BTC", "4");
        let before = v1(client.ask(request.as_bytes()));
        let v2 = price(client.v2(&v2_request(&target.token, "BTC", 4), &target.token));
        let body = http.get("/price?asset=BTC", &target.token).body;
        if v1(client.ask(request.as_bytes())) != before {
            return false;
        }
        assert_eq!(String::from_utf8(body).unwrap(), format!("{before}}}"));
        let seen: Value = serde_json::from_str(&format!("{before}}}")).unwrap();
        assert_eq!(seen["price"], v2.price.to_string());
        assert_eq!(seen["quote"], v2.currency.as_str());
        assert_eq!(seen["ts"], v2.exchange_time_ns / 1_000_000);
        true
    });
}
