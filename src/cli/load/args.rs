//! Arguments of `beast load`, and the values they hold.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use beast::load::Pin;
use beast::price::Symbol;
use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `beast load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(subcommand)]
    pub(super) command: LoadCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum LoadCommand {
    /// Ask by UDP: v1, v2, or payloads from a file
    Udp(Box<UdpArgs>),
    /// Ask over kept-alive HTTP connections
    Http(Box<HttpArgs>),
    /// Put several reports on one page
    Compare(super::compare::CompareArgs),
    /// One of several processes of `beast load http`, started by it
    #[command(hide = true)]
    HttpPart,
}

/// The protocols of beast by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum UdpProtocol {
    V1,
    V2,
}

#[derive(Debug, Args)]
pub(super) struct UdpArgs {
    /// The server; port 2679 when none is given
    #[arg(value_name = "HOST[:PORT]")]
    pub(super) target: String,

    /// What to speak with beast
    #[arg(long, value_enum, default_value = "v2")]
    pub(super) protocol: UdpProtocol,

    /// Ask any server with the payloads of this file instead: one a line, in hexadecimal digits
    #[arg(long, value_name = "FILE", conflicts_with = "protocol")]
    pub(super) raw: Option<PathBuf>,

    /// Where in a raw payload and its answer the request's id stands, in bytes; without it answers are
    /// taken for those of the oldest request on their socket
    #[arg(long, value_name = "BYTES", requires = "raw")]
    pub(super) id_offset: Option<usize>,

    /// Length of that id: 2, 4 or 8 bytes
    #[arg(long, value_name = "BYTES", default_value_t = 2, requires = "id_offset")]
    pub(super) id_len: usize,

    /// Bytes that every raw answer must contain, in hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "raw")]
    pub(super) expect: Option<String>,

    /// Sockets over all threads; 4 a thread when not given
    #[arg(long, value_parser = positive_usize)]
    pub(super) sockets: Option<usize>,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct HttpArgs {
    /// The server; port 8080 when none is given
    #[arg(value_name = "HOST[:PORT]")]
    pub(super) target: String,

    /// Kept-alive connections. Where they need more descriptors than a process may have, several
    /// processes share them
    #[arg(long, value_parser = positive_usize, default_value = "64")]
    pub(super) connections: usize,

    /// Requests that may be under way on a connection
    #[arg(long, value_parser = positive_usize, default_value = "1")]
    pub(super) pipeline: usize,

    /// Ask for this instead of prices; may be repeated
    #[arg(long = "path", value_name = "PATH")]
    pub(super) paths: Vec<String>,

    /// What the body of every answer to --path must contain
    #[arg(long, value_name = "TEXT", requires = "paths")]
    pub(super) expect: Option<String>,

    /// Addresses of this machine that connections come from, in turn
    #[arg(long = "source", value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) sources: Vec<IpAddr>,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Open loop: so many requests a second by a fixed schedule. Latency counts from the intended time
    #[arg(long, value_name = "PER_SECOND", value_parser = positive, conflicts_with_all = ["window", "ramp", "knee"])]
    pub(super) rate: Option<u64>,

    /// Closed loop: so many requests under way at a time, over all sockets; for ceilings, not for latency.
    /// This is the default: 256 by UDP, all connections by HTTP
    #[arg(long, value_name = "REQUESTS", value_parser = positive, conflicts_with_all = ["ramp", "knee", "endurance"])]
    pub(super) window: Option<u64>,

    /// The 13 levels, from 300 requests by 30 at a time to 9,000,000 by 21,000, each judged
    #[arg(long, conflicts_with_all = ["knee", "endurance", "duration"])]
    pub(super) ramp: bool,

    /// What requests and concurrency of the ramp are multiplied by
    #[arg(long, value_parser = scale, default_value = "1", requires = "ramp")]
    pub(super) scale: f64,

    /// How many levels of the ramp
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=13), default_value = "13", requires = "ramp")]
    pub(super) levels: u32,

    /// Search for the highest rate within --p99-max and --loss-max
    #[arg(long, conflicts_with_all = ["endurance", "duration"])]
    pub(super) knee: bool,

    /// Run so long at 80 % of the knee, or at --rate; judge the drift of memory and of p99
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "duration")]
    pub(super) endurance: Option<Duration>,

    /// The 99th percentile a rate may have at most, open loop
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10ms")]
    pub(super) p99_max: Duration,

    /// The share of requests without a right answer in time a rate may have at most, such as 0.1%
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.1%")]
    pub(super) loss_max: f64,

    /// The rate a search begins with, requests a second
    #[arg(long, value_name = "PER_SECOND", value_parser = positive, default_value = "10000")]
    pub(super) from: u64,

    /// How long a search tries each rate
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2s")]
    pub(super) step: Duration,

    /// How near a search comes to the knee
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "5%")]
    pub(super) precision: f64,

    /// How long to run
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub(super) duration: Duration,

    /// The most requests a closed loop sends
    #[arg(long, value_parser = positive, conflicts_with_all = ["rate", "ramp", "knee", "endurance"])]
    pub(super) requests: Option<u64>,

    /// Threads that ask; each spins on its processor
    #[arg(long, value_parser = positive_usize, default_value = "1")]
    pub(super) threads: usize,

    /// Processors of the threads: numbers, `auto` (from the last one on) or `none`
    #[arg(long, value_name = "CPUS", value_parser = pin, default_value = "auto")]
    pub(super) pin: Pin,

    /// The API key; readable by whoever lists processes, so rather use --key-file
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    pub(super) key: Option<String>,

    /// A file with the API key; ./beast-data/first-key when that is there
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,

    /// What is asked for, in turn
    #[arg(long, value_name = "SYMBOLS", value_parser = symbol, value_delimiter = ',', default_value = "BTC,ETH,SOL,XRP,DOGE,ADA,AVAX,LINK")]
    pub(super) assets: Vec<Symbol>,

    /// A request without an answer for this long is given up
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s")]
    pub(super) lost_after: Duration,

    /// From how much on a request of a schedule counts as late by the generator's own fault
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10ms")]
    pub(super) late_after: Duration,

    /// A schedule that the generator could not keep is no failure, nor a search of which it is the limit
    #[arg(long)]
    pub(super) allow_late: bool,

    /// Where the server's metrics are, such as http://127.0.0.1:8081/metrics: its drops, memory, engine
    #[arg(long, value_name = "URL")]
    pub(super) server_metrics: Option<String>,

    /// The server's process on this machine: its memory and processor time
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,

    /// Folder for the report: JSON, HTML, percentiles and histogram log
    #[arg(long, value_name = "FOLDER")]
    pub(super) report: Option<PathBuf>,

    /// What the run is called where several are compared
    #[arg(long)]
    pub(super) name: Option<String>,

    /// The result as JSON on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// No progress on standard error
    #[arg(long)]
    pub(super) quiet: bool,
}

fn positive(text: &str) -> Result<u64, String> {
    match text.replace('_', "").parse() {
        Ok(0) => Err("0 asks for nothing; needs at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("needs a whole number of at least 1".to_owned()),
    }
}

fn positive_usize(text: &str) -> Result<usize, String> {
    usize::try_from(positive(text)?).map_err(|e| e.to_string())
}

/// `250ms`, `10s`, `5m`, `2h`; a number alone is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let needs = || "needs a time such as 250ms, 10s, 5m or 2h".to_owned();
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let number: f64 = number.parse().map_err(|_| needs())?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(needs()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time.is_zero() => Err("0 is no time; needs more".to_owned()),
        Ok(time) if time <= Duration::from_secs(365 * 86_400) => Ok(time),
        _ => Err("needs a time of at most a year".to_owned()),
    }
}

/// `0.1%` or `0.001`.
fn share(text: &str) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(share) if (0.0..=of).contains(&share) => Ok(share / of),
        _ => Err("needs a share such as 0.1% or 0.001, at most 100%".to_owned()),
    }
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err("needs a number above 0, at most 100".to_owned()),
    }
}

fn pin(text: &str) -> Result<Pin, String> {
    match text {
        "auto" => Ok(Pin::Auto),
        "none" => Ok(Pin::None),
        _ => {
            let cpus: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
            cpus.map(Pin::Cpus).map_err(|_| "needs numbers such as 1,2, or auto or none".to_owned())
        }
    }
}

fn symbol(text: &str) -> Result<Symbol, String> {
    Symbol::parse(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_units() {
        for (text, ms) in
            [("250ms", 250), ("10s", 10_000), ("1.5", 1_500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "10 s", "-1s", "1d", "0", "0.0000000001s", "99999h", "1e999"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!((share("0.1%"), share("0.5")), (Ok(0.001), Ok(0.5)));
        assert!(share("101%").is_err() && share("-1").is_err() && share("x").is_err());
        assert_eq!(positive("1_000"), Ok(1_000));
        assert!(positive("0").unwrap_err().contains("at least 1") && positive("-1").is_err());
        assert_eq!(pin("1,0"), Ok(Pin::Cpus(vec![1, 0])));
        assert!(pin("1,x").is_err() && pin("").is_err());
        assert!(scale("0").is_err() && scale("nan").is_err() && scale("0.01").is_ok());
    }
}
