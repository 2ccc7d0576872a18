//! Changes to keys that are there: tier, note, expiry, and a new secret in place of the old one.

use std::time::Duration;

use super::db::{Db, Value, database};
use super::instance_key::V2Pair;
use super::keys::{KeyRow, NOTE_LEN_MAX, check_text, check_tier, find, row_of};
use super::{Store, StoreError};
use crate::account::Token;
use crate::time::{Clock as _, RealClock, UnixNs};

/// A key with a new secret.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// What its owner uses from now on. Known to nobody else, and cannot be had again.
    pub token: Token,
    /// The key, as it is now.
    pub key: KeyRow,
}

impl Store {
    /// Gives the one live key that begins so another tier.
    ///
    /// # Errors
    /// The tier does not exist, no live key or several begin so, or the database refused.
    pub fn set_key_tier(&self, text: &str, tier: &str) -> Result<KeyRow, StoreError> {
        self.change(text, "change the key's tier", |db, key| {
            check_tier(db, tier)?;
            set(db, "UPDATE keys SET tier = ?1 WHERE id = ?2", tier.into(), key)
        })
    }

    /// Changes what people want to remember about the one live key that begins so.
    ///
    /// # Errors
    /// The note is unsuitable, no live key or several begin so, or the database refused.
    pub fn set_key_note(&self, text: &str, note: &str) -> Result<KeyRow, StoreError> {
        check_text("note", note, 0, NOTE_LEN_MAX)?;
        self.change(text, "change the key's note", |db, key| {
            set(db, "UPDATE keys SET note = ?1 WHERE id = ?2", note.into(), key)
        })
    }

    /// Says from when on the one live key that begins so may not be used; `None` is never.
    ///
    /// # Errors
    /// No live key or several begin so, or the database refused.
    pub fn set_key_expiry(&self, text: &str, expires: Option<UnixNs>) -> Result<KeyRow, StoreError> {
        self.change(text, "change the key's expiry", |db, key| {
            let expires_ms = expires.map_or(Value::Null, |at| at.ms().into());
            set(db, "UPDATE keys SET expires_ms = ?1 WHERE id = ?2", expires_ms, key)
        })
    }

    /// Gives the one live key that begins so a new secret and public id. The old ones go on for
    /// `overlap`, or until the key expires, with the same allowance: both are the same key. No overlap
    /// ends those of earlier rotations too.
    ///
    /// # Errors
    /// This store was opened without its instance key, no live key or several begin so, or the
    /// database refused.
    pub fn rotate_key(&self, text: &str, overlap: Duration) -> Result<Rotated, StoreError> {
        let doing = "give the key a new secret";
        let instance_key = self.instance_key()?;
        let token = Token::generate().map_err(|_| StoreError::NoRandomness)?;
        let pair = V2Pair { request: token.v2_request_key(), answer: token.v2_answer_key() };
        let sealed = instance_key.seal(token.public_id(), &pair)?;
        let now = RealClock.now().unix;
        let overlap_ms = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
        let key = self.change(text, doing, |db, key| {
            let run = |db: &mut Db, sql, params: &[Value]| {
                db.execute(sql, params).map(drop).map_err(database(doing))
            };
            run(db, "DELETE FROM old_secrets WHERE until_ms <= ?1", &[now.ms().into()])?;
            if overlap_ms == 0 {
                run(db, "DELETE FROM old_secrets WHERE key_id = ?1", &[key.into()])?;
            } else {
                run(
                    db,
                    "INSERT INTO old_secrets (public_id, key_id, secret_hash, v2_sealed, until_ms)
                     SELECT public_id, id, secret_hash, v2_sealed, ?1 FROM keys WHERE id = ?2",
                    &[now.ms().saturating_add(overlap_ms).into(), key.into()],
                )?;
            }
            run(
                db,
                "UPDATE keys SET public_id = ?1, secret_hash = ?2, v2_sealed = ?3 WHERE id = ?4",
                &[
                    token.public_id().cast_signed().into(),
                    token.secret_hash().0.to_vec().into(),
                    sealed.clone().into(),
                    key.into(),
                ],
            )
        })?;
        Ok(Rotated { token, key })
    }

    fn change(
        &self,
        text: &str,
        doing: &'static str,
        change: impl FnOnce(&mut Db, u32) -> Result<(), StoreError>,
    ) -> Result<KeyRow, StoreError> {
        self.lend(doing)?.transaction(doing, |db| {
            let key = find(db, text, doing)?;
            if let Some(at) = key.revoked {
                return Err(StoreError::RevokedKey { key: key.key, at });
            }
            change(db, key.number)?;
            row_of(db, key.number, doing)
        })
    }
}

fn set(db: &mut Db, sql: &'static str, value: Value, key: u32) -> Result<(), StoreError> {
    db.execute(sql, &[value, key.into()]).map(drop).map_err(database("change the key"))
}

#[cfg(test)]
mod tests {
    use super::super::NewKey;
    use super::super::testing::on_each_engine;
    use super::super::tests::{execute, failure, new_key};
    use super::*;
    use crate::account::{Tier, public_text};

