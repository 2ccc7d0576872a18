//! What the bench programs share.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each program uses a part of this")]

pub mod books;
pub mod child;
pub mod clients;
pub mod costly;
pub mod fixture;
pub mod floor;
pub mod journal;
pub mod machine;
pub mod metrics;
pub mod nginx;
pub mod peers;
pub mod report;
pub mod ring_http;

pub mod shard;
pub mod subject;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

pub use beast::load::server::{Cpus, pinned};

/// How a program was started.
pub enum Start {
    /// By `cargo bench`, with these arguments.
    Bench(Vec<OsString>),
    /// By `cargo test`: small sizes, correctness only.
    Smoke,
    /// By `cargo test` with a filter or a listing, which is not meant for us.
    Nothing,
}

/// Cargo passes `--bench` to a bench program, and only then.
pub fn start() -> Start {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let before = args.len();
    args.retain(|arg| arg != "--bench");
    // A child that a program starts of itself names its part first.
    let is_child = child::Part::of(&args).is_some();
    if args.len() < before || is_child {
        Start::Bench(args)
    } else if args[1..].iter().any(|arg| !arg.to_string_lossy().starts_with('-') || arg == "--list") {
        Start::Nothing
    } else {
        Start::Smoke
    }
}

/// The whole of a program that starts servers: it is one of them, or it measures. `smoke` are the
/// arguments of a small run.
pub fn main<A: clap::Parser>(smoke: &[&str], measure: fn(&A) -> io::Result<bool>) -> ExitCode {
    let args = match start() {
        Start::Nothing => return ExitCode::SUCCESS,
        Start::Smoke => smoke.iter().map(OsString::from).collect(),
        Start::Bench(args) => args,
    };
    end(match child::Part::of(&args) {
        Some(child::Part::Floor) => floor::be_child(&args).map(|()| true),
        Some(child::Part::RingHttp) => ring_http::be_child(&args).map(|()| true),
        Some(child::Part::HttpClients) => clients::be_child(&args).map(|()| true),
        Some(child::Part::Shard) => shard::be_child(&args).map(|()| true),
        None => measure(&A::parse_from(args)),
    })
}

/// Ends a program with the message an operator needs.
pub fn end<E: std::fmt::Display>(result: Result<bool, E>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
