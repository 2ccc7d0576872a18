//! Batches of datagrams: `recvmmsg` into fixed slots, `sendmmsg` out of fixed slots.
//!
//! ```text
//! ReceiveBatch   slot 0 [payload | address | control] … slot n     one call fills slots 0..k
//! SendBatch      oldest ─► [answer | address | control] … ◄─ next  one call takes from the oldest
//! ```
#![expect(unsafe_code, reason = "recvmmsg and sendmmsg take arrays of raw pointers")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use super::net::{Address, Control};
use crate::limits::UDP_PAYLOAD_MAX;

/// Payload room of a received datagram, in bytes. More than any request may have, so that a longer
/// one is seen as what it is.
pub const RECEIVE_LEN: usize = 2_048;
const _: () = assert!(RECEIVE_LEN > UDP_PAYLOAD_MAX);

const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};
const EMPTY_IOVEC: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Slots that `recvmmsg` fills.
pub struct ReceiveBatch {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
    payloads: Box<[[u8; RECEIVE_LEN]]>,
    filled: usize,
    addressed: bool,
}

impl ReceiveBatch {
    /// `slots` empty slots.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            headers: vec![EMPTY_HEADER; slots].into(),
            iovecs: vec![EMPTY_IOVEC; slots].into(),
            addresses: vec![Address::EMPTY; slots].into(),
            controls: vec![Control::EMPTY; slots].into(),
            payloads: vec![[0; RECEIVE_LEN]; slots].into(),
            filled: 0,
            addressed: true,
        }
    }

    /// `slots` empty slots that take payloads only: for connected sockets, which know their peer.
    #[must_use]
    pub fn payload_only(slots: usize) -> Self {
        Self { addressed: false, ..Self::new(slots) }
    }

    /// Takes up to `most` waiting datagrams without blocking; what the slots held before is gone.
    /// Returns how many slots are filled.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when nothing waits.
    pub fn receive(&mut self, socket: &impl AsFd, most: usize) -> io::Result<usize> {
        self.call(socket, most, libc::MSG_DONTWAIT)
    }

    /// Waits for one datagram on a blocking socket, then takes as [`receive`](Self::receive) does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive_waiting(&mut self, socket: &impl AsFd, most: usize) -> io::Result<usize> {
        self.call(socket, most, libc::MSG_WAITFORONE)
    }

    fn call(&mut self, socket: &impl AsFd, most: usize, flags: libc::c_int) -> io::Result<usize> {
        let most = most.min(self.headers.len());
        self.filled = 0;
        for slot in 0..most {
            self.iovecs[slot] =
                libc::iovec { iov_base: self.payloads[slot].as_mut_ptr().cast(), iov_len: RECEIVE_LEN };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            if self.addressed {
                header.msg_name = self.addresses[slot].bytes.as_mut_ptr().cast();
                header.msg_namelen = Address::LEN as libc::socklen_t;
                header.msg_control = self.controls[slot].bytes.as_mut_ptr().cast();
                header.msg_controllen = Control::LEN;
            }
        }
        // SAFETY: the first `most` headers were just pointed at live slots of the lengths given, all
        // owned by `self`, which is borrowed mutably through the call.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
        for slot in 0..self.filled {
            self.addresses[slot].len = self.headers[slot].msg_hdr.msg_namelen;
        }
        Ok(self.filled)
    }

    /// The bytes of a filled slot.
    #[must_use]
    pub fn payload(&self, slot: usize) -> &[u8] {
        let len = (self.headers[slot].msg_len as usize).min(RECEIVE_LEN);
        if slot < self.filled { &self.payloads[slot][..len] } else { &[] }
    }

    /// Whether the datagram of a filled slot was longer than the slot.
    #[must_use]
    pub fn truncated(&self, slot: usize) -> bool {
        self.headers[slot].msg_hdr.msg_flags & libc::MSG_TRUNC != 0
    }

    /// Where the datagram of a filled slot came from.
    #[must_use]
    pub fn source(&self, slot: usize) -> &Address {
        &self.addresses[slot]
    }

    /// Where the datagram of a filled slot was sent to, if the socket asked to be told.
    #[must_use]
    pub fn destination(&self, slot: usize) -> Option<IpAddr> {
        let len = self.headers[slot].msg_hdr.msg_controllen.min(Control::LEN);
        Control::destination(&self.controls[slot].bytes[..len])
    }
}

