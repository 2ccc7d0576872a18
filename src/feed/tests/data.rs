use crate::feed::data::*;
use crate::price::Symbol;

fn loaded(overrides: &str) -> FeedData {
    load(&Overrides::parse(overrides).unwrap()).unwrap_or_else(|e| panic!("{overrides}: {e}"))
}

fn fault(overrides: &str) -> String {
    match Overrides::parse(overrides).and_then(|o| load(&o)) {
        Ok(_) => panic!("nothing wrong found in {overrides}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn seven_exchanges_and_150_assets_are_built_in() {
    let data = loaded("");
    let on: Vec<&str> = data.rows.iter().filter(|r| r.enabled).map(|r| r.name.as_str()).collect();
    assert_eq!(on, ["coinbase", "gemini", "kraken", "gateio", "bybit", "okx", "cryptocom"]);
    let off: Vec<&str> = data.rows.iter().filter(|r| !r.enabled).map(|r| r.name.as_str()).collect();
    assert_eq!(off, ["coinbase_exchange", "gemini_v2", "kraken_v1", "cryptocom_v2"]);
    assert!(data.rows.iter().all(|r| r.rest.is_some() || !r.enabled));
    assert_eq!(data.notes, Vec::<String>::new());
    let assets = data.catalogue.assets();
    let ids: Vec<usize> = assets.iter().map(|a| a.id.index()).collect();
    assert_eq!(ids, (1..=150).collect::<Vec<_>>());
    let primary = |exchange: &str| {
        let id = data.catalogue.exchange_named(exchange).unwrap().id;
        assets.iter().filter(|a| data.catalogue.listing(a.listings[0]).exchange == id).count()
    };
    for exchange in ["coinbase", "gemini", "kraken", "gateio", "bybit", "okx"] {
        assert_eq!(primary(exchange), 25, "{exchange}");
    }
    assert_eq!(primary("cryptocom"), 0, "only ever an alternative");
    let bybit = data.catalogue.exchange_named("bybit").unwrap().id;
    for asset in assets.iter().filter(|a| data.catalogue.listing(a.listings[0]).exchange == bybit) {
        let second = data.catalogue.listing(asset.listings[1]);
        assert_eq!(second.symbol, format!("{}_USDT", asset.symbol), "Gate.io stands in for Bybit");
    }
}

#[test]
fn every_row_can_be_switched_on_at_once() {
    let all: String = loaded("")
        .rows
        .iter()
        .map(|r| format!("[[exchange]]\nname = {:?}\nenabled = true\n", r.name))
        .collect();
    let data = loaded(&all);
    assert_eq!(data.catalogue.exchanges().len(), 11);
    assert!(data.rows.iter().all(|r| data.catalogue.listings().iter().any(|l| Ok(l.exchange) == r.id())));
}

#[test]
fn a_configuration_changes_fields_and_keeps_the_rest() {
    let data = loaded(
        r#"
        [[exchange]]
        name = "okx"
        url = "ws://127.0.0.1:9000/okx"
        [exchange.rest]
        url = "http://127.0.0.1:9001/trades?instId={SYMBOL}"
        [[exchange]]
        name = "gemini"
        enabled = false
        [[asset]]
        asset = "BTC"
        any_quote = true
        listings = [{ exchange = "kraken", symbol = "BTC/USD", quote = "USD" }, { exchange = "okx", symbol = "BTC-USDT", quote = "USDT" }]
        [[asset]]
        asset = "PEPE"
        enabled = false
        [[asset]]
        asset = "NEWCOIN"
        id = 151
        listings = [{ exchange = "okx", symbol = "NEWCOIN-USDT", quote = "USDT" }]
        "#,
    );
    let okx = data.rows.iter().find(|r| r.name == "okx").unwrap();
    assert_eq!((okx.url.as_str(), okx.ping.as_deref()), ("ws://127.0.0.1:9000/okx", Some("ping")));
    let rest = okx.rest.as_ref().unwrap();
    assert_eq!(
        (rest.url.as_str(), rest.items.as_str()),
        ("http://127.0.0.1:9001/trades?instId={SYMBOL}", "data[*]")
    );
    let asset = |name: &str| data.catalogue.asset(Symbol::parse(name).unwrap());
    assert_eq!(asset("BTC").map(|a| (a.listings.len(), a.any_quote)), Some((2, true)));
    assert!(asset("NEWCOIN").is_some() && asset("PEPE").is_none());
    assert!(asset("AAVE").is_some(), "Crypto.com lists it too");
    assert!(asset("SKY").is_none(), "only Gemini lists it");
    let [switched_off, unlisted] = &data.notes[..] else { panic!("{:?}", data.notes) };
    assert_eq!(switched_off, "assets left out, switched off by the configuration: PEPE");
    assert!(unlisted.starts_with("assets left out, no exchange that lists them is on: "), "{unlisted}");
    assert!(unlisted.contains("SKY (gemini)"), "{unlisted}");
}

#[test]
fn what_is_wrong_with_assets_is_said() {
    for (overrides, message) in [
        ("[[asset]]\nasset = \"X\"", "asset \"X\": it is not built in, so it needs an id"),
        ("[[asset]]\nasset = \"X\"\nid = 151", "asset \"X\": it is not built in, so it needs listings"),
        ("[[asset]]\nasset = \"X\"\nid = 1\nlistings = []", "asset \"X\": id is 1, which is BTC's"),
        ("[[asset]]\nasset = \"X\"\nid = 9999\nlistings = []", "asset number is \"9999\""),
        ("[[asset]]\nasset = \"BTC\"\nid = 2", "asset \"BTC\": id is 2, but its number is 1 for ever"),
        ("[[asset]]\nasset = \"a b\"", "symbol is \"a b\", needs 1 to 16 letters and digits"),
        (
            "[[asset]]\nasset = \"BTC\"\nlistings = [{exchange = \"krakn\", symbol = \"X\", quote = \"USD\"}]",
            "asset BTC: exchange \"krakn\" is not known; there are coinbase, gemini",
        ),
        (
            "[[asset]]\nasset = \"BTC\"\nlistings = [{exchange = \"kraken\", symbol = \"X\\\"\", quote = \"USD\"}]",
            "symbol is \"X\\\"\", needs 1 to 32 letters",
        ),
        (
            "[[asset]]\nasset = \"BTC\"\nlistings = [{exchange = \"kraken\", symbol = \"X\", quote = \"\"}]",
            "quote currency is \"\"",
        ),
        (
            "[[asset]]\nasset = \"BTC\"\nlistings = [{exchange = \"gemini\", symbol = \"ETHUSD\", quote = \"USD\"}]",
            "exchange \"gemini\": symbol \"ETHUSD\" is listed for two assets",
        ),
        ("[[assets]]\nasset = \"BTC\"", "unknown field `assets`"),
    ] {
        let found = fault(overrides);
        assert!(found.contains(message), "{overrides}\n{found}");
    }
}

#[test]
fn what_is_wrong_with_the_built_in_form_is_said() {
    let rows = rows(ROWS, &[]).unwrap();
    for (csv, message) in [
        ("", "the first line of the assets is \"\""),
        ("asset,exchange\n", "the first line of the assets"),
        ("asset_id,asset,exchange,symbol,quote\n1,BTC,kraken\n", "assets, line 2: 3 fields"),
        ("asset_id,asset,exchange,symbol,quote\nx,BTC,kraken,B,USD\n", "assets, line 2: asset_id is \"x\""),
        (
            "asset_id,asset,exchange,symbol,quote\n1,BTC,kraken,B,USD\n1,ETH,kraken,E,USD\n",
            "line 3: asset ETH has number 1, but BTC has 1",
        ),
        (
            "asset_id,asset,exchange,symbol,quote\n1,BTC,kraken,B,USD\n1,BTC,kraken,C,USD\n",
            "asset BTC: exchange number 3 is unknown or listed twice",
        ),
    ] {
        let found = catalogue(&rows, csv, &[]).unwrap_err().to_string();
        assert!(found.contains(message), "{csv}\n{found}");
    }
}

/// One mistake in each field; the message names it.
#[test]
fn every_mistake_in_a_row_is_found_and_its_field_named() {
    let strings = [
        ("url", "http://x"),
        ("url", "wss:///x"),
        ("url", "wss://x y"),
        ("url", "wss://x:9e0"),
        ("url", "wss://x:0"),
        ("url", "wss://me@x"),
        ("subscribe", "{\"a\":1}"),
        ("subscribe", "{\"a\":[{SYMBOLS}"),
        ("subscribe", "{\"a\":[{SYMBOLS}],\"b\":{TIME}}"),
        ("symbol_item", "\"X\""),
        ("symbol_item", "\"{SYMBOL}{SYMBOLS}\""),
        ("items", "data[x]"),
        ("items", ""),
        ("snapshot_items", "data["),
        ("symbol", "a..b"),
        ("price", "data[*].px"),
        ("time", "ts["),
        ("time_format", "unix"),
        ("id", "[0"),
        ("order", "upwards"),
        ("ping", "{\"id\":{ID}}"),
        ("heartbeat_id", "*"),
        ("heartbeat_reply", "{X}"),
        ("request_id", "a[*]"),
        ("ack_symbol", "a["),
        ("error_text", "a.b."),
        ("error_symbol", "[]"),
        ("rest.url", "https://x"),
        ("rest.url", "wss://x/{SYMBOL}"),
        ("rest.url", "https://x/{SYMBOL}{SYMBOLS}"),
        ("rest.symbol_cut", ""),
        ("rest.items", "a["),
        ("rest.price", "a[*]"),
        ("rest.time", ""),
        ("rest.time_format", "iso"),
        ("rest.id", "]"),
        ("rest.error_text", "a.*"),
    ];
    let numbers = [
        ("number", "0"),
        ("number", "64"),
        ("number", "3"),
        ("number", "-1"),
        ("number", "\"6\""),
        ("enabled", "1"),
        ("max_per_msg", "0"),
        ("symbols_per_connection", "0"),
        ("msg_gap_ms", "60001"),
        ("open_delay_ms", "-1"),
        ("connect_gap_ms", "9999999"),
        ("ping_every_s", "4000"),
        ("dead_after_s", "0"),
        ("dead_after_s", "20"),
        ("ignore_case", "\"yes\""),
        ("extra_subscribe", "[\"{SYMBOLS}\"]"),
        ("match", "[]"),
        ("match", "[\"a=\"]"),
        ("match", "[\"a[*]=x\"]"),
        ("snapshot_match", "[\"a\"]"),
        ("skip_if", "[\"=x\"]"),
        ("pong_match", "[\"a!=\"]"),
        ("heartbeat_match", "[\"a^=\"]"),
        ("ack_match", "[\"[\"]"),
        ("error_match", "[\"\"]"),
        ("notice_match", "[\"a|=x.\", \".\"]"),
        ("rest.error_match", "[\".\"]"),
        ("rest.skip_if", "[\".\"]"),
        ("rest.per_second", "0"),
        ("rest.symbol_parts", "[[\"A\"]]"),
        ("tme", "1"),
    ];
    let mistakes = strings
        .iter()
        .map(|(field, text)| (*field, toml::Value::String((*text).into()).to_string()))
        .chain(numbers.iter().map(|(field, value)| (*field, (*value).to_owned())));
    for (field, value) in mistakes {
        let overrides = format!("[[exchange]]\nname = \"okx\"\n{field} = {value}\n");
        let found = fault(&overrides);
        let last = field.strip_prefix("rest.").unwrap_or(field);
        assert!(found.starts_with("exchange \"okx\": "), "{overrides}\n{found}");
        let named = [format!("field {field:?} is "), format!("`{last}`"), format!("`{field}`")];
        assert!(named.iter().any(|name| found.contains(name)), "{overrides}\n{found}");
    }
    assert_eq!(
        fault("[[exchange]]\nname = \"okx\"\ntime = \"ts[\"\n"),
        "exchange \"okx\": field \"time\" is \"ts[\": expected a path: keys joined by dots, `[*]`, `[2]`, \
         `[-1]` or `.*`, at most 8 steps, an `@` in front for the envelope"
    );
    assert_eq!(
        fault("[[exchange]]\nname = \"okx\"\nping_every_s = 0\n"),
        "exchange \"okx\": field \"ping\" is \"ping\": expected a text exactly where \"ping_every_s\" is above 0"
    );
    let reply = fault("[[exchange]]\nname = \"okx\"\nheartbeat_reply = \"{ID}\"\n");
    assert!(reply.contains("heartbeat_id"), "{reply}");
    let reply = fault("[[exchange]]\nname = \"okx\"\nheartbeat_reply = \"x\"\n");
    assert!(reply.contains("heartbeat_match"), "{reply}");
    assert!(fault("[[exchange]]\nurl = \"ws://x\"\n").contains("has no \"name\""));
    assert!(fault("[[exchange]]\nname = \"Bad Name\"\n").contains("Bad Name"));
    assert!(fault("[[exchange]]\nname = \"new\"\nnumber = 12\n").contains("missing field"));
}

#[test]
fn messages_are_rendered_from_templates() {
    let data = loaded("");
    let row = |name: &str| data.rows.iter().find(|r| r.name == name).unwrap();
    assert_eq!(
        row("okx").subscribe_message(&["BTC-USDT", "W-USDT"], 7, 1_001),
        r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"},{"channel":"trades","instId":"W-USDT"}]}"#
    );
    assert_eq!(
        row("gateio").subscribe_message(&["BTC_USDT"], 1_788_336_080, 1_002),
        r#"{"time":1788336080,"id":1002,"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT"]}"#
    );
    assert_eq!(
        row("gemini_v2").subscribe_message(&["btcusd"], 0, 0),
        r#"{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD"]}]}"#
    );
    assert_eq!(row("gateio").ping_message(5, 9).as_deref(), Some(r#"{"time":5,"channel":"spot.ping"}"#));
    assert_eq!(row("cryptocom").ping_message(5, 9), None);
    assert_eq!(
        row("cryptocom").heartbeat_answer(b"1788335101113").as_deref(),
        Some(r#"{"id":1788335101113,"method":"public/respond-heartbeat"}"#)
    );
}
