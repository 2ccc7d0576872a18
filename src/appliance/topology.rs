//! Which threads there will be and what each holds: decided, checked and shown before anything runs.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use crate::engine::probe::Chosen;
use crate::sys::pin;

/// With this many cores feeds get one of their own.
const FEED_CORE_FROM: usize = 4;

/// The plan of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// What moves the bytes.
    pub engine: Chosen,
    /// One entry per shard: the core it is pinned to, if any.
    pub shards: Vec<Option<usize>>,
    /// The core of a thread for feeds alone; without one they live on the shards.
    pub feed_core: Option<usize>,
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
}

impl Topology {
    /// Plans for the processors this process may use.
    ///
    /// # Errors
    /// When the kernel does not say which those are.
    pub fn plan(config: &Config, engine: Chosen) -> io::Result<Self> {
        let cpus = pin::cpus()?;
        let mut free = cpus.clone();
        let feed_core =
            if cpus.len() >= FEED_CORE_FROM && config.shards < cpus.len() { free.pop() } else { None };
        let count = if config.shards == 0 { free.len() } else { config.shards };
        let core = |index: usize| config.pin.then(|| free[index % free.len()]);
        Ok(Self { engine, shards: (0..count).map(core).collect(), feed_core, listen: config.listen.clone() })
    }

    /// Every address with this port.
    pub fn addresses(&self, port: u16) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().map(move |ip| SocketAddr::new(*ip, port))
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self.shards.len();
        write!(f, "{shards} shard{}", if shards == 1 { "" } else { "s" })?;
        let cores: Vec<String> = self.shards.iter().flatten().map(ToString::to_string).collect();
        if !cores.is_empty() {
            write!(f, " on core{} {}", if cores.len() == 1 { "" } else { "s" }, cores.join(", "))?;
        }
        match self.feed_core {
            Some(core) => write!(f, ", feeds on core {core}"),
            None => f.write_str(", feeds on the shards"),
        }
    }
}
