//! Fetches one exchange's prices by REST, at the pace the exchange allows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

use super::{Ask, Outcome, QUEUE_LEN};
use crate::feed::{RestReader, Row};
use crate::price::Catalogue;
use crate::time::{Clock as _, RealClock};

/// Largest body that is read, in bytes. One trade is a few hundred.
const BODY_LEN_MAX: usize = 1 << 20;

/// Time for one fetch. Longer than a client waits, because the price is of use to the next one.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Fetches of one exchange under way at once.
const FETCHES_MAX: usize = 4;

/// A wish that somebody waits for is given up after this long in the queue: whoever waited has been
/// told `stale`, and newer wishes stand behind it.
const URGENT_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long an exchange that asks for fewer requests is left alone when it does not say how long.
const PAUSE: Duration = Duration::from_secs(10);

/// The longest it may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(300);

pub(super) type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A wish and when it was made.
type Wish = (Ask, Instant);

/// The desk's end of one exchange's task.
pub(super) struct Fetcher {
    urgent: Sender<Wish>,
    background: Sender<Wish>,
}

/// Why a fetch failed.
struct Failure {
    why: String,
    /// The exchange wants to be left alone for so long.
    pause: Option<Duration>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, pause: None }
    }
}

impl Fetcher {
    /// Starts the task; what it fetched goes to `done`.
    pub(super) fn open(
        row: &Row,
        reader: RestReader,
        catalogue: Arc<Catalogue>,
        client: HttpsClient,
        done: Sender<Outcome>,
    ) -> Self {
        let (urgent, urgent_asks) = mpsc::channel(QUEUE_LEN);
        let (background, background_asks) = mpsc::channel(QUEUE_LEN);
        let gap = row
            .rest
            .as_ref()
            .map_or(Duration::ZERO, |rest| Duration::from_secs_f64(1.0 / f64::from(rest.per_second.max(1))));
        let task = Task {
            name: row.name.clone(),
            reader,
            catalogue,
            client,
            done,
            gap,
            urgent: urgent_asks,
            background: background_asks,
        };
        tokio::spawn(task.run());
        Self { urgent, background }
    }

    /// Puts a wish into its queue; `false` when that is full.
    pub(super) fn ask(&self, ask: Ask) -> bool {
        let queue = if ask.urgent { &self.urgent } else { &self.background };
        queue.try_send((ask, Instant::now())).is_ok()
    }
}

struct Task {
    name: String,
    reader: RestReader,
    catalogue: Arc<Catalogue>,
    client: HttpsClient,
    done: Sender<Outcome>,
    gap: Duration,
    urgent: Receiver<Wish>,
    background: Receiver<Wish>,
}

impl Task {
    async fn run(mut self) {
        let permits = Arc::new(tokio::sync::Semaphore::new(FETCHES_MAX));
        let (bodies, mut fetched) = mpsc::channel::<(Ask, Result<Bytes, Failure>)>(FETCHES_MAX);
        let mut being_fetched = HashSet::new();
        let mut next_at = Instant::now();
        let mut paused_until = next_at;
        loop {
            let wish = tokio::select! {
                biased;
                Some((ask, body)) = fetched.recv() => {
                    being_fetched.remove(&ask.listing);
                    if let Err(Failure { why, pause: Some(pause) }) = &body {
                        paused_until = paused_until.max(Instant::now() + *pause);
                        tracing::warn!("REST of {} pauses for {} s: {why}", self.name, pause.as_secs());
                    }
                    if self.settle(ask, body).await.is_err() {
                        return;
                    }
                    continue;
                }
                wish = next_wish(&permits, next_at, &mut self.urgent, &mut self.background) => wish,
            };
            let Some(((ask, since), permit)) = wish else { return };
            let now = Instant::now();
            let late = ask.urgent && now - since > URGENT_WAIT_MAX;
            if late || now < paused_until {
                let why =
                    if late { "waited too long in its queue" } else { "the exchange asked for a pause" };
                if self.settle(ask, Err(why.to_owned().into())).await.is_err() {
                    return;
                }
                continue;
            }
            if !being_fetched.insert(ask.listing) && ask.live.is_none() {
                // What is on its way serves this one too.
                continue;
            }
            next_at = now + self.gap;
            let url = self.reader.url(&self.catalogue.listing(ask.listing).symbol);
            let (client, bodies) = (self.client.clone(), bodies.clone());
            tokio::spawn(async move {
                let body = match tokio::time::timeout(FETCH_MAX, fetch(&client, &url)).await {
                    Ok(body) => body.map_err(|f| Failure { why: format!("{url}: {}", f.why), ..f }),
                    Err(_) => Err(format!("{url}: no answer within {} s", FETCH_MAX.as_secs()).into()),
                };
                // The exchange's task ends only with the process.
                let _gone = bodies.send((ask, body)).await;
                drop(permit);
            });
        }
    }

    /// Reads what came and hands it on; an error when nobody is there to take it.
    async fn settle(&mut self, ask: Ask, body: Result<Bytes, Failure>) -> Result<(), ()> {
        let received = RealClock.now().unix;
        let result = body
            .map_err(|failure| failure.why)
            .and_then(|body| self.reader.read(&body, ask.listing, received).map_err(|e| e.to_string()));
        self.done.send(Outcome { ask, result }).await.map_err(drop)
    }
}

