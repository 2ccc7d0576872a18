//! Kills the real program at random instants under load, again and again over one data folder. What
//! clients have received must be in the books exactly once, and no more than was in flight besides.
//!
//! `BEAST_KILLS` says how often, 200 unless it is set.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;
#[path = "support/veth.rs"]
mod veth;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use beast::account::Token;
use beast::backoffice::{Drain, DrainOptions};
use beast::ledger::{Journal, JournalOptions, Record, RecordId, Transport};
use beast::limits::XDP_SHARD_FIRST;
use beast::store::Store;
use beast::wire::v2::{Key, Reply};
use clients::{Http, Udp, get, v1_request, v2_request};
use running::{Process, v4};
use veth::{SERVER_IF, Veth};

/// Requests each client has under way.
const WINDOW: u64 = 16;

/// How long a client listens before it looks whether the server was killed.
const LISTEN: Duration = Duration::from_millis(5);

/// The server is killed after at most so many microseconds of load.
const LOAD_US_MAX: u64 = 120_000;

#[test]
fn killed_under_uring_every_answer_is_in_the_books_once() {
    series("uring", &["--io", "uring"], 100, None);
}

#[test]
fn killed_under_epoll_every_answer_is_in_the_books_once() {
    series("portable", &["--io", "portable"], 100, None);
}

#[test]
fn killed_with_answers_in_the_kernel_every_answer_is_in_the_books_once() {
    let veth = Veth::new();
    veth.enter_server();
    let args = ["--listen", "10.77.0.1", "--xdp", &format!("{SERVER_IF}:native")];
    series("xdp", &args, 100, Some(&veth));
}

/// So many of 200 kills, in one way of running.
fn series(what: &str, args: &[&str], share: u64, veth: Option<&Veth>) {
    let kills = std::env::var("BEAST_KILLS").map_or(200, |kills| kills.parse().unwrap()) * share / 200;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (numbers, mut random) = (AtomicU64::new(1), Random(0x5eed_0000 + what.len() as u64));
    let mut runs = Vec::new();
    for _ in 0..kills {
        // Small batches, so that many kills meet the drain between two of them or inside one.
        let small = ["--shards", "2", "--set", "store.batch_ms=3"];
        let server = Process::start(&data, &[args, &small].concat());
        let said = server.said.iter().find_map(|line| line.split_once(", start ")).unwrap();
        let epoch: u32 = said.1.parse().unwrap();
        let load_for = Duration::from_micros(random.below(LOAD_US_MAX));
        let seen = load(server, load_for, &numbers, veth);
        runs.push((epoch, seen));
    }
    // What the last one has left, in the kernel too, is taken in by a start, and drained.
    let server = Process::start(&data, &[args, &["--shards", "2"]].concat());
    server.drained();
    assert_eq!(server.leave(), Some(0));
    let (answered, recorded) = check(&data, &runs);
    assert_eq!(months(&data), recorded, "the month's count is that of all records of answers");
    let in_flight: u64 = runs.iter().map(|(_, seen)| seen.in_flight()).sum();
    eprintln!("{what}: {kills} kills, {answered} answers received, {in_flight} requests in flight");
    assert!(answered > 50 * kills, "hardly any load");
    assert!(in_flight > kills, "hardly any kill under load");
    let by_kernel: usize = runs.iter().map(|(_, seen)| seen.by_kernel()).sum();
    eprintln!("{what}: {by_kernel} of the answers came from the kernel");
    if veth.is_some() {
        assert!(by_kernel as u64 > 50 * kills, "hardly any answer came from the kernel");
    }
}

/// What the clients of one run saw; requests are numbered over all runs.
#[derive(Default)]
struct Seen {
    sent: BTreeMap<u64, Transport>,
    /// With the identity of the record, where the answer carries one.
    answered: BTreeMap<u64, Option<RecordId>>,
    refused: BTreeSet<u64>,
}

impl Seen {
    fn in_flight(&self) -> u64 {
        (self.sent.len() - self.answered.len() - self.refused.len()) as u64
    }

    /// Answers whose record a program in the kernel wrote.
    fn by_kernel(&self) -> usize {
        self.answered.values().flatten().filter(|record| record.shard >= XDP_SHARD_FIRST).count()
    }

    fn answer(&mut self, number: u64, record: Option<RecordId>) {
        assert!(self.sent.contains_key(&number), "an answer to nothing that was sent: {number}");
        assert!(self.answered.insert(number, record).is_none(), "{number} was answered twice");
    }

    fn merge(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.answered.extend(other.answered);
        self.refused.extend(other.refused);
    }
}

