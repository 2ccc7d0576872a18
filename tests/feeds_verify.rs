//! `beast feeds verify` against simulated exchanges: what works, what does not, and what is said.

use std::process::{Command, Output, Stdio};

use beast::exchange_sim::{Exchange, Sim, SimOptions};
use serde_json::Value;

/// Settings that point the program at simulated exchanges, in a hurry.
fn file(sim: &Sim) -> tempfile::NamedTempFile {
    let rows = Exchange::CURRENT.into_iter().map(|exchange| {
        format!("[feeds.{exchange}]\nurl = '{}'\nconnect_gap_ms = 10\nmsg_gap_ms = 1\n", sim.ws_url(exchange))
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rows.collect::<String>()).unwrap();
    file
}

/// Runs `beast feeds verify`: exit code, standard output, standard error.
fn verify(sim: &Sim, args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let file = file(sim);
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.args(["feeds", "verify", "--config"]).arg(file.path()).args(args);
    let Output { status, stdout, stderr } =
        command.env_clear().envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_exchange_goes_all_the_way_to_its_first_price() {
    let sim = Sim::start(SimOptions::default()).unwrap();
    let (exit, out, err) = verify(&sim, &["--json", "--timeout=60"], &[]);
    assert_eq!(exit, 0, "{out}{err}");
    let out: Value = serde_json::from_str(&out).unwrap();
    let rows = out["feeds"].as_array().unwrap();
    assert_eq!(rows.len(), Exchange::CURRENT.len());
    for row in rows {
        let connections = &row["connections"];
        assert_eq!(row["ok"], true, "{row}");
        assert_eq!(connections["needed"], connections["subscribed"], "{row}");
        assert!(row["listings"]["live"].as_u64().unwrap() > 0, "{row}");
        let exchange: Exchange = row["exchange"].as_str().unwrap().parse().unwrap();
        let symbol = row["first_price"]["symbol"].as_str().unwrap();
        assert!(sim.control().last_trades(exchange).contains_key(symbol), "{row}");
    }
}

#[test]
fn what_fails_is_named_with_its_cure_and_the_others_go_on() {
    let sim = Sim::start(SimOptions::default()).unwrap();
    sim.control().refuse_connect(Exchange::Okx, true);
    // A port that nobody listens on: bound, and released at once.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{closed}/");
    let (exit, out, err) =
        verify(&sim, &["okx", "bybit", "kraken", "--timeout=60"], &[("BEAST_FEEDS_BYBIT_URL", url.as_str())]);
    assert_eq!(exit, 1, "{out}{err}");
    let of = |name: &str| {
        let from = out.find(name).unwrap_or_else(|| panic!("{name} is missing: {out}"));
        let len = out[from..].find("\n\n").unwrap_or(out.len() - from);
        let lines = out[from..from + len].lines();
        lines
            .enumerate()
            .take_while(|(n, l)| *n == 0 || l.starts_with(' '))
            .map(|(_, l)| l)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let (okx, bybit, kraken) = (of("okx"), of("bybit"), of("kraken"));
    assert!(okx.contains("FAILED") && okx.contains("connected, not upgraded"), "{okx}");
    assert!(okx.contains("answered 503") && okx.contains("what to do: "), "{okx}");
    assert!(bybit.contains("FAILED  not connected") && bybit.contains(&url), "{bybit}");
    assert!(kraken.contains("ok") && kraken.contains("first price: "), "{kraken}");
    assert!(err.contains("2 of 3 exchanges failed: "), "{err}");
    assert!(!out.contains("coinbase"), "it was not named: {out}");
}

#[test]
fn an_exchange_without_a_word_fails_when_the_time_is_up() {
    let sim = Sim::start(SimOptions::default()).unwrap();
    sim.control().stall(Exchange::Gemini, true);
    let (exit, out, _) = verify(&sim, &["gemini", "--timeout=1"], &[]);
    assert_eq!(exit, 1, "{out}");
    assert!(out.contains("gemini") && out.contains("FAILED") && out.contains("what to do: "), "{out}");
}

#[test]
fn an_unknown_name_is_refused_with_the_right_ones() {
    let sim = Sim::start(SimOptions::default()).unwrap();
    let (exit, out, err) = verify(&sim, &["krakn"], &[]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert!(err.contains("there is no exchange \"krakn\"") && err.contains("kraken"), "{err}");
}
