//! A new process takes a running one's place under load: no request fails and no datagram is lost.
//!
//! `BEAST_RESTARTS=50 cargo test --test restart` restarts as often on each engine.

mod support;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::wait::{PATIENCE, until};
use tempfile::TempDir;

/// How often the suite restarts.
const RESTARTS: u32 = 3;

/// Requests a client has on their way at a time.
const WINDOW: u32 = 16;

/// A server that changes its process now and then.
struct Server {
    data: TempDir,
    first: Child,
    /// The process that serves now.
    now: i32,
    log: std::sync::mpsc::Receiver<String>,
    health: SocketAddr,
    clients: Clients,
}

/// What clients know.
#[derive(Clone)]
struct Clients {
    udp: SocketAddr,
    http: SocketAddr,
    key: String,
}

impl Server {
    fn start(io: &str, shards: usize) -> Self {
        let data = tempfile::tempdir().unwrap();
        let ports =
            ["udp_port", "http_port", "health_port", "report_health_port", "report_port", "report_udp_port"]
                .map(|p| format!("--set={p}=0"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        command.args(["serve", "--sim", "--listen", "127.0.0.1", "--io", io, "--set"]);
        command.arg(format!("shards={shards}")).args(ports).arg("--data").arg(data.path().join("data"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut first = command.spawn().unwrap();
        let lines = BufReader::new(first.stderr.take().unwrap()).lines();
        let (tell, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let line = loop {
            let line = log.recv_timeout(PATIENCE).unwrap();
            if line.starts_with("listen ") {
                break line;
            }
        };
        let address = |name: &str| -> SocketAddr {
            line.split_once(name).unwrap().1.split([',', ';']).next().unwrap().trim().parse().unwrap()
        };
        let (udp, http, health) = (address("UDP "), address("HTTP "), address("health "));
        let key = until("the first key", || {
            std::fs::read_to_string(data.path().join("data/first-key")).map_err(|e| e.to_string())
        });
        let now = first.id().try_into().unwrap();
        let clients = Clients { udp, http, key: key.trim().to_owned() };
        let server = Self { data, first, now, log, health, clients };
        // Half of the assets are enough to be ready; here every one must be fresh, or some answers are stale.
        until("every asset is fresh", || {
            let (_, text) = support::feeds::get(server.health, "/ready", "").map_err(|e| e.to_string())?;
            let fresh = support::feeds::metric(server.health, "beast_asset_fresh", "shard=\"0\"");
            if fresh == 150 { Ok(()) } else { Err(format!("{fresh} are: {text}")) }
        });
        server
    }

    fn command(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        command.args(args).arg("--data").arg(self.data.path().join("data")).env_clear().stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// Restarts it and waits until the old process is gone.
    fn restart(&mut self) {
        let old = self.now;
        let (done, said) = self.command(&["restart"]);
        assert!(done, "{said}\n{:#?}", self.log.try_iter().collect::<Vec<_>>());
        self.now = said.split(' ').nth(1).unwrap().parse().unwrap();
        assert_ne!(self.now, old);
        if old == i32::try_from(self.first.id()).unwrap() {
            assert!(self.first.wait().unwrap().success());
        }
    }
}

impl Clients {
    fn ask(&self, id: u32) -> String {
        format!(r#"{{"api_key":"{}","asset":"BTC","id":{id}}}"#, self.key)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = kill(Pid::from_raw(self.now), Signal::SIGKILL);
        let _gone = (self.first.kill(), self.first.wait());
    }
}

/// Ends the clients, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks by UDP, a window at a time, until it is over; every request must be answered, once, with a price.
fn ask_by_udp(server: &Clients, over: &AtomicBool, answered: &AtomicU64) {
    let mut id = 0;
    while !over.load(Ordering::Relaxed) {
        // A new port each time: the kernel chooses a shard by it.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.udp).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..20 {
            let mut open: HashSet<u32> = (id..id + WINDOW).collect();
            id += WINDOW;
            for id in &open {
                socket.send(server.ask(*id).as_bytes()).unwrap();
            }
            while !open.is_empty() {
                let mut bytes = [0; 512];
                let len = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{} lost: {e}", open.len()));
                let answer = String::from_utf8_lossy(&bytes[..len]);
                assert!(answer.contains("\"price\":"), "{answer}");
                let id = answer.split_once("\"id\":").unwrap().1.trim_end_matches('}').parse().unwrap();
                assert!(open.remove(&id), "answered twice: {answer}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Asks by HTTP on connections that are kept; each must live until an answer says that it is the last.
fn ask_by_http(server: &Clients, over: &AtomicBool, answered: &AtomicU64, lasts: &AtomicU64) {
    let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", server.key);
    while !over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while !over.load(Ordering::Relaxed) {
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                let mut bytes = [0; 1024];
                let len = stream.read(&mut bytes).unwrap();
                assert!(len > 0, "closed without an answer, after {}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&bytes[..len]);
            }
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"price\":"), "{answer}");
            answered.fetch_add(1, Ordering::Relaxed);
            if answer.contains("connection: close") {
                lasts.fetch_add(1, Ordering::Relaxed);
                assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
                break;
            }
        }
    }
}

fn under_load(io: &str) {
    let restarts = std::env::var("BEAST_RESTARTS").map_or(RESTARTS, |n| n.parse().unwrap());
    let mut server = Server::start(io, 2);
    let (over, answered, by_http, lasts) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let clients = server.clients.clone();
    std::thread::scope(|scope| {
        let (clients, over, answered, by_http, lasts) = (&clients, &over, &answered, &by_http, &lasts);
        let _ends = Over(over);
        let mut threads = Vec::new();
        for _ in 0..2 {
            threads.push(scope.spawn(move || ask_by_udp(clients, over, answered)));
            threads.push(scope.spawn(move || ask_by_http(clients, over, by_http, lasts)));
        }
        for round in 0..restarts {
            let before = (answered.load(Ordering::Relaxed), by_http.load(Ordering::Relaxed));
            server.restart();
            assert!(threads.iter().all(|thread| !thread.is_finished()), "a client failed at restart {round}");
            until("both are answered by the new process", || {
                let now = (answered.load(Ordering::Relaxed), by_http.load(Ordering::Relaxed));
                if now.0 > before.0 + 100 && now.1 > before.1 + 100 {
                    Ok(())
                } else {
                    Err(format!("{now:?}"))
                }
            });
        }
    });
    assert!(lasts.load(Ordering::Relaxed) > 0, "no connection was told that it got its last answer");
    let drops = support::feeds::metric(server.health, "beast_datagram_dropped_total", "socket");
    assert_eq!(drops, 0, "datagrams dropped by the kernel");
    println!(
        "{io}: {restarts} restarts, {} datagrams and {} HTTP requests answered, none lost, {} connections closed \
         with notice",
        answered.load(Ordering::Relaxed),
        by_http.load(Ordering::Relaxed),
        lasts.load(Ordering::Relaxed)
    );
}

#[test]
fn no_request_is_lost_while_processes_change_on_the_portable_engine() {
    under_load("portable");
}

#[test]
fn no_request_is_lost_while_processes_change_on_the_uring_engine() {
    under_load("uring");
}

#[test]
fn who_is_told_to_leave_while_it_hands_over_leaves_nobody_behind() {
    for pause_ms in [0, 20, 60, 120] {
        let mut server = Server::start("portable", 1);
        let process = Pid::from_raw(server.now);
        kill(process, Signal::SIGHUP).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        kill(process, Signal::SIGTERM).unwrap();
        assert!(server.first.wait().unwrap().success());
        let said: Vec<String> = server.log.try_iter().collect();
        if let Some(line) = said.iter().find(|line| line.contains("has taken over; ")) {
            // It was done before it was told: what serves now was told nothing.
            server.now = line.split_whitespace().nth(2).unwrap().parse().unwrap();
            continue;
        }
        until("nobody serves any more", || match TcpStream::connect(server.clients.http) {
            Err(_) => Ok(()),
            Ok(_) => Err(format!("after {pause_ms} ms somebody does: {said:#?}")),
        });
    }
}
