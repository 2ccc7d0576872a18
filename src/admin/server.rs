//! The HTTP server of the ports beside the answer path. One request a connection, few connections and short times,
//! because the process's descriptors belong to its clients.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::books::{Books, books};
use super::facts::{Facts, Reason};
use super::metrics;
use crate::time::{Clock as _, RealClock};

/// Connections of a health port held at a time. A probe and a scraper need one each for a moment, so
/// the oldest of more than these is idle or stuck and gives way to the newest.
const CONNECTIONS_MAX: usize = 32;

/// Time for a request's head. What connects and says nothing is gone after it.
const HEAD_MAX: Duration = Duration::from_secs(5);

/// Time for a whole connection, so that a client that does not read cannot keep its place.
const CONNECTION_MAX: Duration = Duration::from_secs(20);

/// Time for requests in flight once the server is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Why a port could not be opened.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
    setting: &'static str,
}

impl BindError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => format!(
                "stop what uses the port (`ss -ltnp 'sport = :{}'` shows it), or choose another by {}",
                self.address.port(),
                self.setting
            ),
            io::ErrorKind::AddrNotAvailable => {
                "choose an address of this machine by --listen (`ip addr` shows them)".to_owned()
            }
            io::ErrorKind::PermissionDenied => format!("choose a port above 1023 by {}", self.setting),
            _ => format!("choose another address by --listen or another port by {}", self.setting),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TCP {} cannot be opened: {}; needs a free port of this machine", self.address, self.cause)
    }
}

impl std::error::Error for BindError {}

/// Opens a port of health and metrics. `setting` names what chooses it, for the error.
///
/// # Errors
/// When the address is taken, not of this machine, or not allowed.
pub fn bind(address: SocketAddr, setting: &'static str) -> Result<StdListener, BindError> {
    let open = || {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        if address.is_ipv6() {
            // `::` and `0.0.0.0` may be listened on side by side.
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6V6Only, &true)?;
        }
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(128)?.into_std()
    };
    open().map_err(|cause| BindError { address, cause, setting })
}

/// Answers on the listeners until `stop` turns true or its sender is gone. Runs inside a tokio
/// runtime with time and I/O.
///
/// # Errors
/// When a listener cannot be used with the runtime.
pub async fn serve(
    listeners: Vec<StdListener>,
    facts: Arc<Facts>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let told = Arc::clone(&facts);
    let looking = async move {
        loop {
            seconds.tick().await;
            facts.look(RealClock.now().mono);
        }
    };
    tokio::select! {
        served = serve_router(listeners, router(told), CONNECTIONS_MAX, stop) => served,
        () = looking => Ok(()),
    }
}

/// As [`serve`], with paths of one's own. A port holds so many connections at a time; the oldest of
/// more gives way.
///
/// # Errors
/// When a listener cannot be used with the runtime.
pub async fn serve_router(
    listeners: Vec<StdListener>,
    router: Router,
    connections_max: usize,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tasks.spawn(accept(listener, router.clone(), connections_max, stopped(stop.clone())));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the process as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: TcpListener,
    router: Router,
    connections_max: usize,
    stopped: impl Future<Output = ()>,
) {
    tokio::pin!(stopped);
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, or a connection that ended before it was taken.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if oldest_first.len() >= connections_max {
            oldest_first.retain(|connection: &AbortHandle| !connection.is_finished());
        }
        if oldest_first.len() >= connections_max
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(
            connections.spawn(tokio::time::timeout(CONNECTION_MAX, answer(stream, router.clone()))),
        );
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} }).await;
}

async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What is wrong with a connection is the peer's affair.
    let _ = connection.await;
}

fn router(facts: Arc<Facts>) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/books", get(books_json))
        .fallback(|| async {
            let message = "needs one of /live, /ready, /metrics, /books";
            (StatusCode::NOT_FOUND, Json(json!({"error": "not_found", "message": message})))
        })
        .method_not_allowed_fallback(|| async {
            let body = Json(json!({"error": "method", "message": "needs GET or HEAD"}));
            (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], body)
        })
        .with_state(facts)
}

fn reasons_json(reasons: &[Reason]) -> Value {
    reasons.iter().map(|reason| json!({"what": reason.what, "detail": reason.detail})).collect()
}

fn with_status(ok: bool, body: Value) -> Response {
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn live(State(facts): State<Arc<Facts>>) -> Response {
    let reasons = facts.stuck(RealClock.now().mono);
    with_status(reasons.is_empty(), json!({"live": reasons.is_empty(), "reasons": reasons_json(&reasons)}))
}

async fn ready(State(facts): State<Arc<Facts>>) -> Response {
    let reasons = facts.unready(RealClock.now().mono);
    let stages: Vec<_> = facts
        .stages()
        .into_iter()
        .map(|stage| {
            json!({
                "name": stage.name,
                "done": stage.done,
                "needed": stage.needed,
                "total": stage.total,
                "detail": stage.detail,
            })
        })
        .collect();
    let engine = facts.engine().map(|(name, reason)| json!({"name": name, "reason": reason}));
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons_json(&reasons),
        "stages": stages,
        "engine": engine,
        "version": facts.version,
    });
    with_status(reasons.is_empty(), body)
}

async fn metrics_text(State(facts): State<Arc<Facts>>) -> Response {
    let text = metrics::render(&facts, RealClock.now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn books_json(State(facts): State<Arc<Facts>>) -> Response {
    let shards: Vec<Books> = facts.counters().iter().map(books).collect();
    let total = shards.iter().fold(Books::default(), |sum, books| sum.plus(*books));
    let mut rows = Vec::new();
    for (index, books) in shards.iter().enumerate() {
        let mut row = book_json(books);
        row["shard"] = json!(index);
        rows.push(row);
    }
    with_status(true, json!({"shards": rows, "total": book_json(&total)}))
}

fn book_json(books: &Books) -> Value {
    json!({
        "received": books.received,
        "answered": books.answered,
        "refused": books.refused,
        "waiting": books.waiting,
        "difference": i64::try_from(books.difference()).unwrap_or(i64::MAX),
        "kernel_dropped": books.kernel_dropped,
    })
}
