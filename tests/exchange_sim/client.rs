//! A client of the simulated exchanges, and where each protocol keeps what it says.

use std::time::Duration;

use beast::exchange_sim::{Exchange, Sim, SimOptions};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// No wait in these tests takes longer; none of them asserts how long it took.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A moment in 2027, in nanoseconds since the Unix epoch.
pub(crate) const TIME_NS: u64 = 1_800_000_000_123_456_789;

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// What a protocol is asked and where the answer has price, symbol and time.
pub(crate) struct Case {
    pub(crate) exchange: Exchange,
    pub(crate) symbol: &'static str,
    pub(crate) subscribe: &'static str,
    /// Path of the trades in a frame; an array, or the trade itself.
    pub(crate) trades: &'static str,
    pub(crate) symbol_at: &'static str,
    pub(crate) price_at: &'static str,
    pub(crate) time_at: &'static str,
    pub(crate) time: Value,
    pub(crate) newest_first: bool,
    pub(crate) rest: &'static str,
    pub(crate) rest_price_at: &'static str,
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |exchange,
                symbol,
                subscribe,
                [trades, symbol_at, price_at, time_at]: [&'static str; 4],
                time| Case {
        exchange,
        symbol,
        subscribe,
        trades,
        symbol_at,
        price_at,
        time_at,
        time,
        newest_first: matches!(exchange, Exchange::Coinbase | Exchange::Cryptocom | Exchange::CryptocomV2),
        rest: "",
        rest_price_at: "",
    };
    let iso = json!("2027-01-15T08:00:00.123456Z");
    let ms = 1_800_000_000_123_u64;
    vec![
        Case {
            rest: "/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1",
            rest_price_at: "/trades/0/price",
            ..case(
                Exchange::Coinbase,
                "BTC-USD",
                r#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"market_trades"}"#,
                ["/events/0/trades", "/product_id", "/price", "/time"],
                iso.clone(),
            )
        },
        Case {
            rest: "/products/BTC-USD/ticker",
            rest_price_at: "/price",
            ..case(
                Exchange::CoinbaseExchange,
                "BTC-USD",
                r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","heartbeat"]}"#,
                ["", "/product_id", "/price", "/time"],
                iso.clone(),
            )
        },
        Case {
            rest: "/v1/trades/btcusd?limit_trades=1",
            rest_price_at: "/0/price",
            ..case(
                Exchange::Gemini,
                "btcusd",
                r#"{"id":1,"method":"subscribe","params":["btcusd@trade"]}"#,
                ["", "/s", "/p", "/E"],
                json!(TIME_NS),
            )
        },
        Case {
            rest: "/v1/trades/BTCUSD?limit_trades=1",
            rest_price_at: "/0/price",
            ..case(
                Exchange::GeminiV2,
                "BTCUSD",
                r#"{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD"]}]}"#,
                ["", "/symbol", "/price", "/timestamp"],
                json!(ms),
            )
        },
        Case {
            rest: "/0/public/Trades?pair=XBTUSD&count=1",
            rest_price_at: "/result/XXBTZUSD/0/0",
            ..case(
                Exchange::Kraken,
                "BTC/USD",
                r#"{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"],"snapshot":true}}"#,
                ["/data", "/symbol", "/price", "/timestamp"],
                iso,
            )
        },
        Case {
            rest: "/0/public/Ticker?pair=XBTUSD",
            rest_price_at: "/result/XXBTZUSD/c/0",
            ..case(
                Exchange::KrakenV1,
                "XBT/USD",
                r#"{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"trade"}}"#,
                ["/1", "/none", "/0", "/2"],
                json!("1800000000.123456"),
            )
        },
        Case {
            rest: "/api/v4/spot/trades?currency_pair=BTC_USDT&limit=1",
            rest_price_at: "/0/price",
            ..case(
                Exchange::Gateio,
                "BTC_USDT",
                r#"{"time":1,"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT"]}"#,
                ["/result", "/currency_pair", "/price", "/create_time_ms"],
                json!("1800000000123.456"),
            )
        },
        Case {
            rest: "/v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=1",
            rest_price_at: "/result/list/0/price",
            ..case(
                Exchange::Bybit,
                "BTCUSDT",
                r#"{"op":"subscribe","args":["publicTrade.BTCUSDT"]}"#,
                ["/data", "/s", "/p", "/T"],
                json!(ms),
            )
        },
        Case {
            rest: "/api/v5/market/trades?instId=BTC-USDT&limit=1",
            rest_price_at: "/data/0/px",
            ..case(
                Exchange::Okx,
                "BTC-USDT",
                r#"{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}"#,
                ["/data", "/instId", "/px", "/ts"],
                json!(ms.to_string()),
            )
        },
        Case {
            rest: "/exchange/v1/public/get-trades?instrument_name=BTC_USD&count=1",
            rest_price_at: "/result/data/0/p",
            ..case(
                Exchange::Cryptocom,
                "BTC_USD",
                r#"{"id":1,"method":"subscribe","params":{"channels":["trade.BTC_USD"]}}"#,
                ["/result/data", "/i", "/p", "/t"],
                json!(ms),
            )
        },
        Case {
            rest: "/exchange/v1/public/get-tickers?instrument_name=BTC_USD",
            rest_price_at: "/result/data/0/a",
            ..case(
                Exchange::CryptocomV2,
                "BTC_USD",
                r#"{"id":1,"method":"subscribe","params":{"channels":["trade.BTC_USD"]}}"#,
                ["/result/data", "/i", "/p", "/t"],
                json!(ms),
            )
        },
    ]
}

pub(crate) fn case(exchange: Exchange) -> Case {
    cases().into_iter().find(|case| case.exchange == exchange).unwrap()
}

/// A simulation in which nothing happens by itself.
pub(crate) fn quiet() -> SimOptions {
    SimOptions { rate: 0, history_len: 0, ..SimOptions::default() }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE * 3, test).await.expect("the test hangs") });
}