    fn text(token: &Token) -> String {
        public_text(token.public_id())
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn both_secrets_of_a_rotation_are_one_key_until_the_overlap_ends() {
        on_each_engine(|home| {
            let store = home.open();
            let old = store.add_key(&new_key("Ann", "free")).unwrap();
            store.add_key(&new_key("Bob", "free")).unwrap();
            let before = store.keys_version().unwrap();
            let now = RealClock.now().unix;
            let Rotated { token: new, key } = store.rotate_key(&text(&old), HOUR).unwrap();
            assert_ne!(store.keys_version().unwrap(), before);
            assert_eq!((key.number, &key.key, &key.old[0].key), (1, &text(&new), &text(&old)));

            let keys = home.open().load_keys().unwrap();
            assert_eq!(keys.len(), 3);
            for (token, lives) in [(&old, now.0 + 3_600_000_000_000), (&new, u64::MAX)] {
                let key = keys.iter().find(|key| key.public_id == token.public_id()).unwrap();
                assert_eq!((key.number, key.account), (1, 1));
                assert!(key.secret_hash.matches(&token.secret_hash()));
                assert!(key.v2_request == token.v2_request_key() && key.v2_answer == token.v2_answer_key());
                assert!(key.expires.0.abs_diff(lives) < 60_000_000_000, "{:?}", key.expires);
            }
            // It is found by its old name, and both end when it is revoked.
            let newest = store.rotate_key(&text(&old), HOUR).unwrap();
            assert_eq!(newest.key.old.len(), 2);
            execute(
                &store,
                "UPDATE old_secrets SET until_ms = 1 WHERE public_id = ?1",
                &[old.public_id().cast_signed().into()],
            );
            assert_eq!(store.load_keys().unwrap().len(), 3);
            assert_eq!(
                failure(store.set_key_note(&text(&old), "")),
                failure(store.set_key_note(&text(&old), ""))
            );
            assert!(failure(store.set_key_note(&text(&old), "")).contains("no key begins"));
            store.revoke(&text(&new)).unwrap();
            assert_eq!(store.load_keys().unwrap().len(), 1);
            assert!(failure(store.rotate_key(&text(&newest.token), HOUR)).contains("was revoked at"));
        });
    }

    #[test]
    fn a_rotation_without_overlap_ends_the_old_secret_and_an_expiry_ends_both() {
        on_each_engine(|home| {
            let store = home.open();
            let end = UnixNs(RealClock.now().unix.ms() * 1_000_000 + 60_000_000_000);
            let token = store.add_key(&NewKey { expires: Some(end), ..new_key("Ann", "free") }).unwrap();
            let token = store.rotate_key(&text(&token), Duration::ZERO).unwrap().token;
            let [key] = &store.load_keys().unwrap()[..] else { panic!("one secret only") };
            assert_eq!((key.public_id, key.expires), (token.public_id(), end));
            store.rotate_key(&text(&token), HOUR).unwrap();
            assert!(store.load_keys().unwrap().iter().all(|key| key.expires == end));
            let key = store.set_key_expiry(&text(&token), None).unwrap();
            assert_eq!((key.expires, key.expired), (None, false));
            let key = store.set_key_expiry(&text(&token), Some(UnixNs(5_000_000_000))).unwrap();
            assert_eq!((key.expires.as_deref(), key.expired), (Some("1970-01-01T00:00:05Z"), true));
        });
    }

    #[test]
    fn a_tier_that_is_changed_is_changed_for_its_keys() {
        on_each_engine(|home| {
            let store = home.open();
            let token = store.add_key(&new_key("Ann", "free")).unwrap();
            let tier =
                |name: &str, monthly| Tier { name: name.into(), unlimited: false, qps: 7, burst: 8, monthly };
            assert!(!store.put_tier(&tier("free", None)).unwrap());
            assert!(store.put_tier(&tier("gold", Some(9))).unwrap());
            assert_eq!(store.load_keys().unwrap()[0].tier, tier("free", None));
            let before = store.keys_version().unwrap();
            store.set_key_tier(&text(&token), "gold").unwrap();
            assert!(store.keys_version().unwrap() > before);
            assert_eq!(store.load_keys().unwrap()[0].tier, tier("gold", Some(9)));
            let names: Vec<String> = store.list_tiers().unwrap().into_iter().map(|tier| tier.name).collect();
            assert_eq!(names, ["free", "gold", "basic", "lifetime", "pro", "stress", "partner"]);
            let empty = Tier { burst: 0, ..tier("gold", None) };
            assert!(failure(store.put_tier(&empty)).contains("would admit nothing"));
        });
    }

    #[test]
    fn what_the_drain_has_counted_is_shown() {
        on_each_engine(|home| {
            let store = home.open();
            store.add_key(&new_key("Ann", "free")).unwrap();
            let month = crate::account::Month::of(RealClock.now().unix).year_month();
            for (month, status, requests) in [(month, 0_u64, 41_u64), (month, 4, 5), (197_001, 0, 7)] {
                let row = "INSERT INTO usage_months (key_id, month, status, requests, prices)
                           VALUES (1, ?1, ?2, ?3, 0)";
                execute(&store, row, &[month.into(), status.into(), requests.into()]);
            }
            assert_eq!(store.list_keys().unwrap()[0].used_this_month, 41);
        });
    }
}
