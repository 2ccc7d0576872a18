use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::testing::{Home, on_each_engine};
use super::*;
use crate::account::{KeyTable, PUBLIC_TEXT_LEN, Recognizer, Token};
use crate::time::MonoNs;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub(super) fn execute(store: &Store, sql: &str, params: &[Value]) {
    store.lend("test").unwrap().execute(sql, params).unwrap();
}

pub(super) fn new_key(account: &str, tier: &str) -> NewKey {
    NewKey {
        account: account.to_owned(),
        tier: tier.to_owned(),
        networks: Vec::new(),
        note: String::new(),
        admin: false,
        expires: None,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

pub(super) fn failure<T>(result: Result<T, StoreError>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn a_connection_to_postgres_keeps_few_statements_however_many_there_are() {
    let Some(server) = postgres::shared() else { return };
    let store = Home::postgres(server).open();
    let mut db = store.lend("test").unwrap();
    for n in 0..200 {
        assert_eq!(db.query_one(&format!("SELECT {n}"), &[]).unwrap().int::<u32>(0).unwrap(), n);
    }
    let kept: u32 = db.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).unwrap().int(0).unwrap();
    assert!((1..=64).contains(&kept), "{kept}");
}

#[test]
fn a_key_survives_a_restart_as_it_was_made() {
    on_each_engine(|home| {
        let store = home.open();
        let new = NewKey { networks: vec!["192.0.2.0/24".parse().unwrap()], ..new_key("Ann", "stress") };
        let token = store.add_key(&new).unwrap();
        drop(store);
        let keys = home.open().load_keys().unwrap();
        let [key] = keys.as_slice() else { panic!("{keys:?}") };
        assert_eq!((key.number, key.account, key.public_id), (1, 1, token.public_id()));
        assert!(key.secret_hash.matches(&token.secret_hash()));
        assert!(key.v2_request == token.v2_request_key() && key.v2_answer == token.v2_answer_key());
        assert_eq!((key.tier.name.as_str(), key.tier.qps, key.tier.burst), ("stress", 100_000, 100_000));
        assert_eq!((key.tier.unlimited, key.tier.monthly), (false, None));
        assert!(key.v1_allowed_from(IpAddr::from([192, 0, 2, 9])));

        let table = KeyTable::new(keys);
        let mut recognizer = Recognizer::new([0; 16], &table);
        assert!(recognizer.recognize(&table, token.reveal().as_bytes(), MonoNs(0)).is_ok());
    });
}

#[test]
fn nothing_is_readable_by_others_and_no_secret_is_written() {
    let home = folder();
    let data = home.path().join("deep/data");
    let store = Store::open(&data).unwrap();
    let token = store.add_key(&new_key("Ann", "free")).unwrap();
    assert_eq!(mode(&data), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        let bytes = fs::read(&path).unwrap();
        let secret = token.reveal()[PUBLIC_TEXT_LEN..42].to_owned();
        for hidden in [secret.as_bytes(), &token.v2_request_key().0, &token.v2_answer_key().0] {
            assert!(!bytes.windows(hidden.len()).any(|w| w == hidden), "{path:?}");
        }
        files += 1;
    }
    assert!(files >= 3, "database, its log and the instance key");
    assert!(format!("{store:?}").contains("InstanceKey(redacted)"));
    drop(store);

    fs::set_permissions(data.join("beast.sqlite"), Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&data).unwrap());
    assert_eq!(mode(&data.join("beast.sqlite")), 0o600);
}

#[test]
fn an_instance_key_that_others_may_read_is_refused() {
    on_each_engine(|home| {
        drop(home.open());
        let path = home.path().join("instance.key");
        assert_eq!(fs::read(&path).unwrap().len(), 32);
        for wide in [0o640, 0o604, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
            let error = failure(Store::open(home.options()));
            assert!(error.contains(&format!("has mode {wide:04o}, needs 0600")), "{error}");
            assert!(error.contains(&format!("chmod 600 '{}'", path.display())), "{error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        drop(home.open());
    });
}

#[test]
fn a_missing_or_wrong_instance_key_is_refused_until_no_key_needs_it() {
    on_each_engine(|home| {
        let store = home.open();
        let token = store.add_key(&new_key("Ann", "free")).unwrap();
        drop(store);
        let path = home.path().join("instance.key");
        let right = fs::read(&path).unwrap();

        fs::remove_file(&path).unwrap();
        let error = failure(Store::open(home.options()));
        assert!(
            error.contains("is missing") && error.contains("backup") && error.contains("revoke"),
            "{error}"
        );
        assert!(!path.exists(), "no new key may take the place of the lost one");

        for wrong in [vec![7; 32], right[..31].to_vec(), [&right[..], &[0]].concat()] {
            fs::write(&path, wrong).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = failure(Store::open(home.options()));
            assert!(error.contains("does not open the keys"), "{error}");
        }
        fs::write(&path, &right).unwrap();
        assert_eq!(home.open().load_keys().unwrap().len(), 1);

        fs::remove_file(&path).unwrap();
        let store = Store::open_existing(home.options()).unwrap();
        assert!(failure(store.add_key(&new_key("Ann", "free"))).contains("is missing"));
        assert!(failure(store.load_keys()).contains("is missing"));
        store.revoke(&public_text(&token)).unwrap();
        drop(store);
        let store = home.open();
        assert_ne!(fs::read(&path).unwrap(), right);
        store.add_key(&new_key("Ann", "free")).unwrap();
        assert_eq!(store.load_keys().unwrap().len(), 1);
    });
}

fn public_text(token: &Token) -> String {
    token.reveal()[..PUBLIC_TEXT_LEN].to_owned()
}

#[test]
fn a_sealed_key_belongs_to_its_own_row() {
    on_each_engine(|home| {
        let store = home.open();
        let tokens = [
            store.add_key(&new_key("Ann", "free")).unwrap(),
            store.add_key(&new_key("Ann", "free")).unwrap(),
        ];
        execute(
            &store,
            "UPDATE keys SET v2_sealed = (SELECT v2_sealed FROM keys WHERE id = 1) WHERE id = 2",
            &[],
        );
        let error = failure(store.load_keys());
        assert!(error.contains(&format!("beast keys revoke {}", public_text(&tokens[1]))), "{error}");
        store.revoke(&tokens[1].reveal()).unwrap();
        assert_eq!(store.load_keys().unwrap().len(), 1);
    });
}

#[test]
fn a_newer_schema_is_refused() {
    on_each_engine(|home| {
        let store = home.open();
        execute(&store, "INSERT INTO schema_version VALUES (9, 0)", &[]);
        drop(store);
        for error in [failure(Store::open(home.options())), failure(Store::open_existing(home.options()))] {
            assert!(
                error.contains(&format!(
                    "schema version 9, this beast knows versions up to {}; run the newer beast",
                    schema::VERSION
                )),
                "{error}"
            );
        }
    });
}

#[test]
fn each_step_of_the_schema_is_taken_once() {
    on_each_engine(|home| {
        for _ in 0..3 {
            let store = home.open();
            let steps = "SELECT count(*), max(version) FROM schema_version";
            let row = store.lend("test").unwrap().query_one(steps, &[]).unwrap();
            let steps = u32::try_from(schema::VERSION).unwrap();
            assert_eq!((row.int(0).unwrap(), row.int(1).unwrap()), (steps, steps));
        }
    });
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let home = folder();
    let path = home.path().join("beast.sqlite");
    fs::write(&path, "not a database at all, but long enough to have a header ".repeat(20)).unwrap();
    let error = failure(Store::open(home.path()));
    assert!(error.contains("not a whole database: restore it"), "{error}");
    assert!(fs::read(&path).unwrap().starts_with(b"not a database"));

    let error = failure(Store::open(&path));
    assert!(error.contains("make it a folder") && error.contains("--data"), "{error}");
    assert!(failure(Store::open_existing(&home.path().join("none"))).contains("there is no beast.sqlite"));
}

#[test]
fn epochs_rise_and_survive() {
    on_each_engine(|home| {
        assert_eq!(home.open().next_epoch().unwrap(), 1);
        let store = home.open();
        assert_eq!(store.next_epoch().unwrap(), 2);
        execute(&store, "UPDATE instance SET value = ?1 WHERE name = 'epoch'", &[u32::MAX.into()]);
        assert!(failure(store.next_epoch()).contains("cannot count this start"));
    });
}

#[test]
fn many_may_open_a_new_folder_at_once() {
    on_each_engine(|home| {
        let epochs: Vec<u32> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let store = home.open();
                        store.add_key(&new_key("Ann", "free")).unwrap();
                        store.next_epoch().unwrap()
                    })
                })
                .collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        let mut sorted = epochs.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=8).collect::<Vec<_>>(), "no number twice");
        let keys = home.open().load_keys().unwrap();
        assert_eq!(keys.len(), 8, "all sealed under one instance key");
        assert!(keys.iter().all(|key| key.account == 1));
    });
}

