//! What a report is asked for: parameters in, a checked query out. HTTP, UDP and the command line
//! all come through here.

use super::cursor::{Cursor, CursorError, PLACES_MAX, checksum};
use super::format::Format;
use super::names::Names;
use super::refusal::Refusal;
use super::table::{Kind, instant_text};
use crate::ledger::Transport;
use crate::store::UsageGroup;
use crate::time::UnixNs;
use crate::time::calendar;

/// The reports there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Which {
    /// Roll-ups, one row per second, key, asset, exchange, transport and status.
    Usage = 1,
    /// Single records.
    Detail = 2,
    /// Roll-ups added up by chosen columns.
    UsageSummary = 3,
    /// All of a period on one page.
    Summary = 4,
    /// Whether the books close.
    Reconcile = 5,
}

impl Which {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Usage, Self::Detail, Self::UsageSummary, Self::Summary, Self::Reconcile];

    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|which| *which as u8 == number)
    }

    /// Its name in answers and its command under `beast report`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Detail => "detail",
            Self::UsageSummary => "usage-summary",
            Self::Summary => "summary",
            Self::Reconcile => "reconcile",
        }
    }

    /// Its path over HTTP.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Usage => "/reports/usage",
            Self::Detail => "/reports/usage/detail",
            Self::UsageSummary => "/reports/usage/summary",
            Self::Summary => "/reports/summary",
            Self::Reconcile => "/reports/reconcile",
        }
    }

    /// The parameters it takes, beside `format`.
    fn parameters(self) -> &'static [&'static str] {
        const PAGED: &[&str] =
            &["from", "to", "key", "asset", "exchange", "transport", "status", "limit", "cursor"];
        match self {
            Self::Usage | Self::Detail => PAGED,
            Self::UsageSummary => {
                &["from", "to", "key", "asset", "exchange", "transport", "status", "limit", "cursor", "by"]
            }
            Self::Summary => &["from", "to", "key", "asset", "exchange", "transport", "status"],
            Self::Reconcile => &["from", "to"],
        }
    }
}

/// The name of a group in `by=`, and of its column.
#[must_use]
pub fn group_name(group: UsageGroup) -> &'static str {
    match group {
        UsageGroup::Day => "day",
        UsageGroup::Hour => "hour",
        UsageGroup::Key => "key",
        UsageGroup::Asset => "asset",
        UsageGroup::Exchange => "exchange",
        UsageGroup::Transport => "transport",
        UsageGroup::Status => "status",
    }
}

const _: () = assert!(UsageGroup::ALL.len() <= PLACES_MAX);

/// Which usage is meant. `None` means all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Begin of the period; belongs to it.
    pub from: UnixNs,
    /// End of the period; does not belong to it.
    pub to: UnixNs,
    /// Persistent number of the key.
    pub key: Option<u32>,
    /// Persistent number of the asset.
    pub asset: Option<u16>,
    /// Persistent number of the exchange.
    pub exchange: Option<u8>,
    /// How requests came.
    pub transport: Option<Transport>,
    /// How they ended: 0 or an error's number.
    pub status: Option<u8>,
}

/// A checked query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which report.
    pub which: Which,
    /// Of which usage.
    pub filter: Filter,
    /// What a usage summary is added up by; never empty there.
    pub by: Vec<UsageGroup>,
    /// Most rows of the page.
    pub limit: usize,
    /// The form that was asked for by name.
    pub format: Option<Format>,
    /// Where the page before ended.
    pub after: Option<Vec<u64>>,
    /// Tells this query from others, whatever page of it is asked for.
    pub fingerprint: u32,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: an admin key, or somebody who may read the data folder.
    All,
    /// What one key, by number, has used.
    Key(u32),
}

/// Rows of a page where nobody says how many.
pub const LIMIT_DEFAULT: usize = 1_000;

/// Most rows of a page. More would be asked for at once than is read at once.
pub const LIMIT_MAX: usize = 10_000;

/// Longest value of a parameter, in bytes.
const VALUE_LEN_MAX: usize = 200;

