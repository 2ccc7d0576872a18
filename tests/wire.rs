//! The bytes of both UDP protocols: as `tests/golden/wire.txt` has them, as `docs/PROTOCOL.md` shows
//! them, and as the document's own client in Python makes and reads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use beast::account::Token;
use beast::price::{Currency, ExchangeId, Price, Quote, Symbol, Tier, TradeKey};
use beast::time::UnixNs;
use beast::wire::{ErrorCode, Reject, answer_len_max, v1, v2};

const TOKEN: &str = "tb_028t5cy4tqkff00041061050r3gg28a1c60t3gf2nhhpc6";
const REQUEST_ID: u64 = 7;

fn keys() -> (u64, v2::Key, v2::Key) {
    let token = Token::parse(TOKEN.as_bytes()).unwrap();
    (token.public_id(), v2::Key(token.v2_request_key().0), v2::Key(token.v2_answer_key().0))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The quote of the examples.
fn quote(price: &str, tier: Tier) -> Quote {
    Quote {
        price: Price::parse(price.as_bytes()).unwrap(),
        key: TradeKey { time: UnixNs(1_763_650_000_123_456_789), number: 1 },
        received: UnixNs(1_763_650_000_151_000_000),
        tier,
    }
}

fn head(asset: &str, currency: &str, price: &str, exchange: &str, tier: Tier) -> Vec<u8> {
    let (asset, currency) = (Symbol::parse(asset).unwrap(), Currency::parse(currency).unwrap());
    let quote = quote(price, tier);
    let mut out = [0; 200];
    let ts_ms = quote.key.time.ms();
    let len = v1::write_head(&mut out, asset, currency, quote.price, exchange, tier, ts_ms).unwrap();
    out[..len].to_vec()
}

/// Every example, by name: text of v1, hexadecimal digits of v2.
fn examples() -> BTreeMap<&'static str, String> {
    let mut examples = BTreeMap::new();
    let mut add = |name, content: String| assert!(examples.insert(name, content).is_none(), "{name}");
    let (key_id, request_key, answer_key) = keys();

    add("v2-request-key", hex(&request_key.0));
    add("v2-answer-key", hex(&answer_key.0));
    let btc = Symbol::parse("BTC").unwrap();
    let request = v2::Request {
        key_id,
        time_ms: 1_763_650_000_200,
        request_id: REQUEST_ID,
        exchange: None,
        symbol: btc,
    };
    let mut out = [0; 1_232];
    let len = v2::write_request(&mut out, &request, &request_key).unwrap();
    add("v2-request", hex(&out[..len]));
    let usd = Currency::parse("USD").unwrap();
    let exchange = ExchangeId::new(1).unwrap();
    let template = v2::AnswerTemplate::new(btc, usd, exchange, &quote("65000.12", Tier::Ws));
    let record = v2::RecordId { epoch: 3, shard: 1, sequence: 4_711 };
    let len = template.write(&mut out, REQUEST_ID, record, &answer_key).unwrap();
    add("v2-answer", hex(&out[..len]));
    let mut error = |name, code, request_id, retry_after_ms, key| {
        let refusal = v2::Refusal { code, request_id, server_time_ms: 1_763_650_000_201, retry_after_ms };
        let len = v2::write_error(&mut out, 88, &refusal, key).unwrap();
        add(name, hex(&out[..len]));
    };
    error("v2-error-stale", ErrorCode::Stale, REQUEST_ID, 1_000, Some(&answer_key));
    error("v2-error-unauthorized", ErrorCode::Unauthorized, REQUEST_ID, 0, None);

    let one = format!(r#"{{"api_key":"{TOKEN}","asset":"BTC","id":7}}"#);
    let named = format!(r#"{{"api_key":"{TOKEN}","asset":"BTC","source":"kraken","id":"a-1"}}"#);
    let several = format!(
        r#"{{"api_key":"{TOKEN}","assets":["BTC","DOGE","NOPE"],"id":8,"pad":"{}"}}"#,
        "x".repeat(24)
    );
    let cut = format!(r#"{{"api_key":"{TOKEN}","assets":["BTC","ETH","DOGE","SOL","XRP"],"id":9}}"#);
    let btc = head("BTC", "USD", "65000.12", "coinbase", Tier::Ws);
    let kraken = head("BTC", "USD", "64999.9", "kraken", Tier::Rest);
    let doge = head("DOGE", "USDT", "0.08153", "bybit", Tier::Cache);
    let sol = head("SOL", "USD", "141.07", "okx", Tier::Ws);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let answer = |request: &str, head: &[u8]| {
        let parsed = v1::parse(request.as_bytes()).unwrap();
        let mut out = [0; 1_232];
        let len = v1::write_answer(&mut out, answer_len_max(request.len()), head, parsed.id()).unwrap();
        text(&out[..len])
    };
    add("v1-answer", answer(&one, &btc));
    add("v1-answer-source", answer(&named, &kraken));
    let prices = |request: &str| {
        let parsed = v1::parse(request.as_bytes()).unwrap();
        let mut out = [0; 1_232];
        let len_max = answer_len_max(request.len());
        let mut writer = v1::PricesWriter::new(&mut out, len_max, parsed.asset_count(), parsed.id()).unwrap();
        for asset in parsed.assets() {
            let pushed = match asset {
                b"BTC" => writer.push_head(&btc),
                b"DOGE" => writer.push_head(&doge),
                b"NOPE" => writer.push_error(asset, ErrorCode::UnknownAsset),
                b"ETH" => writer.push_error(asset, ErrorCode::Stale),
                _ => writer.push_head(&sol),
            };
            if !pushed {
                break;
            }
        }
        let len = writer.finish().unwrap();
        assert!(len <= len_max);
        text(&out[..len])
    };
    add("v1-answer-several", prices(&several));
    add("v1-answer-more", prices(&cut));
    let mut out = [0; 100];
    let len = v1::write_error(&mut out, 88, ErrorCode::UnknownAsset, Some(b"7")).unwrap();
    add("v1-error", text(&out[..len]));
    add("v1-request", one);
    add("v1-request-source", named);
    add("v1-request-several", several);
    add("v1-request-more", cut);
    examples
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn document() -> String {
    std::fs::read_to_string(repository("docs/PROTOCOL.md")).unwrap()
}

/// The fenced blocks of a document: what stands behind the fence, and the content.
fn blocks(document: &str) -> Vec<(&str, &str)> {
    let mut parts = document.split("\n```");
    parts.next();
    let mut blocks = Vec::new();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        blocks.push(block.split_once('\n').unwrap());
    }
    blocks
}

#[test]
fn the_bytes_are_those_of_the_golden_file() {
    let made =
        examples().iter().fold(String::new(), |text, (name, content)| text + name + " " + content + "\n");
    let golden = std::fs::read_to_string(repository("tests/golden/wire.txt")).unwrap_or_default();
    if made != golden {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wire.txt");
        std::fs::write(&path, made).unwrap();
        panic!(
            "the protocols' bytes have changed: compare tests/golden/wire.txt with {}; if clients are \
            meant to see that, copy it and mend docs/PROTOCOL.md",
            path.display()
        );
    }
}

#[test]
fn the_document_shows_these_bytes() {
    let (document, mut missing) = (document(), examples());
    for (info, content) in blocks(&document) {
        let Some((kind @ ("hex" | "json"), name)) = info.split_once(' ') else { continue };
        let expected = missing.remove(name).unwrap_or_else(|| panic!("no example {name}, or shown twice"));
        let shown = if kind == "hex" { content.split_whitespace().collect() } else { content.to_owned() };
        assert_eq!(shown, expected, "{name}");
    }
    assert!(missing.is_empty(), "not shown: {:?}", missing.keys());
    assert!(document.contains(TOKEN));
    for code in ErrorCode::ALL {
        let row = format!("| {} | `{}` |", code.number(), code.as_str());
        assert!(document.contains(&row), "no row {row}");
    }
}

#[test]
fn the_examples_are_read_as_they_are_described() {
    let examples = examples();
    let (key_id, request_key, answer_key) = keys();
    let request = bytes(&examples["v2-request"]);
    let view = v2::RequestView::parse(&request).unwrap();
    assert!(view.tag_valid(&request_key) && view.key_id() == key_id);
    let answer = bytes(&examples["v2-answer"]);
    assert!(matches!(v2::Reply::parse(&answer, &answer_key), Ok(v2::Reply::Answer(_))));
    for (name, content) in examples.iter().filter(|(name, _)| name.starts_with("v1-")) {
        let parsed = v1::parse(content.as_bytes());
        match name.starts_with("v1-request") {
            true => assert_eq!(parsed.unwrap().token(), TOKEN.as_bytes()),
            false => assert_eq!(parsed.err(), Some(Reject::IsAnswer), "{name}"),
        }
    }
}

/// Runs the document's client on the examples: it shares no line with this program.
#[test]
fn the_client_in_the_document_works() {
    let (document, examples) = (document(), examples());
    let client = blocks(&document).into_iter().find(|(info, _)| *info == "python");
    let (_, client) = client.expect("a block of Python");
    let script = format!(
        "import types\nclient = types.ModuleType('client')\nexec({client:?}, client.__dict__)\n\
        key_id, request_key, answer_key = client.keys('{TOKEN}')\n\
        print(request_key.hex())\nprint(answer_key.hex())\n\
        print(client.request(key_id, request_key, 'BTC', {REQUEST_ID}, 1763650000200).hex())\n\
        for name in ['{}', '{}', '{}']:\n    print(client.reply(bytes.fromhex(name), answer_key, {REQUEST_ID}))\n",
        examples["v2-answer"], examples["v2-error-stale"], examples["v2-error-unauthorized"],
    );
    let started = Command::new("python3").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = started else {
        assert!(
            std::env::var("CI").is_err(),
            "python3 is missing: install it, the document's client needs it"
        );
        eprintln!("skipped: there is no python3 to run the document's client with");
        return;
    };
    python.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected = format!(
        "{}\n{}\n{}\n\
        {{'asset': 'BTC', 'quote': 'USD', 'price': Decimal('65000.12'), 'exchange': 1, 'tier': 'ws', \
        'exchange_time_ns': 1763650000123456789, 'receive_time_ns': 1763650000151000000, 'record': (3, 1, 4711)}}\n\
        {{'error': 'stale', 'signed': True, 'server_time_ms': 1763650000201, 'retry_after_ms': 1000}}\n\
        {{'error': 'unauthorized', 'signed': False, 'server_time_ms': 1763650000201, 'retry_after_ms': 0}}\n",
        examples["v2-request-key"], examples["v2-answer-key"], examples["v2-request"],
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
