//! The whole program with answers in the kernel, on a veth pair between two network namespaces, with a
//! real client: in the driver and in the stack. Needs root; without it these tests fail.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;
#[path = "support/veth.rs"]
mod veth;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use beast::account::{Tier, Token, public_text};
use beast::limits::XDP_SHARD_FIRST;
use beast::store::{NewKey, Store};
use beast::wire::ErrorCode;
use beast::wire::v2::{Key, Reply};
use clients::{Http, Udp, v1_request, v2_request, v2_request_at};
use running::{PATIENCE, Process, settled, wait_until};
use veth::{SERVER_IF, Veth};

const LISTEN: [&str; 4] = ["--listen", "10.77.0.1", "--listen", "fd77::1"];

fn serve(data: &Path, veth: &Veth, mode: &str, more: &[&str]) -> Process {
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
    let id = public_text(token.public_id());
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

/// Requests a second of the limited tier. A client that asks for less finds no limit: any machine must
/// manage more.
const QPS: u32 = 500;

/// Requests at once. The longest lease is then 26 for each of two shards and the kernel.
const BURST: u32 = 20_000;

/// Shards beside the kernel.
const SHARDS: usize = 2;

/// For how long it is asked at least, so that the rate has its part in what is admitted.
const LOAD: Duration = Duration::from_secs(3);

/// Requests under way at a time: the buffers of both sockets and the rings of a veth hold many more.
const BATCH: u64 = 64;

#[test]
fn a_limited_key_has_one_allowance_over_sockets_and_the_driver() {
    limited("native");
}

#[test]
fn a_limited_key_has_one_allowance_over_sockets_and_the_stack() {
    limited("generic");
}

fn limited(mode: &str) {
    let veth = Veth::new();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // The key is there before the server is. One that a shard does not know yet is a stranger's, and
    // strangers get only ten replies a second: whoever polls until a key is known loses datagrams.
    let token = folder_with_limited_key(&data);
    let server = serve(&data, &veth, mode, &[]);
    let (first, address) = (server.token, server.udp[0]);
    let asked = as_client(&veth, || {
        let client = Udp::to(address);
        // One at a time, with a key that has no limits: the neighbours know each other afterwards, whose
        // queue would not hold a batch.
        let before = until_in_kernel(&client, &first, "BTC");
        let mut asked = Asked { before, ..Asked::default() };
        asked.more_than_allowed(&client, &token).map(|()| asked)
    });
    let suppressed = server.metric("beast_reply_suppressed_total");
    let asked = asked.unwrap_or_else(|missing| {
        panic!("{missing}; {suppressed} replies were suppressed; {:?}\n{}", server.books(), veth.counts())
    });
    eprintln!("{mode}: {asked:?}");
    asked.is_within_one_percent();
    assert_eq!(suppressed, 0);

    let books = settled(&|| server.books());
    let admitted = asked.kernel + asked.v2 + asked.v1;
    let refused = asked.v2_refused + asked.v1_refused;
    let received = asked.before + admitted + refused;
    assert_eq!((books.received, books.waiting, books.kernel_dropped), (received, 0, 0));
    assert_eq!((books.answered, books.refused), (asked.before + admitted, refused));
    // Of those before, the kernel gave the last answer.
    assert_eq!(metric(server.health, "beast_request_answered_total transport=\"xdp\""), asked.kernel + 1);
    server.drained();
    assert_eq!(reported(&server, &token, "udp-v2"), (asked.kernel + asked.v2, asked.v2_refused));
    assert_eq!(reported(&server, &token, "udp-v1"), (asked.v1, asked.v1_refused));
    assert_eq!(server.leave(), Some(0));
}

/// Makes a data folder with the key a first start makes, and a limited one, which it returns.
fn folder_with_limited_key(data: &Path) -> Token {
    let store = Store::open(data).unwrap();
    store.first_key(|first| beast::store::write_first_key(data, first).map(drop)).unwrap();
    let tier = Tier { name: "live".into(), unlimited: false, qps: QPS, burst: BURST, monthly: None };
    store.put_tier(&tier).unwrap();
    let new = NewKey {
        account: "limits".into(),
        tier: "live".into(),
        networks: vec![],
        note: String::new(),
        admin: false,
        expires: None,
    };
    store.add_key(&new).unwrap()
}

/// What a report says was answered and refused of a key's requests in one protocol.
fn reported(server: &Process, token: &Token, transport: &str) -> (u64, u64) {
    let listen = server.said.iter().find(|line| line.starts_with("listen ")).unwrap();
    let (_, reports) = listen.split_once("; reports ").unwrap();
    let mut http = Http::to(reports.split([',', ';']).next().unwrap().trim().parse().unwrap());
    let target = format!("/reports/usage/summary?by=transport&key={}", public_text(token.public_id()));
    let rows = http.get(&target, &server.token).json();
    let row = rows["rows"].as_array().unwrap().iter().find(|row| row["transport"] == transport);
    let number = |name: &str| row.and_then(|row| row[name].as_u64()).unwrap_or_else(|| panic!("{rows}"));
    (number("answered"), number("refused"))
}

/// What a client asked with a limited key, and the rule it is held against.
#[derive(Debug, Default)]
struct Asked {
    /// With the key that has no limits, before.
    before: u64,
    /// Answered by the kernel, and by shards in two protocols.
    kernel: u64,
    v2: u64,
    v1: u64,
    /// Refused for the rate.
    v2_refused: u64,
    v1_refused: u64,
    /// What one exact limiter admits at least and at most, as far as a client can time it.
    least: f64,
    most: f64,
}

impl Asked {
    /// Asks for the burst and for more than the rate afterwards, in batches of which part is the
    /// kernel's to answer. `Err` says what was not answered.
    fn more_than_allowed(&mut self, client: &Udp, token: &Token) -> Result<(), String> {
        let burst = f64::from(BURST);
        let paid_by = |time: Duration| time.as_secs_f64() * f64::from(QPS);
        let begun = Instant::now();
        // An exact limiter beside the server: full, and paid for from the first replies on.
        let (mut left, mut paid_at, mut longest) = (burst, None, Duration::ZERO);
        let mut next = 0;
        loop {
            let (sent, before) = (Instant::now(), self.admitted());
            let mut open = BTreeSet::new();
            for id in next..next + BATCH {
                client.send(&Self::request(token, id));
                open.insert(id);
            }
            next += BATCH;
            while !open.is_empty() {
                let mut buffer = [0; 2_048];
                let Ok(len) = client.0.recv(&mut buffer) else {
                    return Err(format!("of {next} requests there is no reply to {open:?}"));
                };
                let id = self.take(&buffer[..len], token);
                assert!(open.remove(&id), "{id} was answered twice, or late");
            }
            let replied = Instant::now();
            longest = longest.max(replied - sent);
            left = (left + paid_at.map_or(0.0, |at| paid_by(sent.saturating_duration_since(at)))).min(burst);
            paid_at = Some(paid_at.map_or(replied, |at: Instant| at.max(sent)));
            let taken = left.min(BATCH as f64);
            left -= taken;
            self.least += taken;
            if begun.elapsed() >= LOAD && self.admitted() - before < BATCH && self.each_had_a_part() {
                self.most = burst + paid_by(begun.elapsed());
                // The server saw a batch at some time between its first request and its last reply.
                self.least -= paid_by(longest);
                return Ok(());
            }
            assert!(begun.elapsed() < 3 * PATIENCE, "too slow to ask for more than allowed: {self:?}");
        }
    }

    /// Half of them for the kernel; longer ones and those of the first version are a shard's.
    fn request(token: &Token, id: u64) -> Vec<u8> {
        match id % 4 {
            0 => v1_request(token, "BTC", &id.to_string()).into_bytes(),
            2 => {
                let mut longer = v2_request(token, "BTC", id);
                longer.resize(96, 0);
                longer
            }
            _ => v2_request(token, "BTC", id),
        }
    }

    /// Counts a reply; which request it is to.
    fn take(&mut self, reply: &[u8], token: &Token) -> u64 {
        if reply.first() == Some(&b'{') {
            let reply: serde_json::Value = serde_json::from_slice(reply).unwrap();
            if reply["price"].is_string() {
                self.v1 += 1;
            } else {
                assert_eq!(reply["error"], "rate_limited", "{reply}");
                self.v1_refused += 1;
            }
            return reply["id"].as_u64().unwrap();
        }
        match Reply::parse(reply, &Key(token.v2_answer_key().0)).unwrap() {
            Reply::Answer(answer) => {
                let in_kernel = answer.record.shard >= XDP_SHARD_FIRST;
                *(if in_kernel { &mut self.kernel } else { &mut self.v2 }) += 1;
                answer.request_id
            }
            Reply::Refused(refusal) if refusal.code == ErrorCode::RateLimited => {
                self.v2_refused += 1;
                refusal.request_id
            }
            other => panic!("{other:?}"),
        }
    }

    fn admitted(&self) -> u64 {
        self.kernel + self.v2 + self.v1
    }

    /// What is promised: 1 %, and a request for each that holds leases.
    fn is_within_one_percent(&self) {
        let admitted = self.admitted() as f64;
        let margin = |allowed: f64| allowed / 100.0 + (SHARDS + 1) as f64;
        assert!(admitted <= self.most + margin(self.most), "more than allowed: {self:?}");
        assert!(admitted >= self.least - margin(self.least), "less than allowed: {self:?}");
    }

    /// Whether there is enough of everything for the sum to say something.
    fn each_had_a_part(&self) -> bool {
        [self.kernel, self.v2, self.v1, self.v2_refused, self.v1_refused].iter().all(|count| *count > 100)
    }
}
