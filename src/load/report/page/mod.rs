//! One self-contained page: no script, no font, nothing that is fetched; readable on a phone, in the
//! dark and by a screen reader.

mod figure;
mod format;
mod plot;
mod plots;
mod sections;
mod verdict;

use std::fmt::Write as _;
use std::io;

pub use verdict::verdict_page;

use figure::Subject;

use crate::load::result::RunResult;

const STYLE: &str = include_str!("style.css");

/// Most runs on one page: there are so many colours that can be told apart.
pub const RUNS_MAX: usize = plot::COLOURS;

/// The page of a run, or of several beside each other, the first of which is what the others are
/// compared with.
///
/// # Errors
/// `InvalidInput` without a run or with too many, `InvalidData` when a histogram cannot be decoded.
pub fn page(runs: &[RunResult]) -> io::Result<String> {
    if runs.is_empty() || runs.len() > RUNS_MAX {
        let what = format!("{} runs were given, a page shows 1 to {RUNS_MAX}", runs.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let subjects: Vec<Subject<'_>> =
        runs.iter().enumerate().map(|(n, run)| Subject::new(n, run)).collect::<Result<_, _>>()?;
    let title = match &subjects[..] {
        [one] => format!("{} – beast load", one.run.name),
        several => format!("{} runs compared – beast load", several.len()),
    };
    let mut body = String::new();
    body.push_str(&sections::header(&subjects));
    body.push_str(&sections::warnings(&subjects));
    body.push_str(&sections::summary(&subjects));
    body.push_str(&plots::percentiles(&subjects)?);
    body.push_str(&plots::over_time(&subjects)?);
    body.push_str(&sections::ramps(&subjects));
    body.push_str(&plots::knees(&subjects));
    body.push_str(&sections::endurance(&subjects));
    body.push_str(&sections::ledger(&subjects));
    body.push_str(&sections::fingerprint(&subjects));
    Ok(document(&title, "report.json", super::SCHEMA, &body))
}

/// A whole document around a body.
fn document(title: &str, file: &str, schema: &str, body: &str) -> String {
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let _ = write!(
        out,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n\
         <footer>Made by beast {}. Every figure here stands in <code>{file}</code> \
         (schema <code>{}</code>) under the path that its element names.</footer>\n</body>\n</html>\n",
        format::escaped(title),
        env!("CARGO_PKG_VERSION"),
        format::escaped(schema),
    );
    out
}
