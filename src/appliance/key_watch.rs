//! Hands new keys to every shard when another process has changed them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender as Link;

use super::months::Months;
use super::start::StartError;
use crate::account::{Key, KeyTable};
use crate::shard::Control;
use crate::store::Store;
use crate::time::{Clock as _, RealClock};

/// How often the store is asked whether another process has changed the keys. A revoked key must
/// stop within 2 s.
const KEYS_EVERY: Duration = Duration::from_millis(500);

/// What the watch knows.
pub(super) struct KeyWatch {
    pub(super) store: Arc<Store>,
    pub(super) version: u64,
    pub(super) keys: Vec<Key>,
    pub(super) months: Months,
    /// All who check keys.
    pub(super) shards: Arc<[Link<Control>]>,
    /// Months are yet to be told.
    pub(super) owed: bool,
    /// Whether the journal was ours alone, when last looked at.
    pub(super) alone: bool,
}

impl KeyWatch {
    /// Watches until the process leaves.
    pub(super) async fn run(mut self) {
        let mut every = tokio::time::interval(KEYS_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = String::new();
        loop {
            every.tick().await;
            // On a thread for waiting: a store that hangs must not keep feeds from being dialled.
            let look = tokio::task::spawn_blocking(move || {
                let looked = self.look();
                (self, looked)
            });
            // A panic ends the process, and only leaving cancels it.
            let Ok((watch, looked)) = look.await else { return };
            self = watch;
            match looked {
                Ok(()) if said.is_empty() => {}
                Ok(()) => {
                    said.clear();
                    tracing::info!("keys and their use can be read again");
                }
                Err(error) => {
                    // Said once, not twice a second.
                    let text = error.to_string();
                    if said != text {
                        tracing::error!("keys or their use cannot be read, so a revoked one goes on: {text}");
                        said = text;
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Result<(), StartError> {
        let version = self.store.keys_version()?;
        if version != self.version {
            self.keys = self.store.load_keys()?;
            for shard in self.shards.iter() {
                // A shard that is gone needs no keys.
                let _gone = shard.send(Control::Keys(Box::new(KeyTable::new(self.keys.clone()))));
            }
            self.version = version;
            // Behind the keys: a revocation must not wait until a long journal is read.
            self.owed = true;
            tracing::info!(keys = self.keys.len(), "keys have changed");
        }
        let now = RealClock.now().unix;
        self.owed |= self.months.stepped_back(now);
        if !self.alone && self.months.journal.is_alone() {
            // Only now is known what the process before this one has answered to its end.
            self.alone = true;
            self.owed = true;
        }
        if self.owed {
            self.months.seed(&self.store, &self.keys, now)?;
            self.owed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Allowances, MonthSpan, Tier};
    use crate::ledger::{Journal, JournalOptions, Record};
    use crate::store::NewKey;

    #[test]
    fn what_the_process_before_has_answered_counts_once_it_has_gone() {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&home.path().join("data")).unwrap());
        let tier = Tier { name: "capped".into(), unlimited: false, qps: 9, burst: 9, monthly: Some(100) };
        store.put_tier(&tier).unwrap();
        let (account, networks, note) = ("ann".into(), Vec::new(), String::new());
        store
            .add_key(&NewKey { account, tier: tier.name, networks, note, admin: false, expires: None })
            .unwrap();
        let keys = store.load_keys().unwrap();
        let number = keys[0].number;
        let options = JournalOptions {
            folder: home.path().join("journal"),
            segment_bytes: 4_096 + 64 * 64,
            bytes_max: 1 << 30,
        };
        let now = RealClock.now().unix;
        let (old, mut segments, _) = Journal::open(options.clone(), 1, 1).unwrap();
        let (journal, _beside) = Journal::open_beside(options, 2, 1).unwrap();
        let (journal, allowances) = (Arc::new(journal), Arc::new(Allowances::new(1)));
        let mut watch = KeyWatch {
            version: store.keys_version().unwrap(),
            months: Months::new(Arc::clone(&allowances), Arc::clone(&journal)),
            shards: Arc::new([]),
            owed: true,
            alone: false,
            keys,
            store,
        };
        let month = MonthSpan::of(now).month;
        watch.look().unwrap();
        for _ in 0..7 {
            segments[0].append(Record { key: number, time: now, ..Record::EMPTY }).unwrap();
        }
        drop((old, segments));
        watch.look().unwrap();
        assert_eq!(allowances.used(number, month), 0, "nobody has looked yet what it has left");
        assert!(journal.take_over().unwrap().is_some());
        watch.look().unwrap();
        assert_eq!(allowances.used(number, month), 7);
    }
}
