//! A shard's stream connections: HTTP peers it has accepted and guests it was handed.
//!
//! ```text
//!   Received ─► input (only what is left over) ─► serve ─► out ─► send_tcp ─► Sent ─┐
//!                    ▲                                                             │
//!                    └── while an answer is on its way or a request waits, ────────┘
//!                        nothing is served: the peer waits, its bytes stay here
//! ```

use super::guest::Guest;
use crate::engine::{ConnId, Engine};
use crate::time::MonoNs;

/// Bytes of unserved input a connection may pile up before the peer is made to wait.
pub(super) const INPUT_HIGH: usize = 64 << 10;

/// Bytes of answers gathered before they are sent and serving pauses.
pub(super) const OUT_HIGH: usize = 64 << 10;

/// Bytes that wait behind a guest's send. Beyond it the other side evidently does not read: a feed
/// sends a few kilobytes in all, and only a flood of pings makes more.
pub(super) const GUEST_PENDING_MAX: usize = 256 << 10;

/// Bytes of a refused connection's input that are swallowed so that the refusal arrives before the
/// connection is reset.
pub(super) const LINGER_BYTES: usize = 1 << 20;

/// How long a refused connection is kept to let the refusal arrive.
pub(super) const LINGER_NS: u64 = 2_000_000_000;

/// Vectors kept for the next answer.
const POOL_LEN: usize = 256;

/// One connection.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) role: Role,
    /// A send is under way.
    pub(super) sending: bool,
    /// How much of it the kernel has taken.
    pub(super) sent: usize,
    /// What is to be sent after it.
    pub(super) pending: Vec<u8>,
    /// Armed for receiving.
    pub(super) receiving: bool,
    /// The peer has sent its last byte.
    pub(super) peer_done: bool,
    /// A guest has said goodbye: closed once that is sent.
    pub(super) goodbye: bool,
}

pub(super) enum Role {
    Http(Http),
    Guest(Box<dyn Guest>),
}

/// What is known of an HTTP connection.
#[derive(Debug)]
pub(super) struct Http {
    /// Bytes not served yet.
    pub(super) input: Vec<u8>,
    /// Bytes of a body still to be skipped.
    pub(super) skip: usize,
    /// A request at the beginning of `input` waits for a price.
    pub(super) waiting: bool,
    /// Since when there is neither input nor an answer under way.
    pub(super) idle_since: MonoNs,
    /// Since when a head has been incomplete.
    pub(super) head_since: Option<MonoNs>,
    /// Nothing more is served; closed once all is sent.
    pub(super) closing: bool,
    /// Swallowing what still comes, until then or so many bytes.
    pub(super) linger: Option<(MonoNs, usize)>,
}

/// The table of connections, by slot.
#[derive(Default)]
pub(super) struct Conns {
    slots: Vec<Option<Conn>>,
    open: usize,
    /// Guests, also some that are gone.
    guests: Vec<ConnId>,
    pool: Vec<Vec<u8>>,
}

impl Conns {
    pub(super) fn insert(&mut self, id: ConnId, role: Role) {
        let slot = id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        let conn = Conn {
            id,
            role,
            sending: false,
            sent: 0,
            pending: Vec::new(),
            receiving: true,
            peer_done: false,
            goodbye: false,
        };
        if matches!(conn.role, Role::Guest(_)) {
            self.guests.push(id);
        }
        self.open += usize::from(self.slots[slot].is_none());
        self.slots[slot] = Some(conn);
    }

    /// Takes a connection out of the table, to work on it while the table is needed too.
    pub(super) fn take(&mut self, id: ConnId) -> Option<Conn> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let conn = slot.take_if(|conn| conn.id == id)?;
        self.open -= 1;
        Some(conn)
    }

    /// Puts it back.
    pub(super) fn put(&mut self, conn: Conn) {
        let slot = conn.id.slot as usize;
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(conn);
            self.open += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.slots.iter_mut().filter_map(Option::as_mut)
    }

    /// Appends the guests whose deadline has come.
    pub(super) fn guests_due(&mut self, now: MonoNs, into: &mut Vec<ConnId>) {
        let slots = &self.slots;
        let open =
            |id: &ConnId| slots.get(id.slot as usize).and_then(Option::as_ref).filter(|conn| conn.id == *id);
        self.guests.retain(|id| open(id).is_some());
        let due = |id: &&ConnId| {
            open(id).is_some_and(|conn| matches!(&conn.role, Role::Guest(g) if g.deadline() <= now))
        };
        into.extend(self.guests.iter().filter(due));
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.slots.iter().flatten().map(|conn| conn.id).collect()
    }

    /// An empty vector with room in it.
    pub(super) fn vector(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// Gives a vector back.
    pub(super) fn recycle(&mut self, mut vector: Vec<u8>) {
        if self.pool.len() < POOL_LEN && vector.capacity() > 0 && vector.capacity() <= 2 * OUT_HIGH {
            vector.clear();
            self.pool.push(vector);
        }
    }

    /// Sends `bytes` on a connection, behind what is under way.
    pub(super) fn send<E: Engine>(&mut self, engine: &mut E, conn: &mut Conn, bytes: Vec<u8>) {
        if bytes.is_empty() {
            self.recycle(bytes);
        } else if conn.sending {
            if conn.pending.is_empty() {
                self.recycle(std::mem::replace(&mut conn.pending, bytes));
            } else {
                conn.pending.extend_from_slice(&bytes);
                self.recycle(bytes);
            }
        } else {
            conn.sending = true;
            conn.sent = 0;
            engine.send_tcp(conn.id, bytes, 0);
        }
    }
}
