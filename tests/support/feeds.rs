//! A whole appliance in this process whose feeds are pointed at simulated exchanges, and a client that
//! asks it in every protocol.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use beast::account::Token;
use beast::appliance::{Appliance, feed_setup};
use beast::config::{Config, IoChoice, Role};
use beast::engine::probe::{Io, choose};
use beast::exchange_sim::{Exchange, Sim};
use beast::price::{Catalogue, ExchangeId, Symbol, Tier};
use beast::time::{Clock as _, RealClock};
use beast::wire::v2::{Key, Reply, Request, write_request};
use serde_json::Value;
use tempfile::TempDir;
use toml::Table;

use super::wait::{PATIENCE, until};

/// The engines to test on. Where io_uring is refused this fails in CI, and says elsewhere that one
/// engine is not tested.
pub(crate) fn engines() -> Vec<IoChoice> {
    match choose(Io::Uring) {
        Ok(_) => vec![IoChoice::Uring, IoChoice::Portable],
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "the uring engine must be tested in CI: {error}");
            eprintln!("the uring engine is not tested: {error}");
            vec![IoChoice::Portable]
        }
    }
}

/// One shard on free ports of loopback, with every exchange and every built-in asset off.
pub(crate) fn config(io: IoChoice) -> Config {
    let mut config = Config {
        listen: vec![Ipv4Addr::LOCALHOST.into()],
        udp_port: 0,
        http_port: 0,
        health_port: 0,
        role: Role::AppServer,
        io,
        shards: 1,
        pin: false,
        socket_buffer_bytes: 1 << 20,
        ..Config::default()
    };
    config.rest.prewarm = false;
    for asset in feed_setup(&Config::default(), None).unwrap().catalogue.assets() {
        config.assets.insert(asset.symbol.to_string(), table("enabled = false"));
    }
    for exchange in Exchange::ALL {
        config.feeds.insert(exchange.to_string(), table("enabled = false"));
    }
    config
}

/// Switches an exchange on and points it at the simulation, in a hurry; `more` changes further fields.
pub(crate) fn enable(config: &mut Config, sim: &Sim, exchange: Exchange, more: &str) {
    let mut row = table("connect_gap_ms = 20\nmsg_gap_ms = 1\nopen_delay_ms = 0");
    if exchange != Exchange::CryptocomV2 {
        // The one that has no REST any more.
        row.extend(table("rest.per_second = 1000"));
        row.insert("rest_base".into(), sim.rest_base(exchange).into());
    }
    row.insert("enabled".into(), true.into());
    row.insert("url".into(), sim.ws_url(exchange).into());
    row.extend(table(more));
    config.feeds.insert(exchange.to_string(), row);
}

/// As [`enable`], through the simulation's TLS listener.
pub(crate) fn enable_tls(config: &mut Config, sim: &Sim, exchange: Exchange, more: &str) {
    enable(config, sim, exchange, more);
    let (addr, row) = (sim.tls_addr().unwrap(), config.feeds.get_mut(exchange.name()).unwrap());
    row.insert("url".into(), format!("wss://{addr}/ws/{exchange}").into());
    if row.contains_key("rest_base") {
        row.insert("rest_base".into(), format!("https://{addr}/rest/{exchange}").into());
    }
}

/// Lists an asset on these exchanges only, preferred first, under their own symbols. One that is not
/// built in needs a number.
pub(crate) fn list(config: &mut Config, asset: &str, number: Option<usize>, listings: &[(Exchange, &str)]) {
    let of = |(exchange, symbol): &(Exchange, &str)| -> toml::Value {
        table(&format!("exchange = '{exchange}'\nsymbol = '{symbol}'\nquote = 'USD'")).into()
    };
    let mut row = Table::new();
    if let Some(number) = number {
        row.insert("id".into(), i64::try_from(number).unwrap().into());
    }
    row.insert("listings".into(), listings.iter().map(of).collect::<Vec<_>>().into());
    config.assets.insert(asset.to_owned(), row);
}

/// The first number that no built-in asset has.
pub(crate) const NUMBER: usize = 1_000;

pub(crate) fn table(text: &str) -> Table {
    text.parse().unwrap()
}

/// A price as a client is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) asset: String,
    pub(crate) quote: String,
    pub(crate) price: String,
    pub(crate) source: String,
    pub(crate) ts_ms: u64,
}

/// A price, the name of an error, or `silence`.
pub(crate) type Told = Result<Answer, String>;

/// How long a client waits for an answer: longer than any price may be waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A running appliance, which leaves in order when dropped.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) data: TempDir,
    pub(crate) health: SocketAddr,
    appliance: Option<Appliance>,
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        // Shown beside a failure; another test may have begun the log already.
        let _begun = tracing_subscriber::fmt().with_ansi(false).with_test_writer().try_init();
        let data = tempfile::tempdir().unwrap();
        let config = Config { data_dir: data.path().join("data"), ..config };
        let appliance = Appliance::start(&config, |_| Ok(())).unwrap();
        let catalogue = feed_setup(&config, None).unwrap().catalogue;
        let (udp, http) = (appliance.addresses.udp[0], appliance.addresses.http[0]);
        let client = Client::new(appliance.first_key.unwrap(), udp, http, catalogue);
        let health = appliance.addresses.health[0];
        Self { client, data, health, appliance: Some(appliance) }
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        metric(self.health, name, labels)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let left = self.appliance.take().unwrap().leave();
        if !std::thread::panicking() {
            left.unwrap();
        }
    }
}

