//! A running appliance on free ports, with simulated exchanges, in this process or in one of its own.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use beast::account::Token;
use beast::admin::{Books, books};
use beast::appliance::Appliance;
use beast::config::{Config, IoChoice};
use beast::engine::probe::Chosen;
use beast::shard::{Counter, Counters};
use beast::time::{Clock as _, RealClock};
use tempfile::TempDir;

/// How long anything may take before a test gives up: never the time something should take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until `done`, or fails after [`PATIENCE`].
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A configuration for tests: free ports, loopback, simulated exchanges, an engine that must be the
/// one that is named.
pub fn config(io: IoChoice, shards: usize) -> Config {
    Config {
        io,
        shards,
        sim: true,
        pin: false,
        udp_port: 0,
        http_port: 0,
        health_port: 0,
        report_health_port: 0,
        report_port: 0,
        report_udp_port: 0,
        ..Config::default()
    }
}

/// An appliance in this process.
pub struct Running {
    /// There until it leaves.
    appliance: Option<Appliance>,
    pub token: Token,
    pub data: TempDir,
}

impl Running {
    /// Starts it and waits until it is ready.
    pub fn start(config: Config) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = Config { data_dir: data.path().join("data"), ..config };
        let appliance = Appliance::start(&config, |_| Ok(())).unwrap();
        let wanted = match config.io {
            IoChoice::Uring => Some(Chosen::Uring),
            IoChoice::Portable => Some(Chosen::Portable),
            IoChoice::Auto => None,
        };
        if let Some(wanted) = wanted {
            assert_eq!(appliance.engine.engine, wanted, "{}", appliance.engine.why);
        }
        let token = appliance.first_key.unwrap();
        let running = Self { appliance: Some(appliance), token, data };
        wait_until("the appliance is ready", || {
            running.appliance().facts.unready(RealClock.now().mono).is_empty()
        });
        running
    }

    pub fn appliance(&self) -> &Appliance {
        self.appliance.as_ref().unwrap()
    }

    /// Its IPv4 addresses of UDP and HTTP.
    pub fn udp(&self) -> SocketAddr {
        v4(&self.appliance().addresses.udp)
    }

    pub fn http(&self) -> SocketAddr {
        v4(&self.appliance().addresses.http)
    }

    /// The counters of each shard, as of one moment of each.
    pub fn counters(&self) -> Vec<Counters> {
        self.appliance().published.iter().map(|shard| shard.read()).collect()
    }

    /// One counter over all shards.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters().iter().map(|counters| counters.value(counter)).sum()
    }

    /// The books of all shards together; those of each must close.
    pub fn books(&self) -> Books {
        let each = self
            .counters()
            .iter()
            .map(books)
            .inspect(|books| assert_eq!(books.difference(), 0))
            .fold(Books::default(), Books::plus);
        assert!(self.appliance().is_whole(), "a shard has ended");
        each
    }

    /// The books once nothing moves any more: shards publish now and then.
    pub fn settled(&self) -> Books {
        settled(&|| self.books())
    }

    /// Leaves, and checks that nothing went wrong and the books close at the end.
    pub fn leave(mut self) {
        let appliance = self.appliance.take().unwrap();
        let published = appliance.published.clone();
        appliance.leave().unwrap();
        for shard in published {
            let books = books(&shard.read());
            assert_eq!((books.difference(), books.waiting), (0, 0));
        }
    }
}

impl Drop for Running {
    /// Shows what the shards have counted when a test has failed.
    fn drop(&mut self) {
        let Some(appliance) = self.appliance.as_ref().filter(|_| std::thread::panicking()) else { return };
        for (index, shard) in appliance.published.iter().enumerate() {
            let counters = shard.read();
            let all = Counter::ALL.iter().map(|c| (c, counters.value(*c))).filter(|(_, value)| *value > 0);
            eprintln!("shard {index}: {:?}", all.collect::<Vec<_>>());
        }
    }
}

/// The books once they no longer change.
pub fn settled(books: &dyn Fn() -> Books) -> Books {
    let mut last = books();
    wait_until("the books stand still", || {
        std::thread::sleep(Duration::from_millis(250));
        let now = books();
        std::mem::replace(&mut last, now) == now
    });
    last
}

/// The program itself.
pub struct Process {
    child: Child,
    pub udp: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
    pub health: SocketAddr,
    pub token: Token,
    /// What it said before it was ready.
    pub said: Vec<String>,
    /// What it says since.
    says: Mutex<mpsc::Receiver<String>>,
}

