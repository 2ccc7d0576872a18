//! Accounts and keys in the store.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::error::sqlite;
use super::instance_key::{InstanceKey, V2Pair};
use super::{Store, StoreError};
use crate::account::{Key, Network, PUBLIC_TEXT_LEN, SecretHash, TOKEN_LEN, Tier, Token, public_text};

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
    pub fn add_key(&mut self, new: &NewKey) -> Result<Token, StoreError> {
        let doing = || sqlite("add a key");
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing())?;
        let token = insert(&change, self.instance_key.as_ref(), &self.folder, new)?;
        change.commit().map_err(doing())?;
        Ok(token)
    }

    /// On the very first start, when there never was a key, makes one: account `operator`, tier
    /// `partner`, an admin's. `deliver` shows or writes down its token; if that fails no key is made, so that
    /// there never is one nobody has.
    ///
    /// # Errors
    /// `deliver` failed, or the database refused.
    pub fn first_key(
        &mut self,
        deliver: impl FnOnce(&Token) -> Result<(), StoreError>,
    ) -> Result<Option<Token>, StoreError> {
        let doing = || sqlite("make the first key");
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing())?;
        let any = "SELECT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'keys')";
        if change.query_row(any, [], |row| row.get(0)).map_err(doing())? {
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
        let token = insert(&change, self.instance_key.as_ref(), &self.folder, &new)?;
        deliver(&token)?;
        change.commit().map_err(doing())?;
        Ok(Some(token))
    }

    /// All keys, oldest first, revoked ones too.
    ///
    /// # Errors
    /// The database refused.
    pub fn list_keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        rows(&self.db, None)
    }

    /// Revokes the one key whose public text is `text` or begins so; `tb_` may be left out, and a
    /// whole token will do. Keys already revoked count only where no live one begins so.
    ///
    /// # Errors
    /// No key or several begin so, or the database refused.
    pub fn revoke(&mut self, text: &str) -> Result<Revoked, StoreError> {
        let doing = || sqlite("revoke the key");
        let prefix = public_prefix(text)?;
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing())?;
        let mut found = rows(&change, None)?;
        found.retain(|row| row.key.starts_with(&prefix));
        if found.iter().any(|row| row.revoked.is_none()) {
            found.retain(|row| row.revoked.is_none());
        }
        let key = match found.as_slice() {
            [] => return Err(StoreError::UnknownKey { found: prefix }),
            [key] => key,
            several => {
                let matches = several.iter().map(|row| row.key.clone()).collect();
                return Err(StoreError::AmbiguousKey { found: prefix, matches });
            }
        };
        let revoke = "UPDATE keys SET revoked_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
                      WHERE id = ?1 AND revoked_ms IS NULL";
        let changed = change.execute(revoke, params![key.number]).map_err(doing())?;
        let now = rows(&change, Some(key.number))?.pop();
        change.commit().map_err(doing())?;
        Ok(Revoked { key: now.unwrap_or_else(|| key.clone()), already: changed == 0 })
    }

    /// The live keys, for a [`KeyTable`](crate::account::KeyTable).
    ///
    /// # Errors
    /// A row is damaged, this store was opened without its instance key, or the database refused.
    pub fn load_keys(&self) -> Result<Vec<Key>, StoreError> {
        let doing = || sqlite("load the keys");
        let instance_key = present(self.instance_key.as_ref(), &self.folder)?;
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT k.public_id, k.id, k.account_id, k.secret_hash, k.v2_sealed, k.networks,
                        t.name, t.unlimited, t.qps, t.burst, t.monthly_cap, k.admin
                 FROM keys k JOIN tiers t ON t.name = k.tier WHERE k.revoked_ms IS NULL ORDER BY k.id",
            )
            .map_err(doing())?;
        let mut rows = statement.query([]).map_err(doing())?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next().map_err(doing())? {
            keys.push(live_key(row, instance_key)?);
        }
        Ok(keys)
    }

    /// Rises with every change to keys and tiers, whichever process made it. Read it before
    /// [`load_keys`](Self::load_keys): a change between the two is then seen again, not missed.
    ///
    /// # Errors
    /// The database refused.
    pub fn keys_version(&self) -> Result<u64, StoreError> {
        let doing = || sqlite("look for changed keys");
        self.db
            .prepare_cached("SELECT value FROM instance WHERE name = 'keys_version'")
            .map_err(doing())?
            .query_row([], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(doing())
    }

    /// The sealed part of one live key, if there is any.
    pub(super) fn any_sealed(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.db
            .query_row("SELECT public_id, v2_sealed FROM keys WHERE revoked_ms IS NULL LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
            })
            .optional()
            .map_err(sqlite("look at the keys"))
    }
}

fn present<'a>(
    key: Option<&'a InstanceKey>,
    folder: &std::path::Path,
) -> Result<&'a InstanceKey, StoreError> {
    key.ok_or_else(|| StoreError::InstanceKeyMissing { path: folder.join("instance.key") })
}

