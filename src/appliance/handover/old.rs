//! The side that gives.

use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tokio::sync::watch;

use super::{HANDED_BY, Message, hear, say};
use crate::engine::Sockets;
use crate::ledger::Journal;
use crate::shard::{Control, Counter, Published};
use crate::sys::pass_fds::send_fds;

/// How long the new process may take to come up and have prices; above what it allows itself.
const WARM_MAX: Duration = Duration::from_secs(40);

/// How long one shard may take to be opened there, or drained here. They look every 100 ms at the latest.
const SHARD_MAX: Duration = Duration::from_secs(10);

/// How long the records of the process before this one may take to be taken in.
const JOURNAL_MAX: Duration = Duration::from_secs(15);

/// How long a new process that was not wanted in the end may take to leave; above what `drain_s` may be.
const LEAVE_MAX: Duration = Duration::from_secs(20);

/// How often counters are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Why a hand-over has ended when [`Handover::give_up`] ended it.
const GIVEN_UP: &str = "the process is told to leave";

/// All that is needed to hand a process's sockets over: its own descriptors of them, beside those of
/// the shards.
pub struct Handover {
    pub(in crate::appliance) shards: Vec<ShardSockets>,
    pub(in crate::appliance) others: Vec<OwnedFd>,
    pub(in crate::appliance) controls: Arc<[Sender<Control>]>,
    pub(in crate::appliance) published: Vec<Arc<Published>>,
    pub(in crate::appliance) journal: Arc<Journal>,
    /// The kernel answers for this process.
    pub(in crate::appliance) kernel_answers: bool,
    /// Turned true, health is not served here any more.
    pub(in crate::appliance) health_over: watch::Sender<bool>,
    pub(in crate::appliance) talk: Talk,
}

/// The talk with a new process, as far as others may end it.
#[derive(Default)]
pub(in crate::appliance) struct Talk {
    given_up: AtomicBool,
    stream: Mutex<Option<UnixStream>>,
}

impl Talk {
    fn given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// From now on this is the talk that is ended.
    fn begin(&self, stream: io::Result<UnixStream>) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = stream.ok();
        if self.given_up() {
            self.end();
        }
    }

    /// Nothing more is heard of the other side; it still hears that we go on.
    fn end(&self) {
        if let Some(stream) = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Gone is as good.
            let _gone = stream.shutdown(Shutdown::Read);
        }
    }
}

/// The sockets of one shard.
pub(in crate::appliance) struct ShardSockets {
    udp: Vec<OwnedFd>,
    tcp: Vec<OwnedFd>,
}

impl ShardSockets {
    pub(in crate::appliance) fn of(sockets: &Sockets) -> io::Result<Self> {
        let udp = sockets.udp.iter().map(|socket| socket.as_fd().try_clone_to_owned());
        let tcp = sockets.tcp.iter().map(|socket| socket.as_fd().try_clone_to_owned());
        Ok(Self { udp: udp.collect::<io::Result<_>>()?, tcp: tcp.collect::<io::Result<_>>()? })
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.udp.iter().chain(&self.tcp).map(AsFd::as_fd).collect()
    }
}

/// The process that has taken over.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    child: Child,
}

impl Successor {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to leave, as its operator would: it has taken over from a process that was told to.
    pub fn stop(self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // Gone is as good.
        let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }

    /// Waits until it has left, and ends it when it does not.
    fn see_off(mut self) {
        if !wait(LEAVE_MAX, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ended = self.child.kill();
            let _reaped = self.child.wait();
        }
    }

    /// Tells it that it is alone from now on.
    pub fn release(mut self) {
        // Should it not hear, it learns by our end.
        let _heard = say(&mut self.stream, &Message::Done);
    }
}

