//! What a generator does in one go, and the part of it that each of its workers does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How requests of a step are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepPace {
    /// Closed loop: so many requests under way, over all sockets.
    Window(u64),
    /// Open loop: so many requests a second, over all sockets.
    Rate(u64),
}

/// One go of a generator: a plain run, a level of a ramp, a rate of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When requests leave.
    pub pace: StepPace,
    /// How long they do.
    pub duration: Duration,
    /// The most that are sent, of a closed loop; `None` for as many as the time allows.
    pub requests: Option<u64>,
    /// UDP sockets or HTTP connections. A generator that has more of them leaves the others idle.
    pub sockets: usize,
}

/// The part of one worker in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) pace: StepPace,
    pub(crate) requests: Option<u64>,
    pub(crate) sockets: usize,
    /// Which of how many workers this is.
    pub(crate) index: u64,
    pub(crate) of: u64,
    pub(crate) duration: Duration,
}

impl Step {
    /// The part of worker `index` of `of`. The parts of all add up to the whole; a rate stays whole,
    /// because each worker takes its own requests out of the common schedule. Only so many workers
    /// have a part as there are sockets and, in a closed loop, places in the window: requests of a
    /// worker that may have none under way would never leave.
    pub(crate) fn share(&self, index: usize, of: usize) -> Share {
        let most = match self.pace {
            StepPace::Window(window) => window.min(self.sockets as u64),
            StepPace::Rate(_) => self.sockets as u64,
        };
        let (index, of) = (index as u64, (of as u64).min(most).max(1));
        if index >= of {
            let (pace, requests, duration) = (StepPace::Window(0), Some(0), self.duration);
            return Share { pace, requests, sockets: 0, index, of, duration };
        }
        let part = |whole: u64| whole / of + u64::from(index < whole % of);
        Share {
            pace: match self.pace {
                StepPace::Window(window) => StepPace::Window(part(window)),
                StepPace::Rate(per_s) => StepPace::Rate(per_s),
            },
            requests: self.requests.map(part),
            sockets: usize::try_from(part(self.sockets as u64)).unwrap_or(self.sockets),
            index,
            of,
            duration: self.duration,
        }
    }
}

/// Tells generators to stop early. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Nobody has been told yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on all are told.
    pub fn tell(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether they are.
    #[must_use]
    pub fn told(&self) -> bool {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_workers_are_the_whole() {
        let sizes = [1, 3, 8, 1_001].into_iter().flat_map(|whole| [1, 2, 7].map(|sockets| (whole, sockets)));
        for (whole, sockets) in sizes {
            for of in 1..5 {
                let step = Step {
                    pace: StepPace::Window(whole),
                    duration: Duration::from_secs(1),
                    requests: Some(whole * 10),
                    sockets,
                };
                let shares: Vec<_> = (0..of).map(|index| step.share(index, of)).collect();
                let idle = |share: &Share| share.pace == StepPace::Window(0) || share.sockets == 0;
                assert!(shares.iter().all(|share| !idle(share) || share.requests == Some(0)), "{shares:?}");
                let windows = shares.iter().map(|share| match share.pace {
                    StepPace::Window(window) => window,
                    StepPace::Rate(_) => 0,
                });
                assert_eq!(windows.sum::<u64>(), whole);
                assert_eq!(shares.iter().filter_map(|share| share.requests).sum::<u64>(), whole * 10);
                assert_eq!(shares.iter().map(|share| share.sockets).sum::<usize>(), sockets);
            }
        }
    }
}