#[test]
fn a_change_by_one_connection_is_seen_by_another() {
    on_each_engine(|home| {
        let office = home.open();
        let server = home.open();
        let mut seen = server.keys_version().unwrap();
        let mut changed = || {
            let now = server.keys_version().unwrap();
            std::mem::replace(&mut seen, now) != now
        };
        assert!(!changed());
        let token = office.add_key(&new_key("Ann", "free")).unwrap();
        assert!(changed() && !changed());
        assert_eq!(server.load_keys().unwrap().len(), 1);
        office.next_epoch().unwrap();
        assert!(!changed());
        assert!(!office.revoke(&public_text(&token)).unwrap().already);
        assert!(changed() && !changed());
        assert!(server.load_keys().unwrap().is_empty());
        assert!(office.revoke(&public_text(&token)).unwrap().already);
        assert!(!changed(), "nothing was changed");
        execute(&office, "UPDATE tiers SET qps = 11 WHERE name = 'free'", &[]);
        assert!(changed());
    });
}

#[test]
fn numbers_are_never_used_again() {
    on_each_engine(|home| {
        let store = home.open();
        store.add_key(&new_key("Ann", "free")).unwrap();
        store.add_key(&new_key("Bob", "free")).unwrap();
        execute(&store, "DELETE FROM keys", &[]);
        execute(&store, "DELETE FROM accounts", &[]);
        store.add_key(&new_key("Cid", "free")).unwrap();
        let keys = store.load_keys().unwrap();
        assert_eq!((keys[0].number, keys[0].account), (3, 3));
    });
}

