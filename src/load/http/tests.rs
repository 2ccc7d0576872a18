//! Real connections to small servers.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;

use super::*;

/// Serves `connections` connections, each request with what `answer` says; `None` closes.
fn server(
    connections: usize,
    answer: impl Fn(usize) -> Option<Vec<u8>> + Send + Clone + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for n in 0.. {
                    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                    let Some(bytes) = answer(n) else { return };
                    // In two parts, so that an answer is met that has not come whole.
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    if stream.write_all(first).and_then(|()| stream.write_all(second)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Loads until `enough`, or for as long as any machine needs.
fn load(address: SocketAddr, pipeline: usize, enough: impl Fn(&Tally) -> bool) -> Tally {
    let options = HttpLoadOptions { connections: 4, pipeline, ..HttpLoadOptions::new(address) };
    let exchange = |n: u8| HttpExchange {
        request: format!("GET /{n} HTTP/1.1\r\nhost: x\r\n\r\n").into(),
        expect: Expect::Start(b"{\"ok".to_vec()),
    };
    let mut load = HttpLoad::open(options, vec![exchange(1), exchange(2)]).unwrap();
    let mut tally = Tally::new();
    for _ in 0..200 {
        tally.add(&load.run(Duration::from_millis(20)).unwrap());
        if enough(&tally) {
            break;
        }
    }
    tally.add(&load.finish().unwrap());
    assert_eq!(load.in_flight(), 0);
    let Tally { sent, matched, wrong, overdue, .. } = tally;
    assert_eq!(sent, matched + tally.refused() + wrong + overdue, "{tally:?}");
    tally
}

fn ok() -> Option<Vec<u8>> {
    Some(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\":true}".to_vec())
}

#[test]
fn every_answer_is_matched() {
    for pipeline in [1, 5] {
        let tally = load(server(4, |_| ok()), pipeline, |tally| tally.matched > 10);
        assert!(tally.matched > 0);
        assert_eq!((tally.matched, tally.wrong), (tally.sent, 0), "{tally:?}");
        assert_eq!(tally.statuses[&200], tally.sent);
    }
}

#[test]
fn closed_connections_are_opened_again_and_wrong_answers_counted() {
    let address = server(10_000, |n| match n {
        1 => Some(b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\n{\"o".to_vec()),
        2 => Some(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{\"e".to_vec()),
        5 => None,
        _ => ok(),
    });
    let all = |tally: &Tally| {
        let refused = tally.refused_by_status.get(&503).is_some_and(|n| *n > 0);
        let Tally { matched, wrong, overdue, reconnected, .. } = tally;
        refused && [matched, wrong, overdue, reconnected].into_iter().all(|n| *n > 0)
    };
    let tally = load(address, 1, all);
    assert!(all(&tally), "{tally:?}");
}

#[test]
fn a_connection_whose_answer_never_comes_is_opened_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            if n == 0 {
                silent.push(stream);
                continue;
            }
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            while lines.any(|line| line.is_empty()) {
                if stream.write_all(&ok().unwrap()).is_err() {
                    break;
                }
            }
        }
    });
    let lost_after = Duration::from_millis(20);
    let options = HttpLoadOptions { connections: 1, lost_after, ..HttpLoadOptions::new(address) };
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let mut load = HttpLoad::open(options, vec![HttpExchange { request, expect: Expect::Any }]).unwrap();
    let mut tally = Tally::new();
    for _ in 0..500 {
        tally.add(&load.run(Duration::from_millis(20)).unwrap());
        if tally.matched > 0 {
            break;
        }
    }
    assert!(tally.matched > 0 && tally.reconnected > 0 && tally.overdue > 0, "{tally:?}");
}
