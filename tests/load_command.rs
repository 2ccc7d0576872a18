//! `beast load` as an operator meets it: against the program itself, and with everything that can be
//! wrong before a run and during it.
//!
//! `BEAST_LOAD_CONNECTIONS` says how many connections are spread over processes, 600 unless it is set,
//! and `BEAST_LOAD_DESCRIPTORS` how many descriptors a process may have, 300 unless it is set.

#[path = "support/running.rs"]
mod running;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use beast::load::report::{FILES, from_json};
use beast::load::result::RunResult;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use running::{Process, v4};
use serde_json::Value;

/// What a command ended with.
#[derive(Debug)]
struct Ended {
    exit: i32,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self) -> RunResult {
        from_json(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// `beast load` with these arguments, in an empty folder.
fn load(args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.arg("load").args(args).env_clear().current_dir(folder.path()).stdin(Stdio::null());
    Ended::of(command.output().unwrap())
}

/// The same under a limit of descriptors.
fn load_limited(descriptors: u64, args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""),
        env!("CARGO_BIN_EXE_beast"),
        "load",
    ]);
    command.args(args).current_dir(folder.path()).stdin(Stdio::null());
    Ended::of(command.output().unwrap())
}

/// A server with two shards, and the file with its key.
fn server(data: &Path) -> (Process, String) {
    let server = Process::start(data, &["--shards", "2"]);
    let key_file = data.join("first-key").to_str().unwrap().to_owned();
    (server, key_file)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn every_protocol_and_pace_closes_the_books_with_the_server() {
    let data = tempfile::tempdir().unwrap();
    let (server, key_file) = server(data.path());
    let (udp, http) = (v4(&server.udp).to_string(), v4(&server.http).to_string());
    let metrics = format!("http://{}/metrics", server.health);
    let always = [
        "--key-file",
        &key_file,
        "--server-metrics",
        &metrics,
        "--json",
        "--allow-late",
        "--lost-after",
        "5s",
    ];
    let mut answered = 0;
    for (transport, extra) in [
        ("udp", &["--protocol", "v1", "--requests", "3000"][..]),
        ("udp", &["--protocol", "v2", "--requests", "3000", "--threads", "2"]),
        ("udp", &["--rate", "2000", "--duration", "1s"]),
        ("http", &["--requests", "3000", "--connections", "20"]),
        ("http", &["--requests", "3000", "--connections", "7", "--pipeline", "8", "--threads", "2"]),
        ("http", &["--rate", "1000", "--duration", "1s", "--pipeline", "2"]),
        ("http", &["--path", "/exchanges", "--expect", "kraken", "--requests", "300"]),
    ] {
        let target = if transport == "udp" { &udp } else { &http };
        let args = [&[transport, target][..], extra, &always].concat();
        let ended = load(&args);
        assert_eq!(ended.exit, 0, "{args:?}: {ended:?}");
        let run = ended.run();
        let (counts, ledger) = (&run.counts, &run.ledger);
        assert!(counts.answered > 0 && counts.answered == counts.sent, "{args:?}: {counts:?}");
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!((ledger.lost_on_the_way, ledger.excess, ledger.unanswered_by_server), (0, 0, Some(0)));
        assert_eq!(run.latency.count, counts.answered);
        assert_eq!(run.server.shards, Some(2));
        assert!(run.generator.cpu_us_per_exchange > 0.0 && run.server.engine.is_some());
        assert!(run.passed() && !run.interrupted);
        answered += counts.answered;
    }
    assert_eq!(server.books().answered, answered, "the server counts what clients count");
}

#[test]
fn a_ramp_is_judged_level_by_level_and_a_search_finds_a_rate() {
    let data = tempfile::tempdir().unwrap();
    let (server, key_file) = server(data.path());
    let (udp, http) = (v4(&server.udp).to_string(), v4(&server.http).to_string());
    for (transport, target) in [("udp", &udp), ("http", &http)] {
        let ended = load(&[
            transport,
            target,
            "--key-file",
            &key_file,
            "--ramp",
            "--levels",
            "4",
            "--scale",
            "0.1",
            "--json",
            "--lost-after",
            "5s",
        ]);
        assert_eq!(ended.exit, 0, "{ended:?}");
        let levels = ended.run().ramp.unwrap().levels;
        let shapes: Vec<_> = levels.iter().map(|level| (level.requests, level.concurrency)).collect();
        assert_eq!(shapes, [(30, 3), (90, 9), (300, 30), (900, 60)]);
        assert!(levels.iter().all(|level| level.pass && level.counts.answered == level.requests));
    }
    // Nothing listens to this: every level fails, and says so.
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = load(&[
        "udp",
        &free,
        "--key-file",
        &key_file,
        "--ramp",
        "--levels",
        "2",
        "--scale",
        "0.1",
        "--lost-after",
        "50ms",
    ]);
    assert_eq!(ended.exit, 1);
    assert!(ended.out.contains("FAIL  all requests answered: 0 of 30, needs 30 of 30"), "{}", ended.out);

    let bounds = ["--p99-max", "2s", "--loss-max", "50%", "--late-after", "2s", "--precision", "50%"];
    let common = ["udp", &udp, "--key-file", &key_file, "--json"];
    let ended = load(&[&common, &bounds[..], &["--knee", "--from", "200", "--step", "100ms"]].concat());
    let knee = ended.run().knee.unwrap_or_else(|| panic!("{ended:?}"));
    assert!(knee.rate_per_s.is_some_and(|rate| rate >= 200.0) && knee.steps.len() > 2, "{knee:?}");

    let pid = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let line = std::fs::read_to_string(path.join("cmdline")).ok()?;
        let id = path.file_name()?.to_str()?.to_owned();
        (line.contains("serve") && line.contains(data.path().to_str()?)).then_some(id)
    });
    let pid = pid.into_iter().next().unwrap();
    let endurance = ["--endurance", "3s", "--rate", "500", "--server-pid", &pid];
    let run = load(&[&common, &bounds[..], &endurance[..]].concat()).run();
    let drift = run.endurance.unwrap();
    assert!(drift.memory_bytes_first.unwrap() > 1e6 && drift.memory_bytes_per_hour.is_some(), "{drift:?}");
    assert!(drift.p99_ns_first > 0 && drift.p99_ns_last > 0 && run.intervals.len() >= 3);
    assert!(run.server.cpu_us_per_answer.unwrap() > 0.0);
}

