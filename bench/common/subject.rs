//! The server that is compared with the floor.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::load::{Expect, HttpExchange, V1, V2};
use beast::price::Symbol;
use beast::wire::v2::Key;
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use super::child::{Server, free_port};
use super::shard::{Io, Send};
use super::{Cpus, fixture, shard};

/// Which server is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// One shard with a fixed board, inside this program.
    Shard,
    /// The whole appliance with simulated exchanges, or the command of `--server`.
    Beast,
}

/// Which server, and how it is started.
#[derive(Args, Clone, Debug)]
pub struct SubjectArgs {
    /// What is compared: the whole appliance, or its answer path alone.
    #[arg(long, value_enum, default_value = "beast")]
    pub what: What,
    /// Engines to compare, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,portable")]
    pub io: Vec<Io>,
    /// How the uring engine of `--what shard` sends.
    #[arg(long, value_enum, default_value = "sendmmsg")]
    pub send: Send,
    /// Microseconds the shard looks for work before it sleeps.
    #[arg(long, default_value_t = 0)]
    pub spin_us: u64,
    /// Command of `--what beast`, words apart by spaces; {io}, {spin}, {udp}, {http}, {health} and
    /// {data} are filled in. It must listen on 127.0.0.1 and write its key to {data}/first-key.
    #[arg(long, default_value = concat!(env!("CARGO_BIN_EXE_beast"), " serve --sim --shards 1 --io {io} --spin-us {spin} \
        --listen 127.0.0.1 --udp-port {udp} --http-port {http} --health-port {health} --data {data}"))]
    pub server: String,
    /// Assets that are asked for with `--what beast`.
    #[arg(long, value_delimiter = ',', default_value = "BTC,ETH,SOL,XRP,DOGE,ADA,AVAX,LINK")]
    pub assets: Vec<String>,
}

/// A server under comparison.
pub struct Subject {
    /// The process.
    pub server: Server,
    /// Where it tells how it is, if it does.
    pub health: Option<SocketAddr>,
    token: Token,
    symbols: Vec<Symbol>,
    /// Its folder, gone when it is.
    _folder: Option<TempDir>,
}

impl SubjectArgs {
    /// Starts it on the server's processor.
    ///
    /// # Errors
    /// When it does not start, or makes no key within half a minute.
    pub fn start(&self, io: Io, cpus: Cpus) -> io::Result<Subject> {
        match self.what {
            What::Shard => {
                let token = Token::generate()
                    .map_err(|_| io::Error::other("the machine has no randomness to give"))?;
                let server = shard::start(io, self.send, self.spin_us, &token, cpus.server)?;
                Ok(Subject { server, health: None, token, symbols: fixture::symbols()?, _folder: None })
            }
            What::Beast => self.start_beast(io, cpus),
        }
    }

    fn start_beast(&self, io: Io, cpus: Cpus) -> io::Result<Subject> {
        let folder = tempfile::tempdir()?;
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let (udp, http, health) = (free_port()?, free_port()?, free_port()?);
        let fill = |word: &str| {
            word.replace("{io}", io.name())
                .replace("{spin}", &self.spin_us.to_string())
                .replace("{udp}", &udp.to_string())
                .replace("{http}", &http.to_string())
                .replace("{health}", &health.to_string())
                .replace("{data}", &data.to_string_lossy())
        };
        let mut words = self.server.split_whitespace().map(fill);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).stderr(fs::File::create(&log)?);
        for port in ["HEALTH_PORT", "PORT", "UDP_PORT"] {
            command.env(format!("BEAST_REPORT_{port}"), "0");
        }
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Server::command(&mut command, cpus.server, at(udp), Some(at(http)))?;
        let token = first_key(&mut server, &data.join("first-key")).map_err(|e| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            io::Error::other(format!("{e}; {command:?} said:\n{said}"))
        })?;
        let symbols = self.assets.iter().map(|text| Symbol::parse(text).map_err(io::Error::other));
        let symbols = symbols.collect::<io::Result<_>>()?;
        Ok(Subject { server, health: Some(at(health)), token, symbols, _folder: Some(folder) })
    }
}

impl Subject {
    /// The key it knows.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// v1 requests that it answers.
    pub fn requests_v1(&self) -> V1 {
        V1::new(&self.token.reveal(), &self.symbols)
    }

    /// v2 requests that it answers.
    pub fn requests_v2(&self) -> V2 {
        V2 {
            key_id: self.token.public_id(),
            request_key: Key(self.token.v2_request_key().0),
            answer_key: Key(self.token.v2_answer_key().0),
            symbols: self.symbols.clone(),
        }
    }

    /// An HTTP request that it answers, always for the same asset.
    pub fn http(&self) -> HttpExchange {
        let (symbol, token) = (self.symbols[0].as_str(), self.token.reveal());
        HttpExchange {
            request: format!(
                "GET /price?asset={symbol} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {token}\r\n\r\n"
            )
            .into(),
            expect: Expect::price_of(symbol),
        }
    }
}

fn first_key(server: &mut Server, path: &Path) -> io::Result<Token> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        server.alive()?;
        if let Ok(text) = fs::read_to_string(path)
            && let Ok(token) = Token::parse(text.trim().as_bytes())
        {
            return Ok(token);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("no key appeared in {} within 30 s", path.display())))
}