const INSTANT_NEEDS: &str = "an instant in UTC such as 2026-01-31 or 2026-01-31T23:59:59Z, seconds since 1970, or how long ago: 90s, 15m, 24h, 7d";

impl Query {
    /// Reads parameters. `now` ends the period where nothing else does.
    ///
    /// # Errors
    /// A parameter is unknown, repeated or has a value it cannot have; or a key asks for what another
    /// one has used.
    pub fn parse(
        which: Which,
        parameters: &[(String, String)],
        scope: Scope,
        names: &Names,
        now: UnixNs,
    ) -> Result<Self, Refusal> {
        let mut query = Self {
            which,
            filter: Filter { to: now, ..Filter::default() },
            by: Vec::new(),
            limit: LIMIT_DEFAULT,
            format: None,
            after: None,
            fingerprint: 0,
        };
        let (mut cursor, mut ends) = (None, None);
        for (index, (name, value)) in parameters.iter().enumerate() {
            let known = which.parameters();
            if name != "format" && !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(Refusal::parameter(format!(
                    "there is no parameter {name:?} here; needs one of {known}, format"
                )));
            }
            if parameters.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(Refusal::parameter(format!("{name} is given more than once; give it once")));
            }
            if value.len() > VALUE_LEN_MAX {
                let len = value.len();
                return Err(Refusal::parameter(format!(
                    "{name} has {len} bytes; needs at most {VALUE_LEN_MAX}"
                )));
            }
            match name.as_str() {
                "from" => query.filter.from = instant("from", value, now)?,
                "to" => ends = Some(instant("to", value, now)?),
                "cursor" => cursor = Some(Cursor::parse(value).map_err(cursor_refused)?),
                "key" => query.filter.key = Some(key_of(value, scope, names)?),
                _ => query.take(name, value, names)?,
            }
        }
        if which == Which::Reconcile && !parameters.iter().any(|(name, _)| name == "from") {
            // Of older days much of the journal may be read in vain: it may be pruned.
            let day_ns = calendar::DAY_S * 1_000_000_000;
            query.filter.from = UnixNs((now.0 / day_ns).saturating_sub(1) * day_ns);
        }
        // The future has no records yet, and a fixed end lets paging end.
        query.filter.to = ends.map_or(now, |to: UnixNs| to.min(now));
        if let Scope::Key(own) = scope {
            query.filter.key = Some(own);
        }
        if which == Which::Reconcile && scope != Scope::All {
            return Err(Refusal::forbidden(
                "reconcile looks at all keys; it needs an admin key (`beast keys add --admin`)",
            ));
        }
        if which == Which::UsageSummary && query.by.is_empty() {
            query.by.push(UsageGroup::Day);
        }
        query.fingerprint = query.fingerprint_of(parameters);
        if let Some(cursor) = cursor {
            query.continue_at(cursor, now)?;
        }
        if query.filter.from > now {
            return Err(Refusal::parameter(format!(
                "from lies in the future, it is {} now; instants are in UTC, so name an earlier one",
                instant_text(now, Kind::Second)
            )));
        }
        if query.filter.from > query.filter.to {
            return Err(Refusal::parameter("from is later than to; swap them".to_owned()));
        }
        Ok(query)
    }

    /// One of the parameters that stand for themselves.
    fn take(&mut self, name: &str, value: &str, names: &Names) -> Result<(), Refusal> {
        match name {
            "asset" => self.filter.asset = Some(names.asset_number(value)?),
            "exchange" => self.filter.exchange = Some(names.exchange_number(value)?),
            "transport" => self.filter.transport = Some(names.transport(value)?),
            "status" => self.filter.status = Some(names.status_number(value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                self.limit = limit.ok_or_else(|| {
                    Refusal::parameter(format!("limit is {value:?}; needs a number from 1 to {LIMIT_MAX}"))
                })?;
            }
            "by" => self.by = groups(value)?,
            _ => {
                self.format = Some(Format::named(value).ok_or_else(|| {
                    Refusal::parameter(format!("format is {value:?}; needs json, csv, tsv or text"))
                })?);
            }
        }
        Ok(())
    }

    /// A number that is the same for all pages of a query and different for other queries. Relative
    /// times count as they were written: `7d` stays the same while time goes on.
    fn fingerprint_of(&self, parameters: &[(String, String)]) -> u32 {
        let mut said: Vec<_> = parameters
            .iter()
            .filter(|(name, _)| !["cursor", "limit", "format"].contains(&name.as_str()))
            .collect();
        said.sort();
        let key = self.filter.key.map_or_else(String::new, |key| key.to_string());
        checksum(format!("{said:?} {key}").as_bytes())
    }

    fn continue_at(&mut self, cursor: Cursor, now: UnixNs) -> Result<(), Refusal> {
        let places = match self.which {
            Which::Usage => 6,
            Which::Detail => 3,
            Which::UsageSummary => self.by.len(),
            Which::Summary | Which::Reconcile => 0,
        };
        if cursor.which != self.which {
            return Err(cursor_refused(CursorError::OtherReport));
        }
        if cursor.fingerprint != self.fingerprint {
            return Err(cursor_refused(CursorError::OtherQuery));
        }
        if cursor.place.len() != places {
            return Err(cursor_refused(CursorError::Damaged));
        }
        self.filter.from = cursor.from;
        self.filter.to = cursor.to.min(now);
        self.after = Some(cursor.place);
        Ok(())
    }

    /// The cursor to the page after one that ended at `place`.
    #[must_use]
    pub fn cursor(&self, place: Vec<u64>) -> String {
        let Filter { from, to, .. } = self.filter;
        Cursor { which: self.which, fingerprint: self.fingerprint, from, to, place }.text()
    }
}

