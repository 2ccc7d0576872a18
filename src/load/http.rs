//! The HTTP generator: kept-alive connections on one thread, one request under way on each.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::tally::Tally;
use crate::limits::HTTP_HEADERS_MAX;
use crate::time::{Clock, MonoNs, RealClock};

/// A request and what its answer must be.
#[derive(Clone, Debug)]
pub struct HttpExchange {
    /// The whole request.
    pub request: Vec<u8>,
    /// What the body of a 200 begins with.
    pub body_start: Vec<u8>,
}

/// How to load a server.
#[derive(Clone, Debug)]
pub struct HttpLoadOptions {
    /// Where it listens.
    pub server: SocketAddr,
    /// Connections, each with one request under way.
    pub connections: usize,
    /// How long [`HttpLoad::finish`] waits for the last answers.
    pub lost_after: Duration,
}

/// A generator under way; see [`UdpLoad`](super::UdpLoad) for how stretches follow one another.
pub struct HttpLoad {
    exchanges: Vec<HttpExchange>,
    options: HttpLoadOptions,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    peers: Vec<Peer>,
    next_exchange: usize,
}

/// One connection.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    /// When its request left and which one it was, while it waits.
    waiting: Option<(MonoNs, usize)>,
}

/// Longest answer that is read.
const ANSWER_LEN_MAX: usize = 16 << 10;

/// Readiness taken from the kernel at a time.
const EVENTS_LEN: usize = 256;

impl HttpLoad {
    /// Connects. `exchanges` are asked in turn.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` when there is nothing to ask.
    pub fn open(options: HttpLoadOptions, exchanges: Vec<HttpExchange>) -> io::Result<Self> {
        if exchanges.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to ask, give one request"));
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let peers = (0..options.connections.max(1))
            .map(|index| Peer::connect(options.server, &epoll, index))
            .collect::<io::Result<_>>()?;
        let events = vec![EpollEvent::empty(); EVENTS_LEN];
        Ok(Self { exchanges, options, epoll, events, peers, next_exchange: 0 })
    }

