//! Why a generator could not do its work, for the operator.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What was found and is needed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadError {
    /// What was found and what is needed.
    pub what: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    /// From both texts.
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into() }
    }

    /// From the kernel's answer to opening sockets or using them.
    pub(crate) fn of_sockets(error: &io::Error, server: SocketAddr) -> Self {
        let cure = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => "start the server, or name the port it listens on",
            (io::ErrorKind::TimedOut, _) => {
                "see whether the server takes so many connections, or ask for fewer"
            }
            (_, Some(libc::EMFILE)) => "raise the limit of descriptors (ulimit -n), or ask for fewer sockets",
            (_, Some(libc::ENFILE)) => "raise fs.file-max",
            (_, Some(libc::EADDRNOTAVAIL)) => {
                "all ports from this address to the server are in use: give more addresses by --source, or \
                 wait a minute for closed connections to be forgotten"
            }
            (_, Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => "see ip route, or name another address",
            _ => "see whether the server is there and the limits of this process (ulimit -a)",
        };
        Self::new(format!("{server}: {error}"), cure)
    }

    /// From the kernel's answer to pinning a thread.
    pub(crate) fn of_pin(error: &io::Error, cpu: usize, cpus: &[usize]) -> Self {
        let had: Vec<_> = cpus.iter().map(ToString::to_string).collect();
        Self::new(
            format!(
                "a thread cannot be pinned to processor {cpu}: {error}; this process may use {}",
                had.join(", ")
            ),
            "name some of these by --pin, or leave threads to the kernel with --pin none",
        )
    }
}
