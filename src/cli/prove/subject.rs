//! The server that is proved: this program again, with simulated exchanges, one shard, and a folder of
//! its own that goes with it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::load::server::{Server, ask, free_port};
use beast::load::{Expect, HttpExchange, V1, V2};
use beast::price::Symbol;
use beast::wire::v2::Key;
use serde_json::Value;

use super::Io;
use super::wire::Wire;

/// What is asked for, in turn.
const ASSETS: [&str; 8] = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK"];

/// A running server.
pub(super) struct Subject {
    pub(super) server: Server,
    /// From its start until it said that it is ready.
    pub(super) ready_after: Duration,
    health: SocketAddr,
    token: Token,
    symbols: Vec<Symbol>,
    _folder: Folder,
}

/// What a server's books say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) received: u64,
    pub(super) dropped: u64,
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) waiting: u64,
}

impl Subject {
    /// Starts it on one processor and waits until it is ready. With a wire it answers in the kernel, at
    /// the near end.
    pub(super) fn start(io: Io, spin_us: u64, cpu: Option<usize>, wire: Option<&Wire>) -> io::Result<Self> {
        let folder = Folder::new()?;
        let (data, log) = (folder.0.join("data"), folder.0.join("log"));
        let (udp, http, health) = (free_port()?, free_port()?, free_port()?);
        let listen = wire.map_or(IpAddr::from([127, 0, 0, 1]), |_| Wire::near());
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--sim", "--shards", "1", "--io", io.io(), "--listen", &listen.to_string()])
            .args(["--spin-us", &spin_us.to_string()])
            .args(["--udp-port", &udp.to_string(), "--http-port", &http.to_string()])
            .args(["--health-port", &health.to_string(), "--set", "report_health_port=0"])
            .arg("--data")
            .arg(&data)
            .stderr(fs::File::create(&log)?);
        if let Some(wire) = wire {
            command.args(["--xdp", &format!("{}:generic", wire.interface)]);
        }
        let at = |port| SocketAddr::from((listen, port));
        let started = Instant::now();
        let mut server = Server::command(&mut command, cpu, at(udp), Some(at(http)))?;
        let said = |e: io::Error| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            io::Error::other(format!("{e}; {command:?} said:\n{said}"))
        };
        server.wait_until_ready(at(health)).map_err(said)?;
        let ready_after = started.elapsed();
        let key = fs::read_to_string(data.join("first-key")).map_err(said)?;
        let token =
            Token::parse(key.trim().as_bytes()).map_err(|_| io::Error::other("the first key is none"))?;
        let symbols = ASSETS.iter().map(|text| Symbol::parse(text).map_err(io::Error::other));
        let symbols = symbols.collect::<io::Result<_>>()?;
        Ok(Self { server, ready_after, health: at(health), token, symbols, _folder: folder })
    }

    pub(super) fn v1(&self) -> V1 {
        V1::new(&self.token.reveal(), &self.symbols)
    }

    pub(super) fn v2(&self) -> V2 {
        V2 {
            key_id: self.token.public_id(),
            request_key: Key(self.token.v2_request_key().0),
            answer_key: Key(self.token.v2_answer_key().0),
            symbols: self.symbols.clone(),
        }
    }

    /// Always for the same asset, so that all answers are equally long.
    pub(super) fn http(&self) -> HttpExchange {
        let (asset, token) = (ASSETS[0], self.token.reveal());
        HttpExchange {
            request: format!(
                "GET /price?asset={asset} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {token}\r\n\r\n"
            )
            .into(),
            expect: Expect::price_of(asset),
        }
    }

    /// Answers that its XDP program gave, once its counters have caught up.
    pub(super) fn answered_in_kernel(&self) -> io::Result<u64> {
        std::thread::sleep(Duration::from_millis(200));
        let (_, text) = ask(self.health, "/metrics")?;
        let of_xdp = |line: &&str| {
            line.starts_with("beast_request_answered_total{") && line.contains("transport=\"xdp\"")
        };
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
        Ok(text.lines().filter(of_xdp).filter_map(value).sum())
    }

    /// Its books, once its counters have caught up with the last answer.
    pub(super) fn books(&self) -> io::Result<Told> {
        std::thread::sleep(Duration::from_millis(200));
        let (_, text) = ask(self.health, "/books")?;
        let books: Value = serde_json::from_str(&text)?;
        let of = |name: &str| {
            let value = books["total"][name].as_u64();
            value.ok_or_else(|| io::Error::other(format!("/books does not tell {name}: {text}")))
        };
        Ok(Told {
            received: of("received")?,
            dropped: of("kernel_dropped")?,
            answered: of("answered")?,
            refused: of("refused")?,
            waiting: of("waiting")?,
        })
    }
}

/// A folder for one server, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("beast-prove-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        // Its keys are for nobody else, and a folder that lies there already is somebody else's.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed lies in the folder for temporary files, which is cleared by others.
        let _left = fs::remove_dir_all(&self.0);
    }
}
