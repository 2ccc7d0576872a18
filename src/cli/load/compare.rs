//! `beast load compare`: several runs on one page.

use std::fs;
use std::path::PathBuf;

use beast::load::report::{RUNS_MAX, from_json, page};
use clap::Args;

use super::super::{Failure, Outcome, print};

/// Arguments of `beast load compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Reports to compare, report.json of each; the others are compared with the first
    #[arg(value_name = "REPORT", required = true, num_args = 1..)]
    reports: Vec<PathBuf>,

    /// The page
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    out: PathBuf,
}

/// Writes the page.
pub(super) fn run(args: &CompareArgs) -> Outcome {
    if args.reports.len() > RUNS_MAX {
        let what = format!("{} reports were given, a page shows at most {RUNS_MAX}", args.reports.len());
        return Err(Failure::usage(what, "give fewer").into());
    }
    let mut runs = Vec::new();
    let mut failures = Vec::new();
    for path in &args.reports {
        let path = if path.is_dir() { path.join("report.json") } else { path.clone() };
        let read = fs::read_to_string(&path).and_then(|text| from_json(&text));
        match read {
            Ok(run) => runs.push(run),
            Err(e) => failures.push(Failure::usage(
                format!("{} is no report: {e}", path.display()),
                "name a report.json that beast load --report has written, or its folder",
            )),
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let text = page(&runs).map_err(|e| Failure::runtime(e.to_string(), "run the load again"))?;
    fs::write(&args.out, text).map_err(|e| {
        Failure::runtime(
            format!("{} cannot be written: {e}", args.out.display()),
            "name another file by --out",
        )
    })?;
    print(&format!("wrote {}\n", args.out.display()))?;
    Ok(())
}
