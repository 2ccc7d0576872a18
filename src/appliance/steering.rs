//! Which shard gets a datagram.
//!
//! By the kernel's hash of the peer's address and port, a datagram that one core has received is mostly
//! answered on another: its bytes and the socket move between them. By processor it is answered where it
//! was received, as long as what receives is spread over the cores that have shards.

use std::fmt;
use std::os::fd::AsFd;

use super::topology::Topology;
use crate::config::Steer;
use crate::sys::{pin, steer};

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Whether the core that received a datagram answers it.
    pub by_processor: bool,
    /// In a few words.
    pub why: String,
    /// Processors of the shards, where these are told apart by them.
    processors: Vec<usize>,
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.by_processor { "by the core that received it" } else { "by the kernel's hash" };
        write!(f, "a datagram finds its shard {what}: {}", self.why)
    }
}

/// What is to be done.
pub(super) fn decide(wanted: Steer, topology: &Topology) -> Steering {
    match plan(wanted, topology, &pin::cpus().unwrap_or_default()) {
        Ok(why) => Steering {
            by_processor: true,
            why: why.to_owned(),
            processors: topology.shards.iter().flatten().copied().collect(),
        },
        Err(why) => Steering { by_processor: false, why: why.to_owned(), processors: Vec::new() },
    }
}

impl Steering {
    /// Does it for the groups of `sockets`, one of each. A kernel that refuses is no reason not to answer.
    pub(super) fn apply<S: AsFd>(self, sockets: &[S]) -> Self {
        for socket in sockets {
            if !self.by_processor {
                // Another process may have left its program there.
                let _none = steer::by_hash(socket);
            } else if let Err(error) = steer::by_processor(socket, &self.processors) {
                let why = format!("the kernel refuses a program that chooses the core ({error})");
                return Self { by_processor: false, why, processors: Vec::new() };
            }
        }
        self
    }
}

/// Whether to steer by processor; either way, why.
fn plan(wanted: Steer, topology: &Topology, cpus: &[usize]) -> Result<&'static str, &'static str> {
    let shards = &topology.shards;
    let pinned: Vec<usize> = shards.iter().flatten().copied().collect();
    let mut distinct = pinned.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if wanted == Steer::Hash {
        return Err("as configured");
    }
    if shards.len() < 2 {
        return Err("there is one shard");
    }
    if pinned.len() < shards.len() || distinct.len() < pinned.len() {
        return Err("not every shard has a core of its own");
    }
    if wanted == Steer::Cpu {
        return Ok("as configured");
    }
    if topology.listen.iter().all(|address| address.is_loopback()) {
        return Err("on loopback the sender's own core receives, and both would share it");
    }
    if !cpus.iter().all(|cpu| distinct.contains(cpu)) {
        return Err("cores without a shard receive too");
    }
    Ok("every core has a shard of its own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::probe::Chosen;

    fn decided(
        wanted: Steer,
        shards: &[Option<usize>],
        listen: &str,
        cpus: usize,
    ) -> Result<&'static str, &'static str> {
        let topology = Topology {
            engine: Chosen::Portable,
            shards: shards.to_vec(),
            feed_core: None,
            listen: vec![listen.parse().unwrap()],
        };
        plan(wanted, &topology, &(0..cpus).collect::<Vec<_>>())
    }

    #[test]
    fn cores_are_steered_to_where_each_has_a_shard() {
        let (one, two) = (Some(0), Some(1));
        assert!(decided(Steer::Auto, &[one, two], "0.0.0.0", 2).is_ok());
        for (shards, listen, cpus) in [
            (&[one][..], "0.0.0.0", 1),
            (&[one, two], "127.0.0.1", 2),
            (&[one, two], "0.0.0.0", 4),
            (&[one, one], "0.0.0.0", 1),
            (&[None, None], "0.0.0.0", 2),
        ] {
            assert!(decided(Steer::Auto, shards, listen, cpus).is_err(), "{shards:?} {listen} {cpus}");
        }
        assert!(decided(Steer::Cpu, &[one, two], "127.0.0.1", 4).is_ok());
        assert!(decided(Steer::Cpu, &[None, two], "10.0.0.1", 2).is_err());
        assert_eq!(decided(Steer::Hash, &[one, two], "0.0.0.0", 2), Err("as configured"));
    }
}
