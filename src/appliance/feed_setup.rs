//! Which feeds a configuration asks for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::{Table, Value};

use crate::config::Config;
use crate::exchange_sim::{Exchange, Sim};
use crate::feed::Row;
use crate::feed::data::{self, Overrides};
use crate::price::Catalogue;

/// The rows and what they list.
#[derive(Clone, Debug)]
pub struct FeedSetup {
    /// Every row, also those that are switched off.
    pub rows: Vec<Arc<Row>>,
    /// What the rows that are switched on list.
    pub catalogue: Arc<Catalogue>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Why the feeds cannot be set up, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError(String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SetupError {}

/// Loads the built-in rows and assets with what the configuration changes; with a simulation, every
/// exchange it speaks for is pointed at it.
///
/// # Errors
/// The first mistake, with the exchange and field or the asset named.
pub fn feed_setup(config: &Config, sim: Option<&Sim>) -> Result<FeedSetup, SetupError> {
    let rows = read(config.feeds_file.as_deref(), "feeds_file")?;
    let assets = read(config.assets_file.as_deref(), "assets_file")?;
    let mut overrides = Overrides::default();
    let mut rest_bases: Vec<(String, String)> = Vec::new();
    for (name, table) in &config.feeds {
        let mut table = named("name", name, table);
        if let Some(base) = table.remove("rest_base") {
            let base = base.as_str().ok_or_else(|| {
                SetupError(format!(
                    "feeds.{name}.rest_base is {base}, needs a URL such as \"http://127.0.0.1:9000\""
                ))
            })?;
            rest_bases.push((name.clone(), base.to_owned()));
        }
        overrides.exchange.push(table);
    }
    for (symbol, table) in &config.assets {
        let said = |e: toml::de::Error| {
            SetupError(format!("assets.{symbol}: {}", e.to_string().trim_end().replace('\n', " ")))
        };
        overrides.asset.push(named("asset", symbol, table).try_into().map_err(said)?);
    }
    let mut sim_bases = Vec::new();
    if let Some(sim) = sim {
        for exchange in Exchange::ALL {
            let mut table = Table::new();
            table.insert("name".into(), Value::String(exchange.to_string()));
            table.insert("url".into(), Value::String(sim.ws_url(exchange)));
            overrides.exchange.push(table);
            sim_bases.push((exchange.to_string(), sim.rest_base(exchange)));
        }
    }
    let mut loaded = data::load_from(rows.as_deref(), assets.as_deref(), &overrides)
        .map_err(|e| SetupError(e.to_string()))?;
    for (name, base) in rest_bases {
        for row in loaded.rows.iter_mut().filter(|row| row.name == name) {
            let Some(rest) = &mut row.rest else {
                return Err(SetupError(format!(
                    "feeds.{name}.rest_base is {base:?}, but this exchange has no rest.url; give it one, or \
                     leave rest_base out"
                )));
            };
            rest.url = rebased(&rest.url, &base);
        }
    }
    // The simulation speaks for exchanges without REST, too.
    for (name, base) in sim_bases {
        let rows = loaded.rows.iter_mut().filter(|row| row.name == name);
        for rest in rows.filter_map(|row| row.rest.as_mut()) {
            rest.url = rebased(&rest.url, &base);
        }
    }
    Ok(FeedSetup {
        rows: loaded.rows.into_iter().map(Arc::new).collect(),
        catalogue: Arc::new(loaded.catalogue),
        notes: loaded.notes,
    })
}

/// A table with one more member: what it is called.
fn named(member: &str, name: &str, table: &Table) -> Table {
    let mut table = table.clone();
    table.insert(member.to_owned(), Value::String(name.to_owned()));
    table
}

/// A file that takes the place of a built-in one.
fn read(path: Option<&Path>, setting: &str) -> Result<Option<String>, SetupError> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let shown = path.display();
        SetupError(format!(
            "{setting} {shown} cannot be read: {error}; correct it, or leave it out for what is built in"
        ))
    });
    text.map(Some)
}

/// `url` with another scheme and host, and maybe a path before its own.
fn rebased(url: &str, base: &str) -> String {
    let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    format!("{}{}", base.trim_end_matches('/'), path.unwrap_or("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_takes_the_place_of_scheme_and_host() {
        let url = "https://api.exchange.com/v1/trades?s={SYMBOL}";
        assert_eq!(rebased(url, "http://[::1]:9/rest/x/"), "http://[::1]:9/rest/x/v1/trades?s={SYMBOL}");
    }

    #[test]
    fn all_seven_exchanges_are_on_and_list_all_150_assets() {
        let setup = feed_setup(&Config::default(), None).unwrap();
        assert_eq!(setup.rows.iter().filter(|row| row.enabled).count(), 7);
        assert_eq!(setup.catalogue.assets().len(), 150);
        assert_eq!(setup.notes, [""; 0]);
    }

    fn config(text: &str) -> Config {
        let tables: Table = text.parse().unwrap();
        let rows = |key: &str| {
            let table = tables.get(key).and_then(Value::as_table).into_iter().flatten();
            table.map(|(name, row)| (name.clone(), row.as_table().unwrap().clone())).collect()
        };
        Config { feeds: rows("feeds"), assets: rows("assets"), ..Config::default() }
    }

    #[test]
    fn the_configuration_reaches_rows_and_assets() {
        let text = "[feeds.okx]\nurl = 'ws://127.0.0.1:9/'\nrest_base = 'http://127.0.0.1:8'\n[assets.BTC]\nenabled = false";
        let setup = feed_setup(&config(text), None).unwrap();
        let row = setup.rows.iter().find(|row| row.name == "okx").unwrap();
        assert_eq!(row.url, "ws://127.0.0.1:9/");
        assert!(row.rest.as_ref().unwrap().url.starts_with("http://127.0.0.1:8/api/v5/"));
        assert_eq!(setup.catalogue.assets().len(), 149);
    }

    #[test]
    fn mistakes_name_the_exchange_or_asset_and_the_field() {
        let said = |text: &str| feed_setup(&config(text), None).unwrap_err().to_string();
        let error = said("[feeds.okx]\ndead_after_s = 0");
        assert!(error.contains("okx") && error.contains("dead_after_s"), "{error}");
        assert!(said("[feeds.okx]\nurll = 'x'").contains("okx"));
        assert!(said("[feeds.okx]\nrest_base = 3").contains("feeds.okx.rest_base is 3, needs a URL"));
        let error = said("[feeds.cryptocom_v2]\nrest_base = 'http://127.0.0.1:9'");
        assert!(error.contains("cryptocom_v2.rest_base") && error.contains("no rest.url"), "{error}");
        assert!(said("[assets.BTC]\nlisting = []").contains("assets.BTC: "));
        let missing = Config { assets_file: Some("no/such.csv".into()), ..Config::default() };
        let error = feed_setup(&missing, None).unwrap_err().to_string();
        assert!(error.contains("assets_file no/such.csv cannot be read: No such file"), "{error}");
    }
}
