//! What can be learnt of the server from outside: its metrics, its process, the kernel's table of its
//! sockets.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::error::LoadError;

/// Where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerWatch {
    /// The server's metrics: where they are and under which path.
    metrics: Option<(String, SocketAddr, String)>,
    /// Its process.
    pid: Option<u32>,
    /// Its UDP address, if that is on this machine: the kernel tells drops by port.
    local_udp: Option<SocketAddr>,
}

/// What was seen at one moment. Counters are since the server's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// Requests the server took from the kernel.
    pub(crate) received: Option<u64>,
    /// Datagrams the server's kernel dropped, and who told.
    pub(crate) dropped: Option<(u64, &'static str)>,
    pub(crate) memory_bytes: Option<u64>,
    /// Processor time of all threads.
    pub(crate) cpu: Option<Duration>,
    pub(crate) version: Option<String>,
    pub(crate) engine: Option<String>,
    pub(crate) shards: Option<u64>,
}

/// How long a look may take; a server that is busy answers late.
const LOOK_MAX: Duration = Duration::from_secs(2);

impl ServerWatch {
    /// Looks at metrics under a URL and at a process, where they are given, and at the kernel's table
    /// for a UDP server on this machine.
    ///
    /// # Errors
    /// When the URL cannot be used, nobody answers there, or there is no such process.
    pub fn new(
        metrics_url: Option<&str>,
        pid: Option<u32>,
        udp: Option<SocketAddr>,
    ) -> Result<Self, LoadError> {
        let metrics = metrics_url.map(parse_url).transpose()?;
        let watch = Self { metrics, pid, local_udp: udp };
        if let Some((url, address, path)) = &watch.metrics {
            get(*address, path).map_err(|e| {
                LoadError::new(
                    format!("--server-metrics {url}: {e}"),
                    "name the server's health port, such as http://127.0.0.1:8081/metrics",
                )
            })?;
        }
        if let Some(pid) = pid
            && status_field(pid, "VmRSS:").is_none()
        {
            return Err(LoadError::new(
                format!("--server-pid {pid}: there is no such process with memory"),
                "name a running process of this machine (pgrep beast)",
            ));
        }
        Ok(watch)
    }

    /// Where metrics are read.
    #[must_use]
    pub fn metrics_url(&self) -> Option<&str> {
        self.metrics.as_ref().map(|(url, ..)| url.as_str())
    }

    /// The process that is watched.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The server's memory now, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        match self.pid {
            Some(pid) => status_field(pid, "VmRSS:").map(|kib| kib.saturating_mul(1_024)),
            None => self.metrics_text().and_then(|text| sum(&text, "process_resident_memory_bytes", "")),
        }
    }

    fn metrics_text(&self) -> Option<String> {
        let (_, address, path) = self.metrics.as_ref()?;
        get(*address, path).ok()
    }

    /// Looks at what has become of datagrams, or of requests by HTTP.
    pub(crate) fn read(&self, datagrams: bool) -> Reading {
        let text = self.metrics_text().unwrap_or_default();
        self.reading(&text, datagrams)
    }

    fn reading(&self, text: &str, datagrams: bool) -> Reading {
        let told = |family: &str, label: &str| sum(text, family, label);
        // What the kernel's program takes of datagrams never reaches a socket.
        let transports: &[&str] = if datagrams { &["udp", "xdp"] } else { &["http"] };
        let received =
            |transport: &&str| told("beast_request_received_total", &format!("transport=\"{transport}\""));
        let by_metrics =
            told("beast_datagram_dropped_total", "").filter(|_| datagrams).map(|count| (count, "metrics"));
        let by_kernel = || {
            let drops = kernel_drops(self.local_udp?, |path| fs::read_to_string(path).ok())?;
            Some((drops, "/proc/net/udp"))
        };
        Reading {
            received: transports.iter().filter_map(received).reduce(u64::saturating_add),
            dropped: by_metrics.or_else(by_kernel),
            memory_bytes: match self.pid {
                Some(_) => self.memory_bytes(),
                None => told("process_resident_memory_bytes", ""),
            },
            cpu: self.pid.and_then(process_cpu),
            version: label_of(text, "beast_build_info", "version"),
            engine: label_of(text, "beast_engine_info", "engine"),
            shards: told("beast_books_difference", "").map(|_| {
                text.lines().filter(|line| line.starts_with("beast_books_difference{")).count() as u64
            }),
        }
    }
}

/// `http://host:port/path`, the scheme and the path may be left out.
fn parse_url(url: &str) -> Result<(String, SocketAddr, String), LoadError> {
    let cure = "give it as http://HOST:PORT/metrics";
    let wrong = |what: String| LoadError::new(format!("--server-metrics {url}: {what}"), cure);
    if url.starts_with("https://") {
        return Err(wrong("only http is read".to_owned()));
    }
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
    let mut found = host.to_socket_addrs().map_err(|e| wrong(format!("{host} is no address: {e}")))?;
    let address = found.next().ok_or_else(|| wrong(format!("{host} has no address")))?;
    Ok((url.to_owned(), address, format!("/{path}")))
}

