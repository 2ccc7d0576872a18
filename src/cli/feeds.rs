//! `beast feeds list`: the exchanges' rows as they are in force.

use beast::appliance::{FeedSetup, feed_setup};
use beast::feed::Row;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, SettingsArgs, print};

/// Arguments of `beast feeds`.
#[derive(Debug, Args)]
pub(crate) struct FeedsArgs {
    #[command(subcommand)]
    command: FeedsCommand,
}

#[derive(Debug, Subcommand)]
enum FeedsCommand {
    /// List every exchange's row
    List {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// Carries out `beast feeds`.
pub(crate) fn run(args: &FeedsArgs) -> Outcome {
    let FeedsCommand::List { json, settings } = &args.command;
    let data = feed_setup(&settings.load()?.config, None).map_err(|error| {
        let cure = "correct [feeds.…] or [assets.…] of the configuration; beast config print shows where each \
                    value came from";
        Failure::usage(error.to_string(), cure)
    })?;
    Ok(print(&if *json { as_json(&data) } else { as_table(&data) })?)
}

/// Assets that an exchange prices, as the first choice or as a further one.
fn assets(data: &FeedSetup, row: &Row) -> usize {
    let exchange = data.catalogue.exchange_named(&row.name).map(|exchange| exchange.id);
    data.catalogue.listings().iter().filter(|listing| Some(listing.exchange) == exchange).count()
}

fn as_json(data: &FeedSetup) -> String {
    let rows = data.rows.iter().map(|row| {
        json!({
            "number": row.number,
            "name": row.name,
            "enabled": row.enabled,
            "url": row.url,
            "assets": assets(data, row),
            "dead_after_s": row.dead_after_s,
            "rest_url": row.rest.as_ref().map(|rest| &rest.url),
        })
    });
    format!("{:#}\n", json!({"feeds": rows.collect::<Vec<_>>(), "notes": data.notes}))
}

fn as_table(data: &FeedSetup) -> String {
    let head = ["NO", "NAME", "ON", "ASSETS", "DEAD AFTER", "URL", "REST"].map(str::to_owned);
    let rows = data.rows.iter().map(|row| {
        [
            row.number.to_string(),
            row.name.clone(),
            if row.enabled { "yes" } else { "no" }.to_owned(),
            assets(data, row).to_string(),
            format!("{} s", row.dead_after_s),
            row.url.clone(),
            row.rest.as_ref().map_or_else(|| "-".to_owned(), |rest| rest.url.clone()),
        ]
    });
    let lines: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().enumerate().map(|(column, cell)| format!("{cell:0$}", width(column))).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for note in &data.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use beast::config::Config;

    #[test]
    fn every_row_is_listed_with_its_assets() {
        let data = feed_setup(&Config::default(), None).unwrap();
        let text = as_table(&data);
        assert_eq!(text.lines().filter(|line| !line.starts_with("note: ")).count(), data.rows.len() + 1);
        let json: serde_json::Value = serde_json::from_str(&as_json(&data)).unwrap();
        let rows = json["feeds"].as_array().unwrap();
        assert_eq!(rows.len(), data.rows.len());
        let coinbase = rows.iter().find(|row| row["name"] == "coinbase").unwrap();
        assert_eq!(coinbase["enabled"], true);
        assert!(coinbase["assets"].as_u64().unwrap() > 10, "{coinbase}");
        assert!(coinbase["rest_url"].as_str().unwrap().starts_with("https://"));
        let listed: u64 = rows.iter().map(|row| row["assets"].as_u64().unwrap()).sum();
        assert_eq!(listed, data.catalogue.listings().len() as u64);
    }
}
