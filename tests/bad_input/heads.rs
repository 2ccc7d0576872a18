//! Bytes on a connection that are no good requests.

use std::io::Write as _;
use std::time::Duration;

use super::clients::{Http, get};
use super::on_both_engines;
use super::running::Running;

/// What an attacker and a proxy in front of us could understand differently, or that is no HTTP.
const REFUSED: &[&str] = &[
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nX-Thing : 5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\n X-Folded: 5\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nX-Thing: a\r\n b\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "GET /exchanges HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /exchanges HTTP/1.1\nHost: x\n\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "GET /exchanges HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET /exchanges HTTP/2.0\r\nHost: x\r\n\r\n",
    "GET /exchanges HTTP/1.1 \r\nHost: x\r\n\r\n",
    "GET  /exchanges HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /exch anges HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET exchanges HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /exchanges\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}",
    "{\"api_key\":\"x\",\"asset\":\"BTC\"}\r\n\r\n",
    ": x\r\n\r\n",
];

#[test]
fn ambiguous_framing_is_refused_and_the_connection_closed() {
    on_both_engines(|running| {
        let smuggled = get("/price?asset=BTC", &running.token);
        let good = get("/price?asset=ETH", &running.token);
        let mut open = Vec::new();
        for request in REFUSED {
            let mut http = Http::to(running.http());
            // A good request before it is answered, one behind it is not.
            http.write(format!("{good}{request}{smuggled}").as_bytes());
            open.push((http, request));
        }
        for (http, request) in &mut open {
            assert_eq!(http.read().json()["asset"], "ETH", "{request:?}");
            let refusal = http.read();
            assert_eq!(refusal.status, 400, "{request:?}");
            assert_eq!(refusal.header("connection"), Some("close"), "{request:?}");
            assert_eq!(refusal.json()["error"], "bad_request");
        }
        for (http, request) in &mut open {
            assert!(http.closes(), "{request:?}");
        }
    });
}

#[test]
fn other_refusals_close_as_well() {
    on_both_engines(|running| {
        let long = "x".repeat(5_000);
        let many = "X: y\r\n".repeat(65);
        for (request, status) in [
            (
                "POST /price HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
                411,
            ),
            (
                "POST /price HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"
                    .to_owned(),
                413,
            ),
            (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
            (format!("GET /{long}"), 414),
            (
                "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".to_owned(),
                417,
            ),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}{long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431),
        ] {
            let mut http = Http::to(running.http());
            http.write(request.as_bytes());
            assert_eq!(http.read().status, status, "{request:.60}");
            http.shut_write();
            assert!(http.closes(), "{request:.60}");
        }
    });
}

/// A head of 20 MB is refused when it is too long, not when it is whole, and nothing of it is kept.
#[test]
fn an_endless_head_is_refused_early() {
    on_both_engines(|running| {
        let mut all = Vec::new();
        for _ in 0..8 {
            let mut http = Http::to(running.http());
            http.write(b"GET /exchanges HTTP/1.1\r\nHost: x\r\nX-Long: ");
            http.write(&[b'x'; 8_192]);
            let refusal = http.read();
            assert_eq!((refusal.status, refusal.header("connection")), (431, Some("close")));
            all.push(http);
        }
        let before = resident_bytes();
        let megabyte = vec![b'x'; 1 << 20];
        for http in &mut all {
            for _ in 0..20 {
                // What is refused may be cut off at any time.
                if http.stream.write_all(&megabyte).is_err() {
                    break;
                }
            }
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 40 << 20, "160 MB of heads have cost {grown} bytes");
        for http in &mut all {
            assert!(http.closes());
        }
    });
}

/// Memory of this process, where the appliance lives, too.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Random bytes behind good requests: those are answered, in order, and then the connection ends.
#[test]
fn garbage_behind_good_requests() {
    on_both_engines(|running| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..60 {
            let mut http = Http::to(running.http());
            let good = usize::try_from(next() % 5).unwrap();
            let mut bytes = Vec::new();
            for n in 0..good {
                bytes.extend(get(&format!("/price?asset={}", ["BTC", "ETH"][n % 2]), &running.token).bytes());
            }
            // A byte that no method begins with first, so that it is no request by chance.
            bytes.push(0x80 | next() as u8);
            let garbage = usize::try_from(next() % 3_000).unwrap();
            bytes.extend(std::iter::repeat_with(|| next() as u8).take(garbage));
            for piece in bytes.chunks(1 + usize::try_from(next() % 4_000).unwrap()) {
                if http.stream.write_all(piece).is_err() {
                    break;
                }
            }
            for n in 0..good {
                assert_eq!(http.read().json()["asset"], ["BTC", "ETH"][n % 2], "round {round}");
            }
            assert_eq!(http.read().status, 400, "round {round}");
            http.shut_write();
            assert!(http.closes(), "round {round}");
        }
    });
}

/// Several clients at once, good and bad requests in turn: everybody gets his own answers.
#[test]
fn nothing_is_mixed_up_between_clients() {
    on_both_engines(|running| {
        std::thread::scope(|scope| {
            for client in 0..6_u64 {
                scope.spawn(move || udp_client(running, client));
                scope.spawn(move || http_client(running, client));
            }
        });
    });
}

fn udp_client(running: &Running, client: u64) {
    use super::clients::{Udp, v1_request, v2_request};
    let udp = Udp::to(running.udp());
    let token = &running.token;
    for n in 0..150 {
        let id = client << 32 | n;
        let asset = ["BTC", "ETH", "SOL", "NOPE"][usize::try_from((client + n) % 4).unwrap()];
        udp.send(&[0xbe; 60]);
        udp.send(b"{\"error\":\"stale\"}");
        if n % 2 == 0 {
            let answer = match n % 4 {
                0 => udp.ask(v1_request(token, asset, &id.to_string()).as_bytes()),
                _ => udp.ask(&v2_request(token, asset, id)),
            };
            match answer.strip_suffix(format!(",\"id\":{id}}}").as_bytes()) {
                Some(rest) => assert_eq!(rest.starts_with(b"{\"error\":\"unknown_asset\""), asset == "NOPE"),
                None => {
                    let key = beast::wire::v2::Key(token.v2_answer_key().0);
                    assert_eq!(beast::wire::v2::Reply::parse(&answer, &key).unwrap().request_id(), id);
                }
            }
        }
    }
}

fn http_client(running: &Running, client: u64) {
    for round in 0..10 {
        let mut http = Http::to(running.http());
        let assets: Vec<&str> = (0..12)
            .map(|n| ["BTC", "ETH", "SOL", "NOPE"][usize::try_from((client + round + n) % 4).unwrap()])
            .collect();
        let mut bytes: String =
            assets.iter().map(|a| get(&format!("/price?asset={a}"), &running.token)).collect();
        bytes.push_str("GARBAGE\r\n\r\n");
        for piece in bytes.as_bytes().chunks(97 + usize::try_from(client).unwrap()) {
            http.write(piece);
        }
        for asset in assets {
            let answer = http.read();
            match asset {
                "NOPE" => assert_eq!(answer.json()["error"], "unknown_asset"),
                _ => assert_eq!(answer.json()["asset"], asset),
            }
        }
        assert_eq!(http.read().status, 400);
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
