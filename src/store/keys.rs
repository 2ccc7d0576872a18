//! Accounts and keys in the store.

use std::collections::HashMap;

use serde::Serialize;

use super::db::{Db, DbError, Row, Value, database};
use super::instance_key::{InstanceKey, V2Pair};
use super::{Store, StoreError};
use crate::account::{Key, Month, Network, PUBLIC_TEXT_LEN, SecretHash, TOKEN_LEN, Tier, Token, public_text};
use crate::time::{Clock as _, RealClock, UnixNs, calendar};

pub(super) const NAME_LEN_MAX: usize = 64;
pub(super) const NOTE_LEN_MAX: usize = 200;

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
    /// From when on it may not be used; `None` is never.
    pub expires: Option<UnixNs>,
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
    /// From when on it may not be used, likewise.
    pub expires: Option<String>,
    /// Whether that is over.
    pub expired: bool,
    /// Secrets that were replaced and still work, the newest last.
    pub old: Vec<OldSecret>,
    /// Requests answered with a price since the month of UTC began, as far as they have been drained
    /// from the journal.
    pub used_this_month: u64,
}

/// A secret that a rotation has replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OldSecret {
    /// The public text it goes under.
    pub key: String,
    /// Until when it works, in UTC.
    pub until: String,
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
                expires: None,
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
        self.lend(doing)?.transaction(doing, |db| {
            let key = find(db, text, doing)?;
            let revoke = "UPDATE keys SET revoked_ms = ?1 WHERE id = ?2 AND revoked_ms IS NULL";
            let changed = db.execute(revoke, &[now_ms(), key.number.into()]).map_err(database(doing))?;
            Ok(Revoked { key: row_of(db, key.number, doing)?, already: changed == 0 })
        })
    }

    /// The live keys, for a [`KeyTable`](crate::account::KeyTable).
    ///
    /// # Errors
    /// A row is damaged, this store was opened without its instance key, or the database refused.
    pub fn load_keys(&self) -> Result<Vec<Key>, StoreError> {
        let doing = "load the keys";
        let instance_key = self.instance_key()?;
        let mut db = self.lend(doing)?;
        let mut rows = db.query(&live("k.public_id, k.secret_hash, k.v2_sealed, k.expires_ms", ""), &[]);
        let old = live("o.public_id, o.secret_hash, o.v2_sealed, o.until_ms", OLD);
        if let Ok(rows) = &mut rows {
            rows.extend(db.query(&old, &[now_ms()]).map_err(database(doing))?);
        }
        rows.map_err(database(doing))?.iter().map(|row| live_key(row, instance_key)).collect()
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

    pub(super) fn instance_key(&self) -> Result<&InstanceKey, StoreError> {
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
                               created_ms, expires_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
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
                new.expires.map_or(Value::Null, |at| at.ms().into()),
            ],
        )
        .map_err(doing())?;
        db.execute("UPDATE instance SET value = value + 1 WHERE name = 'keys_made'", &[]).map_err(doing())?;
        Ok(token)
    }
}

pub(super) fn now_ms() -> Value {
    RealClock.now().unix.ms().into()
}

pub(super) fn check_text(
    what: &'static str,
    text: &str,
    len_min: usize,
    len_max: usize,
) -> Result<(), StoreError> {
    let len = text.chars().count();
    if len < len_min || len > len_max || text.chars().any(char::is_control) || text.trim() != text {
        return Err(StoreError::BadText { what, len_max });
    }
    Ok(())
}

