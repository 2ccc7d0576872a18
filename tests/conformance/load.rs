//! Many clients at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Target;
use super::clients::{Http, Udp, get, v1_request, v2_request};
use super::running::{settled, v4, wait_until};
use super::udp::is_price;
use beast::wire::v2::Reply;

pub(crate) fn every_address_answers(target: &Target<'_>) {
    assert_eq!((target.udp.len(), target.http.len()), (2, 2), "IPv4 and IPv6");
    for address in &target.udp {
        let client = Udp::to(*address);
        is_price(&client.v1(&v1_request(&target.token, "BTC", "1")), "BTC");
        let reply = client.v2(&v2_request(&target.token, "BTC", 1), &target.token);
        assert!(matches!(reply, Reply::Answer(_)), "{reply:?}");
    }
    for address in &target.http {
        is_price(&Http::to(*address).get("/price?asset=BTC", &target.token).json(), "BTC");
    }
}

/// Sockets of each kind: enough that the kernel gives some to every shard.
const SOCKETS: usize = 24;

/// Rounds in which each of them asks.
const ROUNDS: u64 = 12;

/// Requests under way on a connection at once.
const PIPELINED: usize = 4;

/// What is received is answered, refused or waiting at every moment that can be seen, and in the end
/// as much was received as was sent.
pub(crate) fn the_books_close_under_load(target: &Target<'_>) {
    let before = settled(target.books);
    let (over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!((target.books)().difference(), 0);
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let udp = scope.spawn(|| udp_load(target));
        let http = scope.spawn(|| http_load(target));
        let (udp, http) = (udp.join(), http.join());
        over.store(true, Ordering::Relaxed);
        let sent = udp.unwrap() + http.unwrap();
        wait_until("all that was sent is in the books", || {
            let books = (target.books)();
            books.received + books.kernel_dropped == before.received + before.kernel_dropped + sent
        });
        let books = (target.books)();
        assert_eq!((books.difference(), books.waiting), (0, 0));
        assert_eq!(books.kernel_dropped, before.kernel_dropped);
    });
    assert!(looks.into_inner() > 0);
}

fn udp_load(target: &Target<'_>) -> u64 {
    let sockets: Vec<Udp> = (0..SOCKETS).map(|_| target.udp()).collect();
    let mut sent = 0;
    for round in 0..ROUNDS {
        for (index, socket) in sockets.iter().enumerate() {
            let id = round << 32 | index as u64;
            let asset = ["BTC", "ETH", "NOPE"][(index + usize::try_from(round).unwrap()) % 3];
            socket.send(v1_request(&target.token, asset, &id.to_string()).as_bytes());
            socket.send(&v2_request(&target.token, asset, id));
            sent += 2;
        }
        for (index, socket) in sockets.iter().enumerate() {
            let id = round << 32 | index as u64;
            for _ in 0..2 {
                let answer = socket.receive();
                if answer.starts_with(b"{") {
                    let value: serde_json::Value = serde_json::from_slice(&answer).unwrap();
                    assert_eq!(value["id"], id);
                } else {
                    let key = beast::wire::v2::Key(target.token.v2_answer_key().0);
                    assert_eq!(Reply::parse(&answer, &key).unwrap().request_id(), id);
                }
            }
        }
    }
    sent
}

fn http_load(target: &Target<'_>) -> u64 {
    let address = v4(&target.http);
    let mut connections: Vec<Http> = (0..SOCKETS).map(|_| Http::to(address)).collect();
    let mut sent = 0;
    for _ in 0..ROUNDS {
        for connection in &mut connections {
            let requests: String = ["BTC", "ETH", "NOPE", "SOL"]
                .map(|asset| get(&format!("/price?asset={asset}"), &target.token))
                .concat();
            connection.write(requests.as_bytes());
            sent += PIPELINED as u64;
        }
        for connection in &mut connections {
            for n in 0..PIPELINED {
                assert_eq!(connection.read().status == 404, n == 2);
            }
        }
    }
    sent
}
