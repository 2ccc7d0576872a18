//! Reports over UDP: port 2680. From a datagram to the datagram that answers it; no socket is in sight.
//!
//! An answer is never longer than its request, so the port is no use for flooding somebody else. What
//! would be longer is left out, and the answer says so.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::query::{Scope, Which};
use super::refusal::Refusal;
use super::service::Reports;
use super::table::Cell;
use crate::account::ReplyBudget;
use crate::limits::{REQUEST_ID_LEN_MAX, UDP_PAYLOAD_MAX};
use crate::time::Now;

/// What a datagram may ask. Members that are not listed mean nothing, so that a request may be
/// lengthened.
#[derive(Debug, Deserialize)]
pub(super) struct Request<'a> {
    #[serde(default)]
    api_key: Option<String>,
    #[serde(default)]
    report: Option<String>,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    from: Option<Value>,
    #[serde(default)]
    to: Option<Value>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    asset: Option<String>,
}

impl<'a> Request<'a> {
    /// The id as it was written.
    pub(super) fn id(&self) -> Option<&'a str> {
        self.id.map(RawValue::get)
    }
}

/// Reads a datagram; `None` when it is not one JSON object of this form.
pub(super) fn parse(datagram: &[u8]) -> Option<Request<'_>> {
    // The library would take an array of members for an object, too.
    if datagram.len() > UDP_PAYLOAD_MAX || datagram.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let request: Request<'_> = serde_json::from_slice(datagram).ok()?;
    request.id.is_none_or(|id| is_id(id.get())).then_some(request)
}

/// A number or a string of at most 32 raw bytes, as in v1.
fn is_id(raw: &str) -> bool {
    let scalar = raw.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    scalar && raw.len() <= REQUEST_ID_LEN_MAX
}

/// Answers a datagram, or does not.
pub fn answer(
    reports: &Reports,
    budget: &mut ReplyBudget,
    datagram: &[u8],
    peer: IpAddr,
    now: Now,
) -> Option<String> {
    let Some(request) = parse(datagram) else {
        return stranger(budget, "bad_request", None, datagram.len(), peer, now);
    };
    // Without a key it may be an answer, and those are never answered.
    let token = request.api_key.as_deref()?;
    match reports.caller_from(token.as_bytes(), peer, now) {
        Ok(scope) => Some(known(reports, &request, scope, datagram.len(), now)),
        Err(refusal) => stranger(budget, refusal.error, request.id, datagram.len(), peer, now),
    }
}

/// A reply to somebody who has proved nothing.
fn stranger(
    budget: &mut ReplyBudget,
    error: &str,
    id: Option<&RawValue>,
    len_max: usize,
    peer: IpAddr,
    now: Now,
) -> Option<String> {
    let text = with_id(format!("{{\"error\":\"{error}\""), id);
    (text.len() <= len_max && budget.take(peer, now.mono)).then_some(text)
}

fn known(reports: &Reports, request: &Request<'_>, scope: Scope, len_max: usize, now: Now) -> String {
    let result = match request.report.as_deref() {
        Some("summary") => summary(reports, request, scope, len_max, now),
        Some("usage") => usage(reports, request, scope, len_max, now),
        _ => {
            Err(Refusal::parameter("report needs to be summary or usage; others are at TCP 9090".to_owned()))
        }
    };
    let text = result.unwrap_or_else(|refusal| {
        let message = Value::from(refusal.message).to_string();
        let whole = with_id(format!("{{\"error\":\"{}\",\"message\":{message}", refusal.error), request.id);
        if whole.len() <= len_max {
            return whole;
        }
        with_id(format!("{{\"error\":\"{}\"", refusal.error), request.id)
    });
    if text.len() <= len_max { text } else { use_tcp(request) }
}

/// What is said in place of an answer that is longer than its request. A request with a key is longer
/// than this.
fn use_tcp(request: &Request<'_>) -> String {
    with_id("{\"error\":\"too_long\",\"use\":\"tcp 9090\"".to_owned(), request.id)
}

