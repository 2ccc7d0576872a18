//! Guests: stream connections that were opened elsewhere and live on a shard, such as feeds.

use std::os::fd::OwnedFd;

use super::links::Publisher;
use crate::engine::Ended;
use crate::time::{MonoNs, Now};

/// Whether a guest wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Yes.
    Open,
    /// Its connection is to be closed; it is told nothing more.
    Close,
}

/// A connection's owner on a shard. It gets bytes and time and leaves bytes to be sent in `out`.
pub trait Guest: Send {
    /// Its connection is on the shard now.
    fn start(&mut self, now: Now, out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep;

    /// Bytes came.
    fn receive(&mut self, now: Now, bytes: &[u8], out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep;

    /// When it wants [`tick`](Self::tick) at the latest.
    fn deadline(&self) -> MonoNs;

    /// Its deadline has come.
    fn tick(&mut self, now: Now, out: &mut Vec<u8>, publisher: &mut Publisher) -> Keep;

    /// The connection ended, from the other side or by an error; nothing more can be sent.
    fn ended(&mut self, now: Now, cause: Ended, publisher: &mut Publisher);

    /// The shard is leaving: say goodbye into `out`; the connection is closed after it.
    fn stop(&mut self, now: Now, out: &mut Vec<u8>, publisher: &mut Publisher);
}

/// A guest with its connected, non-blocking socket, on the way to a shard.
pub struct Arrival {
    /// The socket.
    pub socket: OwnedFd,
    /// Its owner.
    pub guest: Box<dyn Guest>,
}