/// Loads the server with all protocols, kills it after a while, and tells what was seen.
fn load(server: Process, load_for: Duration, numbers: &AtomicU64, veth: Option<&Veth>) -> Seen {
    let (udp, http, token) = (v4(&server.udp), v4(&server.http), server.token);
    let killed = &AtomicBool::new(false);
    let mut seen = Seen::default();
    let go = || {
        if let Some(veth) = veth {
            veth.enter_client();
        }
    };
    std::thread::scope(|scope| {
        let clients = [
            scope.spawn(|| (go(), ask_v1(udp, &token, numbers, killed)).1),
            scope.spawn(|| (go(), ask_v2(udp, &token, numbers, killed)).1),
            scope.spawn(|| (go(), ask_http(http, &token, numbers, killed)).1),
        ];
        std::thread::sleep(load_for);
        server.kill();
        killed.store(true, Ordering::Release);
        for client in clients {
            seen.merge(client.join().unwrap());
        }
    });
    seen
}

fn ask_v1(server: SocketAddr, token: &Token, numbers: &AtomicU64, killed: &AtomicBool) -> Seen {
    let request = |n: u64| v1_request(token, "BTC", &n.to_string()).into_bytes();
    ask_udp(server, (numbers, killed), Transport::UdpV1, request, |answer, seen| {
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
        let number = answer["id"].as_u64().unwrap();
        match answer["price"] {
            serde_json::Value::String(_) => seen.answer(number, None),
            _ => assert!(seen.refused.insert(number)),
        }
    })
}

fn ask_v2(server: SocketAddr, token: &Token, numbers: &AtomicU64, killed: &AtomicBool) -> Seen {
    let key = Key(token.v2_answer_key().0);
    let request = |n: u64| v2_request(token, "ETH", n);
    ask_udp(server, (numbers, killed), Transport::UdpV2, request, |answer, seen| {
        match Reply::parse(answer, &key).unwrap() {
            Reply::Answer(answer) => {
                let beast::wire::v2::RecordId { epoch, shard, sequence } = answer.record;
                seen.answer(answer.request_id, Some(RecordId { epoch, shard, sequence }));
            }
            Reply::Refused(refusal) | Reply::RefusedUnsigned(refusal) => {
                assert!(seen.refused.insert(refusal.request_id));
            }
        }
    })
}