/// The sum of a metric's samples whose labels contain `labels`.
pub(crate) fn metric(health: SocketAddr, name: &str, labels: &str) -> u64 {
    let (status, text) = get(health, "/metrics", "").unwrap();
    assert_eq!(status, 200);
    let mut found = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (metric, of) = series.split_once('{').unwrap_or((series, ""));
        if metric == name && of.contains(labels) {
            found = Some(found.unwrap_or(0) + value.parse::<u64>().unwrap());
        }
    }
    found.unwrap_or_else(|| panic!("there is no metric {name} with {labels}"))
}

/// Sends one HTTP request and reads status and body.
pub(crate) fn get(to: SocketAddr, target: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) token: Token,
    pub(crate) udp: SocketAddr,
    pub(crate) http: SocketAddr,
    catalogue: Arc<Catalogue>,
    requests: Cell<u64>,
}

impl Client {
    pub(crate) fn new(token: Token, udp: SocketAddr, http: SocketAddr, catalogue: Arc<Catalogue>) -> Self {
        Self { token, udp, http, catalogue, requests: Cell::new(0) }
    }

    /// As another owner of a key.
    pub(crate) fn with(&self, token: Token) -> Self {
        Self { token, ..self.clone() }
    }

    fn next_request(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }

    /// Sends a datagram from a socket of its own and waits for what comes back.
    fn exchange(&self, request: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(self.udp).unwrap();
        socket.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
        socket.send(request).unwrap();
        let mut room = [0; 2_048];
        let len = socket.recv(&mut room).ok()?;
        Some(room[..len].to_vec())
    }

    pub(crate) fn v1(&self, asset: &str, source: Option<&str>) -> Told {
        let id = self.next_request();
        let mut request = serde_json::json!({"api_key": self.token.reveal(), "asset": asset, "id": id});
        if let Some(source) = source {
            request["source"] = source.into();
        }
        let answer = self.exchange(request.to_string().as_bytes()).ok_or("silence")?;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let told = of_json(&answer);
        assert!(answer["id"] == id || told == Err("unauthorized".to_owned()), "{answer}");
        told
    }

    pub(crate) fn v2(&self, asset: &str, source: Option<&str>) -> Told {
        self.v2_from(asset, source).map(|(answer, _)| answer)
    }

    /// Asks in v2; tells which shard answered too.
    pub(crate) fn v2_from(&self, asset: &str, source: Option<&str>) -> Result<(Answer, u16), String> {
        let request = Request {
            key_id: self.token.public_id(),
            time_ms: RealClock.now().unix.ms(),
            request_id: self.next_request(),
            exchange: source.map(|name| self.catalogue.exchange_named(name).unwrap().id),
            symbol: Symbol::parse(asset).unwrap(),
        };
        let mut bytes = [0; 1_232];
        let len = write_request(&mut bytes, &request, &Key(self.token.v2_request_key().0)).unwrap();
        let bytes = self.exchange(&bytes[..len]).ok_or("silence")?;
        match Reply::parse(&bytes, &Key(self.token.v2_answer_key().0)).unwrap() {
            Reply::Answer(answer) => {
                assert_eq!(answer.request_id, request.request_id);
                let source = format!("{}-{}", self.name(answer.exchange), tier(answer.tier));
                let told = Answer {
                    asset: answer.symbol.as_str().to_owned(),
                    quote: answer.currency.as_str().to_owned(),
                    price: answer.price.to_string(),
                    source,
                    ts_ms: answer.exchange_time_ns / 1_000_000,
                };
                Ok((told, answer.record.shard))
            }
            Reply::Refused(refusal) | Reply::RefusedUnsigned(refusal) => {
                Err(refusal.code.as_str().to_owned())
            }
        }
    }

    pub(crate) fn http(&self, asset: &str, source: Option<&str>) -> Told {
        let source = source.map_or_else(String::new, |source| format!("&source={source}"));
        let target = format!("/price?asset={asset}{source}");
        let key = format!("X-API-Key: {}\r\n", self.token.reveal());
        let (status, body) = get(self.http, &target, &key).map_err(|e| e.to_string())?;
        let told = of_json(&serde_json::from_str(&body).unwrap());
        assert_eq!(told.is_ok(), status == 200, "{status} {body}");
        told
    }

    /// Asks in every protocol; they must agree. Only for prices that stand still.
    #[track_caller]
    pub(crate) fn all(&self, asset: &str, source: Option<&str>) -> Told {
        let told = self.v1(asset, source);
        assert_eq!(self.v2(asset, source), told, "v2 and v1 differ");
        assert_eq!(self.http(asset, source), told, "HTTP and v1 differ");
        told
    }

    /// Waits until the asset is answered with this price from this source, in every protocol.
    #[track_caller]
    pub(crate) fn until(&self, asset: &str, price: &str, source: &str) {
        let said = |told: Told| match told {
            Ok(answer) if answer.price == price && answer.source == source => Ok(()),
            other => Err(format!("{other:?}")),
        };
        let what = format!("{asset} is {price} from {source}");
        until(&what, || said(self.v1(asset, None)));
        until(&what, || said(self.v2(asset, None)));
        until(&what, || said(self.http(asset, None)));
    }

    fn name(&self, id: ExchangeId) -> &str {
        &self.catalogue.exchange(id).unwrap().name
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Ws => "ws",
        Tier::Rest => "rest",
        Tier::Cache => "cache",
    }
}

fn of_json(answer: &Value) -> Told {
    if let Some(error) = answer["error"].as_str() {
        return Err(error.to_owned());
    }
    let text = |member: &str| answer[member].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Ok(Answer {
        asset: text("asset"),
        quote: text("quote"),
        price: text("price"),
        source: text("source"),
        ts_ms: answer["ts"].as_u64().unwrap(),
    })
}
