//! Many kept-alive HTTP connections, spread over processes because one may hold only so many
//! descriptors. Each child opens its share and then does what it is told, line by line:
//!
//! ```text
//!   parent ─► child   open N | ask ROUNDS | leave N
//!   child ─► parent   RIGHT FAILED CLOSED OPEN        after each line
//! ```

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use beast::sys::rlimits;
use clap::Parser;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::child::Part;

/// What a child is told.
#[derive(Parser, Debug)]
#[command(name = "http-clients")]
struct Args {
    #[arg(long)]
    server: SocketAddrV4,
    /// Its source address, so that no child's ports are another's.
    #[arg(long)]
    from: Ipv4Addr,
    /// The key it asks with. A bench's own, made for one run.
    #[arg(long)]
    token: String,
    #[arg(long)]
    asset: String,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests answered with 200 and the right asset.
    pub right: u64,
    /// Requests answered otherwise, or not within [`PATIENCE`].
    pub failed: u64,
    /// Connections that the server closed, which the client did not ask for.
    pub closed: u64,
    /// Connections that are open now, as far as the client knows.
    pub open: u64,
}

/// Longest time an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The children; they end when this is dropped.
pub struct Clients {
    children: Vec<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Clients {
    /// Starts so many processes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(processes: usize, server: SocketAddr, token: &str, asset: &str) -> io::Result<Self> {
        let mut children = Vec::new();
        for n in 0..processes {
            let from = Ipv4Addr::new(127, 0, 1, u8::try_from(n + 1).map_err(io::Error::other)?);
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(Part::HttpClients.name()).args(["--server", &server.to_string()]);
            command.args(["--from", &from.to_string(), "--token", token, "--asset", asset]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(io::Error::other("a child has no pipes"));
            };
            children.push((child, stdin, BufReader::new(stdout)));
        }
        Ok(Self { children })
    }

    /// Opens so many further connections, spread evenly.
    ///
    /// # Errors
    /// When a child has ended; what it said is on standard error.
    pub fn open(&mut self, count: usize) -> io::Result<Told> {
        self.spread("open", count)
    }

    /// Asks on every connection, so many times.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn ask(&mut self, rounds: usize) -> io::Result<Told> {
        let lines = vec![format!("ask {rounds}"); self.children.len()];
        self.tell(&lines)
    }

    /// Closes so many connections.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn leave(&mut self, count: usize) -> io::Result<Told> {
        self.spread("leave", count)
    }

    fn spread(&mut self, verb: &str, count: usize) -> io::Result<Told> {
        let processes = self.children.len();
        let share = |n: usize| count / processes + usize::from(n < count % processes);
        let lines: Vec<_> = (0..processes).map(|n| format!("{verb} {}", share(n))).collect();
        self.tell(&lines)
    }

    /// Tells every child its line, and then waits for them all.
    fn tell(&mut self, lines: &[String]) -> io::Result<Told> {
        for ((_, stdin, _), line) in self.children.iter_mut().zip(lines) {
            writeln!(stdin, "{line}")?;
        }
        let mut sum = Told::default();
        for (_, _, stdout) in &mut self.children {
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [right, failed, closed, open] = numbers[..] else {
                return Err(io::Error::other(format!("a child said {line:?} instead of four numbers")));
            };
            sum.right += right;
            sum.failed += failed;
            sum.closed += closed;
            sum.open += open;
        }
        Ok(sum)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for (child, ..) in &mut self.children {
            // Both fail only when it has been waited for already.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// What a child does until its parent has gone.
///
/// # Errors
/// The kernel's.
pub fn be_child(args: &[OsString]) -> io::Result<()> {
    let args = Args::parse_from(&args[1..]);
    rlimits::raise()?;
    let request = format!(
        "GET /price?asset={} HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\n\r\n",
        args.asset, args.server, args.token
    );
    let body_start = format!("{{\"asset\":\"{}\"", args.asset);
    let mut open: Vec<TcpStream> = Vec::new();
    for line in io::stdin().lines() {
        let line = line?;
        let (verb, count) = line.split_once(' ').unwrap_or((&line, "0"));
        let count: usize = count.parse().map_err(io::Error::other)?;
        let mut told = Told::default();
        match verb {
            "open" => {
                for _ in 0..count {
                    open.push(connected(args.from, args.server)?);
                }
            }
            "leave" => drop(open.drain(..count.min(open.len()))),
            "ask" => {
                for _ in 0..count {
                    ask(&mut open, request.as_bytes(), &body_start, &mut told);
                }
            }
            _ => return Err(io::Error::other(format!("{line:?} is no command"))),
        }
        told.open = open.len() as u64;
        println!("{} {} {} {}", told.right, told.failed, told.closed, told.open);
    }
    Ok(())
}

fn connected(from: Ipv4Addr, server: SocketAddrV4) -> io::Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(server))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request on every connection: all are sent before the first answer is read. Connections that
/// the server has closed leave the list.
fn ask(open: &mut Vec<TcpStream>, request: &[u8], body_start: &str, told: &mut Told) {
    let asked: Vec<bool> = open.iter_mut().map(|stream| stream.write_all(request).is_ok()).collect();
    let mut asked = asked.into_iter();
    open.retain_mut(|stream| {
        let sent = asked.next().unwrap_or(false);
        match if sent { answer(stream) } else { Ok(None) } {
            Ok(Some(text)) if text.starts_with("HTTP/1.1 200 ") && text.contains(body_start) => {
                told.right += 1;
                true
            }
            Ok(None) => {
                told.closed += 1;
                false
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                told.closed += 1;
                false
            }
            wrong => {
                eprintln!("a request failed: {wrong:?}");
                told.failed += 1;
                false
            }
        }
    });
}

/// Reads one answer; `None` when the connection has ended instead.
fn answer(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let (mut room, mut filled) = ([0; 4_096], 0);
    loop {
        let len = stream.read(&mut room[filled..])?;
        if len == 0 {
            return Ok(None);
        }
        filled += len;
        let text = String::from_utf8_lossy(&room[..filled]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let expected = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= expected.unwrap_or(0) {
            return Ok(Some(text.into_owned()));
        }
    }
}
