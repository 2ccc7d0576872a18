//! `beast keys add|list|revoke`.

use std::io::{self, Write as _};
use std::path::Path;

use beast::account::Network;
use beast::store::{KeyRow, NewKey, Store, StoreError};
use clap::{Args, Subcommand};

use super::{Failure, Outcome, SettingsArgs, print};

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
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The account it belongs to; made if there is none of that name.
    #[arg(long, value_name = "NAME", default_value = "operator")]
    account: String,
    /// What it may use: free, basic, pro, lifetime, partner, stress.
    #[arg(long, value_name = "TIER", default_value = "basic")]
    tier: String,
    /// From where it may use UDP v1, such as 10.0.0.0/8; may be repeated. Without one: from
    /// everywhere, or, in an unlimited tier, from loopback and private networks.
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<Network>,
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

/// Carries out `beast keys`: results on standard output, remarks on standard error.
pub(crate) fn run(args: &KeysArgs) -> Outcome {
    let settings = match &args.command {
        KeysCommand::Add(add) => &add.settings,
        KeysCommand::List(list) => &list.settings,
        KeysCommand::Revoke(revoke) => &revoke.settings,
    };
    let said = execute(args, &settings.load()?.config.data_dir).map_err(failure)?;
    // The token matters, the remark does not.
    let _ = io::stderr().write_all(said.remark.as_bytes());
    Ok(print(&said.result)?)
}

fn failure(error: StoreError) -> Failure {
    let (what, cure) = (error.what(), error.cure());
    match error {
        StoreError::UnknownTier { .. } | StoreError::BadText { .. } | StoreError::NotAKey { .. } => {
            Failure::usage(what, cure)
        }
        _ => Failure::runtime(what, cure),
    }
}

#[derive(Debug, Default)]
struct Said {
    result: String,
    remark: String,
}

fn execute(args: &KeysArgs, data_dir: &Path) -> Result<Said, StoreError> {
    match &args.command {
        KeysCommand::Add(args) => add(args, data_dir),
        KeysCommand::List(args) => list(args, data_dir),
        KeysCommand::Revoke(args) => revoke(args, data_dir),
    }
}

fn add(args: &AddArgs, data_dir: &Path) -> Result<Said, StoreError> {
    let store = Store::open(data_dir)?;
    let token = store.add_key(&NewKey {
        account: args.account.clone(),
        tier: args.tier.clone(),
        networks: args.networks.clone(),
        note: args.note.clone(),
        admin: args.admin,
    })?;
    Ok(Said {
        result: format!("{}\n", token.reveal()),
        remark: format!(
            "A new key for account '{}', tier {}. Keep it now: it is not stored and cannot be shown again.\n",
            args.account, args.tier
        ),
    })
}

fn list(args: &ListArgs, data_dir: &Path) -> Result<Said, StoreError> {
    let rows = Store::open_existing(data_dir)?.list_keys()?;
    let result = if args.json { json(&rows) } else { table(&rows) };
    let remark = if rows.is_empty() { "There is no key yet: make one with `beast keys add`.\n" } else { "" };
    Ok(Said { result, remark: remark.to_owned() })
}

fn revoke(args: &RevokeArgs, data_dir: &Path) -> Result<Said, StoreError> {
    let revoked = Store::open_existing(data_dir)?.revoke(&args.key)?;
    let KeyRow { key, account, note, revoked: at, .. } = &revoked.key;
    let note = if note.is_empty() { String::new() } else { format!(", \"{note}\"") };
    let named = format!("{key}… of account '{account}'{note}");
    let result = if revoked.already {
        format!("{named} was revoked before, at {}.\n", at.as_deref().unwrap_or("an unknown time"))
    } else {
        format!("Revoked {named}. A running server refuses it within two seconds.\n")
    };
    Ok(Said { result, remark: String::new() })
}

fn json(rows: &[KeyRow]) -> String {
    // Strings and numbers only: there is nothing in a row that JSON could refuse.
    serde_json::to_string_pretty(rows).map(|text| text + "\n").unwrap_or_default()
}

