//! The floor: the least a server can do for a datagram on these system calls. It takes a batch with
//! `recvmmsg`, copies each request's first 8 bytes in front of fixed ones, and sends the batch with
//! `sendmmsg`. Nothing is parsed, looked up, counted or recorded.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::UdpSocket;

use beast::limits::{RECV_BATCH_LEN, SOCKET_BUFFER_LEN, UDP_PAYLOAD_MAX};
use beast::load::Echo;
use beast::sys::mmsg::{ReceiveBatch, SendBatch};
use beast::sys::net::open_udp;
use clap::Parser;

use super::child::{Part, Server, leave_with_parent};

/// How the floor server waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// In the kernel, inside `recvmmsg`.
    Block,
    /// By asking again and again.
    Spin,
}

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
/// As [`Server::part`].
pub fn start(answer_len: usize, wait: Wait, cpu: Option<usize>) -> io::Result<Server> {
    let wait = match wait {
        Wait::Block => "block",
        Wait::Spin => "spin",
    };
    Server::part(Part::Floor, &["--answer-len", &answer_len.to_string(), "--wait", wait], cpu)
}

/// What the child does until it is killed.
///
/// # Errors
/// The kernel's.
pub fn be_child(args: &[OsString]) -> io::Result<()> {
    let args = FloorArgs::parse_from(&args[1..]);
    leave_with_parent();
    let socket = open_udp("127.0.0.1:0".parse().map_err(io::Error::other)?, SOCKET_BUFFER_LEN)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", socket.local_addr()?)?;
    stdout.flush()?;
    echo(&socket, args.answer_len.clamp(Echo::ID_LEN, UDP_PAYLOAD_MAX), args.wait)
}

fn echo(socket: &UdpSocket, answer_len: usize, wait: Wait) -> io::Result<()> {
    let mut received = ReceiveBatch::new(RECV_BATCH_LEN);
    let mut answers = SendBatch::new(RECV_BATCH_LEN);
    // Slots keep what is written to them, so the fixed part is written once.
    answers.fill(Echo::ANSWER_FILL);
    socket.set_nonblocking(wait == Wait::Spin)?;
    loop {
        let taken = match wait {
            Wait::Block => received.receive_waiting(socket, RECV_BATCH_LEN),
            Wait::Spin => received.receive(socket, RECV_BATCH_LEN),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        for slot in 0..taken {
            let Some(id) = received.payload(slot).first_chunk::<{ Echo::ID_LEN }>() else { continue };
            answers.room()[..Echo::ID_LEN].copy_from_slice(id);
            answers.push(received.source(slot), None, answer_len);
        }
        while !answers.is_empty() {
            if answers.send(socket).is_err() {
                answers.skip();
            }
        }
    }
}
