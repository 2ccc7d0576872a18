//! The whole program with answers in the kernel, on a veth pair between two network namespaces, with a
//! real client: in the driver and in the stack. Needs root; without it these tests fail.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;
#[path = "support/veth.rs"]
mod veth;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use beast::account::Token;
use beast::limits::XDP_SHARD_FIRST;
use beast::wire::ErrorCode;
use beast::wire::v2::{Key, Reply};
use clients::{Udp, v1_request, v2_request, v2_request_at};
use running::{Process, settled, wait_until};
use veth::{SERVER_IF, Veth};

const LISTEN: [&str; 4] = ["--listen", "10.77.0.1", "--listen", "fd77::1"];

fn serve(data: &std::path::Path, veth: &Veth, mode: &str, more: &[&str]) -> Process {
    veth.enter_server();
    let on = format!("{SERVER_IF}:{mode}");
    let mut args = vec!["--xdp", &on, "--shards", "2", "--set=drain_s=1"];
    args.extend(LISTEN);
    args.extend(more);
    Process::start(data, &args)
}

/// Runs a client on its own machine.
fn as_client<T: Send>(veth: &Veth, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            veth.enter_client();
            work()
        });
        client.join().unwrap()
    })
}

/// The shard that answered, `None` when there was no price.
fn shard_of(reply: &Reply) -> Option<u16> {
    match reply {
        Reply::Answer(answer) => Some(answer.record.shard),
        _ => None,
    }
}

/// Asks until the kernel answers: a price reaches it a moment after the shards. Returns how often.
fn until_in_kernel(client: &Udp, token: &Token, asset: &str) -> u64 {
    let mut asked = 0;
    wait_until("the kernel answers", || {
        asked += 1;
        let reply = client.v2(&v2_request(token, asset, u64::MAX - asked), token);
        shard_of(&reply).is_some_and(|shard| shard >= XDP_SHARD_FIRST)
    });
    asked
}

