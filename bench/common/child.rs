//! A server in a process of its own, so that its processor time can be told from the client's.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::cpu::CpuTime;

/// First argument of a program that is to be the bare echo server.
pub const FLOOR: &str = "floor-server";

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts this program again as the bare echo server.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub fn floor(args: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLOOR)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(
            child.stdout.take().ok_or_else(|| io::Error::other("the child has no standard output"))?,
        );
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| {
            let _gone = child.kill();
            io::Error::other(format!("the floor server said {line:?} instead of its address"))
        })?;
        Ok(Self { child, output, address })
    }

    /// Its processor time so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<CpuTime> {
        CpuTime::of(self.child.id())
    }

    /// Ends it and returns what else it wrote.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(mut self) -> io::Result<String> {
        self.child.kill()?;
        self.child.wait()?;
        let mut rest = String::new();
        self.output.read_to_string(&mut rest)?;
        Ok(rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
