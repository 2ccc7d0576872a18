//! Reports over HTTP: port 9090.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as QueryString, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::Semaphore;

use super::format::Format;
use super::query::Which;
use super::refusal::Refusal;
use super::service::{Report, Reports};
use crate::time::{Clock as _, RealClock};

/// Reports that are put together at a time; each is one thread that reads. More would only compete
/// with the answers for processors.
const AT_ONCE: usize = 2;

/// Reports that may wait for their turn beside those; further ones are told to come back.
const WAITING_MAX: usize = 32;

/// Where the next page's cursor stands in forms that have no place for it.
const NEXT: &str = "x-next-cursor";

#[derive(Clone)]
struct Desk {
    reports: Arc<Reports>,
    /// Places for all who are served or wait.
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// All paths of the port.
pub fn router(reports: Arc<Reports>) -> Router {
    let desk = Desk {
        reports,
        places: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
        turns: Arc::new(Semaphore::new(AT_ONCE)),
    };
    let mut router = Router::new();
    for which in Which::ALL {
        let ask = async move |State(desk): State<Desk>, headers: HeaderMap, uri: Uri, query: Parameters| {
            answer(desk, which, &headers, &uri, query).await
        };
        router = router.route(which.path(), get(ask));
    }
    router
        .fallback(async || {
            let paths = Which::ALL.map(Which::path).join(", ");
            let message = format!("there is nothing here; needs one of {paths}");
            refuse(&Refusal { status: 404, error: "not_found", message })
        })
        .method_not_allowed_fallback(async || {
            let message = "needs GET or HEAD".to_owned();
            let response = refuse(&Refusal { status: 405, error: "method", message });
            ([(header::ALLOW, "GET, HEAD")], response).into_response()
        })
        .with_state(desk)
}

type Parameters = Result<QueryString<Vec<(String, String)>>, QueryRejection>;

async fn answer(desk: Desk, which: Which, headers: &HeaderMap, uri: &Uri, query: Parameters) -> Response {
    match prepared(desk, which, headers, query).await {
        Ok((report, form)) => given(&report, form, uri),
        Err(refusal) => refuse(&refusal),
    }
}

async fn prepared(
    desk: Desk,
    which: Which,
    headers: &HeaderMap,
    query: Parameters,
) -> Result<(Report, Format), Refusal> {
    let token = token(headers)?.to_owned();
    let accepted = accepted(headers);
    let QueryString(parameters) = query.map_err(|_| {
        Refusal::parameter(
            "the query cannot be read; needs name=value pairs in UTF-8, percent-encoded".to_owned(),
        )
    })?;
    let busy = || Refusal::overloaded("too many reports are being put together; ask again in a second");
    let place = Arc::clone(&desk.places).try_acquire_owned().map_err(|_| busy())?;
    // Closed only with the process.
    let turn = Arc::clone(&desk.turns).acquire_owned().await.map_err(|_| busy())?;
    // What it reads waits for disks, so a thread for waiting does it; that one keeps the turn until
    // it is done, also when the client has gone.
    let reading = tokio::task::spawn_blocking(move || {
        let (_place, _turn) = (place, turn);
        let now = RealClock.now();
        let (_, scope) = desk.reports.caller(token.as_bytes(), now)?;
        let report = desk.reports.report(which, &parameters, scope, now)?;
        let form = report.query.format.map_or(accepted, Ok)?;
        Ok((report, form))
    });
    reading.await.unwrap_or_else(|_| {
        Err(Refusal::unavailable(
            "the report could not be put together; see the log of the server".to_owned(),
        ))
    })
}

/// The key's token, from either field.
fn token(headers: &HeaderMap) -> Result<&str, Refusal> {
    const NEEDS: &str = "needs a key as `Authorization: Bearer tb_…` or `X-API-Key: tb_…`";
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let plain = headers.get_all("x-api-key").iter().filter_map(|value| value.to_str().ok().map(str::trim));
    let mut tokens = bearer.chain(plain).filter(|token| !token.is_empty());
    let Some(first) = tokens.next() else {
        return Err(Refusal::unauthorized(&format!("there is no key in this request; {NEEDS}")));
    };
    if tokens.any(|other| other != first) {
        return Err(Refusal::parameter(format!("this request has two different keys; {NEEDS}")));
    }
    Ok(first)
}

/// The form that the `Accept` fields ask for; JSON where there are none.
fn accepted(headers: &HeaderMap) -> Result<Format, Refusal> {
    let fields: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    if fields.is_empty() {
        return Ok(Format::Json);
    }
    Format::accepted(&fields.join(",")).ok_or_else(|| Refusal {
        status: 406,
        error: "not_acceptable",
        message: "Accept names no form there is; needs application/json, text/csv, text/tab-separated-values or text/plain".to_owned(),
    })
}

fn given(report: &Report, form: Format, uri: &Uri) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Authorization, X-API-Key"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(next) = &report.page.next {
        let kept =
            uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.starts_with("cursor="));
        let query: Vec<&str> = kept.collect();
        let more = if query.is_empty() { "" } else { "&" };
        let link = format!("<{}?{}{more}cursor={next}>; rel=\"next\"", uri.path(), query.join("&"));
        for (name, value) in [(NEXT, next.clone()), (header::LINK.as_str(), link)] {
            if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), HeaderValue::from_str(&value))
            {
                headers.insert(name, value);
            }
        }
    }
    (headers, report.write(form)).into_response()
}

fn refuse(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match refusal.status {
        401 => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        503 => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    let body = axum::Json(json!({"error": refusal.error, "message": refusal.message}));
    (status, headers, body).into_response()
}
