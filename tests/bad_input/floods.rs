//! Too many connections, and connections that end in the middle.

use std::io::Write as _;
use std::net::TcpStream;

use beast::config::{Config, IoChoice};
use beast::shard::Counter;

use super::clients::{Http, get};
use super::is_well;
use super::running::{Running, config, wait_until};

const CONNECTIONS_MAX: usize = 64;

/// More connections than a shard may hold, half of them with half a head: those it holds are served,
/// further ones are refused, and once some leave there is room again.
#[test]
fn a_flood_of_connections() {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let running = Running::start(Config { connections_max: CONNECTIONS_MAX, ..config(io, 1) });
        for round in 0..3 {
            let mut first = Http::to(running.http());
            assert_eq!(first.get("/exchanges", &running.token).status, 200);
            let mut flood: Vec<Http> = (0..4 * CONNECTIONS_MAX).map(|_| Http::to(running.http())).collect();
            for http in flood.iter_mut().step_by(2) {
                // It may have been refused already.
                let _refused = http.stream.write_all(b"GET /exchanges HTTP/1.1\r\nHo");
            }
            // Those who were there are served all the time.
            assert_eq!(first.get("/price?asset=BTC", &running.token).status, 200);
            // The last ones are told by the end of their connection.
            for http in flood.iter_mut().skip(3 * CONNECTIONS_MAX) {
                assert!(http.closes(), "{io:?}: no refusal, round {round}");
            }
            let refused =
                || running.count(Counter::ConnectionRefused) >= (2 * CONNECTIONS_MAX * (round + 1)) as u64;
            wait_until("the refusals are counted", refused);
            drop(flood);
            wait_until("there is room again", || {
                let mut http = Http::to(running.http());
                http.stream.write_all(get("/exchanges", &running.token).as_bytes()).is_ok()
                    && http.try_read(false).is_ok_and(|response| response.status == 200)
            });
            assert_eq!(first.get("/price?asset=BTC", &running.token).status, 200);
        }
        wait_until("the flood is gone", || {
            let counters = running.counters();
            let value = |counter| counters[0].value(counter);
            // Feeds are connections, too, and are not counted here.
            value(Counter::ConnectionAccepted) <= value(Counter::ConnectionClosed) + 2
        });
        is_well(&running);
        running.leave();
    }
}

/// Connections are reset with answers under way, with half a head sent, and with nothing sent.
#[test]
fn resets_in_the_middle() {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let running = Running::start(config(io, 2));
        let long = get("/assets", &running.token).repeat(200);
        let mut steady = Http::to(running.http());
        for n in 0..200 {
            let mut stream = TcpStream::connect(running.http()).unwrap();
            match n % 4 {
                0 => {}
                1 => stream.write_all(&long.as_bytes()[..50]).unwrap(),
                // Closing with answers unread is a reset.
                2 => stream.write_all(&long.as_bytes()[..long.len() / 200 + 50]).unwrap(),
                _ => {
                    // The other side may stop reading before all is written.
                    stream.set_write_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
                    let _partly = stream.write_all(long.as_bytes());
                }
            }
            drop(stream);
            if n % 10 == 0 {
                assert_eq!(steady.get("/price?asset=BTC", &running.token).json()["asset"], "BTC");
            }
        }
        drop(steady);
        wait_until("all connections are closed", || {
            running.count(Counter::ConnectionAccepted) == running.count(Counter::ConnectionClosed)
        });
        is_well(&running);
        running.leave();
    }
}