fn table(rows: &[KeyRow]) -> String {
    const HEAD: [&str; 7] = ["KEY", "ACCOUNT", "TIER", "NETWORKS", "CREATED", "STATE", "NOTE"];
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let networks = if row.networks.is_empty() { "-".to_owned() } else { row.networks.join(",") };
        let state = match &row.revoked {
            Some(at) => format!("revoked {at}"),
            None if row.admin => "live, admin".to_owned(),
            None => "live".to_owned(),
        };
        let key = format!("{}…", row.key);
        [key, row.account.clone(), row.tier.clone(), networks, row.created.clone(), state, row.note.clone()]
    }));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use beast::account::Token;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        keys: KeysArgs,
    }

    fn parse(line: &[&str]) -> Result<KeysArgs, String> {
        let words = ["keys"].iter().chain(line);
        Line::try_parse_from(words).map(|line| line.keys).map_err(|error| error.to_string())
    }

    fn say(data: &Path, line: &[&str]) -> Result<Said, String> {
        execute(&parse(line)?, data).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_added_listed_and_revoked() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let line = [
            "add",
            "--account",
            "Ann",
            "--tier",
            "pro",
            "--network",
            "10.0.0.0/8",
            "--network",
            "::1",
            "--note",
            "desk 4",
            "--admin",
        ];
        let said = say(data, &line).unwrap();
        let token = said.result.trim_end();
        let public = &token[..16];
        assert!(Token::parse(token.as_bytes()).is_ok());
        assert!(said.remark.contains("cannot be shown again") && !said.remark.contains(token));

        let listed = say(data, &["list"]).unwrap().result;
        assert!(listed.starts_with("KEY "), "{listed}");
        let row = listed.lines().nth(1).unwrap();
        for part in [&format!("{public}…  Ann"), "pro", "10.0.0.0/8,::1/128", "live, admin", "desk 4"] {
            assert!(row.contains(part), "{row}");
        }
        assert!(!listed.contains(&token[16..]));

        let listed: serde_json::Value =
            serde_json::from_str(&say(data, &["list", "--json"]).unwrap().result).unwrap();
        assert_eq!(listed[0]["key"], public);
        assert_eq!(listed[0]["networks"][1], "::1/128");
        assert_eq!(listed[0]["revoked"], serde_json::Value::Null);

        let said = say(data, &["revoke", &public[..10]]).unwrap().result;
        assert!(said.contains(&format!("Revoked {public}… of account 'Ann', \"desk 4\".")), "{said}");
        assert!(say(data, &["list"]).unwrap().result.contains("revoked 2"));
        assert!(say(data, &["revoke", public]).unwrap().result.contains("was revoked before, at 2"));
    }

    #[test]
    fn mistakes_are_answered_with_the_cure() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let missing = say(&data.join("typo"), &["list"]).unwrap_err();
        assert!(missing.contains("--data") && !data.join("typo").exists(), "{missing}");
        assert!(say(data, &["revoke", "tb_0"]).unwrap_err().contains("there is no beast.sqlite"));

        let tier = say(data, &["add", "--tier", "gold"]).unwrap_err();
        assert_eq!(
            tier,
            "there is no tier 'gold'; choose one of free, basic, lifetime, pro, stress, partner"
        );
        assert!(say(data, &["list"]).unwrap().remark.contains("There is no key yet"));
        assert!(say(data, &["add", "--network", "10.1.0.0/8"]).unwrap_err().contains("write 10.0.0.0/8"));
        assert!(say(data, &["add", "--note", "two\nlines"]).unwrap_err().contains("one line"));
        assert!(say(data, &["add", "--account", ""]).unwrap_err().contains("account name"));
        assert!(
            say(data, &["revoke", "tb_0000000000000"])
                .unwrap_err()
                .contains("no key begins with tb_0000000000000")
        );
        assert!(parse(&["revoke"]).is_err() && parse(&[]).is_err());
    }
}
