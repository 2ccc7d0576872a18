//! What a shard says has become of all datagrams.

use std::io;
use std::ops::Sub;
use std::time::Duration;

use beast::shard::{Counter, Published};

/// A shard publishes its counters at least this often.
const PUBLISHED_AFTER: Duration = Duration::from_millis(300);

/// Looks at its counters before it is given up: half a minute.
const LOOKS_MAX: usize = 100;

/// What became of all datagrams so far.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Once the shard has nothing left to do: a full socket outlasts the client's patience.
    ///
    /// # Errors
    /// It goes on all the same.
    pub fn settled(published: &Published) -> io::Result<Self> {
        let mut last = Self::of(published);
        for _ in 0..LOOKS_MAX {
            std::thread::sleep(PUBLISHED_AFTER);
            let now = Self::of(published);
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        Err(io::Error::other("the shard is still answering long after the last request"))
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
