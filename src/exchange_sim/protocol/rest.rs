//! The REST endpoints that give last trades, each with its exchange's own path and form.

use serde_json::Value;

use super::{coinbase, cryptocom, quoted};
use crate::exchange_sim::calendar::{ms_fraction, rfc3339, seconds_fraction};
use crate::exchange_sim::exchange::Exchange;
use crate::exchange_sim::market::{HISTORY_LEN, Market, Trade};

/// A GET request below `/rest/<exchange>`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RestRequest<'a> {
    /// The path that the exchange itself would see.
    pub(in super::super) path: &'a str,
    /// The query without its question mark.
    pub(in super::super) query: &'a str,
    /// Now, in nanoseconds since the Unix epoch.
    pub(in super::super) now_ns: u64,
}

/// What goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct RestAnswer {
    /// HTTP status.
    pub(in super::super) status: u16,
    /// JSON, but for the plain texts of Gemini.
    pub(in super::super) body: String,
    /// Whether the body is JSON.
    pub(in super::super) json: bool,
}

impl RestRequest<'_> {
    fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(
            |(_, value)| {
                value.replace("%2F", "/").replace("%2f", "/").replace("%2D", "-").replace("%5F", "_")
            },
        )
    }

    /// How many trades are asked for; every exchange has its own default and bound, the kept trades are
    /// ours.
    fn count(&self, name: &str) -> usize {
        self.parameter(name)
            .and_then(|count| count.parse().ok())
            .map_or(HISTORY_LEN, |count: usize| count.min(HISTORY_LEN))
    }
}

fn ok(body: String) -> RestAnswer {
    RestAnswer { status: 200, body, json: true }
}

fn failed(status: u16, body: &str) -> RestAnswer {
    RestAnswer { status, body: body.to_owned(), json: true }
}

