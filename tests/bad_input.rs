//! Bad input of every kind against a running appliance on both engines. After each: the process is
//! alive, the books close, and a good request is answered with its own answer.

#[path = "support/clients.rs"]
mod clients;
#[path = "bad_input/datagrams.rs"]
mod datagrams;
#[path = "bad_input/floods.rs"]
mod floods;
#[path = "bad_input/heads.rs"]
mod heads;
#[path = "support/running.rs"]
mod running;

use beast::config::IoChoice;
use beast::wire::v2::Reply;
use clients::{Http, Udp, v1_request, v2_request};
use running::{Running, config};

/// An appliance on each engine, with two shards.
fn on_both_engines(test: impl Fn(&Running)) {
    for io in [IoChoice::Uring, IoChoice::Portable] {
        let running = Running::start(config(io, 2));
        test(&running);
        is_well(&running);
        running.leave();
    }
}

/// The process is alive, the books close, and good requests get their own answers.
fn is_well(running: &Running) {
    let token = &running.token;
    for n in 0..4 {
        let client = Udp::to(running.udp());
        let answer = client.v1(&v1_request(token, "BTC", &format!("\"well-{n}\"")));
        assert_eq!(
            (&answer["asset"], &answer["id"]),
            (&"BTC".into(), &format!("well-{n}").into()),
            "{answer}"
        );
        match client.v2(&v2_request(token, "ETH", n), token) {
            Reply::Answer(answer) => assert_eq!((answer.request_id, answer.symbol.as_str()), (n, "ETH")),
            other => panic!("{other:?}"),
        }
        assert_eq!(Http::to(running.http()).get("/price?asset=ETH", token).json()["asset"], "ETH");
    }
    let books = running.settled();
    assert_eq!((books.difference(), books.waiting), (0, 0));
}
