use proptest::prelude::*;

use super::scan::DEPTH_MAX;
use super::*;
use crate::limits::{ASSETS_PER_REQUEST_MAX, REQUEST_ID_LEN_MAX, UDP_PAYLOAD_MAX, V1_HEAD_LEN_MAX};
use crate::price::{Currency, Price, Symbol, Tier};
use crate::wire::fuzz::is_json;
use crate::wire::{ErrorCode, Reject, answer_len_max, fuzz};

const TOKEN: &str = "tb_0000000000001000102030405060708090a0b0c0d0e0f0";

fn head(asset: &str, price: &str) -> Vec<u8> {
    let (asset, quote) = (Symbol::parse(asset).unwrap(), Currency::parse("USD").unwrap());
    let price = Price::parse(price.as_bytes()).unwrap();
    let mut out = [0; V1_HEAD_LEN_MAX];
    let len = write_head(&mut out, asset, quote, price, "coinbase", Tier::Ws, 1_763_650_000_123).unwrap();
    out[..len].to_vec()
}

fn text(out: &[u8], len: Option<usize>) -> &str {
    std::str::from_utf8(&out[..len.expect("it fits")]).unwrap()
}

#[test]
fn a_request_says_what_it_holds() {
    let text = format!(r#"{{"api_key":"{TOKEN}","asset":"BTC","id":7}}"#);
    let request = parse(text.as_bytes()).unwrap();
    assert_eq!(request.token(), TOKEN.as_bytes());
    assert_eq!((request.asset(), request.asset_count()), (Some(&b"BTC"[..]), 1));
    assert_eq!(request.assets().collect::<Vec<_>>(), [b"BTC"]);
    assert_eq!((request.source(), request.id()), (None, Some(&b"7"[..])));
    assert!(!format!("{request:?}").contains("tb_"));

    let text = b" \t\r\n{ \"id\" : \"a b\" , \"assets\" : [ \"BTC\" , \"ETH\",\"X]\" ] ,\"pad\":\"xxxx\", \
        \"source\":\"kraken\", \"new\" : {\"asset\":[1,{}],\"price\":2} } \n";
    let request = parse(text).unwrap();
    assert_eq!((request.token(), request.asset(), request.asset_count()), (&b""[..], None, 3));
    assert_eq!(request.assets().collect::<Vec<_>>(), [&b"BTC"[..], b"ETH", b"X]"]);
    assert_eq!((request.source(), request.id()), (Some(&b"kraken"[..]), Some(&b"\"a b\""[..])));
}

#[test]
fn what_is_no_request_is_refused() {
    let many = |count: usize| format!(r#"{{"assets":[{}]}}"#, vec!["\"A\""; count].join(","));
    let id = |len: usize| format!(r#"{{"asset":"A","id":{}}}"#, "1".repeat(len));
    assert!(parse(many(ASSETS_PER_REQUEST_MAX).as_bytes()).is_ok());
    assert!(parse(id(REQUEST_ID_LEN_MAX).as_bytes()).is_ok());
    let (many, id) = (many(ASSETS_PER_REQUEST_MAX + 1), id(REQUEST_ID_LEN_MAX + 1));
    for bad in [
        "",
        " ",
        "{",
        "{}",
        "[]",
        "7",
        "null",
        r#""asset""#,
        r#"{"api_key":"k"}"#,
        r#"{"asset":"A","assets":["A"]}"#,
        r#"{"asset":"A","asset":"A"}"#,
        r#"{"asset":"A","as\u0073et":"B"}"#,
        r#"{"asset":"A","id":1,"id":1}"#,
        r#"{"asset":"A","pad":1,"pad":1}"#,
        r#"{"asset":"A","id":null}"#,
        r#"{"asset":"A","id":[1]}"#,
        r#"{"asset":"A","id":01}"#,
        r#"{"asset":"A","id":"123456789012345678901234567890x"}"#,
        r#"{"asset":1}"#,
        r#"{"asset":null}"#,
        r#"{"assets":"A"}"#,
        r#"{"assets":[]}"#,
        r#"{"assets":["A",1]}"#,
        r#"{"assets":["A",]}"#,
        r#"{"asset":"A","source":null}"#,
        r#"{"api_key":7,"asset":"A"}"#,
        r#"{"asset":"A"} {"asset":"A"}"#,
        r#"{"asset":"A"}x"#,
        "{\"asset\":\"A\"}\0",
        "\u{feff}{\"asset\":\"A\"}",
        r#"{"asset":"A",}"#,
        r#"{"asset":"A" "id":1}"#,
        r#"{"asset" "A"}"#,
        r#"{asset:"A"}"#,
        r#"{'asset':'A'}"#,
        &many,
        &id,
    ] {
        assert_eq!(parse(bad.as_bytes()).err(), Some(Reject::BadRequest), "{bad}");
    }
}

#[test]
fn answers_are_never_requests() {
    let mut out = [0; UDP_PAYLOAD_MAX];
    let head = head("BTC", "65000.12");
    let len = write_answer(&mut out, 300, &head, Some(b"7")).unwrap();
    assert_eq!(parse(&out[..len]).err(), Some(Reject::IsAnswer));
    for code in ErrorCode::ALL {
        let len = write_error(&mut out, 300, code, None).unwrap();
        assert_eq!(parse(&out[..len]).err(), Some(Reject::IsAnswer));
    }
    for answer in [
        r#"{"prices":[]}"#,
        r#"{"asset":"A","pr\u0069ce":1}"#,
        r#"{"error":"cut off"#,
        r#"{"api_key":"k","asset":"A","error":null}"#,
    ] {
        assert_eq!(parse(answer.as_bytes()).err(), Some(Reject::IsAnswer), "{answer}");
    }
}

#[test]
fn names_with_escapes_keep_them() {
    let request = parse(br#"{"as\u0073et":"BT\u0043","api\u005Fkey":"t\"b"}"#).unwrap();
    assert_eq!((request.asset(), request.token()), (Some(&br"BT\u0043"[..]), &br#"t\"b"#[..]));
    assert_eq!(Symbol::from_bytes(request.asset().unwrap()), None);
    let request = parse(br#"{"assets":["\"","\\","A"]}"#).unwrap();
    assert_eq!(request.assets().collect::<Vec<_>>(), [&br#"\""#[..], br"\\", b"A"]);
    assert!(parse(br#"{"asset":"A","\u0061\\sset":1,"\ud800":2,"\u0141sset":3,"asset\u0000":4}"#).is_ok());
}

/// Bombs, and what is easily got wrong: accepted or not, as RFC 8259 says.
#[test]
fn json_is_taken_strictly() {
    let nested = |depth: usize| format!(r#"{{"asset":"A","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let long = format!(r#"{{"asset":"A","x":{}}}"#, "9".repeat(1_000));
    for good in [
        &nested(usize::from(DEPTH_MAX) - 1)[..],
        &long,
        r#"{"asset":"A","x":1e9999}"#,
        r#"{"asset":"A","x":-0.0E-0}"#,
        r#"{"asset":"A","x":"\ud800"}"#,
        r#"{"asset":"A","x":"\udc00\ud800"}"#,
        "{\"asset\":\"A\",\"x\":\"é€🦀\u{7f}\"}",
        r#"{"asset":"A","x":[true,false,null,{},[],""]}"#,
        r#"{"asset":"A","":0,"":0}"#,
    ] {
        assert!(parse(good.as_bytes()).is_ok(), "{good}");
    }
    let bomb = format!(r#"{{"asset":"A","x":{}"#, "[".repeat(1_200));
    let objects = format!(r#"{{"asset":"A","x":{}"#, "{\"a\":".repeat(240));
    for bad in [
        nested(usize::from(DEPTH_MAX)).as_bytes(),
        bomb.as_bytes(),
        objects.as_bytes(),
        br#"{"asset":"A","x":+1}"#,
        br#"{"asset":"A","x":.5}"#,
        br#"{"asset":"A","x":5.}"#,
        br#"{"asset":"A","x":1e}"#,
        br#"{"asset":"A","x":1e+}"#,
        br#"{"asset":"A","x":-}"#,
        br#"{"asset":"A","x":00}"#,
        br#"{"asset":"A","x":NaN}"#,
        br#"{"asset":"A","x":0x1}"#,
        br#"{"asset":"A","x":tru}"#,
        br#"{"asset":"A","x":nul"#,
        br#"{"asset":"A","x":"\x41"}"#,
        br#"{"asset":"A","x":"\u12G4"}"#,
        br#"{"asset":"A","x":"\u12"#,
        br#"{"asset":"A","x":"\"#,
        br#"{"asset":"A","x":"\"}"#,
        b"{\"asset\":\"A\",\"x\":\"a\nb\"}",
        b"{\"asset\":\"A\",\"x\":\"\x1f\"}",
        b"{\"asset\":\"A\",\"x\":\"\xff\"}",
        b"{\"asset\":\"A\",\"x\":\"\xc0\xaf\"}",
        b"{\"asset\":\"A\",\"x\":\"\xed\xa0\x80\"}",
        b"{\"asset\":\"A\",\"x\":\"\xe2\x82\"}",
        b"{\"asset\":\"A\",\"x\xc3\":0}",
        b"{\"asset\":\"A\",\xc2\xa0\"x\":0}",
    ] {
        assert_eq!(parse(bad).err(), Some(Reject::BadRequest), "{}", bad.escape_ascii());
    }
}

#[test]
fn every_cut_of_a_request_is_refused() {
    let text =
        format!(r#"{{"api_key":"{TOKEN}","assets":["BTC","é"],"id":"7","pad":[1.5e3,true,"\u0041"]}}"#);
    assert!(parse(text.as_bytes()).is_ok());
    for len in 0..text.len() {
        assert_eq!(parse(&text.as_bytes()[..len]).err(), Some(Reject::BadRequest), "{len} bytes");
    }
}

#[test]
fn answers_are_the_documented_text() {
    let mut out = [0; UDP_PAYLOAD_MAX];
    let head = head("BTC", "65000.12");
    let len = write_answer(&mut out, 300, &head, Some(b"7"));
    let expected =
        r#"{"asset":"BTC","quote":"USD","price":"65000.12","source":"coinbase-ws","ts":1763650000123"#;
    assert_eq!(text(&out, len), format!("{expected},\"id\":7}}"));
    let len = write_answer(&mut out, 300, &head, None);
    assert_eq!(text(&out, len), format!("{expected}}}"));
    let len = write_error(&mut out, 300, ErrorCode::UnknownAsset, Some(b"\"x\""));
    assert_eq!(text(&out, len), r#"{"error":"unknown_asset","id":"x"}"#);

    let mut prices = PricesWriter::new(&mut out, 1_232, 3, Some(b"7")).unwrap();
    assert!(prices.push_head(&head) && prices.push_error(b"X", ErrorCode::Stale) && prices.push_head(&head));
    let len = prices.finish();
    let item = format!("{expected}}}");
    let error = r#"{"asset":"X","error":"stale"}"#;
    assert_eq!(text(&out, len), format!(r#"{{"prices":[{item},{error},{item}],"id":7}}"#));
}

#[test]
fn the_longest_head_fits_its_bound() {
    let mut out = [0; V1_HEAD_LEN_MAX];
    let price = Price::from_parts(1, -19).unwrap();
    let len = write_head(
        &mut out,
        Symbol::parse("ABCDEFGHIJKLMNOP").unwrap(),
        Currency::parse("ABCDEFGH").unwrap(),
        price,
        "abcdefghijklmnopqrst",
        Tier::Cache,
        u64::MAX,
    )
    .unwrap();
    assert!(is_json(&[&out[..len], b"}"].concat()));
    // With the longest id it still fits three times the shortest request a real token allows.
    let request = format!(r#"{{"api_key":"{TOKEN}","asset":"A"}}"#);
    let id = [b'1'; REQUEST_ID_LEN_MAX];
    let mut answer = [0; UDP_PAYLOAD_MAX];
    assert!(write_answer(&mut answer, answer_len_max(request.len()), &out[..len], Some(&id)).is_some());
}

#[test]
fn answers_longer_than_their_bound_are_not_written() {
    let head = head("BTC", "65000.12");
    let whole = head.len() + 8;
    let mut out = [0; UDP_PAYLOAD_MAX];
    assert_eq!(write_answer(&mut out, whole, &head, Some(b"7")), Some(whole));
    for len in 0..whole {
        assert_eq!(write_answer(&mut out, len, &head, Some(b"7")), None);
        assert_eq!(write_answer(&mut out[..len], usize::MAX, &head, Some(b"7")), None);
    }
    let error = br#"{"error":"stale","id":7}"#.len();
    for len in 0..100 {
        let fits = (len >= error).then_some(error);
        assert_eq!(write_error(&mut out, len, ErrorCode::Stale, Some(b"7")), fits);
        assert_eq!(write_error(&mut out[..len], 100, ErrorCode::Stale, Some(b"7")), fits);
    }
}

#[test]
fn what_does_not_fit_is_counted_as_more() {
    let head = head("BTC", "65000.12");
    let mut out = [0; UDP_PAYLOAD_MAX];
    let total = 20;
    let mut seen = Vec::new();
    for len_max in 0..=UDP_PAYLOAD_MAX {
        let Some(mut prices) = PricesWriter::new(&mut out, len_max, total, Some(b"\"id\"")) else {
            assert!(len_max < 100);
            continue;
        };
        let pushed = (0..total).take_while(|_| prices.push_head(&head)).count();
        assert_eq!(prices.pushed(), pushed);
        assert!(pushed == total || !prices.push_error(b"A", ErrorCode::Stale), "once full, always full");
        let Some(len) = prices.finish() else {
            assert_eq!(pushed, 0);
            continue;
        };
        assert!(len <= len_max && is_json(&out[..len]));
        let value: serde_json::Value = serde_json::from_slice(&out[..len]).unwrap();
        assert_eq!(value["prices"].as_array().unwrap().len(), pushed);
        assert_eq!(
            value.get("more").and_then(|more| more.as_u64()),
            (pushed < total).then_some((total - pushed) as u64)
        );
        let item = head.len() + 2;
        assert!(pushed == total || len + item > len_max, "another would have fit in {len_max}");
        seen.push(pushed);
    }
    assert!(
        seen.is_sorted()
            && seen.first() == Some(&1)
            && seen.last().is_some_and(|most| (5..total).contains(most))
    );
}

// ---- the scanner against serde_json -------------------------------------------------------------

fn space() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[ !#-\\[\\]-~]{0,12}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u[0-9a-fA-F]{4}",
        1 => "[é€🦀\u{7f}]",
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => string(),
        3 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,8})?([eE][+-]?[0-9]{1,4})?",
        1 => prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(str::to_owned),
        1 => (13_usize..19).prop_map(|deep| "[".repeat(deep) + &"]".repeat(deep)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let item = (space(), inner, space()).prop_map(|(a, v, b)| a + &v + &b).boxed();
        let member =
            (space(), string(), space(), item.clone()).prop_map(|(a, n, b, v)| format!("{a}{n}{b}:{v}"));
        prop_oneof![
            proptest::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// Requests, mostly right ones.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let name = |names: &'static [&'static str]| proptest::sample::select(names).prop_map(str::to_owned);
    let names = || {
        proptest::collection::vec("\"[A-Z0-9]{1,6}\"", 0..5)
            .prop_map(|names| format!("[{}]", names.join(",")))
    };
    let member = prop_oneof![
        3 => (name(&["\"asset\"", "\"\\u0061sset\""]), prop_oneof![4 => "\"[A-Z]{3}\"".boxed(), 1 => value().boxed()]),
        2 => (name(&["\"assets\"", "\"asset\\u0073\""]), prop_oneof![4 => names().boxed(), 1 => value().boxed()]),
        3 => (name(&["\"api_key\"", "\"api\\u005fkey\""]), prop_oneof![4 => "\"tb_[a-z0-9]{4}\"".boxed(), 1 => value().boxed()]),
        3 => (name(&["\"id\"", "\"i\\u0064\""]), prop_oneof!["[1-9][0-9]{0,40}".boxed(), string().boxed(), value().boxed()]),
        2 => (name(&["\"source\""]), prop_oneof![4 => string().boxed(), 1 => value().boxed()]),
        2 => (prop_oneof![name(&["\"pad\"", "\"x\"", "\"assetx\"", "\"Asset\""]), string()], value().boxed()),
        1 => (name(&["\"price\"", "\"prices\"", "\"error\""]), value().boxed()),
    ];
    let member = (space(), member, space(), space())
        .prop_map(|(a, (name, value), b, c)| format!("{a}{name}{b}:{c}{value}{a}"));
    (space(), proptest::collection::vec(member, 0..5), space())
        .prop_map(|(a, members, b)| format!("{a}{{{}}}{b}", members.join(",")).into_bytes())
}

/// Damage that leaves most of the text as it was.
fn damaged(text: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => proptest::sample::select(&b"\"\\{}[],:0123456789eE+-.tfn ua\n\0"[..]),
        1 => any::<u8>(),
    ];
    let edit = (any::<proptest::sample::Index>(), byte, 0_u8..5);
    (text, proptest::collection::vec(edit, 0..4)).prop_map(|(mut text, edits)| {
        for (place, byte, kind) in edits {
            let at = place.index(text.len() + 1);
            match kind {
                0 => text.insert(at, byte),
                1 if at < text.len() => text[at] = byte,
                2 if at < text.len() => drop(text.remove(at)),
                3 => text.truncate(at),
                4 => text.extend_from_within(at..),
                _ => {}
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_json_is_taken(text in value()) {
        prop_assert!(is_json(text.as_bytes()));
        fuzz::json(text.as_bytes());
    }

    #[test]
    fn damaged_json_is_judged_as_by_serde_json(text in damaged(value().prop_map(String::into_bytes))) {
        fuzz::json(&text);
    }

    #[test]
    fn requests_mean_what_serde_json_reads(text in request()) {
        fuzz::v1(&text);
    }

    #[test]
    fn damaged_requests_mean_what_serde_json_reads(text in damaged(request())) {
        fuzz::v1(&text);
    }

    #[test]
    fn no_bytes_stop_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..1_233)) {
        fuzz::json(&bytes);
        fuzz::v1(&bytes);
    }
}

#[test]
fn the_generated_requests_reach_both_verdicts() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut verdicts = [0; 3];
    for _ in 0..1_000 {
        let text = request().new_tree(&mut runner).unwrap().current();
        verdicts[match parse(&text) {
            Ok(_) => 0,
            Err(Reject::BadRequest) => 1,
            Err(Reject::IsAnswer) => 2,
        }] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 50), "{verdicts:?}");
}