fn no_such_path() -> RestAnswer {
    failed(404, r#"{"message":"no such path in the simulation"}"#)
}

/// Answers one request from an exchange's market.
pub(in super::super) fn answer(
    exchange: Exchange,
    request: RestRequest<'_>,
    market: &mut Market,
) -> RestAnswer {
    match exchange {
        Exchange::Coinbase => answer_coinbase(request, market),
        Exchange::CoinbaseExchange => answer_coinbase_exchange(request, market),
        Exchange::Gemini | Exchange::GeminiV2 => answer_gemini(exchange, request, market),
        Exchange::Kraken | Exchange::KrakenV1 => answer_kraken(exchange, request, market),
        Exchange::Gateio => answer_gateio(request, market),
        Exchange::Bybit => answer_bybit(request, market),
        Exchange::Okx => answer_okx(request, market),
        Exchange::Cryptocom | Exchange::CryptocomV2 => answer_cryptocom(request, market),
    }
}

/// Each trade through `json`, joined by commas.
fn joined(trades: &[Trade], json: impl Fn(&Trade) -> String) -> String {
    trades.iter().map(json).collect::<Vec<_>>().join(",")
}

fn answer_coinbase(request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let Some(rest) = request.path.strip_prefix("/api/v3/brokerage/market/products/") else {
        return no_such_path();
    };
    let (product, ticker) = rest.strip_suffix("/ticker").map_or((rest, false), |product| (product, true));
    let product = coinbase::as_traded(product);
    if !market.list(&product, request.now_ns) {
        return failed(
            404,
            r#"{"error":"NOT_FOUND","error_details":"valid product_id is required","message":"valid product_id is required"}"#,
        );
    }
    if ticker {
        let trades = market.newest_first(&product, request.count("limit"));
        let price = market.last(&product).map_or_else(|| r#""""#.to_owned(), |trade| quoted(&trade.price));
        let trades = joined(&trades, coinbase::trade_json);
        return ok(format!(r#"{{"trades":[{trades}],"best_bid":{price},"best_ask":{price}}}"#));
    }
    let price = market.last(&product).map_or_else(|| r#""""#.to_owned(), |trade| quoted(&trade.price));
    ok(format!(r#"{{"product_id":"{product}","price":{price},"status":"online"}}"#))
}

fn answer_coinbase_exchange(request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let product = request.path.strip_prefix("/products/").and_then(|rest| rest.strip_suffix("/ticker"));
    let Some(product) = product else { return no_such_path() };
    if !market.list(product, request.now_ns) {
        return failed(404, r#"{"message":"NotFound"}"#);
    }
    market.last(product).map_or_else(
        || failed(404, r#"{"message":"NotFound"}"#),
        |t| {
            let price = quoted(&t.price);
            ok(format!(
                r#"{{"trade_id":{},"price":{price},"size":"{}","time":"{}","bid":{price},"ask":{price},"volume":"1"}}"#,
                t.id,
                t.size,
                rfc3339(t.time_ns, 6)
            ))
        },
    )
}

fn answer_gemini(exchange: Exchange, request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    // The archived protocol names its symbols in upper case, REST takes either.
    let listed = |symbol: &str| match exchange {
        Exchange::GeminiV2 => symbol.to_ascii_uppercase(),
        _ => symbol.to_ascii_lowercase(),
    };
    let bad = || RestAnswer { status: 400, body: "Bad Request: invalid symbol".to_owned(), json: false };
    if let Some(symbol) = request.path.strip_prefix("/v1/trades/") {
        let symbol = listed(symbol);
        if !market.list(&symbol, request.now_ns) {
            return bad();
        }
        let trades = market.newest_first(&symbol, request.count("limit_trades"));
        if trades.is_empty() {
            return RestAnswer { status: 404, body: "Not Found".to_owned(), json: false };
        }
        let trades = joined(&trades, |t| {
            format!(
                r#"{{"timestamp":{},"timestampms":{},"tid":{},"price":{},"amount":"{}","exchange":"gemini","type":"{}"}}"#,
                t.time_ns / 1_000_000_000,
                t.time_ns / 1_000_000,
                t.id,
                quoted(&t.price),
                t.size,
                side(t, "buy", "sell")
            )
        });
        return ok(format!("[{trades}]"));
    }
    if let Some(symbol) = request.path.strip_prefix("/v1/pubticker/") {
        let symbol = listed(symbol);
        if !market.list(&symbol, request.now_ns) {
            return bad();
        }
        let price = market.last(&symbol).map_or_else(|| r#""""#.to_owned(), |t| quoted(&t.price));
        let time_ms = request.now_ns / 1_000_000;
        return ok(format!(
            r#"{{"bid":{price},"ask":{price},"last":{price},"volume":{{"timestamp":{time_ms}}}}}"#
        ));
    }
    if request.path == "/v1/pricefeed" {
        let pairs = market
            .last_trades()
            .into_iter()
            .map(|(symbol, last)| {
                format!(
                    r#"{{"pair":"{}","price":{},"percentChange24h":"0.0001"}}"#,
                    symbol.to_ascii_uppercase(),
                    quoted(&last.price)
                )
            })
            .collect::<Vec<_>>();
        return ok(format!("[{}]", pairs.join(",")));
    }
    no_such_path()
}

/// The pair as the WebSocket names it: `XBTUSD` is `BTC/USD` on v2 and `XBT/USD` on v1.
fn kraken_symbol(exchange: Exchange, pair: &str) -> Option<String> {
    let quotes = ["USDT", "USDC", "USD", "EUR", "GBP", "XBT", "ETH"];
    let (base, quote) = pair
        .split_once('/')
        .or_else(|| quotes.iter().find_map(|quote| pair.strip_suffix(quote).map(|base| (base, *quote))))?;
    if exchange == Exchange::KrakenV1 {
        return Some(format!("{base}/{quote}"));
    }
    let modern = |asset: &str| match asset {
        "XBT" => "BTC".to_owned(),
        "XDG" => "DOGE".to_owned(),
        other => other.to_owned(),
    };
    Some(format!("{}/{}", modern(base), modern(quote)))
}

/// The key of the result: the oldest pairs in dollars keep a name of their own.
fn kraken_key(pair: &str) -> String {
    let pair = pair.replace('/', "");
    match pair.strip_suffix("USD") {
        Some(base @ ("XBT" | "ETH" | "LTC" | "XRP" | "XLM" | "ZEC" | "XMR" | "ETC" | "REP" | "MLN")) => {
            format!("X{base}ZUSD")
        }
        _ => pair,
    }
}

fn answer_kraken(exchange: Exchange, request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let pair = request.parameter("pair").unwrap_or_default();
    let symbol = kraken_symbol(exchange, &pair).filter(|symbol| market.list(symbol, request.now_ns));
    let Some(symbol) = symbol else {
        return ok(r#"{"error":["EQuery:Unknown asset pair"]}"#.to_owned());
    };
    let key = kraken_key(&pair);
    match request.path {
        "/0/public/Trades" => {
            let trades = market.oldest_first(&symbol, request.count("count"));
            let last = trades.last().map_or(0, |t| t.time_ns);
            let trades = joined(&trades, |t| {
                format!(
                    r#"[{},"{}",{},"{}","l","",{}]"#,
                    quoted(&t.price),
                    t.size,
                    seconds_fraction(t.time_ns, 7),
                    side(t, "b", "s"),
                    t.id
                )
            });
            ok(format!(r#"{{"error":[],"result":{{"{key}":[{trades}],"last":"{last}"}}}}"#))
        }
        "/0/public/Ticker" => market.last(&symbol).map_or_else(
            || ok(r#"{"error":["EQuery:Unknown asset pair"]}"#.to_owned()),
            |t| {
                ok(format!(
                    r#"{{"error":[],"result":{{"{key}":{{"c":[{},"{}"]}}}}}}"#,
                    quoted(&t.price),
                    t.size
                ))
            },
        ),
        _ => no_such_path(),
    }
}

fn answer_gateio(request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let pair = request.parameter("currency_pair").unwrap_or_default();
    if !market.list(&pair, request.now_ns) {
        let message = quoted(&format!("Invalid currency pair {pair}"));
        return failed(400, &format!(r#"{{"label":"INVALID_CURRENCY_PAIR","message":{message}}}"#));
    }
    match request.path {
        "/api/v4/spot/trades" => {
            let trades = market.newest_first(&pair, request.count("limit"));
            let trades = joined(&trades, |t| {
                format!(
                    r#"{{"id":"{id}","create_time":"{}","create_time_ms":"{}","side":"{}","amount":"{}","price":{},"currency_pair":"{pair}","sequence_id":"{id}"}}"#,
                    t.time_ns / 1_000_000_000,
                    ms_fraction(t.time_ns),
                    side(t, "buy", "sell"),
                    t.size,
                    quoted(&t.price),
                    id = t.id
                )
            });
            ok(format!("[{trades}]"))
        }
        "/api/v4/spot/tickers" => {
            let last = market.last(&pair).map_or_else(|| r#""""#.to_owned(), |t| quoted(&t.price));
            ok(format!(r#"[{{"currency_pair":"{pair}","last":{last}}}]"#))
        }
        _ => no_such_path(),
    }
}

fn answer_bybit(request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let time_ms = request.now_ns / 1_000_000;
    let refused = |message: &str| {
        ok(format!(
            r#"{{"retCode":10001,"retMsg":{},"result":{{}},"retExtInfo":{{}},"time":{time_ms}}}"#,
            quoted(message)
        ))
    };
    if request.parameter("category").as_deref() != Some("spot") {
        return refused("Illegal category");
    }
    let symbol = request.parameter("symbol").unwrap_or_default();
    if !market.list(&symbol, request.now_ns) {
        return refused("Not supported symbols");
    }
    let list = match request.path {
        "/v5/market/recent-trade" => joined(&market.newest_first(&symbol, request.count("limit")), |t| {
            format!(
                r#"{{"execId":"{}","symbol":"{symbol}","price":{},"size":"{}","side":"{}","time":"{}","isBlockTrade":false,"isRPITrade":false,"seq":"{}"}}"#,
                t.id,
                quoted(&t.price),
                t.size,
                side(t, "Buy", "Sell"),
                t.time_ns / 1_000_000,
                t.id
            )
        }),
        "/v5/market/tickers" => {
            let last = market.last(&symbol).map_or_else(|| r#""""#.to_owned(), |t| quoted(&t.price));
            format!(r#"{{"symbol":"{symbol}","lastPrice":{last}}}"#)
        }
        _ => return no_such_path(),
    };
    ok(format!(
        r#"{{"retCode":0,"retMsg":"OK","result":{{"category":"spot","list":[{list}]}},"retExtInfo":{{}},"time":{time_ms}}}"#
    ))
}

fn answer_okx(request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let instrument = request.parameter("instId").unwrap_or_default();
    if !market.list(&instrument, request.now_ns) {
        return ok(r#"{"code":"51001","data":[],"msg":"Instrument ID, Instrument ID code, or Spread ID doesn't exist."}"#.to_owned());
    }
    let data = match request.path {
        "/api/v5/market/trades" => joined(&market.newest_first(&instrument, request.count("limit")), |t| {
            format!(
                r#"{{"instId":"{instrument}","side":"{}","sz":"{}","source":"0","px":{},"tradeId":"{}","ts":"{}"}}"#,
                side(t, "buy", "sell"),
                t.size,
                quoted(&t.price),
                t.id,
                t.time_ns / 1_000_000
            )
        }),
        "/api/v5/market/ticker" => {
            let last = market.last(&instrument).map_or_else(|| r#""""#.to_owned(), |t| quoted(&t.price));
            let time_ms = request.now_ns / 1_000_000;
            format!(r#"{{"instType":"SPOT","instId":"{instrument}","last":{last},"ts":"{time_ms}"}}"#)
        }
        _ => return no_such_path(),
    };
    ok(format!(r#"{{"code":"0","msg":"","data":[{data}]}}"#))
}

fn answer_cryptocom(request: RestRequest<'_>, market: &mut Market) -> RestAnswer {
    let Some(method) = request.path.strip_prefix("/exchange/v1/") else { return no_such_path() };
    let instrument = request.parameter("instrument_name").unwrap_or_default();
    let data = match method {
        _ if !market.list(&instrument, request.now_ns) => {
            let method = Value::from(method);
            return failed(
                400,
                &format!(r#"{{"id":-1,"method":{method},"code":40004,"message":"Invalid instrument_name"}}"#),
            );
        }
        "public/get-trades" => {
            joined(&market.newest_first(&instrument, request.count("count")), cryptocom::trade_json)
        }
        "public/get-tickers" => {
            let last = market.last(&instrument).map_or_else(|| "null".to_owned(), |t| quoted(&t.price));
            format!(r#"{{"i":"{instrument}","a":{last},"t":{}}}"#, request.now_ns / 1_000_000)
        }
        _ => return no_such_path(),
    };
    ok(format!(r#"{{"id":-1,"method":"{method}","code":0,"result":{{"data":[{data}]}}}}"#))
}

fn side(trade: &Trade, buy: &'static str, sell: &'static str) -> &'static str {
    if trade.taker_buys { buy } else { sell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_sim::market::TradeSpec;
    use crate::exchange_sim::protocol::testing::NOW_NS;

    fn ask(exchange: Exchange, symbol: &str, target: &str) -> (u16, Value) {
        let mut market = Market::new(exchange, 1, 0);
        let spec = |price: &str| TradeSpec { price: price.to_owned(), time_ns: NOW_NS, id: Some(77) };
        market.make(symbol, &[spec("12.340")], NOW_NS).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let answer = answer(exchange, RestRequest { path, query, now_ns: NOW_NS }, &mut market);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    #[test]
    fn each_exchange_gives_its_last_trade_in_its_own_form() {
        let price = Value::from("12.340");
        for (exchange, symbol, target, at_price, at_time, time) in [
            (
                Exchange::Coinbase,
                "BTC-USD",
                "/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1",
                "/trades/0/price",
                "/trades/0/time",
                Value::from("2026-09-21T14:13:20.123456Z"),
            ),
            (
                Exchange::CoinbaseExchange,
                "BTC-USD",
                "/products/BTC-USD/ticker",
                "/price",
                "/time",
                Value::from("2026-09-21T14:13:20.123456Z"),
            ),
            (
                Exchange::Gemini,
                "btcusd",
                "/v1/trades/btcusd?limit_trades=1",
                "/0/price",
                "/0/timestampms",
                Value::from(1_790_000_000_123_u64),
            ),
            (
                Exchange::Kraken,
                "BTC/USD",
                "/0/public/Trades?pair=XBTUSD&count=1",
                "/result/XXBTZUSD/0/0",
                "/result/XXBTZUSD/0/2",
                serde_json::from_str("1790000000.1234560").unwrap(),
            ),
            (
                Exchange::Gateio,
                "BTC_USDT",
                "/api/v4/spot/trades?currency_pair=BTC_USDT&limit=1",
                "/0/price",
                "/0/create_time_ms",
                Value::from("1790000000123.456"),
            ),
            (
                Exchange::Bybit,
                "BTCUSDT",
                "/v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=1",
                "/result/list/0/price",
                "/result/list/0/time",
                Value::from("1790000000123"),
            ),
            (
                Exchange::Okx,
                "BTC-USDT",
                "/api/v5/market/trades?instId=BTC-USDT&limit=1",
                "/data/0/px",
                "/data/0/ts",
                Value::from("1790000000123"),
            ),
            (
                Exchange::Cryptocom,
                "BTC_USD",
                "/exchange/v1/public/get-trades?instrument_name=BTC_USD&count=1",
                "/result/data/0/p",
                "/result/data/0/t",
                Value::from(1_790_000_000_123_u64),
            ),
        ] {
            let (status, body) = ask(exchange, symbol, target);
            assert_eq!(status, 200, "{exchange}: {body}");
            assert_eq!(body.pointer(at_price), Some(&price), "{exchange}: {body}");
            assert_eq!(body.pointer(at_time), Some(&time), "{exchange}: {body}");
        }
    }

    #[test]
    fn unknown_symbols_are_refused_in_each_exchanges_form() {
        for (exchange, symbol, target, status, pointer) in [
            (Exchange::Coinbase, "A-USD", "/api/v3/brokerage/market/products/NOPE-USD/ticker", 404, "/error"),
            (Exchange::Gemini, "ausd", "/v1/trades/nopeusd", 400, ""),
            (Exchange::Kraken, "A/USD", "/0/public/Trades?pair=NOPEUSD", 200, "/error/0"),
            (Exchange::Gateio, "A_USDT", "/api/v4/spot/trades?currency_pair=NOPE_USDT", 400, "/label"),
            (
                Exchange::Bybit,
                "AUSDT",
                "/v5/market/recent-trade?category=spot&symbol=NOPEUSDT",
                200,
                "/retCode",
            ),
            (Exchange::Okx, "A-USDT", "/api/v5/market/trades?instId=NOPE-USDT", 200, "/code"),
            (
                Exchange::Cryptocom,
                "A_USD",
                "/exchange/v1/public/get-trades?instrument_name=NOPE_USD",
                400,
                "/code",
            ),
        ] {
            let (got, body) = ask(exchange, symbol, target);
            assert_eq!(got, status, "{exchange}");
            assert!(body.pointer(pointer).is_some(), "{exchange}: {body}");
        }
    }

    #[test]
    fn kraken_names_are_translated_both_ways() {
        assert_eq!(kraken_symbol(Exchange::Kraken, "XDGUSD").as_deref(), Some("DOGE/USD"));
        assert_eq!(kraken_symbol(Exchange::KrakenV1, "XBTUSD").as_deref(), Some("XBT/USD"));
        assert_eq!(kraken_symbol(Exchange::Kraken, "SCUSD").as_deref(), Some("SC/USD"));
        assert_eq!((kraken_key("XBTUSD"), kraken_key("SCUSD")), ("XXBTZUSD".to_owned(), "SCUSD".to_owned()));
    }
}
