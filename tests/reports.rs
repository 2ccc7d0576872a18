//! Reports of the real program against what its clients saw: a sum of their own, kept apart from
//! everything the program counts.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::store::{NewKey, Store};
use clients::{Http, Udp, v1_request, v2_request};
use running::{PATIENCE, Process};
use serde_json::Value;

/// What a client knows of a request: whose key, which asset, how it came and how it ended.
type Seen = BTreeMap<(String, String, &'static str, String), u64>;

struct Server {
    process: Process,
    reports: SocketAddr,
    reports_udp: SocketAddr,
    data: PathBuf,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let process = Process::start(&data, args);
        let line = process.said.iter().find(|line| line.starts_with("listen ")).unwrap();
        let after = |name: &str| -> SocketAddr {
            let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}"));
            rest.split([',', ';']).next().unwrap().trim().parse().unwrap()
        };
        let (reports, reports_udp) = (after("; reports "), after("; reports by UDP "));
        Self { process, reports, reports_udp, data, _folder: folder }
    }

    /// A key of an account of its own.
    fn key(&self, account: &str) -> Token {
        let new = NewKey {
            account: account.to_owned(),
            tier: "stress".to_owned(),
            networks: Vec::new(),
            note: String::new(),
            admin: false,
            expires: None,
        };
        Store::open(&self.data).unwrap().add_key(&new).unwrap()
    }

    fn get(&self, token: &Token, target: &str) -> clients::Response {
        let mut http = Http::to(self.reports);
        http.get(target, token)
    }

    fn json(&self, token: &Token, target: &str) -> Value {
        let response = self.get(token, target);
        assert_eq!(response.status, 200, "{target}: {}", response.body.escape_ascii());
        response.json()
    }

    fn rows(&self, token: &Token, target: &str) -> Vec<Value> {
        self.json(token, target)["rows"].as_array().unwrap().clone()
    }

    /// All rows of all pages, of so many rows each.
    fn pages(&self, token: &Token, target: &str, limit: usize) -> Vec<Value> {
        let more = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{more}limit={limit}");
        let (mut all, mut next) = (Vec::new(), None::<String>);
        loop {
            let cursor = next.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
            let page = self.json(token, &format!("{target}{cursor}"));
            let rows = page["rows"].as_array().unwrap();
            assert!(rows.len() <= limit);
            all.extend(rows.iter().cloned());
            next = page["next"].as_str().map(ToOwned::to_owned);
            if next.is_none() {
                return all;
            }
        }
    }

    /// Waits until so many requests have reached the roll-ups.
    fn drained(&self, requests: u64) {
        let begin = Instant::now();
        loop {
            let rows = self.rows(&self.process.token, "/reports/summary");
            let found = rows[0]["requests"].as_u64().unwrap();
            if found == requests {
                return;
            }
            assert!(found < requests && begin.elapsed() < PATIENCE, "{found} of {requests} are drained");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `beast report …` prints.
    fn terminal(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        command.arg("report").args(args).arg("--data").arg(&self.data).env_clear();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn public(token: &Token) -> String {
    beast::account::public_text(token.public_id())
}

/// Asks in every protocol, for prices and for what is refused, and keeps count.
fn ask(server: &Server, tokens: &[Token], rounds: usize, seen: &mut Seen) {
    let udp = Udp::to(server.process.udp[0]);
    let mut http = Http::to(server.process.http[0]);
    let mut saw = |token: &Token, asset: &str, transport, status: &str| {
        let place = (public(token), asset.to_owned(), transport, status.to_owned());
        *seen.entry(place).or_default() += 1;
    };
    for round in 0..rounds {
        for (index, token) in tokens.iter().enumerate() {
            let asset = ["BTC", "ETH", "SOL"][(round + index) % 3];
            let answer = udp.v1(&v1_request(token, asset, &format!("\"r{round}\"")));
            assert_eq!(answer["asset"], asset, "{answer}");
            saw(token, asset, "udp-v1", "ok");
            if round % 2 == 0 {
                udp.v2(&v2_request(token, "BTC", round as u64), token);
                saw(token, "BTC", "udp-v2", "ok");
            }
            if round % 3 == 0 {
                assert_eq!(http.get("/price?asset=ETH", token).status, 200);
                saw(token, "ETH", "http", "ok");
                assert_eq!(http.get("/price?asset=NOSUCH", token).status, 404);
                saw(token, "", "http", "unknown_asset");
            }
        }
    }
}

fn text<'a>(row: &'a Value, member: &str) -> &'a str {
    row[member].as_str().unwrap_or_else(|| panic!("no {member} in {row}"))
}

/// Adds up rows of a usage or detail report as clients would.
fn added_up(rows: &[Value]) -> BTreeMap<(String, String, String, String), u64> {
    let mut sums = BTreeMap::new();
    for row in rows {
        let place = ["key", "asset", "transport", "status"].map(|member| text(row, member).to_owned());
        *sums.entry(place.into()).or_default() += row["requests"].as_u64().unwrap_or(1);
    }
    sums
}

fn owned(seen: &Seen, key: Option<&Token>) -> BTreeMap<(String, String, String, String), u64> {
    let key = key.map(public);
    seen.iter()
        .filter(|((of, ..), _)| key.as_ref().is_none_or(|key| key == of))
        .map(|((key, asset, transport, status), count)| {
            ((key.clone(), asset.clone(), (*transport).to_owned(), status.clone()), *count)
        })
        .collect()
}

#[test]
fn reports_say_what_the_clients_saw() {
    for engine in ["uring", "portable"] {
        let server = Server::start(&["--io", engine, "--shards", "2"]);
        let admin = server.process.token;
        let (ann, bob) = (server.key("Ann"), server.key("Bob"));
        until_known(&server, &[ann, bob]);
        let mut seen = Seen::new();
        // Requests that proved the keys known were answered, too.
        for token in [ann, bob] {
            *seen.entry((public(&token), "ETH".to_owned(), "http", "ok".to_owned())).or_default() += 1;
        }
        ask(&server, &[ann, bob], 40, &mut seen);
        let total: u64 = seen.values().sum();
        server.drained(total);

        // Everything for the admin, one's own for others; whole, and page by page.
        for (who, of) in [(admin, None), (ann, Some(&ann)), (bob, Some(&bob))] {
            let expected = owned(&seen, of);
            for report in ["/reports/usage", "/reports/usage/detail"] {
                assert_eq!(added_up(&server.pages(&who, report, 10_000)), expected, "{report}");
                assert_eq!(added_up(&server.pages(&who, report, 13)), expected, "{report} in pages");
            }
        }
        summaries(&server, &seen, total);
        filters(&server, &seen);
        reconcile(&server, total);
        refusals(&server, &ann, &bob);
        forms(&server, total);
        datagrams(&server, &seen);
        terminal(&server, &seen, total);
        assert_eq!(server.process.leave(), Some(0));
    }
}

/// New keys reach the shards within two seconds.
fn until_known(server: &Server, tokens: &[Token]) {
    let begin = Instant::now();
    for token in tokens {
        while Http::to(server.process.http[0]).get("/price?asset=ETH", token).status != 200 {
            assert!(begin.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn sum_of(seen: &Seen, pick: impl Fn(&(String, String, &'static str, String)) -> bool) -> u64 {
    seen.iter().filter(|(place, _)| pick(place)).map(|(_, count)| count).sum()
}

fn summaries(server: &Server, seen: &Seen, total: u64) {
    let admin = &server.process.token;
    let refused = sum_of(seen, |(.., status)| status != "ok");
    for row in server.rows(admin, "/reports/usage/summary?by=key,transport") {
        let expected = sum_of(seen, |(key, _, transport, _)| {
            key == text(&row, "key") && *transport == text(&row, "transport")
        });
        assert_eq!(row["requests"], expected, "{row}");
        let refused = sum_of(seen, |(key, _, transport, status)| {
            key == text(&row, "key") && *transport == text(&row, "transport") && status != "ok"
        });
        assert_eq!((&row["refused"], &row["answered"]), (&refused.into(), &(expected - refused).into()));
    }
    let paged = server.pages(admin, "/reports/usage/summary?by=asset,status", 2);
    assert_eq!(paged, server.rows(admin, "/reports/usage/summary?by=asset,status"));
    let days = server.rows(admin, "/reports/usage/summary");
    let sum: u64 = days.iter().map(|row| row["requests"].as_u64().unwrap()).sum();
    assert_eq!(sum, total);
    let page = server.rows(admin, "/reports/summary");
    assert_eq!(
        (text(&page[0], "part"), &page[0]["requests"], &page[0]["refused"]),
        ("total", &total.into(), &refused.into())
    );
    assert!(page[0]["latency_p99_ns"].as_u64() <= page[0]["latency_max_ns"].as_u64());
    for row in page.iter().filter(|row| text(row, "part") == "asset") {
        assert_eq!(row["requests"], sum_of(seen, |(_, asset, ..)| asset == text(row, "name")), "{row}");
    }
}

fn filters(server: &Server, seen: &Seen) {
    let admin = &server.process.token;
    let sum = |target: &str| -> u64 {
        server.pages(admin, target, 100).iter().map(|row| row["requests"].as_u64().unwrap_or(1)).sum()
    };
    for report in ["/reports/usage", "/reports/usage/detail"] {
        assert_eq!(sum(&format!("{report}?asset=ETH")), sum_of(seen, |(_, asset, ..)| asset == "ETH"));
        let v2 = sum_of(seen, |(_, _, transport, _)| *transport == "udp-v2");
        assert_eq!(sum(&format!("{report}?transport=udp-v2")), v2);
        let unknown = sum_of(seen, |(.., status)| status == "unknown_asset");
        assert_eq!(sum(&format!("{report}?status=unknown_asset&transport=http")), unknown);
        let key = seen.keys().next().unwrap().0.clone();
        assert_eq!(
            sum(&format!("{report}?key={key}&asset=btc")),
            sum_of(seen, |(of, asset, ..)| *of == key && asset == "BTC")
        );
        assert_eq!(sum(&format!("{report}?to=1h")), 0);
        assert_eq!(sum(&format!("{report}?from=1h")), sum_of(seen, |_| true));
        let exchanges: BTreeSet<String> =
            server.pages(admin, report, 1_000).iter().map(|row| text(row, "exchange").to_owned()).collect();
        let each = exchanges
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| sum(&format!("{report}?exchange={name}")));
        assert_eq!(each.sum::<u64>(), sum_of(seen, |(.., status)| status == "ok"));
    }
}

fn reconcile(server: &Server, total: u64) {
    let report = server.json(&server.process.token, "/reports/reconcile");
    assert_eq!(report["closed"], true, "{report}");
    let rows = report["rows"].as_array().unwrap();
    let of = |scope: &str, member: &str| -> u64 {
        rows.iter().filter(|row| row["scope"] == scope).map(|row| row[member].as_u64().unwrap_or(0)).sum()
    };
    for scope in ["shard", "day", "key", "chain"] {
        assert_eq!((of(scope, "journal"), of(scope, "drained")), (total, total), "{scope} in {report}");
    }
    assert_eq!((of("day", "rolled_up"), of("key", "rolled_up")), (total, total));
    assert_eq!(
        of("shard", "received"),
        of("shard", "answered") + of("shard", "refused") + of("shard", "waiting")
    );
    assert!(of("shard", "answered") + of("shard", "refused") >= total);
}

fn refusals(server: &Server, ann: &Token, bob: &Token) {
    let refused = |token: &Token, target: &str| {
        let response = server.get(token, target);
        let body = response.json();
        assert!(!text(&body, "message").is_empty());
        (response.status, text(&body, "error").to_owned())
    };
    let bad = (400, "bad_request".to_owned());
    for query in [
        "limit=0",
        "limit=10001",
        "form=csv",
        "asset=NOSUCH",
        "from=yesterday",
        "cursor=AAAA",
        "asset=BTC&asset=ETH",
        "from=1h&to=2h",
        "format=xml",
        "%ff=1",
    ] {
        assert_eq!(refused(ann, &format!("/reports/usage?{query}")), bad, "{query}");
    }
    let forbidden = (403, "forbidden".to_owned());
    for other in [public(bob), "tb_00".to_owned(), "%231".to_owned()] {
        assert_eq!(refused(ann, &format!("/reports/usage?key={other}")), forbidden);
    }
    assert_eq!(server.get(ann, &format!("/reports/usage?key={}", &public(ann)[..12])).status, 200);
    assert_eq!(refused(ann, "/reports/reconcile"), forbidden);
    assert_eq!(refused(ann, "/reports").0, 404);
    assert_eq!(refused(&Token::generate().unwrap(), "/reports/usage"), (401, "unauthorized".to_owned()));
    // A cursor belongs to its query and its key.
    let cursor = server.json(ann, "/reports/usage?limit=1")["next"].as_str().unwrap().to_owned();
    assert_eq!(refused(ann, &format!("/reports/usage?asset=BTC&cursor={cursor}")), bad);
    assert_eq!(refused(ann, &format!("/reports/usage/detail?cursor={cursor}")), bad);
    assert_eq!(refused(bob, &format!("/reports/usage?limit=1&cursor={cursor}")), bad);
    let mut http = Http::to(server.reports);
    http.write(b"POST /reports/usage HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(http.read().status, 405);
    let mut http = Http::to(server.reports);
    http.write(b"GET /reports/usage HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = http.read();
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")));
}

fn forms(server: &Server, total: u64) {
    let admin = &server.process.token;
    for report in [
        "/reports/usage",
        "/reports/usage/detail",
        "/reports/usage/summary",
        "/reports/summary",
        "/reports/reconcile",
    ] {
        let rows = server.rows(admin, report).len();
        for (form, media) in
            [("csv", "text/csv"), ("tsv", "text/tab-separated-values"), ("text", "text/plain")]
        {
            let response = server.get(admin, &format!("{report}?format={form}"));
            assert!(response.header("content-type").unwrap().starts_with(media), "{form}");
            let body = String::from_utf8(response.body).unwrap();
            assert_eq!(body.lines().count(), rows + 1, "{report} as {form}:\n{body}");
            let mut http = Http::to(server.reports);
            let key = admin.reveal();
            http.write(format!("GET {report} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nAccept: {media};q=0.9, image/png\r\n\r\n").as_bytes());
            assert!(http.read().header("content-type").unwrap().starts_with(media), "Accept: {media}");
        }
        let mut http = Http::to(server.reports);
        let key = admin.reveal();
        http.write(
            format!("GET {report} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nAccept: image/png\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(http.read().status, 406);
    }
    let csv = String::from_utf8(server.get(admin, "/reports/usage?format=csv&limit=10000").body).unwrap();
    let sum: u64 =
        csv.lines().skip(1).map(|line| line.split(',').nth(6).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, total);
    let first = server.get(admin, "/reports/usage?format=tsv&limit=2");
    let cursor = first.header("x-next-cursor").unwrap().to_owned();
    assert!(first.header("link").unwrap().contains(&cursor));
    assert_eq!(server.get(admin, &format!("/reports/usage?format=tsv&limit=2&cursor={cursor}")).status, 200);
}

fn datagrams(server: &Server, seen: &Seen) {
    let udp = Udp::to(server.reports_udp);
    let admin = server.process.token.reveal();
    let ask = |request: &str| -> Value {
        let answer = udp.ask(request.as_bytes());
        assert!(answer.len() <= request.len(), "{} for {request}", answer.escape_ascii());
        serde_json::from_slice(&answer).unwrap()
    };
    let total = sum_of(seen, |_| true);
    let answer =
        ask(&format!(r#"{{"api_key":"{admin}","report":"summary","id":7,"pad":"{}"}}"#, "x".repeat(60)));
    assert_eq!((&answer["requests"], &answer["id"]), (&total.into(), &7.into()), "{answer}");
    assert!(answer["latency_p99_ns"].is_u64());
    let answer =
        ask(&format!(r#"{{"api_key":"{admin}","report":"usage","id":"u","pad":"{}"}}"#, "x".repeat(200)));
    for asset in ["BTC", "ETH", "SOL"] {
        assert_eq!(answer["usage"][asset], sum_of(seen, |(_, of, ..)| of == asset), "{answer}");
    }
    let answer = ask(&format!(r#"{{"api_key":"{admin}","report":"usage"}}"#));
    assert!(answer["usage"].is_object() || answer["error"] == "too_long", "{answer}");
    let answer = ask(&format!(r#"{{"api_key":"{admin}","report":"detail","pad":"{}"}}"#, "x".repeat(100)));
    assert_eq!(answer["error"], "bad_request");
    // Strangers: nothing longer than their request, ten a second, and never an answer to an answer.
    let stranger = Token::generate().unwrap().reveal();
    let answer = ask(&format!(r#"{{"api_key":"{stranger}","report":"summary","id":1}}"#));
    assert_eq!(answer["error"], "unauthorized");
    for silent in
        [r#"{"requests":1,"answered":1,"refused":0,"id":7}"#, r#"{"error":"unauthorized","id":1}"#, "{", "x"]
    {
        udp.send(silent.as_bytes());
    }
    assert!(udp.all_within(clients::SILENCE * 4).iter().all(|answer| answer.len() <= 1), "silence");
    for _ in 0..40 {
        udp.send(format!(r#"{{"api_key":"{stranger}","report":"summary","id":1}}"#).as_bytes());
    }
    let replies = udp.all_within(clients::SILENCE * 4).len();
    assert!((1..=20).contains(&replies), "{replies} replies to a stranger in about a second");
}

fn terminal(server: &Server, seen: &Seen, total: u64) {
    let table = server.terminal(&["summary"]);
    assert!(table.starts_with("PART "), "{table}");
    let first = table.lines().nth(1).unwrap();
    assert!(
        first.starts_with("total") && first.split_whitespace().any(|word| word == total.to_string()),
        "{table}"
    );
    let rows = |args: &[&str]| -> Vec<Value> {
        let page: Value = serde_json::from_str(&server.terminal(args)).unwrap();
        page["rows"].as_array().unwrap().clone()
    };
    let all = owned(seen, None);
    assert_eq!(added_up(&rows(&["usage", "--limit", "10000", "--format", "json"])), all);
    assert_eq!(added_up(&rows(&["detail", "--limit", "10000", "--format", "json"])), all);
    assert_eq!(rows(&["usage-summary", "--by", "asset", "--format", "json"]).len(), 4);
    assert!(server.terminal(&["reconcile"]).contains("chain"));
    exports(server, &all);
}

/// Exports hold every row, in CSV and, read by a reader that is not ours, in Parquet.
fn exports(server: &Server, expected: &BTreeMap<(String, String, String, String), u64>) {
    let total: u64 = expected.values().sum();
    let file = server.data.with_file_name("usage.csv");
    server.terminal(&["export", "--csv", file.to_str().unwrap()]);
    let csv = std::fs::read_to_string(&file).unwrap();
    let sum: u64 =
        csv.lines().skip(1).map(|line| line.split(',').nth(6).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, total);
    let kept = server.terminal(&["export", "--csv"]);
    assert!(Path::new(kept.trim_end()).starts_with(server.data.join("exports")), "{kept}");
    assert_eq!(std::fs::read_to_string(kept.trim_end()).unwrap(), csv);

    for (what, count) in [(None, csv.lines().count() as u64 - 1), (Some("--detail"), total)] {
        let file = server.data.with_file_name("usage.parquet");
        let mut args = vec!["export", "--parquet", file.to_str().unwrap()];
        args.extend(what);
        server.terminal(&args);
        let Some(read) = read_parquet(&file) else { return };
        assert_eq!(read["rows"], count);
        if what.is_none() {
            assert_eq!(read["requests"], total);
            assert_eq!(read["keys"].as_array().unwrap().len(), 2);
        }
        let begin = read["begin"].as_str().unwrap();
        assert!(csv.lines().nth(1).unwrap().starts_with(&begin[..10].replace(' ', "T")), "{read}");
    }
}

/// What DuckDB reads in a Parquet file. Where it is not installed this fails in CI, and says elsewhere
/// that Parquet is not tested.
fn read_parquet(file: &Path) -> Option<Value> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("tools/duckdb/bin/python");
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "{} is missing; run check.sh", python.display());
        eprintln!("Parquet is not tested: {} is missing; check.sh installs it", python.display());
        return None;
    }
    let script = "import duckdb, json, sys\n\
                  t = duckdb.read_parquet(sys.argv[1])\n\
                  names = t.columns\n\
                  sums = duckdb.sql('select sum(requests)::bigint from t').fetchall()[0][0] if 'requests' in names else None\n\
                  count, begin = duckdb.sql(\"select count(*), strftime(min(time), '%Y-%m-%d %H:%M:%S') from t\").fetchall()[0]\n\
                  keys = [row[0] for row in duckdb.sql('select distinct key from t order by 1').fetchall()]\n\
                  print(json.dumps({'rows': count, 'begin': begin, 'requests': sums, 'keys': keys}))";
    let output = Command::new(python).args(["-c", script]).arg(file).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn paging_meets_its_end_while_rows_are_added_and_misses_none() {
    let server = Server::start(&["--shards", "2"]);
    let ann = server.key("Ann");
    until_known(&server, &[ann]);
    let mut seen = Seen::new();
    for _ in 0..3 {
        // In seconds of their own, so that there are rows enough.
        ask(&server, &[ann], 12, &mut seen);
        std::thread::sleep(Duration::from_millis(1_100));
    }
    let before = 1 + seen.values().sum::<u64>();
    server.drained(before);
    let mut later = Seen::new();
    for (report, limit) in [("/reports/usage", 2), ("/reports/usage/detail", 7)] {
        // One page, then more requests, then the others.
        let mut rows = Vec::new();
        let mut page = server.json(&ann, &format!("{report}?limit={limit}"));
        let mut pages = 0;
        loop {
            rows.extend(page["rows"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str().map(ToOwned::to_owned) else { break };
            if pages < 5 {
                ask(&server, &[ann], 3, &mut later);
            }
            pages += 1;
            page = server.json(&ann, &format!("{report}?limit={limit}&cursor={next}"));
        }
        assert!(pages > 5, "{pages}");
        let found: u64 = rows.iter().map(|row| row["requests"].as_u64().unwrap_or(1)).sum();
        let distinct: BTreeSet<String> = rows
            .iter()
            .map(|row| match row["record"].as_str() {
                Some(record) => record.to_owned(),
                None => ["time", "key", "asset", "exchange", "transport", "status"]
                    .map(|m| text(row, m))
                    .join(" "),
            })
            .collect();
        assert_eq!(distinct.len(), rows.len(), "no row twice");
        assert!(found >= before, "{found} of at least {before}");
    }
}

#[test]
fn a_report_server_alone_reports_what_others_have_answered() {
    let server = Server::start(&["--shards", "1"]);
    let mut seen = Seen::new();
    ask(&server, &[server.process.token], 10, &mut seen);
    let total: u64 = seen.values().sum();
    server.drained(total);
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.args([
        "serve",
        "--listen",
        "127.0.0.1",
        "--report-port",
        "0",
        "--report-udp-port",
        "0",
        "--data",
    ]);
    command
        .arg(&server.data)
        .arg("--set=report_health_port=0")
        .env_clear()
        .env("SERVER_TYPE", "REPORT_SERVER");
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let listen = lines.map_while(Result::ok).find(|line| line.starts_with("listen ")).unwrap();
    let address = |name: &str| -> SocketAddr {
        let (_, rest) = listen.split_once(name).unwrap();
        rest.split([',', ';']).next().unwrap().trim().parse().unwrap()
    };
    let token = server.process.token;
    let rows = Http::to(address("; reports ")).get("/reports/summary", &token).json();
    assert_eq!(rows["rows"][0]["requests"], total);
    let detail = Http::to(address("; reports ")).get("/reports/usage/detail", &token).json();
    assert_eq!(detail["rows"].as_array().unwrap().len() as u64, total);
    assert_eq!(Http::to(address("health ")).get("/ready", &token).status, 200);
    assert!(!listen.contains("HTTP"), "no prices: {listen}");
    let id = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
