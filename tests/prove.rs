//! `beast prove`, in its smallest size. Whether targets are reached is not looked at here: that needs
//! a machine that does nothing else.

#[path = "support/browser.rs"]
mod browser;

use std::path::Path;
use std::process::Command;

use beast::load::report::verdict::Verdict;

#[test]
fn a_verdict_is_written_its_books_close_and_its_page_says_what_its_json_does() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdict");
    let _absent = std::fs::remove_dir_all(&folder);
    let output = Command::new("timeout")
        .args(["120", env!("CARGO_BIN_EXE_beast"), "prove", "--quick", "--pairs", "1"])
        .args(["--io", "portable", "--protocols", "v2,http", "--report"])
        .arg(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let text = std::fs::read_to_string(folder.join("verdict.json"));
    let text = text.unwrap_or_else(|e| panic!("no verdict: {e}; it said {said}"));
    let verdict: Verdict = serde_json::from_str(&text).unwrap();
    assert_eq!(verdict.passed(), output.status.success(), "{said}");
    assert_eq!(verdict.throughput.len(), 2, "{said}");
    assert!(verdict.throughput.iter().all(|entry| entry.answers_per_s.value > 0.0));
    assert!(verdict.figures.iter().any(|figure| figure.target_max == Some(1.12)));
    assert_eq!(verdict.books.len(), 1);
    assert!(verdict.books[0].sent > 0);
    assert!(verdict.books[0].pass, "{:?}", verdict.books[0]);
    let document = serde_json::from_str(&text).unwrap();
    browser::hold_figures_against_json("verdict", &folder.join("verdict.html"), &[document]);
}

#[test]
fn a_folder_that_takes_no_verdict_is_found_before_anything_is_measured() {
    let output = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_beast"), "prove", "--quick", "--report", "/proc/verdict"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/proc/verdict") && said.contains("what to do:"), "{said}");
}