    /// Loads the server for `duration` and tells what became of it. Requests under way at the end
    /// stay so. A connection that the server closes is opened again, and its request counts as
    /// overdue.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&mut self, duration: Duration) -> io::Result<Tally> {
        let mut tally = Tally::new();
        let start = RealClock.now().mono;
        for index in 0..self.peers.len() {
            if self.peers[index].waiting.is_none() {
                self.ask(index, start, &mut tally)?;
            }
        }
        self.stretch(start, start.plus(duration), true, &mut tally)?;
        Ok(tally)
    }

    /// Sends nothing more and waits until every request is answered or given up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(&mut self) -> io::Result<Tally> {
        let mut tally = Tally::new();
        let start = RealClock.now().mono;
        self.stretch(start, start.plus(self.options.lost_after), false, &mut tally)?;
        for peer in &mut self.peers {
            tally.overdue += u64::from(peer.waiting.take().is_some());
        }
        Ok(tally)
    }

    /// Requests under way now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.peers.iter().filter(|peer| peer.waiting.is_some()).count()
    }

    fn stretch(&mut self, start: MonoNs, end: MonoNs, sending: bool, tally: &mut Tally) -> io::Result<()> {
        let mut now = start;
        while now < end && (sending || self.in_flight() > 0) {
            let ready = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
            let turn_start = std::mem::replace(&mut now, RealClock.now().mono);
            if ready == 0 {
                tally.idle += now.since(turn_start);
            }
            for event in 0..ready {
                let index = usize::try_from(self.events[event].data()).unwrap_or(0);
                if self.read(index, now, tally)? && sending {
                    self.ask(index, now, tally)?;
                }
            }
        }
        tally.elapsed = now.since(start);
        Ok(())
    }

    /// Reads what there is; returns whether the connection is free for the next request.
    fn read(&mut self, index: usize, now: MonoNs, tally: &mut Tally) -> io::Result<bool> {
        let peer = &mut self.peers[index];
        match peer.stream.read(&mut peer.input[peer.filled..]) {
            Ok(0) => return self.reopen(index, tally),
            Ok(len) => peer.filled += len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return self.reopen(index, tally),
            Err(e) => return Err(e),
        }
        let Some((sent_at, exchange)) = peer.waiting else {
            tally.wrong += 1;
            peer.filled = 0;
            return Ok(false);
        };
        match answer(&peer.input[..peer.filled]) {
            Parsed::Incomplete if peer.filled < ANSWER_LEN_MAX => return Ok(false),
            Parsed::Answer { status: 200, body }
                if body.starts_with(&self.exchanges[exchange].body_start) =>
            {
                tally.matched += 1;
                tally.answer_bytes += peer.filled as u64;
                tally.record_latency(now.since(sent_at));
            }
            _ => {
                tally.wrong += 1;
                tally.overdue += 1;
            }
        }
        peer.filled = 0;
        peer.waiting = None;
        Ok(true)
    }

    fn reopen(&mut self, index: usize, tally: &mut Tally) -> io::Result<bool> {
        let fresh = Peer::connect(self.options.server, &self.epoll, index)?;
        // The old one leaves epoll as it is closed.
        let old = std::mem::replace(&mut self.peers[index], fresh);
        tally.overdue += u64::from(old.waiting.is_some());
        Ok(true)
    }

    fn ask(&mut self, index: usize, now: MonoNs, tally: &mut Tally) -> io::Result<()> {
        let exchange = self.next_exchange;
        self.next_exchange = (exchange + 1) % self.exchanges.len();
        let peer = &mut self.peers[index];
        // One request at a time is far below what a socket holds: it goes whole or not at all.
        match peer.stream.write(&self.exchanges[exchange].request) {
            Ok(_) => {
                peer.waiting = Some((now, exchange));
                tally.sent += 1;
            }
            // The server has closed meanwhile; its end of stream is read next.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                tally.send_failed += 1;
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

impl Peer {
    fn connect(server: SocketAddr, epoll: &Epoll, index: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        Ok(Self { stream, input: vec![0; ANSWER_LEN_MAX], filled: 0, waiting: None })
    }
}

enum Parsed<'a> {
    Incomplete,
    Answer { status: u16, body: &'a [u8] },
    Broken,
}

/// Reads one answer that is all of `bytes`.
fn answer(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Parsed::Incomplete,
        Err(_) => return Parsed::Broken,
    };
    let status = response.code.unwrap_or(0);
    let body_len = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let (Some(body_len), body) = (body_len, bytes.get(head_len..).unwrap_or_default()) else {
        return Parsed::Broken;
    };
    match body.len().cmp(&body_len) {
        std::cmp::Ordering::Less => Parsed::Incomplete,
        std::cmp::Ordering::Equal => Parsed::Answer { status, body },
        std::cmp::Ordering::Greater => Parsed::Broken,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Serves `connections` connections, each request with what `answer` says; `None` closes.
    fn server(
        connections: usize,
        answer: impl Fn(usize) -> Option<Vec<u8>> + Send + Clone + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    for n in 0.. {
                        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                        let Some(bytes) = answer(n) else { return };
                        // In two parts, so that an answer is met that has not come whole.
                        let (first, second) = bytes.split_at(bytes.len() / 2);
                        if stream.write_all(first).and_then(|()| stream.write_all(second)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    /// Loads until `enough`, or for as long as any machine needs.
    fn load(address: SocketAddr, enough: impl Fn(&Tally) -> bool) -> Tally {
        let options = HttpLoadOptions { server: address, connections: 4, lost_after: Duration::from_secs(1) };
        let exchange = |n: u8| HttpExchange {
            request: format!("GET /{n} HTTP/1.1\r\nhost: x\r\n\r\n").into(),
            body_start: b"{\"ok".to_vec(),
        };
        let mut load = HttpLoad::open(options, vec![exchange(1), exchange(2)]).unwrap();
        let mut tally = Tally::new();
        for _ in 0..200 {
            tally.add(&load.run(Duration::from_millis(20)).unwrap());
            if enough(&tally) {
                break;
            }
        }
        tally.add(&load.finish().unwrap());
        assert_eq!(load.in_flight(), 0);
        assert_eq!(tally.sent, tally.matched + tally.overdue, "{tally:?}");
        tally
    }

    fn ok() -> Option<Vec<u8>> {
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\":true}".to_vec())
    }

    #[test]
    fn every_answer_is_matched() {
        let tally = load(server(4, |_| ok()), |tally| tally.matched > 10);
        assert!(tally.matched > 0);
        assert_eq!((tally.matched, tally.wrong), (tally.sent, 0), "{tally:?}");
    }

    #[test]
    fn closed_connections_are_opened_again_and_wrong_answers_counted() {
        let address = server(10_000, |n| match n {
            1 => Some(b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\n{\"o".to_vec()),
            2 => Some(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{\"e".to_vec()),
            5 => None,
            _ => ok(),
        });
        let both = |tally: &Tally| tally.matched > 0 && tally.wrong > 0 && tally.overdue > tally.wrong;
        let tally = load(address, both);
        assert!(both(&tally), "{tally:?}");
    }
}