#[test]
fn connections_beyond_one_process_are_spread_over_several() {
    let connections = number("BEAST_LOAD_CONNECTIONS", 600);
    let descriptors = number("BEAST_LOAD_DESCRIPTORS", 300);
    let data = tempfile::tempdir().unwrap();
    let (server, key_file) = server(data.path());
    let http = v4(&server.http).to_string();
    let (count, requests) = (connections.to_string(), (connections * 5).to_string());
    let ended = load_limited(
        descriptors,
        &[
            "http",
            &http,
            "--key-file",
            &key_file,
            "--connections",
            &count,
            "--requests",
            &requests,
            "--json",
            "--lost-after",
            "30s",
            "--duration",
            "2m",
        ],
    );
    assert_eq!(ended.exit, 0, "{ended:?}");
    let run = ended.run();
    assert!(run.setup.processes >= connections.div_ceil(descriptors), "{:?}", run.setup);
    assert_eq!(
        (run.counts.sent, run.counts.answered),
        (connections * 5, connections * 5),
        "{:?}",
        run.counts
    );
    assert_eq!(run.counts.reconnected, 0);
    assert!(run.generator.memory_bytes_max < 256 << 20, "{:?}", run.generator);
    println!("{}", serde_json::to_string(&(&run.setup, &run.counts, &run.generator)).unwrap());
}

#[test]
fn ctrl_c_ends_the_run_and_the_report_is_written() {
    let data = tempfile::tempdir().unwrap();
    let (server, key_file) = server(data.path());
    let several_processes = &["--connections", "100"][..];
    for (transport, target, limit, extra) in
        [("udp", v4(&server.udp), 1_000, &[][..]), ("http", v4(&server.http), 140, several_processes)]
    {
        let report = data.path().join(format!("report-{transport}"));
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("ulimit -n {limit} && exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_beast"),
            "load",
            transport,
        ]);
        command
            .args([&target.to_string(), "--key-file", &key_file, "--duration", "10m", "--report"])
            .arg(&report);
        let mut child = command.args(extra).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut progress = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        progress.read_line(&mut line).unwrap();
        assert!(line.contains("answered") && line.contains("left") && line.contains("p99"), "{line}");
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        // Reads to the end, so that the process is never held up by a full pipe.
        std::thread::spawn(move || progress.lines().map_while(Result::ok).for_each(drop));
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        for name in FILES {
            assert!(report.join(name).metadata().unwrap().len() > 0, "{name}");
        }
        let run = from_json(&std::fs::read_to_string(report.join("report.json")).unwrap()).unwrap();
        assert!(run.interrupted && run.counts.answered > 0 && run.duration_s < 300.0, "{:?}", run.counts);
        assert_eq!(run.counts.answered, run.counts.sent, "what was under way was waited for");
    }
}

