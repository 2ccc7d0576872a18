//! How a process is told to leave: SIGTERM or SIGINT once to finish what is in flight, twice to go
//! at once. SIGHUP tells it to hand over to a new process of the program that is there now.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that ask the process to leave.
pub(crate) struct LeaveSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Caught where there is something to hand over; else it ends the process, as when a terminal closes.
    hangup: Option<Signal>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To leave.
    Leave,
    /// To hand over to a new process.
    Restart,
}

impl LeaveSignals {
    /// From now on the two signals are told here and no longer end the process. To be called inside
    /// a tokio runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// The same, and SIGHUP too.
    pub(crate) fn catch_with_restart() -> io::Result<Self> {
        Ok(Self { hangup: Some(signal(SignalKind::hangup())?), ..Self::catch()? })
    }

    /// Waits for one of them and gives its number.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.interrupt.recv() => libc::SIGINT,
        }
    }

    /// Waits until the process is told to leave or to hand over.
    pub(crate) async fn wish(&mut self) -> Wish {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Wish::Leave,
            _ = self.interrupt.recv() => Wish::Leave,
            _ = hangup => Wish::Restart,
        }
    }

    /// Waits for a further one and ends the process as if the signal had.
    pub(crate) async fn end_at_once(mut self) {
        let number = self.next().await;
        std::process::exit(128 + number);
    }
}
