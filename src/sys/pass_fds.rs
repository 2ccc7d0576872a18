//! Passing open descriptors to another process over a socket between the two.
#![expect(unsafe_code, reason = "what the kernel hands over are bare numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Most descriptors of one message; the kernel's own limit is 253.
pub const PASSED_MAX: usize = 64;

/// Sends one byte with these descriptors, at most [`PASSED_MAX`].
///
/// # Errors
/// Too many; or the kernel's.
pub fn send_fds(to: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > PASSED_MAX {
        let text = format!("{} descriptors, at most {PASSED_MAX} fit one message", fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&[0])], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes what [`send_fds`] has sent. The descriptors are not inherited by programs this one starts.
///
/// # Errors
/// The other side has gone, or the kernel's.
pub fn receive_fds(from: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([RawFd; PASSED_MAX]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just opened these numbers for this message, and nobody else knows
            // them: each is owned from here on, once.
            fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_socket_is_the_same_on_the_other_side() {
        let (here, there) = UnixStream::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        send_fds(&here, &[socket.as_fd(), here.as_fd()]).unwrap();
        send_fds(&here, &[]).unwrap();
        let mut fds = receive_fds(&there).unwrap();
        assert_eq!(fds.len(), 2);
        assert!(receive_fds(&there).unwrap().is_empty());
        let passed = UdpSocket::from(fds.remove(0));
        assert_eq!(passed.local_addr().unwrap(), socket.local_addr().unwrap());
        passed.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
        drop((here, fds));
        assert_eq!(receive_fds(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn more_than_fit_are_refused() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert!(send_fds(&here, &[here.as_fd(); PASSED_MAX + 1]).is_err());
    }
}
