//! What a running appliance says of itself on its health port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::subject::Subject;

/// One reading of all metrics.
pub struct Metrics(String);

impl Metrics {
    /// Reads them now.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn read(health: SocketAddr) -> io::Result<Self> {
        Ok(Self(ask(health, "/metrics")?.1))
    }

    /// Sum of all samples of a family whose labels hold `label`; 0 when there is none.
    pub fn sum(&self, family: &str, label: &str) -> i64 {
        let of_family = |line: &&str| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
        };
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<i64>().ok());
        self.0.lines().filter(of_family).filter_map(value).sum()
    }
}

/// Waits until the appliance says that it is ready.
///
/// # Errors
/// When it ends, or is not ready within half a minute.
pub fn wait_until_ready(subject: &mut Subject) -> io::Result<SocketAddr> {
    let Some(health) = subject.health else { return Err(io::Error::other("the server has no health port")) };
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut last = String::new();
    while Instant::now() < deadline {
        subject.server.alive()?;
        match ask(health, "/ready") {
            Ok((200, _)) => return Ok(health),
            Ok((_, body)) => last = body,
            Err(e) => last = e.to_string(),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other(format!("the server is not ready after 30 s: {last}")))
}

/// Status and body of one request.
fn ask(server: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}
