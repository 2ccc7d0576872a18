use std::path::Path;

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
    execute(&parse(line)?, &data.into()).map_err(|error| error.to_string())
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
    assert_eq!(tier, "there is no tier 'gold'; choose one of free, basic, lifetime, pro, stress, partner");
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

#[test]
fn a_key_changes_its_tier_its_note_and_its_end() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let line = ["add", "--account", "Ann", "--tier", "free", "--expires", "2100-01-31", "--note", "desk 4"];
    let token = say(data, &line).unwrap().result;
    let public = &token[..16];
    let row = |data| say(data, &["list"]).unwrap().result.lines().nth(1).unwrap().to_owned();
    assert!(row(data).contains("free  live   2100-01-31T00:00:00Z  0 "), "{}", row(data));

    let said = say(data, &["set-tier", public, "pro"]).unwrap();
    assert_eq!(said.result, format!("Tier of {public}… of account 'Ann', \"desk 4\" is pro now.\n"));
    assert!(said.remark.contains("two seconds"));
    let said = say(data, &["note", &public[..9], "desk 5"]).unwrap();
    assert_eq!(said.result, format!("Noted: {public}… of account 'Ann', \"desk 5\".\n"));
    let said = say(data, &["set-expiry", public, "never"]).unwrap();
    assert!(said.result.ends_with("'Ann', \"desk 5\": never.\n"), "{}", said.result);
    let row = row(data);
    assert!(row.contains("pro ") && row.contains(" -  ") && row.ends_with("desk 5"), "{row}");

    assert!(say(data, &["set-tier", public, "gold"]).unwrap_err().contains("choose one of free, basic"));
    assert!(say(data, &["set-expiry", public, "2020-01-01"]).unwrap_err().contains("revoke"));
    assert!(parse(&["add", "--expires", "soon"]).unwrap_err().contains("write it like 2027-01-31"));
    say(data, &["revoke", public]).unwrap();
    for line in [["set-tier", public, "free"], ["note", public, "x"], ["set-expiry", public, "1h"]] {
        assert!(say(data, &line).unwrap_err().contains("was revoked at"), "{line:?}");
    }
}

#[test]
fn a_rotation_prints_a_new_token_and_names_the_old_one_while_it_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    let old = say(data, &["add", "--account", "Ann"]).unwrap().result;
    let said = say(data, &["rotate", &old[..16], "--overlap", "2h"]).unwrap();
    let new = Token::parse(said.result.trim_end().as_bytes()).unwrap().reveal();
    assert_ne!(new[..16], old[..16]);
    assert!(said.remark.contains(&format!(
        "{}… of account 'Ann'; {}… goes on until ",
        &new[..16],
        &old[..16]
    )));
    let listed = say(data, &["list"]).unwrap().result;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[1].starts_with(&new[..16]) && lines[1].contains(" live "), "{listed}");
    assert!(lines[2].starts_with(&old[..16]) && lines[2].contains(" replaced "), "{listed}");

    // The key still goes by its old name. A rotation without overlap ends that.
    let said = say(data, &["rotate", old.trim_end(), "--overlap", "0s"]).unwrap();
    assert!(said.remark.contains("the old one ends within two seconds"), "{}", said.remark);
    assert_eq!(say(data, &["list"]).unwrap().result.lines().count(), 2);
    assert!(say(data, &["revoke", &old[..16]]).unwrap_err().contains("no key begins"));
    say(data, &["revoke", said.result.trim_end()]).unwrap();
    assert!(say(data, &["rotate", said.result.trim_end()]).unwrap_err().contains("was revoked"));
}

#[test]
fn tiers_are_listed_made_and_changed() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    say(data, &["add"]).unwrap();
    let listed = say(data, &["tiers"]).unwrap().result;
    assert!(
        listed
            .starts_with("TIER      QPS        BURST      MONTHLY\nfree      10         20         100000\n")
    );
    assert!(listed.contains("stress    100000     100000     -\n"), "{listed}");
    assert!(listed.ends_with("partner   unlimited  unlimited  unlimited\n"), "{listed}");

    let said = say(data, &["tiers", "set", "gold", "--qps", "500", "--monthly", "9000"]).unwrap();
    assert_eq!(said.result, "Made tier gold: 500 a second, 500 at once, 9000 a month.\n");
    let said = say(data, &["tiers", "set", "free", "--qps", "5", "--burst", "50"]).unwrap();
    assert_eq!(said.result, "Changed tier free: 5 a second, 50 at once, no monthly cap.\n");
    let said = say(data, &["tiers", "set", "basic", "--unlimited"]).unwrap();
    assert!(said.result.contains("unlimited, counted") && said.remark.contains("two seconds"));
    let tiers: serde_json::Value =
        serde_json::from_str(&say(data, &["tiers", "--json"]).unwrap().result).unwrap();
    assert_eq!(tiers[0]["name"], "free");
    assert_eq!((&tiers[0]["qps"], &tiers[0]["burst"]), (&5.into(), &50.into()));
    say(data, &["add", "--tier", "gold"]).unwrap();

    assert!(say(data, &["tiers", "set", "none", "--qps", "0"]).unwrap_err().contains("would admit nothing"));
    assert!(say(data, &["tiers", "set", "", "--qps", "1"]).unwrap_err().contains("tier's name"));
    assert!(parse(&["tiers", "set", "x"]).is_err());
    assert!(parse(&["tiers", "set", "x", "--unlimited", "--qps", "1"]).is_err());
}
