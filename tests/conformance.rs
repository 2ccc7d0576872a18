//! The protocols as clients meet them: one body of tests against a running appliance on every engine.
//! The engines' own conformance tests are in `src/engine/conformance`.

#[path = "support/clients.rs"]
mod clients;
#[path = "conformance/http.rs"]
mod http;
#[path = "conformance/load.rs"]
mod load;
#[path = "support/running.rs"]
mod running;
#[path = "conformance/udp.rs"]
mod udp;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::admin::Books;
use beast::config::{Config, Http as HttpConfig, IoChoice};
use beast::shard::Counter;
use beast::sys::seccomp::refuse_io_uring;
use clients::{Http, Udp, v1_request, v2_request};
use running::{Process, Running, config, v4};

/// What the tests are run against.
struct Target<'a> {
    udp: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    token: Token,
    books: &'a (dyn Fn() -> Books + Sync),
}

impl Target<'_> {
    fn udp(&self) -> Udp {
        Udp::to(v4(&self.udp))
    }

    /// From a network of its own: replies to those that have proved nothing are counted by network.
    fn stranger(&self, network: u8) -> Udp {
        Udp::from([127, 77, network, 1].into(), v4(&self.udp))
    }

    fn http(&self) -> Http {
        Http::to(v4(&self.http))
    }
}

fn conforms(target: &Target<'_>) {
    udp::v1_answers(target);
    udp::v1_refuses(target);
    udp::v2_answers(target);
    udp::v2_refuses(target);
    udp::all_protocols_agree(target);
    http::answers(target);
    http::keeps_alive_and_closes(target);
    http::pipelines(target);
    http::reads_in_pieces_and_skips_bodies(target);
    http::waits_for_slow_readers(target);
    load::every_address_answers(target);
    load::the_books_close_under_load(target);
}

fn runs_in_process(io: IoChoice, shards: usize) {
    let running = Running::start(config(io, shards));
    let target = Target {
        udp: running.appliance().addresses.udp.clone(),
        http: running.appliance().addresses.http.clone(),
        token: running.token,
        books: &|| running.books(),
    };
    conforms(&target);
    let counters = running.counters();
    assert_eq!(counters.len(), shards);
    for shard in &counters {
        assert!(shard.value(Counter::UdpAnswered) > 0 && shard.value(Counter::HttpAnswered) > 0);
    }
    running.leave();
}

#[test]
fn uring_with_one_shard() {
    runs_in_process(IoChoice::Uring, 1);
}

#[test]
fn uring_with_two_shards() {
    runs_in_process(IoChoice::Uring, 2);
}

#[test]
fn portable_with_one_shard() {
    runs_in_process(IoChoice::Portable, 1);
}

#[test]
fn portable_with_two_shards() {
    runs_in_process(IoChoice::Portable, 2);
}

/// What a container does: the three calls of io_uring are refused to the whole process.
#[test]
fn a_process_without_io_uring_says_so_and_conforms() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("data");
    // A process is bound to the filter of the thread that starts it.
    let process = std::thread::spawn(move || {
        refuse_io_uring().unwrap();
        Process::start(&folder, &["--io", "auto", "--shards", "2"])
    });
    let process = process.join().unwrap();
    let engine: Vec<_> = process.said.iter().filter(|line| line.starts_with("engine ")).collect();
    assert_eq!(engine.len(), 1, "{:#?}", process.said);
    assert!(engine[0].starts_with("engine   portable: io_uring_setup: EPERM"), "{}", engine[0]);
    assert!(engine[0].ends_with(": using portable"), "{}", engine[0]);
    let target = Target {
        udp: process.udp.clone(),
        http: process.http.clone(),
        token: process.token,
        books: &|| process.books(),
    };
    conforms(&target);
    assert_eq!(process.leave(), Some(0));
}

#[test]
fn on_a_wildcard_address_the_address_that_was_asked_answers() {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let listen = vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
        let running = Running::start(Config { listen, ..config(io, 1) });
        let port = running.appliance().addresses.udp[0].port();
        for address in ["127.0.0.1", "127.0.0.2", "127.9.8.7", "::1"] {
            let server = SocketAddr::new(address.parse().unwrap(), port);
            // A connected socket hears nothing from another address.
            let client = Udp::to(server);
            let answer = client.v1(&v1_request(&running.token, "BTC", "1"));
            assert_eq!(answer["id"], 1, "{answer}");
            let reply = client.v2(&v2_request(&running.token, "ETH", 2), &running.token);
            assert_eq!(reply.request_id(), 2);
        }
        running.leave();
    }
}

/// Connections end that say nothing, and those that never finish a head; others stay.
#[test]
fn slow_connections_are_closed() {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let patient = HttpConfig { idle_s: 3_600, head_s: 600 };
        let idle =
            Running::start(Config { http: HttpConfig { idle_s: 1, ..patient.clone() }, ..config(io, 1) });
        let head = Running::start(Config { http: HttpConfig { head_s: 1, ..patient }, ..config(io, 1) });

        let started = Instant::now();
        let mut silent = Http::to(idle.http());
        let mut kept = Http::to(idle.http());
        assert_eq!(kept.get("/exchanges", &idle.token).status, 200);
        assert!(silent.closes() && kept.closes());
        assert!(started.elapsed() >= Duration::from_millis(900));

        let started = Instant::now();
        let mut between = Http::to(head.http());
        assert_eq!(between.get("/exchanges", &head.token).status, 200);
        let mut slow = Http::to(head.http());
        let mut bytes = b"GET /exchanges HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
        bytes.resize(4_000, b'x');
        // Each byte is news, and yet the head is never whole.
        let sent = bytes.iter().take_while(|byte| {
            std::thread::sleep(Duration::from_millis(20));
            std::io::Write::write_all(&mut slow.stream, &[**byte]).is_ok()
        });
        assert!(sent.count() < bytes.len(), "a head may take for ever");
        assert!(slow.closes());
        assert!(started.elapsed() >= Duration::from_millis(900));
        // Silence between requests is no slow head.
        assert_eq!(between.get("/exchanges", &head.token).status, 200);
        idle.leave();
        head.leave();
    }
}

/// A client that never stops asking, and whose reads never end where a request does, makes progress.
#[test]
fn a_busy_connection_is_no_slow_head() {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let http = HttpConfig { idle_s: 60, head_s: 1 };
        let running = Running::start(Config { http, ..config(io, 1) });
        let mut client = Http::to(running.http());
        let request = clients::get("/price?asset=BTC", &running.token);
        let (begin, rest) = request.split_at(20);
        client.write(begin.as_bytes());
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(3_500) {
            client.write(format!("{rest}{begin}").as_bytes());
            assert_eq!(client.read().status, 200);
            std::thread::sleep(Duration::from_millis(20));
        }
        running.leave();
    }
}
