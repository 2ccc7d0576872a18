//! Accounts and keys in the store.

use serde::Serialize;

use super::db::{Db, DbError, Row, Value, database};
use super::instance_key::{InstanceKey, V2Pair};
use super::{Store, StoreError};
use crate::account::{Key, Network, PUBLIC_TEXT_LEN, SecretHash, TOKEN_LEN, Tier, Token, public_text};
use crate::time::{Clock as _, RealClock, UnixNs, calendar};

const NAME_LEN_MAX: usize = 64;
const NOTE_LEN_MAX: usize = 200;

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Name of its account, which is made if there is none of that name.
    pub account: String,
    /// Name of its tier.
    pub tier: String,
    /// From where it may use v1.
    pub networks: Vec<Network>,
    /// What people want to remember about it.
    pub note: String,
    /// Whether it may see every key's usage.
    pub admin: bool,
}

/// A key as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRow {
    /// Its public text: `tb_` and 13 characters.
    pub key: String,
    /// Its persistent number.
    pub number: u32,
    /// Name of its account.
    pub account: String,
    /// Name of its tier.
    pub tier: String,
    /// From where it may use v1, as prefixes.
    pub networks: Vec<String>,
    /// What people wanted to remember about it.
    pub note: String,
    /// Whether it may see every key's usage.
    pub admin: bool,
    /// When it was made, in UTC, such as `2026-01-31T23:59:59Z`.
    pub created: String,
    /// When it was revoked, likewise.
    pub revoked: Option<String>,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The key, as it is now.
    pub key: KeyRow,
    /// It had been revoked before; nothing was changed.
    pub already: bool,
}

impl Store {
    /// Makes a key. The token is known to nobody else and cannot be had again.
    ///
    /// # Errors
    /// The tier does not exist, the account's name or the note is unsuitable, or the database refused.
    pub fn add_key(&self, new: &NewKey) -> Result<Token, StoreError> {
        let doing = "add a key";
        self.lend(doing)?.transaction(doing, |db| self.insert(db, new))
    }

    /// On the very first start, when there never was a key, makes one: account `operator`, tier
    /// `partner`, an admin's. `deliver` shows or writes down its token; if that fails no key is made, so
    /// that there never is one nobody has.
    ///
    /// # Errors
    /// `deliver` failed, or the database refused.
    pub fn first_key(
        &self,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Option<Token>, StoreError> {
        let doing = "make the first key";
        self.lend(doing)?.transaction(doing, |db| {
            // The row is held until the end, so that no other first start comes between.
            let look = "UPDATE instance SET value = value WHERE name = 'keys_made' RETURNING value";
            let made: i64 = db.query_one(look, &[]).and_then(|row| row.int(0)).map_err(database(doing))?;
            if made > 0 {
                return Ok(None);
            }
            let new = NewKey {
                account: "operator".to_owned(),
                tier: "partner".to_owned(),
                networks: Vec::new(),
                note: "made on the first start".to_owned(),
                // Whoever starts the server is its operator.
                admin: true,
            };
            let token = self.insert(db, &new)?;
            deliver(&token)?;
            Ok(Some(token))
        })
    }

    /// All keys, oldest first, revoked ones too.
    ///
    /// # Errors
    /// The database refused.
    pub fn list_keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        let doing = "list the keys";
        rows(&mut *self.lend(doing)?).map_err(database(doing))
    }

    /// Revokes the one key whose public text is `text` or begins so; `tb_` may be left out, and a
    /// whole token will do. Keys already revoked count only where no live one begins so.
    ///
    /// # Errors
    /// No key or several begin so, or the database refused.
    pub fn revoke(&self, text: &str) -> Result<Revoked, StoreError> {
        let doing = "revoke the key";
        let prefix = public_prefix(text)?;
        self.lend(doing)?.transaction(doing, |db| {
            let mut found = rows(db).map_err(database(doing))?;
            found.retain(|row| row.key.starts_with(&prefix));
            if found.iter().any(|row| row.revoked.is_none()) {
                found.retain(|row| row.revoked.is_none());
            }
            let key = match found.as_slice() {
                [] => return Err(StoreError::UnknownKey { found: prefix }),
                [key] => key.clone(),
                several => {
                    let matches = several.iter().map(|row| row.key.clone()).collect();
                    return Err(StoreError::AmbiguousKey { found: prefix, matches });
                }
            };
            let revoke = "UPDATE keys SET revoked_ms = ?1 WHERE id = ?2 AND revoked_ms IS NULL";
            let changed = db.execute(revoke, &[now_ms(), key.number.into()]).map_err(database(doing))?;
            let mut now = rows(db).map_err(database(doing))?;
            now.retain(|row| row.number == key.number);
            Ok(Revoked { key: now.pop().unwrap_or(key), already: changed == 0 })
        })
    }

