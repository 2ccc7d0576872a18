//! Exchange rows and assets as the configuration wants them.

use std::fs;
use std::path::Path;

use beast::config::Config;
use beast::feed::data::{FeedData, Overrides, load_from};
use toml::{Table, Value};

use super::Failure;

/// The built-in rows and assets, or the files that take their place, with `[feeds.…]` and
/// `[assets.…]` put over them.
pub(crate) fn load(config: &Config) -> Result<FeedData, Failure> {
    let cure = "correct [feeds.…] or [assets.…] of the configuration; `beast config print` shows where each \
                value came from";
    let rows = config.feeds_file.as_deref().map(|path| read(path, "feeds_file")).transpose()?;
    let assets = config.assets_file.as_deref().map(|path| read(path, "assets_file")).transpose()?;
    let overrides = overrides(config).map_err(|what| Failure::usage(what, cure))?;
    load_from(rows.as_deref(), assets.as_deref(), &overrides)
        .map_err(|error| Failure::usage(error.to_string(), cure))
}

fn read(path: &Path, setting: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::usage(
            format!("{setting} {} cannot be read: {error}", path.display()),
            format!("correct {setting}, or leave it out for what is built in"),
        )
    })
}

fn overrides(config: &Config) -> Result<Overrides, String> {
    let named = |member: &str, name: &str, table: &Table| {
        let mut table = table.clone();
        table.insert(member.to_owned(), Value::String(name.to_owned()));
        table
    };
    let exchange = config.feeds.iter().map(|(name, table)| named("name", name, table)).collect();
    let asset = config.assets.iter().map(|(symbol, table)| {
        let said =
            |e: toml::de::Error| format!("assets.{symbol}: {}", e.to_string().trim_end().replace('\n', " "));
        named("asset", symbol, table).try_into().map_err(said)
    });
    Ok(Overrides { exchange, asset: asset.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let built_in = load(&Config::default()).unwrap();
        let row = |data: &FeedData| data.rows.iter().find(|row| row.name == "okx").unwrap().clone();
        let changed = load(&config(
            "[feeds.okx]\nurl = 'ws://127.0.0.1:9/'\nrest.per_second = 3\n[assets.BTC]\nenabled = false",
        ))
        .unwrap();
        assert_eq!(row(&changed).url, "ws://127.0.0.1:9/");
        let (before, after) = (row(&built_in).rest.unwrap(), row(&changed).rest.unwrap());
        assert_eq!((after.per_second, after.url), (3, before.url));
        assert_eq!(changed.catalogue.assets().len() + 1, built_in.catalogue.assets().len());
    }

    #[test]
    fn mistakes_name_the_exchange_or_asset() {
        let said = |text: &str| load(&config(text)).unwrap_err().to_string();
        assert!(said("[feeds.okx]\nurll = 'x'").contains("okx"));
        assert!(said("[assets.BTC]\nlisting = []").contains("assets.BTC: "));
        let missing = Config { assets_file: Some("no/such.csv".into()), ..Config::default() };
        let said = load(&missing).unwrap_err().to_string();
        assert!(said.contains("assets_file no/such.csv cannot be read: No such file"), "{said}");
    }
}
