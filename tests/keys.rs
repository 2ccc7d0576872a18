//! `beast keys` as separate processes, beside a store that a server would hold open.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use beast::account::Token;
use beast::store::Store;

fn start(data: &Path, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_beast"))
        .env_clear()
        .arg("keys")
        .args(words)
        .arg("--data")
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(data: &Path, words: &[&str]) -> Output {
    start(data, words).wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn processes_that_start_at_once_share_one_new_folder() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let children: Vec<Child> = (0..6).map(|_| start(&data, &["add", "--note", "race"])).collect();
    let mut tokens = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("cannot be shown again"));
        tokens.push(Token::parse(text(&output.stdout).trim_end().as_bytes()).unwrap());
    }
    let keys = Store::open(&data).unwrap().load_keys().unwrap();
    assert_eq!(keys.len(), tokens.len());
    for token in &tokens {
        let key = keys.iter().find(|key| key.public_id == token.public_id()).unwrap();
        assert!(key.secret_hash.matches(&token.secret_hash()) && key.v2_request == token.v2_request_key());
    }
}

#[test]
fn a_server_sees_what_another_process_changes() {
    let home = tempfile::tempdir().unwrap();
    let server = Store::open(home.path()).unwrap();
    let empty = server.keys_version().unwrap();

    let added = run(home.path(), &["add", "--tier", "pro"]);
    let token = text(&added.stdout).trim_end();
    let with_key = server.keys_version().unwrap();
    assert_ne!(with_key, empty);
    assert_eq!(server.load_keys().unwrap()[0].tier.name, "pro");

    let listed = run(home.path(), &["list"]);
    assert!(text(&listed.stdout).contains(&token[..16]) && !text(&listed.stdout).contains(&token[16..]));
    assert_eq!(server.keys_version().unwrap(), with_key);

    let revoked = run(home.path(), &["revoke", &token[..16]]);
    assert!(text(&revoked.stdout).starts_with(&format!("Revoked {}", &token[..16])));
    assert_ne!(server.keys_version().unwrap(), with_key);
    assert!(server.load_keys().unwrap().is_empty());
}

#[test]
fn mistakes_end_with_a_status_and_a_cure() {
    let home = tempfile::tempdir().unwrap();
    for (words, status, said) in [
        (vec!["list"], 1, "what to do: name the server's data folder with --data"),
        (vec!["add", "--tier", "gold"], 2, "what to do: choose one of free, basic"),
        (vec!["add", "--network", "10.0.0.0/40"], 2, "write it like 10.0.0.0/8"),
        (vec!["revoke", "tb_"], 2, "the beginning of a key is needed"),
        (vec!["revoke", "tb_0"], 1, "no key begins with tb_0"),
    ] {
        let output = run(home.path(), &words);
        assert_eq!(output.status.code(), Some(status), "{words:?}");
        assert!(text(&output.stderr).contains(said), "{words:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
