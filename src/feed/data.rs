//! The built-in rows and assets, what the operator's configuration changes of them, and the
//! catalogue that comes of both.
//!
//! ```text
//! rows.toml ──► [feeds.NAME] of the configuration ───► rows, checked ─┐
//! assets.csv ─► [assets.NAME] of the configuration ──► listings ──────┴─► catalogue + notes
//! ```

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::plan::Plan;
use super::row::{Row, RowError};
use super::symbols::EXCHANGE_SYMBOL_LEN_MAX;
use crate::price::{AssetId, Catalogue, CatalogueError, Currency, Exchange, ExchangeId, NameError, Symbol};

pub(super) const ROWS: &str = include_str!("rows.toml");
const ASSETS: &str = include_str!("assets.csv");
const HEADER: &str = "asset_id,asset,exchange,symbol,quote";

/// What a configuration may change. Part of the program's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Fields of exchanges. A built-in exchange is found by its `name`, and fields that are not
    /// written keep their values; any other name adds an exchange.
    #[serde(default)]
    pub exchange: Vec<toml::Table>,
    /// Assets to change, to add or to leave out.
    #[serde(default)]
    pub asset: Vec<AssetOverride>,
}

/// One asset of a configuration; a built-in one is found by its symbol.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetOverride {
    /// What clients ask for.
    pub asset: String,
    /// Persistent number; needed for a new asset only.
    #[serde(default)]
    pub id: Option<usize>,
    /// `false` leaves the asset out.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Whether a listing in another quote currency than the first one's may stand in.
    #[serde(default)]
    pub any_quote: Option<bool>,
    /// Where it is listed, preferred first; replaces all built-in ones. Needed for a new asset.
    #[serde(default)]
    pub listings: Option<Vec<ListingOverride>>,
}

/// One listing of a configuration's asset.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListingOverride {
    /// Name of the exchange.
    pub exchange: String,
    /// The exchange's own symbol.
    pub symbol: String,
    /// What the price is in.
    pub quote: String,
}

/// Rows and catalogue of a running process.
#[derive(Clone, Debug)]
pub struct FeedData {
    /// Every row, also those that are switched off.
    pub rows: Vec<Row>,
    /// The exchanges that are switched on and what they list.
    pub catalogue: Catalogue,
    /// What the operator should know: assets that were left out.
    pub notes: Vec<String>,
}

/// What is wrong with rows or assets, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError(String);

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DataError {}

impl From<RowError> for DataError {
    fn from(error: RowError) -> Self {
        Self(error.to_string())
    }
}

impl From<CatalogueError> for DataError {
    fn from(error: CatalogueError) -> Self {
        Self(error.to_string())
    }
}

impl Overrides {
    /// From TOML with `[[exchange]]` and `[[asset]]`.
    ///
    /// # Errors
    /// When it is not TOML or holds anything else.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        toml::from_str(text).map_err(|e| DataError(e.to_string()))
    }
}

/// The built-in rows and assets with `overrides`.
///
/// # Errors
/// The first mistake, with the exchange and field or the asset named.
pub fn load(overrides: &Overrides) -> Result<FeedData, DataError> {
    load_from(None, None, overrides)
}

/// As [`load`], with rows and assets that take the place of the built-in ones.
///
/// # Errors
/// As [`load`].
pub fn load_from(
    rows_toml: Option<&str>,
    assets_csv: Option<&str>,
    overrides: &Overrides,
) -> Result<FeedData, DataError> {
    let rows = rows(rows_toml.unwrap_or(ROWS), &overrides.exchange)?;
    let (catalogue, notes) = catalogue(&rows, assets_csv.unwrap_or(ASSETS), &overrides.asset)?;
    Ok(FeedData { rows, catalogue, notes })
}

