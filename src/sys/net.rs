//! Opening sockets the way shards want them, and asking the kernel about them.
#![expect(unsafe_code, reason = "SO_MEMINFO has no safe wrapper")]

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};

/// What the kernel gave of the socket buffers asked for, in bytes as the kernel counts them (it
/// doubles a request to cover its own bookkeeping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Receive buffer.
    pub receive: usize,
    /// Send buffer.
    pub send: usize,
}

/// Opens a non-blocking UDP socket that shares its port with others of its kind.
///
/// On a wildcard address the kernel is asked to tell each datagram's destination, so that the
/// answer can leave from there. IPv6 sockets take IPv6 only.
///
/// # Errors
/// The kernel's, with the address in the text.
pub fn open_udp(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let fd = open(address, SockType::Datagram).map_err(|e| named(e, "UDP", address))?;
    grow_buffers(fd.as_fd(), buffer_bytes);
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    bind_to(&fd, address).map_err(|e| named(e, "UDP", address))?;
    Ok(UdpSocket::from(fd))
}

/// Opens a non-blocking UDP socket of a client's: connected to `server`, so that it hears only that
/// address and sends without looking up the way each time.
///
/// # Errors
/// The kernel's.
pub fn connect_udp(server: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = UdpSocket::from(socket(family, SockType::Datagram, flags, None)?);
    grow_buffers(socket.as_fd(), buffer_bytes);
    socket.connect(server)?;
    Ok(socket)
}

/// Begins to connect a non-blocking TCP socket to `server`, from `source` if given. The socket is
/// writable once it is connected, or once `take_error` tells why not.
///
/// # Errors
/// The kernel's.
pub fn connect_tcp(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    if let Some(source) = source {
        // The port is chosen by `connect`, which may take one that another server's peer has.
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        bind_to(&fd, SocketAddr::new(source, 0))?;
    }
    let result = match server {
        SocketAddr::V4(v4) => connect(fd.as_raw_fd(), &SockaddrIn::from(v4)),
        SocketAddr::V6(v6) => connect(fd.as_raw_fd(), &SockaddrIn6::from(v6)),
    };
    match result {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(error) => Err(error.into()),
    }
}

/// Opens a non-blocking TCP listener that shares its port with others of its kind.
///
/// # Errors
/// The kernel's, with the address in the text.
pub fn open_tcp(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let fd = open(address, SockType::Stream).map_err(|e| named(e, "TCP", address))?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Answers are written whole, so waiting to gather more only delays them. Accepted sockets
    // inherit this.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    // Answers are a segment or a few, so what a window grows by never matters, and the timers of
    // algorithms that pace do cost. Every kernel has this one; any other will do.
    let _other = setsockopt(&fd, sockopt::TcpCongestion, &OsString::from("reno"));
    bind_to(&fd, address).map_err(|e| named(e, "TCP", address))?;
    let backlog = Backlog::new(backlog).unwrap_or(Backlog::MAXCONN);
    listen(&fd, backlog).map_err(|e| named(e.into(), "TCP", address))?;
    Ok(TcpListener::from(fd))
}

fn open(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, kind, flags, None)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(v4) => bind(fd.as_raw_fd(), &SockaddrIn::from(v4))?,
        SocketAddr::V6(v6) => bind(fd.as_raw_fd(), &SockaddrIn6::from(v6))?,
    }
    Ok(())
}

fn named(error: io::Error, what: &str, address: SocketAddr) -> io::Error {
    let cure = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another program has the port: stop it, or choose another port or address"
        }
        Some(libc::EACCES) => "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher port",
        Some(libc::EADDRNOTAVAIL) => "; this machine has no such address: name one of its own",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {what} {address}: {error}{cure}"))
}

/// Asks for buffers of `bytes`; beyond the system's limit first, which needs a privilege.
fn grow_buffers(fd: BorrowedFd<'_>, bytes: usize) {
    // What the kernel gave is read back by `socket_buffers`, so a refusal here is not lost.
    let _refused =
        setsockopt(&fd, sockopt::RcvBufForce, &bytes).or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &bytes));
    let _refused =
        setsockopt(&fd, sockopt::SndBufForce, &bytes).or_else(|_| setsockopt(&fd, sockopt::SndBuf, &bytes));
}

/// Reads back what the kernel gave.
///
/// # Errors
/// The kernel's; only when this is not a socket.
pub fn socket_buffers(socket: &impl AsFd) -> io::Result<SocketBuffers> {
    let fd = socket.as_fd();
    Ok(SocketBuffers { receive: getsockopt(&fd, sockopt::RcvBuf)?, send: getsockopt(&fd, sockopt::SndBuf)? })
}

/// Datagrams the kernel has dropped on this socket since it was opened, modulo 2^32. Zero when the
/// kernel does not say (`SO_MEMINFO` came with Linux 4.12).
#[must_use]
pub fn socket_drops(socket: &impl AsFd) -> u32 {
    const DROPS: usize = 8;
    let mut info = [0_u32; DROPS + 1];
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: `info` and `len` live through the call and `len` is the size of `info`; the kernel
    // writes at most that much. The borrowed descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { info[DROPS] } else { 0 }
}

/// A socket address in the kernel's own form, small enough to copy per datagram.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub struct Address {
    pub(super) bytes: [u8; Address::LEN],
    pub(super) len: u32,
}

