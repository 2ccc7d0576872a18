//! `beast feeds list|verify`: the exchanges' rows as they are in force, and whether they work.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use beast::appliance::{FeedSetup, StartError, Verified, Verify, feed_setup, verify};
use beast::feed::Row;
use beast::time::{Clock as _, RealClock, UnixNs};
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

    /// Dial exchanges and show how far each goes, up to its first price
    Verify {
        /// Exchanges to try, switched on or not; without one: all that are switched on
        #[arg(value_name = "NAME")]
        names: Vec<String>,

        /// Seconds each may take to its first price
        #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,

        /// Print JSON, for programs
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// Carries out `beast feeds`.
pub(crate) fn run(args: &FeedsArgs) -> Outcome {
    let (json, settings) = match &args.command {
        FeedsCommand::List { json, settings } => (json, settings),
        FeedsCommand::Verify { names, timeout, json, settings } => {
            let asked = Verify { names: names.clone(), timeout: Duration::from_secs(*timeout) };
            return try_out(&asked, *json, settings);
        }
    };
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

/// Carries out `beast feeds verify`: exit 1 when an exchange does not work.
fn try_out(asked: &Verify, json: bool, settings: &SettingsArgs) -> Outcome {
    let config = settings.load()?.config;
    // For people who wait; what matters goes to standard output.
    let _closed =
        writeln!(io::stderr(), "trying exchanges, each for at most {} s …", asked.timeout.as_secs());
    let all = verify(&config, asked).map_err(|StartError { what, cure }| Failure::usage(what, cure))?;
    let text = if json {
        let rows: Vec<_> = all.iter().map(verified_json).collect();
        format!("{:#}\n", json!({ "feeds": rows }))
    } else {
        all.iter().map(|one| verified_text(one, RealClock.now().unix)).collect()
    };
    print(&text)?;
    let failed: Vec<_> = all.iter().filter(|one| one.problem.is_some()).map(|one| &*one.exchange).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let what = format!("{} of {} exchanges failed: {}", failed.len(), all.len(), failed.join(", "));
    Err(Failure::runtime(what, "see what is said of each above").into())
}

fn verified_json(one: &Verified) -> serde_json::Value {
    let first = one.first.as_ref().map(|first| {
        json!({
            "symbol": first.symbol,
            "price": first.price.to_string(),
            "ts": first.time.ms(),
            "after_ms": u64::try_from(first.after.as_millis()).unwrap_or(u64::MAX),
        })
    });
    let refused: Vec<_> =
        one.refused.iter().map(|r| json!({"symbol": r.symbol, "message": r.words})).collect();
    json!({
        "exchange": one.exchange,
        "url": one.url,
        "ok": one.problem.is_none(),
        "connections": {
            "needed": one.connections,
            "connected": one.connected,
            "upgraded": one.upgraded,
            "subscribed": one.subscribed,
        },
        "listings": { "needed": one.listings, "live": one.live, "acked": one.acked, "refused": refused },
        "first_price": first,
        "problem": one.problem.as_ref().map(|p| json!({"what": p.what, "cure": p.cure})),
    })
}

fn verified_text(one: &Verified, now: UnixNs) -> String {
    let verdict = if one.problem.is_none() { "ok" } else { "FAILED" };
    let steps = [("connected", one.connected), ("upgraded", one.upgraded), ("subscribed", one.subscribed)];
    // Up to the first that is missing: it could not come further.
    let reached = steps.iter().position(|(_, count)| *count == 0).map_or(steps.len(), |missing| missing + 1);
    let step = |(name, count): &(&str, usize)| match one.connections {
        1 if *count == 1 => (*name).to_owned(),
        1 => format!("not {name}"),
        needed => format!("{name} {count}/{needed}"),
    };
    let steps: Vec<_> = steps[..reached].iter().map(step).collect();
    let mut text = format!("{:<14} {verdict:<7}", one.exchange);
    let mut lines = Vec::new();
    if one.connections > 0 {
        let acked = match one.acked {
            0 => String::new(),
            acked => format!(", {acked} more accepted"),
        };
        lines.push(format!("{}; live {}/{}{acked}", steps.join(", "), one.live, one.listings));
    }
    if let Some(first) = &one.first {
        let age = Duration::from_nanos(now.0.saturating_sub(first.time.0));
        lines.push(format!(
            "first price: {} {}, traded {} UTC ({:.1} s ago), {:.2} s after dialling",
            first.symbol,
            first.price,
            time_of_day(first.time),
            age.as_secs_f64(),
            first.after.as_secs_f64()
        ));
    }
    for refused in &one.refused {
        lines.push(format!("refused: {} ({})", refused.symbol, refused.words));
    }
    if let Some(problem) = &one.problem {
        lines.push(format!("{}: {}", one.url, problem.what));
        lines.push(format!("what to do: {}", problem.cure));
    }
    for (index, line) in lines.iter().enumerate() {
        let _ = match index {
            0 => writeln!(text, " {line}"),
            _ => writeln!(text, "{:23}{line}", ""),
        };
    }
    text
}

fn time_of_day(time: UnixNs) -> String {
    let ms = time.ms() % 86_400_000;
    let (s, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60)
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
