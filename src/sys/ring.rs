//! A safe face over one io_uring: typed operations in, plain completions out.
//!
//! ```text
//!   receive_datagrams ─┐                                            ┌─► Completion { token, … }
//!   accept, receive ───┼─► submission queue ─enter─► completion ────┤    buffer lent, by number
//!   send (owns bytes) ─┘        (full: enter)           queue       └─► take_sent: the bytes back
//! ```
//!
//! What an operation needs lives here until it is over: bytes being sent, message headers, buffer
//! rings. Nothing a caller does can make the kernel use memory that is gone. The ring is set up with
//! `SINGLE_ISSUER | DEFER_TASKRUN`: completions appear only during [`Ring::enter`], on the thread that
//! made the ring, which is why it can not be sent to another.
#![expect(unsafe_code, reason = "entries of a ring carry raw pointers")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::types::{CancelBuilder, Fd, Fixed, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::buffer_ring::BufferRing;
use super::mmsg::SendBatch;
use super::net::Control;
use super::refusal::refused;
use super::token::Token;

/// Sizes of a ring. Counts of buffers are powers of two up to 32,768.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Operations that fit between two enters; more make an enter of their own.
    pub submissions: u32,
    /// Completions that fit until they are taken; more wait inside the kernel.
    pub completions: u32,
    /// Sockets the ring can hold without a descriptor of the process, below the process's limit of
    /// descriptors (`RLIMIT_NOFILE`).
    pub direct_max: u32,
    /// Slots that may have a send under way.
    pub sends_max: u32,
    /// Buffers for datagrams.
    pub datagram_buffers: u16,
    /// Payload bytes that fit one of them.
    pub datagram_len: usize,
    /// Buffers for streams.
    pub stream_buffers: u16,
    /// Bytes that fit one of them.
    pub stream_len: usize,
}

/// What a completed operation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub token: Token,
    /// Bytes, a direct descriptor or 0; or the kernel's error number.
    pub result: Result<u32, i32>,
    /// Further completions of this operation will follow.
    pub more: bool,
    /// The buffer that was filled; it is lent now.
    pub buffer: Option<u16>,
}

/// Which buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Those datagrams arrive in: a header, the source address, control messages, the payload.
    Datagrams,
    /// Those bytes of connections arrive in.
    Streams,
}

/// A socket as the ring knows it.
#[derive(Clone, Copy, Debug)]
pub enum Target<'fd> {
    /// One the ring holds.
    Direct(u32),
    /// One the process holds.
    Plain(BorrowedFd<'fd>),
}

/// Where the parts of a received datagram begin in its buffer, in bytes.
pub struct DatagramLayout;

impl DatagramLayout {
    /// The source address, behind four 32-bit words: length of the address, of the control messages,
    /// of the payload as it was sent, and flags.
    pub const NAME: usize = 16;
    /// The control messages, if the socket asked for any.
    pub const CONTROL: usize = Self::NAME + size_of::<libc::sockaddr_in6>();

    /// The payload.
    #[must_use]
    pub fn payload(with_control: bool) -> usize {
        Self::CONTROL + if with_control { Control::LEN } else { 0 }
    }
}

enum SendSlot {
    Free,
    UnderWay(Vec<u8>),
    Over(Vec<u8>),
}

/// One io_uring with its buffers.
pub struct Ring {
    /// Declared first, so that it is closed before the memory below is freed.
    uring: IoUring,
    datagrams: BufferRing,
    streams: BufferRing,
    sends: Box<[SendSlot]>,
    sends_under_way: usize,
    /// The header that tells the kernel how to lay out a datagram, without and with control messages.
    headers: Box<[libc::msghdr; 2]>,
    deadline: Box<Timespec>,
    /// Entries may point at memory the ring does not own; never enter again.
    poisoned: bool,
    /// `SINGLE_ISSUER`: one thread only.
    one_thread: PhantomData<*mut ()>,
}

