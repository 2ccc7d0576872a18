//! The bare HTTP responder on a ring as a child of this program; see [`beast::load::floor`].

use std::ffi::OsString;
use std::io;

use beast::load::floor::serve_http;
use clap::Parser;

use super::child::{Part, Server, leave_with_parent, start_part};

/// What the child is told.
#[derive(Parser, Debug)]
#[command(name = "ring-http-server")]
struct Args {
    /// The whole answer.
    #[arg(long)]
    answer: String,
}

/// Starts the responder as a child of this program.
///
/// # Errors
/// As [`start_part`].
pub fn start(answer: &str, cpu: Option<usize>) -> io::Result<Server> {
    start_part(Part::RingHttp, &["--answer", answer], cpu)
}

/// What the child does until it is killed.
///
/// # Errors
/// The kernel's.
pub fn be_child(args: &[OsString]) -> io::Result<()> {
    leave_with_parent();
    serve_http(Args::parse_from(&args[1..]).answer.as_bytes())
}
