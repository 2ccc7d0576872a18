//! What only a whole process shows, and only with a topology that the machine of the test may not have.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Appliance, Topology};
use crate::config::Config;
use crate::engine::probe::{Choice, Chosen};
use crate::shard::Counter;
use crate::store::Store;
use crate::sys::pin;

fn status(http: SocketAddr, key: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {key}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_revoked_key_stops_on_every_shard_also_where_feeds_have_a_thread_of_their_own() {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: data.path().join("data"),
        listen: vec![Ipv4Addr::LOCALHOST.into()],
        udp_port: 0,
        http_port: 0,
        health_port: 0,
        report_health_port: 0,
        report_port: 0,
        report_udp_port: 0,
        ..Config::default()
    };
    config.rest.prewarm = false;
    for exchange in crate::exchange_sim::Exchange::ALL {
        let row = "enabled = false".parse().unwrap();
        config.feeds.insert(exchange.to_string(), row);
    }
    let topology = Topology {
        engine: Chosen::Portable,
        shards: vec![None],
        feed_core: Some(pin::cpus().unwrap()[0]),
        listen: config.listen.clone(),
    };
    let engine = Choice { engine: Chosen::Portable, why: "a test".into() };
    let appliance = Appliance::start_on(&config, engine, topology, None, |_| Ok(())).unwrap();
    let token = appliance.first_key.unwrap();
    let key = token.reveal();
    let http = appliance.addresses.http[0];
    assert_ne!(status(http, &key), "401");
    let store = Store::open(&config.data_dir).unwrap();
    store.revoke(&key).unwrap();
    let started = Instant::now();
    while status(http, &key) != "401" {
        assert!(started.elapsed() < Duration::from_secs(30), "the revoked key goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    // By now each thread has kept house many times.
    let counted = appliance.facts.counters();
    assert_eq!((counted.len(), appliance.published.len(), appliance.turning.len()), (2, 1, 2));
    assert!(counted[1].value(Counter::Turn) > 0, "the feed thread is seen to turn");
    appliance.leave().unwrap();
}
