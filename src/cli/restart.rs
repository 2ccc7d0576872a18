//! `beast restart`: asks a running server to hand over to a new process, and says what came of it; and the
//! server's end of that.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beast::appliance::{Handover, Successor};
use clap::Args;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};

use super::{Failure, Outcome, SettingsArgs, print};

/// Arguments of `beast restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Longer than a hand-over may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long it may take until the heir of a process answers in its place.
const CHANGE_MAX: Duration = Duration::from_secs(5);

/// When it is asked again meanwhile.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What an answer begins with when it is done.
const DONE: &str = "done ";

/// What it begins with when it is not.
const REFUSED: &str = "refused ";

/// Carries out `beast restart`.
pub(crate) fn run(args: &RestartArgs) -> Outcome {
    let path = path(&args.settings.load()?.config.data_dir);
    let unreachable = |error: io::Error| {
        Failure::runtime(
            format!("no server answers at {}: {error}", path.display()),
            "name the data folder of a running one with --data, or start one with beast serve",
        )
    };
    let until = Instant::now() + CHANGE_MAX;
    let answer = loop {
        match ask(&path) {
            Ok(answer) => break answer,
            // A process that has just handed over no longer answers, and its heir not yet.
            Err(_) if path.exists() && Instant::now() < until => std::thread::sleep(AGAIN_AFTER),
            Err(error) => return Err(unreachable(error).into()),
        }
    };
    let answer = answer.trim_end();
    if let Some(process) = answer.strip_prefix(DONE) {
        return Ok(print(&format!("process {process} has taken over\n"))?);
    }
    let why = answer.strip_prefix(REFUSED).unwrap_or("it has ended");
    let cure = "the old process goes on as before; mend that and try again";
    Err(Failure::runtime(format!("nothing was restarted: {why}"), cure).into())
}

/// Asks once. No answer at all means that nothing was begun.
fn ask(path: &Path) -> io::Result<String> {
    let stream = Stream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer),
    }
}

/// Where a server listens for its operator.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// The way by which an operator asks. Its folder is the server's own, so nobody else can.
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens it; one that another process has left, or leaves, is replaced. To be called inside a tokio
    /// runtime.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let (path, new) = (path(data_dir), data_dir.join("control.new"));
        remove(&new)?;
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        // In one step, so that whoever asks meets one process or the other.
        std::fs::rename(&new, &path)?;
        Ok(Self { listener, path })
    }

    /// Waits for somebody who asks to restart.
    pub(crate) async fn next(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                // Out of descriptors.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Takes it away, when no other process has put its own there.
    pub(crate) fn close(self) {
        drop(self.listener);
        let _gone = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The program as it was started, to be started anew.
pub(crate) struct Myself {
    program: io::Result<PathBuf>,
    arguments: Vec<OsString>,
}

impl Myself {
    /// To be called at the start: what lies under this name later may be a newer one.
    pub(crate) fn now() -> Self {
        Self { program: std::env::current_exe(), arguments: std::env::args_os().skip(1).collect() }
    }

    /// Hands over to a new process; `asked` hears what came of it.
    pub(crate) async fn hand_over(
        &self,
        handover: &Arc<Handover>,
        asked: Option<UnixStream>,
    ) -> Result<Successor, String> {
        let result = self.try_hand_over(handover).await;
        if let Some(mut stream) = asked {
            let line = match &result {
                Ok(successor) => format!("{DONE}{}\n", successor.pid()),
                Err(why) => format!("{REFUSED}{}\n", why.replace('\n', " ")),
            };
            // Whoever asked may have gone.
            let _gone = stream.write_all(line.as_bytes()).await;
        }
        result
    }

    async fn try_hand_over(&self, handover: &Arc<Handover>) -> Result<Successor, String> {
        let program = match &self.program {
            Ok(program) => program.clone(),
            Err(error) => return Err(format!("where this program lies is not known: {error}")),
        };
        let (handover, arguments) = (Arc::clone(handover), self.arguments.clone());
        let work = tokio::task::spawn_blocking(move || handover.hand_over(&program, &arguments));
        work.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Says it to an operator at a terminal or in a log. A closed one is no reason to stop.
pub(crate) fn refused(why: &str) {
    let _closed = writeln!(io::stderr(), "restart  refused, this process goes on: {why}");
}
