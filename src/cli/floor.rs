//! `beast floor`: servers that do the least, to compare with. They end with whoever started them.

use beast::load::floor::{Wait, serve_http, serve_udp};
use beast::load::server::leave_with_parent;
use clap::{Args, Subcommand};

use super::{Failure, Outcome};

/// Arguments of `beast floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    #[command(subcommand)]
    server: FloorServer,
}

#[derive(Debug, Subcommand)]
enum FloorServer {
    /// Echo the first 8 bytes of each datagram, by recvmmsg and sendmmsg
    Udp {
        /// Length of every answer, in bytes
        #[arg(long, default_value_t = 88)]
        answer_len: usize,
        /// How to wait for datagrams
        #[arg(long, value_enum, default_value = "block")]
        wait: Wait,
    },
    /// Answer whatever comes with one text, on a ring
    Http {
        /// The whole answer, head and body
        #[arg(long)]
        answer: String,
    },
}

/// Serves until its standard input ends.
pub(crate) fn run(args: &FloorArgs) -> Outcome {
    leave_with_parent();
    let served = match &args.server {
        FloorServer::Udp { answer_len, wait } => serve_udp(*answer_len, *wait),
        FloorServer::Http { answer } => serve_http(answer.as_bytes()),
    };
    Ok(served.map_err(|e| Failure::runtime(e.to_string(), "see the limits of the process (ulimit -a)"))?)
}