fn get(server: SocketAddr, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, LOOK_MAX)?;
        stream.set_read_timeout(Some(LOOK_MAX))?;
        stream.set_write_timeout(Some(LOOK_MAX))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
        let mut text = Vec::new();
        stream.take(8 << 20).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = ask().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("it answers with status {}", status.unwrap_or("none"))),
    }
}

/// The sum of all samples of a family whose labels hold `label`; `None` when there is none.
fn sum(text: &str, family: &str, label: &str) -> Option<u64> {
    let mut all = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(family).filter(|rest| rest.starts_with([' ', '{'])) else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once(' ') else { continue };
        if labels.contains(label) {
            let value = value.parse::<f64>().unwrap_or(0.0).max(0.0) as u64;
            all = Some(all.unwrap_or(0_u64).saturating_add(value));
        }
    }
    all
}

fn label_of(text: &str, family: &str, label: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(family) && line[family.len()..].starts_with('{'))?;
    let (_, rest) = line.split_once(&format!("{label}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// Drops of all sockets at this address's port, by the kernel's tables; `None` when none is there.
fn kernel_drops(server: SocketAddr, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut all = None;
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        // `  sl  local_address rem_address … drops`, addresses as HEX:PORT; the last column counts.
        for line in read(path).unwrap_or_default().lines().skip(1) {
            let mut columns = line.split_whitespace();
            let port =
                columns.nth(1).and_then(|local| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok());
            let unconnected = columns.next().is_some_and(|peer| peer.ends_with(":0000"));
            let drops = columns.last().and_then(|drops| drops.parse::<u64>().ok());
            if let (Some(port), Some(drops), true) = (port, drops, unconnected)
                && port == server.port()
            {
                all = Some(all.unwrap_or(0_u64).saturating_add(drops));
            }
        }
    }
    all
}

fn status_field(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn process_cpu(pid: u32) -> Option<Duration> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    let clock = nix::time::clock_getcpuclockid(pid).ok()?;
    nix::time::clock_gettime(clock).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn metrics_are_summed_by_family_and_label() {
        let text = "# HELP a_total x\na_total{shard=\"0\",transport=\"udp\"} 5\n\
                    a_total{shard=\"1\",transport=\"udp\"} 7\na_total{transport=\"tcp\"} 100\nab_total 9\n\
                    beast_engine_info{engine=\"uring\",reason=\"a b\"} 1\n";
        assert_eq!(sum(text, "a_total", "transport=\"udp\""), Some(12));
        assert_eq!(sum(text, "ab_total", ""), Some(9));
        assert_eq!(sum(text, "none", ""), None);
        assert_eq!(label_of(text, "beast_engine_info", "engine").as_deref(), Some("uring"));
        assert_eq!(label_of(text, "beast_engine", "engine"), None);
    }

    #[test]
    fn the_kernel_tells_drops_by_port() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let read = |path: &str| fs::read_to_string(path).ok();
        let before = kernel_drops(server, read).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..4_000 {
            client.send_to(&[0; 1_000], server).unwrap();
        }
        assert!(kernel_drops(server, read).unwrap() > before);
        drop(socket);
        assert_eq!(kernel_drops(server, |_| None), None);
    }

    #[test]
    fn what_cannot_be_watched_is_said_before_the_run() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, said) in [
            (format!("http://{free}/metrics"), "refused"),
            ("https://x/".to_owned(), "only http is read"),
            ("nonsense".to_owned(), "is no address"),
        ] {
            let error = ServerWatch::new(Some(&url), None, None).unwrap_err();
            assert!(error.what.contains(said), "{error}");
        }
        let error = ServerWatch::new(None, Some(u32::MAX - 7), None).unwrap_err();
        assert!(error.what.contains("no such process"), "{error}");
        let own = ServerWatch::new(None, Some(std::process::id()), None).unwrap();
        assert!(own.memory_bytes().unwrap() > 1 << 20);
        assert!(own.read(true).cpu.is_some());
    }

    #[test]
    fn datagrams_are_those_of_sockets_and_kernel_and_no_drops_of_theirs_are_of_http() {
        let text = "beast_request_received_total{shard=\"0\",transport=\"udp\"} 5\n\
                    beast_request_received_total{shard=\"16384\",transport=\"xdp\"} 70\n\
                    beast_request_received_total{shard=\"0\",transport=\"http\"} 900\n\
                    beast_datagram_dropped_total{shard=\"0\"} 3\n";
        let watch = ServerWatch::default();
        let (udp, http) = (watch.reading(text, true), watch.reading(text, false));
        assert_eq!((udp.received, udp.dropped), (Some(75), Some((3, "metrics"))));
        assert_eq!((http.received, http.dropped), (Some(900), None));
    }
}
