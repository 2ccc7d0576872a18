//! The listeners: HTTP heads in, WebSocket sessions and REST answers out.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::exchange::Exchange;
use super::protocol::{RestRequest, answer};
use super::session;
use super::sim::{Shared, now_ns};

/// Connections of one listener that are in HTTP at a time; further ones wait to be accepted.
const HTTP_CONNECTIONS_MAX: usize = 1_024;

/// WebSocket connections of one exchange at a time; further ones are refused.
const SESSIONS_MAX: usize = 1_024;

/// A TLS handshake or a request head takes no longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// A fatal `handshake_failure` alert: how a server refuses TLS.
const TLS_REFUSAL: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Accepts for as long as the simulation runs.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some will come free.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (task_shared, tls) = (shared.clone(), tls.clone());
        shared.spawn(async move {
            match tls {
                Some(tls) => serve_tls(task_shared, stream, tls).await,
                None => serve(task_shared, stream).await,
            }
            drop(place);
        });
    }
}

async fn serve_tls(shared: Arc<Shared>, mut stream: TcpStream, tls: TlsAcceptor) {
    if shared.refuse_tls.load(Relaxed) {
        let _ = stream.write_all(&TLS_REFUSAL).await;
        return;
    }
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
        serve(shared, stream).await;
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(shared: Arc<Shared>, stream: S) {
    let service = service_fn(move |request| {
        let response = respond(&shared, request);
        async { Ok::<_, Infallible>(response) }
    });
    // How a client leaves is its own affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let below = |folder: &str| {
        let rest = path.strip_prefix(folder)?;
        let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some((name.parse::<Exchange>(), rest.to_owned()))
    };
    match (below("/ws/"), below("/rest/")) {
        (Some((Ok(exchange), _)), _) => upgrade(shared, exchange, request),
        (_, Some((Ok(exchange), path))) => rest(shared, exchange, &path, &request),
        (Some((Err(message), _)), _) | (_, Some((Err(message), _))) => text(StatusCode::NOT_FOUND, message),
        (None, None) => text(
            StatusCode::NOT_FOUND,
            "exchange simulator: /ws/<exchange> for WebSocket, /rest/<exchange>/… for REST".to_owned(),
        ),
    }
}

fn upgrade(shared: &Arc<Shared>, exchange: Exchange, mut request: Request<Incoming>) -> Response<Body> {
    let desk = shared.desk(exchange);
    if desk.flags.refused_connections.load(Relaxed) || desk.open_connections() >= SESSIONS_MAX {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "refused on command, or too many connections".to_owned(),
        );
    }
    let wants_websocket = request
        .headers()
        .get(UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(key)) = (wants_websocket, key.and_then(|key| HeaderValue::try_from(key).ok())) else {
        return text(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket only".to_owned());
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let (task_desk, speed, connection) = (desk.clone(), shared.speed, shared.next_connection());
    let task = shared.spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            task_desk.tally.connections.fetch_add(1, Relaxed);
            session::run(task_desk, TokioIo::new(upgraded), connection, speed).await;
        }
    });
    desk.remember(task);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    response
}

fn rest(shared: &Arc<Shared>, exchange: Exchange, path: &str, request: &Request<Incoming>) -> Response<Body> {
    let desk = shared.desk(exchange);
    desk.tally.rest_requests.fetch_add(1, Relaxed);
    if desk.flags.refused_rest.load(Relaxed) || desk.replay.is_some() {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "no REST: refused on command, or a recording runs".to_owned(),
        );
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET".to_owned());
    }
    let query = request.uri().query().unwrap_or_default();
    let answered = answer(exchange, RestRequest { path, query, now_ns: now_ns() }, &mut desk.market());
    let kind = if answered.json { "application/json" } else { "text/plain" };
    let mut response = Response::new(Body::from(answered.body));
    *response.status_mut() =
        StatusCode::from_u16(answered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, message: String) -> Response<Body> {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
