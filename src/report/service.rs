//! What all three ways to a report share: who asks, what there is to read, and one answer.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::detail::detail;
use super::format::{self, Format};
use super::names::Names;
use super::pages::{Page, store_refused, summary, usage, usage_summary};
use super::query::{Query, Scope, Which};
use super::reconcile::{OwnShard, reconcile};
use super::refusal::Refusal;
use super::table::{Kind, instant_text};
use crate::account::{Key, KeyTable, Token};
use crate::price::Catalogue;
use crate::store::{Store, StoreError};
use crate::time::{MonoNs, Now, UnixNs};

/// How old what is known of keys may become. A revoked key must stop within 2 s.
const KEYS_FOR: Duration = Duration::from_millis(500);

/// Reads what the shards of this process have counted, each as of one moment.
pub type ReadShards = Box<dyn Fn() -> Vec<OwnShard> + Send + Sync>;

/// Reads reports. Threads share it; every call waits for disks.
pub struct Reports {
    store: Arc<Store>,
    journal: PathBuf,
    catalogue: Catalogue,
    shards: Option<ReadShards>,
    known: Mutex<Option<Known<KeyTable>>>,
    named: Mutex<Option<Known<Names>>>,
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports").field("journal", &self.journal).finish_non_exhaustive()
    }
}

/// Something read from the store, as long as the keys there have not changed.
#[derive(Debug)]
struct Known<T> {
    version: u64,
    looked: MonoNs,
    what: Arc<T>,
}

/// A report, ready to be written in any form.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for.
    pub query: Query,
    /// What was found.
    pub page: Page,
    /// Of a reconciliation: whether all books close.
    pub closed: Option<bool>,
}

impl Reports {
    /// Reads from a store, from the journal in that folder, and from the shards of this process, if
    /// it has any.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        journal: PathBuf,
        catalogue: Catalogue,
        shards: Option<ReadShards>,
    ) -> Self {
        Self { store, journal, catalogue, shards, known: Mutex::default(), named: Mutex::default() }
    }

    /// Who holds that token, and what he may see.
    ///
    /// # Errors
    /// It is no token of a live key, or the store cannot be read.
    pub fn caller(&self, token: &[u8], now: Now) -> Result<(Key, Scope), Refusal> {
        const CURE: &str = "send a key as `Authorization: Bearer tb_…`; `beast keys add` makes one";
        let token = Token::parse(token).map_err(|e| Refusal::unauthorized(&format!("{e}; {CURE}")))?;
        let keys = self.keys(now)?;
        let key = keys.by_public_id(token.public_id()).and_then(|index| keys.key(index));
        match key {
            Some(key) if now.unix < key.expires && key.secret_hash.matches(&token.secret_hash()) => {
                let scope = if key.admin { Scope::All } else { Scope::Key(key.number) };
                Ok((key.clone(), scope))
            }
            _ => Err(Refusal::unauthorized(&format!("no live key has this text; {CURE}"))),
        }
    }

    /// As [`caller`](Self::caller), by UDP, where a token proves no source.
    ///
    /// # Errors
    /// As there, or the key may not be used from `peer`.
    pub fn caller_from(&self, token: &[u8], peer: IpAddr, now: Now) -> Result<Scope, Refusal> {
        let (key, scope) = self.caller(token, now)?;
        if key.v1_allowed_from(peer) {
            Ok(scope)
        } else {
            Err(Refusal::unauthorized("the key may not be used by UDP from this network; use HTTP"))
        }
    }

    /// One report.
    ///
    /// # Errors
    /// A parameter is wrong, the caller may not, or store or journal cannot be read.
    pub fn report(
        &self,
        which: Which,
        parameters: &[(String, String)],
        scope: Scope,
        now: Now,
    ) -> Result<Report, Refusal> {
        let names = self.names(now)?;
        let query = Query::parse(which, parameters, scope, &names, now.unix)?;
        let mut closed = None;
        let page = match which {
            Which::Usage => usage(&self.store, &query, &names)?,
            Which::UsageSummary => usage_summary(&self.store, &query, &names)?,
            Which::Summary => summary(&self.store, &query, &names)?,
            Which::Detail => detail(&self.journal, &query, &names)?,
            Which::Reconcile => {
                let shards = self.shards.as_ref();
                let (page, all_close) = reconcile(&self.store, &self.journal, shards, &query, &names)?;
                closed = Some(all_close);
                page
            }
        };
        Ok(Report { query, page, closed })
    }

    /// Names of keys, assets and exchanges.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn names(&self, now: Now) -> Result<Arc<Names>, Refusal> {
        let rows = || Ok(Names::new(self.catalogue.clone(), self.store.list_keys()?));
        self.kept(&self.named, now, rows)
    }

    fn keys(&self, now: Now) -> Result<Arc<KeyTable>, Refusal> {
        self.kept(&self.known, now, || Ok(KeyTable::new(self.store.load_keys()?)))
    }

    /// What is kept, at most half a second behind the store; read anew when keys have changed.
    fn kept<T>(
        &self,
        slot: &Mutex<Option<Known<T>>>,
        now: Now,
        read: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<Arc<T>, Refusal> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slot.as_ref()
            && now.mono.since(known.looked) < KEYS_FOR
        {
            return Ok(Arc::clone(&known.what));
        }
        // The version first: a change between the two is then seen again, not missed.
        let version = self.store.keys_version().map_err(store_refused)?;
        let what = match slot.as_ref() {
            Some(known) if known.version == version => Arc::clone(&known.what),
            _ => Arc::new(read().map_err(store_refused)?),
        };
        *slot = Some(Known { version, looked: now.mono, what: Arc::clone(&what) });
        Ok(what)
    }
}

impl Report {
    /// The whole report in one form.
    #[must_use]
    pub fn write(&self, form: Format) -> String {
        if form != Format::Json {
            return format::lines(form, &self.page.table);
        }
        let mut head = Map::new();
        let (from, to) = self.page.period;
        head.insert("report".to_owned(), self.query.which.name().into());
        head.insert("from".to_owned(), period_text(from).into());
        head.insert("to".to_owned(), period_text(to).into());
        if let Some(closed) = self.closed {
            head.insert("closed".to_owned(), Value::Bool(closed));
        }
        format::json(head, &self.page.table, self.page.next.as_deref())
    }
}

fn period_text(at: UnixNs) -> String {
    instant_text(at, Kind::Second)
}
