//! Restarting without loss: a new process takes the sockets of the old one over.
//!
//! ```text
//!  old                                              new (started by the old one, a socket as its stdin)
//!   │  offer: how many sockets, fresh assets         │
//!   ├──────────────── + the sockets ────────────────►│ other shards, other ports … ─► refused: why
//!   │ answers                                        │ shards are held: feeds come up, boards fill
//!   │◄──────────────────────── warm ─────────────────┤ as many assets fresh as in the old one
//!   │  for each shard                                │
//!   ├──────────────────────── open n ───────────────►│ shard n takes datagrams and connections
//!   │◄─────────────────────── opened n ──────────────┤
//!   │ drains shard n: no more of either              │
//!   ├──────────────────────── done ─────────────────►│ health ports too
//!   │ connections get their last answer              │ takes in the old one's journal
//!   └─ gone                                          │
//! ```
//!
//! The sockets are the same ones in both processes: what waits in them is read by whoever reads. At any
//! moment until `done` the old process can take back what it gave, so a new one that fails costs nothing.

mod new;
mod old;

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

pub use new::Predecessor;
pub(super) use new::{Inherited, Warmth};
pub use old::{Handover, Successor};
pub(super) use old::{ShardSockets, Talk};

/// Names the old process to the new one.
pub(super) const HANDED_BY: &str = "HANDED_OVER_BY";

/// Longest line between the two, in bytes.
const LINE_MAX: usize = 16 << 10;

/// What the two say to each other, a line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// From the old one: a message of descriptors follows for each shard, and one for all others.
    Offer {
        /// UDP sockets and listeners of each shard, in the order they are sent.
        shards: Vec<(usize, usize)>,
        /// Assets that are fresh on every shard.
        fresh: u64,
    },
    /// The new one has prices.
    Warm,
    /// It cannot take over.
    Refused { why: String },
    /// The shard of this number is to take requests.
    Open(usize),
    /// It does.
    Opened(usize),
    /// All is handed over.
    Done,
    /// The old one goes on.
    Abort,
}

fn say(to: &mut UnixStream, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line and not a byte more: descriptors may lie behind it.
fn hear(from: &mut UnixStream) -> io::Result<Message> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        if byte == [b'\n'] {
            return Ok(serde_json::from_slice(&line)?);
        }
        line.extend_from_slice(&byte);
        if line.len() > LINE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line too long for a hand-over"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_one_by_one() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let offer = Message::Offer { shards: vec![(2, 2), (1, 0)], fresh: 150 };
        for message in [offer, Message::Refused { why: "\"no\"\n".into() }, Message::Open(3), Message::Done] {
            say(&mut here, &message).unwrap();
            assert_eq!(hear(&mut there).unwrap(), message);
        }
        here.write_all(b"nonsense\n").unwrap();
        assert!(hear(&mut there).is_err());
        here.write_all(&[b'x'; LINE_MAX + 1]).unwrap();
        assert!(hear(&mut there).is_err());
        drop(here);
        assert_eq!(hear(&mut there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
