//! One kept-alive connection.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::sys::net::connect_tcp;
use crate::time::MonoNs;

pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) state: State,
    /// Requests under way, oldest first.
    pub(super) asked: VecDeque<Asked>,
    /// Bytes of an answer that has not come whole.
    pub(super) input: Vec<u8>,
    /// What the socket had no room for.
    pub(super) output: Vec<u8>,
    /// Requests it may have under way.
    pub(super) depth: usize,
    /// Whether it stands in the list of those with room.
    pub(super) listed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Open,
    /// Not to be tried again before this instant.
    Closed(MonoNs),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When it left, or should have.
    pub(super) from: MonoNs,
    /// When it left.
    pub(super) sent: MonoNs,
    /// Which one it is.
    pub(super) exchange: usize,
    /// Whether it has been given up.
    pub(super) overdue: bool,
}

impl Peer {
    /// Begins to connect; readiness is told under `index`.
    pub(super) fn connect(
        server: SocketAddr,
        source: Option<IpAddr>,
        epoll: &Epoll,
        index: usize,
    ) -> io::Result<Self> {
        let stream = connect_tcp(server, source)?;
        stream.set_nodelay(true)?;
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        epoll.add(&stream, EpollEvent::new(wanted, index as u64))?;
        Ok(Self {
            stream,
            state: State::Connecting,
            asked: VecDeque::new(),
            input: Vec::new(),
            output: Vec::new(),
            depth: 1,
            listed: false,
        })
    }

    /// How many more requests it takes now.
    pub(super) fn room(&self) -> usize {
        match self.state {
            State::Open if self.output.is_empty() => self.depth.saturating_sub(self.asked.len()),
            _ => 0,
        }
    }

    /// The kernel has connected it, or tells why not.
    pub(super) fn connected(&mut self, epoll: &Epoll, index: usize) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        self.state = State::Open;
        self.watch(epoll, index, EpollFlags::EPOLLIN)
    }

    /// Writes what it can and keeps the rest.
    pub(super) fn write(&mut self, bytes: &[u8], epoll: &Epoll, index: usize) -> io::Result<()> {
        let gone = self.write_some(bytes)?;
        if gone < bytes.len() {
            self.output.extend_from_slice(&bytes[gone..]);
            self.watch(epoll, index, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
        }
        Ok(())
    }

    /// Writes what was kept.
    pub(super) fn flush(&mut self, epoll: &Epoll, index: usize) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let gone = self.write_some(&output)?;
        if gone < output.len() {
            self.output = output[gone..].to_vec();
            return Ok(());
        }
        self.watch(epoll, index, EpollFlags::EPOLLIN)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    fn watch(&self, epoll: &Epoll, index: usize, wanted: EpollFlags) -> io::Result<()> {
        Ok(epoll.modify(&self.stream, &mut EpollEvent::new(wanted, index as u64))?)
    }
}