/// Begins a run of ten minutes under a limit of descriptors, and waits until it tells how it goes.
fn begun(limit: u64, args: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -n {limit} && exec \"$0\" \"$@\""),
        env!("CARGO_BIN_EXE_beast"),
        "load",
    ]);
    command.args(args).args(["--duration", "10m"]).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut byte = [0];
    child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
    child
}

#[test]
fn what_ran_until_an_error_is_reported_with_it() {
    let data = tempfile::tempdir().unwrap();
    let (server, key_file) = server(data.path());
    let (target, report) = (v4(&server.http).to_string(), data.path().join("report"));
    let report_text = report.to_str().unwrap();
    let args = ["http", &target, "--key-file", &key_file, "--connections", "100", "--report", report_text];
    let child = begun(140, &args);
    let parts = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let part = parts.split_whitespace().next().unwrap().parse().unwrap();
    kill(Pid::from_raw(part), Signal::SIGKILL).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.exit, 1, "{ended:?}");
    assert!(ended.err.contains("a process of the generator has ended early"), "{ended:?}");
    assert!(ended.out.contains("answered") && ended.out.contains("written"), "{ended:?}");
    let run = from_json(&std::fs::read_to_string(report.join("report.json")).unwrap()).unwrap();
    assert!(run.counts.answered > 0 && run.error().is_some() && !run.passed(), "{:?}", run.criteria);
    assert!(run.ledger.balances(), "{:?}", run.ledger);
}

#[test]
fn a_report_that_cannot_be_written_takes_no_result_along() {
    let data = tempfile::tempdir().unwrap();
    let (server, key_file) = server(data.path());
    let (target, report) = (v4(&server.udp).to_string(), data.path().join("report"));
    let child =
        begun(1_000, &["udp", &target, "--key-file", &key_file, "--report", report.to_str().unwrap()]);
    std::fs::remove_dir(&report).unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.exit, 1, "{ended:?}");
    assert!(ended.out.contains("answered"), "{ended:?}");
    assert!(ended.err.contains("the report cannot be written"), "{ended:?}");
}

#[test]
fn the_key_is_in_no_file() {
    let data = tempfile::tempdir().unwrap();
    let (server, _) = server(data.path());
    let (secret, report) = (server.token.reveal(), data.path().join("report"));
    let ended = load(&[
        "udp",
        &v4(&server.udp).to_string(),
        "--key",
        &secret,
        "--requests",
        "10",
        "--report",
        report.to_str().unwrap(),
    ]);
    assert_eq!(ended.exit, 0, "{ended:?}");
    for name in FILES {
        let text = std::fs::read(report.join(name)).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(&secret), "{name}");
    }
    let json: Value = serde_json::from_slice(&std::fs::read(report.join(FILES[0])).unwrap()).unwrap();
    assert!(json["command"].to_string().contains("--key"), "{json}");
}

/// Answers everything with what it was asked, from a thread that never ends.
fn mirror() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut room = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            // A full socket loses it, as a network would.
            let _full = socket.send_to(&room[..len], from);
        }
    });
    address
}

