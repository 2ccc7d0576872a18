//! Other servers that answer small datagrams, each on one processor with one thread that answers, from
//! memory, without logs.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use beast::load::{Raw, RawId, hex};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::child::{Server, free_port};

/// A peer by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Knot DNS, a TXT record of a zone.
    Knot,
    /// NSD, the same.
    Nsd,
    /// memcached, one key.
    Memcached,
}

/// What the TXT record and the key hold: as long as a price answer's text.
const VALUE: &str = "65000.12 USD coinbase-ws 1763650000123";

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Knot, Self::Nsd, Self::Memcached];

    /// The name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Knot => "Knot DNS",
            Self::Nsd => "NSD",
            Self::Memcached => "memcached",
        }
    }

    /// Its program, and the package that holds it.
    pub fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Knot => ("knotd", "knot"),
            Self::Nsd => ("nsd", "nsd"),
            Self::Memcached => ("memcached", "memcached"),
        }
    }

    /// Whether it is installed.
    pub fn is_there(self) -> bool {
        let version = if self == Self::Nsd { "-v" } else { "-V" };
        let mut command = Command::new(self.program().0);
        command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok()
    }

    /// What it is asked.
    ///
    /// # Errors
    /// When a payload of ours is no payload.
    pub fn requests(self) -> io::Result<Raw> {
        let expect = hex(&VALUE.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
        let expect = expect.map_err(io::Error::other)?;
        let payload = match self {
            // One question, btc.prices. TXT IN, no recursion.
            Self::Knot | Self::Nsd => "0000 0000 0001 0000 0000 0000 03627463 0670726963657300 0010 0001",
            // Request 0, datagram 0 of 1, `get btc`.
            Self::Memcached => "0000 0000 0001 0000 67657420627463 0d0a",
        };
        Raw::parse(payload, Some(RawId { offset: 0, len: 2 }), expect).map_err(io::Error::other)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, cpu: Option<usize>) -> io::Result<Running> {
        let folder = tempfile::tempdir()?;
        let (path, port) = (folder.path().to_string_lossy().into_owned(), free_port()?);
        let log = folder.path().join("log");
        let mut command = Command::new(self.program().0);
        let zone = format!(
            "$ORIGIN prices.\n@ 3600 IN SOA ns.prices. admin.prices. 1 3600 600 86400 60\n@ IN NS ns.prices.\n\
             ns IN A 127.0.0.1\nbtc IN TXT \"{VALUE}\"\n"
        );
        match self {
            Self::Knot => {
                fs::write(folder.path().join("prices.zone"), zone)?;
                let file = folder.path().join("knot.conf");
                fs::write(
                    &file,
                    format!(
                        "server:\n    listen: 127.0.0.1@{port}\n    rundir: {path}\n    udp-workers: 1\n    tcp-workers: 1\n\
                         \x20   background-workers: 1\ndatabase:\n    storage: {path}\n\
                         template:\n  - id: default\n    storage: {path}\n    zonefile-sync: -1\n    journal-content: none\n\
                         zone:\n  - domain: prices.\n    file: prices.zone\n"
                    ),
                )?;
                command.arg("-c").arg(file);
            }
            Self::Nsd => {
                fs::write(folder.path().join("prices.zone"), zone)?;
                let file = folder.path().join("nsd.conf");
                fs::write(
                    &file,
                    format!(
                        "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n\
                         \x20 zonesdir: \"{path}\"\n  database: \"\"\n  pidfile: \"{path}/pid\"\n  xfrdfile: \"{path}/xfrd\"\n\
                         \x20 zonelistfile: \"{path}/zones\"\n  xfrdir: \"{path}\"\n  logfile: \"{path}/log\"\n  rrl-ratelimit: 0\n\
                         remote-control:\n  control-enable: no\nzone:\n  name: prices\n  zonefile: prices.zone\n"
                    ),
                )?;
                command.arg("-d").arg("-c").arg(file);
            }
            Self::Memcached => {
                let port = port.to_string();
                command.args(["-l", "127.0.0.1", "-p", &port, "-U", &port, "-t", "1"]);
                // Started by root it needs to be told whom to be.
                command.args(["-u", "root"]);
            }
        }
        command.stderr(fs::File::create(&log)?);
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Server::command(&mut command, cpu, at, None)?;
        let mut running = Running { server, _folder: folder };
        match self {
            Self::Memcached => running.keep_value(at)?,
            // The process that was started leads others; one of them answers.
            Self::Nsd => running.find_worker()?,
            Self::Knot => {}
        }
        Ok(running)
    }
}

/// A peer that runs.
pub struct Running {
    /// Its process.
    pub server: Server,
    _folder: TempDir,
}

impl Running {
    fn keep_value(&mut self, at: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut stream = loop {
            match TcpStream::connect(at) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
            self.server.alive()?;
        };
        write!(stream, "set btc 0 0 {}\r\n{VALUE}\r\n", VALUE.len())?;
        let mut answer = [0; 64];
        let len = stream.read(&mut answer)?;
        if answer[..len].starts_with(b"STORED") {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "memcached keeps no value: {:?}",
            String::from_utf8_lossy(&answer[..len])
        )))
    }

    /// Counts the processor time of the youngest process below the one that was started.
    fn find_worker(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut found = Vec::new();
        while found.len() < 2 && Instant::now() < deadline {
            self.server.alive()?;
            std::thread::sleep(Duration::from_millis(50));
            found = below(self.server.id());
        }
        match found.last() {
            Some(worker) => self.server.count_process(*worker),
            None => return Err(io::Error::other("NSD starts no process that answers")),
        }
        Ok(())
    }
}

/// All processes below one, oldest first.
fn below(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut from = vec![pid];
    while let Some(pid) = from.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        found.extend(&children);
        from.extend(children);
    }
    found.sort_unstable();
    found
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killed without a word, NSD would leave its others behind.
        let pid = Pid::from_raw(self.server.id().cast_signed());
        let _gone = kill(pid, Signal::SIGTERM);
        for _ in 0..200 {
            if self.server.alive().is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