pub(crate) async fn connect(sim: &Sim, exchange: Exchange) -> Socket {
    let stream = TcpStream::connect(sim.addr()).await.unwrap();
    client_async(sim.ws_url(exchange), stream).await.unwrap().0
}

pub(crate) async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Option<Result<Message, Error>> {
    timeout(PATIENCE, socket.next()).await.expect("no frame came")
}

/// The next text frame; control frames are passed over.
pub(crate) async fn text(socket: &mut Socket) -> String {
    loop {
        match next(socket).await {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no text: {other:?}"),
        }
    }
}

/// Texts until one satisfies `wanted`; that one.
pub(crate) async fn text_with(socket: &mut Socket, wanted: impl Fn(&str) -> bool) -> String {
    loop {
        let text = text(socket).await;
        if wanted(&text) {
            return text;
        }
    }
}

/// Reads until the connection is over.
pub(crate) async fn drain(socket: &mut Socket) {
    while let Some(Ok(_)) = next(socket).await {}
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Connects and subscribes, and waits until the simulation knows it.
pub(crate) async fn subscribed(sim: &Sim, case: &Case) -> Socket {
    let before = sim.control().counts(case.exchange).subscriptions;
    let mut socket = connect(sim, case.exchange).await;
    socket.send(Message::text(case.subscribe)).await.unwrap();
    until("subscribed", || sim.control().counts(case.exchange).subscriptions > before).await;
    socket
}

/// One GET; status and body.
pub(crate) async fn get(sim: &Sim, exchange: Exchange, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(sim.addr()).await.unwrap();
    let request = format!("GET /rest/{exchange}{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The trades of every text frame until `count` have come: (symbol, price, time).
pub(crate) async fn trades(socket: &mut Socket, case: &Case, count: usize) -> Vec<(Value, Value, Value)> {
    let mut found = Vec::new();
    while found.len() < count {
        let text = text(socket).await;
        let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
        let Some(trades) = frame.pointer(case.trades) else { continue };
        // A frame that is the trade itself, or Gate.io's object, is a list of one.
        let list = match trades {
            Value::Array(list) if !case.trades.is_empty() => list.clone(),
            other => vec![other.clone()],
        };
        for trade in list {
            let at = |path: &str| trade.pointer(path).cloned();
            if let (Some(price), Some(time)) = (at(case.price_at), at(case.time_at)) {
                let symbol = at(case.symbol_at).or_else(|| frame.pointer("/3").cloned()).unwrap_or_default();
                found.push((symbol, price, time));
            }
        }
    }
    found
}
