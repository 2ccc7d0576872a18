//! `beast keys`: makes keys, shows them and changes what they may do.

use std::io::{self, Write as _};
use std::time::Duration;

use beast::account::Network;
use beast::store::{KeyRow, NewKey, Store, StoreError, StoreOptions};
use beast::time::UnixNs;
use clap::{Args, Subcommand};

use super::{Failure, Outcome, SettingsArgs, print};

mod tiers;
mod when;

/// Arguments of `beast keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key and print it, once
    Add(AddArgs),
    /// List all keys, revoked ones too
    List(ListArgs),
    /// Revoke a key for ever
    Revoke(RevokeArgs),
    /// Give a key another tier
    SetTier(SetTierArgs),
    /// Say from when on a key may not be used
    SetExpiry(SetExpiryArgs),
    /// Give a key a new secret and print it, once; the old one goes on for a while
    Rotate(RotateArgs),
    /// Change the note of a key
    Note(NoteArgs),
    /// List the tiers, or make and change them
    Tiers(tiers::TiersArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The account it belongs to; made if there is none of that name.
    #[arg(long, value_name = "NAME", default_value = "operator")]
    account: String,
    /// What it may use: one of `beast keys tiers`.
    #[arg(long, value_name = "TIER", default_value = "basic")]
    tier: String,
    /// From where it may use UDP v1, such as 10.0.0.0/8; may be repeated. Without one: from
    /// everywhere, or, in an unlimited tier, from loopback and private networks.
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<Network>,
    /// From when on it may not be used: 2027-01-31 or 2027-01-31T18:00:00 (UTC), 90d or 24h from now,
    /// never.
    #[arg(long, value_name = "WHEN", value_parser = when::expiry, default_value = "never")]
    expires: Expiry,
    /// What you want to remember about it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// Lets it see every key's usage in reports, and /reports/reconcile
    #[arg(long)]
    admin: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// As a JSON array
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The key as `beast keys list` shows it, or a beginning that no other key has.
    #[arg(value_name = "PUBLIC_ID|PREFIX")]
    key: String,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct SetTierArgs {
    /// The key as `beast keys list` shows it, or a beginning that no other key has.
    #[arg(value_name = "PUBLIC_ID|PREFIX")]
    key: String,
    /// One of `beast keys tiers`.
    #[arg(value_name = "TIER")]
    tier: String,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct SetExpiryArgs {
    /// The key as `beast keys list` shows it, or a beginning that no other key has.
    #[arg(value_name = "PUBLIC_ID|PREFIX")]
    key: String,
    /// 2027-01-31 or 2027-01-31T18:00:00 (UTC), 90d or 24h from now, never.
    #[arg(value_name = "WHEN", value_parser = when::expiry)]
    expires: Expiry,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// The key as `beast keys list` shows it, or a beginning that no other key has.
    #[arg(value_name = "PUBLIC_ID|PREFIX")]
    key: String,
    /// How long the old secret goes on beside the new one: 24h, 30m, 7d; 0s ends all old ones at once.
    #[arg(long, value_name = "LENGTH", value_parser = when::duration, default_value = "24h")]
    overlap: Duration,

    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct NoteArgs {
    /// The key as `beast keys list` shows it, or a beginning that no other key has.
    #[arg(value_name = "PUBLIC_ID|PREFIX")]
    key: String,
    /// The new note; an empty one removes it.
    #[arg(value_name = "TEXT")]
    note: String,

    #[command(flatten)]
    settings: SettingsArgs,
}

/// From when on a key may not be used; a name of its own, because clap reads a bare `Option` as an
/// argument that may be left out.
type Expiry = Option<UnixNs>;

/// Carries out `beast keys`: results on standard output, remarks on standard error.
pub(crate) fn run(args: &KeysArgs) -> Outcome {
    let settings = match &args.command {
        KeysCommand::Add(add) => &add.settings,
        KeysCommand::List(list) => &list.settings,
        KeysCommand::Revoke(revoke) => &revoke.settings,
        KeysCommand::SetTier(set) => &set.settings,
        KeysCommand::SetExpiry(set) => &set.settings,
        KeysCommand::Rotate(rotate) => &rotate.settings,
        KeysCommand::Note(note) => &note.settings,
        KeysCommand::Tiers(tiers) => tiers.settings(),
    };
    let store = settings.load()?.config.store_options();
    let said = execute(args, &store).map_err(failure)?;
    // The token matters, the remark does not.
    let _ = io::stderr().write_all(said.remark.as_bytes());
    Ok(print(&said.result)?)
}

fn failure(error: StoreError) -> Failure {
    let (what, cure) = (error.what(), error.cure());
    match error {
        StoreError::UnknownTier { .. }
        | StoreError::BadText { .. }
        | StoreError::EmptyTier { .. }
        | StoreError::NotAKey { .. } => Failure::usage(what, cure),
        _ => Failure::runtime(what, cure),
    }
}

#[derive(Debug, Default)]
struct Said {
    result: String,
    remark: String,
}

fn execute(args: &KeysArgs, store: &StoreOptions) -> Result<Said, StoreError> {
    match &args.command {
        KeysCommand::Add(args) => add(args, store),
        KeysCommand::List(args) => list(args, store),
        KeysCommand::Revoke(args) => revoke(args, store),
        KeysCommand::SetTier(args) => {
            let key = Store::open_existing(store)?.set_key_tier(&args.key, &args.tier)?;
            let result = format!("Tier of {} is {} now.\n", named(&key), key.tier);
            Ok(Said { result, remark: IN_FORCE.to_owned() })
        }
        KeysCommand::SetExpiry(args) => {
            let key = Store::open_existing(store)?.set_key_expiry(&args.key, args.expires)?;
            let when = key.expires.as_deref().unwrap_or("never");
            Ok(Said { result: format!("Expiry of {}: {when}.\n", named(&key)), remark: IN_FORCE.to_owned() })
        }
        KeysCommand::Rotate(args) => rotate(args, store),
        KeysCommand::Note(args) => {
            let key = Store::open_existing(store)?.set_key_note(&args.key, &args.note)?;
            Ok(Said { result: format!("Noted: {}.\n", named(&key)), ..Said::default() })
        }
        KeysCommand::Tiers(args) => args.execute(store),
    }
}

const IN_FORCE: &str = "A running server holds it to that within two seconds.\n";

/// A key as messages call it.
fn named(row: &KeyRow) -> String {
    let note = if row.note.is_empty() { String::new() } else { format!(", \"{}\"", row.note) };
    format!("{}… of account '{}'{note}", row.key, row.account)
}

fn add(args: &AddArgs, store: &StoreOptions) -> Result<Said, StoreError> {
    let store = Store::open(store)?;
    let token = store.add_key(&NewKey {
        account: args.account.clone(),
        tier: args.tier.clone(),
        networks: args.networks.clone(),
        note: args.note.clone(),
        admin: args.admin,
        expires: args.expires,
    })?;
    Ok(Said {
        result: format!("{}\n", token.reveal()),
        remark: format!(
            "A new key for account '{}', tier {}. Keep it now: it is not stored and cannot be shown again.\n",
            args.account, args.tier
        ),
    })
}

fn rotate(args: &RotateArgs, store: &StoreOptions) -> Result<Said, StoreError> {
    let rotated = Store::open(store)?.rotate_key(&args.key, args.overlap)?;
    let old = match rotated.key.old.last() {
        Some(old) => format!("{}… goes on until {}", old.key, old.until),
        None => "the old one ends within two seconds".to_owned(),
    };
    Ok(Said {
        result: format!("{}\n", rotated.token.reveal()),
        remark: format!(
            "A new secret for {}; {old}. Keep it now: it is not stored and cannot be shown again.\n",
            named(&rotated.key)
        ),
    })
}

fn list(args: &ListArgs, store: &StoreOptions) -> Result<Said, StoreError> {
    let rows = Store::open_existing(store)?.list_keys()?;
    let result = if args.json { json(&rows) } else { table(&rows) };
    let remark = if rows.is_empty() { "There is no key yet: make one with `beast keys add`.\n" } else { "" };
    Ok(Said { result, remark: remark.to_owned() })
}

fn revoke(args: &RevokeArgs, store: &StoreOptions) -> Result<Said, StoreError> {
    let revoked = Store::open_existing(store)?.revoke(&args.key)?;
    let named = named(&revoked.key);
    let result = if revoked.already {
        let at = revoked.key.revoked.as_deref().unwrap_or("an unknown time");
        format!("{named} was revoked before, at {at}.\n")
    } else {
        format!("Revoked {named}. A running server refuses it within two seconds.\n")
    };
    Ok(Said { result, remark: String::new() })
}

fn json(rows: &impl serde::Serialize) -> String {
    // Strings and numbers only: there is nothing in a row that JSON could refuse.
    serde_json::to_string_pretty(rows).map(|text| text + "\n").unwrap_or_default()
}

fn table(rows: &[KeyRow]) -> String {
    let head = ["KEY", "ACCOUNT", "TIER", "STATE", "EXPIRES", "USED", "NETWORKS", "CREATED", "NOTE"];
    let mut lines = vec![head.map(str::to_owned)];
    for row in rows {
        let networks = if row.networks.is_empty() { "-".to_owned() } else { row.networks.join(",") };
        let state = match &row.revoked {
            Some(at) => format!("revoked {at}"),
            None if row.expired => "expired".to_owned(),
            None if row.admin => "live, admin".to_owned(),
            None => "live".to_owned(),
        };
        let text = |text: &str| text.to_owned();
        lines.push([
            format!("{}…", row.key),
            text(&row.account),
            text(&row.tier),
            state,
            text(row.expires.as_deref().unwrap_or("-")),
            row.used_this_month.to_string(),
            networks,
            text(&row.created),
            text(&row.note),
        ]);
        for old in row.old.iter().filter(|_| row.revoked.is_none()) {
            let mut line: [String; 9] = Default::default();
            line[0] = format!("{}…", old.key);
            line[3] = text("replaced");
            line[4] = text(&old.until);
            lines.push(line);
        }
    }
    columns(&lines)
}

/// Lines of cells, each column as wide as its widest cell.
fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
