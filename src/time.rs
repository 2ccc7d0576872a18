//! Time as the rooms see it: two instants read together, once a turn, from a clock that is either
//! the machine's or a script's.

pub mod calendar;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`. Deadlines and freshness are reckoned in it: it is the same for
/// every thread and never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoNs(pub u64);

/// Nanoseconds since the Unix epoch. What exchanges and clients call time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNs(pub u64);

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: MonoNs,
    /// For records and for peers.
    pub unix: UnixNs,
}

impl MonoNs {
    /// An instant that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This instant plus `duration`; never wraps.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl UnixNs {
    /// An instant that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// From milliseconds since the Unix epoch; `None` beyond the year 2554.
    #[must_use]
    pub fn from_ms(ms: u64) -> Option<Self> {
        ms.checked_mul(1_000_000).map(Self)
    }

    /// Whole milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// Where `Now` comes from.
pub trait Clock {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Now {
        Now { mono: MonoNs(read(ClockId::CLOCK_MONOTONIC)), unix: UnixNs(read(ClockId::CLOCK_REALTIME)) }
    }
}

fn read(clock: ClockId) -> u64 {
    // Linux has had both clocks since 2.6 and refuses neither; a machine set before 1970 reads 0.
    clock_gettime(clock).map_or(0, |t| {
        let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
    })
}

/// A clock that moves only when told to; clones share the hands.
#[derive(Clone, Debug)]
pub struct ScriptedClock {
    now: Rc<Cell<Now>>,
}

impl ScriptedClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn at(now: Now) -> Self {
        Self { now: Rc::new(Cell::new(now)) }
    }

    /// Moves both hands forward.
    pub fn advance(&self, by: Duration) {
        let Now { mono, unix } = self.now.get();
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now.set(Now { mono: mono.plus(by), unix: UnixNs(unix.0.saturating_add(ns)) });
    }
}

impl Clock for ScriptedClock {
    fn now(&self) -> Now {
        self.now.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_clock_moves_forward_and_knows_the_century() {
        let first = RealClock.now();
        let second = RealClock.now();
        assert!(second.mono >= first.mono);
        assert!(first.unix.ms() > 1_600_000_000_000);
    }

    #[test]
    fn a_scripted_clock_moves_only_when_told() {
        let clock = ScriptedClock::at(Now { mono: MonoNs(5), unix: UnixNs(7) });
        let twin = clock.clone();
        clock.advance(Duration::from_nanos(10));
        assert_eq!(twin.now(), Now { mono: MonoNs(15), unix: UnixNs(17) });
        assert_eq!(MonoNs::NEVER.plus(Duration::from_secs(1)), MonoNs::NEVER);
        assert_eq!(MonoNs(3).since(MonoNs(9)), Duration::ZERO);
    }
}