impl Process {
    /// Starts `beast serve --sim` with these arguments and waits until it is ready. The child inherits
    /// what the calling thread is bound to, such as a seccomp filter.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        Self::wait(serve(Command::new(env!("CARGO_BIN_EXE_beast")), data, args).spawn().unwrap(), data)
    }

    /// As [`start`](Self::start), in mounts of its own: `script` makes them, with the data folder as `$0`.
    pub fn start_in_mounts(script: &str, data: &Path, args: &[&str]) -> Self {
        let child = serve(in_mounts(script, data), data, args).spawn().unwrap();
        // Where this process sees what the other one has mounted.
        let seen = mounted(child.id(), data);
        Self::wait(child, &seen)
    }

    /// Waits until it is ready; `data` is where its data folder can be read.
    fn wait(mut child: Child, data: &Path) -> Self {
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        // Reads to the end, so that the process is never held up by a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut said = Vec::new();
        let (mut udp, mut http, mut health) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let Ok(line) = told.recv_timeout(PATIENCE) else {
                let threads = threads(child.id());
                let _gone = child.kill();
                panic!("not ready: {said:#?}\n{threads}");
            };
            if let Some(rest) = line.strip_prefix("listen   UDP ") {
                let mut lists = rest.split(';').map(addresses);
                udp = lists.next().unwrap();
                http = lists.next().unwrap();
                health = lists.next().unwrap();
            }
            let ready = line.starts_with("ready ");
            said.push(line);
            if ready {
                break;
            }
        }
        let text = std::fs::read_to_string(data.join("first-key")).unwrap();
        let token = Token::parse(text.trim_end().as_bytes()).unwrap();
        Self { child, udp, http, health: health[0], token, said, says: Mutex::new(told) }
    }

    /// What a path of the health port says.
    pub fn health(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.health).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.health("/metrics");
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?.trim_start_matches(|c| c != ' ');
            rest.trim().parse::<u64>().ok()
        };
        text.lines().filter_map(of).sum()
    }

    /// Waits until every record is in the store.
    pub fn drained(&self) {
        wait_until("all is drained", || self.metric("beast_journal_undrained_record_count") == 0);
    }

    /// Where this process sees the other one's data folder, whatever it has mounted.
    pub fn mounted(&self, data: &Path) -> PathBuf {
        mounted(self.child.id(), data)
    }

    /// What `/books` says of all shards together.
    pub fn books(&self) -> Books {
        let body = self.health("/books");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["total"]["difference"], 0, "{value}");
        let field = |name: &str| value["total"][name].as_u64().unwrap_or_else(|| panic!("{value}"));
        Books {
            received: field("received"),
            answered: field("answered"),
            refused: field("refused"),
            waiting: field("waiting"),
            kernel_dropped: field("kernel_dropped"),
        }
    }

    /// The next line that it says since it was ready with a text in it.
    pub fn line_with(&self, text: &str) -> String {
        let mut said = Vec::new();
        loop {
            match self.says.lock().unwrap().recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => said.push(line),
                Err(_) => panic!("no line with {text:?}: {said:#?}"),
            }
        }
    }

    /// Kills it where it stands, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to leave, and waits for its status.
    pub fn leave(mut self) -> Option<i32> {
        let id = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// `beast serve --sim` on free ports.
fn serve(mut command: Command, data: &Path, args: &[&str]) -> Command {
    let ports = [
        "report_health_port=0",
        "report_port=0",
        "report_udp_port=0",
        "udp_port=0",
        "http_port=0",
        "pin=false",
        "host_check=false",
    ];
    command
        .args(["serve", "--sim", "--health-port=0", "--data"])
        .arg(data)
        .args(ports.map(|port| format!("--set={port}")))
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Where each thread of a process waits in the kernel, as far as this user may know.
fn threads(process: u32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return "gone".to_owned() };
    let read = |task: &Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
    let line = |task: &Path| {
        let (name, at, stack) = (read(task, "comm"), read(task, "wchan"), read(task, "stack"));
        format!("{}: {at} {}", name.trim_end(), stack.lines().take(6).collect::<Vec<_>>().join(" "))
    };
    tasks.flatten().map(|task| line(&task.path())).collect::<Vec<_>>().join("\n")
}

/// The program in mounts of its own.
fn in_mounts(script: &str, data: &Path) -> Command {
    let mut command = Command::new("unshare");
    // This process's own user owns its folder of /proc.
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        command.arg("--map-root-user");
    }
    let script = format!("set -e; PATH=/usr/sbin:/usr/bin:/sbin:/bin; {script}; exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script]).arg(data).arg(env!("CARGO_BIN_EXE_beast"));
    command
}

fn mounted(process: u32, data: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/root{}", data.display()))
}

/// Starts the program in mounts of its own where it must refuse to start; what it said.
pub fn refused_in_mounts(script: &str, data: &Path) -> String {
    let output = serve(in_mounts(script, data), data, &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    said
}

/// The addresses in ` HTTP 127.0.0.1:1, [::1]:1`.
fn addresses(text: &str) -> Vec<SocketAddr> {
    text.split([' ', ',']).filter_map(|word| word.parse().ok()).collect()
}

/// The IPv4 one of some addresses.
pub fn v4(addresses: &[SocketAddr]) -> SocketAddr {
    *addresses.iter().find(|address| matches!(address.ip(), IpAddr::V4(_))).unwrap()
}