/// Asks over a socket of its own until the server was killed and nothing more comes.
fn ask_udp(
    server: SocketAddr,
    (numbers, killed): (&AtomicU64, &AtomicBool),
    transport: Transport,
    request: impl Fn(u64) -> Vec<u8>,
    mut take: impl FnMut(&[u8], &mut Seen),
) -> Seen {
    let client = Udp::to(server);
    client.0.set_read_timeout(Some(LISTEN)).unwrap();
    let (mut seen, mut buffer) = (Seen::default(), [0; 2_048]);
    let send = |seen: &mut Seen| {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        seen.sent.insert(number, transport);
        // A server that is gone refuses.
        let _gone = client.0.send(&request(number));
    };
    (0..WINDOW).for_each(|_| send(&mut seen));
    loop {
        let over = killed.load(Ordering::Acquire);
        match client.0.recv(&mut buffer) {
            Ok(len) => {
                take(&buffer[..len], &mut seen);
                if !over {
                    send(&mut seen);
                }
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            // What the kernel had taken before the kill was all there at once.
            Err(_) if over => return seen,
            Err(_) => {}
        }
    }
}

fn ask_http(server: SocketAddr, token: &Token, numbers: &AtomicU64, killed: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut client = Http::to(server);
    client.stream.set_read_timeout(Some(LISTEN)).unwrap();
    let mut asked = std::collections::VecDeque::new();
    let head = get("/price?asset=BTC", token);
    let (mut ahead, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        while (asked.len() as u64) < WINDOW && !killed.load(Ordering::Acquire) {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            seen.sent.insert(number, Transport::Http);
            asked.push_back(number);
            let request = head.replace("\r\n\r\n", &format!("\r\nX-Request-Id: {number}\r\n\r\n"));
            if client.stream.write_all(request.as_bytes()).is_err() {
                break;
            }
        }
        match client.stream.read(&mut buffer) {
            Ok(0) => return seen,
            Ok(len) => ahead.extend_from_slice(&buffer[..len]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return seen,
        }
        while let Some((status, len)) = whole_response(&ahead) {
            ahead.drain(..len);
            let number = asked.pop_front().unwrap();
            if status == 200 {
                seen.answer(number, None);
            } else {
                assert!(seen.refused.insert(number));
            }
        }
    }
}

/// Status and length of the response that these bytes begin with, once all of it is there.
fn whole_response(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ").unwrap()[..3].parse().unwrap();
    let len: usize =
        head.split("content-length:").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();
    (bytes.len() >= end + len).then_some((status, end + len))
}

/// Requests that the store has counted against months.
fn months(data: &Path) -> u64 {
    let db = rusqlite::Connection::open(data.join("beast.sqlite")).unwrap();
    let select = "SELECT coalesce(sum(requests), 0) FROM usage_months WHERE status = 0";
    let sum: i64 = db.query_row(select, [], |row| row.get(0)).unwrap();
    sum.cast_unsigned()
}

/// Compares the journal with what was seen. Returns how many answers were received and how many
/// recorded.
fn check(data: &Path, runs: &[(u32, Seen)]) -> (u64, u64) {
    let options =
        JournalOptions { folder: data.join("journal"), segment_bytes: 1 << 20, bytes_max: u64::MAX };
    let (journal, _, recovery) = Journal::open(options, u32::MAX, 0).unwrap();
    assert_eq!((recovery.damaged, recovery.missing, recovery.findings.as_slice()), (0, 0, &[][..]));
    check_store(data, Arc::new(journal), runs.len());
    let options =
        JournalOptions { folder: data.join("journal"), segment_bytes: 1 << 20, bytes_max: u64::MAX };
    let (journal, _, _) = Journal::open(options, u32::MAX, 0).unwrap();
    let mut booked: BTreeMap<u64, (RecordId, Record)> = BTreeMap::new();
    journal
        .for_each_from(
            |_| 0,
            |id, record| {
                let before = booked.insert(number_of(record), (id, *record));
                assert_eq!(before, None, "one request, two records");
            },
        )
        .unwrap();
    let recorded = booked.values().filter(|(_, record)| record.is_answer()).count() as u64;
    let mut received = 0;
    for (epoch, seen) in runs {
        for (number, record) in &seen.answered {
            let (id, booked) = booked.remove(number).unwrap_or_else(|| {
                panic!("request {number} of start {epoch} was answered and is not in the books")
            });
            assert_eq!((id.epoch, booked.transport), (*epoch, seen.sent[number]));
            assert!(booked.is_answer(), "{booked:?}");
            assert!(record.is_none_or(|record| record == id), "{record:?} {id:?}");
        }
        for number in &seen.refused {
            let (_, booked) = booked.remove(number).expect("a refusal of a valid key is written down too");
            assert!(!booked.is_answer(), "{booked:?}");
        }
        received += seen.answered.len() as u64;
        let extra: Vec<u64> =
            booked.iter().filter(|(_, (id, _))| id.epoch == *epoch).map(|(number, _)| *number).collect();
        for number in &extra {
            assert!(seen.sent.contains_key(number), "{number}");
            booked.remove(number);
        }
        assert!(extra.len() as u64 <= seen.in_flight(), "start {epoch}: {} extra", extra.len());
    }
    assert!(booked.is_empty(), "records of no run: {booked:?}");
    (received, recorded)
}

/// Compares the store, once it has the rest of the journal too, with the journal: months by key and
/// status, seconds altogether, and the position in each chain. The drain was killed with the program.
fn check_store(data: &Path, journal: Arc<Journal>, starts: usize) {
    let store = Arc::new(Store::open(data).unwrap());
    let mut drain =
        Drain::new(Arc::clone(&journal), Arc::clone(&store), DrainOptions::default(), Arc::default());
    let left = drain.drain_all().unwrap();
    let mut used: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    journal
        .for_each_from(
            |_| 0,
            |_, record| *used.entry((record.key.into(), record.status.into())).or_default() += 1,
        )
        .unwrap();
    let mut db = store.lend("test").unwrap();
    let mut numbers = |sql: &str| -> Vec<[i64; 3]> {
        let rows = db.query(sql, &[]).unwrap();
        rows.iter().map(|row| [0, 1, 2].map(|column| row.int(column).unwrap())).collect()
    };
    let months = numbers(
        "SELECT key_id, status, CAST(sum(requests) AS BIGINT) FROM usage_months GROUP BY 1, 2 ORDER BY 1, 2",
    );
    let wanted: Vec<_> = used.iter().map(|((key, status), requests)| [*key, *status, *requests]).collect();
    assert_eq!(months, wanted);
    let all: i64 = used.values().sum();
    assert_eq!(numbers("SELECT sum(requests), 0, 0 FROM usage_seconds"), [[all, 0, 0]]);
    assert_eq!(numbers("SELECT sum(next_sequence), sum(missing), 0 FROM drained_chains"), [[all, 0, 0]]);
    let drained = all - i64::try_from(left).unwrap();
    eprintln!("{drained} of {all} records were drained by the {starts} starts that were killed");
    assert!(drained > 0, "no start lived long enough to drain");
}

/// The number a client gave its request.
fn number_of(record: &Record) -> u64 {
    let id = record.request.as_bytes();
    match record.transport {
        Transport::UdpV2 => u64::from_le_bytes(id.try_into().unwrap()),
        Transport::UdpV1 | Transport::Http => std::str::from_utf8(id).unwrap().parse().unwrap(),
    }
}

/// Marsaglia's xorshift: enough to choose an instant by.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
