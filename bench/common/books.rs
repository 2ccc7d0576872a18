//! What a shard says has become of all datagrams.

use std::io;
use std::ops::Sub;
use std::time::Duration;

use beast::shard::{Counter, Published};

/// A shard publishes its counters at least this often.
const PUBLISHED_AFTER: Duration = Duration::from_millis(300);

/// Looks at its counters without any change after which what is missing is missing: six seconds. A busy
/// machine may keep a shard from running for a while.
const UNCHANGED_MAX: usize = 20;

/// Looks at its counters before it is given up: a minute.
const LOOKS_MAX: usize = 200;

/// What became of all datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Books {
    /// Answered with a price.
    pub answered: u64,
    /// Refused, for all reasons.
    pub refused: u64,
    /// Dropped by the kernel, the socket being full.
    pub dropped: u64,
    /// Records appended to the journal.
    pub recorded: u64,
}

impl Books {
    /// Once they account for the `sent` datagrams that came after `before` and nothing more is added:
    /// a full socket outlasts the client's patience. Or as they are when nothing has changed for long.
    ///
    /// # Errors
    /// It goes on all the same.
    pub fn closed(published: &Published, before: Self, sent: u64) -> io::Result<Self> {
        let (mut last, mut unchanged) = (Self::of(published), 0);
        for _ in 0..LOOKS_MAX {
            std::thread::sleep(PUBLISHED_AFTER);
            let now = Self::of(published);
            unchanged = if now == last { unchanged + 1 } else { 0 };
            if unchanged >= UNCHANGED_MAX || (unchanged > 0 && (now - before).accounted() >= sent) {
                return Ok(now);
            }
            last = now;
        }
        Err(io::Error::other("the shard is still answering long after the last request"))
    }

    /// Datagrams of which these tell.
    pub fn accounted(&self) -> u64 {
        self.answered + self.refused + self.dropped
    }

    fn of(published: &Published) -> Self {
        let counters = published.read();
        let refused = Counter::ALL.iter().filter(|counter| {
            let (name, labels) = counter.metric();
            name == "request_refused" && labels.contains("transport=\"udp\"")
        });
        Self {
            answered: counters.value(Counter::UdpAnswered),
            refused: refused.map(|counter| counters.value(*counter)).sum(),
            dropped: counters.value(Counter::KernelDropped),
            recorded: counters.value(Counter::RecordAppended),
        }
    }
}

impl Sub for Books {
    type Output = Self;

    /// What became of those since `before`.
    fn sub(self, before: Self) -> Self {
        Self {
            answered: self.answered - before.answered,
            refused: self.refused - before.refused,
            dropped: self.dropped - before.dropped,
            recorded: self.recorded - before.recorded,
        }
    }
}
