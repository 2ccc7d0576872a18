//! What a run leaves behind, for people and for other tools.
//!
//! ```text
//!              ┌─► report.json          everything, in numbers; a page is made from nothing else
//! RunResult ───┼─► latency.hgrm         percentiles as text, for HdrHistogram's plotters
//!              ├─► intervals.hlog       compressed V2 histogram log, for HdrHistogram's tools
//!              └─► report.html          one page without scripts, fonts or anything from elsewhere
//! report.json … ─► comparison page
//! ```

mod interval_log;
mod page;
mod percentiles;
pub mod verdict;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use interval_log::write_log;
pub use page::{RUNS_MAX, page, verdict_page};
pub use percentiles::write_percentiles;

use super::result::RunResult;
use verdict::{VERDICT_FILES, Verdict};

/// Names the meaning of all members of `report.json`. Members may be added under the same name.
pub const SCHEMA: &str = "beast-load/1";

/// Names of the files in a report's folder.
pub const FILES: [&str; 4] = ["report.json", "latency.hgrm", "intervals.hlog", "report.html"];

/// A run as its file holds it.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    run: &'a RunResult,
}

/// The text of `report.json`.
///
/// # Errors
/// When a member has no JSON form, which no run has.
pub fn to_json(run: &RunResult) -> io::Result<String> {
    let mut text = serde_json::to_string_pretty(&Document { schema: SCHEMA, run })?;
    text.push('\n');
    Ok(text)
}

/// Reads what [`to_json`] has written.
///
/// # Errors
/// `InvalidData` when it is not JSON, not of [`SCHEMA`], or incomplete, with what was found.
pub fn from_json(text: &str) -> io::Result<RunResult> {
    let value: Value = serde_json::from_str(text).map_err(|e| invalid(format!("it is not JSON: {e}")))?;
    match value.get("schema").and_then(Value::as_str) {
        Some(SCHEMA) => {}
        Some(other) => return Err(invalid(format!("its schema is {other:?}, needs {SCHEMA:?}"))),
        None => return Err(invalid(format!("it has no schema, needs {SCHEMA:?}"))),
    }
    let run: RunResult = serde_json::from_value(value).map_err(|e| invalid(format!("not a run: {e}")))?;
    run.latency.decode().map_err(invalid)?;
    Ok(run)
}

/// A folder that can take a report: made when missing, and proved by a file that is written and
/// removed, and by opening the files of an earlier report, which stay as they are. Meant to be called before a run, so that an hour is not measured in vain.
#[derive(Clone, Debug)]
pub struct ReportFolder(PathBuf);

impl ReportFolder {
    /// Makes and tries it.
    ///
    /// # Errors
    /// The kernel's, with the path in the text.
    pub fn prepare(path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("a report cannot be written to {}: {e}", path.display()))
        };
        fs::create_dir_all(path).map_err(named)?;
        let probe = path.join(".beast-probe");
        fs::write(&probe, b"x").map_err(named)?;
        fs::remove_file(&probe).map_err(named)?;
        for name in FILES.into_iter().chain(VERDICT_FILES) {
            let path = path.join(name);
            match fs::OpenOptions::new().append(true).open(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    let what = format!("a report cannot be written to {}: {e}", path.display());
                    return Err(io::Error::new(e.kind(), what));
                }
                _ => {}
            }
        }
        Ok(Self(path.to_owned()))
    }

    /// Writes all files of a report, and gives their paths in the order of [`FILES`].
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when a histogram of the run cannot be decoded.
    pub fn write(&self, run: &RunResult) -> io::Result<[PathBuf; 4]> {
        let paths = FILES.map(|name| self.0.join(name));
        let [json, hgrm, log, html] = &paths;
        fs::write(json, to_json(run)?)?;
        let mut text = Vec::new();
        write_percentiles(&run.latency.decode().map_err(invalid)?, &mut text)?;
        fs::write(hgrm, text)?;
        let mut text = Vec::new();
        write_log(run, &mut text)?;
        fs::write(log, text)?;
        fs::write(html, page(std::slice::from_ref(run))?)?;
        Ok(paths)
    }

    /// Writes both files of a verdict, and gives their paths in the order of
    /// [`VERDICT_FILES`].
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub fn write_verdict(&self, verdict: &Verdict) -> io::Result<[PathBuf; 2]> {
        let paths = VERDICT_FILES.map(|name| self.0.join(name));
        fs::write(&paths[0], verdict.to_json()?)?;
        fs::write(&paths[1], verdict_page(verdict)?)?;
        Ok(paths)
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
