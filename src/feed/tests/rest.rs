//! REST bodies, written from the documented shapes.

use super::{LATE, listing, row};
use crate::feed::{RestError, RestReader};
use crate::time::UnixNs;

fn reader(name: &str) -> RestReader {
    RestReader::new(&row(name)).unwrap().unwrap()
}

#[test]
fn every_exchange_gives_its_last_trade() {
    for (name, symbol, url, body, price, time_ns, number) in [
        (
            "coinbase",
            "ABC-USD",
            "https://api.coinbase.com/api/v3/brokerage/market/products/ABC-USD/ticker?limit=1",
            r#"{"trades":[{"trade_id":"41","product_id":"ABC-USD","price":"5.10","size":"1","time":"2026-01-02T03:04:05.5Z","side":"BUY"}],"best_bid":"5","best_ask":"6"}"#,
            "5.10",
            1_767_323_045_500_000_000,
            Some(41),
        ),
        (
            "gemini",
            "abcusd",
            "https://api.gemini.com/v1/trades/abcusd?limit_trades=1",
            r#"[{"timestamp":1767323045,"timestampms":1767323045123,"tid":41,"price":"5.10","amount":"1","exchange":"gemini","type":"buy"}]"#,
            "5.10",
            1_767_323_045_123_000_000,
            Some(41),
        ),
        (
            "kraken",
            "BTC/USD",
            "https://api.kraken.com/0/public/Trades?pair=XBTUSD&count=1",
            r#"{"error":[],"result":{"XXBTZUSD":[["5.10000","1",1767323045.1234567,"b","m","",41]],"last":"1767323045123456789"}}"#,
            "5.10000",
            1_767_323_045_123_456_700,
            Some(41),
        ),
        (
            "gateio",
            "ABC_USDT",
            "https://api.gateio.ws/api/v4/spot/trades?currency_pair=ABC_USDT&limit=1",
            r#"[{"id":"41","create_time":"1767323045","create_time_ms":"1767323045123.456","side":"buy","amount":"1","price":"5.10","currency_pair":"ABC_USDT","sequence_id":"9"}]"#,
            "5.10",
            1_767_323_045_123_456_000,
            Some(41),
        ),
        (
            "bybit",
            "ABCUSDT",
            "https://api.bybit.com/v5/market/recent-trade?category=spot&symbol=ABCUSDT&limit=1",
            r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"execId":"x","symbol":"ABCUSDT","price":"5.10","size":"1","side":"Buy","time":"1767323045123","isBlockTrade":false}]},"time":1767323045200}"#,
            "5.10",
            1_767_323_045_123_000_000,
            None,
        ),
        (
            "okx",
            "ABC-USDT",
            "https://www.okx.com/api/v5/market/trades?instId=ABC-USDT&limit=1",
            r#"{"code":"0","msg":"","data":[{"instId":"ABC-USDT","tradeId":"41","px":"5.10","sz":"1","side":"buy","ts":"1767323045123"}]}"#,
            "5.10",
            1_767_323_045_123_000_000,
            Some(41),
        ),
        (
            "cryptocom",
            "ABC_USD",
            "https://api.crypto.com/exchange/v1/public/get-trades?instrument_name=ABC_USD&count=1",
            r#"{"id":-1,"method":"public/get-trades","code":0,"result":{"data":[{"d":"41","t":1767323045123,"p":"5.10","q":"1","s":"BUY","i":"ABC_USD"}]}}"#,
            "5.10",
            1_767_323_045_123_000_000,
            Some(41),
        ),
        (
            "coinbase_exchange",
            "ABC-USD",
            "https://api.exchange.coinbase.com/products/ABC-USD/ticker",
            r#"{"trade_id":41,"price":"5.10","size":"1","time":"2026-01-02T03:04:05.5Z","bid":"5","ask":"6","volume":"7"}"#,
            "5.10",
            1_767_323_045_500_000_000,
            Some(41),
        ),
    ] {
        let mut reader = reader(name);
        assert_eq!(reader.url(symbol), url);
        let trade = reader.read(body.as_bytes(), listing(3), LATE).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (trade.listing, trade.price.text().as_str(), trade.key.time.0),
            (listing(3), price, time_ns),
            "{name}"
        );
        match number {
            Some(number) => assert_eq!(trade.key.number, number, "{name}"),
            None => assert!(trade.key.number >= LATE.0, "{name}"),
        }
        for len in 0..body.len() {
            assert_eq!(
                reader.read(&body.as_bytes()[..len], listing(3), LATE),
                Err(RestError::Malformed),
                "{name}"
            );
        }
        let early = reader.read(body.as_bytes(), listing(3), UnixNs(time_ns - 6_000_000_000));
        assert_eq!(early, Err(RestError::BadTrade("future_time")), "{name}");
        let zero = body.replace("\"5.10000\"", "0").replace("\"5.10\"", "\"0\"");
        assert_eq!(
            reader.read(zero.as_bytes(), listing(3), LATE),
            Err(RestError::BadTrade("zero_price")),
            "{name}"
        );
    }
}

