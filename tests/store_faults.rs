//! The real program while its store is locked, or stopped and started again: answers go on, the
//! operator is told, and every record is in the store once at the end.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests inside src")]
mod postgres;
#[path = "support/running.rs"]
mod running;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use beast::store::{Store, StoreOptions, StoreUrl};
use clients::{Udp, v1_request};
use running::{Process, v4, wait_until};

/// What one run of the program has answered, and its store.
struct World {
    server: Process,
    answered: i64,
}

impl World {
    fn start(data: &Path, args: &[&str]) -> Self {
        Self { server: Process::start(data, args), answered: 0 }
    }

    /// Asks so many times, and each time there is an answer.
    fn ask(&mut self, count: i64) {
        let socket = Udp::to(v4(&self.server.udp));
        for n in 0..count {
            let answer = socket.v1(&v1_request(&self.server.token, "BTC", &n.to_string()));
            // On a machine that is busy with other things a price may be stale; that is written down too.
            assert!(answer["price"].is_string() || answer["error"] == "stale", "{answer}");
            self.answered += 1;
        }
    }

    fn drained(&self) -> i64 {
        metric(self.server.health, "beast_drain_record_total")
    }

    /// Waits until the operator is told that usage does not reach the store.
    fn wait_for_trouble(&self, says: &str) {
        wait_until("the drain fails", || metric(self.server.health, "beast_drain_failing") == 1);
        wait_until("it is ready without its store", || get(self.server.health, "/ready").0 == 200);
        let (_, ready) = get(self.server.health, "/ready");
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let stages = ready["stages"].as_array().unwrap();
        let stage = stages.iter().find(|stage| stage["name"] == "drain").unwrap();
        wait_until("/ready tells of it", || {
            let (_, ready) = get(self.server.health, "/ready");
            ready.contains(says) && ready.contains("are still to be drained")
        });
        assert_eq!(stage["needed"], 0);
        let lag = |ready: &str| metric(self.server.health, ready);
        assert!(lag("beast_drain_lag_records") > 0);
        let line = self.server.line_with("usage does not reach the store");
        assert!(line.contains(says) && line.contains("Answers go on"), "{line}");
    }

    fn wait_for_all(&self) {
        wait_until("all is drained", || {
            self.drained() == self.answered && metric(self.server.health, "beast_drain_failing") == 0
        });
        let line = self.server.line_with("usage reaches the store again");
        assert!(line.contains(" after "), "{line}");
    }
}

fn get(server: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn metric(server: SocketAddr, name: &str) -> i64 {
    let (_, text) = get(server, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn sum(store: &Store, table: &str, column: &str) -> i64 {
    let sql = format!("SELECT CAST(coalesce(sum({column}), 0) AS BIGINT) FROM {table}");
    store.lend("test").unwrap().query_one(&sql, &[]).unwrap().int(0).unwrap()
}

fn check(store: &Store, answered: i64) {
    for table in ["usage_seconds", "usage_hours", "usage_key_hours", "usage_asset_hours", "usage_months"] {
        assert_eq!(sum(store, table, "requests"), answered, "{table}");
    }
    assert_eq!(sum(store, "drained_records", "records"), answered);
    assert_eq!(sum(store, "drained_chains", "next_sequence"), answered);
    assert_eq!(sum(store, "drained_chains", "missing"), 0);
}

#[test]
fn a_locked_sqlite_loses_nothing_and_answers_go_on() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut world = World::start(&data, &["--shards=2"]);
    world.ask(50);
    let store = Store::open(&data).unwrap();
    let mut holder = store.lend("test").unwrap();
    holder
        .transaction("hold the lock", |_| {
            world.ask(100);
            world.wait_for_trouble("database is locked");
            world.ask(50);
            Ok(())
        })
        .unwrap();
    drop(holder);
    world.ask(10);
    world.wait_for_all();
    // What was answered last is drained while the process leaves.
    world.ask(25);
    let World { server, answered } = world;
    assert_eq!(server.leave(), Some(0));
    check(&store, answered);
}

/// How long PostgreSQL is away while requests go on.
const OUTAGE: Duration = Duration::from_secs(60);

#[test]
fn a_postgres_that_stops_and_comes_back_loses_nothing_and_answers_go_on() {
    let Some(server) = postgres::Server::start() else { return };
    let url = server.new_database();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut world = World::start(&data, &["--shards=2", "--store", &url]);
    assert!(world.server.said.iter().any(|line| line.starts_with(&format!("store    {url}, start 1"))));
    assert!(!data.join("beast.sqlite").exists());
    world.ask(50);
    server.stop();
    world.ask(100);
    world.wait_for_trouble("PostgreSQL");
    let back = Instant::now() + OUTAGE;
    while Instant::now() < back {
        world.ask(5);
        std::thread::sleep(Duration::from_millis(500));
    }
    server.start_again();
    world.ask(10);
    world.wait_for_all();
    world.ask(25);
    // It stops again, and this time for longer than the process lives: the next start drains the rest.
    server.stop();
    world.ask(25);
    let World { server: process, answered } = world;
    assert_eq!(process.leave(), Some(0));
    server.start_again();

    let mut world = World { answered: 0, ..World::start(&data, &["--shards=2", "--store", &url]) };
    world.ask(5);
    let all = world.answered + answered;
    let options = StoreOptions { url: StoreUrl::parse(&url), ..data.as_path().into() };
    let store = Store::open(options).unwrap();
    wait_until("all is drained", || sum(&store, "usage_months", "requests") == all);
    assert_eq!(world.server.leave(), Some(0));
    check(&store, all);
}
