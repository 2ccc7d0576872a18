//! Limits as clients meet them: one allowance of a key over any number of shards and any spread of its
//! traffic, over UDP and HTTP alike; changes in force within two seconds; months over restarts and kills.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/running.rs"]
mod running;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use beast::account::{Tier, Token, public_text};
use beast::config::IoChoice;
use beast::engine::probe::{Io, choose};
use beast::shard::Counter;
use beast::store::{NewKey, Store};
use beast::wire::ErrorCode;
use beast::wire::v2::{Key, Reply};
use clients::{Http, Udp, v1_request, v2_request};
use running::{Process, Running, config, v4, wait_until};

/// The engines to test on: both, wherever io_uring is allowed, and always in CI.
fn engines() -> Vec<IoChoice> {
    match choose(Io::Uring) {
        Ok(_) => vec![IoChoice::Uring, IoChoice::Portable],
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "the uring engine must be tested in CI: {error}");
            vec![IoChoice::Portable]
        }
    }
}

fn new_key(tier: &str) -> NewKey {
    NewKey {
        account: "limits".to_owned(),
        tier: tier.to_owned(),
        networks: Vec::new(),
        note: String::new(),
        admin: false,
        expires: None,
    }
}

fn tier(name: &str, qps: u32, burst: u32, monthly: Option<u64>) -> Tier {
    Tier { name: name.to_owned(), unlimited: false, qps, burst, monthly }
}

/// Waits until all shards know a key: they are told together and look 50 times a second.
fn known(running: &Running, token: &Token) {
    let mut http = Http::to(running.http());
    wait_until("the key is known", || http.get("/price?asset=BTC", token).status == 200);
    std::thread::sleep(Duration::from_millis(300));
}

/// One connected socket a shard, in the order of the shards: the kernel keeps each with its own.
struct Sockets(Vec<Udp>);

impl Sockets {
    fn one_a_shard(running: &Running, shards: usize) -> Self {
        let mut found: Vec<Option<Udp>> = (0..shards).map(|_| None).collect();
        for id in 0..10_000 {
            let socket = Udp::to(running.udp());
            let Reply::Answer(answer) = socket.v2(&v2_request(&running.token, "BTC", id), &running.token)
            else {
                panic!("no price");
            };
            found[usize::from(answer.record.shard)].get_or_insert(socket);
            if found.iter().all(Option::is_some) {
                return Self(found.into_iter().flatten().collect());
            }
        }
        panic!("some shard is never met");
    }

    /// Asks a shard so many times at once; how many were answered. The others must be over their rate.
    fn ask(&self, shard: usize, count: u64, token: &Token) -> u64 {
        let socket = &self.0[shard];
        for id in 0..count {
            socket.send(&v2_request(token, "BTC", id));
        }
        let mut answered = 0;
        for _ in 0..count {
            match Reply::parse(&socket.receive(), &Key(token.v2_answer_key().0)).unwrap() {
                Reply::Answer(answer) => {
                    assert_eq!(usize::from(answer.record.shard), shard);
                    answered += 1;
                }
                Reply::Refused(refusal) => assert_eq!(refusal.code, ErrorCode::RateLimited),
                other => panic!("{other:?}"),
            }
        }
        answered
    }
}

const QPS: u32 = 2_000;
const BURST: u32 = 4_000;

/// Requests under way at a time.
const BATCH: u64 = 24;

/// How long each spread is kept up: longer shows no more, since the bound is relative.
const LOAD: Duration = Duration::from_millis(700);