#[test]
fn symbols_are_rewritten_by_parts_where_rest_wants_another_form() {
    let kraken = reader("kraken");
    for (symbol, pair) in
        [("DOGE/USD", "XDGUSD"), ("SC/USD", "SCUSD"), ("BTCX/USD", "BTCXUSD"), ("ETH/BTC", "ETHXBT")]
    {
        assert_eq!(kraken.url(symbol), format!("https://api.kraken.com/0/public/Trades?pair={pair}&count=1"));
    }
    assert_eq!(reader("gemini").url("BTCUSD"), "https://api.gemini.com/v1/trades/btcusd?limit_trades=1");
}

#[test]
fn refusals_are_told_in_the_exchanges_words() {
    for (name, body, expected) in [
        (
            "kraken",
            r#"{"error":["EQuery:Unknown asset pair"]}"#,
            RestError::Refused("EQuery:Unknown asset pair".into()),
        ),
        (
            "okx",
            r#"{"code":"51001","msg":"Instrument ID does not exist","data":[]}"#,
            RestError::Refused("Instrument ID does not exist".into()),
        ),
        (
            "bybit",
            r#"{"retCode":10001,"retMsg":"Not supported symbols","result":{}}"#,
            RestError::Refused("Not supported symbols".into()),
        ),
        (
            "cryptocom",
            r#"{"id":-1,"code":40004,"message":"Invalid instrument"}"#,
            RestError::Refused("Invalid instrument".into()),
        ),
        (
            "gateio",
            r#"{"label":"INVALID_CURRENCY_PAIR","message":"Invalid currency pair"}"#,
            RestError::Refused("Invalid currency pair".into()),
        ),
        (
            "gemini",
            r#"{"result":"error","reason":"Bad","message":"no such symbol"}"#,
            RestError::Refused("no such symbol".into()),
        ),
        (
            "coinbase",
            r#"{"error":"NOT_FOUND","message":"valid product_id is required"}"#,
            RestError::Refused("valid product_id is required".into()),
        ),
        ("gemini", "Supplied value is not valid", RestError::Malformed),
        ("gemini", "[]", RestError::NoTrade),
        ("okx", r#"{"code":"0","msg":"","data":[]}"#, RestError::NoTrade),
        ("kraken", r#"{"error":[],"result":{"X":[],"last":"1"}}"#, RestError::NoTrade),
        ("gemini", r#"[{"price":"5"}]"#, RestError::BadTrade("missing_field")),
        (
            "bybit",
            r#"{"retCode":0,"result":{"list":[{"price":"5","time":"1767323045123","isBlockTrade":true}]}}"#,
            RestError::NoTrade,
        ),
    ] {
        assert_eq!(reader(name).read(body.as_bytes(), listing(0), LATE), Err(expected), "{name}: {body}");
    }
    assert_eq!(RestError::Refused("x".into()).to_string(), "the exchange refused: x");
}
