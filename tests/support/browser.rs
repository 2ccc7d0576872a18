//! A page in a real headless Chromium: what its document became, what it wrote to the console, and
//! what it asked the network for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What came of opening a page.
pub(crate) struct Seen {
    /// The document after it was loaded.
    pub(crate) dom: String,
    /// Lines of the console.
    pub(crate) console: Vec<String>,
    /// Addresses the page asked for.
    pub(crate) requests: Vec<String>,
}

/// The browser; `None` where there is none, which only a developer's machine may say.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        let what = "no Chromium on the path; check.sh installs it";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what}");
        eprintln!("not tested: {what}");
    }
    found
}

/// Opens a page with a profile of its own.
pub(crate) fn open(page: &Path) -> Option<Seen> {
    let chromium = chromium()?;
    let profile = tempfile::tempdir().unwrap();
    let log = profile.path().join("net.json");
    let output = Command::new("timeout")
        .arg("60")
        .arg(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        // Whatever the browser itself would like to ask, it reaches nobody.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND")
        .arg("--enable-logging=stderr")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.canonicalize().unwrap().display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the browser ended with {}: {said}", output.status);
    let dom = String::from_utf8(output.stdout).unwrap();
    assert!(dom.contains("</html>"), "no document came: {said}");
    let console = said.lines().filter(|line| line.contains(":CONSOLE:")).map(str::to_owned).collect();
    Some(Seen { dom, console, requests: requests(&std::fs::read_to_string(log).unwrap()) })
}

/// Addresses in a network log that were asked for by a page. What the browser asks for by itself
/// has no origin.
fn requests(log: &str) -> Vec<String> {
    let log: Value = serde_json::from_str(log).unwrap();
    let events = log["events"].as_array().unwrap();
    assert!(!events.is_empty(), "the browser kept no log of its network");
    let of_page = |event: &&Value| {
        event["params"]["initiator"].as_str().is_some_and(|initiator| initiator != "not an origin")
    };
    events.iter().filter(of_page).map(|event| event["params"]["url"].to_string()).collect()
}