/// The next wish, once the exchange's pace allows it: urgent ones first.
async fn next_wish(
    permits: &Arc<tokio::sync::Semaphore>,
    next_at: Instant,
    urgent: &mut Receiver<Wish>,
    background: &mut Receiver<Wish>,
) -> Option<(Wish, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    tokio::time::sleep_until(next_at).await;
    let wish = tokio::select! {
        biased;
        wish = urgent.recv() => wish,
        wish = background.recv() => wish,
    };
    wish.map(|wish| (wish, permit))
}

/// A client that keeps connections for 30 s.
pub(super) fn client(tls: &Arc<rustls::ClientConfig>) -> HttpsClient {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(rustls::ClientConfig::clone(tls))
        .https_or_http()
        .enable_http1()
        .build();
    Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector)
}

async fn fetch(client: &HttpsClient, url: &str) -> Result<Bytes, Failure> {
    let uri: Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
    let request = Request::get(uri)
        .header("user-agent", concat!("beast/", env!("CARGO_PKG_VERSION")))
        .header("accept", "application/json")
        .body(Empty::new())
        .map_err(|e| e.to_string())?;
    let response = client.request(request).await.map_err(|e| chain(&e))?;
    let status = response.status();
    let pause = pause(status, response.headers());
    let body = Limited::new(response.into_body(), BODY_LEN_MAX).collect().await;
    let body = body.map_err(|e| e.to_string())?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(Failure { why: format!("status {status}"), pause }) }
}

/// For how long an exchange wants no further request: 429 and 418 say that there were too many, and
/// `Retry-After` in seconds how long to wait (RFC 9110, section 10.2.3).
fn pause(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::IM_A_TEAPOT => {
            Some(said.map_or(PAUSE, Duration::from_secs).min(PAUSE_MAX))
        }
        StatusCode::SERVICE_UNAVAILABLE => said.map(Duration::from_secs).map(|pause| pause.min(PAUSE_MAX)),
        _ => None,
    }
}

/// An error with what caused it: hyper's own words are too short to act on.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::data;

    /// An exchange that answers every request with 429, and tells of each.
    async fn impatient() -> (std::net::SocketAddr, Receiver<()>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, (tell, told)) = (listener.local_addr().unwrap(), mpsc::channel(16));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 1_024];
                let _len = socket.read(&mut request).await.unwrap();
                tell.send(()).await.unwrap();
                let answer =
                    "HTTP/1.1 429 \r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (addr, told)
    }

    #[test]
    fn nobody_asks_while_the_exchange_wants_a_pause() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (addr, mut asked) = impatient().await;
            let mut data = data::load(&data::Overrides::default()).unwrap();
            let row = data.rows.iter_mut().find(|row| row.name == "coinbase").unwrap();
            row.rest.as_mut().unwrap().url = format!("http://{addr}/{{SYMBOL}}");
            let reader = RestReader::new(row).unwrap().unwrap();
            let tls = Arc::new(crate::appliance::tls::tls_config(None).unwrap());
            let (done, mut outcomes) = mpsc::channel(16);
            let catalogue = Arc::new(data.catalogue);
            let listing = catalogue.listings().iter().find(|l| l.exchange == row.id().unwrap()).unwrap().id;
            let fetcher = Fetcher::open(row, reader, Arc::clone(&catalogue), client(&tls), done);
            let ask = Ask { listing, exact: true, urgent: true, live: None, tries: 0 };
            let why = async |outcomes: &mut Receiver<Outcome>| {
                assert!(fetcher.ask(ask));
                outcomes.recv().await.unwrap().result.unwrap_err()
            };
            assert!(why(&mut outcomes).await.contains("429"));
            assert!(asked.recv().await.is_some());
            assert!(why(&mut outcomes).await.contains("pause"));
            assert!(asked.try_recv().is_err(), "asked in the pause");
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            assert!(why(&mut outcomes).await.contains("429"), "the pause is over");
        });
    }

    #[test]
    fn an_exchange_says_how_long_it_wants_to_be_left_alone() {
        let headers = |retry_after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
            headers
        };
        let none = HeaderMap::new();
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(pause(StatusCode::TOO_MANY_REQUESTS, &none), seconds(10));
        assert_eq!(pause(StatusCode::TOO_MANY_REQUESTS, &headers(" 3 ")), seconds(3));
        assert_eq!(pause(StatusCode::IM_A_TEAPOT, &headers("86400")), seconds(300));
        assert_eq!(
            pause(StatusCode::TOO_MANY_REQUESTS, &headers("Fri, 20 Nov 2026 00:00:00 GMT")),
            seconds(10)
        );
        assert_eq!(pause(StatusCode::SERVICE_UNAVAILABLE, &headers("7")), seconds(7));
        assert_eq!(pause(StatusCode::SERVICE_UNAVAILABLE, &none), None);
        assert_eq!(pause(StatusCode::NOT_FOUND, &headers("7")), None);
    }
}
