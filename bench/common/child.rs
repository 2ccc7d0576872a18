//! What this program can be started as again, in a process of its own.

use std::ffi::OsString;
use std::io;
use std::process::Command;

pub use beast::load::server::{Server, free_port, leave_with_parent};

/// What this program can be started as again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The bare echo server.
    Floor,
    /// One shard with a fixed board.
    Shard,
    /// The bare HTTP responder on a ring.
    RingHttp,
    /// Clients with many connections.
    HttpClients,
}

impl Part {
    const ALL: [Self; 4] = [Self::Floor, Self::Shard, Self::RingHttp, Self::HttpClients];

    /// Its name, the first argument of the child.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor-server",
            Self::Shard => "shard-server",
            Self::RingHttp => "ring-http-server",
            Self::HttpClients => "http-clients",
        }
    }

    /// Which part the arguments ask for, if any.
    pub fn of(args: &[OsString]) -> Option<Self> {
        let first = args.get(1)?;
        Self::ALL.into_iter().find(|part| first == part.name())
    }
}

/// Starts this program again as `part`, on one processor if `cpu` says so. It writes its addresses as
/// its first line.
///
/// # Errors
/// When it cannot be started or does not say where it listens.
pub fn start_part(part: Part, args: &[&str], cpu: Option<usize>) -> io::Result<Server> {
    Server::telling(Command::new(std::env::current_exe()?).arg(part.name()).args(args), cpu)
}
