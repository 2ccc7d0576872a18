//! Clients: one UDP socket, one HTTP connection. Both count what they ask, so that the books can be
//! compared with it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beast::account::Token;
use beast::price::Symbol;
use beast::time::{Clock as _, RealClock};
use beast::wire::v2::{Key, Reply, Request, write_request};
use serde_json::Value;

use super::running::PATIENCE;

/// How long silence is listened to before it counts as silence.
pub const SILENCE: Duration = Duration::from_millis(80);

/// A connected socket.
pub struct Udp(pub UdpSocket);

impl Udp {
    pub fn to(server: SocketAddr) -> Self {
        let any = match (server.is_ipv6(), server.ip().is_loopback()) {
            (true, true) => "::1",
            (true, false) => "::",
            (false, true) => "127.0.0.1",
            (false, false) => "0.0.0.0",
        };
        Self::from(any.parse().unwrap(), server)
    }

    /// From an address of one's own choosing.
    pub fn from(source: IpAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub fn send(&self, request: &[u8]) {
        assert_eq!(self.0.send(request).unwrap(), request.len());
    }

    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 65_536];
        let len = self.0.recv(&mut buffer).expect("no answer came");
        buffer[..len].to_vec()
    }

    pub fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        self.receive()
    }

    /// What comes within `time` of the last thing that came.
    pub fn all_within(&self, time: Duration) -> Vec<Vec<u8>> {
        self.0.set_read_timeout(Some(time)).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(len) = self.0.recv(&mut buffer) {
            all.push(buffer[..len].to_vec());
        }
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        all
    }

    /// Asks in v1 and reads the JSON.
    pub fn v1(&self, request: &str) -> Value {
        let answer = self.ask(request.as_bytes());
        assert!(answer.len() <= 3 * request.len(), "{request}");
        serde_json::from_slice(&answer).unwrap_or_else(|e| panic!("{e}: {}", answer.escape_ascii()))
    }

    /// Asks in v2 and checks the tag.
    pub fn v2(&self, request: &[u8], token: &Token) -> Reply {
        let answer = self.ask(request);
        assert!(answer.len() <= request.len());
        Reply::parse(&answer, &Key(token.v2_answer_key().0)).unwrap()
    }
}

/// A v1 request for one asset.
pub fn v1_request(token: &Token, asset: &str, id: &str) -> String {
    format!(r#"{{"api_key":"{}","asset":"{asset}","id":{id}}}"#, token.reveal())
}

/// A v2 request of the least length, made now.
pub fn v2_request(token: &Token, asset: &str, id: u64) -> Vec<u8> {
    v2_request_at(token, asset, id, RealClock.now().unix.ms())
}

pub fn v2_request_at(token: &Token, asset: &str, id: u64, time_ms: u64) -> Vec<u8> {
    let symbol = Symbol::parse(asset).unwrap();
    let request = Request { key_id: token.public_id(), time_ms, request_id: id, exchange: None, symbol };
    v2_signed(token, &request)
}

pub fn v2_signed(token: &Token, request: &Request) -> Vec<u8> {
    let mut bytes = vec![0; 88];
    assert_eq!(write_request(&mut bytes, request, &Key(token.v2_request_key().0)), Some(88));
    bytes
}

/// Answers read by all HTTP clients of this process.
pub static HTTP_ANSWERS: AtomicU64 = AtomicU64::new(0);

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body.escape_ascii()))
    }
}

/// One connection, with what was read ahead.
pub struct Http {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Http {
    pub fn to(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, ahead: Vec::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// `GET` of a target with a key.
    pub fn get(&mut self, target: &str, token: &Token) -> Response {
        self.write(get(target, token).as_bytes());
        self.read()
    }

    /// The next answer to anything but HEAD.
    pub fn read(&mut self) -> Response {
        self.try_read(false).expect("no answer came")
    }

    /// The next answer. An error when the connection ends before it.
    pub fn try_read(&mut self, to_head: bool) -> io::Result<Response> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.ahead.drain(..end).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        let len = response.header("content-length").map_or(0, |len| len.parse().unwrap());
        if !to_head {
            while self.ahead.len() < len {
                self.more()?;
            }
            response.body = self.ahead.drain(..len).collect();
        }
        HTTP_ANSWERS.fetch_add(1, Ordering::Relaxed);
        Ok(response)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16_384];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            len => {
                self.ahead.extend_from_slice(&buffer[..len]);
                Ok(())
            }
        }
    }

    pub fn shut_write(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Whether nothing more comes and the other side closes, by an end or by a reset.
    pub fn closes(&mut self) -> bool {
        match self.more() {
            Ok(()) => false,
            Err(e) => matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
        }
    }
}

/// A `GET` request.
pub fn get(target: &str, token: &Token) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: beast\r\nX-API-Key: {}\r\n\r\n", token.reveal())
}
