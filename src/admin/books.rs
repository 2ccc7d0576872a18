//! The equation that must hold at any moment: what was received is answered, refused or waiting.

use crate::shard::{Counter, Counters};

/// One side and the other, of one shard or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Requests taken from the kernel.
    pub received: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests refused, for all reasons together.
    pub refused: u64,
    /// Requests that wait for a REST price.
    pub waiting: u64,
    /// Datagrams the kernel dropped before they could be received; outside the equation.
    pub kernel_dropped: u64,
}

/// The books of one shard, from counters of one moment.
#[must_use]
pub fn books(counters: &Counters) -> Books {
    let mut books = Books::default();
    for counter in Counter::ALL {
        let place = match counter.metric() {
            ("request_received", _) => &mut books.received,
            ("request_answered", _) => &mut books.answered,
            ("request_refused", _) => &mut books.refused,
            ("request_waiting", _) => &mut books.waiting,
            ("datagram_dropped", _) => &mut books.kernel_dropped,
            _ => continue,
        };
        *place = place.saturating_add(counters.value(*counter));
    }
    books
}

impl Books {
    /// `received - answered - refused - waiting`: 0 when the books close.
    #[must_use]
    pub fn difference(&self) -> i128 {
        let ended = i128::from(self.answered) + i128::from(self.refused) + i128::from(self.waiting);
        i128::from(self.received) - ended
    }

    /// These books and others together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            answered: self.answered.saturating_add(other.answered),
            refused: self.refused.saturating_add(other.refused),
            waiting: self.waiting.saturating_add(other.waiting),
            kernel_dropped: self.kernel_dropped.saturating_add(other.kernel_dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_request_closes_the_books() {
        let ends: Vec<_> = Counter::ALL
            .iter()
            .filter(|c| ["request_answered", "request_refused", "request_waiting"].contains(&c.metric().0))
            .collect();
        assert!(ends.len() > 20);
        for end in ends {
            let mut counters = Counters::default();
            counters.add(Counter::UdpReceived, 1);
            assert_eq!(books(&counters).difference(), 1);
            counters.add(*end, 1);
            assert_eq!(books(&counters).difference(), 0, "{end:?}");
            counters.add(*end, 1);
            assert_eq!(books(&counters).difference(), -1, "{end:?}");
        }
    }

    #[test]
    fn drops_lie_outside_and_sums_add_up() {
        let mut counters = Counters::default();
        counters.add(Counter::HttpReceived, 3);
        counters.add(Counter::HttpStale, 2);
        counters.set(Counter::HttpWaiting, 1);
        counters.set(Counter::KernelDropped, 9);
        let one = books(&counters);
        assert_eq!((one.difference(), one.kernel_dropped), (0, 9));
        assert_eq!(one.plus(one).received, 6);
        assert_eq!(one.plus(one).kernel_dropped, 18);
    }
}
