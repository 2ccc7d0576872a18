use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::scan::{DEPTH_MAX, Text};
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

/// The members of an object as another parser sees them: decoded names, raw values.
struct Members(Vec<(Vec<u8>, Box<RawValue>)>);

/// A name of a member; bytes, because JSON allows lone surrogates.
struct Name(Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(bytes.to_vec()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.as_bytes().to_vec()))
            }
        }
        deserializer.deserialize_bytes(V)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(V)
    }
}

#[derive(Debug, PartialEq)]
struct Meaning {
    token: String,
    assets: Vec<String>,
    single: bool,
    source: Option<String>,
    id: Option<String>,
}

/// The rules of v1 over another parser's result. Nesting too deep is for the caller to find.
fn model(bytes: &[u8]) -> Result<Meaning, Reject> {
    const BAD: Reject = Reject::BadRequest;
    let text = std::str::from_utf8(bytes).map_err(|_| BAD)?;
    let Members(members) = serde_json::from_str(text).map_err(|_| BAD)?;
    let inside =
        |raw: &str| raw.strip_prefix('"').and_then(|s| s.strip_suffix('"')).map(str::to_owned).ok_or(BAD);
    let mut meaning = Meaning { token: String::new(), assets: vec![], single: false, source: None, id: None };
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (name, value) in members {
        let raw = value.get();
        if [&b"error"[..], b"price", b"prices"].contains(&&name[..]) {
            return Err(Reject::IsAnswer);
        }
        if [&b"api_key"[..], b"asset", b"assets", b"source", b"id", b"pad"].contains(&&name[..]) {
            if seen.contains(&name) {
                return Err(BAD);
            }
            seen.push(name.clone());
        }
        match &name[..] {
            b"api_key" => meaning.token = inside(raw)?,
            b"source" => meaning.source = Some(inside(raw)?),
            b"asset" => (meaning.assets, meaning.single) = (vec![inside(raw)?], true),
            b"assets" => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(raw).map_err(|_| BAD)?;
                meaning.assets = items.iter().map(|item| inside(item.get())).collect::<Result<_, _>>()?;
                if items.is_empty() || items.len() > ASSETS_PER_REQUEST_MAX {
                    return Err(BAD);
                }
            }
            b"id" => {
                if !raw.starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
                    || raw.len() > REQUEST_ID_LEN_MAX
                {
                    return Err(BAD);
                }
                meaning.id = Some(raw.to_owned());
            }
            _ => {}
        }
    }
    let asked = seen.iter().filter(|name| name.starts_with(b"asset")).count();
    if asked == 1 { Ok(meaning) } else { Err(BAD) }
}

/// How deep a valid JSON text is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// Whether the scanner takes the bytes as one JSON text.
fn scanned(bytes: &[u8]) -> bool {
    let text = Text(bytes);
    let taken = text.value(text.space(0), 0).is_ok_and(|end| text.space(end) == bytes.len());
    taken && std::str::from_utf8(bytes).is_ok()
}

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

fn agree_on_syntax(text: &[u8]) {
    let expected = is_json(text) && depth(text) <= usize::from(DEPTH_MAX);
    assert_eq!(scanned(text), expected, "{}", text.escape_ascii());
}

fn agree_on_meaning(text: &[u8]) {
    let found = parse(text).map(|request| {
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Meaning {
            token: string(request.token()),
            assets: request.assets().map(string).collect(),
            single: request.asset().is_some(),
            source: request.source().map(string),
            id: request.id().map(string),
        }
    });
    if !is_json(text) || depth(text) > usize::from(DEPTH_MAX) {
        assert!(found.is_err(), "{}", text.escape_ascii());
    } else {
        assert_eq!(found, model(text), "{}", text.escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_json_is_taken(text in value()) {
        prop_assert!(is_json(text.as_bytes()));
        agree_on_syntax(text.as_bytes());
    }

    #[test]
    fn damaged_json_is_judged_as_by_serde_json(text in damaged(value().prop_map(String::into_bytes))) {
        agree_on_syntax(&text);
    }

    #[test]
    fn requests_mean_what_serde_json_reads(text in request()) {
        agree_on_meaning(&text);
        fuzz::v1(&text);
    }

    #[test]
    fn damaged_requests_mean_what_serde_json_reads(text in damaged(request())) {
        agree_on_meaning(&text);
        fuzz::v1(&text);
    }

    #[test]
    fn no_bytes_stop_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..1_233)) {
        agree_on_syntax(&bytes);
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