#[test]
fn the_first_key_is_made_once_and_only_if_it_reaches_somebody() {
    on_each_engine(|home| {
        let store = home.open();
        assert!(store.first_key(|_| Err(StoreError::NoRandomness)).is_err());
        assert!(store.list_keys().unwrap().is_empty());

        let mut path = PathBuf::new();
        let token = store
            .first_key(|token| {
                path = write_first_key(home.path(), token)?;
                Ok(())
            })
            .unwrap()
            .unwrap();
        assert_eq!(path, home.path().join("first-key"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", token.reveal()));
        assert!(failure(write_first_key(home.path(), &token)).contains("is there already"));

        let row = store.list_keys().unwrap().pop().unwrap();
        assert_eq!((row.account.as_str(), row.tier.as_str(), row.admin), ("operator", "partner", true));
        assert_eq!(row.note, "made on the first start");
        let key = store.load_keys().unwrap().pop().unwrap();
        assert!(key.tier.unlimited && key.v1_allowed_from(IpAddr::from([127, 0, 0, 1])));
        assert!(!key.v1_allowed_from(IpAddr::from([203, 0, 113, 1])));

        store.revoke(&row.key).unwrap();
        let none = store.first_key(|_| panic!("there was a first key")).unwrap();
        assert_eq!(none, None);
    });
}

#[test]
fn keys_are_revoked_by_any_unmistakable_beginning() {
    on_each_engine(|home| {
        let store = home.open();
        let tokens: Vec<Token> = (0..3).map(|_| store.add_key(&new_key("Ann", "free")).unwrap()).collect();
        for (id, public_id) in
            [(1_i64, 0x0800_0000_0000_0000_i64), (2, 0x0800_0000_0000_0001), (3, 0x7000_0000_0000_0000)]
        {
            execute(&store, "UPDATE keys SET public_id = ?2 WHERE id = ?1", &[id.into(), public_id.into()]);
        }
        let keys: Vec<String> = store.list_keys().unwrap().into_iter().map(|row| row.key).collect();
        assert_eq!(keys, ["tb_0g00000000000", "tb_0g00000000001", "tb_7000000000000"]);

        let error = failure(store.revoke("tb_0g"));
        assert!(error.contains("2 keys begin with tb_0g") && error.contains("tb_0g00000000001"), "{error}");
        assert!(failure(store.revoke("tb_4")).contains("no key begins with tb_4"));
        for nonsense in ["", "tb_", "…", "tb_7 0", "tb_70000000000000", "tb_%", "tb_é"] {
            assert!(
                failure(store.revoke(nonsense)).contains("the beginning of a key is needed"),
                "{nonsense}"
            );
        }
        let mut mistyped = tokens[0].reveal();
        mistyped.replace_range(20..21, if &mistyped[20..21] == "0" { "1" } else { "0" });
        let error = failure(store.revoke(&mistyped));
        assert!(error.contains("mistyped") && !error.contains(&mistyped[16..]), "{error}");
        assert!(store.list_keys().unwrap().iter().all(|row| row.revoked.is_none()));

        assert_eq!(store.revoke(" 7").unwrap().key.number, 3);
        assert_eq!(store.revoke("TB_0g00000000001…").unwrap_err().to_string(), failure(store.revoke("TB_x")));
        assert_eq!(store.revoke("tb_0g00000000001…").unwrap().key.number, 2);
        let last = store.revoke("tb_0G").unwrap();
        assert_eq!((last.key.number, last.already), (1, false), "the revoked one no longer counts");
        assert!(last.key.revoked.is_some());
        assert!(failure(store.revoke("tb_0g")).contains("2 keys begin"));
    });
}
