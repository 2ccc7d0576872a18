//! What a process knows about itself. Whoever learns something tells it here; the endpoints read.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::MetricsText;
use crate::shard::{Counter, Counters, Published};
use crate::time::{MonoNs, Now};

/// A part of the start, and of staying ready: feeds, assets, keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it is about, one word.
    pub name: &'static str,
    /// How many are there.
    pub done: u32,
    /// How many must be there for the process to be ready.
    pub needed: u32,
    /// How many there can be.
    pub total: u32,
    /// For people; may be empty.
    pub detail: String,
}

/// One exchange's feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Its name.
    pub exchange: String,
    /// Connections that are live.
    pub connected: u32,
    /// Connections there should be.
    pub wanted: u32,
}

/// Why a process is not ready or not live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it is about, one word or two.
    pub what: String,
    /// What is the matter with it.
    pub detail: String,
}

/// Writes further metrics when they are asked for.
type Source = Box<dyn Fn(&mut MetricsText) + Send + Sync>;

/// What a process knows about itself. Shared by all who tell and all who ask.
pub struct Facts {
    /// When the process started.
    pub started: Now,
    /// The program's version.
    pub version: &'static str,
    stall_after: Duration,
    told: Mutex<Told>,
}

/// Read and written for moments only, and never by a shard.
#[derive(Default)]
struct Told {
    shards: Vec<Shard>,
    engine: Option<(String, String)>,
    stages: Vec<Stage>,
    feeds: Vec<Feed>,
    sources: Vec<Arc<Source>>,
    leaving: bool,
}

struct Shard {
    published: Arc<Published>,
    turns: u64,
    turned: MonoNs,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("version", &self.version).field("started", &self.started).finish()
    }
}

impl Facts {
    /// Nothing told yet: not ready. A shard is stuck when its loop has not turned for `stall_after`.
    #[must_use]
    pub fn new(started: Now, version: &'static str, stall_after: Duration) -> Arc<Self> {
        Arc::new(Self { started, version, stall_after, told: Mutex::default() })
    }

    /// Adds a shard; they are numbered in this order.
    pub fn add_shard(&self, published: Arc<Published>, now: MonoNs) {
        self.told().shards.push(Shard { published, turns: 0, turned: now });
    }

    /// Which engine was chosen, and why in one line.
    pub fn set_engine(&self, name: &str, reason: &str) {
        self.told().engine = Some((name.to_owned(), reason.to_owned()));
    }

    /// Adds a stage or replaces what was said of it before.
    pub fn set_stage(&self, stage: Stage) {
        let mut told = self.told();
        match told.stages.iter_mut().find(|s| s.name == stage.name) {
            Some(old) => *old = stage,
            None => told.stages.push(stage),
        }
    }

    /// How all feeds stand.
    pub fn set_feeds(&self, feeds: Vec<Feed>) {
        self.told().feeds = feeds;
    }

    /// Adds metrics that are written when they are asked for.
    pub fn add_source(&self, source: impl Fn(&mut MetricsText) + Send + Sync + 'static) {
        self.told().sources.push(Arc::new(Box::new(source)));
    }

    /// From now on the process is leaving: never ready again.
    pub fn leave(&self) {
        self.told().leaving = true;
    }

    /// Looks whether each shard has turned since the last look. To be called about once a second.
    pub fn look(&self, now: MonoNs) {
        for shard in &mut self.told().shards {
            let turns = shard.published.read().value(Counter::Turn);
            if turns != shard.turns {
                (shard.turns, shard.turned) = (turns, now);
            }
        }
    }

    /// Why the process is not live: shards that are stuck. Empty when it is.
    #[must_use]
    pub fn stuck(&self, now: MonoNs) -> Vec<Reason> {
        let told = self.told();
        let stuck = told.shards.iter().enumerate().filter_map(|(index, shard)| {
            let still = now.since(shard.turned);
            (still > self.stall_after).then(|| Reason {
                what: format!("shard {index}"),
                detail: format!("its loop has not turned for {} s", still.as_secs()),
            })
        });
        stuck.collect()
    }

