//! What the loop does with stream connections.

use std::io;

use super::answer::{Attempt, HttpVerdict};
use super::conns::{Conn, GUEST_PENDING_MAX, Http, INPUT_HIGH, LINGER_BYTES, LINGER_NS, OUT_HIGH, Role};
use super::counters::Counter;
use super::guest::{Arrival, Keep};
use super::run::{Rearm, Shard, out_of_room};
use super::waiting::Who;
use crate::engine::{BufferId, ConnId, Ended, Engine, ListenerIndex};
use crate::http::head::{self, Head};
use crate::http::respond::Connection;
use crate::price::ListingId;
use crate::time::{MonoNs, Now};

/// How often connections are looked at for time-outs.
const SWEEP_NS: u64 = 1_000_000_000;

/// How serving some input ended.
enum Served {
    /// All complete requests are answered; the rest is the beginning of one.
    NeedsMore,
    /// The next request waits for this listing.
    Waits {
        listing: ListingId,
        /// It has waited before: its deadline stands.
        again: bool,
    },
    /// Enough answers for one send; there may be more requests.
    Enough,
    /// The last answer of the connection is written.
    Closes {
        /// Because of what the peer sent, not because it asked to.
        refused: bool,
    },
}

impl Shard {
    pub(super) fn accepted<E: Engine>(&mut self, engine: &mut E, now: Now, _: ListenerIndex, id: ConnId) {
        self.answerer.counters.add(Counter::ConnectionAccepted, 1);
        if self.leaving.is_some() {
            // Taken by the kernel before it heard that nothing more is wanted.
            engine.close(id);
            self.answerer.counters.add(Counter::ConnectionClosed, 1);
            return;
        }
        let http = Http {
            input: Vec::new(),
            skip: 0,
            waiting: false,
            idle_since: now.mono,
            head_since: None,
            closing: false,
            linger: None,
        };
        self.conns.insert(id, Role::Http(http));
        engine.arm_receive(id);
    }

    /// A listener is not armed any more.
    pub(super) fn accept_ended(&mut self, listener: ListenerIndex, ended: Ended) {
        if ended == Ended::Full {
            // Armed again at once, so that the next one too is told at once, and may try another shard.
            self.answerer.counters.add(Counter::ConnectionRefused, 1);
            self.rearm.push(Rearm::Accept(listener));
            return;
        }
        self.count_ended(ended);
        if out_of_room(ended) {
            // Asked again by the next sweep: at once it would end at once, and the loop spin.
            self.refused_accepts.push(listener);
        } else {
            self.rearm.push(Rearm::Accept(listener));
        }
    }

    /// Arms a listener again, unless the shard is leaving.
    pub(super) fn rearm_accept<E: Engine>(&mut self, engine: &mut E, listener: ListenerIndex) {
        if !self.parts() {
            engine.arm_accept(listener);
        }
    }

    pub(super) fn received<E: Engine>(&mut self, engine: &mut E, now: Now, id: ConnId, buffer: BufferId) {
        let Some(mut conn) = self.conns.take(id) else {
            engine.release(buffer);
            return;
        };
        if matches!(conn.role, Role::Guest(_)) {
            let mut out = self.conns.vector();
            let Role::Guest(guest) = &mut conn.role else { return };
            let keep = guest.receive(now, engine.bytes(&buffer), &mut out, &mut self.publisher);
            engine.release(buffer);
            self.after_guest(engine, now, conn, out, keep);
            return;
        }
        let Role::Http(http) = &mut conn.role else { return };
        let bytes = engine.bytes(&buffer);
        if let Some((_, swallowed)) = &mut http.linger {
            *swallowed += bytes.len();
            engine.release(buffer);
            self.conns.put(conn);
            return;
        }
        if http.closing {
            engine.release(buffer);
            self.conns.put(conn);
            return;
        }
        if conn.sending || http.waiting {
            if http.input.capacity() == 0 {
                http.input = self.conns.vector();
            }
            http.input.extend_from_slice(bytes);
            if http.input.len() > INPUT_HIGH && conn.receiving {
                conn.receiving = false;
                engine.disarm_receive(id);
            }
            engine.release(buffer);
            self.conns.put(conn);
            return;
        }
        let mut out = self.conns.vector();
        let served = if http.input.is_empty() {
            // The common case: whole requests, served where they lie.
            let (consumed, served) = self.serve(http, now, bytes, &mut out, OUT_HIGH, Attempt::First);
            let rest = bytes.get(consumed..).unwrap_or_default();
            if !rest.is_empty() {
                if http.input.capacity() == 0 {
                    http.input = self.conns.vector();
                }
                http.input.extend_from_slice(rest);
            }
            served
        } else {
            http.input.extend_from_slice(bytes);
            self.serve_input(http, now, &mut out, OUT_HIGH, Attempt::First)
        };
        engine.release(buffer);
        self.after_serving(engine, now, conn, out, served, None);
    }

