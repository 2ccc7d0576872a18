//! A server in a process of its own, so that its processor time can be told from the generator's.

mod cpu;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use cpu::{CpuTime, CpuUse, ThreadTime};

use crate::sys::pin::{cpus, pin_thread};

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The process whose time and memory count, where that is not the one that was started.
    counted: Option<u32>,
    /// Where it takes UDP.
    pub udp: SocketAddr,
    /// Where it takes HTTP, if it does.
    pub http: Option<SocketAddr>,
}

impl Server {
    /// Starts a command that writes its addresses, UDP and then HTTP, as its first line, on one
    /// processor if `cpu` says so.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub fn telling(command: &mut Command, cpu: Option<usize>) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Only the start is pinned: whoever waits for a server that spins must not need its processor.
        let mut child = pinned(cpu, || command.spawn())?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut addresses = line.split_whitespace().map(str::parse);
        let udp = addresses.next();
        // From here on it is killed when it does not prove useful.
        let mut server = Self { child, counted: None, udp: SocketAddr::from(([0; 4], 0)), http: None };
        match (udp, addresses.next().transpose()) {
            (Some(Ok(udp)), Ok(http)) => {
                (server.udp, server.http) = (udp, http);
                Ok(server)
            }
            _ => Err(io::Error::other(format!("{command:?} said {line:?} instead of its addresses"))),
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
        Ok(Self { child, counted: None, udp, http })
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// From now on the time and memory of another process count: one below it that does its work.
    pub fn count_process(&mut self, pid: u32) {
        self.counted = Some(pid);
    }

    /// Its processor time so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<CpuTime> {
        CpuTime::of(self.counted.unwrap_or(self.child.id()))
    }

    /// Memory it holds and the most it ever held, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> io::Result<(u64, u64)> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.counted.unwrap_or(self.child.id())))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        match (kib("VmRSS"), kib("VmHWM")) {
            (Some(now), Some(most)) => Ok((now << 10, most << 10)),
            _ => Err(io::Error::other("the server has ended: it holds no memory")),
        }
    }

    /// Waits until its health port says that it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready within half a minute.
    pub fn wait_until_ready(&mut self, health: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut last = String::new();
        while Instant::now() < deadline {
            self.alive()?;
            match ask(health, "/ready") {
                Ok((200, _)) => return Ok(()),
                Ok((_, body)) => last = body,
                Err(e) => last = e.to_string(),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other(format!("the server is not ready after 30 s: {last}")))
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

/// For a server that was started by [`Server::telling`]: ends this process when its parent has gone,
/// since that may be killed without a word and a spinning server would go on for ever.
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

/// Status and body of one GET, such as of a health port.
///
/// # Errors
/// When nobody answers.
pub fn ask(server: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// Runs `work` on a thread of its own, pinned to `cpu`. Whatever it starts inherits that, and this
/// thread does not.
///
/// # Errors
/// Those of `work` and of pinning.
pub fn pinned<T: Send>(cpu: Option<usize>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(cpu) = cpu {
                pin_thread(cpu)?;
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The processors of server and generator.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// `None` where there is only one processor: then nothing is pinned.
    pub server: Option<usize>,
    /// As `server`.
    pub client: Option<usize>,
}

impl Cpus {
    /// The first two that this process may use. Ask before anything is pinned.
    ///
    /// # Errors
    /// The kernel's.
    pub fn first_two() -> io::Result<Self> {
        Ok(match cpus()?[..] {
            [server, client, ..] => Self { server: Some(server), client: Some(client) },
            _ => Self { server: None, client: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_its_addresses_and_its_processor_time_and_dies_when_dropped() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 127.0.0.1:7 127.0.0.1:8; cat > /dev/null"]);
        let mut server = Server::telling(&mut command, None).unwrap();
        assert_eq!((server.udp.port(), server.http.unwrap().port()), (7, 8));
        server.alive().unwrap();
        let used = server.cpu().unwrap().since(&server.cpu().unwrap());
        assert!(used.process.as_secs() < 60);
        assert!(server.memory().unwrap().1 > 0);
        let pid = server.id();
        drop(server);
        assert!(CpuTime::of(pid).is_err());
    }

    #[test]
    fn what_tells_no_address_is_no_server() {
        let error = Server::telling(Command::new("echo").arg("hello"), None).unwrap_err().to_string();
        assert!(error.contains("hello"), "{error}");
        assert!(Server::telling(&mut Command::new("/nonexistent/server"), None).is_err());
    }
}