fn with_id(mut text: String, id: Option<&RawValue>) -> String {
    if let Some(id) = id {
        text.push_str(",\"id\":");
        text.push_str(id.get());
    }
    text.push('}');
    text
}

/// The parameters of the HTTP report that the datagram asks for.
fn parameters(request: &Request<'_>, by: Option<&str>) -> Vec<(String, String)> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let given = [
        ("from", request.from.as_ref().map(plain)),
        ("to", request.to.as_ref().map(plain)),
        ("key", request.key.clone()),
        ("asset", request.asset.clone()),
        ("by", by.map(ToOwned::to_owned)),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// All of the period in four numbers.
fn summary(
    reports: &Reports,
    request: &Request<'_>,
    scope: Scope,
    len_max: usize,
    now: Now,
) -> Result<String, Refusal> {
    let report = reports.report(Which::Summary, &parameters(request, None), scope, now)?;
    let total = report.page.table.rows.first();
    let number = |at: usize| match total.and_then(|row| row.get(at)) {
        Some(Cell::Number(number)) => *number,
        _ => 0,
    };
    // The columns of a summary: part, name, requests, answered, refused, prices, mean, median, 99 %.
    let (requests, answered, refused, p99) = (number(2), number(3), number(4), number(8));
    let short = format!("{{\"requests\":{requests},\"answered\":{answered},\"refused\":{refused}");
    let long = with_id(format!("{short},\"latency_p99_ns\":{p99}"), request.id);
    Ok(if long.len() <= len_max { long } else { with_id(short, request.id) })
}

/// Requests by asset, most first, as many as fit; `more` counts the assets left out.
fn usage(
    reports: &Reports,
    request: &Request<'_>,
    scope: Scope,
    len_max: usize,
    now: Now,
) -> Result<String, Refusal> {
    let report = reports.report(Which::UsageSummary, &parameters(request, Some("asset")), scope, now)?;
    let mut assets: Vec<(u64, &str)> = report
        .page
        .table
        .rows
        .iter()
        .filter_map(|row| match row.as_slice() {
            [Cell::Text(asset), Cell::Number(requests), ..] => Some((*requests, asset.as_str())),
            _ => None,
        })
        .collect();
    assets.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(right.1)));
    let written = |count: usize| {
        let members: Vec<String> = assets
            .iter()
            .take(count)
            .map(|(requests, asset)| format!("{}:{requests}", Value::from(*asset)))
            .collect();
        let more = assets.len().saturating_sub(count);
        let more = if more > 0 { format!(",\"more\":{more},\"use\":\"tcp 9090\"") } else { String::new() };
        with_id(format!("{{\"usage\":{{{}}}{more}", members.join(",")), request.id)
    };
    let fits = (0..=assets.len()).rev().map(written).find(|text| text.len() <= len_max);
    Ok(fits.unwrap_or_else(|| use_tcp(request)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::fuzz;

    #[test]
    fn requests_are_read_and_what_is_none_is_not() {
        let read =
            |text: &str| parse(text.as_bytes()).map(|request| request.id.map(|id| id.get().to_owned()));
        assert_eq!(read(r#"{"api_key":"k","report":"summary"}"#), Some(None));
        assert_eq!(read(r#"{"id":"a b","pad":"xxxx","report":"usage"}"#), Some(Some("\"a b\"".to_owned())));
        assert_eq!(read(r#"{"id":-7.5}"#), Some(Some("-7.5".to_owned())));
        for bad in [
            "",
            "[]",
            "{",
            r#"{"id":[1]}"#,
            r#"{"id":{}}"#,
            r#"{"id":true}"#,
            r#"{"api_key":1}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"id":"0123456789012345678901234567890"}"#,
            "{} {}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz::report_datagram(&bytes);
        }
    }
}
