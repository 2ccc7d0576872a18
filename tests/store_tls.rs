//! The store on a PostgreSQL server that takes encrypted connections only.

#[path = "support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests inside src")]
mod postgres;

use std::path::PathBuf;

use beast::store::{Store, StoreOptions, StoreUrl};

#[test]
fn a_server_is_believed_by_its_certificate_alone() {
    let Some(server) = postgres::Server::start() else { return };
    let database = server.new_database();
    let name = database.split(['/', '?']).nth(3).unwrap().to_owned();
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let port = server.listen_encrypted(&certified.cert.pem(), &certified.signing_key.serialize_pem());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certified.cert.pem()).unwrap();
    let data = folder.path().join("data");
    let open = |mode: &str, ca_file: Option<PathBuf>| {
        let url = StoreUrl::parse(&format!("postgres://postgres@127.0.0.1:{port}/{name}{mode}"));
        assert!(url.is_some());
        Store::open(StoreOptions { url, ca_file, ..StoreOptions::from(&data) }).map(|store| store.name())
    };

    let name = open("?sslmode=require", Some(ca_file.clone())).unwrap();
    assert!(name.contains(&format!("127.0.0.1:{port}")), "{name}");

    // Nobody vouches for it: not the web's authorities.
    let error = open("?sslmode=require", None).unwrap_err();
    let said = format!("{}; {}", error.what(), error.cure());
    assert!(said.contains("certificate") && said.contains("store.ca_file"), "{said}");

    // On loopback nothing is encrypted unless it is asked for, and this server wants it.
    for mode in ["", "?sslmode=disable"] {
        let error = open(mode, Some(ca_file.clone())).unwrap_err();
        let said = format!("{}; {}", error.what(), error.cure());
        assert!(said.contains("no encryption") && said.contains("sslmode=require"), "{said}");
    }
}
