//! Beginning and ending to take requests: at the start, when another process takes over, and when the
//! shard leaves.
//!
//! ```text
//!   held ──Open──► open ──Drain──► draining ──Stop──► leaving ──► gone
//!                   ▲                 │
//!                   └──────Open───────┘
//! ```

use super::answer::Attempt;
use super::counters::Counter;
use super::run::{Rearm, Shard};
use crate::engine::{Ended, Engine, ListenerIndex, UdpIndex};
use crate::time::{MonoNs, Now};

impl Shard {
    /// Arms all sockets, unless it is held.
    pub(super) fn start<E: Engine>(&mut self, engine: &mut E) {
        self.udp_armed = vec![false; usize::from(self.options.udp)];
        if std::mem::take(&mut self.open) {
            self.open(engine);
        }
    }

    /// Takes datagrams and connections from now on.
    pub(super) fn open<E: Engine>(&mut self, engine: &mut E) {
        if self.open || self.leaving.is_some() {
            return;
        }
        self.open = true;
        for index in 0..self.options.udp {
            // One that is still ending is armed again when that is told.
            if !self.udp_armed[usize::from(index)] {
                self.arm_udp(engine, UdpIndex(index));
            }
        }
        for index in 0..self.options.tcp {
            engine.arm_accept(ListenerIndex(index));
        }
    }

    /// Takes no more of either. What it has taken is answered; connections that are open get one more
    /// answer, which says that it is the last one.
    pub(super) fn drain<E: Engine>(&mut self, engine: &mut E) {
        if !self.open {
            return;
        }
        self.open = false;
        for index in 0..self.options.tcp {
            engine.disarm_accept(ListenerIndex(index));
        }
        self.refused_accepts.clear();
        self.let_go(engine);
    }

    /// Disarms what is armed for datagrams.
    fn let_go<E: Engine>(&mut self, engine: &mut E) {
        let armed = &mut self.udp_armed;
        self.rearm.retain(|rearm| match rearm {
            Rearm::Udp(socket) => {
                armed[usize::from(socket.0)] = false;
                false
            }
            Rearm::Accept(_) => false,
            Rearm::Receive(_) => true,
        });
        for index in 0..self.options.udp {
            if self.udp_armed[usize::from(index)] {
                engine.disarm_udp(UdpIndex(index));
            }
        }
    }

    pub(super) fn arm_udp<E: Engine>(&mut self, engine: &mut E, socket: UdpIndex) {
        self.udp_armed[usize::from(socket.0)] = true;
        engine.arm_udp(socket);
    }

    pub(super) fn udp_ended(&mut self, socket: UdpIndex, ended: Ended) {
        if self.open {
            self.count_ended(ended);
            self.rearm.push(Rearm::Udp(socket));
        } else {
            self.udp_armed[usize::from(socket.0)] = false;
        }
    }

    /// Whether an answer is to be the last one of its connection.
    pub(super) fn parts(&self) -> bool {
        !self.open || self.leaving.is_some()
    }

    pub(super) fn stop<E: Engine>(&mut self, engine: &mut E, now: Now) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(now.mono.plus(self.options.drain));
        for index in 0..self.options.tcp {
            engine.disarm_accept(ListenerIndex(index));
        }
        self.dismiss(engine, now);
    }

    /// Whether a leaving shard has nothing more to do, or no more time. `busy`: something came in this
    /// turn.
    pub(super) fn finished<E: Engine>(&mut self, engine: &mut E, now: Now, busy: bool) -> bool {
        let Some(until) = self.leaving else { return false };
        if now.mono >= until {
            return true;
        }
        if !self.waiting.is_empty() || self.conns.len() > 0 || self.stuck(engine) {
            return false;
        }
        // Datagrams are answered to the end, and the kernel may hold some for us that nobody else sees.
        if std::mem::take(&mut self.open) {
            self.let_go(engine);
        }
        !busy && !self.udp_armed.contains(&true)
    }

    pub(super) fn leave<E: Engine>(&mut self, engine: &mut E, now: Now) {
        for waiter in self.waiting.take(|_| true) {
            self.wake(engine, now, waiter, Attempt::Last);
        }
        for id in self.conns.ids() {
            if let Some(conn) = self.conns.take(id) {
                self.close(engine, conn);
            }
        }
        for socket in (0..self.options.udp).map(UdpIndex) {
            while engine.queued(socket) > 0 {
                self.answerer.counters.add(Counter::SendFailed, 1);
                engine.skip(socket);
            }
        }
        self.house_at = MonoNs(0);
        self.keep_house(engine, now);
    }
}
