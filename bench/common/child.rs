//! A server in a process of its own, so that its processor time can be told from the client's.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::cpu::CpuTime;
use super::pinned;

/// What this program can be started as again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The bare echo server.
    Floor,
    /// One shard with a fixed board.
    Shard,
    /// The bare HTTP responder on a ring.
    RingHttp,
    /// Clients with many connections.
    HttpClients,
}

impl Part {
    const ALL: [Self; 4] = [Self::Floor, Self::Shard, Self::RingHttp, Self::HttpClients];

    /// Its name, the first argument of the child.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor-server",
            Self::Shard => "shard-server",
            Self::RingHttp => "ring-http-server",
            Self::HttpClients => "http-clients",
        }
    }

    /// Which part the arguments ask for, if any.
    pub fn of(args: &[OsString]) -> Option<Self> {
        let first = args.get(1)?;
        Self::ALL.into_iter().find(|part| first == part.name())
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// Where it takes UDP.
    pub udp: SocketAddr,
    /// Where it takes HTTP, if it does.
    pub http: Option<SocketAddr>,
}

impl Server {
    /// Starts this program again as `part`, on one processor if `cpu` says so. It writes its addresses as its first line.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub fn part(part: Part, args: &[&str], cpu: Option<usize>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(part.name()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Only the start is pinned: whoever waits for a server that spins must not need its processor.
        let mut child = pinned(cpu, || command.spawn())?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut addresses = line.split_whitespace().map(str::parse);
        let udp = addresses.next();
        // From here on it is killed when it does not prove useful.
        let mut server = Self { child, udp: SocketAddr::from(([0; 4], 0)), http: None };
        match (udp, addresses.next().transpose()) {
            (Some(Ok(udp)), Ok(http)) => {
                (server.udp, server.http) = (udp, http);
                Ok(server)
            }
            _ => Err(io::Error::other(format!("{} said {line:?} instead of its addresses", part.name()))),
        }
    }

    /// Starts a command that will listen on these addresses.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(
        command: &mut Command,
        cpu: Option<usize>,
        udp: SocketAddr,
        http: Option<SocketAddr>,
    ) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = pinned(cpu, || command.spawn());
        let child = child.map_err(|e| io::Error::other(format!("{command:?} cannot be started: {e}")))?;
        Ok(Self { child, udp, http })
    }

    /// Its processor time so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<CpuTime> {
        CpuTime::of(self.child.id())
    }

    /// Memory it holds and the most it ever held, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> io::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        match (kib("VmRSS"), kib("VmHWM")) {
            (Some(now), Some(most)) => Ok((now << 10, most << 10)),
            _ => Err(io::Error::other("the server has ended: it holds no memory")),
        }
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When it has.
    pub fn alive(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("the server has ended: {status}"))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// For a part: ends this process when its parent has gone, since that may be killed without a word
/// and a spinning server would go on for ever.
pub fn leave_with_parent() {
    std::thread::spawn(|| {
        let _ended = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

/// A port that was free a moment ago, for UDP and TCP.
///
/// # Errors
/// The kernel's.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