    /// Serves what lies in the connection's input.
    fn serve_input(
        &mut self,
        http: &mut Http,
        now: Now,
        out: &mut Vec<u8>,
        out_high: usize,
        attempt: Attempt,
    ) -> Served {
        let mut input = std::mem::take(&mut http.input);
        let (consumed, served) = self.serve(http, now, &input, out, out_high, attempt);
        if consumed == input.len() {
            self.conns.recycle(input);
        } else {
            input.drain(..consumed);
            http.input = input;
        }
        served
    }

    /// Serves whole requests at the beginning of `bytes` until there are `out_high` bytes of answers;
    /// returns how many bytes they were.
    fn serve(
        &mut self,
        http: &mut Http,
        now: Now,
        bytes: &[u8],
        out: &mut Vec<u8>,
        out_high: usize,
        mut attempt: Attempt,
    ) -> (usize, Served) {
        let mut at = 0;
        loop {
            let skipped = http.skip.min(bytes.len() - at);
            at += skipped;
            http.skip -= skipped;
            let rest = &bytes[at..];
            if rest.is_empty() {
                // A leaving shard answers all that has come, and then closes.
                let last = self.parts() && http.skip == 0;
                return (at, if last { Served::Closes { refused: false } } else { Served::NeedsMore });
            }
            if out.len() >= out_high {
                return (at, Served::Enough);
            }
            match head::parse(rest) {
                Head::Incomplete => return (at, Served::NeedsMore),
                Head::Reject(reject) => {
                    self.answerer.http_reject(reject, out);
                    return (bytes.len(), Served::Closes { refused: true });
                }
                Head::Complete { mut request, consumed } => {
                    // The last of those that have come, when the shard parts from its peers: nothing
                    // follows it, and its body, if any, is here.
                    if self.parts() && rest.len() == consumed.saturating_add(request.body_len) {
                        request.connection = Connection::Close;
                    }
                    if let HttpVerdict::Wait(listing) = self.answerer.http(now, &request, out, attempt) {
                        if self.waiting.has_room() {
                            return (at, Served::Waits { listing, again: attempt != Attempt::First });
                        }
                        self.answerer.http_no_room(now, &request, out);
                    }
                    attempt = Attempt::First;
                    at += consumed;
                    http.head_since = None;
                    http.skip = request.body_len;
                    if request.connection == Connection::Close {
                        return (bytes.len(), Served::Closes { refused: false });
                    }
                }
            }
        }
    }

    fn after_serving<E: Engine>(
        &mut self,
        engine: &mut E,
        now: Now,
        mut conn: Conn,
        out: Vec<u8>,
        served: Served,
        deadline: Option<MonoNs>,
    ) {
        let Role::Http(http) = &mut conn.role else { return };
        http.idle_since = now.mono;
        http.head_since = match served {
            // A request that was whole since then is progress: this head has only begun.
            Served::NeedsMore if !out.is_empty() => {
                (!http.input.is_empty() || http.skip > 0).then_some(now.mono)
            }
            Served::NeedsMore if !http.input.is_empty() || http.skip > 0 => {
                http.head_since.or(Some(now.mono))
            }
            _ => None,
        };
        match served {
            Served::NeedsMore | Served::Enough => {}
            Served::Waits { listing, again } => {
                http.waiting = true;
                let fresh = now.mono.plus(self.options.rest_deadline);
                let deadline = deadline.filter(|_| again).unwrap_or(fresh);
                // `serve` has asked for room and nothing was added since.
                self.wait(listing, deadline, Who::Conn(conn.id));
            }
            Served::Closes { refused } => {
                http.closing = true;
                if refused {
                    http.linger = Some((MonoNs(now.mono.0.saturating_add(LINGER_NS)), 0));
                }
            }
        }
        self.conns.send(engine, &mut conn, out);
        self.settle(engine, now, conn);
    }

