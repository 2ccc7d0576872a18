//! What the service manager is told: that we answer, that every shard still turns, that we leave.

use std::sync::Arc;
use std::time::Duration;

use beast::host::notify::{Notifier, watchdog_interval};
use beast::shard::{Counter, Published};

/// The service manager, if there is one.
pub(crate) struct Manager(Option<Arc<Notifier>>);

impl Manager {
    /// The one that the environment names.
    pub(crate) fn of_environment() -> Self {
        Self(
            Notifier::from_env()
                .unwrap_or_else(|error| {
                    tracing::warn!(
                        "NOTIFY_SOCKET cannot be used, so the service manager hears nothing: {error}"
                    );
                    None
                })
                .map(Arc::new),
        )
    }

    /// Tells it something. One that has gone, or is busy, is no reason to stop answering.
    pub(crate) fn tell(&self, assignments: &str) {
        if let Some(notifier) = &self.0
            && let Err(error) = notifier.tell(assignments)
        {
            tracing::warn!("the service manager was not told {assignments:?}: {error}");
        }
    }

    /// From now on gives signs of life, if they are wanted, for as long as every shard turns. A shard
    /// that hangs ends them, and the manager ends the process.
    pub(crate) fn watch(&self, shards: Vec<Arc<Published>>) {
        let (Some(notifier), Some(every)) = (self.0.clone(), watchdog_interval()) else { return };
        let mut pulse = Pulse::new(shards);
        let beat = move || {
            loop {
                // Two signs may be lost before the manager loses patience. An idle shard turns at least
                // ten times a second.
                std::thread::sleep((every / 3).max(Duration::from_millis(200)));
                if pulse.moves() {
                    let _busy = notifier.tell("WATCHDOG=1");
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watchdog".into()).spawn(beat) {
            tracing::error!("there will be no signs of life for the service manager: {error}");
        }
    }
}

/// Whether shards turn.
struct Pulse {
    shards: Vec<(Arc<Published>, u64)>,
}

impl Pulse {
    fn new(shards: Vec<Arc<Published>>) -> Self {
        Self { shards: shards.into_iter().map(|shard| (shard, 0)).collect() }
    }

    /// Whether every shard has turned since the last look.
    fn moves(&mut self) -> bool {
        let mut all = true;
        for (shard, seen) in &mut self.shards {
            let turns = shard.read().value(Counter::Turn);
            all &= turns != *seen;
            *seen = turns;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use beast::shard::Counters;

    use super::*;

    #[test]
    fn one_shard_that_hangs_ends_the_signs_of_life() {
        let shards = [Published::new(), Published::new()];
        let mut pulse = Pulse::new(shards.to_vec());
        let mut counters = Counters::default();
        let mut turn = |shards: &[Arc<Published>]| {
            counters.add(Counter::Turn, 1);
            shards.iter().for_each(|shard| shard.publish(&counters));
        };
        turn(&shards);
        assert!(pulse.moves());
        assert!(!pulse.moves(), "nobody has turned since");
        turn(&shards[..1]);
        assert!(!pulse.moves(), "the second hangs");
        turn(&shards);
        assert!(pulse.moves());
    }
}
