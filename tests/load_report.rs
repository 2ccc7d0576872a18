//! What `beast load` leaves behind: read back by tools that are not ours, and opened in a real
//! browser.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/example_run.rs"]
mod example_run;

use std::path::{Path, PathBuf};
use std::process::Command;

use beast::load::report::{self, ReportFolder};
use beast::load::result::RunResult;
use serde_json::Value;

/// A folder of its own under the build folder, where a person can look at what was written.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-report").join(name);
    let _absent = std::fs::remove_dir_all(&path);
    path
}

fn examples() -> Vec<(&'static str, RunResult)> {
    vec![
        ("open", example_run::open("udp v2, uring", 27.0, 1)),
        ("ramp", example_run::ramp()),
        ("endurance", example_run::endurance()),
        ("unanswered", example_run::unanswered()),
    ]
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    for (name, written) in examples() {
        let paths = ReportFolder::prepare(&folder(&format!("back-{name}"))).unwrap().write(&written).unwrap();
        let read = report::from_json(&std::fs::read_to_string(&paths[0]).unwrap()).unwrap();
        assert!(read == written, "{name} is not what was written");
    }
}

#[test]
fn what_is_no_report_is_refused_with_what_was_found() {
    let whole = report::to_json(&example_run::unanswered()).unwrap();
    for (text, found) in [
        ("".to_owned(), "not JSON"),
        ("{}".to_owned(), "no schema"),
        (whole.replace(report::SCHEMA, "beast-load/9"), "\"beast-load/9\", needs \"beast-load/1\""),
        (whole.replace("\"histogram\": \"H", "\"histogram\": \"!"), "base64"),
        (whole.replace("\"count\"", "\"cuont\""), "missing field `count`"),
    ] {
        let error = report::from_json(&text).unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
    }
}

#[test]
fn a_folder_that_takes_no_report_is_found_before_the_run() {
    let file = folder("a-file");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/beast-report")] {
        let error = ReportFolder::prepare(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    std::fs::remove_file(file).unwrap();

    // An earlier report of which one file cannot be written again; the others stay as they are.
    let earlier = folder("an-earlier-report");
    let _absent = std::fs::remove_dir_all(&earlier);
    std::fs::create_dir_all(earlier.join("report.html")).unwrap();
    std::fs::write(earlier.join("report.json"), "earlier").unwrap();
    let error = ReportFolder::prepare(&earlier).unwrap_err().to_string();
    assert!(error.contains("report.html"), "{error}");
    assert_eq!(std::fs::read_to_string(earlier.join("report.json")).unwrap(), "earlier");
}

#[test]
fn a_page_holds_one_to_six_runs() {
    let run = example_run::unanswered();
    assert!(report::page(&[]).is_err());
    assert!(report::page(&vec![run.clone(); report::RUNS_MAX]).is_ok());
    assert!(report::page(&vec![run; report::RUNS_MAX + 1]).unwrap_err().to_string().contains('7'));
}

/// The Python package `hdrhistogram`, which check.sh puts below the build folder.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/hdrhistogram/bin/python");
    if python.exists() {
        return Some(python);
    }
    let what = format!("{} is missing; check.sh installs it", python.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what}");
    eprintln!("not tested: {what}");
    None
}