    /// Puts a connection back, or closes it when all is done.
    fn settle<E: Engine>(&mut self, engine: &mut E, now: Now, mut conn: Conn) {
        let over = match &conn.role {
            Role::Guest(_) => conn.goodbye && !conn.sending,
            Role::Http(http) => {
                let lingers = http.linger.is_some_and(|(until, bytes)| {
                    now.mono < until && bytes < LINGER_BYTES && !conn.peer_done
                });
                !conn.sending && !http.waiting && !lingers && (http.closing || conn.peer_done)
            }
        };
        if over {
            self.close(engine, conn);
            return;
        }
        if !conn.receiving && !conn.peer_done && !conn.sending {
            conn.receiving = true;
            engine.arm_receive(conn.id);
        }
        self.conns.put(conn);
    }

    pub(super) fn close<E: Engine>(&mut self, engine: &mut E, conn: Conn) {
        engine.close(conn.id);
        if let Role::Http(http) = conn.role {
            self.answerer.counters.add(Counter::ConnectionClosed, 1);
            if http.waiting && self.waiting.forget(conn.id) {
                self.answerer.counters.add(Counter::HttpAbandoned, 1);
            }
            self.conns.recycle(http.input);
        }
        self.conns.recycle(conn.pending);
    }

    pub(super) fn wake_conn<E: Engine>(
        &mut self,
        engine: &mut E,
        now: Now,
        id: ConnId,
        attempt: Attempt,
        deadline: MonoNs,
    ) {
        let Some(mut conn) = self.conns.take(id) else { return };
        let Role::Http(http) = &mut conn.role else { return };
        http.waiting = false;
        let mut out = self.conns.vector();
        // While an earlier answer is on its way only the request that has waited is answered, or a peer
        // that never reads could pile up answers by one wait after another.
        let out_high = if conn.sending { 1 } else { OUT_HIGH };
        let served = self.serve_input(http, now, &mut out, out_high, attempt);
        self.after_serving(engine, now, conn, out, served, Some(deadline));
    }

    pub(super) fn sent<E: Engine>(
        &mut self,
        engine: &mut E,
        now: Now,
        id: ConnId,
        bytes: Vec<u8>,
        result: io::Result<usize>,
    ) {
        let Some(mut conn) = self.conns.take(id) else {
            self.conns.recycle(bytes);
            return;
        };
        let Ok(taken) = result else {
            self.conns.recycle(bytes);
            if let Role::Guest(guest) = &mut conn.role {
                let code = result.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
                guest.ended(now, Ended::Error(code), &mut self.publisher);
            }
            self.close(engine, conn);
            return;
        };
        conn.sent += taken;
        if conn.sent < bytes.len() {
            self.answerer.counters.add(Counter::SendShort, 1);
            engine.send_tcp(id, bytes, conn.sent);
            if let Role::Http(http) = &mut conn.role {
                // Whoever reads, if slowly, is not idle.
                http.idle_since = now.mono;
            }
            self.conns.put(conn);
            return;
        }
        conn.sending = false;
        self.conns.recycle(bytes);
        if !conn.pending.is_empty() {
            let pending = std::mem::take(&mut conn.pending);
            self.conns.send(engine, &mut conn, pending);
        }
        if let Role::Http(http) = &mut conn.role {
            http.idle_since = now.mono;
            if !conn.sending && !http.waiting && !http.closing && !http.input.is_empty() {
                let mut out = self.conns.vector();
                let served = self.serve_input(http, now, &mut out, OUT_HIGH, Attempt::First);
                self.after_serving(engine, now, conn, out, served, None);
                return;
            }
        }
        self.settle(engine, now, conn);
    }

    pub(super) fn receive_ended<E: Engine>(&mut self, engine: &mut E, now: Now, id: ConnId, ended: Ended) {
        let Some(mut conn) = self.conns.take(id) else { return };
        match ended {
            Ended::NoBuffers | Ended::Quiet => {
                // Whatever ended it, a peer that is made to wait goes on waiting.
                if conn.receiving {
                    self.count_ended(ended);
                    self.rearm.push(Rearm::Receive(id));
                }
                self.conns.put(conn);
            }
            // Full is said of listeners only.
            Ended::Full => self.conns.put(conn),
            Ended::Closed | Ended::Error(_) => {
                conn.peer_done = true;
                conn.receiving = false;
                if let Role::Guest(guest) = &mut conn.role {
                    guest.ended(now, ended, &mut self.publisher);
                    self.close(engine, conn);
                } else if matches!(ended, Ended::Error(_)) {
                    self.close(engine, conn);
                } else {
                    // Half closed: what was asked is still answered.
                    self.settle(engine, now, conn);
                }
            }
        }
    }