pub(super) fn check_tier(db: &mut Db, tier: &str) -> Result<(), StoreError> {
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

/// The one key that goes, or in a rotation went, under what a person gave. Revoked ones count only
/// where no live one does.
pub(super) fn find(db: &mut Db, text: &str, doing: &'static str) -> Result<KeyRow, StoreError> {
    let prefix = public_prefix(text)?;
    let mut found = rows(db).map_err(database(doing))?;
    let old = |row: &KeyRow| row.old.iter().any(|old| old.key.starts_with(&prefix));
    found.retain(|row| row.key.starts_with(&prefix) || old(row));
    if found.iter().any(|row| row.revoked.is_none()) {
        found.retain(|row| row.revoked.is_none());
    }
    match found.as_slice() {
        [] => Err(StoreError::UnknownKey { found: prefix }),
        [key] => Ok(key.clone()),
        several => {
            let matches = several.iter().map(|row| row.key.clone()).collect();
            Err(StoreError::AmbiguousKey { found: prefix, matches })
        }
    }
}

/// The row of a key's number.
pub(super) fn row_of(db: &mut Db, number: u32, doing: &'static str) -> Result<KeyRow, StoreError> {
    let missing = || DbError::Content("the key's row is missing".to_owned());
    let found =
        rows(db).and_then(|rows| rows.into_iter().find(|row| row.number == number).ok_or_else(missing));
    found.map_err(database(doing))
}

/// All rows, oldest first.
fn rows(db: &mut Db) -> Result<Vec<KeyRow>, DbError> {
    let now = RealClock.now().unix;
    let mut old: HashMap<u32, Vec<OldSecret>> = HashMap::new();
    let sql = "SELECT key_id, public_id, until_ms FROM old_secrets WHERE until_ms > ?1 ORDER BY until_ms";
    for row in db.query(sql, &[now.ms().into()])? {
        let key = public_text(row.int::<i64>(1)?.cast_unsigned());
        old.entry(row.int(0)?).or_default().push(OldSecret { key, until: utc(row.int(2)?) });
    }
    let used = month_use(db, Month::of(now))?;
    let rows = db.query(
        "SELECT k.public_id, k.id, a.name, k.tier, k.networks, k.note, k.created_ms, k.revoked_ms,
                k.admin, k.expires_ms
         FROM keys k JOIN accounts a ON a.id = k.account_id ORDER BY k.id",
        &[],
    )?;
    let mut key = |row: &Row| {
        let number = row.int(1)?;
        let expires_ms = row.int_or_null(9)?;
        Ok(KeyRow {
            key: public_text(row.int::<i64>(0)?.cast_unsigned()),
            number,
            account: row.text(2)?.to_owned(),
            tier: row.text(3)?.to_owned(),
            networks: row.text(4)?.split_whitespace().map(ToOwned::to_owned).collect(),
            note: row.text(5)?.to_owned(),
            created: utc(row.int(6)?),
            revoked: row.int_or_null(7)?.map(utc),
            admin: row.int::<i64>(8)? != 0,
            expires: expires_ms.map(utc),
            expired: expires_ms.is_some_and(|at| at.max(0).cast_unsigned() <= now.ms()),
            old: old.remove(&number).unwrap_or_default(),
            used_this_month: used.get(&number).copied().unwrap_or(0),
        })
    };
    rows.iter().map(&mut key).collect()
}

/// Unix milliseconds for people.
fn utc(ms: i64) -> String {
    calendar::date_time(ms.max(0).cast_unsigned() / 1_000, 'T') + "Z"
}

/// Requests of a month that were answered with a price, by key.
fn month_use(db: &mut Db, month: Month) -> Result<HashMap<u32, u64>, DbError> {
    let sql = "SELECT key_id, requests FROM usage_months WHERE month = ?1 AND status = 0";
    let rows = db.query(sql, &[month.year_month().into()])?;
    rows.iter().map(|row| Ok((row.int(0)?, row.int(1)?))).collect()
}

/// Asks for the live keys, with what belongs to one secret.
fn live(secret: &str, old: &str) -> String {
    format!(
        "SELECT {secret}, k.expires_ms, k.id, k.account_id, k.networks, k.admin,
                t.name, t.unlimited, t.qps, t.burst, t.monthly_cap
         FROM keys k JOIN tiers t ON t.name = k.tier {old} WHERE k.revoked_ms IS NULL ORDER BY k.id"
    )
}

/// Of secrets that were replaced, those whose overlap goes on.
const OLD: &str = "JOIN old_secrets o ON o.key_id = k.id AND o.until_ms > ?1";

fn live_key(row: &Row, instance_key: &InstanceKey) -> Result<Key, StoreError> {
    let public_id = row.int::<i64>(0).map_err(database("load the keys"))?.cast_unsigned();
    let damaged = |what: String| StoreError::DamagedKey { key: public_text(public_id), what };
    let field = |error: DbError| damaged(error.to_string());
    let v2 = instance_key
        .unseal(public_id, row.blob(2).map_err(field)?)
        .ok_or_else(|| damaged("its v2 keys do not open under instance.key".to_owned()))?;
    let secret_hash = row.blob(1).map_err(field)?.try_into();
    let networks = row.text(7).map_err(field)?.split_whitespace().map(str::parse);
    let networks = networks.collect::<Result<Vec<Network>, _>>();
    // That of the secret and that of the key: what comes first.
    let ends = [row.int_or_null(3).map_err(field)?, row.int_or_null(4).map_err(field)?];
    let expires = ends.into_iter().flatten().min();
    let instant = |ms: i64| UnixNs::from_ms(ms.max(0).cast_unsigned()).unwrap_or(UnixNs::NEVER);
    Ok(Key {
        number: row.int(5).map_err(field)?,
        account: row.int(6).map_err(field)?,
        public_id,
        secret_hash: SecretHash(
            secret_hash.map_err(|_| damaged("the hash of its secret is not 32 bytes long".to_owned()))?,
        ),
        v2_request: v2.request,
        v2_answer: v2.answer,
        tier: Tier {
            name: row.text(9).map_err(field)?.to_owned(),
            unlimited: row.int::<i64>(10).map_err(field)? != 0,
            qps: row.int(11).map_err(field)?,
            burst: row.int(12).map_err(field)?,
            monthly: row.int_or_null(13).map_err(field)?.map(i64::unsigned_abs),
        },
        networks: networks.map_err(|error| damaged(error.to_string()))?,
        admin: row.int::<i64>(8).map_err(field)? != 0,
        expires: expires.map_or(UnixNs::NEVER, instant),
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
