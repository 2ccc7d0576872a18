//! Which socket of a group that shares a port gets a datagram: the one of the processor that received
//! it, by a classic BPF program of a few instructions. It needs no privilege.
#![expect(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF and SO_DETACH_REUSEPORT_BPF have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Sockets a program can tell apart: two instructions each, and a program may have 4,096.
pub const STEERED_MAX: usize = 1_024;

/// The kernel's `SKF_AD_OFF + SKF_AD_CPU`: loading from there gives the processor's number.
const PROCESSOR: u32 = (-0x1000_i32 + 36).cast_unsigned();
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// No socket has this number; then the kernel goes by its hash.
const BY_HASH: u32 = u32::MAX;

/// Gives each datagram for the group of `socket` to the socket whose position in `processors` holds
/// the processor that received it. Positions are those in which the sockets were bound. What other
/// processors receive is spread by the kernel's hash.
///
/// # Errors
/// There are more than [`STEERED_MAX`], or the kernel refuses.
pub fn by_processor(socket: &impl AsFd, processors: &[usize]) -> io::Result<()> {
    if processors.len() > STEERED_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more sockets than can be told apart"));
    }
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD_WORD, 0, 0, PROCESSOR)];
    for (position, processor) in (0..).zip(processors) {
        let processor = u32::try_from(*processor).unwrap_or(u32::MAX);
        // Equal: the next instruction; otherwise the one after it.
        program.extend([step(JUMP_IF_EQUAL, 0, 1, processor), step(RETURN, 0, 0, position)]);
    }
    program.push(step(RETURN, 0, 0, BY_HASH));
    let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: `program` and what it points to live through the call, `len` is the count of its
    // instructions, and the kernel only reads. The borrowed descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Spreads what comes for the group of `socket` by the kernel's hash again.
///
/// # Errors
/// The kernel's; there was no program.
pub fn by_hash(socket: &impl AsFd) -> io::Result<()> {
    let nothing: libc::c_int = 0;
    // SAFETY: the kernel reads at most the four bytes of `nothing`, which lives through the call. The
    // borrowed descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const nothing).cast(),
            libc::socklen_t::try_from(size_of_val(&nothing)).unwrap_or(0),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::super::{net::open_udp, pin};
    use super::*;

    #[test]
    fn a_datagram_reaches_the_socket_of_the_processor_that_sent_it_through_loopback() {
        let first = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        let address = first.local_addr().unwrap();
        let group = [first, open_udp(address, 1 << 16).unwrap(), open_udp(address, 1 << 16).unwrap()];
        let cpus = pin::cpus().unwrap();
        // The last socket is for the first processor, and nobody is for the one that is not there.
        by_processor(&group[0], &[100_000, *cpus.last().unwrap(), cpus[0]]).unwrap();
        let received = |socket: &UdpSocket| {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut buffer = [0; 8];
            std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
        };
        for (cpu, expected) in [(cpus[0], 2), (*cpus.last().unwrap(), 1)] {
            // One processor alone has the first of the two that name it.
            let expected = if cpus.len() == 1 { 1 } else { expected };
            std::thread::spawn(move || {
                pin::pin_thread(cpu).unwrap();
                for _ in 0..40 {
                    // A socket each, so that the hash would spread them.
                    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
                }
            })
            .join()
            .unwrap();
            let counts: Vec<usize> = group.iter().map(received).collect();
            assert_eq!((counts[expected], counts.iter().sum::<usize>()), (40, 40), "{cpu}: {counts:?}");
        }
    }

    #[test]
    fn what_no_socket_is_for_is_spread_by_the_hash() {
        let first = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        let address = first.local_addr().unwrap();
        by_processor(&first, &[100_000]).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
        first.set_nonblocking(false).unwrap();
        first.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(first.recv(&mut [0; 8]).unwrap(), 1);
        by_hash(&first).unwrap();
        assert!(by_hash(&first).is_err(), "there is no program any more");
        assert!(by_processor(&first, &[0; STEERED_MAX + 1]).is_err());
        assert!(by_processor(&std::fs::File::open("/dev/null").unwrap(), &[0]).is_err());
    }
}
