//! Keeps feed connections up: plans which listings share one, dials, hands each to its shard, and
//! dials again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender as Link;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rest::Ask;
use super::secrets::random;
use super::session::{EndKind, Ending, FeedGuest, Identity, Status};
use super::tls::refusal;
use crate::feed::{Backoff, Connection, Endpoint, Row};
use crate::limits::FEED_SESSIONS_MAX;
use crate::price::{Catalogue, ListingId, SessionId};
use crate::shard::{Arrival, Control};
use crate::time::{Clock as _, RealClock};

/// Time for the TCP connection and the TLS handshake together.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// How long an address is alone before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection that is to be kept up.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) row: Arc<Row>,
    pub(super) listings: Vec<(String, ListingId)>,
    pub(super) status: Arc<SessionStatus>,
}

/// How a session stands, for those who show it.
#[derive(Debug, Default)]
pub(super) struct SessionStatus {
    pub(super) connected: AtomicBool,
    pub(super) attempts: AtomicU32,
    /// A failure was logged since it last worked.
    pub(super) complained: AtomicBool,
    pub(super) connection: Arc<Status>,
}

/// Why sessions cannot be planned.
pub(super) fn plan(rows: &[Arc<Row>], catalogue: &Catalogue) -> Result<Vec<Session>, String> {
    let mut sessions = Vec::new();
    for row in rows.iter().filter(|row| row.enabled) {
        let id = row.id().map_err(|e| e.to_string())?;
        let listed: Vec<_> = catalogue
            .listings()
            .iter()
            .filter(|listing| listing.exchange == id)
            .map(|listing| (listing.symbol.clone(), listing.id))
            .collect();
        for listings in listed.chunks(row.symbols_per_connection.max(1)) {
            let id = SessionId::new(sessions.len()).map_err(|_| {
                format!("more than {FEED_SESSIONS_MAX} feed connections; raise symbols_per_connection")
            })?;
            let listings = listings.to_vec();
            sessions.push(Session { id, row: Arc::clone(row), listings, status: Arc::default() });
        }
    }
    Ok(sessions)
}

/// What every session needs.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) asks: Sender<Ask>,
    pub(super) shards: Arc<[Link<Control>]>,
    pub(super) leaving: watch::Receiver<bool>,
}

/// Paces the dialling of one exchange, and what is said of its failures.
#[derive(Default)]
pub(super) struct Pace {
    dialled: Mutex<Option<tokio::time::Instant>>,
    said: Mutex<Option<(String, tokio::time::Instant)>>,
}

/// How often a failure that goes on is said again.
const SAY_EVERY: Duration = Duration::from_secs(60);

impl Pace {
    /// Whether a failure is worth a line: it is another one than before, or that was a while ago.
    async fn is_news(&self, why: &str) -> bool {
        let mut said = self.said.lock().await;
        let known = said.as_ref().is_some_and(|(last, at)| last == why && at.elapsed() < SAY_EVERY);
        if !known {
            *said = Some((why.to_owned(), tokio::time::Instant::now()));
        }
        !known
    }

    pub(super) async fn wait(&self, gap: Duration) {
        let mut last = self.dialled.lock().await;
        if let Some(last) = *last {
            tokio::time::sleep_until(last + gap).await;
        }
        *last = Some(tokio::time::Instant::now());
    }
}

impl Dialer {
    /// Keeps a session up until the process leaves.
    pub(super) async fn keep_up(self, session: Session, pace: Arc<Pace>) {
        let mut leaving = self.leaving.clone();
        tokio::select! {
            () = self.dial_again_and_again(session, &pace) => {}
            _ = leaving.wait_for(|leaving| *leaving) => {}
        }
    }

