//! Figures: every number on a page is looked up in the run's JSON by its path and says so, so that a
//! page cannot say what its JSON does not.

use serde_json::Value;

use super::format;
use crate::load::result::RunResult;

/// A run on a page.
pub(super) struct Subject<'a> {
    pub(super) run: &'a RunResult,
    /// Its JSON.
    value: Value,
    /// Its place among the runs of the page.
    pub(super) index: usize,
}

impl<'a> Subject<'a> {
    pub(super) fn new(index: usize, run: &'a RunResult) -> serde_json::Result<Self> {
        Ok(Self { run, value: serde_json::to_value(run)?, index })
    }

    /// The number at that path of the JSON, as `text` puts it; a dash where there is none.
    pub(super) fn figure(&self, path: &str, text: fn(f64) -> String) -> String {
        figure(&self.value, self.index, path, text)
    }

    pub(super) fn time(&self, path: &str) -> String {
        self.figure(path, format::time)
    }

    pub(super) fn count(&self, path: &str) -> String {
        self.figure(path, format::count)
    }

    pub(super) fn rate(&self, path: &str) -> String {
        self.figure(path, format::rate)
    }

    pub(super) fn share(&self, path: &str) -> String {
        self.figure(path, format::share)
    }

    /// The name of the run, and its colour where there are several.
    pub(super) fn name(&self) -> String {
        format::escaped(&self.run.name)
    }

    /// Right answers a second while requests were sent.
    pub(super) fn answers_per_s(&self) -> f64 {
        self.run.rate_per_s()
    }
}

/// The number at a path of a document, the one of that index on the page.
pub(super) fn figure(document: &Value, index: usize, path: &str, text: fn(f64) -> String) -> String {
    match document.pointer(path) {
        Some(Value::Number(number)) => format!(
            "<data{} value=\"{number}\" data-run=\"{index}\" data-at=\"{}\">{}</data>",
            if number.as_f64() == Some(0.0) { " class=\"zero\"" } else { "" },
            format::escaped(path),
            format::escaped(&text(number.as_f64().unwrap_or(f64::NAN)))
        ),
        _ => "<span class=\"none\">–</span>".to_owned(),
    }
}

/// A verdict as a badge.
pub(super) fn badge(pass: bool) -> &'static str {
    if pass { "<b class=\"badge pass\">pass</b>" } else { "<b class=\"badge fail\">fail</b>" }
}
