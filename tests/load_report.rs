//! What `beast load` leaves behind: read back by tools that are not ours, and opened in a real
//! browser.

#[path = "support/example_run.rs"]
mod example_run;

use std::path::{Path, PathBuf};

use beast::load::report::{self, ReportFolder};
use beast::load::result::RunResult;

/// A folder of its own under the build folder, where a person can look at what was written.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-report").join(name);
    let _absent = std::fs::remove_dir_all(&path);
    path
}

fn examples() -> Vec<(&'static str, Vec<RunResult>)> {
    let open = example_run::open("udp v2, uring", 27.0, 1);
    let other = example_run::open("udp v2, portable", 33.0, 2);
    vec![
        ("open", vec![open.clone()]),
        ("ramp", vec![example_run::ramp()]),
        ("endurance", vec![example_run::endurance()]),
        ("unanswered", vec![example_run::unanswered()]),
        ("compared", vec![open, other, example_run::ramp()]),
    ]
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    for (name, runs) in examples() {
        let written = &runs[0];
        let paths = ReportFolder::prepare(&folder(name)).unwrap().write(written).unwrap();
        let read = report::from_json(&std::fs::read_to_string(&paths[0]).unwrap()).unwrap();
        assert!(read == *written, "{name} is not what was written");
        if runs.len() > 1 {
            std::fs::write(&paths[3], report::page(&runs).unwrap()).unwrap();
        }
    }
}