    async fn dial_again_and_again(&self, session: Session, pace: &Pace) {
        let name: Arc<str> = session.row.name.as_str().into();
        let gap = Duration::from_millis(session.row.connect_gap_ms);
        let mut backoff = Backoff::new();
        let mut connection = 0;
        loop {
            pace.wait(gap).await;
            connection += 1;
            session.status.attempts.fetch_add(1, Ordering::Relaxed);
            let ending = match self.dial(&session, &name, connection).await {
                Err(why) => Ending { why, heard: None, kind: EndKind::Failed },
                Ok(over) => {
                    backoff.opened(RealClock.now().mono);
                    session.status.connected.store(true, Ordering::Relaxed);
                    let lost =
                        Ending { why: "its shard is gone".into(), heard: None, kind: EndKind::Leaving };
                    over.await.unwrap_or(lost)
                }
            };
            session.status.connected.store(false, Ordering::Relaxed);
            session.status.connection.phase.store(0, Ordering::Relaxed);
            let mut healthy = false;
            if let Some(heard) = ending.heard {
                healthy = backoff.heard(heard);
                // It worked in between: even the same failure is a new one.
                *pace.said.lock().await = None;
            }
            match ending.kind {
                EndKind::Leaving => return,
                // An exchange that asks for it again and again is not dialled again and again.
                EndKind::AskedFor if healthy => {
                    tracing::info!("{name} is connected anew: {}", ending.why);
                    continue;
                }
                EndKind::AskedFor | EndKind::Failed => {}
            }
            let wait = backoff.failed(u64::from_le_bytes(random()));
            if pace.is_news(&ending.why).await {
                session.status.complained.store(true, Ordering::Relaxed);
                tracing::warn!("{name} is not connected: {}; it is tried again and again", ending.why);
            } else {
                tracing::debug!("{name}: {}; next attempt in {:.1} s", ending.why, wait.as_secs_f64());
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn dial(
        &self,
        session: &Session,
        name: &Arc<str>,
        connection: u32,
    ) -> Result<oneshot::Receiver<Ending>, String> {
        let url = &session.row.url;
        let endpoint = Endpoint::parse(url).ok_or_else(|| format!("{url} is no ws:// or wss:// URL"))?;
        let (socket, tls) = tokio::time::timeout(DIAL_MAX, connect(&endpoint, &self.tls))
            .await
            .map_err(|_| format!("{url}: no connection within {} s", DIAL_MAX.as_secs()))?
            .map_err(|why| format!("{url}: {why}"))?
            .into_parts();
        let listings = session.listings.iter().map(|(symbol, id)| (symbol.as_str(), *id));
        let state = Connection::new(Arc::clone(&session.row), listings, random(), RealClock.now())
            .map_err(|e| e.to_string())?;
        let identity = Identity {
            session: session.id,
            connection,
            dead_after: Duration::from_secs(session.row.dead_after_s),
        };
        let (over, is_over) = oneshot::channel();
        let status = Arc::clone(&session.status.connection);
        let guest = FeedGuest::new(identity, Arc::clone(name), state, tls, self.asks.clone(), over, status);
        let socket = socket.into_std().map_err(|e| e.to_string())?;
        let arrival = Arrival { socket: socket.into(), guest: Box::new(guest) };
        let shard = &self.shards[session.id.index() % self.shards.len()];
        shard.send(Control::Guest(arrival)).map_err(|_| "its shard is gone".to_owned())?;
        Ok(is_over)
    }
}

/// A byte stream to an exchange.
pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket, and the state of TLS where there is some: a connection can move to a shard.
    fn into_parts(self) -> (TcpStream, Option<ClientConnection>) {
        match self {
            Self::Plain(socket) => (socket, None),
            Self::Secure(stream) => {
                let (socket, state) = stream.into_inner();
                (socket, Some(state))
            }
        }
    }
}

/// Opens the byte stream: TCP, and TLS where the endpoint wants it.
pub(super) async fn connect(endpoint: &Endpoint, tls: &Arc<rustls::ClientConfig>) -> Result<Stream, String> {
    let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let addresses = addresses.map_err(|e| format!("{} does not resolve: {e}", endpoint.host))?;
    let socket = connect_any(addresses.collect()).await.map_err(|e| e.to_string())?;
    socket.set_nodelay(true).map_err(|e| e.to_string())?;
    if !endpoint.secure {
        return Ok(Stream::Plain(socket));
    }
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|e| e.to_string())?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await;
    stream.map(|stream| Stream::Secure(Box::new(stream))).map_err(|e| refusal(&e))
}

/// Tries the addresses in turn, the next one when the last has failed or 250 ms have passed, and
/// takes the first connection: one address family that leads nowhere costs no more than that
/// (RFC 8305, section 5).
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut rest = addresses.into_iter();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let next = rest.next();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        let head_start = if rest.len() > 0 { HEAD_START } else { Duration::MAX };
        match tokio::time::timeout(head_start, attempts.join_next()).await {
            Ok(Some(Ok(Ok(socket)))) => return Ok(socket),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(error))) => last = error.into(),
            Ok(None) => return Err(last),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_leads_nowhere_does_not_hold_up_the_next_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            // A listener whose queue is full answers no further attempt.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let full = socket.listen(0).unwrap();
            let mut filling = JoinSet::new();
            for _ in 0..4 {
                filling.spawn(TcpStream::connect(full.local_addr().unwrap()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let addresses = vec![full.local_addr().unwrap(), closed, there.local_addr().unwrap()];
            let socket = connect_any(addresses).await.unwrap();
            assert_eq!(socket.peer_addr().unwrap(), there.local_addr().unwrap());
            let error = connect_any(vec![closed]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(connect_any(vec![]).await.is_err());
        });
    }

    #[test]
    fn a_failure_is_said_once_a_minute_and_another_one_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let pace = Pace::default();
            assert!(pace.is_news("refused").await);
            assert!(!pace.is_news("refused").await);
            assert!(pace.is_news("no route").await);
            assert!(!pace.is_news("no route").await);
            // As if the line had been written a minute ago.
            let minute_ago = tokio::time::Instant::now().checked_sub(SAY_EVERY).unwrap();
            *pace.said.lock().await = Some(("no route".to_owned(), minute_ago));
            assert!(pace.is_news("no route").await);
        });
    }
}
