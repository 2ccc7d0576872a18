//! What a simulation is started with, and what can go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::exchange::Exchange;
use super::replay::Replay;

/// What to simulate and where.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Address of the plain listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the TLS listener, none when absent.
    pub tls_listen: Option<SocketAddr>,
    /// Synthetic trades a second, for each exchange; 0 makes none.
    pub rate: u32,
    /// Every price and size follows from it.
    pub seed: u64,
    /// Old trades a symbol has when it is first asked for, at most 100; 0 for none.
    pub history_len: usize,
    /// The only symbols an exchange knows. Without an entry it knows whatever looks valid, except the
    /// base asset `NOPE`.
    pub allow: BTreeMap<Exchange, BTreeSet<String>>,
    /// Symbols an exchange does not know.
    pub refuse: BTreeMap<Exchange, BTreeSet<String>>,
    /// Recordings. An exchange with a recording makes no synthetic trades and no old ones, and its
    /// REST endpoint answers 503, so that nothing but the recording is seen.
    pub replays: Vec<Replay>,
    /// How fast recordings run.
    pub speed: Speed,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls_listen: None,
            rate: 50,
            seed: 1,
            history_len: super::market::HISTORY_LEN,
            allow: BTreeMap::new(),
            refuse: BTreeMap::new(),
            replays: Vec::new(),
            speed: Speed::RECORDED,
        }
    }
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded; a finite number above 0.
    Times(f64),
    /// As fast as the client reads.
    Max,
}

impl Speed {
    /// As it was recorded.
    pub const RECORDED: Self = Self::Times(1.0);
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err(format!("speed `{text}` is no number above 0; give one, such as 1 or 10, or `max`")),
        }
    }
}

/// Why a simulation did not start, or a command was not carried out.
#[derive(Debug)]
pub enum SimError {
    /// The listener could not be bound.
    Bind(SocketAddr, std::io::Error),
    /// A thread or runtime could not be started.
    Start(std::io::Error),
    /// The TLS certificate could not be made.
    Certificate(String),
    /// A recording could not be read.
    Replay {
        /// The file as it was named.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// The exchange does not know the symbol, or the price text is longer than 512 bytes.
    UnknownSymbol(Exchange, String),
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(addr, error) => {
                write!(
                    f,
                    "cannot listen on {addr}: {error}; give a free address with --listen or --tls-listen"
                )
            }
            Self::Start(error) => write!(f, "cannot start the simulation's thread: {error}"),
            Self::Certificate(reason) => write!(f, "cannot make a self-signed certificate: {reason}"),
            Self::Replay { path, reason } => write!(
                f,
                "cannot replay {path}: {reason}; needed is a gzip file <exchange>.<anything>.jsonl.gz whose lines \
                 are {{\"t_ns\":…,\"dir\":\"in\",\"frame\":\"…\"}}"
            ),
            Self::UnknownSymbol(exchange, symbol) => write!(
                f,
                "{exchange} does not take a trade of `{symbol}`: the symbol must be written the exchange's way, and \
                 the price be at most 512 bytes"
            ),
        }
    }
}

impl std::error::Error for SimError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_above_zero_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for bad in ["0", "-1", "fast", "NaN", "inf", ""] {
            assert!(bad.parse::<Speed>().unwrap_err().contains("max"), "{bad}");
        }
    }
}
