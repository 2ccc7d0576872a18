//! The program as an operator meets it: arguments, environment, exit codes, messages.

use std::process::{Command, Output, Stdio};

/// Runs the program in an empty folder with nothing of ours in its environment.
fn beast(args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(folder.path()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "reading arguments left files behind");
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn the_configuration_is_shown_with_its_origins() {
    let (exit, out, err) = beast(&["config", "print", "--sim"], &[("BEAST_UDP_PORT", "5")]);
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(out.contains("udp_port = 5 ") && out.contains("# env BEAST_UDP_PORT"), "{out}");
    assert!(
        out.lines().any(|line| line.starts_with("sim = true") && line.ends_with("# flag --sim")),
        "{out}"
    );
    let (_, json, _) = beast(&["config", "print", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["settings"][0]["key"], "data_dir");
}

#[test]
fn the_default_file_can_be_used_as_it_is() {
    let (exit, text, _) = beast(&["config", "print", "--default"], &[]);
    assert_eq!(exit, 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let (exit, out, err) = beast(&["config", "print"], &[("BEAST_CONFIG", path)]);
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(out.contains(&format!("# {path}:")), "{out}");
}

#[test]
fn what_is_wrong_is_said_at_once_with_its_cure() {
    let (exit, out, err) =
        beast(&["config", "print", "--udp-port", "70000", "--set", "drain=1"], &[("BEAST_LISTN", "::")]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert_eq!(
        err,
        "error: BEAST_LISTN is set in the environment, but there is no such setting\n  \
         what to do: unset it; the nearest one is BEAST_LISTEN, and `beast config print` lists all\n\
         error: --set drain: there is no setting drain\n  \
         what to do: the nearest one is drain_s; `beast config print --default` describes all\n\
         error: --udp-port is \"70000\", needs a port, 0 to 65535\n  \
         what to do: correct --udp-port, or leave it out; the default is 2679\n"
    );
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    assert_eq!(beast(&[], &[]).0, 2);
    assert_eq!(beast(&["conifg"], &[]).0, 2);
    assert_eq!(beast(&["config", "print", "--nonsense"], &[]).0, 2);
    assert_eq!(beast(&["--help"], &[]).0, 0);
    let (exit, out, _) = beast(&["--version"], &[]);
    assert_eq!((exit, out), (0, format!("beast {}\n", env!("CARGO_PKG_VERSION"))));
}