    pub(super) fn welcome<E: Engine>(&mut self, engine: &mut E, now: Now, arrival: Arrival) {
        let mut guest = arrival.guest;
        if self.leaving.is_some() {
            // Whoever dialled did not know yet; nothing was agreed that needs a goodbye.
            let mut unsent = self.conns.vector();
            guest.stop(now, &mut unsent, &mut self.publisher);
            return self.conns.recycle(unsent);
        }
        let id = match engine.adopt(arrival.socket) {
            Ok(id) => id,
            Err(e) => {
                self.answerer.counters.add(Counter::ConnectionRefused, 1);
                guest.ended(now, Ended::Error(e.raw_os_error().unwrap_or(0)), &mut self.publisher);
                return;
            }
        };
        let mut out = self.conns.vector();
        let keep = guest.start(now, &mut out, &mut self.publisher);
        self.conns.insert(id, Role::Guest(guest));
        engine.arm_receive(id);
        if let Some(conn) = self.conns.take(id) {
            self.after_guest(engine, now, conn, out, keep);
        }
    }

    fn after_guest<E: Engine>(&mut self, engine: &mut E, now: Now, mut conn: Conn, out: Vec<u8>, keep: Keep) {
        self.conns.send(engine, &mut conn, out);
        match (keep, &mut conn.role) {
            (Keep::Open, Role::Guest(guest)) if conn.pending.len() > GUEST_PENDING_MAX => {
                guest.ended(now, Ended::Error(libc::ETIMEDOUT), &mut self.publisher);
                self.close(engine, conn);
            }
            (Keep::Open, _) => self.conns.put(conn),
            (Keep::Close, _) => self.close(engine, conn),
        }
    }

    pub(super) fn tick_guests<E: Engine>(&mut self, engine: &mut E, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        self.conns.guests_due(now.mono, &mut due);
        for id in due.drain(..) {
            let Some(mut conn) = self.conns.take(id) else { continue };
            let mut out = self.conns.vector();
            let Role::Guest(guest) = &mut conn.role else { continue };
            let keep = guest.tick(now, &mut out, &mut self.publisher);
            self.after_guest(engine, now, conn, out, keep);
        }
        self.due = due;
    }

    /// Closes connections that have been silent too long, once a second.
    pub(super) fn sweep<E: Engine>(&mut self, engine: &mut E, now: Now) {
        if now.mono < self.sweep_at {
            return;
        }
        self.sweep_at = MonoNs(now.mono.0.saturating_add(SWEEP_NS));
        while let Some(listener) = self.refused_accepts.pop() {
            self.rearm_accept(engine, listener);
        }
        let (idle, head) = (self.options.http_idle, self.options.http_head);
        let over = |conn: &&mut Conn| match &conn.role {
            Role::Guest(_) => false,
            Role::Http(http) if http.waiting => false,
            Role::Http(http) => {
                // What came while an answer is on its way was not looked at: it may be a whole head.
                let looked_at = http.head_since.filter(|_| !conn.sending);
                let slow_head = looked_at.is_some_and(|since| now.mono.since(since) >= head);
                let lingered = http.linger.is_some_and(|(until, n)| now.mono >= until || n >= LINGER_BYTES);
                // A refusal, and what was answered before it, is not cut off while it is on its way.
                slow_head || (lingered && !conn.sending) || now.mono.since(http.idle_since) >= idle
            }
        };
        let mut due = std::mem::take(&mut self.due);
        due.extend(self.conns.iter_mut().filter(over).map(|conn| conn.id));
        for id in due.drain(..) {
            if let Some(conn) = self.conns.take(id) {
                self.close(engine, conn);
            }
        }
        self.due = due;
    }

    /// The shard is leaving: guests say goodbye, idle peers are closed, the others after their
    /// answer.
    pub(super) fn dismiss<E: Engine>(&mut self, engine: &mut E, now: Now) {
        for id in self.conns.ids() {
            let Some(mut conn) = self.conns.take(id) else { continue };
            match &mut conn.role {
                Role::Guest(guest) => {
                    let mut out = self.conns.vector();
                    guest.stop(now, &mut out, &mut self.publisher);
                    conn.goodbye = true;
                    self.conns.send(engine, &mut conn, out);
                    self.settle(engine, now, conn);
                }
                Role::Http(http) => {
                    http.closing |= !http.waiting && http.input.is_empty();
                    self.settle(engine, now, conn);
                }
            }
        }
    }
}