/// Reads rows, changes and adds to them, and checks the result.
///
/// # Errors
/// The first mistake, with the exchange and field named.
pub fn rows(built_in: &str, changes: &[toml::Table]) -> Result<Vec<Row>, DataError> {
    let tables: Overrides = Overrides::parse(built_in)?;
    let mut tables = tables.exchange;
    for change in changes {
        let Some(name) = change.get("name").and_then(toml::Value::as_str) else {
            return Err(DataError("an [[exchange]] has no \"name\"; give the name of a built-in exchange to change it, or a new one".into()));
        };
        match tables.iter_mut().find(|t| t.get("name").and_then(toml::Value::as_str) == Some(name)) {
            Some(table) => merge(table, change),
            None => tables.push(change.clone()),
        }
    }
    let mut rows: Vec<Row> = Vec::with_capacity(tables.len());
    for table in tables {
        let name = table.get("name").and_then(toml::Value::as_str).unwrap_or("").to_owned();
        let row: Row = table.try_into().map_err(|e: toml::de::Error| {
            DataError(format!("exchange {name:?}: {}", e.to_string().trim_end().replace('\n', " ")))
        })?;
        row.check()?;
        Plan::of_feed(&row)?;
        if let Some(rest) = &row.rest {
            Plan::of_rest(&row, rest)?;
        }
        for other in &rows {
            if other.number == row.number {
                let needed = format!("a number of its own; {:?} has this one", other.name);
                return Err(row.error("number", &row.number.to_string(), &needed).into());
            }
            if other.name == row.name {
                return Err(row.error("name", &row.name, "a name that no other exchange has").into());
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Builds the catalogue of the exchanges that are switched on, and says which assets were left out.
///
/// # Errors
/// The first mistake, with the line or the asset named.
pub fn catalogue(
    rows: &[Row],
    assets_csv: &str,
    changes: &[AssetOverride],
) -> Result<(Catalogue, Vec<String>), DataError> {
    let mut assets = read_assets(assets_csv)?;
    for change in changes {
        change_asset(&mut assets, change)?;
    }
    let mut exchanges = Vec::new();
    for row in rows.iter().filter(|row| row.enabled) {
        let dead_after = Duration::from_secs(row.dead_after_s);
        exchanges.push(Exchange { id: row.id()?, name: row.name.clone(), dead_after });
    }
    let mut catalogue = Catalogue::new(exchanges)?;
    let (mut switched_off, mut unlisted) = (Vec::new(), Vec::new());
    for asset in &assets {
        if !asset.enabled {
            switched_off.push(asset.symbol.to_string());
            continue;
        }
        let mut listings: Vec<(ExchangeId, &str, Currency)> = Vec::new();
        for listing in &asset.listings {
            let Some(row) = rows.iter().find(|row| row.name == listing.exchange) else {
                let known: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
                return Err(DataError(format!(
                    "asset {}: exchange {:?} is not known; there are {}",
                    asset.symbol,
                    listing.exchange,
                    known.join(", ")
                )));
            };
            if row.enabled {
                listings.push((row.id()?, &listing.symbol, listing.quote));
            }
        }
        if listings.is_empty() {
            let names: Vec<&str> = asset.listings.iter().map(|l| l.exchange.as_str()).collect();
            unlisted.push(format!("{} ({})", asset.symbol, names.join(", ")));
            continue;
        }
        catalogue.add_asset(asset.id, asset.symbol, asset.any_quote, &listings)?;
    }
    check_symbols(rows, &catalogue)?;
    let mut notes = Vec::new();
    let mut note = |what: &str, assets: &[String]| {
        if !assets.is_empty() {
            notes.push(format!("assets left out, {what}: {}", assets.join(", ")));
        }
    };
    note("switched off by the configuration", &switched_off);
    note("no exchange that lists them is on", &unlisted);
    Ok((catalogue, notes))
}

#[derive(Debug)]
struct AssetRow {
    id: AssetId,
    symbol: Symbol,
    enabled: bool,
    any_quote: bool,
    listings: Vec<ListingRow>,
}

#[derive(Debug)]
struct ListingRow {
    exchange: String,
    symbol: String,
    quote: Currency,
}

impl ListingRow {
    /// Symbols go into JSON and URLs as they are, so only plain characters may be in them.
    fn new(exchange: &str, symbol: &str, quote: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/' | b'.' | b':');
        if symbol.is_empty() || symbol.len() > EXCHANGE_SYMBOL_LEN_MAX || !symbol.bytes().all(plain) {
            return Err(format!(
                "symbol is {symbol:?}, needs 1 to {EXCHANGE_SYMBOL_LEN_MAX} letters, digits and - _ / . :"
            ));
        }
        let quote = Currency::parse(quote).map_err(|e| e.to_string())?;
        Ok(Self { exchange: exchange.into(), symbol: symbol.into(), quote })
    }
}

fn read_assets(csv: &str) -> Result<Vec<AssetRow>, DataError> {
    let mut lines = csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let header = lines.next().map_or("", |(_, line)| line.trim());
    if header != HEADER {
        return Err(DataError(format!("the first line of the assets is {header:?}, needs {HEADER:?}")));
    }
    let mut assets: Vec<AssetRow> = Vec::new();
    for (index, line) in lines {
        let fault = |what: String| DataError(format!("assets, line {}: {what}", index + 1));
        let fields: Vec<&str> = line.trim().split(',').collect();
        let [id, symbol, exchange, text, quote] = fields[..] else {
            return Err(fault(format!("{} fields, needs {HEADER}", fields.len())));
        };
        let name = |e: NameError| fault(e.to_string());
        let number = id.parse().map_err(|_| fault(format!("asset_id is {id:?}, needs a number")))?;
        let id = AssetId::new(number).map_err(name)?;
        let symbol = Symbol::parse(symbol).map_err(name)?;
        let listing = ListingRow::new(exchange, text, quote).map_err(fault)?;
        match assets.iter_mut().find(|a| a.id == id || a.symbol == symbol) {
            Some(asset) if asset.id == id && asset.symbol == symbol => asset.listings.push(listing),
            Some(other) => {
                let (other_id, other) = (other.id.index(), other.symbol);
                return Err(fault(format!(
                    "asset {symbol} has number {number}, but {other} has {other_id}; each needs its own"
                )));
            }
            None => {
                assets.push(AssetRow {
                    id,
                    symbol,
                    enabled: true,
                    any_quote: false,
                    listings: vec![listing],
                });
            }
        }
    }
    Ok(assets)
}

fn change_asset(assets: &mut Vec<AssetRow>, change: &AssetOverride) -> Result<(), DataError> {
    let fault = |what: String| DataError(format!("asset {:?}: {what}", change.asset));
    let symbol = Symbol::parse(&change.asset).map_err(|e| fault(e.to_string()))?;
    let listings = change.listings.as_ref().map(|listings| {
        let new = |l: &ListingOverride| ListingRow::new(&l.exchange, &l.symbol, &l.quote).map_err(fault);
        listings.iter().map(new).collect::<Result<Vec<_>, _>>()
    });
    let listings = listings.transpose()?;
    if let Some(asset) = assets.iter_mut().find(|a| a.symbol == symbol) {
        if let Some(id) = change.id.filter(|id| *id != asset.id.index()) {
            return Err(fault(format!(
                "id is {id}, but its number is {} for ever; leave id out",
                asset.id.index()
            )));
        }
        asset.enabled = change.enabled.unwrap_or(asset.enabled);
        asset.any_quote = change.any_quote.unwrap_or(asset.any_quote);
        if let Some(listings) = listings {
            asset.listings = listings;
        }
        return Ok(());
    }
    let Some(id) = change.id else {
        return Err(fault(
            "it is not built in, so it needs an id, a number never used for another asset".into(),
        ));
    };
    let id = AssetId::new(id).map_err(|e| fault(e.to_string()))?;
    if let Some(other) = assets.iter().find(|a| a.id == id) {
        return Err(fault(format!("id is {}, which is {}'s; it needs its own", id.index(), other.symbol)));
    }
    assets.push(AssetRow {
        id,
        symbol,
        enabled: change.enabled.unwrap_or(true),
        any_quote: change.any_quote.unwrap_or(false),
        listings: listings.ok_or_else(|| fault("it is not built in, so it needs listings".into()))?,
    });
    Ok(())
}

/// One symbol of one exchange prices one asset only.
fn check_symbols(rows: &[Row], catalogue: &Catalogue) -> Result<(), DataError> {
    for exchange in catalogue.exchanges() {
        let folds = rows.iter().any(|row| row.name == exchange.name && row.ignore_case);
        let mut seen: Vec<String> = Vec::new();
        for listing in catalogue.listings().iter().filter(|l| l.exchange == exchange.id) {
            let symbol = if folds { listing.symbol.to_ascii_uppercase() } else { listing.symbol.clone() };
            if seen.contains(&symbol) {
                return Err(DataError(format!(
                    "exchange {:?}: symbol {symbol:?} is listed for two assets; it can price one only",
                    exchange.name
                )));
            }
            seen.push(symbol);
        }
    }
    Ok(())
}

/// Changes fields of a row; fields of its `rest` one by one.
fn merge(table: &mut toml::Table, change: &toml::Table) {
    for (key, value) in change {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(change)) => merge(inner, change),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}
