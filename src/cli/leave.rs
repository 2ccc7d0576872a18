//! How a process is told to leave: SIGTERM or SIGINT once to finish what is in flight, twice to go
//! at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that ask the process to leave.
pub(crate) struct LeaveSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl LeaveSignals {
    /// From now on the two signals are told here and no longer end the process. To be called inside
    /// a tokio runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them and gives its number.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.interrupt.recv() => libc::SIGINT,
        }
    }

    /// Waits for a further one and ends the process as if the signal had.
    pub(crate) async fn end_at_once(mut self) {
        let number = self.next().await;
        std::process::exit(128 + number);
    }
}