    /// The live keys, for a [`KeyTable`](crate::account::KeyTable).
    ///
    /// # Errors
    /// A row is damaged, this store was opened without its instance key, or the database refused.
    pub fn load_keys(&self) -> Result<Vec<Key>, StoreError> {
        let doing = "load the keys";
        let instance_key = self.instance_key()?;
        let rows = self
            .lend(doing)?
            .query(
                "SELECT k.public_id, k.id, k.account_id, k.secret_hash, k.v2_sealed, k.networks,
                        t.name, t.unlimited, t.qps, t.burst, t.monthly_cap, k.admin
                 FROM keys k JOIN tiers t ON t.name = k.tier WHERE k.revoked_ms IS NULL ORDER BY k.id",
                &[],
            )
            .map_err(database(doing))?;
        rows.iter().map(|row| live_key(row, instance_key)).collect()
    }

    /// Rises with every change to keys and tiers, whichever process made it. Read it before
    /// [`load_keys`](Self::load_keys): a change between the two is then seen again, not missed.
    ///
    /// # Errors
    /// The database refused.
    pub fn keys_version(&self) -> Result<u64, StoreError> {
        let doing = "look for changed keys";
        self.lend(doing)?
            .query_one("SELECT value FROM instance WHERE name = 'keys_version'", &[])
            .and_then(|row| row.int(0))
            .map_err(database(doing))
    }

    /// The sealed part of one live key, if there is any.
    pub(super) fn any_sealed(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let doing = "look at the keys";
        let sql = "SELECT public_id, v2_sealed FROM keys WHERE revoked_ms IS NULL LIMIT 1";
        let rows = self.lend(doing)?.query(sql, &[]).map_err(database(doing))?;
        let sealed = |row: &Row| Ok((row.int::<i64>(0)?.cast_unsigned(), row.blob(1)?.to_vec()));
        rows.first().map(sealed).transpose().map_err(database(doing))
    }

    fn instance_key(&self) -> Result<&InstanceKey, StoreError> {
        let missing = || StoreError::InstanceKeyMissing { path: self.folder.join("instance.key") };
        self.instance_key.as_ref().ok_or_else(missing)
    }

    fn insert(&self, db: &mut Db, new: &NewKey) -> Result<Token, StoreError> {
        let doing = || database("add a key");
        let instance_key = self.instance_key()?;
        check_text("account name", &new.account, 1, NAME_LEN_MAX)?;
        check_text("note", &new.note, 0, NOTE_LEN_MAX)?;
        check_tier(db, &new.tier)?;
        // An update that changes nothing, so that the row's number comes back also when it was there.
        let account: i64 = db
            .query_one(
                "INSERT INTO accounts (name, created_ms) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
                &[new.account.as_str().into(), now_ms()],
            )
            .and_then(|row| row.int(0))
            .map_err(doing())?;
        let token = Token::generate().map_err(|_| StoreError::NoRandomness)?;
        let pair = V2Pair { request: token.v2_request_key(), answer: token.v2_answer_key() };
        let networks: Vec<String> = new.networks.iter().map(ToString::to_string).collect();
        db.execute(
            "INSERT INTO keys (account_id, public_id, secret_hash, v2_sealed, tier, networks, note, admin,
                               created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            &[
                account.into(),
                token.public_id().cast_signed().into(),
                token.secret_hash().0.to_vec().into(),
                instance_key.seal(token.public_id(), &pair)?.into(),
                new.tier.as_str().into(),
                networks.join(" ").into(),
                new.note.as_str().into(),
                new.admin.into(),
                now_ms(),
            ],
        )
        .map_err(doing())?;
        db.execute("UPDATE instance SET value = value + 1 WHERE name = 'keys_made'", &[]).map_err(doing())?;
        Ok(token)
    }
}

fn now_ms() -> Value {
    RealClock.now().unix.ms().into()
}

fn check_text(what: &'static str, text: &str, len_min: usize, len_max: usize) -> Result<(), StoreError> {
    let len = text.chars().count();
    if len < len_min || len > len_max || text.chars().any(char::is_control) || text.trim() != text {
        return Err(StoreError::BadText { what, len_max });
    }
    Ok(())
}

