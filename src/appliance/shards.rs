//! Opens the sockets and starts the threads that answer.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread::JoinHandle;

use super::topology::Topology;
use crate::engine::probe::Chosen;
use crate::engine::{PortableEngine, Sockets, UringEngine, UringOptions, run_on_glommio, run_on_thread};
use crate::shard::Shard;
use crate::sys::net::{open_tcp, open_udp, socket_buffers};
use crate::time::RealClock;

/// Connections the kernel may have completed and not yet handed over, per listener.
const BACKLOG: i32 = 4_096;

/// Times another free port is tried when port 0 was asked for and an address already has the port
/// that the first one got.
const PORT_TRIES: usize = 16;

/// What every shard opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) udp: Vec<SocketAddr>,
    pub(super) http: Vec<SocketAddr>,
}

/// Opens the sockets of all shards. Returns those of each shard and the addresses they share.
pub(super) fn open_sockets(
    topology: &Topology,
    udp_port: u16,
    http_port: u16,
    buffer_bytes: usize,
) -> io::Result<(Vec<Sockets>, Listening)> {
    // A port of the kernel's choice is found by a socket that shares it with nobody: one that may
    // share could be given the port of another process.
    let udp = usable(topology, udp_port, |address| match address.port() {
        0 => UdpSocket::bind(address)?.local_addr(),
        _ => open_udp(address, buffer_bytes)?.local_addr(),
    })?;
    let http = usable(topology, http_port, |address| match address.port() {
        0 => TcpListener::bind(address)?.local_addr(),
        _ => open_tcp(address, 1)?.local_addr(),
    })?;
    let listening = Listening { udp, http };
    let all = topology.shards.iter().map(|_| listening.open(buffer_bytes)).collect::<io::Result<_>>()?;
    Ok((all, listening))
}

impl Listening {
    /// Opens the sockets of one more shard.
    pub(super) fn open(&self, buffer_bytes: usize) -> io::Result<Sockets> {
        let udp = self.udp.iter().map(|address| open_udp(*address, buffer_bytes));
        let tcp = self.http.iter().map(|address| open_tcp(*address, BACKLOG));
        Ok(Sockets { udp: udp.collect::<io::Result<_>>()?, tcp: tcp.collect::<io::Result<_>>()? })
    }
}

/// The addresses to open, all with one port. `open` opens one for a moment and says which
/// port it got.
fn usable(
    topology: &Topology,
    port: u16,
    open: impl Fn(SocketAddr) -> io::Result<SocketAddr>,
) -> io::Result<Vec<SocketAddr>> {
    let mut last = io::Error::other("no address to listen on; name one with --listen");
    for _ in 0..PORT_TRIES {
        let (mut port_now, mut opened, mut taken) = (port, Vec::new(), false);
        for address in topology.addresses(port) {
            match open(SocketAddr::new(address.ip(), port_now)) {
                Ok(address) => {
                    port_now = address.port();
                    opened.push(address);
                }
                Err(e) if port == 0 && e.kind() == io::ErrorKind::AddrInUse => {
                    taken = true;
                    last = e;
                }
                Err(e) => return Err(e),
            }
        }
        if !taken {
            return Ok(opened);
        }
    }
    Err(last)
}

/// Descriptors that are not for clients' connections: the store, sockets and rings of the shards, feeds
/// and their REST fetches, health ports. Guess, not measured: a process of two shards with every feed
/// up holds 60.
const DESCRIPTORS_RESERVED: u64 = 512;

/// How many connections each of `shards` may hold where the process may hold `descriptors`, and what
/// the operator should know when that is fewer than `wanted`.
pub(super) fn connections_max(
    wanted: usize,
    engine: Chosen,
    shards: usize,
    descriptors: u64,
) -> (usize, Option<String>) {
    let free =
        descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(DESCRIPTORS_RESERVED.min(descriptors) / 2);
    let possible = match engine {
        // Connections of a ring are no descriptors, but no ring's table may be larger than their limit.
        Chosen::Uring => free,
        Chosen::Portable => free / shards.max(1) as u64,
    };
    let possible = usize::try_from(possible).unwrap_or(usize::MAX).max(1);
    if wanted <= possible {
        return (wanted, None);
    }
    let note = format!(
        "a shard holds at most {possible} connections, {wanted} were asked for: the process may open \
         {descriptors} descriptors. Raise the limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= \
         of a container), or lower connections_max"
    );
    (possible, Some(note))
}

/// What the operator should know about the buffers that the kernel gave.
pub(super) fn buffer_warning(sockets: &[Sockets], wanted: usize) -> Option<String> {
    let first = sockets.first()?.udp.first()?;
    let got = socket_buffers(first).ok()?;
    // The kernel reports twice what it lets a program use.
    let (receive, send) = (got.receive / 2, got.send / 2);
    if receive >= wanted && send >= wanted {
        return None;
    }
    Some(format!(
        "the kernel gives UDP sockets {receive} bytes to receive and {send} to send, {wanted} were asked \
         for; bursts beyond that are dropped. Run as root: sysctl -w net.core.rmem_max={wanted} \
         net.core.wmem_max={wanted}, or give the process CAP_NET_ADMIN"
    ))
}

/// Runs a shard on a thread of its own.
pub(super) fn spawn(
    engine: Chosen,
    cpu: Option<usize>,
    name: &str,
    mut shard: Shard,
    sockets: Sockets,
    connections_max: usize,
) -> io::Result<JoinHandle<io::Result<io::Result<()>>>> {
    match engine {
        Chosen::Uring => {
            let connections_max = u32::try_from(connections_max).unwrap_or(u32::MAX);
            let options = UringOptions { connections_max, ..UringOptions::default() };
            run_on_glommio(cpu, name, move || async move {
                let mut engine = UringEngine::new(sockets, options)?;
                shard.run(&mut engine, &RealClock).await
            })
        }
        Chosen::Portable => run_on_thread(cpu, name, move || async move {
            let mut engine = PortableEngine::new(sockets, connections_max)?;
            shard.run(&mut engine, &RealClock).await
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_descriptors_allow_and_the_operator_hears_of_it() {
        let max = |engine, shards, descriptors| connections_max(16_384, engine, shards, descriptors);
        assert_eq!(max(Chosen::Uring, 8, 20_000), (16_384, None));
        assert_eq!(max(Chosen::Portable, 1, 1 << 20), (16_384, None));
        assert_eq!(max(Chosen::Uring, 8, 1_024).0, 512);
        let (each, note) = max(Chosen::Portable, 2, 20_000);
        assert_eq!(each, 9_744);
        assert!(note.unwrap().contains("at most 9744 connections, 16384 were asked for"));
        assert!(max(Chosen::Portable, 4, 256).0 >= 1);
    }
}
