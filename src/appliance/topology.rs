//! Which threads there will be and what each holds: decided, checked and shown before anything runs.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::available_parallelism;

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
    /// Plans for the processors this process may use, and for as many of them as its control group
    /// pays for.
    ///
    /// # Errors
    /// When the kernel does not say which those are.
    pub fn plan(config: &Config, engine: Chosen) -> io::Result<Self> {
        let cpus = pin::cpus()?;
        let paid = available_parallelism().map_or(cpus.len(), usize::from);
        Ok(Self::plan_on(config, engine, &cpus, paid))
    }

    /// Where the control group pays for fewer than `cpus`, nothing is pinned: other groups would pin
    /// to the same processors, and the kernel moves what has to share.
    fn plan_on(config: &Config, engine: Chosen, cpus: &[usize], paid: usize) -> Self {
        let pin = config.pin && paid >= cpus.len();
        let (mut free, mut feed_core) = (cpus, None);
        if pin
            && cpus.len() >= FEED_CORE_FROM
            && config.shards < cpus.len()
            && let Some((last, rest)) = cpus.split_last()
        {
            (free, feed_core) = (rest, Some(*last));
        }
        let count = if config.shards == 0 { free.len().min(paid).max(1) } else { config.shards };
        let core = |index: usize| if pin { free.get(index % free.len().max(1)).copied() } else { None };
        Self { engine, shards: (0..count).map(core).collect(), feed_core, listen: config.listen.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shards: usize, pin: bool, cpus: usize, paid: usize) -> String {
        let config = Config { shards, pin, ..Config::default() };
        let cpus: Vec<usize> = (0..cpus).collect();
        Topology::plan_on(&config, Chosen::Portable, &cpus, paid).to_string()
    }

    #[test]
    fn feeds_get_a_core_where_there_are_four() {
        assert_eq!(plan(0, true, 1, 1), "1 shard on core 0, feeds on the shards");
        assert_eq!(plan(0, true, 2, 2), "2 shards on cores 0, 1, feeds on the shards");
        assert_eq!(plan(0, true, 4, 4), "3 shards on cores 0, 1, 2, feeds on core 3");
        assert_eq!(plan(4, true, 4, 4), "4 shards on cores 0, 1, 2, 3, feeds on the shards");
        assert_eq!(plan(3, true, 2, 2), "3 shards on cores 0, 1, 0, feeds on the shards");
    }

    #[test]
    fn nothing_is_pinned_without_leave_or_on_processors_that_others_share() {
        assert_eq!(plan(0, false, 4, 4), "4 shards, feeds on the shards");
        assert_eq!(plan(0, true, 64, 2), "2 shards, feeds on the shards");
        assert_eq!(plan(8, true, 64, 2), "8 shards, feeds on the shards");
    }
}