fn check_tier(db: &mut Db, tier: &str) -> Result<(), StoreError> {
    let names = |db: &mut Db| -> Result<Vec<String>, DbError> {
        let rows = db.query("SELECT name FROM tiers ORDER BY unlimited, qps, name", &[])?;
        rows.iter().map(|row| row.text(0).map(ToOwned::to_owned)).collect()
    };
    let known = names(db).map_err(database("look at the tiers"))?;
    if known.iter().any(|name| name == tier) {
        return Ok(());
    }
    Err(StoreError::UnknownTier { found: tier.to_owned(), known })
}

/// All rows, oldest first.
fn rows(db: &mut Db) -> Result<Vec<KeyRow>, DbError> {
    let rows = db.query(
        "SELECT k.public_id, k.id, a.name, k.tier, k.networks, k.note, k.created_ms, k.revoked_ms,
                k.admin
         FROM keys k JOIN accounts a ON a.id = k.account_id ORDER BY k.id",
        &[],
    )?;
    let utc = |ms: i64| calendar::date_time(ms.max(0).cast_unsigned() / 1_000, 'T') + "Z";
    let key = |row: &Row| {
        Ok(KeyRow {
            key: public_text(row.int::<i64>(0)?.cast_unsigned()),
            number: row.int(1)?,
            account: row.text(2)?.to_owned(),
            tier: row.text(3)?.to_owned(),
            networks: row.text(4)?.split_whitespace().map(ToOwned::to_owned).collect(),
            note: row.text(5)?.to_owned(),
            created: utc(row.int(6)?),
            revoked: row.int_or_null(7)?.map(utc),
            admin: row.int::<i64>(8)? != 0,
        })
    };
    rows.iter().map(key).collect()
}

fn live_key(row: &Row, instance_key: &InstanceKey) -> Result<Key, StoreError> {
    let public_id = row.int::<i64>(0).map_err(database("load the keys"))?.cast_unsigned();
    let damaged = |what: String| StoreError::DamagedKey { key: public_text(public_id), what };
    let field = |error: DbError| damaged(error.to_string());
    let v2 = instance_key
        .unseal(public_id, row.blob(4).map_err(field)?)
        .ok_or_else(|| damaged("its v2 keys do not open under instance.key".to_owned()))?;
    let secret_hash = row.blob(3).map_err(field)?.try_into();
    let networks = row.text(5).map_err(field)?.split_whitespace().map(str::parse);
    let networks = networks.collect::<Result<Vec<Network>, _>>();
    Ok(Key {
        number: row.int(1).map_err(field)?,
        account: row.int(2).map_err(field)?,
        public_id,
        secret_hash: SecretHash(
            secret_hash.map_err(|_| damaged("the hash of its secret is not 32 bytes long".to_owned()))?,
        ),
        v2_request: v2.request,
        v2_answer: v2.answer,
        tier: Tier {
            name: row.text(6).map_err(field)?.to_owned(),
            unlimited: row.int::<i64>(7).map_err(field)? != 0,
            qps: row.int(8).map_err(field)?,
            burst: row.int(9).map_err(field)?,
            monthly: row.int_or_null(10).map_err(field)?.map(i64::unsigned_abs),
        },
        networks: networks.map_err(|error| damaged(error.to_string()))?,
        admin: row.int::<i64>(11).map_err(field)? != 0,
        expires: UnixNs::NEVER,
    })
}

/// `tb_` and up to 13 characters from what a person gave. Never holds any of a secret.
fn public_prefix(text: &str) -> Result<String, StoreError> {
    let text = text.trim().trim_end_matches(['…', '.']);
    if text.len() == TOKEN_LEN {
        let token =
            Token::parse(text.as_bytes()).map_err(|error| StoreError::NotAKey { why: error.to_string() })?;
        return Ok(public_text(token.public_id()));
    }
    let digits = text.strip_prefix("tb_").unwrap_or(text);
    let len_max = PUBLIC_TEXT_LEN - "tb_".len();
    if digits.is_empty() || digits.len() > len_max || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let why = format!("the beginning of a key is needed: tb_ and 1 to {len_max} letters and digits");
        return Err(StoreError::NotAKey { why });
    }
    Ok(format!("tb_{}", digits.to_ascii_lowercase()))
}