    /// Why the process is not ready. Empty when it is.
    #[must_use]
    pub fn unready(&self, now: MonoNs) -> Vec<Reason> {
        let mut reasons = self.stuck(now);
        let told = self.told();
        if told.leaving {
            reasons.push(Reason { what: "process".into(), detail: "was told to stop and is leaving".into() });
        }
        if told.stages.is_empty() {
            reasons.push(Reason { what: "process".into(), detail: "is starting".into() });
        }
        for stage in told.stages.iter().filter(|stage| stage.done < stage.needed) {
            let colon = if stage.detail.is_empty() { "" } else { ": " };
            reasons.push(Reason {
                what: stage.name.into(),
                detail: format!(
                    "{} of {}, needs {}{colon}{}",
                    stage.done, stage.total, stage.needed, stage.detail
                ),
            });
        }
        reasons
    }

    /// What was told of the stages, in the order they were first told.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage> {
        self.told().stages.clone()
    }

    /// What was told of the feeds.
    #[must_use]
    pub fn feeds(&self) -> Vec<Feed> {
        self.told().feeds.clone()
    }

    /// The engine and why it was chosen.
    #[must_use]
    pub fn engine(&self) -> Option<(String, String)> {
        self.told().engine.clone()
    }

    /// The counters of every shard, each as of one moment.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.told().shards.iter().map(|shard| shard.published.read()).collect()
    }

    /// Lets every source write its metrics.
    pub(super) fn write_sources(&self, text: &mut MetricsText) {
        // Not under the lock: a source may ask for facts itself.
        let sources = self.told().sources.clone();
        for source in sources {
            source(text);
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn facts() -> Arc<Facts> {
        Facts::new(Now::default(), "1", 10 * SECOND)
    }

    fn stage(name: &'static str, done: u32, detail: &str) -> Stage {
        Stage { name, done, needed: 1, total: 7, detail: detail.to_owned() }
    }

    #[test]
    fn ready_means_every_stage_has_what_it_needs() {
        let facts = facts();
        let now = MonoNs(0);
        assert_eq!(facts.unready(now)[0].detail, "is starting");
        facts.set_stage(stage("feeds", 0, "okx: connection refused"));
        facts.set_stage(stage("keys", 1, ""));
        let reasons = facts.unready(now);
        assert_eq!(reasons.len(), 1);
        assert_eq!(reasons[0].what, "feeds");
        assert_eq!(reasons[0].detail, "0 of 7, needs 1: okx: connection refused");
        facts.set_stage(stage("feeds", 3, ""));
        assert!(facts.unready(now).is_empty());
        assert_eq!(facts.stages().iter().map(|s| s.name).collect::<Vec<_>>(), ["feeds", "keys"]);
        facts.leave();
        assert_eq!(facts.unready(now)[0].what, "process");
        assert!(facts.stuck(now).is_empty());
    }

    #[test]
    fn a_shard_that_does_not_turn_is_stuck_until_it_does() {
        let facts = facts();
        let (turning, still) = (Published::new(), Published::new());
        facts.add_shard(Arc::clone(&turning), MonoNs(0));
        facts.add_shard(Arc::clone(&still), MonoNs(0));
        let mut counters = Counters::default();
        let mut now = MonoNs(0);
        for _ in 0..11 {
            assert!(facts.stuck(now).is_empty());
            now = now.plus(SECOND);
            counters.add(Counter::Turn, 1);
            turning.publish(&counters);
            facts.look(now);
        }
        let stuck = facts.stuck(now);
        assert_eq!(stuck.len(), 1);
        assert_eq!(
            (stuck[0].what.as_str(), stuck[0].detail.as_str()),
            ("shard 1", "its loop has not turned for 11 s")
        );
        still.publish(&counters);
        facts.look(now);
        assert!(facts.stuck(now).is_empty());
    }
}