fn insert(
    change: &Transaction<'_>,
    instance_key: Option<&InstanceKey>,
    folder: &std::path::Path,
    new: &NewKey,
) -> Result<Token, StoreError> {
    let doing = || sqlite("add a key");
    let instance_key = present(instance_key, folder)?;
    check_text("account name", &new.account, 1, NAME_LEN_MAX)?;
    check_text("note", &new.note, 0, NOTE_LEN_MAX)?;
    check_tier(change, &new.tier)?;
    // An update that changes nothing, so that the row's number comes back also when it was there.
    let account: i64 = change
        .query_row(
            "INSERT INTO accounts (name, created_ms) VALUES (?1, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
            params![new.account],
            |row| row.get(0),
        )
        .map_err(doing())?;
    let token = Token::generate().map_err(|_| StoreError::NoRandomness)?;
    let pair = V2Pair { request: token.v2_request_key(), answer: token.v2_answer_key() };
    let networks: Vec<String> = new.networks.iter().map(ToString::to_string).collect();
    change
        .execute(
            "INSERT INTO keys (account_id, public_id, secret_hash, v2_sealed, tier, networks, note, admin, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, CAST(unixepoch('subsec') * 1000 AS INTEGER))",
            params![
                account,
                token.public_id().cast_signed(),
                token.secret_hash().0,
                instance_key.seal(token.public_id(), &pair)?,
                new.tier,
                networks.join(" "),
                new.note,
                new.admin,
            ],
        )
        .map_err(doing())?;
    Ok(token)
}

fn check_text(what: &'static str, text: &str, len_min: usize, len_max: usize) -> Result<(), StoreError> {
    let len = text.chars().count();
    if len < len_min || len > len_max || text.chars().any(char::is_control) || text.trim() != text {
        return Err(StoreError::BadText { what, len_max });
    }
    Ok(())
}

fn check_tier(db: &Connection, tier: &str) -> Result<(), StoreError> {
    let doing = || sqlite("look at the tiers");
    let mut statement = db.prepare("SELECT name FROM tiers ORDER BY rowid").map_err(doing())?;
    let known = statement.query_map([], |row| row.get(0)).map_err(doing())?;
    let known: Vec<String> = known.collect::<Result<_, _>>().map_err(doing())?;
    if known.iter().any(|name| name == tier) {
        return Ok(());
    }
    Err(StoreError::UnknownTier { found: tier.to_owned(), known })
}

/// All rows, or the one of a key's number.
fn rows(db: &Connection, number: Option<u32>) -> Result<Vec<KeyRow>, StoreError> {
    let doing = || sqlite("list the keys");
    let mut statement = db
        .prepare(
            "SELECT k.public_id, k.id, a.name, k.tier, k.networks, k.note,
                    strftime('%Y-%m-%dT%H:%M:%SZ', k.created_ms / 1000, 'unixepoch'),
                    strftime('%Y-%m-%dT%H:%M:%SZ', k.revoked_ms / 1000, 'unixepoch'),
                    k.admin
             FROM keys k JOIN accounts a ON a.id = k.account_id
             WHERE ?1 IS NULL OR k.id = ?1 ORDER BY k.id",
        )
        .map_err(doing())?;
    let rows = statement
        .query_map(params![number], |row| {
            let networks: String = row.get(4)?;
            Ok(KeyRow {
                key: public_text(row.get::<_, i64>(0)?.cast_unsigned()),
                number: row.get(1)?,
                account: row.get(2)?,
                tier: row.get(3)?,
                networks: networks.split_whitespace().map(ToOwned::to_owned).collect(),
                note: row.get(5)?,
                created: row.get(6)?,
                revoked: row.get(7)?,
                admin: row.get(8)?,
            })
        })
        .map_err(doing())?;
    rows.collect::<Result<_, _>>().map_err(doing())
}

fn live_key(row: &Row<'_>, instance_key: &InstanceKey) -> Result<Key, StoreError> {
    let public_id = row.get::<_, i64>(0).map_err(sqlite("load the keys"))?.cast_unsigned();
    let damaged = |what: String| StoreError::DamagedKey { key: public_text(public_id), what };
    let field = |error: rusqlite::Error| damaged(error.to_string());
    let sealed: Vec<u8> = row.get(4).map_err(field)?;
    let v2 = instance_key
        .unseal(public_id, &sealed)
        .ok_or_else(|| damaged("its v2 keys do not open under instance.key".to_owned()))?;
    let networks: String = row.get(5).map_err(field)?;
    let networks = networks.split_whitespace().map(str::parse).collect::<Result<Vec<Network>, _>>();
    Ok(Key {
        number: row.get(1).map_err(field)?,
        account: row.get(2).map_err(field)?,
        public_id,
        secret_hash: SecretHash(row.get(3).map_err(field)?),
        v2_request: v2.request,
        v2_answer: v2.answer,
        tier: Tier {
            name: row.get(6).map_err(field)?,
            unlimited: row.get(7).map_err(field)?,
            qps: row.get(8).map_err(field)?,
            burst: row.get(9).map_err(field)?,
            monthly: row.get::<_, Option<i64>>(10).map_err(field)?.map(i64::unsigned_abs),
        },
        networks: networks.map_err(|error| damaged(error.to_string()))?,
        admin: row.get(11).map_err(field)?,
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
