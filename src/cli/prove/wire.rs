//! A wire between two machines in one: a veth pair whose far end lies in a network namespace of its
//! own. XDP answers what comes in by an interface, and nothing comes in by loopback as by a wire.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

/// Ends of the wire, of a private network: keys of unlimited tiers are good for v1 from there only.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 231, 77, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 231, 77, 2);

/// Name of the far end's interface.
const FAR_INTERFACE: &str = "far0";

/// The wire; gone when dropped.
pub(super) struct Wire {
    namespace: String,
    /// The near end's interface.
    pub(super) interface: String,
}

impl Wire {
    /// Lays it. Needs root and `ip`.
    pub(super) fn lay() -> io::Result<Self> {
        let number = std::process::id();
        let wire = Self { namespace: format!("beast-prove-{number}"), interface: format!("bp{number}") };
        let (namespace, interface) = (wire.namespace.as_str(), wire.interface.as_str());
        ip(&["netns", "add", namespace])?;
        ip(&["link", "add", interface, "type", "veth", "peer", "name", FAR_INTERFACE, "netns", namespace])?;
        ip(&["address", "add", &format!("{NEAR}/30"), "dev", interface])?;
        ip(&["link", "set", interface, "up"])?;
        ip(&["-n", namespace, "address", "add", &format!("{FAR}/30"), "dev", FAR_INTERFACE])?;
        ip(&["-n", namespace, "link", "set", FAR_INTERFACE, "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        Ok(wire)
    }

    /// Address of the near end.
    pub(super) fn near() -> IpAddr {
        NEAR.into()
    }

    /// Moves the calling thread, and all it starts from now on, to the far end.
    pub(super) fn enter(&self) -> io::Result<()> {
        let namespace = File::open(format!("/run/netns/{}", self.namespace))?;
        Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // With the namespace both ends go.
        let _gone = ip(&["netns", "delete", &self.namespace]);
    }
}

fn ip(args: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|e| {
        io::Error::new(e.kind(), format!("ip cannot be started: {e}; install the package iproute2"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", args.join(" "), said.trim())))
}