fn payloads(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn payloads_of_a_file_measure_any_server() {
    let (address, file) = (mirror().to_string(), payloads("# a query\n0000 0100 aabb\n0000 0100 ccbb\n"));
    let raw = file.path().to_str().unwrap();
    let base = ["udp", &address, "--raw", raw, "--requests", "2000", "--window", "8", "--json"];
    for extra in [&["--id-offset", "0"][..], &["--id-offset", "0", "--id-len", "4"], &[]] {
        let ended = load(&[&base[..], extra, &["--expect", "bb"]].concat());
        assert_eq!(ended.exit, 0, "{ended:?}");
        let run = ended.run();
        assert_eq!((run.counts.sent, run.counts.answered), (2_000, 2_000), "{extra:?}");
        assert_eq!(run.setup.protocol, "udp-raw");
    }
    let wrong = load(&[&base[..], &["--id-offset", "0", "--expect", "dd"]].concat());
    assert_eq!((wrong.exit, wrong.run().counts.wrong), (1, 2_000));
}

#[test]
fn a_starved_generator_exits_by_its_schedule_unless_it_is_allowed() {
    let (address, file) = (mirror().to_string(), payloads("00000000"));
    let raw = file.path().to_str().unwrap();
    let args = [
        "udp",
        &address,
        "--raw",
        raw,
        "--id-offset",
        "0",
        "--rate",
        "50000000",
        "--duration",
        "200ms",
        "--lost-after",
        "100ms",
    ];
    let starved = load(&args);
    assert_eq!(starved.exit, 1, "{starved:?}");
    assert!(starved.out.contains("schedule   NOT KEPT"), "{}", starved.out);
    assert!(starved.err.contains("the generator kept its schedule: "), "{}", starved.err);
    assert!(starved.err.contains("--allow-late"), "{}", starved.err);
    // Its short ids may be taken for others' when so much is lost, so duplicates may be a failure of
    // their own; the schedule is none.
    let allowed = load(&[&args[..], &["--allow-late"]].concat());
    assert!(allowed.out.contains("schedule   NOT KEPT"), "{}", allowed.out);
    assert!(!allowed.err.contains("the generator kept its schedule"), "{}", allowed.err);
}

#[test]
fn what_is_wrong_is_said_before_the_run_with_its_cure() {
    let (good, bad) = (payloads("00ff"), payloads("00\n0g\n"));
    let (good, bad) = (good.path().to_str().unwrap(), bad.path().to_str().unwrap());
    let to = mirror().to_string();
    let file_as_folder = format!("{good}/report");
    for (exit, args, said) in [
        (2, &["udp", "no-such-host.invalid", "--raw", good][..], "no-such-host.invalid cannot be resolved"),
        (2, &["http", "https://x", "--path", "/"], "asks for TLS"),
        (2, &["udp", &to, "--raw", bad], "line 2: 'g' is no hexadecimal digit"),
        (2, &["udp", &to, "--raw", "/no/such/file"], "No such file"),
        (2, &["udp", &to, "--raw", good, "--expect", "xyz"], "is no hexadecimal digit"),
        (2, &["udp", &to, "--raw", good, "--id-offset", "9"], "ends before the id does"),
        (2, &["udp", &to, "--raw", good, "--id-offset", "0", "--id-len", "3"], "needs 2, 4 or 8"),
        (2, &["udp", &to, "--raw", good, "--rate", "0"], "0 asks for nothing"),
        (2, &["udp", &to, "--raw", good, "--duration", "0"], "0 is no time"),
        (2, &["udp", &to, "--raw", good, "--rate", "5", "--window", "5"], "cannot be used with"),
        (2, &["udp", &to, "--raw", good, "--report", &file_as_folder], "a report cannot be written"),
        (2, &["udp", &to, "--raw", good, "--server-pid", "4194999"], "no such process"),
        (2, &["udp", &to, "--raw", good, "--server-metrics", "http://127.0.0.1:1/"], "--server-metrics"),
        (2, &["udp", &to], "prices need an API key"),
        (2, &["udp", &to, "--key", "tb_wrong"], "what was given as API key is none"),
        (2, &["udp", &to, "--key-file", "/no/such/key"], "--key-file /no/such/key"),
        (1, &["udp", &to, "--raw", good, "--pin", "1023"], "cannot be pinned to processor 1023"),
        (1, &["http", "127.0.0.1:1", "--path", "/", "--duration", "1s"], "Connection refused"),
        (
            1,
            &["udp", "127.0.0.1:1", "--raw", good, "--duration", "100ms", "--lost-after", "50ms"],
            "nobody listens on 127.0.0.1:1",
        ),
    ] {
        let ended = load(args);
        assert_eq!(ended.exit, exit, "{args:?}: {ended:?}");
        assert!(ended.err.contains(said), "{args:?}: {}", ended.err);
        assert!(!ended.err.contains("tb_wrong"), "what may be a secret is not shown");
    }
    let few = load_limited(100, &["udp", &to, "--raw", good, "--sockets", "90", "--duration", "100ms"]);
    assert_eq!(few.exit, 1, "{few:?}");
    assert!(few.err.contains("this process may have 100 descriptors, 90 sockets need 154"), "{}", few.err);
}

#[test]
fn the_search_for_a_rate_ends_where_nobody_listens() {
    let payloads = payloads("00ff");
    let raw = payloads.path().to_str().unwrap();
    let bounds =
        ["--knee", "--p99-max", "10ms", "--loss-max", "0.1%", "--step", "100ms", "--lost-after", "50ms"];
    let ended = load(&[&["udp", "127.0.0.1:1", "--raw", raw], &bounds[..]].concat());
    assert_eq!(ended.exit, 1, "{ended:?}");
    assert!(ended.err.contains("nobody listens on 127.0.0.1:1"), "{}", ended.err);
    assert_eq!(ended.out.matches("  fail").count(), 1, "{}", ended.out);
}