/// Which shard batch `n` goes to, and how it is called.
type Spread = (&'static str, fn(usize, usize) -> usize);

const SPREADS: [Spread; 4] = [
    ("even", |n, shards| n % shards),
    ("all on one", |_, shards| shards - 1),
    ("skewed", |n, shards| if n.is_multiple_of(10) { n / 10 % shards } else { 0 }),
    ("shifting", |n, shards| n / 40 % shards),
];

#[test]
fn a_keys_allowance_is_one_over_all_shards_however_its_traffic_is_spread() {
    for shards in [1, 2, 4, 8] {
        for io in engines() {
            let running = Running::start(config(io, shards));
            let store = Store::open(&running.data.path().join("data")).unwrap();
            store.put_tier(&tier("live", QPS, BURST, None)).unwrap();
            let tokens = SPREADS.map(|_| store.add_key(&new_key("live")).unwrap());
            let sockets = Sockets::one_a_shard(&running, shards);
            known(&running, &tokens[3]);
            for ((name, spread), token) in SPREADS.into_iter().zip(tokens) {
                let told = held_to_its_allowance(&sockets, shards, spread, &token);
                if let Err(told) = told {
                    panic!("{io:?}, {shards} shards, {name}: {told}");
                }
            }
            let refused = running.count(Counter::UdpRateLimited);
            assert!(refused > 1_000, "{refused} refusals show nothing");
            running.settled();
            running.leave();
        }
    }
}

/// Asks for more than a key may have, and compares what is answered with the rule.
fn held_to_its_allowance(
    sockets: &Sockets,
    shards: usize,
    spread: fn(usize, usize) -> usize,
    token: &Token,
) -> Result<(), String> {
    let asked = Instant::now();
    let (mut admitted, mut begun, mut longest) = (0, None, Duration::ZERO);
    let mut n = 0;
    // At the end every shard is asked until all of them refuse: then nothing of the allowance is left.
    let (mut closing, mut last) = (0, asked);
    while closing < shards {
        let shard = if asked.elapsed() < LOAD { spread(n, shards) } else { closing };
        let sent = Instant::now();
        longest = longest.max(sent - last);
        let answered = sockets.ask(shard, BATCH, token);
        begun.get_or_insert_with(Instant::now);
        admitted += answered;
        if asked.elapsed() >= LOAD && answered < BATCH {
            closing += 1;
        }
        last = sent;
        n += 1;
    }
    let allowance = |time: Duration| f64::from(BURST) + f64::from(QPS) * time.as_secs_f64();
    let margin = |allowance: f64| (allowance / 100.0).max(shards as f64);
    let (most, least) = (allowance(asked.elapsed()), allowance(last - begun.unwrap_or(last)));
    let admitted_f = admitted as f64;
    let told = format!("{admitted} admitted, {least:.1} to {most:.1} allowed in {n} batches");
    // Whoever is held up for so long that the bucket fills again has asked for less than he might.
    let kept_asking = longest < Duration::from_secs(1);
    if admitted_f > most + margin(most) || kept_asking && admitted_f < least - margin(least) {
        return Err(told);
    }
    eprintln!("{shards} shards: {told}");
    Ok(())
}

#[test]
fn a_partner_is_never_refused() {
    for io in engines() {
        let running = Running::start(config(io, 2));
        let sockets = Sockets::one_a_shard(&running, 2);
        let mut http = Http::to(running.http());
        for n in 0..400 {
            assert_eq!(sockets.ask(n % 2, BATCH, &running.token), BATCH);
            assert_eq!(http.get("/price?asset=BTC", &running.token).status, 200);
        }
        let response = http.get("/price?asset=BTC", &running.token);
        assert_eq!(response.header("ratelimit"), None);
        assert_eq!(running.count(Counter::UdpRateLimited) + running.count(Counter::HttpRateLimited), 0);
        running.leave();
    }
}

#[test]
fn udp_and_http_are_held_to_one_allowance_and_told_the_same() {
    for io in engines() {
        let running = Running::start(config(io, 2));
        let store = Store::open(&running.data.path().join("data")).unwrap();
        store.put_tier(&tier("slow", 1, 60, Some(1_000_000))).unwrap();
        let token = store.add_key(&new_key("slow")).unwrap();
        let (udp, mut http) = (Udp::to(running.udp()), Http::to(running.http()));
        known(&running, &token);
        let asked = Instant::now();
        let mut answered = 1;
        for n in 0..60 {
            answered += u64::from(udp.v1(&v1_request(&token, "BTC", &n.to_string()))["error"].is_null());
            answered += u64::from(http.get("/price?asset=BTC", &token).status == 200);
            let reply = udp.v2(&v2_request(&token, "BTC", n), &token);
            answered += u64::from(matches!(reply, Reply::Answer(_)));
        }
        // One more for each second since the first, and for the time that `known` took.
        let most = 62 + asked.elapsed().as_secs();
        assert!((60..=most).contains(&answered), "{answered} of {most}");

        let refused = udp.v1(&v1_request(&token, "BTC", "5"));
        assert_eq!(refused["error"], "rate_limited");
        let Reply::Refused(refusal) = udp.v2(&v2_request(&token, "BTC", 9), &token) else {
            panic!("answered")
        };
        assert_eq!(refusal.code, ErrorCode::RateLimited);
        assert!((1..=1_000).contains(&refusal.retry_after_ms), "{refusal:?}");
        let response = http.get("/prices?assets=BTC,ETH", &token);
        assert_eq!((response.status, response.json()["error"].as_str()), (429, Some("rate_limited")));
        assert_eq!(response.header("retry-after"), Some("1"));
        let policy = response.header("ratelimit-policy").unwrap();
        assert_eq!(policy, "\"rate\";q=60;w=60, \"month\";q=1000000");
        let limit = response.header("ratelimit").unwrap();
        assert!(limit.starts_with("\"rate\";r=0;t=") && limit.contains(", \"month\";r=99"), "{limit}");
        running.settled();
        running.leave();
    }
}

/// A change of keys counts within 2 s; what is added allows for a busy machine.
const KEYS_MAX: Duration = Duration::from_secs(6);

/// Carries out `beast keys` beside the server; its standard output.
fn keys(data: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    let output = command.env_clear().arg("keys").args(words).arg("--data").arg(data).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Looks until it is so, for as long as a change of keys may take.
fn in_force(what: &str, mut look: impl FnMut() -> bool) {
    let asked = Instant::now();
    while !look() {
        assert!(asked.elapsed() < KEYS_MAX, "not in force: {what}");
        std::thread::sleep(Duration::from_millis(120));
    }
}

/// Whether a token works in every protocol; they must agree, but for a moment while keys change.
fn works(running: &Running, token: &Token) -> bool {
    // HTTP first: by UDP those who have proved nothing get few replies.
    if Http::to(running.http()).get("/price?asset=BTC", token).status != 200 {
        return false;
    }
    let udp = Udp::to(running.udp());
    let v1 = udp.v1(&v1_request(token, "BTC", "1"))["error"].is_null();
    v1 && matches!(udp.v2(&v2_request(token, "BTC", 1), token), Reply::Answer(_))
}

#[test]
fn a_change_of_tier_an_expiry_and_a_rotation_are_in_force_within_two_seconds() {
    let [io, ..] = engines()[..] else { panic!("no engine") };
    let running = Running::start(config(io, 2));
    let data = running.data.path().join("data");
    let token = keys(&data, &["add", "--tier", "partner"]);
    let token = Token::parse(token.trim_end().as_bytes()).unwrap();
    let id = public_text(token.public_id());
    in_force("the key", || works(&running, &token));

    let mut http = Http::to(running.http());
    let mut burst =
        |token: &Token| (0..40).filter(|_| http.get("/price?asset=BTC", token).status == 200).count();
    keys(&data, &["set-tier", &id, "free"]);
    in_force("a smaller tier", || burst(&token) < 40);
    keys(&data, &["tiers", "set", "free", "--qps", "1000", "--burst", "5000"]);
    in_force("a wider tier", || burst(&token) == 40);
    keys(&data, &["set-tier", &id, "partner"]);
    in_force("a larger tier", || burst(&token) == 40);
    assert!(keys(&data, &["list"]).contains("partner"));

    let new = keys(&data, &["rotate", &id, "--overlap", "4s"]);
    let rotated = Instant::now();
    let new = Token::parse(new.trim_end().as_bytes()).unwrap();
    in_force("the new secret", || works(&running, &new));
    if rotated.elapsed() < Duration::from_secs(3) {
        assert!(works(&running, &token), "the old secret goes on beside the new one");
    }
    wait_until("the old secret ends", || {
        std::thread::sleep(Duration::from_millis(120));
        !works(&running, &token)
    });
    assert!(rotated.elapsed() >= Duration::from_secs(4), "it ended too early");
    assert!(works(&running, &new));

    keys(&data, &["set-expiry", &public_text(new.public_id()), "1s"]);
    in_force("the expiry", || !works(&running, &new));
    keys(&data, &["set-expiry", &public_text(new.public_id()), "never"]);
    in_force("no expiry", || works(&running, &new));
    keys(&data, &["revoke", &public_text(new.public_id())]);
    in_force("the revocation", || !works(&running, &new));
    running.leave();
}

/// Asks over HTTP until told that the month is used up, or so many times; how many were answered.
fn use_up(server: SocketAddr, token: &Token, most: u64) -> (u64, bool) {
    let mut http = Http::to(server);
    for answered in 0..most {
        let response = http.get("/price?asset=BTC", token);
        match response.status {
            200 => {}
            429 if response.json()["error"] == "monthly_limit" => return (answered, true),
            _ => panic!("{response:?}"),
        }
    }
    (most, false)
}

#[test]
fn a_month_goes_on_after_a_restart_and_after_a_kill() {
    const CAP: u64 = 900;
    for engine in engines() {
        let io = if engine == IoChoice::Uring { "uring" } else { "portable" };
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Process::start(&data, &["--io", io]).kill();
        let store = Store::open(&data).unwrap();
        store.put_tier(&tier("monthly", 1_000_000, 1_000_000, Some(CAP))).unwrap();
        let token = store.add_key(&new_key("monthly")).unwrap();
        drop(store);
        let mut used = 0;
        for (round, drained) in [false, true, false].into_iter().enumerate() {
            let server = Process::start(&data, &["--io", io, "--shards", "2"]);
            let (answered, over) = use_up(v4(&server.http), &token, 200);
            assert_eq!((answered, over), (200, false), "{io}, round {round}");
            used += answered;
            if drained {
                wait_until("all is drained", || {
                    let listed = keys(&data, &["list", "--json"]);
                    let rows: serde_json::Value = serde_json::from_str(&listed).unwrap();
                    rows[1]["used_this_month"] == used
                });
                assert_eq!(server.leave(), Some(0));
            } else {
                server.kill();
            }
        }
        let server = Process::start(&data, &["--io", io, "--shards", "2"]);
        let (answered, over) = use_up(v4(&server.http), &token, 2 * CAP);
        used += answered;
        // One connection meets one shard; the other may hold one request in a lease.
        assert!(over && (CAP - CAP / 100..=CAP).contains(&used), "{io}: {used} of {CAP}");
        server.kill();
        let server = Process::start(&data, &["--io", io, "--shards", "2"]);
        assert_eq!(use_up(v4(&server.http), &token, 20).0 + used, CAP);
        server.leave();
    }
}