/// One metric of the process, over all shards.
fn metric(health: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(health).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let all = text.lines().filter(|line| {
        let (series, labels) = name.split_once(' ').unwrap_or((name, ""));
        line.starts_with(series) && line.contains(labels)
    });
    all.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_client_is_answered_in_the_driver() {
    everything("native");
}

#[test]
fn a_client_is_answered_in_the_stack() {
    everything("generic");
}

fn everything(mode: &str) {
    let veth = Veth::new();
    let data = tempfile::tempdir().unwrap();
    let server = serve(&data.path().join("data"), &veth, mode, &[]);
    let line = server.said.iter().find(|line| line.starts_with("xdp ")).unwrap();
    assert!(line.contains(&format!("{mode} on {SERVER_IF}")) && line.contains("fd77::1"), "{line}");
    let token = server.token;
    let in_kernel = |reply: &Reply| shard_of(reply).is_some_and(|shard| shard >= XDP_SHARD_FIRST);
    let mut id = 0;
    let mut asked = 0;
    for offload in [true, false] {
        veth.client_feature("tx", offload);
        for address in &server.udp {
            (id, asked) = as_client(&veth, || {
                let (mut id, mut asked) = (id, asked);
                let client = Udp::to(*address);
                let mut next = || {
                    id += 1;
                    id
                };
                for asset in ["BTC", "ETH", "SOL", "XRP", "DOGE"] {
                    asked += until_in_kernel(&client, &token, asset);
                    for _ in 0..20 {
                        let id = next();
                        let reply = client.v2(&v2_request(&token, asset, id), &token);
                        assert!(in_kernel(&reply), "{asset}: {reply:?}");
                        let Reply::Answer(answer) = reply else { unreachable!() };
                        assert_eq!((answer.request_id, answer.symbol.as_str()), (id, asset));
                        asked += 1;
                    }
                }
                // What the kernel is not sure of is answered or refused by a shard.
                let reply = client.v2(&v2_request(&token, "NOPE", next()), &token);
                assert!(matches!(reply, Reply::Refused(r) if r.code == ErrorCode::UnknownAsset), "{reply:?}");
                let mut long = v2_request(&token, "BTC", next());
                long.resize(200, 0);
                let reply = client.v2(&long, &token);
                assert!(shard_of(&reply).is_some_and(|shard| shard < 2), "{reply:?}");
                let reply = client.v2(&v2_request_at(&token, "BTC", next(), 1), &token);
                assert!(matches!(reply, Reply::Refused(r) if r.code == ErrorCode::Expired), "{reply:?}");
                assert!(client.v1(&v1_request(&token, "BTC", "1"))["price"].is_string());
                asked += 4;
                (id, asked)
            });
        }
    }
    let books = settled(&|| server.books());
    assert_eq!((books.received, books.waiting, books.kernel_dropped), (asked, 0, 0));
    assert!(metric(server.health, "beast_request_answered_total transport=\"xdp\"") >= 420);
    assert_eq!(metric(server.health, "beast_xdp_passed_total reason=\"asset\""), 4);
    assert_eq!(server.leave(), Some(0));
}

#[test]
fn a_revoked_key_stops() {
    let veth = Veth::new();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = serve(&data, &veth, "native", &[]);
    let keys = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_beast"));
        let output = command.arg("keys").args(args).arg("--data").arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let token = server.token;
    let address = server.udp[0];
    as_client(&veth, || {
        until_in_kernel(&Udp::to(address), &token, "BTC");
    });
    let id = beast::account::public_text(token.public_id());
    keys(&["revoke", id.as_str()]);
    as_client(&veth, || {
        let client = Udp::to(address);
        wait_until("the revoked key is refused", || {
            let answer = client.ask(&v2_request(&token, "BTC", 2));
            std::thread::sleep(Duration::from_millis(50));
            let reply = Reply::parse(&answer, &Key(token.v2_answer_key().0)).unwrap();
            matches!(reply, Reply::RefusedUnsigned(refusal) if refusal.code == ErrorCode::Unauthorized)
        });
    });
    assert_eq!(server.leave(), Some(0));
}

#[test]
fn a_program_that_stays_answers_until_prices_are_stale_and_nothing_is_lost() {
    let veth = Veth::new();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let stays = ["--set=xdp_stays=true"];
    let server = serve(&data, &veth, "native", &stays);
    let (token, address) = (server.token, server.udp[0]);
    as_client(&veth, || until_in_kernel(&Udp::to(address), &token, "BTC"));
    // What was answered until now is in the journal.
    std::thread::sleep(Duration::from_millis(200));
    server.kill();
    let answered = as_client(&veth, || {
        let client = Udp::to(address);
        client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (mut answered, mut buffer) = (0_u64, [0; 2_048]);
        let ask = |id: u64, buffer: &mut [u8]| {
            client.0.send(&v2_request(&token, "BTC", id)).is_ok() && client.0.recv(buffer).is_ok()
        };
        assert!(ask(1, &mut buffer), "it answers when the process has gone");
        answered += 1;
        wait_until("prices are no longer fresh", || {
            let came = ask(answered + 1, &mut buffer);
            answered += u64::from(came);
            std::thread::sleep(Duration::from_millis(20));
            !came
        });
        answered
    });
    let next = serve(&data, &veth, "native", &stays);
    let note = next.said.iter().find(|line| line.contains("an earlier start has left")).unwrap();
    assert!(note.contains(&format!(" {answered} answers")), "{answered}: {note}");
    as_client(&veth, || {
        until_in_kernel(&Udp::to(next.udp[0]), &token, "BTC");
    });
    assert_eq!(next.leave(), Some(0));
    // A start without the program takes in what is left, and takes the program off.
    veth.enter_server();
    let mut args = vec!["--shards", "1"];
    args.extend(LISTEN);
    let last = Process::start(&data, &args);
    as_client(&veth, || {
        // The kernel lets go of a program some time after its last file is gone.
        wait_until("the shard answers again", || {
            let reply = Udp::to(last.udp[0]).v2(&v2_request(&token, "BTC", 1), &token);
            shard_of(&reply) == Some(0)
        });
    });
}