impl Address {
    /// Room for an IPv6 socket address, the longest we meet.
    pub(super) const LEN: usize = size_of::<libc::sockaddr_in6>();

    /// Nothing.
    pub(super) const EMPTY: Self = Self { bytes: [0; Self::LEN], len: 0 };

    /// From the standard form.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let mut bytes = [0; Self::LEN];
        let len = match address {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&u16::try_from(libc::AF_INET).unwrap_or(0).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&u16::try_from(libc::AF_INET6).unwrap_or(0).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v6.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { bytes, len: u32::try_from(len).unwrap_or(0) }
    }

    /// From the bytes of a `sockaddr` as the kernel wrote them.
    #[must_use]
    pub fn from_kernel(sockaddr: &[u8]) -> Self {
        let len = sockaddr.len().min(Self::LEN);
        let mut bytes = [0; Self::LEN];
        bytes[..len].copy_from_slice(&sockaddr[..len]);
        Self { bytes, len: u32::try_from(len).unwrap_or(0) }
    }

    /// The standard form; the unspecified IPv4 address for a family that is neither.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        let b = &self.bytes;
        let family = i32::from(u16::from_ne_bytes([b[0], b[1]]));
        let port = u16::from_be_bytes([b[2], b[3]]);
        if family == libc::AF_INET6 {
            let mut ip = [0; 16];
            ip.copy_from_slice(&b[8..24]);
            let flow = u32::from_be_bytes([b[4], b[5], b[6], b[7]]);
            let scope = u32::from_ne_bytes([b[24], b[25], b[26], b[27]]);
            return SocketAddr::V6(SocketAddrV6::new(ip.into(), port, flow, scope));
        }
        let ip = if family == libc::AF_INET { [b[4], b[5], b[6], b[7]] } else { [0; 4] };
        SocketAddr::V4(SocketAddrV4::new(ip.into(), port))
    }
}

/// Room for one packet-info control message, either family.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Control {
    pub(super) bytes: [u8; Control::LEN],
}

impl Control {
    /// `CMSG_SPACE(sizeof(struct in6_pktinfo))`.
    pub const LEN: usize = 40;
    const HEADER: usize = size_of::<libc::cmsghdr>();

    pub(super) const EMPTY: Self = Self { bytes: [0; Self::LEN] };

    /// Reads the destination address of a received datagram out of its control bytes.
    #[must_use]
    pub fn destination(control: &[u8]) -> Option<IpAddr> {
        let word = |at: usize| control.get(at..at + 4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        // struct cmsghdr: length (8 bytes), level, type.
        match (word(8)?, word(12)?) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // struct in_pktinfo: interface, local address, destination address.
                let ip: [u8; 4] = control.get(Self::HEADER + 8..Self::HEADER + 12)?.try_into().ok()?;
                Some(IpAddr::from(ip))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let ip: [u8; 16] = control.get(Self::HEADER..Self::HEADER + 16)?.try_into().ok()?;
                Some(IpAddr::from(ip))
            }
            _ => None,
        }
    }

    /// Writes the control message that sends from `source`; returns its length.
    pub(super) fn write_source(&mut self, source: IpAddr) -> usize {
        self.bytes = [0; Self::LEN];
        let (level, kind, data) = match source {
            IpAddr::V4(v4) => {
                // The source goes into the local-address field of struct in_pktinfo.
                self.bytes[Self::HEADER + 4..Self::HEADER + 8].copy_from_slice(&v4.octets());
                (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>())
            }
            IpAddr::V6(v6) => {
                self.bytes[Self::HEADER..Self::HEADER + 16].copy_from_slice(&v6.octets());
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>())
            }
        };
        let len = Self::HEADER + data;
        self.bytes[..8].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&level.to_ne_bytes());
        self.bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
        len.next_multiple_of(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        for text in ["127.0.0.1:2679", "[::1]:80", "[fe80::1%3]:9", "255.255.255.255:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::new(address).socket_addr(), address);
        }
    }

    #[test]
    fn a_second_socket_shares_the_port_and_buffers_are_read_back() {
        let first = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let second = open_udp(first.local_addr().unwrap(), 1 << 20).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        assert!(socket_buffers(&first).unwrap().receive >= 1 << 16);
        assert_eq!(socket_drops(&first), 0);
    }

    #[test]
    fn a_connection_leaves_from_the_address_it_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = "127.0.0.7".parse().unwrap();
        let client = connect_tcp(listener.local_addr().unwrap(), Some(source)).unwrap();
        let (_accepted, from) = listener.accept().unwrap();
        assert_eq!((from.ip(), from.port()), (source, client.local_addr().unwrap().port()));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = connect_tcp(free, None).and_then(|client| {
            while client.peer_addr().is_err() {
                if let Some(error) = client.take_error()? {
                    return Err(error);
                }
            }
            Ok(())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_overflowing_socket_tells_its_drops() {
        let socket = open_udp("127.0.0.1:0".parse().unwrap(), 4_096).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            client.send_to(&[0; 1_000], socket.local_addr().unwrap()).unwrap();
        }
        assert!(socket_drops(&socket) > 0);
    }

    #[test]
    fn a_taken_port_is_named_with_its_cure() {
        let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = open_udp(plain.local_addr().unwrap(), 4_096).unwrap_err().to_string();
        assert!(error.contains("cannot listen on UDP 127.0.0.1:"), "{error}");
        assert!(error.contains("another program has the port"), "{error}");
    }
}
