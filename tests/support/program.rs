//! The real program in a process of its own, with its log.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use beast::account::Token;
use beast::appliance::feed_setup;
use beast::config::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use toml::{Table, Value};

use super::feeds::Client;
use super::wait::{PATIENCE, until};

/// A running `beast serve`; killed when dropped.
pub(crate) struct Program {
    pub(crate) client: Client,
    pub(crate) health: SocketAddr,
    child: Child,
    log: Receiver<String>,
    _data: TempDir,
}

impl Program {
    /// Starts it with what the configuration says of feeds, assets and REST.
    pub(crate) fn start(config: &Config) -> Self {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("beast.toml");
        std::fs::write(&file, settings(config, &data).to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        command
            .arg("serve")
            .env_clear()
            .env("BEAST_CONFIG", &file)
            .env("SERVER_TYPE", "APP_SERVER")
            .env("BEAST_HOST_CHECK", "false");
        command.current_dir(data.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, log) = channel();
        // Reads to the end, so that the process is never held up by a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let line = line_with(&log, "; health ");
        let address = |name: &str| -> SocketAddr {
            let (_, after) = line.split_once(name).unwrap();
            after.split([',', ';']).next().unwrap().trim().parse().unwrap()
        };
        let key = until("the first key", || {
            std::fs::read_to_string(data.path().join("data/first-key")).map_err(|e| e.to_string())
        });
        let token = Token::parse(key.trim().as_bytes()).unwrap();
        let catalogue = feed_setup(config, None).unwrap().catalogue;
        let client = Client::new(token, address("UDP "), address("HTTP "), catalogue);
        Self { client, health: address("health "), child, log, _data: data }
    }

    /// The next line of the log that contains a text.
    pub(crate) fn line_with(&self, text: &str) -> String {
        line_with(&self.log, text)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end and gives the exit code.
    pub(crate) fn exit_code(&mut self) -> i32 {
        until("the process ends", || match self.child.try_wait().unwrap() {
            Some(status) => status.code().ok_or_else(|| format!("{status}")),
            None => Err("it runs".to_owned()),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn line_with(log: &Receiver<String>, text: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match log.recv_timeout(PATIENCE.max(Duration::from_secs(60))) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => seen.push(line),
            Err(_) => panic!("no line with {text:?} in\n{}", seen.join("\n")),
        }
    }
}

fn settings(config: &Config, data: &TempDir) -> Table {
    let tables = |of: &std::collections::BTreeMap<String, Table>| -> Value {
        of.iter().map(|(name, table)| (name.clone(), Value::Table(table.clone()))).collect::<Table>().into()
    };
    let number = |number: u64| Value::Integer(number.try_into().unwrap());
    let mut rest = Table::new();
    rest.insert("deadline_ms".into(), number(config.rest.deadline_ms));
    rest.insert("cache_ttl_s".into(), number(config.rest.cache_ttl_s));
    rest.insert("prewarm".into(), config.rest.prewarm.into());
    let mut all = Table::new();
    all.insert("data_dir".into(), data.path().join("data").to_str().unwrap().into());
    all.insert("listen".into(), vec![Value::from("127.0.0.1")].into());
    for port in ["udp_port", "http_port", "health_port"] {
        all.insert(port.into(), number(0));
    }
    all.insert("shards".into(), number(config.shards as u64));
    all.insert("pin".into(), config.pin.into());
    all.insert("rest".into(), rest.into());
    all.insert("feeds".into(), tables(&config.feeds));
    all.insert("assets".into(), tables(&config.assets));
    all
}
