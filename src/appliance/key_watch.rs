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
        if self.owed {
            self.months.seed(&self.store, &self.keys, now)?;
            self.owed = false;
        }
        Ok(())
    }
}
