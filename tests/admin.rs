//! The health endpoints over real sockets, by a client that knows nothing of the server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use beast::admin::{Facts, Stage, bind, serve};
use beast::shard::{Counter, Counters, Published};
use beast::time::{Clock as _, RealClock};
use serde_json::Value;
use tokio::sync::watch;

struct Server {
    facts: Arc<Facts>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start() -> Self {
        let facts = Facts::new(RealClock.now(), "9.9", Duration::from_secs(60));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inside = runtime.enter();
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), "--health-port").unwrap();
        drop(inside);
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let told = Arc::clone(&facts);
        let thread =
            std::thread::spawn(move || runtime.block_on(serve(vec![listener], told, stopped)).unwrap());
        Self { facts, address, stop, thread }
    }

    /// Status, head and body of one request.
    fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn json(&self, path: &str) -> (u16, Value) {
        let (status, head, body) = self.ask("GET", path);
        assert!(head.contains("content-type: application/json"), "{head}");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn stop(self) {
        self.stop.send(true).unwrap();
        self.thread.join().unwrap();
        assert!(TcpStream::connect(self.address).is_err());
    }
}

#[test]
fn readiness_follows_the_facts_and_gives_reasons() {
    let server = Server::start();
    assert_eq!(server.json("/live").0, 200);
    let (status, body) = server.json("/ready");
    assert_eq!((status, &body["ready"]), (503, &Value::Bool(false)));
    assert_eq!(body["reasons"][0]["detail"], "is starting");
    let stage = |done| Stage { name: "feeds", done, needed: 1, total: 7, detail: "okx is silent".into() };
    server.facts.set_engine("portable", "asked for by --io");
    server.facts.set_stage(stage(0));
    let (status, body) = server.json("/ready");
    assert_eq!(status, 503);
    assert_eq!(body["reasons"][0]["what"], "feeds");
    assert_eq!(body["reasons"][0]["detail"], "0 of 7, needs 1: okx is silent");
    server.facts.set_stage(stage(7));
    let (status, body) = server.json("/ready");
    assert_eq!((status, &body["ready"], &body["reasons"]), (200, &Value::Bool(true), &Value::Array(vec![])));
    assert_eq!(body["stages"][0]["done"], 7);
    assert_eq!(body["engine"]["reason"], "asked for by --io");
    server.facts.leave();
    assert_eq!(server.json("/ready").0, 503);
    assert_eq!(server.json("/live").0, 200);
    server.stop();
}

#[test]
fn wrong_paths_and_methods_are_told_the_right_ones() {
    let server = Server::start();
    let (status, body) = server.json("/health");
    assert_eq!((status, &body["error"]), (404, &Value::from("not_found")));
    assert!(body["message"].as_str().unwrap().contains("/ready"));
    let (status, head, _) = server.ask("POST", "/live");
    assert!(status == 405 && head.contains("allow: get, head"), "{head}");
    let (status, head, body) = server.ask("HEAD", "/metrics");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    server.stop();
}

#[test]
fn the_books_close_in_every_reading() {
    let server = Server::start();
    let leave = Arc::new(AtomicBool::new(false));
    let shards: Vec<_> = (0..2)
        .map(|_| {
            let published = Published::new();
            server.facts.add_shard(Arc::clone(&published), RealClock.now().mono);
            let leave = Arc::clone(&leave);
            std::thread::spawn(move || {
                let mut counters = Counters::default();
                while !leave.load(Ordering::Relaxed) {
                    counters.add(Counter::UdpReceived, 3);
                    counters.add(Counter::UdpAnswered, 1);
                    counters.add(Counter::UdpStale, 1);
                    counters.add(Counter::UdpIsAnswer, 1);
                    counters.set(Counter::KernelDropped, 4);
                    published.publish(&counters);
                    std::thread::sleep(Duration::from_micros(20));
                }
                counters.value(Counter::UdpReceived)
            })
        })
        .collect();
    for _ in 0..50 {
        let (status, body) = server.json("/books");
        assert_eq!(status, 200);
        for row in body["shards"].as_array().unwrap().iter().chain([&body["total"]]) {
            assert_eq!(row["difference"], 0, "{body}");
            assert_eq!(row["refused"].as_u64().unwrap(), 2 * row["answered"].as_u64().unwrap());
        }
    }
    leave.store(true, Ordering::Relaxed);
    let received: Vec<u64> = shards.into_iter().map(|shard| shard.join().unwrap()).collect();
    let body = server.json("/books").1;
    assert_eq!(body["shards"][1]["shard"], 1);
    assert_eq!(body["shards"][1]["received"], received[1]);
    assert_eq!(body["total"]["received"], received.iter().sum::<u64>());
    assert_eq!(body["total"]["kernel_dropped"], 8);
    let metrics = server.ask("GET", "/metrics").2;
    let line = format!("\nbeast_request_received_total{{shard=\"0\",transport=\"udp\"}} {}\n", received[0]);
    assert!(metrics.contains(&line), "{metrics}");
    server.stop();
}

#[test]
fn clients_that_say_nothing_do_not_keep_a_probe_out() {
    let server = Server::start();
    let mut silent: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    assert_eq!(server.json("/live").0, 200);
    // The oldest one had to go.
    silent[0].read_to_end(&mut Vec::new()).unwrap();
    server.stop();
}

#[test]
fn a_taken_port_is_an_error_with_its_cure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let taken = bind((Ipv4Addr::LOCALHOST, 0).into(), "--health-port").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address, "--health-port").unwrap_err();
    assert!(error.to_string().starts_with(&format!("TCP {address} cannot be opened: ")), "{error}");
    assert!(error.cure().contains("another by --health-port"));
    // Never given to a machine: documentation's own network.
    let error = bind((Ipv4Addr::new(192, 0, 2, 1), 0).into(), "--health-port").unwrap_err();
    assert!(error.cure().contains("--listen"), "{error}");
    if let Ok(six) = bind((Ipv6Addr::UNSPECIFIED, 0).into(), "--health-port") {
        bind((Ipv4Addr::UNSPECIFIED, six.local_addr().unwrap().port()).into(), "--health-port").unwrap();
    }
}
