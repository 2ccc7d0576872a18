//! `beast keys tiers`: what keys may use.

use beast::account::Tier;
use beast::store::{Store, StoreError, StoreOptions};
use clap::{Args, Subcommand};

use super::{Said, SettingsArgs, columns, json};

/// Arguments of `beast keys tiers`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct TiersArgs {
    #[command(subcommand)]
    command: Option<TiersCommand>,

    /// As a JSON array
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
enum TiersCommand {
    /// Make a tier, or change it for all keys that have it
    Set(SetArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The tier's name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Requests a second
    #[arg(long, value_name = "COUNT", required_unless_present = "unlimited")]
    qps: Option<u32>,
    /// Requests at once, after a pause; without it as many as a second allows
    #[arg(long, value_name = "COUNT")]
    burst: Option<u32>,
    /// Answers in a month of UTC; without it there is no cap
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..1 << 47))]
    monthly: Option<u64>,
    /// Count, but never refuse
    #[arg(long, conflicts_with_all = ["qps", "burst", "monthly"])]
    unlimited: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

impl TiersArgs {
    pub(super) fn settings(&self) -> &SettingsArgs {
        match &self.command {
            Some(TiersCommand::Set(set)) => &set.settings,
            None => &self.settings,
        }
    }

    pub(super) fn execute(&self, store: &StoreOptions) -> Result<Said, StoreError> {
        match &self.command {
            Some(TiersCommand::Set(args)) => set(args, store),
            None => {
                let tiers = Store::open_existing(store)?.list_tiers()?;
                let result = if self.json { json(&tiers) } else { table(&tiers) };
                Ok(Said { result, ..Said::default() })
            }
        }
    }
}

fn set(args: &SetArgs, store: &StoreOptions) -> Result<Said, StoreError> {
    let qps = args.qps.unwrap_or(0);
    let tier = Tier {
        name: args.name.clone(),
        unlimited: args.unlimited,
        qps,
        burst: args.burst.unwrap_or(qps),
        monthly: args.monthly,
    };
    let made = Store::open_existing(store)?.put_tier(&tier)?;
    let done = if made { "Made" } else { "Changed" };
    let result = format!("{done} tier {}: {}.\n", tier.name, told(&tier));
    let remark = if made { "" } else { "A running server holds its keys to it within two seconds.\n" };
    Ok(Said { result, remark: remark.to_owned() })
}

fn told(tier: &Tier) -> String {
    if tier.unlimited {
        return "unlimited, counted".to_owned();
    }
    let month = tier.monthly.map_or_else(|| "no monthly cap".to_owned(), |cap| format!("{cap} a month"));
    format!("{} a second, {} at once, {month}", tier.qps, tier.burst)
}

fn table(tiers: &[Tier]) -> String {
    let mut lines = vec![["TIER", "QPS", "BURST", "MONTHLY"].map(str::to_owned)];
    lines.extend(tiers.iter().map(|tier| {
        let limit = |count: String| if tier.unlimited { "unlimited".to_owned() } else { count };
        let monthly = tier.monthly.map_or_else(|| "-".to_owned(), |cap| cap.to_string());
        let (qps, burst) = (tier.qps.to_string(), tier.burst.to_string());
        [tier.name.clone(), limit(qps), limit(burst), limit(monthly)]
    }));
    columns(&lines)
}
