//! The stage of the start that looks at the machine: how many of its settings differ from what helps.
//!
//! The check is a shell's work of a few tenths of a second. A thread of its own waits for it, so that
//! neither the start nor the end of the process does.

use std::io;
use std::process::Stdio;

use beast::config::Config;
use beast::host;
use serde::Deserialize;

/// What `check --json` prints, as far as it is counted.
#[derive(Deserialize)]
struct Report {
    environment: String,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    stage: String,
    status: String,
}

/// Begins to look; `say` gets the one line that tells what was found.
pub(super) fn begin(config: &Config, say: impl FnOnce(String) + Send + 'static) {
    let (udp_port, http_port) = (config.udp_port.to_string(), config.http_port.to_string());
    let mut command = host::command(["check", "--json", "--udp-port", &udp_port, "--http-port", &http_port]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let look = move || {
        say(match command.output() {
            Ok(output) => line(&output.stdout),
            Err(error) => not_checked(&error),
        });
    };
    // Without a thread to spare the machine is worse off than any setting could make it.
    let _handle = std::thread::Builder::new().name("host-check".to_owned()).spawn(look);
}

fn not_checked(error: &io::Error) -> String {
    format!("not checked: /bin/sh cannot be run here ({error}); nothing of it is needed to answer")
}

fn line(json: &[u8]) -> String {
    let Ok(Report { environment, findings }) = serde_json::from_slice(json) else {
        return "not checked: the check broke off; beast host check shows where".to_owned();
    };
    let of = |status: &str| findings.iter().filter(|finding| finding.status == status).count();
    let (right, differing, unseen) = (of("ok"), of("differs"), of("missing"));
    let seen = right + differing;
    let unseen = match unseen {
        0 => String::new(),
        n => format!(", {n} cannot be seen from here"),
    };
    if differing == 0 {
        return format!("{environment}: {seen} settings are as they should be{unseen}");
    }
    let mut stages: Vec<&str> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.status == "differs") {
        if !stages.contains(&finding.stage.as_str()) {
            stages.push(&finding.stage);
        }
    }
    format!(
        "{environment}: {differing} of {seen} settings could be better ({}){unseen}; beast host check tells how",
        stages.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[(&str, &str)]) -> String {
        let findings: Vec<_> = findings
            .iter()
            .map(|(stage, status)| format!(r#"{{"stage":"{stage}","status":"{status}","item":"x"}}"#))
            .collect();
        format!(r#"{{"action":"check","environment":"vm","findings":[{}]}}"#, findings.join(","))
    }

    #[test]
    fn what_differs_is_counted_and_its_stages_are_named_once() {
        let found = [("a", "ok"), ("b", "differs"), ("b", "differs"), ("c", "skipped"), ("d", "missing")];
        assert_eq!(
            line(report(&found).as_bytes()),
            "vm: 2 of 3 settings could be better (b), 1 cannot be seen from here; beast host check tells how"
        );
        assert_eq!(line(report(&found[..1]).as_bytes()), "vm: 1 settings are as they should be");
        assert!(line(b"{").starts_with("not checked: "));
    }

    #[test]
    fn the_check_of_this_machine_is_understood() {
        let (sender, told) = std::sync::mpsc::channel();
        begin(&Config::default(), move |line| sender.send(line).unwrap());
        let line = told.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        assert!(line.contains("settings "), "{line}");
    }
}