impl Handover {
    /// Starts `program` with `arguments` and hands it every shard's sockets, one after the other. When
    /// this returns well, no shard here takes requests any more; otherwise all do, as before.
    ///
    /// # Errors
    /// Why it was not done, told to the operator.
    pub fn hand_over(&self, program: &Path, arguments: &[OsString]) -> Result<Successor, String> {
        if std::process::id() == 1 {
            return Err("this is the first process of its container, which ends with it; start another \
                        container and end this one"
                .to_owned());
        }
        if self.kernel_answers {
            return Err(
                "the kernel answers for this process (--xdp), and its program cannot be handed over; \
                        stop it and start it anew"
                    .to_owned(),
            );
        }
        let taken = || self.journal.take_over().is_ok_and(|done| done.is_some());
        let ready = wait(JOURNAL_MAX, || self.talk.given_up() || taken());
        if self.talk.given_up() {
            return Err(GIVEN_UP.to_owned());
        }
        if !ready {
            return Err("the process before this one has not left its journal yet; try again when it has \
                        (beast serve says so)"
                .to_owned());
        }
        let mut successor = start(program, arguments)?;
        self.talk.begin(successor.stream.try_clone());
        let mut drained = 0;
        let result = self.give(&mut successor, &mut drained);
        self.talk.begin(Err(io::ErrorKind::NotConnected.into()));
        if let Err(why) = result {
            let _gone = say(&mut successor.stream, &Message::Abort);
            for control in self.controls.iter().take(drained) {
                let _gone = control.send(Control::Open);
            }
            // It may have taken requests already, and finishes those.
            std::thread::spawn(move || successor.see_off());
            return Err(if self.talk.given_up() { GIVEN_UP.to_owned() } else { why });
        }
        let _nobody_serves = self.health_over.send(true);
        Ok(successor)
    }

    /// Ends a hand-over that is under way, and lets none begin any more: this process is to leave, and no
    /// other is to take its place.
    pub fn give_up(&self) {
        self.talk.given_up.store(true, Ordering::SeqCst);
        self.talk.end();
    }

    fn give(&self, successor: &mut Successor, drained: &mut usize) -> Result<(), String> {
        let stream = &mut successor.stream;
        let gone = |e: io::Error| {
            format!("the new process has ended or does not answer ({e}); see what it has said before this")
        };
        let fresh = self.published.iter().map(|shard| shard.read().value(Counter::AssetsFresh)).min();
        let shards = self.shards.iter().map(|shard| (shard.udp.len(), shard.tcp.len())).collect();
        stream.set_read_timeout(Some(WARM_MAX)).map_err(gone)?;
        say(stream, &Message::Offer { shards, fresh: fresh.unwrap_or(0) }).map_err(gone)?;
        for shard in &self.shards {
            send_fds(stream, &shard.fds()).map_err(gone)?;
        }
        send_fds(stream, &self.others.iter().map(AsFd::as_fd).collect::<Vec<_>>()).map_err(gone)?;
        match hear(stream).map_err(gone)? {
            Message::Warm => {}
            Message::Refused { why } => return Err(why),
            other => return Err(format!("the new process said {other:?} in place of being ready")),
        }
        stream.set_read_timeout(Some(SHARD_MAX)).map_err(gone)?;
        for (index, (control, published)) in self.controls.iter().zip(&self.published).enumerate() {
            say(stream, &Message::Open(index)).map_err(gone)?;
            match hear(stream).map_err(gone)? {
                Message::Opened(opened) if opened == index => {}
                other => return Err(format!("the new process said {other:?} in place of opening a shard")),
            }
            *drained = index + 1;
            control.send(Control::Drain).map_err(|_| format!("shard {index} has ended"))?;
            let quiet = || published.read().value(Counter::SocketsReceiving) == 0;
            if !wait(SHARD_MAX, quiet) {
                return Err(format!("shard {index} does not let its sockets go"));
            }
        }
        Ok(())
    }

    /// A UDP socket of every group that the shards share.
    pub(in crate::appliance) fn udp_groups(&self) -> &[OwnedFd] {
        self.shards.first().map_or(&[], |first| &first.udp)
    }

    /// Waits until every HTTP connection has had its last answer, or the time is over.
    pub fn drain(&self, most: Duration) {
        wait(most, || {
            self.published.iter().all(|shard| {
                let counters = shard.read();
                counters.value(Counter::ConnectionAccepted) == counters.value(Counter::ConnectionClosed)
            })
        });
    }
}

/// Starts the new process, connected to us by its standard input.
fn start(program: &Path, arguments: &[OsString]) -> Result<Successor, String> {
    let cannot = |e: io::Error| format!("{} cannot be started: {e}", program.display());
    let (stream, theirs) = UnixStream::pair().map_err(cannot)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .env(HANDED_BY, std::process::id().to_string())
        // The service manager has meant us.
        .env_remove("WATCHDOG_PID");
    let child = command.spawn().map_err(cannot)?;
    Ok(Successor { stream, child })
}

/// Looks until it is so, or the time is over.
fn wait(most: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + most;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
