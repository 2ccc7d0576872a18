//! A worker in a process of its own: one process may hold only so many descriptors. It reads a line of
//! JSON that says whom to ask what, then orders, and writes what it tells; both on pipes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::http::{HttpExchange, HttpLoad, HttpLoadOptions};
use super::step::Stop;
use super::worker::{Generator, Order, Told, work};
use crate::sys::pin::{cpus, pin_thread};
use crate::sys::rlimits;

/// How this program is started as a part: its path, and the arguments that lead to [`be_part`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// What a part does. It may hold API keys, so it passes through a pipe and no argument.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartSpec {
    pub(crate) server: SocketAddr,
    pub(crate) source: Option<IpAddr>,
    pub(crate) pipeline: usize,
    pub(crate) lost_after: Duration,
    pub(crate) cpu: Option<usize>,
    pub(crate) exchanges: Vec<HttpExchange>,
}

/// The parent's end of a part. It ends when this is dropped.
pub(crate) struct Part {
    child: Child,
    /// `None` once it has been closed to tell the part to leave.
    stdin: Option<ChildStdin>,
}

impl Part {
    /// Starts one. What it tells goes to `told` under `index`.
    pub(crate) fn start(
        command: &PartCommand,
        spec: &PartSpec,
        index: usize,
        told: Sender<(usize, Told)>,
    ) -> io::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C at the terminal is for the parent, who tells its parts.
            .process_group(0)
            .spawn()?;
        let stdout = child.stdout.take();
        let mut part = Self { stdin: child.stdin.take(), child };
        part.write(spec)?;
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                let told_line = line.map_err(|e| e.to_string()).and_then(|line| {
                    serde_json::from_str(&line).map_err(|e| format!("{e} in what it said: {line:.200}"))
                });
                let failed =
                    |e| Told::failed(LoadError::new(format!("a part of the generator: {e}"), REPORT));
                if told.send((index, told_line.unwrap_or_else(failed))).is_err() {
                    return;
                }
            }
            let what = "a process of the generator has ended early";
            // Nobody listens any more when it ended because it was told to.
            let _unheard = told.send((index, Told::failed(LoadError::new(what, REPORT))));
        });
        Ok(part)
    }

    pub(crate) fn order(&mut self, order: Order) -> io::Result<()> {
        self.write(&order)
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        stdin.write_all(&text)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // The end of its input tells it to leave.
        self.stdin = None;
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

const REPORT: &str = "see what it said on standard error, and the limits of processes and memory";

/// Is a part: reads standard input to its end.
///
/// # Errors
/// When the first line is no specification, or the pipes break.
pub fn be_part() -> Result<(), LoadError> {
    let failed = |what: String| LoadError::new(what, "this command is for beast load itself");
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).map_err(|e| failed(e.to_string()))?;
    let spec: PartSpec = serde_json::from_str(&line).map_err(|e| failed(format!("no specification: {e}")))?;
    let mut out = io::stdout();
    let mut tell = |told: Told| {
        let Ok(mut text) = serde_json::to_vec(&told) else { return };
        text.push(b'\n');
        // A parent that has gone closes the input too, which ends this process.
        let _gone = out.write_all(&text).and_then(|()| out.flush());
    };
    let stop = Stop::new();
    let generator = match generator(&spec, &stop) {
        Ok(generator) => generator,
        Err(error) => {
            tell(Told::failed(error));
            return Ok(());
        }
    };
    let (orders, ordered) = channel();
    let reader_stop = stop.clone();
    std::thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Order::Stop) | Err(_) => reader_stop.tell(),
                Ok(order) => {
                    if orders.send(order).is_err() {
                        return;
                    }
                }
            }
        }
        reader_stop.tell();
    });
    work(generator, spec.server, &ordered, &stop, &mut tell);
    Ok(())
}

fn generator(spec: &PartSpec, stop: &Stop) -> Result<Generator, LoadError> {
    let limits = rlimits::raise();
    limits.map_err(|e| LoadError::new(format!("limits cannot be read: {e}"), "see ulimit -a"))?;
    if let Some(cpu) = spec.cpu {
        pin_thread(cpu).map_err(|e| LoadError::of_pin(&e, cpu, &cpus().unwrap_or_default()))?;
    }
    let options = HttpLoadOptions {
        source: spec.source,
        pipeline: spec.pipeline,
        lost_after: spec.lost_after,
        stop: stop.clone(),
        ..HttpLoadOptions::new(spec.server)
    };
    let load = HttpLoad::new(options, spec.exchanges.clone());
    Ok(Generator::Http(Box::new(load.map_err(|e| LoadError::of_sockets(&e, spec.server))?)))
}