/// The key that is meant. Who is no admin learns nothing of other keys, not even whether there are any
/// that begin so.
fn key_of(text: &str, scope: Scope, names: &Names) -> Result<u32, Refusal> {
    let Scope::Key(own) = scope else { return names.key_number(text) };
    let own_text = names.key_text(own);
    if own_text.starts_with(text) && text.len() > "tb_".len() {
        return Ok(own);
    }
    Err(Refusal::forbidden(&format!(
        "this key may see only its own usage ({own_text}); leave `key` out, or use an admin key"
    )))
}

fn cursor_refused(error: CursorError) -> Refusal {
    Refusal::parameter(error.to_string())
}

fn groups(value: &str) -> Result<Vec<UsageGroup>, Refusal> {
    let mut by = Vec::new();
    for name in value.split(',') {
        let Some(group) = UsageGroup::ALL.into_iter().find(|group| group_name(*group) == name) else {
            let known = UsageGroup::ALL.map(group_name).join(", ");
            return Err(Refusal::parameter(format!(
                "by is {value:?}; needs some of {known}, with commas between"
            )));
        };
        if by.contains(&group) {
            return Err(Refusal::parameter(format!("by names {name} twice; name it once")));
        }
        by.push(group);
    }
    by.sort_unstable();
    Ok(by)
}

/// An instant as people write it.
pub(super) fn instant(name: &str, text: &str, now: UnixNs) -> Result<UnixNs, Refusal> {
    let seconds = || {
        if let Some(seconds) = calendar::parse(text) {
            return Some(seconds);
        }
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if unit.bytes().all(|b| b.is_ascii_digit()) {
            // Eleven digits reach to the year 5138; more would be milliseconds.
            return if text.len() <= 11 { whole(text) } else { None };
        }
        let unit_s = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => calendar::DAY_S,
            _ => return None,
        };
        let ago = whole(digits)?.checked_mul(unit_s)?;
        Some((now.0 / 1_000_000_000).saturating_sub(ago))
    };
    seconds()
        .and_then(|seconds| seconds.checked_mul(1_000_000_000))
        .map(UnixNs)
        .ok_or_else(|| Refusal::parameter(format!("{name} is {text:?}; needs {INSTANT_NEEDS}")))
}

fn whole(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