impl Ring {
    /// Sets up a ring, its buffers and its table of direct descriptors.
    ///
    /// # Errors
    /// The kernel's, with the refused call, its likely cause and the cure in the text.
    pub fn new(options: &RingOptions) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_cqsize(options.completions)
            .setup_clamp()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(options.submissions)
            .map_err(|e| refused("io_uring_setup", &e))?;
        let datagram_len = DatagramLayout::payload(true) + options.datagram_len;
        let ring = Self {
            uring,
            datagrams: BufferRing::new(options.datagram_buffers, datagram_len),
            streams: BufferRing::new(options.stream_buffers, options.stream_len),
            sends: std::iter::repeat_with(|| SendSlot::Free).take(options.sends_max as usize).collect(),
            sends_under_way: 0,
            headers: Box::new([header(0), header(Control::LEN)]),
            deadline: Box::new(Timespec::new()),
            poisoned: false,
            one_thread: PhantomData,
        };
        for group in [Group::Datagrams, Group::Streams] {
            let (buffers, id) = (ring.group(group), group as u16);
            // SAFETY: the entries live in `buffers`, which is dropped after the ring is closed.
            unsafe {
                ring.uring.submitter().register_buf_ring_with_flags(buffers.address(), buffers.count(), id, 0)
            }
            .map_err(|e| refused("io_uring_register (buffer ring)", &e))?;
        }
        if options.direct_max > 0 {
            ring.uring
                .submitter()
                .register_files_sparse(options.direct_max)
                .map_err(|e| refused("io_uring_register (direct descriptors)", &e))?;
        }
        Ok(ring)
    }

    /// Rings `bell` whenever there is something to enter for, while
    /// [`ring_bell`](Self::ring_bell) is on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register_bell(&mut self, bell: &impl AsFd) -> io::Result<()> {
        let fd = bell.as_fd().as_raw_fd();
        self.uring.submitter().register_eventfd(fd).map_err(|e| refused("io_uring_register (eventfd)", &e))
    }

    /// Turns the bell on or off. After turning it on, [`enter`](Self::enter) and look for completions
    /// before waiting for it: what came before it was on rang nothing.
    pub fn ring_bell(&mut self, on: bool) {
        let queue = self.uring.completion();
        if on {
            queue.enable_eventfd();
            fence(Ordering::SeqCst);
        } else {
            queue.disable_eventfd();
        }
    }

    /// Takes datagrams from a socket until a completion without `more`.
    ///
    /// # Errors
    /// The kernel's, when the submission queue was full and could not be emptied.
    pub fn receive_datagrams(
        &mut self,
        fd: BorrowedFd<'_>,
        socket: u8,
        with_control: bool,
    ) -> io::Result<()> {
        let header = &raw const self.headers[usize::from(with_control)];
        let entry = opcode::RecvMsgMulti::new(Fd(fd.as_raw_fd()), header, Group::Datagrams as u16)
            .flags(libc::MSG_TRUNC as u32)
            .build();
        self.push(entry, Token::Datagrams { socket })
    }

    /// Accepts connections into direct descriptors until a completion without `more`.
    ///
    /// # Errors
    /// As for [`receive_datagrams`](Self::receive_datagrams).
    pub fn accept(&mut self, fd: BorrowedFd<'_>, listener: u8) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(fd.as_raw_fd())).allocate_file_index(true).build();
        self.push(entry, Token::Accept { listener })
    }

    /// Takes a connection's bytes until a completion without `more`.
    ///
    /// # Errors
    /// As for [`receive_datagrams`](Self::receive_datagrams).
    pub fn receive(&mut self, target: Target<'_>, slot: u32, generation: u32) -> io::Result<()> {
        let group = Group::Streams as u16;
        let entry = match target {
            Target::Direct(index) => opcode::RecvMulti::new(Fixed(index), group).build(),
            Target::Plain(fd) => opcode::RecvMulti::new(Fd(fd.as_raw_fd()), group).build(),
        };
        self.push(entry, Token::Receive { slot, generation })
    }

    /// Sends `bytes[from..]`, or as much of it as the socket takes at a time. Once complete,
    /// [`take_sent`](Self::take_sent) gives the bytes back.
    ///
    /// # Errors
    /// As for [`receive_datagrams`](Self::receive_datagrams).
    ///
    /// # Panics
    /// When a send is under way on this slot already, or the slot is above `sends_max`.
    pub fn send(
        &mut self,
        target: Target<'_>,
        slot: u32,
        generation: u32,
        bytes: Vec<u8>,
        from: usize,
    ) -> io::Result<()> {
        assert!(matches!(self.sends[slot as usize], SendSlot::Free), "slot {slot} is sending already");
        let rest = bytes.get(from..).unwrap_or(&[]);
        let (start, len) = (rest.as_ptr(), u32::try_from(rest.len()).unwrap_or(u32::MAX));
        let entry = match target {
            Target::Direct(index) => {
                opcode::Send::new(Fixed(index), start, len).flags(libc::MSG_NOSIGNAL).build()
            }
            Target::Plain(fd) => {
                opcode::Send::new(Fd(fd.as_raw_fd()), start, len).flags(libc::MSG_NOSIGNAL).build()
            }
        };
        // The vector's bytes stay where they are when it moves, and it stays here until it is sent.
        self.sends[slot as usize] = SendSlot::UnderWay(bytes);
        self.sends_under_way += 1;
        self.push(entry, Token::Send { slot, generation })
    }

    /// The bytes of a send that is over, once.
    pub fn take_sent(&mut self, slot: u32) -> Option<Vec<u8>> {
        let state = self.sends.get_mut(slot as usize)?;
        match std::mem::replace(state, SendSlot::Free) {
            SendSlot::Over(bytes) => Some(bytes),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Sends what a batch holds as entries of this ring and enters once. Returns how many went; those
    /// that fail complete with [`Token::DatagramSend`], the others do not complete.
    ///
    /// # Errors
    /// The kernel's; the ring is of no use then.
    pub fn send_batch(&mut self, fd: BorrowedFd<'_>, socket: u8, batch: &mut SendBatch) -> io::Result<usize> {
        let mut count = 0;
        for header in batch.point_headers() {
            let entry = opcode::SendMsg::new(Fd(fd.as_raw_fd()), &raw const header.msg_hdr)
                .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS);
            if let Err(e) = self.push(entry, Token::DatagramSend { socket }) {
                self.poisoned = true;
                return Err(e);
            }
            count += 1;
        }
        // `MSG_DONTWAIT`: an entry is over, well or not, when the enter that submits it returns, so
        // nothing points at the batch any more once the queue is empty.
        // Without `GETEVENTS`, so that sending does not receive more than is asked for.
        while !self.uring.submission().is_empty() {
            if let Err(e) = self.enter_with(EnterFlags::empty(), 0) {
                self.poisoned = true;
                return Err(e);
            }
        }
        batch.clear();
        Ok(count)
    }

    /// Closes a direct descriptor. Its number may be accepted into again from then on.
    ///
    /// # Errors
    /// As for [`receive_datagrams`](Self::receive_datagrams).
    pub fn close_direct(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::Close::new(Fixed(slot)).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry, Token::Close { slot })
    }

    /// Ends another operation early; it completes with `ECANCELED` if it was still under way.
    ///
    /// # Errors
    /// As for [`receive_datagrams`](Self::receive_datagrams).
    pub fn cancel(&mut self, operation: Token) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(operation.encode()).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry, Token::Cancel)
    }

    /// Starts the one timer, or moves it if it runs. At `at` nanoseconds of `CLOCK_MONOTONIC` it
    /// completes with [`Token::Deadline`].
    ///
    /// # Errors
    /// As for [`receive_datagrams`](Self::receive_datagrams).
    pub fn set_deadline(&mut self, at: u64, running: bool) -> io::Result<()> {
        let nanos = u32::try_from(at % 1_000_000_000).unwrap_or(0);
        *self.deadline = Timespec::new().sec(at / 1_000_000_000).nsec(nanos);
        let at: *const Timespec = &raw const *self.deadline;
        if running {
            let entry = opcode::TimeoutUpdate::new(Token::Deadline.encode(), at).flags(TimeoutFlags::ABS);
            let entry = entry.build().flags(squeue::Flags::SKIP_SUCCESS);
            self.push(entry, Token::DeadlineUpdate)
        } else {
            let entry = opcode::Timeout::new(at).flags(TimeoutFlags::ABS).build();
            self.push(entry, Token::Deadline)
        }
    }

    /// Whether [`enter`](Self::enter) would do anything.
    pub fn wants_enter(&mut self) -> bool {
        let queue = self.uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel holds back completions until the next [`enter`](Self::enter).
    pub fn has_more(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Hands all pushed operations to the kernel and lets it finish what it can, without waiting.
    ///
    /// # Errors
    /// The kernel's. Not being able just now is none: the next enter tries again.
    pub fn enter(&mut self) -> io::Result<()> {
        self.enter_with(EnterFlags::GETEVENTS, 0)
    }

    /// As [`enter`](Self::enter), and waits until there is at least one completion to take.
    ///
    /// # Errors
    /// The kernel's. A signal may end the wait early and is none.
    pub fn enter_and_wait(&mut self) -> io::Result<()> {
        self.enter_with(EnterFlags::GETEVENTS, 1)
    }

    fn enter_with(&mut self, flags: EnterFlags, completions_least: u32) -> io::Result<()> {
        if self.poisoned {
            return Err(io::Error::other("this ring has failed before"));
        }
        let waiting = u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX);
        // SAFETY: no argument is passed. The entries were made by this type, whose fields own what
        // they point at until they complete (`send_batch` sees to its own).
        match unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(waiting, completions_least, flags.bits(), None)
        } {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => Ok(()),
            Err(e) => Err(refused("io_uring_enter", &e)),
        }
    }

    /// Whether completions are waiting to be taken.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Takes the oldest completion.
    pub fn pop(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        let flags = entry.flags();
        // Only `push` makes operations, and it takes tokens.
        let token = Token::decode(entry.user_data()).expect("every operation was pushed with a token");
        let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
        let more = cqueue::more(flags);
        let buffer = cqueue::buffer_select(flags);
        if let Some(buffer) = buffer {
            let len = result.unwrap_or(0);
            match token {
                Token::Datagrams { .. } => self.datagrams.lend(buffer, len),
                _ => self.streams.lend(buffer, len),
            }
        }
        if let Token::Send { slot, .. } = token {
            let state = &mut self.sends[slot as usize];
            if let SendSlot::UnderWay(bytes) = state {
                *state = SendSlot::Over(std::mem::take(bytes));
                self.sends_under_way -= 1;
            }
        }
        Some(Completion { token, result, more, buffer })
    }

    /// The filled part of a lent buffer.
    ///
    /// # Panics
    /// When the buffer is not lent.
    #[must_use]
    pub fn bytes(&self, group: Group, buffer: u16) -> &[u8] {
        self.group(group).bytes(buffer)
    }

    /// Gives a lent buffer back to the kernel.
    ///
    /// # Panics
    /// When the buffer is not lent.
    pub fn give_back(&mut self, group: Group, buffer: u16) {
        match group {
            Group::Datagrams => self.datagrams.give_back(buffer),
            Group::Streams => self.streams.give_back(buffer),
        }
    }

    /// How many buffers of a group are lent.
    #[must_use]
    pub fn lent(&self, group: Group) -> usize {
        self.group(group).lent()
    }

    fn group(&self, group: Group) -> &BufferRing {
        match group {
            Group::Datagrams => &self.datagrams,
            Group::Streams => &self.streams,
        }
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) -> io::Result<()> {
        let entry = entry.user_data(token.encode());
        loop {
            // SAFETY: whatever the entry points at is owned by this ring until the operation is over
            // (headers, deadline, bytes of a send), or outlived as `send_batch` explains.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter()?;
        }
    }
}

fn header(control_len: usize) -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: control_len,
        msg_flags: 0,
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing the ring ends its operations, but a little later. End them now, so that nothing
        // touches the buffers once they are freed.
        let _submitted = self.enter();
        let timeout = Timespec::new().sec(1);
        let cancelled = self.uring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        for _ in 0..64 {
            if self.poisoned || self.enter().is_err() {
                break;
            }
            while self.pop().is_some() {}
            if !self.has_more() {
                break;
            }
        }
        let none_left = !matches!(&cancelled, Err(e) if e.raw_os_error() != Some(libc::ENOENT));
        if self.sends_under_way > 0 || !none_left {
            // The kernel may still read from or write to these. Better lost than freed.
            for send in &mut self.sends {
                std::mem::forget(std::mem::replace(send, SendSlot::Free));
            }
            self.datagrams.leak();
            self.streams.leak();
        }
    }
}

#[cfg(test)]
mod tests;