/// A queue of answers that `sendmmsg` empties from its oldest end.
pub struct SendBatch {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
    payloads: Box<[[u8; UDP_PAYLOAD_MAX]]>,
    oldest: usize,
    next: usize,
}

impl SendBatch {
    /// Room for `slots` answers.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            headers: vec![EMPTY_HEADER; slots].into(),
            iovecs: vec![EMPTY_IOVEC; slots].into(),
            addresses: vec![Address::EMPTY; slots].into(),
            controls: vec![Control::EMPTY; slots].into(),
            payloads: vec![[0; UDP_PAYLOAD_MAX]; slots].into(),
            oldest: 0,
            next: 0,
        }
    }

    /// Answers waiting to be sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.next - self.oldest
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next == self.oldest
    }

    /// How many more answers fit now. All slots are free again once the queue is empty.
    #[must_use]
    pub fn free(&self) -> usize {
        self.headers.len() - self.next
    }

    /// Writes `byte` all over every slot. Slots keep what is written to them when they are used again.
    ///
    /// # Panics
    /// When something is queued.
    pub fn fill(&mut self, byte: u8) {
        assert!(self.is_empty(), "filling would overwrite queued answers");
        for payload in &mut self.payloads {
            payload.fill(byte);
        }
    }

    /// Room for the next answer; empty when there is none.
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        self.payloads.get_mut(self.next).map_or(&mut [], |p| p.as_mut_slice())
    }

    /// Queues the first `len` bytes of [`room`](Self::room) for `to`, leaving from `source` if given.
    ///
    /// # Panics
    /// When the queue is full: whoever fills it has asked [`free`](Self::free) before.
    pub fn push(&mut self, to: &Address, source: Option<IpAddr>, len: usize) {
        let slot = self.next;
        self.addresses[slot] = *to;
        self.iovecs[slot].iov_len = len.min(UDP_PAYLOAD_MAX);
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_namelen = to.len;
        header.msg_controllen = source.map_or(0, |ip| self.controls[slot].write_source(ip));
        self.next += 1;
    }

    /// Queues the first `len` bytes of [`room`](Self::room) for the peer of a connected socket.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn push_connected(&mut self, len: usize) {
        self.push(&Address::EMPTY, None, len);
    }

    /// Sends what is queued, oldest first, in one call. Returns how many the kernel took, maybe
    /// fewer than were queued; those leave the queue.
    ///
    /// # Errors
    /// The kernel's, for the oldest one; nothing leaves the queue then.
    pub fn send(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let waiting = self.point_headers();
        // SAFETY: every waiting header was just pointed at live slots owned by `self`, with lengths
        // set by `push` and bounded by the slots; `self` is borrowed mutably through the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                waiting.as_mut_ptr(),
                waiting.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        self.leave(sent);
        Ok(sent)
    }

    /// The headers of what is queued, oldest first, pointed at where its parts lie now.
    pub(super) fn point_headers(&mut self) -> &mut [libc::mmsghdr] {
        for slot in self.oldest..self.next {
            self.iovecs[slot].iov_base = self.payloads[slot].as_mut_ptr().cast();
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = self.addresses[slot].bytes.as_mut_ptr().cast();
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[slot].bytes.as_mut_ptr().cast();
        }
        &mut self.headers[self.oldest..self.next]
    }

    /// Gives up all that is queued.
    pub(super) fn clear(&mut self) {
        (self.oldest, self.next) = (0, 0);
    }

    /// Gives up the oldest answer.
    pub fn skip(&mut self) {
        self.leave(1);
    }

    fn leave(&mut self, count: usize) {
        self.oldest = (self.oldest + count).min(self.next);
        if self.oldest == self.next {
            (self.oldest, self.next) = (0, 0);
        }
    }
}

