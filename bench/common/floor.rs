//! The bare echo server as a child of this program; see [`beast::load::floor`].

use std::ffi::OsString;
use std::io;

pub use beast::load::floor::Wait;
use beast::load::floor::serve_udp;
use clap::Parser;

use super::child::{Part, Server, leave_with_parent, start_part};

/// What the child is told.
#[derive(Parser, Debug)]
#[command(name = "floor-server")]
pub struct FloorArgs {
    /// Length of every answer, in bytes.
    #[arg(long)]
    answer_len: usize,
    /// How to wait for datagrams.
    #[arg(long, value_enum)]
    wait: Wait,
}

/// Starts the floor as a child of this program.
///
/// # Errors
/// As [`start_part`].
pub fn start(answer_len: usize, wait: Wait, cpu: Option<usize>) -> io::Result<Server> {
    let wait = match wait {
        Wait::Block => "block",
        Wait::Spin => "spin",
    };
    start_part(Part::Floor, &["--answer-len", &answer_len.to_string(), "--wait", wait], cpu)
}

/// What the child does until it is killed.
///
/// # Errors
/// The kernel's.
pub fn be_child(args: &[OsString]) -> io::Result<()> {
    let args = FloorArgs::parse_from(&args[1..]);
    leave_with_parent();
    serve_udp(args.answer_len, args.wait)
}
