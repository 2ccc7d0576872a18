//! The floors: servers that do the least this machine lets a server do. What ours takes beyond them is
//! ours. They listen on loopback and write their address as their first line.

mod http;
mod udp;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use crate::limits::SOCKET_BUFFER_LEN;
use crate::sys::net::{open_tcp, open_udp};

/// How the floor of UDP waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// In the kernel, inside `recvmmsg`.
    Block,
    /// By asking again and again.
    Spin,
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Echoes the first 8 bytes of each datagram, followed by fixed ones up to `answer_len`, for ever.
///
/// # Errors
/// The kernel's.
pub fn serve_udp(answer_len: usize, wait: Wait) -> io::Result<()> {
    let socket = open_udp(LOOPBACK, SOCKET_BUFFER_LEN)?;
    tell(&socket.local_addr()?.to_string())?;
    udp::echo(&socket, answer_len, wait)
}

/// Answers whatever comes in one piece on a connection with `answer`, for ever, on a ring. A UDP
/// address is told before the TCP one, as by other servers, and nothing answers there.
///
/// # Errors
/// The kernel's.
pub fn serve_http(answer: &[u8]) -> io::Result<()> {
    let (silent, listener) = (open_udp(LOOPBACK, 4_096)?, open_tcp(LOOPBACK, 4_096)?);
    tell(&format!("{} {}", silent.local_addr()?, listener.local_addr()?))?;
    http::respond(&listener, answer)
}

fn tell(addresses: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{addresses}")?;
    out.flush()
}