#[test]
fn an_independent_hdrhistogram_reads_the_same_percentiles() {
    let Some(python) = python() else { return };
    for (name, run) in examples() {
        if name == "unanswered" {
            continue;
        }
        let folder = folder(&format!("hdr-{name}"));
        ReportFolder::prepare(&folder).unwrap().write(&run).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/read_histograms.py");
        let output = Command::new(&python).arg(script).arg(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();

        // The histogram inside the JSON, and the sum of the log's intervals.
        let ours = serde_json::to_value(&run.latency).unwrap();
        for which in ["whole", "summed"] {
            let theirs = &read[which];
            for figure in ["count", "max_ns", "min_ns"] {
                assert_eq!(theirs[figure], ours[figure], "{name} {which} {figure}");
            }
            let (a, b) = (theirs["mean_ns"].as_f64().unwrap(), run.latency.mean_ns);
            assert!((a / b - 1.0).abs() < 1e-9, "{name} {which}: mean {a} {b}");
            for (figure, value) in theirs["percentiles"].as_object().unwrap() {
                assert_eq!(*value, ours[figure], "{name} {which} {figure}");
            }
        }

        // Each interval of the log.
        let intervals = read["intervals"].as_array().unwrap();
        assert_eq!(intervals.len(), run.intervals.len(), "{name}");
        for (theirs, ours) in intervals.iter().zip(&run.intervals) {
            assert!((theirs["start_s"].as_f64().unwrap() - ours.start_s).abs() < 0.01, "{theirs}");
            let l = serde_json::to_value(&ours.latency).unwrap();
            for figure in ["count", "max_ns", "min_ns"] {
                assert_eq!(theirs[figure], l[figure], "{name} at {} s: {figure}", ours.start_s);
            }
            for (figure, value) in theirs["percentiles"].as_object().unwrap() {
                assert_eq!(*value, l[figure], "{name} at {} s: {figure}", ours.start_s);
            }
        }
        let started_s = read["started_s"].as_f64().unwrap();
        assert!((started_s - run.started_unix_ms as f64 / 1e3).abs() < 0.001, "{started_s}");

        // Each line of the percentile text.
        let lines = read["hgrm"].as_array().unwrap();
        assert!(lines.len() > 50, "{name}: {} lines", lines.len());
        for line in lines {
            let figures = |which: &str| {
                let pair = line[which].as_array().unwrap().iter();
                pair.map(|figure| figure.as_f64().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(figures("line"), figures("here"), "{name} at {}", line["quantile"]);
        }
    }
}

#[test]
fn the_page_opens_in_a_browser_and_its_figures_are_those_of_the_json() {
    for (name, run) in examples() {
        let paths = ReportFolder::prepare(&folder(name)).unwrap().write(&run).unwrap();
        let json = serde_json::from_str(&std::fs::read_to_string(&paths[0]).unwrap()).unwrap();
        browser::hold_figures_against_json(name, &paths[3], &[json]);
    }
}

/// A path that the JSON does not have would show as a dash.
#[test]
fn a_run_of_which_everything_is_known_shows_no_dash() {
    for run in [example_run::open("open", 27.0, 1), example_run::endurance()] {
        let page = report::page(&[run]).unwrap();
        assert!(!page.contains("class=\"none\""), "{:?}", page.split("class=\"none\"").next());
    }
}

#[test]
fn compare_takes_reports_or_their_folders_and_says_what_is_none() {
    let folder = folder("compare");
    for (name, run) in [("a", example_run::open("a", 27.0, 1)), ("b", example_run::open("b", 33.0, 2))] {
        ReportFolder::prepare(&folder.join(name)).unwrap().write(&run).unwrap();
    }
    let compare = |reports: &[&str], out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beast"));
        command.current_dir(&folder).args(["load", "compare"]).args(reports).args(["--out", out]);
        command.output().unwrap()
    };
    let output = compare(&["a", "b/report.json"], "page.html");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(folder.join("page.html")).unwrap();
    assert!(page.contains("2 runs compared"));
    for (reports, out, found) in [
        (vec!["a", "absent"], "x.html", "absent is no report"),
        (vec!["a/latency.hgrm"], "x.html", "not JSON"),
        (vec!["a"; 7], "x.html", "at most 6"),
        (vec!["a"], "absent/x.html", "cannot be written"),
    ] {
        let output = compare(&reports, out);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(found) && said.contains("what to do:"), "{said}");
    }
}

#[test]
fn a_comparison_shows_the_figures_of_every_run() {
    let runs = [
        example_run::open("udp v2, uring", 27.0, 1),
        example_run::open("udp v2, portable", 33.0, 2),
        example_run::ramp(),
    ];
    let folder = folder("compared");
    std::fs::create_dir_all(&folder).unwrap();
    let page = folder.join("compared.html");
    std::fs::write(&page, report::page(&runs).unwrap()).unwrap();
    let documents: Vec<Value> =
        runs.iter().map(|run| serde_json::from_str(&report::to_json(run).unwrap()).unwrap()).collect();
    browser::hold_figures_against_json("compared", &page, &documents);
}

#[test]
fn the_browser_tells_of_errors_and_requests() {
    let folder = folder("bad");
    std::fs::create_dir_all(&folder).unwrap();
    let page = folder.join("bad.html");
    let text = "<script>console.error('boom')</script><img src=\"http://127.0.0.1:9/x.png\">\
                <link rel=\"stylesheet\" href=\"https://fonts.example/x.css\">";
    std::fs::write(&page, text).unwrap();
    let Some(seen) = browser::open(&page) else { return };
    assert!(seen.console.iter().any(|line| line.contains("boom")), "{:?}", seen.console);
    assert_eq!(seen.requests.len(), 2, "{:?}", seen.requests);
}

#[test]
fn names_from_outside_do_not_become_markup() {
    let page = report::page(&[example_run::ramp()]).unwrap();
    assert!(page.contains("ramp &lt;b&gt;&amp;amp;") && !page.contains("ramp <b>"));
}
