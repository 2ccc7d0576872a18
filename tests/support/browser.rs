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

/// Opens a page and holds every figure of its document against the JSON it names.
pub(crate) fn hold_figures_against_json(name: &str, page: &Path, documents: &[Value]) {
    let Some(seen) = open(page) else { return };
    assert_eq!(seen.console, Vec::<String>::new(), "{name} writes to the console");
    assert_eq!(seen.requests, Vec::<String>::new(), "{name} asks the network");
    let mut figures = 0;
    for figure in seen.dom.split("<data ").skip(1) {
        let (attributes, rest) = figure.split_once('>').unwrap();
        let attribute = |name: &str| {
            let (_, value) = attributes.split_once(&format!("{name}=\"")).unwrap();
            value.split_once('"').unwrap().0
        };
        let (run, path) = (attribute("data-run").parse::<usize>().unwrap(), attribute("data-at"));
        let value = documents[run].pointer(path).unwrap_or_else(|| panic!("{name}: the JSON has no {path}"));
        assert_eq!(value.to_string(), attribute("value"), "{name} {path}");
        // What is read agrees with what is meant, to the three digits that are shown.
        let text = rest.split_once("</data>").unwrap().0;
        let shown = number(text);
        let meant = value.as_f64().unwrap();
        if let Some(shown) = shown {
            let fits = [1.0, 1e-3, 1e-6, 1e-9, 100.0, 1e3, 1.0 / 1024.0, 1.0 / 1_048_576.0]
                .iter()
                .any(|unit| (shown - meant * unit).abs() <= (meant * unit).abs() * 0.006 + 1e-9);
            assert!(fits, "{name} {path}: {text} is not {meant}");
        }
        figures += 1;
    }
    assert!(figures > 20, "{name} has {figures} figures");
}

/// The number a figure begins with; `None` for one in words or of two parts.
fn number(text: &str) -> Option<f64> {
    let first = text.split([' ', '/']).next()?;
    let whole = text.split(' ').count() <= 2;
    first.replace(',', "").parse().ok().filter(|_| whole)
}
