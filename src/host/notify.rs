//! Telling the service manager how we are: `sd_notify` without its library, which is a datagram to a
//! socket named in the environment.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// The way that `NOTIFY_SOCKET` names; `None` when nobody wants to be told.
    ///
    /// # Errors
    /// It names no socket, or none can be made.
    pub fn from_env() -> io::Result<Option<Self>> {
        std::env::var_os("NOTIFY_SOCKET")
            .filter(|path| !path.is_empty())
            .map(|path| Self::to(&path))
            .transpose()
    }

    /// To a socket by its path; one that begins with `@` lies in no folder.
    fn to(path: &OsStr) -> io::Result<Self> {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        Ok(Self { socket: UnixDatagram::unbound()?, address })
    }

    /// Tells assignments such as `READY=1`, one a line.
    ///
    /// # Errors
    /// The kernel's: the manager has gone, or does not read.
    pub fn tell(&self, assignments: &str) -> io::Result<()> {
        self.socket.send_to_addr(assignments.as_bytes(), &self.address).map(drop)
    }
}

/// How often the service manager wants a sign of life from this process, at the latest; `None` when it
/// does not watch.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let for_us = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec?.parse().ok()?;
    (for_us && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_arrive_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@beast-test-{}", std::process::id());
        let hears = [
            UnixDatagram::bind(&path).unwrap(),
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name[1..]).unwrap()).unwrap(),
        ];
        for (address, hears) in [path.as_os_str(), OsStr::new(&name)].into_iter().zip(hears) {
            Notifier::to(address).unwrap().tell("READY=1\nSTATUS=answers").unwrap();
            let mut bytes = [0; 64];
            let len = hears.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], b"READY=1\nSTATUS=answers");
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        assert_eq!(interval(Some("2000000"), None, 7), Some(Duration::from_secs(2)));
        assert_eq!(interval(Some("2000000"), Some("7"), 7), Some(Duration::from_secs(2)));
        for (usec, pid) in [(None, None), (Some("2000000"), Some("8")), (Some("0"), None), (Some("x"), None)]
        {
            assert_eq!(interval(usec, pid, 7), None);
        }
    }
}