/// Sends one datagram at once.
///
/// # Errors
/// The kernel's.
pub fn send_one(socket: &impl AsFd, to: SocketAddr, source: Option<IpAddr>, bytes: &[u8]) -> io::Result<()> {
    let mut batch = SendBatch::new(1);
    let len = bytes.len().min(UDP_PAYLOAD_MAX);
    batch.room()[..len].copy_from_slice(&bytes[..len]);
    batch.push(&Address::new(to), source, len);
    batch.send(socket).map(|_| ())
}

// SAFETY: the raw pointers inside point only into the boxes beside them and are set anew before
// every call of the kernel, so a batch may move to another thread.
unsafe impl Send for ReceiveBatch {}
// SAFETY: as for `ReceiveBatch`.
unsafe impl Send for SendBatch {}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::net::{connect_udp, open_udp};
    use super::*;

    #[test]
    fn a_batch_comes_in_and_its_answers_go_back() {
        let server = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        for n in 0..5_u8 {
            client.send(&vec![n; usize::from(n)]).unwrap();
        }
        let (mut received, mut answers) = (ReceiveBatch::new(8), SendBatch::new(8));
        assert_eq!(received.receive(&server, 8).unwrap(), 5);
        for slot in 0..5 {
            assert_eq!(received.payload(slot).len(), slot);
            assert_eq!(received.source(slot).socket_addr(), client.local_addr().unwrap());
            assert_eq!(received.destination(slot), None);
            answers.room()[0] = b'a' + u8::try_from(slot).unwrap();
            answers.push(received.source(slot), None, 1);
        }
        assert_eq!(answers.send(&server).unwrap(), 5);
        assert!(answers.is_empty() && answers.free() == 8);
        let mut buffer = [0; 16];
        for expected in b"abcde" {
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], *expected);
        }
        assert_eq!(received.receive(&server, 8).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_connected_pair_needs_no_addresses() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = connect_udp(server.local_addr().unwrap(), 1 << 20).unwrap();
        server.connect(client.local_addr().unwrap()).unwrap();
        let (mut received, mut requests) = (ReceiveBatch::payload_only(8), SendBatch::new(8));
        for n in 1..=3_usize {
            requests.room()[..n].fill(b'x');
            requests.push_connected(n);
        }
        assert_eq!(requests.send(&client).unwrap(), 3);
        assert_eq!(received.receive_waiting(&server, 8).unwrap(), 3);
        assert_eq!(received.payload(2), b"xxx");
        assert_eq!((received.destination(2), received.truncated(2)), (None, false));
    }

    #[test]
    fn long_datagrams_are_marked_and_wildcard_answers_leave_from_where_they_were_asked() {
        let server = open_udp("0.0.0.0:0".parse().unwrap(), 1 << 20).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(("127.0.0.2", port)).unwrap();
        client.send(&[1; RECEIVE_LEN + 1]).unwrap();
        let mut received = ReceiveBatch::new(8);
        assert_eq!(received.receive(&server, 8).unwrap(), 1);
        assert!(received.truncated(0));
        let asked = received.destination(0);
        assert_eq!(asked, Some("127.0.0.2".parse().unwrap()));
        send_one(&server, received.source(0).socket_addr(), asked, b"hi").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(client.recv(&mut buffer).unwrap(), 2, "a connected client hears only that address");
    }

    #[test]
    fn an_unsendable_answer_is_skipped_and_the_next_ones_go() {
        let server = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut answers = SendBatch::new(4);
        answers.push(&Address::new("[::1]:9".parse().unwrap()), None, 1);
        answers.push(&Address::new(client.local_addr().unwrap()), None, 1);
        assert!(answers.send(&server).is_err());
        answers.skip();
        assert_eq!(answers.send(&server).unwrap(), 1);
    }
}
