//! What a program found out: lines for people, one object for machines.

use serde::Serialize;

use super::machine::Machine;
use beast::load::stats::Median;

/// One question answered.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it says.
    pub name: String,
    /// The answer.
    pub median: Median,
    /// Its unit; ratios are `times`.
    pub unit: &'static str,
    /// The most it may be, where there is such a bound.
    pub target_max: Option<f64>,
    /// Whether the median keeps to the bound.
    pub pass: Option<bool>,
}

impl Figure {
    /// A figure with an upper bound, or without.
    pub fn new(name: impl Into<String>, median: Median, unit: &'static str, target_max: Option<f64>) -> Self {
        let pass = target_max.map(|most| median.value <= most);
        Self { name: name.into(), median, unit, target_max, pass }
    }
}

/// Everything a program reports. `version` rises when a member changes its meaning.
#[derive(Debug, Serialize)]
pub struct Report<R: Serialize> {
    version: u32,
    bench: &'static str,
    machine: Machine,
    runs: Vec<R>,
    figures: Vec<Figure>,
}

impl<R: Serialize> Report<R> {
    /// Of all runs and what follows from them.
    pub fn new(bench: &'static str, machine: Machine, runs: Vec<R>, figures: Vec<Figure>) -> Self {
        Self { version: 1, bench, machine, runs, figures }
    }

    /// Prints it and tells whether every bound was kept.
    pub fn print(&self, json: bool) -> bool {
        if json {
            // Plain structs of numbers and texts always have a JSON form.
            println!("{}", serde_json::to_string_pretty(self).unwrap_or_default());
        } else {
            for figure in &self.figures {
                let Median { value, low, high, count } = figure.median;
                let verdict = match (figure.target_max, figure.pass) {
                    (Some(most), Some(true)) => format!("  at most {most}: pass"),
                    (Some(most), _) => format!("  at most {most}: FAIL"),
                    _ => String::new(),
                };
                let (name, unit) = (&figure.name, figure.unit);
                println!("{name:<58} {value:>11.3} {unit} [{low:.3}, {high:.3}] n={count}{verdict}");
            }
        }
        self.figures.iter().all(|figure| figure.pass != Some(false))
    }
}
